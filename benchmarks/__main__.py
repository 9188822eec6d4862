"""Every benchmark, one process each: `make bench`. Ratios against named peers; no test depends on them."""

from __future__ import annotations

import os
import subprocess
import sys

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
    "night",
)

for name in BENCHMARKS:
    print(f"\n== {name}", flush=True)
    # numpy reads its thread count once, so it is set before the process starts
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], env=environment, check=True)
