"""A capsule: one head with all that is needed to judge it and to make it again.

config.json    settings, arm, recipe, seed, code and commit
data.json      digests of what it was trained and asked on, and every file that was read with its hash
metrics.json   what it reached on dev and test, over all items and by tier, and what baselines reach
verdicts.json  every blocker for this head alone, with intervals over lemmas
head/          weights (safetensors) and their manifest
manifest.json  SHA-256 of every file above
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.errors import UsageError
from lab.machine import git_state
from lab.records import MetricRow, Record
from models.sense_leakage import manifest, manifest_text
from models.sense_sources import SenseSource, source_files
from stats.rows import TestRow
from tasks.sense_training import HeadJob, study_code

MANIFEST = "manifest.json"


def refuse_place(out: Path) -> None:
    """Nothing, if a capsule can be written there.

    Raises
    ------
    UsageError
        When something else is there, which is never overwritten.
    """
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise UsageError(f"{out} is there and is no capsule; name a folder that is new, empty or a capsule")


def write_capsule(
    out: Path,
    *,
    home: Path,
    job: HeadJob,
    settings: Mapping[str, object],
    metrics: Mapping[str, Sequence[Record]],
    verdicts: Sequence[TestRow],
) -> Path:
    """Write the capsule whole or not at all, in place of an earlier one.

    Parameters
    ----------
    metrics
        `dev`, `test` and `baseline NAME` -> rows, of which the numbers are kept.

    Raises
    ------
    UsageError
        When something else is there.
    OSError
        The disk is full or the folder cannot be written; what was there stands.
    """
    refuse_place(out)
    commit, dirty = git_state()
    config = {
        "settings": dict(settings),
        "arm": asdict(job.arm),
        "seed": job.seed,
        "recipe": dict(job.recipe),
        "head": job.key,
        "code": study_code(),
        "git_commit": commit,
        "git_dirty": dirty,
    }
    data = {"train": job.train_digest, "dev": job.dev_digest, "files": _files(job.source)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        fresh, old = Path(scratch, "fresh"), Path(scratch, "old")
        fresh.mkdir()
        _write(fresh / "config.json", config)
        _write(fresh / "data.json", data)
        _write(fresh / "metrics.json", {name: _numbers(rows) for name, rows in metrics.items()})
        _write(fresh / "verdicts.json", [_said(row) for row in verdicts])
        shutil.copytree(job.place(home), fresh / "head")
        files = [path for path in sorted(fresh.rglob("*")) if path.is_file()]
        (fresh / MANIFEST).write_text(manifest_text(manifest(files, root=fresh)), encoding="utf-8")
        if out.exists():
            os.replace(out, old)
        os.replace(fresh, out)
    return out


def _files(source: SenseSource) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in manifest(source_files(source))]


def _numbers(rows: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Unit -> name -> number."""
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if isinstance(row, MetricRow):
            found.setdefault(row.unit, {})[row.name] = row.value
    return found


def _said(row: TestRow) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if value is not None}


def _write(path: Path, body: object) -> None:
    text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False, default=list)
    path.write_text(text + "\n", encoding="utf-8")
