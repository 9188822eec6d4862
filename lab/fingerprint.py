"""One deterministic text for a config, and its short hash; the same for project code.

`canonical` writes JSON with sorted keys and sorted sets and refuses whatever has no stable text: a
permissive fallback would give another key in the next process. `code` hashes the syntax of project modules
and of every project module they import, so editing a formula changes the keys of what uses it and of nothing
else; comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lab", "models", "stats", "tasks", "flows", "deployments")


def canonical(value: object) -> str:
    """The one text of a config: compact JSON, keys and sets sorted.

    Raises
    ------
    TypeError
        For a value without a stable form (a function, an open file, an object printed by its address).
    ValueError
        For NaN or an infinity.

    >>> canonical({"b": 1, "a": (1, 2.0, None)})
    '{"a":[1,2.0,null],"b":1}'
    >>> canonical(frozenset({"y", "x"}))
    '["x","y"]'
    """
    return json.dumps(_plain(value, "config"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def fingerprint(value: object) -> str:
    """First 16 hex digits of the SHA-256 of `canonical(value)`.

    >>> fingerprint({"a": 1}) == fingerprint({"a": 1.0})
    False
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def _plain(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | str):
        return str(value.value) if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; a fingerprint takes finite numbers only")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        bad = [k for k in value if not isinstance(k, str)]
        if bad:
            raise TypeError(f"{where} has the key {bad[0]!r}; a fingerprint takes text keys only")
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(v, where) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    hint = "give its text or its content's hash" if isinstance(value, PurePath) else "give plain data instead"
    raise TypeError(f"{where} is a {kind}, which has no stable text; {hint}")


def code(*modules: str, alone: tuple[str, ...] = ()) -> str:
    """Fingerprint of project modules and of every project module they import.

    Parameters
    ----------
    modules
        Dotted names inside the project, e.g. `"stats.mixed"`.
    alone
        Modules that count without what they import, such as a task that hands rows to a formula.

    Returns
    -------
    str
        16 hex digits. Comments, docstrings and layout do not change it; any other edit does.
    """
    found: dict[str, str] = {}
    queue = [*modules, *alone]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        path = _module_path(name)
        if path is None:
            raise ValueError(
                f"{name} is not a module of this project; allowed packages: {', '.join(PACKAGES)}"
            )
        digest, imports = _module_syntax(path, path.stat().st_mtime_ns)
        found[name] = digest
        queue.extend(imports if name not in alone else ())
    return hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(found.items())).encode()).hexdigest()[:16]


def _module_path(name: str) -> Path | None:
    if name.split(".")[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=512)
def _module_syntax(path: Path, _mtime: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax, and the modules of the project that it imports."""
    digest, imports = _kept_syntax(path)
    return digest, tuple(name for name in imports if _module_path(name) is not None)


def _kept_syntax(path: Path) -> tuple[str, list[str]]:
    """Digest and imports of a module, kept beside its bytecode: reading the syntax takes 25 ms a module."""
    text = path.read_bytes()
    kept = Path(importlib.util.cache_from_source(str(path))).with_suffix(".syntax.json")
    try:
        told = json.loads(kept.read_bytes())
        if told["check"] == fingerprint([hashlib.sha256(text).hexdigest(), told["digest"], told["imports"]]):
            return str(told["digest"]), list(told["imports"])
    except (OSError, ValueError, LookupError, TypeError):  # not there, or damaged: it is made again
        pass
    digest, imports = _syntax(path, text)
    check = fingerprint([hashlib.sha256(text).hexdigest(), digest, imports])
    with contextlib.suppress(OSError):  # an installation that cannot be written
        kept.parent.mkdir(exist_ok=True)
        new = kept.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"digest": digest, "imports": imports, "check": check}))
        new.replace(kept)
    return digest, imports


def _syntax(path: Path, text: bytes) -> tuple[str, list[str]]:
    tree = ast.parse(text, filename=str(path))
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            package = path.parent.name if node.level else ""
            base = (
                importlib.util.resolve_name("." * node.level + node.module, package)
                if node.level
                else node.module
            )
            imports.add(base)
            imports.update(f"{base}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            _drop_docstrings(node)
    ours = sorted(name for name in imports if name.split(".")[0] in PACKAGES)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), ours


def _drop_docstrings(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
    node.body = [
        statement
        for statement in node.body
        if not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]
