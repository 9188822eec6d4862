"""The quantisation study from plan to statuses, run as a person runs it, on models really trained."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from deployments import cli
from flows.int4_disparity import SMOKE, protocol
from flows.quant_run import begin
from lab.errors import UsageError
from models.cldr import cldr_corpus
from models.languages import LANGUAGES
from tests.ladder_command import ask, ladder, start, work_done

pytestmark = pytest.mark.long

SMALL = (
    "run", "int4_disparity", "--set", "looks=32,48", "--set", "transfer=cldr-gpt2,cldr-gpt2",
    "--set", "selectors=[]",
)  # fmt: skip
EXPERIMENTS = [
    "A-001", "A-002", "A-003", "B-001", "B-002", "B-003", "B-004", "C-001", "C-002", "D-001", "D-002"
]  # fmt: skip
STATUSES = "SELECT research_question, status FROM research_questions ORDER BY research_question"
DECIDED = "SELECT gate, look, verdict, evidence FROM decision ORDER BY look, gate"
COUNTS = """
SELECT (SELECT count(*) FROM sentence_loss) AS losses, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM decision) AS decisions,
       (SELECT count(*) FROM step) AS steps
"""


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end, smaller than smoke."""
    home = tmp_path_factory.mktemp("quantised") / "home"
    done = ladder(*SMALL, home=home)
    assert done.returncode == 0, done.stderr
    assert "Verdicts at" in done.stdout
    return home


@pytest.fixture
def home(quantised: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(quantised, tmp_path / "home"))


def test_every_experiment_succeeds_and_every_question_has_a_status(quantised: Path) -> None:
    rows = ask("SELECT experiment, verdict, success, replicates FROM experiments", home=quantised)
    assert [row["experiment"] for row in rows] == EXPERIMENTS
    assert {row["replicates"] for row in rows} == {2}
    told = {row["experiment"]: row for row in rows}
    assert told["A-001"]["verdict"] == "DETECTED"
    assert all(row["verdict"] is not None for row in rows)
    assert all(row["success"] in ("success", "replicates disagree") for row in rows)
    questions = ask(STATUSES, home=quantised)
    assert [row["research_question"] for row in questions] == ["RQ1", "RQ2", "RQ3", "RQ4"]


def test_gates_follow_their_routes_and_a_decision_can_be_computed_again(quantised: Path) -> None:
    rows = ask("SELECT gate, look, verdict, next, decision_id FROM decision_path", home=quantised)
    assert [row["gate"] for row in rows][:2] == ["collapsed", "disparity"]
    for before, after in pairwise(rows):
        assert before["next"] in (after["gate"], "next_look")
    assert rows[-1]["next"] == "stop"
    told = ladder("gates", "int4_disparity", "--why", rows[1]["decision_id"], home=quantised)
    assert told.returncode == 0
    assert rows[1]["verdict"] in told.stdout


def test_nulls_are_at_zero_and_wider_codes_cost_less(quantised: Path) -> None:
    rows = ask(
        """SELECT hypothesis, contrast, estimate, reason FROM test
           WHERE role = 'diagnostic' AND family = 'A-002'""",
        home=quantised,
    )
    found = {}
    for row in rows:
        assert row["reason"] is None
        found.setdefault(row["contrast"], []).append(row["estimate"])
    assert set(found["fp32 again"]) == {0.0}
    assert max(abs(x) for x in found["bf16"]) < 0.1
    assert max(found["int8/int4"]) <= 0.1
    assert max(found["int4/int2"]) <= 0.5


def test_every_sentence_has_its_bits_and_every_rounding_its_coverage(quantised: Path) -> None:
    [row] = ask(
        """SELECT count(*) AS losses, count(DISTINCT language) AS languages, count(bits) AS numbers
           FROM sentence_loss""",
        home=quantised,
    )
    assert row["languages"] == 10
    assert row["numbers"] == row["losses"]
    rows = ask(
        """SELECT arm, min(value) AS bits FROM metric JOIN step USING (step_id)
           WHERE name = 'bits_per_weight' GROUP BY arm""",
        home=quantised,
    )
    bits = {row["arm"]: row["bits"] for row in rows}
    assert 4.0 < bits["int4"] < 4.5
    assert 8.0 < bits["int8"] < 8.5
    assert bits["activation 5 %"] == bits["random 5 %"] > bits["int4"]
    [least] = ask("SELECT min(value) AS share FROM metric WHERE name = 'share'", home=quantised)
    assert least["share"] > 0.5


def test_a_second_run_computes_nothing_again(home: Path) -> None:
    before = ask(COUNTS, home=home)
    done = ladder(*SMALL, home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert work_done(home) == []
    assert ask(COUNTS, home=home) == before


def test_editing_stored_rows_changes_the_status(home: Path) -> None:
    plan = "SELECT DISTINCT plan_hash FROM research_questions"
    assert len(ask(plan, home=home)) == 1
    changes = {
        "CONFIRMED": "verdict = 'DETECTED', negligible = false, estimate = 3, low = 2, high = 4",
        "REFUTED": "verdict = 'DETECTED', negligible = false, estimate = -3, low = -4, high = -2",
        "EQUIVALENT": "verdict = 'DETECTED', negligible = true, estimate = 0.3, low = 0.1, high = 0.4",
        "INVALID": "verdict = 'INVALID', reason = 'a check failed'",
        "PENDING": "verdict = 'INCONCLUSIVE', reason = NULL",
    }
    for status, change in changes.items():
        with duckdb.connect(home / "lab.duckdb") as con:
            con.execute(f"UPDATE test SET {change} WHERE family = 'A-003' AND hypothesis = 'experiment'")
        assert ask(STATUSES, home=home)[0] == {"research_question": "RQ1", "status": status}
    with duckdb.connect(home / "lab.duckdb") as con:
        con.execute(
            "UPDATE test SET verdict = 'DETECTED', negligible = false, estimate = "
            "CASE WHEN model LIKE '%seed 0' THEN 3 ELSE -3 END, low = NULL, high = NULL "
            "WHERE family = 'A-003' AND hypothesis = 'experiment'"
        )
    assert ask(STATUSES, home=home)[0]["status"] == "PENDING"  # replicates disagree in sign
    [row] = ask("SELECT success FROM experiments WHERE experiment = 'A-003'", home=home)
    assert row["success"] == "replicates disagree"


@pytest.mark.slow
def test_a_limit_that_is_exceeded_is_a_row_with_its_reason_and_the_next_run_goes_on(home: Path) -> None:
    shutil.rmtree(home / "cache")
    for name in ("lab.duckdb", "lab-snapshot.duckdb"):
        (home / name).unlink()
    late = ladder(*SMALL, "--set", "timeout_minutes=0.02", home=home)
    assert late.returncode == 3, late.stderr  # the primary gate is INVALID or was not reached
    rows = ask("SELECT experiment, verdict, success FROM experiments", home=home)
    assert rows[0]["experiment"] == "A-001"
    assert "stopped at its time limit of 1.2 s" in rows[0]["success"]
    assert "A-001 has no result" in rows[2]["success"]
    assert {row["verdict"] for row in rows} == {None}
    assert {row["status"] for row in ask(STATUSES, home=home)} == {"PENDING"}
    done = ladder(*SMALL, home=home)
    assert done.returncode == 0, done.stderr
    again = ask("SELECT experiment, success FROM experiments", home=home)
    assert all(row["success"] in ("success", "replicates disagree") for row in again)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(("A-002, ",), id="in an experiment", marks=pytest.mark.slow),
        pytest.param(("A-001 at", "A-002, ", "B-002 at", "C-001, "), id="four times", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_the_middle_ends_as_one_that_was_not(home: Path, kills: tuple[str, ...]) -> None:
    before = ask(COUNTS, home=home)
    verdicts = ask(DECIDED, home=home)
    shutil.rmtree(home / "cache")
    (home / "lab.duckdb").unlink()
    for words in kills:
        process = start(*SMALL, home=home)
        assert process.stderr is not None
        line = ""
        while words not in line:
            line = process.stderr.readline()
            assert line, "the run ended before it was killed"
        process.kill()
        process.communicate()
    done = ladder(*SMALL, home=home)
    assert done.returncode == 0, done.stderr
    assert ask(COUNTS, home=home) == before
    assert ask(DECIDED, home=home) == verdicts
    states = ask("SELECT state, count(*) AS runs FROM run GROUP BY ALL ORDER BY state", home=home)
    assert states == [{"state": "completed", "runs": 1}, {"state": "crashed", "runs": len(kills)}]


def write_folder(place: Path, sentences: int = 60) -> Path:
    """A folder of aligned plain lines."""
    corpus = cldr_corpus(documents=sentences // 4)
    place.mkdir()
    for code in corpus.languages:
        (place / f"{code}.txt").write_text("\n".join(corpus.side(code)) + "\n", encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("nothing left to calibrate on", lambda folder: None, "are left to calibrate on"),
        ("misaligned", lambda folder: _drop_line(folder / "sw.txt", 7), "'sw' has 59"),
        ("empty text", lambda folder: _set_line(folder / "ur.txt", 3, ""), "ur.txt"),
        ("absent language", lambda folder: (folder / "kk.txt").unlink(), "kk"),
        ("unknown language", lambda folder: (folder / "kk.txt").rename(folder / "qq.txt"), "qq"),
    ],
)
def test_a_corpus_that_is_not_aligned_is_refused_by_name(
    tmp_path: Path, name: str, change: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    folder = write_folder(tmp_path / "corpus")
    change(folder)
    with pytest.raises(UsageError) as refused:
        begin(protocol(replace(SMOKE, corpus=str(folder), looks=(32,))))
    assert said in str(refused.value), name
    assert not (tmp_path / "home").exists()


def test_a_refused_corpus_is_one_line_and_exit_2(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "corpus")
    _drop_line(folder / "sw.txt", 7)
    done = ladder("run", "int4_disparity", "--set", f"corpus={folder}", "--set", "looks=32", home=tmp_path)
    assert done.returncode == 2
    assert "'sw' has 59" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def _drop_line(path: Path, number: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:number] + lines[number + 1 :]) + "\n", encoding="utf-8")


def _set_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model=cldr-gpt3", "cldr-gpt_neox"),
        ("languages=en,de,sw,cy", "plan 5 v 5 or more"),
        ("languages=en,xx", "xx"),
        ("budgets=5,5,20", "budgets"),
        ("budgets=5,10,200", "budgets"),
        ("budgets=5,5.00000001,20", "the same name"),
        ("selectors=activation", "name each once"),
        ("looks=64,32", "looks"),
        ("timeout_minutes=0", "timeout_minutes"),
        ("bits=3", "bits"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_is_allowed(
    tmp_path: Path,
    setting: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)  # the command sets Prefect's variables; afterwards they are as before
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ladder", "run", "int4_disparity", "--set", setting])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1
    assert said in err


def test_the_plan_holds_languages_experiments_and_questions(quantised: Path) -> None:
    [row] = ask("SELECT text FROM plan WHERE study = 'int4_disparity'", home=quantised)
    design = json.loads(row["text"])["design"]
    assert [one["code"] for one in design["languages"]] == [one.code for one in LANGUAGES]
    assert [one["id"] for one in design["experiments"]] == EXPERIMENTS


@pytest.mark.slow
def test_a_model_that_is_no_embedded_one_is_repeated_over_folds_of_sentences(
    quantised: Path, tmp_path: Path
) -> None:
    model = next((quantised / "models").glob("cldr-gpt2-0-*"))
    chosen = [f"model={model}", f"transfer={model},{model}", "looks=64,128", "selectors=[]"]
    done = ladder(
        "run", "int4_disparity", *(part for one in chosen for part in ("--set", one)), home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = ask("SELECT experiment, success, replicates FROM experiments", home=tmp_path)
    assert [row["experiment"] for row in rows] == EXPERIMENTS
    assert {(row["success"], row["replicates"]) for row in rows} == {("success", 2)}
    written = ladder("figures", "int4_disparity", "--format", "svg", home=tmp_path)
    assert written.returncode == 0, written.stderr
    points = json.loads(next(tmp_path.glob("figures/*/pareto-change.json")).read_text())["rows"]
    assert {row["replicate"][-6:] for row in points} == {"fold 0", "fold 1"}
    assert all(row["bits_per_weight"] is not None for row in points)
