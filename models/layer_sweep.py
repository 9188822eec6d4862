"""Which blocks carry the damage: each quantised alone, each protected alone, with shared prefixes.

A variant says of each block whether it is quantised (q) or as it was (f). Two variants that agree on blocks
0..d-1 have the same activations there, so block d runs once for each distinct prefix and not once a variant.
Both sweeps of L blocks with the untouched and the fully quantised model are 2 L + 2 variants; they run

    sum over d of min(2^d, 2 d + 2)   blocks, d = 1..L,        in place of    L (2 L + 2)

which is 24 of 40 for 4 blocks, 50 of 84 for 6 and 176 of 312 for 12. Embeddings and masks are made once. The
head runs once a variant either way, so a large vocabulary saves less.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from models.blocks import block_prefixes, blocks_of, head_of, hidden_of, tail_of, trunk_of
from models.losses import Scores, at_scored, check_fits, embedded, evaluating, position_scores
from models.windows import TOKENS_A_BATCH, Batch, Encoded, FloatArray, batches_of

Variant = tuple[bool, ...]
"""One entry a block: True where it is quantised."""
Apply = Callable[[Sequence[int]], AbstractContextManager[object]]
"""Quantises exactly these blocks of the model while the context is open."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedBlocks:
    """A copy of every block with quantised weights; made once, used for every language."""

    blocks: tuple[nn.Module, ...]


@dataclass(frozen=True, kw_only=True)
class BlockDiagnostics:
    """What is said to predict a block's sensitivity; to be put beside the ablation, never in its place."""

    block: int
    """Index from 0."""
    weight_kurtosis: float | None
    """m_4 / m_2^2 of all entries of the block's matrices; 3 for a normal law; None where all are equal."""
    activation_outliers: float | None
    """max |x| / mean |x| of the untouched block's output at every token that is read; None if all are 0."""
    mean_activation: float
    """Mean |x| of the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """Bits of each sentence under every variant of the sweep."""

    untouched: FloatArray
    """(sentences,) no block quantised."""
    quantised: FloatArray
    """(sentences,) every block quantised."""
    only: FloatArray
    """(blocks, sentences) only block i quantised."""
    protected: FloatArray
    """(blocks, sentences) every block but i quantised."""
    diagnostics: tuple[BlockDiagnostics, ...]
    """One a block; activations over these sentences."""


def quantised_blocks(model: nn.Module, apply: Apply) -> QuantisedBlocks:
    """Copy the blocks while all are quantised, and prove that each would be the same alone.

    The proof is a checksum of every weight under `apply((i,))`: block i equals its copy and the rest of the
    model is untouched. Without it a sweep from parts could differ from quantising each variant whole.

    Raises
    ------
    ValueError
        When a block quantised alone is not its copy, when weights outside it change, or when `apply` does
        not put the weights back.
    """
    blocks, prefixes = blocks_of(model), block_prefixes(model)
    before = _checksums(model)
    with apply(tuple(range(len(blocks)))):
        together = _checksums(model)
        copies = tuple(copy.deepcopy(block).train(False).requires_grad_(False) for block in blocks)
    for i, prefix in enumerate(prefixes):
        expected = {name: (together if name.startswith(prefix) else before)[name] for name in before}
        with apply((i,)):
            _same(_checksums(model), expected, f"with only block {i} quantised")
    _same(_checksums(model), before, "after the last variant")
    return QuantisedBlocks(blocks=copies)


def layer_sweep(
    model: nn.Module, encoded: Encoded, quantised: QuantisedBlocks, *, tokens_a_batch: int = TOKENS_A_BATCH
) -> SweepResult:
    """Bits with only block i quantised and with only block i protected, for every i.

    Equals quantising the model anew for each variant and calling `sentence_losses`, up to float noise.

    Raises
    ------
    ValueError
        As `variant_bits`.
    """
    n = len(quantised.blocks)
    variants = sweep_variants(n)
    watch = _Activations(n)
    bits = variant_bits(model, encoded, quantised, variants, tokens_a_batch=tokens_a_batch, watch=watch)
    return SweepResult(
        untouched=bits[0],
        quantised=bits[1],
        only=bits[2 : n + 2],
        protected=bits[n + 2 :],
        diagnostics=tuple(
            BlockDiagnostics(
                block=i,
                weight_kurtosis=weight_kurtosis(block),
                activation_outliers=watch.outliers(i),
                mean_activation=watch.mean(i),
            )
            for i, block in enumerate(blocks_of(model))
        ),
    )


def sweep_variants(n: int) -> list[Variant]:
    """Untouched, fully quantised, only each block, all but each block.

    >>> ["".join("fq"[b] for b in variant) for variant in sweep_variants(3)]
    ['fff', 'qqq', 'qff', 'fqf', 'ffq', 'fqq', 'qfq', 'qqf']
    """
    only = [tuple(i == j for j in range(n)) for i in range(n)]
    return [(False,) * n, (True,) * n, *only, *(tuple(not b for b in variant) for variant in only)]


def blocks_run(variants: Sequence[Variant]) -> int:
    """Block evaluations a batch: distinct prefixes of all lengths.

    >>> [blocks_run(sweep_variants(n)) for n in (4, 6, 12)]
    [24, 50, 176]
    """
    return len({variant[:d] for variant in variants for d in range(1, len(variant) + 1)})


def variant_bits(
    model: nn.Module,
    encoded: Encoded,
    quantised: QuantisedBlocks,
    variants: Sequence[Variant],
    *,
    tokens_a_batch: int = TOKENS_A_BATCH,
    watch: _Activations | None = None,
) -> FloatArray:
    """(variants, sentences) bits, each distinct prefix of blocks run once a batch.

    Parameters
    ----------
    variants
        Any choices of blocks, for example chosen blocks against random ones of the same number.

    Raises
    ------
    ValueError
        For a variant of another length than the model's blocks, a loss that is not finite (named by variant
        and sentence), and as `sentence_losses`.
    """
    _check_variants(model, quantised, variants)
    check_fits(model, encoded)
    scores = [Scores(len(encoded), compared=False) for _ in variants]
    head, tail = head_of(model), tail_of(model)
    with torch.inference_mode(), evaluating(model):
        for batch in batches_of(encoded, tokens_a_batch):
            for k, hidden in _outputs(model, batch, quantised, variants, watch):
                rows = at_scored(hidden, batch)
                for module in tail:
                    rows = module(rows)
                scores[k].add(batch, position_scores(head, rows, batch.targets, None))
    found = np.zeros((len(variants), len(encoded)))
    for k, score in enumerate(scores):
        try:
            found[k] = score.losses(encoded).bits
        except ValueError as error:
            raise ValueError(f"blocks {''.join('fq'[b] for b in variants[k])}: {error}") from None
    return found


def weight_kurtosis(block: nn.Module) -> float | None:
    """m_4 / m_2^2 of all entries of a block's matrices together, None where they are all equal.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -1.0], [3.0, -3.0]]))
    >>> weight_kurtosis(layer)  # ((1 + 81) / 2) / ((1 + 9) / 2)^2
    1.64
    """
    entries = [p.detach().flatten().cpu().numpy() for p in block.parameters() if p.dim() == 2]
    w = np.concatenate(entries).astype(np.float64)
    squares = (w - w.mean()) ** 2
    m2 = float(squares.mean())
    return float((squares**2).mean()) / m2**2 if m2 > 0 else None


class _Activations:
    """Largest and mean |x| of each untouched block's output, while batches come in."""

    def __init__(self, n: int) -> None:
        self._largest, self._sum, self._count = np.zeros(n), np.zeros(n), np.zeros(n)

    def add(self, block: int, rows: torch.Tensor) -> None:
        x = rows.abs()
        self._largest[block] = max(self._largest[block], float(x.max()))
        self._sum[block] += float(x.double().sum())
        self._count[block] += x.numel()

    def mean(self, block: int) -> float:
        return float(self._sum[block] / self._count[block])

    def outliers(self, block: int) -> float | None:
        mean = self.mean(block)
        return float(self._largest[block] / mean) if mean > 0 else None


def _outputs(
    model: nn.Module,
    batch: Batch,
    quantised: QuantisedBlocks,
    variants: Sequence[Variant],
    watch: _Activations | None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """(variant's index, last block's output), walking the tree of prefixes depth first.

    Depth first holds one activation a level, L + 1 of (windows, longest window, width) in all.
    """
    versions = (blocks_of(model), quantised.blocks)
    hidden, others, named = _before_blocks(model, batch)

    def walk(depth: int, x: torch.Tensor, members: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
        if depth == len(quantised.blocks):
            yield from ((k, x) for k in members)
            return
        for version, blocks in enumerate(versions):
            chosen = [k for k in members if variants[k][depth] == bool(version)]
            if not chosen:
                continue
            y = hidden_of(blocks[depth](x, *others, **named))
            if watch is not None and not any(variants[chosen[0]][: depth + 1]):
                watch.add(depth, y.flatten(0, 1)[batch.real.to(y.device)])
            yield from walk(depth + 1, y, chosen)

    yield from walk(0, hidden, list(range(len(variants))))


class _Stop(Exception):  # noqa: N818  (a way out, not an error)
    """Ends a forward pass at the first block."""


def _before_blocks(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]:
    """What the trunk hands its first block: activations, and masks and positions that all blocks share."""
    seen: list[tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((arguments[0], arguments[1:], named))
        raise _Stop

    hook = blocks_of(model)[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        trunk_of(model)(inputs_embeds=embedded(model, batch), use_cache=False)
    except _Stop:
        pass
    finally:
        hook.remove()
    return seen[0]


def _check_variants(model: nn.Module, quantised: QuantisedBlocks, variants: Sequence[Variant]) -> None:
    n = len(blocks_of(model))
    lengths = {len(quantised.blocks), *map(len, variants)}
    if lengths != {n}:
        raise ValueError(
            f"quantised blocks or variants have {sorted(lengths)} entries, {type(model).__name__} has {n} "
            "blocks: give one entry a block"
        )


def _checksums(model: nn.Module) -> dict[str, int]:
    """CRC-32 of every parameter's bytes."""
    return {
        name: zlib.crc32(p.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        for name, p in model.named_parameters()
    }


def _same(found: dict[str, int], expected: dict[str, int], when: str) -> None:
    wrong = [name for name, value in expected.items() if found[name] != value]
    if wrong:
        raise ValueError(
            f"{when}, {wrong[0]} ({len(wrong)} weights in all) is not as expected: apply must quantise each "
            "block by itself, change nothing else and restore it; evaluate such a rule variant by variant"
        )
