"""Drawn figures, kept under the home by what they show: a report draws again only what has changed.

Drawing takes some 0.3 s a figure, and a report has a hundred; most show what they showed the night before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import polars as pl

from lab.fingerprint import code
from lab.products import Products

LIBRARIES = ("altair", "vl-convert-python")


class Drawings:
    """The kept drawings of one home.

    Parameters
    ----------
    home
        Drawings lie in `cache/drawings` below it; nothing is made before the first one.
    """

    def __init__(self, home: Path) -> None:
        self._kept = Products(home, "drawings")
        self._used: set[Path] = set()

    def get(self, key: str, draw: Callable[[], str]) -> str:
        """The drawing of a key, drawn where there is none yet or a damaged one.

        Raises
        ------
        OSError
            A new drawing cannot be kept.
        """
        self._used.add(self._kept.path(key))
        found = self._kept.read(key)
        if not isinstance(found, str):
            found = draw()
            self._kept.write(key, found)
        return found

    def forget_others(self) -> None:
        """Delete every drawing that was not asked for."""
        for path in self._kept.path("-").parent.parent.glob("*/*.json"):
            if path not in self._used:
                path.unlink(missing_ok=True)


def key_of(frame: pl.DataFrame, draw: Callable[..., object], *told: str) -> str:
    """SHA-256 of rows, of the code that draws them, of the libraries' versions and of further words.

    >>> first, second = pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1.0]})
    >>> key_of(first, key_of) == key_of(second, key_of)
    False
    """
    made_by = code("lab.figures", draw.__module__, alone=("lab.report_drawing",))
    about = [draw.__module__, draw.__qualname__, made_by, *told]
    about += [f"{name} {version(name)}" for name in LIBRARIES]
    about += [f"{name} {kind}" for name, kind in frame.schema.items()]
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(frame.write_ndjson().encode())
    return digest.hexdigest()
