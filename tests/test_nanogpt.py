"""The small GPT: transformers' logits, its size, causality, initial weights; and the text it reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from models.nano_corpus import character_corpus, embedded_corpus, file_corpus
from models.nano_measures import loss_and_statistics, state_effect
from models.nano_recipe import PROFILES, GptShape, NanoRecipe
from models.nanogpt import GPT

SHAPE = GptShape(n_layer=3, n_head=4, n_embd=32, block_size=12)
VOCAB = 19


def fresh(shape: GptShape = SHAPE, seed: int = 0) -> GPT:
    return GPT(shape, VOCAB, torch.Generator().manual_seed(seed)).eval()


def louder(gpt: GPT) -> GPT:
    """Weights far from 0, gains far from 1: what is wrong shows."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=draws)
    return gpt


def ids(n: int = 5, t: int = 12) -> torch.Tensor:
    return torch.randint(VOCAB, (n, t), generator=torch.Generator().manual_seed(1))


def theirs(gpt: GPT) -> GPT2LMHeadModel:
    """transformers' GPT-2 with the same weights; its biases are 0."""
    shape = gpt.shape
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            activation_function="gelu",
            attn_implementation="eager",
        )
    ).eval()
    held = dict(gpt.state_dict())
    weights = {
        "transformer.wte.weight": held["tokens.weight"],
        "transformer.wpe.weight": held["positions.weight"],
        "transformer.ln_f.weight": held["norm.weight"],
        "lm_head.weight": held["tokens.weight"],
    }
    names = {"attn.c_attn": "qkv", "attn.c_proj": "mixed", "mlp.c_fc": "up", "mlp.c_proj": "down"}
    for i in range(shape.n_layer):
        for name, ours in names.items():  # its Conv1D keeps matrices the other way round
            weights[f"transformer.h.{i}.{name}.weight"] = held[f"blocks.{i}.{ours}.weight"].T
        for name, ours in (("ln_1", "norm_1"), ("ln_2", "norm_2")):
            weights[f"transformer.h.{i}.{name}.weight"] = held[f"blocks.{i}.{ours}.weight"]
    biases = {n: torch.zeros_like(t) for n, t in model.state_dict().items() if n.endswith(".bias")}
    model.load_state_dict(weights | biases)
    return model


def test_logits_and_gradients_are_those_of_transformers_gpt2_with_the_same_weights() -> None:
    for gpt in (fresh(), louder(fresh())):
        other, x = theirs(gpt), ids()
        mine, known = gpt(x), other(x).logits
        torch.testing.assert_close(mine, known, rtol=0, atol=1e-5)
        mine.logsumexp(-1).mean().backward()
        known.logsumexp(-1).mean().backward()
        torch.testing.assert_close(
            gpt.tokens.weight.grad, other.transformer.wte.weight.grad, rtol=1e-4, atol=1e-6
        )


@settings(max_examples=12)
@given(layers=st.integers(1, 3), heads=st.integers(1, 3), width=st.integers(1, 4), block=st.integers(1, 9))
def test_the_number_of_weights_is_that_of_the_formula(
    layers: int, heads: int, width: int, block: int
) -> None:
    shape = GptShape(n_layer=layers, n_head=heads, n_embd=heads * width, block_size=block)
    assert sum(p.numel() for p in fresh(shape).parameters()) == shape.parameters(VOCAB)


def test_a_logit_depends_on_its_own_token_and_those_before_only() -> None:
    gpt, x = louder(fresh()), ids()
    for place in (0, 5, 11):
        other = x.clone()
        other[:, place] = (other[:, place] + 1) % VOCAB
        apart = (gpt(x) - gpt(other)).abs().amax((0, 2))
        assert not apart[:place].any()
        assert (apart[place:] > 1e-3).all()
    torch.testing.assert_close(gpt(x[:, :7]), gpt(x)[:, :7], rtol=0, atol=1e-5)


def test_initial_weights_have_the_deviations_of_nanogpt_and_hang_on_the_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    shape = GptShape(n_layer=2, n_head=2, n_embd=128, block_size=64)
    gpt = fresh(shape)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in gpt.named_parameters():
        into_residual = name.endswith(("mixed.weight", "down.weight"))
        if weight.dim() == 1:
            assert (weight == 1).all()
        else:
            assert weight.std().item() == pytest.approx(0.02 / (2 if into_residual else 1), rel=0.05)
    assert torch.equal(gpt(ids()), fresh(shape)(ids()))
    assert not torch.equal(gpt(ids()), fresh(shape, seed=1)(ids()))
    other = ids(7).flatten()[:60]  # tokens that say nothing of those read: the head is tied
    loss = torch.nn.functional.cross_entropy(gpt(ids()).flatten(0, 1), other.roll(31))
    assert loss.item() == pytest.approx(math.log(VOCAB), abs=0.3)


def test_hidden_tokens_change_nothing_whatever_they_are_and_others_do() -> None:
    gpt, x = louder(fresh()), ids()
    hidden = torch.zeros(x.shape, dtype=torch.bool)
    hidden[:, ::3] = True
    other = torch.where(hidden, (x + 1) % VOCAB, x)
    assert torch.equal(gpt(x, hidden=hidden), gpt(other, hidden=hidden))
    assert not torch.allclose(gpt(x, hidden=hidden), gpt(x))
    assert torch.equal(gpt(x, hidden=torch.zeros_like(hidden)), gpt(x))


def test_what_is_added_shifts_every_embedding_and_a_row_of_its_own_may_be_given() -> None:
    gpt, x = louder(fresh()), ids()
    vector = torch.linspace(-1, 1, 32)
    found = gpt(x, added=vector)
    with torch.no_grad():
        gpt.positions.weight += vector  # the same shift by another way
    torch.testing.assert_close(found, gpt(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(gpt(x, added=-vector), gpt(x, added=-vector.expand(5, 1, 32)))


def test_a_state_against_itself_has_no_effect_and_against_another_what_kl_says() -> None:
    gpt, x = louder(fresh()), ids()
    zero, other = torch.zeros(32), torch.linspace(-1, 1, 32)
    gpt.train()
    same = state_effect(gpt, x, zero, zero)
    assert (same.kl_nats, same.logits) == (0.0, 0.0)
    found = state_effect(gpt, x, other, zero)
    assert gpt.training
    p = torch.distributions.Categorical(logits=gpt(x, added=other))
    q = torch.distributions.Categorical(logits=gpt(x))
    assert found.kl_nats == pytest.approx(torch.distributions.kl_divergence(p, q).mean().item(), rel=1e-4)
    assert found.logits > 0.01


def test_loss_entropy_and_confidence_are_torchs_own_over_all_or_the_last_positions() -> None:
    logits, y = louder(fresh())(ids()), ids().roll(1, 1)
    spread = torch.distributions.Categorical(logits=logits)
    loss, entropy, top1 = loss_and_statistics(logits, y, "all")
    whole = torch.nn.functional.cross_entropy(logits.transpose(1, 2), y)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert entropy == pytest.approx(spread.entropy().mean().item(), rel=1e-5)
    assert top1 == pytest.approx(spread.probs.amax(-1).mean().item(), rel=1e-5)
    _, entropy, top1 = loss_and_statistics(logits, y, "last")
    assert entropy == pytest.approx(spread.entropy()[:, -1].mean().item(), rel=1e-5)
    assert top1 == pytest.approx(spread.probs.amax(-1)[:, -1].mean().item(), rel=1e-5)


def test_dropout_acts_in_training_only() -> None:
    shape = GptShape(n_layer=1, n_head=2, n_embd=16, block_size=12, dropout=0.5)
    gpt = fresh(shape)
    assert torch.equal(gpt(ids()), gpt(ids()))
    assert not torch.equal(gpt.train()(ids()), gpt(ids()))


def test_the_full_profile_is_nanogpts_published_recipe() -> None:
    full = PROFILES["full"]
    assert (full.shape.n_layer, full.shape.n_head, full.shape.n_embd, full.shape.block_size) == (
        4,
        4,
        128,
        64,
    )
    assert (full.steps, full.batch, full.warmup_steps, full.shape.dropout) == (2000, 12, 100, 0.0)
    for step in range(2000):  # as nanoGPT's get_lr
        if step < 100:
            expected = 1e-3 * (step + 1) / 101
        else:
            expected = 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / 1900)) * 9e-4
        assert full.rate(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; allowed: 1 or more"),
        ({"warmup_steps": 300}, "warmup_steps is 300; allowed: 0 to 239"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"least_rate": 1.0}, "least_rate 1 is above learning_rate 0.001"),
        ({"beta2": 1.0}, "beta2 is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"twin_tail": -1}, "twin_tail is -1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, float], message: str) -> None:
    smoke = PROFILES["smoke"]
    named: dict[str, object] = {"shape": smoke.shape, "steps": 240, "batch": 16, **change}
    with pytest.raises(ValueError, match=message):
        NanoRecipe(**named)  # type: ignore[arg-type]


def test_a_shape_without_a_network_is_refused() -> None:
    for change, message in (
        ({"n_head": 3}, "n_embd is 8 with 3 heads"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ):
        named = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 4, **change}
        with pytest.raises(ValueError, match=message):
            GptShape(**named)  # type: ignore[arg-type]


def test_a_file_gives_its_first_nine_tenths_to_training_and_ids_that_decode(tmp_path: Path) -> None:
    text = "Wer reitet so spät durch Nacht und Wind?\n" * 30
    path = tmp_path / "a text.txt"
    path.write_text(text, encoding="utf-8")
    corpus = file_corpus(path)
    back = ["".join(corpus.symbols[i] for i in part) for part in (corpus.train, corpus.heldout)]
    assert "".join(back) == text
    assert len(back[0]) == int(0.9 * len(text))
    assert corpus.vocab_size == len(set(text))
    path.write_text(text + "x", encoding="utf-8")
    assert file_corpus(path).sha256 != corpus.sha256


def test_the_standard_librarys_text_is_the_default_and_no_held_out_topic_is_trained_on() -> None:
    corpus = embedded_corpus()
    assert len(corpus.train) > 200_000
    assert 0.05 < len(corpus.heldout) / (len(corpus.train) + len(corpus.heldout)) < 0.15
    train, held = ("".join(corpus.symbols[i] for i in part) for part in (corpus.train, corpus.heldout))
    assert not any(held[i : i + 200] in train for i in range(0, len(held) - 200, 1000))


def test_a_text_that_is_absent_broken_or_short_is_refused_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    with pytest.raises(ValueError, match="there is no text file"):
        file_corpus(path)
    path.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="not UTF-8 at byte 3"):
        file_corpus(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0 characters to train on and 0 held out"):
        file_corpus(path)
    corpus = character_corpus("ab" * 40, "ab" * 4, source="short")
    corpus.refuse_short(7)
    with pytest.raises(ValueError, match=r"held-out part of short has 8 tokens; .* 8 needs 9 .* at most 7"):
        corpus.refuse_short(8)
