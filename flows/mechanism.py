"""Does it help to place LoRA ranks where an audit of a trained adapter says they are used?

A probe of one rank everywhere is trained and audited: how many of its singular values hold 90 % of each
module's energy is the rank that module gets. Compared are the items answered by an adapter of those ranks and
by adapters of the same ranks shuffled among modules of one projection, so that every arm has exactly as many
parameters; items are paired, the seed is the unit.

Prediction, fixed before the first run: placed ranks answer no more than shuffled ones (equivalent within 1 %
of the items). Against it counts a difference detected in either direction. An earlier study judged by a
criterion on means of three seeds; its scenario is given beside ours. A null counts only if the probe has
learned, the controls differ from the placement and every arm has the ranks and the budget it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.mechanism_gates import GATES
from flows.mechanism_protocol import RankProtocol
from flows.mechanism_run import begin
from lab.errors import UsageError, unknown
from lab.plan import Plan
from lab.study import PlannedStep, Study
from models.lora_recipe import MAX_RANK, Evaluation, LoraRecipe
from models.mistral_base import BASES, load_trained
from models.task_items import TaskSource
from tasks import rank_training
from tasks.fan_out import runner
from tasks.rank_checks import Bounds
from tasks.rank_placing import KINDS, arm_names

NAME = "mechanism"
QUESTION = "Does it help to place LoRA ranks where an audit says they are used?"
PREDICTION = (
    "Placed ranks answer no more items than the same ranks shuffled at equal cost: equivalent within 1 % of "
    "the items. Against it counts a difference detected in either direction."
)
SHOWN_ONLY = {"profile", "looks", "margin", "alpha", "timeout_minutes", "processes", "evaluation_batch"}
"""Fields that the plan has under another name, or that change no number."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What a run of this study can be told; all of it but limits and sizes of batches belongs to the plan."""

    profile: Annotated[Literal["smoke", "fast", "full"], Field(description="Whose plan this is")]
    model: Annotated[str, Field(description="An embedded base, or a directory or hub id of a causal model")]
    data: Annotated[
        str,
        Field(description="word_problems, a folder of train.jsonl and test.jsonl, or a hub id"),
    ]
    looks: Annotated[tuple[int, ...], Field(description="Seeds at each look", min_length=1)]
    first_seed: Annotated[int, Field(description="Seeds count up from it", ge=0)] = 42
    arms: Annotated[tuple[str, ...], Field(description="Controls trained beside probe and placement")] = KINDS
    shuffles: Annotated[int, Field(description="Shuffles within projections, a seed", ge=1, le=32)] = 4
    policy: Annotated[
        Literal["energy_90", "entropy", "hard_threshold", "knee", "stable_rank", "global_sigma"],
        Field(description="How an audit becomes ranks"),
    ] = "energy_90"
    probe_rank: Annotated[int, Field(description="Of every module of the probe", ge=1, le=MAX_RANK)] = 16
    steps: Annotated[int, Field(description="Of every arm", ge=1)] = 400
    batch_size: Annotated[int, Field(description="Items a step", ge=1)] = 32
    micro_batch: Annotated[int | None, Field(description="Items at once; all when none", ge=1)] = 16
    learning_rate: Annotated[float, Field(description="Peak", gt=0, allow_inf_nan=False)] = 5e-3
    scale_rule: Annotated[
        Literal["alpha_is_rank", "rslora", "fixed"], Field(description="s of W + s BA, in every arm")
    ] = "alpha_is_rank"
    lora_alpha: Annotated[float | None, Field(description="Of rslora and fixed", gt=0)] = None
    max_tokens: Annotated[int, Field(description="Longer items are counted and left out", ge=8)] = 512
    precision: Annotated[
        Literal["float32", "bfloat16"], Field(description="Of the frozen base; adapters are float32")
    ] = "float32"
    gradient_checkpointing: Annotated[bool, Field(description="Less memory, a third slower")] = False
    n_train: Annotated[int, Field(description="Items to train on", ge=1)] = 12_800
    n_validation: Annotated[int, Field(description="Items cut from those, for convergence", ge=1)] = 200
    n_test: Annotated[int, Field(description="Items to answer", ge=10)] = 4000
    max_new_tokens: Annotated[int, Field(description="Of an answer", ge=1)] = 32
    evaluation_batch: Annotated[int, Field(description="Items decoded at once", ge=1)] = 256
    least_gain: Annotated[
        float, Field(description="Share of items a probe must answer beyond the base", ge=0, le=1)
    ] = 0.05
    most_fall: Annotated[
        float, Field(description="Fall of validation loss over the last fifth, nats a token", gt=0)
    ] = 0.02
    margin: Annotated[
        float, Field(description="Smallest difference of interest, share of items", gt=0, lt=1)
    ] = 0.01
    non_inferiority: Annotated[
        float, Field(description="Share of items the placement may lose against the probe", gt=0, lt=1)
    ] = 0.025
    alpha: Annotated[float, Field(description="Error over all looks", gt=0, lt=0.5)] = 0.05
    resamples: Annotated[int, Field(description="Of seeds and items", ge=1000, le=100_000)] = 2000
    processes: Annotated[int | None, Field(description="Arms at once; one a core when none", ge=1)] = None
    timeout_minutes: Annotated[float, Field(description="Limit of one arm", gt=0, le=10_000)] = 60.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        strange = [one for one in self.arms if one not in KINDS]
        if strange:
            raise unknown("arm", strange[0], KINDS)
        if "shuffled_within" not in self.arms:
            raise UsageError(f"arms = {self.arms}; shuffled_within decides and must be among them")
        if len(set(self.arms)) < len(self.arms):
            raise UsageError(f"arms = {self.arms}; name each once")
        if (self.lora_alpha is None) != (self.scale_rule == "alpha_is_rank"):
            raise UsageError(
                f"scale_rule = {self.scale_rule!r} with lora_alpha = {self.lora_alpha}; alpha_is_rank takes "
                "none, rslora and fixed need one"
            )
        if self.looks[0] < 2:
            raise UsageError(f"looks = {self.looks}; the seed is the unit, so a look has two or more")
        try:
            recipe(self), evaluation(self), source(self)
        except ValueError as error:
            raise UsageError(str(error)) from error


def recipe(settings: Mechanism) -> LoraRecipe:
    """How every arm is trained."""
    return LoraRecipe(
        steps=settings.steps,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        learning_rate=settings.learning_rate,
        scale_rule=settings.scale_rule,
        alpha=settings.lora_alpha,
        max_tokens=settings.max_tokens,
        gradient_checkpointing=settings.gradient_checkpointing,
        precision=settings.precision,
        checkpoint_every=max(1, settings.steps // 4),
    )


def evaluation(settings: Mechanism) -> Evaluation:
    """How every arm answers."""
    return Evaluation(
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.evaluation_batch,
        precision=settings.precision,
    )


def source(settings: Mechanism) -> TaskSource:
    """Where the items come from."""
    folder = Path(settings.data).expanduser()
    kind: Literal["word_problems", "jsonl"] = "jsonl"
    places = {"train": settings.data, "test": settings.data}
    if settings.data == "word_problems":
        kind, places = "word_problems", {"train": "", "test": ""}
    elif folder.is_dir():
        places = {split: str(folder / f"{split}.jsonl") for split in places}
    return TaskSource(
        kind=kind,
        train=places["train"],
        test=places["test"],
        n_train=settings.n_train,
        n_validation=settings.n_validation,
        n_test=settings.n_test,
        seed=0,
    )


def plan(settings: Mechanism) -> Plan:
    """The plan that a run of these settings follows."""
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=(
            "H0: placed ranks answer as many items as the same ranks shuffled within projections",
            "H1: they answer more, or fewer",
        ),
        primary=("strict",),
        secondary=("flexible", "numeric", "nll_nats_a_token"),
        margin=settings.margin,
        margin_unit="share of items",
        alpha=settings.alpha,
        looks=settings.looks,
        exclusions=("an undertrained probe", "a degenerate control", "an arm without its ranks or budget"),
        design={name: value for name, value in asdict(settings).items() if name not in SHOWN_ONLY},
        gates=GATES,
    )


SMOKE = Mechanism(
    profile="smoke",
    model="arith-mistral",
    data="word_problems",
    looks=(2,),
    arms=("shuffled_within", "shuffled_full", "uniform_equal"),
    shuffles=2,
    steps=108,
    n_train=4_000,
    learning_rate=1e-2,
    n_test=1000,
    timeout_minutes=10.0,
)
FAST = Mechanism(profile="fast", model="arith-mistral", data="word_problems", looks=(8,))
FULL = Mechanism(
    profile="full",
    model="mistralai/Mistral-7B-v0.1",
    data="openai/gsm8k",
    looks=(3, 8),
    probe_rank=64,
    steps=1200,
    batch_size=16,
    micro_batch=4,
    learning_rate=2e-4,
    precision="bfloat16",
    gradient_checkpointing=True,
    n_train=7000,
    n_test=1319,
    max_new_tokens=320,
    evaluation_batch=32,
    processes=1,
    timeout_minutes=600.0,
)
PROFILES: Mapping[str, Mechanism] = {"smoke": SMOKE, "fast": FAST, "full": FULL}


def protocol(settings: Mechanism) -> RankProtocol:
    """What the run needs to know."""
    return RankProtocol(
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        question=QUESTION,
        text=__doc__ or "",
        settings=asdict(settings),
        model=settings.model,
        base_spec=BASES.get(settings.model),
        source=source(settings),
        evaluation=evaluation(settings),
        recipe=recipe(settings),
        first_seed=settings.first_seed,
        arms=settings.arms,
        shuffles=settings.shuffles,
        policy=settings.policy,
        probe_rank=settings.probe_rank,
        bounds=Bounds(least_gain=settings.least_gain, most_fall=settings.most_fall),
        non_inferiority=settings.non_inferiority,
        resamples=settings.resamples,
        processes=settings.processes,
        timeout_seconds=60.0 * settings.timeout_minutes,
    )


def steps(settings: Mechanism, home: Path) -> list[PlannedStep]:
    """The dry run: what there is to train; changes nothing. What an arm is, its probe tells."""
    found = []
    if settings.model in BASES:
        spec = BASES[settings.model]
        here = load_trained(rank_training.base_place(home, spec)) is not None
        ahead = () if here else (rank_training.base_call(home, spec),)
        found.append(PlannedStep(name=f"train {settings.model}", units=1, cached=int(here), ahead=ahead))
    seeds = settings.looks[-1]
    found.append(PlannedStep(name="train and audit probes", units=seeds, cached=0))
    names = arm_names(settings.arms, settings.shuffles)
    found.append(PlannedStep(name="train arms", units=seeds * (len(names) - 1), cached=0))
    found.append(PlannedStep(name="evaluate arms", units=seeds * len(names) + 1, cached=0))
    return found


@flow(
    task_runner=runner(),
    name="mechanism",
    flow_run_name="mechanism · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def mechanism(settings: Mechanism = SMOKE) -> State[dict[str, Any]]:
    """Train probes, audit them, place ranks, train and evaluate every arm, analyse and decide."""
    run = begin(protocol(settings))
    with run.closing():
        run.obtain_base()
        run.walk()
    return Completed(message=run.summary(), data=run.result())


STUDY = Study(
    name=NAME,
    title="Mechanism: LoRA ranks",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=mechanism,
    entrypoint="flows.mechanism.mechanism",
    expected_seconds={"smoke": 260.0, "fast": 2400.0, "full": 36000.0},
    next_flows=("mechanism",),
)
