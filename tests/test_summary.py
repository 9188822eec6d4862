"""The morning's summary: its page, its section of the report, and the flow that makes and shows them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lab.daily_export import days
from lab.errors import WorkError
from lab.machine import this_process
from lab.report_summary import summary_section
from lab.store import Store
from lab.summaries import MOST_ROWS, command, in_a_sentence, page
from lab.summary_rows import counts, plain, summarise
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
)

NOW = datetime(2026, 11, 22, 7)


@pytest.fixture
def lab(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture
def morning(lab: Store) -> Store:
    """Two nights, a number that drifted on the second and one that did so long ago, and open questions."""
    two_nights = record_two_nights(lab)
    two_nights.record([*measured("a1", 1.0), *measured("a2", 1.5, day=1, code="c2")])
    two_nights.record(
        [*measured("b1", 1.0, arm="old", day=-9), *measured("b2", 3.0, arm="old", day=-8, code="c2")]
    )
    two_nights.record(
        [
            replace(STEP, step_id="t", experiment="analyse"),
            *belongs("t"),
            TEST,
            replace(TEST, metric="q", n_to_settle=None),
        ]
    )
    routes = {"decision_id": "route", "gate": "led on", "decided_at": NOON + timedelta(days=1, hours=1)}
    onward: dict[str, Any] = {"next": "another-study", "next_parameters": '{"profile":"fast","seeds":[1,2]}'}
    two_nights.record([replace(DECISION, run_id="r3", sentence="5 | 6 <b>\nbold", **routes, **onward)])
    inside = {**routes, "decision_id": "inside", "gate": "within"}
    two_nights.record([replace(DECISION, run_id="r3", next="next gate", **inside)])
    return two_nights


def test_the_page_says_what_the_day_brought_and_what_comes_next(morning: Store) -> None:
    found = summarise(morning, now=NOW)
    told = page(
        found, flows={"another_study"}, made=["report: `report.html`"], problems=["export: disk full"]
    )
    assert [row["night_id"] for row in found.nights] == ["n2"]
    assert counts(found) == {"INVALID": 1, "DETECTED": 2, "EQUIVALENT": 1, "INCONCLUSIVE": 0}
    assert in_a_sentence(found) == ("1 INVALID, 2 DETECTED, 1 EQUIVALENT; 1 number drifted; 2 questions open")
    for line in (
        "**Not done:** export: disk full",
        "| n2 | completed | 1 h 0 min | 10 min 0 s | 1 done, 1 left, 1 proposed "
        "| 2 detected, 1 equivalent, 1 invalid | 30.0 s |  |",
        "| s · smoke | m | led on | 4 | DETECTED | 5 \\| 6 &lt;b> bold | another-study |",
        "| s | train · m · one · 0 | loss | 1 | 1.5 | 0.5 | code |  |",
        "1 older: `ladder sql 'SELECT * FROM drift'`.",
        "- 1: n_to_settle is unknown",
        "| s · smoke · led on: DETECTED | m | another-study | not taken "
        "| `ladder run another_study --profile fast --set 'seeds=[1,2]'` |",
        "Left for the next night (`ladder night`):",
        "- report: `report.html`",
    ):
        assert line in told.splitlines()
    assert "| old |" not in told, "what drifted earlier is counted, not shown"
    assert "within" not in told.split("## Next steps")[1], "a gate of the same study is no next step"


def test_every_table_of_the_page_has_one_number_of_cells_and_long_ones_are_cut(morning: Store) -> None:
    many = [replace(TEST, contrast=f"{i}-0", n_to_settle=5 + i) for i in range(60)]
    morning.record(many)
    told = page(summarise(morning, now=NOW))
    widths: list[set[int]] = [set()]
    for line in told.splitlines():
        if line.startswith("|"):
            widths[-1].add(len(re.split(r"(?<!\\)\|", line)))
        elif widths[-1]:
            widths.append(set())
    assert [len(width) for width in widths if width] == [1] * 7
    assert told.count("\n| s · smoke | m | effect · difference · loss · ") == MOST_ROWS
    assert "And 36 more: `ladder sql 'SELECT * FROM open_questions'`." in told


def test_a_decision_that_a_night_took_is_shown_as_taken_and_an_unknown_flow_has_no_command(
    morning: Store,
) -> None:
    morning.record([replace(QUEUED, night_id="n2", item="taken", decision_id="route")])
    [step] = [row for row in summarise(morning, now=NOW).next_steps if row["gate"] == "led on"]
    assert step["state"] == "done"
    assert command(step, {"another_study"}) != ""
    assert command(step, {"s"}) == ""


def state_of(store: Store, gate: str) -> object:
    [step] = [row for row in summarise(store, now=NOW).next_steps if row["gate"] == gate]
    return step["state"]


def test_where_a_decision_leads_is_taken_when_the_plan_queued_it_or_a_person_ran_it(morning: Store) -> None:
    settings = '{"seeds":[1,2]}'
    same = {"study": "another_study", "profile": "fast", "settings": settings}
    assert state_of(morning, "led on") is None
    before = replace(RUN, run_id="b", started_at=NOON - timedelta(days=9), **same)
    other = replace(RUN, run_id="o", started_at=NOW, **same | {"settings": '{"seeds":[3],"x":1}'})
    small = replace(RUN, run_id="s", started_at=NOW, **same | {"profile": "smoke"})
    morning.record([before, other, small])
    assert state_of(morning, "led on") is None
    by_plan = replace(QUEUED, night_id="n2", item="by plan", decision_id=None, state="queued", **same)
    morning.record([by_plan])
    assert state_of(morning, "led on") == "queued"
    whole = same | {"settings": '{"seeds":[1,2],"x":1}'}
    morning.record([replace(RUN, run_id="h", started_at=NOW, **whole)])
    assert state_of(morning, "led on") == "done"


def test_a_rung_that_was_climbed_to_is_no_next_step(morning: Store) -> None:
    rung = replace(DECISION, decision_id="rung", study="l", plan_hash="l", gate="climb", next="next_rung")
    morning.record([rung])
    assert state_of(morning, "climb") is None
    above = {"decision_id": "above", "model": "larger", "next": "stop"}
    morning.record([replace(rung, decided_at=rung.decided_at + timedelta(seconds=9), **above)])
    assert [row for row in summarise(morning, now=NOW).next_steps if row["gate"] == "climb"] == []


def test_an_empty_store_makes_a_page_too(lab: Store) -> None:
    found = summarise(lab, now=NOW)
    assert in_a_sentence(found) == "no verdict; nothing drifted; 0 questions open"
    assert "No gate was asked in this time." in page(found)
    assert "<p>None.</p>" in summary_section(lab)


def test_a_night_whose_process_is_gone_is_not_said_to_run(lab: Store) -> None:
    host, pid, start = this_process().rsplit(":", 2)
    running = replace(NIGHT, state="running", ended_at=None, process=this_process())
    lab.record([running, replace(running, night_id="n2", process=f"{host}:{pid}:1{start}")])
    states = {row["night_id"]: row["state"] for row in summarise(lab, now=NOW).nights}
    assert states == {"n1": "running", "n2": "crashed"}


def test_the_summary_is_plain_data(morning: Store) -> None:
    told = plain(summarise(morning, now=NOW))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["made_at"] == "2026-11-22 07:00:00"


def test_the_section_of_the_report_shows_nights_drift_cost_and_questions(morning: Store) -> None:
    told = summary_section(morning)
    assert told.count("<table>") == 4
    for words in (
        "10 min 0 s",
        "train · m · one · 0",
        "effect · difference · loss · one-two",
        "SELECT * FROM drift",
    ):
        assert words in told
    morning.record([replace(NIGHT, note="<script>")])
    assert "&lt;script&gt;" in summary_section(morning)


# --- the flow -------------------------------------------------------------------------------------


def shown() -> str:
    """The newest summary among the pages of the server."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    async def asked() -> str:
        async with get_client() as api:
            found = await api.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["summary"])),
                sort=ArtifactSort.UPDATED_DESC,
            )
        return str(found[0].data)

    return asyncio.run(asked())


@pytest.fixture
def summary(
    prefect_server: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """The flow, in a home in which a study has run."""
    monkeypatch.setenv("LADDER_HOME", str(home))
    from flows.summary import summary as flow

    return flow


def test_the_flow_publishes_exports_reports_and_shows_its_page(
    summary: Callable[..., dict[str, Any]], home: Path
) -> None:
    store = Store(home)
    for name in ("lab-snapshot.duckdb", "report.html"):
        (home / name).unlink(missing_ok=True)
    store.record(
        [replace(RUN, run_id="lost", state="running", ended_at=None, process="here:1:1")], drain=False
    )
    lost = replace(RUN, run_id="gone", state="running", ended_at=None, process=f"{this_process()}9")
    store.record([lost], drain=False)
    told = summary()
    assert json.loads(json.dumps(told)) == told
    assert store.outbox.waiting() == []
    assert store.read("SELECT state FROM run WHERE run_id = 'gone'").item() == "crashed"
    [day] = days(home)
    assert told["written"] == {"export": f"export/{day.name}", "report": "report.html"}
    assert (
        pl.read_parquet(day / "decision.parquet").height
        == store.read("SELECT count(*) AS n FROM decision").item()
        > 0
    )
    assert (home / "lab-snapshot.duckdb").stat().st_size > 0
    assert "<html" in (home / "report.html").read_text(encoding="utf-8")
    page_shown = shown()
    assert "| entropy_seeds · smoke |" in page_shown
    for head in ("Nights", "Verdicts", "Drift", "What verdicts cost", "Open questions", "Next steps"):
        assert f"## {head}" in page_shown
    assert sum(told["counts"].values()) == len(told["verdicts"]) > 0


def test_without_a_report_none_is_written_and_what_cannot_be_written_is_on_the_page(
    summary: Callable[..., dict[str, Any]], home: Path
) -> None:
    (home / "report.html").unlink(missing_ok=True)
    assert summary(report=False)["written"].keys() == {"export"}
    assert not (home / "report.html").exists()
    shutil.rmtree(home / "export")
    (home / "export").write_text("a file in its place")
    with pytest.raises(WorkError, match=r"export: .*File exists"):
        summary()
    assert "**Not done:** export: " in shown()
    assert (home / "report.html").exists(), "what can be written is"


def test_the_summary_is_a_flow_with_help_in_its_form_and_no_study() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.registry import studies
    from flows.summary import summary as flow

    assert "summary" not in studies()
    told = parameter_schema(flow).model_dump()["properties"]["report"]
    assert told["default"] is True
    assert told["description"] == "Whether to write report.html too"
