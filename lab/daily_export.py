"""Every table as Parquet under `<home>/export/<date>/`, a day there whole or not at all; a week is kept.

A day is written beside its place and renamed. What a kill left behind is put right by the next export: names
that begin with a dot are never a day.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import date
from pathlib import Path

from lab import lock
from lab.errors import UsageError
from lab.outbox import sync_directory
from lab.store import Store

FOLDER = "export"
KEPT = 7
"""Days."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def export_day(store: Store, day: date, *, keep: int = KEPT) -> Path:
    """Write every table of the drained store as the export of a day; one of the same day is replaced.

    Parameters
    ----------
    store
        The store; its home gets the export.
    day
        Names the folder.
    keep
        Days that stay, the latest ones.

    Returns
    -------
    Path
        The day's folder.

    Raises
    ------
    StoreLockedError
        The database stayed held by another program.
    UsageError
        Another export is being written, or `keep` is no number of days.
    OSError
        The disk is full or the folder cannot be written; an older export of the day stands.
    """
    if keep < 1:
        raise UsageError(f"keep = {keep} days; allowed: 1 and more")
    folder = store.home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    place, new = folder / f"{day}", folder / f".{day}.new"
    try:
        with lock.held(folder / ".lock"):
            _put_right(folder)
            try:
                for path in store.export_parquet(new):
                    _sync(path)
                sync_directory(new)
                _swap(new, place)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            _drop_all_but(folder, keep)
            sync_directory(folder)
    except lock.HeldError as held:
        raise UsageError(f"{folder} is being written by {held.holder}; try again when it is done") from None
    return place


def days(home: Path) -> list[Path]:
    """Folders of the exported days, the latest first."""
    folder = home / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if _DAY.fullmatch(path.name)), reverse=True)


def _swap(new: Path, place: Path) -> None:
    """Put the new folder into its place; the old one goes after that, and comes back if the new one fails."""
    old = place.with_name(f".{place.name}.old")
    if place.exists():
        os.rename(place, old)
    try:
        os.rename(new, place)
    except BaseException:
        if old.exists():
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_right(folder: Path) -> None:
    """Finish or take back what a killed export had begun."""
    for old in folder.glob(".*.old"):
        place = folder / old.name[1 : -len(".old")]
        if place.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, place)
    for half in (*folder.glob(".*.new"), *folder.glob(".*.gone")):
        shutil.rmtree(half)


def _drop_all_but(folder: Path, keep: int) -> None:
    for path in days(folder.parent)[keep:]:
        gone = path.with_name(f".{path.name}.gone")
        os.rename(path, gone)  # a reader sees a day whole or not at all
        shutil.rmtree(gone)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
