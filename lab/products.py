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
        if re.fullmatch(r"[A-Za-z0-9_-]+", key) is None:
            raise ValueError(f"product key {key!r}; allowed: letters, digits, _ and -")
        return self.home / "cache" / self.kind / key[:2] / f"{key}.json"

    def read(self, key: str) -> Any:
        """The product, or None when it is absent or damaged; a damaged one is deleted."""
        path = self.path(key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        head, _, body = raw.partition(b"\n")
        digest = head.decode("ascii", "replace").split(" ")[0]
        if digest != hashlib.sha256(body).hexdigest():
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
        moment = datetime.now(UTC).replace(tzinfo=None).isoformat()
        write_durably(path, f"{digest} {moment}\n".encode() + text)
        return digest
