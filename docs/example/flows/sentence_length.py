"""Does a help topic of Python end with a longer sentence than it begins with?

Each topic of the language reference gives a pair: words of its first and of its last sentence. Prediction:
last sentences are longer by two words or more. Against it counts a mean difference within two words of
nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows import run_row
from flows.step_work import StepBook
from lab.fingerprint import code
from lab.gates import IMPOSSIBLE, STOP, Comparison, Gate, Route, Rule
from lab.plan import Plan
from lab.products import Products
from lab.records import DecisionRow, MetricRow, TestResultRow
from lab.study import PlannedStep, Study
from tasks import sentence_length as work
from tasks.deciding import Standing, walk

NAME = "sentence_length"
QUESTION = "Does a help topic of Python end with a longer sentence than it begins with?"
PREDICTION = "Last sentences are longer by two words or more."

LONGER = Gate(
    name="longer",
    is_primary=True,
    question=QUESTION,
    sql="""
    SELECT any_value(verdict) AS tested, max(estimate) AS estimate, max(low) AS low, max(high) AS high,
           coalesce(max(n), 0) AS n
    FROM test WHERE step_id = $analysis
    """,
    min_n=20,
    rules=(
        Rule(verdict="DETECTED", when=(Comparison(left="tested", op="==", right="DETECTED"),)),
        Rule(verdict="EQUIVALENT", when=(Comparison(left="tested", op="==", right="EQUIVALENT"),)),
    ),
    routes={
        "INVALID": Route(next=IMPOSSIBLE, sentence=""),
        "DETECTED": Route(next=STOP, sentence="the last is {estimate:+.1f} [{low:+.1f}, {high:+.1f}] words"),
        "EQUIVALENT": Route(next=STOP, sentence="both are of a length, {n} topics"),
        "INCONCLUSIVE": Route(next=STOP, sentence="{n} topics do not say: {low:+.1f} to {high:+.1f} words"),
    },
)


@dataclass(frozen=True, kw_only=True)
class SentenceLength:
    """What a run can be told; the descriptions are the help of `ladder run` and of the form in the UI."""

    profile: str = "smoke"
    topics: Annotated[int, Field(description="Compared, in the order of their names", ge=2)] = 100
    margin: Annotated[float, Field(description="Smallest difference of interest, words", gt=0)] = 2.0
    alpha: Annotated[float, Field(description="Level", gt=0, lt=0.5)] = 0.05
    model: str = "none"


PROFILES = {"smoke": SentenceLength(), "full": SentenceLength(profile="full", topics=10_000)}


def plan(settings: SentenceLength) -> Plan:
    """What is fixed before the first run; a run that departs from it is exploratory."""
    return Plan(
        study=NAME,
        profile=settings.profile,
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=("the last sentence has as many words as the first",),
        primary=("words",),
        margin=settings.margin,
        margin_unit="words",
        alpha=settings.alpha,
        looks=(settings.topics,),
        exclusions=("topics of one sentence",),
        design={},
        gates=(LONGER,),
    )


def asked(settings: SentenceLength) -> work.Asked:
    """The comparison's part of the settings."""
    return work.Asked(topics=settings.topics, margin=settings.margin, alpha=settings.alpha)


def steps(settings: SentenceLength, home: Path) -> list[PlannedStep]:
    """The dry run."""
    made = Products(home, work.KIND).read(work.analysis_key(asked(settings))) is not None
    return [PlannedStep(name="compare sentences", units=1, cached=int(made))]


@flow(
    name="sentence-length",
    flow_run_name="sentence length · {settings.profile}",
    description=QUESTION,
    validate_parameters=True,
)
def sentence_length(settings: SentenceLength = PROFILES["smoke"]) -> State[dict[str, Any]]:
    """Measure, compare, record, decide."""
    declared = plan(settings)
    opened = run_row.open_run(
        declared,
        plan(PROFILES[settings.profile]),
        question=QUESTION,
        text=__doc__ or "",
        model=settings.model,
        settings=asdict(settings),
    )
    path: list[DecisionRow] = []
    with run_row.closing(opened.home, opened.row, path, LONGER.name):
        key = work.analysis_key(asked(settings))
        work.compare_sentences(str(opened.home), asked(settings), key)
        found = Products(opened.home, work.KIND).read(key)
        book = StepBook(opened=opened, study=NAME, model=settings.model, code=code(*work.CODE))
        book.record(
            "sentence lengths",
            [
                book.step(key, "compare", None, None, config=asked(settings)),
                book.planned(key),
                *(
                    MetricRow(step_id=key, unit=f"topic/{i}", name=name, value=value, reason=None)
                    for i, pair in enumerate(found["words"])
                    for name, value in zip(("first words", "last words"), pair, strict=True)
                ),
                *(
                    TestResultRow(step_id=key, study=NAME, model=settings.model, look=settings.topics, **row)
                    for row in found["rows"]
                ),
            ],
        )
        standing = Standing(
            study=NAME,
            profile=settings.profile,
            model=settings.model,
            plan_hash=opened.row.plan_hash,
            run_id=opened.row.run_id,
            exploratory=opened.row.exploratory,
            analysis=key,
            look=settings.topics,
            look_index=1,
            looks_left=0,
        )
        path += walk(str(opened.home), declared.gates, standing)
    return Completed(message=run_row.summary(path), data=run_row.result(opened.row, settings.model, path))


STUDY = Study(
    name=NAME,
    title="Sentence length",
    question=QUESTION,
    prediction=PREDICTION,
    profiles=PROFILES,
    gates=(LONGER,),
    plan=plan,
    steps=steps,
    flow=sentence_length,
    entrypoint="flows.sentence_length.sentence_length",
    expected_seconds={"smoke": 1.0, "full": 1.0},
    next_flows=(),
)
