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

import json
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.run_row import closing, open_row, publish, told
from lab.earlier_perplexities import EarlierPerplexities, read_perplexities
from lab.gates import IMPOSSIBLE, STOP, Comparison, Gate, Route, Rule
from lab.home import resolve_home
from lab.machine import environment
from lab.plan import Plan, deviations, freeze, plan_hash, plan_row, read_declared
from lab.products import Products
from lab.records import DecisionRow, StudyRow
from lab.store import Store
from lab.tables import utc_now
from tasks import importing_perplexities as importing
from tasks.deciding import Standing, walk
from tasks.importing_perplexities import PerplexityPlace
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


def model_name(home: Path, file: EarlierPerplexities) -> str:
    """What the file calls its model, else its own name; content known under a name keeps the first one."""
    known = read_declared(home, NAME, profile(file))
    if known is not None:
        return str(json.loads(known.text)["design"]["model"])
    return file.model or file.path.stem


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
    now, model = utc_now(), model_name(home, file)
    used = plan(file, model)
    declared = read_declared(home, used.study, used.profile) or freeze(home, used, now=now)
    here = environment(device="cpu")
    place = PerplexityPlace(
        study=NAME,
        model=model,
        plan_hash=plan_hash(used),
        environment_id=here.environment_id,
        file=file,
    )
    key = importing.analysis_key(file)
    study = StudyRow(study=NAME, question=QUESTION, text=__doc__ or "")
    departs = deviations(used, declared)
    rows = [study, plan_row(used, declared, now=now), here, *departs, *importing.given_rows(place, key)]
    record(str(home), f"perplexities of {model}", unwalked(rows))
    path = _decide(home, used, place, key)
    return _told(place, path, Products(home, importing.KIND).read(key)["shown"])


def _decide(home: Path, used: Plan, place: PerplexityPlace, key: str) -> list[DecisionRow]:
    row = open_row(
        used,
        model=place.model,
        settings={"file": str(place.file.path)},
        environment_id=place.environment_id,
        exploratory=True,  # the data came before the plan
        now=utc_now(),
    )
    standing = Standing(
        study=NAME,
        profile=used.profile,
        model=place.model,
        plan_hash=place.plan_hash,
        run_id=row.run_id,
        exploratory=True,
        analysis=key,
        look=importing.LOOK,
        look_index=1,
        looks_left=0,
    )
    path: list[DecisionRow] = []
    Store(home).record([row])
    with closing(home, row, path, GATE.name):
        importing.analyse_perplexities(str(home), place.model, unwalked(place.file), key)
        body = Products(home, importing.KIND).read(key)
        record(str(home), f"tests of {place.model}", unwalked(importing.answer_rows(place, body, key)))
        path += walk(str(home), used.gates, standing)
    return path


def _told(place: PerplexityPlace, path: list[DecisionRow], shown: dict[str, Any]) -> dict[str, Any]:
    """A file and what was decided about it, as plain data."""
    file = place.file
    return {
        "file": str(file.path),
        "format": "perplexities",
        "model": place.model,
        "languages": len(file.perplexities),
        "tiers": dict(file.tiers),
        "not_read": list(file.unread),
        **shown,
        "decisions": told(path),
    }
