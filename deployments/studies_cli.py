"""Commands that concern a study: run, gates, freeze. Importing this imports Prefect and every study."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from deployments import terminal
from deployments.settings import settings_for
from deployments.temporary_server import TemporaryServer, wait_ready
from deployments.visible import tell
from flows.nano_work import RunFailedError
from flows.registry import find_study, studies
from lab import fresh, runs
from lab.errors import UsageError, WorkError
from lab.fingerprint import canonical, fingerprint
from lab.gates import STOP, Gate, GateError, explain, judge, leads_to, read_rule
from lab.plan import freeze, read_declared
from lab.report_units import units_of
from lab.store import Store
from lab.study import Study
from lab.tables import utc_now
from models.backends import BackendError, ModelMissing
from models.entropy import TapeError

logger = logging.getLogger(__name__)


def run_study(
    home: Path,
    name: str,
    profile: str,
    assignments: Sequence[str],
    *,
    server: TemporaryServer | None,
    as_json: bool,
    strict: bool = False,
    anew: bool = False,
) -> int:
    """Run a study in this process, anew if asked; returns the exit code.

    3 where the study's question has no answer, whatever the reason, a failed part included; else 1 where a
    part failed or `strict` is not satisfied; else 0.
    """
    study = find_study(name)
    if strict and not study.strict_gates:
        raise UsageError(f"{study.name} has no ship blockers; leave out --strict")
    settings = settings_for(study, profile, assignments)
    wait_ready(server)
    terminal.say(f"{study.title} · {settings.model} · {profile} · {study.question}", stream=sys.stderr)
    try:
        with _working(home, [study.name, profile, *assignments], anew=anew):
            result = study.flow(settings=settings)
    except RunFailedError as error:  # a part gave no result; the verdicts of the rest stand
        result = error.result
    except TapeError as error:
        raise UsageError(str(error)) from error
    except (BackendError, GateError, TimeoutError, WorkError) as error:
        tell(f"ladder: {type(error).__name__}: {error}", file=sys.stderr)
        tell("Nothing is lost; the same command goes on where it stopped.", file=sys.stderr)
        return 2 if isinstance(error, ModelMissing) else 1
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        for (model, look), rows in groupby(result["concluding"], key=itemgetter("model", "look")):
            where = f" at {look} {units_of(study.plan(settings).margin_unit).look}" if look else ""
            tell(f"\nVerdicts{where}, {model}:")
            terminal.print_decisions(list(rows))
        tell(f"Next: {leads_to(result['decisions'], {gate.name for gate in study.gates})}")
    failed = result.get("failed", [])
    for line in failed:
        tell(f"ladder: {line}", file=sys.stderr)
    if failed:
        tell("Nothing is lost; the same command goes on where it stopped.", file=sys.stderr)
    if is_invalid(study, result):
        return 3
    return 1 if failed or (strict and _is_blocked(study, result)) else 0


@contextmanager
def _working(home: Path, asked: Sequence[str], *, anew: bool) -> Iterator[None]:
    """Show progress; where the work is to be done anew, let nothing count that was there before it began.

    Raises
    ------
    UsageError
        Something else is at work in the home: it may need what would go.
    """
    if not anew:
        with terminal.progress():
            yield
        return
    refuse_at_work(home, "--fresh")
    with fresh.begun(home, fingerprint(asked)) as earlier, terminal.progress():
        if earlier is not None:
            tell(f"Goes on with what was begun anew at {earlier:%Y-%m-%d %H:%M} UTC.", file=sys.stderr)
        yield


def refuse_at_work(home: Path, what: str) -> None:
    """Nothing, unless a run or a night is at work in the home.

    Raises
    ------
    UsageError
        One is; it is named.
    """
    found = runs.at_work(Store(home))
    if found:
        raise UsageError(f"{what} waits for nobody, and there is {'; '.join(found)}: let it end, or stop it")


def _is_blocked(study: Study, result: Mapping[str, Any]) -> bool:
    """Whether a gate that `--strict` asks for was not DETECTED, or never asked; said on stderr."""
    passed = {row["gate"] for row in result["concluding"] if row["verdict"] == "DETECTED"}
    blocked = [gate for gate in study.strict_gates if gate not in passed]
    if blocked:
        tell(f"ladder: not passed: {', '.join(blocked)}", file=sys.stderr)
    return bool(blocked)


def run_part(
    home: Path,
    name: str,
    profile: str,
    assignments: Sequence[str],
    part: str,
    out: Path | None,
    *,
    server: TemporaryServer | None,
    as_json: bool,
    strict: bool,
    anew: bool = False,
) -> int:
    """Run one part of a study alone and write it to a folder; returns the exit code.

    1 where some of its work failed, or it did not pass and `strict` asks for that. No gate is asked, so a
    part alone has no 3.
    """
    study = find_study(name)
    if study.only is None:
        having = [one.name for one in studies().values() if one.only is not None]
        raise UsageError(f"{study.name} has no parts to run alone; studies that have: {', '.join(having)}")
    settings = settings_for(study, profile, assignments)
    wait_ready(server)
    try:
        with _working(home, [study.name, profile, *assignments, "only", part], anew=anew):
            told = study.only(settings, part, None if out is None else str(out))
    except (BackendError, GateError, TimeoutError, WorkError) as error:
        tell(f"ladder: {type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ModelMissing) else 1
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        tell("\n".join(told["lines"]))
    failed = told.get("failed", [])
    if failed:
        tell(f"ladder: {len(failed)} without a result", file=sys.stderr)
        tell("Nothing is lost; the same command goes on where it stopped.", file=sys.stderr)
    return 1 if failed or (strict and not told["passed"]) else 0


def is_invalid(study: Study, result: Mapping[str, Any]) -> bool:
    """Whether the study's question has no answer: its gate is INVALID, or the tree stopped before it."""
    answers = [row for row in result["concluding"] if row["gate"] == study.primary_gate]
    if answers:
        return bool(answers[-1]["verdict"] == "INVALID")
    return bool(result["decisions"][-1]["next"] == STOP)


PATH = """
SELECT decision_id, profile, model, look, gate, verdict, exploratory, negligible, sentence, next
FROM decision_path WHERE study = $study ORDER BY profile, model, plan_hash, position
"""
COUNTED_IN = """
SELECT any_value(json_extract_string(text, '$.margin_unit')) AS margin_unit FROM plan WHERE study = $study
"""
DECIDED = "SELECT DISTINCT study FROM decision ORDER BY study"


def _tree(name: str) -> tuple[str, tuple[Gate, ...]]:
    """Name and gates of a study, or of imported results, which come by `ladder import` and not by a run."""
    from flows import disparity_import, entropy_import, mechanism_import  # a run needs none of them

    for imported in (entropy_import, disparity_import, mechanism_import):
        if name.replace("-", "_") == imported.NAME:
            return imported.NAME, imported.GATES
    study = find_study(name)
    return study.name, study.gates


def show_gates(home: Path, name: str | None, *, as_json: bool) -> None:
    """The tree, then the path taken by every model; without a name every path taken."""
    if name is None:
        _show_every_path(Store(home), as_json=as_json)
        return
    study, gates = _tree(name)
    path = Store(home).read(PATH, {"study": study}).to_dicts()
    if as_json:
        print(json.dumps(path, indent=1))
        return
    for gate in gates:
        terminal.say(f"{gate.name}: {gate.question}")
        for verdict, route in gate.routes.items():
            last = f" (at the last look: {route.at_last_look})" if route.at_last_look else ""
            terminal.say(f"  {verdict:<13} -> {route.next}{last}", " " * 19)
    if not path:
        tell("\nNo decision yet.")
    _print_path(path, _look_unit(Store(home), study))


def _look_unit(store: Store, study: str) -> str:
    """What a look of the study is a number of."""
    return units_of(store.read(COUNTED_IN, {"study": study}).item()).look


def _show_every_path(store: Store, *, as_json: bool) -> None:
    names = store.read(DECIDED)["study"].to_list()
    paths = {name: store.read(PATH, {"study": name}).to_dicts() for name in names}
    if as_json:
        print(json.dumps(paths, indent=1))
        return
    for name, path in paths.items():
        tell(f"{name}: its tree is shown by `ladder gates {name}`")
        _print_path(path, _look_unit(store, name))
    if not paths:
        tell("No decision yet.")


def _print_path(path: Sequence[Mapping[str, Any]], look_unit: str) -> None:
    place = None
    for row in path:
        here = (row["profile"], row["model"], row["look"])
        if here != place:
            tell(f"\n{row['model']} · {row['profile']} · {row['look']} {look_unit}")
            place = here
        terminal.print_decisions([row])
        tell(f"{'':<{terminal.VERDICT_WIDTH}}id {row['decision_id']}, next: {row['next']}")


def explain_decision(home: Path, name: str, decision_id: str, *, as_json: bool = False) -> int:
    """Compute a stored decision again from its stored evidence; 1 when it comes out otherwise."""
    study, _ = _tree(name)
    sql = "SELECT * FROM decision WHERE study = $study AND starts_with(decision_id, $id)"
    found = Store(home).read(sql, {"study": study, "id": decision_id}).to_dicts()
    if len(found) != 1:
        known = Store(home).read(PATH, {"study": study})["decision_id"].to_list()
        what = (
            f"no decision {decision_id!r}"
            if not found
            else f"{len(found)} decisions begin with {decision_id!r}"
        )
        raise UsageError(f"{what} of {study}; allowed: {', '.join(known) or 'none yet'}")
    row = found[0]
    evidence = json.loads(row["evidence"])
    rules, min_n = read_rule(row["rule"])
    again = judge(rules, min_n, evidence)
    same = again == row["verdict"]
    if as_json:
        told = {name: value for name, value in row.items() if name not in ("evidence", "rule", "parameters")}
        told |= {name: json.loads(row[name]) for name in ("evidence", "rule", "parameters")}
        told |= {"computed_again": again, "explained": list(explain(rules, min_n, evidence))}
        print(json.dumps(told, indent=1, default=str))
        return 0 if same else 1
    when = f"{row['decided_at']:%Y-%m-%d %H:%M} UTC"
    tell(f"{row['gate']} · {row['model']} · look {row['look']} · decided {when}")
    terminal.say(str(row["question"]))
    terminal.say(f"{row['verdict']}: {row['sentence']}.")
    tell("\nEvidence:")
    for key, value in evidence.items():
        terminal.say(f"  {key:<14} {canonical(value)}", " " * 17)
    tell("\nRule:")
    for line in explain(rules, min_n, evidence):
        terminal.say(f"  {line}")
    tell(f"\nQuery, with {row['parameters']}:\n{row['sql'].strip()}\n")
    tell(f"Computed again: {again}, {'the same' if same else 'NOT what was recorded'}. Next: {row['next']}.")
    return 0 if same else 1


def freeze_plan(home: Path, name: str, profile: str, assignments: Sequence[str]) -> None:
    """Freeze the plan of these settings."""
    study = find_study(name)
    plan = study.plan(settings_for(study, profile, assignments))
    before = read_declared(home, study.name, profile)
    declared = freeze(home, plan, now=utc_now())
    if before is not None and before.plan_hash == declared.plan_hash:
        since = f"{before.frozen_at:%Y-%m-%d %H:%M} UTC"
        tell(f"{study.name}/{profile}: plan {declared.plan_hash} is frozen since {since}")
    else:
        was = f", in place of {before.plan_hash}" if before else ""
        tell(f"{study.name}/{profile}: froze plan {declared.plan_hash}{was}")
