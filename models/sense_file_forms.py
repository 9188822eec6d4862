"""One line of a sense file -> items: this project's form, and the earlier one.

The earlier form has `word` {lemma, pos}, `sense_catalog` [{sense_id, gloss}] and `items` [{item_id, role,
sense_id, context, hardness}]. Roles in a file of bundles or retrieval items are anchor (one, which is also
the query), positive, negative and hard_negative; in a file of coherence items any role or none, contexts in
order. `context` is a text, or {text, span {start, end, surface}}. Without a span the first whole word is
taken that is the lemma, else the first that begins with it, case apart; an item of another lemma needs
`lemma` or a span. `hardness` is a tier 1 to 4, one of `HARDNESS`, or null. Negatives of a sense in the
catalog are within the lemma, others across.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from models.sense_items import (
    MOST_NEGATIVES,
    Bundle,
    CoherenceItem,
    Quality,
    RetrievalItem,
    Sense,
    TextItem,
)

T = TypeVar("T")

HARDNESS: Mapping[str, int] = MappingProxyType({"easy": 1, "medium": 2, "hard": 3, "killer": 4})
ROLES = ("anchor", "positive", "negative", "hard_negative")
_NAMES = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """An object of a file and where it stands; getting a field checks its type."""

    where: str
    """File and line, then the way to this object: "a.jsonl, line 2: anchor.span"."""
    fields: Mapping[str, Any]

    def get(self, name: str, kind: type) -> Any:
        """A field that must be there.

        Raises
        ------
        ValueError
            With the place: when it is missing or of another type.
        """
        if name not in self.fields:
            found = ", ".join(map(repr, self.fields)) or "none"
            raise ValueError(f"{self.where} has no {name!r}; its fields are {found}")
        value = self.fields[name]
        right = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
        if not right:
            raise ValueError(f"{self.where}: {name!r} is {type(value).__name__}; it must be {_NAMES[kind]}")
        return value

    def maybe(self, name: str, kind: type) -> Any:
        """A field that may be null or left out: None then."""
        return None if self.fields.get(name) is None else self.get(name, kind)

    def object(self, name: str) -> Row:
        """A field that is an object."""
        return Row(where=f"{self.where}: {name}", fields=self.get(name, dict))

    def objects(self, name: str) -> list[Row]:
        """A field that is a list of objects."""
        rows = self._all(name, dict)
        return [Row(where=f"{self.where}: {name}[{i}]", fields=row) for i, row in enumerate(rows)]

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        return tuple(self._all(name, str))

    def numbers(self, name: str) -> tuple[int, ...]:
        """A field that is a list of whole numbers."""
        return tuple(self._all(name, int))

    def _all(self, name: str, kind: type) -> list[Any]:
        found = self.get(name, list)
        for i, value in enumerate(found):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(
                    f"{self.where}: {name}[{i}] is {type(value).__name__}; it must be {_NAMES[kind]}"
                )
        return list(found)


def bundle_of(row: Row) -> tuple[list[Bundle], list[str]]:
    """Bundles of a line, and what of it was not kept.

    Raises
    ------
    ValueError
        With the place.
    """
    if "word" in row.fields:
        return _earlier_bundles(row)
    negatives, metadata = row.object("negatives"), row.object("metadata")
    fields = {
        "id": row.get("id", str),
        "lemma": row.get("lemma", str),
        "anchor": text_of(row.object("anchor")),
        "positive": text_of(row.object("positive")),
        "within_lemma": tuple(text_of(one) for one in negatives.objects("within_lemma")),
        "cross_lemma": tuple(text_of(one) for one in negatives.objects("cross_lemma")),
        "anchor_sense": metadata.get("anchor_sense", str),
        "difficulty_tier": metadata.maybe("difficulty_tier", int),
        "danger_score": metadata.maybe("danger_score", float),
        "bundle_type": metadata.get("bundle_type", str),
    }
    return [_made(row, Bundle, fields)], []


def retrieval_of(row: Row) -> tuple[list[RetrievalItem], list[str]]:
    """The retrieval item of a line; its tier is the query's where the item has none.

    Raises
    ------
    ValueError
        With the place.
    """
    if "word" in row.fields:
        earlier = _earlier(row)
        query, candidates = earlier.anchor(row), [text for role, text in earlier.texts if role != "anchor"]
        fields: dict[str, Any] = {"id": earlier.id, "lemma": earlier.lemma, "tier": query.difficulty_tier}
    else:
        query = text_of(row.object("query"))
        candidates = [text_of(one) for one in row.objects("candidates")]
        tier = row.maybe("tier", int)
        fields = {"id": row.get("id", str), "lemma": row.get("lemma", str)}
        fields["tier"] = query.difficulty_tier if tier is None else tier
    told = row.numbers("correct") if row.fields.get("correct") is not None else None
    right = tuple(i for i, one in enumerate(candidates) if one.sense_id == query.sense_id)
    fields |= {"query": query, "candidates": tuple(candidates), "correct": right if told is None else told}
    return [_made(row, RetrievalItem, fields)], []


def coherence_of(row: Row) -> tuple[list[CoherenceItem], list[str]]:
    """The coherence item of a line; of the earlier form, the inventory is the catalog.

    Raises
    ------
    ValueError
        With the place.
    """
    if "word" in row.fields:
        earlier = _earlier(row)
        contexts = tuple(text for _, text in earlier.texts)
        senses = tuple(text.sense_id for text in contexts)
        inventory = tuple(Sense(sense_id=name, gloss=gloss) for name, gloss in earlier.catalog.items())
        name, lemma = earlier.id, earlier.lemma
    else:
        contexts = tuple(text_of(one) for one in row.objects("contexts"))
        senses, name, lemma = row.texts("senses"), row.get("id", str), row.get("lemma", str)
        known = row.objects("inventory") if row.fields.get("inventory") is not None else []
        inventory = tuple(_sense(one) for one in known)
    fields = {"id": name, "lemma": lemma, "contexts": contexts, "senses": senses, "inventory": inventory}
    return [_made(row, CoherenceItem, fields)], []


def text_of(row: Row) -> TextItem:
    """A text of this project's form.

    >>> span = {"start": 2, "end": 6, "surface": "bank"}
    >>> text_of(Row(where="a.jsonl, line 1: anchor", fields={"text": "a bank", "span": span}))
    Traceback (most recent call last):
    ...
    ValueError: a.jsonl, line 1: anchor has no 'sense_id'; its fields are 'text', 'span'
    """
    span, quality = row.object("span"), row.maybe("quality", dict)
    fields = {
        "text": row.get("text", str),
        "span": (span.get("start", int), span.get("end", int)),
        "surface": span.get("surface", str),
        "difficulty_tier": row.maybe("difficulty_tier", int),
        "quality": None if quality is None else _quality(row.object("quality")),
    }
    for name in ("sense_id", "sense_gloss", "pos", "source"):
        fields[name] = row.get(name, str)
    return _made(row, TextItem, fields | {"cue_tokens": row.texts("cue_tokens")})


@dataclass(frozen=True, kw_only=True)
class _Earlier:
    """A line of the earlier form."""

    id: str
    """Of the line; of its first item where the line has none."""
    lemma: str
    catalog: Mapping[str, str]
    """Sense -> gloss."""
    texts: tuple[tuple[str, TextItem], ...]
    """Role and text of each item, in order."""

    def anchor(self, row: Row) -> TextItem:
        """The one item of that role; the roles of all are checked."""
        found = [text for role, text in self.texts if role == "anchor"]
        unknown = [role for role, _ in self.texts if role not in ROLES]
        if len(found) != 1 or unknown:
            raise ValueError(
                f"{row.where}: roles are {[role for role, _ in self.texts]}; one is anchor, others are "
                f"{', '.join(ROLES[1:])}"
            )
        if found[0].sense_id not in self.catalog:
            raise ValueError(
                f"{row.where}: the anchor's sense {found[0].sense_id!r} is not in the catalog, which has "
                f"{', '.join(map(repr, self.catalog)) or 'none'}"
            )
        return found[0]


def _earlier_bundles(row: Row) -> tuple[list[Bundle], list[str]]:
    earlier = _earlier(row)
    anchor = earlier.anchor(row)
    by_role: dict[str, list[TextItem]] = {role: [] for role in ROLES}
    for role, text in earlier.texts:
        by_role[role].append(text)
    if not by_role["positive"]:
        raise ValueError(f"{row.where} has no item of role positive; a bundle needs one")
    negatives = by_role["hard_negative"] + by_role["negative"]
    within = [one for one in negatives if one.sense_id in earlier.catalog]
    across = [one for one in negatives if one.sense_id not in earlier.catalog]
    notes = [
        f"{row.where}: {len(group)} negatives {kind}, the first {MOST_NEGATIVES} are kept, hard ones first"
        for kind, group in (("within the lemma", within), ("across lemmas", across))
        if len(group) > MOST_NEGATIVES
    ]
    found = []
    for number, positive in enumerate(by_role["positive"], start=1):
        fields = {
            "id": earlier.id if number == 1 else f"{earlier.id}#{number}",
            "lemma": earlier.lemma,
            "anchor": anchor,
            "positive": positive,
            "within_lemma": tuple(within[:MOST_NEGATIVES]),
            "cross_lemma": tuple(across[:MOST_NEGATIVES]),
            "anchor_sense": anchor.sense_id,
            "difficulty_tier": anchor.difficulty_tier,
            "bundle_type": "earlier",
        }
        found.append(_made(row, Bundle, fields))
    return found, notes


def _earlier(row: Row) -> _Earlier:
    word = row.object("word")
    lemma, pos = word.get("lemma", str), word.get("pos", str)
    catalog: dict[str, str] = {}
    for entry in row.objects("sense_catalog"):
        sense = entry.get("sense_id", str)
        if sense in catalog:
            raise ValueError(f"{entry.where}: sense {sense!r} is in the catalog twice")
        catalog[sense] = entry.get("gloss", str)
    items = row.objects("items")
    if not items:
        raise ValueError(f"{row.where} has no items; it needs at least 1")
    names = [item.get("item_id", str) for item in items]
    for item, name in zip(items, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"{item.where}: item_id {name!r} is used {names.count(name)} times; once only")
    own = row.maybe("id", str)
    texts = tuple((item.maybe("role", str) or "", _earlier_text(item, lemma, pos, catalog)) for item in items)
    return _Earlier(id=names[0] if own is None else own, lemma=lemma, catalog=catalog, texts=texts)


def _earlier_text(item: Row, lemma: str, pos: str, catalog: Mapping[str, str]) -> TextItem:
    within = item.object("context") if isinstance(item.fields.get("context"), dict) else item
    text = within.get("text" if within is not item else "context", str)
    if within.fields.get("span") is None:
        start, end = _find(item, text, item.maybe("lemma", str) or lemma)
        surface = text[start:end]
    else:
        span = within.object("span")
        start, end, surface = span.get("start", int), span.get("end", int), span.get("surface", str)
    sense = item.get("sense_id", str)
    fields = {
        "text": text,
        "span": (start, end),
        "surface": surface,
        "sense_id": sense,
        "sense_gloss": catalog.get(sense, ""),
        "pos": pos,
        "source": item.maybe("source", str) or "",
        "difficulty_tier": _tier(item),
    }
    return _made(item, TextItem, fields)


def _find(item: Row, text: str, lemma: str) -> tuple[int, int]:
    """Where the lemma is: as a whole word, else at the beginning of one."""
    for ending in (r"(?!\w)", r"\w*"):
        found = re.search(rf"(?<!\w){re.escape(lemma)}{ending}", text, flags=re.IGNORECASE)
        if found:
            return found.span()
    raise ValueError(
        f"{item.where}: no word of {text[:60]!r} begins with {lemma!r}; give 'span', or 'lemma' for an item "
        "of another lemma"
    )


def _tier(item: Row) -> int | None:
    told = item.fields.get("hardness")
    if isinstance(told, str):
        if told not in HARDNESS:
            raise ValueError(f"{item.where}: hardness {told!r}; allowed are {', '.join(HARDNESS)} or 1 to 4")
        return HARDNESS[told]
    found: int | None = item.maybe("hardness", int)
    return found


def _sense(row: Row) -> Sense:
    examples = row.objects("examples") if row.fields.get("examples") is not None else []
    fields = {"sense_id": row.get("sense_id", str), "gloss": row.get("gloss", str)}
    return _made(row, Sense, fields | {"examples": tuple(text_of(one) for one in examples)})


def _quality(row: Row) -> Quality:
    names = ("cue_strength", "ambiguity_risk")
    return _made(row, Quality, {name: float(row.get(name, float)) for name in names})


def _made(row: Row, kind: Callable[..., T], fields: Mapping[str, Any]) -> T:
    """The object, or its own complaint with the place."""
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error
