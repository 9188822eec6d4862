"""Direct injection against none, and the noise of a large vocabulary: `python -m benchmarks.injection`.

The first table times `inject` with `none` and each mode, one after the other on the same jobs, and takes the
ratio to `none` within each run; the goal for `select` is 1.10. Jobs as in the study: its prompts, 150 new
tokens, 64 rows in one batch on one thread. The model is the trained one below LADDER_HOME (`var`), else its
shape after 60 steps. The tape of a live source is new in each run, so a run pays for it as a night does.

The second table is the noise of one row and step over 50,000 tokens: one request of so many numbers from each
kind of source, made into noise of each law and into Gumbel noise in place. Goal: under 1 ms each. Beside it
the ratio to NumPy's PCG64, which makes the same uniforms, normals and Gumbel noise in the same process.
`taped` is how a live source is read at this size: 256 bits of it a request, stretched.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.sampler import Seconds, seconds, spread, threads, trained
from benchmarks.table import promised, quick
from benchmarks.table import runs as table_runs
from models.backends import Job, Sampling
from models.embedded import RUNGS, train
from models.entropy import KINDS, SourceSpec, Tape, WordSource, open_source, uniforms
from models.injection import Injection, InjectionJob, inject
from models.noise import gumbel, standardised
from models.prompts import INJECTION, select
from models.row_words import Demand, open_rows
from models.sampling import Floats
from models.transformers_backend import TransformersBackend
from models.words import DOSES, LIVE

RUNG = "pydoc-0.4m"
ROWS = 64
SETTINGS = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=150)
RUNS = table_runs(9, 2)
PRNG, TRNG, HMIX = SourceSpec(kind="prng", stream=42), SourceSpec(kind="trng"), SourceSpec(kind="hmix")
NONE = Injection(mode="none")
PROMISED = (NONE, *(Injection(mode="select", source=source) for source in (PRNG, TRNG, HMIX)))
ARMS = (
    PROMISED
    if quick()
    else (
        *PROMISED,
        *(Injection(mode="gumbel", source=source) for source in (PRNG, TRNG)),
        Injection(mode="logit_perturb", source=PRNG, dose=0.3, law="uniform"),
        Injection(mode="logit_perturb", source=PRNG, dose=0.3, law="gaussian"),
        Injection(mode="logit_perturb", source=TRNG, dose=0.3, law="gaussian"),
        Injection(mode="temp_modulate", source=PRNG, amplitude=0.3),
        NONE,  # again, against the first: what the machine adds
    )
)
VOCABULARY = 50_000
REQUESTS = 101


def model_directory(scratch: Path) -> Path:
    """The trained model, or one of its shape after 60 steps: a token takes the same time."""
    found = trained(RUNG)
    if found is not None:
        return found
    brief = replace(RUNGS[RUNG], steps=60, warmup_steps=5, evaluations=1)
    return train(brief, scratch / "model").directory


def jobs(injection: Injection, tape: Path) -> list[InjectionJob]:
    """ROWS jobs over the study's prompts, their draws from a tape of the source."""
    prompts = select(INJECTION)
    keys = [f"row{i}" for i in range(ROWS)]
    drawn = [None] * ROWS if injection.source is None else Tape(tape, injection.source).draws(keys)
    return [
        InjectionJob(
            job=Job(key=key, prompt=prompts[i % len(prompts)].text, seed=i, sampling=SETTINGS),
            draw=draw.seed64 if draw else None,
        )
        for i, (key, draw) in enumerate(zip(keys, drawn, strict=True))
    ]


def timed(backend: TransformersBackend, injection: Injection, scratch: Path) -> tuple[Seconds, int]:
    """Time of one call of `inject`, and the tokens it made."""
    with tempfile.TemporaryDirectory(dir=scratch) as fresh:
        todo = jobs(injection, Path(fresh, "draws"))
        made: list[int] = []

        def work() -> None:
            found = inject(backend, todo, injection, tape=Path(fresh, "words"))
            made.extend(one.output.tokens or 0 for one in found)

        return seconds(work), sum(made)


def report_modes(scratch: Path) -> None:
    """Print seconds of each mode and its ratio to `none` of the same run: min, median, max over runs."""
    backend = TransformersBackend(str(model_directory(scratch)), batch_rows=ROWS)
    timed(backend, NONE, scratch)  # the first call loads the model
    print(f"{RUNG}, {ROWS} rows x {SETTINGS.max_new_tokens} tokens; each cell min median max of {RUNS} runs")
    print(f"{'mode':36} time {'seconds':20}   {'x none':20}   tokens, x none")
    runs = [[timed(backend, arm, scratch) for arm in ARMS] for _ in range(RUNS)]
    for place, arm in enumerate(ARMS):
        tokens = runs[0][place][1] / runs[0][0][1]
        for clock, kind in enumerate(("wall", "CPU")):
            own = [run[place][0][clock] for run in runs]
            ratios = [run[place][0][clock] / run[0][0][clock] for run in runs]
            print(f"{arm.name:36} {kind:4} {spread(own)}   {spread(ratios)}   {tokens:.3f}", flush=True)
        if arm.name.startswith("select"):
            ratios = [run[place][0][0] / run[0][0][0] for run in runs]
            promised(f"injection, {arm.name}", "no injection", ratios, most=1.10)


def opened(scratch: Path) -> dict[str, WordSource]:
    """A source of every kind, graded ones at two doses, live ones from the system and from a tape."""
    found = {}
    for kind in KINDS:
        for dose in (0.1, DOSES[kind][1]) if kind in DOSES else (None,):
            spec = SourceSpec(kind=kind, stream=None if kind in LIVE else 42, dose=dose)
            found[spec.name] = open_source(spec)
            if kind in LIVE:
                demand = Demand(requests=4 * (REQUESTS + 1), words=VOCABULARY)
                rows = open_rows(spec, {"row": 1}, demand, scratch / kind)
                found[f"{kind}, taped"] = rows["row"].source
    return found


def milliseconds(work: Callable[[], object]) -> float:
    """Median wall time of a call."""
    work()
    return 1000 * statistics.median(seconds(work)[0] for _ in range(REQUESTS))


Make = Callable[[Floats], Floats]
NOISES: dict[str, Make] = {
    "numbers": lambda u: u,
    "uniform": lambda u: standardised(u, "uniform"),
    "gaussian": lambda u: standardised(u, "gaussian"),
    "gumbel": lambda u: gumbel(np.clip(u, 2.0**-54, 1 - 2.0**-53, out=u)),
}


def request(source: WordSource, make: Make) -> Floats:
    """The noise of one row and step."""
    return make(uniforms(source, VOCABULARY))


def report_noise(scratch: Path) -> None:
    """Print milliseconds of one request, and the ratio to NumPy's generator, by kind of source and noise."""
    peer = np.random.Generator(np.random.PCG64(42))
    theirs = {
        "numbers": milliseconds(lambda: peer.random(VOCABULARY)),
        "uniform": milliseconds(lambda: peer.uniform(-1.732, 1.732, VOCABULARY)),
        "gaussian": milliseconds(lambda: peer.standard_normal(VOCABULARY)),
        "gumbel": milliseconds(lambda: peer.gumbel(size=VOCABULARY)),
    }
    print(f"\n{VOCABULARY} numbers a request, median ms of {REQUESTS} (x NumPy's PCG64)")
    print(f"{'source':20}" + "".join(f"{noise:>18}" for noise in NOISES))
    print(f"{'NumPy PCG64':20}" + "".join(f"{ms:10.3f} (1.00)" for ms in theirs.values()))
    for name, source in opened(scratch).items():
        cells = []
        for noise, make in NOISES.items():
            ms = milliseconds(partial(request, source, make))
            cells.append(f"{ms:10.3f} ({ms / theirs[noise]:4.2f})")
        print(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        report_modes(Path(scratch))
        report_noise(Path(scratch))


if __name__ == "__main__":
    main()
