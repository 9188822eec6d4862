"""Training sets of the world: conditions A, B and C, the factorial that tells them apart, and its sizes.

A: 3 sentences for 60 % of the senses, else 1, almost all easy. B: 6 for 70 %, with hard ones, and bundles of
tier 2 and 3 drawn twice and four times as often. C: B with five new contexts for each singleton, which
otherwise has no positive and so no bundle. They differ in four factors at once; `FACTORIAL` crosses them.

Streams are keyed by sense and sentence, not by condition: a seed's senses that have one sentence under B are
among those under A, and sentences of the same tier are the same. Pairs of conditions share that much.

Equal update budget: `draws` gives any set the same number of bundles to learn from. Nothing needs torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.sense_enrichment import Enrichment, enrichments
from models.sense_items import MOST_NEGATIVES, Bundle, TextItem
from models.sense_world import Split, World, WorldSense, sentence

EnrichmentArm = Literal["none", "template", "genuine", "noisy", "verified"]
ENRICHMENT_ARMS: tuple[EnrichmentArm, ...] = get_args(EnrichmentArm)
Accept = Callable[[Sequence[Enrichment]], Sequence[bool]]
"""Which of the proposed contexts are taken, by a calibrated encoder."""

EASY_MIX, HARD_MIX = (0.97, 0.03, 0.0), (0.85, 0.12, 0.03)
"""Shares of tiers 1, 2 and 3 among sentences."""
FLAT, WEIGHTED = (1, 1, 1), (1, 2, 4)
"""How often a bundle of tier 1, 2 and 3 is drawn in a round."""
MOST_DRAWS = 10_000
"""For negatives of other lemmas and topics."""
POOL = 2
"""Contexts proposed for each that "verified" is to take."""


@dataclass(frozen=True, kw_only=True)
class TrainingArm:
    """What a training set is made of; one level of each factor."""

    name: str
    share: float
    """Of the senses that have more than one sentence."""
    sentences: int
    """Of each of those; the other senses have one."""
    mix: tuple[float, float, float] = EASY_MIX
    curriculum: tuple[int, int, int] = FLAT
    enrichment: EnrichmentArm = "none"
    contexts: int = 5
    """New ones for each singleton; fewer under "verified" where fewer are accepted."""

    def __post_init__(self) -> None:
        """Refuse shares, counts and weights that name no set."""
        if not 0 < self.share <= 1:
            raise ValueError(f"arm {self.name!r}: share is {self.share}; it must be above 0, at most 1")
        if self.sentences < 2 or self.contexts < 1:
            raise ValueError(
                f"arm {self.name!r}: {self.sentences} sentences and {self.contexts} contexts; a sense with "
                "more than one sentence needs at least 2, an enriched one at least 1 context"
            )
        if min(self.mix) < 0 or abs(sum(self.mix) - 1) > 1e-9:
            raise ValueError(f"arm {self.name!r}: the mix {self.mix} must be shares that sum to 1")
        if min(self.curriculum) < 1:
            raise ValueError(f"arm {self.name!r}: curriculum {self.curriculum}; each weight is at least 1")
        if self.enrichment not in ENRICHMENT_ARMS:
            raise ValueError(
                f"arm {self.name!r}: unknown enrichment {self.enrichment!r}; allowed are "
                f"{', '.join(ENRICHMENT_ARMS)}"
            )


CONDITIONS: Mapping[str, TrainingArm] = MappingProxyType(
    {
        "A": TrainingArm(name="A", share=0.6, sentences=3),
        "B": TrainingArm(name="B", share=0.7, sentences=6, mix=HARD_MIX, curriculum=WEIGHTED),
        "C": TrainingArm(
            name="C", share=0.7, sentences=6, mix=HARD_MIX, curriculum=WEIGHTED, enrichment="genuine"
        ),
    }
)

_FACTORS: Mapping[str, Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "size": {"small": {"share": 0.6, "sentences": 3}, "large": {"share": 0.7, "sentences": 6}},
        "mix": {"easy": {"mix": EASY_MIX}, "hard": {"mix": HARD_MIX}},
        "curriculum": {"flat": {"curriculum": FLAT}, "weighted": {"curriculum": WEIGHTED}},
        "enrichment": {"none": {"enrichment": "none"}, "genuine": {"enrichment": "genuine"}},
    }
)
FACTORS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: (low, high) for name, (low, high) in ((n, tuple(levels)) for n, levels in _FACTORS.items())}
)
"""Factor -> its two levels; A is low in all, B high in three, C high in all."""


def factorial() -> Mapping[tuple[str, ...], TrainingArm]:
    """Levels of the four `FACTORS`, in their order -> the arm, named by its levels: 16.

    >>> arms = factorial()
    >>> len(arms)
    16
    >>> arms["large", "hard", "weighted", "none"] == replace(
    ...     CONDITIONS["B"], name="large-hard-weighted-none"
    ... )
    True
    """
    found = {}
    for levels in itertools.product(*FACTORS.values()):
        fields: dict[str, object] = {"name": "-".join(levels)}
        for factor, level in zip(_FACTORS, levels, strict=True):
            fields |= _FACTORS[factor][level]
        found[levels] = TrainingArm(**fields)  # type: ignore[arg-type]
    return found


SIZE_SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Of the data-scaling curve: senses with six sentences. B is the fifth, so the curve runs through it."""


def sizes() -> tuple[TrainingArm, ...]:
    """Arms of the data-scaling curve, smallest first; all else is as in B.

    >>> [arm.name for arm in sizes()]
    ['B-0.05', 'B-0.1', 'B-0.2', 'B-0.4', 'B-0.7', 'B-1']
    """
    return tuple(replace(CONDITIONS["B"], name=f"B-{share:g}", share=share) for share in SIZE_SHARES)


def halved(arm: TrainingArm) -> TrainingArm:
    """The arm with half its oversampling: the first step of the contingency.

    >>> halved(CONDITIONS["B"]).curriculum
    (1, 1, 2)
    """
    low, middle, high = (max(1, weight // 2) for weight in arm.curriculum)
    return replace(arm, name=f"{arm.name}-halved", curriculum=(low, middle, high))


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What one condition and seed is trained on."""

    arm: TrainingArm
    seed: int
    texts: tuple[TextItem, ...]
    """All sentences, senses in order; singletons too, which serve as negatives."""
    bundles: tuple[Bundle, ...]
    """One for each sentence whose sense has another."""
    repeats: tuple[int, ...]
    """Of each bundle in a round: the curriculum's weight of its tier."""
    proposed: int
    """New contexts that were made for singletons."""
    accepted: int
    """Of those, the ones used."""


def training_set(
    ours: World, arm: TrainingArm, seed: int, *, split: Split = "train", accept: Accept | None = None
) -> TrainingSet:
    """The sentences and bundles of an arm.

    Parameters
    ----------
    accept
        For the arm "verified": which proposed contexts are taken. Twice as many as needed are proposed,
        of the noisy kind, and the first accepted are used.

    Raises
    ------
    ValueError
        For "verified" without `accept`, another arm with it, or one that answers for another number.

    Examples
    --------
    >>> from models.sense_world import WorldSpec, world
    >>> made = {name: training_set(world(WorldSpec()), arm, 42) for name, arm in CONDITIONS.items()}
    >>> {name: (len(one.texts), len(one.bundles)) for name, one in made.items()}
    {'A': (1206, 987), 'B': (2468, 2304), 'C': (3288, 3288)}
    """
    if (accept is not None) != (arm.enrichment == "verified"):
        raise ValueError(
            f"arm {arm.name!r} has enrichment {arm.enrichment!r}; give `accept` to 'verified' only"
        )
    senses = ours.split_senses(split)
    by_sense = {
        sense.id: _sentences(ours, arm, seed, sense, one) for sense, one in _singles(ours, senses, arm)
    }
    proposed = _propose(ours, arm, seed, senses, by_sense)
    flags = [True] * len(proposed) if accept is None else list(accept(proposed))
    if len(flags) != len(proposed):
        raise ValueError(f"accept answered {len(flags)} times for {len(proposed)} contexts; one answer each")
    used = 0
    for offer, taken in zip(proposed, flags, strict=True):
        group = by_sense[offer.original.sense_id]
        if taken and len(group) <= arm.contexts:
            group.append(offer.item)
            used += 1
    bundles = _bundles(ours, seed, senses, by_sense)
    return TrainingSet(
        arm=arm,
        seed=seed,
        texts=tuple(item for group in by_sense.values() for item in group),
        bundles=bundles,
        repeats=tuple(arm.curriculum[(one.difficulty_tier or 1) - 1] for one in bundles),
        proposed=len(proposed),
        accepted=used,
    )


def draws(made: TrainingSet, count: int, *, seed: int) -> NDArray[np.int64]:
    """(count,) places of bundles to learn from, in order: rounds in which each comes `repeats` times.

    An arm of more bundles sees fewer rounds; all see `count`.

    Raises
    ------
    ValueError
        For a count below 1 or a set without bundles.

    Examples
    --------
    >>> from models.sense_world import WorldSpec, world
    >>> made = training_set(world(WorldSpec()), CONDITIONS["A"], 42)
    >>> order = draws(made, 2 * len(made.bundles), seed=0)
    >>> bool((np.bincount(order) == 2).all())
    True
    """
    if count < 1 or not made.bundles:
        raise ValueError(f"{count} draws of {len(made.bundles)} bundles; there must be at least 1 of both")
    rng = np.random.default_rng(seed)
    once = np.repeat(np.arange(len(made.bundles)), made.repeats)
    rounds = -(-count // len(once))
    return np.concatenate([rng.permutation(once) for _ in range(rounds)])[:count].astype(np.int64)


def _singles(ours: World, senses: Sequence[WorldSense], arm: TrainingArm) -> list[tuple[WorldSense, bool]]:
    """Each sense and whether it has one sentence; the senses with more are nested over shares."""
    order = list(range(len(senses)))
    ours.rng("order of senses").shuffle(order)
    more = set(order[: max(1, round(arm.share * len(order)))])
    return [(sense, place not in more) for place, sense in enumerate(senses)]


def _sentences(ours: World, arm: TrainingArm, seed: int, sense: WorldSense, single: bool) -> list[TextItem]:
    found = []
    for k in range(1 if single else arm.sentences):
        tier = tier_of(arm.mix, ours.rng("tier", seed, sense.id, k))
        found.append(sentence(ours, sense, tier, rng=ours.rng("train", seed, sense.id, k, tier)))
    return found


def tier_of(mix: Sequence[float], rng: random.Random) -> int:
    """A tier drawn by its share.

    >>> tier_of((0.0, 1.0, 0.0), random.Random(0))
    2
    """
    return rng.choices((1, 2, 3), weights=mix)[0]


def _propose(
    ours: World,
    arm: TrainingArm,
    seed: int,
    senses: Sequence[WorldSense],
    by_sense: Mapping[str, Sequence[TextItem]],
) -> list[Enrichment]:
    if arm.enrichment == "none":
        return []
    kind, count = (
        ("noisy", POOL * arm.contexts) if arm.enrichment == "verified" else (arm.enrichment, arm.contexts)
    )
    return [
        offer
        for sense in senses
        if len(by_sense[sense.id]) == 1
        for offer in enrichments(ours, sense, by_sense[sense.id][0], kind, count, mix=arm.mix, seed=seed)
    ]


def _bundles(
    ours: World, seed: int, senses: Sequence[WorldSense], by_sense: Mapping[str, Sequence[TextItem]]
) -> tuple[Bundle, ...]:
    """Negatives of other lemmas are of other topics, as in the items."""
    found = []
    for sense in senses:
        group = by_sense[sense.id]
        siblings = [
            one for other in ours.senses[sense.lemma] if other.id != sense.id for one in by_sense[other.id]
        ]
        for k, anchor in enumerate(group if len(group) > 1 else ()):
            rng = ours.rng("bundle", seed, sense.id, k)
            positive = group[(k + rng.randrange(1, len(group))) % len(group)]
            found.append(
                Bundle(
                    id=f"{sense.id}-{k}",
                    lemma=sense.lemma,
                    anchor=anchor,
                    positive=positive,
                    within_lemma=tuple(rng.sample(siblings, min(MOST_NEGATIVES, len(siblings)))),
                    cross_lemma=tuple(_others(sense, senses, by_sense, rng)),
                    anchor_sense=sense.id,
                    difficulty_tier=anchor.difficulty_tier,
                    bundle_type="enriched" if anchor.source.startswith("enriched") else "contrastive",
                )
            )
    return tuple(found)


def _others(
    sense: WorldSense,
    senses: Sequence[WorldSense],
    by_sense: Mapping[str, Sequence[TextItem]],
    rng: random.Random,
) -> list[TextItem]:
    found: dict[str, TextItem] = {}
    for _ in range(MOST_DRAWS):
        if len(found) == MOST_NEGATIVES:
            return list(found.values())
        drawn = rng.choice(senses)
        if drawn.lemma != sense.lemma and drawn.topic != sense.topic:
            found.setdefault(drawn.lemma, rng.choice(by_sense[drawn.id]))
    raise ValueError(
        f"no {MOST_NEGATIVES} other lemmas of other topics than {sense.id!r} in {MOST_DRAWS} draws; give the "
        "world more lemmas or topics"
    )
