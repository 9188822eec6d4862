"""The whole analysis of one look, stage by stage, beside SciPy and statsmodels written straightforwardly.

4,500 rows (30 prompts x 3 sources x 5 streams x 10 samples) x 7 metrics, 10,000 permutations. Stages are
timed apart: imports in a fresh process, the metrics of the texts, and each analysis. The last line of the
first table is everything but imports and text metrics; the goal is under 3 s on 2 cores.

The SciPy peer does less than ours and is scaled, which the table says: `scipy.stats.permutation_test` knows
no strata, so it permutes over all prompts at once, one metric at a time, 300 draws for 10,000. The
statsmodels peer fits the same model as ours there, prompt and prompt:source of one metric; source:stream does
not nest in its groups. Ours and the peer alternate within a run, so that a loaded machine loads both.

    python -m benchmarks.analysis [--runs 5]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import statsmodels.formula.api as smf
from scipy import stats as scipy_stats

from benchmarks.table import promised
from benchmarks.table import runs as table_runs
from stats.contrasts import omnibus
from stats.diversity import METRICS, PRIMARY, SECONDARY, measure_text
from stats.integrity import Outcome, integrity_rows
from stats.layout import arrange
from stats.legacy import legacy_view, mixed_vs_paired
from stats.mixed import fit_mixed
from stats.permutation import sharp_null
from stats.rows import FloatArray
from stats.seed_distribution import seed_sources_verdict
from stats.seed_effect import Design, analyse_seed_effect

SOURCES = ("HMIX", "PRNG", "TRNG")
PROMPTS, STREAMS, SAMPLES, WORDS = 30, 5, 10, 150  # words on average
DRAWS, PEER_DRAWS = 10_000, 300
GOAL_SECONDS = 3.0
IMPORTS = (
    "import stats.seed_effect, stats.permutation, stats.seed_distribution, stats.integrity, stats.legacy"
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the flow would hand over: labels and texts, then the metrics of the texts."""

    source: list[str]
    prompt: list[str]
    stream: list[str]
    texts: list[str]


def make_look() -> Look:
    """Texts of 120 to 180 words with skewed word frequencies; each prompt has a vocabulary of its own."""
    rng = random.Random(7)
    cells = list(itertools.product(range(PROMPTS), SOURCES, range(STREAMS), range(SAMPLES)))
    weights = [1 / (i + 2) for i in range(1200)]
    words = [[f"w{(i * 7919 + p) % 5000}" for i in range(1200)] for p in range(PROMPTS)]
    return Look(
        source=[s for _, s, _, _ in cells],
        prompt=[str(p) for p, _, _, _ in cells],
        stream=[str(t) for _, _, t, _ in cells],
        texts=[" ".join(rng.choices(words[p], weights, k=rng.randint(120, 180))) for p, _, _, _ in cells],
    )


def measured(look: Look) -> dict[str, FloatArray]:
    """Metric -> (rows,) values, NaN where a text has none."""
    rows = [measure_text(text) for text in look.texts]
    columns = {name: [row[name][0] for row in rows] for name in METRICS}
    return {name: np.array([np.nan if v is None else v for v in found]) for name, found in columns.items()}


def outcomes(look: Look) -> list[Outcome]:
    """Every sample and a same-seed repeat of one in twenty."""
    found = []
    for i, (arm, prompt) in enumerate(zip(look.source, look.prompt, strict=True)):
        for probe in (0, 1) if i % 20 == 0 else (0,):
            found.append(
                Outcome(
                    arm=arm,
                    prompt_id=prompt,
                    constraint="open",
                    seed32=i,
                    sample=i,
                    probe=probe,
                    text_ok=True,
                    reason=None,
                    words=WORDS,
                    text_sha=str(i),
                )
            )
    return found


def stages(look: Look, values: Mapping[str, FloatArray]) -> dict[str, Callable[[], object]]:
    """Each analysis of the look as a call."""
    secondary = (*SECONDARY, "type_token_ratio")
    design = Design(primary=PRIMARY, secondary=secondary, looks=(10, 20, 40), look=10)
    seeds = {name: np.random.default_rng(i).integers(0, 2**32, size=1500) for i, name in enumerate(SOURCES)}
    every = outcomes(look)
    return {
        "primary: mixed models, Tukey, TOST, power": lambda: analyse_seed_effect(
            values, source=look.source, prompt=look.prompt, stream=look.stream, design=design
        ),
        f"sharp null: {DRAWS:,} permutations, omnibus and pairs": lambda: sharp_null(
            values,
            source=look.source,
            prompt=look.prompt,
            n_draws=DRAWS,
            rng=np.random.default_rng(1),
            primary=PRIMARY,
        ),
        "seed sources: 3 x 1,500 draws": lambda: seed_sources_verdict(seeds),
        "integrity: 4,725 outcomes": lambda: integrity_rows(every, rng=np.random.default_rng(1)),
        "legacy view and mixed_vs_paired": lambda: (
            legacy_view(values, source=look.source, prompt=look.prompt),
            mixed_vs_paired(values, source=look.source, prompt=look.prompt),
        ),
    }


def scipy_permutations(look: Look, values: Mapping[str, FloatArray]) -> None:
    """Omnibus and three pairs of every metric, over all prompts at once, PEER_DRAWS draws."""

    def spread(*samples: FloatArray, axis: int = -1) -> FloatArray:
        means = np.stack([sample.mean(axis=axis) for sample in samples])
        errors = np.stack([sample.var(axis=axis, ddof=1) / sample.shape[axis] for sample in samples])
        centre = (means / errors).sum(axis=0) / (1 / errors).sum(axis=0)
        total: FloatArray = ((means - centre) ** 2 / errors).sum(axis=0)
        return total

    source = np.array(look.source)
    for column in values.values():
        groups = [column[source == name] for name in SOURCES]
        for chosen in (groups, *itertools.combinations(groups, 2)):
            scipy_stats.permutation_test(
                chosen,
                spread,
                vectorized=True,
                n_resamples=PEER_DRAWS,
                batch=100,
                alternative="greater",
                rng=1,
            )


def uneven(look: Look) -> FloatArray:
    """(rows,) values with prompt and prompt:source variance, so that neither fit ends at zero."""
    rng = np.random.default_rng(3)
    by_prompt = {p: rng.normal() for p in dict.fromkeys(look.prompt)}
    by_cell = {pair: 0.4 * rng.normal() for pair in dict.fromkeys(zip(look.prompt, look.source, strict=True))}
    means = [by_prompt[p] + by_cell[p, s] for p, s in zip(look.prompt, look.source, strict=True)]
    return np.array(means) + rng.normal(size=len(means))


def our_mixed(look: Look, y: FloatArray) -> float:
    """Design, fit and F test of one metric; returns F."""
    layout = arrange(look.source, look.prompt, ["one"] * len(y))
    return omnibus(fit_mixed(y, layout)).statistic


def statsmodels_mixed(look: Look, y: FloatArray) -> float:
    """The same fit and a Wald F test; returns F."""
    frame = pd.DataFrame({"y": y, "source": look.source, "prompt": look.prompt})
    cells = {"ps": "0 + C(source)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of boundaries on its way
        model = smf.mixedlm("y ~ source", frame, groups="prompt", re_formula="1", vc_formula=cells)
        fitted = model.fit(reml=True)
    means, covariance = fitted.fe_params.to_numpy()[1:], fitted.cov_params().to_numpy()[1:3, 1:3]
    return float(means @ np.linalg.solve(covariance, means)) / 2


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def line(name: str, seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{name:<58}{low:>9.3f}{middle:>9.3f}{high:>9.3f}"


def print_stages(runs: int, look: Look, values: Mapping[str, FloatArray]) -> None:
    """First table: seconds of every stage, and of the whole analysis."""
    print(f"{'stage, seconds':<58}{'min':>9}{'median':>9}{'max':>9}")
    fresh = [sys.executable, "-c", IMPORTS]
    print(
        line(
            "imports, fresh process", [timed(lambda: subprocess.run(fresh, check=True)) for _ in range(runs)]
        )
    )
    print(line("text metrics: 4,500 texts x 150 words", [timed(lambda: measured(look)) for _ in range(runs)]))
    found: dict[str, list[float]] = {name: [] for name in stages(look, values)}
    for _ in range(runs):
        for name, call in stages(look, values).items():
            found[name].append(timed(call))
    for name, seconds in found.items():
        print(line(name, seconds))
    totals = [sum(run) for run in zip(*found.values(), strict=True)]
    print(line(f"whole analysis (goal < {GOAL_SECONDS:.0f} s)", totals))
    promised("analysis of 4,500 rows x 7 metrics", "seconds, wall", totals, most=GOAL_SECONDS)


def print_ratios(runs: int, look: Look, values: Mapping[str, FloatArray]) -> None:
    """Second table: peer over ours, alternating, scaled as named."""
    y = uneven(look)
    permutations = list(stages(look, values).values())[1]
    peers: dict[str, tuple[Callable[[], object], Callable[[], object], float]] = {
        f"scipy permutation_test, unstratified, {PEER_DRAWS} draws scaled to {DRAWS:,}": (
            permutations,
            lambda: scipy_permutations(look, values),
            DRAWS / PEER_DRAWS,
        ),
        "statsmodels MixedLM, prompt and prompt:source, 1 metric": (
            lambda: our_mixed(look, y),
            lambda: statsmodels_mixed(look, y),
            1.0,
        ),
    }
    print(f"\n{'peer over ours, ratio':<66}{'min':>9}{'median':>9}{'max':>9}")
    for name, (mine, peer, scale) in peers.items():
        ratios = [scale * timed(peer) / timed(mine) for _ in range(runs)]
        print(f"{name:<66}{min(ratios):>9.1f}{statistics.median(ratios):>9.1f}{max(ratios):>9.1f}")
        promised("analysis, times as fast", name, ratios, least=1.0)
    print(
        f"F of the mixed models: ours {our_mixed(look, y):.6f}, statsmodels {statsmodels_mixed(look, y):.6f}"
    )


def main(runs: int = 5) -> None:
    """Print both tables, headed by what governs BLAS: its threads slow small matrices on a busy machine."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "unset")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, OPENBLAS_NUM_THREADS {threads}, {runs} runs\n")
    look = make_look()
    values = measured(look)
    print_stages(runs, look, values)
    print_ratios(runs, look, values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Seconds of each stage of the analysis, and ratios to peers."
    )
    parser.add_argument("--runs", type=int, default=table_runs(5, 2))
    main(parser.parse_args().runs)
