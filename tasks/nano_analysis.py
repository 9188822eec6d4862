"""Answers of the nanodesmo study: from runs and measurements to test rows, one cached task a phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.nano_dump import read_dump
from stats.composite import composite_rows
from stats.early_warning import early_warning_rows
from stats.lead_lag import lead_lag_rows
from stats.memory_comparisons import memory_rows
from stats.published_regimes import DELTAS as PUBLISHED_DELTAS
from stats.published_regimes import published_rows
from stats.regime_deltas import regime_delta_rows
from stats.regime_series import COMMON, STATE, RunSeries
from stats.rows import TestRow
from stats.run_comparisons import comparison_rows, lowest_of_all_row
from stats.separability import separability_rows
from stats.state_probes import dimension_rows, probe_rows, sensitivity_rows
from tasks.nano_frozen_rows import frozen_rows
from tasks.nano_rows import memory_share, run_series
from tasks.nano_training import Measurement, NanoJob, read_measured, run_facts
from tasks.shell import product_key

KIND = "nano_analysis"
Kind = Literal["regimes", "frozen", "memory", "controls"]
MAIN, REGIMES, SELF = "self-analysis", "regimes-all", "self-regimes"
PUBLISHED = "regimes-published"
"""Run through the windows of the study's earlier version, where they are asked for: a scope of its own."""
CHANNELS = (*COMMON, *STATE, "effect_kl_nats")
WITHOUT = ("baseline", "self-analysis-noself")
"""Undisturbed runs that the state's is compared with: a plain GPT, and an update that never enters it."""
CONTINUED = (
    ("patch", "swap-a"), ("swap-a-random", "swap-a"), ("swap-a-swapped", "swap-a"),
    ("swap-b-swapped", "swap-b"), ("swap-a-other-init", "swap-a"),
)  # fmt: skip
"""Runs that went on from half time with the state 0, random of its norm, foreign or of another init; own."""
ONE_SEED = "one seed has no run of another init to swap with"
FIRST = "core"
"""Phase of the first text, which alone has runs that states are swapped between."""
RNG = 20_000
"""Seed of permutations and bootstraps."""


@lru_cache(maxsize=1)
def analysis_code() -> str:
    """Fingerprint of everything that turns runs into answers."""
    return code(
        "stats.composite",
        "stats.early_warning", "stats.frozen_effect", "stats.lead_lag", "stats.memory_comparisons",
        "stats.published_regimes", "stats.regime_deltas", "stats.separability", "stats.run_comparisons",
        "stats.state_presets", "stats.state_probes", "models.nano_dump",
        alone=("tasks.nano_analysis", "tasks.nano_frozen_rows", "tasks.nano_rows"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the runs of a suite."""

    kind: Kind
    runs: Mapping[str, Mapping[int, NanoJob]]
    """Arm -> seed -> run."""
    measured: Mapping[str, Measurement]
    """`frozen/ARM/SEED` and so on."""
    missing: Mapping[str, str]
    """Arm -> why a run of it is missing."""
    margin: float
    loss_margin: float
    auc_margin: float
    alpha: float
    before: int
    permutations: int


def question_key(question: Question) -> str:
    """Fingerprint of everything that can change the answers."""
    config = asdict(question) | {
        "runs": {
            arm: {str(seed): job.key for seed, job in runs.items()} for arm, runs in question.runs.items()
        },
        "measured": {name: one.key for name, one in question.measured.items()},
        "code": analysis_code(),
    }
    return fingerprint(config)


def _is_there(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse",
    task_run_name="analyse {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_there),
)
def analyse(home: str, what: str, question: Question, key: str) -> int:
    """Every answer of a phase; returns their number."""
    rows = answers(Path(home), what, question)
    Products(Path(home), KIND).write(key, [asdict(row) for row in rows])
    return len(rows)


def answers(home: Path, phase: str, question: Question) -> list[TestRow]:
    """The rows of a phase; runs of the first text, which a second text's question holds too, enter once."""
    rows = KINDS[question.kind](home, question)
    if phase != FIRST:
        return rows
    return rows + _undisturbed(home, question) + _swaps(home, question) + _published(home, question)


def rows_of(home: Path, key: str) -> list[TestRow]:
    """The rows of an analysis that was made."""
    return [TestRow(**row) for row in Products(home, KIND).read(key) or []]


def lines(rows: Sequence[TestRow]) -> list[str]:
    """Verdicts and what decides them, a line each."""
    found = []
    for row in rows:
        if row.role not in ("verdict", "decides", "legacy"):
            continue
        size = "undefined" if row.estimate is None else f"{row.estimate:+.4f}"
        span = "" if row.low is None or row.high is None else f" [{row.low:+.4f}, {row.high:+.4f}]"
        p = "" if row.p is None else f", p {row.p:.3g}"
        why = f" ({row.reason})" if row.reason else ""
        found.append(f"  {row.hypothesis} {row.contrast}: {row.verdict or ''} {size}{span}{p}{why}")
    return found


def regimes(home: Path, question: Question) -> list[TestRow]:
    """What regimes do, whether the state tells them apart, and what the state holds."""
    rng = np.random.default_rng(RNG)
    rows: list[TestRow] = []
    found = [run_series(home, job, seed) for seed, job in question.runs.get(REGIMES, {}).items()]
    if REGIMES in question.missing or not found:
        why = question.missing.get(REGIMES, "no run with regimes was trained")
        rows.append(_invalid("separability", "signatures", "auc", why))
    else:
        rows += regime_delta_rows(found, CHANNELS, alpha=question.alpha, before=question.before)
        rows += separability_rows(
            found, rng=rng, alpha=question.alpha, margin=question.auc_margin,
            permutations=question.permutations, reference=question.before,
        )  # fmt: skip
        rows += lead_lag_rows(found, rng=rng, alpha=question.alpha)
        rows += early_warning_rows(found, rng=rng, alpha=question.alpha)
        rows += composite_rows(
            found, _trajectories(home, question, REGIMES), reference=question.before, alpha=question.alpha
        )
    return rows + _about_state(home, question, rng)


def _published(home: Path, question: Question) -> list[TestRow]:
    """The same of published windows; its own draws and families, so nothing of the others depends on it."""
    if PUBLISHED in question.missing:
        return [_without(PUBLISHED_DELTAS, "against_twin", "*", question.missing[PUBLISHED])]
    found = [run_series(home, job, seed) for seed, job in question.runs.get(PUBLISHED, {}).items()]
    if not found:
        return []
    return published_rows(
        found, CHANNELS, rng=np.random.default_rng(RNG), alpha=question.alpha, margin=question.auc_margin,
        permutations=question.permutations, before=question.before,
    )  # fmt: skip


def _trajectories(home: Path, question: Question, arm: str) -> dict[int, Any]:
    """Seed -> (steps, d)."""
    found = {seed: read_dump(job.place(home)).trajectory for seed, job in question.runs.get(arm, {}).items()}
    return {seed: s for seed, s in found.items() if s is not None}


def _about_state(home: Path, question: Question, rng: np.random.Generator) -> list[TestRow]:
    """What can be read off the state of undisturbed runs, and what moves it and what it moves."""
    states = _trajectories(home, question, MAIN)
    if not states:
        why = question.missing.get(MAIN, "no run with a state was trained")
        return [_without("probe", "linear_probe", "loss_nats", why)]
    series = {
        seed: run_series(home, job, seed) for seed, job in question.runs[MAIN].items() if seed in states
    }
    rows = probe_rows(
        states,
        {
            name: {s: one.channels[name] for s, one in series.items()}
            for name in ("loss_nats", "entropy_nats")
        },
        rng=rng,
        alpha=question.alpha,
    )
    moved = _measured(home, question, "sensitivity", MAIN)
    if moved:
        rows += sensitivity_rows(moved, alpha=question.alpha)
    frozen = _measured(home, question, "frozen", MAIN)
    if frozen:
        moved_by = {seed: one["dimensions"] for seed, one in frozen.items()}
        rows += dimension_rows(moved_by, alpha=question.alpha)
    return rows


def _measured(home: Path, question: Question, what: str, arm: str) -> dict[int, Any]:
    """Seed -> what was measured."""
    start = f"{what}/{arm}/"
    return {
        int(name.removeprefix(start)): read_measured(home, one)
        for name, one in question.measured.items()
        if name.startswith(start)
    }


def _swaps(home: Path, question: Question) -> list[TestRow]:
    """Losses with states put in: frozen, and trained on from there."""
    if "swap-a" not in question.runs and "swap-a" not in question.missing:
        return []
    frozen = _measured(home, question, "swap", "swap-a")
    names = ("zero", "random", "foreign", "other_init")
    values = {
        name: {seed: one["foreign_matched" if name == "foreign" else name] for seed, one in frozen.items()}
        for name in ("own", *names)
    }
    reasons = {}
    if not frozen:
        why = question.missing.get("swap-a", ONE_SEED)
        reasons = dict.fromkeys(values, why)
    told: dict[str, Any] = {
        "family": "swap",
        "metric": "valid_loss_nats",
        "alpha": question.alpha,
        "role": "secondary",
    }
    rows = comparison_rows(
        values, [(name, "own") for name in names], hypothesis="frozen", margin=question.loss_margin,
        reasons=reasons, **told,
    )  # fmt: skip
    arms = dict.fromkeys(arm for pair in CONTINUED for arm in pair)
    whys = _reasons(question, arms)
    if len(question.runs.get("swap-a", {})) == 1:
        whys |= {"swap-a-other-init": ONE_SEED}
    return rows + comparison_rows(
        {arm: _losses(home, question, arm) for arm in arms}, CONTINUED, hypothesis="continued",
        margin=question.loss_margin, reasons=whys, **told,
    )  # fmt: skip


def _undisturbed(home: Path, question: Question) -> list[TestRow]:
    """Held-out loss with the state less that of runs without it, and of those two; none meets regimes."""
    arms = [arm for arm in WITHOUT if arm in question.runs or arm in question.missing]
    losses = {arm: _losses(home, question, arm) for arm in (MAIN, *arms)}
    families = [[(MAIN, arm) for arm in arms], [(arms[1], arms[0])] if len(arms) == 2 else []]
    told: dict[str, Any] = {"metric": "valid_loss_nats", "margin": question.loss_margin, "role": "secondary"}
    told |= {"alpha": question.alpha, "reasons": _reasons(question, (MAIN, *arms))}
    found = [comparison_rows(losses, pairs, family="undisturbed", **told) for pairs in families if pairs]
    return [row for rows in found for row in rows]


def _losses(home: Path, question: Question, arm: str) -> dict[int, float | None]:
    """Seed -> held-out loss at the end."""
    found: dict[int, float | None] = {}
    for seed, job in question.runs.get(arm, {}).items():
        facts = run_facts(job.place(home))
        found[seed] = None if facts is None else float(facts["valid_loss_nats"])
    return found


def _reasons(question: Question, arms: Any) -> dict[str, str]:
    return {arm: question.missing[arm] for arm in arms if arm in question.missing}


def frozen(home: Path, question: Question) -> list[TestRow]:
    """The frozen test of each arm."""
    arms = {
        arm: _measured(home, question, "frozen", arm)
        for arm in dict.fromkeys(name.split("/")[1] for name in question.measured)
    }
    arms = {arm: found for arm, found in arms.items() if found}
    if MAIN in question.missing or MAIN not in arms:
        why = question.missing.get(MAIN, "the run was not tested")
        return [_invalid("leverage", "leverage", "entropy_nats", why)]
    return frozen_rows(arms, MAIN, margin=question.margin, alpha=question.alpha)


def memory(home: Path, question: Question) -> list[TestRow]:
    """Each memory against none, buffers against the running mean, and what the memory does."""
    arms = [arm for arm in dict.fromkeys([*question.runs, *question.missing]) if arm.startswith("mem-")]
    series = _every_series(home, question, (*arms, MAIN))
    values: dict[str, dict[str, dict[int, float | None]]] = {
        "valid_loss_nats": {arm: _losses(home, question, arm) for arm in series}
    }
    for metric in ("self_drift", "effect_kl_nats"):
        values[metric] = {
            arm: {seed: _mean(one, metric) for seed, one in own.items()} for arm, own in series.items()
        }
    shares = {arm: {seed: memory_share(one.channels) for seed, one in series[arm].items()} for arm in arms}
    return memory_rows(
        arms, values, shares, without=MAIN, unused=_unused(home, question, arms),
        reasons=_reasons(question, (*arms, MAIN)), margin=question.loss_margin, alpha=question.alpha,
    )  # fmt: skip


def _every_series(home: Path, question: Question, arms: Sequence[str]) -> dict[str, dict[int, RunSeries]]:
    """Arm -> seed -> its run."""
    return {
        arm: {seed: run_series(home, job, seed) for seed, job in question.runs.get(arm, {}).items()}
        for arm in arms
    }


def _mean(one: RunSeries, channel: str) -> float | None:
    """Over the run's later three quarters, where it is defined."""
    values = one.channels[channel][one.steps // 4 :]
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _unused(home: Path, question: Question, arms: Sequence[str]) -> dict[str, str]:
    """Buffers that the run was too short to fill: their length changed nothing."""
    found = {}
    for arm in arms:
        for seed, job in question.runs.get(arm, {}).items():
            spec = job.recipe.state
            if spec is not None and spec.memory == "buffer":
                filled = run_series(home, job, seed).channels["memory_filled"][-1]
                if filled < spec.length:
                    found[arm] = (
                        f"its buffer of {spec.length} held {filled:.0f} states at the end, so its "
                        "length was not in use; train longer"
                    )
    return found


def controls(home: Path, question: Question) -> list[TestRow]:
    """The state's run against each control."""
    named = ("vanilla", "self-dim1", "fixed-bias", "no-step-frac", "random-injection")
    arms = [arm for arm in dict.fromkeys([*question.runs, *question.missing]) if arm.startswith(named)]
    rows = comparison_rows(
        {arm: _losses(home, question, arm) for arm in (SELF, *arms)},
        [(SELF, arm) for arm in arms],
        family="controls",
        metric="valid_loss_nats",
        margin=question.loss_margin,
        alpha=question.alpha,
        reasons=_reasons(question, (SELF, *arms)),
    )
    concluded = lowest_of_all_row(rows, hypothesis="beats_controls", family="controls")
    deltas = []
    for arm, own in _every_series(home, question, (SELF, *arms)).items():
        if own:
            found = regime_delta_rows(
                list(own.values()), COMMON, alpha=question.alpha, before=question.before
            )
            deltas += [_renamed(row, arm) for row in found if row.hypothesis == "against_before"]
    return [*rows, *deltas, concluded]


def _renamed(row: TestRow, arm: str) -> TestRow:
    return TestRow(**{**asdict(row), "family": "control_deltas", "contrast": f"{arm}:{row.contrast}"})


def _invalid(family: str, hypothesis: str, metric: str, why: str) -> TestRow:
    return TestRow(family=family, hypothesis=hypothesis, metric=metric, method="check", role="verdict",
                   verdict="INVALID", reason=why)  # fmt: skip


def _without(family: str, hypothesis: str, metric: str, why: str) -> TestRow:
    return TestRow(family=family, hypothesis=hypothesis, metric=metric, method="not measured",
                   role="diagnostic", reason=why)  # fmt: skip


KINDS: Mapping[Kind, Callable[[Path, Question], list[TestRow]]] = {
    "regimes": regimes,
    "frozen": frozen,
    "memory": memory,
    "controls": controls,
}
