"""The decision tree of the seed study: five gates a look, in the order they are asked.

Verdicts come from `stats/` in rows of role `verdict`; a gate reads the row of its family in the analysis of
this look, under the current plan, and chooses the way on.
"""

from __future__ import annotations

from lab.gates import IMPOSSIBLE, NEXT_LOOK, STOP, Comparison, Gate, Route, Rule

_EVIDENCE = """
SELECT any_value(verdict) AS tested, {negligible} AS negligible,
       max(effect) AS effect, max(low) AS low, max(high) AS high, max(p_adjusted) AS p, max(alpha) AS alpha,
       max(margin) AS margin, coalesce(max(n), 0) AS n, max(power) AS power, max(mde) AS mde,
       max(n_to_settle) AS n_to_settle,
       coalesce('about ' || max(n_to_settle) || ' samples a cell would settle it', any_value(reason),
                'how many samples would settle it is undefined') AS what_settles,
       coalesce(any_value(reason), 'none of its checks failed') AS findings{more}
FROM test SEMI JOIN plan_step ON plan_step.step_id = test.step_id AND plan_step.plan_hash = $plan_hash
WHERE test.step_id = $analysis AND family = '{family}' AND role = 'verdict'
"""


def _evidence(family: str, more: str = "", negligible: str = "coalesce(bool_or(negligible), false)") -> str:
    return _EVIDENCE.format(family=family, more=more, negligible=negligible)


_NEVER = "false"
"""What an assay tells apart it tells apart, however small."""


def _is(verdict: str | None) -> tuple[Comparison, ...]:
    return (Comparison(left="tested", op="==", right=verdict),)


def _as_tested(*verdicts: str) -> tuple[Rule, ...]:
    """The tested verdict stands; no verdict at all is INVALID."""
    return (
        Rule(verdict="INVALID", when=_is(None)),
        *(Rule(verdict=verdict, when=_is(verdict)) for verdict in verdicts),
    )


POSITIVE_CONTROL = Gate(
    name="positive_control",
    question="Does the assay see a difference that is there, the same source at a raised temperature?",
    sql=_evidence(
        "positive_control",
        ",\n       CASE WHEN $look_index = 1 AND $looks_left > 0 THEN 1 ELSE 0 END AS chances_left",
        negligible=_NEVER,
    ),
    min_n=20,
    rules=(
        Rule(verdict="INVALID", when=_is(None)),
        Rule(verdict="INVALID", when=_is("INVALID")),
        Rule(
            verdict="INVALID",
            when=(
                Comparison(left="tested", op="!=", right="DETECTED"),
                Comparison(left="chances_left", op="==", right=0),
            ),
        ),
        Rule(verdict="DETECTED", when=_is("DETECTED")),
    ),
    routes={
        "INVALID": Route(
            next=STOP,
            sentence="The assay did not see the control ({what_settles}): a null here would mean nothing",
        ),
        "DETECTED": Route(
            next="a_a",
            sentence="the assay sees the control: {effect:+.2f} SD [{low:+.2f}, {high:+.2f}], n = {n}",
        ),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence="a control without effect is INVALID"),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look=STOP,
            sentence="the control is not seen yet ({effect:+.2f} SD, n = {n}); more samples, once",
        ),
    },
)

A_A = Gate(
    name="a_a",
    question="Does the assay keep quiet about one source under two labels?",
    sql=_evidence("a_a", negligible=_NEVER),
    rules=_as_tested("INVALID", "DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next=STOP, sentence="the A/A comparison has no answer: {findings}"),
        "DETECTED": Route(
            next=STOP,
            sentence="the assay is biased: it tells one source from itself, {effect:+.2f} SD (p = {p:.2g})",
        ),
        "EQUIVALENT": Route(
            next="integrity", sentence="one source under two labels is the same within {margin} SD"
        ),
        "INCONCLUSIVE": Route(
            next="integrity",
            sentence="no difference between one source's two labels (p = {p:.2g}, at {alpha} to alarm)",
        ),
    },
)

INTEGRITY = Gate(
    name="integrity",
    question="Are the texts fit to be compared: there, distinct over seeds, identical on repeats?",
    sql=_evidence("integrity"),
    rules=_as_tested("INVALID", "DETECTED"),
    routes={
        "INVALID": Route(next=STOP, sentence="the data cannot be used: {findings}"),
        "DETECTED": Route(next="seed_sources", sentence="the data are whole: {n} outcomes, {findings}"),
        "EQUIVALENT": Route(next=IMPOSSIBLE, sentence="integrity has no margin"),
        "INCONCLUSIVE": Route(next="seed_sources", sentence="usable, flagged: {findings}"),
    },
)

SEED_SOURCES = Gate(
    name="seed_sources",
    question="Do the sources draw different seeds, so that a mechanism is possible?",
    sql=_evidence("seed_sources"),
    rules=_as_tested("INVALID", "DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next=STOP, sentence="the seeds cannot be compared: {findings}"),
        "DETECTED": Route(
            next="seed_effect",
            sentence="the sources draw differently (p = {p:.2g}): a mechanism for an effect is possible",
        ),
        "EQUIVALENT": Route(
            next="seed_effect",
            sentence="no mechanism for an effect: seeds of any two sources differ by under {margin} (KS, at "
            "most {high:.3f} over {n} draws)",
        ),
        "INCONCLUSIVE": Route(
            next="seed_effect",
            sentence="no difference between the sources' seeds, though up to {high:.3f} (KS) is not excluded",
        ),
    },
)

SEED_EFFECT = Gate(
    name="seed_effect",
    is_primary=True,
    question="Does the source of the seed change the text?",
    sql=_evidence("seed_effect"),
    min_n=20,
    rules=_as_tested("INVALID", "DETECTED", "EQUIVALENT"),
    routes={
        "INVALID": Route(next="direct_injection", sentence="no answer: {findings}"),
        "DETECTED": Route(
            next="entropy_control",
            sentence="the source changes the text: largest effect {effect:+.2f} SD "
            "[{low:+.2f}, {high:+.2f}], p = {p:.2g} after Holm, n = {n}",
        ),
        "EQUIVALENT": Route(
            next="direct_injection",
            sentence="the source does not change the text by {margin} SD or more: largest effect "
            "{effect:+.2f} [{low:+.2f}, {high:+.2f}], n = {n}",
        ),
        "INCONCLUSIVE": Route(
            next=NEXT_LOOK,
            at_last_look="direct_injection",
            sentence="neither shown nor excluded: largest effect {effect:+.2f} SD [{low:+.2f}, {high:+.2f}], "
            "n = {n}; {what_settles}",
        ),
    },
)

GATES = (POSITIVE_CONTROL, A_A, INTEGRITY, SEED_SOURCES, SEED_EFFECT)
