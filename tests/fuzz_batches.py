"""Fuzz targets over what waits for the store: batch files, the shared outbox's owner, tapes of seeds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from lab.errors import UsageError
from lab.handover import KNOWN, STORE_ID
from lab.outbox import MAGIC, CorruptBatchError, encode, read_batch
from lab.records import MetricRow
from lab.shared_outbox import OWNER
from lab.store import Store
from models.entropy import SourceSpec, Tape, TapeError
from tests.fuzz_mutation import as_bytes, damage, mutated, one_line

SPEC = SourceSpec(kind="prng", stream=42)


def rows(name: str, count: int = 3) -> list[MetricRow]:
    """A batch that is told by its name."""
    return [MetricRow(step_id=name, unit=str(i), name="x", value=float(i), reason=None) for i in range(count)]


def batches(rng: Random, folder: Path) -> str:
    """A batch file with changed bytes is refused as damaged, or still holds what was written."""
    tables = {"metric": pa.table({"step_id": ["a", "b"], "value": [rng.random(), None]})}
    raw = b"".join(encode(tables))
    if rng.random() < 0.3:  # the hash is right, the list of tables is not
        _, _, content = raw.partition(b"\n")
        manifest, _, streams = content.partition(b"\n")
        content = as_bytes(mutated(json.loads(manifest), rng), rng).replace(b"\n", b" ") + b"\n" + streams
        raw = MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        tables_may_differ = True
    else:
        raw = damage(raw, rng)
        tables_may_differ = False
    try:
        found = read_batch(folder / "1-1-a.batch", raw)
    except CorruptBatchError as error:
        one_line(error)
        return "refused"
    assert tables_may_differ or found.tables == tables
    return "read"


def drains(rng: Random, folder: Path) -> str:
    """A damaged file among waiting ones is set aside with its reason; the others come in."""
    lab = Store(folder / "home")
    names = [f"{rng.randrange(16**12):012x}" for _ in range(3)]
    for name in names:
        lab.record(rows(name), drain=False)
    path = Path(lab.outbox.waiting()[1])
    raw = path.read_bytes()
    if rng.random() < 0.8:
        path.write_bytes(damage(raw, rng))
    same = path.read_bytes() == raw
    report = lab.drain()
    whole = "SELECT step_id FROM metric WHERE step_id IN ($a, $b, $c) GROUP BY ALL HAVING count(*) = 3"
    found = lab.read(whole, dict(zip("abc", names, strict=True)))["step_id"]
    assert set(found) == set(names) - (set() if same else {names[1]})
    assert len(report.rejected) == (not same)
    assert report.waiting == 0
    shutil.rmtree(lab.outbox.rejected, ignore_errors=True)
    return "whole" if same else "set aside"


def owners(rng: Random, folder: Path) -> str:
    """Notes about a shared outbox, changed anyhow: no recorded row is lost, and refusals are known ones."""
    home, share = folder / "home", folder / "share"
    names = [f"{name}-{rng.randrange(16**12):012x}" for name in ("first", "second")]
    for one in (share, home / "outbox"):  # of the case before
        shutil.rmtree(one, ignore_errors=True)
    for note in (KNOWN, STORE_ID):
        (home / note).unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADDER_OUTBOX", str(share))
        first = Store(home)
        first.outbox.try_now()
        first.record(rows(names[0]), drain=False)
        first.drain()
        hurt = rng.choice((share / OWNER, home / KNOWN, home / STORE_ID))
        raw = hurt.read_bytes()
        is_json = hurt.suffix == ".json" and rng.random() < 0.6
        hurt.write_bytes(as_bytes(mutated(json.loads(raw), rng), rng) if is_json else damage(raw, rng))
        said = _record_and_read(home, names[1])
    left = _waiting(home, share)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LADDER_OUTBOX", raising=False)
        sql = "SELECT DISTINCT step_id FROM metric WHERE step_id IN ($a, $b)"
        known = Store(home).read(sql, dict(zip("ab", names, strict=True)))["step_id"].to_list()
    assert names[0] in known
    assert said == "not recorded" or names[1] in known or left, "a recorded row is nowhere"
    return said


def _record_and_read(home: Path, name: str) -> str:
    try:
        lab = Store(home)
        lab.outbox.try_now()
        lab.record(rows(name), drain=False)
    except (UsageError, OSError) as error:
        one_line(error)
        return "not recorded"
    try:
        lab.drain()
        lab.read("SELECT count(*) FROM metric", wait_seconds=0.1)
    except (UsageError, OSError) as error:
        one_line(error)
        return "refused"
    finally:
        lab.outbox.try_now()
    return "read"


def _waiting(*places: Path) -> list[Path]:
    return [path for place in places for path in place.rglob("*.batch")]


def tapes(rng: Random, folder: Path) -> str:
    """A tape with changed bytes gives the same draws again or is refused; never others."""
    path = folder / "tape.jsonl"
    path.unlink(missing_ok=True)
    purposes = [f"p/{i}" for i in range(4)]
    drawn = Tape(path, SPEC).draws(purposes)
    path.write_bytes(damage(path.read_bytes(), rng))
    try:
        again = Tape(path, SPEC).draws(purposes)
    except TapeError as error:
        one_line(error, str(path))
        return "refused"
    assert again == drawn
    return "replayed"
