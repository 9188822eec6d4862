"""States of the tokens of texts by a frozen encoder of the transformers library, from a directory or the hub.

The encoder is in evaluation mode, in float32 and without gradient; its last hidden states are kept in
float16, which halves their size. A row is its text's alone: padding is masked in the encoder and is 0 here,
so the batch a text was in changes its states by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from models.backends import ModelMissing
from models.hub_base import resolve
from models.sense_items import TextItem

UNUSED = "pooler."
"""Weights that a checkpoint may lack: they make no token state."""


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """N texts of up to T tokens, those that the tokeniser adds at both ends included."""

    states: Tensor
    """(N, T, H) float16, on the CPU; 0 where there is no token."""
    mask: Tensor
    """(N, T) bool: tokens that exist."""
    target: Tensor
    """(N, T) bool: tokens that overlap the span; none in a text without one."""
    digest: str
    """Of the encoder's weights and tokeniser, or its id and commit: `models.hub_base.NamedBase`."""


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    ids: tuple[int, ...]
    target: tuple[bool, ...]


def token_states(
    texts: Sequence[TextItem | str],
    where: str,
    *,
    batch_size: int = 64,
    max_tokens: int = 64,
    device: str | None = None,
) -> States:
    """States of the tokens of each text, in order.

    Parameters
    ----------
    texts
        A plain `str`, such as a gloss, has no target.
    where
        A directory that `save_pretrained` wrote, with a fast tokeniser, or a hub id such as
        `sentence-transformers/all-MiniLM-L6-v2`.
    batch_size
        Texts at once; of similar length, whatever their order.
    max_tokens
        Longer texts are cut there, those that the tokeniser adds counted.
    device
        Such as `cpu` or `cuda`; None takes an accelerator when there is one.

    Raises
    ------
    ModelMissing
        When there is no such directory or model.
    ValueError
        Without texts; for a batch size below 1 or a `max_tokens` that leaves no token or that the encoder
        cannot take; for an encoder with a decoder, with missing weights or with a tokeniser that gives no
        offsets; for a target that no token covers or that is cut, with the text; for states that float16
        cannot hold.
    """
    if not texts or batch_size < 1:
        raise ValueError(f"{len(texts)} texts, batches of {batch_size}; give at least 1 of both")
    base = resolve(where)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, model = _tokenizer(base.directory, where), _model(base.directory, where).to(place)
    _check_length(tokenizer, model, max_tokens)
    read = _read(tokenizer, texts, max_tokens)
    _check_ids(model, read, where)
    width = max(len(one.ids) for one in read)
    mask = torch.tensor([[t < len(one.ids) for t in range(width)] for one in read])
    target = torch.tensor([[*one.target, *(False,) * (width - len(one.ids))] for one in read])
    states = torch.zeros(len(read), width, int(model.config.hidden_size), dtype=torch.float16)
    by_length = sorted(range(len(read)), key=lambda n: len(read[n].ids))
    for at in range(0, len(read), batch_size):
        rows = by_length[at : at + batch_size]
        found = _forward(model, [read[n].ids for n in rows], tokenizer.pad_token_id or 0)
        states[rows, : found.shape[1]] = found.half().cpu()
    broken = (~torch.isfinite(states)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(texts)} texts have states that float16 cannot hold, the first "
            f"{_text(texts[broken[0]])[:60]!r}; take another encoder"
        )
    return States(states=states, mask=mask, target=target, digest=base.digest)


def target_means(found: States) -> Tensor:
    """(N, H) float32: the mean state of each text's target tokens, as `models.sense_danger` compares them.

    Raises
    ------
    ValueError
        For a text without a target.
    """
    counts = found.target.sum(dim=1)
    if not bool((counts > 0).all()):
        raise ValueError(
            f"{int((counts == 0).sum())} of {len(counts)} texts have no target; mark one in each"
        )
    weights = found.target.float() / counts[:, None]
    return torch.einsum("nt,nth->nh", weights, found.states.float())


@torch.no_grad()
def _forward(model: Any, rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """(B, T, H) float32 last hidden states, 0 at padding."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *(pad,) * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows], device=model.device)
    hidden: Tensor = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return hidden.masked_fill(~mask[..., None], 0.0)


def _read(tokenizer: Any, texts: Sequence[TextItem | str], max_tokens: int) -> list[_Tokens]:
    """Tokens of each text; only what is too long is read again, cut."""
    whole = _encode(tokenizer, [_text(one) for one in texts])
    found = []
    for one, ids, offsets in zip(texts, whole["input_ids"], whole["offset_mapping"], strict=True):
        read = _Tokens(ids=tuple(ids), target=_overlaps(one, offsets))
        if not ids:
            raise ValueError(f"text {_text(one)[:60]!r} has no tokens; leave it out")
        if isinstance(one, TextItem) and not any(read.target):
            raise ValueError(
                f"no token of {one.text[:60]!r} covers {one.surface!r} at {one.span[0]} to {one.span[1]}; "
                "mark characters that the encoder's tokeniser reads"
            )
        found.append(read if len(ids) <= max_tokens else _cut(tokenizer, one, read, max_tokens))
    return found


def _cut(tokenizer: Any, one: TextItem | str, whole: _Tokens, max_tokens: int) -> _Tokens:
    """As the tokeniser truncates, which keeps the tokens it adds at the ends."""
    cut = _encode(tokenizer, [_text(one)], truncation=True, max_length=max_tokens)
    read = _Tokens(ids=tuple(cut["input_ids"][0]), target=_overlaps(one, cut["offset_mapping"][0]))
    if sum(read.target) < sum(whole.target):
        raise ValueError(
            f"text {_text(one)[:60]!r} has {len(whole.ids)} tokens, and its target is cut at {max_tokens}; "
            "give more max_tokens or a shorter text"
        )
    return read


def _encode(tokenizer: Any, texts: list[str], **cut: Any) -> Any:
    return tokenizer(texts, return_offsets_mapping=True, return_attention_mask=False, verbose=False, **cut)


def _overlaps(one: TextItem | str, offsets: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    """Tokens with a character of the span; those that the tokeniser adds have none."""
    if isinstance(one, str):
        return (False,) * len(offsets)
    first, last = one.span
    return tuple(start < end and start < last and end > first for start, end in offsets)


def _text(one: TextItem | str) -> str:
    return one if isinstance(one, str) else one.text


def _tokenizer(directory: Path, where: str) -> Any:
    with _loading(where):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokeniser of {where!r}, {type(tokenizer).__name__}, gives no character offsets, by which "
            "a lemma's tokens are found; take an encoder with a fast tokeniser (a tokenizer.json)"
        )
    return tokenizer


def _model(directory: Path, where: str) -> Any:
    """In float32, evaluating, without gradient; what is missing would be random."""
    with _loading(where):
        model, found = AutoModel.from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise ValueError(f"{where!r} lacks {len(missing)} weights, the first {missing[0]!r}; save it whole")
    if model.config.is_encoder_decoder:
        raise ValueError(f"{where!r} has a decoder; name an encoder")
    return model.eval().requires_grad_(False)


@contextmanager
def _loading(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelMissing(
            f"cannot load {where!r}: {str(error).strip().splitlines()[0]}",
            fix="give a directory that save_pretrained wrote (model and tokeniser), or a hub id",
        ) from error


def _check_length(tokenizer: Any, model: Any, max_tokens: int) -> None:
    """`max_tokens` holds a token of the text and no more than the encoder has positions for."""
    least = tokenizer.num_special_tokens_to_add() + 1
    most = min(
        getattr(model.config, "max_position_embeddings", None) or max_tokens, tokenizer.model_max_length
    )
    if not least <= max_tokens <= most:
        raise ValueError(f"max_tokens is {max_tokens}; this encoder takes {least} to {most}")


def _check_ids(model: Any, read: Sequence[_Tokens], where: str) -> None:
    rows = model.get_input_embeddings().num_embeddings
    most = max(max(one.ids) for one in read)
    if most >= rows:
        raise ValueError(
            f"the tokeniser of {where!r} gives id {most}, the encoder has {rows}; they are not of one model"
        )
