"""Charts of quantised models show every row once, in its own panel, and say why a number is missing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lab import figures
from lab.chart_style import PALETTE, WIDTH_PX
from lab.report_figures import FIGURES, Figure, write_figures
from lab.report_group import ask, read_groups
from lab.store import Store
from tests.small_quantisation import record_quantisation
from tests.small_study import record_study
from tests.test_figures import QUANTISED, marks

VALUES = {
    "languages": ("change", "low", "high"),
    "budgets": ("gap", "low", "high"),
    "pareto-change": ("change", "change_low", "change_high"),
    "pareto-gap": ("gap", "gap_low", "gap_high"),
    "blocks": ("saved", "low", "high", "excludes_zero"),
    "nulls": ("share", "share_low", "share_high"),
}
"""Figure -> columns of the number that it shows."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_quantisation(lab)
    return lab


@pytest.fixture(scope="module")
def rows(lab: Store) -> Callable[[Figure], pl.DataFrame]:
    [group] = read_groups(lab)
    return lambda shown: ask(lab, shown.query, group.parameters).frame


def svg_of(name: str, frame: pl.DataFrame) -> str:
    return figures.draw_svg(figures.specification(FIGURES[name].draw(frame)))


@pytest.mark.parametrize("name", sorted(QUANTISED))
def test_a_figure_is_valid_says_what_it_shows_and_fits_a_phone(
    name: str, rows: Callable[[Figure], pl.DataFrame]
) -> None:
    frame = rows(FIGURES[name])
    assert frame.height > 0
    chart = FIGURES[name].draw(frame)
    chart.to_dict()  # refuses what Vega-Lite does not know
    svg = figures.draw_svg(figures.specification(chart))
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"]) <= WIDTH_PX
    assert len(root[0].text or "") > 100
    assert set(re.findall("#[0-9a-f]{3,8}", svg)) <= set(PALETTE.values())
    assert min(map(float, re.findall(r"font-size=\"([0-9.]+)px", svg))) >= 11


@pytest.mark.parametrize(
    ("name", "per_row"),
    [("languages", 1), ("languages-elsewhere", 1), ("budgets", 1), ("metrics", 0), ("nulls", 1)],
)
def test_every_row_is_drawn_once(name: str, per_row: int, rows: Callable[[Figure], pl.DataFrame]) -> None:
    frame = rows(FIGURES[name])
    points = marks(FIGURES[name].draw(frame), "symbol")
    if per_row:
        assert len(points) == frame.height
    else:  # a ratio where it is defined, and a gap
        own = frame.filter(pl.col("experiment") == "A-003")
        assert len(points) == own["legacy_ratio"].count() + own["gap"].count()


@pytest.mark.parametrize("name", ["pareto-change", "pareto-gap"])
def test_a_panel_shows_its_own_replicate_and_leaves_the_coarsest_to_the_table(
    name: str, rows: Callable[[Figure], pl.DataFrame]
) -> None:
    frame = rows(FIGURES[name])
    assert frame["replicate"].n_unique() == 2
    assert {"int2", "legacy"} < set(frame["variant"])
    drawn = frame.filter(~pl.col("variant").is_in(["int2", "legacy"]))
    assert len(marks(FIGURES[name].draw(frame), "symbol")) == drawn.height
    only = drawn.filter(pl.col("replicate").str.ends_with("0") | (pl.col("variant") == "int4"))
    assert len(marks(FIGURES[name].draw(only), "symbol")) == only.height


def test_sizes_come_from_the_variants_own_steps(rows: Callable[[Figure], pl.DataFrame]) -> None:
    frame = rows(FIGURES["pareto-gap"]).filter(pl.col("replicate") == "cldr-gpt2 seed 1")
    sizes = dict(frame.select("variant", "bits_per_weight").iter_rows())
    assert (sizes["int4"], sizes["random 5 %"], sizes["activation 20 %"]) == (4.34, 6.72, 11.74)
    assert frame["selector"].value_counts(sort=True)["count"].to_list() == [4, 3, 3, 3, 3]


def test_languages_are_sorted_by_their_mean_change_and_marked_by_tier(
    rows: Callable[[Figure], pl.DataFrame],
) -> None:
    frame = rows(FIGURES["languages"])
    means = frame.group_by("code", maintain_order=True).agg(pl.col("change").mean())["change"].to_list()
    assert means == sorted(means, reverse=True)
    fills = Counter(e.get("fill") for e in marks(FIGURES["languages"].draw(frame), "symbol"))
    assert fills == {PALETTE["inconclusive"]: 10, PALETTE["detected"]: 10}


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("every", [False, True], ids=["one missing", "all missing"])
def test_a_number_that_is_missing_is_a_word_with_its_reason(
    name: str, every: bool, rows: Callable[[Figure], pl.DataFrame]
) -> None:
    frame = rows(FIGURES[name])
    drawn = (
        frame.with_row_index("at").filter(pl.col("variant") == "int4") if "variant" in frame.columns else None
    )
    at = int(drawn["at"][0]) if drawn is not None else 0
    gone = pl.lit(True) if every else pl.int_range(pl.len()) == at
    broken = frame.with_columns(
        *(pl.when(gone).then(None).otherwise(pl.col(value)).alias(value) for value in VALUES[name]),
        reason=pl.when(gone).then(pl.lit("the model collapsed")),
        **({"holds": ~gone} if name == "nulls" else {}),
    )
    svg = svg_of(name, broken)
    said = ElementTree.fromstring(svg)[0].text or ""
    assert "no number, the model collapsed" in said
    assert ">?<" in svg if name == "blocks" else "no number: " in svg.replace(said, "")


def test_an_undefined_legacy_ratio_is_a_word_beside_a_gap_that_is_defined(
    rows: Callable[[Figure], pl.DataFrame],
) -> None:
    frame = rows(FIGURES["metrics"])
    undefined = frame.filter(pl.col("legacy_ratio").is_null() & (pl.col("experiment") == "A-003"))
    assert set(undefined["variant"]) == {"bf16", "int8"}  # their intervals touch zero
    assert undefined["legacy_reason"].str.starts_with("undefined: ").all()
    assert undefined["gap"].null_count() == 0
    assert svg_of("metrics", frame).count(">undefined<") == undefined.height
    nothing = pl.lit(None, pl.Float64)
    gone = frame.with_columns(gap=nothing, low=nothing, high=nothing, reason=pl.lit("en: collapsed"))
    assert "no number: en: collapsed" in svg_of("metrics", gone)


def test_the_legacy_word_is_the_one_stored_with_the_ratio(
    lab: Store, rows: Callable[[Figure], pl.DataFrame]
) -> None:
    [stored] = lab.read(
        "SELECT method FROM test WHERE hypothesis = 'degradation_ratio' AND contrast = 'int4' "
        "AND family = 'A-003' AND model = 'cldr-gpt2 seed 0'"
    )["method"].to_list()
    frame = rows(FIGURES["metrics"]).filter(
        (pl.col("variant") == "int4") & (pl.col("replicate") == "cldr-gpt2 seed 0")
    )
    assert stored.endswith(f": {frame['legacy_word'].item()}")


def test_a_cell_of_the_heat_map_has_its_number_and_the_sign_as_colour(
    rows: Callable[[Figure], pl.DataFrame],
) -> None:
    frame = rows(FIGURES["blocks"])
    first = pl.int_range(pl.len()) == 0
    flipped = frame.with_columns(saved=pl.when(first).then(-12.3).otherwise("saved"))
    chart = FIGURES["blocks"].draw(flipped)
    cells = Counter(e.get("fill") for e in marks(chart, "rect"))
    assert cells == {PALETTE["invalid"]: 1, PALETTE["detected"]: frame.height - 1}
    assert ">−12<" in figures.draw_svg(figures.specification(chart))
    wide = pl.concat([frame.with_columns(code=pl.col("code") + suffix) for suffix in ("", "2")])
    assert ">+2.5<" not in svg_of("blocks", wide)  # twenty columns have no room for numbers


def test_a_null_beyond_what_is_allowed_lies_outside_the_band_and_says_so(
    rows: Callable[[Figure], pl.DataFrame],
) -> None:
    frame = rows(FIGURES["nulls"])
    bounds = dict(frame.select("checked", "bound").unique().iter_rows())
    ratios = {"bf16/int4": 0.1, "int8/int4": 0.1, "int4/int2": 0.5}
    assert bounds == {"fp32 again": 0.0, "bf16": pytest.approx(0.1)} | ratios
    worse = pl.col("checked") == "int4/int2"
    broken = frame.with_columns(holds=~worse, share=pl.when(worse).then(1.4).otherwise("share"))
    svg = svg_of("nulls", broken)
    assert "does not hold" in svg
    assert "does not hold" not in svg_of("nulls", frame)


def test_ladder_figures_writes_each_with_query_and_rows_and_none_for_another_study(
    lab: Store, tmp_path: Path
) -> None:
    paths = write_figures(lab, tmp_path, study="int4_disparity", formats=("svg",))
    assert {path.stem for path in paths} == QUANTISED
    for path in paths:
        if path.suffix == ".json":
            trace = json.loads(path.read_text())
            found = json.loads(json.dumps(lab.read(trace["query"]).to_dicts(), default=str))
            assert found == trace["rows"], path.stem
            assert trace["commit"] == "0123456789abcdef"
    other = Store(tmp_path / "seeds")
    record_study(other, looks=(4,), prompts=4)
    written = write_figures(other, tmp_path / "out", formats=("svg",))
    assert not QUANTISED & {path.stem for path in written}
