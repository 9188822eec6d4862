"""What a run of a seed study is told, and its dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.plan import Plan
from lab.products import Products
from lab.study import PlannedStep
from models.backends import Sampling
from models.prompts import Conversation, Prompt
from tasks import conversations, generation, training
from tasks.seed_cells import Arm, SeedDesign


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that a run of a seed study is told."""

    study: str
    question: str
    text: str
    plan: Plan
    default: Plan
    """What the profile's own settings stand for: the declared plan unless another one was frozen."""
    settings: Mapping[str, object]
    profile: str
    model: str
    backend: str
    timeout_seconds: float
    host: str | None
    arms: tuple[Arm, ...]
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    probe_every: int
    diagnostic_draws: int
    aa_alpha: float
    required_pairs: int
    permutations: int
    samples: int | None
    """Stop at this many samples a cell; None for the last look."""
    series: str = ""
    """Texts and tapes of their own within the study, such as a confirmation's; empty for the first."""
    recorded_as: str = ""
    """Under which name of a model rows and decisions stand, where it is not the model's own."""
    label: str = ""
    """Before the names of looks, where a run takes several models."""
    conversations: tuple[Conversation, ...] = ()
    """Held with the treatments beside the single-turn prompts."""

    @property
    def name(self) -> str:
        """What rows and decisions call the model."""
        return self.recorded_as or self.model

    @property
    def looks(self) -> tuple[int, ...]:
        """The looks to take: the planned ones up to `samples`, and `samples` itself."""
        stop = self.samples or self.plan.looks[-1]
        return (*(look for look in self.plan.looks if look < stop), stop)

    def looks_at(self, look: int) -> tuple[int, ...]:
        """The sequence of looks whose error spending judges this one; an undeclared look ends its own."""
        if look in self.plan.looks:
            return self.plan.looks
        return (*(other for other in self.plan.looks if other < look), look)


def seed_design(protocol: Protocol, digest: str) -> SeedDesign:
    """Cells and tapes of a model whose digest is known."""
    return SeedDesign(
        study=f"{protocol.study}-{protocol.series}" if protocol.series else protocol.study,
        model=protocol.model,
        digest=digest,
        backend=protocol.backend,
        code=generation.generation_code(protocol.backend),
        prompts=protocol.prompts,
        arms=protocol.arms,
        sampling=protocol.sampling,
        probe_every=protocol.probe_every,
        conversations=protocol.conversations,
    )


def planned(protocol: Protocol, home: Path) -> list[PlannedStep]:
    """The dry run: what each step makes and what of it is here; changes nothing."""
    steps, digest = [], ""
    if protocol.backend == "local":
        step, digest = training.planned(home, protocol.model)
        steps.append(step)
    design = seed_design(protocol, digest)
    texts = Products(home, generation.KIND)
    before = 0
    for look in protocol.looks:
        block = design.block(design.recorded(home), before, look) if digest else []
        here = sum(texts.read(sample.sample_id) is not None for sample in block)
        steps.append(
            PlannedStep(name=f"generate look {look}", units=len(design.jobs(before, look)), cached=here)
        )
        if protocol.conversations:
            turns = len(list(conversations.known_turns(design, home, before, look))) if digest else 0
            units = conversations.turns_between(design, before, look)
            steps.append(PlannedStep(name=f"conversations of look {look}", units=units, cached=turns))
        before = look
    return steps
