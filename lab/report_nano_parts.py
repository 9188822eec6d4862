"""What the nanodesmo study's answers rest on: deltas, swaps, lags, composite metrics, probes, runs.

Verdicts, p values and intervals come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import report_queries_nano as nano
from lab import report_queries_nano_runs as runs
from lab import report_sense_parts as sense
from lab.chart_nano import channel_name
from lab.nano_figures import PUBLISHED, STILL, figures_of
from lab.report_figures import figure
from lab.report_group import Asked
from lab.report_markup import (
    Column,
    Row,
    badge,
    column,
    folded,
    number,
    p_value,
    seconds,
    signed,
    sql,
    table,
    text,
)
from lab.report_tests import other_families

SHOWN = (
    "published_deltas",
    "published_separability",
    "published_contact",
    "leverage",
    "separability",
    "regime_deltas",
    "swap",
    "composite",
    "probe",
    "sensitivity",
    "dimension",
    "memory",
    "controls",
    "control_deltas",
    "undisturbed",
    "preset",
)
"""Families whose answers have tables of their own."""


def drawn(asked: Callable[[str], Asked], *names: str) -> str:
    """Figures beside each other, of which there is one."""
    found = "".join(figure(STILL[name], asked(STILL[name].query)) for name in names)
    return f'<div class="figures">{found}</div>' if found else ""


def together(row: Row) -> str:
    """A combined verdict with its reason."""
    why = f" {text(row['reason'])}." if row["reason"] else ""
    return f"{badge(row['verdict'], negligible=row['negligible'])}{why}"


def named(head: str, field: str) -> Column:
    """A name that does not break at its hyphens."""
    return Column(head=head, show=lambda r: unbroken(r[field]), is_number=False)


def unbroken(value: object) -> str:
    """On one line.

    >>> unbroken("swap-a")
    '<span class="pair">swap-a</span>'
    """
    return f'<span class="pair">{text(value)}</span>'


def four(value: object) -> str:
    return signed(value, 4)


def channel(head: str = "channel") -> Column:
    return Column(head=head, show=lambda r: text(channel_name(str(r["channel"]))), is_number=False)


def ends(show: Callable[[object], str], low: str = "low", high: str = "high") -> Column:
    return Column(head="interval", show=lambda r: sense.ends(r[low], r[high], show))


DELTA_COLUMNS = (
    named("regime", "regime"),
    channel(),
    column("against the twin", "estimate", four),
    ends(four),
    column("in SD", "effect", lambda v: signed(v, 2)),
    column("p, Holm", "p_adjusted", p_value),
    column("against before", "before", four),
    ends(four, "before_low", "before_high"),
    column("p, Holm", "before_p", p_value),
    column("seeds", "n", number),
    column("why not", "reason", is_number=False),
)
"""Of a regime and channel: against its twin, and against the clean steps before."""


def deltas(asked: Callable[[str], Asked], scope: str) -> str:
    """How far each regime moves each channel, the charts around its windows, and a table."""
    found = asked(nano.deltas(scope))
    if not found.rows:
        return ""
    every = figures_of(asked)
    around = [
        name for name in every if name.startswith("perturbation/regime_") and not name.endswith("_update")
    ]
    charts = "".join(
        figure(every[name], asked(every[name].query))
        for name in ("perturbation/regime-deltas", "perturbation/regime-reactions", *around)
    )
    rows = _paired(found.rows)
    return (
        f"{_moved(rows)}<div class=figures>{charts}</div>"
        "<p class=note>Against the twin: the same steps without the window, so only the regime differs. "
        "Against the clean steps before, training itself moves channels too. Means over windows, then "
        "seeds; t intervals over seeds at the look's level; Holm over regimes and channels. The update "
        "around each window and how alike controls react are among the figures on disk.</p>"
        + folded(
            f"{len(rows)} differences in their units",
            table(rows, DELTA_COLUMNS, caption="Regimes by channel"),
        )
        + sql(found.sql)
    )


def look(asked: Callable[[str], Asked]) -> str:
    """At which of a plan's looks this is, and what error it may spend; nothing of a plan with one look."""
    plans, tests = asked(nano.LOOKS).rows, asked(nano.frozen(nano.MAIN)).rows
    spent = next((row["alpha"] for row in tests if row["hypothesis"] == "excess"), None)
    seeds = next((row["n"] for row in tests if row["hypothesis"] == "excess"), None)
    many = asked(nano.LOOKS).frame["looks"].explode().to_list() if plans else []
    if len(many) < 2 or spent is None:
        return ""
    alpha = text(plans[0]["alpha"])
    return (
        f" The plan has looks at {' and '.join(number(one) for one in many)} seeds; this one, of "
        f"{number(seeds)}, is judged at level {text(spent)} of {alpha} over both, and its intervals "
        "are at that level. The second look is taken where a gate asks for it."
    )


def published(asked: Callable[[str], Asked]) -> str:
    """Windows and strengths of the earlier version: which abut, what they move, are they told apart."""
    found, apart, contact = (asked(query) for query in (nano.PUBLISHED_DELTAS, nano.PUBLISHED, nano.CONTACT))
    if not (found.rows or contact.rows):
        return ""
    abut = [text(row["said"]) for row in contact.rows if row["said"]]
    told = (
        f"The plan asks for windows in contact: {'; '.join(abut)}. Against the steps before it has no number "
        "there, and its twin begins with what the window before it left."
        if abut
        else "No two of these windows abut."
    )
    columns = [
        named("regime", "regime"),
        sense.verdict(),
        column("AUC, common and state", "common_state", sense.share),
        ends(sense.share),
        column("state adds", "adds", sense.difference),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("why", "reason", is_number=False),
    ]
    rows = _paired(found.rows)
    every = figures_of(asked)
    chart = figure(every[PUBLISHED], found) if PUBLISHED in every and rows else ""
    whys = {str(row["reason"]) for row in found.rows if not row["channel"] or row["channel"] == "*"}
    return (
        f"<p>{told}</p>"
        + "".join(f"<p>No number: {text(why)}.</p>" for why in sorted(whys))
        + (f"{_moved(rows)}<div class=figures>{chart}</div>" if not whys else "")
        + table(apart.rows, columns, caption="Are published windows told apart")
        + "<p class=note>These verdicts stand beside the study's: they enter no gate, and are corrected "
        "among themselves.</p>"
        + sql(apart.sql)
        + sql(contact.sql)
        + folded(
            f"{len(rows)} differences in their units",
            table(rows, DELTA_COLUMNS, caption="Published windows by channel"),
        )
        + sql(found.sql)
    )


def _paired(rows: Sequence[Row]) -> list[Row]:
    """One row a regime and channel, the twin's with what is against the steps before beside it."""
    before = {(r["regime"], r["channel"]): r for r in rows if r["hypothesis"] == "against_before"}
    paired: list[Row] = []
    for row in rows:
        if row["hypothesis"] == "against_twin":
            other = before.get((row["regime"], row["channel"]), {})
            paired.append(
                {
                    **row,
                    "before": other.get("estimate"),
                    "before_low": other.get("low"),
                    "before_high": other.get("high"),
                    "before_p": other.get("p_adjusted"),
                    "reason": row["reason"] or other.get("reason"),
                }
            )
    return paired


def _moved(rows: Sequence[Row]) -> str:
    """Which channels each regime moves, in a sentence a regime."""
    said = []
    for regime in dict.fromkeys(str(row["regime"]) for row in rows):
        own = [row for row in rows if row["regime"] == regime]
        sure = [
            row
            for row in own
            if isinstance(row["p_adjusted"], float) and row["p_adjusted"] <= float(str(row["alpha"]))
        ]
        known = [row for row in own if isinstance(row["effect"], float)]
        most = max(known, key=lambda row: abs(float(str(row["effect"]))), default=None)
        names = ", ".join(channel_name(str(row["channel"])) for row in sure) or "no channel"
        largest = (
            f"; most in SD: {channel_name(str(most['channel']))}, {signed(most['effect'], 1)} "
            f"{sense.ends(most['low_sd'], most['high_sd'], lambda v: signed(v, 1))}"
            if most
            else ""
        )
        said.append(
            f"<li>{text(regime)} against its twin moves {text(names)} after Holm, of "
            f"{len(own)}{largest}.</li>"
        )
    return f"<ul>{''.join(said)}</ul>"


def reactions(found: Asked) -> str:
    """How every control reacts to every regime."""
    if not found.rows:
        return ""
    columns = [
        named("run", "arm"),
        named("regime", "regime"),
        channel(),
        column("against before", "estimate", four),
        ends(four),
        column("in SD", "effect", lambda v: signed(v, 2)),
        column("p, Holm", "p_adjusted", p_value),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    rows = table(found.rows, columns, caption="Windows minus the clean steps before, by run")
    rows += "<p class=note>Holm over the regimes and channels of a run.</p>"
    return folded(f"How controls react to regimes, {len(found.rows)} differences", rows + sql(found.sql))


def swap(found: Asked) -> str:
    """Losses with states of others."""
    if not found.rows:
        return ""
    words = {"frozen": "weights fixed", "continued": "trained on"}
    columns = [
        Column(head="what", show=lambda r: unbroken(words.get(str(r["hypothesis"]))), is_number=False),
        Column(head="state", show=lambda r: unbroken(str(r["state"]).replace("_", " ")), is_number=False),
        sense.verdict(),
        column("held-out loss − own, nats", "estimate", four),
        ends(four),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("margin", "margin", is_number=True),
        column("detectable", "mde", lambda v: number(v, 2)),
        column("why", "reason", is_number=False),
    ]
    fixed = {
        str(r["state"]): r for r in found.rows if r["hypothesis"] == "frozen" and r["estimate"] is not None
    }
    said = "; ".join(
        f"{name.replace('_', ' ')} {four(row['estimate'])} {sense.ends(row['low'], row['high'], four)}"
        for name, row in fixed.items()
    )
    told = f"<p>With weights fixed, another state costs, in nats: {said}.</p>" if said else ""
    return (
        told
        + "<p class=note>foreign: of the run with the same initial weights and data in another order; other "
        "init: of a run that shares no basis with it, the control; random: of the same norm. Trained on: "
        "at half time the state is replaced (patch: by zero, swapped: by the foreign one, random: of the own "
        "norm, other init: as it is) and training goes on.</p>"
        + table(found.rows, columns, caption="States put in the place of the own one")
        + sql(found.sql)
    )


def held_out(found: Asked) -> str:
    """Loss of every run with its speed."""
    if not found.rows:
        return ""
    columns = [
        named("run", "arm"),
        column("suite", "suite", is_number=False),
        column("held-out loss, nats", "loss", lambda v: number(v, 4)),
        ends(lambda v: number(v, 4)),
        column("SD over seeds", "sd", lambda v: number(v, 2)),
        column("seeds", "seeds", number),
        column("without result", "without", number),
        column("tokens a second", "tokens_per_second", number),
        column("seconds, all seeds", "seconds", seconds),
    ]
    return (
        table(found.rows, columns, caption="Every run, the lowest loss of a suite first")
        + "<p class=note>Tokens a second: those of twins count too, as their time does.</p>"
        + sql(found.sql)
    )


def failures(asked: Callable[[str], Asked]) -> str:
    """Runs and measurements that say nothing, and phases that were not run."""
    lost, unmeasured, skipped = asked(runs.FAILED), asked(runs.UNMEASURED), asked(runs.SKIPPED)
    run = [
        named("run", "arm"),
        column("suite", "suite", is_number=False),
        column("seed", "seed", number),
        column("why", "reason", is_number=False),
        column("steps logged", "steps_logged", number),
    ]
    measured = [
        column("what", "experiment", is_number=False),
        named("run", "arm"),
        column("seed", "seed", number),
        column("why", "reason", is_number=False),
    ]
    phase = [column("phase", "phase", is_number=False), column("why", "reason", is_number=False)]
    return (
        table(lost.rows, run, caption="Runs without a result")
        + sql(lost.sql)
        + (table(unmeasured.rows, measured, caption="Not measured") if unmeasured.rows else "")
        + table(skipped.rows, phase, caption="Skipped phases")
        + sql(skipped.sql)
    )


def others(found: Asked) -> str:
    """Every answer, folded by family."""
    if not found.rows:
        return ""
    return other_families(found.rows, SHOWN) + sql(found.sql, "SQL of every answer of this section")
