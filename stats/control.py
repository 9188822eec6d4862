"""Is the causal chain what we think: the seed's value gives the text, and the source's label does not.

Four parts. Same-seed repeats must give the same text. Values drawn by one source, run under every label, must
give the text of the value. A seed from 0..1000 stands for a source of the wrong distribution: its effect on
the metrics is tested like any other and has a verdict of its own. Replaying the tape must give the same
values and texts. A pair with a missing text is no agreement; it leaves the rate and is counted as missing,
and the interval of different values' agreement holds whatever it would have said.

Verdict of the family `control`: INVALID when a rate of agreement lies surely under .99 (exact, over all
three), the tape gave other values, too many pairs are missing, or a part has no pair; EQUIVALENT when
different values surely give the same text, so no source of values can matter; DETECTED, the text follows the
value, when repeats and swaps have the pairs required and texts of different values surely agree in under half
of their pairs, and less often than texts of one value under different labels; else INCONCLUSIVE, with the
pairs that would settle it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from stats.diversity import RANGES
from stats.integrity import IDENTITY_RATE, MOST_MISSING
from stats.proportions import equal_shares, p_at_least, wilson
from stats.rows import FloatArray, TestRow
from stats.seed_distribution import data_processing_rows
from stats.seed_effect import compare_arms

FAMILY = "control"
PARTS = ("sample", "repeat", "swap", "replay")
CONDITIONS = ("cold", "warm")
RATES = ("same_seed_identity", "swap_agreement", "replay_agreement")
ALPHA = 0.05
"""Error of calling rates too low that are not, over all three."""
SAME_TEXT = 0.95
"""Different values whose texts agree surely more often than this give the same text."""
FEW_SAME = 0.5
"""Different values whose texts agree surely less often than this give different texts."""


@dataclass(frozen=True, kw_only=True)
class ControlRun:
    """One generation of the control experiment."""

    part: str
    """One of PARTS: a `swap` ran under another label than that of the source that drew its value."""
    label: str
    """Source label it ran under."""
    drawn_by: str
    """Source that drew its value."""
    prompt: str
    k: int
    """Number of the draw within source and prompt."""
    seed32: int
    condition: str = "warm"
    """`cold` when the model was loaded for it, else `warm`."""
    sha256: str | None = None
    """Hash of the text; None when there is none."""
    failure: str | None = None
    """Why there is no text."""

    def __post_init__(self) -> None:
        where = f"{self.part} {self.label}/{self.drawn_by}/{self.prompt}/{self.k}"
        if self.part not in PARTS or self.condition not in CONDITIONS:
            allowed = f"{', '.join(PARTS)}; {', '.join(CONDITIONS)}"
            raise ValueError(f"{where} ({self.condition}): allowed parts and conditions are {allowed}")
        if (self.part == "swap") == (self.label == self.drawn_by):
            raise ValueError(f"{where}: a swap runs under another label than its source's, nothing else does")
        if (self.sha256 is None) == (self.failure is None):
            raise ValueError(f"{where} needs a text's hash or the reason why there is none, exactly one")


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """Texts of seeds from 0..1000 and from the full range; one value a text and metric, NaN for none."""

    values: Mapping[str, FloatArray]
    arm: Sequence[str]
    """`FULL` or `SHORT`."""
    prompt: Sequence[str]
    primary: tuple[str, ...]
    margin_sd: float = 0.2
    alpha: float = 0.05


@dataclass(frozen=True, kw_only=True)
class _Agreement:
    """Pairs of texts that should agree. Pairs of one job share texts: `free` of them are independent."""

    pairs: int = 0
    agree: int = 0
    free: int = 0
    missing: int = 0

    def disagreements(self) -> float:
        """Of the free pairs."""
        return self.free * (self.pairs - self.agree) / self.pairs if self.pairs else 0.0


def analyse_control(
    runs: Sequence[ControlRun],
    transfer: Transfer | None = None,
    *,
    required_pairs: int = 400,
    rng: np.random.Generator,
) -> list[TestRow]:
    """All rows of the control experiment; the last is the verdict of the family `control`.

    Parameters
    ----------
    runs
        Every generation, failed ones included.
    transfer
        The texts of the distribution transfer; None when it was not run.
    required_pairs
        Independent pairs that repeats, and swaps, must have each: 400 in `laptop` and `full`, fewer in
        `smoke`. Of m texts that should be equal, m - 1 pairs are independent.
    rng
        For the random tables of small counts.

    Returns
    -------
    list of TestRow
        Family `control`: `same_seed_identity` by condition and together, `swap_agreement` by label and
        together, `different_values_agree`, `label_changes_text`, `replay_agreement` and `missing_pairs`, each
        a share with a Wilson 95 % interval (`n`: independent pairs). Family `distribution_transfer`: rows of
        `compare_arms` with a verdict of their own, and the bound that the seeds' distance sets.

    Raises
    ------
    ValueError
        When runs of one value have different seeds (a replay may), or a job occurs twice.

    Examples
    --------
    >>> def run(part, label, drawn_by, k):
    ...     return ControlRun(part=part, label=label, drawn_by=drawn_by, prompt="p", k=k, seed32=k,
    ...                       sha256=f"{drawn_by} {k}")
    >>> runs = [run("sample", a, a, k) for a in "AB" for k in range(30)]
    >>> runs += [run(part, a, a, k) for part in ("repeat", "replay") for a in "AB" for k in range(30)]
    >>> runs += [run("swap", b, a, k) for a, b in ("AB", "BA") for k in range(30)]
    >>> rows = analyse_control(runs, required_pairs=60, rng=np.random.default_rng(0))
    >>> rows[-1].verdict, rows[-1].estimate, rows[-1].n
    ('DETECTED', 1.0, 60)
    """
    _check_seeds(runs)
    identity = _identity(runs)
    swap, by_label = _swapped(runs)
    replay, other_values = _replayed(runs)
    apart = _different_values(runs)
    rows = [_share_row("same_seed_identity", name, found) for name, found in identity.items()]
    rows += [_share_row("swap_agreement", label, found) for label, found in by_label.items()]
    rows += [_share_row("swap_agreement", "*", swap), _share_row("replay_agreement", "*", replay)]
    rows += [_widened(_share_row("different_values_agree", "*", apart, role="decides"), apart)]
    rows += [_label_row(identity["*"], swap, rng), *_missing_rows(identity["*"], swap, replay)]
    invalid = [f"replay: the tape gave {other_values} other values"] if other_values else []
    return [*_transfer_rows(transfer), *rows, _verdict_row(rows, invalid, required_pairs)]


def _check_seeds(runs: Sequence[ControlRun]) -> None:
    seeds: dict[tuple[str, str, int], int] = {}
    seen: set[tuple[str, str, str, str, int]] = set()
    for run in runs:
        value = (run.drawn_by, run.prompt, run.k)
        if run.part in ("sample", "swap"):
            job = (run.part, run.label, *value)
            if job in seen:
                raise ValueError(f"{job} occurs twice; pass each job's text once")
            seen.add(job)
        if run.part != "replay" and seeds.setdefault(value, run.seed32) != run.seed32:
            raise ValueError(f"draw {value} has seeds {seeds[value]} and {run.seed32}; one value, one seed")


def _agreement(groups: Iterable[Sequence[ControlRun]]) -> _Agreement:
    """All pairs within each group of runs that should give one text."""
    pairs = agree = free = missing = 0
    for group in groups:
        texts = [run.sha256 for run in group if run.sha256 is not None]
        of_group = math.comb(len(group), 2)
        there = math.comb(len(texts), 2)
        pairs, missing = pairs + there, missing + of_group - there
        agree += sum(a == b for a, b in combinations(texts, 2))
        free += max(0, len(texts) - 1)
    return _Agreement(pairs=pairs, agree=agree, free=free, missing=missing)


def _identity(runs: Sequence[ControlRun]) -> dict[str, _Agreement]:
    """Repeats of each job: pairs with a cold text, pairs of warm ones, and all."""
    jobs: dict[tuple[str, str, int], list[ControlRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.part != "sample"):
        if run.part in ("sample", "repeat"):
            jobs[run.drawn_by, run.prompt, run.k].append(run)
    several = [group for group in jobs.values() if len(group) > 1]
    warm = [[run for run in group if run.condition == "warm"] for group in several]
    pairs = [
        (group[0], run)
        for group in several
        for run in group[1:]
        if "cold" in (run.condition, group[0].condition)
    ]
    return {
        "cold": _agreement(pairs),
        "warm": _agreement(group for group in warm if len(group) > 1),
        "*": _agreement(several),
    }


def _swapped(runs: Sequence[ControlRun]) -> tuple[_Agreement, dict[str, _Agreement]]:
    """Texts of one value under different labels: all pairs, and each label against the value's own."""
    values: dict[tuple[str, str, int], list[ControlRun]] = defaultdict(list)
    for run in runs:
        if run.part in ("sample", "swap"):
            values[run.drawn_by, run.prompt, run.k].append(run)
    swapped = [group for group in values.values() if len(group) > 1]
    against_own: dict[str, list[tuple[ControlRun, ControlRun]]] = defaultdict(list)
    for group in swapped:
        own = next((run for run in group if run.part == "sample"), None)
        for run in group:
            if own is not None and run.part == "swap":
                against_own[run.label].append((own, run))
    return _agreement(swapped), {label: _agreement(against_own[label]) for label in sorted(against_own)}


def _replayed(runs: Sequence[ControlRun]) -> tuple[_Agreement, int]:
    """Replays against their sample, and how many have another value."""
    first = {(r.drawn_by, r.prompt, r.k): r for r in runs if r.part == "sample"}
    replays = [r for r in runs if r.part == "replay"]
    known = [(first[key], r) for r in replays if (key := (r.drawn_by, r.prompt, r.k)) in first]
    others = sum(a.seed32 != b.seed32 for a, b in known)
    return _agreement(pair for pair in known if pair[0].seed32 == pair[1].seed32), others


def _different_values(runs: Sequence[ControlRun]) -> _Agreement:
    """Samples of one source and prompt two by two, none used twice; equal values are left out."""
    cells: dict[tuple[str, str], dict[int, ControlRun]] = defaultdict(dict)
    for run in sorted((r for r in runs if r.part == "sample"), key=lambda r: r.k):
        cells[run.drawn_by, run.prompt].setdefault(run.seed32, run)
    pairs = [
        pair for cell in cells.values() for pair in zip(*([iter(cell.values())] * 2), strict=False)
    ]  # runs 0 and 1, 2 and 3, ...
    return _agreement(pairs)


def _share_row(hypothesis: str, contrast: str, found: _Agreement, role: str | None = None) -> TestRow:
    row = TestRow(
        family=FAMILY,
        hypothesis=hypothesis,
        metric="text",
        contrast=contrast,
        method=f"share of {found.pairs} pairs, Wilson interval on the independent ones",
        role=role or ("decides" if contrast == "*" else "diagnostic"),
        n=found.free,
        reason=f"no pair of two texts, {found.missing} pairs with a missing one",
    )
    if not found.pairs:
        return row
    wrong = found.disagreements()
    return replace(
        row,
        estimate=found.agree / found.pairs,
        low=wilson(found.free - math.ceil(wrong - 1e-9), found.free).low,
        high=wilson(found.free - math.floor(wrong + 1e-9), found.free).high,
        reason=None,
    )


def _widened(row: TestRow, found: _Agreement) -> TestRow:
    """The interval whatever the pairs with a missing text would have said: all that they agree, or none.

    Texts that go missing because of what they say, as an empty reply that many values give, leave pairs that
    agree less often than all of them. Bounds of Horowitz and Manski (2000), with Wilson's ends.
    """
    if not found.missing or not found.pairs:
        return row
    every, wrong = found.free + found.missing, found.disagreements()
    return replace(
        row,
        method=f"{row.method}, {found.missing} pairs with a missing text counted against either end",
        low=wilson(found.free - math.ceil(wrong - 1e-9), every).low,
        high=wilson(every - math.floor(wrong + 1e-9), every).high,
    )


def _label_row(identity: _Agreement, swap: _Agreement, rng: np.random.Generator) -> TestRow:
    """Do texts of one value agree less often under another label than under the same?"""
    row = TestRow(
        family=FAMILY,
        hypothesis="label_changes_text",
        metric="text",
        contrast="swap-repeat",
        method="chi-square",
        role="diagnostic",
        n=identity.free + swap.free,
        reason="no pairs",
    )
    if not (identity.free and swap.free):
        return row
    agree = [found.free - round(found.disagreements()) for found in (swap, identity)]
    row = replace(row, estimate=swap.agree / swap.pairs - identity.agree / identity.pairs)
    if sum(agree) in (0, swap.free + identity.free):
        return replace(row, reason="all pairs agree, or none does; there is nothing to tell apart")
    test = equal_shares(agree, [swap.free, identity.free], rng=rng)
    return replace(row, method=test.method, statistic=test.statistic, df1=test.df, p=test.p, reason=None)


def _missing_rows(identity: _Agreement, swap: _Agreement, replay: _Agreement) -> list[TestRow]:
    rows = []
    for name, found in (("repeat", identity), ("swap", swap), ("replay", replay)):
        every = found.pairs + found.missing
        share = wilson(found.missing, every) if every else None
        rows.append(
            TestRow(
                family=FAMILY,
                hypothesis="missing_pairs",
                metric="text",
                contrast=name,
                method="Wilson interval",
                role="decides",
                estimate=share.estimate if share else None,
                low=share.low if share else None,
                high=share.high if share else None,
                n=every,
                reason=None if share else "no pairs",
            )
        )
    return rows


def _transfer_rows(transfer: Transfer | None) -> list[TestRow]:
    """Short against full range by the primary test, its equivalence test, and what the distance allows."""
    if transfer is None:
        return []
    rows = compare_arms(
        transfer.values,
        source=transfer.arm,
        prompt=transfer.prompt,
        stream=["one"] * len(transfer.arm),
        design_alpha=transfer.alpha,
        primary=transfer.primary,
        margin_sd=transfer.margin_sd,
        family="distribution_transfer",
    )
    kinds = {"FULL": ("prng", None), "SHORT": ("short_range", None)}
    return [*data_processing_rows(kinds, RANGES), *rows]


def _verdict_row(rows: Sequence[TestRow], invalid: list[str], required: int) -> TestRow:
    of = {row.hypothesis: row for row in rows if row.role == "decides" and row.contrast == "*"}
    same, apart = of["swap_agreement"], of["different_values_agree"]
    invalid = invalid + _invalid(of, rows)
    short = [of[name] for name in ("same_seed_identity", "swap_agreement") if (of[name].n or 0) < required]
    follows = apart.high is not None and same.low is not None and apart.high < min(FEW_SAME, same.low)
    flagged = [f"{row.hypothesis}: {row.n} independent pairs, under the {required} required" for row in short]
    if not follows:
        flagged.append("texts of different values do not surely differ in most pairs")
    if invalid:
        verdict = "INVALID"
    elif (apart.low or 0.0) > SAME_TEXT:
        verdict, flagged = "EQUIVALENT", ["different values give the same text"]
    else:
        verdict = "INCONCLUSIVE" if flagged else "DETECTED"
    more = max(required, 2 * (same.n or 0)) if not short else required
    return TestRow(
        family=FAMILY,
        hypothesis="verdict",
        metric="text",
        method="same-seed identity, seed swap, replay; Wilson intervals",
        role="verdict",
        estimate=same.estimate,
        low=same.low,
        high=same.high,
        n=same.n,
        n_to_settle=more if verdict == "INCONCLUSIVE" else None,
        verdict=verdict,
        reason="; ".join(invalid + flagged) or None,
    )


def _invalid(of: Mapping[str, TestRow], rows: Sequence[TestRow]) -> list[str]:
    """What voids the experiment."""
    found = []
    for name in RATES:
        row = of[name]
        if row.estimate is None or not row.n:
            found.append(f"{name}: {row.reason}")
        elif p_at_least(IDENTITY_RATE, row.estimate, row.n) <= ALPHA / len(RATES):
            found.append(f"{name}: {row.estimate:.1%}, surely under {IDENTITY_RATE:.0%}")
    for row in rows:
        if row.hypothesis == "missing_pairs" and (row.low or 0.0) > MOST_MISSING:
            found.append(f"{row.contrast}: {row.estimate:.1%} of the pairs miss a text")
    return found
