"""The environment set before Prefect is imported, and the temporary server of one command."""

from __future__ import annotations

import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydantic_core import PydanticSerializationError

from deployments import cli, environment, temporary_server
from deployments.environment import Process, Service

ROOT = Path(__file__).resolve().parent.parent

FLOWS = """
import sys, time
from pathlib import Path
from deployments import environment, temporary_server

home = Path(sys.argv[1])
environment.prepare(home)
server = temporary_server.start(home)
print("server", server.process.pid, flush=True)
from prefect import flow, task

@task
def add(x: int) -> int:
    return x + 1

@flow(name="quick")
def quick() -> int:
    return sum(future.result() for future in [add.submit(i) for i in range(30)])

@flow(name="long")
def long() -> None:
    print("long", flush=True)
    time.sleep(120)

server.wait_ready()
print("sum", quick(), flush=True)
long()
"""


@pytest.fixture
def own_environ() -> Iterator[None]:
    """This process's environment, given back as it was."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("PREFECT_") or name == "LADDER_HOME":
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a space, an apostrophe and letters outside ASCII."""
    found = tmp_path / "d'été Nächte"
    found.mkdir()
    return found


def run_python(script: str, *arguments: str) -> subprocess.Popen[str]:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "LADDER_"))
    }
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_after(process: subprocess.Popen[str], word: str) -> str:
    """What follows a word that begins a line of the process's output."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    _, errors = process.communicate()
    raise AssertionError(f"no line {word!r}; {errors}")


@contextmanager
def healthy_server() -> Iterator[str]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()


def this_process() -> Process:
    return environment.identify(os.getpid())


def wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 60.0
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.usefixtures("own_environ")
def test_prefect_keeps_to_the_home_and_thread_counts_are_set(home: Path) -> None:
    os.environ["PREFECT_HOME"] = "elsewhere"
    os.environ["PREFECT_PROFILE"] = "of-another-home"
    os.environ["OPENBLAS_NUM_THREADS"] = "3"
    os.environ.pop("OMP_NUM_THREADS", None)
    environment.prepare(home)
    assert os.environ["PREFECT_HOME"] == str(home / "prefect")
    assert os.environ["PREFECT_LOCAL_STORAGE_PATH"] == str(home / "cache" / "results")
    assert os.environ["LADDER_HOME"] == str(home)
    assert "PREFECT_PROFILE" not in os.environ
    assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]) == ("3", "1")
    assert list(home.iterdir()) == []


def test_the_environment_is_set_before_prefect_and_numpy_are_imported() -> None:
    script = "import sys, deployments.environment, deployments.temporary_server; print(*sys.modules)"
    output, _ = run_python(script).communicate()
    loaded = output.split()
    assert "deployments.environment" in loaded
    assert not {"prefect", "numpy", "torch"} & set(loaded)


@pytest.mark.usefixtures("own_environ")
def test_an_api_chosen_by_the_person_is_never_replaced(home: Path) -> None:
    os.environ["PREFECT_API_URL"] = "http://example.invalid/api"
    with healthy_server() as url:
        service = Service(url=url, mark="m", server=this_process(), worker=None)
        environment.write_service(home, service)
        environment.prepare(home)
    assert os.environ["PREFECT_API_URL"] == "http://example.invalid/api"


@pytest.mark.usefixtures("own_environ")
def test_a_server_on_this_machine_that_does_not_answer_is_waited_for_and_then_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(temporary_server, "RESTART_SECONDS", 0.5)
    with healthy_server() as url:
        os.environ["PREFECT_API_URL"] = url
        began = time.monotonic()
        temporary_server.wait_ready(None)
        assert time.monotonic() - began < 0.5
    with pytest.raises(ConnectionError, match=f"{url} does not answer; `ladder up` starts one"):
        temporary_server.wait_ready(None)
    assert time.monotonic() - began > 0.5
    os.environ["PREFECT_API_URL"] = "http://example.invalid/api"
    temporary_server.wait_ready(
        None
    )  # a server elsewhere may want a password or a proxy, which Prefect knows
    del os.environ["PREFECT_API_URL"]
    temporary_server.wait_ready(None)


@pytest.mark.usefixtures("own_environ")
def test_a_server_that_goes_away_before_the_flow_begins_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
    said = ["Failed to reach API at http://127.0.0.1:1/api/", "another fault"]

    def fail(**_: object) -> None:
        raise RuntimeError(said.pop(0))

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("ladder: the Prefect server at http://127.0.0.1:1/api does not")
    with pytest.raises(RuntimeError, match="another fault"):
        cli.main()


def test_an_interrupt_that_falls_into_an_import_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pydantic makes an error of its own of what interrupts it."""
    said = ["Error calling function `_ser_model`: KeyboardInterrupt: ", "another fault"]

    def fail(**_: object) -> None:
        raise PydanticSerializationError(said.pop(0))

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (
        130,
        "ladder: interrupted; the same command goes on where it stopped\n",
    )
    with pytest.raises(PydanticSerializationError, match="another fault"):
        cli.main()


@pytest.mark.usefixtures("own_environ")
def test_a_server_that_runs_for_the_home_is_used(home: Path) -> None:
    with healthy_server() as url:
        service = Service(url=url, mark="m", server=this_process(), worker=None)
        environment.write_service(home, service)
        environment.prepare(home)
        assert os.environ["PREFECT_API_URL"] == url
        assert environment.read_service(home) == service


@pytest.mark.usefixtures("own_environ")
def test_a_recorded_server_that_is_gone_is_forgotten(home: Path) -> None:
    with healthy_server() as url:
        recycled = replace(this_process(), started=this_process().started - 60.0)
        environment.write_service(home, Service(url=url, mark="m", server=recycled, worker=None))
        profile = environment.prefect_home(home) / "profiles.toml"
        assert url in profile.read_text(encoding="utf-8")
        environment.prepare(home)  # something answers there, but it is not what was started
    assert "PREFECT_API_URL" not in os.environ
    assert "PREFECT_API_URL" not in profile.read_text(encoding="utf-8")


@pytest.mark.usefixtures("own_environ")
def test_a_damaged_record_counts_as_none(home: Path) -> None:
    environment.prefect_home(home).mkdir()
    for text in ("", "[]", '{"url": "x"}', '{"url": 1, "mark": 1, "server": {"pid": 1}, "worker": null}'):
        environment.service_path(home).write_text(text, encoding="utf-8")
        assert environment.read_service(home) is None


@pytest.mark.usefixtures("own_environ")
def test_a_proxy_is_not_asked_for_servers_of_this_machine(home: Path) -> None:
    os.environ["HTTP_PROXY"] = "http://proxy.invalid:3128"
    os.environ["NO_PROXY"] = "example.org"
    environment.prepare(home)
    assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"


def test_a_shell_takes_the_exports_as_they_are_meant(home: Path) -> None:
    script = 'eval "$1"; printenv LADDER_HOME PREFECT_HOME; command -v prefect'
    command = ["bash", "-c", script, "bash", environment.shell_exports(home)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert output == [str(home), str(home / "prefect"), str(Path(sys.executable).parent / "prefect")]


def test_a_run_interrupted_by_ctrl_c_says_so_and_its_server_ends(home: Path) -> None:
    process = run_python(FLOWS, str(home))
    server = int(line_after(process, "server"))
    assert line_after(process, "sum") == str(sum(range(30)) + 30)
    line_after(process, "long")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert wait_gone(server)
    assert "CancelledError" not in errors
    assert "Still processing" not in errors
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        runs = dict(
            database.execute("SELECT f.name, r.state_type FROM flow_run r JOIN flow f ON f.id = r.flow_id")
        )
        tasks = database.execute("SELECT count(*) FROM task_run WHERE state_type = 'COMPLETED'").fetchone()[0]
    database.close()
    assert runs["quick"] == "COMPLETED"
    assert runs["long"] in ("CRASHED", "CANCELLED", "FAILED")
    assert tasks == 30


def test_a_server_ends_with_an_owner_that_is_killed(home: Path) -> None:
    process = run_python(FLOWS, str(home))
    server = int(line_after(process, "server"))
    process.kill()
    process.communicate()
    assert wait_gone(server)
