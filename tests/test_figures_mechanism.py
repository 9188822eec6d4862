"""Charts of placed ranks show every arm, seed and module, with the numbers that the answers give."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lab import figures
from lab.chart_style import PALETTE, WIDTH_PX
from lab.report_figures import FIGURES, Figure, write_figures
from lab.report_group import ask, read_groups
from lab.report_queries_mechanism import T_975
from lab.store import Store
from models.audit_summary import audit_stability
from tasks.rank_placing import kind_of
from tests.small_mechanism import Invented, audits, placements, record_mechanism, right
from tests.test_figures import marks

PLACED = ("accuracy", "shuffles", "cost", "ranks", "spectra", "stability")
TOLD = Invented()
FAILED = Invented(
    seeds=(42, 43),
    kinds=("shuffled_within", "uniform_equal"),
    shuffles=2,
    failed={(43, "uniform_equal"): "not trained: out of memory"},
)
Rows = Callable[[str], pl.DataFrame]


def reader(home: Path, told: Invented) -> Rows:
    lab = Store(home)
    record_mechanism(lab, told)
    [group] = read_groups(lab)
    return lambda name: ask(lab, FIGURES[name].query, group.parameters).frame


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def rows(home: Path) -> Rows:
    return reader(home, TOLD)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return reader(tmp_path_factory.mktemp("lab"), FAILED)


def svg_of(shown: Figure, frame: pl.DataFrame) -> str:
    return figures.draw_svg(figures.specification(shown.draw(frame)))


def said(svg: str) -> str:
    return ElementTree.fromstring(svg)[0].text or ""


def accuracies(told: Invented) -> dict[str, list[float]]:
    """Kind of arm -> accuracy of each seed, the mean over shuffles."""
    of_seed: dict[tuple[str, int], list[float]] = {}
    for (seed, arm), answered in right(told).items():
        if seed is not None:
            of_seed.setdefault((kind_of(arm), seed), []).append(float(answered.mean()))
    found: dict[str, list[float]] = {}
    for (kind, _), values in of_seed.items():
        found.setdefault(kind, []).append(float(np.mean(values)))
    return found


@pytest.mark.parametrize(
    ("which", "name"), [*(("rows", name) for name in PLACED), ("broken", "shuffles"), ("broken", "cost")]
)
def test_a_figure_is_valid_says_what_it_shows_and_fits_a_phone(
    name: str, which: str, request: pytest.FixtureRequest
) -> None:
    frame = request.getfixturevalue(which)(name)
    assert frame.height > 0
    chart = FIGURES[name].draw(frame)
    chart.to_dict()  # refuses what Vega-Lite does not know
    svg = figures.draw_svg(figures.specification(chart))
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"]) <= WIDTH_PX
    assert len(said(svg)) > 80
    assert set(re.findall("#[0-9a-f]{3,8}", svg)) <= set(PALETTE.values())
    assert min(map(float, re.findall(r"font-size=\"([0-9.]+)px", svg))) >= 11


def test_the_quantiles_of_the_intervals_are_students() -> None:
    assert pytest.approx(stats.t.ppf(0.975, np.arange(1, 31)), abs=5e-5) == T_975


def test_an_arm_stands_with_its_seeds_their_mean_and_students_interval(rows: Rows) -> None:
    frame = rows("accuracy")
    for kind, values in accuracies(TOLD).items():
        own = frame.filter(pl.col("arm") == kind)
        assert own["accuracy"].to_list() == pytest.approx(values), kind
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert own.select("low", "high").row(0) == pytest.approx((low, high), abs=1e-5), kind
    arms = frame["arm"].n_unique()
    assert arms == 11
    assert len(marks(FIGURES["accuracy"].draw(frame), "symbol")) == arms + frame.height
    assert len(marks(FIGURES["accuracy"].draw(frame), "rule")) == arms + 1  # and what items alone allow


def test_the_bar_of_items_alone_is_binomial(rows: Rows) -> None:
    share = float(np.mean(accuracies(TOLD)["per_layer"]))
    half = 1.96 * np.sqrt(share * (1 - share) / TOLD.items)
    assert f"on 200 items, by binomial error alone: [{share - half:.3f}, {share + half:.3f}]" in said(
        svg_of(FIGURES["accuracy"], rows("accuracy"))
    )


def test_no_bar_of_an_interval_leaves_the_panel(rows: Rows) -> None:
    frame = rows("accuracy")
    wide = pl.col("arm") == "inverse"
    apart = frame.with_columns(low=pl.when(wide).then(-3.0).otherwise("low"))
    spec = figures.specification(FIGURES["accuracy"].draw(apart))
    low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low > 0.2  # dots lie between .46 and .67
    bars = [row for found in spec["datasets"].values() for row in found if row.get("from") is not None]
    assert len(bars) == 11 + 1
    assert all(low <= row["from"] <= row["to"] <= high for row in bars)


def test_the_placement_has_the_place_that_its_answers_give_it(rows: Rows) -> None:
    frame, answered = rows("shuffles"), right(TOLD)
    for seed in TOLD.seeds:
        placed = answered[seed, "per_layer"].mean()
        others = [answered[seed, f"shuffled_within {k}"].mean() for k in (1, 2, 3)]
        place = 1 + sum(o > placed for o in others) + 0.5 * sum(o == placed for o in others)
        own = frame.filter(pl.col("seed") == seed)
        assert own.height == 4
        assert own.select("place", "of").row(0) == (place, 4), seed
    assert len(marks(FIGURES["shuffles"].draw(frame), "symbol")) == 4 * len(TOLD.seeds)


def test_arms_of_one_budget_stand_apart_and_one_with_its_own_where_it_is(rows: Rows) -> None:
    frame = rows("cost")
    chart = FIGURES["cost"].draw(frame)
    assert len(marks(chart, "symbol")) == len(marks(chart, "rule")) == 11
    at = [re.findall(r"translate\(([-0-9.]+)", e.get("transform") or "")[0] for e in marks(chart, "symbol")]
    assert len(set(at)) == 11
    same = frame.filter(pl.col("arm").is_in(["per_layer", "shuffled_within", "inverse"]))
    assert same["parameters"].n_unique() == 1
    spec = figures.specification(chart)
    probe = [rows_ for rows_ in spec["datasets"].values() if rows_[0]["arm"] == "probe"]
    assert probe[0][0]["aside"] == 0


def test_a_cell_is_the_mean_rank_of_its_module_and_arms_of_one_rank_are_left_out(rows: Rows) -> None:
    frame, given = rows("ranks"), placements(TOLD)
    assert not {"probe", "uniform_equal", "uniform_median", "uniform_p90"} & set(frame["arm"])
    for row in frame.iter_rows(named=True):
        own = [
            rank
            for (_, arm), one in given.items()
            if kind_of(arm) == row["arm"]
            for name, rank in one.ranks.items()
            if name.endswith(row["projection"]) and f".{row['layer']}." in name
        ]
        assert (row["rank"], row["least"], row["most"]) == (pytest.approx(np.mean(own)), min(own), max(own))
        assert row["adapters"] == len(own)
    cells = marks(FIGURES["ranks"].draw(frame), "rect")
    assert len(cells) == frame.height == 6 * 12
    strongest = max(cells, key=lambda e: float(e.get("opacity") or 1))
    most = max(frame["rank"].to_list())
    assert f"mean rank: {most:.3g}" in (strongest.get("aria-label") or "")


def test_a_line_is_a_modules_singular_values_over_the_largest_and_one_without_energy_is_counted(
    rows: Rows,
) -> None:
    frame, audited = rows("spectra"), audits(TOLD)
    for row in frame.iter_rows(named=True):
        known = [
            np.array(one.sigma) / one.sigma[0]
            for modules in audited.values()
            for one in modules
            if one.name == row["module"] and one.sigma[0] > 0
        ]
        assert row["shares"] == pytest.approx(np.mean(known, axis=0), abs=6e-4)
        assert row["seeds"] == len(known) == (2 if row["module"] == audited[42][0].name else 3)
    chart = FIGURES["spectra"].draw(frame)
    assert len(marks(chart, "line")) == frame.height + 3  # and a median a projection
    first = frame["module"] == frame["module"][0]
    gone = frame.with_columns(
        shares=pl.when(first).then(None).otherwise("shares"), reason=pl.when(first).then(pl.lit("none"))
    )
    svg = svg_of(FIGURES["spectra"], gone)
    assert ">no energy: 1 of 4<" in svg
    assert "1 modules without energy" in said(svg)
    every = gone.with_columns(shares=pl.lit([None], dtype=pl.List(pl.Float64)), reason=pl.lit("none"))
    assert svg_of(FIGURES["spectra"], every).count(">no energy: 4 of 4<") == 3


def test_a_dot_is_the_agreement_of_two_seeds(rows: Rows) -> None:
    frame = rows("stability")
    found = {
        (f"seed {one.first}, seed {one.second}", one.measure): one for one in audit_stability(audits(TOLD))
    }
    assert frame.height == len(found) == 5 * 3
    for row in frame.iter_rows(named=True):
        assert row["spearman"] == pytest.approx(found[row["pair"], row["measure"]].spearman)
        assert row["low"] <= row["median"] <= row["high"]
    assert len(marks(FIGURES["stability"].draw(frame), "symbol")) == 15
    undefined = frame.with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in ("spearman", "median", "low", "high")
    ).with_columns(reason=pl.lit("the values do not differ"))
    assert "no number: the values do not differ" in svg_of(FIGURES["stability"], undefined)


def test_one_seed_is_drawn_without_an_interval(rows: Rows) -> None:
    nothing = [pl.lit(None, pl.Float64).alias(name) for name in ("low", "high", "sd")]
    one = rows("accuracy").filter(pl.col("seed") == 42)
    alone = one.with_columns(*nothing, mean=pl.col("accuracy"), n=pl.lit(1))
    chart = FIGURES["accuracy"].draw(alone)
    assert len(marks(chart, "symbol")) == 2 * one.height
    assert "per_layer: 0.610, 1 seeds" in said(svg_of(FIGURES["accuracy"], alone))
    budgets = rows("cost").with_columns(nothing[0], nothing[1])
    assert len(marks(FIGURES["cost"].draw(budgets), "symbol")) == 11
    seed = rows("shuffles").filter(pl.col("seed") == 42)
    assert len(marks(FIGURES["shuffles"].draw(seed), "symbol")) == 4


def test_an_arm_that_failed_once_says_how_many_seeds_it_has_and_one_that_always_failed_why(
    broken: Rows,
) -> None:
    frame = broken("accuracy")
    assert ">uniform_equal (1 seeds)<" in svg_of(FIGURES["accuracy"], frame)
    gone = pl.col("arm") == "uniform_equal"
    never = frame.with_columns(
        *(pl.when(~gone).then(name).alias(name) for name in ("accuracy", "mean", "low", "high", "sd")),
        n=pl.when(gone).then(0).otherwise("n"),
        reason=pl.when(gone).then(pl.lit("not trained: out of memory")),
    )
    svg = svg_of(FIGURES["accuracy"], never)
    assert "no number: not trained: out of memory" in svg.replace(said(svg), "")
    assert "uniform_equal: no number, not trained: out of memory" in said(svg)
    shuffles = broken("shuffles")
    lost = (pl.col("seed") == 43) & (pl.col("arm") == "per_layer")
    unplaced = shuffles.with_columns(
        *(pl.when(~lost).then(name).alias(name) for name in ("accuracy", "low", "high")),
        place=pl.when(pl.col("seed") != 43).then("place"),
        reason=pl.when(lost).then(pl.lit("not trained: killed")),
    )
    assert "no number: not trained: killed" in svg_of(FIGURES["shuffles"], unplaced)


def test_a_seven_billion_model_stays_small_on_the_page() -> None:
    """224 modules: 32 layers of seven projections, seven uneven arms, spectra of 64 values."""
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    modules = [(name, layer) for name in names for layer in range(32)]
    ranks = pl.DataFrame(
        [
            {"arm": f"arm {arm}", "projection": name, "layer": layer, "rank": 1.0 + (layer * arm) % 63,
             "least": 1, "most": 64, "adapters": 8}
            for arm in range(7)
            for name, layer in modules
        ]
    )  # fmt: skip
    falling = [round(float(np.exp(-k / 9)), 3) for k in range(64)]
    spectra = pl.DataFrame(
        [
            {"projection": name, "layer": layer, "module": f"model.layers.{layer}.{name}", "seeds": 8,
             "shares": falling, "reason": None}
            for name, layer in modules
        ]
    )  # fmt: skip
    for name, frame in (("ranks", ranks), ("spectra", spectra)):
        spec = figures.specification(FIGURES[name].draw(frame))
        svg = figures.draw_svg(spec)
        assert float(ElementTree.fromstring(svg).attrib["width"]) <= WIDTH_PX
        assert len(svg) + len(json.dumps(spec)) < 600_000, name


def test_ladder_figures_writes_each_with_query_and_rows(home: Path, rows: Rows, tmp_path: Path) -> None:
    lab = Store(home)
    paths = write_figures(lab, tmp_path, study="mechanism", formats=("svg",))
    assert {path.stem for path in paths} == set(PLACED)
    for path in paths:
        if path.suffix == ".json":
            trace = json.loads(path.read_text())
            found = json.loads(json.dumps(lab.read(trace["query"]).to_dicts(), default=str))
            assert found == trace["rows"], path.stem
