"""`ladder verify`: one line a check, of one study or of every study that has run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from deployments.terminal import say
from deployments.visible import tell
from lab import nano_verify
from lab.checks import Check, studies_run, study_checks
from lab.errors import unknown
from lab.store import Store

OF_STUDY: Mapping[str, Callable[[Store, Path], list[Check]]] = {"nanodesmo": nano_verify.verify}
"""Checks that only one study has."""
TRACED: Mapping[str, Callable[[Store], list[str]]] = {"nanodesmo": nano_verify.trace}
"""Where the findings of a study come from, line by line."""


def verify(home: Path, study: str | None, *, as_json: bool) -> int:
    """Print every check, and for people where each finding comes from; 1 if any failed or nothing has run.

    Raises
    ------
    UsageError
        A study that there is not.
    """
    store = Store(home)
    known = studies_run(store)
    name = None if study is None else study.replace("-", "_")
    if name is not None and name not in known:
        from flows.registry import studies  # takes seconds

        if name not in studies():
            raise unknown("study", name, {*studies(), *known})
    found: dict[str, list[Check]] = {}
    for one in known if name is None else [name]:
        found[one] = list(study_checks(store, home, one))
        if one in OF_STUDY:
            found[one] += OF_STUDY[one](store, home)
    if as_json:
        print(
            json.dumps({one: [asdict(check) for check in checks] for one, checks in found.items()}, indent=1)
        )
    else:
        for one, checks in found.items():
            for check in checks:
                say(f"{'ok' if check.ok else 'FAILED':7} {one} {check.name}: {check.said}", " " * 8)
            told = TRACED[one](store) if one in TRACED else []
            if told:
                tell(f"\nFindings of {one}, each with its phase, figure and query (`ladder sql`):")
                tell("\n".join(told) + "\n")
        if not found:
            tell("nothing has run in this home yet")
    return 0 if found and all(check.ok for checks in found.values() for check in checks) else 1
