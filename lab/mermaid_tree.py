"""The decision tree of a study as Mermaid text, which Prefect's pages draw, with the path that was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.gates import IMPOSSIBLE, NEXT_LOOK
from lab.report_markup import Row
from lab.report_tree import exits

LOOKED = "fill:#dbe7f6,stroke:#1f4e8c,stroke-width:2px,color:#111"


def mermaid_tree(gates: Sequence[Mapping[str, object]], path: Sequence[Row]) -> str:
    """A flowchart: gates that were asked are filled, ways that were taken thick and with their looks.

    Parameters
    ----------
    gates
        As the plan's JSON has them: name, question, routes.
    path
        Rows with gate, look, verdict, next, negligible and exploratory.

    >>> gate = {"name": "effect", "routes": {
    ...     "DETECTED": {"next": "stop"}, "EQUIVALENT": {"next": "cannot occur"},
    ...     "INCONCLUSIVE": {"next": "next_look"}, "INVALID": {"next": "stop"}}}
    >>> row = {"gate": "effect", "look": 8, "verdict": "DETECTED", "next": "stop", "negligible": False,
    ...        "exploratory": False}
    >>> print(mermaid_tree([gate], [row]))
    flowchart TD
        n0["effect"]:::asked
        n1(["stop"])
        n0 ==>|DETECTED at 8| n1
        n0 -->|INCONCLUSIVE: next look| n0
        n0 -->|INVALID| n1
        classDef asked fill:#dbe7f6,stroke:#1f4e8c,stroke-width:2px,color:#111
    """
    asked = {step["gate"] for step in path}
    ids = {str(gate["name"]): f"n{place}" for place, gate in enumerate(gates)}
    nodes = [f'{ids[name]}["{_said(name)}"]{":::asked" * (name in asked)}' for name in ids]
    edges = []
    for gate in gates:
        for way in exits(gate, path):
            if way.to == IMPOSSIBLE:
                continue
            label = f"{way.verdict}{f' {way.when}' if way.when else ''}"
            looks = f" at {', '.join(map(str, way.looks))}" if way.looks else ""
            again = ": next look" if way.to == NEXT_LOOK else ""
            to = next(iter(ids)) if way.to == NEXT_LOOK else way.to
            if to not in ids:
                ids[to] = f"n{len(ids)}"
                nodes.append(f'{ids[to]}(["{_said(to)}"])')
            line = "==>" if way.looks else "-->"
            edges.append(f"{ids[str(gate['name'])]} {line}|{label}{looks}{again}| {ids[to]}")
    return "\n    ".join(["flowchart TD", *nodes, *edges, f"classDef asked {LOOKED}"])


def _said(name: str) -> str:
    return name.replace('"', "'").replace("_", " ")
