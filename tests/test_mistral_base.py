"""The arithmetic base: loads with the Auto classes, trains alike twice, and is trained again when damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.adapters import adaptable
from models.answers import is_correct, prompt
from models.embedded import TrainPoint
from models.mistral_base import BASES, BaseSpec, TrainedBase, load_trained, obtain
from models.mistral_pretrain import END_ID, PADDING_ID, network
from models.word_problems import problems, tokenizer

SHORT = BaseSpec(
    name="short",
    steps=6,
    warmup_steps=2,
    evaluations=1,
    batch=2,
    sets=1,
    problems=60,
    drills=20,
    copies=20,
    scored=4,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedBase:
    """Six steps, enough for all but accuracy."""
    return obtain(SHORT, tmp_path_factory.mktemp("base") / "short")


def loaded(directory: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)


def test_the_auto_classes_load_it_with_its_special_ids(trained: TrainedBase) -> None:
    model, ours = loaded(trained.directory)
    assert type(model).__name__ == "MistralForCausalLM"
    for ids in (model.config, model.generation_config, ours):
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == (END_ID, END_ID, PADDING_ID)
    assert model.generation_config.do_sample is False
    assert model.config.sliding_window is None
    assert ours.padding_side == "left"
    text = "Question: 3 +4?\nAnswer: 3+4=7\n#### 7"
    assert ours.decode(ours(text).input_ids) == text
    assert ours(text).input_ids == tokenizer().encode(text).ids  # nothing is put before or after


def test_it_has_28_linear_modules_in_its_blocks_and_about_214_thousand_parameters(
    trained: TrainedBase,
) -> None:
    model, _ = loaded(trained.directory)
    assert trained.modules == tuple(adaptable(model))
    assert len(trained.modules) == 28
    assert trained.parameters == sum(p.numel() for p in model.parameters())
    assert 205_000 <= trained.parameters <= 220_000
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_two_trainings_give_the_same_weights_and_another_seed_others(
    trained: TrainedBase, tmp_path: Path
) -> None:
    points: list[TrainPoint] = []
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    again = obtain(SHORT, tmp_path / "again", report=points.append)
    assert again.digest == trained.digest
    assert (again.base_accuracy, again.downstream_accuracy) == (
        trained.base_accuracy,
        trained.downstream_accuracy,
    )
    assert tuple(points) == again.log
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    other = obtain(dataclasses.replace(SHORT, seed=1), tmp_path / "again")  # replaces what is there
    assert other.digest != trained.digest


def test_an_intact_one_is_not_trained_again_and_a_damaged_one_counts_as_absent(
    trained: TrainedBase, tmp_path: Path
) -> None:
    points: list[TrainPoint] = []
    assert obtain(SHORT, trained.directory, report=points.append) == trained
    assert points == []
    assert load_trained(tmp_path / "none") is None
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in trained.directory.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert load_trained(copy) == dataclasses.replace(trained, directory=copy)
    for name in ("model.safetensors", "config.json", "generation_config.json", "trained.json"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-2] + b"!" + whole[-1:])
        assert load_trained(copy) is None
        (copy / name).write_bytes(whole)
    assert load_trained(copy) is not None
    (copy / "tokenizer.json").unlink()
    assert load_trained(copy) is None
    manifest = json.loads((trained.directory / "trained.json").read_text())
    assert manifest["body"]["spec"] == dataclasses.asdict(SHORT)


def test_padding_on_the_left_changes_no_prediction() -> None:
    torch.manual_seed(0)
    model = network(SHORT, tokenizer().get_vocab_size()).eval()
    ids = torch.tensor([tokenizer().encode(prompt("3 +4?")).ids])
    padded = torch.cat([torch.full((1, 9), PADDING_ID), ids], dim=1)
    with torch.no_grad():
        plain = model(ids).logits[0, -1]
        beside = model(padded, attention_mask=(padded != PADDING_ID).long()).logits[0, -1]
    torch.testing.assert_close(beside, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_head": 3}, "n_embd 64, n_head 3"),
        ({"n_pair": 3}, "n_pair must divide n_head"),
        ({"block_size": 1024}, "block_size 1024; allowed are 2 to 512"),
        ({"drills": 0}, "drills 0; it must be at least 1"),
        ({"warmup_steps": 6}, "6 steps, 6 of warm-up"),
        ({"evaluations": 7}, "7 evaluations"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_whole_training_solves_the_base_wording_and_little_of_the_other(tmp_path: Path) -> None:
    base = obtain(BASES["arith-mistral"], tmp_path / "base")
    assert base.base_accuracy >= 0.995
    assert 0.02 <= base.downstream_accuracy <= 0.16
    model, ours = loaded(base.directory)
    right = 0
    asked = problems("base", "test", 50, seed=9)
    for item in asked:  # one at a time, by another path than the training's own score
        ids = ours(prompt(item.question), return_tensors="pt").input_ids
        said = model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
        right += is_correct(ours.decode(said, skip_special_tokens=True), item.gold, "strict")
    assert right >= 48
