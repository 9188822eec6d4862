"""Languages that a person states: a JSON file of codes and tiers, for corpora beyond the built-in ten.

    {"am": "low", "fr": "high", "yo": {"tier": "low", "script": "Latn", "share": 0.00001}}

A tier is what the model had to learn from, which no corpus says. What the file leaves out is taken from the
built-in table where that has the language. The first language is the one that byte premiums are told by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.corpus import Language

NAME = "languages.json"
"""The file that a folder of aligned sentences may hold."""
FIELDS = ("tier", "script", "share")


def read_languages(path: Path, table: Sequence[Language]) -> tuple[Language, ...]:
    """The languages of a file, in its order.

    Parameters
    ----------
    table
        Gives script, share and names of the languages it has, where the file does not.

    Raises
    ------
    ValueError
        With file and code: when the file cannot be read or is not one object of codes, a code names no
        language or stands there twice, or a tier, script or share is none.
    """
    known = {one.code: one for one in table}
    return tuple(_language(path, code, value, known.get(code)) for code, value in _entries(path))


def _entries(path: Path) -> list[tuple[str, Any]]:
    """Codes and what is said of each; a list keeps a code that stands there twice."""
    try:
        pairs = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(pairs, _Pairs) or not pairs:
        raise ValueError(f'{path} must be one object of codes and tiers: {{"sw": "low", "de": "high"}}')
    codes = [code for code, _ in pairs]
    twice = sorted({code for code in codes if codes.count(code) > 1})
    if twice:
        raise ValueError(f"{path}: {twice[0]!r} stands there twice; name each language once")
    return list(pairs)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands in the file."""


def _language(path: Path, code: str, value: Any, known: Language | None) -> Language:
    said: Mapping[str, Any] = dict(value) if isinstance(value, _Pairs) else {"tier": value}
    strange = [name for name in said if name not in FIELDS]
    if strange:
        raise ValueError(f"{path}: {code!r} has a field {strange[0]!r}; allowed: {', '.join(FIELDS)}")
    if said.get("tier") not in ("high", "low"):
        raise ValueError(f"{path}: tier {said.get('tier')!r} of {code!r}; allowed: 'high' and 'low'")
    if not isinstance(said.get("script", ""), str):
        raise ValueError(f"{path}: script {said['script']!r} of {code!r}; allowed: ISO 15924, such as 'Latn'")
    share = said.get("share")
    if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or share <= 0):
        raise ValueError(f"{path}: share {share!r} of {code!r}; allowed: a number above 0, at most 1")
    try:
        plain = known or Language(code=code, name=code, tier=said["tier"])
        return replace(plain, **{name: found for name, found in said.items() if found is not None})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
