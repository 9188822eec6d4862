"""Do more, harder or enriched data help the sense head? Rows of the contrasts between conditions.

Each contrast is a difference of two conditions on the same items and seed numbers, one value a seed and
item; the studentised bootstrap over seeds x lemmas decides, Holm over the contrasts. Contrasts are written
`B-A`, the mean of B minus the mean of A, so that a gain is above zero. The earlier rule, a paired t over
three seeds, stands beside it and decides nothing: it holds the lemmas fixed, so it speaks of these alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.language_verdicts import concluded
from stats.paired_seeds import detectable, paired_t
from stats.rows import FloatArray, TestRow
from stats.sense_power import critical_ratio, planned, seeds_for
from stats.two_way_bootstrap import RESAMPLES, MeanSquares, TwoWay, crossed, two_way

PAIRS = (("B", "A"), ("C", "B"), ("C", "A"))
LEGACY_PAIRS = (("B", "A"), ("C", "B"))
PUBLISHED_SEEDS = 3
TABLE_SEEDS, TABLE_LEMMAS = (3, 5, 10, 20, 40), (60, 120, 240)


def analyse_contrasts(
    outcomes: Mapping[str, FloatArray],
    lemmas: Sequence[Any] | npt.NDArray[Any],
    *,
    rng: np.random.Generator,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    metric: str = "top1",
    margin: float = 0.02,
    alpha: float = 0.05,
    sizes: npt.ArrayLike = 1.0,
    unusable: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    family: str = "sense_scaling",
) -> list[TestRow]:
    """Rows of a family of contrasts between conditions.

    Parameters
    ----------
    outcomes : mapping of str to (S, I) array
        Condition -> outcome of each seed and item, more is better; same seeds and items in each.
    lemmas : (I,) sequence
    pairs : sequence of (str, str)
        (X, Y) is the contrast X-Y; Holm over all of them.
    margin : float
        Differences smaller than this count as none, in units of the outcome.
    sizes : (I,) array, optional
        What an item counts for, e.g. its steps; outcomes are then counts.
    unusable : mapping, optional
        Condition -> why it says nothing. Its contrasts are INVALID and keep their place in the family.

    Returns
    -------
    list of TestRow
        Of each contrast: `difference` (decides: interval at 1 - alpha, p and Holm's p, statistic m / se, df2
        Satterthwaite's, mde at alpha, n_to_settle in seeds at Holm's first step, verdict),
        `difference_tost` (equivalence: interval at 1 - 2 alpha). Secondary: `percentile_bootstrap`,
        `paired_t` over all seeds. Diagnostic: `sd_seed`, `sd_lemma`, `sd_rest`, and `mde` for other designs
        (contrast `X-Y:S x L`, p none, mde after Holm in `mde`).

    Raises
    ------
    ValueError
        No or repeated pairs, a condition that is not there, shapes or values that `crossed` refuses.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> hits = {c: (rng.random((10, 600)) < p).astype(float) for c, p in zip("ABC", (0.2, 0.35, 0.36))}
    >>> rows = analyse_contrasts(hits, np.arange(600) // 10, rng=rng, margin=0.05)
    >>> for row in rows:
    ...     if row.role == "decides":
    ...         print(row.contrast, round(row.estimate, 3), round(row.p_adjusted, 3), row.verdict)
    B-A 0.139 0.003 DETECTED
    C-B 0.0 1.0 EQUIVALENT
    C-A 0.139 0.003 DETECTED
    """
    broken = dict(unusable or {})
    if not pairs or len(set(pairs)) < len(pairs) or any(x == y for x, y in pairs):
        raise ValueError(f"contrasts {list(pairs)}; declare one or more, each once, of two conditions")
    absent = sorted({name for pair in pairs for name in pair} - outcomes.keys() - broken.keys())
    if absent:
        raise ValueError(f"no outcomes of {absent}; there are {sorted(outcomes)}, unusable {sorted(broken)}")
    if not margin > 0.0:
        raise ValueError(f"margin {margin}; the smallest difference of interest is above 0")
    rows: list[TestRow] = []
    for x, y in pairs:
        bare = TestRow(
            family=family,
            hypothesis="difference",
            metric=metric,
            contrast=f"{x}-{y}",
            method="two-way bootstrap over seeds and lemmas",
            role="decides",
            alpha=alpha,
            margin=margin,
            reason="undefined",
        )
        why = [f"{name}: {broken[name]}" for name in (x, y) if name in broken]
        if why:
            rows.append(replace(bare, reason="; ".join(why)))
            continue
        d = difference(outcomes[x], outcomes[y], (x, y))
        found = two_way(crossed(d, lemmas, sizes=sizes), rng=rng, resamples=resamples)
        rows += contrast_rows(found, bare, tests=len(pairs))
        n = np.broadcast_to(np.asarray(sizes, dtype=np.float64), d.shape[1:])
        rows.append(_paired_row(np.asarray(outcomes[x]), np.asarray(outcomes[y]), n, bare))
    return concluded(rows, alpha=alpha)


def difference(first: FloatArray, second: FloatArray, names: tuple[str, str] = ("X", "Y")) -> FloatArray:
    """(S, I) first minus second; a second of one row (a scorer without seeds) serves every seed.

    Examples
    --------
    >>> difference(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 1.0]])).tolist()
    [[1.0, -1.0], [1.0, 0.0]]
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or b.shape[0] not in (1, a.shape[0]):
        raise ValueError(
            f"{names[0]} {a.shape}, {names[1]} {b.shape}; pass (seeds, items), the same of both (or one seed "
            "of the second)"
        )
    d: FloatArray = a - b
    return d


def contrast_rows(found: TwoWay, bare: TestRow, *, tests: int) -> list[TestRow]:
    """Rows of one contrast without Holm's p and verdict; `bare` names it, its alpha and its margin."""
    alpha, margin = bare.alpha or 0.0, bare.margin or 0.0
    bare = replace(bare, n=found.seeds, estimate=found.estimate, method=found.method, reason=found.reason)
    low, high = found.interval(alpha)
    inner = found.interval(2.0 * alpha)
    below, above = found.p_greater(-margin), found.p_less(margin)
    equal = replace(
        bare,
        hypothesis="difference_tost",
        role="equivalence",
        method=f"two one-sided tests, {found.method}",
        low=inner[0],
        high=inner[1],
        p=None if below is None or above is None else max(below, above),
    )
    if found.squares is None or found.se is None:
        return [bare, equal]
    L, settle = found.lemmas, seeds_for(found.squares, margin, found.lemmas, alpha=alpha, tests=tests)
    decides = replace(
        bare,
        low=low,
        high=high,
        p=found.p(),
        statistic=found.estimate / found.se,
        df2=found.squares.df,
        mde=planned(found.squares, found.seeds, L, alpha=alpha).mde,
        n_to_settle=settle,
        reason=None if settle else f"no number of seeds finds {margin:g} with these {L} lemmas",
    )
    plain = replace(bare, hypothesis="percentile_bootstrap", role="secondary", margin=None)
    ends = found.percentiles(alpha)
    plain = replace(plain, method="percentiles of the same draws; level not kept", low=ends[0], high=ends[1])
    return [decides, equal, plain, *_design_rows(found.squares, replace(bare, margin=None), tests)]


def _design_rows(squares: MeanSquares, bare: TestRow, tests: int) -> list[TestRow]:
    rows = []
    alpha = bare.alpha or 0.0
    for name, value in zip(("seed", "lemma", "rest"), squares.components, strict=True):
        method = f"SD of {name}s, two-way table" if name != "rest" else "SD of what is left in a cell"
        rows.append(
            replace(
                bare, hypothesis=f"sd_{name}", role="diagnostic", method=method, estimate=math.sqrt(value)
            )
        )
    for lemmas in sorted({squares.L, *TABLE_LEMMAS}):
        for seeds in sorted({squares.S, *TABLE_SEEDS}):
            plan = planned(squares, seeds, lemmas, alpha=alpha, tests=tests)
            rows.append(
                replace(
                    bare,
                    hypothesis="mde",
                    role="diagnostic",
                    contrast=f"{bare.contrast}:{seeds} x {lemmas}",
                    method="80 % power at alpha (estimate) and at Holm's first step (mde), seeds x lemmas",
                    estimate=plan.mde,
                    mde=plan.mde_after_holm,
                    df2=plan.df,
                    n=seeds,
                )
            )
    return rows


def _paired_row(x: FloatArray, y: FloatArray, sizes: FloatArray, bare: TestRow) -> TestRow:
    """Student's t over seeds, lemmas held fixed."""
    found = paired_t(x.sum(axis=1) / sizes.sum(), y.sum(axis=1) / sizes.sum(), alpha=bare.alpha or 0.05)
    return replace(
        bare,
        hypothesis="paired_t",
        role="secondary",
        method=f"{found.method}, these lemmas",
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        statistic=found.statistic,
        df2=float(found.df) if found.df else None,
        p=found.p,
        n=found.n,
        margin=None,
        reason=found.reason,
    )


def legacy_rows(
    outcomes: Mapping[str, FloatArray],
    *,
    pairs: Sequence[tuple[str, str]] = LEGACY_PAIRS,
    metric: str = "top1",
    family: str = "legacy_sense",
) -> list[TestRow]:
    """The earlier rule: paired t over the three published seeds, uncorrected; role `legacy`.

    Parameters
    ----------
    outcomes : mapping of str to (3, I) array
        Of the published seeds only. Give (3, 1) arrays where only each seed's share is known.

    Examples
    --------
    >>> share = {"A": np.array([[0.31], [0.30], [0.33]]), "B": np.array([[0.34], [0.36], [0.35]])}
    >>> row = legacy_rows(share, pairs=[("B", "A")])[0]
    >>> round(row.estimate, 4), round(row.p, 3), row.effect is None
    (0.0367, 0.093, True)
    >>> row.reason
    'mean/SD 1.76; p < .05 asks for 2.48, power .8 for 3.26'
    """
    rows = []
    for x, y in pairs:
        ours, theirs = np.asarray(outcomes[x]), np.asarray(outcomes[y])
        if len(ours) != PUBLISHED_SEEDS:
            raise ValueError(f"{len(ours)} seeds of {x}; the rule had {PUBLISHED_SEEDS}, pass those")
        bare = TestRow(
            family=family,
            hypothesis="paired_t",
            metric=metric,
            contrast=f"{x}-{y}",
            method="",
            role="legacy",
            alpha=0.05,
            reason="undefined",
        )
        row = replace(_paired_row(ours, theirs, np.ones(ours.shape[1]), bare), role="legacy")
        if row.statistic is not None:
            ratio = row.statistic / math.sqrt(PUBLISHED_SEEDS)
            asks = f"p < .05 asks for {critical_ratio(3):.2f}, power .8 for {detectable(1.0, 3):.2f}"
            row = replace(row, reason=f"mean/SD {ratio:.2f}; {asks}")
        rows.append(row)
    return rows


def tier_rows(
    outcome: FloatArray,
    lemmas: Sequence[Any] | npt.NDArray[Any],
    tiers: Sequence[int] | npt.NDArray[np.int64],
    *,
    condition: str,
    rng: np.random.Generator,
    metric: str = "top1",
    alpha: float = 0.05,
    family: str = "sense_tiers",
) -> list[TestRow]:
    """Where a condition fails most: the mean of each tier, and each tier minus the next; role `secondary`.

    A difference of tiers is one of lemmas that have both: mean of the one minus mean of the other, lemmas
    alike, on the same seeds.

    Parameters
    ----------
    outcome : (S, I) array
    tiers : (I,) sequence of int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> tiers = np.arange(720) % 3 + 1
    >>> hits = (rng.random((10, 720)) < 0.7 - 0.2 * tiers).astype(float)
    >>> for row in tier_rows(hits, np.arange(720) // 12, tiers, condition="B", rng=rng):
    ...     print(row.hypothesis, row.contrast, round(row.estimate, 2), row.low > 0)
    tier B:1 0.5 True
    tier B:2 0.31 True
    tier B:3 0.1 True
    tier_step B:1-2 0.19 True
    tier_step B:2-3 0.21 True
    """
    hits, code, words = np.asarray(outcome, dtype=np.float64), np.asarray(tiers), np.asarray(lemmas)
    if code.shape != hits.shape[-1:]:
        raise ValueError(f"{code.shape} tiers for {hits.shape} outcomes; pass one an item")
    present = sorted({int(tier) for tier in code})
    tables = {tier: crossed(hits[:, code == tier], words[code == tier]) for tier in present}
    found = [("tier", str(tier), two_way(table, rng=rng)) for tier, table in tables.items()]
    for a, b in pairwise(present):
        both = np.intersect1d(words[code == a], words[code == b])
        means = [_lemma_means(hits, words, both, code == tier) for tier in (a, b)]
        if len(both):
            found.append(("tier_step", f"{a}-{b}", two_way(crossed(means[0] - means[1], both), rng=rng)))
    rows = []
    for name, which, test in found:
        low, high = test.interval(alpha)
        rows.append(
            TestRow(
                family=family,
                hypothesis=name,
                metric=metric,
                contrast=f"{condition}:{which}",
                method=test.method,
                role="secondary",
                estimate=test.estimate,
                low=low,
                high=high,
                p=test.p() if name == "tier_step" else None,
                alpha=alpha,
                n=test.seeds,
                reason=test.reason,
            )
        )
    return rows


def _lemma_means(
    hits: FloatArray, words: npt.NDArray[Any], both: npt.NDArray[Any], where: npt.NDArray[np.bool_]
) -> FloatArray:
    """(S, L) mean of each lemma in `both` over the items chosen."""
    member = ((words[:, None] == both) & where[:, None]).astype(np.float64)
    means: FloatArray = hits @ member / member.sum(axis=0)
    return means
