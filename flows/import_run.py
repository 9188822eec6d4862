"""What the import of a file and the run of a study have in common: a frozen plan, a run's row, a walk.

The plan is frozen for the file's content before its analysis; but the data came first, so every decision is
exploratory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.run_row import closing, open_row
from lab.machine import environment
from lab.plan import Plan, deviations, freeze, plan_hash, plan_row, read_declared
from lab.records import DecisionRow, Record, StudyRow
from lab.store import Store
from lab.tables import utc_now
from tasks.deciding import Standing, walk
from tasks.imported_steps import Owner
from tasks.recording import record
from tasks.shell import unwalked


def model_name(home: Path, study: str, profile: str, otherwise: str) -> str:
    """The name under which this content was imported first, else the one given."""
    known = read_declared(home, study, profile)
    return otherwise if known is None else str(json.loads(known.text)["design"]["model"])


def begin(home: Path, used: Plan, *, model: str, question: str, text: str) -> tuple[Owner, list[Record]]:
    """Freeze the plan of a file unless it is; what the file's rows belong to, and the rows of that."""
    now = utc_now()
    declared = read_declared(home, used.study, used.profile) or freeze(home, used, now=now)
    here = environment(device="cpu")
    owner = Owner(
        study=used.study, model=model, plan_hash=plan_hash(used), environment_id=here.environment_id
    )
    study = StudyRow(study=used.study, question=question, text=text)
    return owner, [study, plan_row(used, declared, now=now), here, *deviations(used, declared)]


def decide(
    home: Path, used: Plan, owner: Owner, *, path: Path, key: str, analyse: Callable[[], Sequence[Record]]
) -> list[DecisionRow]:
    """Open a run, analyse, record the answers and ask the gates; returns the decisions in order.

    Parameters
    ----------
    path
        Of the file.
    key
        Step id of the analysis.
    analyse
        Returns the rows of the answers.
    """
    row = open_row(
        used,
        model=owner.model,
        settings={"file": str(path)},
        environment_id=owner.environment_id,
        exploratory=True,
        now=utc_now(),
    )
    standing = Standing(
        study=used.study,
        profile=used.profile,
        model=owner.model,
        plan_hash=owner.plan_hash,
        run_id=row.run_id,
        exploratory=True,
        analysis=key,
        look=used.looks[-1],
        look_index=1,
        looks_left=0,
    )
    taken: list[DecisionRow] = []
    Store(home).record([row])
    with closing(home, row, taken, used.gates[-1].name):
        record(str(home), f"tests of {owner.model}", unwalked(analyse()))
        taken += walk(str(home), used.gates, standing)
    return taken
