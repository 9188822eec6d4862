"""Which pieces of CLDR every language really has, and which it would fill in from elsewhere.

Babel never says that a piece is missing: a unit without a pattern comes out as its key, a currency as its
code, a date in the order of the root locale with months "M03", and some locales carry English names as their
own. Such a text is in no language, and a model that is bad at it says nothing about the language. So each
piece is looked up in the locale's own data, without inheritance, and refused when

- it is not there, or not with every plural form that the numbers used here need (a unit that has no long
  form is used by its short one, which is what CLDR means by leaving the long one out);
- a unit is the root locale's ("{0} km");
- it is its own key, or has no letter, or a number that is not the slots' ("rouble (2000–2016)", in digits of
  the locale's own);
- it holds a letter of another script than the language's;
- it is spelled as in English, in a language other than English, and in none of `WITNESSES` besides
  ("Angola" is spelled so in German and Spanish, "United States" in none of them).

A piece refused in one language is dropped from all, so that the corpus stays parallel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from models.corpus import Language

Kind = Literal["territory", "language", "currency", "unit", "relative", "name", "pattern"]

SMALLEST, LARGEST = 7, 999
"""Numbers in a text, both included; the plural forms of these are needed. From 7, because Welsh has forms of
its own for 2, 3 and 6, which for most units are the root locale's ("{0} m") and not Welsh."""
WITNESSES = ("de", "es", "fi", "fr", "it", "nl", "pl", "pt", "tr", "hu")
"""Latin-script locales that confirm a spelling shared with English; the language itself never does."""

FEWEST = {"territory": 8, "language": 8, "currency": 8, "unit": 8, "relative": 2}
"""Pieces of each kind that all languages of a corpus must share."""

_NO_TERRITORY = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}
"""Codes of two letters that are groups, tests or unknown."""
_SPANS = ("year", "month", "week", "day", "hour", "minute", "second")
_NAMES = (("months", 12), ("days", 7))
_PATTERNS = ("date_formats full", "date_formats long", "list_patterns standard", "list_patterns or")


@dataclass(frozen=True, kw_only=True)
class DroppedItem:
    """A piece that no text uses, because one language does not have it."""

    kind: Kind
    key: str
    """CLDR's, as "KM", "length-meter" or "week past"."""
    language: str
    """Code of the language that does not have it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Items:
    """Keys of the pieces that every language has, sorted."""

    territories: tuple[str, ...]
    languages: tuple[str, ...]
    currencies: tuple[str, ...]
    units: tuple[str, ...]
    spans: tuple[str, ...]
    """Fields with both a past and a future form: "week"."""


@cache
def refused_items(languages: tuple[Language, ...]) -> tuple[DroppedItem, ...]:
    """Every piece that one of these languages does not have; a piece may be refused by several.

    Raises
    ------
    ValueError
        When Babel has no locale of a code.
    """
    return tuple(item for language in languages for item in _faults(language))


@cache
def surviving_items(languages: tuple[Language, ...]) -> Items:
    """Pieces that all these languages have.

    Raises
    ------
    ValueError
        When Babel has no locale of a code, a language lacks a date, list or name pattern without which no
        text can be made, or fewer than `FEWEST` pieces of a kind remain; names the language that lacks most.
    """
    refused = refused_items(languages)
    for item in refused:
        if item.kind in ("name", "pattern"):
            raise ValueError(
                f"{item.language!r} cannot be in the corpus: {item.key} is refused ({item.reason}); "
                "choose another language"
            )
    lost = {(item.kind, item.key) for item in refused}
    kept = {
        kind: tuple(key for key in keys if (kind, key) not in lost) for kind, keys in _candidates().items()
    }
    spans = tuple(s for s in _SPANS if {f"{s} past", f"{s} future"} <= set(kept["relative"]))
    for kind, fewest in FEWEST.items():
        found = len(spans) if kind == "relative" else len(kept[kind])
        if found < fewest:
            count = Counter(item.language for item in refused if item.kind == kind)
            raise ValueError(
                f"{found} pieces of kind {kind} are in all of {', '.join(one.code for one in languages)}; "
                f"{fewest} are needed: leave out {count.most_common(1)[0][0]!r}, which lacks most"
            )
    return Items(
        territories=kept["territory"],
        languages=kept["language"],
        currencies=kept["currency"],
        units=kept["unit"],
        spans=spans,
    )


@cache
def _candidates() -> dict[str, tuple[str, ...]]:
    """Keys by kind, from the English locale, which is the most complete."""
    own = _own("en")
    territories = (key for key in own["territories"] if re.fullmatch("[A-Z]{2}", key))
    return {
        "territory": tuple(sorted(set(territories) - _NO_TERRITORY)),
        "language": tuple(sorted(key for key in own["languages"] if re.fullmatch("[a-z]{2}", key))),
        "currency": tuple(sorted(own["currency_names"])),
        "unit": tuple(sorted(own["unit_patterns"])),
        "relative": tuple(f"{span} {way}" for span in _SPANS for way in ("past", "future")),
        "name": tuple(name for name, _ in _NAMES),
        "pattern": _PATTERNS,
    }


def _faults(language: Language) -> Iterator[DroppedItem]:
    for kind, keys in _candidates().items():
        for key in keys:
            reason = _fault(language, kind, key)
            if reason:
                yield DroppedItem(kind=kind, key=key, language=language.code, reason=reason)  # type: ignore[arg-type]


def _fault(language: Language, kind: str, key: str) -> str | None:
    """Why a language may not use a piece; None when it may."""
    found = _texts(language.code, kind, key)
    if isinstance(found, str):
        return found
    for text in found:
        words = text.format("", "") if kind in ("unit", "relative", "pattern") else text
        if kind == "pattern" and key.startswith("date"):
            continue  # letters there are field codes
        if words.strip() == key:
            return f"comes out as its key {key!r}"
        if not any(c.isalpha() for c in words) and not key.startswith("list_patterns"):
            return f"no word: {text!r}"
        if any(c.isdecimal() for c in words):
            return f"a number of its own: {text!r}"
        if kind == "unit" and text == _own("root")["unit_patterns"].get(key, {}).get("short", {}).get(
            "other"
        ):
            return f"the root locale's {text!r}"
        strange = "".join(sorted({c for c in words if c.isalpha() and not _of_script(c, language.script)}))
        if strange:
            return f"letters of another script than {language.script}: {strange}"
    if kind in ("territory", "language", "currency", "unit", "relative") and language.code != "en":
        return _spelled_as_english(language.code, kind, key, found)
    return None


def _of_script(letter: str, script: str) -> bool:
    from models.corpus import script_share

    return script_share(letter, script) == 1.0


def _spelled_as_english(code: str, kind: str, key: str, found: tuple[str, ...]) -> str | None:
    """A reason when the last (the general) form is English's and no other language's."""
    english = _texts("en", kind, key)
    if isinstance(english, str) or found[-1].casefold() != english[-1].casefold():
        return None
    for witness in WITNESSES:
        theirs = _texts(witness, kind, key) if witness != code else ""
        if not isinstance(theirs, str) and theirs[-1].casefold() == english[-1].casefold():
            return None
    return f"spelled as in English: {english[-1]!r}"


def _texts(code: str, kind: str, key: str) -> tuple[str, ...] | str:
    """A locale's own texts or patterns of a piece, the general form last; a sentence when one is missing."""
    own = _own(code)
    if kind in ("territory", "language", "currency"):
        table = {"territory": "territories", "language": "languages", "currency": "currency_names"}[kind]
        name = own[table].get(key)
        plural = own["currency_names_plural"].get(key, {}) if kind == "currency" else {}
        return (*plural.values(), name) if name else "not in the locale's own data"
    if kind == "unit":
        return _plural_forms(code, own["unit_patterns"].get(key, {}).get(unit_length(code, key), {}))
    if kind == "relative":
        span, way = key.split(" ")
        return _plural_forms(code, own["date_fields"].get(span, {}).get(way, {}))
    if kind == "name":
        wide = _wide(code, key)
        return tuple(wide.values()) if len(wide) == dict(_NAMES)[key] else "not in the locale's own data"
    table, style = key.split(" ")
    pattern = own.get(table, {}).get(style)
    if table == "date_formats":
        return (pattern.pattern,) if pattern else "not in the locale's own data"
    return tuple(pattern.values()) if pattern and "2" in pattern else "not in the locale's own data"


def own_name(code: str, table: Literal["months", "days"], place: int) -> str:
    """Name of a month (1 to 12) or weekday (0 is Monday) standing alone, from the locale's own data.

    Not by Babel's `get_day_names`: a locale without names for standing alone gets an alias of the root
    locale, which Babel (2.18) resolves once for all locales, so a Kazakh Thursday comes out in whichever
    language was asked first.

    >>> own_name("sw", "days", 3), own_name("kk", "days", 3)
    ('Alhamisi', 'бейсенбі')
    """
    return _wide(code, table)[place]


def _wide(code: str, table: str) -> Mapping[int, str]:
    """Names in full for standing alone, or those within dates where a locale has no others; may be empty."""
    contexts = _own(code).get(table, {})
    for context in ("stand-alone", "format"):
        names = contexts.get(context, {}).get("wide", {})
        if isinstance(names, Mapping) and names:
            return names
    return {}


def unit_length(code: str, unit: str) -> Literal["long", "short"]:
    """The length in which a locale spells a unit out; CLDR leaves out a long form that equals the short one.

    >>> unit_length("sw", "length-kilometer"), unit_length("sw", "length-meter")
    ('long', 'short')
    """
    return "long" if "other" in _own(code)["unit_patterns"].get(unit, {}).get("long", {}) else "short"


def _plural_forms(code: str, forms: Mapping[str, str]) -> tuple[str, ...] | str:
    if not isinstance(forms, Mapping) or "other" not in forms:
        return "not in the locale's own data"
    missing = sorted(_categories(code) - forms.keys())
    if missing:
        return f"no plural form {', '.join(missing)}"
    return tuple(text for form, text in sorted(forms.items()) if form in _categories(code) | {"other"})


@cache
def _categories(code: str) -> frozenset[str]:
    """Plural forms of SMALLEST to LARGEST."""
    rule = _own(code)["plural_form"]
    return frozenset(rule(n) for n in range(SMALLEST, LARGEST + 1))


@cache
def _own(code: str) -> dict[str, Any]:
    """What a locale itself says, without what it inherits.

    Babel keeps loaded locales by code alone, whether or not the inherited part was merged in: what it keeps
    is set aside for this call and put back, or every later text in that language would lack root patterns.
    """
    from babel import localedata

    if not localedata.exists(code):
        raise ValueError(f"Babel has no locale {code!r}; see babel.localedata.locale_identifiers()")
    with localedata._cache_lock:
        kept = localedata._cache.pop(code, None)
        own = dict(localedata.load(code, merge_inherited=False))
        del localedata._cache[code]
        if kept is not None:
            localedata._cache[code] = kept
    return own
