"""Other libraries behind the Protocol: what each stores is what it gives back, and a missing one says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from models.gptq import Gptq
from models.packing import bits_per_weight, packed, unpacked
from models.quant_adapters import MODULES, Adapter, compare, comparison_table, sqnr_db, why_not
from models.quant_spec import Preservation, QuantSpec
from models.quantize import quantized
from models.rounding import RoundToNearest
from tests.test_rounding import heavy_tailed, printed

Tell = Callable[[str, object], None]

ADAPTERS = [
    Adapter(library="torchao", group_size=64),
    Adapter(library="bitsandbytes", group_size=64),
    *(Adapter(library="hqq", bits=bits, group_size=64) for bits in (2, 3, 4, 8)),
    *(Adapter(library="quanto", bits=bits, group_size=64) for bits in (2, 4)),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def usable(adapter: Adapter) -> Adapter:
    """The adapter, or a skip that says what is missing."""
    reason = why_not(adapter.library)
    if reason is not None:
        pytest.skip(reason)
    return adapter


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_what_a_library_stored_is_what_it_gives_back(adapter: Adapter) -> None:
    found = usable(adapter).quantize(heavy_tailed(), None)
    digest = hashlib.sha256(found.dequantized().numpy().tobytes()).hexdigest()
    if adapter.library == "torchao":  # no printed output: tests/test_rounding.py asks it directly
        ours = RoundToNearest(spec=QuantSpec(group_size=64)).quantize(heavy_tailed(), None)
        assert torch.equal(found.dequantized(), ours.dequantized())
    else:
        kind = " nf4" if adapter.library == "bitsandbytes" else f" {adapter.bits}"
        assert digest == printed()[f"{adapter.library}{kind} 64"][0]
    assert torch.equal(unpacked(packed(found)).dequantized(), found.dequantized())
    scales = {"torchao": 32 + 4, "bitsandbytes": 32, "hqq": 64, "quanto": 32 + adapter.bits}
    assert bits_per_weight(found) == adapter.bits + scales[adapter.library] / 64


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_kept_weights_have_no_say_in_a_librarys_scales(adapter: Adapter) -> None:
    weight = heavy_tailed()
    kept: Any = weight.abs() > 0.3
    values = usable(adapter).quantize(weight, kept).dequantized()
    assert torch.equal(values[kept], weight[kept])
    zeroed = adapter.quantize(weight.masked_fill(kept, 0.0), None).dequantized()
    assert torch.equal(values[~kept], zeroed[~kept])
    error = (values - weight).square().sum()
    assert error < 0.9 * (adapter.quantize(weight, None).dequantized() - weight).square().sum()


@pytest.mark.parametrize("library", MODULES)
def test_a_missing_library_gives_its_reason(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, MODULES[library], None)  # what Python puts there to refuse an import
    reason = why_not(library)
    assert reason is not None
    assert reason.startswith(f"{library} cannot be imported")
    assert "pip install" in reason
    row = compare({"w": heavy_tailed()}, [Adapter(library=library, group_size=64)])[0]
    assert (row.bits_per_weight, row.sqnr_db, row.seconds, row.reason) == (None, None, None, reason)
    assert reason in comparison_table([row])


def test_the_table_has_ours_and_theirs(record_property: Tell) -> None:
    weight = heavy_tailed()
    gram = torch.eye(256, dtype=torch.float64)
    ours = [
        RoundToNearest(spec=QuantSpec(group_size=64)),
        RoundToNearest(spec=QuantSpec(group_size=64, symmetric=True)),
        RoundToNearest(spec=QuantSpec(group_size=64, scale_rule="mse")),
        RoundToNearest(spec=QuantSpec(group_size=64, scale_rule="hqq")),
        RoundToNearest(spec=QuantSpec(group_size=64, codebook="nf4")),
        Gptq(spec=QuantSpec(group_size=64), gram=gram),
    ]
    rows = compare({"a": weight[:32], "b": weight[32:]}, [*ours, *ADAPTERS])
    assert [row.name for row in rows] == [one.name for one in (*ours, *ADAPTERS)]
    assert all((row.reason is None) == (row.sqnr_db is not None) for row in rows)
    assert all(row.reason is None for row in rows[: len(ours)])
    record_property("table", comparison_table(rows))


def test_gpt2_is_covered_by_a_library_that_skips_conv1d() -> None:
    adapter = usable(Adapter(library="torchao", group_size=16))
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=32, n_head=2, n_positions=16, vocab_size=32, bos_token_id=0)
    config.eos_token_id = 0
    model: Any = GPT2LMHeadModel(config)
    spec = QuantSpec(group_size=16)
    with quantized(model, spec) as coverage:
        ours = {name: model.get_parameter(name).detach().clone() for name in coverage.modules}
    with quantized(model, spec, quantizer=lambda _: adapter) as theirs:
        assert theirs.modules == coverage.modules
        assert theirs.weights == coverage.weights > 0
        assert all(torch.equal(model.get_parameter(name), value) for name, value in ours.items())
    asked = Preservation(percent=5.0)
    with quantized(model, spec, asked, quantizer=lambda _: adapter) as theirs, quantized(model, spec) as _:
        assert theirs.kept > 0


def test_an_adapter_that_cannot_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: torchao, bitsandbytes, hqq, quanto"):
        Adapter(library="awq")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"quanto has 3 bits; allowed: \(2, 4\)"):
        Adapter(library="quanto", bits=3)
    adapter = usable(Adapter(library="torchao", group_size=100))
    with pytest.raises(ValueError, match="choose a group size that divides 256"):
        adapter.quantize(heavy_tailed(), None)


def test_noise_is_undefined_without_signal_or_error() -> None:
    some: Tensor = torch.tensor([1.0, 2.0])
    assert sqnr_db(some, some) is None
    assert sqnr_db(torch.zeros(2), some) is None
    row = compare({"w": torch.zeros(2, 64)}, [RoundToNearest(spec=QuantSpec(group_size=64))])[0]
    assert row.sqnr_db is None
    assert row.reason == "the error or the signal is 0"
