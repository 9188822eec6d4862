"""Batches of texts: made one after the other, recorded when enough time has passed, and whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from flows import seed_run
from flows.seed_run import batch_by_batch
from models.backends import BackendError
from tasks.progress import Progress

PARTS = [["a", "b"], ["c"], ["d"]]


def recorded(
    monkeypatch: pytest.MonkeyPatch, *, seconds: float, here: str = ""
) -> list[tuple[str, list[str]]]:
    """What is recorded of the parts when a batch takes so many seconds."""
    now, found = [0.0], list[tuple[str, list[str]]]()
    monkeypatch.setattr(seed_run, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def make(_: str, part: Sequence[str]) -> None:
        if set(part) - set(here):
            now[0] += seconds

    batch_by_batch(
        "look 1",
        PARTS,
        missing=lambda part: len(set(part) - set(here)),
        make=make,
        record=lambda what, texts: found.append((what, list(texts))),
        progress=Progress("look 1", 4),
    )
    return found


def test_quick_batches_are_recorded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded(monkeypatch, seconds=1.0) == [("look 1, batch 3 of 3", ["a", "b", "c", "d"])]


def test_long_ones_each_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorded(monkeypatch, seconds=2 * seed_run.RECORD_SECONDS)
    assert [texts for _, texts in found] == [["a", "b"], ["c"], ["d"]]


def test_those_that_are_here_go_with_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorded(monkeypatch, seconds=2 * seed_run.RECORD_SECONDS, here="abd")
    assert [texts for _, texts in found] == [["a", "b", "c"], ["d"]]


def test_what_waits_is_recorded_when_a_batch_fails() -> None:
    found = list[tuple[str, list[str]]]()

    def make(_: str, part: Sequence[str]) -> None:
        if "c" in part:
            raise BackendError("the server is gone")

    with pytest.raises(BackendError):
        batch_by_batch(
            "look 1",
            PARTS,
            missing=len,
            make=make,
            record=lambda what, texts: found.append((what, list(texts))),
            progress=Progress("look 1", 4),
        )
    assert found == [("look 1, batch 2 of 3", ["a", "b", "c"])]
