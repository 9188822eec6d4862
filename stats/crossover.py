"""Where a ladder of models ends: the scale from which rungs are equivalent, and what a fresh run confirms.

A rung counts as equivalent when its verdict is EQUIVALENT, or DETECTED with an effect inside the margin: the
gates route both alike. A rung that was skipped or is INVALID shows nothing, so no crossover reaches past it.
Two rungs in a row that count as equivalent end the ladder by plan; rungs above them carry `LADDER_ENDED` in
place of rows and are left out here. So the crossover of an ended ladder speaks of the rungs measured, and its
`method` says how many larger ones were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stats.across_models import Rung, model_contrast_rows, pooled_rows, rung_rows, slope_rows
from stats.rows import TestRow

LADDER_ENDED = "the ladder had ended: two rungs in a row were equivalent"
"""`Rung.skipped` of a rung that the plan, not the machine, left out."""

FRESH_SAMPLES = 20
"""Samples a cell that a confirmatory run has at least."""


def counts_as_equivalent(rung: Rung) -> bool:
    """EQUIVALENT, or DETECTED inside the margin.

    Examples
    --------
    >>> end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict",
    ...               verdict="DETECTED", negligible=True)
    >>> counts_as_equivalent(Rung(model="m", parameters=1, rows=[end]))
    True
    """
    answer = rung.answer
    return answer is not None and (
        answer.verdict == "EQUIVALENT" or (answer.verdict == "DETECTED" and answer.negligible is True)
    )


def ladder_has_ended(climbed: Sequence[Rung]) -> bool:
    """Do the last two rungs, in the order climbed, count as equivalent? A skipped or INVALID one does not.

    Examples
    --------
    >>> end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict",
    ...               verdict="EQUIVALENT")
    >>> one, two = (Rung(model=name, parameters=1, rows=[end]) for name in "ab")
    >>> missing = Rung(model="c", parameters=2, skipped="no server")
    >>> ladder_has_ended([one, two]), ladder_has_ended([one]), ladder_has_ended([one, missing, two])
    (True, False, False)
    """
    return len(climbed) > 1 and all(counts_as_equivalent(rung) for rung in climbed[-2:])


def crossover_row(rungs: Sequence[Rung]) -> TestRow:
    """The smallest scale from which every rung, itself included, counts as equivalent.

    Parameters
    ----------
    rungs
        Every declared rung, in any order; those above an ended ladder with `skipped=LADDER_ENDED`.

    Returns
    -------
    TestRow
        `estimate`: parameters of that rung, `contrast`: its model, `n`: rungs from it on. Without a crossover
        both are absent and `reason` names the largest rung and its verdict. Family `crossover`.

    Raises
    ------
    ValueError
        Without rungs, or when `LADDER_ENDED` stands beside rungs that did not end it.

    Examples
    --------
    >>> def rung(size, verdict):
    ...     end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict",
    ...                   verdict=verdict)
    ...     return Rung(model=f"m{size}", parameters=size, rows=[end])
    >>> verdicts = ["EQUIVALENT", "DETECTED", "EQUIVALENT", "EQUIVALENT"]
    >>> ladder = [rung(size, verdict) for size, verdict in zip((10, 20, 40, 80), verdicts)]
    >>> row = crossover_row(ladder)
    >>> row.contrast, row.estimate, row.n
    ('m40', 40.0, 2)
    >>> crossover_row(ladder[:2]).reason
    'the largest rung, m20, is DETECTED, not EQUIVALENT'
    """
    if not rungs:
        raise ValueError("no rungs; a ladder has at least one")
    ordered = sorted(rungs, key=lambda rung: rung.parameters)
    measured = [rung for rung in ordered if rung.skipped != LADDER_ENDED]
    left_out = len(ordered) - len(measured)
    if left_out and sum(counts_as_equivalent(rung) for rung in measured) < 2:
        raise ValueError(f"{left_out} rungs are left out by an ended ladder, but no two rungs ended it")
    row = TestRow(
        family="crossover",
        hypothesis="crossover",
        method="smallest scale from which every rung is EQUIVALENT or DETECTED inside the margin",
        role="secondary",
        reason="undefined",
    )
    if left_out:
        row = replace(row, method=f"{row.method}; {left_out} rungs not climbed, the ladder had ended")
    reached: list[Rung] = []
    for rung in reversed(measured):
        if not counts_as_equivalent(rung):
            break
        reached.append(rung)
    if not reached:
        return replace(row, n=0, reason=_why_none(measured[-1]))
    first = reached[-1]
    return replace(row, contrast=first.model, estimate=float(first.parameters), n=len(reached), reason=None)


def _why_none(largest: Rung) -> str:
    found = f"not measured ({largest.skipped})" if largest.skipped else largest.verdict
    return f"the largest rung, {largest.model}, is {found}, not EQUIVALENT"


def ladder_end_row(rows: Sequence[TestRow], *, family: str = "ladder") -> TestRow:
    """One verdict over the rungs' rows, after correction.

    INVALID when no rung has an answer; DETECTED when one is; EQUIVALENT when every row is; else INCONCLUSIVE.
    A skipped or INVALID rung beside valid ones therefore bars EQUIVALENT and nothing else. The numbers are
    those of the rung with the smallest corrected p, `n` counts rungs with an answer.

    Parameters
    ----------
    rows
        Of `rung_rows`; rungs that an ended ladder left out do not count.

    Examples
    --------
    >>> row = TestRow(family="ladder", hypothesis="rung", contrast="m", method="v", role="decides",
    ...               p=0.5, p_adjusted=0.5, verdict="EQUIVALENT")
    >>> lost = replace(row, contrast="x", p=None, p_adjusted=None, verdict=None, reason="no server")
    >>> ladder_end_row([row]).verdict, ladder_end_row([row, lost]).verdict, ladder_end_row([lost]).verdict
    ('EQUIVALENT', 'INCONCLUSIVE', 'INVALID')
    """
    counted = [row for row in rows if row.reason != LADDER_ENDED]
    answered = [row for row in counted if row.p_adjusted is not None]
    open_rows = [row for row in counted if row.verdict not in ("DETECTED", "EQUIVALENT")]
    end = TestRow(
        family=family,
        hypothesis="verdict",
        method="any rung DETECTED after correction, or every rung EQUIVALENT",
        role="verdict",
        n=len(answered),
        verdict="INVALID",
        reason="; ".join(f"{row.contrast}: {row.reason or row.verdict}" for row in open_rows) or None,
    )
    if not answered:
        return replace(end, reason=end.reason or "no rung has an answer")
    best = min(answered, key=lambda row: row.p_adjusted or 0.0)
    detected = [row for row in answered if row.verdict == "DETECTED"]
    counts = [row.n_to_settle for row in open_rows if row.n_to_settle is not None]
    return replace(
        end,
        contrast=best.contrast,
        effect=best.effect,
        low=best.low,
        high=best.high,
        p=best.p,
        p_adjusted=best.p_adjusted,
        alpha=best.alpha,
        margin=best.margin,
        negligible=all(row.negligible is True for row in detected) if detected else False,
        n_to_settle=max(counts) if counts and not detected else None,
        verdict="DETECTED" if detected else "INCONCLUSIVE" if open_rows else "EQUIVALENT",
    )


def analyse_ladder(
    rungs: Sequence[Rung],
    contrasts: Sequence[tuple[str, str]],
    *,
    lines: Sequence[str] = ("",),
    declared: tuple[str, str] | None = None,
    alpha: float = 0.05,
    gamma: float = -4.0,
) -> list[TestRow]:
    """Everything asked of a ladder at its end.

    Parameters
    ----------
    rungs
        Every declared rung, the unmeasured ones with the reason.
    contrasts
        (metric, contrast) pairs, as `pairwise` rows name them.
    lines
        Lines of models (`Rung.line`) that get a slope on log10 parameters.
    declared
        Two models whose effects are compared.

    Returns
    -------
    list of TestRow
        Families `ladder` (a row a rung, then the verdict), `crossover`, `meta_analysis`, `scale_slope` and
        `model_contrast`.

    Examples
    --------
    >>> end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict", p=0.5,
    ...               verdict="EQUIVALENT")
    >>> rungs = [Rung(model=f"m{size}", parameters=size, rows=[end]) for size in (10, 90)]
    >>> [(row.family, row.verdict) for row in analyse_ladder(rungs, [("mtld", "a-b")])[:4]]
    [('ladder', 'EQUIVALENT'), ('ladder', 'EQUIVALENT'), ('ladder', 'EQUIVALENT'), ('crossover', None)]
    """
    rows = rung_rows(rungs, alpha=alpha, gamma=gamma)
    out = [*rows, ladder_end_row(rows), crossover_row(rungs), *pooled_rows(rungs, contrasts, alpha=alpha)]
    for line in lines:
        out += slope_rows(rungs, contrasts, line=line, alpha=alpha)
    return out + (model_contrast_rows(rungs, declared, contrasts, alpha=alpha) if declared else [])


def scale_up_rows(
    screen: Sequence[Rung],
    fresh: Sequence[Rung],
    *,
    alpha: float = 0.05,
    gamma: float = -4.0,
    samples: int = FRESH_SAMPLES,
    screen_alpha: float = 0.05,
) -> list[TestRow]:
    """Is a rung that the screen DETECTED confirmed by a run of its own? Family `scale_up`.

    The fresh rungs form their own family (Benjamini-Hochberg at their own alpha); nothing of the screen is
    pooled with them. Confirmed, DETECTED, is a rung whose corrected p lies under alpha and in which a Tukey
    interval excludes zero on the side where the same interval of the screen does. The last row is the
    family's verdict.

    Parameters
    ----------
    fresh
        Confirmatory rungs of models the screen DETECTED, each with the names of its own `tapes`.
    samples
        Fewest samples a cell; under them a rung is INVALID and leaves the family.
    screen_alpha
        Level of the screen, at which its rungs were corrected.

    Raises
    ------
    ValueError
        When a fresh rung was not DETECTED in the corrected screen, names no tapes, or shares one with it.

    Examples
    --------
    >>> def rung(verdict, effect, tape, look):
    ...     pair = TestRow(family="seed_effect", hypothesis="pairwise", metric="mtld", contrast="a-b",
    ...                    method="t", role="decides", effect=effect, estimate=effect, low=effect - 0.1,
    ...                    high=effect + 0.1)
    ...     end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict", p=0.001,
    ...                   verdict=verdict)
    ...     return Rung(model="m", parameters=9, rows=[pair, end], tapes=frozenset({tape}), look=look,
    ...                 looks=(look,))
    >>> screen = [rung("DETECTED", 0.5, "first", 40)]
    >>> for effect in (0.4, -0.4):
    ...     row = scale_up_rows(screen, [rung("DETECTED", effect, "second", 20)])[0]
    ...     print(row.verdict, row.reason)
    DETECTED None
    INCONCLUSIVE no interval excludes zero on the same side in the screen and in the fresh run
    """
    before = {rung.model: rung for rung in screen}
    screened = {row.contrast: row for row in rung_rows(screen, alpha=screen_alpha, gamma=gamma)}
    for rung in fresh:
        _check_fresh(rung, before.get(rung.model), screened.get(rung.model))
    enough = [_enough(rung, samples) for rung in fresh]
    by_model = {rung.model: rung for rung in enough}
    rows = [
        _confirmed(row, before[row.contrast], by_model[row.contrast])
        for row in rung_rows(enough, alpha=alpha, gamma=gamma)
    ]
    return [*rows, ladder_end_row(rows, family="scale_up")]


def _check_fresh(rung: Rung, before: Rung | None, screened: TestRow | None) -> None:
    if before is None or screened is None or screened.verdict != "DETECTED":
        found = "not on the ladder" if screened is None else screened.verdict or screened.reason
        raise ValueError(f"{rung.model} is {found}; only a rung that the screen DETECTED is confirmed")
    if rung.rows and (not rung.tapes or rung.tapes & before.tapes):
        shared = ", ".join(sorted(rung.tapes & before.tapes)) or "none named"
        raise ValueError(f"tapes of {rung.model} shared with the screen: {shared}; a fresh run has its own")


def _enough(rung: Rung, samples: int) -> Rung:
    if not rung.rows or rung.look >= samples:
        return rung
    return replace(rung, rows=(), skipped=f"{rung.look} fresh samples a cell; a confirmation has {samples}")


def _confirmed(row: TestRow, before: Rung, rung: Rung) -> TestRow:
    row = replace(row, family="scale_up")
    if rung.skipped:
        return replace(row, verdict="INVALID")
    if row.verdict == "DETECTED" and not _sides(before) & _sides(rung):
        why = "no interval excludes zero on the same side in the screen and in the fresh run"
        return replace(row, verdict="INCONCLUSIVE", reason=why)
    return row


def _sides(rung: Rung) -> set[tuple[str, str, bool]]:
    """(metric, contrast, above zero) of each deciding interval that excludes zero."""
    pairs = [row for row in rung.rows if row.hypothesis == "pairwise" and row.role == "decides"]
    found = [(row, row.low, row.high) for row in pairs if row.low is not None and row.high is not None]
    return {(row.metric, row.contrast, low > 0.0) for row, low, high in found if low > 0.0 or high < 0.0}
