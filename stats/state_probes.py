"""What a state's path holds: what a linear reader finds in it, its dimensions, whether it is a clock.

The reader and its null are in `stats.linear_probe`; here are the shape of the path and all rows about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from stats.linear_probe import BLOCKS, FLAT, TREND, linear_probe, own_seed_p, readings_across
from stats.multiplicity import correct_rows
from stats.over_seeds import mean_over_seeds
from stats.rows import FloatArray, TestRow


def effective_rank(trajectory: FloatArray) -> float:
    """exp(-sum p_i ln p_i), p_i the singular values of the centred trajectory over their sum; from 1 to d.

    Parameters
    ----------
    trajectory : (steps, d) float array

    Raises
    ------
    ValueError
        Fewer than two steps, values that are not finite, a state that never moves.

    References
    ----------
    Roy & Vetterli (2007), EUSIPCO, 606. Witness: R's `prcomp` (`tests/reference/state_probes.R`).

    Examples
    --------
    >>> line = np.outer(np.arange(4.0), [1.0, 2.0])
    >>> square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    >>> round(effective_rank(line), 6), round(effective_rank(square), 6)
    (1.0, 2.0)
    """
    values = np.linalg.svd(_centred(trajectory), compute_uv=False)
    share = values[values > FLAT * values[0]] / values[values > FLAT * values[0]].sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def pc1_step(trajectory: FloatArray) -> float:
    """|Spearman's rho| of the first principal component's scores with the step: 1 where the state is a clock.

    Ranks, since a clock may run unevenly; the sign of a component means nothing.

    Parameters
    ----------
    trajectory : (steps, d) float array

    Raises
    ------
    ValueError
        As `effective_rank`.

    References
    ----------
    Witness: R's `prcomp` and `cor(method = "spearman")` (`tests/reference/state_probes.R`).

    Examples
    --------
    >>> t = np.arange(50.0)
    >>> round(pc1_step(np.column_stack([t**3, np.sin(t)])), 6)
    1.0
    """
    s = _centred(trajectory)
    scores = s @ np.linalg.svd(s, full_matrices=False)[2][0]
    rho = np.corrcoef(scipy.stats.rankdata(scores), np.arange(len(s)))[0, 1]
    return abs(float(rho))


def _centred(trajectory: FloatArray) -> FloatArray:
    s = np.asarray(trajectory, dtype=np.float64)
    if s.ndim != 2 or len(s) < 2 or not s.size or not np.isfinite(s).all():
        raise ValueError(f"trajectory of shape {s.shape}; pass finite states, two steps or more by d")
    centred = s - s.mean(axis=0)
    if float(np.abs(centred).max()) <= FLAT * float(np.abs(s).max()):
        raise ValueError("a state that never moves has no components")
    return np.asarray(centred, dtype=np.float64)


def probe_rows(
    trajectories: Mapping[int, FloatArray],
    targets: Mapping[str, Mapping[int, FloatArray]],
    *,
    rng: np.random.Generator,
    first: int | None = None,
    trend: int = TREND,
    gap: int = 20,
    shifts: int = 199,
    alpha: float = 0.05,
) -> list[TestRow]:
    """Linear readings, effective rank and PC1 of every seed as rows of the family `probe`.

    Parameters
    ----------
    trajectories : mapping of int to (steps, d) float array
        Seed -> its states.
    targets : mapping of str to mapping of int to (steps,) float array
        What is read -> seed -> its values, NaN on steps without one. `step` is read without these and
        without taking out a trend.
    first : int or None
        Steps before this one are left out throughout, since the state starts from 0; None: the first tenth.
    gap : int
        In steps, as `linear_probe`.

    Returns
    -------
    list of TestRow
        Contrast `state`. `linear_probe` (secondary; metric: what is read, `step` last): mean R2 over seeds,
        t interval, p_adjusted by Holm over what is read; p is the larger of two, the mean R2 against the mean
        over seeds of shifted targets, and (not for `step`, which seeds share) against targets of other seeds,
        1 / S! at the least. `shuffled` and `other_seeds` (diagnostic): mean of these nulls, the first with
        its quantiles alpha / 2. `effective_rank` and `pc1_step` (diagnostic; metric "*"): t interval, no p.
        A reason where no seed allows it.

    References
    ----------
    As `linear_probe`, `effective_rank`, `pc1_step`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> paths = {seed: np.cumsum(rng.normal(size=(300, 2)), axis=0) for seed in range(3)}
    >>> loss = {seed: path[:, 0] + rng.normal(size=300) for seed, path in paths.items()}
    >>> rows = probe_rows(paths, {"loss_nats": loss}, rng=rng)
    >>> [(row.hypothesis, row.metric) for row in rows][:3]
    [('linear_probe', 'loss_nats'), ('shuffled', 'loss_nats'), ('other_seeds', 'loss_nats')]
    >>> rows[0].p, round(rows[0].estimate, 1)  # three seeds: 1 / 3! is the least
    (0.16666666666666666, 0.9)
    """
    begin = {seed: len(path) // 10 if first is None else first for seed, path in trajectories.items()}
    late = {seed: path[begin[seed] :] for seed, path in trajectories.items()}
    moving = {seed: path for seed, path in late.items() if _moves(path)}
    steps = {seed: np.arange(float(len(path))) for seed, path in moving.items()}
    asked = {
        name: {seed: np.asarray(by[seed], dtype=np.float64)[begin[seed] :] for seed in moving if seed in by}
        for name, by in targets.items()
    }
    read: list[TestRow] = []
    nulls: dict[str, list[TestRow]] = {}
    for name, by_seed in {**asked, "step": steps}.items():
        degree = 0 if name == "step" else trend
        bare = TestRow(family="probe", hypothesis="linear_probe", metric=name, contrast="state",
                       method=f"ridge on {BLOCKS} held-out blocks, {_words(degree)}, t over seeds",
                       role="secondary", alpha=alpha, n=0,
                       reason="no seed with enough steps of a state and a target that vary")  # fmt: skip
        usable = [_usable(moving[seed], by_seed[seed], degree, gap) for seed in moving if seed in by_seed]
        one, *nulls[name] = _probe_rows([pair for pair in usable if pair], bare, degree, shifts, rng)
        read.append(one)
    rows = [row for one in correct_rows(read).rows for row in (one, *nulls[one.metric])]
    return [*rows, *_shape_rows(list(moving.values()), alpha)]


def _words(degree: int) -> str:
    return f"trend of degree {degree} taken out" if degree else "trend left in"


def _moves(path: FloatArray) -> bool:
    s = np.asarray(path, dtype=np.float64)
    if s.ndim != 2 or not np.isfinite(s).all():
        raise ValueError(f"trajectory of shape {s.shape}; pass finite states, (steps, d)")
    return len(s) > 1 and float(np.ptp(s, axis=0).max()) > FLAT * float(np.abs(s).max())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """State and target of one seed at the steps that have a target."""

    state: FloatArray
    target: FloatArray
    steps: tuple[int, ...]
    gap: int
    """In these steps: a target known at every tenth needs a tenth of the gap."""


def _usable(path: FloatArray, target: FloatArray, trend: int, gap: int) -> _Pair | None:
    """None where the target does not vary beyond its trend or its steps are too few."""
    if target.shape != (len(path),):
        raise ValueError(
            f"target of shape {target.shape} for {len(path)} states; pass one value a step, NaN where none is"
        )
    known = np.flatnonzero(np.isfinite(target))
    y = target[known]
    held = math.ceil(gap * len(y) / len(path))
    if len(y) < 2 * (BLOCKS + held + trend + 3):
        return None
    rest = y - np.polynomial.Polynomial.fit(known, y, trend)(known)
    if float(rest.std()) <= FLAT * float(np.abs(y).max()):
        return None
    return _Pair(state=path[known], target=y, steps=tuple(known.tolist()), gap=held)


def _probe_rows(
    pairs: Sequence[_Pair], bare: TestRow, trend: int, shifts: int, rng: np.random.Generator
) -> list[TestRow]:
    """The `linear_probe` row and those of its nulls."""
    if not pairs:
        return [bare]
    found = [
        linear_probe(one.state, one.target, rng=rng, trend=trend, gap=one.gap, shifts=shifts) for one in pairs
    ]
    row = mean_over_seeds([one.r2 for one in found], bare, tested=False)
    null, own = np.mean([one.null for one in found], axis=0), float(np.mean([one.r2 for one in found]))
    p = (int((null >= own - 1e-12).sum()) + 1.0) / (shifts + 1.0)
    alpha = bare.alpha or 0.05
    low, high = np.quantile(null, [alpha / 2.0, 1.0 - alpha / 2.0])
    told = replace(bare, role="diagnostic", n=len(pairs), estimate=float(null.mean()), reason=None)
    rows = [replace(told, hypothesis="shuffled", method=f"{shifts} mirrored shifts of the target",
                    low=float(low), high=float(high))]  # fmt: skip
    if bare.metric != "step" and len(pairs) > 1 and len({one.steps for one in pairs}) == 1:
        across = readings_across(
            [one.state for one in pairs], [one.target for one in pairs], trend=trend, gap=pairs[0].gap
        )
        between = float((across.sum() - across.trace()) / (across.size - len(across)))
        by_seed = own_seed_p(across, rng=rng)
        p = max(p, by_seed)
        rows.append(replace(told, hypothesis="other_seeds", method="targets permuted over seeds",
                            estimate=between, p=by_seed))  # fmt: skip
    return [replace(row, p=p), *rows]


def _shape_rows(paths: Sequence[FloatArray], alpha: float) -> list[TestRow]:
    rows = []
    for name, measure in (("effective_rank", effective_rank), ("pc1_step", pc1_step)):
        bare = TestRow(family="probe", hypothesis=name, contrast="state", method="t over seeds",
                       role="diagnostic", alpha=alpha, n=0,
                       reason="no seed with a state that moves")  # fmt: skip
        rows.append(mean_over_seeds([measure(path) for path in paths], bare, tested=False) if paths else bare)
    return rows


def sensitivity_rows(by_seed: Mapping[int, Mapping[str, float]], *, alpha: float = 0.05) -> list[TestRow]:
    """Mean over seeds of the state's sensitivity to each input of its update, with t intervals.

    Parameters
    ----------
    by_seed : mapping of int to mapping of str to float
        Seed -> feature -> mean |d s_new / d f| times SD(f), in units of the state; NaN where undefined.

    Returns
    -------
    list of TestRow
        Family `sensitivity`, hypothesis `input`, role `secondary`, metric = feature. No p: the quantity
        cannot be below 0.

    References
    ----------
    Witness: as `stats.over_seeds.mean_over_seeds`.

    Examples
    --------
    >>> rows = sensitivity_rows({0: {"loss": 0.2, "step_frac": 0.5}, 1: {"loss": 0.4, "step_frac": 0.5}})
    >>> [(row.metric, round(row.estimate, 2), row.n, row.reason) for row in rows]
    [('loss', 0.3, 2, None), ('step_frac', 0.5, 2, 'the values of 2 seeds do not vary')]
    """
    features = dict.fromkeys(name for found in by_seed.values() for name in found)
    rows = []
    for name in features:
        bare = TestRow(family="sensitivity", hypothesis="input", metric=name, method="t over seeds",
                       role="secondary", alpha=alpha, reason="undefined")  # fmt: skip
        values = [found.get(name, math.nan) for found in by_seed.values()]
        rows.append(mean_over_seeds(values, bare, tested=False))
    return rows


def dimension_rows(
    by_seed: Mapping[int, Sequence[float] | FloatArray], *, alpha: float = 0.05
) -> list[TestRow]:
    """Mean over seeds of the k-th largest |H(+e_k) - H(-e_k)| of a seed: how uneven dimensions are.

    A dimension's number means nothing across seeds, which share no basis, so each seed ranks its own. The
    largest of d noisy numbers is large by itself: compare the ranks, and the frozen test's rotations.

    Parameters
    ----------
    by_seed : mapping of int to (d,) floats
        Seed -> its differences in nats; NaN where undefined.

    Returns
    -------
    list of TestRow
        Family `dimension`, hypothesis `ranked`, role `secondary`, metric "rank K" from 1, the largest: t
        interval in nats. No p: the quantity cannot be below 0.

    References
    ----------
    Witness: as `stats.over_seeds.mean_over_seeds`.

    Examples
    --------
    >>> rows = dimension_rows({0: [0.30, 0.01], 1: [-0.02, -0.32], 2: [0.00, 0.31]})
    >>> [(row.metric, round(row.estimate, 2)) for row in rows]
    [('rank 1', 0.31), ('rank 2', 0.01)]
    """
    lengths = {seed: len(values) for seed, values in by_seed.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise ValueError(f"dimensions by seed: {lengths}; pass one seed or more, of equal dimension")
    table = np.abs([np.asarray(values, dtype=np.float64) for values in by_seed.values()])
    ranked = -np.sort(-table, axis=1)  # largest first, NaN last
    rows = []
    for k in range(ranked.shape[1]):
        bare = TestRow(family="dimension", hypothesis="ranked", metric=f"rank {k + 1}",
                       method="each seed's dimensions by |H(+) - H(-)|, t over seeds", role="secondary",
                       alpha=alpha, reason="undefined")  # fmt: skip
        rows.append(mean_over_seeds(ranked[:, k], bare, tested=False))
    return rows
