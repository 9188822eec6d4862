"""Direct injection: an entropy source acts on every token of a text, in one of six ways.

`select` picks each token by the source's uniform, `gumbel` by noise of the source on the kept tokens;
`logit_perturb` adds noise of the source to all logits, `temp_modulate` moves the temperature by it, and both
leave the choice itself to an independent stream, the job's seed; `seed_only` lets the source give the seed of
that stream and nothing else; `none` is the job as it is. All run through one sampler and one backend, so a
difference between modes is not one of code.

A row's source begins at the row's own taped draw and answers that row alone. So its text depends on model,
job, draw and `Injection`, not on its batch, and comes again from the tape (`models.row_words`). Asking for a
configuration needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from models.backends import SEED_LIMIT, Job, Output, Sampling
from models.entropy import SourceSpec, WordSource, uniforms
from models.row_words import Demand, RowSource, open_rows

if TYPE_CHECKING:
    from models.decoding import Network
    from models.plain import Prompts
    from models.sampling import Choose, Floats, SampledRow
    from models.transformers_backend import Draw

MODES = ("select", "gumbel", "logit_perturb", "temp_modulate", "seed_only", "none")

CONTROLS = ("fixed", "shuffled")
"""Of `temp_modulate`: no source and the unmoved temperature; the source's numbers in another order."""

LAWS = ("uniform", "gaussian")
"""Of the noise of `logit_perturb`, both of mean 0 and variance 1."""

LARGEST_DOSE = 10.0
"""Standard deviation of noise, in logits; the declared doses are 0, .05, .1, .3, 1 and 3."""

UNCHANGED = "leaves the next-token distribution as it is"


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One arm: a mode with its settings and its source; stable, so it can be part of a configuration.

    >>> Injection(mode="select", source=SourceSpec(kind="prng", stream=42)).name
    'select@prng:42'
    >>> source = SourceSpec(kind="trng")
    >>> Injection(mode="logit_perturb", source=source, dose=0.3, law="gaussian").name
    'logit_perturb:0.3:gaussian@trng'
    >>> Injection(mode="select", source=source, dose=0.3)
    Traceback (most recent call last):
    ValueError: mode 'select' takes no dose; found 0.3, leave it out
    """

    mode: str
    """One of MODES."""
    source: SourceSpec | None = None
    """None for `none` and for the fixed control, which have none."""
    dose: float | None = None
    """`logit_perturb`: standard deviation of the noise, in logits, 0 to LARGEST_DOSE."""
    law: str | None = None
    """`logit_perturb`: one of LAWS."""
    amplitude: float | None = None
    """`temp_modulate`: a of T = clamp(T0 + a (u - 1/2), 0.1, 2.0), T0 the job's temperature; planned: .3"""
    control: str | None = None
    """`temp_modulate`: one of CONTROLS, or None for the mode itself."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown injection mode {self.mode!r}; allowed: {', '.join(MODES)}")
        self._check_given("dose", "logit_perturb", 0.0, LARGEST_DOSE)
        self._check_given("amplitude", "temp_modulate", 0.0, 4.0)
        self._check_named("law", "logit_perturb", LAWS)
        self._check_named("control", "temp_modulate", (None, *CONTROLS))
        sourceless = self.mode == "none" or self.control == "fixed"
        if sourceless and self.source is not None:
            raise ValueError(f"{self.name!r} draws from no source; found {self.source.name!r}, leave it out")
        if not sourceless and self.source is None:
            raise ValueError(f"mode {self.mode!r} has no source; give a SourceSpec")

    def _check_given(self, field: str, mode: str, low: float, high: float) -> None:
        value = getattr(self, field)
        if self.mode != mode:
            self._check_absent(field)
        elif value is None or not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"mode {mode!r} has {field} {value}; allowed: {low:g} to {high:g}")

    def _check_named(self, field: str, mode: str, allowed: Sequence[str | None]) -> None:
        value = getattr(self, field)
        if self.mode != mode:
            self._check_absent(field)
        elif value not in allowed:
            raise ValueError(
                f"mode {mode!r} has {field} {value!r}; allowed: {', '.join(str(name) for name in allowed)}"
            )

    def _check_absent(self, field: str) -> None:
        value = getattr(self, field)
        if value is not None:
            raise ValueError(f"mode {self.mode!r} takes no {field}; found {value}, leave it out")

    @property
    def name(self) -> str:
        """Mode and settings joined by colons, then the source."""
        parts = (self.mode, self.dose, self.amplitude, self.law, self.control)
        settings = ":".join(str(part) for part in parts if part is not None)
        return settings if self.source is None else f"{settings}@{self.source.name}"

    def demand(self, sampling: Sampling, vocabulary: int) -> Demand | None:
        """The words a row asks of its source; None when it asks for none.

        `select` and `temp_modulate` ask once a text, one word a token; `gumbel` and `logit_perturb` once a
        token, a word for each token that can be kept or that there is.
        """
        steps = sampling.max_new_tokens
        if self.mode == "select" or (self.mode == "temp_modulate" and self.source is not None):
            return Demand(requests=1, words=steps)
        if self.mode == "gumbel":
            return Demand(requests=steps, words=min(sampling.top_k or vocabulary, vocabulary))
        if self.mode == "logit_perturb":
            return Demand(requests=steps, words=vocabulary)
        return None


@dataclass(frozen=True, kw_only=True)
class InjectionJob:
    """One text to generate."""

    job: Job
    """Its seed is that of the independent stream; `select` and `gumbel` do not use it."""
    draw: int | None = None
    """The row's 64-bit draw from a `Tape` of this very source; None without a source.

    The stream of a source that can be repeated: rows with one draw get the same words, so `constant` and the
    strongest `biased_bits` give all rows of a tape the same. Of a live source it only names the row's words.
    """


@dataclass(frozen=True, kw_only=True)
class InjectedOutput:
    """What came of one job."""

    output: Output
    kl_nats: tuple[float, ...] | None
    """Divergence of the changed from the unchanged next-token distribution at each choice, the one that
    stopped the text included; equal in every batch within 1e-4."""
    kl_reason: str | None
    """Why `kl_nats` is None."""
    words: int
    """64-bit words of the source that the choices used; of a stretched request, those it was made of."""
    words_sha256: str | None
    """Of all words taped for the row; None where nothing had to be."""

    def __post_init__(self) -> None:
        if (self.kl_nats is None) == (self.kl_reason is None):
            raise ValueError(f"output {self.output.key!r} needs either kl_nats or kl_reason, exactly one")


class DrawingBackend(Protocol):
    """A backend that lets its caller choose tokens, such as `models.transformers_backend`'s."""

    def generate_by(self, jobs: Sequence[Job], draw: Draw) -> list[Output]:
        """One output a job, in order, tokens chosen by `draw`."""
        ...


def inject(
    backend: DrawingBackend, jobs: Sequence[InjectionJob], injection: Injection, *, tape: Path | None = None
) -> list[InjectedOutput]:
    """Generate each job's text with the source acting on it.

    Parameters
    ----------
    backend
        A `TransformersBackend`: an embedded model or any hub id.
    jobs
        Keys all different. A job's key and draw name its words on the tape.
    tape
        File that keeps the words of a live source (`trng`, `hmix`) and gives them again; unused for others.

    Returns
    -------
    list of InjectedOutput
        One a job, in order; a job's own fault is an output with a reason.

    Raises
    ------
    ValueError
        For equal keys, a draw that is missing or not asked for, a temperature of 0 (which leaves nothing to
        inject into), or a live source without a tape.
    TapeError
        When the tape cannot be trusted or was made for other jobs.
    BackendError
        For a fault of the whole batch.
    """
    _check_jobs(jobs, injection)
    draws = {item.job.key: item.draw for item in jobs if item.draw is not None}
    traces: dict[str, _Trace] = {}

    def draw(
        network: Network, batch: Sequence[Job], prompts: Prompts, stop: frozenset[int]
    ) -> list[SampledRow]:
        from models.sampling import sample

        sampling = batch[0].sampling
        arm = _Arm(injection, batch, {job.key: draws[job.key] for job in batch if draws}, network.vocabulary)
        sources = arm.sources(tape)
        choose, kl_nats = arm.choose(sources)
        rows = sample(network, prompts, sampling, choose, stop=stop)
        traces.update(arm.traces(rows, sources, kl_nats))
        return rows

    outputs = backend.generate_by([item.job for item in jobs], draw)
    return [_injected(output, traces.get(output.key), injection) for output in outputs]


def _check_jobs(jobs: Sequence[InjectionJob], injection: Injection) -> None:
    keys = [item.job.key for item in jobs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"two jobs have the key {twice!r}; a key names a row's words: give each its own")
    for item in jobs:
        if (item.draw is None) != (injection.source is None):
            raise ValueError(
                f"job {item.job.key!r} has draw {item.draw} for {injection.name!r}; give a draw exactly when "
                "the mode has a source"
            )
        if item.draw is not None and not 0 <= item.draw < 2**64:
            raise ValueError(f"draw of job {item.job.key!r} is {item.draw}; allowed: 0 to 2^64 - 1")
        if item.job.sampling.temperature == 0 and injection.mode not in ("seed_only", "none"):
            raise ValueError(
                f"job {item.job.key!r} has temperature 0, which takes the likeliest token whatever the "
                f"source says; give {injection.mode!r} a temperature above 0"
            )


@dataclass(frozen=True)
class _Trace:
    """What a row's choices left behind."""

    kl_nats: tuple[float, ...] | None
    words: int
    words_sha256: str | None


@dataclass(frozen=True)
class _Arm:
    """An injection into one batch of jobs of one sampling."""

    injection: Injection
    jobs: Sequence[Job]
    draws: Mapping[str, int]
    vocabulary: int

    @property
    def sampling(self) -> Sampling:
        return self.jobs[0].sampling

    @property
    def demand(self) -> Demand | None:
        return self.injection.demand(self.sampling, self.vocabulary)

    def sources(self, tape: Path | None) -> list[RowSource]:
        """Each row's source; none when the mode asks for no words."""
        if self.demand is None or self.injection.source is None:
            return []
        rows = open_rows(self.injection.source, self.draws, self.demand, tape)
        return [rows[job.key] for job in self.jobs]

    def choose(self, sources: Sequence[RowSource]) -> tuple[Choose, Floats | None]:
        """The mode's way of choosing, and the array (rows, steps) that it writes divergences to."""
        from models import noise
        from models.sampling import InverseCdf, row_uniforms

        opened, steps, arm = [row.source for row in sources], self.sampling.max_new_tokens, self.injection
        if arm.mode == "select":
            return InverseCdf(self.sampling, _series(opened, steps)), None
        if arm.mode == "gumbel" and self.demand is not None:
            return noise.GumbelMax(self.sampling, noise.RowNoise(opened, self.demand.words)), None
        own = row_uniforms([self._seed(job) for job in self.jobs], steps)
        if arm.mode in ("seed_only", "none") or arm.control == "fixed":
            return InverseCdf(self.sampling, own), None
        kl_nats = np.full((len(self.jobs), steps), np.nan)
        if arm.mode == "logit_perturb":
            words = noise.RowNoise(opened, self.vocabulary)
            made = noise.Perturbed(self.sampling, own, words, arm.dose or 0.0, arm.law or LAWS[0], kl_nats)
            return made, kl_nats
        moved = noise.moved_temperatures(
            self._ordered(_series(opened, steps)), self.sampling.temperature, arm.amplitude or 0.0
        )
        return noise.Modulated(self.sampling, own, moved, kl_nats), kl_nats

    def _seed(self, job: Job) -> int:
        return self.draws[job.key] % SEED_LIMIT if self.injection.mode == "seed_only" else job.seed

    def _ordered(self, series: Floats) -> Floats:
        """Each row as it is, or in an order of its job's seed (a Philox key that no choice stream has)."""
        if self.injection.control != "shuffled":
            return series
        bits = [np.random.Philox(key=job.seed + SEED_LIMIT) for job in self.jobs]
        return np.stack(
            [np.random.Generator(b).permutation(row) for b, row in zip(bits, series, strict=True)]
        )

    def traces(
        self, rows: Sequence[SampledRow], sources: Sequence[RowSource], kl_nats: Floats | None
    ) -> dict[str, _Trace]:
        """What each row's choices left behind."""
        found = {}
        for i, (job, row) in enumerate(zip(self.jobs, rows, strict=True)):
            choices = len(row.tokens) + (row.finish_reason == "stop")
            spent = None if kl_nats is None or row.failure else tuple(kl_nats[i, :choices].tolist())
            sha256 = sources[i].sha256 if sources else None
            found[job.key] = _Trace(spent, self._words(choices, live=sha256 is not None), sha256)
        return found

    def _words(self, choices: int, *, live: bool) -> int:
        demand = self.demand
        if demand is None:
            return int(self.injection.mode == "seed_only")
        if demand.requests == 1:
            return choices
        return choices * (demand.kept if live else demand.words)


def _series(sources: Sequence[WordSource], steps: int) -> Floats:
    """One request a row: (rows, steps)."""
    return np.stack([uniforms(source, steps) for source in sources])


def _injected(output: Output, trace: _Trace | None, injection: Injection) -> InjectedOutput:
    kl_nats = trace.kl_nats if trace else None
    reason = output.reason if trace is None or output.reason else f"{injection.name} {UNCHANGED}"
    return InjectedOutput(
        output=output,
        kl_nats=kl_nats,
        kl_reason=None if kl_nats is not None else reason,
        words=trace.words if trace else 0,
        words_sha256=trace.words_sha256 if trace else None,
    )
