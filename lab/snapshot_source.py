"""A copy of the lab's own packages, so that editing code during a night changes nothing that runs in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab.fingerprint import PACKAGES, ROOT
from lab.machine import COMMIT, git_state

_NO_SOURCE = shutil.ignore_patterns("__pycache__", "*.pyc")


def copy_source(place: Path) -> Path:
    """Copy every package to `<place>/source`; the folder to import from.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written.
    """
    source = place / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=_NO_SOURCE, dirs_exist_ok=True)
    commit, dirty = git_state()
    (source / COMMIT).write_text(json.dumps({"commit": commit, "dirty": dirty}), encoding="utf-8")
    return source
