"""What the sense study's answers rest on, as tables: killers, parts, sizes, verification, power, training.

Verdicts, p values and intervals come from the stored rows; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab import report_queries_sense as senses
from lab.report_figures import side_by_side
from lab.report_group import Asked
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
    signed,
    sql,
    table,
    text,
)

DIGITS = 3


def share(value: object) -> str:
    """A share of the items.

    >>> share(0.09453), share(1)
    ('0.095', '1.000')
    """
    return f"{value:.{DIGITS}f}".replace("-", "−") if isinstance(value, int | float) else text(value)


def difference(value: object) -> str:
    """A signed share of the items.

    >>> difference(-0.0267), difference(0.0)
    ('−0.027', '0.000')
    """
    return signed(value, DIGITS)


def ends(low: object, high: object, show: Callable[[object], str] = difference) -> str:
    """`[low, high]`; a dash without both."""
    return f"[{show(low)}, {show(high)}]" if low is not None and high is not None else NOTHING


def interval(
    head: str, low: str = "low", high: str = "high", show: Callable[[object], str] = difference
) -> Column:
    return Column(head=head, show=lambda r: ends(r[low], r[high], show))


def verdict(head: str = "verdict") -> Column:
    return Column(
        head=head,
        show=lambda r: badge(r["verdict"], negligible=r.get("negligible", False)),
        is_number=False,
    )


def mind(row: Row) -> str:
    """What it would take to say otherwise."""
    if row["reason"] and row["estimate"] is None:
        return f"an answer at all: {text(row['reason'])}"
    if row["verdict"] == "DETECTED":
        return "an interval that includes 0 on other seeds or lemmas"
    seen = f"; this design finds {share(row['mde'])}" if row["mde"] is not None else ""
    if row["verdict"] == "EQUIVALENT":
        return f"a difference beyond {text(row['margin'])} on other seeds or lemmas{seen}"
    if row["n_to_settle"] is not None:
        return f"about {text(row['n_to_settle'])} seeds would settle it{seen}"
    return f"{text(row['reason'] or 'more seeds or lemmas')}{seen}"


def killers(found: Asked, mined: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("condition", "arm", is_number=False),
        Column(head="seed", show=lambda r: text(r["seed"] or "mean of seeds"), is_number=False),
        column("top1", "estimate", share),
        interval("Wilson interval, 95 %", show=share),
        column("killers", "n", number),
        column("why not", "reason", is_number=False),
    ]
    kept = [
        column("items", "items", number),
        Column(head="what", show=lambda r: text(r["what"]), is_number=False),
    ]
    means = [row for row in found.rows if row["seed"] is None]
    whole = table(mined.rows, kept, caption="Items mined, and why the others are none") + sql(mined.sql)
    least = Column(head="worst seed, Wilson interval", show=lambda r: _killer_seed(found.rows, r, best=False))
    most = Column(head="best seed, Wilson interval", show=lambda r: _killer_seed(found.rows, r, best=True))
    answered = [columns[0], columns[2], least, most, columns[4], columns[5]]
    each = table(found.rows, columns, caption="Each seed")
    return (
        "<p class=note>Killers: what a head of another seed failed on lemmas held out of everything, without "
        "repeats and doubtful labels.</p>"
        + table(means, answered, caption="Killers answered, mean over seeds")
        + folded("Killers by seed, and how they were mined", each + whole)
        + sql(found.sql)
    )


def _killer_seed(rows: Sequence[Row], mean: Row, *, best: bool) -> str:
    """The seed of a condition that answers most or fewest, with its interval."""
    own = [r for r in rows if r["arm"] == mean["arm"] and r["seed"] and r["estimate"] is not None]
    if not own:
        return NOTHING
    one = (max if best else min)(own, key=lambda r: float(str(r["estimate"])))
    return f"{share(one['estimate'])} {ends(one['low'], one['high'], share)}"


def others(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("comparison", "family", is_number=False),
        Column(head="effect", show=_effect, is_number=False),
        verdict(),
        column("difference of top1", "estimate", difference),
        interval("interval"),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("n", "n", number),
        Column(head="what would change it", show=lambda r: mind(r) if r["verdict"] else "", is_number=False),
    ]
    return (
        "<p class=note>B − B-flat is what drawing hard bundles more often adds by itself, at the same "
        "bundles and updates. Holm within each comparison; interactions decide nothing.</p>"
        + table(found.rows, columns, caption="Parts by themselves", stack=True)
        + sql(found.sql)
    )


def _effect(row: Row) -> str:
    """A factor by its name; a contrast `B-B-flat` parted after its first arm."""
    name = str(row["contrast"])
    if row["family"] == "factorial" or "-" not in name:
        return text(name)
    first, second = _parted(name)
    return f'<span class="pair">{text(first)} − {text(second)}</span>'


def _parted(name: str) -> tuple[str, str]:
    """Arms of a contrast: each is a letter and perhaps a word after a hyphen.

    >>> _parted("B-B-flat"), _parted("B-rotated-B-unrotated"), _parted("B-template-B")
    (('B', 'B-flat'), ('B-rotated', 'B-unrotated'), ('B-template', 'B'))
    """
    words = name.split("-")
    at = next((k for k in range(1, len(words)) if words[k] in senses.CONDITIONS), 1)
    return "-".join(words[:at]), "-".join(words[at:])


def sizes(asked: Callable[[str], Asked]) -> str:
    found = asked(senses.SIZES)
    if not found.rows:
        return ""
    [first, *_] = found.rows
    if first["bundles"] is None:
        return f"<p>{badge(first['verdict'])} No curve: {text(first['reason'])}.</p>{sql(found.sql)}"
    columns = [
        column("arm", "arm", is_number=False),
        column("bundles", "bundles", number),
        column("top1", "estimate", share),
        interval("interval", show=share),
        column("by the law", "by_law", share),
        Column(head="law inside", show=lambda r: text(None if r["missed"] is None else not r["missed"])),
        column("seeds", "n", number),
    ]
    missed = sum(row["missed"] is True for row in found.rows)
    doubt = (
        f"<p>The law lies outside the interval at {missed} of {len(found.rows)} sizes, so it does not "
        "describe these points, and its interval for twice the data, which assumes the law, is too "
        "narrow.</p>"
        if missed
        else ""
    )
    why = f" {text(first['law_reason'])}." if first["law_reason"] else ""
    return (
        f"<p>{badge(first['verdict'])} Twice the data would add {difference(first['doubling'])} "
        f"{ends(first['doubling_low'], first['doubling_high'])} by the law; the margin is "
        f"{text(first['margin'])}. Exponent {share(first['exponent'])} "
        f"{ends(first['exponent_low'], first['exponent_high'], share)}, the law ends at "
        f"{share(first['asymptote'])} {ends(first['asymptote_low'], first['asymptote_high'], share)}."
        f"{why}</p>"
        f"{doubt}{side_by_side(asked, 'sizes')}"
        f"{table(found.rows, columns, caption='top1 of B cut to fewer senses')}"
        f"<p class=note>{text(first['method'])}.</p>{sql(found.sql)}"
    )


def verified(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("thresholds", "thresholds", is_number=False),
        Column(head="number", show=lambda r: text(str(r["name"]).replace("_", " ")), is_number=False),
        column("mean over heads", "mean", share),
        interval("least to most", "least", "most", share),
        column("heads", "heads", number),
        column("why not", "reason", is_number=False),
    ]
    return (
        "<p class=note>A new context is taken when its cosine to the original is at least the one threshold "
        "and exceeds that to the sibling senses by at least the other. Calibrated: largest Youden index on "
        "labelled contexts of dev, for each head; precision and recall are on other contexts.</p>"
        + table(found.rows, columns, caption="Verification by the heads of B")
        + sql(found.sql)
    )


def earlier(found: Asked) -> str:
    if not found.rows:
        return ""
    columns = [
        column("contrast", "contrast", contrast),
        column("difference of top1", "estimate", difference),
        interval("interval"),
        column("p, paired t", "p", p_value),
        column("n, seeds", "n", number),
        column("p &lt; .05 and above 0", "found", is_number=False),
        column("what three seeds ask for", "reason", is_number=False),
    ]
    return (
        "<p>A paired t test over the three published seeds, lemmas held fixed, uncorrected; it decides "
        "nothing here.</p>"
        f"{table(found.rows, columns, caption='The earlier rule', stack=True)}{sql(found.sql)}"
    )


def power(asked: Callable[[str], Asked]) -> str:
    found, spread = asked(senses.POWER), asked(senses.CONTRASTS)
    if not found.rows:
        return ""
    pairs = [
        Column(head=name.replace("-", " − "), show=lambda r, name=name: _pair(r, name))  # type: ignore[misc]
        for name in senses.CONTRASTS_SHOWN
    ]
    columns = [column("lemmas", "lemmas", number), column("seeds", "seeds", number), *pairs]
    each = [
        column("contrast", "contrast", contrast),
        column("SD of seeds", "sd_seed", share),
        column("SD of lemmas", "sd_lemma", share),
        column("SD within a cell", "sd_rest", share),
        column("detectable here", "mde", share),
        column("seeds for the margin", "n_to_settle", number),
    ]
    return (
        table(spread.rows, each, caption="Spread of each contrast")
        + sql(spread.sql)
        + "<p class=note>Below: the difference of top1 found with 80 % power, at alpha · at Holm's first "
        "step, from the variances above.</p>"
        + table(found.rows, columns, caption="Detectable difference by design")
        + sql(found.sql)
    )


def _pair(row: Row, name: str) -> str:
    return f"{share(row[f'{name} alone'])} · {share(row[f'{name} holm'])}"


def _loss(row: Row) -> str:
    """Loss of the kept state, with its spread over seeds."""
    if row["loss"] is None:
        return NOTHING
    return f"{share(row['loss'])} ({NOTHING if row['loss_sd'] is None else share(row['loss_sd'])})"


def training(asked: Callable[[str], Asked]) -> str:
    found = asked(senses.TRAINED)
    if not found.rows:
        return ""
    columns = [
        column("arm", "arm", is_number=False),
        column("seeds", "seeds", number),
        column("bundles", "bundles", number),
        column("texts", "texts", number),
        column("contexts taken", "accepted", number),
        column("of proposed", "proposed", number),
        column("best step, median", "best_step", number),
        column("steps to threshold, median", "steps_to_threshold", number),
        column("seeds that reach it", "reached", number),
        Column(head="loss, nats (SD over seeds)", show=_loss),
        column("parameters", "parameters", number),
        column("seconds a head", "seconds", number),
    ]
    rows = table(found.rows, columns, caption="Heads by arm, means over seeds")
    return f"{side_by_side(asked, 'learning')}{rows}{sql(found.sql)}"
