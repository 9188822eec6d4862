"""Every study: each module of this package that has a `STUDY`, found by looking, so none is forgotten."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path

import flows
from lab.errors import unknown
from lab.study import Study


@lru_cache(maxsize=1)
def studies() -> dict[str, Study]:
    """Name -> study, by name."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(flows.__path__) if module.name != "registry"
    )
    modules = [importlib.import_module(f"flows.{name}") for name in names]
    found = [module.STUDY for module in modules if hasattr(module, "STUDY")]
    return {study.name: study for study in found}


def find_study(name: str) -> Study:
    """The study of a name; hyphen and underscore are one.

    Raises
    ------
    UsageError
        When there is none.
    """
    plain = name.replace("-", "_")
    if plain.isidentifier() and (Path(flows.__path__[0]) / f"{plain}.py").is_file():
        found = getattr(importlib.import_module(f"flows.{plain}"), "STUDY", None)  # not every study is needed
        if isinstance(found, Study) and found.name == plain:
            return found
    if plain not in studies():
        raise unknown("study", name, studies())
    return studies()[plain]
