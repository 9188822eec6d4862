"""What this machine can run now, and the one line that mends each thing it cannot.

Nothing heavy is imported: torch is looked at by its files, so the answer comes in seconds and also on a
machine where torch does not load.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from deployments import environment
from deployments.status import count_rejected, store_problem
from lab import runs
from lab.store import Store

State = Literal["ok", "warn", "fail"]
LAPTOP_MODELS = ("qwen3:0.6b", "qwen3:1.7b", "llama3.2:3b", "gemma3:4b", "qwen3:4b", "qwen3:8b")
"""Of the profiles that use an Ollama server; a test compares them with the studies."""
GATED = ("mistralai/Mistral-7B-v0.1",)
LOW_DISK_GIB = 2.0
LOW_MEMORY_GIB = 2.0
DISTRIBUTION = "overnight-ladder"
OLLAMA_TIMEOUT_SECONDS = 5.0
_INSTALL = f"{Path(sys.executable).name} -m pip install -c constraints.txt -e ."
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    """ok; warn when something works less well or is missing for some profiles; fail when nothing will run."""
    found: str
    fix: str | None = None
    """What to do, in one line; None when all is well."""


def checks(home: Path, *, host: str | None = None, models: tuple[str, ...] = LAPTOP_MODELS) -> list[Check]:
    """Look at everything a study needs.

    Parameters
    ----------
    home
        The home.
    host
        Address of the Ollama server; None reads OLLAMA_HOST, then takes 127.0.0.1:11434.
    models
        Ollama models that profiles use.
    """
    home = Path(home).expanduser().absolute()
    found = [
        check_python(),
        *check_packages(),
        check_home(home),
        check_disk(home),
        check_memory(),
        check_device(),
        check_store(home),
        check_outbox(home),
        check_work(home),
        check_service(home),
        *check_ollama(host, models),
        check_hub_token(),
        check_chromium(),
    ]
    return [*found, can_run(found)]


def can_run(found: Sequence[Check]) -> Check:
    """Which profiles run here now, by what was found."""
    failed = [check.name for check in found if check.state == "fail"]
    if failed:
        said = f"nothing before these are mended: {', '.join(failed)}"
        return Check(name="profiles", state="fail", found=said, fix="the fixes above")
    lacking = [check.name for check in found if check.name.startswith("ollama") and check.state != "ok"]
    laptop = f"laptop does not, without {', '.join(lacking)}" if lacking else "laptop does"
    has_token = all(check.state == "ok" for check in found if check.name == "hub token")
    full = "full downloads" + ("" if has_token else ", and that of mechanism needs a token")
    return Check(name="profiles", state="ok", found=f"smoke and fast run here; {laptop}; {full}")


def check_python() -> Check:
    """The interpreter against the range that the packages were tested with."""
    found = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Check(name="python", state="ok", found=found)
    return Check(name="python", state="fail", found=found, fix="make the .venv with Python 3.11 or 3.12")


def check_packages(declared: Mapping[str, str] | None = None) -> list[Check]:
    """Each declared package's version against its range; one line when all fit.

    Parameters
    ----------
    declared
        Package name -> specifier; None reads what this project declares.
    """
    wanted = _declared() if declared is None else declared
    if not wanted:
        found = "this project is not installed, so its ranges are not known"
        return [Check(name="packages", state="warn", found=found, fix=_INSTALL)]
    wrong: list[Check] = []
    for name, specifier in wanted.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(Check(name=name, state="fail", found="not installed", fix=_INSTALL))
            continue
        if not Requirement(f"{name}{specifier}").specifier.contains(found, prereleases=True):
            wrong.append(Check(name=name, state="fail", found=f"{found}, needs {specifier}", fix=_INSTALL))
    if wrong:
        return wrong
    prefect = metadata.version("prefect") if "prefect" in wanted else "?"
    return [Check(name="packages", state="ok", found=f"{len(wanted)} in range, prefect {prefect}")]


def check_home(home: Path) -> Check:
    """Whether the home can be written."""
    if home.is_dir() and os.access(home, os.W_OK | os.X_OK):
        return Check(name="home", state="ok", found=str(home))
    why = "cannot be written" if home.exists() else "does not exist"
    return Check(name="home", state="fail", found=f"{home} {why}", fix="set LADDER_HOME to a folder of yours")


def check_disk(home: Path, low_gib: float = LOW_DISK_GIB) -> Check:
    """Free space where the home lies."""
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free / _GIB
    if free >= low_gib:
        return Check(name="disk", state="ok", found=f"{free:.1f} GiB free")
    fix = "free space, or set LADDER_HOME to another disk"
    return Check(name="disk", state="warn", found=f"{free:.1f} GiB free, {low_gib:g} wanted", fix=fix)


def check_memory(low_gib: float = LOW_MEMORY_GIB) -> Check:
    """Free memory and usable cores."""
    free = psutil.virtual_memory().available / _GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{free:.1f} GiB free, {cores} cores"
    if free >= low_gib:
        return Check(name="memory", state="ok", found=found)
    return Check(
        name="memory", state="warn", found=f"{found}; {low_gib:g} GiB wanted", fix="close other programs"
    )


def check_device() -> Check:
    """Which device torch would use, told from its files and the machine's."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return Check(name="device", state="fail", found="torch is not installed", fix=_INSTALL)
    version = metadata.version("torch")
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    built = re.search(r"^cuda\b.*= '([\d.]+)'", text, re.MULTILINE)
    card = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if card and built is None:
        fix = "install a CUDA build of torch; until then models run on the CPU"
        return Check(name="device", state="warn", found=f"an NVIDIA card, torch {version} for CPU", fix=fix)
    if card and built is not None:
        return Check(name="device", state="ok", found=f"CUDA {built[1]}, torch {version}")
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return Check(name="device", state="ok", found=f"{'Apple GPU' if apple else 'CPU'}, torch {version}")


def check_store(home: Path) -> Check:
    """Whether the database opens, or who holds it."""
    store = Store(home)
    problem = store_problem(store)
    if problem is None:
        found = str(store.path) if store.path.exists() else "none yet; the first run makes it"
        return Check(name="store", state="ok", found=found)
    held = "held by" in problem
    fix = (
        "close the program that holds it; runs go on, their rows wait in the outbox"
        if held
        else f"move {store.path.name}* away, its log too, and copy lab-snapshot.duckdb in its place"
    )
    return Check(name="store", state="warn" if held else "fail", found=problem, fix=fix)


def check_outbox(home: Path) -> Check:
    """Batches that wait, and batches that were set aside."""
    store = Store(home)
    waiting, rejected = len(store.outbox.waiting()), count_rejected(store)
    if rejected:
        fix = f"read the .txt beside each file in {store.outbox.rejected}"
        return Check(name="outbox", state="warn", found=f"{rejected} rejected, {waiting} waiting", fix=fix)
    if waiting:
        return Check(name="outbox", state="warn", found=f"{waiting} batches wait", fix="ladder drain")
    return Check(name="outbox", state="ok", found="empty")


def check_work(home: Path) -> Check:
    """What is at work in the home, and what was killed there; nothing is known while the store is held."""
    store = Store(home)
    if not store.path.exists() or store_problem(store) is not None:
        return Check(name="at work", state="ok", found="nothing that is known of")
    found = runs.at_work(store)
    killed = runs.killed(store)
    if killed:
        fix = "run the same command again: it goes on where it stopped"
        return Check(name="at work", state="warn", found=f"killed: {'; '.join(killed)}", fix=fix)
    return Check(name="at work", state="ok", found="; ".join(found) or "nothing")


def check_service(home: Path) -> Check:
    """What `ladder up` started; nothing running is well, since `ladder run` needs none."""
    service = environment.read_service(home)
    if service is None:
        return Check(name="service", state="ok", found="down; `ladder up` starts server and worker")
    worker = service.worker is not None and service.worker.alive()
    if environment.running_service(home) is not None and worker:
        return Check(name="service", state="ok", found=f"up at {service.url.removesuffix('/api')}")
    what = "its worker" if worker is False and service.server.alive() else "its server"
    return Check(name="service", state="warn", found=f"was up, but {what} is gone", fix="ladder up")


def check_ollama(host: str | None, models: tuple[str, ...]) -> list[Check]:
    """Whether an Ollama server answers and has the models; only profiles that use one need it."""
    from models.backends import BackendError, ModelMissing, ServerUnreachable
    from models.opening import ADDRESS, unreadable

    problem = unreadable(host)
    if problem is not None:
        return [Check(name="ollama", state="warn", found=problem, fix=f"set OLLAMA_HOST: {ADDRESS}")]
    from models.ollama_backend import OllamaBackend

    found: list[Check] = []
    for model in models:
        name = f"ollama {model}"
        backend = OllamaBackend(
            model, host=host, timeout_seconds=OLLAMA_TIMEOUT_SECONDS, retry_delays_seconds=()
        )
        try:
            identity = backend.identity()
        except ServerUnreachable as error:
            fix = "start it with `ollama serve`, or set OLLAMA_HOST; embedded models need none"
            return [Check(name="ollama", state="warn", found=_one_line(error).split(";")[0], fix=fix)]
        except ModelMissing:
            found.append(
                Check(name=name, state="warn", found="not on the server", fix=f"ollama pull {model}")
            )
        except (BackendError, ValueError) as error:
            fix = "look at the server's log, or set OLLAMA_HOST to another server"
            found.append(Check(name=name, state="warn", found=_one_line(error), fix=fix))
        else:
            digest, version = identity.digest[:12], identity.server_version
            found.append(Check(name=name, state="ok", found=f"digest {digest}, server {version}"))
    return found


def check_hub_token() -> Check:
    """Whether there is a token for models whose terms must be accepted; the hub itself is not asked."""
    from huggingface_hub import get_token

    if get_token():
        return Check(name="hub token", state="ok", found="there; whether it opens a model the hub says")
    found = f"none; gated models need one: {', '.join(GATED)} (mechanism --profile full)"
    fix = "accept the model's terms on huggingface.co, then `hf auth login` or set HF_TOKEN"
    return Check(name="hub token", state="warn", found=found, fix=fix)


def check_chromium() -> Check:
    """A browser for looking at the report; nothing needs it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Check(name="chromium", state="ok", found=path or "absent, and not needed")


def _declared() -> dict[str, str]:
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return _declared_by_checkout()
    found = [Requirement(line) for line in lines]
    return {each.name: str(each.specifier) for each in found if each.marker is None}


def _declared_by_checkout() -> dict[str, str]:
    import tomllib

    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not path.exists():
        return {}
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    return {Requirement(line).name: str(Requirement(line).specifier) for line in listed}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
