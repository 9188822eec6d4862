"""The parts of the report about placed ranks: scenario, contrasts, arms, audits, checks, spread.

Verdicts, p values and the scenario come from the stored rows; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import report_queries as queries
from lab import report_queries_mechanism as placed
from lab.report_figures import side_by_side
from lab.report_group import Asked, Group
from lab.report_markup import (
    Column,
    Row,
    badge,
    column,
    contrast,
    effect,
    folded,
    interval,
    number,
    p_value,
    percent,
    signed,
    sql,
    table,
    text,
)
from lab.report_tests import other_families
from lab.report_units import ITEMS

STEPS = queries.STEPS
DIGITS = ITEMS.digits


def is_about(group: Group) -> bool:
    """Whether the group's study compares shares of items answered."""
    return group.units is ITEMS


def answers(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """What was asked and what came of it; heading and content."""
    return [
        ("Scenario", _scenario(asked)),
        ("Placed ranks against each control", _contrasts(asked)),
        ("Arms", _arms(asked)),
    ]


def parts(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """Heading and content of what the answers rest on; empty where it has no rows."""
    return [
        ("Where ranks are used, and where they go", _audits(asked)),
        ("Are probe, controls and arms fit to be compared", _checks(asked)),
        ("What varies", _spread(asked(placed.SPREAD))),
        ("Other answers", _others(asked(queries.TESTS))),
    ]


def share(value: object) -> str:
    """A share of the items, with as many decimals as a hundredth of the margin needs.

    >>> share(0.09453), share(0.5)
    ('0.0945', '0.5000')
    """
    return f"{value:.{DIGITS}f}" if isinstance(value, float) else text(value)


def difference(value: object) -> str:
    """A signed share of the items.

    >>> difference(-0.0265), difference(0.0)
    ('−0.0265', '0.0000')
    """
    return signed(value, DIGITS)


def _ends(low: object, high: object) -> str:
    return interval(low, high, digits=DIGITS)


def _scenario(asked: Callable[[str], Asked]) -> str:
    """The scenario in a sentence, what it rests on, and the earlier rule beside it."""
    found = asked(placed.SCENARIO)
    if not found.rows:
        path = asked(queries.PATH)
        if not path.rows:
            return ""
        last = path.rows[-1]
        return f"<p>None yet: arms were not compared. {text(last['gate'])}: {text(last['sentence'])}.</p>"
    [row] = found.rows
    verdict = badge(row["verdict"], negligible=row["negligible"])
    said = f"{text(str(row['scenario']).capitalize())}. {text(str(row['said']).rstrip('.'))}."
    return (
        f"<p>{verdict} {said}</p><p>{_size(row)}</p>"
        f"<p class=note>{_what_would_settle(row)}</p>"
        f"{sql(found.sql)}{_earlier(asked(placed.EARLIER), row)}"
    )


def _size(row: Row) -> str:
    alpha = row["alpha"]
    level = f"{100 * (1 - alpha):.4g} % interval " if isinstance(alpha, float) else "interval "
    return (
        f"Placed minus shuffled within projections: {difference(row['estimate'])} of the items, {level}"
        f"{_ends(row['low'], row['high'])}, {text(row['n'])} seeds, p {p_value(row['p'])}, adjusted "
        f"{p_value(row['p_adjusted'])}, {badge(row['decided'])}; the margin is ±{text(row['margin'])}."
    )


def _what_would_settle(row: Row) -> str:
    mde, seeds = row["mde"], row["n_to_settle"]
    seen = f"This design finds a difference of {share(mde)} with 80 % power." if mde is not None else ""
    settle = f" About {text(seeds)} seeds would settle it." if seeds is not None else ""
    why = f" {text(row['reason'])}." if row["reason"] else ""
    return f"{seen}{settle}{why}"


def _earlier(found: Asked, row: Row) -> str:
    """The earlier study's two criteria, with both readings of d."""
    columns = [
        column("criterion", "criterion", is_number=False),
        column("contrast", "contrast", contrast),
        column("asks for", "asked", is_number=False),
        Column(head="difference", show=lambda r: difference(r["estimate"])),
        Column(head="interval", show=lambda r: _ends(r["low"], r["high"])),
        column("p, paired t", "p", p_value),
        column("d pooled", "d_pooled", effect),
        column("d_z", "d_z", effect),
        Column(head="found", show=_found, is_number=False),
    ]
    criteria = [one for one in found.rows if one["criterion"] != "legacy_scenario"]
    return (
        f"<p>By the rule of an earlier study, on the same answers: {text(row['earlier'])}. S1: both criteria "
        "hold; S2: only superiority; S3: neither; only the mechanism is not covered by that rule.</p>"
        f"{table(criteria, columns, caption='The earlier rule, uncorrected', stack=True)}{sql(found.sql)}"
    )


def _found(row: Row) -> str:
    return f"{text(row['found'])}: {text(row['reason'])}" if row["reason"] else text(row["found"])


def _arms(asked: Callable[[str], Asked]) -> str:
    found = asked(placed.ARMS)
    if not found.rows:
        return ""
    columns = [
        column("arm", "arm", is_number=False),
        Column(head="strict", show=lambda r: _with_sd(r, "strict")),
        Column(head="interval", show=lambda r: _plain_ends(r)),
        Column(head="flexible", show=lambda r: _with_sd(r, "flexible")),
        Column(head="numeric", show=lambda r: _with_sd(r, "numeric")),
        Column(head="nats a token", show=lambda r: _with_sd(r, "nats_a_token")),
        column("parameters", "parameters", number),
        Column(head="per_layer minus it", show=lambda r: difference(r["placed_minus"])),
        column("seeds", "seeds", number),
    ]
    if any(row["reason"] for row in found.rows):
        columns.append(column("missing", "reason", is_number=False))
    rows = table(found.rows, columns, caption="Arms: share of items right, mean (SD over seeds)")
    return (
        f"{side_by_side(asked, 'accuracy', 'shuffles', 'cost')}{rows}"
        "<p class=note>A seed's shuffles within projections enter as their mean. Interval: 95 %, t over "
        "seeds. nats a token: loss on the reference answers.</p>"
        f"{sql(found.sql)}"
    )


def _with_sd(row: Row, name: str) -> str:
    if row[name] is None:
        return text(None)
    sd = row[f"{name}_sd"]
    return f"{share(row[name])} ({share(sd)})" if sd is not None else share(row[name])


def _plain_ends(row: Row) -> str:
    """Ends without a sign: these are shares, not differences."""
    if row["low"] is None:
        return text(None)
    return f"[{share(row['low'])}, {share(row['high'])}]".replace("-", "−")


def _contrasts(asked: Callable[[str], Asked]) -> str:
    found = asked(placed.CONTRASTS)
    if not found.rows:
        return ""
    columns = [
        column("contrast", "contrast", contrast),
        Column(
            head="verdict",
            show=lambda r: badge(r["verdict"], negligible=r["negligible"]),
            is_number=False,
        ),
        Column(head="estimate", show=lambda r: difference(r["estimate"])),
        Column(head="interval", show=lambda r: _ends(r["low"], r["high"])),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("p, equivalence", "tost_p", p_value),
        Column(head="its interval", show=lambda r: _ends(r["tost_low"], r["tost_high"])),
        column("margin", "margin", is_number=True),
        column("n", "n", number),
    ]
    others = [
        column("contrast", "contrast", contrast),
        Column(head="bootstrap, seeds and items", show=lambda r: _ends(r["boot_low"], r["boot_high"])),
        column("p, paired t", "t_p", p_value),
        column("rank among its controls", "rank_share", number),
        column("p, ranks", "rank_p", p_value),
    ]
    return (
        "<p class=note>The first decides the scenario. p: exact sign flips of the seeds' differences; Holm "
        "over these contrasts. The probe spends more parameters, so only a loss beyond its margin is "
        "tested, one-sided.</p>"
        f"{table(found.rows, columns, caption='Declared contrasts, shares of items answered', stack=True)}"
        + _reasons(found.rows, "reason")
        + folded(
            "The same by other tests, which decide nothing",
            table(found.rows, others, caption="Bootstrap, paired t and ranks"),
        )
        + sql(found.sql)
        + _endpoints(asked(placed.ENDPOINTS))
    )


def _reasons(rows: Sequence[Row], name: str) -> str:
    """Each reason once, with the contrasts that it is said of."""
    of: dict[str, list[str]] = {}
    for row in rows:
        if row[name]:
            of.setdefault(str(row[name]), []).append(str(row["contrast"]))
    whole = len(rows)
    said = (
        f"{'All' if len(names) == whole else ', '.join(map(contrast, names))}: {text(reason)}."
        for reason, names in of.items()
    )
    return "".join(f"<p class=note>{one}</p>" for one in said)


def _endpoints(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("contrast", "contrast", contrast),
        Column(head="measure", show=lambda r: text(str(r["metric"]).replace("_", " ")), is_number=False),
        Column(head="estimate", show=lambda r: difference(r["estimate"])),
        Column(head="interval", show=lambda r: _ends(r["low"], r["high"])),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("n", "n", number),
    ]
    body = table(found.rows, columns, caption="Contrasts by measure") + sql(found.sql)
    note = "<p class=note>Losses have their sign turned, so that above 0 the placement is better.</p>"
    return folded("The contrasts in other measures, which decide nothing", note + body)


def _audits(asked: Callable[[str], Asked]) -> str:
    found = asked(placed.AUDITS)
    charts = side_by_side(asked, "ranks", "spectra", "stability")
    if not found.rows:
        return charts
    kinds = [row for row in found.rows if row["grouping"] in ("all", "kind", "projection")]
    layers = [row for row in found.rows if row["grouping"] == "layer"]
    return charts + folded(
        "The probe's audit summed up, by kind of module and by layer",
        "<p class=note>Means over seeds of the median and 90 % quantile over modules. Gain: squared "
        "Frobenius norm of the update; HHI: its concentration within the group, 1 over the number of modules "
        "when even, 1 when in one module.</p>"
        + _summed(kinds, "By kind and projection")
        + _summed(layers, "By layer")
        + sql(found.sql),
    )


def _summed(rows: Sequence[Row], caption: str) -> str:
    def pair(head: str, name: str) -> Column:
        def shown(row: Row) -> str:
            return f"{number(row[f'{name}_median'])} · {number(row[f'{name}_p90'])}"

        return Column(head=head, show=shown)

    columns = [
        column("modules", "modules", is_number=False),
        pair("stable rank, median · p90", "stable_rank"),
        pair("effective rank", "effective_rank"),
        pair("rank of 90 % energy", "energy_rank_90"),
        pair("update over weight, spectral", "udr_spectral"),
        column("share of gain", "gain_share", percent),
        column("HHI of gain", "gain_hhi", number),
        column("seeds", "seeds", number),
    ]
    return table(rows, columns, caption=caption)


def _checks(asked: Callable[[str], Asked]) -> str:
    found, numbers = asked(placed.CHECKS), asked(placed.CHECKED)
    if not found.rows:
        return ""
    columns = [
        column("check", "checked", is_number=False),
        Column(head="verdict", show=lambda r: badge(r["verdict"]), is_number=False),
        Column(head="number", show=_checked_number),
        column("seeds", "n", number),
        column("findings", "findings", is_number=False),
    ]
    each = [
        column("check", "checked", is_number=False),
        column("number", "number", is_number=False),
        column("arm", "arm", is_number=False),
        Column(head="mean", show=lambda r: number(r["mean"])),
        Column(head="least", show=lambda r: number(r["least"])),
        Column(head="most", show=lambda r: number(r["most"])),
        column("measured", "measured", number),
        column("of adapters", "adapters", number),
    ]
    broken = any(row["verdict"] != "DETECTED" for row in found.rows)
    return (
        "<p class=note>DETECTED: every check holds. Numbers: what the probe answers beyond the base (share "
        "of items); the largest share of modules to which a shuffle gives the placement's own rank; the "
        "largest difference of a budget from the placement's.</p>"
        f"{table(found.rows, columns, caption='Checks before any comparison', stack=True)}{sql(found.sql)}"
        + folded(
            "Each number by arm",
            table(numbers.rows, each, caption="Checked numbers over seeds and shuffles") + sql(numbers.sql),
            is_open=broken,
        )
    )


def _checked_number(row: Row) -> str:
    shown = {"probe": difference, "controls": percent, "fair": percent}
    return shown.get(str(row["checked"]), number)(row["estimate"])


def _spread(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("contrast", "contrast", contrast),
        Column(head="SD, differences", show=lambda r: share(r["sd_difference"])),
        Column(head="SD, seeds", show=lambda r: share(r["sd_seed"])),
        Column(head="SD, shuffles", show=lambda r: _or_why(r["sd_shuffle"], r["no_shuffle"])),
        Column(head="SD, items", show=lambda r: share(r["sd_item"])),
        column("d_z", "d_z", effect),
        column("d pooled", "d_pooled", effect),
        Column(head="detectable", show=lambda r: share(r["mde"])),
        Column(head="after Holm", show=lambda r: share(r["mde_after_holm"])),
        column("seeds to settle", "n_to_settle", number),
    ]
    note = (
        "<p class=note>Shares of items. Differences: of the seeds. Seeds: beyond shuffles and items. Items: "
        "paired differences of single items. Detectable: with 80 % power by a t test at these seeds, and by "
        "sign flips at Holm's first step.</p>"
    )
    rows = table(found.rows, columns, caption="Spread and reach of each contrast")
    return note + rows + _reasons(found.rows, "no_mde") + sql(found.sql)


def _or_why(value: object, reason: object) -> str:
    return share(value) if value is not None else f"<span class=note>{text(reason)}</span>"


def _others(found: Asked) -> str:
    if not found.rows:
        return ""
    return other_families(found.rows, ()) + sql(found.sql, "SQL of every answer of this section")
