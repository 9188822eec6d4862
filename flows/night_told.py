"""A night in words and as plain data: its queue as a table, what was done in a sentence."""

from __future__ import annotations

import dataclasses
from typing import Any

from lab.fingerprint import canonical
from lab.night_book import NightBook
from lab.night_queue import Candidate
from lab.records import QueueRow


def said(one: Candidate) -> str:
    """A candidate as people read it."""
    changed = ", ".join(f"{name} {canonical(value)}" for name, value in one.settings.items())
    return f"{one.study} · {one.profile}" + (f" · {changed}" if changed else "")


def lines(book: NightBook) -> list[str]:
    """The queue as a table."""
    head = [
        "| study | profile | state | expected | took | why |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for row in _in_order(book):
        expected = "" if row.expected_seconds is None else f"{row.expected_seconds:.0f} s"
        took = "" if row.seconds is None else f"{row.seconds:.0f} s"
        why = "; ".join(filter(None, [row.why, row.note])).replace("|", "/")
        head.append(f"| {row.study} | {row.profile} | {row.state} | {expected} | {took} | {why} |")
    return head


def summary(book: NightBook) -> str:
    """What was done and what is left, in a sentence."""
    count = dict.fromkeys(("done", "running", "queued", "left", "proposed", "refused", "failed"), 0)
    for row in book.rows.values():
        count[row.state] += 1
    return ", ".join(f"{n} {state}" for state, n in count.items() if n) or "nothing to do"


def result(book: NightBook) -> dict[str, Any]:
    """The night as plain data."""
    return {
        "night_id": book.night.night_id,
        "state": book.night.state,
        "summary": summary(book),
        "queue": [
            dataclasses.asdict(row) | {"started_at": str(row.started_at or "")} for row in _in_order(book)
        ],
    }


def _in_order(book: NightBook) -> list[QueueRow]:
    """What ran as it ran, then what did not as it was queued."""
    return sorted(
        book.rows.values(),
        key=lambda row: (row.started_at is None, str(row.started_at or ""), row.position),
    )
