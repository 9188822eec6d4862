"""Windows and strengths of the study's earlier version: rows of their own, and windows that abut said so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.settings import settings_for
from flows.nano_arms import PUBLISHED_PLAN
from flows.nano_gates import GATES
from flows.nanodesmo import STUDY, protocol
from lab.nano_exports import write_exports
from lab.nano_figures import PUBLISHED as FIGURE
from lab.nano_figures import figures_of
from lab.records import TestResultRow
from lab.report import write_report
from lab.report_group import ask, read_groups
from lab.store import Store
from models.nano_jobs import train_run
from models.nano_texts import resolved
from stats.published_regimes import CONTACT, DELTAS, FAMILIES, SEPARABILITY
from stats.rows import TestRow
from tasks import nano_analysis
from tasks.nano_analysis import PUBLISHED, Question
from tasks.nano_training import NanoJob
from tests.nano_told import SMALL, regimes
from tests.small_nano import Invented, record_nano

STEPS = 1400
"""The published windows end there."""
TINY: Mapping[str, object] = {
    **SMALL, "width": 8, "heads": 1, "block": 4, "batch": 2, "state_dim": 4, "steps": STEPS,
    "probe_every": 100, "windows": "random_and_published", "before": 40,
}  # fmt: skip


def trained(home: Path) -> dict[int, NanoJob]:
    """The published arm of two seeds, tiny."""
    told = {"regimes": regimes(home / "told"), **TINY}
    settings = settings_for(STUDY, "smoke", [f"{name}={value}" for name, value in told.items()])
    shape = protocol(settings)
    texts = {name: resolved(source, home) for name, source in shape.texts.items()}
    found = {}
    for seed in settings.seeds:
        job = replace(shape, texts=texts).job(("core", PUBLISHED, seed))
        train_run(
            source=asdict(job.source), cache=str(home), recipe=asdict(job.recipe), seeds=asdict(job.seeds),
            plan=asdict(job.plan), directory=str(job.place(home)), until=None, begin=None, placed=None,
            report=lambda _: None,
        )  # fmt: skip
        found[seed] = job
    return found


def question(runs: Mapping[str, Mapping[int, NanoJob]], missing: Mapping[str, str]) -> Question:
    return Question(
        kind="regimes", runs=runs, measured={}, missing=missing, margin=0.05, loss_margin=0.02,
        auc_margin=0.05, alpha=0.05, before=40, permutations=50,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[TestRow]:
    home = tmp_path_factory.mktemp("published")
    return nano_analysis._published(home, question({PUBLISHED: trained(home)}, {}))


def test_with_one_window_a_regime_each_separability_is_inconclusive_and_says_why(
    rows: list[TestRow],
) -> None:
    told = [row for row in rows if row.family == SEPARABILITY and row.hypothesis == "signature"]
    assert {row.contrast for row in told} == {one.id for one in PUBLISHED_PLAN.regimes}
    assert {(row.verdict, row.reason) for row in told} == {
        ("INCONCLUSIVE", "1 window of it; one is held out, so two are needed")
    }


def test_windows_are_compared_with_their_twins_and_with_clean_steps_where_there_are_any(
    rows: list[TestRow],
) -> None:
    of = {(row.hypothesis, row.contrast, row.metric): row for row in rows if row.family == DELTAS}
    heat = of["against_twin", "lr_heatwave", "loss_nats"]
    assert (heat.n, heat.estimate is not None) == (2, True)
    assert of["against_before", "self_clamp", "self_norm"].estimate is not None
    abuts = of["against_before", "bewilderment", "loss_nats"]
    assert (abuts.estimate, abuts.reason) == (None, "no clean step before the window")
    noise = of["against_twin", "bewilderment", "loss_nats"]
    assert (noise.estimate or 0.0) > 0.1  # half of the targets are random


def test_each_window_says_how_many_clean_steps_are_before_it_and_what_abuts(rows: list[TestRow]) -> None:
    of = {row.contrast: (row.estimate, row.reason) for row in rows if row.family == CONTACT}
    abuts = "self_clamp/0 ends at step 1200, where it begins: no clean step is right before it"
    assert of.pop("bewilderment/0") == (0.0, abuts)
    assert set(of.values()) == {(40.0, None)}


def test_published_rows_enter_no_gate_and_no_family_of_the_strong_set(rows: list[TestRow]) -> None:
    assert {row.family for row in rows} == set(FAMILIES)
    assert {row.role for row in rows} <= {"secondary", "diagnostic"}
    assert not any(f"'{family}'" in gate.sql for family in FAMILIES for gate in GATES)


def test_the_strong_sets_rows_are_the_same_with_published_windows_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strong(home: Path, asked: Question) -> list[TestRow]:
        draw = float(np.random.default_rng(nano_analysis.RNG).random())
        return [TestRow(family="separability", hypothesis="signatures", method="m", role="verdict", p=draw)]

    monkeypatch.setattr(nano_analysis, "KINDS", {"regimes": strong})
    alone = nano_analysis.answers(Path(), "core", question({}, {}))
    missing = nano_analysis.answers(Path(), "core", question({}, {PUBLISHED: "seed 0: out of memory"}))
    assert missing[:-1] == alone
    assert (missing[-1].family, missing[-1].reason) == (DELTAS, "seed 0: out of memory")
    second = nano_analysis.answers(Path(), "generalization", question({}, {PUBLISHED: "lost"}))
    assert {row.family for row in second} == {"separability"}  # asked once, of the first text


@pytest.fixture(scope="module")
def lab(rows: list[TestRow], tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    told = Invented()
    key = record_nano(lab, told)
    about: dict[str, Any] = {"step_id": f"analyse-core-{key}", "study": "nanodesmo", "model": "nanogpt"}
    lab.record([TestResultRow(**about, look=5, **asdict(row)) for row in rows])
    return lab


def test_the_report_says_which_windows_abut_what_they_move_and_that_nothing_is_told_apart(
    lab: Store, tmp_path: Path
) -> None:
    page = write_report(lab, tmp_path / "report.html").read_text(encoding="utf-8")
    start = page.index("Published windows and strengths")
    part = page[start : page.index("States put in the place of others", start)]
    assert "The plan asks for windows in contact: self_clamp/0 ends at step 1200, where it begins" in part
    assert part.count("1 window of it; one is held out, so two are needed") == 5
    assert "bewilderment against its twin moves" in part
    assert "they enter no gate" in part
    assert "55 differences in their units" in part  # 5 regimes x 11 channels


def test_manifest_deltas_and_a_figure_hold_published_windows_where_there_are_any(
    lab: Store, tmp_path: Path
) -> None:
    [group] = [group for group in read_groups(lab) if group.study == "nanodesmo"]
    write_exports(lab, group, tmp_path, None)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    [said] = manifest["windows_in_contact"]
    assert said.startswith("self_clamp/0 ends at step 1200")
    assert "main, published windows,self_clamp,".replace(",", "") in (
        tmp_path / "regime_deltas.csv"
    ).read_text().replace(",", "").replace('"', "")
    assert FIGURE in figures_of(lambda query: ask(lab, query, group.parameters))
    empty = Store(tmp_path / "other")
    record_nano(empty, Invented())
    [group] = [group for group in read_groups(empty) if group.study == "nanodesmo"]
    assert FIGURE not in figures_of(lambda query: ask(empty, query, group.parameters))
    write_exports(empty, group, tmp_path / "none", None)
    assert "windows_in_contact" not in json.loads((tmp_path / "none" / "manifest.json").read_text())
