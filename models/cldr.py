"""Parallel sentences from CLDR, through Babel: found on any machine, in hundreds of languages.

A document is a draw of slots: days, places, languages, an amount of money, measures, spans of time. Four of
the ten `SHAPES` put these slots into four sentences, each from three to six pieces that the locale itself
words: "Thursday, March 5, 2037: Chad, Peru, and Fiji – in 12 weeks". The punctuation between pieces is the
same in every language. There are no verbs; what a model can learn is names, inflection by number, the order
within dates, and how a language joins a list.

Document i depends on (seed, i) and on which pieces the languages share, and on nothing else, so disjoint
ranges of i are disjoint parts: one to train on, one to choose on, one to report on. `models.cldr_items` says
which pieces are used. Numbers are in digits 0 to 9 in every language. 99 % of sentences have 40 to 120
characters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

from models.cldr_items import (
    LARGEST,
    SMALLEST,
    DroppedItem,
    Items,
    own_name,
    refused_items,
    surviving_items,
    unit_length,
)
from models.corpus import AlignedCorpus, Language
from models.languages import LANGUAGES as LANGUAGES

if TYPE_CHECKING:
    from babel import Locale

FIRST_DAY = date(2001, 1, 1)
DAYS = 60 * 365
"""Days that a date is drawn from, so every year has four digits and starts with 20."""
SENTENCES = 4
"""In a document."""
LONGEST_SPAN = 99
"""Largest number in a relative time."""

_SECONDS = {"year": 31536000, "month": 2592000, "week": 604800, "day": 86400, "hour": 3600, "minute": 60}
"""In one of Babel's units of relative time; a second is 1."""
_KEPT = 1 << 16
"""Rendered pieces kept of each kind, all languages together."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What the sentences of one document are about, in no language."""

    day: date
    other_day: date
    places: tuple[str, ...]
    """Four territories, ISO 3166."""
    tongues: tuple[str, ...]
    """Four languages, ISO 639."""
    money: tuple[int, str]
    """Amount and currency, ISO 4217."""
    measures: tuple[tuple[int, str], ...]
    """Two numbers, each with a unit."""
    spans: tuple[tuple[int, str], ...]
    """Two numbers (below zero for the past), each with a unit of time."""
    shapes: tuple[int, ...]
    """Places in `SHAPES` of the document's sentences."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The slots of one document as one locale words them."""

    code: str
    slots: Slots

    def day(self) -> str:
        """Weekday, day, month and year."""
        return _date(self.code, self.slots.day, "full")

    def other_day(self) -> str:
        """Day, month and year of the second date."""
        return _date(self.code, self.slots.other_day, "long")

    def months(self) -> str:
        """The months of both dates: one or the other."""
        return _join(self.code, [own_name(self.code, "months", d.month) for d in self._days()], "or")

    def weekday(self) -> str:
        """Of the second date."""
        return own_name(self.code, "days", self.slots.other_day.weekday())

    def places(self, *which: int, style: str = "standard") -> str:
        """Territories as a list."""
        return _join(self.code, [_territory(self.code, self.slots.places[i]) for i in which], style)

    def tongues(self, *which: int, style: str = "standard") -> str:
        """Languages as a list."""
        return _join(self.code, [_language(self.code, self.slots.tongues[i]) for i in which], style)

    def money(self) -> str:
        """Amount with the currency's name."""
        return _money(self.code, *self.slots.money)

    def measure(self, which: int) -> str:
        """Number with a unit."""
        return _measure(self.code, *self.slots.measures[which])

    def span(self, which: int) -> str:
        """How long ago, or in how long."""
        return _span(self.code, *self.slots.spans[which])

    def both(self, *texts: str) -> str:
        """Texts as a list."""
        return _join(self.code, list(texts), "standard")

    def _days(self) -> tuple[date, date]:
        return self.slots.day, self.slots.other_day


SHAPES: tuple[Callable[[Pieces], str], ...] = (
    lambda p: f"{p.day()}: {p.places(0, 1, 2)} – {p.span(0)}",
    lambda p: f"{p.span(0)}: {p.both(p.money(), p.measure(0))} ({p.places(0)})",
    lambda p: f"{p.tongues(0, 1, 2)} ({p.places(1, 2)}): {p.measure(0)}",
    lambda p: f"{p.other_day()}: {p.both(p.measure(0), p.measure(1))} – {p.places(1)}",
    lambda p: f"{p.weekday()}, {p.span(1)}: {p.money()} – {p.places(0, 3, style='or')}",
    lambda p: f"{p.places(2)}: {p.day()}; {p.tongues(0, 3)}",
    lambda p: f"{p.money()} – {p.places(0, 1)}: {p.other_day()}",
    lambda p: f"{p.places(3)}, {p.months()}: {p.both(p.measure(1), p.tongues(1))}, {p.span(0)}",
    lambda p: f"{p.day()} – {p.span(1)}: {p.measure(1)}, {p.tongues(2, 3, style='or')}",
    lambda p: f"{p.tongues(0, 1)}; {p.places(1, 2, 3)}: {p.months()}, {p.span(1)}",
)
"""Sentences from pieces."""


def cldr_corpus(
    *, documents: int, first: int = 0, seed: int = 0, languages: tuple[Language, ...] = LANGUAGES
) -> AlignedCorpus:
    """Documents number `first` to `first + documents` - 1 in every language, `SENTENCES` each.

    Parameters
    ----------
    documents
        How many, at least 1.
    first
        Index of the first; disjoint ranges share no document.
    seed
        Of the drawing; another seed is another corpus.
    languages
        At least one. A piece that one of them lacks is used in none.

    Raises
    ------
    ValueError
        When `documents` is under 1 or `first` under 0, or a language cannot be in the corpus.

    >>> corpus = cldr_corpus(documents=2, first=10)
    >>> len(corpus.ids), corpus.ids[4], corpus.document_names
    (8, '11.0', ('10', '11'))
    >>> [len(corpus.texts[code]) for code in ("en", "ne")]
    [8, 8]
    """
    drawn = _draw(documents, first, seed, languages)
    texts = {one.code: tuple(_sentences(one.code, drawn)) for one in languages}
    names = [str(number) for number in range(first, first + documents)]
    return AlignedCorpus(
        name=f"cldr-{_cldr_version()}",
        languages=tuple(one.code for one in languages),
        ids=tuple(f"{name}.{place}" for name in names for place in range(SENTENCES)),
        documents=tuple(name for name in names for _ in range(SENTENCES)),
        texts=texts,
    )


def cldr_texts(
    code: str,
    *,
    documents: int,
    first: int = 0,
    seed: int = 0,
    languages: tuple[Language, ...] = LANGUAGES,
) -> list[str]:
    """One side of `cldr_corpus` with the same arguments, without making the others.

    Raises
    ------
    ValueError
        As `cldr_corpus`, or when `code` is none of `languages`.

    >>> cldr_texts("de", documents=2, first=10) == list(cldr_corpus(documents=2, first=10).texts["de"])
    True
    """
    codes = [one.code for one in languages]
    if code not in codes:
        raise ValueError(f"language {code!r} is not in the corpus; its languages are {', '.join(codes)}")
    return list(_sentences(code, _draw(documents, first, seed, languages)))


def dropped_items(languages: tuple[Language, ...] = LANGUAGES) -> tuple[DroppedItem, ...]:
    """Pieces that no text uses, each with the language that does not have it and why.

    >>> some = [item for item in dropped_items() if (item.kind, item.key) == ("territory", "PL")]
    >>> [(item.language, item.reason) for item in some]
    [('sw', "spelled as in English: 'Poland'")]
    """
    return refused_items(languages)


def _draw(documents: int, first: int, seed: int, languages: tuple[Language, ...]) -> list[Slots]:
    if documents < 1 or first < 0:
        raise ValueError(f"documents is {documents} and first is {first}; allowed: at least 1 and at least 0")
    if not languages:
        raise ValueError("no language given; name at least 1")
    items = surviving_items(languages)
    return [_slots(items, seed, number) for number in range(first, first + documents)]


def _slots(items: Items, seed: int, number: int) -> Slots:
    """Slots of one document, all from a generator of its own."""
    draw = random.Random(f"cldr {seed} {number}")
    spans = draw.sample(items.spans, 2)
    return Slots(
        day=FIRST_DAY + timedelta(draw.randrange(DAYS)),
        other_day=FIRST_DAY + timedelta(draw.randrange(DAYS)),
        places=tuple(draw.sample(items.territories, 4)),
        tongues=tuple(draw.sample(items.languages, 4)),
        money=(draw.randint(SMALLEST, LARGEST), draw.choice(items.currencies)),
        measures=tuple((draw.randint(SMALLEST, LARGEST), unit) for unit in draw.sample(items.units, 2)),
        spans=tuple(
            (draw.choice((-1, 1)) * draw.randint(SMALLEST, LONGEST_SPAN), spans[i]) for i in range(2)
        ),
        shapes=tuple(draw.sample(range(len(SHAPES)), SENTENCES)),
    )


def _sentences(code: str, drawn: Sequence[Slots]) -> Iterator[str]:
    for slots in drawn:
        pieces = Pieces(code=code, slots=slots)
        for shape in slots.shapes:
            yield SHAPES[shape](pieces)


# Babel words each piece; most are asked for once and kept.


@lru_cache(_KEPT)
def _date(code: str, day: date, width: Literal["full", "long"]) -> str:
    from babel.dates import format_date

    return format_date(day, width, locale=code)


@cache
def _territory(code: str, key: str) -> str:
    return str(_locale(code).territories[key])


@cache
def _language(code: str, key: str) -> str:
    return str(_locale(code).languages[key])


@lru_cache(_KEPT)
def _money(code: str, amount: int, currency: str) -> str:
    from babel.numbers import format_currency

    return format_currency(amount, currency, "#,##0", locale=code, format_type="name", currency_digits=False)


@lru_cache(_KEPT)
def _measure(code: str, number: int, unit: str) -> str:
    from babel.units import format_unit

    return format_unit(number, unit, unit_length(code, unit), locale=code)


@lru_cache(_KEPT)
def _span(code: str, number: int, unit: str) -> str:
    from babel.dates import format_timedelta

    seconds = timedelta(seconds=number * _SECONDS.get(unit, 1))
    never = 1e12  # a threshold that no unit reaches, so the granularity is the unit
    return format_timedelta(seconds, granularity=unit, threshold=never, add_direction=True, locale=code)  # type: ignore[arg-type]


def _join(code: str, texts: list[str], style: str) -> str:
    from babel.lists import format_list

    return format_list(texts, style, _locale(code))  # type: ignore[arg-type]


@cache
def _locale(code: str) -> Locale:
    from babel import Locale

    return Locale.parse(code)


@cache
def _cldr_version() -> str:
    import babel

    return f"babel-{babel.__version__}"
