"""What a published figure is of: command, commit, machine."""

from __future__ import annotations

import os
import shlex
import sys

from lab.machine import cpu_name, git_state


def where(module: str) -> str:
    """Command, commit and machine of `python -m MODULE`, in one line."""
    commit, dirty = git_state()
    parts = [
        shlex.join(["python", "-m", module, *sys.argv[1:]]),
        f"commit {(commit or 'unknown')[:12]}{' with changes' if dirty else ''}",
        f"{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    ]
    return "; ".join(parts)
