"""The parts of the report about the sense study: contrasts, blockers, baselines, tiers, sizes, checks.

Verdicts, p values and intervals come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import report_queries as queries
from lab import report_queries_sense as senses
from lab import report_sense_parts as sense
from lab.report_figures import side_by_side
from lab.report_group import Asked, Group
from lab.report_markup import (
    NOTHING,
    Column,
    Row,
    badge,
    column,
    contrast,
    folded,
    number,
    p_value,
    percent,
    sql,
    table,
    text,
)
from lab.report_tests import other_families

STEPS = queries.STEPS
BLOCKERS = {
    "ship": "all of them",
    "check": "check",
    "threshold": "reaches the threshold",
    "better_than_baseline": "beats every baseline, worst",
    "shortcut_at_chance": "shortcuts at chance, worst",
    "no_collapse": "SD of margins, least of the seeds",
    "tier1_non_inferior": "tier 1 no worse than control",
}
ASKS = {"low above": "interval above", "high below": "interval below", "estimate at least": "at least"}


def is_about(group: Group) -> bool:
    """Whether the group is of the sense study."""
    return group.study == "sense_scaling"


def answers(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """What was asked and what came of it; heading and content."""
    return [
        ("Do more, harder or enriched data help", contrasts(asked)),
        ("What may ship", _shipping(asked)),
        ("Against what has not learned", _ladder(asked)),
    ]


def parts(asked: Callable[[str], Asked]) -> list[tuple[str, str]]:
    """Heading and content of what the answers rest on; empty where it has no rows."""
    return [
        ("Where it fails", _failures(asked)),
        ("What each part adds", sense.others(asked(senses.OTHERS))),
        ("How much data", sense.sizes(asked)),
        ("Which new contexts are taken", sense.verified(asked(senses.VERIFIED))),
        ("By the rule of an earlier study", sense.earlier(asked(senses.EARLIER))),
        ("Power and spread", sense.power(asked)),
        ("Training", sense.training(asked)),
        ("Other answers", _rest(asked(queries.TESTS))),
    ]


def contrasts(asked: Callable[[str], Asked]) -> str:
    """Contrasts of the conditions, what would change them, and the conditions themselves."""
    found = asked(senses.CONTRASTS)
    charts = side_by_side(asked, "conditions", "margins")
    if not found.rows:
        path = asked(queries.PATH).rows
        last = f"{text(path[-1]['gate'])}: {text(path[-1]['sentence'])}" if path else "no gate was asked"
        return f"<p>None yet: conditions were not compared. {last}.</p>{charts}"
    columns = [
        column("contrast", "contrast", contrast),
        sense.verdict(),
        column("difference of top1", "estimate", sense.difference),
        sense.interval("interval"),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("p, equivalence", "tost_p", p_value),
        column("margin", "margin", is_number=True),
        column("n, seeds", "n", number),
        Column(head="what would change it", show=sense.mind, is_number=False),
    ]
    return (
        "<p class=note>Differences of the share of test items whose best candidate is a correct one, on the "
        "same seeds and items. Intervals and p: studentised bootstrap over seeds and lemmas, which are "
        "crossed; the wider of it and a t interval. Holm over these contrasts.</p>"
        f"{table(found.rows, columns, caption='Contrasts of conditions in top1', stack=True)}{sql(found.sql)}"
        f"{charts}{_elsewhere(asked, found)}"
    )


def _elsewhere(asked: Callable[[str], Asked], found: Asked) -> str:
    """The same contrasts by other tests and in other metrics; none of it decides."""
    others = [
        column("contrast", "contrast", contrast),
        sense.interval("percentiles", "plain_low", "plain_high"),
        column("p, paired t over seeds", "t_p", p_value),
        sense.interval("its interval", "t_low", "t_high"),
        sense.interval("equivalence interval", "tost_low", "tost_high"),
    ]
    metrics = asked(senses.SECONDARY)
    columns = [
        Column(head="metric", show=lambda r: text(str(r["metric"]).replace("_", " ")), is_number=False),
        column("contrast", "contrast", contrast),
        column("difference", "estimate", sense.difference),
        sense.interval("interval"),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("n", "n", number),
    ]
    return folded(
        "The same by other tests and in other metrics, which decide nothing",
        table(found.rows, others, caption="Percentiles and paired t")
        + table(metrics.rows, columns, caption="Other metrics")
        + sql(metrics.sql),
    )


def _shipping(asked: Callable[[str], Asked]) -> str:
    found, each = asked(senses.BLOCKERS), asked(senses.EACH_BLOCKER)
    if not found.rows:
        return ""
    columns = [
        column("condition", "condition", is_number=False),
        Column(head="blocker", show=_blocker, is_number=False),
        sense.verdict(),
        Column(head="found", show=lambda r: _of_blocker(r, r["estimate"])),
        Column(head="interval", show=lambda r: sense.ends(r["low"], r["high"], lambda v: _of_blocker(r, v))),
        Column(head="asks", show=_asks, is_number=False),
        Column(head="hold", show=lambda r: f"{text(r['held'])} of {text(r['of'])}"),
        column("n", "n", number),
        column("why", "reason", is_number=False),
    ]
    rows = [row for row in found.rows if row["blocker"] != "ship"]
    full = [
        *columns[:6],
        column("p", "p", p_value),
        column("n", "n", number),
        column("method", "method", is_number=False),
        column("why", "reason", is_number=False),
    ]
    return (
        "".join(f"<p>{_ships(row, found.rows)}</p>" for row in found.rows if row["blocker"] == "ship")
        + side_by_side(asked, "contingency")
        + "<p class=note>The mean over seeds is judged, its interval printed. DETECTED: the blocker holds. "
        "Of several comparisons the worst stands here. n: seeds; of shortcuts lemmas.</p>"
        + table(rows, columns, caption="Blockers by condition, on test")
        + sql(found.sql)
        + folded(
            f"Every one of {len(each.rows)} comparisons with baselines and shortcuts",
            table(each.rows, full, caption="Each comparison") + sql(each.sql),
        )
    )


def _ships(row: Row, rows: Sequence[Row]) -> str:
    """The verdict on a condition, what it reached of what was asked, and what is missing."""
    said = {"DETECTED": "may ship: every blocker holds", "INVALID": "is not to be judged"}
    why = f": {text(row['reason'])}" if row["reason"] else ""
    own = [one for one in rows if one["condition"] == row["condition"] and one["blocker"] == "threshold"]
    reached = ", ".join(
        f"{text(one['metric'])} {sense.share(one['estimate'])} of {text(one['threshold'])}" for one in own
    )
    lacking = ", ".join(
        f"{sense.share(float(str(one['threshold'])) - float(str(one['estimate'])))} of {text(one['metric'])}"
        for one in own
        if one["verdict"] == "INCONCLUSIVE" and one["estimate"] is not None
    )
    takes = f" To pass it would take a further {lacking}." if lacking else ""
    found = said.get(str(row["verdict"]), "does not ship")
    return f"{badge(row['verdict'])} {text(row['condition'])} {found}{why}. Reached: {reached}.{takes}"


def _blocker(row: Row) -> str:
    name = BLOCKERS.get(str(row["blocker"]), str(row["blocker"]).replace("_", " "))
    against = f" ({text(row['against'])})" if row["against"] else ""
    metric = "" if row["blocker"] == "no_collapse" else f"{text(row['metric'])}: "
    return f"{metric}{text(name)}{against}"


def _of_blocker(row: Row, value: object) -> str:
    """Differences are signed, shares and spreads are not."""
    plain = row["blocker"] in ("threshold", "no_collapse")
    return sense.share(value) if plain else sense.difference(value)


def _asks(row: Row) -> str:
    if not row["asks"]:
        return NOTHING
    return f"{ASKS[str(row['asks'])]} {float(str(row['threshold'])):g}".replace("-", "−")


def _ladder(asked: Callable[[str], Asked]) -> str:
    found = asked(senses.BASELINES)
    if not found.rows:
        return ""
    columns = [
        Column(head="scorer", show=lambda r: text(str(r["scorer"]).replace("_", " ")), is_number=False),
        column("kind", "kind", is_number=False),
        column("top1", "top1", sense.share),
        sense.interval("interval", show=sense.share),
        column("top3", "top3", sense.share),
        column("coherence", "coherence", sense.share),
        sense.interval("interval", "coherence_low", "coherence_high", sense.share),
        column("of the ceiling", "of_ceiling", percent),
        column("seeds", "seeds", number),
    ]
    return (
        side_by_side(asked, "scorers")
        + "<p class=note>Coherence: share of steps of 2-3 contexts whose sense is decided rightly, by the "
        "nearest prototype among the lemma's senses. The ceiling is a scorer that knows the topic of every "
        "word; what it misses, no head can be expected to find.</p>"
        + table(found.rows, columns, caption="Every scorer on the same test items")
        + sql(found.sql)
    )


def _failures(asked: Callable[[str], Asked]) -> str:
    tiers, counts, items = asked(senses.TIERS), asked(senses.FAILING), asked(senses.HARDEST)
    if not (tiers.rows or counts.rows):
        return ""
    columns = [
        column("tier", "tier", is_number=False),
        column("condition", "arm", is_number=False),
        column("top1", "estimate", sense.share),
        sense.interval("interval", show=sense.share),
        column("lost to the tier before", "lost", sense.difference),
        sense.interval("its interval", "lost_low", "lost_high"),
        column("p", "lost_p", p_value),
        column("n", "n", number),
    ]
    each = [
        column("tier", "tier", is_number=False),
        column("items", "items", number),
        column("below rank 3 in every seed", "failed", number),
        column("share", "share", percent),
        column("first in every seed", "answered", number),
        column("median rank", "middle_rank", number),
        column("mean margin", "margin", sense.difference),
    ]
    hardest = [
        Column(head="item", show=lambda r: f"<code>{text(r['item'])}</code>", is_number=False),
        column("tier", "tier", is_number=False),
        column("lemma", "lemma", is_number=False),
        Column(head="ranks", show=lambda r: f"{text(r['best'])} to {text(r['worst'])}"),
        column("median", "middle", number),
        column("mean margin", "margin", sense.difference),
        column("seeds", "seeds", number),
    ]
    return (
        f"{_worst(counts.rows)}{side_by_side(asked, 'tiers', 'attention')}"
        + table(tiers.rows, columns, caption="top1 by tier and condition")
        + sql(tiers.sql)
        + table(counts.rows, each, caption=f"Items that every seed of {senses.MAIN} fails, by tier")
        + sql(counts.sql)
        + table(items.rows, hardest, caption=f"Of those, the {senses.MOST_ITEMS} lost by the most")
        + sql(items.sql)
        + sense.killers(asked(senses.KILLERS), asked(senses.MINED))
    )


def _worst(rows: Sequence[Row]) -> str:
    """Which tier fails most, in a sentence."""
    failing = [row for row in rows if isinstance(row["share"], float) and row["failed"]]
    if not failing:
        return f"<p>No item is below rank 3 in every seed of {senses.MAIN}.</p>" if rows else ""
    most = max(failing, key=lambda row: float(str(row["share"])))
    return (
        f"<p>Tier {text(most['tier'])} fails most: {text(most['failed'])} of its {text(most['items'])} items "
        f"are below rank 3 in every seed of {senses.MAIN}.</p>"
    )


def _rest(found: Asked) -> str:
    if not found.rows:
        return ""
    return other_families(found.rows, ()) + sql(found.sql, "SQL of every answer of this section")
