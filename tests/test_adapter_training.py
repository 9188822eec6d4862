"""The training loop: labels, order of the data, the result of a plain loop, resume, memory, faults."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup

from models.adapter_items import IGNORED, Row, Rows, collate, data_order, tokenised
from models.adapter_training import TrainedAdapter, adapter_digest, train
from models.adapters import adaptable, attach, lora_layers, nested_start
from models.answers import Item
from models.fast_lora import fast_layers
from models.kept import keep, load_kept
from models.lora_recipe import LoraRecipe
from tests.small_mistral import MODULES, SHORT, fast_tokenizer, items, small_mistral

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENIZER = fast_tokenizer()
ROWS = tokenised(TOKENIZER, items(), max_tokens=256)
VALIDATION = tokenised(TOKENIZER, items("validation"), max_tokens=256)
RANKS = {name: 1 + place % 4 for place, name in enumerate(adaptable(small_mistral()))}


def fresh(recipe: LoraRecipe = SHORT, ranks: dict[str, int] = RANKS, base: Any = None) -> Any:
    return attach(base or small_mistral(), ranks, recipe, seed=0)


@lru_cache(maxsize=1)
def undisturbed() -> TrainedAdapter:
    """The short recipe trained in one go."""
    return trained()


def trained(recipe: LoraRecipe = SHORT, **more: Any) -> TrainedAdapter:
    return train(fresh(recipe), ROWS, VALIDATION, recipe, seed=0, **more)


def test_only_answer_and_end_token_are_labelled_and_nothing_is_lost() -> None:
    for item, row in zip(items(), ROWS.rows, strict=True):
        assert TOKENIZER.decode(row.ids[: row.asked]) == f"Question: {item.question}\nAnswer:"
        assert TOKENIZER.decode(row.ids[row.asked : -1]) == f" {item.answer}"
        assert row.ids[-1] == TOKENIZER.eos_token_id
    batch = collate(ROWS.rows[:9])
    for row, ids, labels in zip(ROWS.rows, batch.ids.tolist(), batch.labels.tolist(), strict=False):
        assert ids[: len(row.ids)] == list(row.ids)
        assert [label for label in labels if label != IGNORED] == list(row.ids[row.asked :])
        assert labels[row.asked : len(row.ids)] == list(row.ids[row.asked :])


def test_items_that_are_too_long_are_named_and_left_out_whole() -> None:
    longest = max(len(row.ids) for row in ROWS.rows)
    found = tokenised(TOKENIZER, items(), max_tokens=longest - 1)
    gone = [item.item_id for item, row in zip(items(), ROWS.rows, strict=True) if len(row.ids) == longest]
    assert list(found.too_long) == gone
    assert gone
    assert found.rows == tuple(row for row in ROWS.rows if len(row.ids) < longest)


@pytest.mark.parametrize(
    ("given", "tokens", "message"),
    [((), 256, "no items"), (items()[:2], 5, "all 2 items have more than 5 tokens")],
)
def test_data_without_rows_are_refused(given: tuple[Item, ...], tokens: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenised(TOKENIZER, given, max_tokens=tokens)


def test_rows_without_prompt_or_answer_are_refused() -> None:
    for row in (Row(ids=(1, 2), asked=0), Row(ids=(1, 2), asked=2)):
        with pytest.raises(ValueError, match="each with a prompt and an answer"):
            collate([row])


@settings(max_examples=30)
@given(n=st.integers(1, 40), steps=st.integers(1, 9), batch=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_order_uses_every_item_before_any_again_and_longer_training_begins_alike(
    n: int, steps: int, batch: int, seed: int
) -> None:
    order = data_order(n, steps, batch, seed)
    flat = order.flatten().tolist()
    counts = [flat.count(i) for i in range(n)]
    assert order.shape == (steps, batch)
    assert max(counts) - min(counts) <= 1
    assert torch.equal(data_order(n, steps + 3, batch, seed)[:steps], order)


def test_the_rate_is_that_of_transformers_cosine_schedule() -> None:
    recipe = LoraRecipe(steps=50, warmup_share=0.1, learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs: Any = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    for step in range(1, recipe.steps):
        optimizer.step()
        theirs.step()
        if step < recipe.warmup_steps:  # ours starts at one part of the warm-up, theirs at 0
            assert recipe.rate(step - 1) == pytest.approx(theirs.get_last_lr()[0])
        else:
            assert recipe.rate(step) == pytest.approx(theirs.get_last_lr()[0])


def test_training_is_what_a_plain_loop_over_pefts_own_forward_gives() -> None:
    recipe = replace(SHORT, steps=5, weight_decay=0.1)
    ours, theirs = fresh(recipe), fresh(recipe)
    found = train(ours, ROWS, VALIDATION, recipe, seed=0)
    weights = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.1)
    losses = []
    for step, places in enumerate(data_order(len(ROWS.rows), 5, 8, 0).tolist()):
        batch = collate([ROWS.rows[i] for i in places])
        loss = theirs(input_ids=batch.ids, labels=batch.labels).loss  # transformers shifts and averages
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = recipe.rate(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    assert found.loss_first == pytest.approx(losses[0], rel=1e-5)
    assert found.loss_last == pytest.approx(losses[-1], rel=1e-4)
    # AdamW turns an entry whose gradient is all rounding into a full step, so the whole is compared.
    moved, apart = 0.0, 0.0
    for (name, mine), (_, other) in zip(lora_layers(ours), lora_layers(theirs), strict=True):
        start = nested_start(name, mine.in_features, 0)[: RANKS[name]]
        a, b = (layer.lora_A["default"].weight for layer in (mine, other))
        moved += float((b - start).detach().square().sum())
        apart += float((a - b).detach().square().sum())
        a, b = (layer.lora_B["default"].weight for layer in (mine, other))
        moved += float(b.detach().square().sum())
        apart += float((a - b).detach().square().sum())
    assert moved > 0.01
    assert apart < 1e-6 * moved


def test_the_fast_layers_have_pefts_outputs_and_gradients() -> None:
    recipe = LoraRecipe(scale_rule="fixed", alpha=3.0)
    adapted, ids = fresh(recipe), torch.arange(60).reshape(3, 20)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    with torch.no_grad():
        for weight in weights:
            weight += 0.05 * torch.cos(torch.arange(weight.numel())).view_as(weight)

    def run() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        logits = adapted(input_ids=ids).logits
        return logits, torch.autograd.grad(logits.square().mean(), weights)

    logits, slopes = run()
    with fast_layers(adapted) as count:
        mine, own = run()
    assert count == MODULES
    torch.testing.assert_close(mine, logits, rtol=1e-4, atol=1e-5)
    for one, other in zip(own, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    again, _ = run()
    assert torch.equal(again, logits)


def test_the_same_call_gives_the_same_bits_and_another_seed_others() -> None:
    assert trained().digest == undisturbed().digest
    assert undisturbed().digest != train(fresh(), ROWS, VALIDATION, SHORT, seed=1).digest


def test_the_loss_falls_and_the_log_shows_the_last_stages() -> None:
    said: list[dict[str, Any]] = []
    found = trained(replace(SHORT, learning_rate=1e-2), report=said.append)
    assert found.loss_last < 0.9 * found.loss_first
    assert list(found.log) == said
    scored = [(p["step"], p["validation_nll"]) for p in found.log if p["validation_nll"] is not None]
    assert [step for step, _ in scored] == [0, 4, 8, 12, 16, 20]
    assert found.validation_nll == scored[-1][1]
    assert found.validation_fall == pytest.approx(1 - scored[-1][1] / scored[-2][1])
    assert found.log[0]["training_loss"] is None
    assert found.log[1]["training_loss"] == pytest.approx(found.loss_first)


class Stop(Exception):  # noqa: N818 -- no error: a person's hand
    """Raised in the middle of a training."""


@pytest.mark.parametrize("at", [4, 13])
def test_a_training_stopped_and_taken_up_ends_in_the_same_bits(tmp_path: Path, at: int) -> None:
    recipe = replace(SHORT, checkpoint_every=3)

    def stop(point: dict[str, Any]) -> None:
        if point["step"] == at:
            raise Stop

    with pytest.raises(Stop):
        trained(recipe, checkpoint=tmp_path / "state", identity={"arm": 1}, report=stop)
    body = load_kept(tmp_path / "state")
    assert body is not None
    assert body["step"] == at // 3 * 3
    resumed = trained(recipe, checkpoint=tmp_path / "state", identity={"arm": 1})
    whole = undisturbed()
    assert resumed.steps_resumed == at // 3 * 3
    assert (resumed.digest, resumed.log) == (whole.digest, whole.log)
    assert not (tmp_path / "state").exists()


def test_a_checkpoint_of_another_arm_or_a_damaged_one_is_not_taken_up(tmp_path: Path) -> None:
    recipe = replace(SHORT, checkpoint_every=3)

    def stop(point: dict[str, Any]) -> None:
        if point["step"] == 10:
            raise Stop

    for damage in (False, True):
        with pytest.raises(Stop):
            trained(recipe, checkpoint=tmp_path / "state", identity={"arm": 1}, report=stop)
        if damage:
            path = tmp_path / "state" / "state.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        found = trained(recipe, checkpoint=tmp_path / "state", identity={"arm": 1 if damage else 2})
        assert found.steps_resumed == 0
        assert found.digest == undisturbed().digest


def test_micro_batches_and_recomputed_activations_change_rounding_only() -> None:
    whole = trained(replace(SHORT, steps=5))
    for change in ({"micro_batch": 3}, {"gradient_checkpointing": True}):
        other = trained(replace(SHORT, steps=5, **change))
        assert other.loss_last == pytest.approx(whole.loss_last, rel=1e-4)
        assert other.validation_nll == pytest.approx(whole.validation_nll, rel=1e-4)


def test_activations_are_recomputed_when_asked_and_not_afterwards() -> None:
    runs = []
    base = small_mistral()
    base.model.layers[0].mlp.act_fn.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    recipe = replace(SHORT, steps=1, stages=1, gradient_checkpointing=True)
    adapted = fresh(recipe, base=base)
    train(adapted, ROWS, VALIDATION, recipe, seed=0)
    assert runs.count(True) == 2  # checkpointed forward and its repetition
    assert not any(module.training for module in adapted.modules())
    assert not base.is_activation_checkpointing


def test_where_memory_runs_out_batches_are_halved_and_that_is_recorded() -> None:
    base = small_mistral()

    def full(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and len(named["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    base.register_forward_pre_hook(full, with_kwargs=True)
    recipe = replace(SHORT, steps=5)
    found = train(fresh(recipe, base=base), ROWS, VALIDATION, recipe, seed=0)
    assert found.micro_batch == 2
    assert found.digest == trained(replace(recipe, micro_batch=2)).digest


def test_a_row_alone_that_does_not_fit_is_said() -> None:
    base = small_mistral()

    def full(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")

    base.register_forward_pre_hook(full, with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        train(fresh(base=base), ROWS, VALIDATION, SHORT, seed=0)


def test_a_loss_that_is_no_number_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    base = small_mistral()
    recipe = replace(SHORT, checkpoint_every=1, stages=1)
    seen: list[int] = []

    def spoil(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return output * math.nan if len(seen) > 6 else output

    base.model.norm.register_forward_hook(spoil)
    with pytest.raises(ValueError, match=r"the loss is nan .* nothing was kept: lower learning_rate"):
        train(
            fresh(recipe, base=base),
            ROWS,
            VALIDATION,
            recipe,
            seed=0,
            checkpoint=tmp_path / "state",
            identity={},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bfloat16_base_keeps_adapters_in_float32() -> None:
    recipe = replace(SHORT, steps=6, precision="bfloat16", learning_rate=1e-2)
    adapted = fresh(recipe, base=small_mistral().to(torch.bfloat16))
    kinds = {p.dtype for p in adapted.parameters() if p.requires_grad}
    with fast_layers(adapted) as count:
        assert count == 0
    found = train(adapted, ROWS, VALIDATION, recipe, seed=0)
    assert kinds == {torch.float32}
    assert found.loss_last < found.loss_first


def test_the_digest_sees_every_bit_and_the_scale() -> None:
    one, other = fresh(), fresh()
    assert adapter_digest(one) == adapter_digest(other)
    with torch.no_grad():
        next(layer for _, layer in lora_layers(other)).lora_B["default"].weight[0, 0] = 1e-30
    assert adapter_digest(one) != adapter_digest(other)
    ones = dict.fromkeys(RANKS, 1)
    fixed = fresh(LoraRecipe(scale_rule="fixed", alpha=2.0), ones)
    assert adapter_digest(fresh(ranks=ones)) != adapter_digest(fixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"micro_batch": 0}, "micro_batch is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"warmup_share": 1.0}, "warmup_share is 1.0"),
        ({"stages": 21}, "21 stages in 20 steps"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"scale_rule": "half"}, "allowed: alpha_is_rank, rslora, fixed"),
        ({"precision": "int4"}, "allowed: float32, bfloat16"),
        ({"alpha": 4.0}, "None with alpha_is_rank"),
        ({"scale_rule": "rslora"}, "a number above 0 with rslora and fixed"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, **change)


def test_a_directory_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    where = tmp_path / "kept"
    keep(where, lambda fresh: (fresh / "a").write_text("1") and None, {"x": 0.1}, identity=("a",))
    with pytest.raises(OSError, match="full"):
        keep(where, _no_space, {"x": 0.2}, identity=("a",))
    body = load_kept(where)
    assert body is not None
    assert body["x"] == 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def _no_space(directory: Path) -> None:
    (directory / "b").write_text("2")
    raise OSError("the disk is full")


def test_one_item_fills_every_batch() -> None:
    alone = Rows(rows=ROWS.rows[:1], too_long=())
    recipe = replace(SHORT, learning_rate=2e-2)
    found = train(fresh(), alone, VALIDATION, recipe, seed=0)
    assert found.loss_last < trained(recipe).loss_last < found.loss_first
