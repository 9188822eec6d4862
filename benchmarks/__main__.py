"""Every benchmark, one process each: `make bench` with few runs, `python -m benchmarks --full` with all.

Ratios against named peers, of one run each; no test depends on them. `make bench` installs lm_eval and
torchao in `.venv/peers`, where the benchmarks timed against them find them. `benchmarks.quantizers`, which
needs more installed, is run by name.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import FULL, HEAD, QUICK, ROWS, collected
from benchmarks.where import where

BENCHMARKS = (
    "analysis",
    "store",
    "sampler",
    "injection",
    "quantize",
    "losses",
    "arms",
    "heads",
    "nano",
    "report",
    "growth",
    "orchestration",
    "night",
)

AGAINST_PEERS = ("quantize", "losses")
PEERS = Path(sys.prefix, "peers", "bin", "python")
"""Of the environment that `make bench` makes for other people's libraries."""


def python_of(name: str) -> str:
    """The interpreter that runs a benchmark."""
    return str(PEERS) if name in AGAINST_PEERS and PEERS.exists() else sys.executable


def main() -> None:
    """Run them one after the other and end in one table; exit 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--full", action="store_true", help="all runs of each")
    given = parser.parse_args()
    names = given.names or BENCHMARKS
    if set(names) - set(BENCHMARKS):
        parser.error(f"allowed: {', '.join(BENCHMARKS)}")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows")
        rows.touch()
        # numpy reads its thread count once, so it is set before the process starts
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", ROWS: str(rows)}
        environment |= {FULL if given.full else QUICK: "1"}
        for name in names:
            began = time.perf_counter()
            print(f"\n== {name}", flush=True)
            command = [python_of(name), "-m", f"benchmarks.{name}"]
            done = subprocess.run(command, env=environment, check=False)
            failed += [name] if done.returncode else []
            print(f"({time.perf_counter() - began:.0f} s)", flush=True)
        print(f"\n{where('benchmarks')}; some alone: python -m benchmarks NAME\n{HEAD}")
        for row in collected(rows):
            print(row.line())
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
