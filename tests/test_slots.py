"""How many calls run at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.slots import Slots

CALL_SECONDS = 0.5


def at_once(slots: Slots, calls: int, seconds: float = CALL_SECONDS) -> list[int]:
    """How many ran when each call began."""
    running, seen, lock = 0, [], threading.Lock()

    def call(_: int) -> None:
        nonlocal running
        with slots.held():
            with lock:
                running += 1
                seen.append(running)
            time.sleep(seconds)
            with lock:
                running -= 1

    with ThreadPoolExecutor(max_workers=calls) as pool:
        list(pool.map(call, range(calls)))
    return seen


@pytest.fixture
def two() -> Slots:
    """Two cores on which calls of half a second are long."""
    found = Slots(2, pays_seconds=0.4, settle_seconds=0.2)
    at_once(found, 2)  # so that it has seen how long they take
    return found


@pytest.mark.parametrize(("calls", "most"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (8, 2), (9, 3)])
def test_an_odd_one_left_over_runs_with_the_last_two_and_never_more(
    two: Slots, calls: int, most: int
) -> None:
    assert max(at_once(two, calls)) == most


def test_three_of_five_are_the_last_ones(two: Slots) -> None:
    assert at_once(two, 5)[:2] == [1, 2]
    assert at_once(two, 5)[-1] == 3


def test_short_calls_get_no_process_more_than_there_are_cores(two: Slots) -> None:
    at_once(two, 4, seconds=0.01)
    assert max(at_once(two, 5, seconds=0.01)) == 2


def test_nobody_knows_at_first_how_long_calls_take() -> None:
    assert max(at_once(Slots(2, pays_seconds=0.4, settle_seconds=0.2), 3)) == 2


def test_a_call_that_fails_gives_its_place_back(two: Slots) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), two.held():
            raise ValueError("broken")
    assert max(at_once(two, 2)) == 2
