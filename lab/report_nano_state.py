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


def _differs(row: Row) -> bool:
    """Whether a number differs from 0 after Holm."""
    return isinstance(row["p_adjusted"], float) and row["p_adjusted"] <= float(str(row["alpha"]))


def lead_lag(asked: Callable[[str], Asked]) -> str:
    """Which comes first, and what an alarm on a channel is worth."""
    lags, alarms = asked(nano.LEAD_LAG), asked(nano.WARNING)
    if not (lags.rows or alarms.rows):
        return ""
    return _lags(lags) + nano_parts.drawn(asked, "mlp/state_effect_leadlag") + _by_lag(lags) + _alarms(alarms)


def _lags(lags: Asked) -> str:
    """Which lags differ from 0 after Holm, in a sentence."""
    known = [row for row in lags.rows if row["estimate"] is not None]
    if not known:
        whys = dict.fromkeys(str(row["reason"]) for row in lags.rows if row["reason"])
        return "".join(f"<p>No correlation: {text(why)}.</p>" for why in whys)
    sure = [row for row in known if _differs(row)]
    said = "; ".join(
        f"{channel_name(str(row['channel']))} at lag {signed(row['lag'], 0)}: {signed(row['estimate'], 3)}"
        for row in sure
    )
    return (
        f"<p>Of {len(known)} lags {len(sure)} differ from 0 after Holm over the lags of a channel"
        f"{f': {said}' if said else ''}.</p>"
    )


def _by_lag(lags: Asked) -> str:
    """Every lag with its p and the band of the figure."""
    columns = [
        nano_parts.channel("state effect with"),
        column("lag, probes", "lag", lambda v: signed(v, 0)),
        column("correlation", "estimate", lambda v: signed(v, 3)),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        Column(head="band", show=lambda r: sense.ends(r["low"], r["high"], lambda v: signed(v, 3))),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    note = (
        "<p class=note>p: t over seeds of Fisher's z. The band, of circular shifts of the mirrored effect, "
        "is for the eye and decides nothing.</p>"
    )
    rows = table(lags.rows, columns, caption="State effect by lag; positive: it comes first")
    return folded(f"{len(lags.rows)} lags in numbers", rows + note + sql(lags.sql)) if lags.rows else ""


def _alarms(alarms: Asked) -> str:
    """Precision and recall of alarms."""
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
        "<p class=note>An alarm: a channel more than 3 SD above the mean of the clean steps before; top-1 "
        "probability more than 3 SD below. Precision: share of alarms "
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
        column("inside − before", "estimate", lambda v: signed(v, 3)),
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
        (
            f"<p>Valence inside windows minus the clean steps right before, in SD of clean steps: {said}.</p>"
            if said
            else ""
        )
        + nano_parts.drawn(asked, "composite/valence", "composite/components", "composite/trajectory")
        + folded("In numbers", table(found.rows, columns, caption="Composite metrics by regime"))
        + sql(found.sql)
    )


def second(found: Asked) -> str:
    """Lags, probes, composite metrics and alarms of the second text, a row each."""
    if not found.rows:
        return ""
    columns = [
        column("what", "what", is_number=False),
        column("unit", "unit", is_number=False),
        column("estimate", "estimate", lambda v: signed(v, 3)),
        nano_parts.ends(lambda v: signed(v, 3)),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("beside", "note", is_number=False),
        column("why not", "reason", is_number=False),
    ]
    rows = table(found.rows, columns, caption="State on the second text: lags, probes, composite, alarms")
    return rows + sql(found.sql)


def state(asked: Callable[[str], Asked]) -> str:
    """Linear probes with shuffled targets, rank, sensitivity, and what each dimension does."""
    found, moves, sides = asked(nano.PROBES), asked(nano.SENSITIVITY), asked(nano.DIMENSION)
    if not (found.rows or moves.rows or sides.rows):
        return ""
    of = {(r["hypothesis"], r["metric"]): r for r in found.rows}
    probes = [
        {
            **r,
            "null": of.get(("shuffled", r["metric"]), {}).get("estimate"),
            "null_high": of.get(("shuffled", r["metric"]), {}).get("high"),
            "other_seeds": of.get(("other_seeds", r["metric"]), {}).get("estimate"),
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
        column("targets of other seeds", "other_seeds", lambda v: signed(v, 2)),
        column("p, the larger of two", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    return (
        _shape(found.rows)
        + table(probes, columns, caption="Linear probes")
        + "<p class=note>Two nulls, p is the larger of theirs: the target mirrored and shifted in time, and "
        "(not for the step, which seeds share) targets permuted over seeds. Holm over what is read.</p>"
        + sql(found.sql)
        + nano_parts.drawn(asked, "mlp/input_sensitivity")
        + (_dimensions(sides) if sides.rows else "")
    )


def _dimensions(sides: Asked) -> str:
    """How much the strongest, the second strongest dimension of a seed moves entropy, and so on."""
    columns = [
        column("rank in its seed", "rank", number),
        column("|H(+) − H(−)|, nats", "estimate", lambda v: number(v, 3)),
        nano_parts.ends(lambda v: number(v, 3)),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    note = (
        "<p class=note>Seeds share no basis, so each ranks its own dimensions; means over seeds of a rank. "
        "The largest of many is large by chance too, so there is no p; whether dimensions are special at all "
        "is p, axes, of the frozen test.</p>"
    )
    body = table(sides.rows, columns, caption="Entropy along single dimensions") + note + sql(sides.sql)
    return folded(f"{len(sides.rows)} dimensions, the strongest first", body)


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
