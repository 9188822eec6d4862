"""What several test files share: a home in which the seed study has run, and one Prefect server."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.words import BUILDERS, LIVE
from tests.ladder_command import RUN, ladder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests recorded, whichever process made them."""
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", ()):
            if name == "table" and report.when == "call":
                terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end, its model trained on the way."""
    home = tmp_path_factory.mktemp("finished") / "a home, naïve"
    done = ladder(*RUN, home=home)
    assert done.returncode == 0, done.stderr
    assert "Verdicts at" in done.stdout
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(finished, tmp_path / "home"))


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
