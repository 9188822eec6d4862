"""What must not cost a number: crowds, kill -9, a shell on the file, bad files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lab.errors import UsageError
from lab.outbox import SUFFIX
from lab.records import MetricRow
from lab.store import Store, StoreLockedError

ROOT = Path(__file__).resolve().parent.parent
ROWS_A_BATCH = 5

RECORDER = f"""
import sys
from pathlib import Path
from lab.records import MetricRow
from lab.store import Store
home, worker, batches = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
lab = Store(home)
for batch in range(batches):
    rows = [
        MetricRow(step_id=f"{{worker}}", unit=str(batch), name=str(i), value=float(i), reason=None)
        for i in range({ROWS_A_BATCH})
    ]
    state = MetricRow(step_id=f"{{worker}}", unit="*", name="last", value=float(batch), reason=None)
    batch_id = lab.record([*rows, state])
    print(batch, batch_id, flush=True)
"""

HOLDER = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
con.close()
"""


def rows(name: str, count: int = 1) -> list[MetricRow]:
    return [MetricRow(step_id=name, unit=str(i), name="x", value=float(i), reason=None) for i in range(count)]


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def foreign_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with python(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            if holder.stdin is not None and not holder.stdin.closed:
                holder.stdin.close()


def count(lab: Store, where: str = "true") -> int:
    return int(lab.read(f"SELECT count(*) FROM metric WHERE {where}").item())


def check_whole(lab: Store) -> None:
    """Batches are there whole or not at all, and the index agrees with the rows."""
    parts = lab.read("SELECT step_id, unit, count(*) AS n FROM metric WHERE unit <> '*' GROUP BY ALL")
    assert set(parts["n"].to_list()) <= {ROWS_A_BATCH}
    doubled = "SELECT count(*) FROM (FROM metric GROUP BY step_id, unit, name HAVING count(*) > 1)"
    assert lab.read(doubled.replace("(FROM", "(SELECT 1 FROM")).item() == 0


# --- crowds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_eight_recording_processes_and_a_reader_lose_and_double_nothing(tmp_path: Path, batches: int) -> None:
    lab = Store(tmp_path)
    workers = [python(RECORDER, tmp_path, f"worker-{i}", batches) for i in range(8)]
    seen = [0]
    while any(worker.poll() is None for worker in workers):
        seen.append(count(lab, "unit <> '*'"))
        check_whole(lab)
        time.sleep(0.05)
    acknowledged = {line.split()[1] for worker in workers for line in worker.communicate()[0].splitlines()}
    assert [worker.returncode for worker in workers] == [0] * 8
    assert seen == sorted(seen)
    report = lab.drain(wait_seconds=60)
    assert (report.waiting, report.rejected, report.problem) == (0, (), None)
    assert lab.outbox.waiting() == []
    assert count(lab, "unit <> '*'") == 8 * batches * ROWS_A_BATCH
    assert count(lab, f"unit = '*' AND value = {batches - 1}") == 8
    check_whole(lab)
    assert set(lab.read("SELECT batch_id FROM batch")["batch_id"]) == acknowledged
    assert len(acknowledged) == 8 * batches


def test_threads_of_one_process_lose_nothing(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(10):
                lab.record(rows(f"{name}-{i}", 3))
                assert count(lab, f"step_id = '{name}-{i}'") == 3
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(lab) == 4 * 10 * 3


# --- kill -9 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_recorder_loses_nothing_acknowledged_and_doubles_nothing(tmp_path: Path, kills: int) -> None:
    lab = Store(tmp_path)
    rng = random.Random(kills)
    acknowledged: list[tuple[str, str, str]] = []
    for kill in range(kills):
        with python(RECORDER, tmp_path, f"worker-{kill}", 10_000) as worker:
            assert worker.stdout is not None
            first = worker.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.4))
            os.kill(worker.pid, signal.SIGKILL)
            lines = [first, *worker.stdout.read().splitlines(keepends=True)]
        whole = [line.split() for line in lines if line.endswith("\n")]
        acknowledged += [(f"worker-{kill}", batch, batch_id) for batch, batch_id in whole]
    check_whole(lab)
    found = set(lab.read("SELECT DISTINCT step_id, unit FROM metric WHERE unit <> '*'").rows())
    assert {(worker, batch) for worker, batch, _ in acknowledged} <= found
    assert len(acknowledged) >= kills
    taken = set(lab.read("SELECT batch_id FROM batch")["batch_id"])
    assert {batch_id for _, _, batch_id in acknowledged} <= taken
    assert lab.outbox.waiting() == []


def test_taking_a_file_twice_changes_nothing(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record(rows("first", 3), drain=False)
    [path] = lab.outbox.waiting()
    content = path.read_bytes()
    assert lab.drain().batches == 1
    lab.record(rows("first", 1))
    lab.record([MetricRow(step_id="first", unit="1", name="x", value=77.0, reason=None)])
    path.write_bytes(content)  # as after a kill between commit and delete
    report = lab.drain()
    assert (report.batches, report.rows, report.waiting, report.rejected) == (0, 0, 0, ())
    assert lab.outbox.waiting() == []
    assert lab.read("SELECT value FROM metric ORDER BY unit")["value"].to_list() == [0.0, 77.0, 2.0]


def test_what_a_power_cut_left_of_a_file_already_taken_is_deleted_not_rejected(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    batch_id = lab.record(rows("first"))
    (lab.outbox.directory / (batch_id + SUFFIX)).write_bytes(b"")
    assert lab.drain().rejected == ()
    assert lab.outbox.waiting() == []
    assert not lab.outbox.rejected.exists()


# --- a person's shell on the file -----------------------------------------------------------------


def test_while_a_foreign_process_holds_the_file_batches_wait_and_it_is_named(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record(rows("before"))
    lab.snapshot()
    with foreign_holder(lab.path) as holder:
        for i in range(3):
            lab.record(rows(f"during-{i}"))
        report = lab.drain()
        assert (report.batches, report.waiting) == (0, 3)
        assert f"PID {holder.pid}" in str(report.holder)
        with pytest.raises(StoreLockedError, match=f"PID {holder.pid}"):
            lab.read("SELECT 1", wait_seconds=0.3)
        with pytest.raises(StoreLockedError, match=f"PID {holder.pid}"):
            lab.snapshot(wait_seconds=0.3)
        answer = lab.sql("SELECT count(*) AS n FROM metric", wait_seconds=0.3)
        assert (answer.source, answer.frame["n"].item()) == (lab.snapshot_path, 1)
        assert f"PID {holder.pid}" in str(answer.note)
        assert "snapshot of" in str(answer.note)
    report = lab.drain(wait_seconds=30)
    assert (report.batches, report.waiting, report.holder) == (3, 0, None)
    assert count(lab) == 4


def test_without_a_snapshot_a_person_is_told_who_holds_the_file(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record(rows("before"))
    with (
        foreign_holder(lab.path) as holder,
        pytest.raises(UsageError, match=rf"PID {holder.pid}.*no snapshot"),
    ):
        lab.sql("SELECT 1", wait_seconds=0.2)


def test_a_read_waits_until_the_foreign_holder_lets_go(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record(rows("before"))
    with foreign_holder(lab.path) as holder:
        assert holder.stdin is not None
        lab.record(rows("during"))
        release = threading.Timer(0.7, holder.stdin.close)
        release.start()
        try:
            assert count(lab) == 2
        finally:
            release.join()


def test_a_connection_of_the_same_process_counts_as_a_holder(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record(rows("before"))
    with duckdb.connect(lab.path, read_only=True):
        lab.record(rows("during"))
        assert "this very process" in str(lab.drain().holder)
    assert count(lab) == 2


# --- bad files ------------------------------------------------------------------------------------


def test_a_corrupt_file_is_set_aside_with_its_reason_and_blocks_nobody(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    for i in range(3):
        lab.record(rows(f"b{i}"), drain=False)
    path = lab.outbox.waiting()[1]
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    report = lab.drain()
    assert (report.batches, report.waiting) == (2, 0)
    [reason] = report.rejected
    assert reason.startswith(path.name)
    assert "SHA-256" in reason
    assert "SHA-256" in (lab.outbox.rejected / (path.name + ".txt")).read_text()
    assert set(lab.read("SELECT step_id FROM metric")["step_id"]) == {"b0", "b2"}


@pytest.mark.parametrize(
    "table",
    [
        {"metric": pa.table({"step_id": ["s"], "other": ["x"]})},
        {"no_such_table": pa.table({"x": [1]})},
        {"metric": pa.table({n: pa.array([None], pa.string()) for n in MetricRow.__dataclass_fields__})},
        {"batch": pa.table({"batch_id": ["x"]})},
    ],
    ids=["columns", "table", "nulls", "own table"],
)
def test_a_batch_that_the_database_refuses_is_set_aside_and_blocks_nobody(
    tmp_path: Path, table: dict[str, pa.Table]
) -> None:
    lab = Store(tmp_path)
    lab.record(rows("before"), drain=False)
    lab.outbox.write(table)
    lab.record(rows("after"), drain=False)
    report = lab.drain()
    assert (report.batches, report.waiting, len(report.rejected)) == (2, 0, 1)
    assert "the database refuses it" in report.rejected[0]
    assert count(lab) == 2
