"""The disturbed nights of `tests.chaos`, for some minutes; its checker, on a store that is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.store import Store
from tests.chaos import chaos, check
from tests.night_rows import QUEUED
from tests.small_study import record_study


def test_the_checker_passes_a_sound_store_and_names_what_is_wrong(tmp_path: Path) -> None:
    lab, seen = Store(tmp_path), dict[str, int]()
    record_study(lab, looks=(4,), prompts=2)
    check(tmp_path, seen)
    assert seen["test"] > 0
    seen["test"] += 1
    with pytest.raises(AssertionError, match="rows were seen"):
        check(tmp_path, seen)
    lab.record([replace(QUEUED, night_id="nobody's")])
    with pytest.raises(AssertionError, match="queue without its night"):
        check(tmp_path, {})


@pytest.mark.slow
def test_nights_disturbed_at_random_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    done = chaos(tmp_path, seconds=240.0, seed=1)
    assert done["homes"] >= 1
