"""Where decisions lead in a night: queued once, launched by the server, and filed with the decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments import register
from deployments.service import client
from flows.injection_gates import gates_at
from flows.night_routes import follow, follow_failure, mark_launched
from flows.night_run import Night, Wishes
from flows.registry import studies
from lab.clock import elapsed
from lab.fingerprint import canonical
from lab.gates import Gate
from lab.night_book import NightBook
from lab.night_queue import Candidate
from lab.records import DecisionRow, QueueRow
from lab.store import Store
from lab.study import Study
from tasks.ahead import Ahead
from tasks.night_children import Children
from tests.night_rows import DECISION, NIGHT, QUEUED
from tests.small_night import prepared_server

STARTED = replace(NIGHT, night_id="n2", continues="n1", state="running", ended_at=None, note=None)


def begun(home: Path) -> Night:
    """A night that goes on with another, its queue empty, in a home where no process is to be started."""
    Store(home).record([NIGHT, STARTED])
    return Night(
        home=home,
        wishes=Wishes(profile="smoke", names=(), only_left=True, climb=True),
        book=NightBook(home=home, night=STARTED),
        source=home,
        root="n1",
        children=Children(home, home),
        ahead=Ahead(home),
        ends=elapsed() + 60,
    )


def launched(home: Path) -> dict[str, str]:
    rows = Store(home).read(
        "SELECT decision_id, launched_flow_run_id AS id FROM decision WHERE launched_flow_run_id IS NOT NULL"
    )
    return dict(rows.iter_rows())


def test_every_decision_that_leads_to_a_run_stores_it_whoever_queued_it(tmp_path: Path) -> None:
    one = begun(tmp_path)
    led = replace(DECISION, next="direct-injection")
    decisions = [
        replace(led, decision_id="of this night", run_id="r2"),
        replace(led, decision_id="of the night before", run_id="r1"),
        replace(led, decision_id="elsewhere", run_id="r1", next="entropy_ladder"),
        replace(led, decision_id="other settings", run_id="r1", next_parameters='{"samples":9}'),
        replace(led, decision_id="other profile", run_id="r1", next_parameters='{"profile":"fast"}'),
        replace(led, decision_id="launched", run_id="r1", launched_flow_run_id="f0"),
        replace(led, decision_id="of a run by hand", run_id="r3"),
    ]
    done = replace(QUEUED, night_id="n2", item="i2", run_id="r2")
    one.book.store.record([*decisions, QUEUED, done])
    by_plan = Candidate(study="direct_injection", profile="smoke", settings={}, why="the plan")
    one.book.add(by_plan)
    row = replace(one.book.rows[by_plan.item], state="running", flow_run_id="f9")
    mark_launched(one.book, row)
    assert launched(tmp_path) == {"of this night": "f9", "of the night before": "f9", "launched": "f0"}


def test_what_was_launched_for_a_decision_and_done_is_not_queued_for_it_again(tmp_path: Path) -> None:
    one = begun(tmp_path)
    wish = Candidate(study="direct_injection", profile="smoke", settings={}, why="the plan")
    decision = replace(DECISION, next="direct-injection", launched_flow_run_id="f9")
    earlier = replace(QUEUED, item=wish.item, study=wish.study, flow_run_id="f9", decision_id=None)
    one.book.store.record([decision, earlier])
    follow(one.book, QUEUED, climb=True, was_heard=True)
    assert one.book.rows == {}
    one.book.store.record([replace(decision, launched_flow_run_id=None)])
    follow(one.book, QUEUED, climb=True, was_heard=True)
    assert list(one.book.rows) == [wish.item]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A route that leads to a study, or what a failed run leads to."""

    study: str
    profile: str
    gate: str
    verdict: str
    next: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def _gates(study: Study, settings: Any) -> tuple[Gate, ...]:
    """As a run asks them: injection names the model that follows on the one it was run with."""
    if study.name == "direct_injection":
        return gates_at(settings.model, settings.rungs)
    return study.plan(settings).gates


def ways() -> Iterator[Way]:
    for study in studies().values():
        for profile, settings in study.profiles.items():
            for gate in _gates(study, settings):
                for verdict, route in gate.routes.items():
                    if route.next in studies():
                        yield Way(
                            study=study.name, profile=profile, gate=gate.name, verdict=verdict,
                            next=route.next, parameters=dict(route.parameters),
                        )  # fmt: skip
            if (smaller := study.smaller_profile(profile)) is not None:
                yield Way(
                    study=study.name, profile=profile, gate="", verdict="failed", next=study.name,
                    parameters={"profile": smaller},
                )  # fmt: skip


@pytest.fixture(scope="module")
def waited_on() -> Iterator[str]:
    """A server whose work pool seems to have a worker, so that what is launched waits for it."""
    url = prepared_server()["PREFECT_API_URL"]
    with client(url) as api, temporary_settings({PREFECT_API_URL: url}):
        api.send_worker_heartbeat(register.WORK_POOL, "elsewhere")
        yield url
        api.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}",
                    path_params={"work_pool_name": register.WORK_POOL, "name": "elsewhere"})  # fmt: skip


def taken(one: Night, way: Way) -> QueueRow | None:
    """Whom a night launches after a decision or a failure, as it does after a run."""
    of = replace(QUEUED, night_id="n2", study=way.study, profile=way.profile, run_id="r2")
    if way.gate:
        told = {"next": way.next, "next_parameters": canonical(way.parameters)}
        asked = {"study": way.study, "profile": way.profile, "gate": way.gate, "verdict": way.verdict}
        one.book.store.record([of, DecisionRow(**vars(DECISION) | told | asked | {"run_id": "r2"})])
        follow(one.book, of, climb=True, was_heard=True)
    else:
        follow_failure(one.book, of)
    waiting = one.book.waiting()
    assert len(waiting) == 1
    row, _ = one._launched(waiting[0])
    mark_launched(one.book, row)
    return row


def test_every_route_to_a_study_is_followed_launched_and_filed(waited_on: str, tmp_path: Path) -> None:
    found = list(ways())
    assert {way.study for way in found} == set(studies())
    assert len(found) >= 8 + 15
    with client(waited_on) as api:
        for place, way in enumerate(found):
            told = dict(way.parameters)
            profile = str(told.pop("profile", way.profile))
            assert profile in studies()[way.next].profiles
            home = tmp_path / str(place)
            row = taken(begun(home), way)
            assert row is not None
            assert row.flow_run_id is not None
            run = api.read_flow_run(UUID(row.flow_run_id))
            deployment = api.read_deployment_by_name(studies()[way.next].deployment(profile))
            assert run.deployment_id == deployment.id
            given = run.parameters["settings"]
            assert {name: given[name] for name in told} == json.loads(json.dumps(told))
            assert launched(home) == ({"d1": row.flow_run_id} if way.gate else {})
            assert run.idempotency_key is not None
            assert run.idempotency_key.endswith(f"/{row.item}/1")
            api.delete_flow_run(run.id)
