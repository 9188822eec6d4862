"""Rows of two nights as a study leaves them, for tests of what is made of them across runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from lab.fingerprint import canonical
from lab.records import (
    DecisionRow,
    MetricRow,
    NightRow,
    PlanRow,
    PlanStepRow,
    QueueRow,
    Record,
    RunRow,
    StepRow,
    TestResultRow,
)
from lab.store import Store

NOON = datetime(2026, 11, 20, 12)
PLAN = {"margin_unit": "nats", "gates": [{"name": "effect"}, {"name": "next gate"}], "design": {}}

# fmt: off
NIGHT = NightRow(
    night_id="n1", profile="smoke", budget_seconds=3600.0, started_at=NOON,
    deadline=NOON + timedelta(hours=1), ended_at=NOON + timedelta(minutes=50), state="budget", continues=None,
    process="elsewhere:1:1", flow_run_id=None, source=None, note="1 of 2 are left",
)
QUEUED = QueueRow(
    night_id="n1", item="i1", position=0, study="s", profile="smoke", settings="{}", why="the plan of s",
    decision_id=None, state="done", expected_seconds=60.0, expected_from="declared", missing=1.0, attempt=1,
    flow_run_id="f1", run_id="r1", started_at=NOON, seconds=60.0, note=None,
)
RUN = RunRow(
    run_id="r1", study="s", profile="smoke", model="m", plan_hash="p", settings="{}", state="completed",
    started_at=NOON, ended_at=NOON + timedelta(seconds=360), exploratory=False, environment_id="e",
    git_commit=None, git_dirty=None, flow_run_id="f1", parent_flow_run_id=None, process="elsewhere:1:1",
    note=None,
)
STEP = StepRow(
    step_id="a", study="s", experiment="train", arm="one", model="m", seed=0, config='{"x":1}', code="c1",
    seconds=30.0, device="cpu", environment_id="e", recorded_at=NOON + timedelta(minutes=1), reason=None,
)
TEST = TestResultRow(
    step_id="t", study="s", model="m", look=4, family="effect", hypothesis="difference", metric="loss",
    contrast="one-two", method="t", role="decides", estimate=0.1, low=-0.1, high=0.3, effect=None,
    statistic=None, df1=None, df2=None, p=0.3, p_adjusted=0.6, alpha=0.05, margin=0.2, n=4, power=0.5,
    mde=0.3, n_to_settle=24, verdict="INCONCLUSIVE", negligible=None, reason=None,
)
DECISION = DecisionRow(
    decision_id="d1", study="s", profile="smoke", model="m", gate="effect", look=4, plan_hash="p",
    run_id="r1", question="is there one?", verdict="DETECTED", exploratory=False, negligible=False,
    evidence="{}", sql="SELECT 1", parameters="{}", rule="{}", sentence="It is there", next="stop",
    next_parameters="{}", flow_run_id="f1", launched_flow_run_id=None,
    decided_at=NOON + timedelta(seconds=45),
)
# fmt: on


def the_plan(name: str = "p", **changes: object) -> PlanRow:
    return PlanRow(
        plan_hash=name,
        study="s",
        profile="smoke",
        frozen=True,
        recorded_at=NOON,
        text=canonical(PLAN | changes),
    )


def belongs(*steps: str, plan: str = "p") -> list[Record]:
    return [PlanStepRow(plan_hash=plan, step_id=step) for step in steps]


def record_two_nights(lab: Store) -> Store:
    """A night that left something, one that took it up a day later, and a run of a person between them."""
    day = timedelta(days=1)
    second = replace(
        NIGHT, night_id="n2", started_at=NOON + day, ended_at=NOON + day + timedelta(minutes=10),
        state="completed", continues="n1", note=None,
    )  # fmt: skip
    left = replace(QUEUED, item="i2", position=1, state="left", flow_run_id="f2", run_id=None, note="stopped")
    by_hand = replace(RUN, run_id="hand", flow_run_id=None, started_at=NOON + timedelta(hours=3),
                      ended_at=NOON + timedelta(hours=3, seconds=40))  # fmt: skip
    cut_off = replace(RUN, run_id="r2", flow_run_id="f2", started_at=NOON + timedelta(minutes=20),
                      ended_at=NOON + timedelta(minutes=25), state="cancelled")  # fmt: skip
    later = replace(
        RUN, run_id="r3", flow_run_id="f3", started_at=NOON + day, ended_at=NOON + day + timedelta(200)
    )
    later = replace(later, ended_at=NOON + day + timedelta(seconds=200))
    child = replace(later, run_id="r4", flow_run_id="f4", parent_flow_run_id="f3")
    # taken up, not yet launched: it still carries the flow run of the night before
    lab.record([NIGHT, second, QUEUED, left, RUN, by_hand, cut_off, later, child, the_plan()])
    lab.record(
        [
            replace(left, night_id="n2", item="i2", state="done", flow_run_id="f3", started_at=NOON + day),
            replace(left, night_id="n2", item="i3", state="queued", flow_run_id="f1", started_at=None),
            replace(left, night_id="n2", item="i4", state="proposed", flow_run_id=None, started_at=None),
        ]
    )

    def decided(name: str, run_id: str, verdict: str, at: datetime, gate: str = "effect") -> DecisionRow:
        return replace(DECISION, decision_id=name, run_id=run_id, verdict=verdict, decided_at=at, gate=gate)

    soon = timedelta(seconds=30)
    lab.record(
        [
            DECISION,
            decided("d2", "hand", "INVALID", NOON + timedelta(hours=3)),
            decided("d3", "r2", "INCONCLUSIVE", NOON + timedelta(minutes=21)),
            decided("d4", "r4", "EQUIVALENT", NOON + day + soon, gate="other"),
            decided("d5", "r3", "INVALID", NOON + day + 2 * soon),
        ]
    )
    return lab


def measured(
    name: str, value: float | None, *, day: int = 0, metric: str = "loss", **changes: Any
) -> list[Record]:
    """A step that a run of that day recorded, with one number."""
    began = NOON + timedelta(days=day)
    step = replace(STEP, step_id=name, recorded_at=STEP.recorded_at + timedelta(days=day), **changes)
    why = None if value is not None else "it diverged"
    return [
        step,
        replace(RUN, run_id=f"run {day}", started_at=began, ended_at=began + timedelta(minutes=6)),
        MetricRow(step_id=name, unit="*", name=metric, value=value, reason=why),
        *belongs(name),
    ]
