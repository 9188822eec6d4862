"""Measured bits of one model as arrays, cut to the sentences of a replicate or of one half of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lab.errors import UsageError
from models.corpus import AlignedCorpus, Language
from stats.aligned_bootstrap import Resampled, resample_documents
from stats.disparity import Aligned, collapsed
from stats.language_tests import require_reachable
from stats.rows import FloatArray
from stats.sequential import look_levels

PLAIN = "fp32"
"""The unquantised model."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is fixed before the data."""

    languages: tuple[Language, ...]
    margin: float
    """Smallest effect of interest, bits per aligned sentence."""
    alpha: float
    """Level of this look."""
    resamples: int
    seed: int = 0
    """Of the bootstrap and of permutations too many to enumerate."""


def levels_of(looks: tuple[int, ...], alpha: float) -> dict[int, float]:
    """Level of each look, spent in Pocock's manner: an exact test over ten languages cannot go under .008."""
    return look_levels(looks, alpha=alpha, gamma=1.0, groups=2)


def refuse_unreachable(languages: tuple[Language, ...], looks: tuple[int, ...], alpha: float) -> None:
    """Refuse a plan under which no data could reject at its first look.

    Raises
    ------
    UsageError
        With the smallest p value that so many languages of either tier allow.
    """
    tiers = [one.tier for one in languages]
    try:
        level = levels_of(looks, alpha)[looks[0]]
        require_reachable(tiers.count("low"), tiers.count("high"), alpha=level)
    except ValueError as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The sentences of one replicate, or one half of them."""

    corpus: AlignedCorpus
    places: tuple[int, ...]
    """Their places in the evaluated corpus."""

    def halves(self) -> tuple[Sentences, Sentences]:
        """Every other document to choose on, the rest to report on."""
        names = list(dict.fromkeys(self.corpus.documents[i] for i in self.places))
        first = set(names[::2])
        chosen = tuple(i for i in self.places if self.corpus.documents[i] in first)
        rest = tuple(i for i in self.places if self.corpus.documents[i] not in first)
        return replace(self, places=chosen), replace(self, places=rest)


@dataclass(frozen=True)
class Measured:
    """The evaluations of one model as arrays, cut to one replicate's sentences."""

    asked: Asked
    sentences: Sentences
    bodies: Mapping[str, Mapping[str, Any]]
    """Name of the variant -> product of its evaluation."""

    def on(self, sentences: Sentences) -> Measured:
        """The same evaluations on other sentences."""
        return Measured(self.asked, sentences, self.bodies)

    def without(self, languages: Collection[str]) -> Measured:
        """The same evaluations of the other languages."""
        left = tuple(one for one in self.asked.languages if one.code not in languages)
        return Measured(replace(self.asked, languages=left), self.sentences, self.bodies)

    def column(self, name: str, what: str) -> FloatArray:
        """(L, S) of one variant: bits, tokens, kl_bits or flips; NaN where a language has no number."""
        places = list(self.sentences.places)
        sides = (self.bodies[name]["languages"][one.code] for one in self.asked.languages)
        columns = (None if side["reason"] is not None else side[what] for side in sides)
        missing = np.full(len(places), np.nan)
        return np.array([missing if one is None else np.array(one, float)[places] for one in columns])

    def bits(self, name: str) -> FloatArray:
        """(L, S) bits of each sentence."""
        return self.column(name, "bits")

    @cached_property
    def aligned(self) -> Aligned:
        """The baseline."""
        corpus, places = self.sentences.corpus, list(self.sentences.places)
        sides = [[corpus.side(one.code)[i] for i in places] for one in self.asked.languages]
        reference = self.asked.languages[0].code
        shares = [one.share for one in self.asked.languages]
        return Aligned(
            languages=tuple(one.code for one in self.asked.languages),
            is_low=tuple(one.tier == "low" for one in self.asked.languages),
            documents=tuple(corpus.documents[i] for i in places),
            bits=self.bits(PLAIN),
            n_bytes=np.array([[len(text.encode()) for text in side] for side in sides]),
            characters=np.array([[len(text) for text in side] for side in sides]),
            tokens=self.column(PLAIN, "tokens"),
            premiums=tuple(corpus.byte_premium(one.code, reference) for one in self.asked.languages),
            shares=None if None in shares else tuple(one for one in shares if one is not None),
        )

    @cached_property
    def drawn(self) -> Resampled:
        """One resample of documents for everything."""
        rng = np.random.default_rng([self.asked.seed, len(self.sentences.places)])
        return resample_documents(self.aligned.documents, resamples=self.asked.resamples, rng=rng)

    def rng(self) -> np.random.Generator:
        """A fresh generator, so that no question depends on those asked before it."""
        return np.random.default_rng([self.asked.seed, 1])

    @cached_property
    def unigram_bits(self) -> FloatArray:
        """(L, S) bits of each sentence under its language's unigram model; NaN where there is none."""
        places, missing = list(self.sentences.places), np.full(len(self.sentences.places), np.nan)
        sides = [self.bodies[PLAIN]["unigram"][one.code]["bits"] for one in self.asked.languages]
        return np.array([missing if one is None else np.array(one, float)[places] for one in sides])

    def unmeasured(self, name: str) -> dict[str, str]:
        """Language -> why this variant has no losses there."""
        bodies = {one.code: self.bodies[name]["languages"][one.code] for one in self.asked.languages}
        return {code: body["reason"] for code, body in bodies.items() if body["reason"] is not None}

    def reasons(self, name: str) -> dict[str, str]:
        """Language -> why this variant says nothing about it: no number, none of the baseline, collapsed."""
        own, plain, found = self.unmeasured(name), self.unmeasured(PLAIN), {}
        for one in self.asked.languages:
            reason = own.get(one.code) or plain.get(one.code) or self._collapsed(one.code, name)
            if reason is not None:
                found[one.code] = reason
        return found

    def _collapsed(self, code: str, name: str) -> str | None:
        """Why it counts as collapsed; without a unigram model nobody can say that it did not."""
        body, base = self.bodies[name]["languages"][code], self.bodies[PLAIN]
        unigram = base["unigram"][code]
        if unigram["reason"] is not None:
            return str(unigram["reason"])
        return collapsed(
            bits_per_token=sum(body["bits"]) / sum(body["tokens"]),
            unigram_bits_per_token=unigram["bits_per_token"],
            vocab_size=base["vocabulary"],
        )

    def unusable(self, *names: str) -> dict[str, dict[str, str]]:
        """Variant -> language -> reason, where there is one."""
        return {name: found for name in names if (found := self.reasons(name))}


def left_out(at: Measured, sweep: Mapping[str, Any]) -> dict[str, str]:
    """Language -> why a sweep over blocks says nothing about it: no number there, or none of the baseline."""
    found = {one.code: sweep["languages"][one.code]["reason"] for one in at.asked.languages}
    return at.unmeasured(PLAIN) | {code: why for code, why in found.items() if why is not None}


def swept(at: Measured, sweep: Mapping[str, Any], name: str) -> FloatArray:
    """(L, S), or (B, L, S) for what is done to each block or set; of languages that are not `left_out`."""
    places = list(at.sentences.places)
    columns = [np.array(sweep["languages"][one.code][name], float)[..., places] for one in at.asked.languages]
    return np.stack(columns, axis=-2)
