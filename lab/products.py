"""Results of measured steps as small JSON files, addressed by fingerprint and checked by hash.

The first line holds the hash and the time of making, which stays when a home is copied. A product is written
whole or not at all, so a killed process leaves nothing half done, and one that does not match its checksum is
deleted and made again.
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

        A damaged or older one is deleted.
        """
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        head, _, body = raw.partition(b"\n")
        digest, _, made = head.decode("ascii", "replace").partition(" ")
        if digest != hashlib.sha256(body).hexdigest() or _is_stale(path, made):
            path.unlink(missing_ok=True)
            return None
        return json.loads(body)

    def written_at(self, key: str) -> datetime | None:
        """When the product was made, UTC without a zone; None when it is absent."""
        try:
            with self.path(key).open("rb") as file:
                head = file.readline(200).decode("ascii", "replace")
            return datetime.fromisoformat(head.split()[1])
        except (FileNotFoundError, IndexError, ValueError):
            return None

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
        write_durably(path, f"{digest} {moment.isoformat()}\n".encode() + text)
        return digest


def _is_stale(path: Path, made: str) -> bool:
    return fresh.since() is not None and fresh.is_stale(path, datetime.fromisoformat(made))
