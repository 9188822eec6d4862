"""What does a small GPT that reads its own statistics add?

Compared are GPTs that carry a state made of their own loss, gradient norm, entropy and confidence from step
to step and add it to their input, with plain ones and with controls: a state that is fixed, of one
dimension, without the step number, injected at random or not at all. Disturbances of known kind, place and
strength act on some runs, each with a twin that goes on without it. With weights fixed, states are put in
and taken out.

Predictions, fixed before the first run: moving the state along trained directions changes the entropy of
predictions by .05 to .45 nats, more than the same directions through a rotated injection; a raised learning
rate and a clamped state show in the state's own channels, random targets and hidden tokens in any channel;
held-out loss gains nothing. Against them counts an effect no larger than a rotated injection's, or a
signature that the step number alone explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.nano_arms import PUBLISHED_PLAN, suites_of
from flows.nano_gates import GATES, gates_of
from flows.nano_protocol import PHASES, SHOWN, NanoProtocol, planned_texts, refuse_steps
from flows.nano_run import begin, run_phase
from flows.nano_work import RunFailedError, planned_steps
from lab.errors import UsageError, unknown
from lab.plan import Plan
from lab.study import PlannedStep, Study
from models.nano_recipe import GptShape, Injection, Memory, NanoRecipe, Positions, StateSpec, UpdateKind
from models.nano_suites import SuiteStep, checked
from models.nano_texts import TextSource
from models.regimes import SMOKE as SMOKE_WINDOWS
from models.regimes import STRONG, RegimePlan, randomised, read_plan
from tasks.fan_out import runner
from tasks.nano_looks import level_of

NAME = "nanodesmo"
QUESTION = "What does a small GPT that reads its own statistics add?"
PREDICTION = (
    "The trained injection moves entropy by .05 to .45 nats, more than a rotated one; learning rate and "
    "clamp show in state channels; held-out loss gains nothing. Against it counts an effect within the "
    "rotations, or signatures that the step number explains."
)
PROBED_POSITIONS = 128
"""Held-out positions that the state's effect is measured on, a probe."""


@dataclass(frozen=True, kw_only=True)
class Nanodesmo:
    """What a run of this study can be told; all of it but limits belongs to the plan."""

    profile: Annotated[Literal["smoke", "fast", "full"], Field(description="Whose plan this is")]
    model: Annotated[Literal["nanogpt"], Field(description="The network")] = "nanogpt"
    corpus: Annotated[
        str, Field(description="Text: pydoc, stdlib, a file, https://... or hub:NAME[:CONFIG]")
    ] = "pydoc"
    corpus_sha256: Annotated[str, Field(description="Of the text of an https address")] = ""
    tokens: Annotated[Literal["characters", "bpe"], Field(description="Of the text")] = "characters"
    second_corpus: Annotated[str, Field(description="Second text; empty: none")] = ""
    second_sha256: Annotated[str, Field(description="Of its text, for an https address")] = ""
    second_tokens: Annotated[Literal["characters", "bpe"], Field(description="Of the second")] = "bpe"
    vocabulary: Annotated[int, Field(description="Symbols of bpe", ge=256, le=65_536)] = 512
    seeds: Annotated[tuple[int, ...], Field(description="Of every arm, at the first look", min_length=1)] = (
        0,
        1,
    )
    more_seeds: Annotated[tuple[int, ...], Field(description="That a second look adds; none: no look")] = ()
    look: Annotated[int, Field(description="2: the plan's second look, with more of both", ge=1, le=2)] = 1
    layers: Annotated[int, Field(description="Blocks", ge=1, le=48)] = 1
    heads: Annotated[int, Field(description="Of attention", ge=1, le=48)] = 2
    width: Annotated[int, Field(description="Of the network", ge=8, le=4096)] = 32
    block: Annotated[int, Field(description="Tokens of a window", ge=2, le=8192)] = 32
    batch: Annotated[int, Field(description="Windows a step", ge=1, le=4096)] = 16
    steps: Annotated[int, Field(description="Of training", ge=20, le=10_000_000)] = 240
    learning_rate: Annotated[float, Field(description="Peak", gt=0, allow_inf_nan=False)] = 1e-3
    least_rate: Annotated[float, Field(description="Where the cosine ends", gt=0, allow_inf_nan=False)] = 1e-4
    warmup_steps: Annotated[int, Field(description="Of the learning rate", ge=0)] = 100
    weight_decay: Annotated[float, Field(description="AdamW's", ge=0, allow_inf_nan=False)] = 0.1
    clip_norm: Annotated[float, Field(description="Of the gradient", gt=0, allow_inf_nan=False)] = 1.0
    dropout: Annotated[float, Field(description="Share", ge=0, lt=1)] = 0.0
    state_dim: Annotated[int, Field(description="Numbers of the state", ge=1, le=4096)] = 32
    update: Annotated[UpdateKind, Field(description="What makes the new state")] = "mlp"
    state_rate: Annotated[float, Field(description="Share of the new state", gt=0, le=1)] = 0.2
    positions: Annotated[Positions, Field(description="That statistics are averaged over")] = "all"
    injection: Annotated[Injection, Field(description="P of the state")] = "trained"
    memory: Annotated[
        Memory, Field(description="Of every arm but fixed ones and those of the memory suite")
    ] = "none"
    memory_suite: Annotated[bool, Field(description="Whether memories are compared with none")] = True
    controls_suite: Annotated[bool, Field(description="Whether controls are trained")] = True
    step_frac: Annotated[bool, Field(description="Whether the state sees how far training is")] = True
    regimes: Annotated[str, Field(description="JSON file of regimes with windows; empty: ours")] = ""
    windows: Annotated[
        Literal["listed", "random", "random_and_published"],
        Field(description="Of our regimes: as listed, or drawn by each seed; and the published ones"),
    ] = "listed"
    occurrences: Annotated[int, Field(description="Random windows a regime", ge=1, le=100)] = 3
    more_occurrences: Annotated[int, Field(description="That a second look adds", ge=0, le=100)] = 0
    window_steps: Annotated[int, Field(description="Of a random window", ge=2)] = 40
    gaps: Annotated[tuple[int, int], Field(description="Least and most clean steps between")] = (40, 80)
    first: Annotated[int, Field(description="Earliest step of a random window", ge=2)] = 160
    twin_tail: Annotated[int, Field(description="Steps a twin goes on after its window", ge=0)] = 0
    before: Annotated[int, Field(description="Clean steps that a window is compared with", ge=5)] = 20
    probe_every: Annotated[int, Field(description="Steps between probes of the state", ge=1)] = 10
    rotations: Annotated[int, Field(description="Of the frozen test", ge=199, le=100_000)] = 200
    permutations: Annotated[int, Field(description="Of separability", ge=20, le=100_000)] = 200
    loss_margin: Annotated[float, Field(description="Smallest difference of losses, nats", gt=0)] = 0.02
    auc_margin: Annotated[float, Field(description="Smallest gain of AUC", gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Field(description="Smallest effect on entropy, nats", gt=0)] = 0.05
    alpha: Annotated[float, Field(description="Of each family, over all looks", gt=0, lt=0.5)] = 0.05
    checkpoint: Annotated[
        str, Field(description="With --only frozen_core: directory of a kept run to test; no other phase")
    ] = ""
    processes: Annotated[int | None, Field(description="Runs at once; one a core when none", ge=1)] = None
    timeout_minutes: Annotated[float, Field(description="Limit of one run", gt=0, le=10_000)] = 10.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        every = (*self.seeds, *self.more_seeds)
        if len(set(every)) < len(every) or not 0 <= min(every) <= max(every) < 50_000:
            raise UsageError(f"seeds = {self.seeds}, more_seeds = {self.more_seeds}; each once, 0 to 49999")
        if self.look == 2 and not self.more_seeds:
            raise UsageError("look = 2 of a plan with one look; name the seeds that it adds in more_seeds")
        if self.memory != "none" and self.memory_suite:
            raise UsageError(
                f"memory = {self.memory!r} puts one into the run that memories are compared with; also give "
                "--set memory_suite=false"
            )
        try:
            checked(suites(self))
            texts(self)
            refuse_steps(suites(self), recipe(self))
            for look in range(1, len(looks(self)) + 1):
                if self.windows != "listed" and not self.regimes:
                    randomised(STRONG, steps=self.steps, seed=0, **placing(self, look))
            listed(self).refuse_outside(self.steps)
            if has_published(self):
                PUBLISHED_PLAN.refuse_outside(self.steps)
        except ValueError as error:
            raise UsageError(str(error)) from error


def suites(settings: Nanodesmo) -> Mapping[str, Sequence[SuiteStep]]:
    """Every training that is asked for."""
    return suites_of(
        published=has_published(settings), memory=settings.memory_suite, controls=settings.controls_suite
    )


def has_published(settings: Nanodesmo) -> bool:
    """Whether published windows are trained too."""
    return settings.windows == "random_and_published"


def looks(settings: Nanodesmo) -> tuple[int, ...]:
    """Seeds at each look of the plan."""
    first, more = len(settings.seeds), len(settings.more_seeds)
    return (first, first + more) if more else (first,)


def placing(settings: Nanodesmo, look: int) -> dict[str, Any]:
    """How random windows of a look are placed."""
    return {
        "occurrences": settings.occurrences + (settings.more_occurrences if look == 2 else 0),
        "length": settings.window_steps,
        "gaps": settings.gaps,
        "first": settings.first,
    }


def listed(settings: Nanodesmo) -> RegimePlan:
    """Windows that are the same in every seed: of a file, or of the smoke profile.

    Raises
    ------
    ValueError
        A file that is absent, no JSON, or not of regimes; with what is wrong.
    """
    if not settings.regimes:
        return SMOKE_WINDOWS if settings.windows == "listed" else RegimePlan()
    return read_plan(Path(settings.regimes).expanduser())


def recipe(settings: Nanodesmo) -> NanoRecipe:
    """How every run is trained."""
    return NanoRecipe(
        shape=GptShape(
            n_layer=settings.layers,
            n_head=settings.heads,
            n_embd=settings.width,
            block_size=settings.block,
            dropout=settings.dropout,
        ),
        state=StateSpec(
            dim=settings.state_dim,
            update=settings.update,
            rate=settings.state_rate,
            step_frac=settings.step_frac,
            positions=settings.positions,
            injection=settings.injection,
            memory=settings.memory,
        ),
        steps=settings.steps,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        least_rate=settings.least_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        probe_every=settings.probe_every,
        probe_windows=max(1, PROBED_POSITIONS // settings.block),
        twin_tail=settings.twin_tail,
    )


def texts(settings: Nanodesmo) -> dict[str, TextSource]:
    """The texts."""
    told = {
        "main": (settings.corpus, settings.corpus_sha256, settings.tokens),
        "second": (settings.second_corpus, settings.second_sha256, settings.second_tokens),
    }
    return {
        name: TextSource(source=where, sha256=sha256, tokens=tokens, vocab_size=settings.vocabulary)
        for name, (where, sha256, tokens) in told.items()
        if where
    }


def plan(settings: Nanodesmo) -> Plan:
    """The plan that a run of these settings follows."""
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=(
            "H0: states along trained directions change entropy no more than through a rotated injection",
            "H1: they change it more",
            "H0: regimes leave nothing in the state beyond the common channels",
            "H1: some do",
        ),
        primary=("entropy_nats",),
        secondary=("auc", "valid_loss_nats"),
        margin=settings.margin,
        margin_unit="nats",
        alpha=settings.alpha,
        looks=looks(settings),
        exclusions=("a loss that is no number", "a window outside the run", "a memory that was not in use"),
        design={
            **{name: value for name, value in asdict(settings).items() if name not in SHOWN},
            "regimes": asdict(listed(settings)),
            **({"published": asdict(PUBLISHED_PLAN)} if has_published(settings) else {}),
            **planned_texts(texts(settings)),
            "suites": dict(suites(settings)),
        },
        gates=gates_of(
            settings.profile,
            looks=len(looks(settings)),
            second=bool(settings.second_corpus),
            memory=settings.memory_suite,
            controls=settings.controls_suite,
        ),
    )


SMOKE = Nanodesmo(profile="smoke")
FAST = Nanodesmo(
    profile="fast",
    second_corpus="stdlib",
    seeds=(0, 1, 2, 3, 4),
    layers=2,
    width=64,
    batch=12,
    steps=1800,
    more_seeds=(5, 6, 7, 8, 9),
    windows="random",
    more_occurrences=1,
    before=40,
)
FULL = Nanodesmo(
    profile="full",
    second_corpus="stdlib",
    seeds=(0, 1, 2, 3, 4),
    layers=4,
    heads=4,
    width=128,
    block=64,
    batch=12,
    steps=2000,
    more_seeds=(5, 6, 7, 8, 9),
    windows="random_and_published",
    more_occurrences=1,
    before=40,
    timeout_minutes=60.0,
)
PROFILES: Mapping[str, Nanodesmo] = {"smoke": SMOKE, "fast": FAST, "full": FULL}


def protocol(settings: Nanodesmo) -> NanoProtocol:
    """What the run needs to know."""
    return NanoProtocol(
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        question=QUESTION,
        text=__doc__ or "",
        settings=asdict(settings),
        model=settings.model,
        texts=texts(settings),
        recipe=recipe(settings),
        suites=suites(settings),
        seeds=settings.seeds + (settings.more_seeds if settings.look == 2 else ()),
        look=settings.look,
        level=level_of(looks(settings), settings.alpha, settings.look),
        listed=listed(settings) if settings.regimes or settings.windows == "listed" else None,
        placing=placing(settings, settings.look),
        before=settings.before,
        rotations=settings.rotations,
        loss_margin=settings.loss_margin,
        auc_margin=settings.auc_margin,
        permutations=settings.permutations,
        processes=settings.processes,
        timeout_seconds=60.0 * settings.timeout_minutes,
        checkpoint=settings.checkpoint,
    )


def steps(settings: Nanodesmo, home: Path) -> list[PlannedStep]:
    """The dry run: what there is to train; changes nothing."""
    return planned_steps(protocol(settings), home)


@flow(
    task_runner=runner(),
    name="nanodesmo",
    flow_run_name="nanodesmo · {settings.corpus} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def nanodesmo(settings: Nanodesmo = SMOKE) -> State[dict[str, Any]]:
    """Train every suite, test it frozen, compare, ask the gates, draw the figures: nine phases in order.

    Where a part failed, the rest is done, the gates are asked all the same, and the run ends as failed.
    """
    run = begin(protocol(settings))
    with run.closing(run.result):
        run.walk()
    return Completed(message=run.summary(), data=run.result())


@flow(
    name="nanodesmo-phase",
    flow_run_name="nanodesmo · {phase}",
    validate_parameters=False,
    task_runner=runner(),
)
def nanodesmo_phase(settings: Nanodesmo, phase: str) -> dict[str, Any]:
    """One phase with what it needs; what `run_phase` says of it."""
    return run_phase(protocol(settings), phase)


def only(settings: Nanodesmo, name: str, folder: str | None) -> Mapping[str, Any]:
    """One phase, such as `frozen_core`."""
    if folder is not None:
        raise UsageError("a phase writes into the lab's home; leave out --out")
    if name not in PHASES:
        raise unknown("phase", name, PHASES)
    try:
        found: Mapping[str, Any] = nanodesmo_phase(settings, name)
    except RunFailedError as error:
        return error.result
    return found


STUDY = Study(
    name=NAME,
    title="Nanodesmo: a GPT that reads its own statistics",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=nanodesmo,
    entrypoint="flows.nanodesmo.nanodesmo",
    expected_seconds={"smoke": 50.0, "fast": 1400.0, "full": 9500.0},
    next_flows=("nanodesmo",),
    only=only,
)
