"""Writers, readers and kill -9 on one store: `python -m tests.soak --writers 8 --readers 2 --minutes 60`.

Writers record batches as fast as they can, each in a process of its own; one after another is killed with
SIGKILL and another begins in its place. Readers ask by `Store.read` and `Store.sql`. At any moment a batch
is there whole or not at all, together with the row that says which batch of its writer came last, and nothing
that was seen goes away. At the end every acknowledged batch is there once. It ends with 1 where that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import polars as pl

from lab.store import Store
from tests.test_store_faults import RECORDER, ROOT, ROWS_A_BATCH

ENDLESS = 10**9
"""Batches of a writer that is killed before."""
FOUND = f"""
SELECT step_id, max(TRY_CAST(unit AS INTEGER)) AS newest, max(value) FILTER (unit = '*') AS said,
       count(*) FILTER (unit <> '*') AS n, count(DISTINCT unit) FILTER (unit <> '*') * {ROWS_A_BATCH} AS due,
       count(DISTINCT (unit, name)) AS keys, count(*) AS rows
FROM metric GROUP BY step_id
"""


def check(found: pl.DataFrame) -> int:
    """Rows of an answer, after looking at each writer's: batches whole, no key twice, the last one said.

    Raises
    ------
    AssertionError
        With the writer whose rows are wrong.
    """
    for row in found.to_dicts():
        assert row["n"] == row["due"], f"half a batch: {row}"
        assert row["keys"] == row["rows"], f"a row twice: {row}"
        assert row["newest"] == row["said"], f"a batch without its last row: {row}"
    return int(found["n"].sum())


def read(home: Path, stop: Path) -> None:
    """A reader: asks as soon as there is a store and until the file is there, prints what it saw."""
    lab, seen, asked, longest = Store(home), 0, 0, 0.0
    while not lab.path.exists() and not stop.exists():
        time.sleep(0.05)
    while not stop.exists():
        began = time.monotonic()
        answer = lab.sql(FOUND, wait_seconds=600.0) if asked % 2 else None
        frame = lab.read(FOUND) if answer is None else answer.frame
        longest = max(longest, time.monotonic() - began)
        rows = check(frame)
        assert rows >= seen, f"{seen} rows were seen, now {rows}"
        seen, asked = rows, asked + 1
        time.sleep(0.05)
    print(json.dumps({"asked": asked, "rows": seen, "longest_seconds": round(longest, 2)}))


@dataclass
class Writers:
    """The writers at work, and what all of them were told was recorded."""

    home: Path
    notes: Path
    at_work: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    begun: int = 0

    def begin(self) -> None:
        """Start one more."""
        name = f"writer-{self.begun}"
        self.begun += 1
        with (self.notes / name).open("wb") as notes:
            command = [sys.executable, "-c", RECORDER, str(self.home), name, str(ENDLESS)]
            self.at_work[name] = subprocess.Popen(command, cwd=ROOT, stdout=notes)

    def kill(self, name: str) -> None:
        """End one without a word of warning."""
        process = self.at_work.pop(name)
        assert process.poll() is None, f"{name} ended by itself with {process.returncode}"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def acknowledged(self) -> set[str]:
        """Ids of the batches that `record` returned for; a line cut off by the kill counts as not told."""
        told = [path.read_bytes().rpartition(b"\n")[0].decode() for path in self.notes.iterdir()]
        return {line.split()[1] for text in told for line in text.splitlines()}


def soak(
    home: Path, *, writers: int, readers: int, seconds: float, least_kills: int = 3, seed: int = 0
) -> dict[str, object]:
    """Run it so long, and longer until some writers were killed at work; returns counts.

    Raises
    ------
    AssertionError
        A row was lost, doubled, or half a batch was seen.
    """
    rng, stop = Random(seed), home.parent / "stop"
    notes = home.parent / "notes"
    notes.mkdir(parents=True)
    crowd = Writers(home=home, notes=notes)
    read_command = [sys.executable, "-m", "tests.soak", "--read", str(home), "--stop", str(stop)]
    asking = [subprocess.Popen(read_command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(readers)]
    try:
        for _ in range(writers):
            crowd.begin()
        deadline, kills = time.monotonic() + seconds, 0
        while time.monotonic() < deadline or kills < least_kills:
            time.sleep(rng.uniform(0.2, 2.0))
            busy = [name for name in crowd.at_work if (notes / name).stat().st_size]
            if busy:  # on a loaded machine only beginners would die
                crowd.kill(rng.choice(busy))
                crowd.begin()
                kills += 1
            assert all(one.poll() is None for one in asking), "a reader found something wrong; see above"
    finally:
        for name in list(crowd.at_work):
            crowd.kill(name)
        stop.touch()
    told = [json.loads(one.communicate(timeout=600)[0] or b"{}") for one in asking]
    assert all(one.returncode == 0 for one in asking), "a reader found something wrong; see above"
    return {**_settle(Store(home), crowd.acknowledged()), "kills": kills, "readers": told}


def _settle(lab: Store, acknowledged: set[str]) -> dict[str, object]:
    report = lab.drain(wait_seconds=600.0)
    assert (report.waiting, report.rejected, report.problem) == (0, (), None), report
    rows = check(lab.read(FOUND))
    taken = set(lab.read("SELECT batch_id FROM batch")["batch_id"])
    assert acknowledged <= taken, f"{len(acknowledged - taken)} acknowledged batches are lost"
    assert rows == len(taken) * ROWS_A_BATCH, f"{rows} rows of {len(taken)} batches of {ROWS_A_BATCH}"
    return {"batches": len(taken), "acknowledged": len(acknowledged), "rows": rows}


def main() -> None:
    """Run it in a folder that goes afterwards, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read is not None:
        read(given.read, given.stop)
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = soak(
            Path(folder, "home"),
            writers=given.writers,
            readers=given.readers,
            seconds=60 * given.minutes,
            seed=given.seed,
        )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
