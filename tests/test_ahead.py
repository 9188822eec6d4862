"""What a night makes beforehand: in order, once, at the lowest priority, and gone when the night ends."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.registry import studies
from lab.study import Call
from models.kept import alone, is_being_made
from tasks.ahead import PRIORITIES, Ahead
from tests.ladder_command import ROOT

PATIENCE_SECONDS = 60.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the code with calls that write down who made them and when, in `made`."""
    package = tmp_path / "models"
    package.mkdir()
    (package / "trial_jobs.py").write_text(
        textwrap.dedent(
            f"""
            import os, pathlib, time

            def note(*, name, report, seconds=0.0):
                with open({str(tmp_path / "made")!r}, "a") as file:
                    group = pathlib.Path("/proc/self/autogroup")
                    word = group.read_text().split()[-1] if group.exists() else "none"
                    print(name, os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), word, file=file)
                time.sleep(seconds)
                if name == "bad":
                    raise ValueError("no such thing")
            """
        )
    )
    (package / "__init__.py").write_text("")
    for name in ("tasks", "lab"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def ahead(source: Path) -> Iterator[Ahead]:
    found = Ahead(source, cores=2)
    yield found
    found.stop()


def call(name: str, seconds: float = 0.0) -> Call:
    return Call(function="models.trial_jobs:note", arguments={"name": name, "seconds": seconds})


def made(source: Path, count: int) -> list[list[str]]:
    """The lines that were written, once there are so many."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        lines = (source / "made").read_text().splitlines() if (source / "made").exists() else []
        if len(lines) >= count:
            return [line.split() for line in lines]
        time.sleep(0.05)
    raise AssertionError(f"{count} calls were not made in {PATIENCE_SECONDS:.0f} s")


def test_each_call_is_made_once_at_a_low_priority_and_after_one_that_failed(
    source: Path, ahead: Ahead, caplog: pytest.LogCaptureFixture
) -> None:
    ahead.want([call("a"), call("bad"), call("a"), call("b")])
    made(source, 3)
    ahead.want([call("a"), call("c")])
    lines = made(source, 4)
    assert sorted(line[0] for line in lines) == ["a", "b", "bad", "c"]
    assert {int(line[2]) for line in lines} <= set(PRIORITIES)
    assert all(line[3] in (line[2], "none") for line in lines)  # of its session, where Linux has one
    assert os.getpriority(os.PRIO_PROCESS, 0) < min(PRIORITIES)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "bad was not made beforehand: ValueError: no such thing" not in caplog.text:
        assert time.monotonic() < deadline, caplog.text  # the other process may have made all the rest
        time.sleep(0.05)


def test_the_first_begins_first_and_what_has_not_begun_can_be_dropped(source: Path, ahead: Ahead) -> None:
    ahead.want([call("a", 2.0), call("b", 2.0), call("dropped")])
    made(source, 2)
    ahead.want([call("c")])
    assert {line[0] for line in made(source, 3)} == {"a", "b", "c"}


def test_its_processes_end_with_it_in_the_middle_of_a_call(source: Path, ahead: Ahead) -> None:
    ahead.want([call("a", 60.0), call("b", 60.0), call("never")])
    processes = [psutil.Process(int(line[1])) for line in made(source, 2)]
    ahead.stop()
    assert not any(process.is_running() for process in processes)
    ahead.want([call("later")])
    assert len(made(source, 2)) == 2


def test_dry_runs_name_functions_that_take_the_arguments_one_for_each_missing_model(tmp_path: Path) -> None:
    steps = [one for study in studies().values() for one in study.steps(study.profiles["smoke"], tmp_path)]
    trained = [step for step in steps if step.ahead]
    assert all(len(step.ahead) == step.units - step.cached for step in trained)
    calls = [each for step in trained for each in step.ahead]
    for each in calls:
        module, _, name = each.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        inspect.signature(function).bind(**each.arguments, report=print)
    assert {each.function for each in calls} == {
        "models.embedded:obtain_rung",
        "models.quant_jobs:train",
        "models.rank_jobs:train_base",
    }


def test_nothing_is_made_on_one_core(source: Path) -> None:
    found = Ahead(source, cores=1)
    found.want([call("a")])
    found.stop()
    assert not (source / "made").exists()


def _hold(place: str) -> None:
    with alone(Path(place)):
        print("held", flush=True)
        time.sleep(60)


def test_who_wants_what_another_process_makes_waits_for_it_and_not_for_a_dead_one(tmp_path: Path) -> None:
    place = tmp_path / "models" / "one-key"
    assert not is_being_made(place)
    code = f"from tests.test_ahead import _hold; _hold({str(place)!r})"
    maker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert maker.stdout is not None
    assert maker.stdout.readline() == b"held\n"
    assert is_being_made(place)
    waiting = multiprocessing.get_context("spawn").Process(target=_enter, args=(str(place),))
    waiting.start()
    waiting.join(timeout=3.0)
    assert waiting.is_alive()
    maker.kill()
    maker.wait()
    waiting.join(timeout=PATIENCE_SECONDS)
    assert waiting.exitcode == 0
    assert not is_being_made(place)
    maker.stdout.close()


def _enter(place: str) -> None:
    with alone(Path(place)):
        pass
