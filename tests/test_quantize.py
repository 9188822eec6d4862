"""Models whose weights are rounded for a while: what is reached, what it weighs, and that it comes back."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    XGLMConfig,
    XGLMForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from models.quant_spec import BITS, LEGACY, CalibrationMix, Preservation, QuantSpec
from models.quantize import checksum, quantized, quantized_tensors, targets
from tests.test_rounding import GRANULARITIES, rounded

SMALL: dict[str, Any] = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(family: str) -> Any:
    """Two blocks of random weights, dropout off."""
    torch.manual_seed(0)
    return _made(family).eval()


def _made(family: str) -> Any:
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=48, n_head=2, n_positions=32, **SMALL))
    if family == "bloom":
        return BloomForCausalLM(BloomConfig(n_layer=2, hidden_size=48, n_head=2, **SMALL))
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, **SMALL}
    shape["max_position_embeddings"] = 32
    if family == "opt":
        return OPTForCausalLM(OPTConfig(ffn_dim=96, word_embed_proj_dim=48, **shape))
    if family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=96, **shape))
    if family == "xglm":
        return XGLMForCausalLM(XGLMConfig(ffn_dim=96, **shape))
    return LlamaForCausalLM(LlamaConfig(intermediate_size=96, **shape))


def state(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- specs


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 5}, "allowed: 2, 3, 4, 8, 16"),
        ({"granularity": "row"}, "allowed: tensor, channel, group"),
        ({"group_size": 0}, "allowed: 1 or more"),
        ({"codebook": "nf4", "bits": 8}, "it takes 4 bits"),
        ({"codebook": "nf4", "symmetric": True}, "it takes 4 bits"),
        ({"scale_rule": "hqq", "symmetric": True}, "set symmetric=False"),
        ({"blocks": ()}, "blocks is empty"),
        ({"blocks": (1, 1)}, "each block's index once"),
        ({"scale_bits": 8}, "allowed: 16, 32"),
        ({"targets": "head"}, "allowed: blocks, weights"),
        ({"scale_rule": "median"}, "allowed: absmax, mse, hqq"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuantSpec(**fields)


def test_specs_are_asked_for_without_torch_and_have_a_fingerprint() -> None:
    code = (
        "import sys; from models.quant_spec import LEGACY, CalibrationMix, Preservation, QuantSpec\n"
        "from lab.fingerprint import fingerprint\n"
        "mix = CalibrationMix(texts=(('en', 2),))\n"
        "print(len({fingerprint(x) for x in (LEGACY, QuantSpec(), Preservation(percent=5.0), mix)}))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "False"]


def test_names_tell_specs_apart() -> None:
    specs = [QuantSpec(bits=bits) for bits in BITS] + [
        LEGACY,
        QuantSpec(codebook="nf4"),
        QuantSpec(blocks=(1,)),
    ]
    assert len({spec.name for spec in specs}) == len(specs)
    with pytest.raises(ValueError, match="each language once"):
        CalibrationMix(texts=(("en", 1), ("en", 2)))


# --- models


FAMILIES = {"gpt2": 4, "opt": 6, "gpt_neox": 4, "llama": 7, "bloom": 4, "xglm": 6}
"""Family -> matrices of a block."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_the_blocks_is_rounded_and_comes_back(family: str) -> None:
    model = model_of(family)
    before, ids = state(model), torch.arange(12)[None]
    reference = model(ids).logits
    for spec in (QuantSpec(group_size=32), QuantSpec(bits=2, granularity="tensor", symmetric=True), LEGACY):
        with quantized(model, spec) as coverage:
            changed = {
                name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
            }
            assert not torch.equal(model(ids).logits, reference)
        if spec != LEGACY:
            assert changed == set(coverage.modules)
            assert len(coverage.modules) == 2 * FAMILIES[family]
            assert not any(
                word in name for name in changed for word in ("norm", "ln_", "embed", "wte", "head")
            )
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model(ids).logits, reference)
        assert coverage.weights == sum(before[name].numel() for name in coverage.modules)
        assert coverage.share == coverage.weights / sum(p.numel() for p in model.parameters())


def test_conv1d_groups_run_along_the_input() -> None:
    model = model_of("gpt2")
    weight = model.transformer.h[0].mlp.c_proj.weight.detach().clone()  # (192, 48): in, out
    with quantized(model, QuantSpec(group_size=64)):
        inside = model.transformer.h[0].mlp.c_proj.weight.detach().clone()
    assert torch.equal(inside, rounded(weight.t().contiguous(), group_size=64).t())


def as_linear(model: Any) -> Any:
    """The model with every Conv1D turned into the Linear of the same map."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(child.weight.shape[0], child.weight.shape[1])
                linear.weight = torch.nn.Parameter(child.weight.detach().t().contiguous())
                linear.bias = child.bias
                setattr(module, name, linear)
    return model


def test_gpt2_rounded_by_torchao_after_conversion_is_gpt2_rounded_here() -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is the witness")
    from torchao.quantization.quant_primitives import MappingType

    asked = ao.IntxWeightOnlyConfig(torch.int4, ao.PerGroup(16), MappingType.ASYMMETRIC)

    def in_blocks(module: Any, name: str) -> bool:
        return isinstance(module, torch.nn.Linear) and ".h." in name

    skipped, converted, ours = model_of("gpt2"), as_linear(model_of("gpt2")), model_of("gpt2")
    ao.quantize_(skipped, asked, filter_fn=in_blocks)
    assert all(type(p) is torch.nn.Parameter for p in skipped.parameters())  # none of 8 touched
    ao.quantize_(converted, asked, filter_fn=in_blocks)
    theirs: dict[str, Tensor] = {}
    for name, value in converted.named_parameters():
        if type(value) is not torch.nn.Parameter:
            theirs[name] = value.dequantize()
    with quantized(ours, QuantSpec(group_size=16)) as coverage:
        assert set(theirs) == set(coverage.modules)
        for name, value in theirs.items():
            assert torch.equal(ours.get_parameter(name).detach().t(), value)


def test_the_legacy_preset_rounds_every_parameter_with_weight_in_its_name() -> None:
    model = model_of("gpt2")
    before = dict(state(model))
    with quantized(model, LEGACY) as coverage:
        inside = state(model)
    unique = [name for name, _ in model.named_parameters() if "weight" in name]
    assert list(coverage.modules) == unique  # the tied head is the embedding and is rounded once
    for name, value in before.items():
        if "weight" not in name:
            assert torch.equal(inside[name], value)
            continue
        scale = (value.abs().max() / 7).clamp(min=torch.finfo(torch.float32).tiny)
        assert torch.equal(inside[name], (value * (1 / scale)).round().clamp(-8, 7) * scale)
    assert coverage.bits_per_weight == pytest.approx(4.0, abs=0.02)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "xglm"])
def test_tied_parameters_are_rounded_once(family: str) -> None:
    model = model_of(family)
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight.data_ptr() == embedding.data_ptr()
    found = [target.parameter.data_ptr() for target in targets(model, LEGACY)]
    assert found.count(embedding.data_ptr()) == 1


def test_a_tie_of_two_parameter_objects_is_rounded_once_and_restored() -> None:
    model = model_of("gpt_neox")
    model.lm_head.weight = torch.nn.Parameter(model.gpt_neox.embed_in.weight.data)
    assert model.lm_head.weight is not model.gpt_neox.embed_in.weight
    before = state(model)
    with quantized(model, LEGACY) as coverage:
        assert torch.equal(model.lm_head.weight, model.gpt_neox.embed_in.weight)
        assert "gpt_neox.embed_in.weight" in coverage.modules
        assert "lm_head.weight" not in coverage.modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_named_blocks_alone_are_rounded() -> None:
    model = model_of("llama")
    with quantized(model, QuantSpec(blocks=(1,), group_size=16)) as coverage:
        assert coverage.modules
        assert all(name.startswith("model.layers.1.") for name in coverage.modules)
    with pytest.raises(ValueError, match="allowed: 0 to 1"), quantized(model, QuantSpec(blocks=(2,))):
        pass


def test_a_rounding_that_reaches_no_weight_is_an_error() -> None:
    empty = GPT2LMHeadModel(GPT2Config(n_layer=0, n_embd=48, n_head=2, n_positions=32, **SMALL))
    with pytest.raises(ValueError, match="nothing to quantise"), quantized(empty, QuantSpec()):
        pass
    model = model_of("gpt2")
    whole = Preservation(structure="block", blocks=(0, 1))
    before = state(model)
    with pytest.raises(ValueError, match="none is rounded"), quantized(model, QuantSpec(), whole):
        pass
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_of_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="load the model with dtype"):
        targets(model_of("gpt2").half(), QuantSpec())


def test_weights_come_back_after_an_error_inside() -> None:
    model = model_of("gpt2")
    before = state(model)
    with pytest.raises(KeyError), quantized(model, QuantSpec(group_size=32)):
        raise KeyError("inside")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nested_roundings_come_back_one_by_one() -> None:
    model = model_of("gpt2")
    first, second = QuantSpec(bits=8, blocks=(0,)), QuantSpec(bits=2, group_size=16)
    before = state(model)
    with quantized(model, first):
        outer = state(model)
        with quantized(model, second):
            pass
        assert all(torch.equal(value, outer[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_parameter_replaced_inside_is_found_out() -> None:
    model = model_of("gpt2")
    layer = model.transformer.h[0].attn.c_attn
    with pytest.raises(RuntimeError, match="weights were not restored"), quantized(model, QuantSpec()):
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone())


def test_the_checksum_sees_one_bit() -> None:
    one, other = torch.zeros(1000), torch.zeros(1000)
    other[999] = torch.finfo(torch.float32).tiny
    assert checksum([("w", one)]) == checksum([("w", one.clone())])
    assert len({checksum(pair) for pair in ([("w", one)], [("w", other)], [("v", one)])}) == 3


@given(st.sampled_from(BITS), GRANULARITIES, st.booleans(), st.sampled_from(["absmax", "mse"]))
@settings(max_examples=30)
def test_what_the_model_computes_with_is_what_the_codes_stand_for(
    bits: int, granularity: str, symmetric: bool, rule: str
) -> None:
    spec = QuantSpec(bits=bits, granularity=granularity, symmetric=symmetric, scale_rule=rule, group_size=40)
    model = model_of("gpt2")
    stored = {target.name: tensor for target, tensor in quantized_tensors(model, spec)}
    with quantized(model, spec) as coverage:
        assert list(stored) == list(coverage.modules)
        for name, tensor in stored.items():
            assert torch.equal(model.get_parameter(name).detach().t(), tensor.dequantized())
