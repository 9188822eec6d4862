"""Imports run one way and each library has one door: read from the source, every import statement."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "lab": {"lab"},
    "models": {"models"},
    "stats": {"stats"},
    "tasks": {"tasks", "models", "stats", "lab"},
    "flows": {"flows", "tasks", "lab", "models"},
    "deployments": {"deployments", "flows", "lab", "models"},
}
"""A flow takes torch-free types of `models`; a command its errors and, to look for a server, its client."""
DOORS = {
    "prefect": {"tasks", "flows", "deployments"},
    "duckdb": {"lab"},
    "torch": {"models"},
    "transformers": {"models"},
    "tokenizers": {"models"},
    "ollama": {"models"},
    "scipy": {"stats"},
    "statsmodels": {"stats"},
    "altair": {"lab"},
    "vl_convert": {"lab"},
    "fsspec": {"lab"},
    "prefect_ray": {"tasks"},
    "prefect_dask": {"tasks"},
    "pickle": set(),
    "joblib": set(),
}
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level name of every import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if node.level == 0 else path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_package_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    names = set(imported(path))
    assert names & MAY_IMPORT.keys() <= MAY_IMPORT[package]
    assert {name for name in names & DOORS.keys() if package not in DOORS[name]} == set()


def test_no_file_has_the_name_of_a_package() -> None:
    assert [path for path in FILES if path.stem in MAY_IMPORT] == []


def test_torch_stays_out_of_what_a_cached_run_imports() -> None:
    heavy = ("torch", "transformers", "tokenizers")
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, deployments.cli; from flows.registry import studies; print(len(studies())); "
            f"print(*[name for name in {heavy!r} if name in sys.modules])",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert int(said[0]) >= 4
    assert said[1] == ""


def test_scipys_distributions_wait_until_an_analysis_needs_them() -> None:
    code = (
        "import sys, deployments.cli; from flows.registry import find_study; find_study('mechanism'); "
        "find_study('nanodesmo'); print({'scipy.stats', 'scipy.optimize'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"
