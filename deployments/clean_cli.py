"""`ladder clean`: what a study left that can be made again, with sizes; deleted only when asked to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.studies_cli import refuse_at_work
from flows.registry import find_study
from lab.cleaning import Found, delete, of_old_nights, of_study
from lab.night_book import only_night
from lab.store import Store


def clean(home: Path, name: str | None, *, yes: bool, as_json: bool) -> None:
    """Say what would be deleted of a study and of old nights, or delete it; without a study of nights alone.

    Raises
    ------
    UsageError
        Unknown study, or a run or night is at work in the home.
    """
    study = None if name is None else find_study(name).name
    with only_night(home):
        refuse_at_work(home, "ladder clean")
        store = Store(home)
        own, shared = ([], []) if study is None else of_study(store, home, study)
        found = [*own, *of_old_nights(store, home)]
        if yes:
            delete(found)
    told = _told(home, study, found, shared, deleted=yes)
    print(json.dumps(told, indent=1) if as_json else "\n".join(_lines(told)))


def _told(
    home: Path, study: str | None, found: Sequence[Found], shared: Sequence[Found], *, deleted: bool
) -> dict[str, Any]:
    kinds = sorted({one.kind for one in found})
    of_kind = {kind: [one for one in found if one.kind == kind] for kind in kinds}
    kept = [] if study is None else [f"{folder}/{study}" for folder in ("plans", "tapes")]
    return {
        "home": str(home),
        "study": study,
        "deleted": deleted,
        "bytes": sum(one.size for one in found),
        "found": [
            {"kind": kind, "count": len(of_kind[kind]), "bytes": sum(one.size for one in of_kind[kind])}
            for kind in kinds
        ],
        "kept": [path for path in kept if (home / path).exists()],
        "shared": {"count": len(shared), "bytes": sum(one.size for one in shared)},
    }


def _lines(told: dict[str, Any]) -> list[str]:
    whole = said_bytes(told["bytes"])
    found = [f"{told['study'] or 'old nights'} in {told['home']}"]
    found += [f"  {one['kind']:<24}{one['count']:>7}{said_bytes(one['bytes']):>10}" for one in told["found"]]
    if told["study"] is not None:
        found.append(f"  kept: its rows{''.join(f', {path}' for path in told['kept'])}")
        if told["shared"]["count"]:
            size = said_bytes(told["shared"]["bytes"])
            found.append(f"  kept: {told['shared']['count']} products that other studies use too, {size}")
    if not told["found"]:
        return [*found, "Nothing to delete."]
    if told["deleted"]:
        return [*found, f"Deleted: {whole}. What is needed again is made again by the next run."]
    name = "" if told["study"] is None else f" {told['study']}"
    return [*found, f"Nothing is deleted yet; `ladder clean{name} --yes` frees {whole}."]


def said_bytes(size: float) -> str:
    """A size as people say it.

    >>> said_bytes(900), said_bytes(3_400_000), said_bytes(5e9)
    ('900 B', '3.4 MB', '5.0 GB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
