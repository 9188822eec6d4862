"""A run that does everything again: what was made before it began goes when the run asks for it.

Only what the run asks for is made again, so other profiles and other studies keep theirs. The moment it began
is kept in the home until it is done: interrupted, the same command goes on where it stopped. Tapes stay (a
seed that was drawn is data), and so do models that several studies use.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lab.durable import write_durably
from lab.errors import UsageError

VARIABLE = "LADDER_FRESH_SINCE"
"""When the run began, UTC without a zone; in the environment, so that its processes know."""
_seen: set[Path] = set()
_lock = threading.Lock()


def mark(home: Path, name: str) -> Path:
    """Where it is kept that a run of this name is not done."""
    return home / "fresh" / name


@contextmanager
def begun(home: Path, name: str) -> Iterator[datetime | None]:
    """Do everything again within the block; gives when an earlier one of the name began that was not done.

    The mark goes with the block's end, and stays where the block raises.

    Raises
    ------
    UsageError
        The mark cannot be read.
    """
    place = mark(home, name)
    try:
        earlier = datetime.fromisoformat(place.read_text(encoding="ascii"))
    except FileNotFoundError:
        earlier = None
    except ValueError as error:
        raise UsageError(f"{place} is damaged; delete it to begin anew") from error
    since = earlier or datetime.now(UTC).replace(tzinfo=None)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_durably(place, since.isoformat().encode())
    os.environ[VARIABLE] = since.isoformat()
    try:
        yield earlier
    finally:
        del os.environ[VARIABLE]
    place.unlink()


def since() -> datetime | None:
    """When the run began that does everything again; None in any other."""
    text = os.environ.get(VARIABLE)
    return datetime.fromisoformat(text) if text else None


def is_stale(path: Path, made: datetime) -> bool:
    """Whether a product is of before the run that does everything again.

    Asked once a product and process: a clock that is set back makes nothing stale that was just made.
    """
    began = since()
    if began is None:
        return False
    with _lock:
        if path in _seen:
            return False
        _seen.add(path)
    return made < began


def drop_stale(directory: Path) -> Path:
    """The directory, removed first where it is of before the run that does everything again."""
    if since() is not None and directory.is_dir():
        made = datetime.fromtimestamp(directory.stat().st_mtime, UTC).replace(tzinfo=None)
        if is_stale(directory, made):
            shutil.rmtree(directory)
    return directory
