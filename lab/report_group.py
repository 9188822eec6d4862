"""One part of the report: a study, profile, model and plan, with what was asked of the store for it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lab import report_queries as queries
from lab.drawings import Drawings
from lab.gates import leads_to
from lab.report_markup import Row
from lab.report_units import Units, units_of
from lab.still import Source, Still


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query as it was put and what it returned."""

    sql: str
    """Parameters written in."""
    frame: pl.DataFrame
    drawings: Drawings | None = None
    """Where figures of the answer are kept; None draws each anew."""

    @property
    def rows(self) -> list[dict[str, object]]:
        """The answer, a mapping a row."""
        return self.frame.to_dicts()


@dataclass(frozen=True, kw_only=True)
class Group:
    """Everything of one study, profile, model and plan hangs together: it was decided together."""

    study: str
    profile: str
    model: str
    plan_hash: str
    is_declared: bool | None
    """Whether the plan is the declared one; None when the store does not have it."""
    question: str
    plan: Mapping[str, object]
    """The plan's JSON; empty when the store does not have it."""
    gates: Sequence[Mapping[str, object]]
    path: Sequence[Row]
    """Decisions in order."""
    path_sql: str
    verdicts: Mapping[tuple[str, int], Row]
    """(family, look) -> the row that concludes it."""
    has_namesakes: bool = False
    """Whether another plan of this study, profile and model is in the report too."""

    @property
    def name(self) -> str:
        """Id on the page."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.study}-{self.model}-{self.plan_hash}")

    @property
    def family(self) -> str:
        """The family of the question: that of the sources' means, else the one of the tree's last gate."""
        concluded = {family for family, _ in self.verdicts}
        if "seed_effect" in concluded or not self.gates:
            return "seed_effect"
        return str(self.gates[-1]["name"])

    @property
    def units(self) -> Units:
        """What its looks and its effects are counted in."""
        return units_of(self.plan.get("margin_unit"))

    @property
    def parameters(self) -> dict[str, object]:
        """Values for the queries."""
        return {"study": self.study, "model": self.model, "plan": self.plan_hash, "family": self.family}

    def numbers(self, decision: Row) -> dict[str, object]:
        """What a decision rests on: the row that concludes its family at that look, then its evidence."""
        evidence = json.loads(str(decision["evidence"]))
        row = self.verdicts.get((str(decision["gate"]), int(str(decision["look"]))), {})
        found = dict(evidence) if isinstance(evidence, dict) else {}
        return found | {key: value for key, value in row.items() if value is not None}

    def queries(self, decision: Row) -> list[str]:
        """What `numbers` comes from, parameters written in: the gate's own query, the row of its family."""
        parameters = json.loads(str(decision["parameters"]))
        asked = [queries.written_in(str(decision["gate_sql"]), parameters)]
        gate, look = str(decision["gate"]), int(str(decision["look"]))
        if (gate, look) in self.verdicts:
            keys = {**self.parameters, "family": gate, "look": look}
            asked.append(queries.written_in(queries.VERDICT_ROW, keys))
        else:
            asked.append(queries.written_in(queries.LOOK, {"id": str(decision["decision_id"])}))
        return asked

    @property
    def standing(self) -> list[Row]:
        """The last decision of every gate: the study's answer first, or the newest where there is none."""
        if not self.path:
            return []
        last = {str(step["gate"]): step for step in self.path}
        answers = [
            last[name] for gate in self.gates if gate.get("is_primary") and (name := gate["name"]) in last
        ]
        first = answers[-1] if answers else self.path[-1]
        return [first, *(step for step in last.values() if step is not first)]

    @property
    def outcome(self) -> str:
        """What comes next, in words."""
        if not self.path:
            return "no gate was asked yet"
        return leads_to(self.path, {str(gate["name"]) for gate in self.gates})


def ask(store: Source, sql: str, parameters: Mapping[str, object] | None = None) -> Asked:
    """Put a query with those parameters that it names."""
    used = {name: v for name, v in (parameters or {}).items() if re.search(rf"\${name}\b", sql)}
    drawings = store.drawings if isinstance(store, Still) else None
    frame = store.read(sql, used or None)
    return Asked(sql=queries.written_in(sql, used), frame=frame, drawings=drawings)


def read_groups(store: Source) -> list[Group]:
    """Every study, profile, model and plan that a run or a decision names."""
    rows = ask(store, queries.GROUPS).rows
    named = Counter((row["study"], row["profile"], row["model"]) for row in rows)
    return [_group(store, row, named[row["study"], row["profile"], row["model"]] > 1) for row in rows]


def _group(store: Source, row: Row, has_namesakes: bool) -> Group:
    keys = {"study": row["study"], "model": row["model"], "plan": row["plan_hash"]}
    path = ask(store, queries.PATH, keys)
    plan = json.loads(str(row["plan"])) if row["plan"] is not None else {}
    verdicts = ask(store, queries.VERDICT_ROWS, keys).rows
    frozen = row["frozen"]
    return Group(
        study=str(row["study"]),
        profile=str(row["profile"]),
        model=str(row["model"]),
        plan_hash=str(row["plan_hash"]),
        is_declared=frozen if isinstance(frozen, bool) else None,
        question=str(row["question"] or plan.get("question", "")),
        plan=plan,
        gates=plan.get("gates", []),
        path=path.rows,
        path_sql=path.sql,
        verdicts={(str(v["family"]), int(str(v["look"]))): v for v in verdicts},
        has_namesakes=has_namesakes,
    )
