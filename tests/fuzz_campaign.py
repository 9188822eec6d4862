"""Fuzz campaigns: `python -m tests.fuzz_campaign TARGET --cases 10000`; `all` runs every target.

Case n of a target is drawn from `target/seed/n`, so it is the same everywhere, and `--only n` runs it again
with its traceback. Printed are how many cases came to what, and each different fault once, by the place that
raised it. `tests/test_fuzz.py` runs some of each by default.
"""

from __future__ import annotations

import argparse
import gc
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests import fuzz_batches, fuzz_cli, fuzz_files, fuzz_sql

Case = Callable[[Random, Path], str]
TARGETS: dict[str, Case] = {
    "import": fuzz_files.importing,
    "plan": fuzz_files.plan,
    "set": fuzz_files.assignments,
    "regimes": fuzz_files.regimes,
    "own-data": fuzz_files.own_data,
    "products": fuzz_files.products,
    "checkpoints": fuzz_files.checkpoints,
    "services": fuzz_files.services,
    "batches": fuzz_batches.batches,
    "drains": fuzz_batches.drains,
    "owners": fuzz_batches.owners,
    "tapes": fuzz_batches.tapes,
    "sql": fuzz_sql.question,
    "rules": fuzz_sql.rule,
    "cli": fuzz_cli.command,
}


@dataclass
class Found:
    """What a campaign came to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)
    """Cases of each fault."""
    first: dict[str, str] = field(default_factory=dict)
    """Traceback of the first of each."""
    slowest_seconds: float = 0.0


def run(target: str, cases: range, *, seed: int = 0, folder: Path) -> Found:
    """Run cases; whatever one raises is kept as a fault, because the next ones are of interest too."""
    found = Found()
    for number in cases:
        began = time.perf_counter()
        try:
            found.outcomes[TARGETS[target](Random(f"{target}/{seed}/{number}"), folder)] += 1
        except Exception as error:  # any at all is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            found.faults.setdefault(name, []).append(number)
            found.first.setdefault(name, traceback.format_exc())
        found.slowest_seconds = max(found.slowest_seconds, time.perf_counter() - began)
    return found


def report(target: str, found: Found, seconds: float) -> None:
    """One line of counts, then each fault with its first traceback."""
    cases = found.outcomes.total() + sum(map(len, found.faults.values()))
    said = ", ".join(f"{count} {word}" for word, count in found.outcomes.most_common())
    faults = sum(map(len, found.faults.values()))
    print(
        f"{target}: {cases} cases in {seconds:.0f} s (slowest {found.slowest_seconds:.1f} s): {said}; "
        f"{faults} faults of {len(found.faults)} kinds",
        flush=True,
    )
    for name, numbers in found.faults.items():
        print(f"  {name}: {len(numbers)} cases, first --only {numbers[0]}\n{found.first[name]}", flush=True)


def main() -> None:
    """Run the targets named; exit 1 if any has a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone, its error unheld")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = False
    for target in TARGETS if given.target == "all" else [given.target]:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
        try:
            if given.only is not None:
                print(TARGETS[target](Random(f"{target}/{given.seed}/{given.only}"), folder))
                continue
            began = time.perf_counter()
            found = run(target, range(given.cases), seed=given.seed, folder=folder)
            report(target, found, time.perf_counter() - began)
            failed |= bool(found.faults)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            gc.collect()
    sys.exit(failed)


if __name__ == "__main__":
    main()
