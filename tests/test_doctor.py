"""What `ladder doctor` says about a machine, and the fix for each thing that is wrong."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from deployments import doctor, environment
from deployments.environment import Process, Service
from flows.registry import studies
from lab.machine import this_process
from lab.records import StudyRow
from lab.store import Store
from tests.night_rows import RUN
from tests.ollama_server import OllamaServer, ServedModel

HOLDER = """
import duckdb, sys
con = duckdb.connect(sys.argv[1])
print("held", flush=True)
input()
"""
ROW = StudyRow(study="coin", question="Is it fair?", text="A coin.")


@contextmanager
def held_by_another_program(path: Path) -> Iterator[int]:
    """A person's shell that has the database open."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "held\n"
        yield shell.pid
        shell.communicate("\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_fresh_home_lacks_nothing_but_a_model_server(tmp_path: Path) -> None:
    found = doctor.checks(tmp_path, host=f"http://127.0.0.1:{free_port()}")
    states = {check.name: check.state for check in found}
    assert states.pop("ollama") == "warn"
    assert states.pop("disk") in ("ok", "warn")
    assert states.pop("memory") in ("ok", "warn")
    assert states.pop("device") in ("ok", "warn")
    assert states.pop("hub token") in ("ok", "warn")
    assert set(states) == {
        "python", "packages", "home", "store", "outbox", "at work", "service", "chromium", "profiles",
    }  # fmt: skip
    assert "smoke and fast run here; laptop does not, without ollama" in found[-1].found
    assert set(states.values()) == {"ok"}
    assert all((check.fix is None) == (check.state == "ok") for check in found)
    assert all("\n" not in check.found + (check.fix or "") for check in found)
    assert list(tmp_path.iterdir()) == []


def test_the_answer_needs_neither_torch_nor_prefect(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from deployments import doctor;"
        "doctor.checks(Path(sys.argv[1]), host='http://127.0.0.1:9'); print(*sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    assert "psutil" in done.stdout.split()
    assert not {"torch", "transformers", "prefect"} & set(done.stdout.split())


def test_a_version_out_of_range_and_a_missing_package_are_named() -> None:
    found = doctor.check_packages({"duckdb": ">=99", "no-such-package": "", "polars": ">=1"})
    assert [(check.name, check.state) for check in found] == [("duckdb", "fail"), ("no-such-package", "fail")]
    assert found[0].found.endswith("needs >=99")
    assert "pip install -c constraints.txt" in (found[0].fix or "")


def test_a_home_that_is_not_there_or_not_a_folder_fails(tmp_path: Path) -> None:
    absent = doctor.check_home(tmp_path / "absent")
    assert (absent.state, absent.fix) == ("fail", "set LADDER_HOME to a folder of yours")
    file = tmp_path / "file"
    file.touch()
    assert doctor.check_home(file).state == "fail"


def test_little_disk_and_little_memory_are_said(tmp_path: Path) -> None:
    assert doctor.check_disk(tmp_path / "not" / "yet", low_gib=1e9).state == "warn"
    assert doctor.check_disk(tmp_path, low_gib=0.0).state == "ok"
    assert doctor.check_memory(low_gib=1e9).fix == "close other programs"


def test_whoever_holds_the_database_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record([ROW])
    assert doctor.check_store(tmp_path).found == str(store.path)
    with held_by_another_program(store.path) as pid:
        held = doctor.check_store(tmp_path)
        store.record([ROW])
        waiting = doctor.check_outbox(tmp_path)
    assert held.state == "warn"
    assert f"(PID {pid})" in held.found
    assert "rows wait in the outbox" in (held.fix or "")
    assert (waiting.state, waiting.found, waiting.fix) == ("warn", "1 batches wait", "ladder drain")
    assert doctor.check_store(tmp_path).state == "ok"
    assert doctor.check_outbox(tmp_path).state == "ok"


def test_a_damaged_database_fails_with_the_way_back(tmp_path: Path) -> None:
    (tmp_path / "lab.duckdb").write_bytes(b"not a database" * 1000)
    found = doctor.check_store(tmp_path)
    assert found.state == "fail"
    assert found.fix == "move lab.duckdb* away, its log too, and copy lab-snapshot.duckdb in its place"


def test_the_way_back_from_a_damaged_database_is_one(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    lab.record([ROW])
    lab.snapshot()
    with duckdb.connect(lab.path) as con:  # a log that is not of the snapshot
        con.execute("PRAGMA disable_checkpoint_on_shutdown")
        con.execute("UPDATE lab_schema SET views = 'x'")
    assert (tmp_path / "lab.duckdb.wal").exists()
    lab.path.write_bytes(b"not a database" * 1000)
    assert doctor.check_store(tmp_path).state == "fail"
    (tmp_path / "away").mkdir()
    for path in tmp_path.glob("lab.duckdb*"):
        path.rename(tmp_path / "away" / path.name)
    shutil.copy(lab.snapshot_path, lab.path)
    assert doctor.check_store(tmp_path).state == "ok"
    assert len(Store(tmp_path).read("FROM study")) == 1


def test_a_rejected_batch_is_pointed_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record([ROW], drain=False)
    store.outbox.reject(store.outbox.waiting()[0], "its hash is wrong")
    found = doctor.check_outbox(tmp_path)
    assert (found.state, found.found) == ("warn", "1 rejected, 0 waiting")
    assert str(store.outbox.rejected) in (found.fix or "")


def test_a_service_that_is_gone_is_brought_back_by_up(tmp_path: Path) -> None:
    alive = environment.identify(os.getpid())
    gone = Process(pid=alive.pid, started=alive.started - 60.0)
    for server, worker in ((gone, gone), (alive, gone), (gone, alive)):
        recorded = Service(url="http://127.0.0.1:9/api", mark="m", server=server, worker=worker)
        environment.write_service(tmp_path, recorded)
        found = doctor.check_service(tmp_path)
        assert (found.state, found.fix) == ("warn", "ladder up")


def test_a_model_server_is_asked_for_each_model() -> None:
    with OllamaServer([ServedModel(name="qwen3:0.6b", parameters=10)]) as server:
        here, missing = doctor.check_ollama(server.url, ("qwen3:0.6b", "gemma3:4b"))
    assert here.state == "ok"
    assert here.found.startswith("digest ")
    assert (missing.state, missing.fix) == ("warn", "ollama pull gemma3:4b")


def test_no_model_server_and_an_address_that_is_none_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = doctor.check_ollama(f"http://127.0.0.1:{free_port()}", ("qwen3:0.6b", "gemma3:4b"))
    assert found.state == "warn"
    assert "`ollama serve`" in (found.fix or "")
    monkeypatch.setenv("OLLAMA_HOST", "http://[not-an-address")
    for _ in range(2):  # the client's module, too, reads the address as it is imported
        (unreadable,) = doctor.check_ollama(None, ("qwen3:0.6b",))
        assert (unreadable.name, unreadable.state) == ("ollama", "warn")
        assert unreadable.found.startswith("server address 'http://[not-an-address' cannot be read (")
        monkeypatch.delitem(sys.modules, "ollama", raising=False)


def test_every_ollama_model_of_a_profile_is_asked_for_and_every_gated_one_named() -> None:
    settings = [one for study in studies().values() for one in study.profiles.values()]
    served = [one for one in settings if getattr(one, "backend", "") == "ollama"]
    rungs = {rung.model for one in served for rung in getattr(one, "rungs", ())}
    names = {one.model for one in served if ":" in one.model}
    assert rungs | names == set(doctor.LAPTOP_MODELS)
    assert set(doctor.GATED) <= {one.model for one in settings}


def test_a_hub_token_is_looked_for_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    missing = doctor.check_hub_token()
    assert (missing.state, "mistralai/Mistral-7B-v0.1" in missing.found) == ("warn", True)
    assert "hf auth login" in (missing.fix or "")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = doctor.check_hub_token()
    assert (found.state, found.fix) == ("ok", None)
    assert "secret" not in found.found


def test_a_run_at_work_is_named_and_one_that_was_killed_can_be_taken_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    running = replace(RUN, state="running", ended_at=None, process=this_process())
    store.record([running])
    assert doctor.check_work(tmp_path).found.startswith("run of s/smoke, begun 2026-11-20 12:00 UTC")
    store.record([replace(running, process=this_process() + "0")])
    found = doctor.check_work(tmp_path)
    assert (found.state, "killed: run of s/smoke" in found.found) == ("warn", True)
    assert "goes on where it stopped" in (found.fix or "")
    with held_by_another_program(store.path):
        assert doctor.check_work(tmp_path).found == "nothing that is known of"


def test_what_fails_keeps_every_profile_from_running(tmp_path: Path) -> None:
    found = doctor.can_run([doctor.check_home(tmp_path / "absent"), doctor.check_python()])
    assert (found.state, found.found) == ("fail", "nothing before these are mended: home")
