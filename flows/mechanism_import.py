"""Do accuracies of an earlier rank study bear what was concluded from their means?

A file gives one accuracy a seed for a probe, for ranks placed by its audit and for shuffles of them. Compared
are seeds, as in `mechanism`: sign flips and Student's interval for every contrast the file has the arms of,
and beside them the earlier rule with both effect sizes it may have meant. A plan is frozen for each file, by
its content, before its analysis; but the data came first, so every decision is exploratory. The earlier
study's shuffle is over all modules, at another cost: it can tell no scenario, `mechanism` measures what can.

Prediction, fixed before the first import: a file of three seeds settles nothing, since their sign flips reach
p = .25 at the least. Against it counts one whose interval lies inside the margin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import import_run
from flows.run_row import publish, told
from lab.earlier_placements import EarlierPlacements, read_placements
from lab.gates import STOP, Comparison, Gate, Route, Rule
from lab.home import resolve_home
from lab.plan import Plan
from lab.products import Products
from lab.records import DecisionRow, Record
from tasks import importing_placements as importing
from tasks.imported_steps import answers
from tasks.recording import record
from tasks.shell import unwalked

NAME = "mechanism_import"
QUESTION = "Do accuracies of an earlier rank study bear what was concluded from their means?"
PREDICTION = (
    "A file of three seeds settles nothing, since their sign flips reach p = .25 at the least. Against it "
    "counts one whose interval lies inside the margin."
)
_FOUND = (
    "placed minus shuffled ranks ({contrast}), {n} seeds: {size}; {settles}; by the earlier rule "
    "{earlier_rule}. Scenario {scenario}: {told}"
)

GATE = Gate(
    name=importing.FAMILY,
    question="Do placed ranks answer more items than the shuffled ranks of the file?",
    sql="""
WITH answer AS (
    SELECT * FROM test WHERE step_id = $analysis AND study = $study AND model = $model
)
SELECT max(verdict) FILTER (role = 'verdict') AS tested,
       coalesce(bool_or(negligible) FILTER (role = 'verdict'), false) AS negligible,
       max(contrast) FILTER (role = 'verdict') AS contrast,
       max(estimate) FILTER (role = 'verdict') AS estimate, max(low) FILTER (role = 'verdict') AS low,
       max(high) FILTER (role = 'verdict') AS high, max(p) FILTER (role = 'verdict') AS p,
       max(p_adjusted) FILTER (role = 'verdict') AS p_adjusted, max(mde) FILTER (role = 'verdict') AS mde,
       coalesce(
           max(format('{:+.4f} of the items [{:+.4f}, {:+.4f}], sign-flip p = {:.3g}',
                      estimate, low, high, p)) FILTER (role = 'verdict'),
           max(format('{:+.4f} of the items, no interval', estimate)) FILTER (role = 'verdict'),
           'no estimate'
       ) AS size,
       coalesce(max(n) FILTER (role = 'verdict'), 0) AS n,
       coalesce('about ' || max(n_to_settle) FILTER (role = 'verdict') || ' seeds would settle it',
                max(reason) FILTER (role = 'verdict'),
                'no number of seeds is known to settle it') AS settles,
       max(reason) FILTER (hypothesis = 'legacy_scenario') AS earlier_rule,
       max(contrast) FILTER (hypothesis = 'scenario') AS scenario,
       max(reason) FILTER (hypothesis = 'scenario') AS told
FROM answer
""",
    min_n=2,
    rules=tuple(
        Rule(verdict=verdict, when=(Comparison(left="tested", op="==", right=found),))
        for verdict, found in (
            ("INVALID", None),
            ("INVALID", "INVALID"),
            ("DETECTED", "DETECTED"),
            ("EQUIVALENT", "EQUIVALENT"),
        )
    ),
    routes={
        "INVALID": Route(next=STOP, sentence="there is no analysis to ask"),
        "DETECTED": Route(next="mechanism", sentence=_FOUND),
        "EQUIVALENT": Route(next=STOP, sentence=f"no difference beyond the margin; {_FOUND}"),
        "INCONCLUSIVE": Route(next="mechanism", sentence=_FOUND),
    },
)
GATES = (GATE,)


def profile(file: EarlierPlacements) -> str:
    """Format and content: what a file's plan is frozen under."""
    return f"placements-{file.sha256[:8]}"


def plan(file: EarlierPlacements, model: str) -> Plan:
    """The plan of a file; the same content has the same plan."""
    return Plan(
        study=NAME,
        profile=profile(file),
        question=QUESTION,
        prediction=PREDICTION,
        hypotheses=("placed ranks answer as many items as the shuffled ranks of the file",),
        primary=("accuracy",),
        margin=importing.MARGIN,
        margin_unit="share of items",
        alpha=importing.ALPHA,
        looks=(len(file.seeds),),
        design={
            "imported": file.sha256,
            "format": "placements",
            "model": model,
            "seeds": list(file.seeds),
            "variants": list(file.compressed),
        },
        gates=GATES,
    )


@flow(
    name="mechanism-import",
    flow_run_name="mechanism import",
    description=QUESTION,
    validate_parameters=True,
)
def mechanism_import(files: list[str]) -> State[dict[str, Any]]:
    """Read every file, and only then record, analyse and decide, file by file."""
    found = {file.sha256: file for file in [read_placements(Path(name)) for name in files]}
    home = resolve_home()
    parts = [import_file(home, file) for file in found.values()]
    publish(home)
    message = "; ".join(f"{part['model']}: {part['decisions'][-1]['verdict']}" for part in parts)
    return Completed(message=message, data={"study": NAME, "parts": parts})


def import_file(home: Path, file: EarlierPlacements) -> dict[str, Any]:
    """Freeze the file's plan, record its accuracies, analyse them and ask the gate."""
    model = import_run.model_name(home, NAME, profile(file), file.model or file.path.stem)
    used, key = plan(file, model), importing.analysis_key(file)
    owner, rows = import_run.begin(home, used, model=model, question=QUESTION, text=__doc__ or "")
    record(str(home), f"accuracies of {model}", unwalked([*rows, *importing.given_rows(owner, file, key)]))

    def analyse() -> list[Record]:
        importing.analyse_placements(str(home), model, unwalked(file), key)
        body = Products(home, importing.KIND).read(key)
        return [*answers(owner, body["tests"], key, len(file.seeds))]

    path = import_run.decide(home, used, owner, path=file.path, key=key, analyse=analyse)
    return _told(file, model, path, Products(home, importing.KIND).read(key)["shown"])


def _told(
    file: EarlierPlacements, model: str, path: list[DecisionRow], shown: dict[str, Any]
) -> dict[str, Any]:
    """A file and what was decided about it, as plain data."""
    return {
        "file": str(file.path),
        "format": "placements",
        "model": model,
        "seeds": list(file.seeds),
        "variants": importing.variants_shown(file),
        "contradictions": list(file.contradictions),
        "not_read": list(file.unread),
        **shown,
        "decisions": told(path),
    }
