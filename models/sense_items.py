"""What a sense study reads and is asked: texts with a marked lemma, bundles, retrieval and coherence items.

Every object refuses on its own what could not be used: a span that holds another surface, a positive of
another sense, a correct set that is not the candidates of the query's sense. `models.sense_files` adds file
and line to what is said here. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_NEGATIVES = 3
"""Of one kind in a bundle."""
KILLER = 4
TIERS = (1, 2, 3, KILLER)
"""1 is easy, 3 hard; 4 are killers, mined with another seed's model."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How clearly a text shows its sense."""

    cue_strength: float
    """Share of the words that point to the sense, 0 to 1."""
    ambiguity_risk: float
    """Share of the words that point to another sense of the lemma, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name in ("cue_strength", "ambiguity_risk"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TextItem:
    """One context of a lemma in one sense.

    >>> TextItem(text="a bank", span=(2, 6), surface="tank", sense_id="bank.1")
    Traceback (most recent call last):
    ...
    ValueError: span 2 to 6 of 'a bank' holds 'bank', surface is 'tank'; make them agree
    """

    text: str
    span: tuple[int, int]
    """Of the lemma in `text`: first character and the one after the last."""
    surface: str
    """The lemma as it is written there: `text[span[0]:span[1]]`."""
    sense_id: str
    sense_gloss: str = ""
    pos: str = ""
    """Part of speech."""
    cue_tokens: tuple[str, ...] = ()
    """Words of the text that point to its sense."""
    source: str = ""
    """Where the text comes from."""
    difficulty_tier: int | None = None
    """One of `TIERS`, or None where none was told."""
    quality: Quality | None = None

    def __post_init__(self) -> None:
        """Refuse an empty text, a span that holds something else, no sense, another tier."""
        start, end = self.span
        if not self.text.strip():
            raise ValueError("the text is empty; fill it in or leave it out")
        if not 0 <= start < end <= len(self.text):
            raise ValueError(f"span {start} to {end} is not in a text of {len(self.text)} characters")
        if self.text[start:end] != self.surface:
            raise ValueError(
                f"span {start} to {end} of {self.text[:60]!r} holds {self.text[start:end]!r}, "
                f"surface is {self.surface!r}; make them agree"
            )
        if not self.sense_id:
            raise ValueError(f"text {self.text[:60]!r} has an empty sense_id; name its sense")
        check_tier(self.difficulty_tier)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An anchor, a text of the same sense, and texts of others: what a head is trained on."""

    id: str
    lemma: str
    anchor: TextItem
    positive: TextItem
    within_lemma: tuple[TextItem, ...]
    """At most three texts of other senses of the lemma."""
    cross_lemma: tuple[TextItem, ...]
    """At most three texts of other lemmas."""
    anchor_sense: str
    difficulty_tier: int | None = None
    danger_score: float | None = None
    """Largest cosine of anchor and a negative less that of anchor and positive, by a named encoder."""
    bundle_type: str = "contrastive"

    def __post_init__(self) -> None:
        """Refuse senses that contradict each other, a text in two roles, more than three negatives."""
        _named("bundle", self.id, self.lemma)
        for name, item in (("anchor", self.anchor), ("positive", self.positive)):
            if item.sense_id != self.anchor_sense:
                raise ValueError(
                    f"bundle {self.id!r}: {name} has sense {item.sense_id!r}, anchor_sense is "
                    f"{self.anchor_sense!r}; they must be the same"
                )
        for name, group in (("within_lemma", self.within_lemma), ("cross_lemma", self.cross_lemma)):
            if len(group) > MOST_NEGATIVES:
                raise ValueError(
                    f"bundle {self.id!r} has {len(group)} negatives in {name}; at most {MOST_NEGATIVES}"
                )
            if any(item.sense_id == self.anchor_sense for item in group):
                raise ValueError(
                    f"bundle {self.id!r}: a negative in {name} has the anchor's sense {self.anchor_sense!r}"
                )
        used = [item.text for item in self.texts()]
        if len(set(used)) < len(used):
            again = next(text for text in used if used.count(text) > 1)
            raise ValueError(f"bundle {self.id!r}: text {again[:60]!r} is in two places; use it once")
        check_tier(self.difficulty_tier)

    def texts(self) -> Iterator[TextItem]:
        """Anchor, positive, then the negatives."""
        yield from (self.anchor, self.positive, *self.within_lemma, *self.cross_lemma)


@dataclass(frozen=True, kw_only=True)
class RetrievalItem:
    """A query and candidates, some of its sense."""

    id: str
    lemma: str
    query: TextItem
    candidates: tuple[TextItem, ...]
    """In file order, which breaks ties."""
    correct: tuple[int, ...]
    """Places in `candidates`, from 0, of all texts of the query's sense, ascending."""
    tier: int | None = None

    def __post_init__(self) -> None:
        """Refuse a correct set that the senses contradict, that is empty or everything; the query itself."""
        _named("retrieval item", self.id, self.lemma)
        right = tuple(i for i, one in enumerate(self.candidates) if one.sense_id == self.query.sense_id)
        if self.correct != right:
            raise ValueError(
                f"retrieval item {self.id!r}: correct is {self.correct}, the candidates of sense "
                f"{self.query.sense_id!r} are {right}"
            )
        if not 0 < len(right) < len(self.candidates):
            raise ValueError(
                f"retrieval item {self.id!r}: {len(right)} of {len(self.candidates)} candidates have the "
                "query's sense; at least one must and one must not"
            )
        if any(one.text == self.query.text for one in self.candidates):
            raise ValueError(f"retrieval item {self.id!r}: the query's text is among the candidates")
        check_tier(self.tier)

    def texts(self) -> Iterator[TextItem]:
        """The query, then the candidates."""
        yield from (self.query, *self.candidates)


@dataclass(frozen=True, kw_only=True)
class Sense:
    """One sense to decide for."""

    sense_id: str
    gloss: str
    examples: tuple[TextItem, ...] = ()
    """Contexts a prototype may be taken from; none is a context to be decided."""

    def __post_init__(self) -> None:
        """Refuse an example of another sense."""
        other = [one.sense_id for one in self.examples if one.sense_id != self.sense_id]
        if other:
            raise ValueError(f"sense {self.sense_id!r} has an example of sense {other[0]!r}")


@dataclass(frozen=True, kw_only=True)
class CoherenceItem:
    """Two or three contexts of a lemma in a row; the sense may move at each step."""

    id: str
    lemma: str
    contexts: tuple[TextItem, ...]
    senses: tuple[str, ...]
    """Gold, one a context."""
    inventory: tuple[Sense, ...] = ()
    """The lemma's senses, which a decision is taken among; each gold one is there."""

    def __post_init__(self) -> None:
        """Refuse golds that contradict the contexts or the inventory, and a context among the examples."""
        _named("coherence item", self.id, self.lemma)
        if not 2 <= len(self.contexts) <= 3:
            raise ValueError(f"coherence item {self.id!r} has {len(self.contexts)} contexts; 2 or 3")
        told = tuple(one.sense_id for one in self.contexts)
        if self.senses != told:
            raise ValueError(f"coherence item {self.id!r}: senses are {self.senses}, the contexts say {told}")
        known = [sense.sense_id for sense in self.inventory]
        if len(set(known)) < len(known):
            raise ValueError(f"coherence item {self.id!r}: the inventory {known} has a sense twice")
        if known and (len(known) < 2 or not set(told) <= set(known)):
            raise ValueError(
                f"coherence item {self.id!r}: senses {told} are decided among {known}; at least 2, with all "
                "of the contexts'"
            )
        shown = {one.text for sense in self.inventory for one in sense.examples}
        if shown & {one.text for one in self.contexts}:
            raise ValueError(f"coherence item {self.id!r}: a context is also an example of the inventory")

    def texts(self) -> Iterator[TextItem]:
        """The contexts, then the examples of the inventory."""
        yield from self.contexts
        for sense in self.inventory:
            yield from sense.examples


def without_killers(items: Sequence[RetrievalItem]) -> list[RetrievalItem]:
    """The items that are no killers, which are asked and reported on their own."""
    return [item for item in items if item.tier != KILLER]


def check_tier(tier: int | None) -> None:
    """Refuse a tier that is none of `TIERS`; None is no tier told.

    Raises
    ------
    ValueError
        For another tier.
    """
    if tier is not None and tier not in TIERS:
        raise ValueError(f"tier {tier!r}; allowed are {', '.join(map(str, TIERS))} or none")


def _named(kind: str, name: str, lemma: str) -> None:
    if not name or not lemma:
        raise ValueError(f"{kind} {name!r} of lemma {lemma!r}; neither may be empty")
