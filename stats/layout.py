"""The design of a comparison, reduced to what its mixed models need.

Rows carry a source, a prompt and a stream. Every statistic of the mixed model depends on the rows only
through sums over prompt x source cells and source:stream levels, so n rows shrink to r orthonormal
coordinates (one a cell, plus those that tell streams apart within cells). The reduction does not depend on
the metric: it is made once and shared by all metrics observed on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stats.rows import FloatArray, IntArray


class Undefined(ValueError):  # noqa: N818 - a finding about the data, not a fault
    """These rows do not determine the number asked for; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """V = Z Z' of one random factor in coordinates, in its cheap form: a diagonal or the columns of Z."""

    diagonal: FloatArray | None = None
    """(r,) V where it is diagonal: prompt:source, whose levels are the cells."""
    columns: FloatArray | None = None
    """(r, levels) Z otherwise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """What the fits of all metrics on the same rows share. r coordinates, S sources, K random factors."""

    sources: tuple[str, ...]
    prompts: int
    streams: int
    """Streams per source; 1 where no source has several."""
    factors: tuple[str, ...]
    """Names of the random factors."""
    balanced: bool
    """Every prompt x source x stream cell has the same number of rows."""
    cell: IntArray
    """(n,) prompt x source cell of each row."""
    cell_prompt: IntArray
    cell_source: IntArray
    cell_rows: FloatArray
    level: IntArray
    """(n,) random source:stream level of each row, the number of levels where it has none."""
    levels: int
    share: FloatArray
    """(cells, levels) share of a cell's rows that each level holds."""
    basis: FloatArray
    """(levels, r - cells) turns stream sums within cells into the remaining coordinates."""
    X: FloatArray
    """(r, S) source indicators in coordinates."""
    V: tuple[Factor, ...]
    """One a random factor, in the order of `factors`."""

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.cell)


def arrange(
    source: Sequence[str],
    prompt: Sequence[str],
    stream: Sequence[str],
    *,
    sources: Sequence[str] | None = None,
) -> Layout:
    """Reduce the design of n rows to the coordinates all metrics on these rows share.

    Parameters
    ----------
    source, prompt, stream
        One label a row. A source with several streams gets a random effect for each; one with a single
        stream gets none, because its stream and its mean could not be told apart.
    sources
        Sources that must be present, in this order; by default those found, sorted.

    Raises
    ------
    ValueError
        When the labels' lengths differ, or a row's source is not among `sources`.
    Undefined
        When the rows cannot answer: one source, one prompt, a source without rows, no cell with two rows.

    Examples
    --------
    >>> layout = arrange(list("aabbaabb"), list("11112222"), ["s"] * 8)
    >>> layout.sources, layout.prompts, layout.balanced, layout.factors
    (('a', 'b'), 2, True, ('prompt', 'prompt:source'))
    """
    if not len(source) == len(prompt) == len(stream):
        raise ValueError(
            f"{len(source)} sources, {len(prompt)} prompts and {len(stream)} streams; give one of each a row"
        )
    names = tuple(sorted(set(source)) if sources is None else sources)
    place = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(source) - set(names))
    if unknown:
        raise ValueError(f"rows of {', '.join(unknown)}, but the sources named are {', '.join(names)}")
    s = np.array([place[name] for name in source], dtype=np.int64)
    p = _codes(prompt)
    return arrange_codes(s, p, _codes([f"{a}\0{b}" for a, b in zip(source, stream, strict=True)]), names)


def arrange_codes(source: IntArray, prompt: IntArray, stream: IntArray, names: tuple[str, ...]) -> Layout:
    """`arrange` for labels already coded 0, 1, ...; streams of different sources have different codes.

    Examples
    --------
    >>> source, prompt = np.array([0, 0, 1, 1] * 2), np.array([0] * 4 + [1] * 4)
    >>> layout = arrange_codes(source, prompt, source, ("a", "b"))
    >>> layout.n, layout.prompts, layout.X.shape
    (8, 2, (4, 2))
    """
    _check_sources(source, names)
    keys, cell = np.unique(prompt * len(names) + source, return_inverse=True)
    cell_prompt, cell_source = np.unique(keys // len(names), return_inverse=True)[1], keys % len(names)
    prompts = int(cell_prompt.max()) + 1
    _check_cells(cell_prompt, cell_source, prompts, names)
    rows = np.bincount(cell).astype(np.float64)
    level, levels, streams = _stream_levels(source, stream)
    table = np.zeros((len(rows), levels + 1))
    np.add.at(table, (cell, level), 1.0)
    table = table[:, :levels]
    share = table / rows[:, None]
    gram = np.diag(table.sum(axis=0)) - table.T @ share
    size, vectors = np.linalg.eigh(gram)
    kept = size > 1e-9 * max(1.0, float(size.max(initial=0.0)))
    size, vectors = size[kept], vectors[:, kept]
    if len(source) <= len(rows) + len(size):
        raise Undefined("no cell has two texts, so there is no variation within cells")
    fine = np.unique(cell * (int(stream.max()) + 1) + stream, return_counts=True)[1]
    grid = prompts * len(np.unique(stream))
    even = len(np.unique(fine)) == 1 and len(fine) == grid and _even_streams(source, stream)
    X = np.zeros((len(rows) + len(size), len(names)))
    X[np.arange(len(rows)), cell_source] = np.sqrt(rows)
    return Layout(
        sources=names,
        prompts=prompts,
        streams=streams,
        factors=("prompt", "prompt:source", "source:stream")[: 3 if levels else 2],
        balanced=even,
        cell=cell.astype(np.int64),
        cell_prompt=cell_prompt.astype(np.int64),
        cell_source=cell_source.astype(np.int64),
        cell_rows=rows,
        level=level,
        levels=levels,
        share=share,
        basis=vectors / np.sqrt(size),
        X=X,
        V=_factors(cell_prompt, prompts, rows, share, size, vectors)[: 3 if levels else 2],
    )


def within_cell_sd(y: FloatArray, layout: Layout) -> float | None:
    """Pooled standard deviation of rows around the mean of their prompt x source x stream cell.

    The unit of every effect and margin. Free of the model: only the cells' own scatter enters. None where no
    such cell has two rows.

    Examples
    --------
    >>> layout = arrange(list("aabb" * 2), list("11112222"), ["s"] * 8)
    >>> within_cell_sd(np.array([1.0, 3.0, 5.0, 7.0, 0.0, 2.0, 4.0, 6.0]), layout)
    1.4142135623730951
    """
    fine = np.unique(layout.cell * (layout.levels + 1) + layout.level, return_inverse=True)[1]
    rows = np.bincount(fine)
    spread = y - (np.bincount(fine, y) / rows)[fine]
    return float(np.sqrt(spread @ spread / (len(y) - len(rows)))) if len(y) > len(rows) else None


def _codes(labels: Sequence[str]) -> IntArray:
    return np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _check_sources(source: IntArray, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise Undefined(f"{len(names)} source ({', '.join(names)}); a comparison needs two")
    missing = [name for index, name in enumerate(names) if not (source == index).any()]
    if missing:
        raise Undefined(f"no values from {', '.join(missing)}")


def _check_cells(cell_prompt: IntArray, cell_source: IntArray, prompts: int, names: tuple[str, ...]) -> None:
    if prompts < 2:
        raise Undefined("one prompt; a mean over prompts needs two")
    if len(cell_prompt) == prompts * len(names):
        return
    table = np.zeros((len(cell_prompt), prompts + len(names)))
    table[np.arange(len(cell_prompt)), cell_prompt] = 1.0
    table[np.arange(len(cell_prompt)), prompts + cell_source] = 1.0
    rank = int(np.linalg.matrix_rank(table))
    if rank < prompts + len(names) - 1 or len(cell_prompt) <= rank:
        raise Undefined("too few prompts have values from two sources")


def _stream_levels(source: IntArray, stream: IntArray) -> tuple[IntArray, int, int]:
    """Random level of each row, their number, and the streams a source has (the fewest above one)."""
    first = np.zeros(int(stream.max()) + 1, dtype=np.int64)
    first[stream] = source
    per_source = np.bincount(first[np.unique(stream)], minlength=int(source.max()) + 1)
    random = per_source[source] > 1
    found = np.unique(stream[random])
    level = np.where(random, np.searchsorted(found, stream), len(found)).astype(np.int64)
    return level, len(found), int(per_source[per_source > 1].min()) if len(found) else 1


def _even_streams(source: IntArray, stream: IntArray) -> bool:
    pairs = np.unique(source * (int(stream.max()) + 1) + stream) // (int(stream.max()) + 1)
    return len(np.unique(np.bincount(pairs))) == 1


def _factors(
    cell_prompt: IntArray,
    prompts: int,
    rows: FloatArray,
    share: FloatArray,
    size: FloatArray,
    vectors: FloatArray,
) -> tuple[Factor, Factor, Factor]:
    """Prompt, prompt:source and source:stream in the orthonormal coordinates Q: Z becomes Q'Z."""
    r, cells = len(rows) + len(size), len(rows)
    by_prompt = np.zeros((r, prompts))
    by_prompt[np.arange(cells), cell_prompt] = np.sqrt(rows)
    by_cell = np.concatenate([rows, np.zeros(len(size))])
    by_stream = np.concatenate([share * np.sqrt(rows)[:, None], np.sqrt(size)[:, None] * vectors.T])
    return Factor(columns=by_prompt), Factor(diagonal=by_cell), Factor(columns=by_stream)
