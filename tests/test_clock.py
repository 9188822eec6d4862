"""Time that goes on while the clock on the wall is set back, in a process whose clock really is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ladder_command import ROOT

SET_BACK = """
import sys, time
from pathlib import Path
from lab.clock import elapsed
began, wall = elapsed(), time.time()
Path(sys.argv[1]).write_text("-7200")
time.sleep(1.1)  # the shim looks once a second
print(elapsed() - began, time.time() - wall)
"""


def test_time_goes_on_when_the_clock_on_the_wall_is_set_back(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    shim, offset = tmp_path / "clock_shim.so", tmp_path / "offset"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    offset.write_text("0")
    done = subprocess.run(
        [sys.executable, "-c", SET_BACK, str(offset)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(shim), "CLOCK_SHIM": str(offset)},
        capture_output=True,
        text=True,
        check=True,
    )
    went, wall = map(float, done.stdout.split())
    assert wall < -7000.0
    assert 1.0 < went < 60.0
