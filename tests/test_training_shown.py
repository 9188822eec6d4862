"""A model that another process trains: who waits for it sees how far that is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from models.kept import MANIFEST, alone, part_of, steps_kept
from tasks import training
from tasks.progress import Progress

PATIENCE_SECONDS = 20.0


def checkpoint(place: Path, step: int) -> None:
    """As a training leaves it: in one step."""
    folder = part_of(place)
    folder.mkdir(exist_ok=True)
    new = folder / "new"
    new.write_text(json.dumps({"sha256": "", "body": {"log": [{"iteration": step}]}}), encoding="utf-8")
    new.replace(folder / MANIFEST)


def reached(progress: Progress, step: int) -> int:
    """Units that count as made just now, once so many steps are done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while progress.done != step:
        assert time.monotonic() < deadline, progress
        time.sleep(0.01)
    return progress.made


def test_its_checkpoints_move_the_bar_and_its_end_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY_SECONDS", 0.01)
    caplog.set_level("INFO")
    place, progress = tmp_path / "model", Progress("train model, steps", 100, every_seconds=0.0)
    assert steps_kept(place) == 0
    with alone(place):
        checkpoint(place, 40)
        with training.shown("model", place, progress):
            assert reached(progress, 40) == 0  # how long those took is not known
            checkpoint(place, 70)
            assert reached(progress, 70) == 30
    assert (progress.done, progress.made) == (100, 30)
    assert "model is being trained by another process" in caplog.text
    assert "train model, steps: 70 of 100, about" in caplog.text


def test_nothing_is_shown_where_nobody_trains_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    progress = Progress("train model, steps", 100)
    checkpoint(tmp_path / "model", 40)
    with training.shown("model", tmp_path / "model", progress):
        pass
    assert progress.done == 0
    assert not caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"body": {"log": []}}', '{"body": {"log": [{"iteration": "x"}]}}']
)
def test_a_damaged_checkpoint_counts_as_none(tmp_path: Path, text: str) -> None:
    part_of(tmp_path / "model").mkdir()
    (part_of(tmp_path / "model") / MANIFEST).write_text(text, encoding="utf-8")
    assert steps_kept(tmp_path / "model") == 0
