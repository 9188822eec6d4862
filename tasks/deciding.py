"""Gates at work: one read of the store a gate; the decision is recorded with its evidence and shown."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from prefect import runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from lab.fingerprint import canonical, fingerprint
from lab.gates import Evidence, Gate, GateError, Ruling, explain, rule_on, rule_text
from lab.mermaid_tree import mermaid_tree
from lab.records import DecisionRow
from lab.store import Store, StoreLockedError
from lab.tables import utc_now

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 30.0
"""With a store that another program holds when all is said."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a study stands when it asks its gates."""

    study: str
    profile: str
    model: str
    plan_hash: str
    run_id: str
    exploratory: bool
    analysis: str
    """Step id of the analysis whose rows the gates read."""
    look: int
    look_index: int
    """1 at the first look."""
    looks_left: int
    previous: str = ""
    """The model before this one on a ladder, if it was measured."""


def walk(home: str, gates: Sequence[Gate], standing: Standing) -> list[DecisionRow]:
    """Ask the gates from the first on, following their routes until one leads out of the tree."""
    by_name = {gate.name: gate for gate in gates}
    path: list[DecisionRow] = []
    name = gates[0].name
    while name in by_name:
        if any(decision.gate == name for decision in path):
            raise GateError(f"gate {name} is asked twice at one look; its routes go round in a circle")
        path.append(decide(home, by_name[name], standing))
        name = path[-1].next
    return path


@task(
    name="decide",
    task_run_name="gate {gate.name}, {standing.model}, look {standing.look}",
    cache_policy=NO_CACHE,
)
def decide(home: str, gate: Gate, standing: Standing) -> DecisionRow:
    """Ask one gate, record what it says and show it."""
    store = Store(Path(home))
    evidence, parameters, launched = ask(store, gate, standing)
    ruling = rule_on(gate, evidence, last_look=standing.looks_left == 0)
    row = decision_row(gate, standing, evidence, parameters, ruling)
    row = replace(row, launched_flow_run_id=launched)
    store.record([row], drain=False)
    _show(gate, row, evidence)
    flag = " (exploratory)" if row.exploratory else ""
    logger.info("%s: %s%s. %s", gate.name, row.verdict, flag, row.sentence)
    return row


def ask(store: Store, gate: Gate, standing: Standing) -> tuple[Evidence, dict[str, object], str | None]:
    """The one row of evidence, the query's parameters, and the run launched when this was asked before."""
    known = {name: getattr(standing, name) for name in standing.__dataclass_fields__}
    used = sorted(set(re.findall(r"\$([a-z_]+)", gate.sql)))
    unknown = [name for name in used if name not in known]
    if unknown:
        raise GateError(f"gate {gate.name} asks for ${unknown[0]}; known: {', '.join(known)}")
    parameters = {name: known[name] for name in used}
    launched = "SELECT launched_flow_run_id FROM decision WHERE decision_id = $id"
    found, before = store.read_all([(gate.sql, parameters), (launched, {"id": decision_id(gate, standing)})])
    rows = found.to_dicts()
    if len(rows) != 1:
        raise GateError(
            f"gate {gate.name}: its query returned {len(rows)} rows; one row of evidence is needed"
        )
    return rows[0], parameters, None if before.is_empty() else before.item()


def decision_id(gate: Gate, standing: Standing) -> str:
    """What a decision is filed under.

    Asking again gives the same. Another rule of stopping, or a run that departs from its plan, gives another:
    it does not overwrite what was decided under the plan.
    """
    asked_of = [standing.plan_hash, gate.name, standing.model, standing.look, standing.analysis]
    return fingerprint([*asked_of, standing.looks_left, standing.exploratory])


def decision_row(
    gate: Gate,
    standing: Standing,
    evidence: Evidence,
    parameters: Mapping[str, object],
    ruling: Ruling,
) -> DecisionRow:
    """The decision with everything needed to compute it again, and the run and time of this asking."""
    flow_run = runtime.flow_run.id
    return DecisionRow(
        decision_id=decision_id(gate, standing),
        study=standing.study,
        profile=standing.profile,
        model=standing.model,
        gate=gate.name,
        look=standing.look,
        plan_hash=standing.plan_hash,
        run_id=standing.run_id,
        question=gate.question,
        verdict=ruling.verdict,
        exploratory=standing.exploratory,
        negligible=ruling.negligible,
        evidence=canonical(evidence),
        sql=gate.sql,
        parameters=canonical(parameters),
        rule=rule_text(gate),
        sentence=ruling.sentence,
        next=ruling.next,
        next_parameters=canonical(ruling.parameters),
        flow_run_id=None if flow_run is None else str(flow_run),
        launched_flow_run_id=None,
        decided_at=utc_now(),
    )


def _show(gate: Gate, row: DecisionRow, evidence: Evidence) -> None:
    """A table of the evidence and a page with verdict, rule, branch and query in the Prefect UI."""
    key = re.sub(r"[^a-z0-9]+", "-", f"{row.study}-{gate.name}".lower())
    create_table_artifact(
        key=f"{key}-evidence",
        table=[{"evidence": name, "value": _text(value)} for name, value in evidence.items()],
        description=f"{gate.question} {row.verdict} at look {row.look} ({row.model})",
    )
    said = f"{row.verdict} at look {row.look} ({row.model})"
    create_markdown_artifact(key=key, markdown=markdown(gate, row, evidence), description=said)


def show_path(home: Path, path: Sequence[DecisionRow]) -> None:
    """The whole path as one page of the run: every gate at every look, the last one first; then its trees."""
    lines = []
    for (model, look), rows in groupby(reversed(path), key=lambda row: (row.model, row.look)):
        lines.append(f"## {model}, look {look}")
        for row in rows:
            flag = " (exploratory)" if row.exploratory else ""
            lines.append(f"- **{row.verdict}**{flag} `{row.gate}`: {row.sentence}. Next: {row.next}")
    last = path[-1]
    create_markdown_artifact(
        key=re.sub(r"[^a-z0-9]+", "-", f"{last.study}-verdicts".lower()),
        markdown="\n".join([*lines, "## The way through the gates", *_trees(home, path)]),
        description=f"{last.gate}: {last.verdict} at look {last.look} ({last.model}). Next: {last.next}.",
    )


def _trees(home: Path, path: Sequence[DecisionRow]) -> list[str]:
    """Each model's way through its plan's gates, drawn; why not, where another program holds the store."""
    try:
        plans = Store(home).read("SELECT plan_hash, text FROM plan", wait_seconds=PATIENCE_SECONDS)
    except StoreLockedError as error:  # the run is over and its row written
        return [f"Not drawn: {error}"]
    texts = dict(plans.iter_rows())
    lines = []
    for model in dict.fromkeys(row.model for row in path):
        rows = [row for row in path if row.model == model]
        gates = json.loads(texts[rows[-1].plan_hash])["gates"]
        lines += [f"### {model}", f"```mermaid\n{mermaid_tree(gates, [vars(row) for row in rows])}\n```"]
    return lines


def markdown(gate: Gate, row: DecisionRow, evidence: Evidence) -> str:
    """The decision as a person reads it."""
    flags = [name for name in ("exploratory", "negligible") if getattr(row, name)]
    lines = [
        f"# {row.verdict}{' · ' + ', '.join(flags) if flags else ''}",
        f"**{gate.question}**",
        f"{row.sentence}.",
        f"Model {row.model}, look {row.look}. Next: **{row.next}**.",
        "| evidence | value |\n| --- | --- |\n"
        + "\n".join(f"| {name} | {_text(value)} |" for name, value in evidence.items()),
        "| verdict | leads to |\n| --- | --- |\n" + "\n".join(_routes(gate, row)),
        "```\n" + "\n".join(explain(gate.rules, gate.min_n, evidence)) + "\n```",
        f"```sql\n{gate.sql.strip()}\n```",
        f"`ladder gates {row.study} --why {row.decision_id}` computes it again.",
    ]
    return "\n\n".join(lines)


def _routes(gate: Gate, row: DecisionRow) -> list[str]:
    taken = f"| **{row.verdict}** | **{row.next}** |"
    return [
        taken if verdict == row.verdict else f"| {verdict} | {route.next} |"
        for verdict, route in gate.routes.items()
    ]


def _text(value: object) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
