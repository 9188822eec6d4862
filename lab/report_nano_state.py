"""The parts of the nanodesmo report on the state: what it leads, its path, what it holds, what moves it.

Numbers come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import report_nano_parts as nano_parts
from lab import report_queries_nano as nano
from lab import report_sense_parts as sense
from lab.chart_nano import channel_name
from lab.report_group import Asked
from lab.report_markup import Column, Row, column, folded, number, p_value, signed, sql, table, text


def _outside(row: Row) -> bool:
    """Whether a number lies outside its band."""
    value, low, high = row["estimate"], row["low"], row["high"]
    known = isinstance(value, float) and isinstance(low, float) and isinstance(high, float)
    return known and not low <= value <= high  # type: ignore[operator]


def lead_lag(asked: Callable[[str], Asked]) -> str:
    """Which comes first, and what an alarm on a channel is worth."""
    lags, alarms = asked(nano.LEAD_LAG), asked(nano.WARNING)
    if not (lags.rows or alarms.rows):
        return ""
    known = [row for row in lags.rows if row["estimate"] is not None]
    whys = dict.fromkeys(str(row["reason"]) for row in lags.rows if row["estimate"] is None and row["reason"])
    outside = [row for row in known if _outside(row)]
    said = "; ".join(
        f"{channel_name(str(row['channel']))} at lag {signed(row['lag'], 0)}: {signed(row['estimate'], 3)}"
        for row in outside
    )
    told = (
        f"<p>Of {len(known)} lags {len(outside)} lie outside the band, of which one in twenty would by chance"
        f"{f': {said}' if said else ''}.</p>"
        if known
        else "".join(f"<p>No correlation: {text(why)}.</p>" for why in whys)
    )
    columns = [
        nano_parts.channel(),
        column("precision", "precision", sense.share),
        nano_parts.ends(sense.share, "precision_low", "precision_high"),
        column("shifted in time", "shifted_precision", sense.share),
        column("recall", "recall", sense.share),
        nano_parts.ends(sense.share, "recall_low", "recall_high"),
        column("shifted in time", "shifted_recall", sense.share),
        column("base rate", "base_rate", sense.share),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    return (
        told
        + nano_parts.drawn(asked, "mlp/state_effect_leadlag")
        + "<p class=note>An alarm: a channel above its clean steps before. Precision: share of alarms "
        "inside a window; recall: share of window steps with an alarm; base rate: share of steps inside "
        "windows, the precision of an alarm that knows nothing.</p>"
        + table(alarms.rows, columns, caption="Alarms")
        + sql(alarms.sql)
    )


def composite(asked: Callable[[str], Asked]) -> str:
    """Valence, intensity and what they are made of."""
    found = asked(nano.COMPOSITE)
    if not found.rows:
        return ""
    columns = [
        nano_parts.named("regime", "regime"),
        column("metric", "part", is_number=False),
        column("inside − clean", "estimate", lambda v: signed(v, 3)),
        nano_parts.ends(lambda v: signed(v, 3)),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    said = "; ".join(
        f"{text(r['regime'])} {signed(r['estimate'], 2)} "
        f"{sense.ends(r['low'], r['high'], lambda v: signed(v, 2))}"
        for r in found.rows
        if r["part"] == "valence" and r["estimate"] is not None
    )
    return (
        (f"<p>Valence inside windows minus on clean steps, in SD: {said}.</p>" if said else "")
        + nano_parts.drawn(asked, "composite/valence", "composite/components", "composite/trajectory")
        + folded("In numbers", table(found.rows, columns, caption="Composite metrics by regime"))
        + sql(found.sql)
    )


def state(asked: Callable[[str], Asked]) -> str:
    """Linear probes with shuffled targets, rank, sensitivity, and what each dimension does."""
    found, moves, sides = asked(nano.PROBES), asked(nano.SENSITIVITY), asked(nano.DIMENSION)
    if not (found.rows or moves.rows or sides.rows):
        return ""
    null = {r["metric"]: r for r in found.rows if r["hypothesis"] == "shuffled"}
    probes = [
        {
            **r,
            "null": null.get(r["metric"], {}).get("estimate"),
            "null_high": null.get(r["metric"], {}).get("high"),
        }
        for r in found.rows
        if r["hypothesis"] == "linear_probe"
    ]
    columns = [
        Column(
            head="read off the state", show=lambda r: text(channel_name(str(r["metric"]))), is_number=False
        ),
        column("R², held-out blocks", "estimate", lambda v: signed(v, 2)),
        nano_parts.ends(lambda v: signed(v, 2)),
        column("shifted targets", "null", lambda v: signed(v, 2)),
        column("their 97.5 %", "null_high", lambda v: signed(v, 2)),
        column("p", "p", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    each = [
        column("dimension", "dimension", is_number=False),
        column("H(+) − H(−), nats", "estimate", nano_parts.four),
        nano_parts.ends(nano_parts.four),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("why not", "reason", is_number=False),
    ]
    strongest = folded(
        f"{len(sides.rows)} dimensions, the strongest first",
        table(sides.rows, each, caption="Entropy along each dimension") + sql(sides.sql),
    )
    return (
        _shape(found.rows)
        + table(probes, columns, caption="Linear probes")
        + sql(found.sql)
        + nano_parts.drawn(asked, "mlp/input_sensitivity")
        + (strongest if sides.rows else "")
    )


def _shape(rows: Sequence[Row]) -> str:
    """Effective rank, and how much of a clock the state is."""
    of = {str(r["hypothesis"]): r for r in rows}
    said = []
    if "effective_rank" in of and of["effective_rank"]["estimate"] is not None:
        r = of["effective_rank"]
        ends = sense.ends(r["low"], r["high"], lambda v: number(v, 3))
        said.append(f"The path of the state has an effective rank of {number(r['estimate'], 3)} {ends}")
    if "pc1_step" in of and of["pc1_step"]["estimate"] is not None:
        r = of["pc1_step"]
        ends = sense.ends(r["low"], r["high"], lambda v: signed(v, 2))
        said.append(f"its first component correlates {signed(r['estimate'], 2)} {ends} with the step")
    return f"<p>{'; '.join(said)}.</p>" if said else ""
