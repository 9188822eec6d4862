"""The Parquet export of a day: whole or not at all, a week of them, whatever kills it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from lab.daily_export import days, export_day
from lab.errors import UsageError
from lab.lock import held
from lab.store import Store
from tests.ladder_command import ROOT, environment
from tests.night_rows import NIGHT, measured

DAY = date(2026, 11, 21)


@pytest.fixture
def lab(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def rows_of(place: Path, table: str = "metric") -> int:
    with duckdb.connect() as con:
        found = con.execute(f"SELECT count(*) FROM read_parquet('{place / table}.parquet')").fetchone()
    return int(found[0]) if found else -1


def test_an_export_has_every_table_of_its_day_and_the_last_seven_days_stay(lab: Store) -> None:
    lab.record(measured("a1", 1.0))
    (lab.home / "export" / "mine").mkdir(parents=True)
    for i in range(9):
        place = export_day(lab, DAY + timedelta(days=i))
    tables = {row[0] for row in lab.read("SELECT table_name FROM duckdb_tables() WHERE NOT internal").rows()}
    assert {path.stem for path in place.iterdir()} == tables
    assert [path.name for path in days(lab.home)] == [f"2026-11-{day}" for day in range(29, 22, -1)]
    assert {path.name for path in (lab.home / "export").iterdir() if not path.name.startswith("2026")} == {
        ".lock",
        "mine",
    }


def test_a_second_export_of_a_day_replaces_the_first(lab: Store) -> None:
    lab.record(measured("a1", 1.0))
    assert rows_of(export_day(lab, DAY)) == 1
    lab.record(measured("a2", 1.0))
    assert rows_of(export_day(lab, DAY)) == 2
    assert [path.name for path in days(lab.home)] == [f"{DAY}"]


def test_what_a_killed_export_left_is_put_right(lab: Store) -> None:
    lab.record(measured("a1", 1.0))
    folder = export_day(lab, DAY).parent
    (folder / f"{DAY}").rename(folder / f".{DAY}.old")  # killed between the two renames
    shutil.copytree(folder / f".{DAY}.old", folder / ".2026-11-20.old")
    shutil.copytree(folder / f".{DAY}.old", folder / "2026-11-20")
    for half in (".2026-11-22.new", ".2026-11-01.gone"):
        (folder / half).mkdir()
        (folder / half / "metric.parquet").write_text("half")
    export_day(lab, date(2026, 11, 22))
    found = sorted(path.name for path in folder.iterdir())
    assert found == [".lock", "2026-11-20", "2026-11-21", "2026-11-22"]
    assert rows_of(folder / f"{DAY}") == 1


def test_a_day_is_there_whole_whenever_an_export_is_killed(lab: Store) -> None:
    lab.record(measured("a1", 1.0))
    place = export_day(lab, DAY)
    again = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from lab.daily_export import export_day; from lab.store import Store\n"
        "while True:\n    export_day(Store(Path(sys.argv[1])), date(2026, 11, 21)); print('.', flush=True)"
    )
    for i in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", again, str(lab.home)],
            cwd=ROOT,
            env=environment(lab.home),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(2 + i):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        kept = place if place.exists() else place.with_name(f".{DAY}.old")
        assert all(rows_of(kept, path.stem) >= 0 for path in kept.iterdir())
        assert len(list(kept.iterdir())) > 20
    assert rows_of(export_day(lab, DAY)) == 1


def test_an_export_beside_another_is_refused_and_so_are_no_days(lab: Store) -> None:
    lab.record([NIGHT])
    (lab.home / "export").mkdir()
    with (
        held(lab.home / "export" / ".lock"),
        pytest.raises(UsageError, match="is being written by another process"),
    ):
        export_day(lab, DAY)
    with pytest.raises(UsageError, match="allowed: 1 and more"):
        export_day(lab, DAY, keep=0)
