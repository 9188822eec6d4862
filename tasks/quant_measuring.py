"""Evaluations of quantised models as cached tasks: each variant a product, filed when it is measured.

The work runs in a process that is killed at its time limit. What was measured by then is kept, each language
of a sweep over blocks too; the next run goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import canonical, code, fingerprint
from lab.products import Products
from lab.records import MetricRow, Record, SentenceLossRow
from models.corpus import AlignedCorpus
from models.quant_spec import CalibrationMix, QuantSpec
from models.variants import CorpusSource, Variant, unevaluated_sha256
from tasks.killable import worker
from tasks.progress import Progress
from tasks.shell import product_key

logger = logging.getLogger(__name__)

EVALUATION = "evaluation"
SWEEP = "sweep"
SWEEP_LANGUAGE = "sweep_language"
"""One language of a sweep, filed when it is reported; the sweep is made of them when all are there."""


@lru_cache(maxsize=1)
def measuring_code() -> str:
    """Fingerprint of everything that turns a model and sentences into bits."""
    return code("models.quant_jobs", "models.variants")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model on a corpus."""

    where: str
    """Directory or hub id."""
    digest: str
    """Of its weights and tokeniser."""
    source: CorpusSource
    mix: CalibrationMix

    @property
    def corpus(self) -> AlignedCorpus:
        """The sentences it is evaluated on."""
        return self.source.load()

    def key(self, variant: Variant) -> str:
        """What an evaluation of a variant is filed under."""
        return fingerprint(self.config(variant))

    def config(self, variant: Variant) -> dict[str, object]:
        """All that can change its numbers."""
        reads_others = variant.needs_statistics or variant.spec is None
        others = unevaluated_sha256(self.mix, self.source) if reads_others else None
        return {
            "digest": self.digest,
            "corpus": self.corpus.sha256,
            "variant": asdict(variant),
            "calibration": asdict(self.mix) if reads_others else None,
            "other_texts": others,
            "code": measuring_code(),
        }

    def sweep_key(self, spec: QuantSpec, sets: Sequence[Sequence[int]]) -> str:
        """What a sweep over blocks is filed under."""
        return fingerprint(
            {
                "digest": self.digest,
                "corpus": self.corpus.sha256,
                "sweep": asdict(spec),
                "sets": [list(one) for one in sets],
                "code": measuring_code(),
            }
        )


def language_key(sweep: str, language: str) -> str:
    """What one language of a sweep is filed under."""
    return fingerprint({"sweep": sweep, "language": language})


def batch_key(keys: Sequence[str]) -> str:
    """What a batch of evaluations is cached under."""
    return fingerprint(sorted(keys))


def _has_every_product(home: Path, parameters: Mapping[str, Any]) -> bool:
    return all(Products(home, EVALUATION).read(key) is not None for key in parameters["variants"])


@task(
    name="evaluate",
    task_run_name="evaluate {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_every_product),
)
def evaluate(
    home: str, what: str, subject: Subject, variants: Mapping[str, Variant], seconds: float, key: str
) -> list[str]:
    """Measure those variants, by key, that were not measured yet; returns all keys.

    Raises
    ------
    TimeLimitError
        The limit was exceeded; what was measured is kept.
    WorkError
        The work failed; the message says how.
    """
    products = Products(Path(home), EVALUATION)
    missing = {name: one for name, one in variants.items() if products.read(name) is None}
    progress = Progress(f"{what}, variants", len(variants))
    progress.start()
    progress.advance(len(variants) - len(missing), made=0)

    def keep(found: Mapping[str, Any]) -> None:
        products.write(found["key"], found["body"])
        progress.advance(1, made=1)

    if missing:
        with worker(near=subject.where) as process:
            arguments = {
                "where": subject.where,
                "source": asdict(subject.source),
                "mix": asdict(subject.mix),
                "variants": {name: asdict(one) for name, one in missing.items()},
            }
            process.call("models.quant_jobs:evaluate", arguments, seconds=seconds, report=keep)
    return list(variants)


def _has_sweep(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, SWEEP).read(parameters["key"]) is not None


@task(
    name="sweep",
    task_run_name="sweep {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_has_sweep),
)
def sweep(
    home: str,
    what: str,
    subject: Subject,
    spec: QuantSpec,
    sets: Sequence[Sequence[int]],
    seconds: float,
    key: str,
) -> str:
    """Quantise each block alone and keep each alone, or keep each set; returns the key of the product.

    Only languages that no earlier run measured are asked for. The product's `seconds` are those of all
    languages, whichever run measured them.

    Raises
    ------
    TimeLimitError, WorkError
        As `evaluate`.
    """
    products, parts = Products(Path(home), SWEEP), Products(Path(home), SWEEP_LANGUAGE)
    if products.read(key) is not None:
        return key
    codes = subject.corpus.languages
    kept = {code: parts.read(language_key(key, code)) for code in codes}
    found: dict[str, Any] = {code: body for code, body in kept.items() if body is not None}
    progress = Progress(f"{what}, languages", len(codes))
    progress.start()
    progress.advance(len(found), made=0)

    def keep(told: Mapping[str, Any]) -> None:
        parts.write(language_key(key, told["language"]), told)
        found[told["language"]] = told
        progress.advance(1, made=1)

    if missing := [code for code in codes if code not in found]:
        arguments: dict[str, object] = {
            "where": subject.where,
            "source": asdict(subject.source),
            "spec": asdict(spec),
            "languages": missing,
        }
        function = "sweep"
        if sets:
            function, arguments["sets"] = "keep_sets", [list(one) for one in sets]
        with worker(near=subject.where) as process:
            process.call(f"models.quant_jobs:{function}", arguments, seconds=seconds, report=keep)
    blocks = found[codes[0]]["blocks"]
    spent = sum(one["seconds"] for one in found.values())
    products.write(key, {"blocks": blocks, "languages": found, "seconds": spent})
    return key


def loss_rows(corpus: AlignedCorpus, body: Mapping[str, Any], key: str) -> list[Record]:
    """The evaluation's sentences, each with its bits or the reason why it has none."""
    rows: list[Record] = []
    empty = [None] * len(corpus.ids)
    for language in corpus.languages:
        found = body["languages"][language]
        columns = (found.get(name) or empty for name in ("bits", "tokens", "kl_bits", "flips"))
        rows += [
            SentenceLossRow(
                step_id=key,
                language=language,
                sentence=sentence,
                document=document,
                bits=bits,
                tokens=tokens,
                bytes=len(text.encode()),
                characters=len(text),
                kl_bits=kl_bits,
                flips=flips,
                reason=found["reason"],
            )
            for sentence, document, text, bits, tokens, kl_bits, flips in zip(
                corpus.ids, corpus.documents, corpus.side(language), *columns, strict=True
            )
        ]
    return rows


def coverage_rows(body: Mapping[str, Any], key: str) -> list[Record]:
    """What the rounding reached and weighs."""
    names = ("modules", "protected", "weights", "kept", "share", "bits_per_weight", "payload_bytes")
    found = body["coverage"]
    return [
        MetricRow(step_id=key, unit="*", name=name, value=float(found[name]), reason=None)
        for name in names
        if found is not None
    ]


def variant_config(subject: Subject, variant: Variant) -> str:
    """The step's config as JSON."""
    return canonical(subject.config(variant))
