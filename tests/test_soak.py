"""A short soak by default, and that it notices what it is for."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from lab.records import MetricRow
from lab.store import Store
from tests.soak import FOUND, check, soak
from tests.test_store_faults import ROWS_A_BATCH


@pytest.mark.parametrize("seconds", [5.0, pytest.param(600.0, marks=pytest.mark.slow)])
def test_writers_that_are_killed_and_readers_see_only_whole_batches(tmp_path: Path, seconds: float) -> None:
    found = soak(tmp_path / "home", writers=3, readers=1, seconds=seconds)
    assert found["kills"] >= 3  # type: ignore[operator]
    assert found["rows"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("harm", ["DELETE FROM metric WHERE name = '2'", "UPDATE metric SET value = 7"])
def test_a_soak_notices_half_a_batch_and_a_last_row_that_is_not(tmp_path: Path, harm: str) -> None:
    lab = Store(tmp_path)
    names = [("0", str(i)) for i in range(ROWS_A_BATCH)]
    lab.record([MetricRow(step_id="w", unit=unit, name=name, value=0.0, reason=None)
                for unit, name in (*names, ("*", "last"))])  # fmt: skip
    assert check(lab.read(FOUND)) == ROWS_A_BATCH
    with duckdb.connect(lab.path) as con:
        con.execute(harm)
    with pytest.raises(AssertionError, match=r"half a batch|without its last row"):
        check(lab.read(FOUND))
