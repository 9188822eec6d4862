"""Draws from their tapes, rows into the store. Never cached: a rebuilt database must fill again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from lab.records import Record, SeedDrawRow
from lab.store import Store
from models.entropy import Draw, Tape

Rows = Sequence[Record] | Callable[[], Sequence[Record]]
"""Rows, or what makes them: then again at each try."""


@task(name="record", task_run_name="record {what}", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=1)
def record(home: str, what: str, rows: Rows) -> int:
    """Make rows durable in the outbox, until a gate, a person or the run's end asks. Returns their number.

    To open the database for each batch cost a night a thirtieth of its time.
    """
    found = rows() if callable(rows) else rows
    Store(Path(home)).record(found, drain=False)
    return len(found)


@task(name="draw", task_run_name="draw {what}", cache_policy=NO_CACHE)
def draw(what: str, tapes: Mapping[str, Tape], purposes: Sequence[str]) -> dict[str, list[Draw]]:
    """Draws of some tapes, one a purpose, by the tapes' names; what is on a tape is its own cache."""
    return {name: tape.draws(purposes) for name, tape in tapes.items()}


def seed_rows(tape: Path, arm: str, stream: int, draws: Sequence[Draw]) -> list[SeedDrawRow]:
    """Draws of a tape as rows."""
    name = tape.as_posix()
    return [
        SeedDrawRow(
            tape=name,
            draw=draw.index,
            source=arm,
            stream=stream,
            purpose=draw.purpose,
            seed64=draw.seed64,
            seed32=draw.seed32,
        )
        for draw in draws
    ]
