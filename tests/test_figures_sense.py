"""Charts of the sense study show every condition, tier, seed and word with the stored numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from lab import figures
from lab.chart_style import PALETTE, WIDTH_PX
from lab.report_figures import FIGURES, Figure
from lab.report_group import ask, read_groups
from lab.store import Store
from stats.retrieval import margins
from stats.scaling_fit import power_law
from tests.small_sense import CURVE, WORDS, Invented, analyses, made, record_sense
from tests.test_figures import marks

SENSES = ("conditions", "contingency", "scorers", "tiers", "margins", "attention", "sizes", "learning")
TOLD = Invented()
FAILED = Invented(failed={("C", 123): "not trained: out of memory"})
Rows = Callable[[str], pl.DataFrame]


def reader(home: Path, told: Invented) -> Rows:
    lab = Store(home)
    record_sense(lab, told)
    [group] = read_groups(lab)
    return cache(lambda name: ask(lab, FIGURES[name].query, group.parameters).frame)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def rows(home: Path) -> Rows:
    return reader(home, TOLD)


@pytest.fixture(scope="module")
def broken_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def broken(broken_home: Path) -> Rows:
    return reader(broken_home, FAILED)


def svg_of(shown: Figure, frame: pl.DataFrame) -> str:
    return figures.draw_svg(figures.specification(shown.draw(frame)))


def said(svg: str) -> str:
    return ElementTree.fromstring(svg)[0].text or ""


@pytest.mark.parametrize(
    ("which", "name"),
    [*(("rows", name) for name in SENSES), ("broken", "conditions"), ("broken", "tiers"),
     ("broken", "margins"), ("broken", "scorers")],
)  # fmt: skip
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


def test_a_condition_stands_with_its_seeds_its_mean_and_the_blocker(rows: Rows) -> None:
    frame = rows("conditions")
    found = {row.metric: row for row in analyses(TOLD)["ship_b"]()
             if row.hypothesis == "threshold" and row.contrast == "B"}  # fmt: skip
    for metric, test in found.items():
        own = frame.filter((pl.col("arm") == "B") & (pl.col("metric") == metric))
        assert own.height == len(TOLD.seeds)
        assert own["value"].mean() == pytest.approx(own["estimate"][0])
        assert own.select("estimate", "low", "high", "threshold").row(0) == pytest.approx(
            (test.estimate, test.low, test.high, test.margin)
        )
    chart = FIGURES["conditions"].draw(frame)
    assert len(marks(chart, "symbol")) == 9 * (1 + len(TOLD.seeds))
    svg = svg_of(FIGURES["conditions"], frame)
    assert "Blockers: top1 at least 0.3; top3 at least 0.5; coherence at least 0.8." in said(svg)


def test_a_condition_that_was_not_trained_says_why_and_the_others_have_seeds_but_no_interval(
    broken: Rows,
) -> None:
    frame = broken("conditions")
    svg = svg_of(FIGURES["conditions"], frame)
    why = "no number: seed 123: not trained: out of memory"
    assert frame.filter(pl.col("arm") == "B")["low"].null_count() == 9
    assert svg.count(">C (2 seeds)<") == 3
    assert ">C (2 seeds)<" in svg_of(FIGURES["margins"], broken("margins"))
    assert "Blockers: not judged." in said(svg)
    gone = pl.col("arm") == "C"
    never = frame.with_columns(
        pl.when(~gone).then(name).alias(name) for name in ("value", "estimate", "low", "high")
    )
    assert why in svg_of(FIGURES["conditions"], never)
    tiers = svg_of(FIGURES["tiers"], broken("tiers"))
    assert tiers.count(">no number: seed 123: not") == 3  # cut where the panel ends; whole in the tooltip


def test_tiers_have_the_intervals_of_their_tests_and_chance(rows: Rows) -> None:
    frame = rows("tiers")
    found = {row.contrast: row for row in analyses(TOLD)["more_data"]() if row.hypothesis == "tier"}
    assert frame.height == len(found) == 9
    for row in frame.iter_rows(named=True):
        test = found[f"{row['arm']}:{row['tier']}"]
        assert (row["estimate"], row["low"], row["high"]) == pytest.approx(
            (test.estimate, test.low, test.high)
        )
        assert row["chance"] == pytest.approx(0.1)
    assert len(marks(FIGURES["tiers"].draw(frame), "symbol")) == 9


def test_margins_are_the_quantiles_of_each_seed(rows: Rows) -> None:
    frame = rows("margins")
    for at, seed in enumerate(TOLD.seeds):
        told = margins(made("C", TOLD.seeds).margin[at])
        own = frame.filter((pl.col("arm") == "C") & (pl.col("seed") == seed))
        assert own.select("p5", "p50", "p95").row(0) == pytest.approx((told.p5, told.p50, told.p95))
    assert len(marks(FIGURES["margins"].draw(frame), "symbol")) == 9 * (1 + len(TOLD.seeds))


def test_the_law_drawn_is_the_one_that_was_fitted(rows: Rows) -> None:
    frame = rows("sizes")
    n = np.array(list(CURVE.values()))
    floor, scale, exponent = power_law(n, frame["estimate"].to_numpy()[None])
    by_law = 1 - floor[0] - scale[0] * (n / n[0]) ** -exponent[0]
    assert frame["by_law"].to_list() == pytest.approx(by_law.tolist(), abs=1e-6)
    outside = [not low <= law <= high for law, low, high in
               zip(by_law, frame["low"], frame["high"], strict=True)]  # fmt: skip
    assert frame["missed"].to_list() == outside
    spec = figures.specification(FIGURES["sizes"].draw(frame))
    line = [row for found in spec["datasets"].values() for row in found if row.get("beyond")]
    most = n[-1] * 2
    twice = 1 - floor[0] - scale[0] * (most / n[0]) ** -exponent[0]
    assert [row["law"] for row in line if row["bundles"] == most] == pytest.approx([twice], abs=1e-6)
    bare = frame.with_columns(
        exponent=pl.lit(None, pl.Float64), law_reason=pl.lit("the metric does not rise with size")
    )
    assert "no law: the metric does not rise with size" in svg_of(FIGURES["sizes"], bare)


def test_every_word_of_an_example_is_drawn_once_a_condition_with_its_weight(rows: Rows) -> None:
    frame = rows("attention")
    assert frame["word"].to_list() == 9 * [word for word, _ in WORDS]  # a word with a stroke stays whole
    assert frame.filter(pl.col("kind") == "cue")["weight"].to_list() == pytest.approx(9 * [0.2])
    svg = svg_of(FIGURES["attention"], frame)
    assert all(svg.count(f">{word}<") == 9 for word, _ in WORDS)
    assert "0.20 on cues, 0.30 on the lemma" in said(svg)
    longer = pl.concat([frame.with_columns(place=pl.col("place") + 4 * k) for k in range(6)])
    root = ElementTree.fromstring(svg_of(FIGURES["attention"], longer))
    assert float(root.attrib["width"]) <= WIDTH_PX


def test_the_path_stands_in_the_order_of_its_gates_with_each_analysis_of_its_own(rows: Rows) -> None:
    frame = rows("contingency")
    steps = [row[:3] for row in frame.select("gate", "condition", "split").unique(maintain_order=True).rows()]
    assert steps == [
        ("ship_b", "B", "test"), ("ship_c", "C", "test"), ("halved", "C-halved", "dev"),
        ("raised", "C-raised", "dev"), ("fallback", "A", "test"),
    ]  # fmt: skip
    assert frame["metric"].to_list() == 5 * ["top1", "top3", "coherence"]
    found = analyses(TOLD)["halved"]()
    reached = {row.metric: row.estimate for row in found if row.hypothesis == "threshold"}
    halved = frame.filter(pl.col("gate") == "halved")
    assert halved["estimate"].to_list() == [reached[name] for name in halved["metric"]]
    svg = svg_of(FIGURES["contingency"], frame)
    assert ">C-halved on dev: fails<" in svg
    lost = frame.with_columns(
        estimate=None, beyond=None, beyond_low=None, beyond_high=None, reason=pl.lit("not measured")
    ).cast(dict.fromkeys(("estimate", "beyond", "beyond_low", "beyond_high"), pl.Float64))
    assert svg_of(FIGURES["contingency"], lost).count(">no number: not measured<") == 15


def test_the_ladder_has_every_scorer_in_order_with_intervals_where_there_are_any(rows: Rows) -> None:
    frame = rows("scorers")
    names = frame["scorer"].to_list()
    assert names[0] == "chance"
    assert names[-4:] == ["A", "B", "C", "topics_known"]
    with_interval = frame.filter(pl.col("low").is_not_null())["scorer"].to_list()
    assert with_interval == ["longest", "A", "B", "C"]
    assert frame["of_ceiling"].to_list()[-1] == 1.0
    assert len(marks(FIGURES["scorers"].draw(frame), "symbol")) == frame.height


def test_a_step_of_training_has_students_interval_over_seeds(rows: Rows) -> None:
    frame = rows("learning")
    own = frame.filter((pl.col("metric") == "dev_top1") & (pl.col("arm") == "B") & (pl.col("step") == 100))
    values = own["value"].to_list()
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert own.select("low", "high").row(0) == pytest.approx((low, high), abs=1e-5)
    stopped = frame.filter((pl.col("seed") != 42) | (pl.col("step") == 50)).with_columns(
        n=pl.when(pl.col("step") == 100).then(2).otherwise("n")
    )
    assert len(marks(FIGURES["learning"].draw(stopped), "symbol")) == 6  # no mean of the seeds that are left


def test_an_empty_study_has_no_figure_and_one_that_broke_off_those_that_it_has(
    broken: Rows, broken_home: Path
) -> None:
    assert {name for name in SENSES if broken(name).height} == set(SENSES) - {"contingency", "sizes"}
    lab = Store(broken_home)
    nothing = {"study": "sense_scaling", "model": "learned", "plan": "none", "family": "curve"}
    assert all(ask(lab, FIGURES[name].query, nothing).frame.is_empty() for name in SENSES)
