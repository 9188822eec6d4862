"""Drawings are kept by what they show: drawn once, again when rows or code change, gone when nobody asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lab import drawings, report_drawing
from lab.drawings import Drawings, key_of
from lab.figures import forest, looks
from lab.nano_figures import STILL
from lab.records import RunRow
from lab.report import write_report
from lab.report_figures import FIGURES, WHOLE_STORE
from lab.still import Still, still
from lab.store import Store
from tests.small_mechanism import record_mechanism


def drawer(drawn: list[str], name: str) -> Callable[[], str]:
    def draw() -> str:
        drawn.append(name)
        return f"<svg>{name}</svg>"

    return draw


def test_a_drawing_is_drawn_once_and_again_when_its_file_is_damaged(tmp_path: Path) -> None:
    drawn: list[str] = []
    for _ in range(2):
        assert Drawings(tmp_path).get("aa1", drawer(drawn, "a")) == "<svg>a</svg>"
    assert drawn == ["a"]
    [file] = (tmp_path / "cache" / "drawings").rglob("*.json")
    file.write_bytes(file.read_bytes()[:-4])
    assert Drawings(tmp_path).get("aa1", drawer(drawn, "a")) == "<svg>a</svg>"
    assert drawn == ["a", "a"]


def test_what_a_report_did_not_ask_for_is_deleted(tmp_path: Path) -> None:
    drawn: list[str] = []
    for key in ("aa1", "bb2"):
        Drawings(tmp_path).get(key, drawer(drawn, key))
    later = Drawings(tmp_path)
    later.get("bb2", drawer(drawn, "bb2"))
    later.forget_others()
    assert [file.stem for file in (tmp_path / "cache").rglob("*.json")] == ["bb2"]
    assert drawn == ["aa1", "bb2"]


def test_rows_their_types_the_chart_and_its_code_make_another_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = pl.DataFrame({"effect": [0.1, None], "arm": ["a", "b"]})
    keys = [
        key_of(frame, forest, "title"),
        key_of(frame, looks, "title"),
        key_of(frame, forest, "other title"),
        key_of(frame.with_columns(pl.col("effect") + 1), forest, "title"),
        key_of(frame.with_columns(pl.col("effect").cast(pl.Float32)), forest, "title"),
    ]
    assert keys[0] == key_of(frame.clone(), forest, "title")
    monkeypatch.setattr(drawings, "code", lambda *_, alone: "edited" if alone else "")
    keys.append(key_of(frame, forest, "title"))
    assert len(set(keys)) == len(keys)


def test_no_two_figures_share_what_their_drawings_are_told_apart_by() -> None:
    every = [*FIGURES.values(), *WHOLE_STORE.values(), *STILL.values()]
    named = [(f.title, f.query, f.draw.__module__, f.draw.__qualname__) for f in every]
    assert len(set(named)) == len(set(map(dataclasses.astuple, every)))


def test_a_second_report_draws_nothing_and_is_the_same_but_for_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Store(tmp_path)
    record_mechanism(lab)
    first = write_report(lab, tmp_path / "first.html").read_text(encoding="utf-8")

    def refuse(*_: object) -> str:
        raise AssertionError("drawn again")

    monkeypatch.setattr(report_drawing, "_drawn", refuse)
    second = write_report(lab, tmp_path / "second.html").read_text(encoding="utf-8")
    assert first[first.index("<main>") :] == second[second.index("<main>") :]


def test_all_questions_of_a_report_see_one_moment_and_leave_no_file(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    record_mechanism(lab)
    before = sorted(path.name for path in tmp_path.iterdir())
    with still(lab) as source:
        assert isinstance(source, Still)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        count = source.read("SELECT count(*) AS n FROM run").item()
        [run] = lab.read("SELECT run_id FROM run").to_dicts()
        lab.record([_another_run(lab, str(run["run_id"]))])
        assert source.read("SELECT count(*) AS n FROM run WHERE run_id <> ''").item() == count
    assert lab.read("SELECT count(*) AS n FROM run").item() == count + 1


def _another_run(lab: Store, run_id: str) -> RunRow:
    [found] = lab.read("SELECT * FROM run WHERE run_id = $id", {"id": run_id}).to_dicts()
    return RunRow(**{**found, "run_id": "another"})


def test_a_store_never_written_to_answers_and_nothing_is_made(tmp_path: Path) -> None:
    with still(Store(tmp_path / "none")) as source:
        assert source.read("SELECT count(*) AS n FROM run").item() == 0
    assert not (tmp_path / "none").exists()
