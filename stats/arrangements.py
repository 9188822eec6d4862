"""Drawing label arrangements within blocks, all draws of a block as one matrix product.

Random 32-bit keys with the label in the lowest bits are sorted row by row, which is a random arrangement of
the labels; turned into 0/1 per label they are multiplied with the columns [y, y^2, observed]. y is centred by
block and scaled by metric, so float32 is enough; the observed labels run through the same product as draw 0,
so a tie is a tie. Blocks run on a few threads and sums are taken in block order, so the number of threads
changes no digit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.rows import FloatArray, IntArray

TIE = 1e-5
"""Relative: a drawn statistic this close under the observed one counts as reaching it (float32 rounding)."""
SMALLEST_VARIANCE = 1e-9
"""Floor of a squared standard error in units of the metric's variance, so that 0 / 0 cannot arise."""
CHUNK_LABELS = 1 << 18
"""Labels drawn at a time: 1 MiB of keys stays in cache."""
WORTH_THREADS = 1 << 20
"""Labels to draw in all from which threads of ours pay for themselves."""
BLAS_ONE_THREAD = 1 << 18
"""Multiply-adds up to which OpenBLAS starts no thread of its own."""

FloatMatrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows of one comparison, coded: `label` is permuted within each block."""

    label: IntArray
    """0..n_labels-1, one a row."""
    names: tuple[str, ...]
    """Name of each label."""
    blocks: tuple[IntArray, ...]
    """Row indices of each block."""
    scaled: FloatArray
    """(rows, metrics), centred by block, divided by the metric's SD within blocks; NaN where missing."""
    scale: FloatArray
    """(metrics,) that SD, in the units of the metric; 0 where the metric does not vary within any block."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Observed statistics in float64 and the p values of the draws, by metric."""

    statistic: FloatArray
    """(metrics,) omnibus statistic; NaN where undefined."""
    means: FloatArray
    """(labels, metrics) mean over blocks of the centred, scaled cell means."""
    variances: FloatArray
    """(labels, metrics) squared standard errors of `means`."""
    p: FloatArray
    """(metrics,)"""
    null: FloatArray
    """(2, metrics) the middle 95 % of the drawn statistics: quantiles .025 and .975."""
    p_max_t: Callable[[Sequence[int]], FloatArray]
    """Step-down max-T p values of the metrics with the given indices."""
    n_rows: IntArray
    """(metrics,) rows with a value."""
    n_labels: int


def compare(
    y: FloatArray, source: IntArray, prompt: IntArray, keep: tuple[int, ...], names: tuple[str, ...]
) -> Comparison:
    """The rows of the sources in `keep`, centred by block and scaled by metric."""
    rows = np.flatnonzero(np.isin(source, keep))
    label = np.searchsorted(np.asarray(keep), source[rows])
    order = np.argsort(prompt[rows], kind="stable")
    edges = np.flatnonzero(np.diff(prompt[rows][order])) + 1
    blocks = tuple(np.split(order, edges))
    centred = y[rows].copy()
    for block in blocks:
        seen = ~np.isnan(centred[block])
        total = np.where(seen, centred[block], 0.0).sum(axis=0)
        centred[block] -= total / np.maximum(seen.sum(axis=0), 1)
    squares = np.where(np.isnan(centred), 0.0, centred**2)
    scale = np.sqrt(squares.sum(axis=0) / np.maximum((~np.isnan(centred)).sum(axis=0), 1))
    magnitude = np.nanmax(np.where(np.isnan(y[rows]), 0.0, np.abs(y[rows])), axis=0)
    scale = np.where(scale > 1e-12 * magnitude, scale, 0.0)  # rounding of a constant is no variation
    scaled = centred / np.where(scale > 0, scale, 1.0)
    return Comparison(
        label=label.astype(np.int64),
        names=tuple(names[i] for i in keep),
        blocks=blocks,
        scaled=scaled,
        scale=scale,
    )


def within_cell_sd(y: FloatArray, source: IntArray, prompt: IntArray, n_sources: int) -> FloatArray:
    """(metrics,) pooled SD within source and prompt; NaN without a degree of freedom."""
    cell = prompt * n_sources + source
    n_cells = int(cell.max()) + 1
    result = np.full(y.shape[1], np.nan)
    for i, column in enumerate(y.T):
        seen = ~np.isnan(column)
        count = np.bincount(cell[seen], minlength=n_cells)
        mean = np.bincount(cell[seen], column[seen], n_cells) / np.maximum(count, 1)
        df = int(np.maximum(count - 1, 0).sum())
        if df > 0:
            result[i] = math.sqrt(float(((column[seen] - mean[cell[seen]]) ** 2).sum()) / df)
    return result


def _arrangements(label: IntArray, n_draws: int, rng: np.random.Generator) -> npt.NDArray[np.uint32]:
    """(n_draws, rows) random arrangements of `label`: sort random keys that carry the label in the low bits.

    Two equal keys in a row of 150 (1 chance in 100,000) keep their labels in order instead of at random.
    """
    mask = np.uint32((1 << max(1, int(label.max()).bit_length())) - 1)
    n_keys = n_draws * len(label)
    words = rng.integers(0, 1 << 64, size=(n_keys + 1) // 2, dtype=np.uint64)  # two keys a word
    keys = words.view(np.uint32)[:n_keys].reshape(n_draws, len(label))
    keys &= ~mask
    keys |= label.astype(np.uint32)
    keys.sort(axis=1)
    keys &= mask
    return keys


def _label_sums(labels: npt.NDArray[Any], columns: FloatMatrix, n_labels: int) -> list[FloatMatrix]:
    """(draws, columns) sums of each label's rows; the last label's are the rest of the total.

    The product is cut into pieces small enough for BLAS to stay on this thread: with its own threads inside
    ours, the same work took 8 s in place of 0.7 s on two busy cores.
    """
    n_draws, n_rows = labels.shape
    step = max(1, BLAS_ONE_THREAD // columns.size)
    sums: list[FloatMatrix] = []
    for a in range(n_labels - 1):
        hot = (labels == a).astype(columns.dtype)
        whole = n_draws - n_draws % step
        pieces = hot[:whole].reshape(-1, step, n_rows) @ columns
        parts = [pieces.reshape(whole, columns.shape[1]), hot[whole:] @ columns]
        sums.append(np.concatenate(parts))
    sums.append(columns.sum(axis=0) - sum(sums[1:], start=sums[0]))
    return sums


def _cell_terms(
    labels: npt.NDArray[Any], y: FloatMatrix, n_labels: int
) -> tuple[FloatMatrix, FloatMatrix, npt.NDArray[np.bool_]]:
    """Cell means and squared standard errors (labels, draws, metrics) of one block, and where it can enter.

    `y` is (rows, metrics) with NaN where missing; a cell needs two values, else the block stays out there.
    """
    n_metrics = y.shape[1]
    seen = ~np.isnan(y)
    filled = np.where(seen, y, np.zeros_like(y))
    columns = np.hstack([filled, filled * filled] if seen.all() else [filled, filled * filled, seen])
    sums = _label_sums(labels, columns.astype(y.dtype), n_labels)
    means, squared_errors = np.empty((2, n_labels, len(labels), n_metrics), dtype=y.dtype)
    enters = np.ones((len(labels), n_metrics), dtype=bool)
    for a, total in enumerate(sums):
        count = total[:, 2 * n_metrics :]
        if not count.size:  # nothing missing: the cell size is the same in every draw
            count = np.full((1, n_metrics), np.count_nonzero(labels[0] == a), dtype=y.dtype)
        enters &= count > 1.5
        count = np.maximum(count, 2)
        means[a] = total[:, :n_metrics] / count
        spread = total[:, n_metrics : 2 * n_metrics] - means[a] * means[a] * count
        squared_errors[a] = np.maximum(spread, 0) / (count * (count - 1))
    if not enters.all():
        means *= enters
        squared_errors *= enters
    return means, squared_errors, enters


def _block_draws(
    comparison: Comparison, block: IntArray, n_draws: int, seed: Sequence[int]
) -> tuple[FloatMatrix, FloatMatrix, npt.NDArray[np.float32]]:
    """`_cell_terms` of one block for the observed labels (draw 0) and `n_draws` random ones, in float32."""
    rng = np.random.Generator(np.random.SFC64(list(seed)))
    y = comparison.scaled[block].astype(np.float32)
    label = comparison.label[block]
    step = max(1, CHUNK_LABELS // len(block))
    parts = [_cell_terms(label[None, :], y, len(comparison.names))]
    for start in range(0, n_draws, step):
        labels = _arrangements(label, min(step, n_draws - start), rng)
        parts.append(_cell_terms(labels, y, len(comparison.names)))
    means, errors, enters = zip(*parts, strict=True)
    return (
        np.concatenate(means, axis=1),
        np.concatenate(errors, axis=1),
        np.concatenate(enters, axis=0).astype(np.float32),
    )


def _statistic(means: FloatMatrix, variances: FloatMatrix) -> FloatMatrix:
    """(draws, metrics): weighted spread of the label means over S - 1; the squared ratio for two labels."""
    weight = 1 / np.maximum(variances, SMALLEST_VARIANCE)
    centre = (weight * means).sum(axis=0) / weight.sum(axis=0)
    result: FloatMatrix = (weight * (means - centre) ** 2).sum(axis=0) / (len(means) - 1)
    return result


def _averaged(
    terms: Sequence[tuple[FloatMatrix, FloatMatrix, npt.NDArray[Any]]],
) -> tuple[FloatMatrix, FloatMatrix, npt.NDArray[Any]]:
    """Means over the blocks that entered, their squared standard errors, and how many blocks did."""
    total_mean, total_error, used = (sum(part[1:], start=part[0]) for part in zip(*terms, strict=True))
    at_least_one = np.maximum(used, 1)
    return total_mean / at_least_one, total_error / at_least_one**2, used


def draw(comparison: Comparison, n_draws: int, rng: np.random.Generator) -> Drawn:
    """Observed and drawn statistics of one comparison."""
    seeds = rng.integers(0, 1 << 63, size=(len(comparison.blocks), 2)).tolist()
    blocks = list(zip(comparison.blocks, seeds, strict=True))
    threads = min(4, os.cpu_count() or 1) if n_draws * len(comparison.label) > WORTH_THREADS else 1
    if threads == 1:
        terms = [_block_draws(comparison, block, n_draws, seed) for block, seed in blocks]
    else:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            jobs = [pool.submit(_block_draws, comparison, block, n_draws, seed) for block, seed in blocks]
            terms = [job.result() for job in jobs]  # in block order, whoever ends first
    means, errors, _ = _averaged(terms)
    drawn = _statistic(means, errors)
    exact = [
        _cell_terms(comparison.label[block][None, :], comparison.scaled[block], len(comparison.names))
        for block in comparison.blocks
    ]
    observed_means, observed_errors, used = _averaged([(m, e, k.astype(np.float64)) for m, e, k in exact])
    defined = (used[0] > 0) & (comparison.scale > 0)
    statistic = np.where(defined, _statistic(observed_means, observed_errors)[0], np.nan)
    threshold = drawn[0] * np.float32(1 - TIE)
    reached = (drawn[1:] >= threshold).sum(axis=0)
    return Drawn(
        statistic=statistic.astype(np.float64),
        means=observed_means[:, 0].astype(np.float64),
        variances=observed_errors[:, 0].astype(np.float64),
        p=(reached + 1) / (n_draws + 1),
        null=np.quantile(drawn[1:], (0.025, 0.975), axis=0).astype(np.float64),
        p_max_t=lambda chosen: _step_down(drawn, threshold, chosen),
        n_rows=(~np.isnan(comparison.scaled)).sum(axis=0),
        n_labels=len(comparison.names),
    )


def _step_down(drawn: FloatMatrix, threshold: FloatMatrix, chosen: Sequence[int]) -> FloatArray:
    """Max-T p values of the chosen metrics: the largest against the maximum of all, and so on downwards."""
    order = sorted(chosen, key=lambda i: -float(drawn[0, i]))
    result = dict.fromkeys(chosen, 1.0)
    last = 0.0
    for rank, i in enumerate(order):
        largest = drawn[1:, order[rank:]].max(axis=1)
        last = max(last, (int((largest >= threshold[i]).sum()) + 1) / len(drawn))
        result[i] = last
    return np.array([result[i] for i in chosen])
