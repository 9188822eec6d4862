"""Where seeds come from: entropy sources with exact bytes on request, and the tape that repeats every draw.

A source is a stream of 64-bit words (`models.words` makes them); its bytes are those words, big-endian. Kinds
that ask the operating system cannot be repeated, which is why studies draw through a `Tape`: a file that
keeps each draw, on disk before it is used, and gives the same draws again when it is opened the next time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from models.words import BUILDERS, DOSES, LIVE, Words

KINDS = tuple(BUILDERS)
"""Kinds of source that `SourceSpec` takes."""


class EntropySource(Protocol):
    """Anything that hands out bytes."""

    @property
    def name(self) -> str:
        """Kind, stream and dose, such as `prng:42` or `biased_bits:42:0.1`."""
        ...

    def read(self, n_bytes: int) -> bytes:
        """The next `n_bytes` bytes, exactly that many."""
        ...


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """Which entropy source; stable, so it can be part of a study's configuration.

    Kinds: `prng` (MT19937 as CPython's `random.Random(stream)`), `pcg64` and `philox` (NumPy bit generators),
    `trng` (the operating system), `hmix` (hash of time, operating system entropy and a counter); and controls
    with a known fault, made from the stream: `constant`, `short_range` (0 to 1000), `biased_bits`, `lag1`,
    `quantised8` (256 different words), `tiled` (one digest repeated over a request).

    >>> SourceSpec(kind="prng", stream=42).name
    'prng:42'
    >>> SourceSpec(kind="trng", stream=1)
    Traceback (most recent call last):
    ValueError: source 'trng' asks the operating system and takes no stream; found stream 1, leave it out
    """

    kind: str
    stream: int | None = None
    """Seed of a deterministic kind, 0 or more."""
    dose: float | None = None
    """Strength of a graded control; see DOSES."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown entropy source {self.kind!r}; allowed: {', '.join(KINDS)}")
        if self.kind in LIVE and self.stream is not None:
            raise ValueError(
                f"source {self.kind!r} asks the operating system and takes no stream; "
                f"found stream {self.stream}, leave it out"
            )
        if self.kind not in LIVE and (self.stream is None or self.stream < 0):
            raise ValueError(f"source {self.kind!r} has stream {self.stream}; give an integer from 0 up")
        self._check_dose()

    def _check_dose(self) -> None:
        if self.kind not in DOSES:
            if self.dose is not None:
                raise ValueError(f"source {self.kind!r} takes no dose; found {self.dose}, leave it out")
            return
        low, high = DOSES[self.kind]
        if self.dose is None or not (math.isfinite(self.dose) and low <= self.dose <= high):
            raise ValueError(f"source {self.kind!r} has dose {self.dose}; allowed: {low:g} to {high:g}")

    @property
    def name(self) -> str:
        """Kind, stream and dose joined by colons, absent ones left out."""
        parts = (self.kind, self.stream, self.dose)
        return ":".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class WordSource:
    """An `EntropySource` made of 64-bit words."""

    name: str
    words: Words

    def read(self, n_bytes: int) -> bytes:
        """The next words, big-endian; a request that ends inside a word discards the rest of that word."""
        if n_bytes < 0:
            raise ValueError(f"{n_bytes} bytes asked of source {self.name!r}; allowed: 0 or more")
        return self.words(-(-n_bytes // 8)).astype(">u8").tobytes()[:n_bytes] if n_bytes else b""


def open_source(spec: SourceSpec) -> WordSource:
    """A fresh source, at the beginning of its sequence.

    >>> int.from_bytes(open_source(SourceSpec(kind="prng", stream=42)).read(8), "big")
    2053695854357871005
    """
    return WordSource(spec.name, BUILDERS[spec.kind](spec.stream, spec.dose))


def uniforms(source: EntropySource, n: int) -> NDArray[np.float64]:
    """`n` numbers in [0, 1), each the upper 53 bits of the source's next 64-bit word.

    One request, so 50,000 numbers, one a token of a vocabulary, take well under 1 ms from every kind.
    """
    if isinstance(source, WordSource):  # spares four copies
        words = source.words(n)
    else:
        words = np.frombuffer(source.read(8 * n), ">u8").astype(np.uint64)
    numbers = (words >> np.uint64(11)).astype(np.float64)
    numbers *= 2.0**-53
    return numbers


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One taped draw."""

    index: int
    """Place on the tape, from 0."""
    purpose: str
    """What it was drawn for."""
    seed64: int
    """The 64-bit value."""

    @property
    def seed32(self) -> int:
        """The value mod 2^32: what a sampler takes."""
        return self.seed64 % 2**32


class TapeError(ValueError):
    """A tape that cannot be trusted or does not fit the question; the text names file and line."""


@dataclass(frozen=True)
class Tape:
    """A source's draws in an append-only file, each line with its checksum.

    Every call holds a lock on the file, so processes that share a tape share its draws. New draws are on disk
    (fsync) before they are returned. A last line torn by a killed process was never returned to anyone; it is
    dropped and drawn anew. Any other damage is an error. Deterministic sources continue exactly where the
    recorded draws end, live ones with new entropy.

    Parameters
    ----------
    path
        The file; made, with its directory, by the first call that draws.
    spec
        The source. A tape recorded from another one is refused.
    """

    path: Path
    spec: SourceSpec

    def draws(self, purposes: Sequence[str], *, start: int = 0) -> list[Draw]:
        """Draws number `start`, `start + 1`, ..., one a purpose: recorded ones replayed, the rest drawn.

        Calling twice gives the same draws. A second look asks for the whole list again, longer, or for its
        new purposes with `start` set to the number of the old ones.

        Raises
        ------
        TapeError
            When a recorded draw has another purpose, the tape another source, or a line is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as file:
            recorded = _known(file, self.path, self.spec)
            if not 0 <= start <= len(recorded):
                raise TapeError(
                    f"tape {self.path} has {len(recorded)} draws and was asked for number {start}; "
                    "draws are made in order: ask for the earlier ones first"
                )
            self._check(recorded, purposes, start)
            missing = purposes[len(recorded) - start :]
            if missing:
                recorded += self._extend(file, recorded, missing)
        return recorded[start : start + len(purposes)]

    def recorded(self) -> list[Draw]:
        """Every draw on the tape; none when there is no tape. Draws nothing.

        Raises
        ------
        TapeError
            When the tape is another source's or a line is damaged.
        """
        if not self.path.exists():
            return []
        with _locked(self.path) as file:
            return _known(file, self.path, self.spec)

    def _check(self, recorded: list[Draw], purposes: Sequence[str], start: int) -> None:
        for draw, purpose in zip(recorded[start:], purposes, strict=False):
            if draw.purpose != purpose:
                raise TapeError(
                    f"tape {self.path}, line {draw.index + 2}: draw {draw.index} was made for "
                    f"{draw.purpose!r}, asked for {purpose!r}; use another tape for another plan"
                )

    def _extend(self, file: BinaryIO, recorded: list[Draw], purposes: Sequence[str]) -> list[Draw]:
        source = open_source(self.spec)
        if self.spec.kind not in LIVE:
            self._replay(source, recorded)
        new = [
            Draw(index=i, purpose=purpose, seed64=int.from_bytes(source.read(8), "big"))
            for i, purpose in enumerate(purposes, start=len(recorded))
        ]
        file.write(b"".join(_line(_draw_fields(draw)) for draw in new))
        file.flush()
        os.fsync(file.fileno())
        return new

    def _replay(self, source: EntropySource, recorded: list[Draw]) -> None:
        """Move a fresh deterministic source past the recorded draws, checking each on the way."""
        for draw in recorded:
            value = int.from_bytes(source.read(8), "big")
            if value != draw.seed64:
                raise TapeError(
                    f"tape {self.path}, line {draw.index + 2}: draw {draw.index} is {draw.seed64}, but "
                    f"{self.spec.name!r} gives {value} there; restore the file or start another tape"
                )


def _draw_fields(draw: Draw) -> dict[str, object]:
    return {"index": draw.index, "purpose": draw.purpose, "seed64": draw.seed64}


def _header(spec: SourceSpec) -> dict[str, object]:
    return {"kind": spec.kind, "stream": spec.stream, "dose": spec.dose}


def _checksum(fields: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps({**fields, "check": _checksum(fields)}, sort_keys=True).encode() + b"\n"


def _parse(line: bytes) -> dict[str, object] | None:
    """The fields of a line, None when its checksum does not fit."""
    try:
        fields = json.loads(line)
        return fields if fields.pop("check") == _checksum(fields) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _locked(path: Path) -> BinaryIO:
    """The tape opened for reading and appending, locked until it is closed or its process dies."""
    file = path.open("a+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


_LOADED: dict[tuple[Path, SourceSpec], tuple[tuple[int, ...], list[Draw]]] = {}
"""Draws of each tape as this process last read it, with the state of the file: a study asks many times."""


def _known(file: BinaryIO, path: Path, spec: SourceSpec) -> list[Draw]:
    """The recorded draws; read and checked anew when the file is not as it was."""
    state, found = _LOADED.get((path, spec), ((), []))
    if state != _state(file):
        found = _load(file, path, spec)
        _LOADED[path, spec] = _state(file), found
    return list(found)


def _state(file: BinaryIO) -> tuple[int, ...]:
    known = os.fstat(file.fileno())
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns


def _load(file: BinaryIO, path: Path, spec: SourceSpec) -> list[Draw]:
    """The recorded draws; leaves the file whole and positioned at its end, with a header for `spec`."""
    file.seek(0)
    lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        if _parse(lines[-1]) is None:
            file.truncate(sum(map(len, lines)) - len(lines.pop()))
        else:  # whole but for its newline
            file.write(b"\n")
    if not lines:
        _begin(file, path, spec)
        return []
    found = [_parse(line) for line in lines]
    if found[0] != _header(spec) and found[0] is not None:
        raise TapeError(
            f"tape {path} holds draws of {found[0]}, asked for {_header(spec)}; use one tape a source"
        )
    return [_draw(fields, path, number) for number, fields in enumerate(found)][1:]


def _begin(file: BinaryIO, path: Path, spec: SourceSpec) -> None:
    file.write(_line(_header(spec)))
    file.flush()
    os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)  # the name of a new file is durable only when its directory is
    os.close(directory)


def _draw(fields: dict[str, object] | None, path: Path, number: int) -> Draw:
    """The draw on line `number` (0 is the header), which must be undamaged and in its place."""
    if number == 0 and fields is not None:
        return Draw(index=-1, purpose="header", seed64=0)
    if fields is None or fields.get("index") != number - 1:
        raise TapeError(
            f"tape {path}, line {number + 1}: damaged, its checksum or its index does not fit; restore the "
            "file from a copy, or move it away and draw anew (results made from it are then not repeatable)"
        )
    value = fields["seed64"]
    if not isinstance(value, int):
        raise TapeError(f"tape {path}, line {number + 1}: seed64 is {value!r}; allowed: an integer")
    return Draw(index=number - 1, purpose=str(fields["purpose"]), seed64=value)
