"""Whether the rank study may be concluded: probes that learned, controls that differ, arms that are fair.

Each check is a row with its number; the row of role `verdict` is INVALID when one fails, and says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.products import Products
from models.rank_controls import DEGENERATE_SHARE, TOLERANCE, degenerate, share_alike
from stats.rows import TestRow
from tasks.rank_placing import AT_BUDGET, PROBE, TREATMENT, Placed, kind_of
from tasks.rank_training import ANSWERS, Exam, read_adapter

Cell = tuple[int | None, str]
"""Seed and arm; the base has no seed."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a probe must have reached."""

    least_gain: float
    """Share of the items that it answers beyond the base alone."""
    most_fall: float
    """Fall of the validation loss over the last fifth of the steps, nats a token, at most."""


def probe(
    home: Path, exams: Mapping[Cell, Exam], failures: Mapping[Cell, str], seeds: Sequence[int], bounds: Bounds
) -> list[TestRow]:
    """Has every probe learned, and stopped learning?"""
    family, rows, findings = "probe", [], []
    due: list[Cell] = [(None, "base"), *((seed, PROBE) for seed in seeds)]
    missing = [failures.get(one, f"{one[1]} has no answers") for one in due if one not in exams]
    gains: list[float] = []
    for seed in seeds if not missing else ():
        gain = accuracy(home, exams[seed, PROBE]) - accuracy(home, exams[None, "base"])
        gains.append(gain)
        rows.append(_number(family, "gain over the base", f"seed {seed}", gain, "share of items, strict"))
        if gain < bounds.least_gain:
            findings.append(f"seed {seed} answers {gain:+.3f} of the items more than the base")
        fall = converged(home, exams[seed, PROBE])
        rows.append(_number(family, "late fall", f"seed {seed}", fall, "nats a token, over the last fifth"))
        findings += _still_falling(f"seed {seed}", fall, bounds)
    mean = sum(gains) / len(gains) if gains else None
    return [*rows, _verdict(family, [*missing, *findings], estimate=mean, n=len(gains))]


def controls(placed: Mapping[Cell, Placed]) -> list[TestRow]:
    """Does every control that decides give enough modules another rank?"""
    family, rows, findings = "controls", [], []
    shares: list[float] = []
    seeds = sorted({seed for seed, _ in placed if seed is not None})
    for (seed, arm), one in placed.items():
        if arm in (PROBE, TREATMENT):
            continue
        ranks = placed[seed, TREATMENT].ranks
        share = share_alike(ranks, one.ranks)
        rows.append(_number(family, "modules alike", f"{arm}/seed {seed}", share, "share of modules"))
        if not kind_of(arm).startswith("shuffled"):
            continue
        shares.append(share)
        why = degenerate(ranks, one.ranks)
        findings += [f"{arm} of seed {seed}: {note}" for note in one.notes if " repeats draw " in note]
        if why is not None:
            findings.append(f"{arm} of seed {seed} {why}")
    limit = f"at {DEGENERATE_SHARE:.0%} of the modules a control is the treatment"
    return [*rows, _verdict(family, findings, estimate=max(shares), n=len(seeds), method=limit)]


def fair(
    home: Path,
    exams: Mapping[Cell, Exam],
    placed: Mapping[Cell, Placed],
    failures: Mapping[Cell, str],
    bounds: Bounds,
) -> list[TestRow]:
    """Has every arm its ranks, its budget and its training?"""
    family, rows = "fair", []
    findings = [f"{arm} of seed {seed}: {why}" for (seed, arm), why in failures.items()]
    budgets = {cell: _parameters(home, exam) for cell, exam in exams.items() if exam.job is not None}
    apart: list[float] = []
    for (seed, arm), found in budgets.items():
        due = budgets.get((seed, TREATMENT))
        if due is None:
            continue
        off = found / due - 1.0
        name = f"{arm}/seed {seed}"
        rows.append(_number(family, "parameters beyond the treatment's", name, off, "relative"))
        if kind_of(arm) in AT_BUDGET and arm != "uniform_equal":
            apart.append(abs(off))
            allowed = TOLERANCE if arm == "shuffled_full" else 0.0
            if abs(off) > allowed:
                findings.append(f"{arm} of seed {seed}: {off:+.2%} parameters, {allowed:.1%} allowed")
    findings += _unrealised(home, exams, placed)
    for (seed, arm), exam in exams.items():
        if exam.job is not None:
            findings += _still_falling(f"{arm}, seed {seed}", converged(home, exam), bounds)
    seeds = {seed for seed, _ in exams if seed is not None}
    return [*rows, _verdict(family, findings, estimate=max(apart, default=None), n=len(seeds))]


def _still_falling(of: str, fall: float | None, bounds: Bounds) -> list[str]:
    """What is wrong with a training's end; a fall that was not measured is no pass."""
    if fall is None:
        return [f"validation loss of {of} was not measured"]
    return [f"validation loss of {of} still falls by {fall:.3f}"] if fall > bounds.most_fall else []


def _unrealised(home: Path, exams: Mapping[Cell, Exam], placed: Mapping[Cell, Placed]) -> list[str]:
    found = []
    for (seed, arm), exam in exams.items():
        if exam.job is None or placed[seed, arm].initialisation == "eva":  # which places ranks itself
            continue
        realised = read_adapter(home, exam.job)["realised"]
        wrong = [name for name, rank in placed[seed, arm].ranks.items() if realised.get(name) != rank]
        if wrong or realised.keys() != placed[seed, arm].ranks.keys():
            found.append(f"{arm} of seed {seed} has another rank than planned in {len(wrong)} modules")
    return found


def _parameters(home: Path, exam: Exam) -> int:
    assert exam.job is not None
    return int(read_adapter(home, exam.job)["parameters"])


def accuracy(home: Path, exam: Exam) -> float:
    """Share of the items that the strict rule reads the gold off."""
    answers = Products(home, ANSWERS).read(exam.key)["answers"]
    right: int = sum(one["strict"] for one in answers)
    return right / len(answers)


def converged(home: Path, exam: Exam) -> float | None:
    """Fall of the validation loss over the last fifth of the steps, nats a token; None where not measured."""
    assert exam.job is not None
    facts = read_adapter(home, exam.job)
    share: float | None = facts["validation_fall"]
    return None if share is None or share >= 1.0 else facts["validation_nll"] * share / (1.0 - share)


def _number(family: str, what: str, of: str, value: float | None, method: str) -> TestRow:
    return TestRow(
        family=family,
        hypothesis=what,
        contrast=of,
        method=method,
        role="diagnostic",
        estimate=value,
        reason="not measured" if value is None else None,
    )


def _verdict(
    family: str, findings: Sequence[str], *, estimate: float | None, n: int, method: str = "every check"
) -> TestRow:
    return TestRow(
        family=family,
        hypothesis="check",
        method=method,
        role="verdict",
        estimate=estimate,
        n=n,
        verdict="INVALID" if findings else "DETECTED",
        reason="; ".join(findings) or None,
    )
