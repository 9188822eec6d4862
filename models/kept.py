"""A trained model as a directory that can be checked: what was saved, and a manifest with every file's hash.

It is written under a temporary name and renamed last, so it is there whole or not at all; what does not read
back as it was written counts as absent, and the caller trains again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "trained.json"
IDENTITY = ("model.safetensors", "tokenizer.json")
"""Files that decide a text or a loss of a whole model."""


def keep(
    directory: Path,
    save: Callable[[Path], None],
    body: Mapping[str, object],
    *,
    identity: Sequence[str] = IDENTITY,
) -> None:
    """Save a model and its manifest at `directory`, replacing what is there.

    Parameters
    ----------
    save
        Writes the model's files, those of `identity` among them, into the empty folder it is given.
    body
        What the manifest says beside `files` and `digest`, as plain data; floats come back exactly.
    identity
        Files whose hashes make the digest.

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
        files = {path.name: _file_sha256(path) for path in sorted(fresh.iterdir())}
        digest = _text_sha256({name: files[name] for name in identity})
        whole = {**body, "files": files, "digest": digest}
        manifest = {"sha256": _text_sha256(whole), "body": whole}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if directory.exists():
            os.replace(directory, old)  # a directory cannot be renamed over one that holds files
        os.replace(fresh, directory)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the right to make what is kept at `directory`; waits while another process makes it.

    The kernel frees it when its holder dies. The lock file stays: one that is deleted while somebody waits
    for it would let two in.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock_of(directory).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_being_made(directory: Path) -> bool:
    """Whether a process makes what will be kept at `directory` just now."""
    try:
        with _lock_of(directory).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock_of(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.lock")


def part_of(directory: Path) -> Path:
    """Folder of the checkpoint of what will be kept at `directory`, once it is trained."""
    return directory.with_name(f"{directory.name}.part")


def steps_kept(directory: Path) -> int:
    """Steps of that checkpoint as its manifest says, unchecked; 0 without one."""
    try:
        told = json.loads((part_of(directory) / MANIFEST).read_text(encoding="utf-8"))
        return int(told["body"]["log"][-1]["iteration"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def load_kept(directory: Path) -> dict[str, Any] | None:
    """The manifest's body, or None when the model is absent, incomplete or not what was written.

    Every file named in the manifest is hashed, and so is the manifest.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        body: dict[str, Any] = manifest["body"]
        if manifest["sha256"] != _text_sha256(body):
            return None
        if any(_file_sha256(directory / name) != digest for name, digest in body["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # damaged, or of another program: either way, train again
    return body


def _text_sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
