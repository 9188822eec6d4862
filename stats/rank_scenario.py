"""What the verdicts of the rank study say together: one scenario, by a rule that covers every combination.

Three contrasts enter: the audit's placement against the same ranks permuted among modules of one projection
(`shuffled_within`, which decides), among all modules (`shuffled_full`), and against equal ranks of the same
cost (`uniform_equal`). The others are told beside them.

| within     | full                 | uniform    | scenario                     |
|------------|----------------------|------------|------------------------------|
| better     | any                  | any        | real mechanism               |
| worse      | any                  | any        | harmful                      |
| equivalent | worse                | any        | harmful                      |
| equivalent | not worse            | worse      | harmful                      |
| equivalent | better               | not worse  | benefit between module types |
| equivalent | equivalent           | better     | heterogeneity only           |
| equivalent | not told             | better     | inconclusive                 |
| equivalent | equivalent, not told | equivalent | no benefit                   |
| equivalent | equivalent, not told | not told   | inconclusive                 |
| not told   | any                  | any        | inconclusive                 |

"Not told" is inconclusive, invalid or not run. A benefit over full shuffles alone lies between module types:
it is neither "heterogeneity only", because a random placement lacks it, nor "no benefit".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from stats.rows import TestRow

Name = Literal[
    "real mechanism",
    "benefit between module types",
    "heterogeneity only",
    "no benefit",
    "harmful",
    "inconclusive",
]
Standing = Literal["better", "worse", "equivalent", "inconclusive", "invalid"]
"""Of the treatment against one control: a verdict and its sign."""
WITHIN, FULL, UNIFORM = "shuffled_within", "shuffled_full", "uniform_equal"
AGAINST = {
    WITHIN: "the same ranks permuted within module types",
    FULL: "the ranks permuted over all modules",
    UNIFORM: "equal ranks at nearly the same cost",
    "inverse": "inverted ranks",
    "cross_seed": "the ranks of another seed's audit",
}
NOT_TOLD = ("inconclusive", "invalid")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The study's answer in one name and one sentence."""

    name: Name
    sentence: str
    standings: Mapping[str, Standing]
    """Control -> how the treatment stands against it."""


def standing(row: TestRow) -> Standing:
    """How the treatment stands against a control, from the contrast's row with its verdict.

    Examples
    --------
    >>> row = TestRow(family="f", hypothesis="difference", method="t", role="decides", estimate=-0.02, p=0.01,
    ...               low=-0.03, high=-0.01, verdict="DETECTED")
    >>> standing(row)
    'worse'
    """
    if row.verdict is None:
        raise ValueError(f"{row.contrast} has no verdict; pass the rows that `analyse_placement` returns")
    if row.verdict == "DETECTED":
        if not row.estimate:
            raise ValueError(f"{row.contrast} is DETECTED with the estimate {row.estimate}; no sign to read")
        return "better" if row.estimate > 0.0 else "worse"
    found: dict[str, Standing] = {
        "EQUIVALENT": "equivalent",
        "INCONCLUSIVE": "inconclusive",
        "INVALID": "invalid",
    }
    return found[row.verdict]


def scenario_of(rows: Sequence[TestRow]) -> Scenario:
    """The scenario of the rows of `stats.placement_rows.analyse_placement`.

    Non-inferiority to the probe does not enter: the probe spends more parameters.

    Examples
    --------
    >>> row = TestRow(family="f", hypothesis="difference", method="t", role="decides", estimate=0.03, p=0.01,
    ...               contrast="per_layer-shuffled_within", verdict="DETECTED")
    >>> scenario_of([row]).name
    'real mechanism'
    """
    decided = [row for row in rows if row.role == "decides" and row.hypothesis == "difference"]
    by_control = {row.contrast.split("-", 1)[1]: row for row in decided}
    return scenario(
        {control: standing(row) for control, row in by_control.items()},
        negligible=[control for control, row in by_control.items() if row.negligible],
    )


def scenario(standings: Mapping[str, Standing], *, negligible: Collection[str] = ()) -> Scenario:
    """The scenario for standings against controls; a control that was not run counts as not told.

    Parameters
    ----------
    standings : mapping of str to Standing
        Control -> standing of the treatment; `shuffled_within` must be there.
    negligible : collection of str
        Controls from which it differs by less than the margin; the sentence says so.

    Raises
    ------
    ValueError
        An unknown control or standing, or no `shuffled_within`.

    Examples
    --------
    >>> found = scenario({"shuffled_within": "equivalent", "shuffled_full": "equivalent",
    ...                   "uniform_equal": "better"})
    >>> found.name
    'heterogeneity only'
    >>> print(found.sentence)  # doctest: +NORMALIZE_WHITESPACE
    Uneven ranks help, wherever they are placed: the placement is equivalent to the same ranks permuted within
    module types and to the ranks permuted over all modules, and better than equal ranks at nearly the same
    cost.
    """
    unknown = {k: v for k, v in standings.items() if k not in AGAINST or v not in get_args(Standing)}
    if unknown or WITHIN not in standings:
        raise ValueError(
            f"unknown {unknown}, given {sorted(standings)}; {WITHIN} decides and must be there, controls "
            f"are {', '.join(AGAINST)}, standings {', '.join(get_args(Standing))}"
        )
    full, uniform = (standings.get(name, "inconclusive") for name in (FULL, UNIFORM))
    name, head = _named(standings[WITHIN], full, uniform)
    return Scenario(name=name, sentence=f"{head}: {_told(standings, negligible)}.", standings=dict(standings))


def _named(within: Standing, full: Standing, uniform: Standing) -> tuple[Name, str]:
    """The table above, row by row."""
    if within == "better":
        head = "The audit's placement itself helps"
        return "real mechanism", head + (", and yet equal ranks do better" if uniform == "worse" else "")
    if within == "worse":
        return "harmful", "The audit's placement costs accuracy"
    if within in NOT_TOLD:
        invalid = within == "invalid"
        head = "Nothing can be concluded" if invalid else "Whether the audit's placement helps is open"
        return "inconclusive", head
    if full == "worse":
        return "harmful", "Among module types the audit's placement costs accuracy"
    if uniform == "worse":
        return "harmful", "Uneven ranks cost accuracy, within module types wherever they are placed"
    if full == "better":
        head = "The audit helps between module types, not within them"
        return "benefit between module types", head
    if uniform == "equivalent":
        return "no benefit", "Placing ranks by the audit gains nothing"
    if uniform == "better":
        if full == "equivalent":
            return "heterogeneity only", "Uneven ranks help, wherever they are placed"
        head = "Within module types the placement does not matter; whether it does between them is open"
        return "inconclusive", head
    head = "Within module types the placement does not matter; whether uneven ranks help is open"
    return "inconclusive", head


def _told(standings: Mapping[str, Standing], negligible: Collection[str]) -> str:
    """`the placement is equivalent to A and to B, better than C`; controls in the order of AGAINST."""
    words: dict[Standing, tuple[str, str]] = {
        "better": ("better than ", "than "),
        "worse": ("worse than ", "than "),
        "equivalent": ("equivalent to ", "to "),
        "inconclusive": ("not told apart from ", "from "),
        "invalid": ("not validly compared with ", "with "),
    }
    groups: dict[Standing, list[str]] = {}
    for control in AGAINST:
        if control in standings:
            small = " (by less than the margin)" if control in negligible else ""
            groups.setdefault(standings[control], []).append(AGAINST[control] + small)
    parts = []
    for found, controls in groups.items():
        first, again = words[found]
        parts.append(first + _listed([controls[0], *(again + control for control in controls[1:])]))
    return f"the placement is {_listed(parts, ', and ')}"


def _listed(parts: Sequence[str], last: str = " and ") -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + last + parts[-1]
