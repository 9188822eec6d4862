"""What the store says across runs and nights, as a page of Markdown: chosen, cut to a page, in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from lab.fingerprint import canonical
from lab.report_markup import seconds
from lab.summary_rows import Row, Summary, counts

MOST_ROWS = 25
"""Of a table on the page."""
MOST_REASONS = 10


def in_a_sentence(summary: Summary) -> str:
    """The summary in a sentence."""
    verdicts = ", ".join(f"{n} {name}" for name, n in counts(summary).items() if n) or "no verdict"
    new = sum(bool(row["is_new"]) for row in summary.drift)
    drifted = f"{_counted(new, 'number')} drifted" if new else "nothing drifted"
    return f"{verdicts}; {drifted}; {_counted(len(summary.questions), 'question')} open"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def page(
    summary: Summary, *, flows: Collection[str] = (), made: Sequence[str] = (), problems: Sequence[str] = ()
) -> str:
    """The page.

    Parameters
    ----------
    flows
        Names that `ladder run` takes.
    made
        Files that were written, in words.
    problems
        What could not be done.
    """
    parts = [
        f"# {in_a_sentence(summary)}",
        f"{summary.since:%Y-%m-%d %H:%M} to {summary.made_at:%Y-%m-%d %H:%M} UTC.",
        *(f"**Not done:** {_cell(problem)}" for problem in problems),
        "## Nights\n\n" + _nights(summary.nights),
        "## Verdicts\n\n" + _verdicts(summary),
        "## Drift\n\n" + _drift(summary.drift),
        "## What verdicts cost\n\n" + _costs(summary.costs),
        "## Open questions\n\n" + _questions(summary.questions),
        "## Next steps\n\n" + _next(summary, flows),
    ]
    return "\n\n".join(parts) + ("\n\n" + "\n".join(f"- {line}" for line in made) if made else "") + "\n"


def _nights(rows: Sequence[Row]) -> str:
    return _table(
        rows,
        {
            "night": lambda r: r["night_id"],
            "state": lambda r: r["state"],
            "budget": lambda r: _took(r["budget_seconds"]),
            "used": lambda r: _took(r["used_seconds"]),
            "runs": lambda r: ", ".join(
                f"{r[name]} {name}"
                for name in ("done", "running", "left", "proposed", "refused", "failed")
                if r[name]
            ),
            "verdicts": lambda r: ", ".join(
                f"{r[name]} {name}"
                for name in ("detected", "equivalent", "inconclusive", "invalid")
                if r[name]
            ),
            "first after": lambda r: _took(r["first_verdict_seconds"]),
            "note": lambda r: "; ".join(filter(None, [r["note"], r["reason"]])),
        },
        nothing="No night ran in this time.",
    )


def _verdicts(summary: Summary) -> str:
    told = _table(
        summary.verdicts,
        {
            "study": lambda r: f"{r['study']} · {r['profile']}",
            "model": lambda r: r["model"],
            "gate": lambda r: r["gate"],
            "look": lambda r: r["look"],
            "verdict": lambda r: " · ".join(
                [r["verdict"], *(flag for flag in ("exploratory", "negligible") if r[flag])]
            ),
            "in words": lambda r: r["sentence"],
            "next": lambda r: r["next"],
        },
        nothing="No gate was asked in this time.",
        more="SELECT * FROM decision",
    )
    if not summary.changed:
        return told
    changed = _table(
        summary.changed,
        {
            "study": lambda r: f"{r['study']} · {r['profile']}",
            "model": lambda r: r["model"],
            "question": _question,
            "look": lambda r: r["look"],
            "was": lambda r: r["verdict_before"],
            "is": lambda r: r["verdict"],
            "estimate moved by": lambda r: r["change"],
        },
        nothing="",
        more="SELECT * FROM effects_over_time",
    )
    return f"{told}\n\nAnswers that changed:\n\n{changed}"


def _drift(rows: Sequence[Row]) -> str:
    new = [row for row in rows if row["is_new"]]
    told = _table(
        new,
        {
            "study": lambda r: r["study"],
            "what": lambda r: " · ".join(
                str(r[name])
                for name in ("experiment", "model", "arm", "seed", "unit")
                if r[name] not in (None, "*")
            ),
            "metric": lambda r: r["metric"],
            "was": lambda r: r["first_value"],
            "is": lambda r: r["last_value"],
            "difference": lambda r: r["difference"],
            "other": lambda r: (
                " and ".join(
                    word
                    for word, name in (("code", "is_other_code"), ("machine", "is_other_environment"))
                    if r[name]
                )
                or "run"
            ),
            "why not": lambda r: r["reason"],
        },
        nothing="No number that was measured again in this time differs from its first value.",
        more="SELECT * FROM drift",
    )
    old = len(rows) - len(new)
    return told + (f"\n\n{old} older: `ladder sql 'SELECT * FROM drift'`." if old else "")


def _costs(rows: Sequence[Row]) -> str:
    return _table(
        rows,
        {
            "study": lambda r: f"{r['study']} · {r['profile']}",
            "gate": lambda r: "all" if r["gate"] == "*" else r["gate"],
            "decided": lambda r: f"{r['decided']} of {r['verdicts']}",
            "time so far": lambda r: _took(r["seconds"]),
            "time a verdict": lambda r: _took(r["seconds_a_verdict"]),
            "tokens a verdict": lambda r: _whole(r["tokens_a_verdict"]),
            "why not": lambda r: r["reason"],
        },
        nothing="No study ran in this time.",
        more="SELECT * FROM cost_of_verdicts",
    )


def _questions(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row["information_per_hour"] is not None]
    told = _table(
        known,
        {
            "study": lambda r: f"{r['study']} · {r['profile']}",
            "model": lambda r: r["model"],
            "question": _question,
            "units here": lambda r: r["look"],
            "further": lambda r: r["further_samples_a_cell"],
            "that takes": lambda r: _took(3600.0 * r["hours"]),
            "answers an hour": lambda r: r["information_per_hour"],
        },
        nothing="None whose answer has a predicted time.",
        more="SELECT * FROM open_questions",
    )
    why = Counter(str(row["reason"]) for row in rows if row["information_per_hour"] is None)
    if not why:
        return told
    shown = why.most_common(MOST_REASONS)
    lines = [f"- {n}: {_cell(reason)}" for reason, n in shown]
    rest = sum(why.values()) - sum(n for _, n in shown)
    lines += [f"- {rest}: other reasons"] if rest else []
    return f"{told}\n\nWithout a predicted time:\n\n" + "\n".join(lines)


def _next(summary: Summary, flows: Collection[str]) -> str:
    told = _table(
        summary.next_steps,
        {
            "because": lambda r: f"{r['study']} · {r['profile']} · {r['gate']}: {r['verdict']}",
            "model": lambda r: r["model"],
            "next": lambda r: r["next"],
            "state": lambda r: r["state"] or "not taken",
            "command": lambda r: command(r, flows),
        },
        nothing="No gate leads anywhere that is not done.",
    )
    if not summary.left:
        return told
    left = _table(
        summary.left,
        {
            "study": lambda r: f"{r['study']} · {r['profile']}",
            "settings": lambda r: "" if r["settings"] == "{}" else r["settings"],
            "because": lambda r: r["why"],
            "note": lambda r: r["note"],
        },
        nothing="",
        more="SELECT * FROM queue",
    )
    return f"{told}\n\nLeft for the next night (`ladder night`):\n\n{left}"


def command(row: Row, flows: Collection[str]) -> str:
    """What a person types to take a decision's route; empty where no command does it.

    >>> told = {"study": "a", "profile": "smoke", "next": "b-c", "next_parameters": '{"profile":"x","n":[1]}'}
    >>> command(told, {"b_c"})
    "`ladder run b_c --profile x --set 'n=[1]'`"
    """
    name = str(row["next"]).replace("-", "_")
    if name == "next_look":
        return f"`ladder run {row['study']} --profile {row['profile']}`"
    if name not in flows:
        return ""
    told = json.loads(str(row["next_parameters"]))
    profile = told.pop("profile", row["profile"])
    changed = "".join(
        f" --set '{field}={value if isinstance(value, str) else canonical(value)}'"
        for field, value in sorted(told.items())
    )
    return f"`ladder run {name} --profile {profile}{changed}`"


def _question(row: Row) -> str:
    named = [row["family"], row["hypothesis"], row["metric"], row["contrast"]]
    return " · ".join(dict.fromkeys(str(name) for name in named if name != "*"))


def _took(value: float | None) -> str:
    return "" if value is None else seconds(value)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _table(
    rows: Sequence[Row], columns: Mapping[str, Callable[[Row], object]], *, nothing: str, more: str = ""
) -> str:
    """A Markdown table of the first rows; the rest is counted, with the query that shows it."""
    if not rows:
        return nothing
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    lines += [f"| {' | '.join(_cell(show(row)) for show in columns.values())} |" for row in rows[:MOST_ROWS]]
    rest = len(rows) - MOST_ROWS
    if rest <= 0:
        return "\n".join(lines)
    asked = f": `ladder sql '{more}'`" if more else ""
    return "\n".join(lines) + f"\n\nAnd {rest} more{asked}."


def _cell(value: object) -> str:
    """A value that breaks neither a row nor the page.

    >>> _cell("a|b\\n<c>"), _cell(None), _cell(0.123456)
    ('a\\\\|b &lt;c>', '', '0.1235')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
