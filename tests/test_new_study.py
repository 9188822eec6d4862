"""The worked example of a new study: three files beside ours, and all that treats studies knows it.

And what a night does where somebody edits a gate: with a study of a second a run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ladder_command import ROOT, ask, copy_tree, environment, ladder

EXAMPLE = ROOT / "docs" / "example"
FILES = ["flows/sentence_length.py", "tasks/sentence_length.py", "tests/test_sentence_length.py"]
NIGHT = ("night", "--study", "sentence_length", "--budget", "5m")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages with the example's three files among them."""
    found = copy_tree(tmp_path_factory.mktemp("new") / "tree")
    shutil.copytree(ROOT / "tests", found / "tests", ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    for name in FILES:
        assert not (found / name).exists()
        shutil.copy(EXAMPLE / name, found / name)
    return found


@pytest.fixture(scope="module")
def home(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose night ran the example."""
    place = tmp_path_factory.mktemp("homes") / "home"
    done = ladder(*NIGHT, home=place, tree=tree)
    assert done.returncode == 0, done.stderr
    assert "1 done" in done.stdout
    return place


@pytest.mark.long
def test_the_example_is_three_files_and_its_own_tests_pass(tree: Path, tmp_path: Path) -> None:
    there = sorted(str(file.relative_to(EXAMPLE)) for file in EXAMPLE.rglob("*.py"))
    assert there == FILES
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILES[2]],
        cwd=tree, env=environment(tmp_path, tree), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("." * 7 + " ")


@pytest.mark.long
def test_a_night_runs_it_and_plan_gates_and_report_show_it(home: Path, tree: Path) -> None:
    [row] = ask("SELECT verdict, exploratory, sentence FROM decision", home=home)
    assert row["exploratory"] is False
    planned = ladder("plan", "sentence_length", home=home, tree=tree)
    assert "compare sentences" in planned.stdout
    gates = ladder("gates", "sentence_length", home=home, tree=tree)
    assert row["verdict"] in gates.stdout
    assert row["sentence"] in (home / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_gate_edited_after_the_plan_makes_verdicts_exploratory_until_it_is_frozen(
    home: Path, tree: Path, tmp_path: Path
) -> None:
    edited = tmp_path / "tree"
    shutil.copytree(tree, edited)
    flow = edited / FILES[0]
    text = flow.read_text(encoding="utf-8")
    flow.write_text(text.replace("min_n=20", "min_n=30"), encoding="utf-8")
    place = Path(shutil.copytree(home, tmp_path / "home"))
    done = ladder(*NIGHT, home=place, tree=edited)
    assert done.returncode == 0, done.stderr
    assert "departs from the frozen plan (gates.longer)" in (done.stderr + log_of(place))
    [row] = ask("SELECT field, declared, used FROM deviations", home=place)
    assert row["field"] == "gates.longer"
    assert ('"min_n":20' in row["declared"], '"min_n":30' in row["used"]) == (True, True)
    flags = "SELECT exploratory FROM decision ORDER BY decided_at"
    assert [row["exploratory"] for row in ask(flags, home=place)] == [False, True]
    assert "EXPLORATORY" in (place / "report.html").read_text(encoding="utf-8").upper()

    frozen = ladder("freeze", "sentence_length", home=place, tree=edited)
    assert frozen.returncode == 0, frozen.stderr
    assert ladder(*NIGHT, home=place, tree=edited).returncode == 0
    assert [row["exploratory"] for row in ask(flags, home=place)][-1] is False


def log_of(home: Path) -> str:
    """What the runs of a home's nights said."""
    return "".join(file.read_text(encoding="utf-8") for file in (home / "logs").glob("night-*.log"))
