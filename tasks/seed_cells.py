"""From a design to jobs: arms, cells, samples with their taped seeds, in the order they are generated.

A cell is (model, arm, stream, prompt); its samples are numbered from 0. Draw `k * prompts + i` of an arm's
tape is the seed of sample k of prompt i, so a further look only appends draws. Jobs of a look are interleaved
in a seeded permutation, and one sample in `probe_every` is generated again with its seed, at another place in
that order. Conversations have cells and tapes of their own: `tasks.conversations`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lab.fingerprint import fingerprint
from models.backends import Message, Sampling
from models.entropy import Draw, SourceSpec, Tape
from models.prompts import Conversation, Prompt
from models.words import LIVE


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One condition: where its seeds come from and how its texts are sampled."""

    name: str
    role: str
    """`treatment`, `a_a` (a source under a second label) or `positive_control`."""
    kind: str
    """Entropy source; see `models.entropy.SourceSpec`."""
    streams: tuple[int, ...]
    """Replicates; a deterministic source is seeded with them, a live one only labelled."""
    temperature: float
    base: str | None = None
    """The arm this one is compared with; None for treatments, which are compared with each other."""

    def source(self, stream: int) -> SourceSpec:
        """The entropy source of one replicate."""
        return SourceSpec(kind=self.kind, stream=None if self.kind in LIVE else stream)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where samples repeat: one model, arm, stream and prompt."""

    arm: Arm
    stream: int
    prompt: Prompt
    sampling: Sampling
    config: Mapping[str, object]
    step_id: str
    index: int
    """Place among the design's cells of its kind: prompts or conversations."""
    turns: tuple[str, ...] = ()
    """What a person says in a conversation, one after each reply; empty for a single-turn prompt."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text to generate, or a same-seed repeat of one."""

    sample_id: str
    """Fingerprint of everything that can change the text, earlier turns too, and of which repeat it is."""
    cell: Cell
    k: int
    probe: int
    draw: Draw
    order_index: int
    turn: int = 0
    """1, 2, ... in a conversation; 0 for a single-turn prompt."""
    history: tuple[Message, ...] = ()
    """The turns before this one, replies included."""
    closed: str | None = None
    """Why this turn is never asked: an earlier one failed."""

    @property
    def says(self) -> str:
        """What the model is asked."""
        return self.cell.turns[self.turn - 1] if self.turn else self.cell.prompt.text


@dataclass(frozen=True, kw_only=True)
class SeedDesign:
    """Arms x streams x prompts for one model."""

    study: str
    model: str
    digest: str
    backend: str
    code: str
    """Fingerprint of the code that generates."""
    prompts: tuple[Prompt, ...]
    arms: tuple[Arm, ...]
    sampling: Sampling
    probe_every: int
    """One sample in this many is generated twice."""
    conversations: tuple[Conversation, ...] = ()
    """Asked of the treatments; see `tasks.conversations`."""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells of single-turn prompts, prompts fastest."""
        replicates = ((arm, stream) for arm in self.arms for stream in arm.streams)
        return tuple(
            self.cell(index, arm, stream, arm.source(stream), prompt)
            for index, ((arm, stream), prompt) in enumerate(itertools.product(replicates, self.prompts))
        )

    def cell(
        self,
        index: int,
        arm: Arm,
        stream: int,
        source: SourceSpec,
        prompt: Prompt,
        turns: tuple[str, ...] = (),
    ) -> Cell:
        """One cell; `turns` make it a conversation's."""
        sampling = replace(self.sampling, temperature=arm.temperature)
        config: dict[str, object] = {
            "study": self.study,
            "model_digest": self.digest,
            "backend": self.backend,
            "arm": arm.name,
            "source": source.name,
            "stream": stream,
            "sampling": asdict(sampling),
            "prompt_id": prompt.prompt_id,
            "prompt": prompt.text,
        }
        if turns:
            config["turns"] = list(turns)
        return Cell(
            arm=arm,
            stream=stream,
            prompt=prompt,
            sampling=sampling,
            config=config,
            step_id=fingerprint(config),
            index=index,
            turns=turns,
        )

    def tape(self, home: Path, arm: Arm, stream: int, *, diagnostic: bool = False) -> Tape:
        """Where the seeds of an arm's replicate are kept; another set of prompts has tapes of its own."""
        name = f"{arm.name}-{stream}{'-diagnostic' if diagnostic else ''}.jsonl"
        return Tape(
            self.tapes(home, [prompt.prompt_id for prompt in self.prompts]) / name, arm.source(stream)
        )

    def tapes(self, home: Path, asked: Sequence[str]) -> Path:
        """Directory of the tapes of a set of prompts, given by their ids."""
        model = re.sub(r"[^A-Za-z0-9._-]", "_", self.model)
        return home / "tapes" / self.study / f"{fingerprint(list(asked))}-{model}"

    def draws(self, home: Path, samples: int) -> dict[tuple[str, int], list[Draw]]:
        """Seeds of the first `samples` samples of every cell, by arm and stream; taped if new."""
        purposes = [f"{prompt.prompt_id}/{k}" for k in range(samples) for prompt in self.prompts]
        return {
            (arm.name, stream): self.tape(home, arm, stream).draws(purposes)
            for arm in self.arms
            for stream in arm.streams
        }

    def recorded(self, home: Path) -> dict[tuple[str, int], list[Draw]]:
        """The seeds taped so far, by arm and stream; draws nothing."""
        return {
            (arm.name, stream): self.tape(home, arm, stream).recorded()
            for arm in self.arms
            for stream in arm.streams
        }

    def jobs(self, start: int, stop: int) -> list[tuple[Cell, int, int]]:
        """Cell, sample and repeat of every single-turn text of samples `start` to `stop - 1`."""
        return self.with_repeats(self.cells, start, stop)

    def with_repeats(self, cells: Sequence[Cell], start: int, stop: int) -> list[tuple[Cell, int, int]]:
        """Cell, sample and repeat of samples `start` to `stop - 1` of these cells."""
        return [
            (cell, k, probe)
            for cell in cells
            for k in range(start, stop)
            for probe in (0, 1)
            if probe == 0 or (7 * cell.index + k) % self.probe_every == 0
        ]

    def block(self, draws: Mapping[tuple[str, int], Sequence[Draw]], start: int, stop: int) -> list[Sample]:
        """Those jobs with their seeds, in the order of generation; jobs without a taped seed are left out."""
        jobs = self.jobs(start, stop)
        order = self.order("order", start, stop, len(jobs))
        offset = start * self.places
        found = [self._sample(draws, *jobs[place], order_index=offset + i) for i, place in enumerate(order)]
        return [sample for sample in found if sample is not None]

    def order(self, what: str, start: int, stop: int, jobs: int) -> list[int]:
        """A seeded permutation of the jobs of samples `start` to `stop - 1`."""
        seed = int(fingerprint([what, self.study, self.model, start, stop]), 16)
        order: list[int] = np.random.default_rng(seed).permutation(jobs).tolist()
        return order

    @cached_property
    def places(self) -> int:
        """Most places of one sample a cell in the order of generation, repeats and turns included."""
        treatments = sum(len(arm.streams) for arm in self.arms if arm.role == "treatment")
        turns = sum(len(conversation.turns) for conversation in self.conversations)
        return 2 * (len(self.cells) + treatments * turns)

    def _sample(
        self,
        draws: Mapping[tuple[str, int], Sequence[Draw]],
        cell: Cell,
        k: int,
        probe: int,
        *,
        order_index: int,
    ) -> Sample | None:
        number = k * len(self.prompts) + cell.index % len(self.prompts)
        taped = draws[cell.arm.name, cell.stream]
        if number >= len(taped):
            return None
        draw = taped[number]
        identity = [cell.step_id, k, probe, draw.seed32, self.code]
        return Sample(
            sample_id=fingerprint(identity), cell=cell, k=k, probe=probe, draw=draw, order_index=order_index
        )
