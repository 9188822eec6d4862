"""The parts of a study's section: figures beside their query, tables, exclusions, deviations, environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Protocol

from lab import report_mechanism, report_nano, report_quantisation, report_sense
from lab import report_queries as queries
from lab.report_figures import side_by_side
from lab.report_glance import decision_path, title
from lab.report_group import Asked, Group, ask
from lab.report_markup import (
    Column,
    Row,
    badge,
    column,
    effect,
    folded,
    interval,
    number,
    p_value,
    percent,
    seconds,
    sql,
    table,
    text,
)
from lab.report_tests import effects_table, omnibus_table, other_families
from lab.still import Source


class OwnParts(Protocol):
    """A module that knows what the section of its kind of study says."""

    STEPS: str
    """Query of the steps and what they took."""

    def is_about(self, group: Group) -> bool:
        """Whether the group is of this kind."""

    def answers(self, asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
        """What comes before the decision path; heading and content."""

    def parts(self, asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
        """What the answers rest on."""


OWN: tuple[OwnParts, ...] = (report_quantisation, report_sense, report_nano, report_mechanism)
"""Studies other than those of seeds."""


def study_section(store: Source, group: Group) -> str:
    """Everything about one study, profile, model and plan."""

    def asked(query: str) -> Asked:
        return ask(store, query, group.parameters)

    parts = _parts(asked, group)
    body = "".join(f"<h3>{head}</h3>{content}" for head, content in parts if content)
    return f'<section id="{group.name}"><h2>{title(group)}</h2>{_plan(group)}{body}</section>'


def _parts(asked: Callable[[str], Asked], group: Group) -> list[tuple[str, str]]:
    """Heading and content of every part."""
    for own in OWN:
        if own.is_about(group):
            return [
                *own.answers(asked),
                ("Decision path", decision_path(group)),
                *own.parts(asked),
                ("Deviations from the plan", _deviations(asked, group)),
                ("Runs and environment", _runs(asked, own.STEPS)),
            ]
    return _of_seeds(asked, group)


def _of_seeds(asked: Callable[[str], Asked], group: Group) -> list[tuple[str, str]]:
    """The parts of a study of seeds."""
    tests = asked(queries.TESTS)
    return [
        ("Decision path", decision_path(group)),
        ("Rung by rung", _across(asked)),
        ("Differences between sources: found and not found", _effects(asked, tests.rows, group)),
        ("Can this assay see anything", _assay(asked)),
        ("Power", _power(asked)),
        ("Missing and excluded texts", _missing(asked)),
        ("Other answers", _others(asked, tests, group)),
        ("Deviations from the plan", _deviations(asked, group)),
        ("Runs and environment", _runs(asked)),
    ]


def _across(asked: Callable[[str], Asked]) -> str:
    """The rungs of a ladder beside each other."""
    found = asked(queries.SCALE)
    if not found.rows:
        return ""
    columns = [
        column("rung", "rung", is_number=False),
        column("parameters", "parameters", number),
        column("largest effect, SD", "effect", effect),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"])),
        column("p over looks", "p", p_value),
        column("p over rungs", "p_adjusted", p_value),
        Column(head="verdict", show=lambda r: badge(r["verdict"]) if r["verdict"] else "", is_number=False),
        column("samples to settle", "n_to_settle", number),
        column("why not", "reason", is_number=False),
    ]
    rows = table(found.rows, columns, caption="Rungs after correction over rungs", stack=True)
    return f"{side_by_side(asked, 'scale')}{rows}"


def _plan(group: Group) -> str:
    plan = group.plan
    if not plan:
        return f"<p>{text(group.question)}</p>"
    looks = plan.get("looks")
    shown = ", ".join(map(str, looks)) if isinstance(looks, list) else text(looks)
    return (
        f"<p>{text(group.question)}</p><p>Predicted before the first run: {text(plan.get('prediction'))}</p>"
        f'<p class="note">Plan <code>{text(group.plan_hash)}</code>: margin ±{text(plan.get("margin"))} '
        f"{text(plan.get('margin_unit'))}, alpha {text(plan.get('alpha'))} over looks at {shown} "
        f"{group.units.look}.</p>"
    )


def _effects(asked: Callable[[str], Asked], tests: Sequence[Row], group: Group) -> str:
    effects = asked(queries.EFFECTS)
    if not effects.rows:
        return ""
    return (
        f"{side_by_side(asked, 'contrasts', 'looks')}"
        f"{effects_table(effects.rows, 'Contrasts, nulls beside findings')}"
        f"{omnibus_table(tests, group.family)}"
    )


def _assay(asked: Callable[[str], Asked]) -> str:
    found = asked(queries.ASSAY)
    if not found.rows:
        return ""
    return f"{side_by_side(asked, 'controls')}{effects_table(found.rows, 'Control contrasts')}"


def _power(asked: Callable[[str], Asked]) -> str:
    found = asked(queries.DETECTABLE)
    if not found.rows:
        return ""
    columns = [
        column("look", "look", number),
        column("texts", "n", number),
        column("alpha", "alpha", lambda v: number(v, 2)),
        column("power at the margin", "power", percent),
        column("detectable, SD", "mde", number),
        column("samples a cell to settle", "n_to_settle", number),
        Column(head="verdict", show=lambda r: badge(r["verdict"]), is_number=False),
        column("why not", "reason", is_number=False),
    ]
    rows = table(found.rows, columns, caption="Design power by look", stack=True)
    return f"{side_by_side(asked, 'detectable')}{rows}"


def _missing(asked: Callable[[str], Asked]) -> str:
    counts, reasons = asked(queries.EXCLUDED), asked(queries.FAILURES)
    if not counts.rows:
        return ""
    columns = [
        column("arm", "arm", is_number=False),
        column("texts", "texts", number),
        column("failed", "failed", number),
        column("under 10 words", "short", number),
        column("left out", "excluded_share", percent),
        column("at the token limit", "at_token_limit", number),
        column("same-seed repeats", "repeats", number),
        column("imported", "imported", number),
    ]
    why = [
        column("arm", "arm", is_number=False),
        column("reason", "reason", is_number=False),
        column("texts", "texts", number),
    ]
    return (
        f"{side_by_side(asked, 'missingness')}"
        f"{table(reasons.rows, why, caption='Why texts are missing, repeats included')}{sql(reasons.sql)}"
        f"{table(counts.rows, columns, caption='Texts by arm')}{sql(counts.sql)}"
    )


def _others(asked: Callable[[str], Asked], tests: Asked, group: Group) -> str:
    shown = (group.family, f"{group.family}_secondary", "a_a")
    above = {
        str(r["family"])
        for r in tests.rows
        if str(r["family"]) in shown or str(r["family"]).startswith((f"{group.family} ", "positive_control"))
    }
    return (
        side_by_side(asked, "doses", "permutations")
        + other_families(tests.rows, [*above, group.family])
        + sql(tests.sql, "SQL of every answer of this section")
    )


def _deviations(asked: Callable[[str], Asked], group: Group) -> str:
    found = asked(queries.DEVIATIONS)
    if not found.rows:
        said = {True: "None: this is the declared plan.", False: "None recorded."}
        return f"<p>{said.get(group.is_declared is not False)}</p>"
    columns = [
        column("field", "field", is_number=False),
        Column(head="declared", show=lambda r: f"<code>{text(r['declared'])}</code>", is_number=False),
        Column(head="used", show=lambda r: f"<code>{text(r['used'])}</code>", is_number=False),
    ]
    note = "<p>Decisions under a changed plan are exploratory.</p>"
    return note + table(found.rows, columns, caption="Fields that depart", stack=True) + sql(found.sql)


def _runs(asked: Callable[[str], Asked], steps_query: str = queries.STEPS) -> str:
    runs, steps = asked(queries.RUNS), asked(steps_query)
    columns = [
        Column(head="run", show=lambda r: f"<code>{text(r['run_id'])}</code>", is_number=False),
        column("state", "state", is_number=False),
        column("started, UTC", "started_at", is_number=False),
        column("took", "seconds", seconds),
        Column(head="commit", show=_commit, is_number=False),
        Column(head="flags", show=lambda r: badge_exploratory(r), is_number=False),
        column("note", "note", is_number=False),
    ]
    work = [
        column("step", "experiment", is_number=False),
        column("arm", "arm", is_number=False),
        column("steps", "steps", number),
        column("seconds", "seconds", seconds),
        column("without result", "without_result", number),
    ]
    machines = {str(r["environment_id"]): r for r in runs.rows}
    return (
        table(runs.rows, columns, caption="Runs", stack=True)
        + "".join(_machine(row) for row in machines.values())
        + folded("Steps and what they took", table(steps.rows, work, caption="Steps by kind and arm"))
        + sql(runs.sql, "SQL of the runs")
        + sql(steps.sql, "SQL of the steps")
    )


def badge_exploratory(row: Row) -> str:
    """The flag of an exploratory run."""
    return '<span class="flag">exploratory</span>' if row["exploratory"] else ""


def _commit(row: Row) -> str:
    if row["git_commit"] is None:
        return "not in a git checkout"
    dirty = ' <span class="flag">uncommitted changes</span>' if row["git_dirty"] else ""
    return f"<code>{text(str(row['git_commit'])[:12])}</code>{dirty}"


def _machine(row: Row) -> str:
    if row["python"] is None:
        return '<p class="nothing">The environment of this run is not in the store.</p>'
    packages = json.loads(str(row["packages"]))
    versions = ", ".join(f"{text(name)} {text(v)}" for name, v in sorted(packages.items()))
    memory = number(row["memory_gib"])
    return (
        f"<p>Python {text(row['python'])} on {text(row['platform'])}; {text(row['cpu'])}, "
        f"{text(row['cores'])} cores, {memory} GiB; device {text(row['device'])}.</p>"
        f'<p class="note">{versions}</p>'
    )
