"""What a study counts at a look and measures its effects in, for every page and terminal line that says so.

Read off the unit of the plan's margin, which is in the store: a field of its own would give every frozen plan
another hash.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Units:
    """Words for the numbers of a study."""

    look: str
    """What a look is a number of."""
    size: str
    """Name and unit of what a gate rests on, as a heading."""
    value: str
    """The field of a decision's numbers that holds it."""
    unit: str
    digits: int
    """Decimals of that unit."""
    more: str
    """What a further look would bring."""
    fresh: str
    """Where a finding would have to fail, to count against it."""


SAMPLES = Units(
    look="samples a cell",
    size="effect, SD",
    value="effect",
    unit="SD",
    digits=2,
    more="samples",
    fresh="in a run of the same plan on fresh samples",
)
SENTENCES = Units(
    look="aligned sentences",
    size="bits a sentence",
    value="estimate",
    unit="bits an aligned sentence",
    digits=2,
    more="sentences or languages",
    fresh="in a run of the same plan on other sentences",
)
ITEMS = Units(
    look="seeds",
    size="share of items",
    value="estimate",
    unit="share of items",
    digits=4,
    more="seeds",
    fresh="in a run of the same plan on other seeds",
)

NATS = Units(
    look="seeds",
    size="nats",
    value="estimate",
    unit="nats",
    digits=4,
    more="seeds",
    fresh="in a run of the same plan on other seeds",
)


def units_of(margin_unit: object) -> Units:
    """The words of a study whose margin has this unit.

    >>> [units_of(unit).look for unit in ("bits an aligned sentence", "share of items", "within-cell SD")]
    ['aligned sentences', 'seeds', 'samples a cell']
    >>> units_of("nats").look
    'seeds'
    """
    return next((units for units in (SENTENCES, ITEMS, NATS) if units.unit == margin_unit), SAMPLES)
