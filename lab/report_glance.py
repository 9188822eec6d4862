"""The first page of the report: one sentence a question, what it rests on, and what would change our mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.gates import IMPOSSIBLE
from lab.report_group import Asked, Group, ask
from lab.report_markup import (
    MARKS,
    NOTHING,
    Column,
    Row,
    badge,
    column,
    folded,
    interval,
    number,
    p_value,
    signed,
    sql,
    sqls,
    table,
    text,
)
from lab.report_tree import draw_tree, exits
from lab.report_units import ITEMS, SENTENCES
from lab.still import Source

NIGHT = """
SELECT night_id, profile, state, budget_seconds / 60 AS budget_minutes, used_seconds / 60 AS used_minutes,
       done, "left", proposed, refused, failed, detected, equivalent, inconclusive, invalid
FROM night_summary ORDER BY started_at DESC, night_id LIMIT 1
"""
ENDED = {
    "running": "is under way",
    "completed": "is complete",
    "budget": "spent its budget",
    "failed": "failed",
    "cancelled": "was cancelled",
    "crashed": "was cut off",
}
"""State of a night in words."""


def glance(store: Source, groups: Sequence[Group]) -> str:
    """The last night in a sentence, then every study, profile and model with the verdicts that stand."""
    return _night(ask(store, NIGHT)) + "".join(_one(group) for group in groups)


def contents(groups: Sequence[Group]) -> str:
    """A list item a group: the verdict that answers its question, linked to its answers."""
    return "".join(
        f'<li><a href="#{group.name}-glance">{title(group)}</a> {_answered(group)}</li>' for group in groups
    )


def _answered(group: Group) -> str:
    return _flags(group.standing[0]) if group.standing else '<span class="note">nothing asked yet</span>'


def _night(found: Asked) -> str:
    """What the last night did; nothing where studies were run by hand."""
    if not found.rows:
        return ""
    [row] = found.rows
    used = f"{number(row['used_minutes'])} of " if row["used_minutes"] is not None else ""
    counted = ", ".join(
        f"{number(row[name])} {name}"
        for name in ("done", "left", "proposed", "refused", "failed")
        if row[name]
    )
    verdicts = ", ".join(
        f"{number(row[verdict.lower()])} {verdict}" for verdict in MARKS if row[verdict.lower()]
    )
    ended = ENDED.get(str(row["state"]), text(row["state"]))
    return (
        f'<div class="night"><p class="said">The last night, {text(row["night_id"])}, profile '
        f"{text(row['profile'])}, {ended}: {used}{number(row['budget_minutes'])} min; runs: "
        f"{counted or 'none yet'}; its gates, controls and looks counted: {verdicts or 'none yet'}."
        f"</p>{sql(found.sql)}</div>"
    )


def _one(group: Group) -> str:
    """The study's answer in the open, and what is INVALID; the other gates behind a line that names them."""
    shown = [step for place, step in enumerate(group.standing) if not place or step["verdict"] == "INVALID"]
    folded_away = [step for step in group.standing if step not in shown]
    body = _answers(shown, group) if shown else '<p class="nothing">No gate was asked yet.</p>'
    if folded_away:
        named = ", ".join(f"{text(step['gate'])} {text(step['verdict'])}" for step in folded_away)
        body += folded(f"Its other gates: {named}", _answers(folded_away, group))
    return (
        f'<article class="glance" id="{group.name}-glance"><h3><a href="#{group.name}">{title(group)}</a>'
        f'</h3><p>{text(group.question)}</p><p class="note">Next: {text(group.outcome)}.</p>{body}</article>'
    )


def _answers(steps: Sequence[Row], group: Group) -> str:
    said = "".join(f"<li>{_answer(group, step)}</li>" for step in steps)
    return f'<ol class="answers">{said}</ol>'


def _leads(step: Row, group: Group, verdict: str) -> object:
    """Where a verdict of a decision's gate would lead; None when the plan is not in the store."""
    routes = next((gate.get("routes") for gate in group.gates if gate["name"] == step["gate"]), {})
    route = routes.get(verdict, {}) if isinstance(routes, Mapping) else {}
    return route.get("next")


def title(group: Group) -> str:
    """Study, profile and model; a plan that is not the declared one says so."""
    parts = [text(group.study), text(group.profile), text(group.model)]
    if group.has_namesakes:
        parts.append(f"plan {text(group.plan_hash[:6])}")
    changed = ' <span class="flag">changed plan</span>' if group.is_declared is False else ""
    return " · ".join(parts) + changed


def _answer(group: Group, step: Row) -> str:
    found = group.numbers(step)
    rests = _rests_on(found, group)
    return (
        f'<div>{_flags(step)}<span class="gate">{text(step["gate"])}, look {text(step["look"])}</span></div>'
        f'<div><p class="said">{text(step["sentence"] or step["question"])}</p>'
        f"{f'<p class=note>{rests}</p>' if rests else ''}"
        f'<p class="note">What would change our mind: {_change(step, found, group)}</p>'
        f"{sqls(group.queries(step))}</div>"
    )


def _rests_on(found: Mapping[str, object], group: Group) -> str:
    """Effect or estimate, interval, p and n, as far as there are any."""
    parts, units = [], group.units
    if _is_tested(found, group):
        parts.append(f"{units.value} {_size(found, group)} {units.unit}")
    if found.get("low") is not None and found.get("high") is not None:
        parts.append(f"{_level(found)} interval {_interval(found, group)}")
    elif found.get("high") is not None:
        parts.append(f"upper bound {number(found['high'])}")
    if isinstance(found.get("p_adjusted"), float):
        parts.append(f"adjusted p {_p(found['p_adjusted'])}")
    if found.get("n") is not None:
        parts.append(f"n = {number(found['n'])}")
    return ", ".join(parts)


def _is_tested(found: Mapping[str, object], group: Group) -> bool:
    """Whether there is a value in the study's units; a check's number has others, and no interval."""
    return found.get(group.units.value) is not None and (
        group.units is not ITEMS or found.get("low") is not None
    )


def _size(found: Mapping[str, object], group: Group) -> str:
    return signed(found.get(group.units.value), group.units.digits)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else text(value)


def _p(value: object) -> str:
    return p_value(value) if isinstance(value, float) and value < 0.001 else f"= {p_value(value)}"


def _level(found: Mapping[str, object]) -> str:
    alpha = found.get("alpha")
    return f"{100 * (1 - alpha):.4g} %" if isinstance(alpha, float) else ""


def _change(step: Row, found: Mapping[str, object], group: Group) -> str:
    """What would have to be found for another verdict, and how much of it, where that is known."""
    verdict, reason, fresh = step["verdict"], found.get("reason"), group.units.fresh
    if verdict == "INVALID":
        return f"sound data. What failed: {text(reason)}." if reason else "sound data."
    if _leads(step, group, "DETECTED") == IMPOSSIBLE:
        return f"other verdicts of what it counts, {fresh}."
    if group.units is SENTENCES and "detected" in found:  # a gate over the verdicts of several experiments
        return f"other verdicts of these experiments {fresh}."
    if verdict == "INCONCLUSIVE":
        return _would_settle(step, found, group)
    if verdict == "EQUIVALENT":
        mde = f" This design finds {number(found['mde'], 2)} with 80 % power." if found.get("mde") else ""
        unit = "" if group.units.value == "effect" else f" {group.units.unit}"
        margin = f"{_plain(found['margin'])}{unit}" if found.get("margin") else "the margin"
        return f"a difference beyond {margin} {fresh}.{mde}"
    if not _is_tested(found, group):
        return f"a check that fails {fresh}."
    small = " It lies inside the margin, so it counts as none." if step["negligible"] else ""
    return f"an interval that includes 0 {fresh}.{small}"


def _would_settle(step: Row, found: Mapping[str, object], group: Group) -> str:
    """How much more data, or why that is not known."""
    reason, needed, units = found.get("reason"), found.get("n_to_settle"), group.units
    if _leads(step, group, "EQUIVALENT") == IMPOSSIBLE:  # it asks whether something holds, not how much
        reason = reason or found.get("findings")
    if isinstance(needed, int) and needed > int(str(step["look"])):
        return f"{number(needed)} {units.look} would settle it; there are {text(step['look'])}."
    if isinstance(needed, int):
        return f"other verdicts {units.fresh}; each comparison alone needs no more than there are."
    if reason:
        return f"{'' if found.get('margin') else 'data of which this is not true: '}{text(reason)}."
    if found.get("what_settles"):
        return f"{text(found['what_settles'])}."
    return f"more {units.more}; how many is not known."


def decision_path(group: Group) -> str:
    """The tree with the path, and the path as a table."""
    columns = [
        column("gate", "gate", is_number=False),
        column("look", "look", number),
        Column(head="verdict", show=_flags, is_number=False),
        column("then", "next", is_number=False),
        Column(head=group.units.size, show=lambda step: _tested_size(group.numbers(step), group)),
        Column(head="interval", show=lambda step: _interval(group.numbers(step), group)),
        Column(head="n", show=lambda step: number(group.numbers(step).get("n"))),
    ]
    steps = table(group.path, columns, caption="Every look of every gate, in order")
    tree = draw_tree(group.gates, group.path, name=group.name) if group.gates else ""
    ways = (way for gate in group.gates for way in exits(gate, group.path))
    starred = any(way.explored for way in ways)
    note = '<p class="note">* a look at which only exploratory decisions went this way</p>' if starred else ""
    return f'<div class="path"><div>{tree}{note}</div><div>{steps}{sql(group.path_sql)}</div></div>'


def _tested_size(found: Mapping[str, object], group: Group) -> str:
    return _size(found, group) if _is_tested(found, group) else NOTHING


def _interval(found: Mapping[str, object], group: Group) -> str:
    return interval(found.get("low"), found.get("high"), digits=group.units.digits)


def _flags(step: Row) -> str:
    return badge(step["verdict"], exploratory=step["exploratory"], negligible=step["negligible"])
