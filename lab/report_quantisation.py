"""The parts of the report about quantised models: questions and experiments, disparity, preservation, nulls.

Statuses and verdicts come from the views; nothing is computed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from lab import report_queries_quantisation as queries
from lab.report_figures import side_by_side
from lab.report_group import Asked, Group
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
from lab.report_units import SENTENCES

STEPS = queries.STEPS
STATUSES = {
    "CONFIRMED": ("detected", "◆"),
    "REFUTED": ("detected", "◇"),
    "EQUIVALENT": ("equivalent", "≈"),
    "PARTIAL": ("inconclusive", "◐"),
    "PENDING": ("inconclusive", "○"),
    "INVALID": ("invalid", "✕"),
}
"""Status of a research question: colour and mark."""
MEANINGS = (
    "CONFIRMED: detected in the predicted direction. REFUTED: detected against it. EQUIVALENT: inside the "
    "margin. PARTIAL: not all of its experiments decided, or not alike. PENDING: not run, or inconclusive."
)
EVERY_LANGUAGE = {"change", "change_nats", "degradation_percent"}
"""Questions that every row answers for one language."""


def is_about(group: Group) -> bool:
    """Whether the group's study compares languages of quantised models."""
    return group.units is SENTENCES


def answers(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """What was asked and what came of it; heading and content."""
    return [
        ("Research questions", _questions(asked(queries.RESEARCH_QUESTIONS))),
        ("Experiments", _experiments(asked(queries.EXPERIMENTS))),
    ]


def parts(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """Heading and content of what the answers rest on; empty where it has no rows."""
    return [
        ("Do low-resource languages lose more", _disparity(asked)),
        ("What keeping weights buys", _preservation(asked)),
        ("Which blocks carry the damage", side_by_side(asked, "blocks")),
        ("Do the nulls hold", _nulls(asked)),
        ("Other answers", _others(asked(queries.TESTS))),
    ]


def status(value: object) -> str:
    """A status with its mark, in its colour.

    >>> status("PARTIAL")
    '<span class="verdict inconclusive"><i aria-hidden="true">◐</i> PARTIAL</span>'
    """
    colour, mark = STATUSES.get(str(value), ("invalid", "?"))
    return f'<span class="verdict {colour}"><i aria-hidden="true">{mark}</i> {text(value)}</span>'


def _questions(found: Asked) -> str:
    columns = [
        column("RQ", "research_question", is_number=False),
        column("question", "question", is_number=False),
        Column(head="status", show=lambda r: status(r["status"]), is_number=False),
        Column(head="decided", show=lambda r: f"{text(r['decided'])} of {text(r['parts'])}"),
        Column(head="experiments behind it", show=_behind, is_number=False),
    ]
    if not found.rows:
        return ""
    rows = table(found.rows, columns, caption="Status, from the stored verdicts", stack=True)
    return f'{rows}<p class="note">{MEANINGS}</p>{sql(found.sql)}'


def _behind(row: Row) -> str:
    parts = (f'<span class="pair">{text(one)}</span>' for one in str(row["experiments"]).split(", "))
    return f"<span>{', '.join(parts)}</span>"


def _experiments(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("experiment", "experiment", is_number=False),
        Column(head="question", show=_asks, is_number=False),
        Column(head="verdict", show=lambda r: badge(r["verdict"]), is_number=False),
        column("outcome", "success", is_number=False),
        column("estimate", "estimate", effect),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"])),
        column("n", "n", number),
        column("replicates", "replicates", number),
        column("took", "seconds", _took),
        column("declared", "expected_minutes", lambda v: f"{number(v)} min"),
    ]
    replicates = [
        column("experiment", "experiment", is_number=False),
        column("each replicate", "findings", is_number=False),
    ]
    return (
        '<p class="note">Estimates are means over replicates in bits an aligned sentence, intervals the '
        "widest ends; an EQUIVALENT one shows that of its one-sided tests. An experiment succeeds when at "
        "least two replicates, and most of them, give one verdict and no check failed. n counts languages, "
        "for blocks documents. Time is that of its own evaluations at all looks, declared that of the full "
        "profile.</p>"
        f"{table(found.rows, columns, caption='Experiments', stack=True)}"
        + folded("What each replicate said", table(found.rows, replicates, caption="Replicates", stack=True))
        + sql(found.sql)
    )


def _asks(row: Row) -> str:
    above = f"<span class=note>Above 0: {text(row['predicted'])}.</span>"
    return (
        f"<span>{text(row['question'])} {above}</span>"  # one child: narrow cells lay children side by side
    )


def _took(value: object) -> str:
    return "not timed" if value is None else seconds(value)


def _or_why(value: str, reason: object) -> str:
    return f"<span class=note>{text(reason)}</span>" if reason else value


def _disparity(asked: Callable[[str], Asked]) -> str:
    found = asked(queries.DISPARITY)
    if not found.rows:
        return ""
    main = [row for row in found.rows if row["variant"] == "int4"]
    others = [row for row in found.rows if row["variant"] != "int4"]
    return (
        f"{side_by_side(asked, 'languages', 'languages-elsewhere', 'metrics')}"
        f"{_gaps(main, 'INT4: gap and ratios of each replicate')}"
        + _reach(main)
        + folded("Other roundings", _gaps(others, "Gap and ratios of other roundings"))
        + sql(found.sql)
        + _measures(asked(queries.MEASURES))
    )


def _gaps(rows: Sequence[Row], caption: str) -> str:
    columns = [
        column("replicate", "replicate", is_number=False),
        column("rounding", "variant", is_number=False),
        Column(head="gap, bits", show=lambda r: _or_why(effect(r["gap"]), r["reason"])),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"])),
        column("p", "p", p_value),
        Column(head="ratio of means", show=_ratio, is_number=False),
        Column(head="legacy ratio", show=_legacy, is_number=False),
        column("gap, nats a token", "gap_nats", lambda v: number(v, sign=True)),
    ]
    return table(rows, columns, caption=caption)


def _ratio(row: Row) -> str:
    if row["ratio"] is None:
        return _or_why("", row["ratio_reason"] or "not measured")
    return f"{effect(row['ratio'])} {interval(row['ratio_low'], row['ratio_high'])}"


def _legacy(row: Row) -> str:
    if row["legacy_ratio"] is None:
        return _or_why("", row["legacy_reason"] or "not measured")
    return f"{number(row['legacy_ratio'])}, called “{text(row['legacy_word'])}”"


def _reach(rows: Sequence[Row]) -> str:
    """What gap this design can see."""
    known = [row for row in rows if row["mde"] is not None]
    columns = [
        column("replicate", "replicate", is_number=False),
        column("margin, bits", "margin", number),
        column("alpha", "alpha", lambda v: number(v, 2)),
        column("power at the margin", "power", percent),
        column("detectable gap, bits", "mde", number),
        column("languages a tier to settle", "languages_to_settle", number),
        Column(head="verdict", show=lambda r: badge(r["verdict"]), is_number=False),
    ]
    return table(known, columns, caption="What gap could have been seen") if known else ""


def _measures(found: Asked) -> str:
    columns = [
        column("replicate", "replicate", is_number=False),
        Column(head="measure", show=lambda r: text(str(r["metric"]).replace("_", " ")), is_number=False),
        Column(head="gap", show=lambda r: _or_why(number(r["estimate"], 4, sign=True), r["reason"])),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"], digits=4)),
        column("p", "p", p_value),
        column("role", "role", is_number=False),
    ]
    return folded(
        "INT4: the gap in other measures",
        table(found.rows, columns, caption="Gap of INT4 by measure") + sql(found.sql),
    )


def _preservation(asked: Callable[[str], Asked]) -> str:
    found = asked(queries.PARETO)
    if not found.rows:
        return ""
    columns = [
        column("variant", "variant", is_number=False),
        column("replicate", "replicate", is_number=False),
        column("bits per weight", "bits_per_weight", number),
        column("mean change", "change", effect),
        Column(head="interval", show=lambda r: interval(r["change_low"], r["change_high"])),
        Column(head="gap", show=lambda r: _or_why(effect(r["gap"]), r["reason"])),
        Column(head="interval", show=lambda r: interval(r["gap_low"], r["gap_high"])),
        column("p, gap", "p", p_value),
    ]
    charts = side_by_side(asked, "budgets", "pareto-change", "pareto-gap")
    rows = table(found.rows, columns, caption="Size, mean change and gap, bits an aligned sentence")
    return f"{charts}{folded('Every variant by size', rows + sql(found.sql), is_open=True)}"


def _nulls(asked: Callable[[str], Asked]) -> str:
    found = asked(queries.NULLS)
    if not found.rows:
        return ""
    columns = [
        column("check", "checked", is_number=False),
        column("replicate", "replicate", is_number=False),
        Column(head="value", show=lambda r: number(r["value"], 4)),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"], digits=4)),
        column("allowed", "bound", lambda v: number(v, 2)),
        Column(
            head="holds", show=lambda r: "yes" if r["holds"] else f"no: {text(r['reason'])}", is_number=False
        ),
        column("method", "method", is_number=False),
    ]
    rows = table(found.rows, columns, caption="Nulls of each replicate")
    broken = sum(not row["holds"] for row in found.rows)
    said = "All hold" if not broken else f"{broken} do not hold"
    return f"{side_by_side(asked, 'nulls')}<p>{said}, of {len(found.rows)}.</p>" + folded(
        "Each null of each replicate", rows + sql(found.sql), is_open=bool(broken)
    )


def _others(found: Asked) -> str:
    """Every family, folded; rows that exist once a language are counted and left to the query."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in found.rows:
        families[str(row["family"])].append(row)
    columns = [
        column("asks", "hypothesis", is_number=False),
        column("measure", "metric", is_number=False),
        column("of", "contrast", is_number=False),
        column("replicate", "replicate", is_number=False),
        Column(head="estimate", show=lambda r: number(r["estimate"])),
        Column(head="interval", show=lambda r: interval(r["low"], r["high"], digits=3)),
        column("p", "p", p_value),
        column("p, adjusted", "p_adjusted", p_value),
        column("n", "n", number),
        Column(
            head="says",
            show=lambda r: badge(r["verdict"]) if r["verdict"] else text(r["role"]),
            is_number=False,
        ),
        Column(head="method", show=_method, is_number=False),
    ]
    shown = []
    for family, rows in families.items():
        few = [row for row in rows if not _is_of_a_language(row)]
        more = len(rows) - len(few)
        left = f"; {more} of single languages are in the query" if more else ""
        head = f"{text(family)} <span class=note>{len(few)} answers{left}</span>"
        shown.append(folded(head, table(few, columns, caption=f"Answers of {text(family)}")))
    return "".join(shown) + sql(found.sql, "SQL of every answer of this section")


def _is_of_a_language(row: Row) -> bool:
    """A row of one language, `int4:sw`, is in the figures and in the query."""
    return row["hypothesis"] in EVERY_LANGUAGE or ":" in str(row["contrast"])


def _method(row: Row) -> str:
    return f"{text(row['method'])}: {text(row['reason'])}" if row["reason"] else text(row["method"])
