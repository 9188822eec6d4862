"""`ladder clean`: what may go, what stays, and that it waits for whoever is at work."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from lab import lock
from lab.cleaning import delete, of_old_nights, of_study
from lab.machine import this_process
from lab.night_book import NIGHT_LOCK
from lab.products import Products
from lab.records import ArtifactRow, PlanRow, PlanStepRow, StepRow
from lab.store import Store
from tests.night_rows import NIGHT, NOON, QUEUED, RUN, STEP
from tests.test_cli import said

OWN, SHARED, LEFT, OTHER, FILED = (letter * 16 for letter in "abcde")
STUDY, NEIGHBOUR = "entropy_seeds", "entropy_control"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))


def step(key: str, study: str, **config: object) -> StepRow:
    return replace(STEP, step_id=key, study=study, config=json.dumps(config))


def plan(study: str) -> PlanRow:
    return PlanRow(
        plan_hash=f"plan of {study}", study=study, profile="smoke", frozen=True, recorded_at=NOON, text="{}"
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of two studies: a text each, one that both use, one that no row names, a model, figures."""
    texts = Products(tmp_path, "generation")
    for key in (OWN, SHARED, LEFT, OTHER):
        texts.write(key, {"text": key})
    Products(tmp_path, "alone").write(LEFT, {"text": "of a run that was killed"})
    Products(tmp_path, "alone").write(FILED, {"text": "named by a file's row"})
    (tmp_path / "models" / f"pydoc-0.1m-{OWN}").mkdir(parents=True)
    (tmp_path / "models" / f"pydoc-0.1m-{OWN}" / "model.safetensors").write_bytes(b"x" * 1000)
    for folder in ("figures/" + STUDY, f"figures/{NEIGHBOUR}", f"tapes/{STUDY}", f"plans/{STUDY}"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("x", encoding="utf-8")
    Store(tmp_path).record(
        [
            plan(STUDY),
            plan(NEIGHBOUR),
            step(OWN, STUDY),
            step("analyse", STUDY, measured=[SHARED]),
            step(OTHER, NEIGHBOUR),
            step("other", NEIGHBOUR, measured=[SHARED]),
            PlanStepRow(plan_hash=f"plan of {NEIGHBOUR}", step_id=OTHER),
            ArtifactRow(step_id=OWN, path=f"cache/alone/ee/{FILED}.json", kind="x", sha256="0" * 64, bytes=1),
        ]
    )
    return tmp_path


def files(home: Path) -> set[str]:
    found = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)) for path in found if not path.name.startswith("lab.")}


def test_only_what_no_other_study_names_is_a_studys_own(home: Path) -> None:
    own, shared = of_study(Store(home), home, STUDY)
    found = {f"{one.kind} {one.path.name.split('.json')[0][-1]}" for one in own if one.kind != "figures"}
    assert found == {"cache/generation a", "cache/alone c", "cache/alone e", "models/pydoc-0.1m a"}
    assert {one.path.stem for one in shared} == {SHARED, LEFT}  # texts of both: whose the last is, none says
    assert sum(one.size for one in own if one.kind == "models/pydoc-0.1m") == 1000


def test_without_yes_nothing_goes_and_with_it_rows_plans_tapes_and_the_neighbours_stay(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, rows = files(home), Store(home).read("SELECT * FROM step ORDER BY step_id")
    code, out, _ = said(monkeypatch, capsys, "clean", "entropy-seeds")
    assert code == 0
    assert "ladder clean entropy_seeds --yes" in out
    assert "kept: its rows, plans/entropy_seeds, tapes/entropy_seeds" in out
    assert "2 products that other studies use too" in out
    assert files(home) >= before
    code, out, _ = said(monkeypatch, capsys, "clean", STUDY, "--yes", "--json")
    told = json.loads(out)
    assert (code, told["deleted"]) == (0, True)
    gone = {path for path in before - files(home) if not path.startswith("prefect")}
    assert {path.split("/")[-1][0] for path in gone if path.startswith("cache")} == {"a", "c", "e"}
    assert {path for path in gone if not path.startswith("cache")} == {
        f"models/pydoc-0.1m-{OWN}/model.safetensors",
        f"figures/{STUDY}/file",
    }
    assert len(gone) == 5
    assert Store(home).read("SELECT * FROM step ORDER BY step_id").equals(rows)
    assert "Nothing to delete" in said(monkeypatch, capsys, "clean", STUDY)[1]


@pytest.mark.parametrize("name", ["entropy_seed", "../entropy_seeds", "/", "..", "entropy_seeds/../.."])
def test_a_name_that_is_no_study_is_refused_with_the_nearest(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(home)
    code, _, err = said(monkeypatch, capsys, "clean", name, "--yes")
    assert (code, err.count("\n")) == (2, 1)
    assert f"unknown study {name!r}" in err
    assert "entropy_seeds" in err
    assert files(home) == before


def test_a_run_or_a_night_at_work_is_not_disturbed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(home)
    run = replace(RUN, study=NEIGHBOUR, state="running", ended_at=None, process=this_process())
    Store(home).record([run])
    code, _, err = said(monkeypatch, capsys, "clean", STUDY, "--yes")
    assert code == 2
    assert f"run of {NEIGHBOUR}/smoke" in err
    Store(home).record([replace(run, state="completed")])
    with lock.held(home / NIGHT_LOCK):
        code, _, err = said(monkeypatch, capsys, "clean", "--yes")
        assert code == 2
        assert "a night runs already" in err
    assert files(home) - {NIGHT_LOCK} == before
    dead = this_process()[:-1] + "x"
    Store(home).record([replace(run, run_id="dead", process=dead)])
    assert said(monkeypatch, capsys, "clean", STUDY, "--yes")[0] == 0


def test_code_copies_and_logs_stay_of_the_newest_three_nights_and_of_those_with_something_at_work(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ["completed"] * 8
    ends[1] = "running"
    for i, state in enumerate(ends):
        night = replace(NIGHT, night_id=f"n{i}", started_at=NOON + timedelta(days=i), state=state)
        if state == "running":
            night = replace(night, process=this_process(), ended_at=None)
        launched = replace(QUEUED, night_id=f"n{i}", item=f"i{i}", state="running" if i == 2 else "done")
        ended_since = replace(QUEUED, night_id=f"n{i}", item="again", state="running" if i == 3 else "done")
        Store(home).record([night, launched, ended_since])
        (home / "nights" / f"n{i}" / "source" / "lab").mkdir(parents=True)
        (home / "nights" / f"n{i}" / "source" / "lab" / "a.py").write_text("1", encoding="utf-8")
    (home / "nights" / "by hand" / "source").mkdir(parents=True)
    (home / "logs").mkdir()
    for name, days in (("night-old.log", -1), ("night-new.log", 20)):
        (home / "logs" / name).write_text("09:00:00  a line", encoding="utf-8")
        moment = (NOON + timedelta(days=days)).replace(tzinfo=UTC).timestamp()
        os.utime(home / "logs" / name, (moment, moment))
    found = of_old_nights(Store(home), home)
    assert [one.path.parent.name for one in found] == ["n0", "n3", "n4", "logs"]
    running = Store(home).read("SELECT * FROM night WHERE state = 'running'").row(0, named=True)
    Store(home).record([replace(NIGHT, **running | {"state": "crashed", "ended_at": NOON})])
    code, out, _ = said(monkeypatch, capsys, "clean", "--yes", "--json")
    assert (code, [one["count"] for one in json.loads(out)["found"]]) == (0, [1, 4])
    assert [path.name for path in (home / "logs").iterdir()] == ["night-new.log"]
    assert sorted(path.name for path in home.glob("nights/*") if (path / "source").exists()) == [
        "by hand", "n2", "n5", "n6", "n7",
    ]  # fmt: skip


def test_of_a_link_the_link_alone_goes(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "model.safetensors").write_bytes(b"x")
    place = home / "models" / f"pydoc-0.2m-{OWN}"
    place.symlink_to(elsewhere)
    own, _ = of_study(Store(home), home, STUDY)
    assert place in {one.path for one in own}
    delete(own)
    delete(own)  # another cleaner was here
    assert not place.is_symlink()
    assert (elsewhere / "model.safetensors").exists()
