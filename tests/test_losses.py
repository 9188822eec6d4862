"""Sentence losses against lm-evaluation-harness and a plain loop; batches, padding, baselines, faults."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import Encoded, encode, keep_baselines, prefix_id_of, sentence_losses
from tests.scored_models import (
    FAMILY_NAMES,
    POSITIONS,
    TEXTS,
    VOCABULARY,
    small_model,
    small_tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WITNESS = list(
    csv.DictReader(
        (Path(__file__).parent / "reference" / "lm_eval_bits.txt").read_text().splitlines(), delimiter="\t"
    )
)
TOKENIZER = small_tokenizer()


def encoded(texts: tuple[str, ...] = TEXTS, block_size: int = POSITIONS) -> Encoded:
    return encode(TOKENIZER, texts, block_size=block_size, prefix_id=prefix_id_of(TOKENIZER))


def perturbed(family: str, scale: float) -> Any:
    model = small_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".0." in name and parameter.dim() > 1:
                parameter += scale * torch.cos(torch.arange(parameter.numel())).view_as(parameter)
    return model


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_bits_equal_those_of_the_lm_evaluation_harness(family: str) -> None:
    rows = [row for row in WITNESS if row["family"] == family]
    texts = [row for row in rows if row["text"] != "all"]
    found = sentence_losses(small_model(family), encoded())
    assert found.tokens.tolist() == [int(row["tokens"]) for row in texts]
    assert found.n_bytes.tolist() == [int(row["bytes"]) for row in texts]
    theirs = np.array([-float(row["log_likelihood_nats"]) for row in texts]) / math.log(2)
    np.testing.assert_allclose(found.bits, theirs, rtol=1e-6)  # theirs are float32 sums
    (total,) = (float(row["log_likelihood_nats"]) for row in rows if row["text"] == "all")
    assert abs(found.bits_per_byte - total) < 1e-6


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_witness_covers_texts_below_at_and_above_the_window(family: str) -> None:
    tokens = [int(row["tokens"]) for row in WITNESS if row["family"] == family and row["text"] != "all"]
    assert min(tokens) == 1
    assert {POSITIONS, POSITIONS + 1} <= set(tokens)
    assert max(tokens) > 3 * POSITIONS


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_neighbours_in_a_batch_do_not_move_a_sentence(family: str) -> None:
    model = small_model(family)
    together = sentence_losses(model, encoded()).bits
    alone = [sentence_losses(model, encoded((text,))).bits[0] for text in TEXTS]
    small = sentence_losses(model, encoded(), tokens_a_batch=60).bits
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(together, small, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_bits_equal_a_loop_over_the_models_own_logits_one_token_at_a_time(family: str) -> None:
    model, texts = small_model(family), encoded()
    found = sentence_losses(model, texts)
    expected = np.zeros(len(texts))
    with torch.no_grad():
        for inputs, targets, owner in zip(texts.inputs, texts.targets, texts.owner, strict=True):
            ids = torch.from_numpy(inputs)[None]
            log_p = (
                model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].double().log_softmax(-1)
            )
            for place, target in zip(range(len(inputs) - len(targets), len(inputs)), targets, strict=True):
                expected[owner] -= float(log_p[place, target]) / math.log(2)
    np.testing.assert_allclose(found.bits, expected, rtol=1e-6)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 17))
def test_windows_score_each_token_once_after_what_came_before_it(lengths: list[int], block_size: int) -> None:
    texts = tuple("".join(chr(97 + (7 * i + n) % 26) for i in range(n)) for n in lengths)
    found = encoded(texts, block_size)
    for sentence, text in enumerate(texts):
        ids = TOKENIZER(text)["input_ids"]
        mine = np.flatnonzero(found.owner == sentence)
        assert [t for w in mine for t in found.targets[w].tolist()] == ids
        row, scored = [found.prefix_id, *ids], 0
        for w in mine:
            scored += len(found.targets[w])
            inputs = found.inputs[w].tolist()
            assert len(inputs) <= block_size
            assert inputs == row[scored - len(inputs) : scored]
            assert scored == len(inputs) or len(inputs) == block_size


def test_a_tokenizer_of_tokenizers_and_of_transformers_encode_alike() -> None:
    plain = encode(TOKENIZER.backend_tokenizer, TEXTS, block_size=POSITIONS, prefix_id=0)
    for mine, theirs in zip(plain.inputs, encoded().inputs, strict=True):
        assert mine.tolist() == theirs.tolist()


def test_special_tokens_of_the_tokenizer_are_never_scored() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert tokenizer("a")["input_ids"][0] == 0
    found = encode(tokenizer, TEXTS, block_size=POSITIONS, prefix_id=0)
    assert found.tokens.tolist() == encoded().tokens.tolist()


def test_a_baseline_with_the_same_weights_gives_exactly_zero() -> None:
    texts = encoded()
    model = small_model("gpt2")
    kept = keep_baselines(model, {"en": texts})[0]["en"]
    for baseline in (kept, small_model("gpt2")):
        found = sentence_losses(model, texts, baseline=baseline)
        assert found.kl_bits is not None
        assert found.flips is not None
        assert not found.kl_bits.any()
        assert not found.flips.any()
        np.testing.assert_array_equal(found.bits, kept.losses.bits)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_divergence_and_flips_equal_their_definition_in_float64(family: str) -> None:
    texts, model, changed = encoded(), small_model(family), perturbed(family, 0.1)
    found = sentence_losses(changed, texts, baseline=model)
    kl, flips = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad():
        for inputs, targets, owner in zip(texts.inputs, texts.targets, texts.owner, strict=True):
            ids = torch.from_numpy(inputs)[None]
            p0, p = (
                m(input_ids=ids).logits[0, -len(targets) :].double().log_softmax(-1) for m in (model, changed)
            )
            kl[owner] += float((p0.exp() * (p0 - p)).sum()) / math.log(2)
            flips[owner] += int((p0.argmax(-1) != p.argmax(-1)).sum())
    assert found.kl_bits is not None
    assert found.flips is not None
    assert kl.min() > 1e-3
    np.testing.assert_allclose(found.kl_bits, kl, rtol=1e-4)
    assert flips.sum() > 0
    assert found.flips.tolist() == flips.tolist()


def test_a_kept_baseline_answers_as_the_living_model_also_after_it_is_changed() -> None:
    texts = {"a": encoded(TEXTS[:5]), "b": encoded(TEXTS[5:])}
    model, changed = small_model("opt"), perturbed("opt", 0.1)
    kept, refused = keep_baselines(model, texts, tokens_a_batch=100)
    assert not refused
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert kept["a"].head is kept["b"].head
    for name, rows in texts.items():
        mine = sentence_losses(changed, rows, baseline=kept[name])
        theirs = sentence_losses(changed, rows, baseline=small_model("opt"), tokens_a_batch=100)
        assert mine.kl_bits is not None
        assert theirs.kl_bits is not None
        np.testing.assert_array_equal(mine.kl_bits, theirs.kl_bits)
        alone = sentence_losses(small_model("opt"), rows, tokens_a_batch=100)
        np.testing.assert_array_equal(kept[name].losses.bits, alone.bits)


def test_dropout_is_off_while_scoring_and_back_on_after() -> None:
    model = small_model("gpt2", dropout=0.5)
    before = sentence_losses(model, encoded()).bits
    model.train()
    np.testing.assert_array_equal(sentence_losses(model, encoded()).bits, before)
    assert model.training


def test_scoring_leaves_no_gradient_and_no_changed_weight() -> None:
    model = small_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sentence_losses(model, encoded(), baseline=model)
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_model_of_equal_logits_costs_log2_of_its_vocabulary_a_token() -> None:
    model = small_model("gpt_neox")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    found = sentence_losses(model, encoded())
    np.testing.assert_allclose(found.bits, found.tokens * math.log2(VOCABULARY), rtol=1e-6)
    assert math.isclose(found.nats_per_token, math.log(VOCABULARY), rel_tol=1e-6)
    assert math.isclose(found.bits_per_byte, found.bits.sum() / sum(len(t.encode()) for t in TEXTS))
    assert found.characters.tolist() == [len(text) for text in TEXTS]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_its_sentence(value: float) -> None:
    model = small_model("llama")
    only_here = TOKENIZER("渡")["input_ids"][-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[only_here] = value
    reached = [i for i, text in enumerate(TEXTS) if only_here in TOKENIZER(text)["input_ids"][:-1]]
    with pytest.raises(ValueError, match=rf"sentence {reached[0]} has a loss of nan \({len(reached)} of 13"):
        sentence_losses(model, encoded())
    whole = tuple(text for i, text in enumerate(TEXTS) if i not in reached)
    kept, refused = keep_baselines(model, {"zh": encoded(), "en": encoded(whole)})
    assert refused["zh"].startswith(f"zh: sentence {reached[0]} has a loss of nan")
    assert list(refused) == ["zh"]
    np.testing.assert_array_equal(kept["en"].losses.bits, sentence_losses(model, encoded(whole)).bits)


def test_what_cannot_be_scored_is_refused_with_its_reason() -> None:
    model = small_model("gpt2")
    with pytest.raises(ValueError, match="text 1 \\(2 in all\\) has no token"):
        encoded(("a", "", "b", ""))
    with pytest.raises(ValueError, match="no texts"):
        encoded(())
    with pytest.raises(ValueError, match="block_size is 0"):
        encoded(TEXTS, 0)
    with pytest.raises(ValueError, match=f"block_size is {POSITIONS + 1}, GPT2LMHeadModel has {POSITIONS}"):
        sentence_losses(model, encoded(block_size=POSITIONS + 1))
    with pytest.raises(ValueError, match="outside the vocabulary of 300"):
        sentence_losses(model, encode(TOKENIZER, TEXTS, block_size=POSITIONS, prefix_id=300))
    kept = keep_baselines(model, {"en": encoded()})[0]["en"]
    with pytest.raises(ValueError, match="other texts"):
        sentence_losses(model, encoded(), baseline=kept)
    with pytest.raises(ValueError, match="tokens_a_batch is 0"):
        sentence_losses(model, encoded(), tokens_a_batch=0)


def test_a_baseline_of_another_vocabulary_is_refused() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=310, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ValueError, match="baseline has 310 tokens, the model 300"):
        sentence_losses(small_model("llama"), encoded(), baseline=LlamaForCausalLM(config))


def test_a_tokenizer_without_begin_or_end_has_no_prefix() -> None:
    class Bare:
        bos_token_id = None
        eos_token_id = None

    with pytest.raises(ValueError, match="Bare names neither"):
        prefix_id_of(Bare())
    Bare.eos_token_id = 7  # type: ignore[assignment]
    assert prefix_id_of(Bare()) == 7


def test_scoring_does_not_warn_of_a_prefix_that_is_also_the_padding(caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        sentence_losses(small_model("gpt2"), encoded())
    finally:
        logging.disable_propagation()
    assert "attention_mask" not in caplog.text
