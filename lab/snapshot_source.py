"""A copy of the lab's own packages, so that editing code during a night changes nothing that runs in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab.fingerprint import PACKAGES, ROOT
from lab.machine import COMMIT, git_state

_HALF_WRITTEN = shutil.ignore_patterns("*.pyc.*")
"""Bytecode on its way to its name; what is whole goes along, and who imports the copy need not compile it."""


def copy_source(place: Path) -> Path:
    """Copy every package to `<place>/source`; the folder to import from.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written.
    """
    source = place / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=_HALF_WRITTEN, dirs_exist_ok=True)
    commit, dirty = git_state()
    (source / COMMIT).write_text(json.dumps({"commit": commit, "dirty": dirty}), encoding="utf-8")
    return source
