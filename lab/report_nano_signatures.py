"""The part of the nanodesmo report on signatures: which regimes can be told apart, by which channels.

Verdicts, p values and intervals come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable

from lab import report_nano_parts as nano_parts
from lab import report_queries_nano as nano
from lab import report_sense_parts as sense
from lab.figures_nano import SET_NAMES
from lab.report_group import Asked
from lab.report_markup import Column, Row, column, folded, number, p_value, sql, table, text


def signatures(asked: Callable[[str], Asked], scope: str) -> str:
    """Verdicts by regime with every channel set, the shuffled null and the step's rows."""
    found = asked(nano.signatures(scope))
    if not found.rows:
        return ""
    each = [row for row in found.rows if row["regime"] != "*"]
    together = [row for row in found.rows if row["regime"] == "*"]
    columns = [
        nano_parts.named("regime", "regime"),
        sense.verdict(),
        column("AUC, common and state", "common_state", sense.share),
        Column(head="interval", show=lambda r: _ends(r, "common_state", sense.share)),
        Column(head="shuffled, 95 %", show=lambda r: _auc_ends(r, "shuffled_low", "shuffled_high")),
        column("common", "common", sense.share),
        column("state adds", "adds", sense.difference),
        Column(head="interval", show=lambda r: _ends(r, "adds", sense.difference)),
        column("adds beyond smoothed common", "past_adds", sense.difference),
        Column(head="interval", show=lambda r: _ends(r, "past_adds", sense.difference)),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("why", "reason", is_number=False),
    ]
    chart = nano_parts.drawn(asked, "separability") if scope == nano.MAIN else ""
    return (
        "".join(f"<p>{nano_parts.together(row)}</p>" for row in together)
        + chart
        + "".join(f"<p>{_past(row)}</p>" for row in each if row["verdict"] == "DETECTED")
        + "".join(f"<p>{_feedback(row)}</p>" for row in each if row["regime"] == "false_feedback")
        + table(each, columns, caption="AUC of windows against their twins by channels")
        + "<p class=note>One window is held out, the discriminant is trained on the others. DETECTED needs "
        "two things: all channels tell windows from twins better than with whole windows exchanged, and the "
        "state adds to the common channels (p with states exchanged, interval above 0). The step number "
        "stands at .5 by construction, since a twin covers the same steps; the row of steps against before "
        "is what a clock alone would reach without twins. Smoothed common: running means of the common "
        "channels beside them; what the state adds to those decides nothing.</p>"
        + sql(found.sql)
        + _sets(asked(nano.separable(scope)))
        + _classes(asked(nano.classes(scope)))
    )


def _ends(row: Row, name: str, show: Callable[[object], str]) -> str:
    """An interval, or in its place why seeds have none."""
    low, high, why = row[f"{name}_low"], row[f"{name}_high"], row[f"{name}_why"]
    return text(why) if low is None and why else sense.ends(low, high, show)


def _auc_ends(row: Row, low: str, high: str) -> str:
    if row[low] is None and row.get("estimate") is not None and row.get("reason"):
        return text(row["reason"])
    return sense.ends(row[low], row[high], sense.share)


def _past(row: Row) -> str:
    """Whether a detected signature is more than a smoothing of the common channels' past."""
    if row["past_adds"] is None:
        return f"{text(row['regime'])}: not compared with smoothed common channels."
    low = row["past_adds_low"]
    more = isinstance(low, float) and low > 0.0
    adds = f"{sense.difference(row['past_adds'])} {_ends(row, 'past_adds', sense.difference)}"
    return (
        f"{text(row['regime'])}: beside running means of the common channels the state adds {adds} AUC, "
        + (
            "so it holds more than these running means."
            if more
            else "so it is not shown to hold more than a smoothing of their recent past."
        )
    )


def _feedback(row: Row) -> str:
    """What false_feedback is, and what was found of it."""
    found = {
        "DETECTED": "told apart by the state",
        "EQUIVALENT": "not told apart by the state: what it adds lies within the margin",
        "INCONCLUSIVE": "not shown to be told apart",
    }.get(str(row["verdict"]), "not to be judged")
    return (
        "false_feedback falsifies only the copy of the loss that the update of the state sees; batches, "
        f"targets and learning rate stay as they are. It is {found}: AUC {sense.share(row['common'])} by "
        f"common channels, {sense.share(row['state'])} by the state."
    )


def _sets(found: Asked) -> str:
    """Every channel set, the step's rows among them."""
    columns = [
        nano_parts.named("regime", "regime"),
        Column(head="channels", show=lambda r: text(SET_NAMES.get(str(r["channels"]))), is_number=False),
        column("AUC", "estimate", sense.share),
        Column(head="interval", show=lambda r: _auc_ends(r, "low", "high")),
        column("p, labels exchanged", "p", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    body = table(found.rows, columns, caption="AUC by regime and channels") + sql(found.sql)
    return folded("Every set of channels, and the step number alone", body)


def _classes(found: Asked) -> str:
    """Which regime was taken for which."""
    accuracy = [row for row in found.rows if row["hypothesis"] == "accuracy"]
    cells = {
        tuple(str(row["contrast"]).split(":", 1)): row["estimate"]
        for row in found.rows
        if row["hypothesis"] == "confusion"
    }
    if not accuracy:
        return ""
    names = list(dict.fromkeys(true for true, _ in cells))
    columns = [
        column("channels", "contrast", is_number=False),
        column("balanced accuracy", "estimate", sense.share),
        Column(head="interval", show=lambda r: _auc_ends(r, "low", "high")),
        column("p", "p", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    shown = [column("in truth", "true", is_number=False), *(column(f"as {n}", n, sense.share) for n in names)]
    rows = [{"true": true, **{name: cells.get((true, name)) for name in names}} for true in names]
    body = table(accuracy, columns, caption="Regimes and clean steps told apart at once")
    return folded(
        f"Which regime is taken for which; chance is 1 in {len(names) or len(accuracy)}",
        body + (table(rows, shown, caption="Share of steps, all channels") if rows else "") + sql(found.sql),
    )
