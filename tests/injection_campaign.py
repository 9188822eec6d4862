"""Campaign for direct injection: how often does the study's own decision see a source with a known fault?

One repeat draws a fresh PRNG tape, generates the reference texts with it under `select`, and compares each
control with that reference: same model, prompts, looks and decision as the study's smoke profile. A tape of a
control is opened at its own stream, and a row at its own draw from that tape. `prng` is among the controls:
the same generator twice, whose rate must stay near alpha. With `--pairs`, references are also compared with
one another, which costs no generation.

Two answers are counted. `mean`: DETECTED by the mixed model at any look, prompts being a sample of prompts.
`texts`: the sharp null, max-T over the primary metrics at the last look and 5 %. Whether an assay can see a
source act on these very texts is the second question; a `constant` source moves every prompt, but each its
own way, so that 12 prompts do not always settle the mean.

    OMP_NUM_THREADS=1 nice python -m tests.injection_campaign MODEL_DIRECTORY --repeats 50
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from models.backends import Job, Sampling
from models.entropy import SourceSpec, Tape, open_source, uniforms
from models.injection import Injection, InjectionJob, inject
from models.prompts import SMOKE, Prompt, select
from models.transformers_backend import TransformersBackend
from stats.diversity import PRIMARY, exclusion, measure_text
from stats.permutation import sharp_null
from stats.rows import FloatArray
from stats.seed_effect import Design, analyse_seed_effect

SETTINGS = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=60)
LOOKS = (4, 8, 16)

Control = tuple[str, float | None]
"""Kind and dose of a source."""

STRONG: tuple[Control, ...] = (("constant", None), ("biased_bits", 0.5), ("tiled", None))
"""Controls that must be seen on 95 of 100 tapes."""

WEAK: tuple[Control, ...] = (
    *(("biased_bits", dose) for dose in (0.01, 0.05, 0.1, 0.25)),
    *(("lag1", dose) for dose in (0.1, 0.3, 0.6, 0.9)),
    ("short_range", None),
    ("quantised8", None),
)
"""Controls whose rate is reported, whatever it is."""

SAME: Control = ("prng", None)
"""The reference's own kind, at another stream."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a repeat is made of."""

    prompts: tuple[str, ...] = SMOKE
    looks: tuple[int, ...] = LOOKS
    sampling: Sampling = SETTINGS
    controls: tuple[Control, ...] = (*STRONG, *WEAK, SAME)

    def keyed_prompts(self) -> list[tuple[str, Prompt]]:
        """(key, prompt) of each text: all prompts at k = 0, then at 1, ..."""
        prompts = select(self.prompts)
        return [(f"{p.prompt_id}/{k}", p) for k in range(self.looks[-1]) for p in prompts]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The texts of one tape, measured."""

    values: Mapping[str, FloatArray]
    """Metric -> (looks[-1], prompts); NaN for a text left out."""
    excluded: int
    """Texts left out: failed, or under 10 words."""


@dataclass(frozen=True)
class Seen:
    """What the decision said of one control's tape."""

    verdicts: tuple[str, ...]
    """By look."""
    effect: float | None
    """Largest of the primary contrasts at the last look, in within-cell SD."""
    texts_differ: bool
    """Sharp null rejected at the last look."""
    excluded: int


def generate(backend: TransformersBackend, control: Control, stream: int, plan: Plan, tape: Path) -> Arm:
    """The texts of one tape of one source under `select`; equal prompt and numbers are generated once."""
    source = SourceSpec(kind=control[0], stream=stream, dose=control[1])
    named = plan.keyed_prompts()
    draws = Tape(tape, source).draws([key for key, _ in named])
    jobs: dict[tuple[str, bytes], InjectionJob] = {}
    places = []
    for (key, p), drawn in zip(named, draws, strict=True):
        job = Job(key=key, prompt=p.text, seed=0, sampling=plan.sampling)
        row = open_source(replace(source, stream=drawn.seed64))
        same = (p.prompt_id, uniforms(row, plan.sampling.max_new_tokens).tobytes())
        jobs.setdefault(same, InjectionJob(job=job, draw=drawn.seed64))
        places.append(same)
    outputs = inject(backend, list(jobs.values()), Injection(mode="select", source=source))
    texts = dict(zip(jobs, (found.output.text for found in outputs), strict=True))
    return measured([texts[same] for same in places], plan)


def measured(texts: Sequence[str | None], plan: Plan) -> Arm:
    """Primary metrics of the texts, in the order of `keyed_prompts`."""
    rows: list[dict[str, float]] = []
    left_out = 0
    for text in texts:
        out = text is None or exclusion(text) is not None
        left_out += out
        found = {} if out or text is None else measure_text(text)
        numbers = {name: found[name][0] if found else None for name in PRIMARY}
        rows.append({name: np.nan if x is None else x for name, x in numbers.items()})
    shape = (plan.looks[-1], len(plan.prompts))
    values = {name: np.array([row[name] for row in rows]).reshape(shape) for name in PRIMARY}
    return Arm(values=values, excluded=left_out)


def judge(control: Arm, reference: Arm, plan: Plan) -> Seen:
    """The study's decision at each look, control against reference."""
    verdicts, effect, texts_differ = [], None, False
    for look in plan.looks:
        n = look * len(plan.prompts)
        values = {
            name: np.concatenate([arm.values[name][:look].ravel() for arm in (control, reference)])
            for name in PRIMARY
        }
        source, prompt = ["control"] * n + ["reference"] * n, list(plan.prompts) * look * 2
        design = Design(primary=PRIMARY, looks=plan.looks, look=look, sources=("control", "reference"))
        stream = ["one"] * 2 * n
        last = analyse_seed_effect(values, source=source, prompt=prompt, stream=stream, design=design)[-1]
        verdicts.append(last.verdict or "none")
        effect = last.effect
        if look == plan.looks[-1]:
            texts_differ = rejects_sharp_null(values, source, prompt)
    return Seen(tuple(verdicts), effect, texts_differ, control.excluded)


def rejects_sharp_null(values: Mapping[str, FloatArray], source: list[str], prompt: list[str]) -> bool:
    """Whether max-T over the primary metrics rejects that no text depends on the source."""
    rng = np.random.default_rng(1)
    rows = sharp_null(values, source=source, prompt=prompt, n_draws=999, rng=rng, primary=PRIMARY)
    p = next(row.p for row in rows if row.hypothesis == "max_t")
    return p is not None and p < 0.05


def repeat(model: str, number: int, plan: Plan) -> tuple[Arm, dict[Control, Seen]]:
    """One reference tape and one tape of each control."""
    backend = TransformersBackend(model)
    with tempfile.TemporaryDirectory() as scratch:

        def arm(control: Control, place: int) -> Arm:
            # streams of different repeats and controls never meet
            return generate(backend, control, 1000 * number + place, plan, Path(scratch, f"{place}.jsonl"))

        reference = arm(SAME, 0)
        return reference, {
            control: judge(arm(control, place), reference, plan)
            for place, control in enumerate(plan.controls, start=1)
        }


def texts_differ(seen: Sequence[Seen]) -> float:
    """Share of tapes on which the sharp null is rejected."""
    return float(np.mean([s.texts_differ for s in seen]))


def detected(seen: Sequence[Seen], look: int | None = None) -> float:
    """Share DETECTED at that look, or at any when None."""
    hits = [s.verdicts if look is None else s.verdicts[look : look + 1] for s in seen]
    return float(np.mean(["DETECTED" in verdicts for verdicts in hits]))


def table_line(name: str, seen: Sequence[Seen], plan: Plan) -> str:
    """Rates of DETECTED, share INVALID at the last look, median effect, excluded texts."""
    by_look = " ".join(f"{detected(seen, i):.2f}" for i in range(len(plan.looks)))
    invalid = np.mean([s.verdicts[-1] == "INVALID" for s in seen])
    effects = [s.effect for s in seen if s.effect is not None]
    middle = f"{np.median(effects):+6.2f}" if effects else "     -"
    texts = plan.looks[-1] * len(plan.prompts)
    left_out = np.mean([s.excluded for s in seen]) / texts
    rates = f"{texts_differ(seen):5.3f}  {detected(seen):5.3f}  {by_look}  {invalid:7.2f}"
    return f"{name:18} {len(seen):5}  {rates}  {middle}  {left_out:8.3f}"


def null_pairs(references: Sequence[Arm], plan: Plan, most: int) -> list[Seen]:
    """The decision on pairs of reference tapes, at most so many, drawn without repeats."""
    pairs = list(combinations(references, 2))
    chosen = np.random.default_rng(0).permutation(len(pairs))[:most]
    return [judge(pairs[i][0], pairs[i][1], plan) for i in chosen]


def campaign(
    model: str, repeats: int, plan: Plan, *, processes: int = 1, report: Callable[[str], None] = print
) -> tuple[list[Arm], dict[Control, list[Seen]]]:
    """All repeats; references, and what was seen of each control."""
    numbers = range(1, repeats + 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = []
        for result in pool.map(repeat, [model] * repeats, numbers, [plan] * repeats):
            found.append(result)
            if len(found) % 10 == 0:
                report(f"{len(found)} of {repeats} repeats")
    return [ref for ref, _ in found], {c: [seen[c] for _, seen in found] for c in plan.controls}


def main() -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="directory of a trained embedded model")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=0, help="also so many pairs of references")
    chosen = parser.parse_args()
    plan, began = Plan(), time.process_time()
    references, seen = campaign(chosen.model, chosen.repeats, plan, processes=chosen.processes)
    looks = " ".join(f"k{look:<3}" for look in plan.looks)
    print(f"{'control':18} tapes  texts   mean  {looks}  INVALID  effect  excluded")
    for (kind, dose), of_control in seen.items():
        print(table_line(kind if dose is None else f"{kind} {dose:g}", of_control, plan))
    if chosen.pairs:
        print(table_line("prng pairs", null_pairs(references, plan, chosen.pairs), plan))
    print(f"reference: {np.mean([arm.excluded for arm in references]):.1f} texts excluded a tape")
    print(f"{time.process_time() - began:.0f} CPU seconds in this process")


if __name__ == "__main__":
    main()
