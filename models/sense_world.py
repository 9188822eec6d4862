"""A seeded world of polysemous lemmas: topics, senses with cue words, and sentences of three difficulties.

40 topics have 60 words each. A lemma has 2 to 4 senses in different topics; 12 words of the topic are the
sense's cues. A sentence has 8 to 14 slots beside the lemma, each a cue of its sense with probability pc, a
word of its topic with .12, a cue of a sibling sense with pd, else a function word; the tier sets (pc, pd).

Every topic is cut into two halves of 30 words, 6 of each sense's 12 cues in either. Sentences may be drawn
from one half alone: a query from one and candidates from the other share function words and the lemma, which
say nothing of the sense. What joins the halves is the topic, and that has to be learned from other lemmas.
Topic words have to be halved too, not cues alone: a shared topic word would tell the sense by overlap.

Words are pseudo-words of one pool, so spelling tells neither topic nor function. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Literal, get_args

from models.sense_items import Quality, TextItem

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Half = Literal[0, 1]

CUE_AND_SIBLING: Mapping[int, tuple[float, float]] = MappingProxyType(
    {1: (0.30, 0.02), 2: (0.18, 0.08), 3: (0.12, 0.16)}
)
"""Tier -> probability of a cue of the sense (pc) and of a sibling sense (pd) in a slot."""
TOPICAL = 0.12
"""Probability of a word of the sense's topic in a slot."""
SLOTS = (8, 14)
"""Fewest and most words beside the lemma."""
SOURCES = ("world-a", "world-b", "world-c")
"""A text is given one at random, so that a scorer that looks at sources has something to look at."""

_ONSETS = "bdfghklmnprstvwz"
_VOWELS = "aeiou"


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """All that a world depends on. Lemmas 0-179 train, 180-239 test, 240-259 dev."""

    seed: int = 0
    topics: int = 40
    topic_words: int = 60
    function_words: int = 120
    """The r-th has weight 1/r."""
    train_lemmas: int = 180
    test_lemmas: int = 60
    dev_lemmas: int = 20
    """Numbered after the others, so that the first 240 are the same for any number of these."""
    cues: int = 12
    """Of a sense, half of them in either half of its topic."""

    def __post_init__(self) -> None:
        """Refuse a world that cannot be cut in halves or is too small for four senses."""
        for name in ("topic_words", "cues"):
            value = getattr(self, name)
            if value < 2 or value % 2:
                raise ValueError(f"{name} is {value}; topics are cut in two halves: give an even number")
        if self.cues > self.topic_words:
            raise ValueError(f"{self.cues} cues a sense do not fit in topics of {self.topic_words} words")
        if self.topics < 5:
            raise ValueError(f"{self.topics} topics; four senses of a lemma and others need at least 5")
        for name in ("function_words", "train_lemmas"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("test_lemmas", "dev_lemmas"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 0")

    @property
    def lemmas(self) -> int:
        """Of all splits."""
        return self.train_lemmas + self.test_lemmas + self.dev_lemmas

    def places(self, split: Split) -> range:
        """Numbers of a split's lemmas.

        >>> WorldSpec().places("train"), WorldSpec().places("test"), WorldSpec().places("dev")
        (range(0, 180), range(180, 240), range(240, 260))

        Raises
        ------
        ValueError
            For another split.
        """
        ends = (0, *itertools.accumulate((self.train_lemmas, self.test_lemmas, self.dev_lemmas)))
        starts = {"train": 0, "test": 1, "dev": 2}
        if split not in starts:
            raise ValueError(f"unknown split {split!r}; allowed are {', '.join(SPLITS)}")
        return range(ends[starts[split]], ends[starts[split] + 1])


@dataclass(frozen=True, kw_only=True)
class WorldSense:
    """A sense of a lemma in the world."""

    id: str
    """Lemma and number from 1."""
    lemma: str
    topic: int
    cues: tuple[tuple[str, ...], tuple[str, ...]]
    """By half of the topic."""

    @property
    def gloss(self) -> str:
        """Cues of half 0, so a context of half 1 shares no word with it."""
        return " ".join(self.cues[0])


@dataclass(frozen=True, kw_only=True)
class World:
    """Vocabulary and senses of a spec."""

    spec: WorldSpec
    topics: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """Words of each topic by half."""
    function_words: tuple[str, ...]
    """Commonest first."""
    lemmas: tuple[str, ...]
    senses: Mapping[str, tuple[WorldSense, ...]]
    """Lemma -> its two to four senses, each in another topic."""

    @cached_property
    def topic_of(self) -> Mapping[str, int]:
        """Content word -> its topic."""
        return {word: t for t, halves in enumerate(self.topics) for half in halves for word in half}

    @cached_property
    def zipf(self) -> tuple[float, ...]:
        """Cumulative weights of the function words: 1, 1 + 1/2, 1 + 1/2 + 1/3, ..."""
        return tuple(itertools.accumulate(1 / rank for rank in range(1, len(self.function_words) + 1)))

    def split_lemmas(self, split: Split) -> tuple[str, ...]:
        """Lemmas of a split, in order."""
        return tuple(self.lemmas[i] for i in self.spec.places(split))

    def split_senses(self, split: Split) -> tuple[WorldSense, ...]:
        """Senses of a split's lemmas, in order."""
        return tuple(sense for lemma in self.split_lemmas(split) for sense in self.senses[lemma])

    def rng(self, *key: str | int) -> random.Random:
        """A stream of its own for each key; equal in every process."""
        return random.Random("|".join(map(str, (self.spec.seed, *key))))

    @cached_property
    def sha256(self) -> str:
        """Of spec, vocabulary, senses and a sentence of each, so that a world made by other code is known."""
        lines = [f"{s.id} {s.topic} {s.cues}" for group in self.senses.values() for s in group]
        lines += [str(self.spec), str(self.topics), str(self.function_words)]
        lines += [
            sentence(self, group[0], 1 + n % 3, rng=self.rng("sha", n)).text
            for n, group in enumerate(self.senses.values())
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def world(spec: WorldSpec) -> World:
    """The world of a spec; made once a process.

    >>> ours = world(WorldSpec())
    >>> len(ours.topic_of), len(ours.function_words), len(ours.lemmas)
    (2400, 120, 260)
    >>> sorted({len(senses) for senses in ours.senses.values()})
    [2, 3, 4]
    """
    rng = random.Random(f"{spec.seed}|world")
    wanted = (spec.topics * spec.topic_words, spec.function_words, spec.lemmas)
    words = _pseudo_words(sum(wanted), rng)
    content, function = words[: wanted[0]], words[wanted[0] : wanted[0] + wanted[1]]
    lemmas = words[wanted[0] + wanted[1] :]
    half = spec.topic_words // 2
    starts = range(0, wanted[0], spec.topic_words)
    topics = tuple(
        (tuple(content[at : at + half]), tuple(content[at + half : at + spec.topic_words])) for at in starts
    )
    senses = {lemma: _senses(spec, lemma, topics, random.Random(f"{spec.seed}|{lemma}")) for lemma in lemmas}
    return World(
        spec=spec,
        topics=topics,
        function_words=tuple(function),
        lemmas=tuple(lemmas),
        senses=MappingProxyType(senses),
    )


def sentence(
    ours: World, sense: WorldSense, tier: int, *, rng: random.Random, half: Half | None = None
) -> TextItem:
    """A sentence of a sense.

    Parameters
    ----------
    tier
        1, 2 or 3, see `CUE_AND_SIBLING`.
    half
        Cues and topic words come from this half of each topic alone; from both when None.

    Raises
    ------
    ValueError
        For another tier.

    Examples
    --------
    >>> ours = world(WorldSpec())
    >>> sense = ours.split_senses("test")[0]
    >>> made = sentence(ours, sense, 1, rng=ours.rng("example"), half=0)
    >>> made.surface == sense.lemma, set(made.cue_tokens) <= set(sense.cues[0]), made.difficulty_tier
    (True, True, 1)
    """
    if tier not in CUE_AND_SIBLING:
        raise ValueError(f"tier {tier!r}; the world has {', '.join(map(str, CUE_AND_SIBLING))}")
    pc, pd = CUE_AND_SIBLING[tier]
    siblings = [other for other in ours.senses[sense.lemma] if other.id != sense.id]
    words: list[str] = []
    kinds: list[str] = []
    for _ in range(rng.randint(*SLOTS)):
        drawn = rng.random()
        at: Half = rng.choice((0, 1)) if half is None else half
        if drawn < pc:
            kind, word = "cue", rng.choice(sense.cues[at])
        elif drawn < pc + TOPICAL:
            kind, word = "topic", rng.choice(ours.topics[sense.topic][at])
        elif drawn < pc + TOPICAL + pd:
            kind, word = "sibling", rng.choice(rng.choice(siblings).cues[at])
        else:
            kind, word = "function", rng.choices(ours.function_words, cum_weights=ours.zipf)[0]
        words.append(word)
        kinds.append(kind)
    return in_context(sense, words, kinds, tier=tier, rng=rng)


def in_context(
    sense: WorldSense, words: Sequence[str], kinds: Sequence[str], *, tier: int | None, rng: random.Random
) -> TextItem:
    """The text of `words` with the lemma put between two of them, or at an end.

    `kinds` says what each word is: "cue", "topic", "sibling" or "function".
    """
    place = rng.randint(0, len(words))
    text = " ".join((*words[:place], sense.lemma, *words[place:]))
    start = sum(len(word) + 1 for word in words[:place])
    return TextItem(
        text=text,
        span=(start, start + len(sense.lemma)),
        surface=sense.lemma,
        sense_id=sense.id,
        sense_gloss=sense.gloss,
        pos="noun",
        cue_tokens=tuple(word for word, kind in zip(words, kinds, strict=True) if kind == "cue"),
        source=rng.choice(SOURCES),
        difficulty_tier=tier,
        quality=Quality(
            cue_strength=kinds.count("cue") / len(words), ambiguity_risk=kinds.count("sibling") / len(words)
        ),
    )


def _senses(
    spec: WorldSpec,
    lemma: str,
    topics: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    rng: random.Random,
) -> tuple[WorldSense, ...]:
    found = []
    for number, topic in enumerate(rng.sample(range(spec.topics), rng.randint(2, 4)), start=1):
        low, high = (tuple(rng.sample(half, spec.cues // 2)) for half in topics[topic])
        found.append(WorldSense(id=f"{lemma}.{number}", lemma=lemma, topic=topic, cues=(low, high)))
    return tuple(found)


def _pseudo_words(count: int, rng: random.Random) -> list[str]:
    """Different words of two or three syllables; a shorter list is the start of a longer one."""
    syllables = ["".join(parts) for parts in itertools.product(_ONSETS, _VOWELS)]
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choices(syllables, k=rng.choice((2, 3))))] = None
    return list(found)
