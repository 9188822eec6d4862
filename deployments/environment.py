"""The environment that Prefect and the number libraries read when they are first imported.

Prefect takes its settings from the environment once, at import, and OpenBLAS its thread count when numpy
loads it. So this module imports neither, and `prepare` is the first thing that a command does. Prefect's
database, results and profile live under the home: a newer Prefect elsewhere on the machine would migrate a
shared database, which the older one then refuses to open.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MARK_VARIABLE = "LADDER_SERVICE"
HEALTH_TIMEOUT_SECONDS = 3.0
SAME_START_SECONDS = 0.05
"""Two readings of one process's start differ by less than this; the kernel counts in steps of 0.01 s."""
PROFILE = "ladder"

_ALWAYS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's default lets the page of any site speak to the API, which can have a worker run commands
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # the default is pickle
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60",  # of every run; `deployments.automations` counts on it
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",  # bars of transformers in the middle of our lines
}
_UNLESS_SET = {
    # threads fight over the many small matrices of the analyses; torch's are set where torch is used
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # the first start on a fresh home migrates the database: 18 to 59 s were seen, the default is 20
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # the terminal shows warnings, the run's page everything from INFO up, our own loggers included
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "lab,models,stats,tasks,flows",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
OWN_HOSTS = ("127.0.0.1", "localhost")
_OF_ANOTHER_HOME = ("PREFECT_PROFILE", "PREFECT_PROFILES_PATH")
"""They name a profile that the private home does not have."""
UNREACHABLE = (
    "the Prefect server at {url} does not answer; `ladder up` starts one, and without PREFECT_API_URL a "
    "command brings its own"
)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process by number and start, so that a number used again is not taken for it."""

    pid: int
    started: float
    """Seconds from the machine's start to the process's, so that setting the clock does not move it."""

    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            same = abs(identify(self.pid).started - self.started) < SAME_START_SECONDS
            return same and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, kw_only=True)
class Service:
    """The server and worker that `ladder up` started for a home."""

    url: str
    """Of the API, ending in `/api`."""
    mark: str
    """Value of `LADDER_SERVICE` in the environment of all that it started, flow runs included."""
    server: Process
    worker: Process | None


def identify(pid: int) -> Process:
    """The process that has this number now.

    Raises
    ------
    psutil.NoSuchProcess
        There is none.
    """
    # psutil adds the boot time as the clock now has it, so the difference is what the kernel counted
    return Process(pid=pid, started=psutil.Process(pid).create_time() - psutil.boot_time())


def prepare(home: Path) -> None:
    """Set the environment of this process and its children for one home, before Prefect is imported.

    A `PREFECT_API_URL` that is set stays as it is. Else it becomes that of the server `ladder up` started for
    this home, if that one answers. Else it stays unset, and Prefect starts a server for the one process.

    Parameters
    ----------
    home
        The home, which exists (`lab.home.resolve_home` makes it); nothing is made in it.
    """
    home = Path(home).expanduser().absolute()
    url = os.environ.get("PREFECT_API_URL")
    for name in _OF_ANOTHER_HOME:
        os.environ.pop(name, None)
    os.environ.update(private(home))
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    _keep_proxies_away()
    logging.getLogger("EventsWorker").addFilter(_is_no_exit_note)
    if url:
        return
    os.environ.pop("PREFECT_API_URL", None)
    service = running_service(home)
    if service is not None:
        os.environ["PREFECT_API_URL"] = service.url
    else:
        forget_profile(home)


def private(home: Path) -> dict[str, str]:
    """The variables that tie a process to a home; absolute, so that any working directory will do."""
    return {
        **_ALWAYS,
        "LADDER_HOME": str(home),
        "PREFECT_HOME": str(prefect_home(home)),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "cache" / "results"),
    }


def prefect_home(home: Path) -> Path:
    """Where Prefect keeps its database and profile."""
    return home / "prefect"


def service_path(home: Path) -> Path:
    """Where `ladder up` records what it started."""
    return prefect_home(home) / "service.json"


def read_service(home: Path) -> Service | None:
    """What `ladder up` recorded; None when there is no record, or none that can be read."""
    try:
        found: dict[str, Any] = json.loads(service_path(home).read_text(encoding="utf-8"))
        worker = found["worker"]
        return Service(
            url=str(found["url"]),
            mark=str(found["mark"]),
            server=Process(**found["server"]),
            worker=None if worker is None else Process(**worker),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_service(home: Path, service: Service | None) -> None:
    """Record what runs, or with None that nothing does; the profile follows, so plain `prefect` finds it."""
    if service is None:
        forget_profile(home)
        service_path(home).unlink(missing_ok=True)
        return
    prefect_home(home).mkdir(parents=True, exist_ok=True)
    _replace(service_path(home), json.dumps(asdict(service), indent=1))
    _replace(_profiles_path(home), _profile({"PREFECT_API_URL": service.url}))


def forget_profile(home: Path) -> None:
    """Take a server's address out of the home's profile; without it Prefect starts one when it needs one."""
    path = _profiles_path(home)
    with contextlib.suppress(OSError):  # a home that cannot be written keeps its profile
        if path.exists() and "PREFECT_API_URL" in path.read_text(encoding="utf-8"):
            _replace(path, _profile({}))


def running_service(home: Path) -> Service | None:
    """The recorded service, if its server process is alive and answers."""
    service = read_service(home)
    if service is None or not service.server.alive() or not answers(service.url):
        return None
    return service


def answers(url: str, *, timeout_seconds: float = HEALTH_TIMEOUT_SECONDS) -> bool:
    """Whether a Prefect API says that it is well."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
    try:
        with direct.open(f"{url}/health", timeout=timeout_seconds) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


def shell_exports(home: Path) -> str:
    """Lines for `eval "$(ladder env)"`, after which plain `prefect` speaks to this home's server.

    The server's address is not among them: the home's profile holds it while a server runs, so a shell that
    outlives the server does not keep a dead address.
    """
    variables = private(Path(home).expanduser().absolute())
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    programs = Path(sys.executable).parent
    if shutil.which("prefect") != str(programs / "prefect"):
        lines.append(f'export PATH={shlex.quote(str(programs))}:"$PATH"')
    return "\n".join(lines)


def _keep_proxies_away() -> None:
    """Have this machine's own servers reached directly where a proxy is set for everything else."""
    names = [f"{scheme}_proxy" for scheme in ("http", "https", "all")]
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in names):
        return
    for name in ("NO_PROXY", "no_proxy"):
        listed = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join([*listed, *(host for host in OWN_HOSTS if host not in listed)])


def _is_no_exit_note(record: logging.LogRecord) -> bool:
    """False for the note that a few events are still being sent at exit: they are sent within a second."""
    return not record.getMessage().startswith("Still processing items")


def _profiles_path(home: Path) -> Path:
    return prefect_home(home) / "profiles.toml"


def _profile(settings: dict[str, str]) -> str:
    lines = [f'active = "{PROFILE}"', "", f"[profiles.{PROFILE}]"]
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in settings.items()), ""])


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
