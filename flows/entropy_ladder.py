"""Does a seed's source matter in small models, and if so, up to which size?

The seed study on one model after the other, smallest first, each by its own looks: more samples only where a
rung is still open. Two rungs in a row that are EQUIVALENT end the climb. Over all rungs the tests are
corrected again (Benjamini-Hochberg), the effects pooled and regressed on log10 parameters, and the crossover
named: the smallest scale from which every rung is EQUIVALENT. A rung DETECTED after that correction is
generated again from tapes of its own and has to show the same sign: a screen of many models finds something
by chance.

Prediction, fixed before the first run: no rung is DETECTED and confirmed; what a small model shows, a larger
one of the same line does not. Against it counts a rung confirmed by fresh texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows import entropy_seeds, ladder_run, seed_protocol
from flows.ladder_gates import GATES, RUNG_GATES
from lab.errors import UsageError, unknown
from lab.plan import Plan
from lab.study import PlannedStep, Study

NAME = "entropy_ladder"
QUESTION = "Up to which size of model does the source of a seed matter, if it does?"
PREDICTION = (
    "No rung is DETECTED and confirmed by fresh texts; an effect of a small model is not one of a larger. "
    "Against it counts a rung that fresh texts confirm."
)


@dataclass(frozen=True, kw_only=True)
class LadderRung:
    """One model of the ladder."""

    model: Annotated[str, Field(description="An embedded rung, an Ollama name, or a hub id", min_length=1)]
    parameters: Annotated[int, Field(description="As its card says", ge=1)]
    line: Annotated[str, Field(description="Models of one line share it: a slope runs within a line")] = ""


@dataclass(frozen=True, kw_only=True)
class EntropyLadder:
    """What a run of the ladder can be told; all else is as the seed study's profile has it."""

    profile: Annotated[Literal["smoke", "laptop", "full"], Field(description="Whose plan this is")]
    backend: Annotated[
        Literal["local", "transformers", "ollama", "replay"], Field(description="What runs the models")
    ]
    rungs: Annotated[
        tuple[LadderRung, ...], Field(description="Models in the order to climb them", min_length=1)
    ]
    model_contrast: Annotated[
        tuple[str, str] | None, Field(description="Two rungs whose effects are compared, by declaration")
    ] = None
    looks: Annotated[tuple[int, ...], Field(description="Samples a cell at each look", min_length=1)]
    samples: Annotated[
        int | None,
        Field(
            description="Stop at this many samples a cell; outside the looks it is exploratory",
            ge=1,
            le=100_000,
        ),
    ] = None
    climb_to: Annotated[
        int | None, Field(description="Pause after this many rungs; the next run goes on from there", ge=1)
    ] = None
    confirmation_samples: Annotated[
        int, Field(description="Fresh samples a cell of a rung to be confirmed", ge=20)
    ] = 20
    rung_hours: Annotated[
        float, Field(description="No further look at a rung that would take longer than this", gt=0, le=1000)
    ] = 3.0
    conversations: Annotated[int, Field(description="Held with every rung", ge=0, le=3)] = 3
    new_tokens: Annotated[int, Field(description="Tokens a text at most", ge=1)] = 150
    required_pairs: Annotated[int, Field(description="Same-seed pairs to judge identity by", ge=1)] = 400
    permutations: Annotated[int, Field(description="Of the sharp null, at least", ge=100)] = 10_000
    timeout_seconds: Annotated[float, Field(description="Limit on one generation", gt=0, le=86_400)] = 180.0
    host: Annotated[str | None, Field(description="Address of the Ollama server")] = None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        names = [rung.model for rung in self.rungs]
        if len(set(names)) < len(names):
            raise UsageError(f"rungs name {', '.join(names)}; give each model once")
        for name in self.model_contrast or ():
            if name not in names:
                raise unknown("rung of model_contrast", name, names)
        for name in names:
            seeds(self, name)

    @property
    def model(self) -> str:
        """What stands for a model where the ladder has several."""
        return ladder_run.ALL_RUNGS


CIRCUMSTANCE = ("profile", "samples", "climb_to", "rung_hours", "timeout_seconds", "host")
"""Settings outside the plan's design."""


def seeds(settings: EntropyLadder, model: str) -> entropy_seeds.EntropySeeds:
    """The seed study's settings for one rung."""
    return replace(
        entropy_seeds.PROFILES[settings.profile],
        model=model,
        backend=settings.backend,
        looks=settings.looks,
        samples=settings.samples,
        conversations=settings.conversations,
        new_tokens=settings.new_tokens,
        required_pairs=settings.required_pairs,
        permutations=settings.permutations,
        timeout_seconds=settings.timeout_seconds,
        host=settings.host,
    )


def plan(settings: EntropyLadder) -> Plan:
    """The plan these settings stand for."""
    first = entropy_seeds.plan(seeds(settings, settings.rungs[0].model))
    design = {name: value for name, value in asdict(settings).items() if name not in CIRCUMSTANCE}
    del design["looks"]
    return replace(
        first,
        study=NAME,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=(*first.hypotheses, "and so in every model of the ladder"),
        design=dict(first.design) | design,
        gates=GATES,
    )


SMOKE = EntropyLadder(
    profile="smoke",
    backend="local",
    rungs=(
        LadderRung(model="pydoc-0.1m", parameters=131_392, line="pydoc"),
        LadderRung(model="pydoc-0.2m", parameters=216_216, line="pydoc"),
        LadderRung(model="pydoc-0.4m", parameters=367_776, line="pydoc"),
        LadderRung(model="pydoc-1.2m", parameters=1_197_696, line="pydoc"),
    ),
    looks=entropy_seeds.SMOKE.looks,
    conversations=0,
    new_tokens=entropy_seeds.SMOKE.new_tokens,
    required_pairs=entropy_seeds.SMOKE.required_pairs,
)
LAPTOP = EntropyLadder(
    profile="laptop",
    backend="ollama",
    rungs=(
        LadderRung(model="qwen3:0.6b", parameters=751_632_384, line="qwen3"),
        LadderRung(model="qwen3:1.7b", parameters=2_031_739_904, line="qwen3"),
        LadderRung(model="llama3.2:3b", parameters=3_212_749_888, line="llama3.2"),
        LadderRung(model="gemma3:4b", parameters=4_299_915_632, line="gemma3"),
        LadderRung(model="qwen3:4b", parameters=4_022_468_096, line="qwen3"),
        LadderRung(model="qwen3:8b", parameters=8_190_735_360, line="qwen3"),
    ),
    model_contrast=("gemma3:4b", "qwen3:4b"),
    looks=entropy_seeds.LAPTOP.looks,
)
FULL = replace(
    LAPTOP,
    profile="full",
    backend="transformers",
    rungs=(
        LadderRung(model="distilgpt2", parameters=81_912_576, line="gpt2"),
        LadderRung(model="gpt2", parameters=124_439_808, line="gpt2"),
        LadderRung(model="gpt2-medium", parameters=354_823_168, line="gpt2"),
    ),
    model_contrast=None,
)
PROFILES: Mapping[str, EntropyLadder] = {"smoke": SMOKE, "laptop": LAPTOP, "full": FULL}


def protocol(settings: EntropyLadder, model: str) -> seed_protocol.Protocol:
    """One rung's run: the seed study's under the ladder's plan, with tapes of the ladder."""
    whole = plan(settings)
    return replace(
        entropy_seeds.protocol(seeds(settings, model)),
        study=NAME,
        question=QUESTION,
        text=__doc__ or "",
        plan=replace(whole, gates=RUNG_GATES),
        default=plan(PROFILES[settings.profile]),
        settings=asdict(settings),
        label=f"{model}, ",
    )


def steps(settings: EntropyLadder, home: Path) -> list[PlannedStep]:
    """The dry run: as if every rung took all its looks."""
    return [
        replace(step, name=f"{rung.model}, {step.name}")
        for rung in settings.rungs[: settings.climb_to]
        for step in seed_protocol.planned(protocol(settings, rung.model), home)
    ]


@flow(
    name="entropy-ladder",
    flow_run_name="entropy ladder · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def entropy_ladder(settings: EntropyLadder = SMOKE) -> State[dict[str, Any]]:
    """Climb the rungs, confirm what is DETECTED, then say what they show together."""
    ladder = ladder_run.begin(
        plan(settings),
        {rung.model: protocol(settings, rung.model) for rung in settings.rungs},
        settings,
    )
    with ladder.closing():
        ladder.run()
    return Completed(message=ladder.summary(), data=ladder.result())


def parts(settings: EntropyLadder) -> list[Mapping[str, Any]]:
    """A night climbs a rung at a time; the run of the whole takes the last and compares them."""
    return [{"climb_to": count} for count in range(1, len(settings.rungs))]


STUDY = Study(
    name=NAME,
    title="Entropy: scale ladder",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=entropy_ladder,
    entrypoint="flows.entropy_ladder.entropy_ladder",
    expected_seconds={"smoke": 400.0, "laptop": 64_800.0, "full": 32_400.0},  # 3 h a rung
    next_flows=("direct_injection",),
    parts=parts,
)
