"""What the texts of a declared mix say of a network: input norms, input Gram matrices, Fisher diagonal.

Positions of a language are averaged first and languages then by their share of the mix's texts, so a language
whose tokenizer cuts it finer gets no more weight for that. Padding is never read. The network itself is read
only: gradients are asked for and not stored.

    norm_j    = sqrt(E[x_j^2])                 of the input x of a Linear or Conv1D
    gram_jk   = E[x_j x_k]                     half the Hessian of the layer's squared output error
    fisher_ij = E_text[(d loss / d w_ij)^2]    loss in nats per token of one text (empirical Fisher)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from models.losses import embedded, evaluating
from models.preservation import Statistics
from models.quant_spec import CalibrationMix, QuantSpec
from models.quantize import Target, targets
from models.windows import Batch, Encoded, batches_of, encode

TOKENS_A_BATCH = 4096


def calibrate(
    model: nn.Module,
    tokenizer: Any,
    texts: Mapping[str, Sequence[str]],
    mix: CalibrationMix,
    *,
    prefix_id: int,
    grams: bool = False,
    fisher: bool = False,
) -> Statistics:
    """Read the first texts of each language, as many as `mix` says.

    Parameters
    ----------
    grams
        Gather x x^T for GPTQ: 8 in^2 bytes a layer (75 MB at 3,072 inputs).
    fisher
        Gather squared gradients for the selector `hessian`: one backward pass a window.

    Raises
    ------
    ValueError
        For a language without texts, fewer texts than declared, a model with nothing to quantise, or one
        that makes no numbers of a language's texts: weights would be chosen by NaN.
    """
    encoded = {}
    for code, count in mix.texts:
        found = texts.get(code, ())
        if len(found) < count:
            raise ValueError(
                f"calibration declares {count} texts of {code!r} and {len(found)} are there "
                f"(languages: {', '.join(sorted(texts))}); declare fewer or give more"
            )
        encoded[code] = encode(tokenizer, found[:count], block_size=mix.block_size, prefix_id=prefix_id)
    layers = targets(model, QuantSpec())
    with evaluating(model):
        moments, tokens = _moments(model, layers, encoded, mix, grams)
        squares = _fisher(model, layers, encoded, mix) if fisher else {}
    diagonals = {name: one.diagonal() if grams else one for name, one in moments.items()}
    return Statistics(
        mix=mix,
        tokens=tokens,
        input_norms={name: one.sqrt().float() for name, one in diagonals.items()},
        grams=moments if grams else {},
        fisher=squares,
    )


def _shares(mix: CalibrationMix) -> dict[str, float]:
    whole = sum(count for _, count in mix.texts)
    return {code: count / whole for code, count in mix.texts}


def _moments(
    model: nn.Module,
    layers: Sequence[Target],
    encoded: Mapping[str, Encoded],
    mix: CalibrationMix,
    grams: bool,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """E[x x^T] (in, in) or its diagonal (in,) of each layer, float64, and positions read of each language."""
    totals: dict[str, Tensor] = {}
    tokens: dict[str, int] = {}
    for code, share in _shares(mix).items():
        sums: dict[str, Tensor] = {}
        read = 0
        for batch in batches_of(encoded[code], TOKENS_A_BATCH):
            with torch.no_grad(), _listening(model, layers, _adding(sums, batch, grams)):
                model(inputs_embeds=embedded(model, batch), use_cache=False)
            read += batch.real.numel()
        wrong = [name for name, total in sums.items() if not total.isfinite().all()]
        if wrong:
            raise ValueError(
                f"{code}: the inputs of {wrong[0]} ({len(wrong)} of {len(sums)} layers) are not finite on "
                "calibration texts; leave the language out of the mix, or look at the weights"
            )
        tokens[code] = read
        for name, total in sums.items():
            totals[name] = totals.get(name, torch.zeros_like(total)) + total * (share / read)
    return totals, tokens


def _adding(sums: dict[str, Tensor], batch: Batch, grams: bool) -> Callable[[str, Tensor], None]:
    def add(name: str, given: Tensor) -> None:
        rows = given.reshape(-1, given.shape[-1])
        # OPT hands its MLP flattened rows, the others (windows, positions, in): both in the batch's order
        x = rows[batch.real.to(rows.device)].double()
        found = (x.t() @ x if grams else x.square().sum(dim=0)).cpu()
        sums[name] = sums[name] + found if name in sums else found

    return add


@contextmanager
def _listening(
    model: nn.Module, layers: Sequence[Target], hear: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call `hear(parameter name, input)` whenever a layer runs."""
    with ExitStack() as stack:
        for layer in layers:
            module = model.get_submodule(layer.name.removesuffix(".weight"))

            def hook(_: nn.Module, given: tuple[Tensor, ...], name: str = layer.name) -> None:
                hear(name, given[0])

            stack.callback(module.register_forward_pre_hook(hook).remove)
        yield


def _fisher(
    model: nn.Module, layers: Sequence[Target], encoded: Mapping[str, Encoded], mix: CalibrationMix
) -> dict[str, Tensor]:
    """Mean squared gradient of each weight, float32 (out, in)."""
    parameters = [layer.parameter for layer in layers]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    with _differentiable(parameters):
        for code, share in _shares(mix).items():
            texts = encoded[code]
            for text in range(len(texts)):
                for total, slope in zip(sums, _gradients(model, parameters, texts, text), strict=True):
                    total.addcmul_(slope, slope, value=share / len(texts))
    return {
        layer.name: (total.t().contiguous() if layer.transposed else total).cpu()
        for layer, total in zip(layers, sums, strict=True)
    }


def _gradients(model: Any, parameters: Sequence[Tensor], texts: Encoded, text: int) -> list[Tensor]:
    """Gradient of one text's loss in nats per token."""
    slopes = [torch.zeros_like(parameter) for parameter in parameters]
    embed = model.get_input_embeddings()
    device = embed.weight.device
    for window in (texts.owner == text).nonzero()[0]:
        ids = torch.from_numpy(texts.inputs[window])[None].to(device)
        wanted = torch.from_numpy(texts.targets[window]).to(device)
        logits = model(inputs_embeds=embed(ids), use_cache=False).logits[0, -len(wanted) :]
        loss = F.cross_entropy(logits, wanted, reduction="sum") / int(texts.tokens[text])
        for total, slope in zip(slopes, torch.autograd.grad(loss, list(parameters)), strict=True):
            total += slope
    return slopes


@contextmanager
def _differentiable(parameters: Sequence[Tensor]) -> Iterator[None]:
    before = [parameter.requires_grad for parameter in parameters]
    try:
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_(True)
            yield
    finally:
        for parameter, asked in zip(parameters, before, strict=True):
            parameter.requires_grad_(asked)
