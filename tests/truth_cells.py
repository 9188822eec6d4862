"""The truths that `tests.truth` judges, study by study, and how each study is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from stats.aligned_bootstrap import resample_documents
from stats.disparity import analyse_disparity, find
from stats.placement_rows import DECLARED, analyse_placement
from stats.seed_effect import Design, analyse_seed_effect
from tests import rank_campaign, separability_campaign, truth_compared, truth_frozen
from tests import seed_effect_campaign as seeds
from tests import truth_worlds as worlds
from tests.test_disparity_simulation import World as Corpus
from tests.test_disparity_simulation import corpus
from tests.truth_worlds import Judged, ends, holds, judged

DETECTED, EQUIVALENT = ("DETECTED",), ("EQUIVALENT",)


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
    admits: float = 0.05
    """Wrong share that README's limits own up to."""

    def is_wrong(self, judged: Judged) -> bool:
        """Whether the verdict, or one before it that stands too, says what is not so."""
        if judged.before is not None and self.is_wrong(judged.before):
            return True
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
        return judged(rows[-1], holds(pair, -cell.effect), pair.estimate)

    return judge


def _disparity_judge(world: Corpus, *, missing: float = 0.0) -> Callable[[np.random.Generator], Judged]:
    """`missing`: chance that a language loses the loss of one sentence."""

    def judge(rng: np.random.Generator) -> Judged:
        aligned, quantised = corpus(world, rng)
        drawn = resample_documents(aligned.documents, rng=rng)
        if missing > 0.0:
            quantised[rng.random(len(quantised)) < missing, 0] = np.nan
        rows = analyse_disparity(aligned, {"int4": quantised}, margin=1.5, drawn=drawn)
        row = find(rows, "gap", "int4")
        return judged(row, holds(row, world.gap), row.estimate)

    return judge


def _rank_judge(
    world: rank_campaign.World, truth: float | None = None, *, missing: float = 0.0
) -> Callable[[np.random.Generator], Judged]:
    """`missing`: share of answers, which count as wrong, and of arms that have no answers in some seed."""

    def judge(rng: np.random.Generator) -> Judged:
        arms, broken = rank_campaign.answers(world, rng), dict[str, str]()
        if missing > 0.0:
            arms = {name: y * (rng.random(y.shape) >= missing) for name, y in arms.items()}
            broken = {name: "a seed has no answers" for name in arms if rng.random() < missing}
        rows = analyse_placement(arms, rng=np.random.default_rng(1), resamples=0, unusable=broken)
        decides = f"per_layer-{DECLARED[0].control}"
        row = next(r for r in rows if (r.contrast, r.hypothesis) == (decides, "difference"))
        if truth is None:
            return judged(row, None, row.estimate, ends(row))
        return judged(row, holds(row, truth), row.estimate)

    return judge


def _nano_judge(world: separability_campaign.World) -> Callable[[np.random.Generator], Judged]:
    """The interval is of what the state adds in the last regime."""

    def judge(rng: np.random.Generator) -> Judged:
        rows = separability_campaign.study(world, rng)
        last = f"r{world.regimes - 1}"
        [adds] = [row for row in rows if (row.hypothesis, row.contrast) == ("beyond_common", last)]
        said = next(row for row in rows if row.hypothesis == "signatures")
        # strengths that vary make another truth in each study
        return judged(said, None, adds.estimate, None if world.varying else ends(adds))

    return judge


def _drawn(draw: Callable[[Any, np.random.Generator], Judged], world: object) -> Callable[..., Judged]:
    return lambda rng: draw(world, rng)


_ladder, _injection, _control, _sense = (
    partial(_drawn, draw) for draw in (worlds.ladder, worlds.injection, worlds.control, worlds.sense)
)
_leverage, _memory, _controls = (
    partial(_drawn, draw) for draw in (truth_frozen.leverage, truth_compared.memory, truth_compared.controls)
)
_SEED = seeds.Cell(name="null")
_CLUSTERED = replace(_SEED, prompt_source_sd=0.2, streams=5, stream_sd=0.1, looks=(2, 4, 8))
_THREE = replace(_SEED, metrics=3, correlation=0.6, effect=0.2, moved=1)
_CORPUS = Corpus()
_NANO, _NANO_NULLS = separability_campaign.World(), separability_campaign.NULLS
_TIGHT = replace(rank_campaign.ALIKE, arm_sd=0.03, items=16_000)  # EQUIVALENT can be reached at all
_PLAIN = separability_campaign.World(memory=0.0, regimes=2, seeds=10, windows=4, common=0.5)
_AT_MARGIN = 0.81
"""Effect on the state at which it adds .05 of AUC to the common channels of `_PLAIN`."""
_EXTREME = (0.0, 0.0, 0.0, 0.05, 0.3, 0.7, 0.95, 1.0, 1.0, 1.0)
_FROZEN, _CLOSE, _BATCHED = truth_frozen.Frozen(), truth_frozen.TIGHT, truth_frozen.CLUSTERED
_RUNS, _ALIKE = truth_compared.Compared(), truth_compared.TIGHT
_TIED = (0.0, 0.1)
"""The state's loss is that of one control and below the others'."""
_RUNGS, _INJECTED, _CONTROL = worlds.LADDER, worlds.Injection(), worlds.Control
_FEW_TEXTS = replace(_RUNGS, prompts=12, looks=(4, 8, 16), metrics=("mtld",))
STUDIES: Mapping[str, Mapping[str, Cell]] = {
    "seeds": {
        "null": Cell(wrong=DETECTED, judge=_seed_judge(_SEED)),
        "null, clustered": Cell(wrong=DETECTED, judge=_seed_judge(_CLUSTERED)),
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_seed_judge(replace(_SEED, missing=0.1))),
        "null, a source without its largest 10 %": Cell(
            wrong=DETECTED, judge=_seed_judge(replace(_SEED, cut=0.1))
        ),
        "null, a source without its largest 2 %": Cell(
            wrong=DETECTED, judge=_seed_judge(replace(_SEED, cut=0.02)), admits=0.1
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
        "null, 5 % of languages missing": Cell(
            wrong=DETECTED, judge=_disparity_judge(_CORPUS, missing=0.05)
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
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_rank_judge(_TIGHT, 0.0, missing=0.1)),
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
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_nano_judge(replace(_NANO, missing=0.1))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_nano_judge(_NANO), heavy=True),
        **{
            f"null, {name}": Cell(wrong=DETECTED, judge=_nano_judge(world))
            for name, world in _NANO_NULLS.items()
            if world.common
        },
        "margin": Cell(wrong=EQUIVALENT, judge=_nano_judge(replace(_PLAIN, state=_AT_MARGIN))),
        "strong": Cell(wrong=EQUIVALENT, judge=_nano_judge(replace(_NANO, state=4.0)), power=0.8),
    },
    "leverage": {
        "null": Cell(wrong=DETECTED, judge=_leverage(_FROZEN)),
        "null, clustered": Cell(wrong=DETECTED, judge=_leverage(_BATCHED)),
        "null, 5 % of seeds missing": Cell(wrong=DETECTED, judge=_leverage(replace(_FROZEN, missing=0.05))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_leverage(_FROZEN), heavy=True),
        "null, no noise to hide in": Cell(wrong=DETECTED, judge=_leverage(_CLOSE)),
        "margin": Cell(wrong=EQUIVALENT, judge=_leverage(replace(_CLOSE, shift=0.05)), sign=1),
        "margin, clustered": Cell(
            wrong=EQUIVALENT, judge=_leverage(replace(_BATCHED, spread=0.02, shift=0.05)), sign=1
        ),
        "margin, heavy tails": Cell(
            wrong=EQUIVALENT, judge=_leverage(replace(_CLOSE, shift=0.05)), sign=1, heavy=True
        ),
        "strong": Cell(wrong=EQUIVALENT, judge=_leverage(replace(_FROZEN, shift=0.3)), sign=1, power=0.95),
        "strong, 5 % of seeds missing": Cell(
            wrong=EQUIVALENT, judge=_leverage(replace(_FROZEN, shift=0.3, missing=0.05)), sign=1
        ),
    },
    "memory_matters": {
        "null": Cell(wrong=DETECTED, judge=_memory(_RUNS)),
        "null, clustered": Cell(wrong=DETECTED, judge=_memory(replace(_RUNS, together=0.006))),
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_memory(replace(_RUNS, missing=0.1))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_memory(_RUNS), heavy=True),
        "null, no noise to hide in": Cell(wrong=DETECTED, judge=_memory(_ALIKE)),
        "margin": Cell(wrong=EQUIVALENT, judge=_memory(replace(_ALIKE, shifts=(0.02,)))),
        "margin in one memory of six": Cell(
            wrong=EQUIVALENT, judge=_memory(replace(_ALIKE, shifts=(-0.02, 0.0)))
        ),
        "margin in one memory, heavy tails": Cell(
            wrong=EQUIVALENT, judge=_memory(replace(_ALIKE, shifts=(-0.02, 0.0))), heavy=True
        ),
        "strong": Cell(
            wrong=EQUIVALENT, judge=_memory(replace(_RUNS, shifts=(-0.05, 0.0))), sign=-1, power=0.95
        ),
    },
    "beats_controls": {
        "null": Cell(wrong=(*DETECTED, *EQUIVALENT), judge=_controls(replace(_RUNS, shifts=_TIED))),
        "null, clustered": Cell(
            wrong=(*DETECTED, *EQUIVALENT), judge=_controls(replace(_RUNS, shifts=_TIED, together=0.006))
        ),
        "null, 10 % missing": Cell(
            wrong=(*DETECTED, *EQUIVALENT), judge=_controls(replace(_RUNS, shifts=_TIED, missing=0.1))
        ),
        "null, heavy tails": Cell(
            wrong=(*DETECTED, *EQUIVALENT), judge=_controls(replace(_RUNS, shifts=_TIED)), heavy=True
        ),
        "null, every control alike": Cell(wrong=DETECTED, judge=_controls(_ALIKE)),
        "margin": Cell(wrong=EQUIVALENT, judge=_controls(replace(_ALIKE, shifts=(0.02,)))),
        "margin at one control of seven": Cell(
            wrong=(*DETECTED, *EQUIVALENT), judge=_controls(replace(_ALIKE, shifts=(0.02, 0.0)))
        ),
        "margin, heavy tails": Cell(
            wrong=EQUIVALENT, judge=_controls(replace(_ALIKE, shifts=(0.02,))), heavy=True
        ),
        "strong": Cell(
            wrong=EQUIVALENT, judge=_controls(replace(_RUNS, shifts=(0.05,))), sign=-1, power=0.95
        ),
    },
    "ladder": {
        "null": Cell(wrong=DETECTED, judge=_ladder(_RUNGS)),
        "null, clustered": Cell(wrong=DETECTED, judge=_ladder(replace(_RUNGS, prompt_source_sd=0.2))),
        "null, few texts, 10 % missing": Cell(
            wrong=DETECTED, judge=_ladder(replace(_FEW_TEXTS, missing=0.1))
        ),
        "null, a size not measured": Cell(wrong=DETECTED, judge=_ladder(replace(_RUNGS, unmeasured=(1,)))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_ladder(_RUNGS), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2,) * 4))),
        "margin at one size": Cell(
            wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2, 0.0, 0.0, 0.0)))
        ),
        "margin in one metric of three": Cell(
            wrong=EQUIVALENT, judge=_ladder(replace(_RUNGS, shifts=(0.2,) * 4, moved=1))
        ),
        "margin at the size not measured": Cell(
            wrong=(*DETECTED, *EQUIVALENT),
            judge=_ladder(replace(_RUNGS, shifts=(0.2, 0.0, 0.0, 0.0), unmeasured=(0,))),
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
        "half, 5 % missing": Cell(
            wrong=DETECTED, judge=_control(_CONTROL(apart=(0.5,), missing=0.05, required_pairs=330))
        ),
        "half, missing where texts agree": Cell(
            wrong=DETECTED,
            judge=_control(_CONTROL(apart=(0.5,), lost_if_shared=0.15, required_pairs=300)),
        ),
        "half, most prompts all or none": Cell(wrong=DETECTED, judge=_control(_CONTROL(apart=_EXTREME))),
        "half, by prompt": Cell(wrong=DETECTED, judge=_control(_CONTROL(apart=(0.2, 0.8)))),
        "value has no say, 5 % missing": Cell(
            wrong=("DETECTED", "INVALID"),
            judge=_control(_CONTROL(apart=(1.0,), missing=0.05, required_pairs=330)),
        ),
        "95 % of texts agree": Cell(wrong=EQUIVALENT, judge=_control(_CONTROL(apart=(0.95,)))),
        "99 % repeat": Cell(wrong=("INVALID",), judge=_control(_CONTROL(agree=0.99))),
        "the label counts": Cell(wrong=(*DETECTED, *EQUIVALENT), judge=_control(_CONTROL(label=0.1))),
    },
    "sense": {
        "null": Cell(wrong=DETECTED, judge=_sense(worlds.NO_GAIN)),
        "null, clustered": Cell(wrong=DETECTED, judge=_sense(worlds.CLUSTERED)),
        "null, 10 % missing": Cell(wrong=DETECTED, judge=_sense(replace(worlds.CLUSTERED, missing=0.1))),
        "null, heavy tails": Cell(wrong=DETECTED, judge=_sense(worlds.CLUSTERED), heavy=True),
        "margin": Cell(wrong=EQUIVALENT, judge=_sense(worlds.GAIN)),
        "strong": Cell(wrong=EQUIVALENT, judge=_sense(worlds.STRONG), sign=1, power=0.95),
    },
}  # fmt: skip
"""Real texts under direct injection: `tests.injection_campaign`; the retrieval heads' bootstrap by its
rejections and coverage, beside other methods: `tests.two_way_campaign`."""
