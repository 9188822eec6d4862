"""Figures of the nanodesmo study show the rows they were given; files beside them are rows of the store."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lab import figures, nano_figures, report_figures
from lab.chart_nano import REGIMES, looks_of, regime_scales
from lab.chart_style import PALETTE, WIDTH_PX
from lab.figure_kind import Figure
from lab.nano_exports import EXPORTS
from lab.report_figures import own_figures, write_figures
from lab.report_group import Group, ask, read_groups
from lab.store import Store
from tests.small_nano import (
    BEFORE,
    CHANNELS,
    FROZEN,
    MEMORY,
    PROBE,
    START,
    STEPS,
    WINDOWS,
    Invented,
    analyses,
    channels,
    frozen_seed,
    record_nano,
)
from tests.test_figures import marks as labelled

TOLD = Invented()
SHORT = Invented(seeds=(0, 1), second=False, failed={("mem-buf-l32", 1): "not trained: out of memory"})
ONE_A_REGIME = [f"perturbation/regime_{name}{end}" for name in WINDOWS for end in ("", "_update")]
SCATTERS = [f"controls/{name}_delta_scatter" for name in ("no-step-frac", "vanilla-regimes")]
NAMES = [*nano_figures.STILL, *ONE_A_REGIME, *SCATTERS]
Rows = Callable[[str], pl.DataFrame]


def marks(chart: Any, kind: str) -> list[ElementTree.Element]:
    """The drawn marks of a kind; labels, by which they are found, are on again."""
    return labelled(chart.configure_mark(aria=True), kind)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The plan of three seeds ran last, that of two before it."""
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_nano(lab, SHORT, started=START - timedelta(hours=1))
    record_nano(lab, TOLD)
    return lab


def group_of(lab: Store, *, newest: bool) -> Group:
    [group] = [one for one in read_groups(lab) if nano_figures.is_newest(lab, one) == newest]
    return group


@pytest.fixture(scope="module")
def shown(lab: Store) -> dict[str, Figure]:
    return dict(own_figures(lab, group_of(lab, newest=True)))


@pytest.fixture(scope="module")
def rows(lab: Store, shown: dict[str, Figure]) -> Rows:
    group = group_of(lab, newest=True)
    return cache(lambda name: ask(lab, shown[name].query, group.parameters).frame)


@pytest.fixture(scope="module")
def before(lab: Store) -> Rows:
    """Rows of the other plan."""
    group = group_of(lab, newest=False)
    every = own_figures(lab, group)
    return cache(lambda name: ask(lab, every[name].query, group.parameters).frame)


def svg_of(figure: Figure, frame: pl.DataFrame) -> str:
    return figures.draw_svg(figures.specification(figure.draw(frame)))


def said(svg: str) -> str:
    return ElementTree.fromstring(svg)[0].text or ""


def values(figure: Figure, frame: pl.DataFrame) -> list[dict[str, object]]:
    """Every row of the chart's data."""
    spec = figures.specification(figure.draw(frame))
    return [row for found in spec["datasets"].values() for row in found]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_valid_says_what_it_shows_and_fits_a_phone(
    name: str, rows: Rows, shown: dict[str, Figure]
) -> None:
    frame = rows(name)
    assert frame.height > 0
    chart = shown[name].draw(frame)
    chart.to_dict()  # refuses what Vega-Lite does not know
    svg = figures.draw_svg(figures.specification(chart))
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["width"]) <= WIDTH_PX
    assert len(said(svg)) > 80
    assert set(re.findall("#[0-9a-f]{3,8}", svg)) <= set(PALETTE.values())
    assert min(map(float, re.findall(r"font-size=\"([0-9.]+)px", svg))) >= 11
    assert shown[name].caption


def test_every_name_of_the_list_is_a_figure(shown: dict[str, Figure]) -> None:
    assert set(NAMES) == set(shown)


def test_a_regime_has_one_colour_and_one_shape_in_every_figure(rows: Rows, shown: dict[str, Figure]) -> None:
    assert len({colour for _, colour, _, _ in REGIMES}) == len({shape for _, _, shape, _ in REGIMES}) == 5
    assert looks_of("fog of mine") == looks_of("fog of mine")
    colour, shape = regime_scales(["fog of mine", "self_clamp"])
    ranges = [json.loads(json.dumps(one.to_dict()))["scale"]["range"] for one in (colour, shape)]
    assert [found[1] for found in ranges] == [PALETTE["equivalent"], "square"]
    for name in ("perturbation/regime-deltas", "separability", "composite/valence", *SCATTERS):
        fills = {
            (e.get("fill"), re.sub(r"[^A-Za-z]", "", e.get("d") or ""))
            for e in marks(shown[name].draw(rows(name)), "symbol")
            if e.get("fill") not in (None, "transparent")
        }
        assert {fill for fill, _ in fills} == {PALETTE["invalid"], PALETTE["ink"]}, name
        assert len({outline for _, outline in fills}) == 2, name


def test_a_delta_is_the_tests_own_in_its_spread(rows: Rows) -> None:
    frame = rows("perturbation/regime-deltas")
    found = [row for row in analyses(TOLD)["core"] if row.family == "regime_deltas"]
    assert frame.height == len(found) == 2 * 2 * len(CHANNELS)
    for row in found:
        [own] = frame.filter(
            (pl.col("regime") == row.contrast)
            & (pl.col("channel") == row.metric)
            & (pl.col("hypothesis") == row.hypothesis)
        ).to_dicts()
        assert own["estimate"] == row.estimate
        if row.effect and row.estimate and row.low is not None:
            assert own["low_sd"] == pytest.approx(row.low * row.effect / row.estimate)


def test_a_delta_without_a_twin_says_why(rows: Rows, shown: dict[str, Figure]) -> None:
    frame = rows("perturbation/regime-deltas").with_columns(
        pl.when(pl.col("hypothesis") == "against_twin").then(None).otherwise(pl.col(name)).alias(name)
        for name in ("estimate", "low", "high", "effect", "low_sd", "high_sd")
    )
    svg = svg_of(shown["perturbation/regime-deltas"], frame.with_columns(reason=pl.lit("no twin")))
    assert svg.count(">no number: no twin<") == 2 * len(CHANNELS)


def test_a_course_is_the_mean_over_windows_and_seeds_with_the_twin_beside_it(rows: Rows) -> None:
    frame = rows("perturbation/regime_bewilderment")
    [at] = frame.filter(
        (pl.col("channel") == "loss_nats") & (pl.col("step") == 3) & pl.col("is_run")
    ).to_dicts()
    places = [start + 3 for start, _ in WINDOWS["bewilderment"]]
    own = [channels("regimes-all", s)["loss_nats"][places].mean() for s in TOLD.seeds]
    assert (at["mean"], at["least"], at["most"]) == pytest.approx((np.mean(own), min(own), max(own)))
    twins = frame.filter((pl.col("channel") == "loss_nats") & ~pl.col("is_run"))
    assert twins["step"].to_list() == list(range(16))
    without = [
        np.mean([channels("regimes-all", s, ("bewilderment", k))["loss_nats"][places[k]] for k in (0, 1)])
        for s in TOLD.seeds
    ]
    [twin] = twins.filter(pl.col("step") == 3).to_dicts()
    assert twin["mean"] == pytest.approx(np.mean(without))
    assert set(frame["length"]) == {16}
    assert frame["step"].min() == -BEFORE


def test_a_probed_channel_has_a_point_a_probe_and_none_between(rows: Rows) -> None:
    frame = rows("perturbation/regime_bewilderment").filter(pl.col("channel") == "effect_kl_nats")
    steps = frame.filter("is_run")["step"].to_list()
    assert np.diff(steps).tolist() == [PROBE] * (len(steps) - 1)


def test_a_twin_is_dashed_and_the_window_is_a_band(rows: Rows, shown: dict[str, Figure]) -> None:
    svg = svg_of(shown["perturbation/regime_bewilderment"], rows("perturbation/regime_bewilderment"))
    assert 'stroke-dasharray="4,3"' in svg
    band = [e for e in ElementTree.fromstring(svg).iter() if e.get("fill") == PALETTE["band"]]
    panels = rows("perturbation/regime_bewilderment")["channel"].n_unique()
    assert len(band) >= panels


def test_reactions_are_in_spreads_of_the_clean_steps_before(rows: Rows) -> None:
    frame = rows("perturbation/regime-reactions")
    z = []
    for seed in TOLD.seeds:
        run = channels("regimes-all", seed)["entropy_nats"]
        own = []
        for start, _ in WINDOWS["bewilderment"]:
            clean = run[start - BEFORE : start]
            own.append((run[start + 5] - clean.mean()) / clean.std(ddof=1))
        z.append(np.mean(own))
    [at] = frame.filter(
        (pl.col("regime") == "bewilderment") & (pl.col("channel") == "entropy_nats") & (pl.col("step") == 5)
    ).to_dicts()
    assert at["mean"] == pytest.approx(np.mean(z), abs=1e-3)
    assert at["most"] == pytest.approx(max(z), abs=1e-3)


def test_the_frozen_test_has_a_dot_a_seed_the_rotations_mean_and_the_earlier_criterion(
    rows: Rows, shown: dict[str, Figure]
) -> None:
    name = "frozen-weight-test"
    data = values(shown[name], rows(name))
    dots = [row for row in data if row.get("hypothesis") == "rotation"]
    assert len(dots) >= len(FROZEN) * len(TOLD.seeds)
    nulls = {str(row["arm"]): row["null"] for row in data if row.get("null") is not None}
    for arm in FROZEN:
        told = np.mean([frozen_seed(arm, seed).null_nats.mean() for seed in TOLD.seeds])
        assert nulls[arm] == pytest.approx(told, abs=1e-9)
    assert any(row.get("published") == 0.3 for row in data)
    told = said(svg_of(shown[name], rows(name)))
    assert "self-analysis, seed 2: 0.390" in told
    assert "self-analysis, seed 2: p 0.005" in told
    second = rows("generalization/frozen-weight-test").filter(pl.col("hypothesis") == "rotation")
    assert second["estimate"].max() == pytest.approx(0.43 / 2)


def test_auc_stands_with_its_interval_its_null_and_its_verdict(rows: Rows, shown: dict[str, Figure]) -> None:
    frame = rows("separability")
    found = {(r.contrast, r.hypothesis): r for r in analyses(TOLD)["core"] if r.family == "separability"}
    for row in frame.iter_rows(named=True):
        test = found[row["regime"], row["channels"]]
        assert (row["estimate"], row["low"], row["high"]) == (test.estimate, test.low, test.high)
        null = found[row["regime"], "shuffled"]
        assert (row["shuffled_low"], row["shuffled_high"]) == (null.low, null.high)
    alike = frame.filter(pl.col("estimate").is_not_null() & pl.col("low").is_null())
    assert alike.height > 0
    svg = svg_of(shown["separability"], frame)
    assert svg.count(f">{len(TOLD.seeds)} seeds alike<") == alike.height
    assert f">bewilderment: {found['bewilderment', 'signature'].verdict}<" in svg


def test_a_line_over_a_long_run_is_thinned_to_means_of_bins(rows: Rows) -> None:
    frame = rows("memory/memory-self_drift")
    assert set(frame["arm"]) == {"self-analysis", *MEMORY}
    assert max(frame.group_by("arm").len()["len"].to_list()) <= 200
    [first] = frame.filter(pl.col("arm") == "mem-buf-l32").head(1).to_dicts()
    told = np.mean([channels("mem-buf-l32", seed)["self_drift"][:PROBE].mean() for seed in TOLD.seeds])
    assert first["mean"] == pytest.approx(told)
    assert frame.filter(pl.col("arm") == "mem-buf-l32").height == STEPS // PROBE


def test_a_buffer_that_was_never_full_is_hollow(rows: Rows, shown: dict[str, Figure]) -> None:
    data = values(shown["memory/memory_buffer_summary"], rows("memory/memory_buffer_summary"))
    used = {str(row["arm"]): row["in_use"] for row in data if "in_use" in row}
    assert used == {"mem-buf-l32": True, "mem-buf-l64-s5": False}


def test_a_memory_that_was_not_trained_says_why(before: Rows, shown: dict[str, Figure]) -> None:
    frame = before("memory/memory_decay_summary")
    lost = frame.filter((pl.col("arm") == "mem-buf-l32") & (pl.col("metric") == "valid_loss_nats"))
    assert lost["reason"].to_list() == ["seed 1: not trained: out of memory"]
    assert lost["n"].to_list() == [1]
    svg = svg_of(shown["memory/memory_decay_summary"], frame.with_columns(estimate=pl.lit(None, pl.Float64)))
    assert "no number: seed 1: not trained" in said(svg).replace("; ", ": ") or ">no number: seed 1:" in svg


def test_controls_stand_with_their_seeds_and_their_tests(rows: Rows, shown: dict[str, Figure]) -> None:
    frame = rows("controls/controls-comparison")
    assert frame.height == 3 * len(TOLD.seeds)
    found = {r.contrast.removeprefix("self-regimes-"): r for r in analyses(TOLD)["controls"]
             if r.family == "controls" and r.hypothesis == "difference"}  # fmt: skip
    for arm, test in found.items():
        own = frame.filter(pl.col("arm") == arm).row(0, named=True)
        assert (own["estimate"], own["low"], own["verdict"]) == (test.estimate, test.low, test.verdict)
    assert "self-regimes" in said(svg_of(shown["controls/controls-comparison"], frame))


def test_lags_without_a_number_give_their_reason_in_place_of_the_chart(
    rows: Rows, shown: dict[str, Figure]
) -> None:
    frame = rows("mlp/state_effect_leadlag")
    told = said(svg_of(shown["mlp/state_effect_leadlag"], frame))
    assert told.endswith("Not 0 after Holm: loss, nats at lag +2: +0.500.")  # +3 only leaves the band
    bare = frame.group_by("channel", maintain_order=True).first().with_columns(
        estimate=pl.lit(None, pl.Float64), reason=pl.lit("21 probes, 22 are the fewest")
    )  # fmt: skip
    assert "21 probes, 22 are the fewest" in svg_of(shown["mlp/state_effect_leadlag"], bare)


@pytest.fixture(scope="module")
def folder(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces and exports of both plans; drawings are tested one by one."""
    folder = tmp_path_factory.mktemp("figures")
    write_figures(lab, folder, study="nanodesmo", formats=())
    return folder


def test_figures_of_the_last_plan_lie_in_the_studys_folder_each_with_its_trace(
    lab: Store, folder: Path
) -> None:
    plan = group_of(lab, newest=True).plan_hash
    for name in NAMES:
        trace = json.loads((folder / "nanodesmo" / f"{name}.json").read_text(encoding="utf-8"))
        assert (trace["figure"], trace["commit"]) == (name, "0123456789abcdef")
        assert plan in trace["query"]
    other = folder / group_of(lab, newest=False).name
    assert (other / "frozen-weight-test.json").is_file()
    assert not (other / "generalization" / "frozen-weight-test.json").exists()


def test_a_drawing_is_written_into_the_folder_of_its_name(
    lab: Store, tmp_path: Path, shown: dict[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mlp/input_sensitivity"
    monkeypatch.setattr(report_figures, "figures_of", lambda asked: {name: shown[name]})
    written = write_figures(lab, tmp_path, study="nanodesmo", formats=("svg",))
    drawing = tmp_path / "nanodesmo" / f"{name}.svg"
    assert drawing in written
    assert {tmp_path / "nanodesmo" / one for one in EXPORTS} <= set(written)
    assert ElementTree.parse(drawing).getroot().tag.endswith("svg")


def test_exports_hold_the_rows_of_the_store(folder: Path) -> None:
    folder = folder / "nanodesmo"
    frozen = json.loads((folder / "frozen_test_results.json").read_text(encoding="utf-8"))
    own = frozen["texts"]["main"]["self-analysis"]
    assert own["seeds"]["1"]["estimate"] == pytest.approx(0.37)
    assert own["states"]["entropy_nats"]["own"]["estimate"] == pytest.approx(3.12)
    assert frozen["texts"]["main"]["verdict"]["verdict"] == "DETECTED"
    with (folder / "regime_deltas.csv").open(encoding="utf-8", newline="") as file:
        deltas = list(csv.DictReader(file))
    assert len(deltas) == 2 * 2 * 2 * len(CHANNELS)
    log = [json.loads(line) for line in (folder / "reaction_log.jsonl").read_text().splitlines()]
    twins = sum(end - start for places in WINDOWS.values() for start, end in places)
    assert len(log) == STEPS + twins
    assert {row["seed"] for row in log} == {0}
    assert {row["twin"] for row in log} == {"", *(f"{name}/{k}" for name in WINDOWS for k in (0, 1))}
    steps = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["steps"]
    [one] = [row for row in steps if row["step_id"] == "core-regimes-all-0"]
    assert (one["suite"], one["arm"], one["seed"], one["code"]) == ("core", "regimes-all", 0, "c0de")
    assert one["data_sha256"] == "a" * 64
    assert [found["sha256"] for found in one["outputs"]] == ["b" * 64]
    assert re.fullmatch("[0-9a-f]{64}", one["config_sha256"])


def test_a_store_without_the_study_has_none_of_its_figures(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    nothing = {"study": "nanodesmo", "model": "nanogpt", "plan": "none"}
    found = nano_figures.figures_of(lambda query: ask(lab, query, nothing))
    assert set(found) == set(nano_figures.STILL)
    assert all(ask(lab, one.query, nothing).frame.is_empty() for one in found.values())
