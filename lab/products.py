"""Results of measured steps as small JSON files, addressed by fingerprint and checked by hash.

The first line holds the hash, the time of making, and that of the first making of the same: a text that comes
out again letter for letter was known before. They stay when a home is copied. A product is written whole or
not at all, so a killed process leaves nothing half done, and one that does not match its checksum is deleted
and made again.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import fresh
from lab.durable import write_durably

BEFORE = ".before"
"""Suffix of a product that a run which does everything again has not made yet."""


@dataclass(frozen=True)
class Products:
    """Products of one kind, such as `generation`, under a lab's home."""

    home: Path
    kind: str

    def path(self, key: str) -> Path:
        """Where the product of a key lies, made or not.

        Raises
        ------
        ValueError
            A key that is no single name, so that no product lies outside of the home.
        """
        if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", key) is None:
            raise ValueError(f"product key {key!r}; allowed: letters, digits, _ and -, inside also .")
        return self.home / "cache" / self.kind / key[:2] / f"{key}.json"

    def read(self, key: str) -> Any:
        """The product, or None when it is absent, damaged, or of before a run that does everything again.

        A damaged one is deleted, an older one set aside until it is made again.
        """
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        line, _, body = raw.partition(b"\n")
        head = _Head.of(line)
        if head is None or head.digest != hashlib.sha256(body).hexdigest():
            path.unlink(missing_ok=True)
            return None
        if fresh.since() is not None and fresh.is_stale(path, head.made):
            path.replace(path.with_suffix(BEFORE))
            return None
        return json.loads(body)

    def first_made(self, key: str) -> datetime | None:
        """When the product was first made as it is, UTC without a zone; None when it is absent."""
        head = _head(self.path(key))
        return None if head is None else head.first

    def write(self, key: str, body: object) -> str:
        """Keep a product; returns the SHA-256 of its JSON text.

        Raises
        ------
        ValueError
            When the body holds NaN or an infinity.
        """
        text = json.dumps(body, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        digest = hashlib.sha256(text).hexdigest()
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).replace(tzinfo=None)
        moment = max(now, fresh.since() or now)  # what is made anew is not older than that, by any clock
        before = _head(path) or _head(path.with_suffix(BEFORE))
        first = before.first if before is not None and before.digest == digest else moment
        write_durably(path, f"{digest} {moment.isoformat()} {first.isoformat()}\n".encode() + text)
        path.with_suffix(BEFORE).unlink(missing_ok=True)
        return digest


@dataclass(frozen=True)
class _Head:
    """The first line of a product."""

    digest: str
    made: datetime
    first: datetime

    @staticmethod
    def of(line: bytes) -> _Head | None:
        """What a line says; None for one that is no such line."""
        try:
            digest, *moments = line.decode("ascii").split()
            return _Head(digest, datetime.fromisoformat(moments[0]), datetime.fromisoformat(moments[-1]))
        except (IndexError, ValueError):
            return None


def _head(path: Path) -> _Head | None:
    try:
        with path.open("rb") as file:
            return _Head.of(file.readline(200))
    except FileNotFoundError:
        return None
