"""The section of the report across studies: nights, drift, cost of verdicts, what an hour would tell most.

Everything is asked of the views of `views.sql`; nothing is computed here.
"""

from __future__ import annotations

from lab.report_group import Asked, ask
from lab.report_markup import Column, Row, column, number, seconds, signed, sql, table, text
from lab.still import Source

NIGHTS = "SELECT * FROM night_summary ORDER BY started_at DESC LIMIT 14"
DRIFT = "SELECT * FROM drift WHERE NOT is_speed LIMIT 50"
COSTS = "SELECT * FROM cost_of_verdicts WHERE gate = '*'"
OPEN = (
    "SELECT * FROM open_questions WHERE role IN ('verdict', 'decides') AND information_per_hour > 0 LIMIT 30"
)


def summary_section(store: Source) -> str:
    """The section; empty parts say so in a line.

    Raises
    ------
    StoreLockedError
        The database stayed held.
    """
    parts = [
        ("Nights", NIGHTS, _nights),
        ("Numbers that did not stay the same", DRIFT, _drift),
        ("What a decided verdict has cost", COSTS, _costs),
        ("Open questions, the cheapest answers first", OPEN, _open),
    ]
    body = ""
    for head, query, show in parts:
        found = ask(store, query)
        body += f"<h3>{head}</h3>{show(found) if found.rows else '<p>None.</p>'}"
    return f'<section id="summary"><h2>Across studies and nights</h2>{body}</section>'


def _nights(found: Asked) -> str:
    columns = [
        column("night", "night_id", is_number=False),
        column("state", "state", is_number=False),
        column("budget", "budget_seconds", seconds),
        column("used", "used_seconds", seconds),
        *(column(name, name, number) for name in ("done", "left", "proposed", "refused", "failed")),
        *(
            column(name.upper(), name, number)
            for name in ("detected", "equivalent", "inconclusive", "invalid")
        ),
        column("first verdict after", "first_verdict_seconds", seconds),
        Column(head="note", show=lambda r: text(r["note"] or r["reason"]), is_number=False),
    ]
    return table(
        found.rows,
        columns,
        caption="Nights, the last first; a verdict counts for the night that asked it last",
        stack=True,
    ) + sql(found.sql)


def _drift(found: Asked) -> str:
    columns = [
        column("study", "study", is_number=False),
        Column(head="what", show=_what, is_number=False),
        column("metric", "metric", is_number=False),
        column("first", "first_value", number),
        column("last", "last_value", number),
        column("difference", "difference", lambda v: signed(v, 4)),
        Column(head="other", show=_other, is_number=False),
        column("why not", "reason", is_number=False),
    ]
    return table(found.rows, columns, caption="Measured again, with another result", stack=True) + sql(
        found.sql
    )


def _what(row: Row) -> str:
    named = (row[name] for name in ("experiment", "model", "arm", "seed", "unit"))
    return text(" · ".join(str(name) for name in named if name not in (None, "*")))


def _other(row: Row) -> str:
    said = [("code", row["is_other_code"]), ("machine", row["is_other_environment"])]
    return " and ".join(word for word, differs in said if differs) or "run"


def _costs(found: Asked) -> str:
    columns = [
        column("study", "study", is_number=False),
        column("profile", "profile", is_number=False),
        Column(head="decided", show=lambda r: f"{r['decided']} of {r['verdicts']}"),
        column("runs took", "seconds", seconds),
        column("a verdict", "seconds_a_verdict", seconds),
        column("tokens a verdict", "tokens_a_verdict", number),
        column("why not", "reason", is_number=False),
    ]
    return table(found.rows, columns, caption="Time and tokens over decided verdicts", stack=True) + sql(
        found.sql
    )


def _open(found: Asked) -> str:
    columns = [
        column("study", "study", is_number=False),
        column("model", "model", is_number=False),
        Column(head="question", show=_question, is_number=False),
        column("units here", "look", number),
        column("to settle", "n_to_settle", number),
        Column(head="takes about", show=lambda r: seconds(_seconds(r["hours"]))),
        column("answers an hour", "information_per_hour", number),
    ]
    note = (
        '<p class="note">Answers an hour: .8, the power that the units to settle are computed for, over what '
        "they would take at the cost of a unit so far.</p>"
    )
    return (
        note + table(found.rows, columns, caption="Open questions with a cost", stack=True) + sql(found.sql)
    )


def _seconds(hours: object) -> float | None:
    return 3600.0 * hours if isinstance(hours, float) else None


def _question(row: Row) -> str:
    named = (row[name] for name in ("family", "hypothesis", "metric", "contrast"))
    return text(" · ".join(dict.fromkeys(str(name) for name in named if name != "*")))
