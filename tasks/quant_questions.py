"""What each experiment of the quantisation study asks of the measured bits; a plain function an experiment.

Every function returns the rows of one replicate; the views read the one of hypothesis `experiment`. A variant
whose losses are no numbers, or that collapsed, makes its question INVALID. A sweep over blocks is read
without the languages that it has no numbers of: the unit there is the document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from stats.aligned_bootstrap import interval_row, intervals
from stats.disparity import analyse_disparity
from stats.layer_effects import analyse_layers
from stats.legacy_disparity import legacy_disparity, legacy_ratio_interval, legacy_rows
from stats.preservation import analyse_preservation, choose_budget
from stats.rows import TestRow
from tasks.quant_measured import PLAIN, Measured, left_out, swept
from tasks.quant_nulls import MAIN, null_rows

MOST_SETS = 12
"""Random sets of blocks that the chosen ones are compared with."""


def verdict_row(row: TestRow, family: str, rows: Sequence[TestRow] = ()) -> TestRow:
    """The row that the views read; EQUIVALENT has the interval it rests on, that of the one-sided tests.

    Parameters
    ----------
    rows
        Those of the same question, the `_tost` row among them.
    """
    found = replace(row, family=family, hypothesis="experiment", role="verdict")
    tost = [
        one
        for one in rows
        if one.role == "equivalence"
        and (one.hypothesis, one.metric, one.contrast) == (f"{row.hypothesis}_tost", row.metric, row.contrast)
    ]
    if row.verdict != "EQUIVALENT" or not tost:
        return found
    return replace(found, low=tost[0].low, high=tost[0].high, method=tost[0].method)


def shown(rows: Sequence[TestRow], family: str) -> list[TestRow]:
    """Rows beside the question: nothing of them decides."""
    return [
        replace(
            row,
            family=family,
            role="secondary" if row.role in ("decides", "verdict") else row.role,
            verdict=None,
            negligible=None,
        )
        for row in rows
    ]


def baseline(at: Measured, family: str) -> list[TestRow]:
    """A-001: what each language costs, and how far below its own unigram model."""
    codes, broken = at.aligned.languages, at.reasons(PLAIN)
    saved = at.unigram_bits - at.aligned.bits
    rows: list[TestRow] = []
    for hypothesis, values in (("cost", at.aligned.bits), ("saved_against_unigram", saved)):
        means = at.drawn.means(np.where(np.isfinite(values), values, 0.0))
        for code, own, found in zip(codes, values, intervals(means, at.drawn, at.asked.alpha), strict=True):
            bare = TestRow(
                family=family,
                hypothesis=hypothesis,
                metric="bits_per_sentence",
                contrast=code,
                method=found.method,
                role="secondary",
                reason=broken.get(code, "undefined"),
            )
            rows.append(interval_row(bare, found) if np.isfinite(own).all() else bare)
    nearest = min(rows[len(codes) :], key=lambda row: row.estimate if row.estimate is not None else -np.inf)
    above = nearest.low is not None and nearest.low > 0.0
    return [
        *rows,
        replace(
            verdict_row(nearest, family),
            n=len(codes),
            verdict="DETECTED" if above and not broken else "INVALID",
            reason="; ".join(broken.values()) or (None if above else f"{nearest.contrast} is not below it"),
        ),
    ]


def degradation(at: Measured, family: str) -> list[TestRow]:
    """A-002: what INT4 costs; INVALID when a null is off zero, or the order of the bit widths is wrong."""
    asked = at.asked
    pair = {MAIN: (at.bits(MAIN), at.aligned.bits)}
    rows = [
        replace(row, family=family, hypothesis=row.hypothesis.replace("benefit", "cost"))
        for row in analyse_preservation(
            at.aligned,
            pair,
            margin=asked.margin,
            drawn=at.drawn,
            alpha=asked.alpha,
            unusable=at.unusable(MAIN),
            rng=at.rng(),
        )
    ]
    cost = next(row for row in rows if row.role == "decides")
    return [*rows, *null_rows(at, family), verdict_row(cost, family, rows)]


def disparity(at: Measured, family: str, others: Sequence[str]) -> list[TestRow]:
    """A-003 and D: does INT4 cost low-resource languages more; other roundings and legacy columns beside."""
    asked, names = at.asked, [name for name in others if name in at.bodies]
    rows = [
        replace(row, family=family)
        for row in analyse_disparity(
            at.aligned,
            {MAIN: at.bits(MAIN)},
            margin=asked.margin,
            drawn=at.drawn,
            alpha=asked.alpha,
            unusable=at.unusable(MAIN),
            rng=at.rng(),
        )
    ]
    beside = analyse_disparity(
        at.aligned,
        {name: at.bits(name) for name in names},
        margin=asked.margin,
        drawn=at.drawn,
        alpha=asked.alpha,
        unusable=at.unusable(*names),
        rng=at.rng(),
    )
    legacy = [row for name in (MAIN, *names) if not at.reasons(name) for row in _legacy(at, name, family)]
    gap = next(row for row in rows if row.role == "decides")
    return [*rows, *shown(beside, family), *legacy, verdict_row(gap, family, rows)]


def _legacy(at: Measured, name: str, family: str) -> list[TestRow]:
    tokens = at.column(PLAIN, "tokens")
    before, after = (at.bits(one) for one in (PLAIN, name))
    codes = at.aligned.languages
    perplexities = (np.exp2(bits.sum(axis=1) / tokens.sum(axis=1)) for bits in (before, after))
    given = {code: (float(x), float(y)) for code, x, y in zip(codes, *perplexities, strict=True)}
    low = {one.code: one.tier == "low" for one in at.asked.languages}
    is_low = [low[code] for code in codes]
    ratio = legacy_ratio_interval(before, after, tokens, is_low, at.drawn, alpha=at.asked.alpha)
    rows = legacy_rows(legacy_disparity(given, low, high_touches_zero=ratio.low is None), name, family=family)
    return [
        replace(row, low=ratio.low, high=ratio.high) if row.hypothesis == "degradation_ratio" else row
        for row in rows
    ]


def budgets(
    at: Measured,
    pairs: Mapping[str, tuple[str, str, str]],
    selectors: Sequence[str],
    absent: Mapping[str, str],
) -> list[TestRow]:
    """B-001 to B-003: each budget against a random mask of equal bits, Holm over the budgets.

    Parameters
    ----------
    pairs
        Experiment -> names of its question, of the random variant and of the selector's variant.
    selectors
        Every other preserved variant, shown for the Pareto table.
    absent
        Experiment -> why it was not measured: it stays in the family and is INVALID.
    """
    asked = at.asked
    nothing = np.full(at.aligned.bits.shape, np.nan)
    given, unusable = {}, {}
    for experiment, (question, control, treated) in pairs.items():
        here = experiment not in absent
        given[question] = (at.bits(control), at.bits(treated)) if here else (nothing, nothing)
        why = {**at.reasons(control), **at.reasons(treated)} if here else {}
        unusable[question] = why if here else {"every language": absent[experiment]}
    rows = analyse_preservation(
        at.aligned,
        given,
        margin=asked.margin,
        drawn=at.drawn,
        alpha=asked.alpha,
        unusable={name: why for name, why in unusable.items() if why},
        rng=at.rng(),
    )
    found: list[TestRow] = []
    for experiment, (question, _, _) in pairs.items():
        own = [replace(row, family=experiment) for row in rows if row.contrast.split(":")[0] == question]
        decides = next(row for row in own if row.role == "decides")
        found += [*own, verdict_row(decides, experiment, own)]
    there = [name for name in selectors if name in at.bodies]
    pareto = analyse_disparity(
        at.aligned,
        {name: at.bits(name) for name in (MAIN, *there)},
        margin=asked.margin,
        drawn=at.drawn,
        alpha=asked.alpha,
        unusable=at.unusable(MAIN, *there),
        rng=at.rng(),
    )
    kept = ("gap", "gap_fixed_languages", "mean_change", "change")
    return [*found, *shown([row for row in pareto if row.hypothesis in kept], "pareto")]


def best_budget(at: Measured, names: Mapping[float, str], family: str) -> list[TestRow]:
    """B-004: the budget chosen on one half of the documents, what it saves on the other.

    Parameters
    ----------
    names
        Percent kept -> name of the selector's variant.
    """
    chosen_on, reported_on = (at.on(half) for half in at.sentences.halves())
    percents = sorted(names)
    broken = [why for name in (MAIN, *names.values()) for why in at.reasons(name).values()]
    if broken:
        gone = TestRow(
            family=family, hypothesis="benefit", method="not chosen", role="decides", verdict="INVALID"
        )
        return [verdict_row(replace(gone, reason="; ".join(dict.fromkeys(broken))), family)]
    choice = choose_budget(
        percents,
        [chosen_on.bits(names[p]) - chosen_on.aligned.bits for p in percents],
        chosen_on.drawn,
    )
    chosen = names[choice.percent]
    rows = [
        replace(row, family=family)
        for row in analyse_preservation(
            reported_on.aligned,
            {chosen: (reported_on.bits(MAIN), reported_on.bits(chosen))},
            margin=at.asked.margin,
            drawn=reported_on.drawn,
            alpha=at.asked.alpha,
            unusable=reported_on.unusable(chosen),
            rng=at.rng(),
        )
    ]
    shared = TestRow(
        family=family, hypothesis="chosen", method=choice.method, role="diagnostic", estimate=choice.percent
    )
    means = [
        replace(shared, hypothesis="mean_change", contrast=names[p], estimate=mean, metric="delta_bits")
        for p, mean in zip(percents, choice.means, strict=True)
    ]
    decides = next(row for row in rows if row.role == "decides")
    return [
        replace(shared, metric="percent", contrast=chosen, n=choice.n),
        *means,
        *rows,
        verdict_row(decides, family, rows),
    ]


def critical_blocks(at: Measured, sweep: Mapping[str, Any], family: str) -> tuple[list[TestRow], list[float]]:
    """C-001 on one half of the documents; also what keeping each block saves, to choose by.

    Nothing is saved, as an empty list, where a tier of languages has no numbers.
    """
    gone = left_out(at, sweep)
    half = at.on(at.sentences.halves()[0]).without(gone)
    if not _has_both_tiers(half):
        return _unanswered(gone, "protect_contrast", family), []
    quantised, protected, only = (swept(half, sweep, name) for name in ("quantised", "protected", "only"))
    told = [sweep["languages"][one.code]["diagnostics"] for one in half.asked.languages]
    diagnostics = {
        name: [float(np.mean([blocks[b][name] for blocks in told])) for b in range(len(protected))]
        for name in ("weight_kurtosis", "activation_outliers", "mean_activation")
    }
    rows = analyse_layers(
        half.aligned,
        quantised,
        protected,
        only=only,
        margin=at.asked.margin,
        drawn=half.drawn,
        rng=at.rng(),
        diagnostics=diagnostics,
        alpha=at.asked.alpha,
    )
    named = [replace(row, family=family) for row in rows]
    saved = (quantised[None] - protected).mean(axis=(1, 2))
    verdict = _naming(most_critical(named, family), gone)
    return [*named[:-1], *_gone_rows(gone, family), verdict], saved.tolist()


def _has_both_tiers(at: Measured) -> bool:
    return len({one.tier == "low" for one in at.asked.languages}) == 2


def _unanswered(gone: Mapping[str, str], hypothesis: str, family: str) -> list[TestRow]:
    """INVALID: without the languages that have no numbers, no low- or no high-resource language is left."""
    reason = f"a tier has no language left: {'; '.join(dict.fromkeys(gone.values()))}"
    bare = TestRow(
        family=family, hypothesis=hypothesis, method="not tested", role="decides", verdict="INVALID",
        reason=reason,
    )  # fmt: skip
    return [*_gone_rows(gone, family), verdict_row(bare, family)]


def _gone_rows(gone: Mapping[str, str], family: str) -> list[TestRow]:
    """A row for each language that is left out."""
    bare = TestRow(family=family, hypothesis="left_out", method="none", role="diagnostic", reason="undefined")
    return [replace(bare, contrast=code, reason=why) for code, why in gone.items()]


def _naming(row: TestRow, gone: Mapping[str, str]) -> TestRow:
    """The verdict with the languages it does not speak of."""
    if not gone:
        return row
    told = f"left out: {'; '.join(gone.values())}"
    return replace(row, reason=told if row.reason is None else f"{row.reason}; {told}")


def most_critical(rows: Sequence[TestRow], family: str) -> TestRow:
    """The family's answer to whether some block saves more than the mean block does.

    Contrasts sum to zero, so some are below it, and one detected there answers nothing. DETECTED names the
    block that saves most; EQUIVALENT needs every block inside the margin, detected or not.
    """
    verdict = rows[-1]
    blocks = [row for row in rows if row.role == "decides"]
    if verdict.verdict == "INVALID":
        return verdict_row(verdict, family)
    found = [row for row in blocks if row.verdict == "DETECTED" and not row.negligible]
    above = [row for row in found if (row.estimate or 0.0) > 0.0]
    if above:
        return verdict_row(max(above, key=lambda row: row.estimate or 0.0), family)
    inside = [
        row for row in rows if row.role == "equivalence" and row.hypothesis == f"{blocks[0].hypothesis}_tost"
    ]
    if all(row.p is not None and row.p <= (row.alpha or 0.0) for row in inside):
        widest = max(inside, key=lambda row: max(abs(row.low or 0.0), abs(row.high or 0.0)))
        return verdict_row(
            replace(widest, verdict="EQUIVALENT", negligible=None, contrast=f"{len(inside)} blocks"), family
        )
    why = "blocks save less than the mean block, none is shown to save more" if found else None
    return verdict_row(replace(verdict, verdict="INCONCLUSIVE", negligible=None, reason=why), family)


def chosen_sets(saved: Sequence[float], keep: int, seed: int) -> list[tuple[int, ...]]:
    """The `keep` blocks that save most, then other sets of as many: all of them, or a draw.

    >>> chosen_sets([0.1, 0.9, 0.2], 1, 0)
    [(1,), (0,), (2,)]
    """
    best = tuple(sorted(sorted(range(len(saved)), key=lambda b: -saved[b])[:keep]))
    others = [one for one in combinations(range(len(saved)), keep) if one != best]
    if len(others) > MOST_SETS:
        places = np.random.default_rng(seed).choice(len(others), MOST_SETS, replace=False)
        others = [others[i] for i in sorted(places)]
    return [best, *others]


def layer_protection(
    at: Measured, sweep: Mapping[str, Any], sets: Sequence[Sequence[int]], family: str
) -> list[TestRow]:
    """C-002: the chosen blocks against the mean of other sets of as many, on the half not chosen on."""
    if len(sets) < 2:
        none = TestRow(family=family, hypothesis="benefit", method="", role="decides", verdict="INVALID")
        why = f"{len(sets[0])} blocks are all there are: no others to compare with (lower keep_blocks)"
        return [verdict_row(replace(none, reason=why), family)]
    gone = left_out(at, sweep)
    half = at.on(at.sentences.halves()[1]).without(gone)
    if not _has_both_tiers(half):
        return _unanswered(gone, "benefit", family)
    kept = swept(half, sweep, "kept_sets")
    question = f"blocks {','.join(map(str, sets[0]))}"
    rows = [
        replace(row, family=family)
        for row in analyse_preservation(
            half.aligned,
            {question: (kept[1:].mean(axis=0), kept[0])},
            margin=at.asked.margin,
            drawn=half.drawn,
            alpha=at.asked.alpha,
            unit="document",
            rng=at.rng(),
        )
    ]
    decides = next(row for row in rows if row.role == "decides")
    return [*rows, *_gone_rows(gone, family), _naming(verdict_row(decides, family, rows), gone)]
