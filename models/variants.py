"""How a model is to be rounded and what it is evaluated on: frozen values that become JSON and back.

A worker process gets these as plain data and gives plain data back; their canonical text is what a result is
filed under. No torch here: a flow names variants, `models.quant_jobs` makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from models.aligned_files import read_aligned
from models.cldr import LANGUAGES, SENTENCES, cldr_corpus, cldr_texts
from models.corpus import AlignedCorpus
from models.other_texts import other_texts
from models.quant_spec import CalibrationMix, Preservation, QuantSpec

CALIBRATION_FIRST = 800_000
"""First CLDR document of calibration texts; evaluation starts at 0 and training at 1,000,000."""
UNIGRAM_TEXTS = 400
"""Sentences that the unigram model of a language is fitted on, at most."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to round a model's weights; the default rounds nothing."""

    spec: QuantSpec | None = None
    """None: the weights as they are."""
    preservation: Preservation | None = None
    gptq: bool = False
    """Whether GPTQ corrects the weights that are still to be rounded."""
    compared: bool = False
    """Whether KL and top-1 flips against the unquantised model are measured too."""

    @property
    def needs_fisher(self) -> bool:
        """Whether squared gradients must be gathered for it."""
        return self.preservation is not None and self.preservation.selector == "hessian"

    @property
    def needs_statistics(self) -> bool:
        """Whether anything must be gathered on calibration texts for it."""
        kept = self.preservation
        return self.gptq or (kept is not None and kept.selector in ("activation", "hessian"))


def variant_from(data: Mapping[str, Any]) -> Variant:
    """A variant from the plain data of `dataclasses.asdict`.

    >>> from dataclasses import asdict
    >>> one = Variant(spec=QuantSpec(blocks=(0, 2)), preservation=Preservation(percent=5.0))
    >>> variant_from(asdict(one)) == one
    True
    """
    spec, kept = data["spec"], data["preservation"]
    if spec is not None:
        blocks = spec["blocks"]
        spec = QuantSpec(**{**spec, "blocks": None if blocks is None else tuple(blocks)})
    if kept is not None:
        kept = Preservation(**{**kept, "blocks": tuple(kept["blocks"])})
    return Variant(spec=spec, preservation=kept, gptq=data["gptq"], compared=data["compared"])


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """Where aligned sentences come from."""

    kind: Literal["cldr", "folder", "hub"]
    """`cldr`: made from CLDR; `folder`: files with one id a line; `hub`: a dataset by name."""
    name: str = ""
    """Path of the folder or name of the dataset."""
    sentences: int | None = None
    """The first documents that hold at least so many sentences; None for all there are."""
    languages: tuple[str, ...] = ()
    """Codes to keep, in order; all when empty."""
    split: str = ""
    """Of a dataset."""
    revision: str | None = None
    """Of a dataset."""
    others: str = ""
    """Where texts come from that are not evaluated: `c4`, `opus-100` or a folder. Empty: CLDR makes others;
    of a folder or dataset the documents after the evaluated ones are taken."""

    def load(self) -> AlignedCorpus:
        """The sentences.

        Raises
        ------
        ValueError
            When the sides are not aligned, a text is empty or a language is missing, with the place.
        """
        return _load(self)


@lru_cache(maxsize=4)
def _load(source: CorpusSource) -> AlignedCorpus:
    if source.kind == "cldr":
        if source.sentences is None:
            raise ValueError("CLDR sentences are made without end; say how many")
        wanted = tuple(one for one in LANGUAGES if not source.languages or one.code in source.languages)
        return cldr_corpus(documents=-(-source.sentences // SENTENCES), languages=wanted)
    if source.kind == "folder":
        corpus = read_aligned(Path(source.name))
    else:
        from models.hub_corpora import load_hub

        corpus = load_hub(source.name, source.languages, source.split, revision=source.revision)
    if source.languages:
        corpus = corpus.keep(source.languages)
    return corpus if source.sentences is None else corpus.take(0, _documents(corpus, source.sentences))


def _documents(corpus: AlignedCorpus, sentences: int) -> int:
    """How many first documents hold at least so many sentences.

    Raises
    ------
    ValueError
        When all of them hold fewer.
    """
    sizes = Counter(corpus.documents)
    held = 0
    for place, name in enumerate(corpus.document_names, start=1):
        held += sizes[name]
        if held >= sentences:
            return place
    raise ValueError(f"corpus {corpus.name!r} has {held} sentences, {sentences} are asked for; ask for fewer")


def calibration_texts(mix: CalibrationMix, source: CorpusSource) -> dict[str, list[str]]:
    """Texts to calibrate on, none of which is evaluated: as many of each language as the mix declares.

    Raises
    ------
    ValueError
        When no sentence is left to calibrate on.
    """
    return {code: unevaluated_texts(source, code, count) for code, count in mix.texts}


def unevaluated_texts(source: CorpusSource, code: str, count: int) -> list[str]:
    """At most `count` texts of a language that are not evaluated, from where `source.others` says.

    Raises
    ------
    ValueError
        When every document is evaluated, or one of the other texts is.
    """
    if source.others:
        return _from_elsewhere(source, code, count)
    if source.kind == "cldr":
        return cldr_texts(code, first=CALIBRATION_FIRST, documents=-(-count // SENTENCES))[:count]
    whole = replace(source, sentences=None).load()
    used = len(source.load().document_names)
    if used == len(whole.document_names):
        raise ValueError(
            f"corpus {whole.name!r} has {len(whole.ids)} sentences and all are evaluated; evaluate fewer, so "
            "that some are left for calibration, or name other texts (calibration_corpus)"
        )
    return list(whole.take(used, len(whole.document_names)).side(code)[:count])


def _from_elsewhere(source: CorpusSource, code: str, count: int) -> list[str]:
    texts = other_texts(source.others, code, count)
    evaluated = set(source.load().side(code))
    for number, text in enumerate(texts, start=1):
        if text in evaluated:
            raise ValueError(
                f"text {number} in {code!r} of {source.others} is evaluated too: {text[:40]!r}; calibrate on "
                "texts that are not"
            )
    return list(texts)


@lru_cache(maxsize=16)
def unevaluated_sha256(mix: CalibrationMix, source: CorpusSource) -> str:
    """Of the texts that calibrate selectors and fit unigram models; evaluations depend on them too."""
    read = [unevaluated_texts(source, code, max(count, UNIGRAM_TEXTS)) for code, count in mix.texts]
    return hashlib.sha256(json.dumps(read, ensure_ascii=False).encode()).hexdigest()
