"""REML fit of the mixed model that decides: source fixed; prompt, prompt:source and source:stream random.

    y = mean of its source + prompt + prompt:source + source:stream + residual

The likelihood depends on the rows only through sums over cells, so `stats.layout` shrinks 4,500 rows to about
100 orthonormal coordinates plus one residual sum of squares. There the covariance is sigma^2 S with
S = I + sum_k gamma_k V_k, where gamma_k = theta_k^2 is a variance over the residual variance: not theta,
whose zero is stationary and would trap the optimiser. Gradient and Hessian of the profiled REML deviance are
exact (`stats.reml`), so Newton's method takes a few steps from moment estimates.

Two fits are offered. The constrained one (gamma >= 0) is lme4's. The unconstrained one lets a variance
estimate fall below zero; in balanced data it *is* the analysis of variance with unpooled mean squares. When a
constrained variance sits at zero the unconstrained fit decides (`deciding_fit`): pooling would trade the 58
degrees of freedom of prompt:source for thousands on the strength of one noisy estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stats.layout import Layout, Undefined
from stats.reml import State, Sums, evaluate, moments, reduce_rows, slopes
from stats.rows import FloatArray

METHOD = "REML mixed model"
METHOD_UNPOOLED = "REML mixed model, unpooled (a variance at zero left free)"
METHOD_POOLED = "REML mixed model, variances held at zero"

_NEWTON_STEPS = 60  # the longest of 2,300 fits that ended took 31; without an optimum they go on for ever
_FLAT = 1e-9  # expected fall of the deviance below which a Newton step is the last, and taken unasked
_LEAST_DF = 0.5  # below it a t interval at an early look's level is longer than 1e6 standard errors


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedFit:
    """A fitted model and all that Satterthwaite's method needs."""

    layout: Layout
    method: str
    means: FloatArray
    """(S,) estimated source means, in the metric's units."""
    covariance: FloatArray
    """(S, S) covariance of `means`."""
    residual: float
    """Residual variance."""
    ratios: FloatArray
    """(K,) variance of each random factor over the residual variance."""
    deviance: float
    """REML criterion, as lme4's `REMLcrit`."""
    gradient: FloatArray
    """(K + 1, S, S) derivative of `covariance` by the residual and the K factor variances."""
    parameter_covariance: FloatArray
    """(K + 1, K + 1) asymptotic covariance of those variances; zero rows where one is held at zero."""

    @property
    def at_zero(self) -> tuple[str, ...]:
        """Random factors whose variance is estimated at or below zero."""
        return tuple(
            name for name, ratio in zip(self.layout.factors, self.ratios, strict=True) if ratio <= 0.0
        )


def fit_mixed(y: FloatArray, layout: Layout) -> MixedFit:
    """Fit by REML with variances at or above zero, as lme4 does.

    Parameters
    ----------
    y
        (n,) finite values, one for each row of the layout.

    Returns
    -------
    MixedFit
        Variances estimated at zero are dropped from Satterthwaite's method, as lmerTest in effect does.

    Raises
    ------
    Undefined
        When there is no variation within cells.

    References
    ----------
    Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), eq. 41, for the profiled REML deviance;
    Kuznetsova, Brockhoff & Christensen (2017), J. Stat. Softw. 82(13), for the variance parameters'
    covariance. Witnesses: lme4 and lmerTest 3.1.3 (`tests/reference/mixed_lmertest.R`).

    Examples
    --------
    Two sources, balanced: the standard error is that of the paired differences of prompt means,
    here 2, 1, 1 and -1.

    >>> from stats.layout import arrange
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> fit = fit_mixed(y, layout)
    >>> [round(float(g), 4) for g in fit.ratios]
    [4.0, 1.0833]
    >>> C = fit.covariance
    >>> paired = np.std([2, 1, 1, -1], ddof=1) / 2
    >>> round(float(np.sqrt(C[0, 0] + C[1, 1] - 2 * C[0, 1])), 6), round(float(paired), 6)
    (0.629153, 0.629153)
    """
    sums = reduce_rows(y, layout)
    ratios = _descend(_start(sums, layout), sums, layout, bounded=True)
    if ratios is None:
        raise Undefined("the REML fit did not converge")
    return _conclude(ratios, sums, layout, METHOD_POOLED if (ratios == 0.0).any() else METHOD, pooled=True)


def deciding_fit(y: FloatArray, layout: Layout) -> MixedFit:
    """The fit whose tests decide: the constrained one, or the unpooled one when a variance sits at zero.

    In balanced data the unpooled fit gives F = MS_source / MS_prompt:source on (k-1, (k-1)(P-1)) exactly, and
    with streams F' = MS_source / (MS_prompt:source + MS_stream - MS_residual) with Satterthwaite's degrees
    of freedom. Where it does not exist (that sum at or below zero: 0.2 % of data sets with 5 streams and
    neither variance) or rests on less than one degree of freedom, the constrained fit stands and says so.

    Raises
    ------
    Undefined
        Also when a contrast's error rests on less than half a degree of freedom.

    Examples
    --------
    Prompts that agree better than their texts would have them: prompt:source is held at zero, or left free.

    >>> from stats.layout import arrange
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 4, 2, 5, 2, 5, 3, 6, 3, 6, 5, 7, 6, 9, 7, 10], dtype=float)
    >>> held, free = fit_mixed(y, layout), deciding_fit(y, layout)
    >>> [(round(float(fit.ratios[1]), 3), round(least_df(fit), 3)) for fit in (held, free)]
    [(0.0, 11.0), (-0.493, 3.0)]
    """
    constrained = fit_mixed(y, layout)
    unpooled = _unpooled(constrained, y, layout) if constrained.at_zero else None
    if unpooled is not None:
        return unpooled
    df = least_df(constrained)
    if df < _LEAST_DF:
        raise Undefined(f"the error of a contrast has {df:.2g} degrees of freedom, too few for an interval")
    return constrained


def _unpooled(constrained: MixedFit, y: FloatArray, layout: Layout) -> MixedFit | None:
    """The unconstrained fit, None where it does not exist or rests on less than one degree of freedom."""
    sums = reduce_rows(y, layout)
    ratios = _descend(constrained.ratios, sums, layout, bounded=False)
    if ratios is None:
        return None
    try:
        fit = _conclude(ratios, sums, layout, METHOD_UNPOOLED, pooled=False)
        return fit if least_df(fit) > 0.999 else None  # two prompts of two sources have 1
    except Undefined:
        return None


def _start(sums: Sums, layout: Layout) -> FloatArray:
    """Moment estimates of the ratios: exact in balanced data, a good start elsewhere."""
    cells, r = len(layout.cell_rows), len(layout.X)
    residual = sums.rss / (layout.n - r)
    means = sums.z[:cells] / np.sqrt(layout.cell_rows)
    count = np.bincount(layout.cell_prompt)
    source_means = np.bincount(layout.cell_source, means) / np.bincount(layout.cell_source)
    off = means - source_means[layout.cell_source]
    prompt_means = np.bincount(layout.cell_prompt, off) / count
    left = off - prompt_means[layout.cell_prompt]
    noise = residual * float(np.mean(1.0 / layout.cell_rows))
    interaction = float(left @ left) / max(1, cells - layout.prompts - len(layout.sources) + 1)
    between = float(np.var(prompt_means, ddof=1)) - interaction * float(np.mean(1.0 / count))
    guess = [between / residual, (interaction - noise) / residual]
    if layout.levels:
        z2, mass = sums.z[cells:], float(np.sum(1.0 / np.sum(layout.basis**2, axis=0)))
        guess.append((float(z2 @ z2) / residual - len(z2)) / mass if mass else 0.0)  # one stream a cell
    least = 1e-3 / float(layout.cell_rows.mean())
    return np.array([max(least, float(value)) for value in guess[: len(layout.factors)]])


def satterthwaite_df(fit: MixedFit, weights: FloatArray) -> float:
    """Degrees of freedom of the variance of `weights @ means`: 2 v^2 / (g' A g).

    g is the gradient of that variance by the variance parameters, A their asymptotic covariance.

    References
    ----------
    Giesbrecht & Burns (1985), Biometrics 41, 477; lmerTest's `contest1D` is the witness.

    Raises
    ------
    Undefined
        When the variance parameters' covariance gives that variance none.

    Examples
    --------
    Two sources on four prompts, balanced: the three of the paired t test.

    >>> from stats.layout import arrange
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> round(satterthwaite_df(fit_mixed(y, layout), np.array([1.0, -1.0])), 6)
    3.0
    """
    variance = float(weights @ fit.covariance @ weights)
    slope = np.einsum("i,kij,j->k", weights, fit.gradient, weights)
    spread = float(slope @ fit.parameter_covariance @ slope)
    if not spread > 0.0:
        raise Undefined("the error of a contrast cannot be told from these rows")
    return 2.0 * variance**2 / spread


def least_df(fit: MixedFit) -> float:
    """Fewest degrees of freedom among the differences of two sources.

    Examples
    --------
    >>> from stats.layout import arrange
    >>> layout = arrange(list("aabb" * 4), list("1111222233334444"), ["s"] * 16)
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> round(least_df(fit_mixed(y, layout)), 6)
    3.0
    """
    pairs = combinations(range(len(fit.means)), 2)
    identity = np.eye(len(fit.means))
    return min(satterthwaite_df(fit, identity[i] - identity[j]) for i, j in pairs)


_LONGEST = 1e4
"""Step of the search, in ratios of the current size: along a nearly flat direction Newton's has no end."""


def _descend(start: FloatArray, sums: Sums, layout: Layout, *, bounded: bool) -> FloatArray | None:
    """Newton's method with step halving; ratios at zero stay there while the deviance rises with them."""
    ratios = start.copy()
    state = evaluate(ratios, sums, layout)
    for _ in range(_NEWTON_STEPS):
        if state is None:
            return None
        gradient, hessian, average = slopes(state, sums, layout)
        free = ~((ratios <= 0.0) & (gradient > 0.0)) if bounded else np.ones(len(ratios), dtype=bool)
        if not free.any():
            return ratios
        step = np.zeros_like(ratios)
        step[free] = _newton_step(gradient[free], hessian[np.ix_(free, free)], average[np.ix_(free, free)])
        fall = -float(gradient @ step)
        if fall < _FLAT:  # rounding hides so small a fall from the search
            last = np.maximum(ratios + step, 0.0) if bounded else ratios + step
            return ratios if evaluate(last, sums, layout) is None else last
        state, ratios, moved = _search(ratios, step, state, sums, layout, bounded=bounded)
        if not moved:
            return None if fall > 1e-6 else ratios
    return None


def _newton_step(gradient: FloatArray, hessian: FloatArray, average: FloatArray) -> FloatArray:
    """Downhill by the Hessian, by the average information where that is not definite, else by the slope."""
    for found in (hessian, average):
        curvature = (found + found.T) / 2.0  # near a singular one, rounding makes the halves differ
        if _is_definite(curvature):
            return -np.asarray(np.linalg.solve(curvature, gradient), dtype=np.float64)
    return -gradient / max(float(np.abs(np.diag(hessian)).max()), float(np.finfo(np.float64).tiny))


def _search(
    ratios: FloatArray, step: FloatArray, state: State, sums: Sums, layout: Layout, *, bounded: bool
) -> tuple[State, FloatArray, bool]:
    """Halve the step until the deviance does not rise by more than rounding."""
    slack = 1e-11 * abs(state.deviance) + 1e-12
    step = step * min(1.0, _LONGEST * (1.0 + float(ratios.max())) / max(float(np.abs(step).max()), 1e-300))
    for _ in range(40):
        trial = np.maximum(ratios + step, 0.0) if bounded else ratios + step
        found = evaluate(trial, sums, layout)
        if found is not None and found.deviance <= state.deviance + slack:
            return found, trial, True
        step = step / 2.0
    return state, ratios, False


def _conclude(ratios: FloatArray, sums: Sums, layout: Layout, method: str, *, pooled: bool) -> MixedFit:
    """Estimates, their covariance, and the covariance of the variances (2 / Hessian of the deviance)."""
    state = evaluate(ratios, sums, layout)
    if state is None:
        raise Undefined("the fitted covariance is singular")
    residual = state.quadratic / (layout.n - len(layout.sources))
    _, traces, _, quads = moments(state, sums, layout)
    hessian = 2.0 * quads / residual**3 - traces / residual**2
    held = np.concatenate([[False], (ratios == 0.0) & pooled])
    ix = np.ix_(~held, ~held)
    spread = np.zeros_like(hessian)
    found = [matrix for matrix in (hessian[ix], traces[ix] / residual**2) if _is_definite(matrix)]
    if not found:
        raise Undefined("these rows do not determine the variances")
    spread[ix] = 2.0 * np.linalg.inv(found[0])
    SiX = state.F @ state.N
    ZSiX = sums.Z.T @ SiX
    inner = np.einsum("mk,ma,mb->kab", sums.members, ZSiX, ZSiX)  # X'S^-1 V_k S^-1 X
    inner[0] = SiX.T @ SiX
    if sums.diagonal is not None:
        inner[sums.diagonal + 1] = SiX.T @ (sums.D[:, None] * SiX)
    return MixedFit(
        layout=layout,
        method=method,
        means=state.means + sums.mean,
        covariance=residual * state.C,
        residual=residual,
        ratios=ratios,
        deviance=state.deviance,
        gradient=state.C @ inner @ state.C,
        parameter_covariance=spread,
    )


def _is_definite(matrix: FloatArray) -> bool:
    """Positive definite by more than rounding, whatever the scale of its rows."""
    diagonal = np.diag(matrix)
    if not diagonal.min() > 0.0:
        return False
    scale = 1.0 / np.sqrt(diagonal)
    return float(np.linalg.eigvalsh(matrix * np.outer(scale, scale))[0]) > 1e-13
