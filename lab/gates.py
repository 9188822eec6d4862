"""Gates: a question, a query, a minimum n and a rule make a recorded decision.

A gate holds no code: its rules are comparisons over one row of named evidence, so a decision stores them with
the evidence and the query and anyone can compute the verdict again. Verdicts come from `stats/` through the
`test` table; gates combine them and choose the next step.
"""

from __future__ import annotations

import json
import operator
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.fingerprint import canonical

Value = bool | int | float | str | None
Evidence = Mapping[str, Value]

VERDICTS = ("INVALID", "DETECTED", "EQUIVALENT", "INCONCLUSIVE")
"""In order of precedence."""

NEXT_LOOK, NEXT_RUNG, STOP, IMPOSSIBLE = "next_look", "next_rung", "stop", "cannot occur"
"""Steps that are neither another gate nor a flow."""

_OPERATORS: Mapping[str, Callable[[Value, Value], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}


class GateError(ValueError):
    """A gate whose query, evidence or rule does not fit; the run fails, and the night tries it again."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`evidence[left] op right`; an undefined number compares as false, except `== None`."""

    left: str
    op: str
    right: Value

    def __post_init__(self) -> None:
        if not isinstance(self.left, str):
            raise GateError(f"a comparison's left is {self.left!r}; allowed: the name of a column")
        if self.op not in _OPERATORS:
            raise GateError(f"unknown comparison {self.op!r}; allowed: {' '.join(_OPERATORS)}")
        if self.right is None and self.op not in ("==", "!="):
            raise GateError(f"{self.left} {self.op} None has no answer; None goes with == and != only")

    def holds(self, evidence: Evidence) -> bool:
        """Whether the evidence meets the comparison.

        >>> Comparison(left="p", op="<", right=0.05).holds({"p": None})
        False
        """
        if self.left not in evidence:
            raise GateError(f"the rule asks for {self.left!r}; the query returned {', '.join(evidence)}")
        found = evidence[self.left]
        if found is None and self.right is not None:
            return False
        try:
            return _OPERATORS[self.op](found, self.right)
        except TypeError as error:
            raise GateError(f"cannot compare {self.left} = {found!r} {self.op} {self.right!r}") from error


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The verdict when every comparison holds."""

    verdict: str
    when: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a verdict leads to, and the sentence the report prints."""

    next: str
    """A gate of the same study, a flow, or one of NEXT_LOOK, STOP, IMPOSSIBLE."""
    sentence: str
    """`str.format` template over the evidence; an undefined number prints as `undefined`."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Settings for the next flow; one that the evidence has as `set_NAME` takes that value."""
    at_last_look: str | None = None
    """Where NEXT_LOOK leads when no look is left."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One question of a study's decision tree."""

    name: str
    question: str
    sql: str
    """Returns one row of named evidence, with a column `n`."""
    rules: tuple[Rule, ...]
    """Tried in order of precedence; when none holds the verdict is INCONCLUSIVE."""
    routes: Mapping[str, Route]
    min_n: int = 1
    """Under this n the verdict is INCONCLUSIVE, unless a rule says INVALID."""
    is_primary: bool = False
    """Whether it answers the study's question; of several, as where parts have answers too, the last does."""

    def __post_init__(self) -> None:
        missing = [verdict for verdict in VERDICTS if verdict not in self.routes]
        if missing or len(self.routes) != len(VERDICTS):
            raise GateError(
                f"gate {self.name}: routes for {', '.join(self.routes)}; each of {VERDICTS} needs one"
            )
        ranks = [VERDICTS.index(rule.verdict) for rule in self.rules]
        if ranks != sorted(ranks):
            raise GateError(f"gate {self.name}: rules must stand in the order {', '.join(VERDICTS)}")


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What a gate says to given evidence."""

    verdict: str
    negligible: bool
    next: str
    parameters: Mapping[str, object]
    sentence: str


def judge(rules: Sequence[Rule], min_n: int, evidence: Evidence) -> str:
    """The verdict of rules over one row of evidence.

    Raises
    ------
    GateError
        When the evidence lacks `n` or a column that a rule names.

    >>> rules = (Rule(verdict="DETECTED", when=(Comparison(left="p", op="<", right=0.05),)),)
    >>> judge(rules, 10, {"n": 20, "p": 0.01}), judge(rules, 10, {"n": 9, "p": 0.01})
    ('DETECTED', 'INCONCLUSIVE')
    """
    n = evidence.get("n", "absent")
    if n == "absent" or isinstance(n, str):
        raise GateError(f"evidence needs a number n; the query returned {', '.join(evidence)}")
    enough = n is not None and n >= min_n
    for rule in rules:
        if (enough or rule.verdict == "INVALID") and all(c.holds(evidence) for c in rule.when):
            return rule.verdict
    return "INCONCLUSIVE"


def rule_on(gate: Gate, evidence: Evidence, *, last_look: bool) -> Ruling:
    """Verdict, route and sentence; a negligible DETECTED effect is routed as EQUIVALENT.

    Raises
    ------
    GateError
        When evidence and rule do not fit, or the verdict is one that cannot occur.

    >>> onward = Route(next="study", parameters={"profile": "full", "memory": "none"}, sentence="")
    >>> gate = Gate(name="g", question="?", sql="", rules=(), routes=dict.fromkeys(VERDICTS, onward))
    >>> dict(rule_on(gate, {"n": 1, "set_memory": "ema"}, last_look=True).parameters)
    {'profile': 'full', 'memory': 'ema'}
    """
    verdict = judge(gate.rules, gate.min_n, evidence)
    negligible = verdict == "DETECTED" and evidence.get("negligible") is True
    if negligible and gate.routes["EQUIVALENT"].next == IMPOSSIBLE:
        negligible = False  # where EQUIVALENT makes no sense, however small is still seen
    route = gate.routes["EQUIVALENT" if negligible else verdict]
    if route.next == IMPOSSIBLE:
        raise GateError(
            f"gate {gate.name} came to {verdict}, which cannot occur; evidence {canonical(evidence)}"
        )
    following = route.at_last_look if last_look and route.at_last_look else route.next
    told = {name: evidence.get(f"set_{name}", value) for name, value in route.parameters.items()}
    sentence = _Undefined().vformat(gate.routes[verdict].sentence, (), dict(evidence))
    return Ruling(
        verdict=verdict,
        negligible=negligible,
        next=following,
        parameters=told if following == route.next else {},
        sentence=sentence[:1].upper() + sentence[1:],
    )


def rule_text(gate: Gate) -> str:
    """The rule as JSON, for the `decision` table.

    >>> routes = {verdict: Route(next=STOP, sentence="") for verdict in VERDICTS}
    >>> read_rule(rule_text(Gate(name="g", question="?", sql="", rules=(), routes=routes)))
    ((), 1)
    """
    return canonical({"min_n": gate.min_n, "rules": gate.rules})


def read_rule(text: str) -> tuple[tuple[Rule, ...], int]:
    """Rules and min_n of a stored decision.

    Raises
    ------
    GateError
        When the text is not what `rule_text` writes.
    """
    try:
        found = json.loads(text)
        rules = tuple(
            Rule(verdict=r["verdict"], when=tuple(Comparison(**c) for c in r["when"])) for r in found["rules"]
        )
        if not all(rule.verdict in VERDICTS for rule in rules):
            raise ValueError(f"verdicts are {', '.join(VERDICTS)}")
        return rules, int(found["min_n"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise GateError(f"not a stored rule: {text[:80]!r} ({error})") from error


def explain(rules: Sequence[Rule], min_n: int, evidence: Evidence) -> list[str]:
    """Each comparison in words with what was found, for `ladder gates --why`."""
    lines = [f"n = {evidence.get('n')}, at least {min_n} needed"]
    for rule in rules:
        for c in rule.when:
            mark = "yes" if c.holds(evidence) else "no "
            lines.append(f"{mark} {rule.verdict}: {c.left} {c.op} {c.right!r} (found {evidence[c.left]!r})")
    return lines


class _Undefined(string.Formatter):
    """`str.format`, with None printed as `undefined` whatever the format asks for."""

    def format_field(self, value: object, format_spec: str) -> str:
        return "undefined" if value is None else str(super().format_field(value, format_spec))


_WORDS = {NEXT_LOOK: "the next look", NEXT_RUNG: "the next rung", STOP: "nothing: it stops here"}


def leads_to(decisions: Sequence[Mapping[str, Any]], gates: Collection[str]) -> str:
    """What comes after the last decision of each gate, in words: flows, else what the last one says.

    Parameters
    ----------
    decisions
        With `gate` and `next`, in order, one at least.
    gates
        Names of the tree's gates, which lead on inside it.

    Examples
    --------
    >>> asked = [{"gate": "leverage", "next": "nanodesmo"}, {"gate": "controls", "next": "stop"}]
    >>> leads_to(asked, {"leverage", "controls"}), leads_to(asked[1:], {"controls"})
    ('nanodesmo, by its gate leverage', 'nothing: it stops here')
    >>> leads_to([{"gate": "a_a", "next": "effect"}, {"gate": "effect", "next": "ladder"}], {"a_a", "effect"})
    'ladder'
    """
    last = {str(one["gate"]): str(one["next"]) for one in decisions}
    ends = decisions[-1]
    flows = {
        to: "" if gate == ends["gate"] else f", by its gate {gate}"
        for gate, to in last.items()
        if to not in gates and to not in _WORDS and to != IMPOSSIBLE
    }
    following = str(ends["next"])
    return "; ".join(f"{to}{by}" for to, by in flows.items()) or _WORDS.get(following, following)
