"""Fuzz target over the command line: any words at all end in a known exit code, and never in a traceback.

Commands run in this process, so that thousands take minutes. What starts a server, a worker or a night stops
at the door: the fuzzed part is everything before it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import sys
from pathlib import Path
from random import Random

import pytest

from deployments import cli, night_cli, services_cli, temporary_server
from flows.registry import studies
from lab.records import MetricRow
from lab.store import Store
from tests.fuzz_mutation import STRANGE

CODES = (0, 1, 2, 3, 4)
COMMANDS = (
    "plan", "run", "night", "import", "gates", "freeze", "sql", "figures", "verify", "snapshot", "drain",
    "up", "down", "status", "env", "report", "clean", "doctor",
)  # fmt: skip
OPTIONS = (
    "--profile", "--set", "--only", "--out", "--strict", "--json", "--budget", "--study", "--only-left",
    "--climb", "--no-climb", "--why", "--format", "--port", "--yes", "--help", "--nosuch", "-h", "--", "-",
    "--profile=smoke", "--install-completion=", "--show-completion=",
)  # fmt: skip
VALUES = (
    "smoke", "fast", "full", "laptop", "samples=2", "samples=-1", "samples=", "model=../x", "alpha=nan",
    "=", "8h", "90m", "-1h", "0s", "1e9h", "svg", "png", "html", "csv", "json", "table", "parquet",
    "SELECT 1", "SELECT", "FROM metric", "select * from nosuch", "4201", "0", "99999", "-1", "B_seed42",
    "frozen_core", "../../x", "/", "nosuch.json", "", " ", "\u0000", "\ud800", "é", "a" * 3000, "%s", "{0}",
    "--", "x=1", "corpus=/nosuch",
)  # fmt: skip


class StoppedError(Exception):
    """The command was about to begin long work."""


def _stop(*_: object, **__: object) -> None:
    raise StoppedError


@functools.cache
def _home(folder: Path) -> Path:
    home = folder / "home"
    Store(home).record([MetricRow(step_id="s", unit="u", name="x", value=1.0, reason=None)])
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "bad.json").write_text("{")
    (folder / "good.json").write_text('{"en": {"baseline": 21.0, "quantised": 21.2}}')
    return home


def _words(rng: Random, folder: Path) -> list[str]:
    names = list(studies())
    words = [rng.choice(COMMANDS)] if rng.random() < 0.95 else []
    if words and rng.random() < 0.6:
        words.append(rng.choice([*names, *names, rng.choice(names).replace("_", "-"), "nosuch", "selec"]))
    if words == ["import"] or (words and words[0] == "import"):
        words = ["import", str(folder / rng.choice(("bad.json", "nosuch.json", ".")))]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        values = (*VALUES, str(folder / "out"), str(folder), str(rng.choice(STRANGE))[:200])
        words += rng.choice(
            ([rng.choice(OPTIONS)], [rng.choice(OPTIONS), rng.choice(values)], [rng.choice(values)])
        )
    if rng.random() < 0.1:
        rng.shuffle(words)
    return words


def command(rng: Random, folder: Path) -> str:
    """One command line in a home of its own; the word is its exit code."""
    home = _home(folder)
    words = _words(rng, folder)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADDER_HOME", str(home))
        patch.setattr(sys, "argv", ["ladder", *words])
        patch.setattr(temporary_server, "start", _stop)
        patch.setattr(night_cli, "run_night", _stop)
        patch.setattr(services_cli, "up", _stop)
        patch.chdir(folder / "a" / "b")
        kept = dict(os.environ)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        except StoppedError:
            return "would work"
        finally:
            os.environ.clear()
            os.environ.update(kept)
    assert code in CODES, f"exit code {code!r} of {words}"
    said = err.getvalue()
    assert "Traceback" not in said + out.getvalue(), f"a traceback of {words}"
    assert code != 2 or said or out.getvalue(), f"exit 2 without a word of {words}"
    for name in ("figures", "report.html", "out"):
        shutil.rmtree(home / name, ignore_errors=True)
    strays = {path.name for path in folder.iterdir()} - {"home", "a", "bad.json", "good.json", "out"}
    assert not strays or any(word.startswith("--out") for word in words), f"{words} wrote {strays}"
    for name in strays:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"exit {code}"
