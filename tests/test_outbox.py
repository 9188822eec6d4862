"""The outbox: a file with a batch's name is whole, damage is noticed, order survives a clock set back."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import outbox as outbox_module
from lab.outbox import SUFFIX, SWEEP_AFTER_SECONDS, TEMPORARY, CorruptBatchError, Outbox, new_batch_id

TABLES = {
    "metric": pa.table({"name": ["a", "é\x00", "c"], "value": [1.5, None, -0.0]}),
    "seed_draw": pa.table({"seed64": pa.array([2**64 - 1, 0], pa.uint64())}),
    "empty": pa.table({"x": pa.array([], pa.string())}),
}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_batch_comes_back_as_it_was_written(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox")
    batch_id = box.write(TABLES)
    [path] = box.waiting()
    batch = box.load(path)
    assert (batch.batch_id, batch.path, batch.rows) == (batch_id, path, 5)
    assert dict(batch.tables) == TABLES
    assert names(box.directory) == [batch_id + SUFFIX]


def test_a_directory_that_does_not_exist_has_nothing_waiting(tmp_path: Path) -> None:
    assert Outbox(tmp_path / "none").waiting() == []
    assert Outbox(tmp_path / "none").sweep() == 0


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_any_changed_or_missing_byte_is_noticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        box = Outbox(Path(directory))
        box.write(TABLES)
        [path] = box.waiting()
        whole = path.read_bytes()
        if data.draw(st.booleans(), label="cut"):
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1), label="length")])
        else:
            place = data.draw(st.integers(0, len(whole) - 1), label="place")
            other = whole[place] ^ data.draw(st.integers(1, 255), label="change")
            path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        with pytest.raises(CorruptBatchError):
            box.load(path)


def test_content_with_a_right_hash_that_is_no_batch_is_noticed(tmp_path: Path) -> None:
    for content in (b"", b"[1]\n", b"not json\n", b'[{"table": "metric", "bytes": 9}]\nxxxxxxxxx'):
        path = tmp_path / ("x" + SUFFIX)
        path.write_bytes(b"ladder-batch-1 " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        with pytest.raises(CorruptBatchError, match="does not decode"):
            Outbox(tmp_path).load(path)


def test_ids_grow_within_a_process_when_the_clock_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [new_batch_id()]
    for _ in range(5):
        monkeypatch.setattr(outbox_module.time, "time_ns", lambda: 1_000_000_000)
        ids.append(new_batch_id())
    assert ids == sorted(set(ids))


def test_ids_go_on_from_what_waits_after_a_restart_with_the_clock_set_back(tmp_path: Path) -> None:
    future = time.time_ns() + 10**18
    for name in (f"{future:020d}-1-aa", "99999999999999999999999-1-aa", "notes"):
        (tmp_path / (name + SUFFIX)).write_bytes(b"")
    stamp = int(Outbox(tmp_path).write(TABLES).partition("-")[0])
    assert stamp == future + 1
    outbox_module._last_stamp_ns = 0  # the other tests of this process go on from the real time


def test_ids_are_unique_among_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_batch_id(), range(2000)))
    assert len(set(ids)) == 2000


def test_files_wait_in_the_order_they_were_written(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    ids = [box.write(TABLES) for _ in range(20)]
    assert [path.name.removesuffix(SUFFIX) for path in box.waiting()] == ids


def test_a_reader_beside_a_writer_finds_whole_batches_alone(tmp_path: Path) -> None:
    table, found = {"metric": pa.table({"x": pa.array(range(1_000_000))})}, set[Path]()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: [Outbox(tmp_path).write(table, durable=False) for _ in range(10)])
        while not written.done():
            for path in set(Outbox(tmp_path).waiting()) - found:
                assert Outbox(tmp_path).load(path).rows == 1_000_000
                found.add(path)
    assert len(written.result()) == 10


def test_a_torn_temporary_file_is_never_a_batch_and_goes_when_it_is_old(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    batch_id = box.write(TABLES)
    old, young = tmp_path / ("old" + TEMPORARY), tmp_path / ("young" + TEMPORARY)
    for path in (old, young):
        path.write_bytes(b"ladder-ba")
    before = time.time() - SWEEP_AFTER_SECONDS - 60
    os.utime(old, (before, before))
    assert [path.name for path in box.waiting()] == [batch_id + SUFFIX]
    assert box.sweep() == 1
    assert names(tmp_path) == sorted([batch_id + SUFFIX, young.name])


def test_a_rejected_file_is_kept_with_its_reason(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    box.write(TABLES)
    [path] = box.waiting()
    content = path.read_bytes()
    box.reject(path, "it is wrong: é")
    assert box.waiting() == []
    assert (box.rejected / path.name).read_bytes() == content
    assert (box.rejected / (path.name + ".txt")).read_text(encoding="utf-8").startswith("it is wrong: é\n")


def test_a_write_that_fails_says_so_and_leaves_no_file(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox")
    (tmp_path / "outbox").write_text("a file in the way")
    with pytest.raises(OSError, match="nothing of it was recorded"):
        box.write(TABLES)
    assert names(tmp_path) == ["outbox"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_batch_can_be_made_durable_later_whether_it_was_taken_or_not(tmp_path: Path, taken: bool) -> None:
    box = Outbox(tmp_path)
    batch_id = box.write(TABLES, durable=False)
    [path] = box.waiting()
    if taken:
        path.unlink()
    box.make_durable(batch_id)
    assert box.waiting() == ([] if taken else [path])
