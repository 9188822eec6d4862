"""A file that is there whole or not at all, and still there after the power fails; did one change?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write beside `path`, sync and rename over it.

    Raises
    ------
    OSError
        When the disk is full or the folder cannot be written; `path` is as it was.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.unlink(file.name)
            raise
    os.replace(file.name, path)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes whenever anyone writes to a file or replaces it: device, inode, size, time."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
