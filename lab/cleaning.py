"""What can be made again and so may go: a study's products and figures, code copies and logs of old nights.

Rows, plans and tapes are results and stay. A product is a study's own if rows of no other study name it; one
that no row names, as a kill leaves it, goes with its kind if only one study has products of that kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.machine import is_alive
from lab.report_group import read_groups
from lab.store import Store

KEPT_NIGHTS = 3
"""The newest nights, whose copy of the code and logs stay to be looked at."""
NO_PRODUCTS = ("results", "texts")
"""Folders of `cache`: Prefect's records, of which one without its product does not count, and downloads."""
_NAMED = r"""
WITH mine AS (
    SELECT study, step_id, config FROM step
    UNION SELECT plan.study, step_id, config FROM step JOIN plan_step USING (step_id)
    JOIN plan USING (plan_hash)
), named AS (
    SELECT study, unnest(regexp_extract_all(step_id || ' ' || config, '[0-9a-f]{16,}')) AS key FROM mine
    UNION SELECT mine.study, sample_id FROM generation JOIN mine USING (step_id)
    UNION SELECT study, unnest(regexp_extract_all(path, '[0-9a-f]{16,}'))
    FROM artifact JOIN mine USING (step_id)
)
SELECT key, list(DISTINCT study) AS studies FROM named GROUP BY key
"""
_OPEN = """
SELECT night_id FROM queue JOIN night USING (night_id)
QUALIFY row_number() OVER (PARTITION BY item ORDER BY night.started_at DESC) = 1 AND queue.state = 'running'
"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file or folder that may go."""

    path: Path
    kind: str
    """What it is: `cache/generation`, `models/nano_run`, `figures`, `nights/source`, `logs`."""
    size: int
    """Bytes of all its files."""


def of_study(store: Store, home: Path, study: str) -> tuple[list[Found], list[Found]]:
    """What the study made and nobody else uses; and what it uses too, which stays.

    Parameters
    ----------
    study
        Name, as in the table `study`.
    """
    owners = {row["key"]: set(row["studies"]) for row in store.read(_NAMED).iter_rows(named=True)}
    own: list[Found] = []
    shared: list[Found] = []
    for kind, products in _by_kind(home):
        named = {one for key in products for one in owners.get(key, ())}
        for key, path in sorted(products.items()):
            users = owners.get(key) or named
            if study in users:
                (own if users == {study} else shared).append(_found(path, kind))
    names = {study, *(group.name for group in read_groups(store) if group.study == study)}
    own += [_found(home / "figures" / name, "figures") for name in sorted(names) if _is_there(home, name)]
    return own, shared


def of_old_nights(store: Store, home: Path) -> list[Found]:
    """Copies of the code that no night needs, and logs of runs from before the kept nights.

    Needed are the newest, and those of a night that runs or has a run at work.
    """
    rows = store.read(
        "SELECT night_id, state, process, started_at FROM night ORDER BY started_at DESC"
    ).to_dicts()
    needed = {row["night_id"] for row in rows[:KEPT_NIGHTS]}
    needed |= {row["night_id"] for row in rows if row["state"] == "running" and is_alive(row["process"])}
    needed |= set(store.read(_OPEN)["night_id"].to_list())
    known = {row["night_id"] for row in rows}
    first = min((row["started_at"] for row in rows if row["night_id"] in needed), default=datetime.min)
    sources = [
        _found(folder, "nights/source")
        for folder in sorted((home / "nights").glob("*/source"))
        if folder.parent.name in known and folder.parent.name not in needed
    ]
    logs = sorted((home / "logs").glob("night-*.log"))
    return [*sources, *(_found(log, "logs") for log in logs if _written(log) < first)]


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)


def delete(found: Iterable[Found]) -> None:
    """Delete files and folders; of a link the link alone. What is gone already is no error."""
    for one in found:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)


def _by_kind(home: Path) -> Iterator[tuple[str, Mapping[str, Path]]]:
    """Kind -> key -> where its product lies."""
    for folder in sorted(path for path in (home / "cache").glob("*") if path.is_dir()):
        if folder.name not in NO_PRODUCTS:
            yield f"cache/{folder.name}", {path.stem: path for path in folder.glob("*/*.json")}
    kinds: dict[str, dict[str, Path]] = {}
    for path in (home / "models").glob("*-*"):
        name, _, key = path.name.rpartition("-")
        kinds.setdefault(f"models/{name}", {})[key] = path
    yield from sorted(kinds.items())


def _is_there(home: Path, name: str) -> bool:
    return (home / "figures" / name).is_dir()


def _found(path: Path, kind: str) -> Found:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return Found(path=path, kind=kind, size=sum(file.stat().st_size for file in files))
