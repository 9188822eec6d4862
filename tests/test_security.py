"""What docs/security.md lists and a machine can look at: the source, names that become paths, addresses."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from deployments import cli, night_cli, temporary_server
from deployments.service import HOST
from flows.registry import studies
from lab.errors import UsageError
from lab.plan import freeze, read_declared
from lab.products import Products
from lab.report_group import Group
from lab.settings import changed
from tests.test_imports import ROOT

FILES = sorted(
    path
    for package in ("lab", "models", "stats", "tasks", "flows", "deployments", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
FORBIDDEN_CALLS = frozenset(
    {
        "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp",
        "tempfile.mktemp", "torch.load", "torch.save", "pickle.load", "pickle.loads", "marshal.loads",
        "shelve.open", "joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
        "subprocess.getoutput", "subprocess.getstatusoutput",
        "asyncio.create_subprocess_shell", "ssl._create_unverified_context", "torch.hub.load",
    }
)  # fmt: skip
FORBIDDEN_ARGUMENTS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "verify": False}
FORBIDDEN_IMPORTS = frozenset({"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "telnetlib"})
WEIGHTS = re.compile(r"AutoModel\w*\.from_pretrained")
OF_A_REPOSITORY = re.compile(r"Auto\w+\.from_pretrained")
"""Without a word on it transformers asks on the terminal whether to run the repository's code."""
NOW = datetime(2026, 1, 1)
UP = (
    "../../escaped",
    "/tmp/escaped",
    "..",
    "a/../../../escaped",
    "~/escaped",
    "escaped\n../x",
    "..\\escaped",
)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_text_or_unpickles_or_starts_a_shell(path: Path) -> None:
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno}"
        assert name not in FORBIDDEN_CALLS, f"{where} calls {name}"
        for given in call.keywords:
            value = given.value.value if isinstance(given.value, ast.Constant) else None
            forbidden = FORBIDDEN_ARGUMENTS.get(given.arg or "", "nothing")
            assert value is None or value is not forbidden, f"{where} gives {given.arg}={value}"
        if WEIGHTS.fullmatch(name):
            assert "use_safetensors=True" in ast.unparse(call), f"{where} may read pickled weights"
        if OF_A_REPOSITORY.fullmatch(name):
            assert "trust_remote_code=False" in ast.unparse(call), f"{where} may run a repository's code"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert FORBIDDEN_IMPORTS.isdisjoint(name.split(".")[0] for name in names), f"{path.name}: {names}"


def test_the_scan_notices_what_it_forbids() -> None:
    for text in ("eval('1')", "subprocess.run('ls', shell=True)", "torch.load('x')"):
        [call] = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        found = ast.unparse(call.func) in FORBIDDEN_CALLS or "shell=True" in ast.unparse(call)
        assert found, text


def test_servers_listen_on_this_machine_alone() -> None:
    assert HOST == "127.0.0.1"
    binds = [
        ast.unparse(call.args[0]) for path in FILES for name, call in calls(path) if name.endswith(".bind")
    ]
    assert binds
    assert set(binds) <= {"('127.0.0.1', 0)", "(HOST, 0)", "(HOST, port)"}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "0.0.0.0" not in text
        assert "'::'" not in text


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home two folders deep, so that `../..` from it is still ours to look at."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "a" / "b" / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a" / "b" / "home"


def said(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[object, str]:
    """Exit code and stderr of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["ladder", *words])
    err, kept = io.StringIO(), dict(os.environ)
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as ended:
        return ended.code, err.getvalue()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return 0, err.getvalue()


@pytest.mark.parametrize("name", UP)
@pytest.mark.parametrize(
    "words",
    [
        *((command, "NAME") for command in ("plan", "freeze", "gates", "figures", "verify")),
        *((command, "entropy_seeds", "--profile", "NAME") for command in ("plan", "freeze")),
    ],
    ids=" ".join,
)
def test_a_study_or_profile_named_like_a_path_leads_nowhere(
    name: str, words: tuple[str, ...], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, err = said(monkeypatch, *(name if word == "NAME" else word for word in words))
    assert code in (1, 2)
    assert err.startswith("ladder: ")
    assert all(path.is_relative_to(home) or home.is_relative_to(path) for path in everything(tmp_path))


@pytest.mark.parametrize("name", UP)
def test_a_night_of_a_study_named_like_a_path_is_refused(
    name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_server, "start", lambda home: None)
    asked: list[object] = []
    monkeypatch.setattr(night_cli, "run_night", lambda home, **told: asked.append(told["names"]) or 2)
    assert said(monkeypatch, "night", "--study", name, "--budget", "../8h")[0] == 2
    assert asked == []
    assert all(path.is_relative_to(home) or home.is_relative_to(path) for path in everything(tmp_path))


@pytest.mark.parametrize("study", studies().values(), ids=lambda study: study.name)
def test_no_setting_named_like_a_path_writes_outside_of_the_home(
    study: object, home: Path, tmp_path: Path
) -> None:
    """The dry run finds every step's products and tapes, by their names, and writes nothing at all."""
    smoke = study.profiles["smoke"]  # type: ignore[attr-defined]
    home.mkdir(parents=True)
    before = everything(tmp_path)
    texts = [name for name, value in vars(smoke).items() if isinstance(value, str) and name != "profile"]
    assert texts
    for name in texts:
        for value in UP:
            try:
                settings = changed(smoke, {name: value})
                plan = study.plan(settings)  # type: ignore[attr-defined]
                assert study.steps(settings, home) is not None  # type: ignore[attr-defined]
            except (UsageError, ValueError, OSError):
                continue
            freeze(home, plan, now=NOW)
    strays = [path for path in everything(tmp_path) - before if not path.is_relative_to(home)]
    assert strays == []
    assert not list(home.rglob("escaped*"))


@pytest.mark.parametrize("name", UP)
def test_names_out_of_files_and_parameters_become_one_plain_name(name: str, home: Path) -> None:
    with pytest.raises(ValueError, match="product key"):
        Products(home, "generation").path(name)
    unset = dict.fromkeys(Group.__dataclass_fields__)
    group = Group(**{**unset, "study": "s", "model": name, "plan_hash": "p"})  # type: ignore[arg-type]
    assert re.fullmatch("[A-Za-z0-9-]+", group.name)
    assert read_declared(home, "entropy_seeds", "smoke") is None


def test_every_dependency_has_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [re.split(r"[^A-Za-z0-9_.-]", text)[0] for text in project["dependencies"]]
    plain = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    missing = [name for name in wanted if re.sub(r"[-_.]+", "-", name).lower() not in plain]
    assert missing == []
