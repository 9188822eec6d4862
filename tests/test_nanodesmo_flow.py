"""The nanodesmo study as a person runs it, small: its phases, gates and faults, and going on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from deployments.settings import settings_for
from flows.nano_arms import SUITES
from flows.nanodesmo import STUDY, nanodesmo, protocol
from lab.errors import UsageError
from tests.ladder_command import ask, ladder, shared_server, start, work_done
from tests.nano_told import SMALL, regimes

COUNTS = """
SELECT (SELECT count(*) FROM reaction) AS reactions, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM decision) AS decisions,
       (SELECT count(*) FROM step) AS steps, (SELECT count(*) FROM artifact) AS files
"""
DECIDED = "SELECT gate, verdict, sentence, evidence FROM decision ORDER BY gate"
RUNS = """
SELECT step.arm, step.seed, artifact.sha256 FROM step JOIN artifact USING (step_id)
WHERE artifact.kind = 'checkpoint' ORDER BY ALL
"""
EXPLORATORY = "SELECT exploratory, state FROM run ORDER BY started_at DESC LIMIT 1"


def settings(folder: Path, **changes: object) -> list[str]:
    """Arguments of `ladder run nanodesmo`, small."""
    told = {"regimes": regimes(folder / "told"), **SMALL, **changes}
    return [
        "run",
        "nanodesmo",
        *(part for name, value in told.items() for part in ("--set", f"{name}={value}")),
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end."""
    folder = tmp_path_factory.mktemp("nano")
    done = ladder(*settings(folder), home=folder / "home")
    assert done.returncode in (0, 3), done.stderr
    assert "Verdicts at 2 seeds" in done.stdout
    return folder / "home"


@pytest.fixture
def home(small: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(small, tmp_path / "home"))


def test_all_four_gates_are_asked_and_every_arm_of_every_suite_is_a_step(small: Path) -> None:
    rows = ask("SELECT gate, verdict FROM decision", home=small)
    assert {row["gate"] for row in rows} == {"leverage", "signatures", "memory_matters", "beats_controls"}
    trained = ask("SELECT experiment, arm, count(*) AS n FROM step GROUP BY ALL", home=small)
    found = {(row["experiment"], row["arm"]): row["n"] for row in trained}
    for suite in ("core", "memory", "controls"):
        assert {arm for where, arm in found if where == suite} == {step.id for step in SUITES[suite]}
    assert all(n == 2 for (where, _), n in found.items() if where in ("core", "memory", "controls"))


def test_every_step_of_every_run_is_one_row_and_twins_cover_their_windows(small: Path) -> None:
    rows = ask(
        "SELECT twin, count(*) AS n, min(step) AS first, max(step) AS last FROM reaction "
        "JOIN step USING (step_id) WHERE arm = 'regimes-all' GROUP BY step_id, twin",
        home=small,
    )
    own = [row for row in rows if row["twin"] == ""]
    assert [(row["n"], row["first"], row["last"]) for row in own] == [(64, 0, 63)] * 2
    windows = {row["twin"]: (row["first"], row["last"]) for row in rows if row["twin"]}
    assert windows["bewilderment/0"] == (20, 25)
    assert windows["lr_heatwave/1"] == (53, 58)
    assert len(rows) == 2 * 5


def test_the_heat_of_a_heatwave_is_in_the_learning_rate_and_its_twin_goes_without(small: Path) -> None:
    [row] = ask(
        "SELECT max(own.learning_rate / twin.learning_rate) AS most, min(own.learning_rate / "
        "twin.learning_rate) AS least FROM reaction AS own JOIN reaction AS twin USING (step_id, step) "
        "JOIN step USING (step_id) WHERE own.twin = '' AND twin.twin = 'lr_heatwave/0'",
        home=small,
    )
    assert row["most"] == pytest.approx(10.0)
    assert row["least"] == pytest.approx(10.0)


def test_without_an_injection_the_state_has_no_effect_at_all(small: Path) -> None:
    [row] = ask(
        "SELECT max(abs(effect_kl_nats)) AS most, count(effect_kl_nats) AS n FROM reaction "
        "JOIN step USING (step_id) WHERE arm = 'self-analysis-noself'",
        home=small,
    )
    assert row == {"most": 0.0, "n": 2 * 13}
    rows = ask(
        "SELECT estimate, low, high, p FROM test WHERE family = 'leverage' AND hypothesis IN "
        "('excess', 'combined') AND contrast = 'self-analysis-noself' AND metric = 'entropy_nats'",
        home=small,
    )
    assert all(row["estimate"] in (0.0, None) for row in rows)
    assert {row["p"] for row in rows} == {1.0}


def test_going_on_with_the_own_state_is_the_undisturbed_run_to_the_bit(small: Path) -> None:
    rows = ask(RUNS, home=small)
    digest = {(row["arm"], row["seed"]): row["sha256"] for row in rows}
    assert digest["swap-a", 0] == digest["self-analysis", 0]
    assert digest["swap-a", 0] != digest["swap-a-swapped", 0]
    [row] = ask(
        "SELECT min(step_frac) AS first, max(step_frac) AS last, count(*) AS n FROM reaction "
        "JOIN step USING (step_id) WHERE arm = 'swap-a-swapped' AND seed = 0",
        home=small,
    )
    assert (row["first"], row["last"], row["n"]) == (0.5, pytest.approx(63 / 64), 32)


def test_training_goes_on_from_zero_random_foreign_and_strange_states_and_each_is_compared(
    small: Path,
) -> None:
    rows = ask(
        "SELECT contrast, n, estimate FROM test WHERE family = 'swap' AND hypothesis = 'continued' "
        "AND role = 'secondary' ORDER BY contrast",
        home=small,
    )
    assert [row["contrast"] for row in rows] == [
        "patch-swap-a", "swap-a-other-init-swap-a", "swap-a-random-swap-a", "swap-a-swapped-swap-a",
        "swap-b-swapped-swap-b",
    ]  # fmt: skip
    assert all(row["n"] == 2 and row["estimate"] is not None for row in rows)
    runs = ask(RUNS, home=small)
    arms = ("swap-a", "patch", "swap-a-random", "swap-a-swapped", "swap-a-other-init")
    assert len({row["sha256"] for row in runs if row["arm"] in arms and row["seed"] == 0}) == len(arms)
    steps = ask(
        "SELECT DISTINCT min(step_frac) AS first, count(*) AS n FROM reaction JOIN step USING (step_id) "
        "WHERE arm IN ('swap-a-random', 'swap-a-other-init') GROUP BY step_id",
        home=small,
    )
    assert steps == [{"first": 0.5, "n": 32}]  # step_frac goes on in every arm


def test_a_buffer_that_was_never_full_has_no_say_and_says_so(small: Path) -> None:
    rows = ask(
        "SELECT contrast, role, reason FROM test WHERE family = 'memory' AND metric = 'valid_loss_nats' "
        "AND hypothesis = 'difference'",
        home=small,
    )
    unused = [row for row in rows if row["role"] == "secondary"]
    assert {row["contrast"].split("-self")[0] for row in unused} >= {"mem-buf-l32", "mem-buf-l128"}
    assert all("was not in use" in row["reason"] for row in unused)
    assert [row["contrast"] for row in rows if row["role"] == "decides"] == [
        "mem-ema-decay-0.1-self-analysis"
    ]


def test_the_skipped_phase_says_why(small: Path) -> None:
    rows = ask("SELECT experiment, reason FROM step WHERE experiment LIKE '%generalization'", home=small)
    assert {row["experiment"] for row in rows} == {"generalization", "frozen_generalization"}
    assert all("second_corpus" in row["reason"] for row in rows)


@pytest.mark.long
def test_a_second_run_trains_nothing_and_changes_no_number(home: Path) -> None:
    counts, decided, runs = (ask(query, home=home) for query in (COUNTS, DECIDED, RUNS))
    done = ladder(*settings(home.parent), home=home, own_server=True)
    assert done.returncode in (0, 3), done.stderr
    assert work_done(home) == []
    assert ask(COUNTS, home=home) == counts
    assert ask(DECIDED, home=home) == decided
    assert ask(RUNS, home=home) == runs


@pytest.mark.slow
def test_a_phase_runs_alone_with_what_it_needs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ladder(*settings(tmp_path), "--only", "frozen_core", home=home)
    assert done.returncode == 0, done.stderr
    assert "frozen_core: done" in done.stdout
    assert "leverage *:" in done.stdout
    trained = ask("SELECT DISTINCT arm FROM step WHERE experiment = 'core'", home=home)
    assert {row["arm"] for row in trained} == {
        "self-analysis",
        "self-analysis-noself",
        "self-analysis-random",
    }
    assert ask("SELECT count(*) AS n FROM decision", home=home) == [{"n": 0}]


@pytest.mark.slow
def test_a_given_checkpoint_is_tested_apart_from_the_plan_and_one_of_another_text_is_refused(
    home: Path, tmp_path: Path
) -> None:
    plain = settings(tmp_path)[2:]
    assert ladder("freeze", "nanodesmo", *plain, home=home).returncode == 0
    [row] = ask(
        "SELECT path FROM artifact JOIN step USING (step_id) WHERE arm = 'self-analysis' AND seed = 1 "
        "AND kind = 'checkpoint'",
        home=home,
    )
    run = (home / row["path"]).parent.parent
    told = [*settings(tmp_path, checkpoint=run), "--only", "frozen_core"]
    done = ladder(*told, home=home)
    assert done.returncode == 0, done.stderr
    assert "leverage *: INCONCLUSIVE" in done.stdout
    assert ask(EXPLORATORY, home=home) == [{"exploratory": True, "state": "completed"}]
    [step] = ask(
        "SELECT experiment, step.arm, count(*) AS n FROM step JOIN test USING (step_id) "
        "WHERE contrast LIKE 'checkpoint%' GROUP BY ALL",
        home=home,
    )
    assert (step["experiment"], step["arm"], step["n"] > 1) == ("checkpoint", "checkpoint", True)
    apart = "SELECT count(*) AS n FROM step JOIN plan_step USING (step_id) WHERE experiment = 'checkpoint'"
    assert ask(apart, home=home) == [{"n": 0}]
    done = ladder("run", "nanodesmo", *plain, "--only", "prepare", home=home)
    assert (done.returncode, ask(EXPLORATORY, home=home)[0]["exploratory"]) == (0, False)
    other = tmp_path / "other.txt"
    other.write_text("another text, long enough for its windows. " * 400)
    done = ladder(*told, "--set", f"corpus={other}", home=home)
    assert done.returncode == 1
    assert "was trained on the text" in done.stderr


@pytest.mark.parametrize("more", [(), ("--only", "core")])
def test_a_given_checkpoint_goes_with_its_own_phase_alone(more: tuple[str, ...], tmp_path: Path) -> None:
    done = ladder(*settings(tmp_path, checkpoint=tmp_path), *more, home=tmp_path / "home")
    assert done.returncode == 2
    assert "--only frozen_core" in done.stderr
    assert "no store" in ladder("sql", "SELECT 1", home=tmp_path / "home").stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windows": [[20, 26], [61, 70]]}, "of a run of 64"),
        ({"windows": [[28, 34]]}, "overlap by 3 steps"),
        ({"channel": "senses"}, "has channel 'senses'; allowed: input, target, stats, self, optim"),
        ({"windows": [[8]]}, "has window [8]"),
    ],
)
def test_windows_that_cannot_be_are_refused_before_anything_runs(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    file = regimes(tmp_path, **changes)
    with pytest.raises(UsageError, match=said.replace("[", r"\[").replace("]", r"\]")):
        settings_for(STUDY, "smoke", [f"regimes={file}", "steps=64", "warmup_steps=10"])


def test_a_text_too_short_for_its_windows_and_an_absent_one_are_bad_input(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("too short")
    done = ladder(*settings(tmp_path, corpus=short), home=tmp_path / "home")
    assert done.returncode == 2
    assert "a block of 16 needs 17 or more" in done.stderr
    done = ladder(*settings(tmp_path, corpus=tmp_path / "absent.txt"), home=tmp_path / "home")
    assert done.returncode == 2
    assert "absent.txt" in done.stderr
    assert "no store" in ladder("sql", "SELECT 1", home=tmp_path / "home").stderr  # nothing was begun


@pytest.mark.slow
def test_a_text_with_too_few_held_out_windows_is_refused_where_it_is_tested_frozen(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("some text of which a tenth is held out: " * 300)  # 12,000 characters, 75 windows
    for more in ((), ("--only", "frozen_core")):
        done = ladder(*settings(tmp_path, corpus=short), *more, home=tmp_path / "home")
        assert done.returncode == 2
        assert "has 75 windows of 16 tokens; the frozen test needs 96" in done.stderr
        assert "--set corpus=FILE" in done.stderr
    assert "no store" in ladder("sql", "SELECT 1", home=tmp_path / "home").stderr
    done = ladder(*settings(tmp_path, corpus=short), "--only", "prepare", home=tmp_path / "home")
    assert done.returncode == 0


@pytest.mark.long
def test_a_phase_whose_trainings_failed_fails_and_so_does_its_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ladder(*settings(tmp_path, learning_rate="1e30"), "--only", "controls", home=home)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "controls: failed in part" in done.stdout
    assert "16 without a result" in done.stderr
    [run] = ask("SELECT state, note FROM run", home=home)
    assert run["state"] == "failed"
    assert run["note"].startswith("RunFailedError: 16 without a result: self-regimes, seed 0: not trained")
    assert ask("SELECT count(*) AS n FROM test", home=home)[0]["n"] > 0  # what follows from it is kept


def test_the_manifest_has_config_code_data_and_outputs_of_every_kind_of_step(small: Path) -> None:
    file = json.loads((small / "figures" / "nanodesmo" / "manifest.json").read_text())
    steps = [step for step in file["steps"] if step["reason"] is None]
    suites = {step["suite"] for step in steps}
    assert suites >= {"prepare", "core", "frozen_core", "swap", "sensitivity", "analyse", "memory"}
    assert {step["data_sha256"] for step in steps} == {steps[0]["data_sha256"]} != {None}
    assert all(step["config_sha256"] and step["code"] for step in steps)
    assert {step["suite"] for step in steps if not step["outputs"]} == {"prepare"}  # it writes no file
    codes = {name: {step["code"] for step in steps if step["suite"] == name} for name in suites}
    assert all(len(found) == 1 for found in codes.values())
    assert codes["frozen_core"] == codes["swap"] == codes["sensitivity"]
    assert len({next(iter(codes[name])) for name in ("prepare", "core", "swap", "analyse")}) == 4
    files = [one for step in steps for one in step["outputs"] or []]
    assert {one["kind"] for one in files} == {"checkpoint", "log", "nano_measured", "nano_analysis"}
    for one in files:
        assert hashlib.sha256((small / one["path"]).read_bytes()).hexdigest() == one["sha256"]


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_row_with_its_log_and_the_gates_are_invalid(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ladder(*settings(tmp_path, learning_rate="1e30"), home=home)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Nothing is lost" in done.stderr
    [run] = ask("SELECT state, note FROM run", home=home)
    assert (run["state"], "not trained" in run["note"]) == ("failed", True)
    assert "Verdicts at 2 seeds" in done.stdout
    rows = ask("SELECT arm, reason FROM step WHERE reason LIKE 'not trained%'", home=home)
    assert rows
    assert all("lower learning_rate" in row["reason"] for row in rows)
    logged = ask("SELECT count(*) AS n, max(step) AS last FROM reaction", home=home)
    assert logged[0]["n"] > 0
    verdicts = {row["verdict"] for row in ask("SELECT verdict FROM decision", home=home)}
    assert verdicts == {"INVALID"}


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_as_if_it_had_not_been(small: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for after in (4, 16):  # runs kept when the process is killed
        process = start(*settings(tmp_path), home=home, extra={"PREFECT_API_URL": shared_server()})
        deadline = time.monotonic() + 120.0
        while len(list(home.glob("models/nano_run-*/state/trained.json"))) <= after:
            assert process.poll() is None or process.returncode in (0, 3)
            assert time.monotonic() < deadline
            if process.poll() is not None:
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = ladder(*settings(tmp_path), home=home)
    assert done.returncode in (0, 3), done.stderr
    for query in (COUNTS, DECIDED, RUNS):
        assert ask(query, home=home) == ask(query, home=small)


def test_suites_are_checked_when_settings_are_made() -> None:
    told = protocol(settings_for(STUDY, "smoke", []))
    cells = told.cells("core")
    first = next(place for place, cell in enumerate(cells) if cell[1] == "patch")
    assert all(cells.index(("core", half, 0)) < first for half in ("swap-a-half", "swap-b-half"))
    assert told.job(("core", "swap-a", 0)) == told.job(("core", "self-analysis", 0))
    assert told.job(("controls", "self-regimes", 0)) == told.job(("core", "regimes-all", 0))
    assert nanodesmo.name == "nanodesmo"
