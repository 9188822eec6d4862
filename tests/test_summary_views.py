"""The views across runs and nights: nights, drift, open questions, cost of verdicts, effects over time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.fingerprint import canonical, fingerprint
from lab.night_book import open_questions
from lab.records import GenerationRow, MetricRow, PlanStepRow, TrainLogRow
from lab.store import Store
from tests.night_rows import (
    DECISION,
    NIGHT,
    NOON,
    QUEUED,
    RUN,
    STEP,
    TEST,
    belongs,
    measured,
    record_two_nights,
    the_plan,
)

OWN_VIEWS = ("night_run", "step_run", "plan_cost", "night_summary", "drift", "cost_of_verdicts")


@pytest.fixture
def lab(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


# --- nights ---------------------------------------------------------------------------------------


def test_a_night_counts_its_candidates_and_the_verdicts_of_the_runs_it_launched(lab: Store) -> None:
    two_nights = record_two_nights(lab)
    found = two_nights.read(
        'SELECT night_id, used_seconds, done, "left", proposed, failed, detected, equivalent, inconclusive, '
        "invalid, first_verdict_seconds, reason FROM night_summary"
    )
    assert found.rows() == [
        ("n2", 600.0, 1, 1, 1, 0, 0, 1, 0, 1, 30.0, None),
        ("n1", 3000.0, 1, 1, 0, 0, 1, 0, 1, 0, 45.0, None),
    ]


def test_a_crashed_night_took_as_long_as_it_was_seen_to_work_and_a_running_one_says_why_it_has_no_time(
    lab: Store,
) -> None:
    noticed = NOON + timedelta(hours=22)
    crashed = replace(NIGHT, state="crashed", ended_at=noticed, note="its process is gone")
    running = replace(NIGHT, night_id="n2", state="running", ended_at=None)
    lab.record([crashed, running, replace(QUEUED, state="running", seconds=None, run_id=None)])
    lab.record([replace(RUN, state="crashed", ended_at=noticed), DECISION])
    found = lab.read("SELECT night_id, used_seconds, reason FROM night_summary ORDER BY night_id").rows()
    assert found[0] == ("n1", 45.0, None)
    assert found[1][1] is None
    assert found[1][2] == "it runs, so nobody knows how long it took; no verdict is its own"


# --- drift ----------------------------------------------------------------------------------------


DRIFTED = (
    "SELECT experiment, arm, metric, times, first_value, last_value, difference, is_other_code, "
    "is_other_environment, first_run_id, last_run_id, reason FROM drift ORDER BY arm"
)


def test_a_number_that_another_code_or_machine_measured_differently_has_drifted(lab: Store) -> None:
    lab.record(
        [
            *measured("a1", 1.0),
            *measured("a2", 1.5, day=1, code="c2"),
            *measured("a3", 1.25, day=2, code="c3", environment_id="e2"),
            *measured("b1", 2.0, arm="two"),
            *measured("b2", None, arm="two", day=1, environment_id="e2"),
        ]
    )
    assert lab.read(DRIFTED).rows() == [
        ("train", "one", "loss", 3, 1.0, 1.25, 0.25, True, True, "run 0", "run 2", None),
        ("train", "two", "loss", 2, 2.0, None, None, False, True, "run 0", "run 1", "last: it diverged"),
    ]


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (1.0, {}),
        (1.5, {"arm": "two"}),
        (1.5, {"seed": 1}),
        (1.5, {"model": "other"}),
        (1.5, {"config": '{"x":2}'}),
        (1.5, {"experiment": "analyse"}),
    ],
)
def test_what_stayed_the_same_or_is_something_else_has_not_drifted(
    lab: Store, value: float, changes: dict[str, Any]
) -> None:
    lab.record([*measured("a1", 1.0), *measured("a2", value, day=1, code="c2", **changes)])
    assert lab.read(DRIFTED).rows() == []
    lab.record(measured("a3", 3.0, day=2, code="c3"))
    assert lab.read(DRIFTED).height == 1, "the same rows do show drift"


def test_fingerprints_of_code_and_steps_inside_a_config_are_no_difference_but_plans_are(lab: Store) -> None:
    def config(code: str) -> str:
        return canonical({"code": fingerprint(code), "of": [fingerprint([code, 1])], "x": 1})

    lab.record([*measured("a1", 1.0, config=config("c1")), *measured("a2", 2.0, day=1, config=config("c2"))])
    assert lab.read(DRIFTED)["difference"].to_list() == [1.0]
    moved = [
        row for row in measured("a3", 7.0, day=2, config=config("c3")) if not isinstance(row, PlanStepRow)
    ]
    other = replace(RUN, run_id="of another plan", plan_hash="q", started_at=NOON + timedelta(days=2))
    lab.record([*moved, other, *belongs("a3", plan="q")])
    assert lab.read(DRIFTED)["difference"].to_list() == [1.0], "step a3 is of another plan"


def test_other_weights_are_another_thing(lab: Store) -> None:
    of = [canonical({"weights": digit * 64}) for digit in "01"]
    lab.record([*measured("a1", 1.0, config=of[0]), *measured("a2", 2.0, config=of[1], day=1, code="c2")])
    assert lab.read(DRIFTED).rows() == []


def test_two_steps_of_one_run_that_look_alike_are_two_things_not_a_repetition(lab: Store) -> None:
    pair = [canonical({"head": fingerprint(i)}) for i in range(2)]
    lab.record([*measured("a1", 1.0, config=pair[0]), *measured("a2", 2.0, config=pair[1])])
    lab.record(measured("a3", 3.0, config=pair[0], day=1, code="c2"))
    assert lab.read(DRIFTED).rows() == []


def test_a_step_that_several_plans_share_drifts_once_and_speed_comes_last(lab: Store) -> None:
    lab.record([*measured("a1", 1.0), *measured("a2", 1.5, day=1, code="c2")])
    both = [
        replace(RUN, run_id=f"q{i}", plan_hash="q", started_at=NOON + timedelta(days=i)) for i in range(2)
    ]
    lab.record([*belongs("a1", "a2", plan="q"), *both])
    lab.record(
        [
            MetricRow(step_id=f"a{i}", unit="*", name="tokens_per_second", value=9.0**i, reason=None)
            for i in (1, 2)
        ]
    )
    assert lab.read("SELECT metric, is_speed FROM drift").rows() == [
        ("loss", False),
        ("tokens_per_second", True),
    ]


# --- open questions -------------------------------------------------------------------------------


def test_open_questions_come_in_the_order_of_answers_an_hour_and_say_why_they_have_none(lab: Store) -> None:
    questions = [
        replace(TEST, metric="dear"),
        replace(TEST, metric="cheap", n_to_settle=8),
        replace(TEST, metric="unknown", n_to_settle=None, reason="nothing varies"),
        replace(TEST, metric="there", n_to_settle=4),
        replace(TEST, metric="settled", verdict="EQUIVALENT"),
    ]
    lab.record([replace(STEP, step_id="t"), *belongs("t"), the_plan(), RUN, *questions])
    lab.record([replace(RUN, run_id="gone", state="crashed", ended_at=NOON + timedelta(days=3))])
    found = lab.read(
        "SELECT metric, chance, unit_seconds, hours, information_per_hour, reason FROM open_questions"
    )
    # 360 s for 4 units: 90 s each; the crashed run's end is not known and does not count
    assert found.rows() == [
        ("cheap", 0.8, 90.0, 0.1, 8.0, None),
        ("dear", 0.8, 90.0, 0.5, 1.6, None),
        ("there", None, 90.0, None, None, "has as many units as should settle it"),
        ("unknown", None, 90.0, None, None, "n_to_settle is unknown: nothing varies"),
    ]
    assert open_questions(lab) == {"s": 8.0}  # what a night puts between candidates of one size


@pytest.mark.parametrize(
    ("plan", "test", "why"),
    [
        ({"margin_unit": "bits an aligned sentence"}, {}, "counts languages"),
        ({"margin_unit": "within-cell SD"}, {"method": "same-seed identity, seed swap"}, "counts pairs"),
        ({"design": {"imported": "0" * 64}}, {}, "imported"),
        ({}, {"model": "m", "look": 0}, "no unit has a cost"),
    ],
)
def test_units_that_no_look_makes_more_of_have_no_price(
    lab: Store, plan: dict[str, Any], test: dict[str, Any], why: str
) -> None:
    lab.record([replace(STEP, step_id="t"), *belongs("t"), the_plan(**plan), RUN, replace(TEST, **test)])
    [(hours, per_hour, reason)] = lab.read(
        "SELECT hours, information_per_hour, reason FROM open_questions"
    ).rows()
    assert hours is None
    assert per_hour is None
    assert why in reason


def test_a_model_of_its_own_runs_pays_for_its_units_alone(lab: Store) -> None:
    dear = replace(RUN, run_id="other", model="large", ended_at=NOON + timedelta(hours=5))
    lab.record([replace(STEP, step_id="t"), *belongs("t"), the_plan(), RUN, dear, TEST])
    lab.record([replace(STEP, step_id="u"), *belongs("u"), replace(TEST, step_id="u", model="rung of both")])
    found = lab.read("SELECT model, unit_seconds FROM open_questions ORDER BY unit_seconds").rows()
    assert found == [("m", 90.0), ("rung of both", (5 * 3600 + 360) / 4)]


# --- cost, effects, rungs -------------------------------------------------------------------------


def test_a_decided_verdict_costs_all_that_its_plans_took(lab: Store) -> None:
    text = GenerationRow(
        step_id="a", sample=0, turn=0, probe=0, sample_id="x", arm="one", prompt_id="p", stream=None,
        order_index=0, seed64=1, seed32=1, text="a text", finish_reason="stop", tokens=50, seconds=1.0,
        model_digest="d", server_version=None, sampling="{}", imported=False, reason=None,
    )  # fmt: skip
    log = TrainLogRow(
        step_id="a",
        iteration=1,
        train_loss_nats=1.0,
        valid_loss_nats=1.0,
        learning_rate=0.1,
        tokens=100,
        seconds=1.0,
    )
    lab.record([STEP, *belongs("a"), the_plan(), RUN, text, replace(text, sample=1, imported=True), log])
    lab.record([replace(log, iteration=2, tokens=150), replace(RUN, run_id="lost", state="crashed")])
    asked = [
        replace(DECISION, decision_id="early", look=2, verdict="DETECTED"),  # not its last word
        replace(DECISION, decision_id="late", verdict="INCONCLUSIVE"),
        replace(DECISION, decision_id="sound", gate="integrity"),
        replace(DECISION, decision_id="other", gate="integrity", model="n", verdict="EQUIVALENT"),
    ]
    lab.record(asked)
    found = lab.read(
        "SELECT gate, verdicts, decided, seconds, step_seconds, tokens, runs_not_counted, seconds_a_verdict, "
        "tokens_a_verdict, reason FROM cost_of_verdicts"
    )
    assert found.rows() == [
        ("*", 3, 2, 360.0, 30.0, 200, 1, 180.0, 100.0, None),
        ("effect", 1, 0, 360.0, 30.0, 200, 1, None, None, "no verdict is decided yet"),
        ("integrity", 2, 2, 360.0, 30.0, 200, 1, 180.0, 100.0, None),
    ]


def test_effects_over_time_follow_a_question_through_looks_and_nights(lab: Store) -> None:
    two_nights = record_two_nights(lab)
    first = replace(STEP, step_id="t1", experiment="analyse", recorded_at=NOON + timedelta(minutes=1))
    second = replace(first, step_id="t2", recorded_at=NOON + timedelta(days=1, minutes=1))
    two_nights.record([first, second, replace(first, step_id="t3"), *belongs("t1", "t2", "t3")])
    two_nights.record([replace(TEST, step_id="t1"), replace(TEST, step_id="t3", model="n")])
    two_nights.record([replace(TEST, step_id="t2", look=8, estimate=0.4, verdict="DETECTED")])
    found = two_nights.read(
        "SELECT model, night_id, look, round(change, 6) AS change, verdict_before, verdict "
        "FROM effects_over_time"
    )
    assert found.rows() == [
        ("m", "n1", 4, None, None, "INCONCLUSIVE"),
        ("m", "n2", 8, 0.3, "INCONCLUSIVE", "DETECTED"),
        ("n", "n1", 4, None, None, "INCONCLUSIVE"),
    ]


def test_the_scale_ladder_has_its_rungs_by_size_at_the_last_look(lab: Store) -> None:
    rungs = [{"model": "big", "parameters": 9, "line": "l"}, {"model": "small", "parameters": 1, "line": "l"}]
    rung = replace(TEST, family="ladder", hypothesis="rung", contrast="big", model="ladder")
    early = [replace(rung, contrast=name, look=2, step_id="early") for name in ("big", "small")]
    lab.record([replace(STEP, step_id="t"), replace(STEP, step_id="early"), *belongs("t", "early"), *early])
    lab.record([the_plan(design={"rungs": rungs}), RUN, rung, replace(rung, contrast="small")])
    found = lab.read("SELECT ladder, model, parameters, look FROM scale_ladder")
    assert found.rows() == [("ladder", "small", 1, 4), ("ladder", "big", 9, 4)]


def test_every_column_of_the_views_across_nights_says_what_it_means(lab: Store) -> None:
    lab.record([NIGHT])
    silent = lab.read(
        f'SELECT name, "column" FROM dictionary WHERE meaning IS NULL AND name IN {OWN_VIEWS}'
    ).rows()
    assert silent == []
