"""The words that one row of an injection takes from its source, so that the same row takes them again.

A source that can be repeated is opened for the row at the row's own taped draw. One that asks the operating
system is asked before the row begins, and its answers go to a `BlockTape`, on disk before they are used: a
row that is run again, alone or in other company, replays them. So a row of 150 tokens that takes 50 numbers a
token keeps 60 KB. Noise over a vocabulary of 50,000 would keep 60 MB; there each request is 4 words of the
source, 256 bits, stretched in counter mode as `hmix` stretches its own digest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.entropy import SourceSpec, TapeError, WordSource, open_source
from models.words import LIVE, expand

ROW_WORDS = 16_384
"""Most words that a row of a live source keeps as they come, 128 KB; above, requests are stretched."""

STRETCHED_WORDS = 4
"""Words of a live source behind a stretched request."""

Words = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a row asks of its source: so many requests of so many words.

    >>> Demand(requests=60, words=50).kept, Demand(requests=60, words=512).kept
    (50, 4)
    """

    requests: int
    words: int

    @property
    def kept(self) -> int:
        """Words a request that a live source is read for."""
        return self.words if self.requests * self.words <= ROW_WORDS else STRETCHED_WORDS


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """A row's source at the beginning of its words."""

    source: WordSource
    sha256: str | None
    """Of the kept words of a live source; None where the draw and the kind say all."""


def open_rows(
    spec: SourceSpec, draws: Mapping[str, int], demand: Demand, tape: Path | None
) -> dict[str, RowSource]:
    """The source of each row.

    Parameters
    ----------
    draws
        Row key -> the row's 64-bit draw: the stream of a kind that can be repeated.
    tape
        File of a `BlockTape`; needed for live kinds, unused for others.

    Raises
    ------
    ValueError
        For a live kind without a tape.
    TapeError
        When the tape is damaged, of another source, or was made for another draw or demand.
    """
    if spec.kind not in LIVE:
        return {
            key: RowSource(source=open_source(replace(spec, stream=draw)), sha256=None)
            for key, draw in draws.items()
        }
    if tape is None:
        raise ValueError(
            f"source {spec.name!r} cannot be repeated and has no tape for its words; give a path for one"
        )
    blocks = BlockTape(tape, spec).blocks(draws, demand)
    return {
        key: RowSource(source=_replayed(spec.name, block), sha256=_digest(block)) for key, block in blocks
    }


def _replayed(name: str, block: Words) -> WordSource:
    """A source that answers its requests from a block (requests, kept words), stretching where it must."""
    requests = iter(block)

    def words(n: int) -> Words:
        kept = next(requests)
        return kept if n == len(kept) else expand(kept.astype(">u8").tobytes(), n)

    return WordSource(name, words)


def _began(line: bytes) -> bool:
    """Whether it can be a header, whole or torn: what else is at a path is not ours to cut."""
    opening = b'{"check": "'
    return line.startswith(opening) or opening.startswith(line)


def _digest(block: Words) -> str:
    return hashlib.sha256(block.astype(">u8").tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The line before a block."""

    key: str
    draw: int
    requests: int
    words: int
    """Words a request that the row asks for."""
    kept: int
    """Words a request that follow."""
    sha256: str
    """Of the bytes that follow."""

    @property
    def size(self) -> int:
        return 8 * self.requests * self.kept


@dataclass(frozen=True)
class BlockTape:
    """Words of a live source, a block a row, in an append-only file that processes can share.

    A block is a line of JSON with its checksum, then the words, big-endian, then a newline. One fsync a call,
    not one a row: 64 of them take longer than 64 rows of a small model. What a killed process left torn at
    the end was never used and is dropped.
    """

    path: Path
    spec: SourceSpec

    def blocks(self, draws: Mapping[str, int], demand: Demand) -> list[tuple[str, Words]]:
        """Row key and block (requests, kept words) of each row: recorded ones replayed, the rest drawn."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = self._index(file)
            source = open_source(self.spec)
            fresh = {key: _draw_block(source, demand) for key in draws if key not in found}
            for key, block in fresh.items():
                file.write(self._entry(key, draws[key], demand, block))
            file.flush()
            if fresh:
                os.fsync(file.fileno())
            return [
                (key, fresh[key] if key in fresh else self._recorded(file, found[key], draw, demand))
                for key, draw in draws.items()
            ]

    def _index(self, file: BinaryIO) -> dict[str, tuple[int, _Header]]:
        """Where each row's words begin; leaves the file whole and positioned at its end."""
        size, place, found = file.seek(0, os.SEEK_END), 0, {}
        while place < size:
            file.seek(place)
            line = file.readline()
            header = self._parse(line)
            end = place + len(line) + (header.size + 1 if header else 0)
            if _began(line) and (end > size or not line.endswith(b"\n")):
                file.truncate(place)
                break
            if header is None:
                raise TapeError(
                    f"tape {self.path}, byte {place}: damaged, or not of source {self.spec.name!r}; "
                    "restore the file from a copy, or take another path and draw anew"
                )
            found[header.key] = (place + len(line), header)
            place = end
        file.seek(0, os.SEEK_END)
        return found

    def _parse(self, line: bytes) -> _Header | None:
        try:
            fields = json.loads(line)
            whole = fields.pop("check") == self._check(fields)
            return _Header(**fields) if whole else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _check(self, fields: Mapping[str, object]) -> str:
        """Binds a header to its source as well as to its fields."""
        text = json.dumps([self.spec.name, fields], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _entry(self, key: str, draw: int, demand: Demand, block: Words) -> bytes:
        header = _Header(
            key=key, draw=draw, requests=demand.requests, words=demand.words, kept=demand.kept,
            sha256=_digest(block),
        )  # fmt: skip
        fields = asdict(header)
        line = json.dumps({**fields, "check": self._check(fields)}, sort_keys=True)
        return line.encode() + b"\n" + block.astype(">u8").tobytes() + b"\n"

    def _recorded(self, file: BinaryIO, entry: tuple[int, _Header], draw: int, demand: Demand) -> Words:
        place, header = entry
        if (header.draw, header.requests, header.words) != (draw, demand.requests, demand.words):
            raise TapeError(
                f"tape {self.path}: row {header.key!r} was drawn as {header.requests} requests of "
                f"{header.words} words for draw {header.draw}, asked for {demand.requests} of {demand.words} "
                f"for {draw}; use another tape for another plan"
            )
        file.seek(place)
        payload = file.read(header.size)
        if hashlib.sha256(payload).hexdigest() != header.sha256:
            raise TapeError(
                f"tape {self.path}, byte {place}: the words of row {header.key!r} are damaged; restore "
                "the file from a copy, or take another path and draw anew"
            )
        return np.frombuffer(payload, ">u8").astype(np.uint64).reshape(header.requests, header.kept)


def _draw_block(source: WordSource, demand: Demand) -> Words:
    requests: Sequence[Words] = [source.words(demand.kept) for _ in range(demand.requests)]
    return np.stack(requests)
