"""An outbox that machines share, at any URL that fsspec opens: they hand batches in, one store takes them.

A batch comes under a temporary name and is then renamed; an object store shows a put whole or not at all, so
there it is one put. The URL's first drainer leaves its name in `taken-by.json`, and no other store drains it:
rows that a worker's own store took by mistake would be missing from everybody's gates.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow as pa

from lab.durable import write_durably
from lab.errors import UsageError
from lab.outbox import (
    SUFFIX,
    SWEEP_AFTER_SECONDS,
    TEMPORARY,
    Batch,
    encode,
    new_batch_id,
    newest_stamp_ns,
    read_batch,
    sync_directory,
)

logger = logging.getLogger(__name__)

VARIABLE = "LADDER_OUTBOX"
OWNER = "taken-by.json"
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"})
"""Where a put is atomic and a rename would be a copy."""


class UnreachableError(OSError):
    """The URL cannot be listed, read or written now; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The store that takes what is handed in."""

    store: str
    """Its id, from the file `store-id` of its home."""
    host: str
    home: str

    def __str__(self) -> str:
        return f"the store in {self.home} on {self.host}"


class SharedOutbox:
    """The waiting batches at a URL.

    Parameters
    ----------
    url
        Such as `file:///shared/outbox`, `s3://bucket/outbox` (with s3fs installed), or an absolute path. A
        folder is made on the first write, the folder above it must be there: a mistyped path, or a share that
        is not mounted, does not become a folder of this machine.

    Raises
    ------
    UsageError
        No URL that fsspec knows, or what it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec.core

        if "://" not in url and not os.path.isabs(url):
            raise UsageError(
                f"{VARIABLE} is {url!r}; allowed: a URL such as file:///shared/outbox or s3://bucket/outbox, "
                "or an absolute path"
            )
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:  # some backends connect at once
            raise UsageError(
                f"{VARIABLE} is {url!r}: {error}; install what it needs, or name another URL"
            ) from error
        self.url = url
        self._root = str(root).rstrip("/")
        protocol = self._fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._sizes: dict[str, int] = {}
        self._after_ns: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine's file system, which may be a mounted share."""
        return "file" in self._protocols

    @property
    def folder(self) -> Path:
        """That folder."""
        return Path(self._root)

    def has_owner(self) -> bool:
        """Whether the folder holds the name of its owner."""
        return os.path.exists(self._at(OWNER))

    def write(self, tables: Mapping[str, pa.Table]) -> str:
        """Hand one batch in and return its id; it is there whole, or not at all.

        Raises
        ------
        UnreachableError
            It could not be written.
        """
        content = b"".join(encode(tables))
        if self._after_ns is None:
            self._after_ns = newest_stamp_ns(self.waiting())
        batch_id = new_batch_id(self._after_ns)
        self.put(batch_id + SUFFIX, content)
        return batch_id

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Raises
        ------
        UnreachableError
            It could not be written.
        """
        with self._reaching("written"):
            if self.is_folder:
                Path(self._root).mkdir(exist_ok=True)
                write_durably(Path(self._at(name)), content)
                sync_directory(Path(self._root))
            elif self._protocols & OBJECT_STORES:
                self._fs.pipe_file(self._at(name), content)
            else:
                self._fs.makedirs(self._root, exist_ok=True)
                temporary = self._at(f"{name}.{secrets.token_hex(4)}{TEMPORARY}")
                self._fs.pipe_file(temporary, content)
                self._fs.mv(temporary, self._at(name))

    def waiting(self) -> list[PurePath]:
        """Batch files not yet taken, in the order they were recorded; their names begin with the URL.

        Raises
        ------
        UnreachableError
            The URL cannot be listed.
        """
        found = {name: size for name, size in self._listed() if name.endswith(SUFFIX)}
        self._sizes = found
        return [PurePosixPath(self.url, name) for name in sorted(found)]

    def load(self, path: PurePath) -> Batch:
        """Read a batch file and check it; raises as `Outbox.load` does, and `UnreachableError`."""
        return read_batch(path, self.read(path))

    def read(self, path: PurePath) -> bytes:
        """A file's bytes."""
        with self._reaching("read"):
            return bytes(self._fs.cat_file(self._at(path.name)))

    def size(self, path: PurePath) -> int:
        """Bytes of a waiting file, as listed."""
        return self._sizes.get(path.name, 0)

    def remove(self, path: PurePath) -> None:
        """Delete a file whose rows are in the database; one that is gone is gone."""
        with suppress(FileNotFoundError), self._reaching("deleted"):
            self._fs.rm_file(self._at(path.name))

    def sweep(self) -> int:
        """Delete temporary files whose writer died long ago; returns how many."""
        swept = 0
        for name, _ in self._listed():
            with suppress(FileNotFoundError), self._reaching("deleted"):
                is_temporary = name.endswith(TEMPORARY)
                if is_temporary and time.time() - self._modified(name) > SWEEP_AFTER_SECONDS:
                    self._fs.rm_file(self._at(name))
                    swept += 1
        return swept

    def owner(self) -> Owner | None:
        """The store that drains it; None when no store has done so yet.

        Raises
        ------
        UnreachableError
            That cannot be read.
        """
        try:
            with self._reaching("read"):
                self._fs.invalidate_cache()
                told = json.loads(self._fs.cat_file(self._at(OWNER)))
                return Owner(store=str(told["store"]), host=str(told["host"]), home=str(told["home"]))
        except FileNotFoundError:
            return None

    def claim(self, owner: Owner) -> Owner:
        """Name a store as the one that drains it, unless another is named; returns the one that is.

        Raises
        ------
        UnreachableError
            It could not be written.
        """
        content = json.dumps(asdict(owner)).encode()
        with self._reaching("written"):
            if self.is_folder:
                self._link(content)
            else:
                self._create(content)
        return self.owner() or owner

    def _link(self, content: bytes) -> None:
        own = f"{OWNER}.{secrets.token_hex(4)}{TEMPORARY}"
        self.put(own, content)
        try:
            with suppress(FileExistsError):
                os.link(self._at(own), self._at(OWNER))  # of two, one succeeds, and never half-written
        finally:
            os.unlink(self._at(own))

    def _create(self, content: bytes) -> None:
        if not self._protocols & OBJECT_STORES:
            self._fs.makedirs(self._root, exist_ok=True)
        try:
            with self._fs.open(self._at(OWNER), "xb") as file:
                file.write(content)
        except FileExistsError:
            return
        except (ValueError, NotImplementedError):  # it knows no exclusive creation
            if self.owner() is None:
                self.put(OWNER, content)

    def _listed(self) -> Iterator[tuple[str, int]]:
        """Name and bytes of each file; of a folder that is not there, none."""
        try:
            with self._reaching("listed"):
                self._fs.invalidate_cache()
                found: list[dict[str, Any]] = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return
        for one in found:
            if one["type"] == "file":
                yield posixpath.basename(str(one["name"])), int(one.get("size") or 0)

    def _modified(self, name: str) -> float:
        return float(self._fs.modified(self._at(name)).timestamp())

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _reaching(self, done: str) -> Iterator[None]:
        """Whatever a file system's library raises becomes one error; what is not there stays that."""
        try:
            yield
        except (FileNotFoundError, UnreachableError) as error:
            if done == "written" and not isinstance(error, UnreachableError):
                raise self._unreachable(done, error) from error
            raise
        except Exception as error:  # every backend brings its own errors: botocore's, paramiko's, ...
            raise self._unreachable(done, error) from error

    def _unreachable(self, done: str, error: Exception) -> UnreachableError:
        what = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {what[0]}" if what else type(error).__name__
        return UnreachableError(f"the shared outbox {self.url} cannot be {done} ({said})")
