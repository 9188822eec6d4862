"""New contexts for a sense that has one: by template, genuine or noisy.

template
    The original's content words, shuffled, in one of four fixed frames of function words. No new word.
genuine
    A new sentence of the sense.
noisy
    As a generator that strays: a new sentence, of a sibling sense in 4 of 10 cases, labelled as the sense.

Verification by an encoder is not done here. Each context carries the sense it is truly of, so that precision
and recall of a verification can be counted; `labelled` gives the contexts on which its thresholds are
calibrated. Nothing here needs torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from models.sense_items import TextItem
from models.sense_world import Split, World, WorldSense, in_context, sentence

Kind = Literal["template", "genuine", "noisy"]
KINDS: tuple[Kind, ...] = get_args(Kind)

STRAY = 0.4
"""Share of noisy contexts that are of a sibling sense."""
FRAMES, FRAME_WORDS = 4, 8
"""Templates, and the function words of each."""


@dataclass(frozen=True, kw_only=True)
class Enrichment:
    """A context proposed for a sense."""

    original: TextItem
    """The one context the sense had."""
    item: TextItem
    """Labelled with the original's sense, whatever it is of."""
    siblings: tuple[TextItem, ...]
    """A context of each other sense of the lemma: verification asks that `item` is nearer the original."""
    true_sense: str
    """The sense it was drawn from; for counting, never for training."""

    @property
    def is_genuine(self) -> bool:
        """Whether the label is right."""
        return self.true_sense == self.item.sense_id


def enrichments(
    ours: World,
    sense: WorldSense,
    original: TextItem,
    kind: str,
    count: int,
    *,
    mix: Sequence[float],
    seed: int,
) -> tuple[Enrichment, ...]:
    """`count` different contexts of a kind for the sense of `original`.

    Parameters
    ----------
    mix
        Shares of tiers 1, 2 and 3 of new sentences; a template keeps the original's tier.

    Raises
    ------
    ValueError
        For another kind, a count below 1, or more templates than an original of few content words has.

    Examples
    --------
    >>> from models.sense_world import WorldSpec, world
    >>> ours = world(WorldSpec())
    >>> sense = ours.split_senses("train")[0]
    >>> original = sentence(ours, sense, 1, rng=ours.rng("original"))
    >>> made = enrichments(ours, sense, original, "noisy", 200, mix=(1, 0, 0), seed=0)
    >>> sum(one.is_genuine for one in made), {one.item.sense_id for one in made} == {sense.id}
    (132, True)
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of context {kind!r}; allowed are {', '.join(KINDS)}")
    if count < 1:
        raise ValueError(f"{count} contexts were asked for; ask for at least 1")
    others = [other for other in ours.senses[sense.lemma] if other.id != sense.id]
    shown = tuple(
        sentence(ours, other, 1, rng=ours.rng("sibling", seed, sense.id, other.id)) for other in others
    )
    found: dict[str, Enrichment] = {}
    for k in itertools.count():
        if len(found) == count:
            break
        if k > 100 * count:
            raise ValueError(
                f"{count} contexts of kind {kind!r} were asked for, {k} draws gave {len(found)} different "
                "ones; ask for fewer"
            )
        rng = ours.rng("enrichment", kind, seed, sense.id, k)
        drawn = rng.choice(others) if kind == "noisy" and rng.random() < STRAY else sense
        if kind == "template":
            made = _template(ours, sense, original, k, rng)
        else:
            made = sentence(ours, drawn, rng.choices((1, 2, 3), weights=mix)[0], rng=rng)
        item = replace(made, sense_id=sense.id, sense_gloss=sense.gloss, source=f"enriched-{kind}")
        if item.text != original.text:
            offer = Enrichment(original=original, item=item, siblings=shown, true_sense=drawn.id)
            found.setdefault(item.text, offer)
    return tuple(found.values())


def labelled(
    ours: World, split: Split = "dev", *, per_sense: int = 4, mix: Sequence[float], seed: int = 0
) -> tuple[Enrichment, ...]:
    """Noisy contexts for an original of each sense of a split, on which thresholds are calibrated.

    >>> from models.sense_world import WorldSpec, world
    >>> made = labelled(world(WorldSpec()), mix=(0.85, 0.12, 0.03))
    >>> len(made), 0.55 < sum(one.is_genuine for one in made) / len(made) < 0.65
    (240, True)
    """
    found: list[Enrichment] = []
    for sense in ours.split_senses(split):
        rng = ours.rng("labelled", seed, sense.id)
        original = sentence(ours, sense, rng.choices((1, 2, 3), weights=mix)[0], rng=rng)
        found += enrichments(ours, sense, original, "noisy", per_sense, mix=mix, seed=seed)
    return tuple(found)


def _template(
    ours: World, sense: WorldSense, original: TextItem, number: int, rng: random.Random
) -> TextItem:
    frame = ours.rng("frame", number % FRAMES).choices(
        ours.function_words, cum_weights=ours.zipf, k=FRAME_WORDS
    )
    own, siblings = set(original.cue_tokens), _cues_of_siblings(ours, sense)
    content = [word for word in original.text.split() if word in ours.topic_of]
    rng.shuffle(content)
    words = [*frame[: FRAME_WORDS // 2], *content, *frame[FRAME_WORDS // 2 :]]
    kinds = [
        "cue"
        if word in own
        else "sibling"
        if word in siblings
        else "topic"
        if word in ours.topic_of
        else "function"
        for word in words
    ]
    return in_context(sense, words, kinds, tier=original.difficulty_tier, rng=rng)


def _cues_of_siblings(ours: World, sense: WorldSense) -> set[str]:
    others = (other for other in ours.senses[sense.lemma] if other.id != sense.id)
    return {word for other in others for half in other.cues for word in half}
