"""A copy of the lab's own packages, so that editing code during a night changes nothing that runs in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.fingerprint import PACKAGES, ROOT

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
    return source
