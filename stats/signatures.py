"""Is a regime's signature in the self-state? Two questions to one verdict a regime, and one verdict in all.

Each question exchanges whole windows with their twins, in training and test alike:
- common_state above its shuffled null: all channels of a window are exchanged. That it beats the step number
  (`beyond_step`) is the same exchange and the same p: a twin covers the steps of its window, so the step
  number stands at .5 by construction, and what a clock would show is the exposure row `step_before`;
- the state adds to the common channels: only the state's channels are exchanged. Exchanging all would test
  the wrong null, that the regime does nothing whatever; under it both AUCs scatter about 1/2. Here the common
  channels stay, with all they show, and the question is whether the state belongs to the window or to the
  twin. A state that is the same in both, to the last bit, gives p = 1.
The largest of their p values is the regime's (intersection-union, valid without correction), and Holm
over regimes is taken of these. So with no state effect some regime is DETECTED with probability at most
alpha, whatever the regimes do to the common channels. Holm within each question and then all would not keep
that: a false one may come from another question in each regime. The t interval of what the state adds
has to lie above 0 too: the exchange alone calls DETECTED what misleads less than a wrong state does.

"Adds" means: to the common channels of the same step. A state that only smooths their past adds as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from scipy import special

from stats.equivalence import tost
from stats.multiplicity import holm
from stats.rows import TestRow

NEEDED = ("common_state", "beyond_step", "beyond_common")
"""Hypotheses whose p values a signature needs."""


def signature_rows(
    rows: Sequence[TestRow],
    few: Collection[str],
    *,
    alpha: float,
    margin: float,
    least: Mapping[str, float] = MappingProxyType({}),
) -> list[TestRow]:
    """One verdict a regime; the numbers are those of what the state adds, p is the largest of NEEDED.

    DETECTED when p after Holm over regimes is at most alpha and the interval of AUC(common_state) -
    AUC(common) lies above 0; EQUIVALENT when both one-sided tests put that difference inside the margin;
    INVALID when a p is undefined; else INCONCLUSIVE, with what is open. An INVALID regime keeps its place in
    the family, as if its p were 1. Seeds that do not differ at all are their own interval.

    Parameters
    ----------
    rows : sequence of TestRow
        Rows NEEDED of each regime.
    few : collection of str
        Regimes with less than two windows: INCONCLUSIVE.
    least : mapping of str to float
        Regime -> smallest p that its seeds and windows can reach, for the reason of an INCONCLUSIVE one.

    References
    ----------
    Berger (1982), Technometrics 24, 295. Error rates and power: `tests/separability_campaign.py`.

    Examples
    --------
    >>> bare = TestRow(family="separability", hypothesis="common_state", metric="auc", contrast="fog",
    ...                method="held out", role="diagnostic", estimate=0.9, p=0.002, n=5)
    >>> adds = replace(bare, hypothesis="beyond_common", estimate=0.2, low=0.1, high=0.3, p=0.004)
    >>> rows = [bare, replace(bare, hypothesis="beyond_step"), adds]
    >>> [(row.verdict, row.p, row.p_adjusted) for row in signature_rows(rows, (), alpha=0.05, margin=0.05)]
    [('DETECTED', 0.004, 0.004)]
    """
    made = []
    for adds in (row for row in rows if row.hypothesis == "beyond_common"):
        of = {row.hypothesis: row.p for row in rows if row.contrast == adds.contrast}
        needed = [p for p in (of[name] for name in NEEDED) if p is not None]
        row = replace(
            adds,
            hypothesis="signature",
            role="verdict",
            method="intersection-union of " + ", ".join(NEEDED),
            p=max(needed) if len(needed) == len(NEEDED) else None,
        )
        made.append(row)
    adjusted = holm([1.0 if row.p is None else row.p for row in made])
    judged = [
        _judged(row, row.contrast in few, p, alpha=alpha, margin=margin)
        for row, p in zip(made, adjusted, strict=True)
    ]
    told = {row.contrast for row in rows if row.hypothesis == "common" and row.estimate == 1.0}
    return [_explained(row, row.contrast in told, len(made) * least.get(row.contrast, 0.0)) for row in judged]


def _judged(row: TestRow, few: bool, p_adjusted: float, *, alpha: float, margin: float) -> TestRow:
    """Verdict of a regime."""
    mean = row.estimate
    if few or row.p is None or mean is None or row.n is None:
        return replace(row, verdict="INCONCLUSIVE" if few else "INVALID", p_adjusted=None)
    row = replace(row, p_adjusted=p_adjusted)
    if (row.n or 0) < 2:
        return replace(row, verdict="INCONCLUSIVE")
    low, high = (mean, mean) if row.low is None or row.high is None else (row.low, row.high)
    if p_adjusted <= alpha and low > 0.0:
        return replace(row, verdict="DETECTED", negligible=-margin < low and high < margin)
    if _equivalent(mean, high - mean, (row.n or 0) - 1.0, alpha=alpha, margin=margin):
        return replace(row, verdict="EQUIVALENT")
    parts = [f"p = {p_adjusted:.3g} after Holm"] if p_adjusted > alpha else []
    parts += [f"what the state adds may be 0 ({low:.3g} to {high:.3g})"] if low <= 0.0 else []
    return replace(row, verdict="INCONCLUSIVE", reason="; ".join([*parts, "nor is it within the margin"]))


def _explained(row: TestRow, told: bool, least: float) -> TestRow:
    """With what kept a DETECTED out of reach: nothing left to add, or too few windows for a small p."""
    if row.verdict == "EQUIVALENT" and told:
        return replace(row, reason="the common channels alone tell it apart (AUC 1), nothing is left to add")
    if row.verdict == "INCONCLUSIVE" and row.p_adjusted is not None and least > (row.alpha or 0.0):
        text = f"{row.n} seeds with these windows reach p = {least:.3g} after Holm at the least"
        return replace(row, reason="; ".join(part for part in (row.reason, text) if part))
    return row


def _equivalent(mean: float, half: float, df: float, *, alpha: float, margin: float) -> bool:
    """Whether a mean with this half t interval lies within the margin, by two one-sided tests."""
    if not half > 0.0:  # seeds that do not differ
        return abs(mean) < margin
    se = half / -float(special.stdtrit(df, alpha / 2.0))
    return tost(mean, se, df, margin, alpha).equivalent


def combined_row(rows: Sequence[TestRow], *, alpha: float, margin: float) -> TestRow:
    """INVALID if a regime is, else DETECTED if one is, EQUIVALENT if all are, INCONCLUSIVE otherwise.

    Parameters
    ----------
    rows : sequence of TestRow
        Those of `signature_rows`; others are passed over.

    Examples
    --------
    >>> one = TestRow(family="separability", hypothesis="signature", contrast="fog", method="m",
    ...               role="verdict", verdict="DETECTED", p_adjusted=0.01)
    >>> other = replace(one, contrast="heat", verdict="INCONCLUSIVE", p_adjusted=0.4)
    >>> found = combined_row([one, other], alpha=0.05, margin=0.05)
    >>> found.verdict, found.reason
    ('DETECTED', 'DETECTED: fog; INCONCLUSIVE: heat')
    """
    of = [row for row in rows if row.hypothesis == "signature"]
    bare = TestRow(
        family="separability",
        hypothesis="signatures",
        metric="auc",
        method=f"Holm over {len(of)} regimes",
        role="verdict",
        alpha=alpha,
        margin=margin,
        n=len(of),
        verdict="INVALID",
        reason="no regime occurs in any seed",
    )
    if not of:
        return bare
    order = ("INVALID", "DETECTED", "INCONCLUSIVE", "EQUIVALENT")  # the last only when all are
    named = {verdict: [row.contrast for row in of if row.verdict == verdict] for verdict in order}
    words = [f"{verdict}: {', '.join(regimes)}" for verdict, regimes in named.items() if regimes]
    causes = [f"{row.contrast}: {row.reason}" for row in of if row.estimate is None and row.reason]
    p = [row.p_adjusted for row in of if row.p_adjusted is not None]
    return replace(
        bare,
        p_adjusted=min(p) if p else None,
        verdict=next(verdict for verdict in order if named[verdict]),
        reason="; ".join([*words, *dict.fromkeys(causes)]),
    )
