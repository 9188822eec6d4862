"""What a night must survive that takes minutes to show: each ends as the undisturbed one did."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments import register
from deployments.service import client
from lab.night_queue import Candidate
from tests.ladder_command import ask, free_port, ladder, start
from tests.ollama_server import OllamaServer
from tests.small_night import (
    DECIDED,
    FOUND,
    asked,
    left_by_a_night,
    night,
    prepared_server,
    runs_kept,
    until,
)

pytestmark = pytest.mark.slow
HOLDER = """
import duckdb, sys
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""
FILLED = (
    "SELECT state, note FROM queue WHERE study = 'entropy_seeds' AND profile = 'laptop' ORDER BY started_at"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose night was not disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    home = left_by_a_night(folder / "home", asked(folder))
    done = ladder(*night("--budget", "5m"), home=home, extra=prepared_server())
    assert "1 done" in done.stdout, done.stderr
    return home


def end_and_compare(home: Path, whole: Path) -> None:
    """One more night, after which everything is as in the undisturbed home."""
    ladder(*night("--budget", "5m"), home=home, extra=prepared_server())
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


def test_twenty_kills_at_random_moments_change_nothing(whole: Path, tmp_path: Path) -> None:
    """Each falls somewhere in the night: before its run, in it, between the run's end and its row."""
    draw = random.Random(8)
    home = left_by_a_night(tmp_path / "home", asked(tmp_path))
    for _ in range(20):
        process = start(*night("--budget", "5m"), home=home, extra=prepared_server())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=draw.uniform(4.0, 25.0))
        others = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert psutil.wait_procs(others, timeout=20)[1] == []
    end_and_compare(home, whole)


def test_a_run_that_waits_for_a_worker_that_is_gone_is_executed_here(whole: Path, tmp_path: Path) -> None:
    """A worker that was killed is believed for a minute and a half."""
    home = left_by_a_night(tmp_path / "home", asked(tmp_path))
    with client(prepared_server()["PREFECT_API_URL"]) as api:
        api.send_worker_heartbeat(register.WORK_POOL, "gone")
    done = ladder(*night("--budget", "5m"), home=home, extra=prepared_server())
    assert "1 done" in done.stdout, done.stderr
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


def test_a_night_goes_on_beside_a_program_that_holds_the_store_for_a_minute(
    whole: Path, tmp_path: Path
) -> None:
    home = left_by_a_night(tmp_path / "home", asked(tmp_path))
    process = start(*night("--budget", "8m"), home=home, extra=prepared_server())
    until(lambda: runs_kept(home) >= 1, process)
    said = ""
    while said != "held\n":  # the night may have it open just then
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(home / "lab.duckdb")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert holder.stdout is not None
        said = holder.stdout.readline()
    time.sleep(60.0)
    assert process.poll() is None
    holder.communicate("\n")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "1 done" in out
    assert ask(FOUND, home=home) == ask(FOUND, home=whole)
    assert ask(DECIDED, home=home) == ask(DECIDED, home=whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 MiB of their own, whose end does not hurt anyone else; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_night_on_a_full_disk_says_so_and_the_next_one_goes_on(
    whole: Path, small_disk: Path, tmp_path: Path
) -> None:
    home = left_by_a_night(small_disk / "home", asked(tmp_path))
    process = start(*night("--budget", "5m"), home=home, extra=prepared_server())
    until(lambda: runs_kept(home) >= 2, process)
    filler = small_disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:  # other processes free and take meanwhile; what counts is that no room is left
            file.write(b"\0" * 65_536)
            file.flush()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 1, out + err
    assert "No space left" in err + out
    assert "Traceback" not in err
    filler.unlink()
    end_and_compare(home, whole)


def test_a_server_of_models_that_vanishes_costs_a_night_one_run_and_the_next_takes_it_up(
    tmp_path: Path,
) -> None:
    settings = {"prompts": "smoke", "looks": [2, 4], "conversations": 0, "single_stream": True}
    port = free_port()
    told = settings | {"required_pairs": 5, "host": f"http://127.0.0.1:{port}"}
    one = Candidate(study="entropy_seeds", profile="laptop", settings=told, why="a test")
    home = left_by_a_night(tmp_path / "home", one, asked(tmp_path))
    server = OllamaServer(port=port)
    server.faults = lambda number: server.refuse_from_now_on() if number == 20 else None
    with server:
        done = ladder(*night("--budget", "7m"), home=home, extra=prepared_server())
    assert done.returncode == 1, done.stderr
    [first] = [row for row in ask(FILLED, home=home) if row["note"]]
    assert first["state"] == "left"
    assert "ServerUnreachable" in first["note"]
    others = ask("SELECT study, profile FROM queue WHERE state = 'done'", home=home)
    # `smoke` is where a night goes when the larger profile gave no result; its verdicts may lead on
    assert {("entropy_seeds", "smoke"), ("nanodesmo", "smoke")} <= {
        (row["study"], row["profile"]) for row in others
    }
    with OllamaServer(port=port):
        again = night("--budget", "5m", "--study", "entropy_seeds")
        done = ladder(*again, home=home, extra=prepared_server())
    assert "done" in {row["state"] for row in ask(FILLED, home=home)}, done.stderr
