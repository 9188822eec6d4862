"""What the numbers were measured on: versions, hardware, commit, and which process is at work."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import psutil

from lab.fingerprint import ROOT, canonical, fingerprint
from lab.records import EnvironmentRow

_BOOT = Path("/proc/sys/kernel/random/boot_id")
PACKAGES = (
    "prefect",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "ollama",
    "duckdb",
    "polars",
    "numpy",
    "scipy",
    "statsmodels",
    "altair",
)


def environment(*, device: str) -> EnvironmentRow:
    """Versions and hardware; `device` is what the models ran on, such as `cpu` or an accelerator's name."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": device,
        "packages": canonical({name: _version(name) for name in PACKAGES}),
    }
    return EnvironmentRow(environment_id=fingerprint(facts), **facts)  # type: ignore[arg-type]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Of the processor, as the system names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


COMMIT = "commit.json"
"""In a copy of the packages: what they were copied from (`lab.snapshot_source`)."""


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that these packages are, or are a copy of, and whether it had changes.

    (None, None) outside of one.
    """
    copied = ROOT / COMMIT
    if copied.exists():
        told = json.loads(copied.read_text(encoding="utf-8"))
        return told["commit"], told["dirty"]
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git("status", "--porcelain"))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def this_process() -> str:
    """`host:pid:start`; the start is the kernel's count since the machine started, which no clock moves."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(process: str) -> bool:
    """Whether the process so named still runs; one of another host counts as alive.

    >>> is_alive(this_process()), is_alive(this_process()[:-1] + "x")
    (True, False)
    """
    host, pid, start = process.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return _started(int(pid)) == start
    except (psutil.NoSuchProcess, ValueError):
        return False


def _started(pid: int) -> str:
    """When a process started, and in which run of the machine; psutil.NoSuchProcess where there is none."""
    if not _BOOT.exists():  # no Linux
        return str(int(psutil.Process(pid).create_time()))
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return f"{int(fields[19])}-{_BOOT.read_text()[:8]}"
