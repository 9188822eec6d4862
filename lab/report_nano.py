"""The report on the nanodesmo study: frozen test, signatures, memory, controls, and what they rest on.

Verdicts, p values and intervals come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lab import report_nano_parts as nano_parts
from lab import report_nano_signatures as nano_signatures
from lab import report_nano_state as nano_state
from lab import report_queries as queries
from lab import report_queries_nano as nano
from lab import report_queries_nano_runs as runs
from lab import report_sense_parts as sense
from lab.report_group import Asked, Group
from lab.report_markup import (
    NOTHING,
    Column,
    Row,
    badge,
    column,
    folded,
    number,
    p_value,
    signed,
    sql,
    table,
    text,
)

STEPS = queries.STEPS
MAIN_ARM = "self-analysis"
PUBLISHED_NATS = 0.3
METRICS = {
    "valid_loss_nats": "held-out loss, nats",
    "self_drift": "drift",
    "effect_kl_nats": "state effect, nats",
}
"""Metric of a memory in words."""


def is_about(group: Group) -> bool:
    """Whether the group is of the nanodesmo study."""
    return group.study == nano.STUDY


def answers(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """What was asked and what came of it; heading and content."""
    return [
        ("Does the state move predictions, weights fixed", frozen(asked, nano.MAIN)),
        ("Do regimes leave signatures in the state", nano_signatures.signatures(asked, nano.MAIN)),
        ("Does a memory change held-out loss", _memory(asked)),
        ("Does the state beat its controls", _controls(asked)),
    ]


def parts(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """Heading and content of what the answers rest on; empty where it has no rows."""
    return [
        ("What regimes move", nano_parts.deltas(asked, nano.MAIN)),
        ("Published windows and strengths", nano_parts.published(asked)),
        ("States put in the place of others", nano_parts.swap(asked(nano.SWAP))),
        ("State effect against loss and entropy, and alarms", nano_state.lead_lag(asked)),
        ("Composite metrics", nano_state.composite(asked)),
        ("What the state holds, and what moves it", nano_state.state(asked)),
        ("On a second text", second(asked)),
        ("Held-out loss", _held_out(asked)),
        ("Runs without a result, and phases that were skipped", nano_parts.failures(asked)),
        ("Other answers", nano_parts.others(asked(nano.EVERY))),
    ]


def nats(value: object) -> str:
    """A signed number of nats.

    >>> nats(-0.01234)
    '−0.0123'
    """
    return signed(value, 4)


BY_ARM = "Frozen test by arm: nats, SD of a batch, how many seeds are above .3 and would settle it"


def frozen(asked: Callable[[str], Asked], scope: str) -> str:
    """The frozen test: what was found, each seed, each state, other arms."""
    found = asked(nano.frozen(scope))
    if not found.rows:
        return ""
    of = {(row["hypothesis"], row["arm"], row["part"], row["metric"]): row for row in found.rows}
    name = "frozen-weight-test" if scope == nano.MAIN else "generalization/frozen-weight-test"
    arms = [str(row["arm"]) for row in found.rows if row["hypothesis"] == "excess"]
    columns = [
        nano_parts.named("arm", "arm"),
        column("effect", "effect", lambda v: number(v, 3)),
        column("rotated", "null", lambda v: number(v, 3)),
        column("beyond", "estimate", nats),
        Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], nats)),
        column("p, Fisher", "p", p_value),
        column("p, axes", "axis_p", p_value),
        column("in SD", "standardised", lambda v: number(v, 2)),
        column("> .3", "above", number),
        sense.verdict(),
        column("settles", "n_to_settle", number),
        column("why", "reason", is_number=False),
    ]
    return (
        f"<p>{_leverage(of)}{nano_parts.look(asked)}</p>{nano_parts.drawn(asked, name)}"
        + table([_arm(of, arm) for arm in dict.fromkeys(arms)], columns, caption=BY_ARM)
        + "<p class=note>Axes: whether single dimensions of the state are special, by rotating the state "
        f"instead. An earlier version of the study called an effect above {PUBLISHED_NATS} a success.</p>"
        + _seeds(found.rows)
        + _states(found.rows)
        + _presets(asked(nano.presets(scope)))
        + sql(found.sql)
    )


_Of = Mapping[tuple[object, object, object, object], Row]


def _get(of: _Of, hypothesis: str, arm: str, field: str) -> object:
    row = of.get((hypothesis, arm, None, "entropy_nats"))
    return None if row is None else row[field]


def _arm(of: _Of, arm: str) -> Row:
    """One arm's numbers in one row."""
    excess = of["excess", arm, None, "entropy_nats"]
    effect, beyond = _get(of, "published", arm, "estimate"), excess["estimate"]
    null = effect - beyond if isinstance(effect, float) and isinstance(beyond, float) else None
    return {
        **excess,
        "effect": effect,
        "null": null,
        "p": _get(of, "combined", arm, "p"),
        "axis_p": _get(of, "axis_alignment", arm, "p"),
        "standardised": _get(of, "standardised", arm, "estimate"),
        "above": _get(of, "published", arm, "statistic"),
    }


def _leverage(of: _Of) -> str:
    """The verdict and what it rests on, in sentences."""
    verdict = of.get(("leverage", "*", None, "entropy_nats"))
    if verdict is None:
        return "The frozen test has no verdict."
    mark = badge(verdict["verdict"], negligible=verdict["negligible"])
    if ("excess", MAIN_ARM, None, "entropy_nats") not in of or verdict["estimate"] is None:
        return f"{mark} No number: {text(verdict['reason'] or 'the arm was not tested')}."
    arm = _arm(of, MAIN_ARM)
    above, seeds = number(arm["above"]), number(verdict["n"])
    null, effect = arm["null"], arm["effect"]
    also = (
        " Rotated injections pass it on average, so it does not show that training made the injection "
        "special."
        if isinstance(null, float) and null > PUBLISHED_NATS
        else ""
    )
    settle = (
        f" About {number(verdict['n_to_settle'])} seeds would settle it."
        if verdict["verdict"] == "INCONCLUSIVE" and verdict["n_to_settle"]
        else ""
    )
    why = f" {text(verdict['reason'])}." if verdict["reason"] else ""
    return (
        f"{mark} Between the states that make the network most and least sure, entropy differs by "
        f"{number(effect, 3)} nats, mean of {seeds} seeds; through rotated injections by {number(null, 3)}. "
        f"Beyond them: {nats(verdict['estimate'])} {sense.ends(verdict['low'], verdict['high'], nats)} "
        f"nats, p {p_value(verdict['p'])} over seeds, margin {text(verdict['margin'])}.{settle}{why} The "
        f"earlier criterion, an effect above {PUBLISHED_NATS}, is met by {above} of {seeds} seeds.{also}"
    )


def _seeds(rows: Sequence[Row]) -> str:
    columns = [
        nano_parts.named("arm", "arm"),
        column("seed", "part", is_number=False),
        column("effect, nats", "estimate", lambda v: number(v, 3)),
        column("p against rotations", "p", p_value),
        column("rotations", "n", number),
        column("why not", "reason", is_number=False),
    ]
    own = [row for row in rows if row["hypothesis"] == "rotation"]
    return folded("Each seed", table(own, columns, caption="Effect and p by seed"))


def _states(rows: Sequence[Row]) -> str:
    """Entropy and largest probability by the state that is put in."""
    own = [row for row in rows if row["hypothesis"] == "state"]
    top1 = {(row["arm"], row["part"]): row for row in own if row["metric"] == "top1"}
    shown = [
        {**row, "top1": top1.get((row["arm"], row["part"]), {}).get("estimate")}
        for row in own
        if row["metric"] == "entropy_nats"
    ]
    columns = [
        column("state", "part", is_number=False),
        nano_parts.named("arm", "arm"),
        column("entropy, nats", "estimate", lambda v: number(v, 4)),
        Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], lambda v: number(v, 4))),
        column("top-1 probability", "top1", lambda v: number(v, 3)),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    main = [row for row in shown if row["arm"] == MAIN_ARM]
    rest = [row for row in shown if row["arm"] != MAIN_ARM]
    more = (
        folded("The same of other arms", table(rest, columns, caption="States of other arms")) if rest else ""
    )
    return (table(main, columns, caption="Predictions by the state put in") if main else "") + more


def _presets(found: Asked) -> str:
    """Whether states made to calm or to alarm do so."""
    if not found.rows:
        return ""
    own = [r for r in found.rows if r["arm"] in (MAIN_ARM, "checkpoint") and r["estimate"] is not None]
    said = "; ".join(
        f"{text(r['preset'])} {nats(r['estimate'])} {sense.ends(r['low'], r['high'], nats)} nats, as made in "
        f"{number(r['held'])} of {number(r['n'])} seeds"
        for r in own
    )
    columns = [
        column("preset", "preset", is_number=False),
        nano_parts.named("arm", "arm"),
        column("entropy − the other, nats", "estimate", nats),
        Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], nats)),
        column("seeds of the expected sign", "held", number),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    return (
        (f"<p>Presets, from a run's own states: {said}.</p>" if said else "")
        + folded("Presets by arm", table(found.rows, columns, caption="Presets: calm lowers, alarmed raises"))
        + sql(found.sql)
    )


TESTED = (
    Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], nats)),
    column("p", "p", p_value),
    column("p, Holm", "p_adjusted", p_value),
    column("p, equivalence", "tost_p", p_value),
)
"""Columns of a difference: where it may lie, and what its two tests say."""


def compared(found: Asked, caption: str, of: str) -> str:
    """Differences of held-out loss, then of other metrics."""
    columns = [
        nano_parts.named(of, "arm"),
        sense.verdict(),
        column("difference, nats", "estimate", nats),
        *TESTED,
        column("margin", "margin", is_number=True),
        column("detectable", "mde", lambda v: number(v, 2)),
        column("seeds to settle", "n_to_settle", number),
        column("seeds", "n", number),
        column("why", "reason", is_number=False),
    ]
    loss = [row for row in found.rows if row["role"] == "decides"] or found.rows
    rest = [row for row in found.rows if row not in loss]
    other = [
        Column(head="metric", show=lambda r: text(str(r["metric"]).replace("_", " ")), is_number=False),
        nano_parts.named(of, "arm"),
        column("difference", "estimate", nats),
        *columns[3:6],
        columns[-2],
        columns[-1],
    ]
    more = folded("Drift and state effect", table(rest, other, caption="Other metrics")) if rest else ""
    return table(loss, columns, caption=caption) + more + sql(found.sql)


def _verdict_of(asked: Callable[[str], Asked], hypothesis: str) -> str:
    """The combined verdict of a comparison."""
    own = [row for row in asked(nano.VERDICTS).rows if row["hypothesis"] == hypothesis]
    return "".join(f"<p>{nano_parts.together(row)}</p>" for row in own[:1])


def _memory(asked: Callable[[str], Asked]) -> str:
    found, summary = asked(nano.MEMORY), asked(runs.MEMORY_SUMMARY)
    if not found.rows and not any(str(row["arm"]).startswith("mem-") for row in summary.rows):
        return ""
    charts = nano_parts.drawn(
        asked,
        "memory/memory_decay_summary",
        "memory/memory_buffer_summary",
        "memory/memory-self_drift",
        "memory/memory-state_effect",
        "memory/memory-gate",
    )
    return (
        _verdict_of(asked, "memory_matters")
        + _best(found.rows, "memory minus none")
        + charts
        + compared(found, "Memory minus none, held-out loss", "memory")
        + _kinds(asked(nano.KINDS))
        + _shares(asked(nano.SHARES))
    )


def _kinds(found: Asked) -> str:
    """Buffers against the running mean: loss, drift and state effect."""
    if not found.rows:
        return ""
    columns = [
        nano_parts.named("pair", "pair"),
        Column(head="metric", show=lambda r: text(METRICS.get(str(r["metric"]))), is_number=False),
        sense.verdict(),
        column("difference", "estimate", nats),
        *TESTED,
        column("seeds", "n", number),
        column("why", "reason", is_number=False),
    ]
    return table(found.rows, columns, caption="Buffer minus running mean (EMA)") + sql(found.sql)


def _shares(found: Asked) -> str:
    """What share of an update a memory has."""
    if not found.rows:
        return ""
    columns = [
        nano_parts.named("memory", "arm"),
        column("share of the update", "estimate", sense.share),
        Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], sense.share)),
        column("seeds", "n", number),
        column("why not", "reason", is_number=False),
    ]
    note = (
        "<p class=note>Mean over all steps of g|mem| over (1 − g)|raw| + g|mem|. It cannot be below 0, so "
        "nothing is tested.</p>"
    )
    rows = table(found.rows, columns, caption="Share of the memory in the update") + note
    return folded("Share of the memory", rows + sql(found.sql))


def _best(rows: Sequence[Row], difference: str) -> str:
    """The largest difference, in a sentence."""
    known = [
        row
        for row in rows
        if row["role"] == "decides" and isinstance(row["estimate"], float) and row["low"] is not None
    ]
    if not known:
        return ""
    most = max(known, key=lambda row: abs(float(str(row["estimate"]))))
    return (
        f"<p>The largest difference, {difference}, is that of {text(most['arm'])}: {nats(most['estimate'])} "
        f"{sense.ends(most['low'], most['high'], nats)} nats; the margin is {text(most['margin'])}.</p>"
    )


def _controls(asked: Callable[[str], Asked]) -> str:
    found = asked(nano.CONTROLS)
    chart = nano_parts.drawn(asked, "controls/controls-comparison")
    if not found.rows and not chart:
        return ""
    return (
        _verdict_of(asked, "beats_controls")
        + _best(found.rows, "state minus control")
        + chart
        + compared(found, "Run with the state minus control, held-out loss", "control")
        + nano_parts.reactions(asked(nano.CONTROL_DELTAS))
    )


def _held_out(asked: Callable[[str], Asked]) -> str:
    """The state's run beside those without it, none disturbed, then every run."""
    found = asked(nano.UNDISTURBED)
    said = "; ".join(
        f"{text(r['arm'])} {nats(r['estimate'])} {sense.ends(r['low'], r['high'], nats)} "
        f"{badge(r['verdict'], negligible=r['negligible'])}"
        for r in found.rows
        if r["estimate"] is not None
    )
    beside = (
        (f"<p>Without any regime, held-out loss in nats: {said}.</p>" if said else "")
        + compared(found, "With the state minus without, held-out loss", "pair")
        if found.rows
        else ""
    )
    return beside + nano_parts.held_out(asked(runs.HELD_OUT))


def second(asked: Callable[[str], Asked]) -> str:
    """The same questions on the second text."""
    names = ("generalization/regime-reactions", "generalization/regime-deltas")
    body = (
        frozen(asked, nano.SECOND)
        + nano_signatures.signatures(asked, nano.SECOND)
        + nano_parts.drawn(asked, *names)
        + nano_state.second(asked(nano.SECOND_STATE))
    )
    if body:
        return body
    skipped = [row for row in asked(runs.SKIPPED).rows if row["phase"] == "generalization"]
    return "".join(f"<p>Not asked: {text(row['reason']) or NOTHING}.</p>" for row in skipped)
