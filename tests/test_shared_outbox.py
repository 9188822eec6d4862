"""An outbox that machines share, at a URL: nothing is lost or doubled, and one store takes what they hand in.

Homes in different folders stand for machines; they share what `LADDER_OUTBOX` names and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lab import handover, lock, shared_outbox
from lab.errors import UsageError
from lab.outbox import SUFFIX, SWEEP_AFTER_SECONDS, TEMPORARY
from lab.records import MetricRow
from lab.shared_outbox import OWNER
from lab.store import Store
from tests.ladder_command import ladder

ROOT = Path(__file__).resolve().parent.parent
RECORDER = """
import sys
from pathlib import Path
from lab.records import MetricRow
from lab.store import Store
lab = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    row = MetricRow(step_id=Path(sys.argv[1]).name, unit=str(number), name="x", value=1.0, reason=None)
    print(number, lab.record([row]), flush=True)
"""
DRAINER = """
import sys, time
from pathlib import Path
from lab.store import Store
lab = Store(Path(sys.argv[1]))
taken = 0
while not Path(sys.argv[2]).exists():
    taken += lab.drain().batches
print(taken + lab.drain(wait_seconds=60).batches)
"""


def rows(name: str, count: int = 1) -> list[MetricRow]:
    return [MetricRow(step_id=name, unit=str(i), name="x", value=float(i), reason=None) for i in range(count)]


def steps(lab: Store) -> list[str]:
    return sorted(lab.read("SELECT DISTINCT step_id FROM metric", wait_seconds=0.0)["step_id"].to_list())


@pytest.fixture(autouse=True)
def nothing_rests() -> None:
    """What one test could not reach is no other's."""
    handover._tried_again_at.clear()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A server that speaks S3 on this machine; wants `pip install moto[server] s3fs`."""
    pytest.importorskip("s3fs")
    made = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    made.start()
    yield "http://{}:{}".format(*made.get_host_and_port())
    made.stop()


@pytest.fixture(params=["file", "memory", "object store", pytest.param("s3", marks=pytest.mark.cluster)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shared outbox that every home of the test is set to, of each kind that is written differently."""
    found = f"memory://{tmp_path.name}/out box"
    if request.param == "file":
        found = f"file://{tmp_path}/out box"
    if request.param == "object store":
        monkeypatch.setattr(shared_outbox, "OBJECT_STORES", {"memory"})
    if request.param == "s3":
        found = f"s3://bucket/{tmp_path.name}/out box"
        told = {"key": "any", "secret": "any", "endpoint_url": request.getfixturevalue("s3_server")}
        monkeypatch.setitem(fsspec.config.conf, "s3", told)
        s3 = fsspec.filesystem("s3")
        if not s3.exists("bucket"):
            s3.mkdir("bucket")
    monkeypatch.setenv(shared_outbox.VARIABLE, found)
    return found


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared outbox in a folder."""
    monkeypatch.setenv(shared_outbox.VARIABLE, (tmp_path / "share" / "outbox").as_uri())
    (tmp_path / "share").mkdir()
    return tmp_path / "share" / "outbox"


def python(script: str, *arguments: object, **extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **extra}, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_other_machines_hand_in_is_taken_with_the_home_s_own_in_one_transaction(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, lab = Store(tmp_path / "worker"), Store(tmp_path / "lab")
    assert worker.record(rows("worker", 3))
    assert not worker.path.exists()
    monkeypatch.delenv(shared_outbox.VARIABLE)
    Store(lab.home).record(rows("own", 2), drain=False)
    monkeypatch.setenv(shared_outbox.VARIABLE, url)
    lab = Store(lab.home)
    report = lab.drain()
    assert (report.batches, report.rows, report.waiting, report.problem) == (2, 5, 0, None)
    assert steps(lab) == ["own", "worker"]
    assert lab.read("SELECT count(DISTINCT drained_at) FROM batch").item() == 1
    lab.record(rows("later"))  # with the store's home known, a record there takes what waits, its own too
    assert Store(lab.home).outbox.waiting() == []
    assert lab.outbox.local.waiting() == []


def test_a_batch_that_lies_in_both_outboxes_or_comes_again_changes_nothing(
    share: Path, tmp_path: Path
) -> None:
    lab = Store(tmp_path / "lab")
    batch_id = lab.record(rows("first", 3), drain=False)
    file = share / (batch_id + SUFFIX)
    content = file.read_bytes()
    lab.outbox.directory.mkdir(parents=True)
    (lab.outbox.directory / file.name).write_bytes(content)  # killed between handing on and deleting
    assert (report := lab.drain()).batches == 1
    assert (report.waiting, report.rejected, lab.outbox.waiting()) == (0, (), [])
    lab.record([MetricRow(step_id="first", unit="1", name="x", value=77.0, reason=None)])
    file.write_bytes(content)  # killed between commit and delete
    assert lab.drain().batches == 0
    assert lab.outbox.waiting() == []
    assert lab.read("SELECT value FROM metric ORDER BY unit")["value"].to_list() == [0.0, 77.0, 2.0]


def test_only_one_home_s_store_takes_what_is_handed_in_and_the_others_say_whose(
    url: str, tmp_path: Path
) -> None:
    lab, other = Store(tmp_path / "lab"), Store(tmp_path / "other")
    assert lab.drain().batches == 0
    other.record(rows("other"))
    report = other.drain()
    assert (report.batches, report.waiting) == (0, 0)
    assert "another home" in str(report.holder)
    for ask in (lambda: other.read("SELECT 1"), other.snapshot):
        with pytest.raises(UsageError, match=rf"taken by the store in {lab.home} on .*LADDER_HOME"):
            ask()
    assert not other.path.exists()
    assert steps(lab) == ["other"]
    assert Store(tmp_path / "other").drain().batches == 0  # another process of that home knows it as well
    same = tmp_path / "mounted elsewhere"
    same.symlink_to(lab.home)
    other.record(rows("again"))
    assert steps(Store(same)) == ["again", "other"]


def test_processes_of_one_home_claim_a_url_one_after_the_other(share: Path, tmp_path: Path) -> None:
    lab = Store(tmp_path / "lab")
    lab.home.mkdir()
    with lock.held(lab.home / "lab.lock"):
        assert "another process of this lab" in str(lab.drain().holder)
        assert not share.exists()
    assert lab.drain().holder is None
    assert names(share) == [OWNER]


def test_two_stores_that_claim_a_url_at_the_same_moment_find_one_owner(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    seen = shared_outbox.SharedOutbox.owner
    asked: list[int] = []

    def late(box: shared_outbox.SharedOutbox) -> shared_outbox.Owner | None:
        """`first` looks, sees nobody, and `second` claims before it does."""
        asked.append(1)
        if len(asked) == 2:
            monkeypatch.setattr(shared_outbox.SharedOutbox, "owner", seen)
            second.drain()
            return None
        return seen(box)

    monkeypatch.setattr(shared_outbox.SharedOutbox, "owner", late)
    Store(tmp_path / "worker").record(rows("worker"), drain=False)
    assert first.drain().batches == 0
    assert not first.path.exists()
    assert [Store(one.home).outbox.is_ours() for one in (first, second)] == [False, True]
    assert steps(second) == ["worker"]


def test_a_half_written_file_is_set_aside_with_its_reason_and_blocks_nobody(url: str, tmp_path: Path) -> None:
    worker, lab = Store(tmp_path / "worker"), Store(tmp_path / "lab")
    ids = [worker.record(rows(f"b{i}")) for i in range(3)]
    shared = lab.outbox.shared
    assert shared is not None
    [_, path, _] = shared.waiting()
    torn = shared.read(path)[:-40]
    shared.put(path.name, torn)
    shared.put("never finished" + TEMPORARY, torn)
    report = lab.drain()
    assert (report.batches, report.waiting, len(report.rejected)) == (2, 0, 1)
    assert steps(lab) == ["b0", "b2"]
    assert (lab.outbox.rejected / path.name).read_bytes() == torn
    assert "SHA-256" in (lab.outbox.rejected / f"{ids[1]}{SUFFIX}.txt").read_text()
    assert lab.outbox.waiting() == []


def test_a_batch_cut_off_on_its_way_is_no_batch_and_is_kept_in_the_home(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("s3"):
        pytest.skip("a put is cut off inside the server")
    worker, lab = Store(tmp_path / "worker"), Store(tmp_path / "lab")
    lab.drain()
    shared = worker.outbox.shared
    assert shared is not None
    whole = MemoryFileSystem.pipe_file

    def half(fs: MemoryFileSystem, path: str, value: bytes, **kwargs: object) -> None:
        if not shared_outbox.OBJECT_STORES & {"memory"}:  # whose put is whole or not there
            whole(fs, path, value[: len(value) // 2], **kwargs)
        raise ConnectionResetError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", half)
        patch.setattr("lab.durable.os.replace", lambda *_: os.stat("/nowhere"))
        worker.record(rows("cut off"))
        assert shared.waiting() == []
        assert len(worker.outbox.local.waiting()) == 1
    assert steps(lab) == []
    assert worker.drain().waiting == 0
    assert steps(lab) == ["cut off"]


def test_a_file_a_killed_writer_left_goes_when_it_is_old(share: Path, tmp_path: Path) -> None:
    lab = Store(tmp_path / "lab")
    lab.drain()
    for name, age_seconds in (("old", SWEEP_AFTER_SECONDS + 60), ("young", 0)):
        (share / (name + TEMPORARY)).write_bytes(b"ladder-ba")
        os.utime(share / (name + TEMPORARY), times=(time.time() - age_seconds,) * 2)
    lab.record(rows("x"))
    assert names(share) == [OWNER, "young" + TEMPORARY]


def test_while_the_url_is_gone_batches_stay_in_the_home_and_are_handed_on_later(
    share: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab, worker = Store(tmp_path / "lab"), Store(tmp_path / "worker")
    worker.record(rows("before"))
    assert steps(lab) == ["before"]
    gone = share.rename(tmp_path / "unmounted")
    worker.record(rows("w0"))
    worker.record(rows("w1"))
    assert "mount the share" in caplog.text
    assert len(worker.outbox.local.waiting()) == 2
    Store(lab.home).record(rows("own"))  # a new process knows that the batches are this home's
    assert Store(lab.home).outbox.local.waiting() == []
    lab.record(rows("late"), drain=False)
    for batches in (1, 0):
        report = Store(lab.home).drain()
        assert (report.batches, "mount the share" in str(report.problem)) == (batches, True)
    assert lab.sql("SELECT count(*) AS n FROM metric").frame.item() == 3  # the store's own rows went in
    with pytest.raises(OSError, match="mount the share"):
        lab.read("SELECT 1", wait_seconds=0.2)
    assert not share.exists()  # nothing was written to the empty mount point
    report = Store(worker.home).drain()
    assert (report.waiting, "mount the share" in str(report.problem)) == (2, True)
    assert not worker.path.exists()
    gone.rename(share)
    assert Store(worker.home).drain().waiting == 0
    assert worker.outbox.local.waiting() == []
    assert steps(lab) == ["before", "late", "own", "w0", "w1"]


def test_a_url_that_cannot_be_written_is_left_alone_for_a_while(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "lab").drain()
    worker = Store(tmp_path / "worker")
    tried: list[str] = []

    def refuse(_: shared_outbox.SharedOutbox, name: str, __: bytes) -> None:
        tried.append(name)
        raise shared_outbox.UnreachableError("no answer for a minute")

    with monkeypatch.context() as patch:
        patch.setattr(shared_outbox.SharedOutbox, "put", refuse)
        for i in range(5):
            worker.record(rows(f"w{i}"))
        assert len(tried) == 1
        assert worker.drain().problem == "no answer for a minute"
    assert len(worker.outbox.local.waiting()) == 5
    worker.drain()
    assert len(list(share.glob(f"*{SUFFIX}"))) == 5


def test_a_read_waits_for_a_share_that_comes_back(share: Path, tmp_path: Path) -> None:
    lab = Store(tmp_path / "lab")
    lab.record(rows("before"))
    assert steps(lab) == ["before"]
    gone = share.rename(tmp_path / "unmounted")
    mounting = subprocess.Popen(["sh", "-c", 'sleep 0.7; mv "$0" "$1"', str(gone), str(share)])
    assert lab.read("SELECT count(*) AS n FROM metric", wait_seconds=60).item() == 1
    assert mounting.wait() == 0


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("outbox", "allowed: a URL such as file:///shared/outbox"),
        ("nosuch://x/y", "nosuch"),
        ("ftp://127.0.0.1:1/x", r"LADDER_OUTBOX is 'ftp://127\.0\.0\.1:1/x': .*name another URL"),
        ("{home}/outbox", "the home's own outbox"),
    ],
)
def test_a_setting_that_is_no_shared_outbox_says_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, said: str
) -> None:
    monkeypatch.setenv(shared_outbox.VARIABLE, told.format(home=tmp_path))
    with pytest.raises(UsageError, match=said):
        Store(tmp_path)


def test_two_drainers_and_killed_workers_lose_and_double_nothing(share: Path, tmp_path: Path) -> None:
    lab = Store(tmp_path / "lab")
    lab.drain()
    drainers = [python(DRAINER, lab.home, tmp_path / "stop") for _ in range(2)]
    workers = [python(RECORDER, tmp_path / f"w{i}", 30 if i < 2 else 100_000) for i in range(4)]
    for worker in workers[2:]:
        assert worker.stdout is not None
        worker.stdout.readline()
    time.sleep(1.0)
    for worker in workers[2:]:
        worker.send_signal(signal.SIGKILL)
    told = [worker.communicate()[0] for worker in workers]
    whole = [line.split() for text in told for line in text.splitlines(keepends=True) if line.endswith("\n")]
    assert [worker.returncode for worker in workers[:2]] == [0, 0]
    (tmp_path / "stop").touch()
    taken = [int(drainer.communicate()[0]) for drainer in drainers]
    acknowledged = {words[1] for words in whole}
    found = set(lab.read("SELECT batch_id FROM batch")["batch_id"])
    assert acknowledged <= found
    assert len(found) <= len(acknowledged) + 4  # the first lines, and what a killed worker could not say
    assert sum(taken) == len(found)
    assert lab.read("SELECT count(*) FROM metric").item() == len(found)
    assert lab.outbox.waiting() == []


def test_the_command_drains_the_url_and_on_a_worker_says_where_the_rows_went(tmp_path: Path) -> None:
    extra = {shared_outbox.VARIABLE: str(tmp_path / "outbox")}
    assert ladder("drain", home=tmp_path / "lab", extra=extra).returncode == 0
    told, _ = python(RECORDER, tmp_path / "worker", 3, **extra).communicate()
    assert len(told.splitlines()) == 3
    done = ladder("drain", home=tmp_path / "worker", extra=extra)
    assert done.returncode == 1
    assert "the store of another home" in done.stderr
    done = ladder("drain", home=tmp_path / "lab", extra=extra)
    assert "3 batches with 3 rows brought in, 0 waiting" in done.stdout, done.stderr
