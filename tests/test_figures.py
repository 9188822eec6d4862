"""Figures show the rows they were given, mark by mark, in colours that the page can swap."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import pytest

from lab import figures
from lab.chart_style import PALETTE, WIDTH_PX
from lab.errors import UsageError
from lab.report_figures import FIGURES, SEEDS, WHOLE_STORE, Figure, write_figures
from lab.report_group import ask, read_groups
from lab.store import Store
from tests.small_study import LOOKS, record_study

QUANTISED = {
    "languages", "languages-elsewhere", "metrics", "budgets", "pareto-change", "pareto-gap", "blocks", "nulls"
}  # fmt: skip
PLACED = {"accuracy", "shuffles", "cost", "ranks", "spectra", "stability"}
SENSES = {"conditions", "contingency", "scorers", "tiers", "margins", "attention", "sizes", "learning"}
OTHER_STUDIES = {"scale", "doses", *QUANTISED, *PLACED, *SENSES}
"""Figures that the seed study has no rows for."""
ALL = [item for item in (*FIGURES.items(), *WHOLE_STORE.items()) if item[0] not in OTHER_STUDIES]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_study(lab)
    return lab


@pytest.fixture(scope="module")
def rows(lab: Store) -> Callable[[Figure], pl.DataFrame]:
    [group] = read_groups(lab)
    return lambda shown: ask(lab, shown.query, group.parameters).frame


def contrasts(**columns: list[Any]) -> pl.DataFrame:
    """Three contrasts of a metric: finding, null, and unsettled."""
    base: dict[str, list[Any]] = {
        "metric": ["mtld"] * 3,
        "contrast": ["A-B", "A-C", "B-C"],
        "effect": [0.5, 0.01, 0.1],
        "low_sd": [0.3, -0.1, -0.3],
        "high_sd": [0.7, 0.12, 0.5],
        "margin": [0.2] * 3,
        "alpha": [0.05] * 3,
        "p_adjusted": [0.001, 0.9, 0.4],
        "tost_p": [0.99, 0.001, 0.3],
        "excludes_zero": [True, False, False],
        "inside_margin": [False, True, False],
        "n": [100] * 3,
    }
    return pl.DataFrame(base | columns)


def marks(chart: alt.TopLevelMixin, kind: str) -> list[ElementTree.Element]:
    """The drawn marks of a kind, e.g. `symbol`, axes and legends left out."""
    root = ElementTree.fromstring(figures.draw_svg(figures.specification(chart)))
    found = []
    for group in root.iter():
        classes = (group.get("class") or "").split()
        if f"mark-{kind}" in classes and "role-mark" in classes:
            found += [e for e in group.iter() if e.get("aria-label") or e.get("aria-roledescription")]
    return [e for e in found if e.tag.endswith(("path", "line", "rect"))]


@pytest.mark.parametrize(("name", "shown"), ALL, ids=[name for name, _ in ALL])
def test_a_figure_is_valid_says_what_it_shows_and_fits_a_phone(
    name: str, shown: Figure, rows: Callable[[Figure], pl.DataFrame]
) -> None:
    frame = rows(shown)
    assert frame.height > 0
    chart = shown.draw(frame)
    chart.to_dict()  # refuses what Vega-Lite does not know
    svg = figures.draw_svg(figures.specification(chart))
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"]) <= WIDTH_PX
    said = root[0].text or ""
    assert root[0].tag.endswith("title")
    assert len(said) > 30, name
    assert set(re.findall("#[0-9a-f]{3,8}", svg)) <= set(PALETTE.values())


def test_a_forest_plot_has_a_point_and_an_interval_for_each_contrast() -> None:
    chart = figures.forest(contrasts())
    points = [e.get("aria-label") or "" for e in marks(chart, "symbol")]
    assert len(points) == 3
    bars = [e.get("aria-label") or "" for e in marks(chart, "rule")]
    for low, high in ((0.3, 0.7), (-0.1, 0.12), (-0.3, 0.5)):
        words = (f"low: {low:+.3f}; high: {high:+.3f}").replace("-", "−")
        assert any(words in label.replace("-", "−") for label in bars), words
    [band] = marks(chart, "rect")
    assert band.get("fill") == PALETTE["band"]


def test_finding_null_and_unsettled_differ_in_colour_and_in_shape() -> None:
    points = marks(figures.forest(contrasts()), "symbol")
    assert [e.get("fill") for e in points] == [PALETTE[s] for s in ("detected", "equivalent", "inconclusive")]
    outlines = {re.sub(r"[^A-Za-z]", "", e.get("d") or "") for e in points}
    assert len(outlines) == 3


def test_a_contrast_without_a_number_is_left_out_and_two_models_are_named() -> None:
    frame = contrasts(effect=[0.5, None, 0.1], model=["small", "small", "large"])
    chart = figures.forest(frame)
    assert len(marks(chart, "symbol")) == 2
    svg = figures.draw_svg(figures.specification(chart))
    assert "small · mtld" in svg
    assert "large · mtld" in svg


def test_each_look_has_its_interval_and_the_bounds_it_had_to_pass(
    rows: Callable[[Figure], pl.DataFrame],
) -> None:
    frame = rows(FIGURES["looks"])
    assert frame["look"].to_list() == list(LOOKS)
    chart = figures.looks(frame)
    assert len(marks(chart, "symbol")) == len(LOOKS)
    spec = figures.specification(chart)
    data = {row["look"]: row for rows_ in spec["datasets"].values() for row in rows_ if "bound" in row}
    for look, row in data.items():
        half = (row["high_sd"] - row["low_sd"]) / 2
        assert row["bound"] == pytest.approx(half), look
        excludes = row["low_sd"] > 0 or row["high_sd"] < 0
        assert (abs(row["effect"]) > row["bound"]) == excludes


def test_seed_bins_hold_every_draw(rows: Callable[[Figure], pl.DataFrame]) -> None:
    frame = rows(SEEDS)
    totals = frame.group_by("source").agg(pl.col("draws").sum(), pl.col("n").first(), pl.len())
    assert (totals["draws"] == totals["n"]).all()
    assert totals["len"].unique().to_list() == [16]


def test_a_saved_figure_carries_query_rows_and_commit(tmp_path: Path) -> None:
    frame = contrasts()
    paths = figures.save_figure(
        figures.forest(frame), tmp_path / "f", "forest", query="SELECT 1", frame=frame, commit="abc"
    )
    assert [path.name for path in paths] == ["forest.svg", "forest.png", "forest.json"]
    trace = json.loads(paths[2].read_text())
    assert (trace["query"], trace["commit"], trace["rows"]) == ("SELECT 1", "abc", frame.to_dicts())
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert f'fill="{PALETTE["paper"]}"' in paths[0].read_text()
    assert not list((tmp_path / "f").glob("*.tmp"))


def test_a_figure_of_the_same_rows_is_not_drawn_again_unless_its_file_was_touched(tmp_path: Path) -> None:
    frame = contrasts()

    def save(shown: pl.DataFrame) -> int:
        chart = figures.forest(shown)
        told = {"query": "SELECT 1", "frame": shown, "commit": None}
        [file, _] = figures.save_figure(chart, tmp_path, "forest", formats=("svg",), **told)
        return file.stat().st_mtime_ns

    drawn = save(frame)
    assert save(frame) == drawn
    (tmp_path / "forest.svg").write_bytes(b"<svg/>")
    again = save(frame)
    assert (tmp_path / "forest.svg").read_bytes() != b"<svg/>"
    assert save(frame) == again
    assert save(frame.head(1)) != again


def test_a_saved_page_needs_no_network_and_an_unknown_format_writes_nothing(tmp_path: Path) -> None:
    frame = contrasts()
    kind: dict[str, Any] = {"query": "q", "frame": frame, "commit": None}
    with pytest.raises(UsageError, match="unknown format 'gif'"):
        figures.save_figure(figures.forest(frame), tmp_path / "f", "forest", formats=("svg", "gif"), **kind)
    assert not (tmp_path / "f").exists()
    [page, _] = figures.save_figure(figures.forest(frame), tmp_path, "forest", formats=("html",), **kind)
    assert not re.search(r'<(script|link)[^>]+(src|href)="http', page.read_text())


def test_every_figure_of_a_study_is_written_with_its_commit(lab: Store, tmp_path: Path) -> None:
    paths = write_figures(lab, tmp_path, study="entropy_seeds", formats=("svg",))
    assert {path.stem for path in paths} == {name for name, _ in ALL}
    [trace] = [json.loads(p.read_text()) for p in paths if p.name == "contrasts.json"]
    assert trace["commit"].startswith("0123456789ab")
    assert lab.read(trace["query"]).to_dicts() == trace["rows"]
    with pytest.raises(UsageError, match="did you mean entropy_seeds"):
        write_figures(lab, tmp_path, study="entropy_seed")


def test_an_empty_store_writes_no_figures(tmp_path: Path) -> None:
    assert write_figures(Store(tmp_path / "none"), tmp_path) == []
