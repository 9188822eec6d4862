"""The tables of statistical answers, each under the name of what it asks and what it may decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from lab.report_markup import (
    NOTHING,
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
    table,
    text,
)

NOTES: Mapping[str, tuple[str, str]] = {
    "sharp_null": (
        "Sharp null",
        "Asks whether the source has no effect on any text of any prompt, which is more than no mean effect. "
        "It can reject while the mean effect is 0, so it decides nothing.",
    ),
    "legacy": (
        "Legacy view",
        "Paired tests on prompt means as earlier work reported them, for comparison. Observed power is a "
        "function of p alone. None of it decides.",
    ),
    "seed_sources": (
        "Seeds of the sources",
        "Whether the 32-bit seeds look uniform, and whether two sources differ. Rows on single tests are "
        "diagnostic; the omnibus of each source and the pairs decide.",
    ),
    "data_processing_bound": (
        "Data-processing bound",
        "The largest difference of means that the seeds could cause if the text is a function of the seed, "
        "from the declared distributions, not from data.",
    ),
    "integrity": (
        "Integrity",
        "Missing texts, equal texts over different seeds, and repeats of one seed. Shares with 95 % Wilson "
        "intervals.",
    ),
}
"""Family -> its name and what it is, for families whose name says too little."""


def effects_table(rows: Sequence[Row], caption: str) -> str:
    """Contrasts with both answers side by side: does it exclude 0, is it inside the margin."""
    columns = [
        Column(head="metric", show=lambda r: text(r["metric"]), is_number=False),
        column("contrast", "contrast", contrast),
        column("effect, SD", "effect", effect),
        Column(head="interval", show=lambda r: interval(r["low_sd"], r["high_sd"])),
        column("p, Tukey", "p_adjusted", p_value),
        column("p, equivalence", "tost_p", p_value),
        Column(head="says", show=_says, is_number=False),
        column("power", "power", percent),
        column("detectable", "mde", number),
        column("texts", "n", number),
        column("role", "role", is_number=False),
    ]
    return table(rows, columns, caption=caption)


def _says(row: Row) -> str:
    if row["reason"]:
        return text(row["reason"])
    parts = ["excludes 0"] if row["excludes_zero"] else []
    parts += ["inside margin"] if row["inside_margin"] else []
    return f'<span class="pair">{", ".join(parts) or "neither"}</span>'


def omnibus_table(rows: Sequence[Row], family: str) -> str:
    """F tests over all sources, primary and secondary metrics."""
    mine = [r for r in rows if r["hypothesis"] == "omnibus" and str(r["family"]).startswith(family)]
    columns = [
        column("metric", "metric", is_number=False),
        column("F", "statistic", number),
        Column(head="df", show=_freedom),
        column("p", "p", p_value),
        column("p, Holm", "p_adjusted", p_value),
        column("alpha", "alpha", lambda v: number(v, 2)),
        column("texts", "n", number),
        column("role", "role", is_number=False),
        Column(head="method", show=_method, is_number=False),
    ]
    main = [r for r in mine if r["role"] != "diagnostic"]
    checks = [r for r in mine if r["role"] == "diagnostic"]
    return table(main, columns, caption="Omnibus tests: any difference between the sources") + folded(
        f"{len(checks)} checks on these tests", table(checks, columns, caption="The same by other formulas")
    )


def _freedom(row: Row) -> str:
    ends = [f"{row[name]:.4g}" for name in ("df1", "df2") if row[name] is not None]
    return ", ".join(ends) or NOTHING


def _method(row: Row) -> str:
    return f"{text(row['method'])}: {text(row['reason'])}" if row["reason"] else text(row["method"])


def other_families(rows: Sequence[Row], shown: Sequence[str]) -> str:
    """Every family that has no table of its own above, folded, so that nothing recorded is hidden."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["family"] not in shown:
            families[str(row["family"])].append(row)
    drawn: Mapping[str, Callable[[Sequence[Row]], str]] = {"legacy": _legacy, "sharp_null": _sharp}
    parts = []
    for family in sorted(families, key=lambda f: (list(NOTES).index(f) if f in NOTES else len(NOTES), f)):
        name, note = NOTES.get(family, (family.replace("_", " "), ""))
        body = drawn.get(family, _plain)(families[family])
        head = f"{text(name)} <span class=note>{len(families[family])} answers</span>"
        about = f"<p class=note>{note}</p>" if note else ""
        parts.append(folded(head, about + body, is_open=family == "sharp_null"))
    return "".join(parts)


def _plain(rows: Sequence[Row]) -> str:
    head = [r for r in rows if r["role"] == "verdict"] + [r for r in rows if r["role"] == "decides"]
    rest = [r for r in rows if r["role"] not in ("verdict", "decides")]
    columns = [
        column("asks", "hypothesis", is_number=False),
        column("metric", "metric", is_number=False),
        column("of", "contrast", contrast),
        column("estimate", "estimate", number),
        Column(head="interval", show=_plain_interval),
        column("p", "p", p_value),
        column("p, adjusted", "p_adjusted", p_value),
        column("n", "n", number),
        Column(head="says", show=_role, is_number=False),
        Column(head="method", show=_method, is_number=False),
    ]
    if not head or len(rest) < 12:
        return table([*head, *rest], columns, caption="Answers")
    return table(head, columns, caption="Answers that decide") + folded(
        f"{len(rest)} diagnostic answers", table(rest, columns, caption="Diagnostic answers")
    )


def _role(row: Row) -> str:
    return badge(row["verdict"]) if row["verdict"] else text(row["role"])


def _plain_interval(row: Row) -> str:
    if row["low"] is None and row["high"] is None:
        return NOTHING
    if row["low"] is None:
        return f"≤ {number(row['high'])}"
    return f"[{number(row['low'])}, {number(row['high'])}]"


def _by_pair(rows: Sequence[Row], key: str) -> list[dict[str, Row]]:
    """One mapping a metric and contrast: value of `key` -> row."""
    pairs: dict[tuple[object, object], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        pairs[row["metric"], row["contrast"]][str(row[key])] = row
    return list(pairs.values())


def _sharp(rows: Sequence[Row]) -> str:
    columns = [
        column("metric", "metric", lambda v: "all primary" if v == "*" else text(v), is_number=False),
        column("contrast", "contrast", contrast),
        column("effect, SD", "effect", effect),
        column("p", "p", p_value),
        column("p, max-T", "p_adjusted", p_value),
        column("n", "n", number),
    ]
    if any(row["reason"] for row in rows):
        columns.append(column("why not", "reason", is_number=False))
    return table(rows, columns, caption="Label permutations within prompt")


def _legacy(rows: Sequence[Row]) -> str:
    old = [r for r in rows if r["hypothesis"] != "mixed_vs_paired"]
    mixed = [r for r in rows if r["hypothesis"] == "mixed_vs_paired"]
    return _old_tests(old) + (_mixed(mixed) if mixed else "")


def _old_tests(rows: Sequence[Row]) -> str:
    def part(head: str, hypothesis: str, name: str, show: Callable[[object], str]) -> Column:
        return Column(head=head, show=lambda r: show(_field(r, hypothesis, name)))

    columns = [
        Column(head="metric", show=lambda r: text(_field(r, "paired_t", "metric")), is_number=False),
        Column(head="contrast", show=lambda r: contrast(_field(r, "paired_t", "contrast")), is_number=False),
        part("difference", "paired_t", "estimate", number),
        part("p, paired t", "paired_t", "p", p_value),
        part("p, BH", "paired_t", "p_adjusted", p_value),
        part("p, Wilcoxon", "wilcoxon", "p", p_value),
        part("d_z", "d_z", "estimate", effect),
        part("observed power", "observed_power", "estimate", percent),
        part("detectable d_z", "detectable_d_z", "estimate", number),
        part("% difference", "percent_difference", "estimate", effect),
    ]
    return table(_by_pair(rows, "hypothesis"), columns, caption="Paired tests on prompt means")


def _mixed(rows: Sequence[Row]) -> str:
    """Which model rejects; the method column of the rows names the model."""
    methods = [m for m in dict.fromkeys(str(r["method"]) for r in rows) if m != "label"]
    columns = [
        Column(head="metric", show=lambda r: text(next(iter(r.values()))["metric"]), is_number=False),  # type: ignore[index]
        Column(head="contrast", show=lambda r: contrast(next(iter(r.values()))["contrast"]), is_number=False),  # type: ignore[index]
        *(
            Column(head=f"p, {text(m)}", show=lambda r, m=m: p_value(_field(r, m, "p")))  # type: ignore[misc]
            for m in methods
        ),
        Column(head="together", show=lambda r: text(_field(r, "label", "reason")), is_number=False),
    ]
    return table(_by_pair(rows, "method"), columns, caption="Mixed models against the paired t test")


def _field(row: Row, key: str, name: str) -> object:
    found = row.get(key)
    return found.get(name) if isinstance(found, Mapping) else None
