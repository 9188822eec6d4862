"""Runs and measurements of the nanodesmo study that fail, and what is refused before any is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.settings import settings_for
from flows import nano_work
from flows.nano_arms import SUITES
from flows.nano_protocol import CORPUS, FROZEN, MAIN, WINDOWS
from flows.nano_run import NanoStudy
from flows.nano_work import NanoWork, RunFailedError
from flows.nanodesmo import FAST, FULL, SMOKE, STUDY, Nanodesmo, plan, protocol
from flows.run_row import Opened
from flows.step_work import StepBook
from lab.errors import UsageError
from lab.plan import plan_hash
from lab.records import Record, RunRow
from models.nano_frozen import FrozenSpec, held_out_windows
from models.nano_jobs import train_run
from models.nano_log import CHECKPOINT
from stats.frozen_effect import FEWEST_ROTATIONS
from tests.nano_told import SMALL, regimes
from tests.small_nano import START

Outcome = dict[str, str | None]


def settings(folder: Path, **changes: object) -> Nanodesmo:
    """Small, as the command line makes them."""
    told = {"regimes": regimes(folder), **SMALL, **changes}
    found: Nanodesmo = settings_for(STUDY, "smoke", [f"{name}={value}" for name, value in told.items()])
    return found


class Lab:
    """A study whose tasks do nothing but fail where they are told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told = protocol(settings(folder))
        texts = {name: replace(source, sha256="0" * 64) for name, source in told.texts.items()}
        row = RunRow(
            run_id="r", study="nanodesmo", profile="smoke", model="nanogpt", plan_hash="p", settings="{}",
            state="running", started_at=START, ended_at=None, exploratory=False, environment_id="e",
            git_commit=None, git_dirty=None, flow_run_id=None, parent_flow_run_id=None, process="h:1:2",
            note=None,
        )  # fmt: skip
        opened = Opened(home=folder, row=row, device="cpu", frozen_at=START)
        told = replace(told, texts=texts)
        self.work = NanoWork(protocol=told, opened=opened)
        self.study = NanoStudy(protocol=told, opened=opened, work=self.work, described={})
        self.broken: set[str] = set()
        self.rows: list[Record] = []
        monkeypatch.setattr(nano_work, "each", self._each)
        monkeypatch.setattr(StepBook, "record", lambda _, __, rows: self.rows.extend(rows))
        monkeypatch.setattr(NanoWork, "_trained", lambda *_: [])

    def _each(self, what: str, submits: Mapping[str, Callable[[], Any]], most: int | None) -> Outcome:
        return dict.fromkeys(submits, "killed at its limit" if what in self.broken else None)

    def missing(self, suite: str, kind: Any) -> Mapping[str, str]:
        return self.study._question(suite, kind).missing


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    for suite in ("core", "memory", "controls"):
        lab.work.train(lab.work.protocol.cells(suite))
    return lab


def test_a_run_that_was_not_measured_is_no_run_that_was_not_trained(lab: Lab) -> None:
    lab.broken = {"measurements"}
    lab.work.frozen("core", {MAIN: MAIN})
    assert lab.work.failures == {}
    assert list(lab.work.unmeasured) == [("frozen", ("core", MAIN, seed)) for seed in (0, 1)]
    assert lab.missing("memory", "memory") == lab.missing("controls", "controls") == {}
    assert lab.missing("core", "frozen") == {
        MAIN: f"{MAIN}, seed 0: frozen not measured: killed at its limit"
    }
    assert set(lab.missing("core", "regimes")) == {f"frozen/{MAIN}"}
    assert set(lab.study._question("memory", "memory").runs[MAIN]) == {0, 1}
    assert len(lab.work.failed()) == 2
    failed = [row for row in lab.rows if getattr(row, "reason", None)]
    assert [row.experiment for row in failed] == ["frozen_core"] * 2  # type: ignore[attr-defined]


def test_a_measurement_that_failed_in_one_phase_and_was_made_in_the_next_is_no_failure(lab: Lab) -> None:
    lab.broken = {"measurements"}
    lab.work.frozen("core", {MAIN: MAIN})
    lab.work.swaps("swap-a", "swap-b")
    lab.broken = set()
    lab.work.frozen("core", FROZEN)
    assert [what for what, _ in lab.work.unmeasured] == ["swap", "swap"]
    assert lab.missing("core", "frozen") == {}
    lab.work.swaps("swap-a", "swap-b")
    assert (lab.work.failed(), lab.missing("core", "regimes")) == ([], {})


def test_a_run_that_was_not_trained_is_missing_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch)
    lab.broken = {"runs"}
    lab.work.train([("core", MAIN, 0), ("core", MAIN, 1)])
    lab.broken = set()
    lab.work.train(lab.work.protocol.cells("memory"))
    assert set(lab.missing("memory", "memory")) == set(lab.missing("core", "regimes")) == {MAIN}
    assert "not trained: killed" in lab.missing("core", "frozen")[MAIN]
    error = RunFailedError(lab.work.failed(), {"failed": lab.work.failed()})
    assert str(error).startswith(f"2 without a result: {MAIN}, seed 0: not trained: killed at its limit")
    assert str(error).endswith("; and 1 more")


def test_each_kind_of_step_names_its_own_code_and_its_data(lab: Lab) -> None:
    lab.work.frozen("core", {MAIN: MAIN})
    steps = [row for row in lab.rows if hasattr(row, "config")]
    assert {row.code for row in steps} == {nano_work.nano_training.measuring_code()}
    assert all(f'"sha256":"{"0" * 64}"' in row.config for row in steps)


def test_every_step_of_every_suite_can_be_made_or_the_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mem-ema-decay-0.1 of suite memory cannot be with update 'fixed'"):
        settings(tmp_path, update="fixed")
    without: dict[str, object] = {"memory_suite": "false"}
    for changes in (
        {"memory": "ema", **without},
        {"memory": "buffer", **without},
        {"update": "gru"},
        {"state_dim": 1},
    ):
        told = protocol(settings(tmp_path, **changes))
        texts = {name: replace(source, sha256="0" * 64) for name, source in told.texts.items()}
        for suite in set(told.suites) - {"generalization"}:
            assert all(replace(told, texts=texts).job(cell).key for cell in told.cells(suite))
    fixed = [one for one in SUITES["controls"] if (one.state or {}).get("update") == "fixed"]
    assert [(one.state or {})["memory"] for one in fixed] == ["none"] * 3


def test_memories_are_compared_with_none_so_a_memory_in_every_arm_goes_without_their_suite(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="memory_suite=false"):
        settings(tmp_path, memory="ema")
    told = settings(tmp_path, memory="ema", memory_suite="false")
    assert sorted(protocol(told).suites) == ["controls", "core", "generalization"]
    assert "memory_matters" not in {gate.name for gate in plan(told).gates}


def test_a_second_look_has_more_seeds_and_windows_under_the_same_plan_and_a_part_of_alpha() -> None:
    first, second = FAST, replace(FAST, look=2)
    assert plan(first) == plan(second)
    assert (plan(first).looks, protocol(first).seeds) == ((5, 10), (0, 1, 2, 3, 4))
    assert protocol(second).seeds == tuple(range(10))
    assert [protocol(one).placing["occurrences"] for one in (first, second)] == [3, 4]
    assert protocol(first).level + protocol(second).level == plan(first).alpha
    assert (plan(SMOKE).looks, protocol(SMOKE).level) == ((2,), 0.05)
    with pytest.raises(UsageError, match="name the seeds that it adds in more_seeds"):
        replace(SMOKE, look=2)
    with pytest.raises(UsageError, match="each once"):
        replace(FAST, more_seeds=(4, 5))


def test_a_run_says_at_which_look_of_its_plan_it_stands(lab: Lab) -> None:
    lab.study.protocol = replace(lab.study.protocol, plan=plan(FAST), look=2, seeds=tuple(range(10)))
    standing = lab.study._standing("a")
    assert (standing.look, standing.look_index, standing.looks_left) == (10, 2, 0)
    lab.study.protocol = replace(lab.study.protocol, look=1, seeds=tuple(range(5)))
    standing = lab.study._standing("a")
    assert (standing.look, standing.look_index, standing.looks_left) == (5, 1, 1)


def test_states_put_in_at_half_time_come_from_halves_that_are_there_first(lab: Lab) -> None:
    told = lab.work.protocol
    own, other = told.job(("core", "swap-a-half", 0)), told.job(("core", "swap-a-half", 1))
    stranger = told.job(("core", "swap-a-other-init", 0))
    assert (stranger.begin, stranger.placed, stranger.seeds) == (own, other, own.seeds)
    assert told.halves(("core", "swap-a-other-init", 1)) == [
        ("core", "swap-a-half", 1), ("core", "swap-a-half", 0)
    ]  # fmt: skip
    drawn = told.job(("core", "swap-a-random", 0))
    assert (drawn.begin, drawn.placed, told.halves(("core", "swap-a-random", 0))) == (
        own, "random", [("core", "swap-a-half", 0)]
    )  # fmt: skip
    keys = {told.job(("core", arm, 0)).key for arm in ("swap-a-random", "patch", "swap-a-other-init")}
    assert len(keys) == 3
    alone = replace(told, seeds=(0,))
    assert "swap-a-other-init" not in {arm for _, arm, _ in alone.cells("core")}
    assert ("core", "swap-a-random", 0) in alone.cells("core")


def test_a_whole_run_begins_with_the_half_of_its_own_suite_and_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch)
    told = lab.work.protocol
    half = ("core", "swap-a-half", 1)
    assert told.own_half(("core", MAIN, 1)) == told.own_half(("core", "swap-a", 1)) == half
    assert told.own_half(("core", "swap-b", 0)) == ("core", "swap-b-half", 0)
    for arm in ("baseline", "regimes-all", "self-analysis-random", "swap-a-half", "patch"):
        assert told.own_half(("core", arm, 0)) is None
    whole = told.job(("core", MAIN, 1))
    assert whole.first == told.job(half)
    assert whole.key == replace(whole, first=None).key
    at_once: list[set[str]] = []
    monkeypatch.setattr(NanoWork, "_train", lambda _, cells: at_once.append({arm for _, arm, _ in cells}))
    lab.work.train(told.cells("core"))
    assert {"swap-a-half", "swap-b-half", "baseline", "regimes-all"} <= at_once[0]
    assert {MAIN, "swap-a", "swap-b", "patch"} <= at_once[1]
    assert not at_once[0] & at_once[1]
    at_once.clear()
    lab.work.train([("core", MAIN, 0)])  # as the memory suite asks for it: no half
    assert at_once == [{MAIN}, set()]


def test_full_asks_for_the_published_windows_and_says_that_two_of_them_abut(lab: Lab) -> None:
    told = protocol(FULL)
    assert told.suites["core"][-1].id == "regimes-published"
    assert "regimes-published" not in {step.id for step in protocol(FAST).suites["core"]}
    texts = {name: replace(source, sha256="0" * 64) for name, source in told.texts.items()}
    job = replace(told, texts=texts).job(("core", "regimes-published", 3))
    assert job.plan.contact
    strengths = {one.id: (one.strength, one.windows) for one in job.plan.regimes}
    assert strengths["lr_heatwave"] == (2.0, ((300, 350),))
    assert strengths["bewilderment"] == (0.5, ((1200, 1400),))
    assert job.recipe.twin_tail == 0  # with twins
    assert told.in_contact() == ["self_clamp/0 ends at step 1200, where bewilderment/0 begins"]
    assert protocol(FAST).in_contact() == []
    assert plan(FULL).design["published"]["contact"] is True  # type: ignore[index]
    with pytest.raises(UsageError, match="of a run of 1399"):
        replace(FULL, steps=1399, more_occurrences=0, occurrences=1)


def test_fewer_rotations_than_the_test_takes_are_refused(tmp_path: Path) -> None:
    assert settings(tmp_path, rotations=FEWEST_ROTATIONS).rotations == FEWEST_ROTATIONS
    with pytest.raises(UsageError, match=f"rotations = '{FEWEST_ROTATIONS - 1}'"):
        settings(tmp_path, rotations=FEWEST_ROTATIONS - 1)


@pytest.mark.parametrize("batch", [8, 40])
def test_the_windows_that_are_asked_for_are_those_that_the_frozen_test_takes(
    batch: int, tmp_path: Path
) -> None:
    told = protocol(settings(tmp_path, batch=batch))
    needed = WINDOWS["discovery_windows"] + max(WINDOWS["fresh_windows"], 2 * batch)
    spec = FrozenSpec(rotations=199, **WINDOWS)
    run: Any = Run(batch, 16 * needed)
    told.refuse_few_windows("main", 16 * needed)
    assert len(held_out_windows(run, spec, 0).discovery) == 64
    with pytest.raises(UsageError, match=f"has {needed - 1} windows of 16 tokens.*--set corpus=FILE"):
        told.refuse_few_windows("main", 16 * needed - 1)
    run.corpus.heldout = range(16 * needed - 1)
    with pytest.raises(ValueError, match=f"has {needed - 1} windows"):
        held_out_windows(run, spec, 0)


class Run:
    """As much of a run as windows need."""

    def __init__(self, batch: int, tokens: int) -> None:
        self.recipe = self.shape = self.corpus = self
        self.block_size, self.batch = 16, batch
        self.heldout: Sequence[int] = range(tokens)


def test_the_plan_holds_what_a_text_is_and_not_where_it_lies(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file, text in zip(files, ("one text", "one text", "another"), strict=True):
        file.write_text(text)
    one, same, other = (plan(settings(tmp_path, corpus=file)) for file in files)
    assert plan_hash(one) == plan_hash(same) != plan_hash(other)
    assert str(tmp_path) not in str(one.design)
    absent = plan(settings(tmp_path, corpus=tmp_path / "absent.txt"))  # a run of it is refused
    assert absent.design["corpus"] == str(tmp_path / "absent.txt")
    files[0].write_text("it is another text now")
    assert plan_hash(plan(settings(tmp_path, corpus=files[0]))) != plan_hash(one)
    assert set(CORPUS["second"]) <= set(plan(FULL).design)


def test_every_arm_that_full_trains_is_one_that_the_study_names() -> None:
    found = {suite: len(steps) for suite, steps in protocol(FULL).suites.items()}
    assert found == {suite: len(steps) + (suite == "core") for suite, steps in SUITES.items()}  # published
    assert all(one.regimes in ("none", "windows") for steps in SUITES.values() for one in steps)


def test_a_state_placed_in_a_run_without_one_is_an_error_with_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        state = None

    monkeypatch.setattr("models.nano_jobs.text_of", lambda *_, **__: None)
    monkeypatch.setattr("models.nano_jobs.load_run", lambda *_: Plain())
    with pytest.raises(ValueError, match="baseline has no self-state to lend or to be replaced"):
        train_run(
            source={}, cache="", recipe={}, seeds={}, plan={}, directory=str(tmp_path), until=None,
            begin=str(tmp_path / "baseline"), placed="zero", report=lambda _: None,
        )  # fmt: skip
    assert not (tmp_path / CHECKPOINT).exists()
