"""Bits of every sentence under a causal language model, so that languages and tokenizers can be compared.

For a sentence of tokens t_1..t_n and a prefix token t_0 that is given and never scored

    bits = sum_i -log2 p(t_i | t_0 .. t_{i-1})

Perplexity per token depends on how a tokenizer cuts a language; total bits of the same parallel sentence do
not. How a sentence longer than the model's window is cut stands in `models.windows`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.blocks import head_of, trunk_of
from models.windows import (
    TOKENS_A_BATCH,
    Batch,
    Encoded,
    FloatArray,
    IntArray,
    batches_of,
    encode,
    prefix_id_of,
)

__all__ = [
    "Baseline", "Encoded", "SentenceLosses", "encode", "keep_baselines", "prefix_id_of", "sentence_losses",
]  # fmt: skip

LOGITS_AT_ONCE = 1 << 24
"""Logits in memory at a time, 64 MiB in float32: 333 positions of 50,257 tokens. With 83 the head took 1.05
times as long, with 20 1.37 times, as it reads its weights once a slice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceLosses:
    """What each sentence costs; arrays have one entry a sentence."""

    bits: FloatArray
    """Sum of -log2 p over its tokens."""
    tokens: IntArray
    """Scored tokens."""
    n_bytes: IntArray
    """UTF-8 bytes."""
    characters: IntArray
    """Code points."""
    kl_bits: FloatArray | None
    """Sum over positions of KL(p_baseline || p) in bits; None without a baseline."""
    flips: IntArray | None
    """Positions whose most probable token is not the baseline's; None without a baseline."""

    @property
    def bits_per_byte(self) -> float:
        """Sum of bits / sum of bytes."""
        return float(self.bits.sum() / self.n_bytes.sum())

    @property
    def nats_per_token(self) -> float:
        """Sum of nats / sum of tokens; its exponential is the perplexity of the legacy columns."""
        return float(self.bits.sum() * math.log(2) / self.tokens.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A model's answers on one language, kept while the model itself is changed in place.

    Kept is what enters the head, `width` numbers a position instead of one for each token of the vocabulary,
    and a copy of the head; logits are computed again from both, which skips all blocks.
    """

    encoded: Encoded
    losses: SentenceLosses
    batches: tuple[Batch, ...]
    hidden: tuple[torch.Tensor, ...]
    """(scored positions, width) of each batch."""
    head: nn.Module
    """Copy of the head; languages kept together share one."""


def sentence_losses(
    model: nn.Module,
    encoded: Encoded,
    *,
    baseline: nn.Module | Baseline | None = None,
    tokens_a_batch: int = TOKENS_A_BATCH,
) -> SentenceLosses:
    """Score every sentence in batches of windows of similar length.

    The head runs only on positions that score a token. Log-softmax is in float32, sums are in float64.

    Parameters
    ----------
    baseline
        p_0 for `kl_bits` and `flips`: another model with the same vocabulary, or `keep_baselines`' answers on
        the same `encoded`. Equal weights give exactly 0; almost equal ones may give -1e-6 bits (float32).
    tokens_a_batch
        Positions of a batch with its padding; a longer window is a batch of its own. A kept baseline brings
        its own batches.

    Raises
    ------
    ValueError
        For a loss that is not finite, named by sentence; for windows longer than the model's positions, ids
        outside its vocabulary, or a baseline of other texts or another vocabulary.
    """
    check_fits(model, encoded)
    batches = baseline.batches if isinstance(baseline, Baseline) else batches_of(encoded, tokens_a_batch)
    score = Scores(len(encoded), compared=baseline is not None)
    head = head_of(model)
    with torch.inference_mode(), evaluating(model):
        for batch, reference in zip(batches, _references(baseline, encoded, batches, head), strict=True):
            score.add(batch, position_scores(head, _scored_hidden(model, batch), batch.targets, reference))
    return score.losses(encoded)


def keep_baselines(
    model: nn.Module, encoded: Mapping[str, Encoded], *, tokens_a_batch: int = TOKENS_A_BATCH
) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Score each language and keep what KL and flips of a changed model are measured against.

    Memory: `width` float32 numbers a scored position (3 KiB at width 768) and one copy of the head.

    Returns
    -------
    kept, refused
        Language -> its baseline, and for every other language what `sentence_losses` would raise: one that
        cannot be scored takes none of the others with it.

    Raises
    ------
    ValueError
        For a model of a kind that is not known, which no language can help.
    """
    trunk_of(model)
    head = copy.deepcopy(head_of(model)).requires_grad_(False)
    kept, refused = {}, {}
    for name, texts in encoded.items():
        try:
            kept[name] = _baseline(model, texts, head, tokens_a_batch)
        except ValueError as error:
            refused[name] = f"{name}: {error}"
    return kept, refused


def _baseline(model: nn.Module, texts: Encoded, head: nn.Module, tokens_a_batch: int) -> Baseline:
    check_fits(model, texts)
    batches = batches_of(texts, tokens_a_batch)
    score, hidden = Scores(len(texts), compared=False), []
    with torch.inference_mode(), evaluating(model):
        for batch in batches:
            hidden.append(_scored_hidden(model, batch))
            score.add(batch, position_scores(head, hidden[-1], batch.targets, None))
    losses = score.losses(texts)
    return Baseline(encoded=texts, losses=losses, batches=batches, hidden=tuple(hidden), head=head)


Reference = tuple[torch.Tensor, nn.Module]
"""A baseline's input to the head, (scored positions, width), and its head."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionScores:
    """One entry a scored position."""

    nats: FloatArray
    kl_nats: FloatArray | None
    flips: FloatArray | None
    """1 where the most probable token is not the reference's."""


def position_scores(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, reference: Reference | None
) -> PositionScores:
    """-ln p of each target, and KL and top-1 flips against a reference, a slice of positions at a time.

    Parameters
    ----------
    hidden
        (positions, width), what enters the head.
    targets
        (positions,) token ids.
    """
    targets = targets.to(hidden.device)
    rows = max(64, min(1024, LOGITS_AT_ONCE // _vocabulary(head)))
    nats, kl, flips = [], [], []
    for first in range(0, len(targets), rows):
        part = slice(first, first + rows)
        logits = head(hidden[part]).float()  # (rows, vocabulary)
        if reference is None:
            nats.append(F.cross_entropy(logits, targets[part], reduction="none"))
            continue
        log_p = F.log_softmax(logits, dim=-1)
        log_p0 = F.log_softmax(reference[1](reference[0][part]).float(), dim=-1)
        nats.append(F.nll_loss(log_p, targets[part], reduction="none"))
        kl.append((log_p0.exp() * (log_p0 - log_p)).sum(-1))
        flips.append(log_p0.argmax(-1) != log_p.argmax(-1))
    if reference is None:
        return PositionScores(nats=_double(nats), kl_nats=None, flips=None)
    return PositionScores(nats=_double(nats), kl_nats=_double(kl), flips=_double(flips))


class Scores:
    """Sums by sentence while batches come in; not thread-safe."""

    def __init__(self, sentences: int, *, compared: bool) -> None:
        self._nats = np.zeros(sentences)
        self._kl = np.zeros(sentences) if compared else None
        self._flips = np.zeros(sentences) if compared else None

    def add(self, batch: Batch, scores: PositionScores) -> None:
        """Add a batch's positions to their sentences."""
        pairs = ((self._nats, scores.nats), (self._kl, scores.kl_nats), (self._flips, scores.flips))
        for total, values in pairs:
            if total is not None and values is not None:
                total += np.bincount(batch.owner, weights=values, minlength=len(total))

    def losses(self, encoded: Encoded) -> SentenceLosses:
        """The sums in bits.

        Raises
        ------
        ValueError
            When a sum is not finite.
        """
        _check_finite("loss", self._nats)
        if self._kl is not None:
            _check_finite("KL", self._kl)
        return SentenceLosses(
            bits=self._nats / math.log(2),
            tokens=encoded.tokens,
            n_bytes=encoded.n_bytes,
            characters=encoded.characters,
            kl_bits=None if self._kl is None else self._kl / math.log(2),
            flips=None if self._flips is None else self._flips.astype(np.int64),
        )


def check_fits(model: nn.Module, encoded: Encoded) -> None:
    """Refuse texts the model cannot read.

    Raises
    ------
    ValueError
        For windows longer than the model's positions or ids outside its vocabulary.
    """
    positions = positions_of(model)
    if positions is not None and encoded.block_size > positions:
        raise ValueError(
            f"block_size is {encoded.block_size}, {type(model).__name__} has {positions} positions: encode "
            "with at most that"
        )
    vocabulary = _vocabulary(head_of(model))
    largest = max(encoded.prefix_id, *(int(row.max()) for row in encoded.targets))
    if largest >= vocabulary:
        raise ValueError(
            f"token id {largest} is outside the vocabulary of {vocabulary} of {type(model).__name__}; encode "
            "with the model's own tokenizer"
        )


def positions_of(model: nn.Module) -> int | None:
    """How many positions a model can read; None where its config does not say."""
    found = getattr(cast(Any, model).config, "max_position_embeddings", None)
    return None if found is None else int(found)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off for the time being."""
    before = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(before)


def embedded(model: nn.Module, batch: Batch) -> torch.Tensor:
    """(windows, longest window, width) of a batch's ids.

    Given in place of ids they keep `transformers` from taking the prefix token for padding, of which it warns
    where both are one token.
    """
    embed = cast(Any, model).get_input_embeddings()
    return embed(batch.ids.to(embed.weight.device))  # type: ignore[no-any-return]


def at_scored(hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(scored positions, width) of (windows, longest window, width)."""
    return hidden.flatten(0, 1)[batch.scored.to(hidden.device)]


def _scored_hidden(model: nn.Module, batch: Batch) -> torch.Tensor:
    out = trunk_of(model)(inputs_embeds=embedded(model, batch), use_cache=False)
    return at_scored(out.last_hidden_state, batch)


def _references(
    baseline: nn.Module | Baseline | None, encoded: Encoded, batches: Sequence[Batch], head: nn.Module
) -> Iterator[Reference | None]:
    """The baseline's side of each batch."""
    if baseline is None:
        yield from (None for _ in batches)
        return
    base_head = baseline.head if isinstance(baseline, Baseline) else head_of(baseline)
    found, allowed = _vocabulary(base_head), _vocabulary(head)
    if found != allowed:
        raise ValueError(f"the baseline has {found} tokens, the model {allowed}; KL needs one vocabulary")
    if isinstance(baseline, Baseline):
        if baseline.encoded is not encoded:
            raise ValueError("the kept baseline is of other texts; keep one of these with keep_baselines")
        yield from ((hidden, base_head) for hidden in baseline.hidden)
        return
    with evaluating(baseline):
        for batch in batches:
            yield _scored_hidden(baseline, batch), base_head


def _vocabulary(head: nn.Module) -> int:
    return int(cast(Any, head).out_features)


def _check_finite(what: str, sums: FloatArray) -> None:
    bad = np.flatnonzero(~np.isfinite(sums))
    if len(bad):
        raise ValueError(
            f"sentence {bad[0]} has a {what} of {sums[bad[0]]} ({len(bad)} of {len(sums)} sentences are not "
            "finite): look at the weights, or call this variant collapsed"
        )


def _double(parts: list[torch.Tensor]) -> FloatArray:
    return torch.cat(parts).cpu().double().numpy()
