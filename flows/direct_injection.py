"""Does the source of randomness change a text once it acts on every token?

A seed reaches a text through one number. Here the source acts at every choice, in one of several modes: it
picks the token (`select`), supplies the Gumbel noise (`gumbel`), is added to the logits at a dose
(`logit_perturb`), moves the temperature (`temp_modulate`), or still only gives the seed (`seed_only`); `none`
has no source. Compared are three sources within each mode, prompts being the random units. Modes differ from
one another whatever the source, so a mode against the baseline is dose-response and answers nothing about it.

Prediction, fixed before the first run: no difference between sources within any mode beyond 0.2 within-cell
SD, at any dose, while divergence from the unperturbed distribution rises with the dose whatever the source.
Against it counts a source contrast within a mode that the pre-declared test rejects at its look's level (Holm
over its family), with an interval that excludes zero, while the A/A arm shows none. A null counts only if the
assay sees faulty sources that pick the tokens: one constant number a text, bits that are always 1, one digest
repeated.
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

from flows import seed_run
from flows.injection_gates import GATES, INJECTION, gates_at
from flows.injection_run import InjectionRun
from flows.seed_protocol import Protocol
from lab.errors import UsageError, unknown
from lab.plan import Plan
from lab.products import Products
from lab.study import PlannedStep, Study
from models.backends import Sampling
from models.embedded import RUNGS
from models.entropy import SourceSpec
from models.injection import Injection
from models.prompts import INJECTION as ALL_PROMPTS
from models.prompts import Prompt, select
from models.words import LIVE
from tasks import generation, injection_generation, training
from tasks.injection_analysis import Question
from tasks.injection_cells import InjectionArm, InjectionDesign, own_stream

NAME = INJECTION
QUESTION = "Does the source of randomness change a text once it acts on every token?"
PREDICTION = (
    "No difference between sources within any mode beyond 0.2 within-cell SD. Against it counts a rejected "
    "source test within a mode whose interval excludes zero, while the A/A arm shows nothing."
)
PRIMARY = ("mtld", "distinct_2", "shannon_word")
SECONDARY = ("shannon_char", "repetition_ratio", "length_words")

SOURCES = {"PRNG": "prng", "TRNG": "trng", "HMIX": "hmix"}
CONTROLS: Mapping[str, tuple[str, float | None]] = {
    "CONSTANT": ("constant", None),
    "BIASED": ("biased_bits", 0.5),
    "TILED": ("tiled", None),
}
"""Faulty sources, kind and dose; under `select` each must be seen."""
BASE = "select/PRNG"
"""The arm they are compared with."""
SMOKE_PROMPTS = tuple(name for name in ALL_PROMPTS if name not in ("code-2", "factual-2", "summarization-2"))
"""12 prompts over all domains: with 8 or 10 of them the weakest control is seen in half of all tapes."""


@dataclass(frozen=True, kw_only=True)
class DirectInjection:
    """What a run of this study can be told. Everything but model, backend and samples belongs to the plan."""

    profile: Annotated[Literal["smoke", "laptop", "full"], Field(description="Whose plan this is")]
    model: Annotated[str, Field(description="An embedded rung or a hub id", min_length=1)]
    backend: Annotated[
        Literal["local", "transformers", "ollama"],
        Field(description="What runs the model: one whose sampler is ours, so not ollama"),
    ]
    rungs: Annotated[tuple[str, ...], Field(description="Models in order of size; DETECTED leads up")]
    prompts: Annotated[tuple[str, ...], Field(description="Ids of the prompts", min_length=2)]
    looks: Annotated[tuple[int, ...], Field(description="Samples a cell at each look", min_length=1)]
    samples: Annotated[
        int | None,
        Field(
            description="Stop at this many samples a cell; outside the looks it is exploratory",
            ge=1,
            le=100_000,
        ),
    ] = None
    doses: Annotated[
        tuple[float, ...], Field(description="Of uniform noise on logits, in SD of a logit", min_length=1)
    ] = (0.0, 0.05, 0.1, 0.3, 1.0, 3.0)
    gaussian_doses: Annotated[tuple[float, ...], Field(description="Of Gaussian noise on logits")] = (
        0.3,
        3.0,
    )
    control_times: Annotated[
        int, Field(description="Samples of faulty sources and their base, in multiples of a look's", ge=1)
    ] = 1
    amplitude: Annotated[
        float, Field(description="a of temperature T0 + a (u - 1/2) in temp_modulate", ge=0, le=4)
    ] = 0.3
    stream: Annotated[int, Field(description="What each arm's own streams are made from", ge=0)] = 42
    temperature: Annotated[float, Field(description="Of all arms; T0 of temp_modulate", gt=0, le=10)] = 0.7
    top_k: Annotated[int, Field(description="Tokens kept, 0 for all", ge=0)] = 50
    top_p: Annotated[float, Field(description="Probability mass kept", gt=0, le=1)] = 0.9
    new_tokens: Annotated[int, Field(description="Tokens a text at most", ge=1)] = 150
    num_ctx: Annotated[int, Field(description="Context window in tokens", ge=16)] = 1024
    margin_sd: Annotated[
        float, Field(description="Smallest effect of interest, in within-cell SD", gt=0, allow_inf_nan=False)
    ] = 0.2
    alpha: Annotated[float, Field(description="Error over all looks", gt=0, lt=0.5)] = 0.05
    aa_alpha: Annotated[float, Field(description="Level of the A/A arm", gt=0, lt=0.5)] = 0.001
    required_pairs: Annotated[int, Field(description="Same-seed pairs to judge identity by", ge=1)] = 400
    probe_every: Annotated[int, Field(description="One sample in this many is generated twice", ge=2)] = 20

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        if self.backend == "ollama":
            raise UsageError(
                "backend ollama cannot inject: its server chooses tokens itself; take local or transformers"
            )
        if self.backend == "local" and self.model not in RUNGS:
            raise unknown("embedded model", self.model, RUNGS)
        for name in ("doses", "gaussian_doses", "rungs", "prompts"):
            found = getattr(self, name)
            if len(set(found)) < len(found):
                raise UsageError(f"{name} = {found} names one twice; leave it out")
        prompts(self)
        sampling(self)
        plan(self)


CIRCUMSTANCE = ("profile", "model", "backend", "samples")
"""Settings outside the plan's design."""


def arms(settings: DirectInjection) -> tuple[InjectionArm, ...]:
    """Every mode with every source, the faulty sources and the second label under `select`, the baselines."""
    ways: dict[str, dict[str, Any]] = {"select": {"mode": "select"}, "gumbel": {"mode": "gumbel"}}
    for law, doses in (("uniform", settings.doses), ("gaussian", settings.gaussian_doses)):
        for dose in doses:
            ways[f"logit_perturb:{dose:g}:{law}"] = {"mode": "logit_perturb", "dose": dose, "law": law}
    moved = {"mode": "temp_modulate", "amplitude": settings.amplitude}
    ways["temp_modulate"] = moved
    ways["temp_modulate:shuffled"] = {**moved, "control": "shuffled"}
    ways["seed_only"] = {"mode": "seed_only"}
    treated = [
        _arm(settings, way, label, kind, "treatment", **how)
        for way, how in ways.items()
        for label, kind in SOURCES.items()
    ]
    fixed = Injection(mode="temp_modulate", amplitude=settings.amplitude, control="fixed")
    bare = [
        InjectionArm(name=name, condition=name, label="", role="baseline", injection=injection)
        for name, injection in (("temp_modulate:fixed", fixed), ("none", Injection(mode="none")))
    ]
    second = _arm(settings, "select", "TRNG_AA", "trng", "a_a", base="select/TRNG", mode="select")
    faulty = [
        _arm(settings, "select", label, kind, "positive_control", fault=fault, base=BASE, mode="select")
        for label, (kind, fault) in CONTROLS.items()
    ]
    return tuple(
        replace(arm, times=settings.control_times) if BASE in (arm.name, arm.base) else arm
        for arm in (*treated, *bare, second, *faulty)
    )


def _arm(
    settings: DirectInjection,
    condition: str,
    label: str,
    kind: str,
    role: str,
    *,
    fault: float | None = None,
    base: str | None = None,
    **how: Any,
) -> InjectionArm:
    name = f"{condition}/{label}"
    stream = None if kind in LIVE else own_stream(settings.stream, name)
    source = SourceSpec(kind=kind, stream=stream, dose=fault)
    injection = Injection(source=source, **how)
    return InjectionArm(
        name=name, condition=condition, label=label, role=role, injection=injection, base=base
    )


def prompts(settings: DirectInjection) -> tuple[Prompt, ...]:
    """The prompts of the settings."""
    return select(settings.prompts)


def sampling(settings: DirectInjection) -> Sampling:
    """Sampling options of all arms."""
    return Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_new_tokens=settings.new_tokens,
        num_ctx=settings.num_ctx,
    )


def plan(settings: DirectInjection) -> Plan:
    """The plan these settings stand for."""
    design = {name: value for name, value in asdict(settings).items() if name not in CIRCUMSTANCE}
    for name in ("looks", "margin_sd", "alpha"):
        del design[name]
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=(
            "within each mode the mean over prompts of each primary metric is the same for all sources",
        ),
        primary=PRIMARY,
        secondary=SECONDARY,
        margin=settings.margin_sd,
        margin_unit="within-cell SD",
        alpha=settings.alpha,
        looks=settings.looks,
        exclusions=("error or timeout", "no words left after stripping", "under 10 words"),
        design=design | {"arms": [asdict(arm) for arm in arms(settings)]},
        gates=GATES,
    )


SMOKE = DirectInjection(
    profile="smoke",
    model="pydoc-0.1m",
    backend="local",
    rungs=tuple(RUNGS),
    prompts=SMOKE_PROMPTS,
    looks=(4, 8),
    doses=(0.0, 0.3, 3.0),
    gaussian_doses=(0.3,),
    control_times=2,
    new_tokens=60,
    num_ctx=512,
    required_pairs=8,
)
LAPTOP = replace(
    SMOKE,
    profile="laptop",
    model="pydoc-1.2m",
    prompts=ALL_PROMPTS,
    looks=(5, 10, 20),
    doses=(0.0, 0.05, 0.1, 0.3, 1.0, 3.0),
    gaussian_doses=(0.3, 3.0),
    control_times=1,
    new_tokens=150,
    num_ctx=1024,
    required_pairs=400,
)
FULL = replace(
    LAPTOP,
    profile="full",
    model="distilgpt2",
    backend="transformers",
    rungs=("distilgpt2", "gpt2", "gpt2-medium"),
)
PROFILES: Mapping[str, DirectInjection] = {"smoke": SMOKE, "laptop": LAPTOP, "full": FULL}


def protocol(settings: DirectInjection) -> Protocol:
    """What the shared run needs to know; arms, probes and tests are this study's own."""
    return Protocol(
        study=NAME,
        question=QUESTION,
        text=__doc__ or "",
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        settings=asdict(settings),
        profile=settings.profile,
        model=settings.model,
        backend=settings.backend,
        timeout_seconds=180.0,
        host=None,
        arms=(),
        prompts=prompts(settings),
        sampling=sampling(settings),
        probe_every=settings.probe_every,
        diagnostic_draws=0,
        aa_alpha=settings.aa_alpha,
        required_pairs=settings.required_pairs,
        permutations=0,
        samples=settings.samples,
    )


def design(settings: DirectInjection, digest: str) -> InjectionDesign:
    """Cells and tapes of the model of this digest."""
    return InjectionDesign(
        study=NAME,
        model=settings.model,
        digest=digest,
        backend=settings.backend,
        code=injection_generation.injection_code(),
        prompts=prompts(settings),
        arms=arms(settings),
        sampling=sampling(settings),
        probe_every=settings.probe_every,
        stream=settings.stream,
    )


def question(settings: DirectInjection) -> Question:
    """What the first look is asked."""
    return Question(
        arms=arms(settings),
        primary=PRIMARY,
        secondary=SECONDARY,
        margin_sd=settings.margin_sd,
        alpha=settings.alpha,
        aa_alpha=settings.aa_alpha,
        looks=settings.looks,
        look=settings.looks[0],
        required_pairs=settings.required_pairs,
    )


def steps(settings: DirectInjection, home: Path) -> list[PlannedStep]:
    """The dry run: what each step makes and what of it is here; changes nothing."""
    found, digest = [], ""
    if settings.backend == "local":
        step, digest = training.planned(home, settings.model)
        found.append(step)
    cells, texts, before = design(settings, digest), Products(home, generation.KIND), 0
    for look in protocol(settings).looks:
        block = cells.block(cells.recorded(home), before, look) if digest else []
        here = sum(texts.read(one.sample.sample_id) is not None for one in block)
        found.append(
            PlannedStep(name=f"generate look {look}", units=len(cells.jobs(before, look)), cached=here)
        )
        before = look
    return found


def begin(settings: DirectInjection) -> seed_run.Run:
    """Open the run; its gates are the plan's with the model after this one filled in, which no plan holds."""
    run = seed_run.begin(protocol(settings))
    asked = replace(run.protocol.plan, gates=gates_at(settings.model, settings.rungs))
    run.protocol = replace(run.protocol, plan=asked)
    return run


@flow(
    name="direct-injection",
    flow_run_name="direct injection · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def direct_injection(settings: DirectInjection = SMOKE) -> State[dict[str, Any]]:
    """Generate, measure, analyse and decide, look by look, until a gate leads out of the tree."""
    run = begin(settings)
    with run.closing():
        run.obtain_model()
        work = InjectionRun(run=run, design=design(settings, run.digest), question=question(settings))
        for look in run.looks:
            samples = work.draw(look)
            work.generate(look, samples)
            work.measure(look, samples)
            work.analyse(look)
            if run.decide(look) != "next_look":
                break
    return Completed(message=run.summary(), data=run.result())


STUDY = Study(
    name=NAME,
    title="Entropy: direct injection",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=direct_injection,
    entrypoint="flows.direct_injection.direct_injection",
    expected_seconds={"smoke": 90.0, "laptop": 9_000.0, "full": 14_400.0},
    next_flows=(INJECTION,),
)
