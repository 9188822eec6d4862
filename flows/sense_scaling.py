"""Does more, harder or enriched data help a head that retrieves texts of the same sense?

Compared are training sets at an equal number of updates: A, a few easy sentences a sense; B, more of them,
some hard, the hard ones drawn more often; C, B with new contexts for senses that have one. Heads of the same
seeds answer the same items about lemmas none was trained on, where query and candidates share no word that
tells the sense. Seeds and lemmas are crossed and are resampled together.

Predictions, fixed before the first run: B gains 2 to 5 points of top1 over A, C gains 5 to 10; the risk is
that B loses on easy items. Against them counts a gain that is not detected, or a loss on tier 1. A condition
ships only if it passes fixed thresholds, beats every scorer that has not learned, and no shortcut works; what
fails is retrained by fixed rules and tested on dev, and if nothing passes, nothing ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.sense_capsule import sense_capsule
from flows.sense_gates import GATES
from flows.sense_heads import heads_here
from flows.sense_protocol import MINER_SEED, SenseProtocol
from flows.sense_run import begin
from lab.errors import UsageError
from lab.plan import Plan
from lab.study import PlannedStep, Study
from models.sense_recipe import HeadRecipe, HeadShape
from models.sense_sources import SenseSource
from models.sense_world import WorldSpec
from tasks.fan_out import runner

NAME = "sense_scaling"
QUESTION = "Does more, harder or enriched data help a head that retrieves texts of the same sense?"
PREDICTION = (
    "B gains 2 to 5 points of top1 over A and C 5 to 10, without a loss on tier 1. Against it counts a gain "
    "that is not detected, or a loss on tier 1 of 2 points or more."
)
SHOWN_ONLY = {"profile", "margin", "alpha", "timeout_minutes", "processes"}
"""Fields that the plan has under another name, or that change no number."""
Group = Literal["oversampling", "factorial", "enrichment", "losses", "phase", "attention"]
GROUPS: tuple[Group, ...] = get_args(Group)
FULL_HEAD_SECONDS = 40 * 60.0
"""Of a head of `full`, as declared by the earlier study; not measured here."""
SEEDS = (42, 123, 456, 1, 2, 3, 4, 5, 6, 7)
"""The three published ones first."""


@dataclass(frozen=True, kw_only=True)
class SenseScaling:
    """What a run of this study can be told; all of it but limits belongs to the plan."""

    profile: Annotated[Literal["smoke", "fast", "full"], Field(description="Whose plan this is")]
    model: Annotated[
        str,
        Field(description="Token states: learned, hashed, or a directory or hub id of a frozen encoder"),
    ] = "learned"
    data: Annotated[
        str, Field(description="Folder of retrieval.jsonl, coherence.jsonl, dev.jsonl; empty: the world's")
    ] = ""
    bundles_a: Annotated[str, Field(description="File of bundles of A; empty: the world's")] = ""
    bundles_b: Annotated[str, Field(description="File of bundles of B")] = ""
    bundles_c: Annotated[str, Field(description="File of bundles of C")] = ""
    seeds: Annotated[tuple[int, ...], Field(description="Of training", min_length=3)] = SEEDS
    curve_seeds: Annotated[int, Field(description="Of them, for the data-scaling curve", ge=3)] = 5
    groups: Annotated[tuple[Group, ...], Field(description="Comparisons beside A, B, C")] = ("oversampling",)
    world_seed: Annotated[int, Field(description="Of the world", ge=0)] = 0
    topics: Annotated[int, Field(description="Of the world", ge=5)] = 40
    train_lemmas: Annotated[int, Field(description="Of the world", ge=10)] = 180
    test_lemmas: Annotated[int, Field(description="Of the world", ge=10)] = 60
    dev_lemmas: Annotated[int, Field(description="Of the world", ge=10)] = 20
    steps: Annotated[int, Field(description="Of training", ge=1)] = 300
    batch: Annotated[int, Field(description="Bundles a step", ge=2)] = 64
    learning_rate: Annotated[float, Field(description="Peak", gt=0, allow_inf_nan=False)] = 2e-3
    temperature: Annotated[float, Field(description="Of InfoNCE", gt=0, allow_inf_nan=False)] = 0.07
    loss: Annotated[Literal["infonce", "triplet", "hinge"], Field(description="Of every arm")] = "infonce"
    hidden: Annotated[int, Field(description="Width of token states", ge=4)] = 64
    target_penalty: Annotated[float, Field(description="Off the lemma's attention score", ge=0)] = 0.0
    max_tokens: Annotated[int, Field(description="Of a text, by an encoder", ge=8)] = 64
    dev_every: Annotated[int, Field(description="Steps between looks at dev", ge=1)] = 50
    patience: Annotated[int, Field(description="Looks without a better state that end it", ge=1)] = 4
    per_sense: Annotated[int, Field(description="Test items a sense and tier", ge=1)] = 2
    per_lemma: Annotated[int, Field(description="Coherence items a lemma and tier", ge=1)] = 2
    dev_per_sense: Annotated[int, Field(description="Dev items a sense and tier", ge=1)] = 4
    top1: Annotated[float, Field(description="Ship blocker", ge=0, le=1)] = 0.30
    top3: Annotated[float, Field(description="Ship blocker", ge=0, le=1)] = 0.50
    coherence: Annotated[float, Field(description="Ship blocker, share of steps", ge=0, le=1)] = 0.80
    tier1_margin: Annotated[float, Field(description="Loss on tier 1 that is allowed", gt=0, lt=1)] = 0.02
    shortcut_margin: Annotated[float, Field(description="Above chance, of a shortcut", gt=0, lt=1)] = 0.05
    raised: Annotated[float, Field(description="Onto verification thresholds, second step", gt=0)] = 0.05
    mislabelled: Annotated[
        float, Field(description="Planted fault: wrong positives of all but A, share", ge=0, le=1)
    ] = 0.0
    margin: Annotated[
        float, Field(description="Smallest difference of interest, share of items", gt=0, lt=1)
    ] = 0.02
    alpha: Annotated[float, Field(description="Of each family", gt=0, lt=0.5)] = 0.05
    processes: Annotated[int | None, Field(description="Heads at once; one a core when none", ge=1)] = None
    timeout_minutes: Annotated[float, Field(description="Limit of one head", gt=0, le=10_000)] = 10.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        if len(set(self.seeds)) < len(self.seeds) or not 0 <= min(self.seeds) <= max(self.seeds) < 2**31:
            raise UsageError(f"seeds = {self.seeds}; name each once, from 0 to 2**31 - 1")
        if MINER_SEED in self.seeds:
            raise UsageError(f"seed {MINER_SEED} is the one that killers are mined with; take another")
        if self.curve_seeds > len(self.seeds):
            raise UsageError(
                f"curve_seeds = {self.curve_seeds} of {len(self.seeds)} seeds; give no more than there are"
            )
        given = [name for name in ("bundles_a", "bundles_b", "bundles_c") if getattr(self, name)]
        if given and len(given) < 3:
            raise UsageError(f"{', '.join(given)} alone; name bundles_a, bundles_b and bundles_c, or none")
        if given and self.groups:
            raise UsageError(
                f"groups = {self.groups} are arms of the world; with bundles of one's own add --set groups=[]"
            )
        try:
            recipe(self), source(self)
        except ValueError as error:
            raise UsageError(str(error)) from error


def recipe(settings: SenseScaling) -> HeadRecipe:
    """How every condition is trained."""
    words = settings.model if settings.model in ("learned", "hashed") else "learned"
    return HeadRecipe(
        steps=settings.steps,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        temperature=settings.temperature,
        loss=settings.loss,
        shape=HeadShape(hidden=settings.hidden, target_penalty=settings.target_penalty),
        lookup="hashed" if words == "hashed" else "learned",
        encoder="" if settings.model in ("learned", "hashed") else settings.model,
        max_tokens=settings.max_tokens,
        dev_every=settings.dev_every,
        patience=settings.patience,
        threshold=settings.top1,
    )


def source(settings: SenseScaling) -> SenseSource:
    """Where the texts come from."""
    files = {"A": settings.bundles_a, "B": settings.bundles_b, "C": settings.bundles_c}
    return SenseSource(
        world=WorldSpec(
            seed=settings.world_seed,
            topics=settings.topics,
            train_lemmas=settings.train_lemmas,
            test_lemmas=settings.test_lemmas,
            dev_lemmas=settings.dev_lemmas,
        ),
        data=str(Path(settings.data).expanduser()) if settings.data else "",
        bundles=tuple((name, str(Path(path).expanduser())) for name, path in files.items() if path),
    )


def plan(settings: SenseScaling) -> Plan:
    """The plan that a run of these settings follows."""
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=(
            "H0: B and A answer as many items",
            "H1: they differ",
            "H0: C and B answer as many items",
            "H1: they differ",
        ),
        primary=("top1",),
        secondary=("top3", "coherence", "attention_entropy"),
        margin=settings.margin,
        margin_unit="share of items",
        alpha=settings.alpha,
        looks=(len(settings.seeds),),
        exclusions=("a shortcut above chance", "a constant or missing scorer", "a collapsed head"),
        design={name: value for name, value in asdict(settings).items() if name not in SHOWN_ONLY},
        gates=GATES,
    )


SMOKE = SenseScaling(profile="smoke", curve_seeds=3)
FAST = SenseScaling(
    profile="fast",
    seeds=(*SEEDS, *range(8, 18)),
    curve_seeds=10,
    groups=GROUPS,
)
FULL = SenseScaling(
    profile="full",
    model="sentence-transformers/all-MiniLM-L6-v2",
    hidden=384,
    groups=(),
    steps=3000,
    dev_every=250,
    timeout_minutes=120.0,
)
PROFILES: Mapping[str, SenseScaling] = {"smoke": SMOKE, "fast": FAST, "full": FULL}


def protocol(settings: SenseScaling) -> SenseProtocol:
    """What the run needs to know."""
    limits = ("top1", "top3", "coherence", "tier1_margin", "shortcut_margin", "alpha")
    return SenseProtocol(
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        question=QUESTION,
        text=__doc__ or "",
        settings=asdict(settings),
        model=settings.model,
        source=source(settings),
        recipe=recipe(settings),
        seeds=settings.seeds,
        curve_seeds=settings.curve_seeds,
        groups=settings.groups,
        per_sense=settings.per_sense,
        per_lemma=settings.per_lemma,
        dev_per_sense=settings.dev_per_sense,
        limits={name: getattr(settings, name) for name in limits},
        raised=settings.raised,
        mislabelled=settings.mislabelled,
        processes=settings.processes,
        timeout_seconds=60.0 * settings.timeout_minutes,
    )


def steps(settings: SenseScaling, home: Path) -> list[PlannedStep]:
    """The dry run: what there is to train; changes nothing."""
    told = protocol(settings)
    cells = told.cells(told.trained())
    try:
        here = heads_here(told, home, cells)
    except ValueError as error:
        raise UsageError(str(error)) from error
    declared = FULL_HEAD_SECONDS if settings.profile == "full" else None
    return [
        PlannedStep(name="score baselines", units=2, cached=0),
        PlannedStep(name="train heads", units=len(cells), cached=here, expected_seconds=declared),
        PlannedStep(name="examine heads", units=2 * len(cells), cached=0),
    ]


@flow(
    task_runner=runner(),
    name="sense-scaling",
    flow_run_name="sense scaling · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def sense_scaling(settings: SenseScaling = SMOKE) -> State[dict[str, Any]]:
    """Audit the items, train and examine every head, compare, judge what may ship, and fall back by rule."""
    run = begin(protocol(settings))
    with run.closing():
        run.walk()
    return Completed(message=run.summary(), data=run.result())


def only(settings: SenseScaling, name: str, folder: str | None) -> Mapping[str, Any]:
    """One head and its capsule, such as `B_seed42`."""
    if folder is None:
        raise UsageError(f"--only {name} writes a capsule: add --out DIR")
    return sense_capsule(protocol(settings), name, folder)


STUDY = Study(
    name=NAME,
    title="Sense scaling: data for a retrieval head",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=sense_scaling,
    entrypoint="flows.sense_scaling.sense_scaling",
    expected_seconds={"smoke": 120.0, "fast": 3000.0, "full": 36000.0},
    next_flows=("sense_scaling",),
    only=only,
    strict_gates=("ship_b", "ship_c"),
)
