"""Verdicts against the truth, study by study: `python -m tests.truth --study seeds --studies 1000`.

Each cell states what is so and which decisive verdicts are wrong there; the whole analysis of the study
then judges simulated data sets, looks included. Null: no difference. Margin: a difference as large as the
smallest effect of interest, where EQUIVALENT is wrong, and so is a DETECTED effect that is called negligible.
Strong: far above it, DETECTED with the power that the cell promises; the other sign is wrong. Clustered:
units within a group share more than in the plain null. Heavy tails: every normal number of the simulator is a
Student t with 3 degrees of freedom and SD 1 instead. Printed are shares of the studies, the wrong ones with
their Monte Carlo error, and coverage of the deciding interval.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from stats.aligned_bootstrap import resample_documents
from stats.disparity import analyse_disparity, find
from stats.placement_rows import DECLARED, analyse_placement
from stats.rows import FloatArray, TestRow
from stats.seed_effect import Design, analyse_seed_effect
from tests import rank_campaign, separability_campaign
from tests import seed_effect_campaign as seeds
from tests import truth_worlds as worlds
from tests.test_disparity_simulation import World as Corpus
from tests.test_disparity_simulation import corpus
from tests.truth_worlds import Judged, judged

VERDICTS = ("DETECTED", "EQUIVALENT", "INCONCLUSIVE", "INVALID")
DETECTED, EQUIVALENT = ("DETECTED",), ("EQUIVALENT",)


class HeavyTails:
    """A generator whose normal numbers are Student's t with 3 degrees of freedom, scaled to SD 1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = None) -> FloatArray:
        """As of a `numpy.random.Generator`."""
        return np.asarray(loc + scale * self._rng.standard_t(3, size=size) / math.sqrt(3.0))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One truth of one study."""

    wrong: tuple[str, ...]
    """Decisive verdicts that are wrong under it."""
    judge: Callable[[np.random.Generator], Judged]
    heavy: bool = False
    sign: int = 0
    """Of the true effect in the deciding estimate; 0 where there is none or it is not one number."""
    power: float | None = None
    """Share of DETECTED that is promised."""

    def is_wrong(self, judged: Judged) -> bool:
        """Whether the verdict says what is not so."""
        if judged.verdict == "DETECTED" and self.sign and judged.estimate is not None:
            return judged.estimate * self.sign < 0.0 or ("EQUIVALENT" in self.wrong and judged.negligible)
        return judged.verdict in self.wrong or ("EQUIVALENT" in self.wrong and judged.negligible)


def _seed_judge(cell: seeds.Cell) -> Callable[[np.random.Generator], Judged]:
    def judge(rng: np.random.Generator) -> Judged:
        y = seeds.draw(cell, rng)
        for look in cell.looks:
            values = {f"m{i}": y[i, ..., :look].ravel() for i in range(cell.metrics)}
            source, prompt, stream = seeds.labels_of(cell, look)
            if not worlds.is_whole(values["m0"], source, prompt, rng):
                return Judged(verdict="INVALID")
            design = Design(primary=tuple(values), looks=cell.looks, look=look)
            rows = analyse_seed_effect(values, source=source, prompt=prompt, stream=stream, design=design)
            pair = next(r for r in rows if (r.hypothesis, r.metric, r.contrast) == ("pairwise", "m0", "a-c"))
            if rows[-1].verdict in (*DETECTED, *EQUIVALENT):
                break  # as the gates do: the next look is for INCONCLUSIVE
        return judged(rows[-1], _holds(pair, -cell.effect), pair.estimate)

    return judge


def _holds(row: TestRow, truth: float) -> bool:
    return row.low is not None and row.high is not None and row.low <= truth <= row.high


def _disparity_judge(world: Corpus) -> Callable[[np.random.Generator], Judged]:
    def judge(rng: np.random.Generator) -> Judged:
        aligned, quantised = corpus(world, rng)
        drawn = resample_documents(aligned.documents, rng=rng)
        rows = analyse_disparity(aligned, {"int4": quantised}, margin=1.5, drawn=drawn)
        row = find(rows, "gap", "int4")
        return judged(row, _holds(row, world.gap), row.estimate)

    return judge


def _rank_judge(world: rank_campaign.World, truth: float | None = None) -> Callable[..., Judged]:
    def judge(rng: np.random.Generator) -> Judged:
        rows = analyse_placement(rank_campaign.answers(world, rng), rng=np.random.default_rng(1), resamples=0)
        decides = f"per_layer-{DECLARED[0].control}"
        row = next(r for r in rows if (r.contrast, r.hypothesis) == (decides, "difference"))
        return judged(row, None if truth is None else _holds(row, truth), row.estimate)

    return judge


def _nano_judge(world: separability_campaign.World) -> Callable[[np.random.Generator], Judged]:
    def judge(rng: np.random.Generator) -> Judged:
        rows = separability_campaign.study(world, rng)
        return judged(next(row for row in rows if row.hypothesis == "signatures"))

    return judge


def _drawn(draw: Callable[[Any, np.random.Generator], Judged], world: object) -> Callable[..., Judged]:
    return lambda rng: draw(world, rng)


_ladder, _injection, _control, _sense = (
    partial(_drawn, draw) for draw in (worlds.ladder, worlds.injection, worlds.control, worlds.sense)
)
_SEED = seeds.Cell(name="null")
_CLUSTERED = replace(_SEED, prompt_source_sd=0.2, streams=5, stream_sd=0.1, looks=(2, 4, 8))
_THREE = replace(_SEED, metrics=3, correlation=0.6, effect=0.2, moved=1)
_CORPUS = Corpus()
_NANO, _NANO_NULLS = separability_campaign.World(), separability_campaign.NULLS
_TIGHT = replace(rank_campaign.ALIKE, arm_sd=0.03, items=16_000)  # EQUIVALENT can be reached at all
_RUNGS, _INJECTED, _CONTROL = worlds.LADDER, worlds.Injection(), worlds.Control
STUDIES: Mapping[str, Mapping[str, Cell]] = {
    "seeds": {
        "null": Cell(wrong=DETECTED, judge=_seed_judge(_SEED)),
        "null, clustered": Cell(wrong=DETECTED, judge=_seed_judge(_CLUSTERED)),
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_seed_judge(replace(_SEED, missing=0.1))),
        "null, a source without its largest 10 %": Cell(
            wrong=DETECTED, judge=_seed_judge(replace(_SEED, cut=0.1))
        ),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_seed_judge(_SEED), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_seed_judge(replace(_SEED, effect=0.2))),
        "margin, clustered": Cell(wrong=EQUIVALENT, judge=_seed_judge(replace(_CLUSTERED, effect=0.2))),
        "margin, heavy tails": Cell(
            wrong=EQUIVALENT, judge=_seed_judge(replace(_SEED, effect=0.2)), heavy=True
        ),
        "margin in one metric of three": Cell(wrong=EQUIVALENT, judge=_seed_judge(_THREE)),
        "strong": Cell(
            wrong=EQUIVALENT, judge=_seed_judge(replace(_SEED, effect=0.6)), sign=-1, power=0.95
        ),
    },
    "disparity": {
        "null": Cell(wrong=DETECTED, judge=_disparity_judge(_CORPUS)),
        "null, clustered": Cell(
            wrong=DETECTED, judge=_disparity_judge(replace(_CORPUS, language_sd=1.5, documents=8))
        ),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_disparity_judge(_CORPUS), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_disparity_judge(replace(_CORPUS, gap=1.5))),
        "margin, heavy tails": Cell(
            wrong=EQUIVALENT, judge=_disparity_judge(replace(_CORPUS, gap=1.5)), heavy=True
        ),
        "strong": Cell(
            wrong=EQUIVALENT, judge=_disparity_judge(replace(_CORPUS, gap=4.0)), sign=1, power=0.95
        ),
    },
    "ranks": {
        "null": Cell(wrong=DETECTED, judge=_rank_judge(rank_campaign.ALIKE, 0.0)),
        "null, clustered": Cell(
            wrong=DETECTED, judge=_rank_judge(replace(rank_campaign.ALIKE, arm_sd=0.3), 0.0)
        ),
        "null, heavy tails": Cell(
            wrong=DETECTED, judge=_rank_judge(rank_campaign.ALIKE, 0.0), heavy=True
        ),
        "null, no noise to hide in": Cell(wrong=DETECTED, judge=_rank_judge(_TIGHT, 0.0)),
        "margin": Cell(wrong=EQUIVALENT, judge=_rank_judge(replace(_TIGHT, gain=0.01), 0.01)),
        "strong": Cell(wrong=EQUIVALENT, judge=_rank_judge(rank_campaign.THREE), sign=1, power=0.8),
    },
    "signatures": {
        "null": Cell(wrong=DETECTED, judge=_nano_judge(_NANO)),
        "null, clustered": Cell(wrong=DETECTED, judge=_nano_judge(replace(_NANO, batch=0.5, memory=0.995))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_nano_judge(_NANO), heavy=True),
        **{
            f"null, {name}": Cell(wrong=DETECTED, judge=_nano_judge(world))
            for name, world in _NANO_NULLS.items()
            if world.common
        },
        "strong": Cell(wrong=EQUIVALENT, judge=_nano_judge(replace(_NANO, state=4.0)), power=0.8),
    },
    "ladder": {
        "null": Cell(wrong=DETECTED, judge=_ladder(_RUNGS)),
        "null, clustered": Cell(wrong=DETECTED, judge=_ladder(replace(_RUNGS, prompt_source_sd=0.2))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_ladder(_RUNGS), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2,) * 4))),
        "margin at one size": Cell(
            wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2, 0.0, 0.0, 0.0)))
        ),
        "margin in one metric of three": Cell(
            wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2,) * 4, moved=1))
        ),
        "strong": Cell(wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.6,) * 4)), power=0.95),
    },
    "injection": {
        "null": Cell(wrong=DETECTED, judge=_injection(_INJECTED)),
        "null, clustered": Cell(wrong=DETECTED, judge=_injection(replace(_INJECTED, prompt_source_sd=0.2))),
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_injection(replace(_INJECTED, missing=0.1))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_injection(_INJECTED), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_injection(replace(_INJECTED, shift=0.2))),
        "margin in one metric of two": Cell(
            wrong=EQUIVALENT, judge=_injection(replace(_INJECTED, shift=0.2, moved=1))
        ),
        "strong": Cell(
            wrong=EQUIVALENT, judge=_injection(replace(_INJECTED, shift=0.8)), sign=1, power=0.95
        ),
    },
    "control": {
        "strong": Cell(wrong=("EQUIVALENT", "INVALID"), judge=_control(_CONTROL()), power=0.95),
        "strong, 5 % missing": Cell(
            wrong=("EQUIVALENT", "INVALID"),
            judge=_control(_CONTROL(missing=0.05, required_pairs=330)),
            power=0.95,
        ),
        "5 % missing of too few": Cell(
            wrong=("DETECTED", "EQUIVALENT", "INVALID"), judge=_control(_CONTROL(missing=0.05))
        ),
        "value has no say": Cell(wrong=("DETECTED", "INVALID"), judge=_control(_CONTROL(apart=(1.0,)))),
        "half the texts agree": Cell(wrong=DETECTED, judge=_control(_CONTROL(apart=(0.5,)))),
        "half, by prompt": Cell(wrong=DETECTED, judge=_control(_CONTROL(apart=(0.2, 0.8)))),
        "95 % of texts agree": Cell(wrong=EQUIVALENT, judge=_control(_CONTROL(apart=(0.95,)))),
        "99 % repeat": Cell(wrong=("INVALID",), judge=_control(_CONTROL(agree=0.99))),
        "the label counts": Cell(wrong=(*DETECTED, *EQUIVALENT), judge=_control(_CONTROL(label=0.1))),
    },
    "sense": {
        "null": Cell(wrong=DETECTED, judge=_sense(worlds.NO_GAIN)),
        "null, clustered": Cell(wrong=DETECTED, judge=_sense(worlds.CLUSTERED)),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_sense(worlds.CLUSTERED), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_sense(worlds.GAIN)),
        "strong": Cell(wrong=EQUIVALENT, judge=_sense(worlds.STRONG), sign=1, power=0.95),
    },
}  # fmt: skip
"""Real texts under direct injection: `tests.injection_campaign`; the retrieval heads' bootstrap by its
rejections and coverage, beside other methods: `tests.two_way_campaign`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the simulated studies of a cell."""

    shares: Mapping[str, float]
    """Of each verdict."""
    negligible: float
    """Share that was DETECTED and called negligible."""
    wrong: float
    error: float
    """Monte Carlo standard error of `wrong`."""
    covered: float | None
    seconds: float


def judge_cell(name: str, cell: Cell, studies: int, *, seed: int) -> Outcome:
    """Judge so many studies of a cell."""
    began, rng = time.perf_counter(), np.random.default_rng([seed, *name.encode()])
    source = cast(np.random.Generator, HeavyTails(rng)) if cell.heavy else rng
    found = [cell.judge(source) for _ in range(studies)]
    counts = Counter(one.verdict for one in found)
    assert set(counts) <= set(VERDICTS), counts
    wrong = sum(map(cell.is_wrong, found)) / studies
    known = [one.covered for one in found if one.covered is not None]
    return Outcome(
        shares={verdict: counts[verdict] / studies for verdict in VERDICTS},
        negligible=sum(one.negligible for one in found) / studies,
        wrong=wrong,
        error=math.sqrt(wrong * (1.0 - wrong) / studies),
        covered=sum(known) / len(known) if known else None,
        seconds=time.perf_counter() - began,
    )


def line(study: str, name: str, studies: int, found: Outcome) -> str:
    """One line of the table."""
    shares = " | ".join(f"{_short(found.shares[verdict]):>5}" for verdict in VERDICTS)
    covered = "-" if found.covered is None else _short(found.covered)
    wrong = f"{_short(found.wrong)} ± {_short(found.error)}"
    return (
        f"| {study:<10} | {name:<40} | {studies:5} | {shares} | {_short(found.negligible):>5} "
        f"| {wrong:<11} | {covered:>5} | {found.seconds:5.0f} s |"
    )


def _short(share: float) -> str:
    """Three decimals without a leading zero, 0 and 1 bare.

    >>> [_short(x) for x in (0.0, 0.0412, 1.0)]
    ['0', '.041', '1']
    """
    return f"{share:g}" if share in (0.0, 1.0) else f"{share:.3f}".lstrip("0")


HEAD = (
    f"| {'study':<10} | {'truth':<40} | {'n':>5} | DETEC | EQUIV | INCON | INVAL | small | "
    f"{'wrong':<11} | cover | {'took':>7} |"
)
"""`small`: DETECTED and called negligible, which goes the way of EQUIVALENT."""


def main() -> None:
    """Print the table of one study, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--study", choices=[*STUDIES, "all"], default="all")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(HEAD, flush=True)
    for study in STUDIES if given.study == "all" else [given.study]:
        for name, cell in STUDIES[study].items():
            if given.only in name:
                found = judge_cell(name, cell, given.studies, seed=given.seed)
                print(line(study, name, given.studies, found), flush=True)


if __name__ == "__main__":
    main()
