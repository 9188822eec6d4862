"""What runs by the clock, and what a server does when a run dies: registered once, then the person's."""

from __future__ import annotations

import inspect
import zoneinfo
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deployments import automations, register
from flows.overnight import overnight

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ROOT = Path(__file__).resolve().parent.parent
NIGHT = "overnight/nightly"
LADDER = "entropy-ladder/nightly"


@pytest.fixture
def api(prefect_server: None) -> Iterator[SyncPrefectClient]:
    """A client of a real server that has the work pool and nothing by the clock."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        register.prepare_server(client)
        for found in client.read_deployments():
            client.delete_deployment(found.id)
        for one in client.read_automations():
            client.delete_automation(one.id)
        yield client


def schedules(api: SyncPrefectClient, name: str) -> list[tuple[str | None, str, str, bool]]:
    """Slug, cron, time zone and whether it is on."""
    found = api.read_deployment_by_name(name).schedules
    told = [(one.slug, one.schedule.cron, one.schedule.timezone, one.active) for one in found]
    return sorted(told, key=str)


def test_the_night_is_due_at_ten_and_a_second_one_is_cancelled_not_queued() -> None:
    found = {one.full_name: one for one in register.scheduled()}
    night, ladder = found[NIGHT], found[LADDER]
    assert night.clock == register.Clock(slug="nightly", cron="0 22 * * *")
    assert (night.collision_strategy, ladder.collision_strategy) == ("CANCEL_NEW", "ENQUEUE")
    assert (night.parameters["budget"], night.parameters["profile"]) == (
        "8h",
        "smoke",
    )
    assert ladder.clock == register.Clock(slug="nightly", cron="0 22 * * *", active=False)
    assert ladder.parameters["settings"]["profile"] == "laptop"
    assert found["summary/daily"].clock == register.Clock(slug="daily", cron="0 7 * * *")


def test_the_form_of_the_night_explains_every_field() -> None:
    [night] = [one for one in register.scheduled() if one.full_name == NIGHT]
    fields = night.parameter_schema["properties"]
    assert set(fields) == set(inspect.signature(overnight.fn).parameters)
    assert [name for name, told in fields.items() if not told.get("description")] == []
    assert fields["budget"]["description"].startswith("How long it may take")


def test_what_was_paused_changed_added_or_removed_stays_so(api: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    register.register_scheduled(api, "Europe/Berlin")
    assert schedules(api, NIGHT) == [("nightly", "0 22 * * *", "Europe/Berlin", True)]
    assert schedules(api, LADDER) == [("nightly", "0 22 * * *", "Europe/Berlin", False)]
    night, ladder = api.read_deployment_by_name(NIGHT), api.read_deployment_by_name(LADDER)
    api.update_deployment_schedule(night.id, night.schedules[0].id, active=False)
    noon = CronSchedule(cron="0 12 * * 0", timezone="UTC")
    api.create_deployment_schedules(night.id, [DeploymentScheduleCreate(schedule=noon, active=True)])
    api.delete_deployment_schedule(ladder.id, ladder.schedules[0].id)
    for _ in range(2):
        register.register_scheduled(api, "Asia/Tokyo")
        assert schedules(api, NIGHT) == [
            ("nightly", "0 22 * * *", "Europe/Berlin", False),
            (None, "0 12 * * 0", "UTC", True),
        ]
        assert schedules(api, LADDER) == []


def test_a_study_that_a_person_scheduled_keeps_its_schedule(api: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    from flows.registry import find_study

    study = find_study("nanodesmo")
    register.register([study], api)
    found = api.read_deployment_by_name("nanodesmo/smoke")
    cron = CronSchedule(cron="0 3 * * *", timezone="UTC")
    api.create_deployment_schedules(found.id, [DeploymentScheduleCreate(schedule=cron, active=True)])
    register.register([study], api)
    assert schedules(api, "nanodesmo/smoke") == [(None, "0 3 * * *", "UTC", True)]
    assert schedules(api, "nanodesmo/fast") == []


def test_the_checked_in_yaml_holds_no_time_zone_of_a_machine_and_switches_nothing_on() -> None:
    entries: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))[
        "deployments"
    ]
    by_clock = {
        f"{one['flow_name']}/{one['name']}": one["schedules"] for one in entries if "schedules" in one
    }
    assert {NIGHT, LADDER} <= set(by_clock)
    for found in by_clock.values():
        assert [(one["timezone"], one.get("active", False)) for one in found] == [("UTC", False)]
        assert all(one["slug"] for one in found)  # without one `prefect deploy` makes it anew, switched on
    assert "active" not in by_clock[NIGHT][0]


@pytest.mark.parametrize(
    ("variable", "linked", "written", "expected"),
    [
        ("", "/usr/share/zoneinfo/Europe/Lisbon", None, "Europe/Lisbon"),
        ("", "/var/db/timezone/zoneinfo/America/Argentina/Ushuaia", None, "America/Argentina/Ushuaia"),
        (":Asia/Tokyo", "/usr/share/zoneinfo/Europe/Lisbon", None, "Asia/Tokyo"),
        ("CET-1CEST", "/usr/share/zoneinfo/Europe/Lisbon", None, "Europe/Lisbon"),
        ("", None, "Europe/Athens\n", "Europe/Athens"),
        ("", "/nowhere/at/all", "Middle/Earth", "UTC"),
        ("", None, None, "UTC"),
    ],
)
def test_the_time_zone_is_the_machine_s_by_name_and_else_universal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    linked: str | None,
    written: str | None,
    expected: str,
) -> None:
    monkeypatch.setenv("TZ", variable)
    if linked is not None:
        (tmp_path / "localtime").symlink_to(linked)
    if written is not None:
        (tmp_path / "timezone").write_text(written, encoding="utf-8")
    found = register.local_time_zone(tmp_path)
    assert found == expected
    assert found in zoneinfo.available_timezones()


def test_the_automations_are_made_once_and_stay_as_they_are_set(
    api: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")

    def found() -> dict[str, Any]:
        return {one.name: one for one in api.read_automations()}

    automations.ensure(api)
    first = found()
    assert set(first) == {automations.DEAD_RUNS, automations.NOTES}
    assert (first[automations.DEAD_RUNS].enabled, first[automations.NOTES].enabled) == (True, False)
    assert first[automations.DEAD_RUNS].trigger.within == timedelta(seconds=180)
    api.pause_automation(first[automations.DEAD_RUNS].id)
    api.resume_automation(first[automations.NOTES].id)
    automations.ensure(api)
    again = found()
    assert {name: one.id for name, one in again.items()} == {name: one.id for name, one in first.items()}
    assert (again[automations.DEAD_RUNS].enabled, again[automations.NOTES].enabled) == (False, True)


def test_a_patience_of_under_three_heartbeats_is_raised_and_a_longer_one_kept(
    api: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patience(beat: str) -> timedelta:
        monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", beat)
        automations.ensure(api)
        [one] = api.read_automations_by_name(automations.DEAD_RUNS)
        found: timedelta = one.trigger.within
        return found

    assert patience("60") == timedelta(seconds=180)
    assert patience("30") == timedelta(seconds=180)
    assert patience("120") == timedelta(seconds=360)
    [one] = api.read_automations_by_name(automations.DEAD_RUNS)
    api.pause_automation(one.id)
    assert patience("200") == timedelta(seconds=600)
    [one] = api.read_automations_by_name(automations.DEAD_RUNS)
    assert not one.enabled
