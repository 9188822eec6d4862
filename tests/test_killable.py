"""Work in a process that can be stopped: limits, crashes, errors and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.errors import TimeLimitError, WorkError
from tasks import killable
from tasks.killable import Worker, worker
from tests.ladder_command import ROOT


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    killable.stop_all()
    assert [one for one in psutil.Process().children(recursive=True) if _is_worker(one)] == []


def _is_worker(process: psutil.Process) -> bool:
    """One that has ended but was not waited for, such as a child of the tests' Prefect server, is none."""
    try:
        return "tasks.worker" in process.cmdline()
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of calls that a worker can make, found as `models.trial_jobs`."""
    package = tmp_path / "models"
    package.mkdir()
    (package / "trial_jobs.py").write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time

            def double(*, number, report):
                for i in range(3):
                    report(i)
                print("a library prints")
                return 2 * number

            def refuse(*, report):
                raise ValueError("nothing of the sort")

            def sleep(*, report):
                report("asleep")
                time.sleep(60)

            def die(*, report):
                sys.stderr.write("about to die\\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGKILL)

            def not_a_number(*, report):
                return float("nan")

            def which(*, report):
                return os.getpid()
            """
        )
    )
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'models')!r})\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.chdir(tmp_path)
    return "models.trial_jobs"


def call(process: Worker, function: str, seconds: float = 60.0, **arguments: object) -> object:
    return process.call(function, arguments, seconds=seconds, report=lambda _: None)


def test_a_call_reports_along_the_way_and_answers(jobs: str) -> None:
    seen: list[object] = []
    with worker() as process:
        answer = process.call(f"{jobs}:double", {"number": 21}, seconds=60.0, report=seen.append)
    assert answer == 42
    assert seen == [0, 1, 2]


def test_a_process_is_used_again_and_one_that_knows_the_subject_first(jobs: str) -> None:
    with worker(near="a") as first, worker(near="b") as second:
        pids = call(first, f"{jobs}:which"), call(second, f"{jobs}:which")
    with worker(near="a") as again:
        assert call(again, f"{jobs}:which") == pids[0]
    with worker(near="b") as again:
        assert call(again, f"{jobs}:which") == pids[1]


def test_between_runs_an_idle_process_stays_unless_it_is_large_or_cannot_forget(
    jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker() as process:
        first = call(process, f"{jobs}:which")
    killable.rest(2**40)
    with worker() as process:
        assert call(process, f"{jobs}:which") == first
    killable.rest(2**10)
    with worker() as process:
        second = call(process, f"{jobs}:which")
        assert second != first
    with monkeypatch.context() as during:
        during.setattr(Worker, "resident_bytes", lambda _: 0)
        during.setattr(killable, "FORGETTING", f"{jobs}:no_such_function")
        killable.rest(2**40)
    with worker() as process:
        assert call(process, f"{jobs}:which") != second


def test_a_call_over_its_limit_is_killed_and_says_so(jobs: str) -> None:
    seen: list[object] = []
    started = time.monotonic()
    with worker() as process:
        with pytest.raises(TimeLimitError, match=r"stopped at its time limit of 2 s"):
            process.call(f"{jobs}:sleep", {}, seconds=2.0, report=seen.append)
        assert not process.is_ready
    assert time.monotonic() - started < 50
    assert seen in ([], ["asleep"])
    with worker() as process:
        assert call(process, f"{jobs}:double", number=1) == 2


def test_an_error_has_its_name_and_the_process_goes_on(jobs: str) -> None:
    with worker() as process:
        with pytest.raises(WorkError, match=r"^ValueError: nothing of the sort$"):
            call(process, f"{jobs}:refuse")
        assert process.is_ready
        assert call(process, f"{jobs}:double", number=1) == 2


def test_a_process_that_dies_says_by_what_and_its_last_words(jobs: str) -> None:
    with worker() as process, pytest.raises(WorkError, match=r"died by signal SIGKILL: about to die"):
        call(process, f"{jobs}:die")
    with worker() as process:
        assert call(process, f"{jobs}:double", number=1) == 2


def test_a_result_that_is_no_number_is_an_error_not_a_result(jobs: str) -> None:
    with worker() as process, pytest.raises(WorkError, match=r"^ValueError: .*JSON"):
        call(process, f"{jobs}:not_a_number")


def test_only_functions_of_models_are_called() -> None:
    with worker() as process, pytest.raises(WorkError, match=r"os:getcwd is not of models"):
        call(process, "os:getcwd")


def test_a_report_that_cannot_be_kept_stops_the_work(jobs: str) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), worker() as process:
        process.call(f"{jobs}:sleep", {}, seconds=60.0, report=full)
    with worker() as process:  # another one: the first was in the middle of its call
        assert call(process, f"{jobs}:double", number=1) == 2


def test_when_the_caller_dies_its_work_ends(jobs: str) -> None:
    script = (
        "from tasks.killable import worker\n"
        "with worker() as process:\n"
        f"    process.call('{jobs}:sleep', {{}}, seconds=60.0, report=lambda _: print('up', flush=True))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    assert caller.stdout.readline() == "up\n"
    [work] = [one for one in psutil.Process(caller.pid).children() if "tasks.worker" in one.cmdline()]
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    work.wait(timeout=30)
