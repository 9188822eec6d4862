"""What a night's rows remember of earlier nights."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lab.night_book import AT_DEADLINE, NightBook, chain_root, done_in_chain
from lab.night_queue import Candidate
from lab.store import Store
from tests.night_rows import NIGHT, QUEUED

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
