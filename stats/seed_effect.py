"""Does the source change the mean? One family of tests and its verdict, as the flow uses it at every look.

A metric's fit gives the omnibus F, all pairwise differences with Tukey intervals, and their equivalence
tests. Holm over the primary metrics' omnibus tests and the look's level of the spending function decide;
secondary metrics form a family of their own. The campaign in `tests/seed_effect_campaign.py` runs this code.

Verdicts, in order of precedence: INVALID when a primary test is undefined; DETECTED when a primary omnibus
test rejects after Holm and a Tukey interval of that metric excludes zero; EQUIVALENT when every primary
contrast passes the equivalence test; else INCONCLUSIVE. All at the look's level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stats.metric_tests import (
    FamilyPlan,
    Gap,
    LabelledRows,
    MetricTests,
    answer_metric,
    contrast_rows,
    label_rows,
    omnibus_row,
)
from stats.multiplicity import correct_rows
from stats.power import (
    Components,
    Size,
    detectable_effect,
    detection_power,
    prompts_to_settle,
    samples_to_settle,
)
from stats.rows import FloatArray, TestRow
from stats.sequential import look_levels

VERDICT_NAME = "Holm over omnibus tests, Tukey intervals, intersection-union of equivalence tests"


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the plan fixes about the comparison of sources."""

    primary: tuple[str, ...]
    secondary: tuple[str, ...] = ()
    margin_sd: float = 0.2
    """Smallest effect of interest, in within-cell SD."""
    alpha: float = 0.05
    """Error over all looks."""
    gamma: float = -4.0
    """Hwang-Shih-DeCani shape."""
    looks: tuple[int, ...]
    """Samples a cell at each look."""
    look: int
    """The current one."""
    sources: tuple[str, ...] = ()
    """Sources that must be there; empty for those found in the rows."""

    def __post_init__(self) -> None:
        if not self.primary:
            raise ValueError("no primary metric; a verdict needs at least one")
        if self.look not in self.looks:
            raise ValueError(f"look {self.look} is not among the planned looks {self.looks}")
        for names in (self.primary, self.secondary, self.sources):
            if len(set(names)) < len(names):
                raise ValueError(f"{names} names one twice; a test counted twice widens its family")
        if set(self.primary) & set(self.secondary):
            raise ValueError(f"{set(self.primary) & set(self.secondary)} cannot be primary and secondary")
        if not self.margin_sd > 0.0:
            raise ValueError(f"margin_sd = {self.margin_sd}; must be above 0")


def analyse_seed_effect(
    values: Mapping[str, FloatArray],
    *,
    source: Sequence[str],
    prompt: Sequence[str],
    stream: Sequence[str],
    design: Design,
    family: str = "seed_effect",
) -> list[TestRow]:
    """Compare the sources on every metric of the design, at one look.

    Parameters
    ----------
    values
        Metric -> (n,) values, one a text; NaN where the text has none, and the text is left out for it.
    source, prompt, stream
        (n,) labels.

    Returns
    -------
    list of TestRow
        Per metric an `omnibus` row, then `pairwise` and `tost` rows for each contrast (`estimate`, `low`,
        `high` in the metric's units, `effect` in within-cell SD; `p_adjusted` of a pairwise row is Tukey's),
        `diagnostic` omnibus rows, and at the end the one `verdict` row.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> labels = [(s, p) for p in "12345678" for s in ("prng", "trng") for _ in range(10)]
    >>> y = rng.normal(size=160) + np.array([0.9 * (s == "prng") for s, _ in labels])
    >>> rows = analyse_seed_effect(
    ...     {"mtld": y},
    ...     source=[s for s, _ in labels],
    ...     prompt=[p for _, p in labels],
    ...     stream=["1"] * 160,
    ...     design=Design(primary=("mtld",), looks=(10,), look=10),
    ... )
    >>> rows[-1].verdict, rows[-1].n, round(rows[-1].mde, 2)
    ('DETECTED', 160, 0.36)
    """
    names = design.sources or tuple(sorted(set(source)))
    levels = look_levels(design.looks, alpha=design.alpha, gamma=design.gamma, groups=max(2, len(names)))
    plan = FamilyPlan(
        family=family,
        primary=design.primary,
        secondary=design.secondary,
        margin=design.margin_sd,
        alpha=levels[design.look],
        last_alpha=levels[design.looks[-1]],
    )
    return _analyse(values, label_rows(names, source, prompt, stream), plan)


def compare_arms(
    values: Mapping[str, FloatArray],
    *,
    source: Sequence[str],
    prompt: Sequence[str],
    stream: Sequence[str],
    design_alpha: float,
    primary: tuple[str, ...],
    margin_sd: float,
    family: str,
) -> list[TestRow]:
    """Compare two arms at one fixed level: the A/A arm at .001, the positive control.

    Same rows as `analyse_seed_effect`, for the primary metrics only. With two arms and balanced data every
    test is the paired t test on prompt means. Rows of fewer than two arms end in an INVALID verdict.

    Raises
    ------
    ValueError
        When the rows hold more than two arms.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1, 2, 3, 4, 2, 3, 3, 4, 3, 4, 4, 5, 6, 7, 5, 6], dtype=float)
    >>> rows = compare_arms(
    ...     {"m": y},
    ...     source=list("aabb" * 4),
    ...     prompt=list("1111222233334444"),
    ...     stream=["s"] * 16,
    ...     design_alpha=0.001,
    ...     primary=("m",),
    ...     margin_sd=0.2,
    ...     family="a_a",
    ... )
    >>> rows[-1].family, rows[-1].verdict, round(rows[0].p, 4)
    ('a_a', 'INCONCLUSIVE', 0.3189)
    """
    names = tuple(sorted(set(source)))
    if len(names) > 2:
        raise ValueError(f"{len(names)} arms ({', '.join(names)}); give the rows of two")
    plan = FamilyPlan(
        family=family,
        primary=primary,
        secondary=(),
        margin=margin_sd,
        alpha=design_alpha,
        last_alpha=design_alpha,
    )
    return _analyse(values, label_rows(names, source, prompt, stream), plan)


def _analyse(values: Mapping[str, FloatArray], rows: LabelledRows, plan: FamilyPlan) -> list[TestRow]:
    out: list[TestRow] = []
    primary: list[MetricTests | Gap] = []
    decided: list[TestRow] = []
    for metrics, family, role in (
        (plan.primary, plan.family, "decides"),
        (plan.secondary, f"{plan.family}_secondary", "secondary"),
    ):
        answers = [answer_metric(values, metric, rows, plan) for metric in metrics]
        tests = correct_rows([omnibus_row(answer, family, role, plan) for answer in answers]).rows
        for answer, test in zip(answers, tests, strict=True):
            out.append(test)
            out.extend(contrast_rows(answer, rows.names, family, role, plan))
        if role == "decides":
            primary, decided = answers, tests
    return [*out, _verdict_row(primary, decided, plan)]


def _verdict_row(answers: Sequence[MetricTests | Gap], tests: Sequence[TestRow], plan: FamilyPlan) -> TestRow:
    gaps = [answer for answer in answers if isinstance(answer, Gap)]
    whole = [answer for answer in answers if isinstance(answer, MetricTests)]
    row = TestRow(
        family=plan.family,
        hypothesis="verdict",
        method=VERDICT_NAME,
        role="verdict",
        alpha=plan.alpha,
        margin=plan.margin,
        n=min(answer.n for answer in answers),
        verdict="INVALID",
        reason="; ".join(f"{gap.metric}: {gap.reason}" for gap in gaps) or None,
    )
    if gaps:
        return row
    inside = all(test.equivalent for answer in whole for test in answer.equivalence)
    detected = any(_detected(answer, test, plan) for answer, test in zip(whole, tests, strict=True))
    verdict = "DETECTED" if detected else "EQUIVALENT" if inside else "INCONCLUSIVE"
    largest, sd = max(
        ((c, answer.sd) for answer in whole for c in answer.contrasts),
        key=lambda pair: abs(pair[0].estimate) / pair[1],
    )
    p = min(test.p_adjusted for test in tests if test.p_adjusted is not None)
    return replace(
        _with_power(replace(row, verdict=verdict), whole, plan),
        negligible=detected and inside,
        effect=largest.estimate / sd,
        low=largest.low_tukey / sd,
        high=largest.high_tukey / sd,
        p=p,
        p_adjusted=p,
    )


def _detected(answer: MetricTests, test: TestRow, plan: FamilyPlan) -> bool:
    rejects = test.p_adjusted is not None and test.p_adjusted < plan.alpha
    return rejects and any(c.low_tukey > 0.0 or c.high_tukey < 0.0 for c in answer.contrasts)


def _with_power(row: TestRow, answers: Sequence[MetricTests], plan: FamilyPlan) -> TestRow:
    """Power, detectable effect and samples that settle, of the least favourable primary metric."""
    metrics = len(plan.primary)
    power, mde, needed = [], [], []
    for answer in answers:
        groups = len(answer.fit.means)
        se, df = max((c.se / answer.sd, c.df) for c in answer.contrasts)
        power.append(detection_power(plan.margin, se, df, plan.alpha, groups=groups, metrics=metrics))
        mde.append(detectable_effect(se, df, plan.alpha, groups=groups, metrics=metrics))
        needed.append(
            samples_to_settle(*_design_of(answer), margin=plan.margin, alpha=plan.last_alpha, metrics=metrics)
        )
    row = replace(row, power=min(power), mde=max(mde))
    counts = [count for count in needed if count is not None]
    if len(counts) == len(needed):
        return replace(row, n_to_settle=max(counts))
    if row.verdict != "INCONCLUSIVE":
        return row
    stuck = [answer for answer, count in zip(answers, needed, strict=True) if count is None]
    return replace(row, reason=_why_stuck(stuck, plan))


def _design_of(answer: MetricTests) -> tuple[Components, Size]:
    """Variances in within-cell SD units, at least 0, and the balanced design nearest to this one."""
    layout, unit = answer.fit.layout, answer.fit.residual / answer.sd**2
    ratios = [max(0.0, float(ratio)) * unit for ratio in answer.fit.ratios]
    groups = len(answer.fit.means)
    samples = max(1, round(layout.n / (layout.prompts * groups * layout.streams)))
    return (
        Components(within=unit, prompt_source=ratios[1], stream=ratios[2] if layout.levels else 0.0),
        Size(prompts=layout.prompts, samples=samples, streams=layout.streams, groups=groups),
    )


def _why_stuck(stuck: Sequence[MetricTests], plan: FamilyPlan) -> str:
    prompts = [
        prompts_to_settle(
            *_design_of(answer), margin=plan.margin, alpha=plan.last_alpha, metrics=len(plan.primary)
        )
        for answer in stuck
    ]
    counts = [count for count in prompts if count is not None]
    why = "no number of samples settles it, prompts or streams differ too much between sources"
    if len(counts) < len(prompts):
        return f"{why}; nor does any number of prompts: more streams are needed"
    return f"{why}; {max(counts)} prompts of this many samples would"
