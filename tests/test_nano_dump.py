"""A training's directory read back without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.kept import keep
from models.nano_corpus import NanoCorpus, character_corpus
from models.nano_dump import CHANNELS, read_dump, series
from models.nano_log import CHECKPOINT, LOG, STATE, Reaction
from models.nano_recipe import GptShape, NanoRecipe, StateSpec
from models.nano_training import NanoTrained, train
from models.regimes import BEWILDERMENT, RegimePlan

ROOT = Path(__file__).resolve().parent.parent
TEXT = "the cat sat on the mat and the dog lay in the sun while a bird sang of the sea; " * 12
CORPUS: NanoCorpus = character_corpus(TEXT[:800], TEXT[800:], source="a sentence")
SHORT = NanoRecipe(
    shape=GptShape(n_layer=1, n_head=2, n_embd=16, block_size=8),
    state=StateSpec(dim=6, hidden=5),
    steps=20,
    batch=4,
    warmup_steps=5,
    probe_every=4,
    checkpoint_every=6,
    twin_tail=2,
)
PLAN = RegimePlan(regimes=(replace(BEWILDERMENT, windows=((5, 8), (12, 14))),))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NanoTrained]:
    directory = tmp_path_factory.mktemp("run")
    return directory, train(SHORT, CORPUS, seeds=3, plan=PLAN, directory=directory)


def test_a_dump_is_what_the_training_told(known: tuple[Path, NanoTrained]) -> None:
    directory, trained = known
    dump = read_dump(directory)
    assert dump.rows == tuple(row for row in trained.rows if not row.twin)
    assert [row.step for row in dump.rows] == list(range(20))
    assert set(dump.twins) == {"bewilderment/0", "bewilderment/1"}
    for name, rows in dump.twins.items():
        assert rows == tuple(row for row in trained.rows if row.twin == name)
    assert dump.trajectory is not None
    assert dump.seen is not None
    np.testing.assert_array_equal(dump.trajectory, np.array([s.tolist() for s in trained.run.trajectory]))
    np.testing.assert_array_equal(dump.seen, np.array([f.tolist() for f in trained.run.seen]))
    assert (dump.trajectory.shape, dump.seen.shape) == ((20, 6), (19, 5))
    assert dump.looks == tuple((look.step, look.valid_loss_nats) for look in trained.run.looks)
    assert dump.valid_loss_nats == trained.valid_loss_nats
    assert len(dump.digest) == 64
    assert dump.facts["recipe"]["state"]["dim"] == 6
    assert dump.facts["seeds"]["order"] == 3
    assert dump.facts["corpus_sha256"] == CORPUS.sha256
    assert dump.facts["step"] == 20


def test_series_are_by_channel_and_twin_with_nan_where_nothing_was_measured(
    known: tuple[Path, NanoTrained],
) -> None:
    dump = read_dump(known[0])
    found = series(dump)
    assert set(found) == {"", "bewilderment/0", "bewilderment/1"}
    own = found[""]
    assert tuple(own) == CHANNELS
    assert {values.shape for values in own.values()} == {(20,)}
    assert np.isfinite(own["effect_kl_nats"]).nonzero()[0].tolist() == list(range(0, 20, 4))
    assert np.isnan(own["memory_norm"]).all()
    assert own["loss_nats"].tolist() == [row.loss_nats for row in dump.rows]
    assert np.isnan(own["raw_norm"]).nonzero()[0].tolist() == [0]
    assert found["bewilderment/0"]["loss_nats"].shape == (5,)  # 3 steps of the window and 2 after it
    assert found["bewilderment/1"]["self_norm"].shape == (4,)


def test_a_plain_gpt_has_no_states_and_one_underway_no_final_loss(tmp_path: Path) -> None:
    train(replace(SHORT, state=None), CORPUS, seeds=0, directory=tmp_path / "plain")
    plain = read_dump(tmp_path / "plain")
    assert (plain.trajectory, plain.seen) == (None, None)
    assert np.isnan(series(plain)[""]["self_norm"]).all()
    assert plain.valid_loss_nats is not None

    class Killed(Exception):  # noqa: N818
        pass

    def report(row: Reaction) -> None:
        if row.step == 14:
            raise Killed

    with pytest.raises(Killed):
        train(SHORT, CORPUS, seeds=0, directory=tmp_path / "part", report=report)
    part = read_dump(tmp_path / "part")
    assert (len(part.rows), part.valid_loss_nats, part.facts["step"]) == (12, None, 12)  # the last checkpoint


def test_what_is_missing_or_damaged_is_named(known: tuple[Path, NanoTrained], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no checkpoint of a training"):
        read_dump(tmp_path / "nowhere")
    cut = shutil.copytree(known[0], tmp_path / "cut")
    arrays = cut / CHECKPOINT / STATE
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(ValueError, match="a damaged or incomplete checkpoint"):
        read_dump(cut)
    changed = shutil.copytree(known[0], tmp_path / "changed")
    log = changed / LOG
    log.write_bytes(log.read_bytes().replace(b'"step": 3,', b'"step": 4,', 1))
    with pytest.raises(ValueError, match="is not the log of the checkpoint beside it"):
        read_dump(changed)
    log.unlink()
    with pytest.raises(ValueError, match=r"reaction\.jsonl is missing"):
        read_dump(changed)


def test_another_models_directory_is_not_taken_for_a_training(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        (folder / STATE).write_bytes(b"")

    keep(tmp_path / CHECKPOINT, save, {"some": 1}, identity=(STATE,))
    with pytest.raises(ValueError, match="not the checkpoint of a training"):
        read_dump(tmp_path)


def test_no_torch_is_imported() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, models.nano_dump; print('torch' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == "False"
