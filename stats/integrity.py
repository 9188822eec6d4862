"""Can these data answer anything: missing texts, repeated texts, and texts that a seed does not determine.

Four questions are asked of the outcomes of all jobs, failed ones included, and end in one verdict. Too many
missing texts, different seeds that give the same text, or one seed that gives different texts make the data
INVALID, and so does missingness that differs so much between arms that it alone could be an effect. One that
depends on the arm but differs less, a share that is low without being surely low, and too few pairs make it
INCONCLUSIVE: the study goes on, flagged. Otherwise the assay works, DETECTED.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stats.diversity import MIN_WORDS
from stats.multiplicity import correct_rows
from stats.proportions import Share, equal_shares, wilson
from stats.rows import TestRow

FAMILY = "integrity"
MOST_MISSING = 0.20
"""A model that loses a larger share of its texts is INVALID, as is one with an arm that surely does."""
MOST_UNEVEN = 0.02
"""Between arms, by the share that is missing. Cut off at one end, 2 % of a normal distribution move its mean
by .05 SD, 5 % by .11, and nobody knows that it is not the longest texts that are missing. Of simulated
studies without a difference, 30 prompts and up to 40 samples, .07 are DETECTED with 2 % cut off in one arm,
.34 with 4 %.
"""
DISTINCT_SHARE = 0.95
"""Share of different texts over different seeds, on prompts that leave room for them."""
IDENTITY_RATE = 0.99
"""The Wilson upper bound on the share of identical same-seed repeats must reach this."""
ROOMY_CONSTRAINTS = ("open", "medium")
"""Prompts on which different seeds should write different texts; short factual answers may repeat."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one job."""

    arm: str
    prompt_id: str
    constraint: str
    """Room the prompt leaves: open, medium or high."""
    seed32: int
    sample: int
    """Index within arm and prompt."""
    probe: int
    """0 for the sample itself, 1.. for repeats of it with the same seed."""
    text_ok: bool
    """False for an error, a timeout, no words, or an unclosed think tag."""
    reason: str | None
    """Why there is no text; None with `text_ok`."""
    words: int | None
    """Words of the text after stripping."""
    text_sha: str | None
    """Hash of the text; equal hashes are equal texts."""
    undefined: frozenset[str] = frozenset()
    """Primary metrics that the text, there and long enough, has no value of."""

    def __post_init__(self) -> None:
        if self.text_ok and (self.words is None or self.text_sha is None):
            raise ValueError(
                f"{self._place} has a text but words {self.words} and hash {self.text_sha}; give both"
            )
        if not self.text_ok and not self.reason:
            raise ValueError(f"{self._place} has neither a text nor a reason; say why it failed")

    @property
    def _place(self) -> str:
        return f"outcome {self.arm}/{self.prompt_id}/{self.sample}/{self.probe}"


def _failed(outcome: Outcome) -> bool:
    return not outcome.text_ok


def _timed_out(outcome: Outcome) -> bool:
    reason = (outcome.reason or "").lower()
    return not outcome.text_ok and ("timeout" in reason or "timed out" in reason)


def _too_short(outcome: Outcome) -> bool:
    return outcome.text_ok and (outcome.words or 0) < MIN_WORDS


def _missing(outcome: Outcome) -> bool:
    return _failed(outcome) or _too_short(outcome)


KINDS: dict[str, Callable[[Outcome], bool]] = {
    "missing": _missing,
    "failed": _failed,
    "timed_out": _timed_out,
    "too_short": _too_short,
}
"""missing = failed or too short (under 10 words); timed_out, the censored ones, is a part of failed."""
PARTS = ("failed", "timed_out", "too_short")
"""What missing is made of."""


def integrity_rows(
    outcomes: Sequence[Outcome],
    *,
    required_pairs: int = 400,
    rng: np.random.Generator,
    alpha: float = 0.01,
    n_draws: int = 9999,
    group_of: Callable[[str], str] = lambda _: "",
) -> list[TestRow]:
    """Integrity of one model's outcomes, ending in the verdict.

    INVALID: no outcomes; over 20 % of the samples missing; an arm whose share of missing samples is surely
    above that (Wilson lower bound); an arm whose share of distinct texts over distinct seeds is surely under
    .95 (Wilson upper bound); same-seed repeats whose identity rate is surely under .99; missingness, or a
    primary metric's being undefined, that depends on the arm and differs by over 2 % of its samples.
    INCONCLUSIVE: it depends on the arm and differs by less; an arm's distinct share is under
    .95 but not surely; no arm has two seeds a prompt; fewer than `required_pairs` same-seed pairs. DETECTED:
    none of these.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Every job of the arms and the model in question, failed ones included.
    required_pairs : int
        Same-seed pairs to judge identity by: 400 in `laptop` and `full`, fewer in `smoke`.
    rng : numpy Generator
        For the random tables of small counts.
    alpha : float
        Level of the test that missingness depends on the arm, Holm over its kinds.
    n_draws : int
        Random tables.
    group_of : callable
        Group of an arm's name; arms of one group are compared with each other, all where none is given.

    Returns
    -------
    list of TestRow
        Shares with Wilson 95 % intervals by arm and kind of missingness, their tests, distinct shares,
        identity rates by arm and overall, last the verdict, whose `reason` lists what led to it.

    Examples
    --------
    >>> def outcome(arm, seed, probe=0):
    ...     return Outcome(arm=arm, prompt_id="p", constraint="open", seed32=seed, sample=seed, probe=probe,
    ...                    text_ok=True, reason=None, words=40, text_sha=f"text of {seed}")
    >>> outcomes = [outcome(arm, seed, probe) for arm in ("A", "B") for seed in range(30) for probe in (0, 1)]
    >>> rng = np.random.default_rng(0)
    >>> integrity_rows(outcomes, required_pairs=60, rng=rng)[-1].verdict
    'DETECTED'
    >>> last = integrity_rows(outcomes, rng=rng)[-1]
    >>> last.verdict, last.reason
    ('INCONCLUSIVE', '60 same-seed pairs, under the 400 required')
    """
    if not outcomes:
        return [_verdict_row("INVALID", ["no outcomes"], 0, alpha)]
    _check_unique(outcomes)
    samples = [outcome for outcome in outcomes if outcome.probe == 0]
    missing = _missing_rows(samples, rng, n_draws, group_of)
    distinct = _distinct_rows(samples)
    identity = _identity_rows(outcomes)
    invalid, flagged = _judged(missing, distinct, identity, required_pairs, alpha)
    verdict = "INVALID" if invalid else "INCONCLUSIVE" if flagged else "DETECTED"
    return [*missing, *distinct, *identity, _verdict_row(verdict, invalid + flagged, len(outcomes), alpha)]


def _check_unique(outcomes: Sequence[Outcome]) -> None:
    seen: set[tuple[str, str, int, int]] = set()
    for outcome in outcomes:
        key = (outcome.arm, outcome.prompt_id, outcome.sample, outcome.probe)
        if key in seen:
            raise ValueError(f"{outcome._place} occurs twice; pass each job's outcome once")
        seen.add(key)


def _share_row(
    hypothesis: str, metric: str, contrast: str, share: Share | None, *, role: str, reason: str | None = None
) -> TestRow:
    return TestRow(
        family=FAMILY,
        hypothesis=hypothesis,
        metric=metric,
        contrast=contrast,
        method="Wilson interval",
        role=role,
        estimate=share.estimate if share else None,
        low=share.low if share else None,
        high=share.high if share else None,
        n=share.n if share else 0,
        reason=reason,
    )


def _missing_rows(
    samples: Sequence[Outcome], rng: np.random.Generator, n_draws: int, group_of: Callable[[str], str]
) -> list[TestRow]:
    """Shares of each kind of missingness by arm and overall, then its dependence on the arm."""
    by_arm: dict[str, list[Outcome]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    for outcome in samples:
        by_arm[outcome.arm].append(outcome)
    for arm in by_arm:
        groups[group_of(arm)].append(arm)
    sizes = {arm: len(found) for arm, found in by_arm.items()}
    rows, tests = [], []
    for kind, is_kind in (KINDS | _undefined_kinds(samples)).items():
        counts = {arm: sum(map(is_kind, found)) for arm, found in by_arm.items()}
        for arm in by_arm:
            share = wilson(counts[arm], sizes[arm])
            rows.append(_share_row("share_missing", kind, arm, share, role="diagnostic"))
        overall = wilson(sum(counts.values()), len(samples)) if samples else None
        role = "decides" if kind == "missing" else "diagnostic"
        reason = None if overall else "no samples, only repeats"
        rows.append(_share_row("share_missing", kind, "*", overall, role=role, reason=reason))
        compared = {"*": list(by_arm)}
        if len(groups) > 1 and kind not in PARTS:
            compared |= groups
        for group, arms in compared.items():
            found = [counts[arm] for arm in arms], [sizes[arm] for arm in arms]
            tests.append(_dependence_row(kind, group, *found, rng, n_draws))
    return rows + correct_rows(tests, "holm").rows


def _undefined_kinds(samples: Sequence[Outcome]) -> dict[str, Callable[[Outcome], bool]]:
    """A kind for each primary metric that some text has no value of: such texts leave its tests."""

    def lacks(metric: str) -> Callable[[Outcome], bool]:
        return lambda outcome: metric in outcome.undefined

    metrics = sorted({metric for outcome in samples for metric in outcome.undefined})
    return {f"without {metric}": lacks(metric) for metric in metrics}


def _dependence_row(
    kind: str,
    group: str,
    counts: Sequence[int],
    sizes: Sequence[int],
    rng: np.random.Generator,
    n_draws: int,
) -> TestRow:
    """Whether the arms of a group differ; `estimate` is the largest of their shares less the smallest."""
    shares = [count / size for count, size in zip(counts, sizes, strict=True)]
    try:
        test, reason = equal_shares(counts, sizes, rng=rng, n_draws=n_draws), None
    except ValueError as error:
        test, reason = None, str(error)
    return TestRow(
        family=FAMILY,
        hypothesis="missing_depends_on_arm",
        metric=kind,
        contrast=group,
        method=test.method if test else "chi-square",
        role="decides",
        estimate=max(shares) - min(shares) if shares else None,
        statistic=test.statistic if test else None,
        df1=test.df if test else None,
        p=test.p if test else None,
        n=sum(sizes),
        reason=reason,
    )


def _distinct_rows(samples: Sequence[Outcome]) -> list[TestRow]:
    """Different texts over different seeds, within prompts that leave room, added up by arm."""
    texts: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for outcome in samples:
        prompts = texts[outcome.arm]
        if outcome.constraint in ROOMY_CONSTRAINTS and outcome.text_ok and outcome.text_sha is not None:
            prompts[outcome.prompt_id].setdefault(outcome.seed32, outcome.text_sha)
    rows = []
    for arm, prompts in texts.items():
        several = [by_seed for by_seed in prompts.values() if len(by_seed) > 1]
        seeds = sum(len(by_seed) for by_seed in several)
        found = sum(len(set(by_seed.values())) for by_seed in several)
        share = wilson(found, seeds) if seeds else None
        reason = None if seeds else "no open or medium prompt has two different seeds"
        rows.append(_share_row("distinct_share", "text", arm, share, role="decides", reason=reason))
    return rows


def _identity_rows(outcomes: Sequence[Outcome]) -> list[TestRow]:
    """Same-seed repeats against their sample; a pair with a failure on either side agrees in nothing."""
    first = {(o.arm, o.prompt_id, o.sample): o for o in outcomes if o.probe == 0}
    pairs: dict[str, list[bool]] = {outcome.arm: [] for outcome in outcomes}
    broken = 0
    for outcome in outcomes:
        if outcome.probe == 0:
            continue
        sample = first.get((outcome.arm, outcome.prompt_id, outcome.sample))
        if sample is not None and sample.seed32 != outcome.seed32:
            raise ValueError(
                f"{outcome._place} has seed {outcome.seed32}, its sample {sample.seed32}; "
                "a repeat must use the seed of its sample"
            )
        if sample is None or not (sample.text_ok and outcome.text_ok):
            broken += 1
        else:
            pairs[outcome.arm].append(sample.text_sha == outcome.text_sha)
    rows = [_identity_row(arm, found, "diagnostic", "no pair") for arm, found in pairs.items()]
    every = [same for found in pairs.values() for same in found]
    reason = f"no pair of two texts, {broken} repeats without one"
    return [*rows, _identity_row("*", every, "decides", reason)]


def _identity_row(contrast: str, same: Sequence[bool], role: str, reason: str) -> TestRow:
    share = wilson(sum(same), len(same)) if same else None
    return _share_row(
        "same_seed_identity", "text", contrast, share, role=role, reason=None if share else reason
    )


def _judged(
    missing: Sequence[TestRow],
    distinct: Sequence[TestRow],
    identity: Sequence[TestRow],
    required_pairs: int,
    alpha: float,
) -> tuple[list[str], list[str]]:
    """What makes the data INVALID, and what flags them."""
    invalid, flagged = [], []
    groups = {row.contrast for row in missing if row.hypothesis == "missing_depends_on_arm"}
    compared = groups - {"*"} or groups
    for row in missing:
        if row.hypothesis == "share_missing" and row.role == "decides":
            if row.estimate is None or row.estimate > MOST_MISSING:
                share = (
                    row.reason if row.estimate is None else f"{row.estimate:.1%} of the samples are missing"
                )
                invalid.append(f"{share}; at most {MOST_MISSING:.0%} may be")
        elif row.hypothesis == "share_missing":
            if row.metric == "missing" and (row.low or 0.0) > MOST_MISSING:
                share = f"{row.contrast}: {row.estimate:.1%} of the samples are missing"
                invalid.append(f"{share}; of an arm at most {MOST_MISSING:.0%} may be")
        elif row.p_adjusted is not None and row.p_adjusted <= alpha:
            of = "" if row.contrast == "*" else f" of {row.contrast}"
            text = f"{row.metric} depends on the arm{of} (p = {row.p_adjusted:.2g})"
            apart = row.estimate or 0.0
            if row.metric not in PARTS and row.contrast in compared and apart > MOST_UNEVEN:
                invalid.append(f"{text}, {apart:.1%} apart; at most {MOST_UNEVEN:.0%} may be")
            else:
                flagged.append(text)
    for row in distinct:
        if row.estimate is not None and row.estimate < DISTINCT_SHARE:
            text = f"{row.contrast}: {row.estimate:.1%} distinct texts over {row.n} seeds, under 95%"
            (invalid if (row.high or 0.0) < DISTINCT_SHARE else flagged).append(text)
    if all(row.estimate is None for row in distinct):
        flagged.append("no arm has two different seeds on an open or medium prompt")
    overall = identity[-1]
    if overall.high is not None and overall.high < IDENTITY_RATE:
        invalid.append(
            f"{overall.estimate:.1%} of {overall.n} same-seed pairs are identical, surely under 99%"
        )
    if (overall.n or 0) < required_pairs:
        flagged.append(f"{overall.n} same-seed pairs, under the {required_pairs} required")
    return invalid, flagged


def _verdict_row(verdict: str, reasons: Sequence[str], n: int, alpha: float) -> TestRow:
    return TestRow(
        family=FAMILY,
        hypothesis="verdict",
        method="missingness, distinct texts over seeds, same-seed identity",
        role="verdict",
        alpha=alpha,
        n=n,
        verdict=verdict,
        reason="; ".join(reasons) or None,
    )
