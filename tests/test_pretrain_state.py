"""A training that was stopped goes on from its last evaluated point and ends in the same bits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.embedded import TrainedModel, TrainPoint, load_trained, train
from models.english import Corpus, pydoc_english
from models.kept import part_of
from models.pretrain_state import STATE
from tests.test_embedded import TINY

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    whole = pydoc_english()
    return dataclasses.replace(whole, train=whole.train[:6], heldout=whole.heldout[:2])


@pytest.fixture(scope="module")
def tiny(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Trained without a stop."""
    return train(TINY, tmp_path_factory.mktemp("whole") / "tiny", corpus=corpus)


class StoppedError(Exception):
    """Somebody ended the training."""


@pytest.mark.parametrize(
    ("points", "damage", "from_step"),
    [(2, False, 10), (3, False, 20), (1, False, 0), (3, True, 0)],
    ids=["at the first point", "at the second", "before any", "with its checkpoint damaged"],
)
def test_a_stopped_training_goes_on_from_its_last_point_and_ends_in_the_same_bits(
    points: int, damage: bool, from_step: int, tiny: TrainedModel, corpus: Corpus, tmp_path: Path
) -> None:
    target, seen = tmp_path / "model", list[TrainPoint]()

    def stop(point: TrainPoint) -> None:
        seen.append(point)
        if len(seen) == points:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(TINY, target, corpus=corpus, report=stop)
    assert load_trained(target) is None
    if damage:
        state = part_of(target) / STATE
        state.write_bytes(state.read_bytes()[:-1])
    again: list[TrainPoint] = []
    model = train(TINY, target, corpus=corpus, report=again.append)
    assert again[0].iteration == from_step
    assert model.digest == tiny.digest
    timeless = [dataclasses.replace(point, seconds=0.0) for point in model.log]
    assert timeless == [dataclasses.replace(point, seconds=0.0) for point in tiny.log]
    assert list(tmp_path.iterdir()) == [target]


def test_a_checkpoint_of_another_schedule_is_not_taken_up(
    tiny: TrainedModel, corpus: Corpus, tmp_path: Path
) -> None:
    seen: list[TrainPoint] = []

    def stop(point: TrainPoint) -> None:
        seen.append(point)
        if len(seen) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(dataclasses.replace(TINY, seed=1), tmp_path / "model", corpus=corpus, report=stop)
    assert part_of(tmp_path / "model").exists()
    assert train(TINY, tmp_path / "model", corpus=corpus).digest == tiny.digest
