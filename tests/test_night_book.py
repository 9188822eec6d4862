"""What a night's rows remember of earlier nights."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.machine import environment, this_process
from lab.night_book import (
    AT_DEADLINE,
    NightBook,
    chain_root,
    done_in_chain,
    left_over,
    only_night,
    open_night,
    past_runs,
)
from lab.night_queue import Candidate
from lab.store import Store
from tests.night_rows import NIGHT, QUEUED, RUN

ONE = Candidate(study="s", profile="smoke", settings={}, why="the plan of s")
FAILED = "failed: no such file; the next night tries again"


def book(home: Path, *nights: tuple[str, int, str | None]) -> NightBook:
    """A night after others: state, attempt and note of the candidate in each."""
    rows = [
        (
            replace(NIGHT, night_id=f"n{i}", started_at=NIGHT.started_at + timedelta(days=i)),
            replace(QUEUED, night_id=f"n{i}", item=ONE.item, state=state, attempt=attempt, note=note),
        )
        for i, (state, attempt, note) in enumerate(nights)
    ]
    Store(home).record([row for pair in rows for row in pair])
    last = replace(NIGHT, night_id="now", started_at=NIGHT.started_at + timedelta(days=9))
    Store(home).record([last])
    return NightBook(home=home, night=last)


@pytest.mark.parametrize(
    ("nights", "launches", "failures"),
    [
        ((), 0, 0),
        ((("done", 1, None), ("done", 1, None), ("done", 2, None)), 0, 0),
        ((("left", 1, FAILED), ("done", 2, None), ("left", 1, FAILED)), 1, 1),
        ((("left", 1, AT_DEADLINE), ("left", 2, FAILED), ("left", 3, FAILED)), 3, 2),
    ],
)
def test_launches_and_failures_count_from_the_last_time_it_was_done(
    nights: tuple[tuple[str, int, str | None], ...], launches: int, failures: int, tmp_path: Path
) -> None:
    found = book(tmp_path, *nights)
    assert found.failures(ONE.item) == failures
    assert found.add(ONE)
    assert found.rows[ONE.item].attempt == launches
    assert not found.add(ONE)


def test_what_a_killed_night_had_running_is_no_failure(tmp_path: Path) -> None:
    found = book(tmp_path, ("left", 1, FAILED))
    lost = replace(QUEUED, night_id="n0", item=ONE.item, state="running", seconds=None, note=None)
    Store(tmp_path).record([lost])
    assert found.failures(ONE.item) == 0


def test_a_chain_of_unfinished_nights_knows_its_first_and_what_is_done(tmp_path: Path) -> None:
    chain = [("a", None), ("b", "a"), ("c", "b"), ("other", None)]
    nights = [replace(NIGHT, night_id=name, continues=before) for name, before in chain]
    items = [replace(QUEUED, night_id=name, item=f"of {name}") for name, _ in chain]
    Store(tmp_path).record([*nights, *items])
    assert chain_root(Store(tmp_path), "c") == "a"
    assert chain_root(Store(tmp_path), "nobody") == "nobody"
    assert done_in_chain(Store(tmp_path), "b") == {"of a", "of b"}


def test_what_a_night_left_is_found_behind_one_that_was_killed_as_it_began(tmp_path: Path) -> None:
    nights = [
        replace(NIGHT, night_id="first", started_at=NIGHT.started_at),
        replace(NIGHT, night_id="second", continues="first", started_at=NIGHT.started_at + timedelta(days=1)),
        replace(NIGHT, night_id="third", continues="second", started_at=NIGHT.started_at + timedelta(days=2)),
    ]
    rows = [
        replace(QUEUED, night_id="first", item="x", position=0, state="left"),
        replace(QUEUED, night_id="first", item="y", position=1, state="left"),
        replace(QUEUED, night_id="first", item="z", position=2, state="left"),
        replace(QUEUED, night_id="second", item="y", position=0, state="done"),
        replace(QUEUED, night_id="second", item="z", position=1, state="running"),
    ]
    Store(tmp_path).record([*nights, *rows])
    found = left_over(Store(tmp_path), "third")
    assert [(row.item, row.state) for row in found] == [("x", "left"), ("z", "running")]


def test_nights_stand_in_their_order_when_the_clock_was_set_back(tmp_path: Path) -> None:
    ahead = NIGHT.started_at + timedelta(days=30)
    Store(tmp_path).record([replace(NIGHT, night_id="ahead", started_at=ahead, state="budget")])
    one = open_night(tmp_path, profile="smoke", budget_seconds=60.0, begun=NIGHT.started_at)
    one.close("budget", None)
    two = open_night(tmp_path, profile="smoke", budget_seconds=60.0, begun=NIGHT.started_at)
    assert one.night.continues == "ahead"
    assert two.night.continues == one.night.night_id
    assert two.night.started_at > one.night.started_at > ahead


def test_a_night_of_another_host_is_closed_by_the_one_that_holds_the_home(tmp_path: Path) -> None:
    Store(tmp_path).record([replace(NIGHT, state="running", ended_at=None, process="gone:1:1")])
    found = open_night(tmp_path, profile="smoke", budget_seconds=60.0, begun=NIGHT.started_at)
    assert found.night.continues == NIGHT.night_id
    states = Store(tmp_path).read("SELECT state FROM night ORDER BY started_at")["state"].to_list()
    assert states == ["crashed", "running"]


def test_what_still_waits_when_a_night_ends_is_left_with_a_reason(tmp_path: Path) -> None:
    found = book(tmp_path)
    found.add(ONE)
    found.close("budget", None)
    assert (found.rows[ONE.item].state, found.rows[ONE.item].note) == (
        "left",
        "the night ended before its turn",
    )
    rows = Store(tmp_path).read("SELECT state, note FROM queue").to_dicts()
    assert rows == [{"state": "left", "note": "the night ended before its turn"}]


def test_runs_that_found_their_work_done_teach_nothing(tmp_path: Path) -> None:
    """Under a quarter of the longest of the same candidate; of another one, it may be all it takes."""
    place = replace(environment(device="cpu"), environment_id=RUN.environment_id)
    long = replace(QUEUED, item="x", seconds=60.0, run_id=RUN.run_id)
    others = [replace(NIGHT, night_id=f"n{i}") for i in (2, 3)]
    warm = [replace(long, night_id="n2", seconds=9.0), replace(long, night_id="n3", item="y", seconds=9.0)]
    Store(tmp_path).record([NIGHT, RUN, place, long, *others, *warm])
    assert sorted((one.item, one.seconds) for one in past_runs(Store(tmp_path))) == [("x", 60.0), ("y", 9.0)]


def test_a_second_night_is_refused_and_names_the_first(tmp_path: Path) -> None:
    Store(tmp_path).record([replace(NIGHT, state="running", ended_at=None, process=this_process())])
    with (
        only_night(tmp_path),
        pytest.raises(UsageError, match=r"night n1, begun 2026-11-20 12:00 UTC.*let it end"),
        only_night(tmp_path),
    ):
        raise AssertionError("two nights run at once")
    with only_night(tmp_path):
        pass
