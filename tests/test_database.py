"""Kills in the middle of a write to the database: its journal puts back what was there, and loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from lab import database, ingest
from lab.outbox import Batch
from lab.records import MetricRow
from lab.store import Store, StoreLockedError
from tests.test_store_faults import ROOT, count, foreign_holder, rows

KILLED_BEFORE_ITS_CHECKPOINT = """
import os, signal, sys
from pathlib import Path
from lab import database
with database.writing(Path(sys.argv[1])) as con:
    con.execute("INSERT OR REPLACE INTO metric VALUES ('killed', '0', 'x', 1.0, NULL)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_AT = """
import ctypes, sys
from pathlib import Path
from lab.store import Store
from tests.test_store_faults import rows
home, shim, nth, half = sys.argv[1:]
lab, batch = Store(Path(home)), rows("killed", 5)
lab.outbox.waiting()
ctypes.CDLL(shim).kill_at(ctypes.c_long(int(nth)), int(half))
lab.record(batch)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    for batch in range(3):
        found.record(rows(f"before-{batch}", 5))
    return found


def run(script: str, *arguments: object, preload: Path | None = None) -> int:
    environment = {**os.environ, **({} if preload is None else {"LD_PRELOAD": str(preload)})}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=120).returncode


def kill_before_its_checkpoint(lab: Store) -> Path:
    assert run(KILLED_BEFORE_ITS_CHECKPOINT, lab.path) == -signal.SIGKILL
    return database.journal_of(lab.path)


def places(journal: bytes) -> list[tuple[int, int]]:
    """Where the blocks of a journal lie in the database, and how long they are."""
    found, at = [], 32 + database.HEADER_BYTES
    while at < len(journal):
        place, size = struct.unpack_from("<QQ", journal, at)
        found.append((place, size))
        at += 16 + size
    return found


def tear(lab: Store, journal: Path) -> None:
    """Every block of the catalog half-written, as a kill in a write leaves one of them."""
    with lab.path.open("rb+") as file:
        for place, size in places(journal.read_bytes()):
            file.seek(place + size // 2)
            file.write(os.urandom(size // 2))


def test_a_block_torn_by_a_kill_is_put_back_and_what_was_committed_is_there(lab: Store) -> None:
    journal = kill_before_its_checkpoint(lab)
    assert places(journal.read_bytes())
    tear(lab, journal)
    with pytest.raises(duckdb.Error, match="Corrupt database file"):  # what a kill costs without a journal
        duckdb.connect(lab.path, read_only=True, config=database.READ_CONFIG)
    assert count(lab) == 16
    assert count(lab, "step_id = 'killed'") == 1
    assert not journal.exists()
    lab.record(rows("after", 2))
    assert count(Store(lab.home)) == 18


def test_a_writer_and_a_person_also_find_it_whole(lab: Store) -> None:
    for ask in (
        lambda: lab.record(rows("after")),
        lambda: lab.sql("SELECT count(*) FROM metric"),
        lambda: lab.snapshot(),
    ):
        tear(lab, kill_before_its_checkpoint(lab))
        ask()
        assert count(lab, "step_id = 'killed'") == 1
        assert not database.journal_of(lab.path).exists()


def test_a_journal_of_a_state_that_is_over_changes_nothing(lab: Store) -> None:
    journal = kill_before_its_checkpoint(lab)
    old = journal.read_bytes()
    lab.record(rows("after"))
    now = lab.path.read_bytes()
    journal.write_bytes(old)
    database.restore(lab.path)
    assert lab.path.read_bytes() == now
    assert not journal.exists()


@pytest.mark.parametrize("left", [0, 31, 5_000, -1])
def test_half_a_journal_changes_nothing(lab: Store, left: int) -> None:
    """Its writer was killed while it wrote it, before it touched the database."""
    journal = kill_before_its_checkpoint(lab)
    journal.write_bytes(journal.read_bytes()[:left])
    now = lab.path.read_bytes()
    database.restore(lab.path)
    assert lab.path.read_bytes() == now
    assert not journal.exists()
    assert count(lab) == 16


def test_a_journal_that_decayed_changes_nothing(lab: Store) -> None:
    journal = kill_before_its_checkpoint(lab)
    content = bytearray(journal.read_bytes())
    content[-100] ^= 1
    journal.write_bytes(content)
    now = lab.path.read_bytes()
    database.restore(lab.path)
    assert lab.path.read_bytes() == now
    assert not journal.exists()
    assert count(lab) == 16


def test_while_a_foreign_program_holds_the_file_nothing_is_put_back(lab: Store) -> None:
    journal = kill_before_its_checkpoint(lab)
    now = lab.path.read_bytes()
    with foreign_holder(lab.path), pytest.raises(StoreLockedError, match="another program"):
        lab.read("SELECT 1", wait_seconds=0.3)
    assert journal.exists() or lab.path.read_bytes() != now  # its own checkpoint ends what the journal is for
    assert count(lab) == 16


def test_without_room_for_a_journal_nothing_is_written_and_readers_go_on(
    lab: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(database, "sync_directory", full)
    now = lab.path.read_bytes()
    lab.record(rows("waits"))
    assert lab.path.read_bytes() == now
    assert lab.read("SELECT count(*) AS n FROM metric", drain=False)["n"][0] == 15
    monkeypatch.undo()
    assert count(lab) == 16


def test_without_room_for_a_journal_a_log_that_is_there_waits_too(
    lab: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's checkpoint at the end of a connection would take the log in with nothing to put back."""

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kill_before_its_checkpoint(lab)
    now = lab.path.read_bytes()
    monkeypatch.setattr(database, "sync_directory", full)
    lab.record(rows("waits"))
    assert lab.path.read_bytes() == now
    monkeypatch.undo()
    assert count(lab) == 17


OTHER = "import sys, duckdb; duckdb.connect(sys.argv[1]).close()"


@pytest.mark.parametrize("journal", [False, True])
def test_the_lock_of_a_connection_of_the_same_process_stays_held(lab: Store, *, journal: bool) -> None:
    """Closing any descriptor of a file frees the locks that its process has on it."""
    with duckdb.connect(lab.path):
        if journal:
            database.journal_of(lab.path).write_bytes(b"of a killed writer")
        lab.record(rows("waits"))
        with pytest.raises(StoreLockedError, match="this very process"):
            lab.read("SELECT 1", wait_seconds=0.0)
        assert run(OTHER, lab.path) == 1
    assert count(lab) == 16


def test_a_connection_checkpoints_once(lab: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal holds what was there before the first; here a database of older views takes a batch."""
    with duckdb.connect(lab.path) as con:
        con.execute("UPDATE lab_schema SET views = 'older'")
    seen: list[bytes] = []
    header = lab.path.read_bytes()[: database.HEADER_BYTES]

    def look(con: duckdb.DuckDBPyConnection, *_: object) -> list[Batch]:
        seen.append(lab.path.read_bytes()[: database.HEADER_BYTES])
        return real(con, *_)  # type: ignore[arg-type]

    real = ingest.take
    monkeypatch.setattr(ingest, "take", look)
    # a look at the bytes frees DuckDB's lock, which nobody else asks for here
    lab.record(rows("after"))
    assert seen == [header]
    assert count(lab) == 16


KILLED_WITH_THE_SCHEMA_IN_THE_LOG = """
import os, signal, sys
from pathlib import Path
from lab import database, tables, template
path = Path(sys.argv[1])
with database.writing(path) as con:
    con.execute("UPDATE lab_schema SET views = 'older'")
    tables.prepare(con, template.template().schema, path)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_log_with_the_schema_is_taken_in(lab: Store) -> None:
    """DuckDB 2.0.0 cannot replay one as it opens a file: its checks need the json extension."""
    assert run(KILLED_WITH_THE_SCHEMA_IN_THE_LOG, lab.path) == -signal.SIGKILL
    with pytest.raises(duckdb.Error, match="json_valid"):
        duckdb.connect(lab.path, read_only=True, config=database.READ_CONFIG)
    assert count(lab) == 15
    lab.record(rows("after"))
    assert count(lab) == 16


def test_a_kill_while_the_database_is_made_does_not_stop_the_next(tmp_path: Path) -> None:
    for name in ("lab.new", "lab.new.wal"):
        (tmp_path / name).write_bytes(b"left by a kill")
    lab = Store(tmp_path)
    lab.record(rows("first"))
    assert count(lab) == 1
    assert not (tmp_path / "lab.new.wal").exists()


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1], ids=["before a write", "in the middle of a write"])
@pytest.mark.parametrize("empty", [False, True], ids=["a batch", "the first batch of a home"])
def test_killed_at_any_write_of_a_batch_the_store_opens_and_has_it_whole(
    lab: Store, half: int, empty: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    source, shim = Path(__file__).with_name("kill_shim.c"), folder / "kill_shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    for nth in range(1, 200):
        home = folder / f"home-{nth}"
        home.mkdir() if empty else shutil.copytree(lab.home, home)
        ended = run(KILLED_AT, home, shim, nth, half, preload=shim)
        assert ended in (0, -signal.SIGKILL)
        after = Store(home)
        after.record([MetricRow(step_id="after", unit="0", name="x", value=1.0, reason=None)])
        assert count(after, "step_id LIKE 'before%'") == (0 if empty else 15), nth
        assert count(after, "step_id = 'killed'") == 5, nth
        assert count(after, "step_id = 'after'") == 1
        shutil.rmtree(home)
        if ended == 0:
            assert nth > 15  # else it was not the writes that were counted
            return
    raise AssertionError("it never ended by itself")
