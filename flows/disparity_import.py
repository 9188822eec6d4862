"""Do perplexities of an earlier script bear a disparity between low- and high-resource languages?

A file gives one perplexity a language before and after quantising. Compared are the earlier work's view, the
ratio of mean percentages with its word, and the gap in nats a token of the same numbers, with the language as
unit. A plan is frozen for each file, by its content, before its analysis; but the data came first, so every
decision is exploratory, and none can be more than INCONCLUSIVE: there are no sentences, no null run and no
check for collapse, and tokens are unequal across languages. `int4_disparity` measures what is missing.

Prediction, fixed before the first import: ratios above 50 come with a high-resource mean of a few percent or
less, or from one language. Against it counts a file with such a ratio where neither holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import import_run
from flows.run_row import publish, told
from lab.earlier_perplexities import EarlierPerplexities, read_perplexities
from lab.gates import IMPOSSIBLE, STOP, Comparison, Gate, Route, Rule
from lab.home import resolve_home
from lab.plan import Plan
from lab.products import Products
from lab.records import DecisionRow, Record
from tasks import importing_perplexities as importing
from tasks.imported_steps import answers
from tasks.recording import record
from tasks.shell import unwalked

NAME = "disparity_import"
QUESTION = "Do perplexities of an earlier script bear a disparity between low- and high-resource languages?"
PREDICTION = (
    "Ratios above 50 come with a high-resource mean of a few percent or less, or from one language. Against "
    "it counts a file with such a ratio where neither holds."
)

GATE = Gate(
    name=importing.FAMILY,
    question="What do the perplexities say, as a ratio of percentages and as a gap in nats a token?",
    sql="""
SELECT max(verdict) FILTER (role = 'verdict') AS tested,
       max(estimate) FILTER (hypothesis = 'degradation_ratio') AS ratio,
       max(coalesce(format('{:.4g}, ', estimate) || regexp_extract(method, ': (.*)$', 1), reason))
           FILTER (hypothesis = 'degradation_ratio') AS legacy,
       max(estimate) FILTER (role = 'verdict') AS gap, max(low) FILTER (role = 'verdict') AS low,
       max(high) FILTER (role = 'verdict') AS high,
       coalesce(max(format('[{:+.3f}, {:+.3f}]', low, high)) FILTER (role = 'verdict'),
                'no interval') AS ends,
       max(p) FILTER (role = 'verdict') AS p,
       coalesce(max(n) FILTER (role = 'verdict'), 0) AS n, max(reason) FILTER (role = 'verdict') AS missing
FROM test WHERE step_id = $analysis AND study = $study AND model = $model
""",
    min_n=2,
    rules=(Rule(verdict="INVALID", when=(Comparison(left="tested", op="==", right=None),)),),
    routes={
        "INVALID": Route(next=STOP, sentence="there is no analysis to ask"),
        "DETECTED": Route(next=IMPOSSIBLE, sentence=""),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence=""),
        "INCONCLUSIVE": Route(
            next="int4_disparity",
            sentence="legacy ratio {legacy}; gap {gap:+.3f} nats a token, {ends}, permutation p = {p:.3g} "
            "over {n} languages; {missing}",
        ),
    },
)
GATES = (GATE,)


def profile(file: EarlierPerplexities) -> str:
    """Format and content: what a file's plan is frozen under."""
    return f"perplexities-{file.sha256[:8]}"


def plan(file: EarlierPerplexities, model: str) -> Plan:
    """The plan of a file; the same content has the same plan."""
    return Plan(
        study=NAME,
        profile=profile(file),
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=("the mean of ln(PPL_q / PPL_0) is the same in low- and high-resource languages",),
        primary=("nats_per_token",),
        secondary=("perplexity",),
        margin=importing.MARGIN_NATS,
        margin_unit="nats a token",
        alpha=importing.ALPHA,
        looks=(importing.LOOK,),
        design={
            "imported": file.sha256,
            "format": "perplexities",
            "model": model,
            "tiers": dict(file.tiers),
            "tiers_told_by_the_file": file.told,
            "most_it_can_say": "INCONCLUSIVE",
        },
        gates=GATES,
    )


@flow(
    name="disparity-import",
    flow_run_name="disparity import",
    description=QUESTION,
    validate_parameters=True,
)
def disparity_import(files: list[str]) -> State[dict[str, Any]]:
    """Read every file, and only then record, analyse and decide, file by file."""
    found = {file.sha256: file for file in [read_perplexities(Path(name)) for name in files]}
    home = resolve_home()
    parts = [import_file(home, file) for file in found.values()]
    publish(home)
    message = "; ".join(f"{part['model']}: {part['decisions'][-1]['verdict']}" for part in parts)
    return Completed(message=message, data={"study": NAME, "parts": parts})


def import_file(home: Path, file: EarlierPerplexities) -> dict[str, Any]:
    """Freeze the file's plan, record its perplexities, analyse them and ask the gate."""
    model = import_run.model_name(home, NAME, profile(file), file.model or file.path.stem)
    used, key = plan(file, model), importing.analysis_key(file)
    owner, rows = import_run.begin(home, used, model=model, question=QUESTION, text=__doc__ or "")
    record(
        str(home),
        f"perplexities of {model}",
        unwalked([*rows, *importing.given_rows(owner, file, key)]),
    )

    def analyse() -> list[Record]:
        importing.analyse_perplexities(str(home), model, unwalked(file), key)
        body = Products(home, importing.KIND).read(key)
        return [*answers(owner, body["tests"], key, importing.LOOK)]

    path = import_run.decide(home, used, owner, path=file.path, key=key, analyse=analyse)
    return _told(file, model, path, Products(home, importing.KIND).read(key)["shown"])


def _told(
    file: EarlierPerplexities, model: str, path: list[DecisionRow], shown: dict[str, Any]
) -> dict[str, Any]:
    """A file and what was decided about it, as plain data."""
    return {
        "file": str(file.path),
        "format": "perplexities",
        "model": model,
        "languages": len(file.perplexities),
        "tiers": dict(file.tiers),
        "not_read": list(file.unread),
        **shown,
        "decisions": told(path),
    }
