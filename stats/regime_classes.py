"""Which regime is it, or none? All regimes and clean steps told apart at once, one window of each left out.

Clean steps are those of the twins. Against chance stand labellings in which windows are exchanged with their
twins: under no effect of any regime they are exchangeable, in training and test alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stats.discriminant import SHRINKAGE, from_moments
from stats.held_out_windows import BoolArray, combined
from stats.paired_seeds import paired_t
from stats.rows import FloatArray, TestRow
from stats.window_features import SeedWindows, WindowPair

FAMILY = "separability"
CLEAN = "clean"
SHOWN = "common_state"
"""Channel set whose confusions are rows."""
METHOD = "held-out windows, linear discriminant of all classes"


def held_out_confusion(
    pairs: Sequence[WindowPair],
    columns: Sequence[int],
    regimes: Sequence[str],
    exchanged: BoolArray,
    *,
    shrinkage: float = SHRINKAGE,
) -> FloatArray:
    """Held-out steps by true and predicted class, under each labelling.

    For each number k, a discriminant of the regimes and clean steps (equal priors) is trained on the windows
    of other numbers and their twins, and predicts the steps of the windows numbered k and of their twins.

    Parameters
    ----------
    pairs : P pairs, each of one of `regimes`
    columns : features used
    exchanged : (B, P) bool array
        Windows that are exchanged with their twins.

    Returns
    -------
    (B, C, C) array
        Counts; classes are `regimes` in order, then clean.

    Examples
    --------
    >>> def pair(regime, number, level):
    ...     window = np.array([[level, 0.0], [level, 1.0]])
    ...     return WindowPair(regime=regime, number=number, window=window, twin=window - [level, 0.0],
    ...                       steps=np.arange(2.0), before=np.arange(5.0))
    >>> pairs = [pair("a", 0, 5.0), pair("b", 0, 9.0), pair("a", 1, 6.0), pair("b", 1, 8.0)]
    >>> held_out_confusion(pairs, [0, 1], ["a", "b"], np.zeros((1, 4), dtype=bool))[0].astype(int).tolist()
    [[4, 0, 0], [0, 4, 0], [0, 0, 8]]
    """
    B, C, F = len(exchanged), len(regimes) + 1, len(columns)
    sides = [(pair.twin[:, columns], pair.window[:, columns]) for pair in pairs]
    own = np.array([list(regimes).index(pair.regime) for pair in pairs])
    sums = np.array([[x.sum(axis=0) for x in side] for side in sides])  # (P, 2, F)
    squares = np.array([sum(x.T @ x for x in side) for side in sides])  # (P, F, F)
    sizes = np.array([float(len(pair.window)) for pair in pairs])
    version = exchanged.astype(np.int64)
    members = (own[:, None] == np.arange(C - 1)).astype(np.float64)  # (P, C - 1)
    number = np.array([pair.number for pair in pairs])
    confusion = np.zeros((B, C, C))
    for k in np.unique(number):
        train = np.flatnonzero(number != k)
        window, twin = sums[train, 1 - version[:, train]], sums[train, version[:, train]]  # (B, P', F)
        counts = np.append(sizes[train] @ members[train], sizes[train].sum())  # (C,)
        totals = np.empty((B, C, F))
        totals[:, :-1] = np.einsum("bpf,pc->bcf", window, members[train])
        totals[:, -1] = twin.sum(axis=1)
        middle = totals.sum(axis=1)[0] / counts.sum()  # the same under every labelling
        scatter = squares[train].sum(axis=0) - counts.sum() * np.outer(middle, middle)
        found = from_moments(
            totals / counts[:, None],
            np.broadcast_to(counts, (B, C)),
            np.broadcast_to(scatter, (B, F, F)),
            shrinkage=shrinkage,
        )
        for place in np.flatnonzero(number == k):
            for side, x in enumerate(sides[place]):  # 0 twin, 1 window
                predicted = found.scores(x).argmax(axis=-1)  # (B, n)
                acts = version[:, place] != side  # this half bears the regime's label
                true = np.where(acts, own[place], C - 1)
                shares = (predicted[:, :, None] == np.arange(C)).sum(axis=1)  # (B, C)
                confusion[np.arange(B), true] += shares
    return confusion


def balanced_accuracy(confusion: FloatArray) -> FloatArray:
    """Mean over classes of the share of a class's steps that are found: (..., C, C) counts -> (...).

    Examples
    --------
    >>> float(balanced_accuracy(np.array([[8.0, 2.0], [4.0, 4.0]])))
    0.65
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1)
    found: FloatArray = np.asarray(right.mean(axis=-1), dtype=np.float64)
    return found


def class_rows(
    windows: Sequence[SeedWindows],
    sets: Mapping[str, Sequence[str]],
    *,
    rng: np.random.Generator,
    alpha: float,
    permutations: int,
) -> list[TestRow]:
    """Rows `accuracy` of each channel set and `confusion` of SHOWN, with all of `windows`' regimes.

    A regime enters when every seed with windows has two usable ones of it. `accuracy`: balanced accuracy,
    t interval over seeds cut at 0 and 1, p one-sided against `permutations` labellings a seed; chance is
    1 / classes.
    `confusion`: contrast "TRUE:PREDICTED", mean over seeds of the share of the true class's steps.
    """
    used = [of_seed for of_seed in windows if of_seed.pairs]
    regimes = [
        name
        for name in sorted({pair.regime for of_seed in used for pair in of_seed.pairs})
        if all(len({pair.number for pair in of_seed.of(name)}) >= 2 for of_seed in used)
    ]
    bare = TestRow(
        family=FAMILY,
        hypothesis="accuracy",
        metric="share",
        method=METHOD,
        role="diagnostic",
        alpha=alpha,
        reason="no regime with two usable windows in every seed",
    )
    pairs = [[pair for pair in of_seed.pairs if pair.regime in regimes] for of_seed in used]
    drawn = [_labellings(len(of_seed), rng, permutations) for of_seed in pairs]
    rows = []
    for name, channels in sets.items():
        columns = [of_seed.columns(channels) for of_seed in used]
        row = replace(bare, contrast=name)
        shown = replace(row, hypothesis="confusion", contrast="*")
        why = bare.reason if not regimes else _lacking(name, sets, used)
        if why is not None:
            rows += [replace(row, reason=why)] + [replace(shown, reason=why)] * (name == SHOWN)
            continue
        tables = [
            held_out_confusion(of_seed, at, regimes, exchanged)
            for of_seed, at, exchanged in zip(pairs, columns, drawn, strict=True)
        ]
        rows.append(_accuracy(row, tables, len(regimes), rng))
        if name == SHOWN:
            rows += _confusions(shown, tables, regimes)
    return rows


def _labellings(windows: int, rng: np.random.Generator, permutations: int) -> BoolArray:
    drawn = rng.random((permutations + 1, windows)) < 0.5
    drawn[0] = False
    return drawn


def _lacking(name: str, sets: Mapping[str, Sequence[str]], used: Sequence[SeedWindows]) -> str | None:
    """Why a channel set says nothing: every set it is made of needs a feature in every seed."""
    for part, channels in sets.items():
        if set(channels) <= set(sets[name]):
            bad = sum(not of_seed.columns(channels) for of_seed in used)
            if bad:
                return f"no {part} channel in {bad} of {len(used)} seeds"
    return None


def _accuracy(bare: TestRow, tables: Sequence[FloatArray], regimes: int, rng: np.random.Generator) -> TestRow:
    shares = [balanced_accuracy(table) for table in tables]
    values = np.array([share[0] for share in shares])
    t = paired_t(values, np.zeros(len(values)), alpha=bare.alpha or 0.05)
    null = combined(shares, rng=rng)
    return replace(
        bare,
        method=f"{METHOD}; balanced over {regimes + 1}; p: {len(null.values)} labellings, windows exchanged",
        estimate=t.estimate,
        low=None if t.low is None else max(0.0, t.low),
        high=None if t.high is None else min(1.0, t.high),
        p=null.p,
        n=len(values),
        reason=t.reason,
    )


def _confusions(bare: TestRow, tables: Sequence[FloatArray], regimes: Sequence[str]) -> list[TestRow]:
    classes = [*regimes, CLEAN]
    shares = np.array([table[0] / table[0].sum(axis=-1, keepdims=True) for table in tables])  # (S, C, C)
    return [
        replace(
            bare,
            contrast=f"{true}:{predicted}",
            estimate=float(shares[:, row, column].mean()),
            n=len(tables),
            reason=None,
        )
        for row, true in enumerate(classes)
        for column, predicted in enumerate(classes)
    ]
