"""What the seed study survives: a killed process and a store that someone else holds."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ladder_command import COUNTS, DECISIONS, RUN, ask, ladder, start

HOLDER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def replaying(finished: Path, tmp_path: Path) -> Path:
    """A home with the finished one's model and tapes, and nothing done."""
    home = tmp_path / "replaying"
    for kept in ("models", "tapes"):
        shutil.copytree(finished / kept, home / kept)
    return home


def kill_after(home: Path, lines: int, seconds: float) -> None:
    """Start the study and end its process with SIGKILL, `seconds` after it has said `lines` lines."""
    process = start(*RUN, home=home)
    assert process.stderr is not None
    for _ in range(lines):
        assert process.stderr.readline(), "the run ended before it was killed"
    time.sleep(seconds)
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((7,), id="between gates"),
        pytest.param((2, 7, 13), id="during generation, between gates, in a later look"),
        pytest.param((1, 2, 7, 8, 13), id="five times"),
    ],
)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    finished: Path, replaying: Path, kills: tuple[int, ...]
) -> None:
    when = random.Random(20261121)
    for lines in kills:
        kill_after(replaying, lines, when.uniform(0.0, 2.0))
    done = ladder(*RUN, home=replaying)
    assert done.returncode == 0, done.stderr
    assert ask(COUNTS, home=replaying) == ask(COUNTS, home=finished)
    assert ask(DECISIONS, home=replaying) == ask(DECISIONS, home=finished)
    rows = ask("SELECT state, count(*) AS runs FROM run GROUP BY ALL", home=replaying)
    states = {row["state"]: row["runs"] for row in rows}
    assert states.keys() == {"completed", "crashed"}
    assert states["completed"] == 1
    early = kills.count(1)  # one that dies after the first line may die before its run has begun
    assert len(kills) - early <= states["crashed"] <= len(kills)


@pytest.mark.slow
def test_a_run_goes_on_while_another_process_holds_the_store(finished: Path, home: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home / "lab.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        process = start(*RUN, home=home)
        assert process.stderr is not None
        said = ""
        while "look 4, texts: 252 of 252" not in said:
            said = process.stderr.readline()
            assert said, "the run ended while the store was held"
        deadline = time.monotonic() + 60
        while len(list((home / "outbox").glob("*.batch"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(list((home / "outbox").glob("*.batch"))) >= 5
        assert process.poll() is None
    finally:
        holder.communicate("\n")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert ask(COUNTS, home=home) == ask(COUNTS, home=finished)
    assert not list((home / "outbox").glob("*.batch"))


@pytest.mark.long
def test_ctrl_c_says_how_to_go_on_and_closes_the_run(replaying: Path) -> None:
    process = start(*RUN, home=replaying)
    assert process.stderr is not None
    while "positive_control" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert ask("SELECT state, note LIKE '%run it again%' AS said FROM run", home=replaying) == [
        {"state": "cancelled", "said": True}
    ]
