"""Is a text a function of the seed's value, and of nothing else that goes with the seed?

The seed study compares sources by their labels; what reaches the sampler is a number. If the chain is what we
think it is, the same value gives the same text whatever source drew it, under whatever label it runs, whether
the model has just been loaded or has answered others, and whether the value is new or read back from the
tape; and another value gives another text. Four parts ask this of one model: same-seed repeats, cold and warm
(all pairs); every source's values under every source's label; seeds from 0..1000 against seeds of the full
range (does the distribution of seeds reach the metrics at all?); and the texts of the tape read anew.

Prediction, fixed before the first run: text follows the value. Same-seed texts agree in at least 99 % of the
pairs, as much across labels as under one; and seeds of a short range write like seeds of the full range, to
0.2 within-cell SD. Against it counts a pair rate surely under 99 %, a value that writes differently under
another label, values that share their text, or a difference between the two ranges.
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

from flows import entropy_seeds, seed_protocol, seed_run
from flows.control_gates import GATES
from flows.seed_run import Run
from lab.errors import UsageError, unknown
from lab.gates import NEXT_LOOK
from lab.plan import Plan
from lab.products import Products
from lab.records import PlanStepRow, Record
from lab.study import PlannedStep, Study
from models.backends import BackendError, Sampling
from models.embedded import RUNGS
from models.opening import refuse_unreadable
from models.prompts import Prompt, select
from tasks import control_analysis, generation, training
from tasks.control_cells import STATES, Batch, ControlDesign, interleave
from tasks.control_generation import generate_cold
from tasks.progress import Progress
from tasks.recording import seed_rows
from tasks.seed_analysis import result_rows
from tasks.seed_cells import Arm, Sample, SeedDesign
from tasks.shell import unwalked

NAME = "entropy_control"
QUESTION = "Does a text follow the value of its seed, and nothing else that goes with the seed?"
PREDICTION = (
    "Text follows the value: same-seed texts agree in at least 99 % of the pairs, across labels as under "
    "one, cold as warm, and seeds from 0..1000 write like seeds of the full range, to 0.2 within-cell SD."
)
PROMPTS = ("creative-1", "creative-4", "philosophical-1", "technical-1", "summarization-1")
"""Three open and two medium prompts: different seeds have room to write different texts."""
SOURCES = ("PRNG", "TRNG", "HMIX")
RANGES = ("FULL", "SHORT")
FAMILY = "control"
"""Tests of the look's texts; those of other families are of the distribution transfer."""


@dataclass(frozen=True, kw_only=True)
class EntropyControl:
    """What a run of this study can be told. Everything but model, backend and samples belongs to the plan."""

    profile: Annotated[Literal["smoke", "laptop", "full"], Field(description="Whose plan this is")]
    model: Annotated[str, Field(description="An embedded rung, an Ollama name, or a hub id", min_length=1)]
    backend: Annotated[Literal["local", "transformers", "ollama"], Field(description="What runs the model")]
    looks: Annotated[
        tuple[int, ...],
        Field(description="Same-seed texts of a value at each look, two or more", min_length=1),
    ]
    samples: Annotated[
        int | None,
        Field(
            description="Stop at this many same-seed texts; outside the looks it is exploratory",
            ge=2,
            le=100_000,
        ),
    ] = None
    transfer_samples: Annotated[int, Field(description="Texts of each prompt and range of seeds", ge=2)]
    prompts: Annotated[tuple[str, ...], Field(description="Ids of the prompts", min_length=2)] = PROMPTS
    seeds_per_source: Annotated[int, Field(description="Values drawn from each source", ge=2)] = 20
    stream: Annotated[int, Field(description="Stream of the deterministic sources", ge=0)] = 42
    temperature: Annotated[float, Field(description="Of every text", gt=0, le=10)] = 0.7
    top_k: Annotated[int, Field(description="Tokens kept, 0 for all", ge=0)] = 50
    top_p: Annotated[float, Field(description="Probability mass kept", gt=0, le=1)] = 0.9
    new_tokens: Annotated[int, Field(description="Tokens a text at most", ge=1)] = 150
    num_ctx: Annotated[int, Field(description="Context window in tokens", ge=16)] = 2048
    think: Annotated[bool | None, Field(description="Whether a thinking model thinks first")] = None
    margin_sd: Annotated[
        float, Field(description="Smallest effect of interest, in within-cell SD", gt=0, allow_inf_nan=False)
    ] = 0.2
    alpha: Annotated[float, Field(description="Error over all looks", gt=0, lt=0.5)] = 0.05
    required_pairs: Annotated[int, Field(description="Same-seed pairs to judge identity by", ge=1)] = 400
    timeout_seconds: Annotated[float, Field(description="Limit on one generation", gt=0, le=86_400)] = 180.0
    host: Annotated[str | None, Field(description="Address of the Ollama server")] = None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        if self.backend == "local" and self.model not in RUNGS:
            raise unknown("embedded model", self.model, RUNGS)
        refuse_unreadable(self.host)
        if min(self.looks, default=2) < 2:
            raise UsageError(f"looks = {self.looks}; a pair takes 2 same-seed texts of a value, or more")
        sampling(self)
        plan(self)


CIRCUMSTANCE = entropy_seeds.CIRCUMSTANCE
"""Settings outside the plan's design."""


def arms(settings: EntropyControl) -> tuple[Arm, ...]:
    """Three sources of values, then the two ranges of seeds, each on a stream of its own."""
    kinds = {
        "PRNG": "prng",
        "TRNG": "trng",
        "HMIX": "hmix",
        "FULL": "prng",
        "SHORT": "short_range",
    }
    apart = {"FULL": 1_000_003, "SHORT": 2_000_003}
    return tuple(
        Arm(
            name=name,
            role="control",
            kind=kinds.get(name, name.lower()),
            streams=(settings.stream + apart.get(name, 0),),
            temperature=settings.temperature,
        )
        for name in (*SOURCES, *RANGES)
    )


def prompts(settings: EntropyControl) -> tuple[Prompt, ...]:
    """The prompts of the settings."""
    return select(settings.prompts)


def sampling(settings: EntropyControl) -> Sampling:
    """Sampling options of every text."""
    return Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        max_new_tokens=settings.new_tokens,
        num_ctx=settings.num_ctx,
        think=settings.think,
    )


def plan(settings: EntropyControl) -> Plan:
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
            "same-seed texts agree, repeated cold and warm, under another label, and from the tape read anew",
            "texts of different values differ",
            "the mean over prompts of each primary metric is the same under seeds of both ranges",
        ),
        primary=entropy_seeds.PRIMARY,
        margin=settings.margin_sd,
        margin_unit="within-cell SD",
        alpha=settings.alpha,
        looks=settings.looks,
        exclusions=("error or timeout", "no words left after stripping", "under 10 words"),
        design=design
        | {
            "arms": [asdict(arm) for arm in arms(settings)],
            "prompts": [prompt.prompt_id for prompt in prompts(settings)],
        },
        gates=GATES,
    )


SMOKE = EntropyControl(
    profile="smoke",
    model="pydoc-0.4m",
    backend="local",
    looks=(2, 3),
    transfer_samples=40,
    new_tokens=60,
    num_ctx=512,
)
LAPTOP = EntropyControl(
    profile="laptop",
    model="qwen3:0.6b",
    backend="ollama",
    looks=(2, 3),
    transfer_samples=265,  # either truth is told with power .8 where prompts do not differ in it
    think=False,
)
FULL = replace(LAPTOP, profile="full", model="distilgpt2", backend="transformers", num_ctx=1024, think=None)
PROFILES: Mapping[str, EntropyControl] = {"smoke": SMOKE, "laptop": LAPTOP, "full": FULL}


def protocol(settings: EntropyControl) -> seed_protocol.Protocol:
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
        arms=tuple(arm for arm in arms(settings) if arm.name in RANGES),
        prompts=prompts(settings),
        sampling=sampling(settings),
        probe_every=2**31,
        diagnostic_draws=0,
        aa_alpha=settings.alpha,
        required_pairs=settings.required_pairs,
        permutations=0,
        samples=settings.samples,
    )


def control_design(settings: EntropyControl, transfer: SeedDesign) -> ControlDesign:
    """Cells and tapes of a model whose digest is known."""
    return ControlDesign(
        transfer=transfer,
        sources=tuple(arm for arm in arms(settings) if arm.name in SOURCES),
        seeds_per_source=settings.seeds_per_source,
        transfer_samples=settings.transfer_samples,
    )


def steps(settings: EntropyControl, home: Path) -> list[PlannedStep]:
    """The dry run: what each step makes and what of it is here; changes nothing."""
    told = protocol(settings)
    found, digest = [], ""
    if told.backend == "local":
        step, digest = training.planned(home, told.model)
        found.append(step)
    design = control_design(settings, seed_protocol.seed_design(told, digest))
    texts, before = Products(home, generation.KIND), 0
    for look in told.looks:
        here = design.transferred(home, before, new=False) if digest else []
        here += design.conditioned(design.read_back(home), before, look, *STATES) if digest else []
        found.append(
            PlannedStep(
                name=f"generate look {look}",
                units=design.count(before, look),
                cached=sum(texts.read(sample.sample_id) is not None for sample in here),
            )
        )
        before = look
    return found


@dataclass(frozen=True, kw_only=True)
class ControlRun:
    """The steps of a look that differ from the seed study's."""

    run: Run
    design: ControlDesign

    def generate(self, look: int) -> list[Sample]:
        """Make a look's texts: cold and warm ones interleaved, then those of the tapes read anew."""
        home, before = self.run.home, max((other for other in self.run.looks if other < look), default=0)
        values = self.design.values(home)
        warm = self.design.conditioned(values, before, look, "warm")
        warm += self.design.transferred(home, before)
        cold = self.design.conditioned(values, before, look, "cold")
        self._record_design(look)
        made = self._make(f"look {look}, texts", self._batches(warm, cold, look, "texts"))
        replayed = self.design.conditioned(self.design.read_back(home), before, look, "replay")
        made += self._make(f"look {look}, tapes read anew", self._batches(replayed, [], look, "replay"))
        return made

    def _batches(self, warm: list[Sample], cold: list[Sample], look: int, what: str) -> list[Batch]:
        seed = ["order", NAME, what, self.run.protocol.model, look]
        rows = generation.BATCH[self.run.protocol.backend]
        return interleave(warm, cold, rows=rows, seed=seed, start=len(self.run.samples))

    def _record_design(self, look: int) -> None:
        """The seeds on the tapes and the cells of every condition."""
        run, rows = self.run, list[Record]()
        for arm in (*self.design.sources, *self.design.transfer.arms):
            tape = self.design.tape(run.home, arm)
            place = tape.path.relative_to(run.home)
            rows += seed_rows(place, arm.name, arm.streams[0], tape.recorded())
        for cell in self.design.every_cell():
            known: dict[str, Any] = {"config": cell.config, "code": self.design.transfer.code}
            rows.append(run.step("cell", arm=cell.arm.name, seed=cell.stream, step_id=cell.step_id, **known))
            rows.append(PlanStepRow(plan_hash=run.row.plan_hash, step_id=cell.step_id))
        run.record(f"seeds and cells of look {look}", rows)

    def _make(self, what: str, batches: list[Batch]) -> list[Sample]:
        """Make what is missing, batch by batch, recording each; returns the texts in their order."""
        samples = [sample for batch in batches for sample in batch.samples]
        self.run.samples += samples
        progress = Progress(what, len(samples))
        progress.start()
        for i, batch in enumerate(batches, start=1):
            made = self._make_batch(f"{what}, batch {i} of {len(batches)}", batch)
            progress.advance(len(batch.samples), made=made)
        return samples

    def _make_batch(self, what: str, batch: Batch) -> int:
        run, part = self.run, batch.samples
        assert run.model is not None
        missing = generation.missing(run.home, part)
        task = generate_cold if batch.cold else generation.generate
        try:
            found = task(str(run.home), what, run.model, unwalked(part), generation.batch_key(part))
        except BackendError as error:
            run.failures |= generation.refused(part, error.reason)
            run.record_texts(what, part)
            raise
        run.failures |= found["failures"]
        run.record_texts(what, part)
        return len(missing)

    def analyse(self, look: int) -> None:
        """Put all texts so far to the four parts of the question."""
        run, told = self.run, self.run.protocol
        question = control_analysis.Question(
            conditions=self.design.conditions,
            primary=told.plan.primary,
            margin_sd=told.plan.margin,
            alpha=told.plan.alpha,
            required_pairs=told.required_pairs,
            seed=look,
        )
        key = control_analysis.analysis_key(run.measured, question)
        control_analysis.analyse(
            str(run.home),
            f"look {look}",
            unwalked(run.samples),
            unwalked(run.measured),
            unwalked(question),
            key,
        )
        run.analysis = key
        body = Products(run.home, control_analysis.KIND).read(key)
        config = {"look": look, "model_digest": run.digest, "measured": run.measured}
        step = run.step("analyse", step_id=key, config=config, code=control_analysis.analysis_code())
        rows: list[Record] = [step, PlanStepRow(plan_hash=run.row.plan_hash, step_id=key)]
        for row in result_rows(body, step_id=key, study=NAME, model=told.model, look=look):
            is_transfer = row.family != FAMILY  # whose samples a cell all come at the first look
            rows.append(replace(row, look=self.design.transfer_samples) if is_transfer else row)
        run.record(f"tests of look {look}", rows)


@flow(
    name="entropy-control",
    flow_run_name="entropy control · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def entropy_control(settings: EntropyControl = SMOKE) -> State[dict[str, Any]]:
    """Generate, measure, analyse and decide; more same-seed texts only while the gate asks for them."""
    run = seed_run.begin(protocol(settings))
    with run.closing():
        run.obtain_model()
        control = ControlRun(run=run, design=control_design(settings, run.design))
        for look in run.looks:
            run.measure(look, control.generate(look))
            control.analyse(look)
            if run.decide(look) != NEXT_LOOK:
                break
    return Completed(message=run.summary(), data=run.result())


STUDY = Study(
    name=NAME,
    title="Entropy: control",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=entropy_control,
    entrypoint="flows.entropy_control.entropy_control",
    expected_seconds={"smoke": 120.0, "laptop": 10_800.0, "full": 10_800.0},
    next_flows=("entropy_ladder", "direct_injection"),
)
