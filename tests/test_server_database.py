"""Prefect's database made beforehand: what it holds, who gets a copy, and that a server takes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import environment, server_database
from deployments.server_database import DATABASE, FILLED, provide
from tests.ladder_command import ROOT

MAKE = "import sys, pathlib; from deployments.server_database import make; make(pathlib.Path(sys.argv[1]))"
SERVE = """
import sys, pathlib
from deployments import environment, temporary_server
home = pathlib.Path(sys.argv[1])
environment.prepare(home)
server = temporary_server.TemporaryServer(home)
server.wait_ready()
server.stop()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installation makes."""
    place = tmp_path_factory.mktemp("installation") / "share" / "made.db"
    _run(MAKE, place)
    return place


def _run(code: str, argument: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    subprocess.run([sys.executable, "-c", code, str(argument)], cwd=ROOT, env=kept, check=True, timeout=240)


def filled(database: Path) -> set[str]:
    """Tables with rows."""
    with contextlib.closing(sqlite3.connect(database)) as found:
        names = [name for (name,) in found.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name for name in names if found.execute(f'SELECT count(*) FROM "{name}"').fetchone() != (0,)}


def test_it_holds_what_every_home_needs_and_a_server_takes_it_as_it_is(made: Path, tmp_path: Path) -> None:
    assert filled(made) == FILLED
    assert provide(tmp_path, made)
    database = environment.prefect_home(tmp_path) / DATABASE
    assert database.read_bytes() == made.read_bytes()
    _run(SERVE, tmp_path)
    assert filled(database) == FILLED


def test_a_home_with_a_database_keeps_it(made: Path, tmp_path: Path) -> None:
    database = environment.prefect_home(tmp_path) / DATABASE
    database.parent.mkdir()
    database.write_bytes(b"its own")
    assert not provide(tmp_path, made)
    assert database.read_bytes() == b"its own"


@pytest.mark.parametrize("name", server_database.ELSEWHERE)
def test_none_is_copied_where_the_database_is_elsewhere(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "postgresql+asyncpg://127.0.0.1/prefect")
    assert not provide(tmp_path, made)
    assert list(tmp_path.iterdir()) == []


def test_without_one_the_server_makes_its_own(tmp_path: Path) -> None:
    assert not provide(tmp_path, tmp_path / "absent")


def test_rows_of_anything_else_are_no_part_of_it() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as found:
        found.execute("CREATE TABLE configuration (key TEXT, value TEXT)")
        server_database._refuse_rows(found)
        found.execute("INSERT INTO configuration VALUES ('ENCRYPTION_KEY', 'secret')")
        with pytest.raises(ValueError, match="rows in configuration"):
            server_database._refuse_rows(found)
