"""From a design of direct injection to jobs: arms, cells, and samples with their taped draws.

An arm is a way of injecting with one source; a condition is that way without the source, and sources are
compared inside it. Every arm has its own streams, so no two arms share a random number: neither the source's
(a tape of one draw a sample, which the sample's words begin at) nor the independent ones that choose the
token where the source does not (a second tape). A live source's words stand on a third tape, by sample.

The sampler injects one arm a call, so the order of generation interleaves calls: an arm's samples are
shuffled and cut into calls, and the calls of all arms are shuffled. A same-seed repeat is in another call
than its sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby, product
from pathlib import Path

import numpy as np

from lab.fingerprint import fingerprint
from models.backends import Sampling
from models.entropy import Draw, SourceSpec, Tape
from models.injection import Injection
from models.prompts import Prompt
from models.words import LIVE
from tasks.seed_cells import Arm, Cell, Sample

CALL_ROWS = 64
"""Most samples of one arm that the sampler gets together."""

STREAM_LIMIT = 2**31
"""Streams made of names are below this."""

CHANGES_DISTRIBUTION = ("logit_perturb", "temp_modulate")
"""Modes whose next-token distribution is not the model's, so that there is a divergence to record."""


@dataclass(frozen=True, kw_only=True)
class InjectionArm:
    """One condition with one source."""

    name: str
    """`<condition>/<label>`, or the condition alone where there is no source."""
    condition: str
    """Mode with its settings, such as `logit_perturb:0.3:uniform`; as `stats` names settings."""
    label: str
    """The source as the analysis names it, empty without one; two labels can be one source."""
    role: str
    """`treatment`, `baseline` (no source), `a_a` or `positive_control`."""
    injection: Injection
    base: str | None = None
    """The arm that an `a_a` or a `positive_control` is compared with."""
    times: int = 1
    """Its samples a cell, in multiples of the look's."""

    @property
    def has_choice_stream(self) -> bool:
        """Whether tokens are chosen by an independent stream."""
        return self.injection.mode not in ("select", "gumbel", "seed_only")

    @property
    def changes_distribution(self) -> bool:
        """Whether the next-token distribution is changed."""
        return self.injection.mode in CHANGES_DISTRIBUTION and self.injection.control != "fixed"


def own_stream(*names: object) -> int:
    """A stream that belongs to these names.

    >>> own_stream(42, "select/PRNG") == own_stream(42, "select/PRNG") != own_stream(42, "gumbel/PRNG")
    True
    """
    return int(fingerprint(["stream", *names]), 16) % STREAM_LIMIT


@dataclass(frozen=True, kw_only=True)
class InjectedSample:
    """One text to generate with a source acting on it."""

    sample: Sample
    """Its `draw` is the source's; without a source, the choice stream's."""
    arm: InjectionArm
    choice: Draw | None
    """Seed of the stream that chooses tokens; None where the source does."""

    @property
    def words_key(self) -> str:
        """Name of the sample's words on the arm's tape; a same-seed repeat has the same."""
        return f"{self.sample.cell.prompt.prompt_id}/{self.sample.k}"

    @property
    def call(self) -> tuple[str, bool]:
        """Samples that may be given to the sampler together: one arm, each of the words once."""
        return self.arm.name, self.sample.probe > 0


@dataclass(frozen=True, kw_only=True)
class Taped:
    """Draws on the tapes, by arm name."""

    source: Mapping[str, list[Draw]]
    choice: Mapping[str, list[Draw]]


@dataclass(frozen=True, kw_only=True)
class InjectionDesign:
    """Arms x prompts for one model."""

    study: str
    model: str
    digest: str
    backend: str
    code: str
    """Fingerprint of the code that generates."""
    prompts: tuple[Prompt, ...]
    arms: tuple[InjectionArm, ...]
    sampling: Sampling
    probe_every: int
    """One sample in this many is generated twice."""
    stream: int
    """What every arm's own streams are made from, with its name."""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, prompts fastest."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for index, (arm, prompt) in enumerate(product(self.arms, self.prompts)):
            stream = self.stream_of(arm)
            source = arm.injection.source
            config = {
                "study": self.study,
                "model_digest": self.digest,
                "backend": self.backend,
                "arm": arm.name,
                "condition": arm.condition,
                "source": arm.label,
                "stream": stream,
                "injection": asdict(arm.injection),
                "sampling": asdict(self.sampling),
                "prompt_id": prompt.prompt_id,
                "prompt": prompt.text,
            }
            yield Cell(
                arm=Arm(
                    name=arm.name,
                    role=arm.role,
                    kind=source.kind if source else "prng",
                    streams=(stream,),
                    temperature=self.sampling.temperature,
                    base=arm.base,
                ),
                stream=stream,
                prompt=prompt,
                sampling=self.sampling,
                config=config,
                step_id=fingerprint(config),
                index=index,
            )

    def stream_of(self, arm: InjectionArm) -> int:
        """Of an arm's source; a live one is only labelled with it."""
        source = arm.injection.source
        if source is not None and source.stream is not None:
            return source.stream
        return own_stream(self.stream, arm.name)

    def _directory(self, home: Path) -> Path:
        prompts = fingerprint([prompt.prompt_id for prompt in self.prompts])
        return home / "tapes" / self.study / f"{prompts}-{_file_name(self.model)}"

    def source_tape(self, home: Path, arm: InjectionArm) -> Tape | None:
        """Where the draws of an arm's source are kept; None without a source."""
        source = arm.injection.source
        if source is None:
            return None
        return Tape(self._directory(home) / f"{_file_name(arm.name)}.jsonl", source)

    def choice_tape(self, home: Path, arm: InjectionArm) -> Tape | None:
        """Where the seeds of an arm's independent streams are kept; None where the source chooses."""
        if not arm.has_choice_stream:
            return None
        spec = SourceSpec(kind="prng", stream=own_stream(self.stream, arm.name, "choice"))
        return Tape(self._directory(home) / f"{_file_name(arm.name)}-choice.jsonl", spec)

    def words_tape(self, home: Path, arm: InjectionArm) -> Path | None:
        """Where the words of an arm's live source are kept; other settings ask for other numbers of words."""
        source = arm.injection.source
        if source is None or source.kind not in LIVE:
            return None
        asked = fingerprint([self.digest, asdict(self.sampling)])
        return self._directory(home) / f"{_file_name(arm.name)}-{asked}.words"

    def draws(self, home: Path, samples: int) -> Taped:
        """Draws of the first `samples` samples of every cell; taped if new."""
        source: dict[str, list[Draw]] = {}
        choice: dict[str, list[Draw]] = {}
        for arm in self.arms:
            purposes = [f"{p.prompt_id}/{k}" for k in range(samples * arm.times) for p in self.prompts]
            for found, tape in ((source, self.source_tape(home, arm)), (choice, self.choice_tape(home, arm))):
                if tape is not None:
                    found[arm.name] = tape.draws(purposes)
        return Taped(source=source, choice=choice)

    def recorded(self, home: Path) -> Taped:
        """The draws taped so far; draws nothing."""
        source = {arm.name: self.source_tape(home, arm) for arm in self.arms}
        choice = {arm.name: self.choice_tape(home, arm) for arm in self.arms}
        return Taped(
            source={name: tape.recorded() for name, tape in source.items() if tape},
            choice={name: tape.recorded() for name, tape in choice.items() if tape},
        )

    def jobs(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Cell index, sample and repeat of every text of samples `start` to `stop - 1`, `times` as many."""
        times = [arm.times for arm in self.arms for _ in self.prompts]
        return [
            (index, k, probe)
            for index in range(len(times))
            for k in range(start * times[index], stop * times[index])
            for probe in (0, 1)
            if probe == 0 or (7 * index + k) % self.probe_every == 0
        ]

    def block(self, taped: Taped, start: int, stop: int) -> list[InjectedSample]:
        """Those jobs with their draws in the order of generation; jobs without a draw are left out."""
        seed = int(fingerprint(["order", self.study, self.model, start, stop]), 16)
        rng = np.random.default_rng(seed)
        jobs = self.jobs(start, stop)
        shuffled = [jobs[place] for place in rng.permutation(len(jobs)).tolist()]
        by_call = sorted(shuffled, key=lambda job: (job[0] // len(self.prompts), job[2]))
        parts = [
            part
            for _, found in groupby(by_call, key=lambda job: (job[0] // len(self.prompts), job[2]))
            for part in _cut(list(found), CALL_ROWS)
        ]
        ordered = [job for place in rng.permutation(len(parts)).tolist() for job in parts[place]]
        offset = start * 2 * len(self.prompts) * sum(arm.times for arm in self.arms)
        samples = [self._sample(taped, job, offset + i) for i, job in enumerate(ordered)]
        return [sample for sample in samples if sample is not None]

    def _sample(self, taped: Taped, job: tuple[int, int, int], order_index: int) -> InjectedSample | None:
        index, k, probe = job
        cell, arm = self.cells[index], self.arms[index // len(self.prompts)]
        number = k * len(self.prompts) + index % len(self.prompts)
        tapes = [found[arm.name] for found in (taped.source, taped.choice) if arm.name in found]
        if any(number >= len(tape) for tape in tapes):
            return None
        draws = [tape[number] for tape in tapes]
        identity = [cell.step_id, k, probe, [draw.seed64 for draw in draws], self.code]
        sample = Sample(
            sample_id=fingerprint(identity),
            cell=cell,
            k=k,
            probe=probe,
            draw=draws[0],
            order_index=order_index,
        )
        return InjectedSample(sample=sample, arm=arm, choice=draws[-1] if arm.has_choice_stream else None)


def _cut(jobs: Sequence[tuple[int, int, int]], rows: int) -> list[list[tuple[int, int, int]]]:
    return [list(jobs[i : i + rows]) for i in range(0, len(jobs), rows)]


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
