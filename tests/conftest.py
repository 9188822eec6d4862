"""What several test files share, within a process and between those of `pytest -n`; and their order.

Without it a session of two processes ran the seed study twice, and its longest files began last.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import settings

from models.words import BUILDERS, LIVE
from tests.ladder_command import RUN, ladder

LONGEST_FIRST = (
    "test_entropy_seeds_flow",
    "test_int4_disparity_flow",
    "test_entropy_seeds_faults",
    "test_entropy_ladder",
    "test_direct_injection_flow",
    "test_entropy_control_flow",
    "test_entropy_seeds_ollama",
    "test_mechanism_flow",
    "test_sense_scaling_flow",
    "test_nanodesmo_flow",
    "test_overnight",
    "test_service_runs",
    "test_embedded",
    "test_import",
    "test_entropy_control_ollama",
    "test_service",
    "test_import_perplexities",
)
"""Files over 30 s. The first two share nothing, so that none waits for the other's home."""
HOME = "a home, naïve"
MEMORY = Path("/dev/shm")
MEMORY_NEEDED_BYTES = 6 * 2**30
"""A whole session leaves about 0.7 GiB at a time; the processes need the rest."""


settings.register_profile("lab", deadline=None)  # a busy machine may leave any example waiting
settings.load_profile("lab")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files in memory where there is room, and files begun in the order of `LONGEST_FIRST`.

    DuckDB, SQLite and every product wait for the disk at each commit.
    """
    os.environ.pop("LADDER_OUTBOX", None)  # nobody's real outbox is written to
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist would begin with the files of many tests
        config.option.loadscopereorder = False
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _is_roomy(MEMORY):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def _is_roomy(place: Path) -> bool:
    if not os.access(place, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(place)
    room = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return room > MEMORY_NEEDED_BYTES and not found.f_flag & os.ST_NOEXEC


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: the last file to begin decides when the session ends."""
    place = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests recorded, whichever process made them."""
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", ()):
            if name == "table" and report.when == "call":
                terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session see."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """`place`, made by the first process of the session that asks; the others wait for it."""
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        done = place.with_name(f"{place.name}.done")
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            make(place)
            done.touch()
    return place


def _finish(home: Path) -> None:
    done = ladder(*RUN, home=home)
    assert done.returncode == 0, done.stderr
    assert "Verdicts at" in done.stdout
    assert re.search(r"train pydoc-0.1m, steps: (\d+) of \1, \1 made now", done.stderr)


@pytest.fixture(scope="session")
def finished(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end, its model trained on the way; a copy a process."""
    home = made_once(shared / HOME, _finish)
    return Path(shutil.copytree(home, tmp_path_factory.mktemp("finished") / home.name))


@pytest.fixture(scope="session")
def trained(shared: Path) -> Path:
    """A folder of embedded rungs by name; the smallest is that of the finished home, if there is one yet."""

    def copy(rungs: Path) -> None:
        rungs.mkdir()
        if (shared / f"{HOME}.done").exists():
            [found] = (shared / HOME / "models").glob("pydoc-0.1m-*")
            shutil.copytree(found, rungs / "pydoc-0.1m")

    return made_once(shared / "rungs", copy)


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(finished, tmp_path / "home"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker; for small tensors a second thread costs more than it gives."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server for all tests that call a flow in this process, with results of its own."""
    directory = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(directory))
        patch.setenv("PREFECT_LOCAL_STORAGE_PATH", str(directory / "results"))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture
def repeatable_sources(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's entropy as one fixed stream a test, so that no verdict hangs on chance."""
    bits = np.random.Philox(zlib.crc32(request.node.name.encode()))
    for kind in LIVE:
        monkeypatch.setitem(BUILDERS, kind, lambda stream, dose: bits.random_raw)
