"""A connection to a database file for one batch or one question, and a journal against a kill half-way.

DuckDB's checkpoint writes the blocks that hold its catalog where they are, since parts of them are free, and
only then turns to the new state in the file's header. A process that is killed in the middle of such a write
leaves a block whose checksum is wrong, and the file cannot be opened again (measured: once in some 250 kills
of writers that write all the time). So before a batch its writer keeps these blocks and the header in a
journal beside the file, as SQLite does with its rollback journal. Whoever opens the file next and finds the
header as it was puts the blocks back; what was committed since is in DuckDB's own log.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import duckdb

from lab import lock, readonly
from lab.outbox import sync_directory
from lab.template import CONFIG

HEADER_BYTES = 3 * 4096
"""The file's own header and the two that take turns; blocks follow."""
WRITE_CONFIG: dict[str, Any] = {**CONFIG, "checkpoint_threshold": "1TB"}
"""One checkpoint a connection, when it is closed: a journal holds the blocks before the first one."""
READ_CONFIG: dict[str, Any] = {**CONFIG, "enable_external_access": False, "lock_configuration": True}
_CONFLICT = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
_THIS_PROCESS = "another connection of this very process"
_PLACE = struct.Struct("<QQ")


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file, for questions.

    Raises
    ------
    lock.HeldError
        Another program, or another connection of this process, holds it.
    OSError
        It cannot be opened.
    """
    with _connected(path, read_only=True) as con:
        yield con


@contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file, for one batch, by the one process that holds the lab's lock.

    Raises
    ------
    lock.HeldError
        Another program, or another connection of this process, holds it.
    OSError
        It cannot be opened, or the journal cannot be written.
    """
    restore(path)
    # closing any descriptor of the file frees every lock of this process on it: so it is opened only when no
    # other connection of this process has the file, and closed after ours
    with ExitStack() as last, _connected(path, read_only=False) as con:
        con.execute("PRAGMA disable_checkpoint_on_shutdown")  # a log that is there waits for a journal too
        _keep(path, last.enter_context(path.open("rb")), con)
        con.execute("PRAGMA enable_checkpoint_on_shutdown")
        yield con
    if not Path(f"{path}.wal").exists():  # else its checkpoint failed, and the journal still holds
        journal_of(path).unlink(missing_ok=True)


@contextmanager
def making(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new file under a name that nobody else asks for; what a kill left under it goes."""
    for old in (path, Path(f"{path}.wal")):
        old.unlink(missing_ok=True)
    with _connected(path, read_only=False) as con:
        yield con


def journal_of(path: Path) -> Path:
    """Where the journal of a database lies; it is there while somebody writes, and after a kill."""
    return Path(f"{path}.journal")


def restore(path: Path) -> None:
    """Put back what a killed writer left half-written; without a journal nothing happens.

    Raises
    ------
    lock.HeldError
        Another program, or another connection of this process, holds the database.
    """
    journal = journal_of(path)
    if not journal.exists():
        return
    if path.exists():
        _refuse_own_connection(path)
        with path.open("rb+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise lock.HeldError("another program", foreign=True) from None
            _put_back(journal.read_bytes(), file)
            os.fsync(file.fileno())
        _take_in_schema(path)
    journal.unlink()


def _refuse_own_connection(path: Path) -> None:
    """Only DuckDB knows of one: the lock below does not see its own process, and closing would free it."""
    try:
        duckdb.connect(path, read_only=True, config=READ_CONFIG).close()
    except duckdb.ConnectionException:
        raise lock.HeldError(_THIS_PROCESS, foreign=True) from None
    except duckdb.Error:
        return  # torn, or held by another program


def _take_in_schema(path: Path) -> None:
    """Take in a log that DuckDB cannot replay as it opens the file, while the journal is still there.

    A log with the schema's comments needs `json_valid`, which is there only once an instance has started
    (DuckDB 2.0.0): one that has takes the file in.
    """
    try:
        duckdb.connect(path, read_only=True, config=READ_CONFIG).close()
    except duckdb.CatalogException:
        quoted = str(path).replace("'", "''")
        try:
            with duckdb.connect(config=WRITE_CONFIG) as con:
                con.execute(f"ATTACH '{quoted}' AS lab")
                con.execute("CHECKPOINT lab")
        except duckdb.Error as error:
            raise OSError(f"cannot open {path}: {readonly.one_line(error)}") from error
    except duckdb.Error:
        return  # whoever opens it says what is wrong


def _keep(path: Path, file: BinaryIO, con: duckdb.DuckDBPyConnection) -> None:
    """Write the journal: digest, header, then place, size and bytes of each block that holds the catalog."""
    size = con.execute("SELECT block_size FROM pragma_database_size()").fetchall()[0][0]
    content = [os.pread(file.fileno(), HEADER_BYTES, 0)]
    for (block,) in con.execute("SELECT block_id FROM pragma_metadata_info()").fetchall():
        place = HEADER_BYTES + block * size
        kept = os.pread(file.fileno(), size, place)
        content += [_PLACE.pack(place, len(kept)), kept]
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    try:
        with journal_of(path).open("wb") as journal:
            journal.writelines([digest.digest(), *content])
            journal.flush()
            os.fsync(journal.fileno())
        sync_directory(path.parent)
    except OSError as error:  # a full disk: nothing is written, and readers need not look at half a journal
        journal_of(path).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(journal_of(path))) from error


def _put_back(journal: bytes, file: BinaryIO) -> None:
    """Write the blocks of a whole journal into the file if its header is still that of the journal."""
    digest, content = journal[:32], memoryview(journal)[32:]
    if hashlib.sha256(content).digest() != digest:
        return  # its writer was killed before it touched the file
    if os.pread(file.fileno(), HEADER_BYTES, 0) != content[:HEADER_BYTES]:
        return  # the checkpoint was whole
    at = HEADER_BYTES
    while at < len(content):
        place, size = _PLACE.unpack_from(content, at)
        at += _PLACE.size + size
        os.pwrite(file.fileno(), content[at - size : at], place)


@contextmanager
def _connected(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        con = duckdb.connect(path, read_only=read_only, config=READ_CONFIG if read_only else WRITE_CONFIG)
    except duckdb.ConnectionException:
        raise lock.HeldError(_THIS_PROCESS, foreign=True) from None
    except duckdb.Error as error:
        conflict = _CONFLICT.search(str(error))
        if conflict is not None:
            program = Path(conflict["program"]).name
            raise lock.HeldError(f"{program} (PID {conflict['pid']})", foreign=True) from None
        raise OSError(f"cannot open {path}: {readonly.one_line(error)}") from error
    try:
        yield con
    finally:
        con.close()
