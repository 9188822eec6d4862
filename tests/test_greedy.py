"""Greedy answers against transformers' `generate`, neighbours, merged weights, costs against PEFT's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from models.adapter_items import collate, prompt_ids, tokenised
from models.adapters import adaptable, attach
from models.greedy import answer_nats, greedy, merged
from models.lora_recipe import Evaluation, LoraRecipe
from tests.small_mistral import fast_tokenizer, items, small_mistral

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENIZER = fast_tokenizer()
PROMPTS = [ids[: 5 + 3 * place] for place, ids in enumerate(prompt_ids(TOKENIZER, items("test")))]
STOP = frozenset(range(0, len(TOKENIZER), 12))
"""Many, so that some answers of an untrained network stop and some do not, whatever the vocabulary."""


def adapted(base: Any = None) -> Any:
    """An adapter with B away from zero, whose answers stop now and then."""
    model = base or small_mistral(spread=0.35)
    found = attach(model, dict.fromkeys(adaptable(model), 3), LoraRecipe(), seed=0)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.5)
    return found


def answers(model: Any, prompts: Any = PROMPTS, *, tokens: int = 24, batch: int = 64) -> Any:
    return greedy(model, prompts, stop=STOP, max_new_tokens=tokens, batch_size=batch)


def generated(model: Any, ids: list[int], tokens: int) -> list[int]:
    how = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=sorted(STOP), pad_token_id=1, bos_token_id=0
    )
    inputs = torch.tensor([ids])
    whole = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=how)
    return list(whole[0, len(ids) :].tolist())


def test_answers_are_those_of_transformers_generate_with_pefts_own_layers() -> None:
    model = adapted()
    ours = answers(merged(model))
    for ids, answer in zip(PROMPTS, ours, strict=True):
        theirs = generated(model, ids, 24)
        assert answer.stopped == (theirs[-1] in STOP)
        assert list(answer.tokens) == [token for token in theirs if token not in STOP]
    assert {answer.stopped for answer in ours} == {True, False}


def test_an_answer_does_not_hang_on_its_neighbours() -> None:
    model = merged(adapted())
    assert isinstance(model, LlamaForCausalLM)
    assert answers(model, batch=1) == answers(model, batch=64) == answers(model, PROMPTS[::-1], batch=7)[::-1]


def test_a_sliding_window_is_kept_and_neighbours_do_not_matter_there_either() -> None:
    model = adapted(small_mistral(window=16, spread=0.35))
    network = merged(model)
    assert network is model.get_base_model()
    several = PROMPTS[:8]
    ours = answers(network, several, tokens=12)
    assert ours == answers(network, several, tokens=12, batch=1)
    for ids, answer in zip(several, ours, strict=True):
        assert list(answer.tokens) == [token for token in generated(model, ids, 12) if token not in STOP]


def test_merging_leaves_the_model_alone_and_gives_its_logits() -> None:
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin, ids = merged(model), torch.tensor(PROMPTS[6:7])
    torch.testing.assert_close(twin(ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    bare = small_mistral()
    torch.testing.assert_close(merged(bare)(ids).logits, bare(ids).logits, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_unmerged_and_answers() -> None:
    model = adapted(small_mistral(spread=0.35).to(torch.bfloat16))
    network = merged(model)
    assert network is model.get_base_model()
    assert len(answers(network, PROMPTS[:3], tokens=4)) == 3


def test_progress_and_order_are_those_of_the_prompts() -> None:
    said: list[int] = []
    model = merged(adapted())
    greedy(model, PROMPTS, stop=STOP, max_new_tokens=2, batch_size=10, report=said.append)
    assert said == [10, 20, 24]


def test_costs_of_answers_are_pefts_losses_item_by_item() -> None:
    model = adapted(small_mistral())
    rows = tokenised(TOKENIZER, items("test"), max_tokens=256).rows
    nats = answer_nats(merged(model), rows, batch_size=7)
    for row, found in zip(rows, nats, strict=True):
        batch = collate([row])
        loss = model(input_ids=batch.ids, labels=batch.labels).loss.item()
        assert found == pytest.approx(loss * batch.tokens, rel=1e-4)
    np.testing.assert_allclose(answer_nats(merged(model), rows, batch_size=1), nats, rtol=1e-5)


def test_batches_are_halved_where_memory_runs_out() -> None:
    model = adapted(small_mistral(window=16, spread=0.35))
    network = merged(model)
    whole = answers(network, tokens=3)

    def full(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.register_forward_pre_hook(full, with_kwargs=True)
    assert answers(network, tokens=3) == whole


def test_logits_that_are_no_numbers_are_an_error() -> None:
    model = merged(adapted())
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    rows = tokenised(TOKENIZER, items("test"), max_tokens=256).rows
    with pytest.raises(ValueError, match="are not finite; the model diverged"):
        answers(model)
    with pytest.raises(ValueError, match="24 of 24 answers cost no finite number"):
        answer_nats(model, rows, batch_size=8)


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="window holds 256"):
        answers(merged(adapted()), [[5] * 250])
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        Evaluation(max_new_tokens=0)
