"""Beyond one machine, by setting: fan-out on a cluster, a Kubernetes work pool, Postgres for the server."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values

from lab.errors import UsageError
from tasks import fan_out
from tasks.shell import unwalked
from tests.ladder_command import ladder, shared_server, start

ROOT = Path(__file__).resolve().parent.parent
FLOWS_THAT_FAN_OUT = ("int4_disparity", "mechanism", "nanodesmo", "sense_scaling")
RUNNERS = """
import flows.nanodesmo, flows.sense_capsule
from flows.registry import studies
named = {study.name: study.flow for study in studies().values()}
named |= {"phase": flows.nanodesmo.nanodesmo_phase, "capsule": flows.sense_capsule.sense_capsule}
print(*[f"{name}={type(flow.task_runner).__name__}" for name, flow in named.items()], sep="\\n")
"""
SMALL = {
    "seeds": "0,1", "width": 16, "block": 16, "batch": 8, "steps": 100, "warmup_steps": 10, "state_dim": 8,
    "before": 7, "probe_every": 5, "rotations": 199, "permutations": 50,
}  # fmt: skip
REGIME = {"id": "bewilderment", "channel": "target", "mode": "random_targets", "strength": 0.5}
STAND_IN = """
from prefect.task_runners import ThreadPoolTaskRunner
class RayTaskRunner(ThreadPoolTaskRunner):
    def __init__(self, address=None, init_kwargs=None):
        super().__init__()
"""


def test_an_unknown_task_runner_says_which_there_are(tmp_path: Path) -> None:
    done = ladder("plan", "nanodesmo", home=tmp_path, extra={fan_out.VARIABLE: "rya"})
    assert done.returncode == 2
    assert "unknown LADDER_TASK_RUNNER 'rya'; did you mean ray? allowed: dask, ray, threads" in done.stderr


@pytest.mark.parametrize(("name", "package"), [("ray", "prefect_ray"), ("dask", "prefect_dask")])
def test_a_task_runner_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv(fan_out.VARIABLE, name)
    with pytest.raises(UsageError, match=rf"pip install -e '\.\[{name}\]' -c constraints.txt"):
        fan_out.runner()


def test_an_argument_that_prefect_takes_as_it_is_reaches_another_process_as_it_is() -> None:
    told = unwalked({"x": [1]})
    assert copy.copy(told).unwrap() == told.unwrap()  # by way of the protocol that both clusters send by


def test_every_flow_that_fans_out_takes_its_task_runner_from_the_setting(tmp_path: Path) -> None:
    (tmp_path / "prefect_ray.py").write_text(STAND_IN)  # in place of the package, which may not be installed
    told = subprocess.run(
        [sys.executable, "-c", RUNNERS],
        cwd=ROOT,
        env={**os.environ, fan_out.VARIABLE: "ray", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found = dict(line.split("=") for line in told)
    wanted = dict.fromkeys((*FLOWS_THAT_FAN_OUT, "phase", "capsule"), "RayTaskRunner")
    assert {name: found[name] for name in wanted} == wanted


def trainings(home: Path) -> dict[str, str]:
    """Each run's weights by their folder."""
    files = home.glob("**/*.safetensors")
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def workers_of(home: Path, runner: int) -> set[int]:
    """Processes other than the command's own that have a training process of this home as a child."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_training = "tasks.worker" in process.cmdline()
            if is_training and process.environ().get("LADDER_HOME") == str(home) and process.ppid() != runner:
                found.add(process.ppid())
    return found


@pytest.mark.cluster
@pytest.mark.parametrize(("name", "package"), [("ray", "prefect_ray"), ("dask", "prefect_dask")])
def test_two_workers_of_a_cluster_train_what_threads_train(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package)
    regimes = tmp_path / "regimes.json"
    regimes.write_text(json.dumps({"regimes": [REGIME | {"windows": [[30, 38], [60, 68]]}]}))
    told = [f"{field}={value}" for field, value in {"regimes": regimes, **SMALL}.items()]
    sets = [part for one in told for part in ("--set", one)]
    homes = {one: tmp_path / one for one in ("threads", name)}
    seen: set[int] = set()
    for one, home in homes.items():
        extra = {fan_out.VARIABLE: one, "PREFECT_API_URL": shared_server()}
        with start("run", "nanodesmo", "--only", "core", *sets, home=home, extra=extra) as process:
            reader = threading.Thread(target=process.communicate, kwargs={"timeout": 400})
            reader.start()
            while process.poll() is None:
                seen |= workers_of(home, process.pid) if one == name else set()
                time.sleep(0.2)
            reader.join()
        assert process.returncode == 0
    assert len(seen) >= min(2, os.cpu_count() or 1)
    assert trainings(homes[name]) == trainings(homes["threads"])
    assert len(trainings(homes[name])) >= 16


# --- a Kubernetes work pool -----------------------------------------------------------------------

TEMPLATE = ROOT / "deployments" / "templates" / "kubernetes.json"


def test_the_kubernetes_template_is_one_that_prefect_takes_and_holds_home_outbox_and_accelerator() -> None:
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    WorkPoolCreate(name="gpu", type="kubernetes", base_job_template=template)  # refuses unknown variables
    fields = template["variables"]["properties"]
    values = {name: field["default"] for name, field in fields.items() if "default" in field}
    manifest = apply_values(template["job_configuration"], values | {"ladder_outbox": "s3://b/o"})[
        "job_manifest"
    ]
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert (variables["LADDER_HOME"], variables["LADDER_OUTBOX"]) == ("/ladder", "s3://b/o")
    assert variables["PREFECT_LOCAL_STORAGE_PATH"] == "/ladder/cache/results"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["volumeMounts"] == [{"name": "ladder-home", "mountPath": "/ladder"}]
    [volume] = pod["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "ladder-home"}
    assert volume["name"] == "ladder-home"


@pytest.mark.cluster
def test_the_kubernetes_worker_makes_a_job_of_the_template() -> None:
    worker = pytest.importorskip("prefect_kubernetes.worker")
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    made = asyncio.run(
        worker.KubernetesWorkerJobConfiguration.from_template_and_values(
            template, {"env": {"EXTRA": "1"}, "gpu_limit": 0}, client=get_client_of_nothing()
        )
    )
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a run"))
    [container] = made.job_manifest["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert (variables["EXTRA"], variables["LADDER_HOME"]) == ("1", "/ladder")
    assert container["args"][:2] == ["prefect", "flow-run"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 0


def get_client_of_nothing() -> PrefectClient:
    """A client that is not asked, as the template names no blocks."""
    return PrefectClient("http://127.0.0.1:9/api")


# --- Postgres for the Prefect server --------------------------------------------------------------


@pytest.fixture
def postgres() -> Iterator[str]:
    """Address of a private cluster of databases, by the user `postgres` where this one is root."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb", path=os.pathsep.join([str(one) for one in versions[::-1]]))
    if found is None:
        pytest.skip("there is no Postgres server; apt-get install postgresql brings one")
    programs = Path(found).parent
    user = "postgres" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, run = (
        folder / "data",
        partial(subprocess.run, check=True, user=user, cwd=folder, capture_output=True),
    )
    run([programs / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "-E", "UTF8", "--no-sync"])
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], user=user, cwd=folder, stdout=log, stderr=log
        )
    try:
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "60"]
        while subprocess.run(ready, capture_output=True).returncode != 0:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        run([programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"])
        yield f"prefect@127.0.0.1:{port}/prefect"
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown: it waits for nobody
        server.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_a_server_on_postgres_has_the_runs_of_a_study(postgres: str, tmp_path: Path) -> None:
    extra = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{postgres}"}
    up = ladder("up", home=tmp_path, extra=extra)
    try:
        assert up.returncode == 0, up.stderr
        done = ladder("run", "nanodesmo", "--only", "prepare", home=tmp_path, own_server=True)
        assert done.returncode == 0, done.stderr
    finally:
        ladder("down", home=tmp_path, extra=extra)
    query = "SELECT state_type FROM flow_run; SELECT count(*) FROM deployment"
    psql = ["psql", "-At", f"postgresql://{postgres}", "-c", query]
    said = subprocess.run(psql, capture_output=True, text=True, check=True).stdout.split()
    assert said[:-1] == ["COMPLETED"]
    assert int(said[-1]) > 10
    assert not (tmp_path / "prefect" / "prefect.db").exists()
