"""Composite ("desmotic") metrics of a state's path: speed, bend, distance from home, valence, intensity.

    velocity   |s_t - s_(t-1)|
    curvature  angle between successive displacements over pi: 0 straight on, 1/2 a right angle, 1 back
    distance   sqrt(mean over k of ((s_tk - m_k) / sd_k)^2), m and sd of the clean steps alone
    valence    V = -(D_z + S_z + U_z + C_z): distance, velocity, entropy, and minus the effect
    intensity  sigmoid(.5 (R_z + kappa_z)): |change of V since the probe before|, curvature

Each _z subtracts the mean over clean steps and divides by their SD. The angle has the same scale in any
dimension and, unlike 1 - cos, tells small bends apart. The distance is Euclidean in SD units: the covariance
of 32 dimensions from some hundred strongly correlated steps is near singular, and Mahalanobis distance would
mostly measure its smallest, worst known directions. A dimension that clean steps leave fixed is left out.

The effect is known at probed steps, so C, V, R and intensity exist there alone; nothing is carried forward.
These sums are descriptions with weights of 1 that nobody fitted: read the components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.multiplicity import correct_rows
from stats.over_seeds import mean_over_seeds
from stats.regime_series import RunSeries
from stats.rows import FloatArray, TestRow

BoolArray = npt.NDArray[np.bool_]

METRICS = (
    "velocity", "curvature", "distance", "valence", "intensity",
    "D_z", "S_z", "U_z", "C_z", "R", "R_z", "kappa_z",
)  # fmt: skip
"""That enter rows: the sums with each component."""
FLAT = 1e-12
"""SDs below this share of the largest value count as none (rounding)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Composite:
    """Metrics by step, (steps,) each, NaN where one is not defined."""

    velocity: FloatArray
    """In units of the state; from step 1."""
    curvature: FloatArray
    """In [0, 1]; from step 2, and where the state moved twice."""
    distance: FloatArray
    """In SDs of clean steps, root mean square over dimensions; 1 is a usual clean step."""
    D_z: FloatArray
    S_z: FloatArray
    U_z: FloatArray
    C_z: FloatArray
    """z of minus the effect; probed steps."""
    valence: FloatArray
    """Probed steps."""
    R: FloatArray
    """|V - V at the probe before|; from the second defined probe."""
    R_z: FloatArray
    kappa_z: FloatArray
    intensity: FloatArray
    """In (0, 1); probed steps from the second."""


def curvature(trajectory: FloatArray) -> FloatArray:
    """Angle between successive displacements over pi, by 2 atan2(|u - v|, |u + v|) of their directions.

    Parameters
    ----------
    trajectory : (steps, d) float array

    Returns
    -------
    (steps,) float array
        At t the angle between s_(t-1) - s_(t-2) and s_t - s_(t-1); NaN before step 2 and where one is 0.

    References
    ----------
    Kahan (2006), How Futile are Mindless Assessments of Roundoff, section 12. Witness: R's `acos`.

    Examples
    --------
    >>> curvature(np.array([[0.0, 0], [1, 0], [2, 0], [2, 3], [2, 0], [2, 0]])).tolist()
    [nan, nan, 0.0, 0.5, 1.0, nan]
    """
    s = _path(trajectory)
    found = np.full(len(s), np.nan)
    step = np.diff(s, axis=0)
    length = np.sqrt((step**2).sum(axis=1))
    both = np.flatnonzero((length[1:] > 0.0) & (length[:-1] > 0.0)) + 1
    u, v = step[both - 1] / length[both - 1, None], step[both] / length[both, None]
    apart, along = np.sqrt(((u - v) ** 2).sum(axis=1)), np.sqrt(((u + v) ** 2).sum(axis=1))
    found[both + 1] = 2.0 * np.arctan2(apart, along) / math.pi
    return found


def attractor_distance(trajectory: FloatArray, clean: BoolArray) -> FloatArray:
    """sqrt(mean over k of ((s_tk - m_k) / sd_k)^2) with mean and SD (n - 1) of the clean steps.

    Parameters
    ----------
    trajectory : (steps, d) float array
    clean : (steps,) bool array
        Steps that the attractor is fitted on; two or more.

    Returns
    -------
    (steps,) float array
        NaN throughout where no dimension varies over clean steps: there is no scale to measure in.

    Raises
    ------
    ValueError
        Fewer than two clean steps.

    References
    ----------
    Witness: R's `scale` (`tests/reference/composite.R`).

    Examples
    --------
    >>> path = np.array([[0.0, 5], [2, 5], [1, 5], [4, 5]])
    >>> attractor_distance(path, np.array([True, True, True, False])).tolist()  # the second never moves
    [1.0, 1.0, 0.0, 3.0]
    """
    s, home = _path(trajectory), np.asarray(clean, dtype=np.bool_)
    if home.shape != (len(s),) or int(home.sum()) < 2:
        raise ValueError(
            f"{int(home.sum())} clean steps in flags of shape {home.shape} for {len(s)} steps; the attractor "
            "needs one flag a step and two clean ones"
        )
    mean, sd = s[home].mean(axis=0), s[home].std(axis=0, ddof=1)
    moves = sd > FLAT * np.abs(s[home]).max(axis=0)
    if not moves.any():
        return np.full(len(s), np.nan)
    z = (s[:, moves] - mean[moves]) / sd[moves]
    return np.asarray(np.sqrt((z**2).mean(axis=1)), dtype=np.float64)


def composite(
    trajectory: FloatArray, *, entropy: FloatArray, effect: FloatArray, clean: BoolArray
) -> Composite:
    """All metrics of one run, as in the head of this file.

    Parameters
    ----------
    trajectory : (steps, d) float array
        State that each step used.
    entropy : (steps,) float array
        In nats.
    effect : (steps,) float array
        Of the state on the predictions; NaN on steps that were not probed.
    clean : (steps,) bool array
        Steps that the attractor and every z are fitted on; give False to a beginning to be left out too.

    Returns
    -------
    Composite
        A component whose clean values do not vary is NaN throughout, and with it what it enters.

    Raises
    ------
    ValueError
        Lengths that differ, values of the trajectory that are not finite, fewer than two clean steps.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> path = rng.normal(size=(300, 4))
    >>> path[200:220] += 4.0
    >>> effect = np.where(np.arange(300) % 5 == 0, rng.normal(1.0, 0.1, 300), np.nan)
    >>> clean = ~((np.arange(300) >= 200) & (np.arange(300) < 220))
    >>> found = composite(path, entropy=rng.normal(size=300), effect=effect, clean=clean)
    >>> bool(found.D_z[200:220].mean() > 8), bool(found.valence[[200, 205, 210, 215]].mean() < -6)
    (True, True)
    >>> int(np.isfinite(found.valence).sum())  # 60 probes, at the first of which nothing has moved
    59
    """
    s, home = _path(trajectory), np.asarray(clean, dtype=np.bool_)
    u, c = np.asarray(entropy, dtype=np.float64), -np.asarray(effect, dtype=np.float64)
    if not len(s) == len(home) == len(u) == len(c):
        raise ValueError(
            f"{len(s)} states, {len(u)} entropies, {len(c)} effects, {len(home)} clean flags; pass one a step"
        )
    velocity = np.concatenate([[np.nan], np.sqrt((np.diff(s, axis=0) ** 2).sum(axis=1))])
    bend, distance = curvature(s), attractor_distance(s, home)
    D_z, S_z, U_z, C_z = (clean_z(values, home) for values in (distance, velocity, u, c))
    valence = -(D_z + S_z + U_z + C_z)
    R = np.full(len(s), np.nan)
    probes = np.flatnonzero(np.isfinite(valence))
    R[probes[1:]] = np.abs(np.diff(valence[probes]))
    R_z, kappa_z = clean_z(R, home), clean_z(bend, home)
    return Composite(
        velocity=velocity,
        curvature=bend,
        distance=distance,
        D_z=D_z,
        S_z=S_z,
        U_z=U_z,
        C_z=C_z,
        valence=valence,
        R=R,
        R_z=R_z,
        kappa_z=kappa_z,
        intensity=_sigmoid(0.5 * (R_z + kappa_z)),
    )


def clean_z(values: FloatArray, clean: BoolArray) -> FloatArray:
    """(v - mean) / SD (n - 1) of the clean, defined steps; NaN throughout where these do not vary.

    >>> clean_z(np.array([1.0, 3.0, np.nan, 6.0]), np.array([True, True, True, False])).round(3).tolist()
    [-0.707, 0.707, nan, 2.828]
    """
    v = np.asarray(values, dtype=np.float64)
    known = v[np.asarray(clean, dtype=np.bool_) & np.isfinite(v)]
    if len(known) < 2 or float(known.std(ddof=1)) <= FLAT * float(np.abs(known).max()):
        return np.full(len(v), np.nan)
    return np.asarray((v - known.mean()) / known.std(ddof=1), dtype=np.float64)


def composite_rows(
    runs: Sequence[RunSeries],
    trajectories: Mapping[int, FloatArray],
    *,
    first: int | None = None,
    reference: int = 80,
    effect: str = "effect_kl_nats",
    entropy: str = "entropy_nats",
    alpha: float = 0.05,
) -> list[TestRow]:
    """Inside a window minus the clean steps right before it, by regime and metric.

    The steps before, and not all clean ones, since a state moves with the step number: their mean differs
    from a window's by the clock alone. Attractor and z are of all clean steps.

    Parameters
    ----------
    runs : sequence of RunSeries
    trajectories : mapping of int to (steps, d) float array
        Seed -> its states.
    first : int or None
        Steps before this one enter neither the attractor nor a reference, since the state starts from 0;
        None: the first tenth of the run.
    reference : int
        Clean steps before a window, at most; they must hold a defined value of the metric.

    Returns
    -------
    list of TestRow
        Family `composite`, hypothesis `inside_minus_clean`, role `secondary`, contrast = regime, metric of
        METRICS: mean over seeds of the mean over the seed's occurrences, t interval, p_adjusted by Holm over
        all of them. Rows with the reason alone where no seed has it.

    Raises
    ------
    ValueError
        As `composite`.

    References
    ----------
    Witness: R's `t.test` (`tests/reference/composite.R`).

    Examples
    --------
    >>> from stats.regime_series import Occurrence
    >>> def run(seed):
    ...     rng = np.random.default_rng(seed)
    ...     path = rng.normal(size=(300, 4))
    ...     path[200:220] += 4.0
    ...     effect = np.where(np.arange(300) % 5 == 0, rng.normal(1.0, 0.1, 300), np.nan)
    ...     window = Occurrence(regime="fog", number=0, start=200, end=220, twin={})
    ...     channels = {"entropy_nats": rng.normal(size=300), "effect_kl_nats": effect}
    ...     return RunSeries(seed=seed, channels=channels, occurrences=(window,)), path
    >>> made = [run(seed) for seed in range(3)]
    >>> rows = composite_rows([one for one, _ in made], {one.seed: path for one, path in made})
    >>> [row.metric for row in rows if row.p_adjusted is not None and row.p_adjusted < 0.05]
    ['distance', 'D_z']
    """
    begin = {run.seed: run.steps // 10 if first is None else first for run in runs}
    found = {run.seed: _of_run(run, trajectories, begin[run.seed], effect, entropy) for run in runs}
    regimes = dict.fromkeys(one.regime for run in runs for one in run.occurrences)
    rows = []
    for regime in regimes:
        for metric in METRICS:
            each = []
            for run in runs:
                whole = found[run.seed]
                values = None if whole is None else getattr(whole, metric)
                each.append(_of_occurrences(run, regime, values, begin[run.seed], reference))
            windows = sum(n for _, n in each)
            row = TestRow(family="composite", hypothesis="inside_minus_clean", metric=metric, contrast=regime,
                          method=f"t over seeds of means over {windows} occurrences", role="secondary",
                          alpha=alpha, n=0,
                          reason="no window with defined values in it and before it")  # fmt: skip
            rows.append(mean_over_seeds([value for value, _ in each], row) if windows else row)
    return correct_rows(rows).rows


def _of_run(
    run: RunSeries, trajectories: Mapping[int, FloatArray], first: int, effect: str, entropy: str
) -> Composite | None:
    clean = run.clean & (np.arange(run.steps) >= first)
    if run.seed not in trajectories or int(clean.sum()) < 2:
        return None
    none = np.full(run.steps, np.nan)
    return composite(
        trajectories[run.seed],
        entropy=run.channels.get(entropy, none),
        effect=run.channels.get(effect, none),
        clean=clean,
    )


def _of_occurrences(
    run: RunSeries, regime: str, values: FloatArray | None, first: int, reference: int
) -> tuple[float, int]:
    """Mean over the regime's windows of inside minus before, and how many have both."""
    differences = []
    for one in run.occurrences if values is not None else ():
        if one.regime != regime or values is None:
            continue
        before = run.before(one, reference)
        inside, outside = values[one.start : one.end], values[before[before >= first]]
        inside, outside = inside[np.isfinite(inside)], outside[np.isfinite(outside)]
        if len(inside) and len(outside):
            differences.append(float(inside.mean() - outside.mean()))
    return (float(np.mean(differences)), len(differences)) if differences else (math.nan, 0)


def _path(trajectory: FloatArray) -> FloatArray:
    s = np.asarray(trajectory, dtype=np.float64)
    if s.ndim != 2 or not s.size or not np.isfinite(s).all():
        raise ValueError(f"trajectory of shape {s.shape}; pass finite states, (steps, d)")
    return s


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)
