"""Simulation campaign for `stats.seed_effect`: does the whole procedure, looks included, keep its promises?

Every data set passes through `analyse_seed_effect` at each planned look, so what is simulated is what the
flow runs. A cell of the campaign states the truth; the table states what came out of it. The test is an
argument: `one_way_anova` and `prompt_only` are what a reader without the mixed model would run, and they must
fail here. One BLAS thread a process: two processes of two threads each took 10 times as long on two cores.

    OMP_NUM_THREADS=1 nice -n 10 python -m tests.seed_effect_campaign --datasets 10000 --processes 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from stats.power import Components, Size, chance_null_equivalent, contrast_df, contrast_se, detection_power
from stats.rows import FloatArray
from stats.seed_effect import Design, analyse_seed_effect
from stats.sequential import look_levels


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One truth. Standard deviations in within-cell SD."""

    name: str
    prompts: int = 30
    looks: tuple[int, ...] = (10, 20, 40)
    """Samples a prompt x source x stream cell."""
    streams: int = 1
    prompt_sd: float = 1.0
    prompt_source_sd: float = 0.0
    stream_sd: float = 0.0
    effect: float = 0.0
    """Difference of the extreme sources; the third lies midway."""
    moved: int | None = None
    """Metrics that have it; None for all."""
    metrics: int = 1
    correlation: float = 0.0
    """Between metrics, of every term."""
    missing: float = 0.0
    cut: float = 0.0
    """Share of the first source's largest values that is missing too."""
    """Share of texts without a value."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a test said about one data set at one look."""

    rejected: bool
    """An omnibus test after Holm."""
    detected: bool
    equivalent: bool
    covered: bool
    """All simultaneous intervals of the first metric hold the true difference."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Rates over the data sets of a cell."""

    cell: Cell
    datasets: int
    ever_rejected: float
    ever_detected: float
    """DETECTED at any look, without stopping for equivalence."""
    ever_equivalent: float
    detected_at: tuple[float, ...]
    """By look, whatever happened before."""
    promised_at: tuple[float, ...]
    equivalent_at: tuple[float, ...]
    covered_last: float
    seconds: float


Labels = tuple[list[str], list[str], list[str]]
Values = Mapping[str, FloatArray]
Test = Callable[[Values, Labels, Cell, int], Judgement]

CELLS = (
    Cell(name="null, prompts agree"),
    Cell(name="null, prompts differ", prompt_source_sd=0.2),
    Cell(name="null, prompts differ, 10 % missing", prompt_source_sd=0.2, missing=0.1),
    Cell(name="null, smoke design", prompts=12, looks=(4, 8, 16), prompt_source_sd=0.3),
    Cell(name="null, 5 streams", streams=5, looks=(2, 4, 8), prompt_source_sd=0.2, stream_sd=0.1),
    Cell(name="null, 3 metrics r = .6", prompt_source_sd=0.2, metrics=3, correlation=0.6),
    Cell(name="null, 5 streams, no variance", streams=5, looks=(2, 4, 8)),
    Cell(name="margin, prompts agree", effect=0.2),
    Cell(name="margin, prompts differ", effect=0.2, prompt_source_sd=0.1),
    Cell(
        name="margin, 5 streams", effect=0.2, streams=5, looks=(2, 4, 8), prompt_source_sd=0.1, stream_sd=0.08
    ),
    Cell(name="margin, 3 metrics r = 0", effect=0.2, metrics=3),
)


def judge_ours(values: Values, labels: Labels, cell: Cell, look: int) -> Judgement:
    """The procedure itself."""
    source, prompt, stream = labels
    design = Design(primary=tuple(values), looks=cell.looks, look=look)
    rows = analyse_seed_effect(values, source=source, prompt=prompt, stream=stream, design=design)
    alpha = rows[-1].alpha
    assert alpha is not None
    omnibus = [row.p_adjusted for row in rows if row.hypothesis == "omnibus" and row.role == "decides"]
    truth = {"a-b": -cell.effect / 2, "a-c": -cell.effect, "b-c": -cell.effect / 2}
    pairs = [row for row in rows if row.hypothesis == "pairwise" and row.metric == "m0"]
    return Judgement(
        rejected=any(p is not None and p < alpha for p in omnibus),
        detected=rows[-1].verdict == "DETECTED",
        equivalent=all(row.p is not None and row.p < alpha for row in rows if row.hypothesis == "tost"),
        covered=all(
            row.low is not None and row.high is not None and row.low <= truth[row.contrast] <= row.high
            for row in pairs
        ),
    )


def one_way_anova(values: Values, labels: Labels, cell: Cell, look: int) -> Judgement:
    """F over all texts as if they were independent."""
    y, source = values["m0"], np.array(labels[0])
    return _plain(float(stats.f_oneway(*(y[source == name] for name in "abc")).pvalue), cell, look)


def prompt_only(values: Values, labels: Labels, cell: Cell, look: int) -> Judgement:
    """The mixed model with (1|prompt) alone, in balanced data: the error pools prompt:source."""
    y = values["m0"].reshape(cell.prompts, 3, -1)
    by_prompt = y - y.mean(axis=(1, 2), keepdims=True)
    between = y[0].size * cell.prompts / 3 * float(np.var(by_prompt.mean(axis=(0, 2)), ddof=1))
    df = y.size - cell.prompts - 2
    inside = float(np.sum((by_prompt - by_prompt.mean(axis=(0, 2))[:, None]) ** 2)) / df
    return _plain(float(stats.f.sf(between / inside, 2, df)), cell, look)


def _plain(p: float, cell: Cell, look: int) -> Judgement:
    rejected = p < look_levels(cell.looks)[look]
    return Judgement(rejected=rejected, detected=rejected, equivalent=False, covered=not rejected)


def labels_of(cell: Cell, look: int) -> Labels:
    """One label a text, the sample running fastest, then stream, source, prompt."""
    p, s, t, _ = (index.ravel() for index in np.indices((cell.prompts, 3, cell.streams, look)))
    return ["abc"[i] for i in s], [f"p{i:02d}" for i in p], [f"t{i}" for i in t]


def draw(cell: Cell, rng: np.random.Generator) -> FloatArray:
    """(metrics, prompts, 3, streams, last look) values, blocks of samples in the order of the looks."""
    P, T, M, r = cell.prompts, cell.streams, cell.metrics, cell.correlation

    def normal(*shape: int) -> FloatArray:
        own = rng.normal(size=(M, *shape))
        return own if r == 0.0 else np.sqrt(1 - r) * own + np.sqrt(r) * rng.normal(size=(1, *shape))

    y = normal(P, 3, T, cell.looks[-1])
    y += cell.prompt_sd * normal(P)[:, :, None, None, None]
    y += cell.prompt_source_sd * normal(P, 3)[:, :, :, None, None]
    y += cell.stream_sd * normal(3, T)[:, None, :, :, None]
    y[: cell.moved] += cell.effect * np.array([-0.5, 0.0, 0.5])[None, None, :, None, None]
    if cell.missing:
        y[rng.random(y.shape) < cell.missing] = np.nan
    if cell.cut:
        first = y[:, :, 0]
        first[first > np.nanquantile(first, 1.0 - cell.cut)] = np.nan
    return y


def promised(cell: Cell) -> tuple[float, ...]:
    """Chance of DETECTED at each look of one metric by `stats.power`."""
    levels = look_levels(cell.looks)
    components = Components(prompt_source=cell.prompt_source_sd**2, stream=cell.stream_sd**2)
    out = []
    for look in cell.looks:
        size = Size(prompts=cell.prompts, samples=look, streams=cell.streams)
        se, df = contrast_se(components, size), contrast_df(components, size)
        out.append(detection_power(cell.effect, se, df, levels[look]))
    return tuple(out)


def promised_equivalent(cell: Cell) -> tuple[float, ...]:
    """Chance that a true null passes every equivalence test at each look."""
    levels = look_levels(cell.looks)
    components = Components(prompt_source=cell.prompt_source_sd**2, stream=cell.stream_sd**2)
    out = []
    for look in cell.looks:
        size = Size(prompts=cell.prompts, samples=look, streams=cell.streams)
        se, df = contrast_se(components, size), contrast_df(components, size)
        out.append(chance_null_equivalent(se, 0.2, df, levels[look], metrics=cell.metrics))
    return tuple(out)


def judge_sets(cell: Cell, datasets: int, seed: int, test: Test = judge_ours) -> list[list[Judgement]]:
    """Judgements by data set, then look."""
    rng = np.random.default_rng(seed)
    labels = [labels_of(cell, look) for look in cell.looks]
    out = []
    for _ in range(datasets):
        y = draw(cell, rng)
        looks = []
        for look, of_look in zip(cell.looks, labels, strict=True):
            values = {f"m{i}": y[i, ..., :look].ravel() for i in range(cell.metrics)}
            looks.append(test(values, of_look, cell, look))
        out.append(looks)
    return out


def summarise(cell: Cell, judged: Sequence[Sequence[Judgement]], seconds: float) -> Outcome:
    """Rates over data sets."""

    def by_look(field: str) -> FloatArray:
        return np.array([[getattr(look, field) for look in looks] for looks in judged], dtype=np.float64)

    detected, equivalent = by_look("detected"), by_look("equivalent")
    return Outcome(
        cell=cell,
        datasets=len(judged),
        ever_rejected=float(by_look("rejected").max(axis=1).mean()),
        ever_detected=float(detected.max(axis=1).mean()),
        ever_equivalent=float(equivalent.max(axis=1).mean()),
        detected_at=tuple(float(x) for x in detected.mean(axis=0)),
        promised_at=promised(cell),
        equivalent_at=tuple(float(x) for x in equivalent.mean(axis=0)),
        covered_last=float(by_look("covered")[:, -1].mean()),
        seconds=seconds,
    )


def run_cell(cell: Cell, datasets: int, *, seed: int = 1, test: Test = judge_ours) -> Outcome:
    """Simulate one cell in this process."""
    start = time.perf_counter()
    judged = judge_sets(cell, datasets, seed, test)
    return summarise(cell, judged, time.perf_counter() - start)


def table_line(outcome: Outcome) -> str:
    """One line of the printed table."""

    def rates(values: Sequence[float]) -> str:
        return " ".join(f"{value:.3f}" for value in values)

    return (
        f"{outcome.cell.name:36} {outcome.datasets:6d}"
        f"  {outcome.ever_rejected:.4f}  {outcome.ever_detected:.4f}"
        f"  {rates(outcome.detected_at)} | {rates(outcome.promised_at)}  {outcome.covered_last:.4f}"
        f"  {rates(outcome.equivalent_at)} | {rates(promised_equivalent(outcome.cell))}"
        f"  {outcome.ever_equivalent:.4f}  {outcome.seconds:.0f}"
    )


HEADER = (
    f"{'cell':36} {'sets':>6}  {'omni':6}  {'DETECT':6}  {'detected by look':17} | {'promised':17}"
    f"  {'cover':6}  {'equivalent':17} | {'if null, promised':17}  {'EQUIV':6}  s"
)


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="", help="run the cells whose name holds this")
    chosen = parser.parse_args()
    cells = [cell for cell in CELLS if chosen.only in cell.name]
    print(HEADER, flush=True)
    with ProcessPoolExecutor(chosen.processes) as pool:
        for outcome in pool.map(run_cell, cells, [chosen.datasets] * len(cells)):
            print(table_line(outcome), flush=True)
    null = replace(CELLS[1], name="prompts differ")
    for name, test in (("one-way ANOVA", one_way_anova), ("(1|prompt) only", prompt_only)):
        outcome = run_cell(null, min(chosen.datasets, 1000), test=test)
        print(f"{name} on '{null.name}': false positives {outcome.ever_rejected:.3f}", flush=True)


if __name__ == "__main__":
    main()
