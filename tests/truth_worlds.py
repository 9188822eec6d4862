"""Simulated studies of the ladder, direct injection, the seed control and sense scaling, for `tests.truth`.

Each function draws a whole study and judges it as its gates do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stats.control import ControlRun, analyse_control
from stats.crossover import analyse_ladder
from stats.injection_effect import InjectedText, analyse_injection
from stats.integrity import Outcome, integrity_rows
from stats.rows import FloatArray, TestRow
from stats.seed_effect import Design
from stats.sense_rows import analyse_contrasts
from tests import two_way_campaign
from tests.simulated_ladder import Truth, climb


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the analysis of one simulated study said."""

    verdict: str
    covered: bool | None = None
    """Whether the deciding interval holds the truth; None where the cell does not know it exactly."""
    negligible: bool = False
    """Of a DETECTED effect: it goes the way of EQUIVALENT."""
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    """Of an estimate whose truth is not known exactly: the mean of a cell's estimates stands for it."""
    before: Judged | None = None
    """Of the look before, where its verdict does not decide whether there is this one."""


def judged(
    row: TestRow,
    covered: bool | None = None,
    estimate: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Judged:
    """By the row that concludes a study."""
    return Judged(
        verdict=str(row.verdict),
        covered=covered,
        negligible=row.verdict == "DETECTED" and row.negligible is True,
        estimate=estimate,
        interval=interval,
    )


def holds(row: TestRow, truth: float) -> bool | None:
    """Whether its interval holds the truth; None where it has none."""
    return None if row.low is None or row.high is None else row.low <= truth <= row.high


def ends(row: TestRow) -> tuple[float, float] | None:
    """Of its interval, if it has one."""
    return None if row.low is None or row.high is None else (row.low, row.high)


def is_whole(values: FloatArray, source: list[str], prompt: list[str], rng: np.random.Generator) -> bool:
    """Whether the gate before lets a look pass, of texts that are distinct and repeat."""
    if np.isfinite(values).all():
        return True
    outcomes = [
        Outcome(
            arm=source[i], prompt_id=prompt[i], constraint="open", seed32=i, sample=i, probe=0,
            text_ok=bool(np.isfinite(y)), reason="timeout", words=40, text_sha=str(i),
        )
        for i, y in enumerate(values)
    ]  # fmt: skip
    return integrity_rows(outcomes, required_pairs=0, rng=rng, n_draws=99)[-1].verdict != "INVALID"


LADDER = Truth(shifts=(0.0, 0.0, 0.0, 0.0))


def ladder(truth: Truth, rng: np.random.Generator) -> Judged:
    """Four sizes, climbed look by look; the interval is that of the mean over sizes, where all are alike."""
    rows = analyse_ladder(climb(truth, rng), [("mtld", "HMIX-PRNG")])
    [row] = [row for row in rows if (row.family, row.role) == ("ladder", "verdict")]
    [mean] = [row for row in rows if (row.family, row.role) == ("meta_analysis", "secondary")]
    alike = len(set(truth.shifts)) == 1
    return judged(row, holds(mean, truth.shifts[0]) if alike else None, mean.estimate)


@dataclass(frozen=True, kw_only=True)
class Injection:
    """Three settings, three sources; a text's SD within source and prompt is 1."""

    shift: float = 0.0
    """Of the first source under the first setting."""
    moved: int | None = None
    """Metrics that shift; None for all."""
    shared: float = 0.5
    """Share of a text's variance that sample k of a prompt has under every source (common random numbers)."""
    prompt_source_sd: float = 0.0
    missing: float = 0.0
    prompts: int = 12
    looks: tuple[int, ...] = (10, 20, 40)


SETTINGS = (("select", None, None), ("gumbel", None, None), ("logit_perturb", 0.3, "gaussian"))
SOURCES = ("A", "B", "C")
METRICS = ("mtld", "distinct_2")


def _injected(world: Injection, rng: np.random.Generator) -> FloatArray:
    """(settings, metrics, prompts, sources, samples)."""
    M, P, S, K = len(METRICS), world.prompts, len(SOURCES), world.looks[-1]
    shape = (len(SETTINGS), M, P, S, K)
    block = rng.normal(size=(len(SETTINGS), M, P, 1, K))
    y = math.sqrt(world.shared) * block + math.sqrt(1.0 - world.shared) * rng.normal(size=shape)
    y += rng.normal(size=(1, M, P, 1, 1))
    y += world.prompt_source_sd * rng.normal(size=(len(SETTINGS), M, P, S, 1))
    y[0, : world.moved, :, 0] += world.shift
    lost = rng.random(size=(len(SETTINGS), 1, P, S, K)) < world.missing
    return np.where(lost, np.nan, y)


def injection(world: Injection, rng: np.random.Generator) -> Judged:
    """Look by look, until the verdict is decisive."""
    y = _injected(world, rng)
    for look in world.looks:
        texts = [
            InjectedText(
                mode=mode,
                dose=dose,
                law=law,
                source=source,
                prompt=f"p{p}",
                values={name: _number(y[g, m, p, s, k]) for m, name in enumerate(METRICS)},
            )
            for g, (mode, dose, law) in enumerate(SETTINGS)
            for s, source in enumerate(SOURCES)
            for p in range(world.prompts)
            for k in range(look)
        ]
        design = Design(primary=METRICS, looks=world.looks, look=look, sources=SOURCES)
        rows = analyse_injection(texts, design)
        [pair] = [
            row
            for row in rows
            if (row.family, row.hypothesis, row.metric, row.contrast)
            == ("injection_effect select", "pairwise", METRICS[0], "A-B")
        ]
        if rows[-1].verdict in ("DETECTED", "EQUIVALENT"):
            break
    return judged(rows[-1], holds(pair, world.shift), pair.estimate)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True, kw_only=True)
class Control:
    """400 values of two sources over 10 prompts: once, repeated, under the other label, replayed."""

    agree: float = 1.0
    """Chance that two texts of one value are the same."""
    apart: tuple[float, ...] = (0.0,)
    """Chance that two texts of different values are the same, prompt by prompt in turn."""
    label: float = 0.0
    """Chance that the label changes the text."""
    missing: float = 0.0
    lost_if_shared: float = 0.0
    """Chance that a text is missing which different values share."""
    required_pairs: int = 400


PROMPTS, DRAWS = 10, 20
Part = Literal["sample", "repeat", "swap", "replay"]


def control(world: Control, rng: np.random.Generator) -> Judged:
    """The interval is that of different values."""
    runs: list[ControlRun] = []
    other = {"A": "B", "B": "A"}
    spoilt = 1.0 - math.sqrt(world.agree)
    for source in other:
        for p in range(PROMPTS):
            common = math.sqrt(world.apart[p % len(world.apart)])
            for k in range(DRAWS):
                text = "all" if rng.random() < common else f"{source} {k}"
                for part in ("sample", "repeat", "swap", "replay"):
                    is_own = rng.random() >= spoilt and not (part == "swap" and rng.random() < world.label)
                    lost = rng.random() < (world.lost_if_shared if text == "all" else 0.0) + world.missing
                    said = f"{p} {text}" if is_own else f"{p} {source} {k} {part}"
                    runs.append(
                        ControlRun(
                            part=part,
                            label=other[source] if part == "swap" else source,
                            drawn_by=source,
                            prompt=f"p{p}",
                            k=k,
                            seed32=(p * DRAWS + k) * 2 + (source == "B"),
                            sha256=None if lost else said,
                            failure="no answer" if lost else None,
                        )
                    )
    rows = analyse_control(runs, required_pairs=world.required_pairs, rng=rng)
    [apart] = [row for row in rows if row.hypothesis == "different_values_agree"]
    return judged(rows[-1], holds(apart, sum(world.apart) / len(world.apart)))


@dataclass(frozen=True, kw_only=True)
class Sense:
    """Three conditions, 0 / 1 answers of 10 seeds on the items of 60 lemmas."""

    case: two_way_campaign.Case
    margin: float | None = None
    """None: as large as the difference that is true."""
    seeds: int = 10
    lemmas: int = 60
    missing: float = 0.0
    """Share of answers, which count as wrong; of lemmas; and of conditions that were not measured."""


NO_GAIN = Sense(case=two_way_campaign.CASES["0/1 noise only"], margin=0.05)
CLUSTERED = Sense(case=two_way_campaign.CASES["0/1 both"], margin=0.05)
GAIN = Sense(case=two_way_campaign.CASES["0/1 both, effect"])
STRONG = Sense(case=replace(GAIN.case, effect=2.5), margin=0.05)


def sense(world: Sense, rng: np.random.Generator) -> Judged:
    """B differs from A by the effect, C does not; in a null every contrast is asked."""
    case, truth = world.case, two_way_campaign.truth(world.case)
    drawn = two_way_campaign.items(world.lemmas, rng)
    effects = {"A": 0.0, "B": case.effect, "C": 0.0}
    hits = {name: two_way_campaign.answers(case, by, drawn, world.seeds, rng) for name, by in effects.items()}
    lemma, broken = drawn.lemma, dict[str, str]()
    if world.missing > 0.0:
        there = (rng.random(world.lemmas) >= world.missing)[lemma]
        hits = {name: (y * (rng.random(y.shape) >= world.missing))[:, there] for name, y in hits.items()}
        broken = {name: "no exam" for name in hits if rng.random() < world.missing}
        lemma = lemma[there]
    rows = analyse_contrasts(
        hits, lemma, rng=rng, margin=truth if world.margin is None else world.margin, unusable=broken
    )
    found = [row for row in rows if row.role == "decides"]
    [decides] = [row for row in found if row.contrast == "B-A"]
    asked = found if case.effect == 0.0 else [decides]
    ordered = ("DETECTED", "INVALID", "INCONCLUSIVE", "EQUIVALENT")
    said = min(asked, key=lambda row: ordered.index(str(row.verdict)))
    return judged(said, holds(decides, truth), decides.estimate)
