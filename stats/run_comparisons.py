"""Runs compared over seeds: paired differences, their equivalence, and the verdicts that rest on several.

A seed trains every run on the same batches from the same beginning, so the seed's difference A - B is the
observation and Student's t over seeds decides; sign flips of five seeds cannot reject (p = 1/16 at least).
Seeds that only one run has are left out and named; a run without any value makes its comparison INVALID,
which keeps its place in the family as if its p were 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stats.equivalence import tost
from stats.language_verdicts import concluded
from stats.over_seeds import seeds_by_t
from stats.paired_seeds import PairedT, detectable, paired_t
from stats.rows import FloatArray, TestRow, by_reason

ALIKE = "exactly the same in every seed"


def comparison_rows(
    values: Mapping[str, Mapping[int, float | None]],
    pairs: Sequence[tuple[str, str]],
    *,
    family: str,
    metric: str,
    hypothesis: str = "difference",
    margin: float | None,
    alpha: float = 0.05,
    role: str = "decides",
    reasons: Mapping[str, str] | None = None,
) -> list[TestRow]:
    """Paired differences of runs, with Holm over the pairs of this call, and their equivalence.

    Parameters
    ----------
    values : mapping of str to mapping of int to float or None
        Run -> seed -> its number; None (or no key) where that seed has none.
    pairs : sequence of (str, str)
        (A, B) asks for the mean over shared seeds of A - B.
    margin : float or None
        Smallest difference of interest, in the metric's units; None asks for no equivalence.
    reasons : mapping of str to str
        Run -> why it says nothing; its pairs are INVALID, whatever values it has.

    Returns
    -------
    list of TestRow
        Of each pair `A-B`, in the metric's units: `hypothesis` (role as given; t interval at 1 - alpha, t in
        `statistic`, p, p_adjusted, mde of a t test at alpha, n_to_settle in seeds, verdict) and, with a
        margin, `hypothesis_tost` (role `equivalence`; interval at 1 - 2 alpha). DETECTED: p_adjusted at most
        alpha, which puts 0 outside the interval. EQUIVALENT: both one-sided tests at alpha, or differences
        of exactly 0 in two seeds or more (p = 1, interval [0, 0]). INVALID: a run without values, a value
        that is not finite, no shared seed. One seed, or differences that are all one number but 0:
        INCONCLUSIVE with that reason.

    Raises
    ------
    ValueError
        No pair, a pair twice or of one run, a margin not above 0.

    References
    ----------
    Holm (1979); Schuirmann (1987). Witnesses: R's `t.test(paired = TRUE)`, its one-sided tests at the
    margins, `p.adjust` (`tests/reference/run_comparisons.R`).

    Examples
    --------
    >>> runs = {"self": {0: 1.90, 1: 1.92, 2: 1.91}, "none": {0: 2.00, 1: 2.03, 2: 2.00},
    ...         "fixed": {0: 1.901, 1: 1.919, 2: 1.911}}
    >>> rows = comparison_rows(runs, [("self", "none"), ("self", "fixed"), ("self", "d1")], family="controls",
    ...                        metric="valid_loss_nats", margin=0.05, reasons={"d1": "out of memory"})
    >>> for row in rows:
    ...     if row.role == "decides" and row.estimate is not None:
    ...         print(row.contrast, round(row.estimate, 4), round(row.p_adjusted, 4), row.verdict)
    self-none -0.1 0.01 DETECTED
    self-fixed -0.0003 1.0 EQUIVALENT
    >>> rows[4].contrast, rows[4].verdict, rows[4].reason
    ('self-d1', 'INVALID', 'd1: out of memory')
    """
    if not pairs or len(set(pairs)) < len(pairs) or any(a == b for a, b in pairs):
        raise ValueError(f"pairs {list(pairs)}; give one or more, each once and of two runs")
    if margin is not None and not margin > 0.0:
        raise ValueError(f"margin {margin}; the smallest difference of interest is above 0, or None")
    rows: list[TestRow] = []
    for first, second in pairs:
        bare = TestRow(family=family, hypothesis=hypothesis, metric=metric, contrast=f"{first}-{second}",
                       method="paired t over seeds", role="decides", alpha=alpha, margin=margin,
                       reason="undefined")  # fmt: skip
        shared, why = _shared(values, first, second, reasons or {})
        if shared is None:
            rows.append(replace(bare, reason=why, verdict="INVALID"))
            continue
        rows += _pair_rows(shared, bare, why, len(pairs))
    return _judged(rows, role, alpha)


def _shared(
    values: Mapping[str, Mapping[int, float | None]], first: str, second: str, reasons: Mapping[str, str]
) -> tuple[tuple[FloatArray, FloatArray] | None, str | None]:
    """Numbers of the shared seeds and a remark on those left out, or None and why there are none."""
    both: list[dict[int, float]] = []
    broken: list[str] = []
    for run in (first, second):
        found = {seed: value for seed, value in values.get(run, {}).items() if value is not None}
        wrong = [f"seed {seed} is {value}" for seed, value in found.items() if not math.isfinite(value)]
        if run in reasons or not found:
            broken.append(f"{run}: {reasons.get(run, 'no values')}")
        elif wrong:
            broken.append(f"{run}: {', '.join(wrong)}")
        both.append(found)
    seeds = sorted(both[0].keys() & both[1].keys())
    if broken or not seeds:
        return None, "; ".join(broken) or f"{first} and {second} share no seed"
    lost = sorted((set(values[first]) | set(values[second])) - set(seeds))
    note = f"without seeds {', '.join(map(str, lost))}, which one of the two lacks" if lost else None
    return (np.array([both[0][s] for s in seeds]), np.array([both[1][s] for s in seeds])), note


def _pair_rows(
    pair: tuple[FloatArray, FloatArray], bare: TestRow, note: str | None, tests: int
) -> list[TestRow]:
    student = paired_t(*pair, alpha=bare.alpha or 0.05)
    row = replace(bare, estimate=student.estimate, n=student.n, reason=note)
    if student.reason is not None or student.sd is None:
        return _without_spread(row, pair, student, note)
    row = replace(
        row,
        low=student.low,
        high=student.high,
        statistic=student.statistic,
        df2=float(student.df),
        p=student.p,
        mde=detectable(student.sd, student.n, alpha=bare.alpha or 0.05),
    )
    if bare.margin is None or student.se is None:
        return [row]
    settle = seeds_by_t(student.sd, margin=bare.margin, alpha=bare.alpha or 0.05, tests=tests)
    return [replace(row, n_to_settle=settle), tost_row(row, student)]


def tost_row(row: TestRow, student: PairedT) -> TestRow:
    """The `_tost` row beside a row of paired differences that vary; margin and alpha are the row's.

    Examples
    --------
    >>> bare = TestRow(family="f", hypothesis="difference", method="", role="decides", margin=0.1, alpha=0.05,
    ...                reason="undefined")
    >>> found = tost_row(bare, paired_t(np.array([0.01, 0.02, -0.02, 0.01]), np.zeros(4)))
    >>> found.hypothesis, round(found.p, 5), round(found.high, 4)
    ('difference_tost', 0.00081, 0.0254)
    """
    if row.margin is None or student.se is None:
        raise ValueError(f"margin {row.margin}, se {student.se}; equivalence needs a margin and a spread")
    test = tost(student.estimate, student.se, student.df, row.margin, row.alpha or 0.05)
    return replace(
        row,
        hypothesis=f"{row.hypothesis}_tost",
        role="equivalence",
        method="two one-sided paired t tests over seeds",
        estimate=student.estimate,
        low=test.low,
        high=test.high,
        statistic=None,
        df2=float(student.df),
        p=test.p,
        mde=None,
        n=student.n,
        reason=None,
    )


def _without_spread(
    row: TestRow, pair: tuple[FloatArray, FloatArray], student: PairedT, note: str | None
) -> list[TestRow]:
    """One seed, or differences that do not vary: no test, and equivalent only where all are exactly 0."""
    if student.n > 1 and bool((pair[0] == pair[1]).all()):
        why = "; ".join(filter(None, (ALIKE, note)))
        return [replace(row, low=0.0, high=0.0, p=1.0, verdict="EQUIVALENT", reason=why)]
    why = "; ".join(filter(None, (student.reason, note)))
    return [replace(row, verdict="INCONCLUSIVE", reason=why)]


def _judged(rows: Sequence[TestRow], role: str, alpha: float) -> list[TestRow]:
    """Holm and verdicts by the house rule; verdicts that stand already stay."""
    done = concluded(rows, alpha=alpha)
    out = []
    for before, after in zip(rows, done, strict=True):
        verdict = before.verdict or after.verdict
        kept = after.role if after.role == "equivalence" else role
        out.append(replace(after, verdict=verdict, role=kept))
    return out


def any_differs_row(rows: Sequence[TestRow], *, hypothesis: str, family: str) -> TestRow:
    """Does any pair differ? One verdict from the deciding rows of a family.

    INVALID if any is; DETECTED if any is after Holm; EQUIVALENT if all are; else INCONCLUSIVE. p is the
    smallest of the corrected ones: the p value of "no pair differs".

    Parameters
    ----------
    rows : sequence of TestRow
        Of `comparison_rows`, all of one call.

    Raises
    ------
    ValueError
        No deciding row of this family.

    Examples
    --------
    >>> runs = {"buffer": {0: 1.80, 1: 1.83, 2: 1.79}, "ema": {0: 1.91, 1: 1.92, 2: 1.90},
    ...         "none": {0: 1.90, 1: 1.92, 2: 1.91}}
    >>> rows = comparison_rows(runs, [("buffer", "none"), ("ema", "none")], family="memory",
    ...                        metric="valid_loss_nats", margin=0.05)
    >>> found = any_differs_row(rows, hypothesis="memory_matters", family="memory")
    >>> found.verdict, found.reason
    ('DETECTED', 'differs: buffer-none')
    """
    decided = _deciding(rows, family)
    row = _combined(decided, hypothesis, "any paired difference over seeds, Holm")
    p = [one.p_adjusted for one in decided if one.p_adjusted is not None]
    row = replace(row, p=min(p, default=None), p_adjusted=min(p, default=None))
    if row.verdict == "INVALID":
        return row
    found = [one.contrast for one in decided if one.verdict == "DETECTED"]
    if found:
        negligible = all(one.negligible for one in decided if one.verdict == "DETECTED")
        return replace(row, verdict="DETECTED", negligible=negligible, reason=f"differs: {', '.join(found)}")
    same = all(one.verdict == "EQUIVALENT" for one in decided)
    return replace(row, verdict="EQUIVALENT" if same else "INCONCLUSIVE", reason=_open(decided, same))


def lowest_of_all_row(rows: Sequence[TestRow], *, hypothesis: str, family: str) -> TestRow:
    """Is the first run below every other? An intersection-union test of the deciding rows of a family.

    DETECTED when every interval lies below 0, each at its own alpha. No correction is due: the claim is wrong
    as soon as one run is not below, and to make it that very comparison must be rejected, which happens with
    probability at most alpha / 2 whatever the others do. EQUIVALENT, by the same argument, when every
    difference is inside the margin by its own one-sided tests. INVALID if a comparison is. p is the largest
    of the two-sided ones, 1 where a difference is not negative.

    Parameters
    ----------
    rows : sequence of TestRow
        Of `comparison_rows`, with pairs (self, control); lower is better.

    Raises
    ------
    ValueError
        No deciding row of this family.

    References
    ----------
    Berger (1982), Technometrics 24, 295.

    Examples
    --------
    >>> runs = {"self": {0: 1.80, 1: 1.83, 2: 1.79}, "bias": {0: 1.91, 1: 1.92, 2: 1.90},
    ...         "vanilla": {0: 1.80, 1: 1.90, 2: 1.75}}
    >>> rows = comparison_rows(runs, [("self", "bias"), ("self", "vanilla")], family="controls",
    ...                        metric="valid_loss_nats", margin=0.05)
    >>> found = lowest_of_all_row(rows, hypothesis="beats_controls", family="controls")
    >>> found.verdict, found.reason
    ('INCONCLUSIVE', 'not shown to be below in: self-vanilla')
    """
    decided = _deciding(rows, family)
    row = _combined(decided, hypothesis, "intersection-union of paired t tests over seeds")
    if row.verdict == "INVALID":
        return row
    below = [one.high is not None and one.high < 0.0 for one in decided]
    known = [one.p if (one.estimate or 0.0) < 0.0 else 1.0 for one in decided if one.p is not None]
    row = replace(row, p=max(known) if len(known) == len(decided) else None)
    not_beaten = [one.contrast for one, lower in zip(decided, below, strict=True) if not lower]
    inside = [_inside(one, rows) for one in decided]
    if not not_beaten:
        return replace(row, verdict="DETECTED", negligible=all(inside))
    why = f"not shown to be below in: {', '.join(not_beaten)}"
    return replace(row, verdict="EQUIVALENT" if all(inside) else "INCONCLUSIVE", reason=why)


def _deciding(rows: Sequence[TestRow], family: str) -> list[TestRow]:
    found = [row for row in rows if row.family == family and row.role == "decides"]
    if not found:
        raise ValueError(f"{len(rows)} rows and none of family {family!r} decides; pass comparison_rows' own")
    return found


def _combined(decided: Sequence[TestRow], hypothesis: str, method: str) -> TestRow:
    """The verdict row before its verdict, or INVALID with every comparison that is."""
    invalid = [(row.contrast or "", row.reason or "undefined") for row in decided if row.verdict == "INVALID"]
    first = decided[0]
    return TestRow(
        family=first.family,
        hypothesis=hypothesis,
        metric=first.metric,
        method=f"{method}, {len(decided)} comparisons",
        role="verdict",
        alpha=first.alpha,
        margin=first.margin,
        n=min((row.n or 0) for row in decided),
        verdict="INVALID" if invalid else "INCONCLUSIVE",
        reason=by_reason(invalid) or None,
    )


def _inside(row: TestRow, rows: Sequence[TestRow]) -> bool:
    """Inside the margin by its own `_tost` row, or exactly 0."""
    if row.verdict == "EQUIVALENT":
        return True
    same = (row.family, f"{row.hypothesis}_tost", row.metric, row.contrast)
    p = [one.p for one in rows if (one.family, one.hypothesis, one.metric, one.contrast) == same]
    return bool(p) and p[0] is not None and row.alpha is not None and p[0] <= row.alpha


def _open(decided: Sequence[TestRow], same: bool) -> str | None:
    if same:
        return None
    return f"open: {', '.join(row.contrast for row in decided if row.verdict != 'EQUIVALENT')}"
