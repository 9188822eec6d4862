"""What perplexities of an earlier script say: the legacy ratio, and beside it the gap in nats a token.

They cannot bear a verdict, and the row that concludes is INCONCLUSIVE with what is missing. The permutation
of labels over languages is shown beside it: its unit is the language, of which such a file does have some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.earlier_perplexities import LOW, EarlierPerplexities
from lab.fingerprint import code, fingerprint
from lab.products import Products
from lab.records import MetricRow, Record
from stats.language_tests import label_permutations, shift_test
from stats.language_verdicts import shift_rows
from stats.legacy_disparity import LegacyDisparity, legacy_disparity, legacy_rows
from stats.rows import TestRow
from tasks.imported_steps import Owner, step
from tasks.shell import product_key

KIND = "perplexities"
FAMILY = "disparity_import"
"""Family of the row that concludes and name of the gate, so that the report finds one by the other."""
VARIANT = "quantised"
MARGIN_NATS, ALPHA = 0.05, 0.05
LOOK = 1
"""A language gives one perplexity a side."""
MISSING = (
    "perplexities decide nothing: no sentences to resample, no null run, no check for collapse, and a token "
    "is not as much text in one language as in another"
)
SMALL_PERCENT = 5.0
"""A high-resource mean under this is a small number to divide by."""


def analyse_file(file: EarlierPerplexities) -> dict[str, Any]:
    """Compute every answer.

    Returns
    -------
    dict
        `tests`: rows of the analysis; `shown`: what the terminal shows, numbers and sentences.
    """
    is_low = {language: tier == LOW for language, tier in file.tiers.items()}
    found = legacy_disparity(file.perplexities, is_low)
    gap, equivalence = _permutation(found, is_low)
    verdict = replace(
        gap, family=FAMILY, hypothesis="verdict", role="verdict", verdict="INCONCLUSIVE", reason=MISSING
    )
    rows = [*legacy_rows(found, VARIANT), gap, equivalence, verdict]
    return {
        "tests": [asdict(row) for row in rows],
        "shown": _shown(found, gap, what_the_ratio_hides(found, is_low)),
    }


def _permutation(found: LegacyDisparity, is_low: Mapping[str, bool]) -> list[TestRow]:
    """Labels permuted over languages, on ln(PPL_q / PPL_0), and its two one-sided tests."""
    nats = np.array(list(found.change_nats.values()))
    low = [is_low[language] for language in found.change_nats]
    bare = TestRow(
        family="language_permutation",
        hypothesis="gap",
        metric="nats_per_token",
        contrast=VARIANT,
        method="",
        role="secondary",
        n=len(low),
        reason="undefined",
    )
    test = shift_test(nats, label_permutations(low, rng=np.random.default_rng(0)))
    return shift_rows(test, bare, margin=MARGIN_NATS, alpha=ALPHA)


def _shown(found: LegacyDisparity, gap: TestRow, hides: str) -> dict[str, Any]:
    return {
        "n_low": found.n_low,
        "n_high": found.n_high,
        "mean_low_percent": found.mean_low_percent,
        "mean_high_percent": found.mean_high_percent,
        "ratio": found.ratio,
        "word": found.word,
        "ratio_reason": found.reason,
        "gap_nats": found.gap_nats,
        "low_nats": gap.low,
        "high_nats": gap.high,
        "p": gap.p,
        "alpha": gap.alpha,
        "interval_reason": gap.reason,
        "hides": hides,
    }


def what_the_ratio_hides(found: LegacyDisparity, is_low: Mapping[str, bool]) -> str:
    """One sentence on what the number does not show.

    In order: that it is undefined while the gap is not; that its divisor is a small number; that one language
    makes most of its numerator; that percentages of perplexity grow exponentially with the loss.

    >>> given = {"en": (20.0, 20.2), "sw": (30.0, 45.0)}
    >>> is_low = {"en": False, "sw": True}
    >>> what_the_ratio_hides(legacy_disparity(given, is_low), is_low)
    'The ratio divides by a mean of 1 %: at one percentage point more there, 50 becomes 25'
    """
    if found.ratio is None:
        reason = str(found.reason).removeprefix("undefined: ")
        return f"There is no ratio, since {reason}; the gap in nats is defined all the same"
    if found.mean_high_percent < SMALL_PERCENT:
        other = found.mean_low_percent / (found.mean_high_percent + 1.0)
        return (
            f"The ratio divides by a mean of {found.mean_high_percent:.3g} %: at one percentage point more "
            f"there, {found.ratio:.4g} becomes {other:.4g}"
        )
    alone = _without_worst(found, is_low)
    if alone is not None and alone[1] < found.mean_low_percent / 2.0:
        other = alone[1] / found.mean_high_percent
        return (
            f"Most of the low-resource mean is {alone[0]}: without it, {found.ratio:.4g} becomes {other:.4g}"
        )
    return (
        f"In factors of perplexity, low-resource languages grow by {math.exp(found.gap_nats):.4g} times what "
        f"high-resource ones do; percentages make a ratio of {found.ratio:.4g} of it"
    )


def _without_worst(found: LegacyDisparity, is_low: Mapping[str, bool]) -> tuple[str, float] | None:
    """The low-resource language that loses most, and the mean of the others; None where there are none."""
    low = {code: percent for code, percent in found.degradation_percent.items() if is_low[code]}
    if len(low) < 2:
        return None
    worst = max(low, key=low.__getitem__)
    return worst, sum(percent for code, percent in low.items() if code != worst) / (len(low) - 1)


def analysis_key(file: EarlierPerplexities) -> str:
    """Fingerprint of the file's content, the tiers and the code."""
    return fingerprint([file.sha256, dict(file.tiers), code("tasks.importing_perplexities")])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse perplexities",
    task_run_name="analyse perplexities, {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse_perplexities(home: str, what: str, file: EarlierPerplexities, key: str) -> dict[str, Any]:
    """Analyse a file; the product is what `analyse_file` returns."""
    body = analyse_file(file)
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(body["tests"])}


def given_rows(owner: Owner, file: EarlierPerplexities, key: str) -> list[Record]:
    """Step of the file with its perplexities, step of the analysis, and that they belong to the plan."""
    config = {"imported": file.sha256, "tiers": dict(file.tiers)}
    given = fingerprint(config)
    rows: list[Record] = [
        *step(owner, given, "perplexities", config, code("lab.earlier_perplexities")),
        *step(owner, key, "analyse", config, code("tasks.importing_perplexities")),
    ]
    return rows + [
        MetricRow(step_id=given, unit=f"{side}/{language}", name="perplexity", value=value, reason=None)
        for language, pair in file.perplexities.items()
        for side, value in zip(("baseline", VARIANT), pair, strict=True)
    ]
