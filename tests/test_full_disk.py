"""A full disk costs nothing that was acknowledged and leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.database import journal_of
from lab.products import Products
from lab.records import MetricRow
from lab.store import Store
from models.kept import keep, load_kept
from tests.test_store_faults import count, rows


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux; the file size limit test covers record")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, *, leave_bytes: int) -> Path:
    space = os.statvfs(disk)
    path = disk / "fill"
    with open(path, "wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - leave_bytes))
    return path


def test_a_disk_full_while_recording_is_an_error_that_leaves_no_half_file(small_disk: Path) -> None:
    lab = Store(small_disk / "home")
    lab.record(rows("before", 100))
    filler = fill(small_disk, leave_bytes=100_000)
    with pytest.raises(OSError, match="nothing of it was recorded") as caught:
        lab.record(rows("too much", 20_000))
    assert caught.value.errno == errno.ENOSPC
    assert list(lab.outbox.directory.iterdir()) == []
    assert count(lab) == 100
    filler.unlink()
    lab.record(rows("too much", 20_000))
    assert count(lab) == 20_100


def test_a_disk_full_while_draining_lets_the_batch_wait_and_the_store_readable(small_disk: Path) -> None:
    lab = Store(small_disk / "home")
    lab.record(rows("before", 100))
    published = lab.snapshot().read_bytes()
    lab.record(rows("during", 20_000), drain=False)
    filler = fill(small_disk, leave_bytes=50_000)
    lab.record(rows("small", 1))
    report = lab.drain()
    assert (report.batches, report.waiting, report.holder) == (0, 2, None)
    assert "No space left" in str(report.problem)
    assert not journal_of(lab.path).exists()
    with pytest.raises(OSError, match=r"2 batches wait in .*No space left"):
        lab.read("SELECT 1")
    with pytest.raises(OSError, match="No space left"):
        lab.snapshot()
    assert lab.snapshot_path.read_bytes() == published
    answer = lab.sql("SELECT count(*) AS n FROM metric")
    assert (answer.frame["n"].item(), answer.source) == (100, lab.path)
    assert "2 batches wait" in str(answer.note)
    filler.unlink()
    assert count(lab) == 20_101
    assert lab.snapshot().read_bytes() != published


def test_a_disk_full_while_a_drain_commits_lets_the_batch_wait(small_disk: Path) -> None:
    """There is room for the journal and not for the log."""
    lab = Store(small_disk / "home")
    lab.record(rows("before", 5_000))
    lab.record(rows("during", 20_000), drain=False)
    filler = fill(small_disk, leave_bytes=2**20)
    report = lab.drain()
    assert (report.batches, report.waiting, report.rejected) == (0, 1, ())
    assert "Failed to commit" in str(report.problem)
    assert count_now(lab) == 5_000
    filler.unlink()
    assert count(lab) == 25_000


def test_a_disk_full_while_the_store_is_checkpointed_keeps_its_journal(
    small_disk: Path,
) -> None:
    """There is room for the journal and the log, and not for the blocks that the log becomes."""
    lab = Store(small_disk / "home")
    lab.record(rows("before", 5_000))
    lab.record(rows("during", 20_000), drain=False)
    filler = fill(small_disk, leave_bytes=2**21)
    report = lab.drain()
    assert (report.batches, report.waiting, report.problem) == (1, 0, None)
    assert Path(f"{lab.path}.wal").exists()
    assert journal_of(lab.path).exists()
    filler.unlink()
    assert count(lab) == 25_000
    assert not journal_of(lab.path).exists()


def test_a_disk_too_full_for_a_snapshot_keeps_the_old_one(small_disk: Path) -> None:
    lab = Store(small_disk / "home")
    lab.record(rows("before", 100))
    published = lab.snapshot().read_bytes()
    filler = fill(small_disk, leave_bytes=1_000_000)
    with pytest.raises(OSError, match="the old one stands"):
        lab.snapshot()
    filler.unlink()
    fill(small_disk, leave_bytes=30_000)
    with pytest.raises(OSError, match=r"No space left on device: '.*lab.duckdb.journal'"):
        lab.snapshot()
    assert lab.snapshot_path.read_bytes() == published
    assert not list(lab.home.glob("*.tmp"))


@pytest.mark.parametrize("leave_kib", [8, 64, 128, 160, 256, 512, 1024, 4096])
def test_wherever_the_disk_fills_up_what_was_acknowledged_is_there(small_disk: Path, leave_kib: int) -> None:
    """The outbox file (130 KiB), the commit's log, the checkpoint on closing: each size fails elsewhere."""
    lab = Store(small_disk / "home")
    lab.record(rows("before", 5_000))
    filler = fill(small_disk, leave_bytes=leave_kib * 1024)
    change = MetricRow(step_id="before", unit="0", name="x", value=7.0, reason=None)
    try:
        lab.record([change, *rows("new", 3_000)])
        failed_with = None
    except OSError as error:
        failed_with = error.errno
    assert failed_with in (None, errno.ENOSPC)
    assert count_now(lab) >= 5_000
    filler.unlink()
    assert count(lab) == (5_000 if failed_with else 8_000)
    first = lab.read("SELECT value FROM metric WHERE step_id = 'before' AND unit = '0'").item()
    assert first == (0.0 if failed_with else 7.0)


def count_now(lab: Store) -> int:
    return int(lab.sql("SELECT count(*) AS n FROM metric").frame["n"].item())


def test_a_file_size_limit_while_recording_leaves_no_half_file(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    lab.record(rows("before", 100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="nothing of it was recorded") as caught:
            lab.record(rows("too much", 20_000), drain=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno == errno.EFBIG
    assert list(lab.outbox.directory.iterdir()) == []
    assert count(lab) == 100


def test_a_disk_full_while_a_product_is_kept_leaves_the_old_one_and_no_half(small_disk: Path) -> None:
    kept = Products(small_disk, "texts")
    kept.write("abcd", {"n": 3})
    filler = fill(small_disk, leave_bytes=50_000)
    with pytest.raises(OSError, match="No space left"):
        kept.write("abcd", {"text": "x" * 200_000})
    assert kept.read("abcd") == {"n": 3}
    assert list(kept.path("abcd").parent.iterdir()) == [kept.path("abcd")]
    filler.unlink()
    kept.write("abcd", {"text": "x" * 200_000})
    assert kept.read("abcd") == {"text": "x" * 200_000}


def test_a_disk_full_while_a_checkpoint_is_kept_leaves_the_old_one(small_disk: Path) -> None:
    place = small_disk / "model.part"
    keep(place, lambda folder: write(folder / "state", 1_000), {"step": 10}, identity=("state",))
    fill(small_disk, leave_bytes=50_000)
    with pytest.raises(OSError, match="No space left"):
        keep(place, lambda folder: write(folder / "state", 200_000), {"step": 20}, identity=("state",))
    body = load_kept(place)
    assert body is not None
    assert body["step"] == 10
    assert sorted(path.name for path in small_disk.iterdir()) == ["fill", "model.part"]


def write(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))
