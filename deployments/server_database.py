"""Prefect's database as a server leaves it at its first start: made at installation, copied into new homes.

Migrating an empty database and filling in the kinds of blocks is half of a server's first start: 5 s of 9.
The copy holds no run, no variable and no secret. Without one, or with another version of Prefect, the server
makes the database itself.

    python -m deployments.server_database
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from deployments import environment

DATABASE = "prefect.db"
FILLED = {"alembic_version", "block_schema", "block_schema_reference", "block_type"}
"""Tables with rows after a first start; in any other they would be of a run, or a secret."""
ELSEWHERE = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")


def template() -> Path:
    """Where this installation keeps it."""
    return Path(sys.prefix, "share", "overnight-ladder", f"prefect-{version('prefect')}.db")


def make(place: Path) -> None:
    """Start a server on an empty home, end it, and keep what it made.

    Raises
    ------
    ChildProcessError
        The server did not start.
    ValueError
        It left rows where none belong.
    """
    from deployments.temporary_server import TemporaryServer  # it imports this file

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        environment.prepare(home)
        database = environment.prefect_home(home) / DATABASE
        database.parent.mkdir()
        database.touch()  # SQLite takes it for an empty one, and `provide` gives it no copy
        server = TemporaryServer(home)
        try:
            server.wait_ready()
        finally:
            server.stop()
        fresh = Path(scratch, DATABASE)
        with contextlib.closing(sqlite3.connect(database)) as made:
            _refuse_rows(made)
            made.execute("VACUUM INTO ?", (str(fresh),))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        _copy(fresh, place)


def _refuse_rows(made: sqlite3.Connection) -> None:
    names = [name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        if name not in FILLED and made.execute(f'SELECT count(*) FROM "{name}"').fetchone() != (0,):
            raise ValueError(f"Prefect's first start leaves rows in {name}: they do not belong in every home")


def provide(home: Path, place: Path | None = None) -> bool:
    """Give a home without a database a copy; whether it got one."""
    source = place or template()
    target = environment.prefect_home(home) / DATABASE
    if any(os.environ.get(name) for name in ELSEWHERE) or target.exists() or not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    _copy(source, target)
    return True


def _copy(source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as beside:
        whole = Path(beside, DATABASE)
        shutil.copyfile(source, whole)
        with contextlib.suppress(FileExistsError):  # of a server that another process has just started
            os.link(whole, target)


if __name__ == "__main__":
    make(template())
