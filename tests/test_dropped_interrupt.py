"""Ctrl-C that falls into a destructor, where Python drops it and prints a traceback."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import signal, sys, time
from deployments import cli
if {ours}:
    sys.unraisablehook = cli.unraisable
class Holder:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # answered by the interpreter before the next instruction
        time.sleep(0)
try:
    Holder()
    time.sleep(2.0)
    print("dropped")
except KeyboardInterrupt:
    print("interrupted")
"""


def ended(*, ours: bool) -> tuple[str, str]:
    code = CODE.format(ours=ours)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip(), done.stderr


def test_it_comes_again_and_nothing_is_printed() -> None:
    assert ended(ours=True) == ("interrupted", "")


def test_python_itself_drops_it() -> None:
    out, err = ended(ours=False)
    assert out == "dropped"
    assert "Traceback" in err
