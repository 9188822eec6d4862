"""The nanodesmo study as a person runs it, small: its phases, gates and faults, and going on after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from deployments.settings import settings_for
from flows.nanodesmo import STUDY, SUITES, nanodesmo, protocol
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


def test_a_second_run_trains_nothing_and_changes_no_number(home: Path) -> None:
    counts, decided, runs = (ask(query, home=home) for query in (COUNTS, DECIDED, RUNS))
    done = ladder(*settings(home.parent), home=home, own_server=True)
    assert done.returncode in (0, 3), done.stderr
    assert work_done(home) == []
    assert ask(COUNTS, home=home) == counts
    assert ask(DECIDED, home=home) == decided
    assert ask(RUNS, home=home) == runs


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


def test_a_given_checkpoint_is_tested_and_one_of_another_text_is_refused(home: Path, tmp_path: Path) -> None:
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
    other = tmp_path / "other.txt"
    other.write_text("another text, long enough for its windows. " * 40)
    done = ladder(*told, "--set", f"corpus={other}", home=home)
    assert done.returncode == 1
    assert "was trained on the text" in done.stderr


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
    assert "a block_size of 16 needs 17 or more" in done.stderr
    done = ladder(*settings(tmp_path, corpus=tmp_path / "absent.txt"), home=tmp_path / "home")
    assert done.returncode == 2
    assert "absent.txt" in done.stderr
    assert "no store" in ladder("sql", "SELECT 1", home=tmp_path / "home").stderr  # nothing was begun


def test_a_loss_that_is_no_number_is_a_row_with_its_log_and_the_gates_are_invalid(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ladder(*settings(tmp_path, learning_rate="1e30"), home=home)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Nothing is lost" in done.stderr
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
