"""Row batches on their way to the store: one batch, one file, durable before `write` returns.

A batch file is a line with the SHA-256 of everything after it, a line of JSON that lists its tables, then
one Arrow IPC stream a table. It is written under another name, synced and renamed, so a file with a batch's
name is whole; the hash finds what decays later. Files sort by time of recording, which only decides who wins
among rows of one key: that a batch is taken once is the work of the table `batch`, and needs no clock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa

from lab.durable import write_durably

SUFFIX = ".batch"
TEMPORARY = ".tmp"
MAGIC = b"ladder-batch-1"
HEAD_BYTES = 2**16
"""The list of tables is shorter than this."""
SWEEP_AFTER_SECONDS = 3600.0
"""A temporary file this old has lost its writer."""

_stamp_lock = threading.Lock()
_last_stamp_ns = 0


class CorruptBatchError(Exception):
    """A batch file whose content is not what was written; the message says how it was noticed."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch read back: its tables by name, and the hash it was checked by."""

    batch_id: str
    path: PurePath
    sha256: str
    tables: Mapping[str, pa.Table]

    @property
    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(table.num_rows for table in self.tables.values())


def new_batch_id(after_ns: int = 0) -> str:
    """A unique id that sorts after every id this process made before, even when the clock goes backwards.

    Parameters
    ----------
    after_ns
        The id's time is later than this one.

    >>> new_batch_id() < new_batch_id()
    True
    """
    global _last_stamp_ns
    with _stamp_lock:
        _last_stamp_ns = max(time.time_ns(), _last_stamp_ns + 1, after_ns + 1)
        stamp = _last_stamp_ns
    return f"{stamp:020d}-{os.getpid()}-{secrets.token_hex(4)}"


class Outbox:
    """The directory of waiting batches.

    Parameters
    ----------
    directory
        Made on the first write. Its `rejected/` holds files that cannot be stored, each with its reason.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rejected = directory / "rejected"
        self._after_ns: int | None = None

    def write(self, tables: Mapping[str, pa.Table], *, durable: bool = True) -> str:
        """Write one batch and return its id; after an error there is no file.

        Parameters
        ----------
        tables
            Arrow tables by table name.
        durable
            Outlive a power cut before returning. False survives a killed process only; it is for a caller
            that has the batch drained at once and then calls `make_durable`.

        Raises
        ------
        OSError
            The disk is full or the directory cannot be written; nothing was recorded.
        """
        pieces = encode(tables)
        if self._after_ns is None:
            self._after_ns = newest_stamp_ns(self.waiting())
        batch_id = new_batch_id(self._after_ns)
        temporary = self.directory / (batch_id + TEMPORARY)
        with self._nothing_recorded_on_error(temporary):
            self.directory.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb", buffering=0) as file:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                if durable:
                    os.fsync(file.fileno())
            os.rename(temporary, self.directory / (batch_id + SUFFIX))
        if durable:
            sync_directory(self.directory)
        return batch_id

    def make_durable(self, batch_id: str) -> None:
        """Make a batch written with `durable=False` outlive a power cut; one already taken needs nothing.

        Raises
        ------
        OSError
            The disk refuses it; the batch is withdrawn.
        """
        path = self.directory / (batch_id + SUFFIX)
        with self._nothing_recorded_on_error(path):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                return
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self.directory)

    @contextlib.contextmanager
    def _nothing_recorded_on_error(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"cannot write a batch ({error.strerror}); nothing of it was recorded; "
                "free space or set permissions, then record again",
                str(self.directory),
            ) from error

    def waiting(self) -> list[Path]:
        """Batch files not yet taken, in the order they were recorded."""
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.directory / name for name in sorted(names) if name.endswith(SUFFIX)]

    def load(self, path: Path) -> Batch:
        """Read a batch file and check it.

        Raises
        ------
        CorruptBatchError
            Its bytes are not those that were written.
        FileNotFoundError
            It is gone, so another process has taken it.
        """
        return read_batch(path, path.read_bytes())

    def size(self, path: Path) -> int:
        """Bytes of a waiting file; 0 when it is gone."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, path: Path) -> None:
        """Delete a file whose rows are in the database."""
        path.unlink(missing_ok=True)

    def reject(self, path: Path, reason: str) -> None:
        """Move a file that cannot be stored to `rejected/`, with the reason beside it."""
        self.rejected.mkdir(exist_ok=True)
        os.replace(path, self.rejected / path.name)
        self._say_why(path.name, reason)

    def keep_rejected(self, name: str, content: bytes, reason: str) -> None:
        """Write what came from elsewhere and cannot be stored to `rejected/`, with the reason beside it."""
        self.rejected.mkdir(parents=True, exist_ok=True)
        write_durably(self.rejected / name, content)
        self._say_why(name, reason)

    def _say_why(self, name: str, reason: str) -> None:
        note = f"{reason}\n\nTo try it again, move the .batch file back into {self.directory}.\n"
        with contextlib.suppress(OSError):  # on a full disk the report still says it
            (self.rejected / (name + ".txt")).write_text(note, encoding="utf-8")

    def sweep(self) -> int:
        """Delete temporary files whose writer died long ago; returns how many."""
        swept = 0
        for path in self.directory.glob("*" + TEMPORARY):
            try:
                if time.time() - path.stat().st_mtime > SWEEP_AFTER_SECONDS:
                    path.unlink()
                    swept += 1
            except FileNotFoundError:
                continue  # its writer was alive after all and has renamed it
        return swept


def newest_stamp_ns(waiting: Sequence[PurePath]) -> int:
    """Time of the newest waiting batch: ids go on from it after a restart with the clock set back."""
    stamps = [path.name.partition("-")[0] for path in waiting]
    return max((int(s) for s in stamps if s.isascii() and s.isdigit() and len(s) == 20), default=0)


def encode(tables: Mapping[str, pa.Table]) -> list[bytes | pa.Buffer]:
    """A batch file's content, in pieces."""
    streams: list[pa.Buffer] = []
    manifest: list[dict[str, object]] = []
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        streams.append(sink.getvalue())
        manifest.append({"table": name, "rows": table.num_rows, "bytes": streams[-1].size})
    head = json.dumps(manifest).encode()
    content = [head.ljust(len(head) // 16 * 16 + 15) + b"\n", *streams]  # streams start at multiples of 16
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return [MAGIC + b" " + digest.hexdigest().encode() + b"\n", *content]


def read_batch(path: PurePath, data: bytes) -> Batch:
    """The batch that a file holds, checked.

    Raises
    ------
    CorruptBatchError
        Its bytes are not those that were written.
    """
    head = data[: max(0, data.find(b"\n", 0, 200))]
    content = memoryview(data)[len(head) + 1 :]
    magic, _, declared = head.partition(b" ")
    if magic != MAGIC:
        raise CorruptBatchError(f"it starts with {data[:20]!r}, not with {MAGIC.decode()}")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != declared.decode("ascii", "replace"):
        raise CorruptBatchError(f"its SHA-256 is {sha256[:16]}..., its first line says {declared[:16]!r}...")
    try:
        tables = _decode(content)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise CorruptBatchError(f"its hash is right but it does not decode: {error}") from error
    return Batch(batch_id=path.name.removesuffix(SUFFIX), path=path, sha256=sha256, tables=tables)


def _decode(content: memoryview) -> dict[str, pa.Table]:
    buffer = pa.py_buffer(content)
    head = bytes(content[:HEAD_BYTES]).partition(b"\n")[0]
    tables: dict[str, pa.Table] = {}
    offset = len(head) + 1
    for entry in json.loads(head):
        with pa.ipc.open_stream(buffer.slice(offset, entry["bytes"])) as reader:
            tables[entry["table"]] = reader.read_all()
        offset += entry["bytes"]
    return tables


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file's bytes and make them outlive a power cut."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 2**20)
        writer.flush()
        os.fsync(writer.fileno())
