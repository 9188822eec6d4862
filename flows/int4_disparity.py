"""Does INT4 cost some languages more than others, and what protects them?

A quantised model loses bits on every sentence. Compared is what it loses on the same aligned sentences in
low- and in high-resource languages: the gap between the two means, in bits an aligned sentence, with the
language as unit. Around it: what keeping some weights saves against keeping as many random ones, which
blocks carry the damage, and whether other architectures show the same.

Prediction, fixed before the first run: low-resource languages lose more, which a permutation of the labels
over languages must detect. Against it counts a gap detected below zero, or one inside 1 bit a sentence.
An earlier study spoke of a ratio of 52.47: it divided percentages of exponentials; that ratio is computed
beside the gap, so that both can be seen. A null counts only if the model is better than a unigram model in
every language, bfloat16 changes nothing, INT8 nearly nothing and INT2 much.
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

from flows.int4_experiments import EXPERIMENTS, RESEARCH_QUESTIONS
from flows.quant_corpora import corpus_source, language_table, refuse_corpus
from flows.quant_gates import GATES
from flows.quant_protocol import QuantProtocol, replicates
from flows.quant_run import begin
from lab.errors import UsageError, unknown
from lab.plan import Plan
from lab.products import Products
from lab.study import PlannedStep, Study
from models.corpus import Language
from models.multilingual import MODELS, load_trained, spec_of
from models.quant_spec import LEGACY, CalibrationMix, Preservation, QuantSpec, Selector
from models.variants import Variant
from tasks import quant_measuring, quant_training
from tasks.fan_out import runner
from tasks.quant_measured import refuse_unreachable

NAME = "int4_disparity"
QUESTION = "Does INT4 cost some languages more than others, and what protects them?"
PREDICTION = (
    "Low-resource languages lose more bits an aligned sentence. Against it counts a gap detected below zero, "
    "or one inside 1 bit."
)
SECONDARY = ("relative", "bits_per_byte", "premium_bits_per_byte", "bits_per_character", "nats_per_token")


@dataclass(frozen=True, kw_only=True)
class Int4Disparity:
    """What a run of this study can be told; all of it but the time limit belongs to the plan.

    The models do too, unlike those of a ladder: the experiments of one plan are read together.
    """

    profile: Annotated[Literal["smoke", "full"], Field(description="Whose plan this is")]
    model: Annotated[str, Field(description="Of experiments A to C: an embedded model or a hub id")]
    transfer: Annotated[tuple[str, str], Field(description="Models of D-001 and D-002")]
    corpus: Annotated[
        str, Field(description="cldr, a folder of aligned files, or flores, flores+, udhr from the hub")
    ]
    split: Annotated[str, Field(description="Of a corpus from the hub; its own when empty")] = ""
    revision: Annotated[str | None, Field(description="Of a corpus from the hub")] = None
    calibration_corpus: Annotated[
        str,
        Field(
            description="Texts to calibrate on and to fit unigram models on: c4, opus-100 or a folder; "
            "sentences of the corpus that are not evaluated when empty"
        ),
    ] = ""
    languages_file: Annotated[
        str, Field(description="Languages and tiers as JSON; languages.json of a folder when empty")
    ] = ""
    languages: Annotated[tuple[str, ...], Field(description="Codes; all of the table when empty")] = ()
    looks: Annotated[tuple[int, ...], Field(description="Aligned sentences at each look", min_length=1)]
    replicates: Annotated[
        int, Field(description="Training seeds of embedded models, folds of sentences of others", ge=1, le=20)
    ] = 2
    bits: Annotated[Literal[4], Field(description="Width in question")] = 4
    group_size: Annotated[int, Field(description="Weights that share a scale", ge=1)] = 128
    symmetric: Annotated[bool, Field(description="Without zero points")] = False
    scale_rule: Annotated[Literal["absmax", "mse", "hqq"], Field(description="How scales are set")] = "absmax"
    codebook: Annotated[Literal["integer", "nf4"], Field(description="Levels of a code")] = "integer"
    budgets: Annotated[
        tuple[float, float, float], Field(description="Percent of weights kept in B-001 to B-003")
    ] = (5.0, 10.0, 20.0)
    selector: Annotated[
        Literal["magnitude", "activation", "hessian"], Field(description="Whose weights are kept in B")
    ] = "activation"
    selectors: Annotated[
        tuple[Literal["magnitude", "activation", "hessian"], ...],
        Field(description="Others, for the Pareto table"),
    ] = ("magnitude", "hessian")
    keep_blocks: Annotated[int, Field(description="Blocks kept in C-002", ge=1)] = 1
    calibration: Annotated[int, Field(description="Calibration texts of each language", ge=1)] = 16
    margin_bits: Annotated[
        float,
        Field(description="Smallest gap of interest, bits an aligned sentence", gt=0, allow_inf_nan=False),
    ] = 1.0
    alpha: Annotated[float, Field(description="Error over all looks", gt=0, lt=0.5)] = 0.05
    resamples: Annotated[int, Field(description="Of documents", ge=2000, le=100_000)] = 2000
    every_experiment: Annotated[
        bool, Field(description="Run also the experiments that no gate led to; exploratory")
    ] = False
    timeout_minutes: Annotated[
        float, Field(description="Limit of each experiment's work on a model", gt=0, le=10_000)
    ] = 60.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, before anything runs."""
        for name in (self.model, *self.transfer):
            if name.startswith("cldr-") and name not in MODELS:
                raise unknown("embedded model", name, MODELS)
        if len(set(self.budgets)) < len(self.budgets) or not all(0.0 < b < 100.0 for b in self.budgets):
            raise UsageError(f"budgets = {self.budgets}; allowed: three different ones, above 0, below 100")
        if len({kept_name("", budget) for budget in self.budgets}) < len(self.budgets):
            raise UsageError(f"budgets = {self.budgets}; two of them have the same name to six digits")
        if len({self.selector, *self.selectors}) <= len(self.selectors):
            raise UsageError(
                f"selectors = {self.selectors} beside selector = {self.selector}; name each once"
            )
        if list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 16:
            raise UsageError(f"looks = {self.looks}; allowed: rising numbers of sentences, from 16")
        refuse_corpus(self.corpus, self.split)
        table, stated = language_table(self.corpus, self.languages_file, model=self.model)
        known = {one.code for one in table}
        strange = [code for code in self.languages if code not in known]
        if strange:
            raise unknown("language", strange[0], known)
        try:
            refuse_unreachable(chosen_languages(self), self.looks, self.alpha)
        except UsageError as error:
            raise UsageError(f"{stated}: {error}" if stated else str(error)) from error


def chosen_languages(settings: Int4Disparity) -> tuple[Language, ...]:
    """The rows of the language table that are compared."""
    table, _ = language_table(settings.corpus, settings.languages_file, model=settings.model)
    return tuple(one for one in table if not settings.languages or one.code in settings.languages)


def main_spec(settings: Int4Disparity) -> QuantSpec:
    """The rounding in question."""
    return QuantSpec(
        bits=settings.bits,
        granularity="group",
        group_size=settings.group_size,
        symmetric=settings.symmetric,
        scale_rule=settings.scale_rule,
        codebook=settings.codebook,
    )


def variants(settings: Int4Disparity) -> dict[str, dict[str, Variant]]:
    """Experiment -> name -> what is evaluated for it."""
    main = main_spec(settings)
    widths = {
        "bf16": Variant(spec=QuantSpec(bits=16), compared=True),
        "int8": Variant(spec=replace(main, bits=8, codebook="integer"), compared=True),
        "int4": Variant(spec=main, compared=True),
        "int2": Variant(spec=replace(main, bits=2, codebook="integer"), compared=True),
        "legacy": Variant(spec=LEGACY, compared=True),
        "fp32 again": Variant(compared=True),
    }
    kept = {
        f"B-00{place}": {
            kept_name(selector, percent): Variant(
                spec=main, preservation=Preservation(selector=selector, percent=percent)
            )
            for selector in all_selectors(settings)
        }
        for place, percent in enumerate(settings.budgets, start=1)
    }
    plain = {"fp32": Variant()}
    return {"A-001": plain, "A-002": widths, **kept, "D-001": plain | widths, "D-002": plain | widths}


def all_selectors(settings: Int4Disparity) -> tuple[Selector, ...]:
    """The one in question, its control, and the others."""
    return (settings.selector, "random", *settings.selectors)


def kept_name(selector: str, percent: float) -> str:
    """Name of a variant that keeps some weights."""
    return f"{selector} {percent:g} %"


def plan(settings: Int4Disparity) -> Plan:
    """The plan that a run of these settings follows."""
    circumstances = {"profile", "looks", "margin_bits", "alpha", "timeout_minutes"}
    design = {name: value for name, value in asdict(settings).items() if name not in circumstances}
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=tuple(f"{one.id}: {one.question}" for one in EXPERIMENTS),
        primary=("delta_bits_per_sentence",),
        secondary=(
            "relative",
            "bits_per_byte",
            "premium_bits_per_byte",
            "bits_per_character",
            "nats_per_token",
        ),
        margin=settings.margin_bits,
        margin_unit="bits an aligned sentence",
        alpha=settings.alpha,
        looks=settings.looks,
        exclusions=("a language whose loss is no number", "a collapsed model"),
        design=design
        | {
            "languages": [asdict(one) for one in chosen_languages(settings)],
            "experiments": [asdict(one) for one in EXPERIMENTS],
            "research_questions": [{"id": k, "question": v} for k, v in RESEARCH_QUESTIONS.items()],
        },
        gates=GATES,
    )


SMOKE = Int4Disparity(
    profile="smoke",
    model="cldr-gpt2",
    transfer=("cldr-opt", "cldr-gpt_neox"),
    corpus="cldr",
    looks=(96, 192),
    calibration=16,
    every_experiment=True,
    timeout_minutes=10.0,
)
FULL = Int4Disparity(
    profile="full",
    model="gpt2",
    transfer=("facebook/opt-125m", "EleutherAI/pythia-160m"),
    corpus="flores",
    looks=(400, 800),
    calibration=64,
    keep_blocks=3,
)
PROFILES: Mapping[str, Int4Disparity] = {"smoke": SMOKE, "full": FULL}


def protocol(settings: Int4Disparity) -> QuantProtocol:
    """What the run needs to know."""
    languages = chosen_languages(settings)
    codes = tuple(one.code for one in languages)
    budgets = [f"B-00{place}" for place in range(1, len(settings.budgets) + 1)]
    kept = tuple((percent, kept_name(settings.selector, percent)) for percent in settings.budgets)
    return QuantProtocol(
        plan=plan(settings),
        default=plan(PROFILES[settings.profile]),
        question=QUESTION,
        text=__doc__ or "",
        settings=asdict(settings),
        model=settings.model,
        transfer=dict(zip(("D-001", "D-002"), settings.transfer, strict=True)),
        replicates=settings.replicates,
        languages=languages,
        source=corpus_source(
            settings.corpus,
            codes,
            split=settings.split,
            revision=settings.revision,
            others=settings.calibration_corpus,
        ),
        mix=CalibrationMix(texts=tuple((code, settings.calibration) for code in codes)),
        main=main_spec(settings),
        variants=variants(settings),
        pairs={
            name: (f"keep {percent:g} %", kept_name("random", percent), treated)
            for name, (percent, treated) in zip(budgets, kept, strict=True)
        },
        kept=kept,
        keep_blocks=settings.keep_blocks,
        resamples=settings.resamples,
        timeout_seconds=60.0 * settings.timeout_minutes,
        every_experiment=settings.every_experiment,
    )


def steps(settings: Int4Disparity, home: Path) -> list[PlannedStep]:
    """The dry run: models to train and variants to evaluate; changes nothing."""
    found: list[PlannedStep] = []
    for name in dict.fromkeys((settings.model, *settings.transfer)):
        if name not in MODELS:
            continue
        specs = [spec_of(name, seed) for seed in range(settings.replicates)]
        lacking = [spec for spec in specs if load_trained(quant_training.place(home, spec)) is None]
        found.append(
            PlannedStep(
                name=f"train {name}",
                units=len(specs),
                cached=len(specs) - len(lacking),
                ahead=tuple(quant_training.training_call(home, spec) for spec in lacking),
            )
        )
    at = protocol(settings)
    for experiment, asked in at.variants.items():
        found.append(
            PlannedStep(
                name=f"evaluate {experiment}",
                units=len(asked) * len(replicates(at.model_of(experiment), settings.replicates)),
                cached=_measured(at, home, experiment),
            )
        )
    return found


def _measured(at: QuantProtocol, home: Path, experiment: str) -> int:
    """How many evaluations of an experiment at the first look are here; of hub models none is counted."""
    products, here = Products(home, quant_measuring.EVALUATION), 0
    for one in replicates(at.model_of(experiment), at.replicates):
        trained = None
        if one.folds is None:
            trained = load_trained(quant_training.place(home, spec_of(one.model, one.number)))
        if trained is None:
            continue
        subject = quant_measuring.Subject(
            where=str(trained.directory),
            digest=trained.digest,
            source=at.source_at(at.plan.looks[0]),
            mix=at.mix,
        )
        wanted = at.variants[experiment].values()
        here += sum(products.read(subject.key(variant)) is not None for variant in wanted)
    return here


@flow(
    task_runner=runner(),
    name="int4-disparity",
    flow_run_name="int4 disparity · {settings.model} · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def int4_disparity(settings: Int4Disparity = SMOKE) -> State[dict[str, Any]]:
    """Train, evaluate, analyse and decide, gate by gate, until one leads out of the tree."""
    run = begin(protocol(settings))
    with run.closing():
        run.obtain_models()
        run.walk()
    return Completed(message=run.summary(), data=run.result())


STUDY = Study(
    name=NAME,
    title="Quantisation: INT4 disparity",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=GATES,
    plan=plan,
    steps=steps,
    flow=int4_disparity,
    entrypoint="flows.int4_disparity.int4_disparity",
    expected_seconds={"smoke": 240.0, "full": 28_800.0},
    next_flows=(),
)
