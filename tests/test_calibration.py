"""What a calibration says of a network, against each text read by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    XGLMConfig,
    XGLMForCausalLM,
)

from models.calibration import calibrate
from models.losses import encode
from models.quant_spec import CalibrationMix
from tests.test_preservation import letters

SMALL: dict[str, Any] = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, **SMALL))
    if family == "bloom":
        return BloomForCausalLM(BloomConfig(n_layer=2, hidden_size=32, n_head=2, **SMALL))
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, **SMALL}
    if family == "opt":
        return OPTForCausalLM(
            OPTConfig(ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64, **shape)
        )
    if family == "xglm":
        return XGLMForCausalLM(XGLMConfig(ffn_dim=64, max_position_embeddings=64, **shape))
    return LlamaForCausalLM(LlamaConfig(intermediate_size=64, max_position_embeddings=64, **shape))


TEXTS = {"en": ("one two three", "a", "four words are here"), "xx": ("zz yy xx ww", "qq")}
MIX = CalibrationMix(texts=(("en", 3), ("xx", 1)), block_size=16)


LAYERS = {
    "gpt2": "transformer.h.1.mlp.c_proj",
    "opt": "model.decoder.layers.1.fc2",
    "llama": "model.layers.1.mlp.down_proj",
    "bloom": "transformer.h.1.mlp.dense_4h_to_h",
    "xglm": "model.layers.1.fc2",
}


@pytest.mark.parametrize("family", LAYERS)
def test_input_norms_are_those_of_each_text_read_by_itself(family: str) -> None:
    model = model_of(family).eval()
    name = LAYERS[family]
    seen: list[Tensor] = []
    found = calibrate(model, letters(), TEXTS, MIX, prefix_id=0, grams=True)
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    total = torch.zeros(len(found.input_norms[f"{name}.weight"]), dtype=torch.float64)
    gram = torch.zeros(len(total), len(total), dtype=torch.float64)
    for code, share in (("en", 0.75), ("xx", 0.25)):
        seen.clear()
        for row in encode(letters(), TEXTS[code][: dict(MIX.texts)[code]], block_size=16, prefix_id=0).inputs:
            with torch.no_grad():
                model(torch.from_numpy(row)[None])
        x = torch.cat([one.reshape(-1, one.shape[-1]) for one in seen]).double()
        assert found.tokens[code] == len(x)
        total += share * x.square().mean(dim=0)
        gram += share * (x.t() @ x) / len(x)
    handle.remove()
    assert torch.allclose(found.input_norms[f"{name}.weight"].double(), total.sqrt(), rtol=1e-4)
    assert torch.allclose(found.grams[f"{name}.weight"], gram, rtol=1e-4, atol=1e-6)
    plain = calibrate(model, letters(), TEXTS, MIX, prefix_id=0)
    assert plain.grams == plain.fisher == {}
    assert torch.allclose(plain.input_norms[f"{name}.weight"], found.input_norms[f"{name}.weight"])
    assert plain.mix == MIX


def test_fisher_is_the_mean_square_of_each_texts_gradient() -> None:
    model = model_of("gpt2").train()
    weight = model.transformer.h[0].mlp.c_fc.weight
    weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = calibrate(model, letters(), TEXTS, MIX, prefix_id=0, fisher=True)
    assert model.training
    assert not weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    weight.requires_grad_(True)
    expected = torch.zeros_like(weight)
    for code, share in (("en", 0.75), ("xx", 0.25)):
        texts = TEXTS[code][: dict(MIX.texts)[code]]
        for text in texts:
            ids = [0, *letters().encode(text).ids]
            nats = torch.zeros(())
            for first in range(0, len(ids) - 1, 16):  # the windows of 16 predictions
                last = min(first + 16, len(ids) - 1)
                start = max(0, last - 16)
                logits = model(torch.tensor([ids[start:last]])).logits[0]
                wanted = torch.tensor(ids[first + 1 : last + 1])
                nats = nats + F.cross_entropy(logits[first - start :], wanted, reduction="sum")
            model.zero_grad()
            (nats / (len(ids) - 1)).backward()
            assert weight.grad is not None
            expected += share / len(texts) * weight.grad.square()
    assert torch.allclose(
        found.fisher["transformer.h.0.mlp.c_fc.weight"], expected.t(), rtol=1e-3, atol=1e-12
    )


def test_a_mix_that_the_texts_cannot_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="declares 9 texts of 'xx' and 2 are there"):
        calibrate(model_of("gpt2"), letters(), TEXTS, CalibrationMix(texts=(("xx", 9),)), prefix_id=0)
    with pytest.raises(ValueError, match=r"'sw' and 0 are there \(languages: en, xx\)"):
        calibrate(model_of("gpt2"), letters(), TEXTS, CalibrationMix(texts=(("sw", 1),)), prefix_id=0)


def test_a_language_that_the_model_makes_no_numbers_of_is_refused_by_name() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[letters().encode("z").ids[0]] = float("nan")
    with pytest.raises(ValueError, match=r"^xx: the inputs of model\.layers\.0\..* \(14 of 14 layers\)"):
        calibrate(model, letters(), TEXTS, MIX, prefix_id=0)
    calibrate(model, letters(), TEXTS, CalibrationMix(texts=(("en", 3),), block_size=16), prefix_id=0)
