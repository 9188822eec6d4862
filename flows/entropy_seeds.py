"""Does the source of a random seed change what a model writes?

A text is a function of model, prompt, settings and seed; the source of the seed (a Mersenne Twister, the
operating system, a hash of time and entropy) can act only through the values it draws. Compared are the three
sources as arms of one design, prompts and streams being the random units, on lexical diversity (MTLD),
distinct bigrams and word entropy.

Prediction, fixed before the first run: no difference beyond 0.2 within-cell SD at any size of model. Against
it counts a difference that the pre-declared mixed-model test rejects at its look's level (Holm over the three
primary metrics), with an interval that excludes zero, while an A/A arm (one source under two labels) shows
none. A null counts only if the assay sees a difference that is there: one source at a raised temperature.
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

from flows import seed_protocol, seed_run
from flows.entropy_gates import GATES
from lab.errors import unknown
from lab.plan import Plan
from lab.study import PlannedStep, Study
from models.backends import Sampling
from models.embedded import RUNGS
from models.opening import refuse_unreadable
from models.prompts import CONVERSATIONS, SINGLE_TURN, Conversation, Prompt, select
from models.prompts import SMOKE as SMOKE_PROMPTS
from tasks.seed_cells import Arm

NAME = "entropy_seeds"
QUESTION = "Does the source of a random seed change what a model writes?"
PREDICTION = (
    "No difference beyond 0.2 within-cell SD. Against it counts a rejected mixed-model omnibus test whose "
    "interval excludes zero, while the A/A arm shows nothing."
)
PRIMARY = ("mtld", "distinct_2", "shannon_word")
SECONDARY = ("shannon_char", "repetition_ratio", "length_words")


@dataclass(frozen=True, kw_only=True)
class EntropySeeds:
    """What a run of this study can be told. Everything but model, backend and samples belongs to the plan."""

    profile: Annotated[Literal["smoke", "laptop", "full"], Field(description="Whose plan this is")]
    model: Annotated[str, Field(description="An embedded rung, an Ollama name, or a hub id", min_length=1)]
    backend: Annotated[
        Literal["local", "transformers", "ollama", "replay"], Field(description="What runs the model")
    ]
    prompts: Annotated[Literal["smoke", "all"], Field(description="12 prompts over all domains, or all 30")]
    looks: Annotated[tuple[int, ...], Field(description="Samples a cell at each look", min_length=1)]
    conversations: Annotated[
        int, Field(description="How many conversations are held too", ge=0, le=len(CONVERSATIONS))
    ] = len(CONVERSATIONS)
    samples: Annotated[
        int | None,
        Field(
            description="Stop at this many samples a cell; outside the looks it is exploratory",
            ge=1,
            le=100_000,
        ),
    ] = None
    streams: Annotated[tuple[int, ...], Field(description="Replicates of each source", min_length=1)] = (42,)
    single_stream: Annotated[bool, Field(description="Keep the first stream only")] = False
    temperature: Annotated[float, Field(description="Of all arms but the control", ge=0, le=10)] = 0.7
    control_temperature: Annotated[
        float, Field(description="Of the positive control, which must be detected", ge=0, le=10)
    ] = 1.3
    top_k: Annotated[int, Field(description="Tokens kept, 0 for all", ge=0)] = 50
    top_p: Annotated[float, Field(description="Probability mass kept", gt=0, le=1)] = 0.9
    new_tokens: Annotated[int, Field(description="Tokens a text at most", ge=1)] = 150
    num_ctx: Annotated[int, Field(description="Context window in tokens", ge=16)] = 2048
    think: Annotated[bool | None, Field(description="Whether a thinking model thinks first")] = None
    margin_sd: Annotated[
        float, Field(description="Smallest effect of interest, in within-cell SD", gt=0, allow_inf_nan=False)
    ] = 0.2
    alpha: Annotated[float, Field(description="Error over all looks", gt=0, lt=0.5)] = 0.05
    aa_alpha: Annotated[float, Field(description="Level of the A/A arm", gt=0, lt=0.5)] = 0.001
    required_pairs: Annotated[int, Field(description="Same-seed pairs to judge identity by", ge=1)] = 400
    probe_every: Annotated[int, Field(description="One sample in this many is generated twice", ge=2)] = 20
    diagnostic_draws: Annotated[int, Field(description="Seeds a source, to test its distribution", ge=20)] = (
        8192
    )
    permutations: Annotated[int, Field(description="Of the sharp null, at least", ge=100)] = 10_000
    timeout_seconds: Annotated[float, Field(description="Limit on one generation", gt=0, le=86_400)] = 180.0
    host: Annotated[str | None, Field(description="Address of the Ollama server")] = None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        if self.backend == "local" and self.model not in RUNGS:
            raise unknown("embedded model", self.model, RUNGS)
        refuse_unreadable(self.host)
        sampling(self)
        plan(self)


CIRCUMSTANCE = ("profile", "model", "backend", "samples", "timeout_seconds", "host")
"""Settings outside the plan's design."""


def arms(settings: EntropySeeds) -> tuple[Arm, ...]:
    """Three sources, one of them under a second label, and one at a raised temperature."""
    streams = settings.streams[:1] if settings.single_stream else settings.streams
    warm, first = settings.temperature, streams[:1]
    return (
        Arm(name="PRNG", role="treatment", kind="prng", streams=streams, temperature=warm),
        Arm(name="TRNG", role="treatment", kind="trng", streams=streams, temperature=warm),
        Arm(name="HMIX", role="treatment", kind="hmix", streams=streams, temperature=warm),
        Arm(name="TRNG_AA", role="a_a", kind="trng", streams=streams, temperature=warm, base="TRNG"),
        Arm(
            name="PRNG_HOT",
            role="positive_control",
            kind="prng",
            streams=(first[0] + 1_000_003,),  # another stream, so that no text shares its seed with PRNG
            temperature=settings.control_temperature,
            base="PRNG",
        ),
    )


def prompts(settings: EntropySeeds) -> tuple[Prompt, ...]:
    """The prompts of the settings."""
    return select(SMOKE_PROMPTS) if settings.prompts == "smoke" else SINGLE_TURN


def conversations(settings: EntropySeeds) -> tuple[Conversation, ...]:
    """The conversations of the settings, held with the treatments."""
    return CONVERSATIONS[: settings.conversations]


def sampling(settings: EntropySeeds) -> Sampling:
    """Sampling options of all arms but the positive control."""
    return Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_new_tokens=settings.new_tokens,
        num_ctx=settings.num_ctx,
        think=settings.think,
    )


def plan(settings: EntropySeeds) -> Plan:
    """The plan these settings stand for."""
    design = {name: value for name, value in asdict(settings).items() if name not in CIRCUMSTANCE}
    for name in ("looks", "margin_sd", "alpha", "prompts"):
        del design[name]
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=("the mean over prompts of each primary metric is the same under every source",),
        primary=PRIMARY,
        secondary=SECONDARY,
        margin=settings.margin_sd,
        margin_unit="within-cell SD",
        alpha=settings.alpha,
        looks=settings.looks,
        exclusions=("error or timeout", "no words left after stripping", "under 10 words"),
        design=design
        | {
            "arms": [asdict(arm) for arm in arms(settings)],
            "prompts": [prompt.prompt_id for prompt in prompts(settings)],
            "conversations": [talk.conversation_id for talk in conversations(settings)],
        },
        gates=GATES,
    )


SMOKE = EntropySeeds(
    profile="smoke",
    model="pydoc-0.4m",
    backend="local",
    prompts="smoke",
    looks=(4, 8, 16),
    conversations=1,
    new_tokens=60,
    num_ctx=512,
    required_pairs=8,
)
LAPTOP = EntropySeeds(
    profile="laptop",
    model="qwen3:0.6b",
    backend="ollama",
    prompts="all",
    looks=(10, 20, 40),
    streams=(42, 123, 7, 999, 314),
    think=False,
)
FULL = replace(LAPTOP, profile="full", model="distilgpt2", backend="transformers", num_ctx=1024, think=None)
PROFILES: Mapping[str, EntropySeeds] = {"smoke": SMOKE, "laptop": LAPTOP, "full": FULL}


def protocol(settings: EntropySeeds) -> seed_protocol.Protocol:
    """What the shared run of seed studies needs to know."""
    return seed_protocol.Protocol(
        study=NAME,
        question=QUESTION,
        text=__doc__ or "",
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        settings=asdict(settings),
        profile=settings.profile,
        model=settings.model,
        backend=settings.backend,
        timeout_seconds=settings.timeout_seconds,
        host=settings.host,
        arms=arms(settings),
        prompts=prompts(settings),
        conversations=conversations(settings),
        sampling=sampling(settings),
        probe_every=settings.probe_every,
        diagnostic_draws=settings.diagnostic_draws,
        aa_alpha=settings.aa_alpha,
        required_pairs=settings.required_pairs,
        permutations=settings.permutations,
        samples=settings.samples,
    )


def steps(settings: EntropySeeds, home: Path) -> list[PlannedStep]:
    """The dry run."""
    return seed_protocol.planned(protocol(settings), home)


@flow(
    name="entropy-seeds",
    flow_run_name="entropy seeds · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def entropy_seeds(settings: EntropySeeds = SMOKE) -> State[dict[str, Any]]:
    """Generate, measure, analyse and decide, look by look, until a gate leads out of the tree."""
    run = seed_run.begin(protocol(settings))
    with run.closing():
        run.obtain_model()
        for look in run.looks:
            samples = run.draw(look)
            run.generate(look, samples)
            run.measure(look, samples)
            run.analyse(look)
            if run.decide(look) != "next_look":
                break
    return Completed(message=run.summary(), data=run.result())


STUDY = Study(
    name=NAME,
    title="Entropy: seed sources",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=entropy_seeds,
    entrypoint="flows.entropy_seeds.entropy_seeds",
    expected_seconds={"smoke": 100.0, "laptop": 10_800.0, "full": 10_800.0},
    next_flows=("entropy_control", "direct_injection"),
)
