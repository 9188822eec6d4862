"""The decision tree of a study as SVG: its gates from the stored plan, with the path that was taken.

Gates stand under each other in the plan's order, the four exits of each below it. An exit that was taken is
drawn thick, in its verdict's colour, with the looks at which it was taken. Drawn 360 px wide, so that its
words stay readable on a phone; colours are classes that the page's style sheet defines.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.gates import IMPOSSIBLE, NEXT_LOOK
from lab.report_markup import MARKS, Row, text

WIDTH_PX, BOX_PX, RAIL_PX = 360, 338, 352
SPINE_PX, TEXT_PX, LINE_PX, GAP_PX = 12, 30, 18, 8
ORDER = ("DETECTED", "EQUIVALENT", "INCONCLUSIVE", "INVALID")
LAST_LOOK, NEGLIGIBLE = "at the last look", "when negligible"
WRAP = 48
"""Letters a line of a question."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One way out of a gate."""

    verdict: str
    when: str
    """Empty, or the condition under which the verdict leads elsewhere."""
    to: str
    """A gate, a flow, NEXT_LOOK, STOP or IMPOSSIBLE."""
    looks: tuple[int, ...]
    """Looks at which it was taken, each once."""
    explored: tuple[int, ...] = ()
    """Those at which it was taken only by exploratory decisions."""


def exits(gate: Mapping[str, object], path: Sequence[Row]) -> list[Exit]:
    """The ways out of a gate as the plan stores it, each with the looks at which the path took it.

    A negligible DETECTED effect goes where EQUIVALENT does; that way out is listed where it was taken.
    """
    routes = gate["routes"]
    if not isinstance(routes, Mapping):
        return []
    here = [step for step in path if step["gate"] == gate["name"]]
    found = []
    for verdict in ORDER:
        mine = [step for step in here if step["verdict"] == verdict]
        route = routes[verdict]
        ways = [("", route["next"]), (LAST_LOOK, route.get("at_last_look"))]
        ways += [(NEGLIGIBLE, to) for to in dict.fromkeys(s["next"] for s in mine if s["negligible"])]
        for when, to in ways:
            took = [s for s in mine if s["next"] == to and bool(s["negligible"]) == (when == NEGLIGIBLE)]
            every = {int(str(step["look"])) for step in took}
            planned = {int(str(step["look"])) for step in took if not step["exploratory"]}
            if to is not None:
                found.append(
                    Exit(
                        verdict=verdict,
                        when=when,
                        to=str(to),
                        looks=tuple(sorted(every)),
                        explored=tuple(sorted(every - planned)),
                    )
                )
    return found


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A gate with its place on the drawing, px."""

    gate: Mapping[str, object]
    question: tuple[str, ...]
    exits: tuple[tuple[Exit, float], ...]
    """Each exit and its y."""
    top: float
    box: float
    """Height of the box."""
    bottom: float
    """Where the next gate may start."""


def place(gates: Sequence[Mapping[str, object]], path: Sequence[Row]) -> list[Placed]:
    """The gates under each other, from the top."""
    placed: list[Placed] = []
    top = 2.0
    for gate in gates:
        question = tuple(textwrap.wrap(str(gate.get("question", "")), WRAP))
        box = 26.0 + LINE_PX * len(question)
        first = top + box + 15
        found = tuple((x, first + LINE_PX * i) for i, x in enumerate(exits(gate, path)))
        bottom = first + LINE_PX * len(found) + GAP_PX
        placed.append(Placed(gate=gate, question=question, exits=found, top=top, box=box, bottom=bottom))
        top = bottom
    return placed


def draw_tree(gates: Sequence[Mapping[str, object]], path: Sequence[Row], *, name: str) -> str:
    """SVG of the gates and the path.

    Parameters
    ----------
    gates
        As the plan's JSON has them: name, question, routes.
    path
        Rows with gate, look, verdict and next, in order.
    name
        Unique on the page; prefixes the ids.
    """
    placed = place(gates, path)
    height = placed[-1].bottom if placed else 20.0
    said = "; ".join(f"{s['gate']} at look {s['look']}: {s['verdict']}, then {s['next']}" for s in path)
    lines = [_spine(one, path) for one in placed] + _rail(placed)
    boxes = [_box(one) + "".join(_exit(x, y) for x, y in one.exits) for one in placed]
    return (
        f'<svg class="tree" viewBox="0 0 {WIDTH_PX} {height:.0f}" width="{WIDTH_PX}" height="{height:.0f}" '
        f'role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">Decision tree and the path taken</title>'
        f'<desc id="{name}-desc">{text(said or "no decision yet")}</desc>'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def _box(one: Placed) -> str:
    visited = " visited" if any(x.looks for x, _ in one.exits) else ""
    lines = "".join(
        f'<text class="question" x="10" y="{one.top + 35 + LINE_PX * i:.0f}">{text(line)}</text>'
        for i, line in enumerate(one.question)
    )
    return (
        f'<rect class="gate{visited}" x="1" y="{one.top:.0f}" width="{BOX_PX}" height="{one.box:.0f}"/>'
        f'<text class="name" x="10" y="{one.top + 18:.0f}">{text(one.gate["name"])}</text>{lines}'
    )


def _exit(found: Exit, y: float) -> str:
    state = "taken" if found.looks else "impossible" if found.to == IMPOSSIBLE else "untaken"
    named = ", ".join(f"{look}{'*' * (look in found.explored)}" for look in found.looks)
    looks = f" ({named})" if found.looks else ""
    x, to = TEXT_PX + 17, "next look" if found.to == NEXT_LOOK else text(found.to)
    said = found.when or f'<tspan class="word">{found.verdict}</tspan>'
    mark = "" if found.when else MARKS[found.verdict]
    return (
        f'<g class="exit {state} {found.verdict.lower()}"><path d="M{SPINE_PX} {y:.0f}H{TEXT_PX - 6}"/>'
        f'<text class="mark" x="{TEXT_PX}" y="{y + 4:.0f}">{mark}</text>'
        f'<text x="{x}" y="{y + 4:.0f}">{said} → {to}{looks}</text></g>'
    )


def _spine(one: Placed, path: Sequence[Row]) -> str:
    """The line from a gate along its exits to the next one, thick where the path went on."""
    on = any(
        step["gate"] == one.gate["name"] and after["gate"] == step["next"]
        for step, after in itertools.pairwise(path)
    )
    last = one.exits[-1][1] if one.exits else one.top + one.box
    end = one.bottom if on else last
    return f'<path class="spine{" on" if on else ""}" d="M{SPINE_PX} {one.top + one.box:.0f}V{end:.0f}"/>'


def _rail(placed: Sequence[Placed]) -> list[str]:
    """From every exit that asks for the next look, up the right side and back to the first gate."""
    back = placed[0].top + 13 if placed else 0.0
    lines = []
    for found, y in (pair for one in placed for pair in one.exits):
        if found.to == NEXT_LOOK:
            on = " on" if found.looks else ""
            lines.append(
                f'<path class="rail{on}" d="M{RAIL_PX - 40} {y:.0f}H{RAIL_PX}V{back:.0f}H{BOX_PX + 6}"/>'
                f'<path class="tip{on}" d="M{BOX_PX + 2} {back:.0f}l7 -4v8z"/>'
            )
    return lines
