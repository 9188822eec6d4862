"""From the control experiment's design to jobs: whose values are run, under which label, in which state.

A value is one draw of a source's tape; each is run on every prompt. A condition is a source of values, a
label and a state of the model, and its cells (one a prompt) are recorded under the condition's name as their
arm. Of the label nothing reaches the backend but the job's key and its place in the order, which is the
point: texts that still differ by label follow something that they should not. Sample k of a cell is value k,
its repeats are same-seed texts. Beside them stand the two arms of the distribution transfer, a `SeedDesign`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lab.fingerprint import fingerprint
from models.entropy import Draw, Tape
from tasks.seed_cells import Arm, Cell, Sample, SeedDesign

STATES = ("warm", "cold", "replay")
"""Model in use; model loaded anew; model in use, given the seeds that its tape, opened anew, has."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Whose values, under which label, in which state of the model."""

    source: str
    label: str
    state: str
    """One of STATES."""

    @property
    def name(self) -> str:
        """What its texts are recorded under, such as `PRNG`, `PRNG_AS_TRNG`, `PRNG_COLD`, `PRNG_REPLAY`."""
        if self.label != self.source:
            return f"{self.source}_AS_{self.label}"
        return self.source if self.state == "warm" else f"{self.source}_{self.state.upper()}"

    def repeats(self, before: int, look: int) -> range:
        """Repeats, from 0, that a look at `look` same-seed texts a value adds to one at `before`.

        A swap and a replay are made once. A value under its own label is written `look` times by the model in
        use, the first time being its sample, and once less by the model loaded anew.
        """
        if self.label != self.source or self.state == "replay":
            return range(0 if before else 1)
        return range(before, look) if self.state == "warm" else range(max(0, before - 1), look - 1)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Texts that one task makes."""

    cold: bool
    samples: list[Sample]


@dataclass(frozen=True, kw_only=True)
class ControlDesign:
    """Values x prompts x conditions for one model, and the arms of the distribution transfer."""

    transfer: SeedDesign
    """The two arms that differ in the range of their seeds; prompts, sampling and tapes are for all."""
    sources: tuple[Arm, ...]
    seeds_per_source: int
    transfer_samples: int
    """Of each prompt and range."""

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """Name -> condition: each source's values under every label, and under its own in every state."""
        names = [arm.name for arm in self.sources]
        swapped = [
            Condition(source=source, label=label, state="warm")
            for source, label in itertools.product(names, names)
        ]
        own = [
            Condition(source=name, label=name, state=state)
            for name, state in itertools.product(names, STATES[1:])
        ]
        return {condition.name: condition for condition in (*swapped, *own)}

    @cached_property
    def cells(self) -> dict[str, list[Cell]]:
        """Condition's name -> its cells, one a prompt."""
        return {
            name: [self._cell(condition, place) for place in range(len(self.transfer.prompts))]
            for name, condition in self.conditions.items()
        }

    def every_cell(self) -> Iterator[Cell]:
        """Cells of all conditions, then those of the transfer."""
        for cells in self.cells.values():
            yield from cells
        yield from self.transfer.cells

    def _cell(self, condition: Condition, place: int) -> Cell:
        base, prompt = self.transfer, self.transfer.prompts[place]
        arm = next(arm for arm in self.sources if arm.name == condition.source)
        sampling = replace(base.sampling, temperature=arm.temperature)
        config = {
            "study": base.study,
            "model_digest": base.digest,
            "backend": base.backend,
            "values_of": arm.source(arm.streams[0]).name,
            **asdict(condition),
            "sampling": asdict(sampling),
            "prompt_id": prompt.prompt_id,
            "prompt": prompt.text,
        }
        return Cell(
            arm=replace(arm, name=condition.name, base=condition.source),
            stream=arm.streams[0],
            prompt=prompt,
            sampling=sampling,
            config=config,
            step_id=fingerprint(config),
            index=place,
        )

    def tape(self, home: Path, arm: Arm) -> Tape:
        """Where an arm's draws are kept."""
        return self.transfer.tape(home, arm, arm.streams[0])

    def values(self, home: Path) -> dict[str, list[Draw]]:
        """Each source's values; taped if new."""
        purposes = [f"value/{k}" for k in range(self.seeds_per_source)]
        return {arm.name: self.tape(home, arm).draws(purposes) for arm in self.sources}

    def read_back(self, home: Path) -> dict[str, list[Draw]]:
        """Each source's values as its tape has them, the file opened anew; draws nothing."""
        return {arm.name: self.tape(home, arm).recorded()[: self.seeds_per_source] for arm in self.sources}

    def conditioned(
        self, values: Mapping[str, Sequence[Draw]], before: int, look: int, *states: str
    ) -> list[Sample]:
        """Texts of the conditions in these states that a look adds, in no particular order."""
        return [
            self._sample(cell, k, probe, draw)
            for name, condition in self.conditions.items()
            if condition.state in states
            for cell in self.cells[name]
            for k, draw in enumerate(values[condition.source])
            for probe in condition.repeats(before, look)
        ]

    def transferred(self, home: Path, before: int, *, new: bool = True) -> list[Sample]:
        """Texts of the distribution transfer, all at the first look; `new` allows drawing their seeds."""
        if before:
            return []
        draws = self.transfer.draws(home, self.transfer_samples) if new else self.transfer.recorded(home)
        return [sample for sample in self.transfer.block(draws, 0, self.transfer_samples) if not sample.probe]

    def count(self, before: int, look: int) -> int:
        """Texts that a look adds, seeds drawn or not."""
        places = self.seeds_per_source * len(self.transfer.prompts)
        repeats = sum(len(condition.repeats(before, look)) for condition in self.conditions.values())
        return repeats * places + (0 if before else self.transfer_samples * len(self.transfer.cells))

    def _sample(self, cell: Cell, k: int, probe: int, draw: Draw) -> Sample:
        identity = [cell.step_id, k, probe, draw.seed32, self.transfer.code]
        return Sample(sample_id=fingerprint(identity), cell=cell, k=k, probe=probe, draw=draw, order_index=0)


def interleave(
    warm: Sequence[Sample], cold: Sequence[Sample], *, rows: int, seed: object, start: int
) -> list[Batch]:
    """Batches of both states in a seeded permutation: of the texts in each state, then of the batches.

    Parameters
    ----------
    rows
        Texts a batch.
    seed
        Plain data that names the order.
    start
        Place of the first text in the order of the whole run.
    """
    rng = np.random.default_rng(int(fingerprint(seed), 16))
    batches = [
        Batch(cold=is_cold, samples=[texts[place] for place in order[i : i + rows]])
        for texts, is_cold in ((warm, False), (cold, True))
        for order in [rng.permutation(len(texts)).tolist()]
        for i in range(0, len(texts), rows)
    ]
    places = itertools.count(start)
    return [
        replace(batch, samples=[replace(sample, order_index=next(places)) for sample in batch.samples])
        for batch in (batches[i] for i in rng.permutation(len(batches)).tolist())
    ]
