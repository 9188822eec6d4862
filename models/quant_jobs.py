"""What a worker process does for the quantisation study: train, evaluate variants, sweep blocks.

Arguments and results are plain data. Model, sentences and the unquantised model's answers stay in memory
between calls, so a process pays for them once. One thread: sums are then the same whatever the machine.

A sentence is read in a window of as many positions as the model has (`window_of`): 256 in the embedded
models, 1,024 in GPT-2. A language that cannot be scored has the reason, and so has a variant that cannot be
made; the others have their numbers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import multilingual
from models.calibration import calibrate
from models.gptq import gptq_by_layer
from models.layer_sweep import QuantisedBlocks, layer_sweep, quantised_blocks, variant_bits
from models.losses import Baseline, SentenceLosses, keep_baselines, positions_of, sentence_losses
from models.preservation import Statistics
from models.quant_spec import CalibrationMix, QuantSpec
from models.quantize import Coverage, quantized
from models.unigram import fitted_on, unigram_losses
from models.variants import (
    UNIGRAM_TEXTS,
    CorpusSource,
    Variant,
    calibration_texts,
    unevaluated_texts,
    variant_from,
)
from models.windows import Encoded, encode, prefix_id_of

Report = Callable[[dict[str, Any]], None]
Kept = tuple[Mapping[str, Baseline], Mapping[str, str]]
"""Language -> the unquantised model's answers, and language -> why there are none."""
Measure = Callable[[Encoded], dict[str, Any]]
"""What a sweep makes of one language, as plain data."""
MOST_POSITIONS = 2048
"""Of a window, for memory: newer models have 100,000 positions and no sentence needs them."""
USUAL_POSITIONS = 1024
"""Of a model whose config names none."""


def train(*, name: str, seed: int, directory: str, report: Report) -> dict[str, Any]:
    """Train an embedded multilingual model unless it is there; reports each evaluated point."""
    torch.set_num_threads(1)
    spec = multilingual.spec_of(name, seed)
    trained = multilingual.obtain(
        spec, Path(directory), report=lambda point: report(dataclasses.asdict(point))
    )
    return {"digest": trained.digest}


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model with the sentences it is evaluated on."""

    model: Any
    tokenizer: Any
    source: CorpusSource
    languages: tuple[str, ...]
    encoded: Mapping[str, Encoded]
    refused: Mapping[str, str]
    """Language -> why its sentences cannot be read; the others are in `encoded`."""
    prefix_id: int

    @cached_property
    def kept(self) -> Kept:
        """The unquantised model's answers; to be asked for while its weights are as they were.

        A sweep never asks, so one that goes on in a new process does not score all languages first.
        """
        baselines, refused = keep_baselines(self.model, self.encoded)
        return baselines, {**self.refused, **refused}


def window_of(model: Any) -> int:
    """Predictions of a window: as many as the model has positions, so that no context is cut off.

    GPT-2 has 1,024 and cuts a long Hindi sentence into more than 256 tokens. At most `MOST_POSITIONS`, and
    `USUAL_POSITIONS` where the model names no number. The embedded models have 256, more than any CLDR
    sentence.
    """
    return min(MOST_POSITIONS, positions_of(model) or USUAL_POSITIONS)


@lru_cache(maxsize=1)
def _loaded(where: str, source: CorpusSource) -> Loaded:
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        where, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model.train(False)
    tokenizer: Any = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    prefix = prefix_id_of(tokenizer)
    size, corpus = window_of(model), source.load()
    encoded, refused = {}, {}
    for code in corpus.languages:
        try:
            encoded[code] = encode(tokenizer, corpus.side(code), block_size=size, prefix_id=prefix)
        except ValueError as error:  # a text without a token: this language has no losses, the others may
            refused[code] = f"{code}: {error}"
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        source=source,
        languages=tuple(corpus.languages),
        encoded=encoded,
        refused=refused,
        prefix_id=prefix,
    )


@lru_cache(maxsize=4)
def _statistics(
    where: str, source: CorpusSource, mix: CalibrationMix, grams: bool, fisher: bool
) -> Statistics:
    at = _loaded(where, source)
    texts = calibration_texts(mix, source)
    return calibrate(at.model, at.tokenizer, texts, mix, prefix_id=at.prefix_id, grams=grams, fisher=fisher)


def evaluate(
    *,
    where: str,
    source: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    mix: Mapping[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Evaluate variants one after the other; reports each with its key as soon as it is measured.

    Parameters
    ----------
    where
        Directory or hub id of the model.
    source, variants, mix
        `dataclasses.asdict` of a `CorpusSource`, of `Variant` by key, of a `CalibrationMix`.
    """
    at = _loaded(where, _source(source))
    texts = _mix(mix)
    for key, data in variants.items():
        started = time.perf_counter()
        body = _evaluated(at, where, variant_from(data), texts)
        report({"key": key, "body": {**body, "seconds": time.perf_counter() - started}})
    return {}


def _evaluated(at: Loaded, where: str, variant: Variant, mix: CalibrationMix) -> dict[str, Any]:
    if variant.spec is None and not variant.compared:
        return _unquantised(at)
    kept = at.kept if variant.compared else None
    if variant.spec is None:  # once more, to show that every variant before it was undone
        return {"languages": _losses(at, kept), "coverage": None}
    try:
        return _rounded(at, where, variant, mix, kept)
    except ValueError as error:  # it cannot be made of this model: the other variants may
        gone = {code: _no_losses(f"{code}: not made: {error}") for code in at.languages}
        return {"languages": gone, "coverage": None}


def _rounded(
    at: Loaded, where: str, variant: Variant, mix: CalibrationMix, kept: Kept | None
) -> dict[str, Any]:
    assert variant.spec is not None
    statistics = None
    if variant.needs_statistics:
        statistics = _statistics(where, at.source, mix, variant.gptq, variant.needs_fisher)
    quantizer = None
    if variant.gptq and statistics is not None:
        quantizer = gptq_by_layer(variant.spec, statistics)
    with quantized(at.model, variant.spec, variant.preservation, statistics, quantizer=quantizer) as found:
        losses = _losses(at, kept)
    return {"languages": losses, "coverage": _covered(found)}


def _unquantised(at: Loaded) -> dict[str, Any]:
    """The model as it is, and beside it a unigram model of each language."""
    baselines, refused = at.kept
    losses = {
        code: _as_data(baselines[code].losses) if code in baselines else _no_losses(refused[code])
        for code in at.languages
    }
    vocabulary = int(at.model.config.vocab_size)
    unigram = {code: _unigram(at, code, vocabulary) for code in at.languages}
    return {"languages": losses, "unigram": unigram, "vocabulary": vocabulary, "coverage": None}


def _unigram(at: Loaded, code: str, vocabulary: int) -> dict[str, Any]:
    """What a unigram model of the language, fitted on other sentences, makes of the evaluated ones."""
    if code in at.refused:
        return {"bits": None, "bits_per_token": None, "reason": at.refused[code]}
    try:
        others = unevaluated_texts(at.source, code, UNIGRAM_TEXTS)
        read = encode(at.tokenizer, others, block_size=at.encoded[code].block_size, prefix_id=at.prefix_id)
        found = unigram_losses(fitted_on(read, vocabulary), at.encoded[code])
    except ValueError as error:
        reason = f"{code}: no unigram model: {error}"
        return {"bits": None, "bits_per_token": None, "reason": reason}
    return {"bits": found.sentence_bits.tolist(), "bits_per_token": found.bits_per_token, "reason": None}


def _losses(at: Loaded, kept: Kept | None) -> dict[str, Any]:
    """Each language under the weights as they are now, compared with what was kept."""
    baselines, refused = kept or ({}, {})
    found = {}
    for code in at.languages:
        if code in at.refused:
            found[code] = _no_losses(at.refused[code])
            continue
        alone = f"no unquantised model beside it: {refused[code]}" if code in refused else None
        try:
            losses = sentence_losses(at.model, at.encoded[code], baseline=baselines.get(code))
            found[code] = _as_data(losses, kl_reason=alone)
        except ValueError as error:  # a loss that is no number: this language has none, the others may
            found[code] = _no_losses(f"{code}: {error}")
    return found


def _no_losses(reason: str) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(("bits", "tokens", "kl_bits", "flips", "kl_reason"))
    return {**nothing, "reason": reason}


def _as_data(losses: SentenceLosses, kl_reason: str | None = None) -> dict[str, Any]:
    """As plain data; `kl_reason` is why KL and flips are missing where they were asked for."""
    return {
        "bits": losses.bits.tolist(),
        "tokens": losses.tokens.tolist(),
        "kl_bits": None if losses.kl_bits is None else losses.kl_bits.tolist(),
        "flips": None if losses.flips is None else losses.flips.tolist(),
        "kl_reason": kl_reason,
        "reason": None,
    }


def _covered(found: Coverage) -> dict[str, Any]:
    return {
        "modules": len(found.modules),
        "protected": len(found.protected),
        "weights": found.weights,
        "kept": found.kept,
        "share": found.share,
        "bits_per_weight": found.bits_per_weight,
        "payload_bytes": found.payload_bytes,
        "checksum": found.before,
    }


def sweep(
    *,
    where: str,
    source: Mapping[str, Any],
    spec: Mapping[str, Any],
    languages: Sequence[str],
    report: Report,
) -> dict[str, Any]:
    """Each block quantised alone and kept alone; reports each of the languages as it is done."""
    at, copies = _swept(where, source, spec)

    def measure(encoded: Encoded) -> dict[str, Any]:
        found = layer_sweep(at.model, encoded, copies)
        return {
            "quantised": found.quantised.tolist(),
            "only": found.only.tolist(),
            "protected": found.protected.tolist(),
            "diagnostics": [dataclasses.asdict(one) for one in found.diagnostics],
        }

    _each_language(at, copies, languages, measure, report)
    return {}


def keep_sets(
    *,
    where: str,
    source: Mapping[str, Any],
    spec: Mapping[str, Any],
    sets: Sequence[Sequence[int]],
    languages: Sequence[str],
    report: Report,
) -> dict[str, Any]:
    """Each set of blocks kept and the others quantised; reports each of the languages as it is done."""
    at, copies = _swept(where, source, spec)
    kept = [tuple(i not in one for i in range(len(copies.blocks))) for one in sets]

    def measure(encoded: Encoded) -> dict[str, Any]:
        return {"kept_sets": variant_bits(at.model, encoded, copies, kept).tolist()}

    _each_language(at, copies, languages, measure, report)
    return {}


def _each_language(
    at: Loaded, copies: QuantisedBlocks, languages: Sequence[str], measure: Measure, report: Report
) -> None:
    """Report what is measured of each language and its seconds, or the reason why it has no numbers."""
    for code in languages:
        started = time.perf_counter()
        found: dict[str, Any] = {"reason": at.refused.get(code)}
        if code in at.encoded:
            try:
                found |= measure(at.encoded[code])
            except ValueError as error:  # a loss that is no number: the other languages may have theirs
                found["reason"] = f"{code}: {error}"
        seconds = time.perf_counter() - started
        report({"language": code, "blocks": len(copies.blocks), **found, "seconds": seconds})


def _swept(where: str, source: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[Loaded, QuantisedBlocks]:
    at = _loaded(where, _source(source))
    rounding = variant_from({"spec": spec, "preservation": None, "gptq": False, "compared": False}).spec
    assert rounding is not None
    return at, quantised_blocks(at.model, _applier(at.model, rounding))


def _applier(model: Any, spec: QuantSpec) -> Callable[[Sequence[int]], AbstractContextManager[object]]:
    def apply(blocks: Sequence[int]) -> AbstractContextManager[object]:
        return quantized(model, dataclasses.replace(spec, blocks=tuple(blocks)))

    return apply


def _source(data: Mapping[str, Any]) -> CorpusSource:
    return CorpusSource(**{**data, "languages": tuple(data["languages"])})


def _mix(data: Mapping[str, Any]) -> CalibrationMix:
    texts = tuple((code, count) for code, count in data["texts"])
    return CalibrationMix(texts=texts, block_size=data["block_size"])
