"""A directory of tensors and facts that can be checked: a trained adapter, or training in the middle.

As `models.kept` does with whole models: written under a temporary name, renamed last, with every file's hash
in a manifest, which `models.kept.load_kept` checks. What does not read back counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.kept import MANIFEST, load_kept

__all__ = ["keep_files", "load_kept"]


def keep_files(directory: Path, save: Callable[[Path], None], body: Mapping[str, Any]) -> None:
    """Save files and their manifest at `directory`, replacing what is there.

    Parameters
    ----------
    save
        Writes the files into the empty folder it is given.
    body
        What the manifest says beside `files`, as plain data; floats come back exactly.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written; what was there stands.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        fresh, old = Path(scratch, "fresh"), Path(scratch, "old")
        fresh.mkdir()
        save(fresh)
        files = {path.name: _sha256(path.read_bytes()) for path in sorted(fresh.iterdir())}
        whole = {**body, "files": files}
        manifest = {"sha256": _sha256(json.dumps(whole, sort_keys=True).encode()), "body": whole}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if directory.exists():
            os.replace(directory, old)  # a directory cannot be renamed over one that holds files
        os.replace(fresh, directory)
        shutil.rmtree(old, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
