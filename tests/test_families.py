"""Each family goes the quantisation study's whole way, and another kind is refused by its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.calibration import calibrate
from models.families import FAMILIES, refuse_unknown_family
from models.gptq import gptq_by_layer
from models.losses import encode, sentence_losses
from models.packing import read, write
from models.quant_spec import SELECTORS, CalibrationMix, Preservation, QuantSpec
from models.quantize import quantized, quantized_tensors
from tests.scored_models import FAMILY_NAMES, POSITIONS, TEXTS, small_model, small_tokenizer

SPEC = QuantSpec(bits=3, group_size=16)
MIX = CalibrationMix(texts=(("en", 6),), block_size=32)
PROSE = tuple(f"The ferry number {n} leaves the northern harbour at {n + 5}." for n in range(6))


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_packed_file_gives_back_the_weights_an_evaluation_ran_on(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    tensors = {target.name: tensor for target, tensor in quantized_tensors(model, SPEC)}
    write(tensors, tmp_path / "packed.safetensors")
    stored = read(tmp_path / "packed.safetensors")
    with quantized(model, SPEC) as coverage:
        assert set(stored) == set(coverage.modules)
        for name, tensor in stored.items():
            values = tensor.dequantized()
            here = model.get_parameter(name)
            assert torch.equal(here, values) or torch.equal(here, values.t())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_selectors_and_gptq_read_what_calibration_says_of_every_layer(family: str) -> None:
    model, tokenizer = small_model(family), small_tokenizer()
    statistics = calibrate(model, tokenizer, {"en": PROSE}, MIX, prefix_id=0, grams=True, fisher=True)
    texts = encode(tokenizer, TEXTS, block_size=POSITIONS, prefix_id=0)
    bits, before = {}, sentence_losses(model, texts).bits
    for selector in SELECTORS:
        asked = Preservation(selector=selector, percent=10.0)
        with quantized(model, SPEC, asked, statistics) as coverage:
            bits[selector] = tuple(sentence_losses(model, texts).bits)
        assert set(coverage.modules) == set(statistics.fisher) == set(statistics.input_norms)
    with quantized(model, SPEC, None, statistics, quantizer=gptq_by_layer(SPEC, statistics)):
        bits["gptq"] = tuple(sentence_losses(model, texts).bits)
    assert len(set(bits.values())) == len(bits)
    assert (sentence_losses(model, texts).bits == before).all()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_gptq_leaves_less_error_in_each_layers_output_than_rounding(family: str) -> None:
    model = small_model(family)
    statistics = calibrate(model, small_tokenizer(), {"en": PROSE}, MIX, prefix_id=0, grams=True)
    whole = {target.name: target.matrix().double() for target, _ in quantized_tensors(model, SPEC)}

    def error(quantizer: Any) -> float:
        found = 0.0
        for target, tensor in quantized_tensors(model, SPEC, quantizer=quantizer):
            off = tensor.dequantized().double() - whole[target.name]
            found += float((off @ statistics.grams[target.name] * off).sum())
        return found

    assert error(gptq_by_layer(SPEC, statistics)) < 0.8 * error(None)


def config(folder: Path, text: str) -> str:
    """A model's directory with this `config.json`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return str(folder)


def test_known_kinds_pass_and_another_is_refused_with_those_that_are_allowed(tmp_path: Path) -> None:
    for kind in FAMILIES:
        refuse_unknown_family(config(tmp_path / kind, json.dumps({"model_type": kind})))
    other = config(tmp_path / "other", '{"model_type": "mamba"}')
    with pytest.raises(ValueError, match=r"'mamba' \(.*other/config\.json\); allowed: gpt2, .*, bloom, xglm"):
        refuse_unknown_family(other)
    with pytest.raises(ValueError, match="model type None"):
        refuse_unknown_family(config(tmp_path / "list", "[]"))
    with pytest.raises(ValueError, match=r"broken/config\.json cannot be read as JSON"):
        refuse_unknown_family(config(tmp_path / "broken", "{"))


def test_a_hub_id_is_judged_by_the_config_in_the_cache_and_passes_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    here = tmp_path / "models--owner--name"
    config(here / "snapshots" / commit, '{"model_type": "mamba"}')
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="model 'owner/name' has model type 'mamba'"):
        refuse_unknown_family("owner/name")
    for absent in ("owner/other", "./no/such/folder", str(tmp_path / "nothing")):
        refuse_unknown_family(absent)
