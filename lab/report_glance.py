"""The first page of the report: one sentence a question, what it rests on, and what would change our mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.report_group import Group
from lab.report_markup import (
    NOTHING,
    Column,
    Row,
    badge,
    column,
    interval,
    number,
    p_value,
    signed,
    sql,
    table,
    text,
)
from lab.report_tree import draw_tree
from lab.report_units import ITEMS, SENTENCES


def glance(groups: Sequence[Group]) -> str:
    """Every study, profile and model with the verdicts that stand."""
    return "".join(_one(group) for group in groups)


def _one(group: Group) -> str:
    answers = "".join(f"<li>{_answer(group, step)}</li>" for step in group.standing)
    body = (
        f'<ol class="answers">{answers}</ol>' if answers else '<p class="nothing">No gate was asked yet.</p>'
    )
    return (
        f'<article class="glance"><h3><a href="#{group.name}">{title(group)}</a></h3>'
        f'<p>{text(group.question)}</p><p class="note">Next: {text(group.outcome)}.</p>{body}</article>'
    )


def title(group: Group) -> str:
    """Study, profile and model; a plan that is not the declared one says so."""
    parts = [text(group.study), text(group.profile), text(group.model)]
    if group.has_namesakes:
        parts.append(f"plan {text(group.plan_hash[:6])}")
    changed = ' <span class="flag">changed plan</span>' if group.is_declared is False else ""
    return " · ".join(parts) + changed


def _answer(group: Group, step: Row) -> str:
    found = group.numbers(step)
    flags = badge(step["verdict"], exploratory=step["exploratory"], negligible=step["negligible"])
    rests = _rests_on(found, group)
    return (
        f'<div>{flags}<span class="gate">{text(step["gate"])}, look {text(step["look"])}</span></div>'
        f'<div><p class="said">{text(step["sentence"] or step["question"])}</p>'
        f"{f'<p class=note>{rests}</p>' if rests else ''}"
        f"{_mind(step, found, group)}</div>"
    )


def _mind(step: Row, found: Mapping[str, object], group: Group) -> str:
    """What would change our mind; nothing where a gate counts and does not test."""
    known = {group.units.value, "n_to_settle"} & found.keys()
    if step["verdict"] in ("INCONCLUSIVE", "EQUIVALENT") and not known:
        return ""
    return f'<p class="note">What would change our mind: {_change(step, found, group)}</p>'


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
    verdict, reason, needed = step["verdict"], found.get("reason"), found.get("n_to_settle")
    if verdict == "INVALID":
        return f"sound data. What failed: {text(reason)}." if reason else "sound data."
    if verdict == "INCONCLUSIVE" and isinstance(needed, int):
        return f"{number(needed)} {group.units.look} would settle it; there are {text(step['look'])}."
    if verdict == "INCONCLUSIVE" and reason:
        return f"{'' if found.get('margin') else 'data of which this is not true: '}{text(reason)}."
    if verdict == "INCONCLUSIVE":
        return f"more {group.units.more}; how many is not known."
    fresh = group.units.fresh
    if verdict == "EQUIVALENT":
        mde = f" This design finds {number(found['mde'], 2)} with 80 % power." if found.get("mde") else ""
        unit = "" if group.units.value == "effect" else f" {group.units.unit}"
        margin = f" beyond {_plain(found['margin'])}{unit}" if found.get("margin") else ""
        return f"a difference{margin} {fresh}.{mde}"
    if group.units is SENTENCES and "detected" in found:  # a gate over the verdicts of several experiments
        return f"other verdicts of these experiments {fresh}."
    if not _is_tested(found, group):
        return f"a check that fails {fresh}."
    small = " It lies inside the margin, so it counts as none." if step["negligible"] else ""
    return f"an interval that includes 0 {fresh}.{small}"


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
    return f'<div class="path"><div>{tree}</div><div>{steps}{sql(group.path_sql)}</div></div>'


def _tested_size(found: Mapping[str, object], group: Group) -> str:
    return _size(found, group) if _is_tested(found, group) else NOTHING


def _interval(found: Mapping[str, object], group: Group) -> str:
    return interval(found.get("low"), found.get("high"), digits=group.units.digits)


def _flags(step: Row) -> str:
    return badge(step["verdict"], exploratory=step["exploratory"], negligible=step["negligible"])
