"""Token states of a real, small encoder: the lemma's pieces, padding, cutting, and no trace of the batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from models.backends import ModelMissing
from models.hub_base import resolve
from models.sense_encoder import States, target_means, token_states
from models.sense_items import TextItem

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "old", "bank", "##er", "##s", "of", "a", "river", ".")
POSITIONS = 64
ROUNDING = 2.0**-10
"""One step of float16, relative; float32 before that differs by about 1e-6."""


def fast_tokenizer() -> Any:
    """WordPiece over `WORDS`, with [CLS] and [SEP] at the ends."""
    pieces = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def config(**changes: Any) -> Any:
    made: Any = BertConfig
    return made(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=POSITIONS, initializer_range=0.5, **changes,
    )  # fmt: skip


@cache
def bert(kind: Any = BertModel, vocabulary: int | None = None) -> Any:
    """Untrained, the same each time; with dropout, which evaluation turns off."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = config()
        made.vocab_size = vocabulary or len(WORDS)
        return kind(made).eval()


def saved(directory: Path, model: Any = None, tokenizer: Any = None) -> str:
    (model or bert()).save_pretrained(directory)
    (tokenizer or fast_tokenizer()).save_pretrained(directory)
    return str(directory)


def item(text: str, surface: str) -> TextItem:
    start = text.index(surface)
    return TextItem(text=text, span=(start, start + len(surface)), surface=surface, sense_id="1")


ITEMS = (
    item("the old bank of the river", "bank"),
    item("The Bankers of a river.", "Bankers"),
    item("banks.", "banks"),
    item("a river the old bank of the old river the bankers", "river"),
)
TARGETS = ([3], [2, 3, 4], [1, 2], [2])
LENGTHS = (8, 10, 5, 15)


def pieces_marked(found: States) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in found.target]


def alone(text: str) -> Tensor:
    """(T, H) float32 of one text, by the encoder itself without padding."""
    ids = fast_tokenizer()(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states: Tensor = bert()(input_ids=ids).last_hidden_state[0]
    return states


def test_the_target_is_every_piece_of_the_lemma_and_no_other(tmp_path: Path) -> None:
    found = token_states(ITEMS, saved(tmp_path))
    assert found.mask.sum(dim=1).tolist() == list(LENGTHS)
    assert found.mask.shape == found.target.shape == found.states.shape[:2] == (4, 15)
    assert found.mask.dtype == found.target.dtype == torch.bool
    assert pieces_marked(found) == list(TARGETS)
    assert not (found.target & ~found.mask).any()


@pytest.mark.parametrize(
    ("span", "marked"), [((4, 8), [2]), ((4, 9), [2, 3]), ((9, 11), [3, 4]), ((0, 11), [1, 2, 3, 4])]
)
def test_a_piece_belongs_to_the_target_by_one_character(
    span: tuple[int, int], marked: list[int], tmp_path: Path
) -> None:
    text = "the bankers of"
    one = TextItem(text=text, span=span, surface=text[slice(*span)], sense_id="1")
    assert pieces_marked(token_states([one], saved(tmp_path))) == [marked]


def test_states_are_those_of_the_encoder_on_each_text_alone(tmp_path: Path) -> None:
    found = token_states(ITEMS, saved(tmp_path))
    assert found.states.dtype == torch.float16
    assert not found.states.requires_grad
    for one, length, row in zip(ITEMS, LENGTHS, found.states, strict=True):
        torch.testing.assert_close(row[:length].float(), alone(one.text), rtol=ROUNDING, atol=1e-5)
        assert (row[length:] == 0).all()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batch_size_and_order_change_no_state_by_more_than_rounding(batch_size: int, tmp_path: Path) -> None:
    where = saved(tmp_path)
    whole = token_states(ITEMS, where)
    again = token_states(ITEMS[::-1], where, batch_size=batch_size)
    torch.testing.assert_close(again.states.flip(0).float(), whole.states.float(), rtol=ROUNDING, atol=1e-5)
    assert (again.target.flip(0) == whole.target).all()
    assert (again.mask.flip(0) == whole.mask).all()


def test_a_second_call_gives_the_same_and_the_digest_is_the_encoders(tmp_path: Path) -> None:
    where = saved(tmp_path)
    first, second = token_states(ITEMS, where), token_states(ITEMS[:2], where)
    assert torch.equal(token_states(ITEMS, where).states, first.states)
    assert first.digest == second.digest == resolve(where).digest
    fast = fast_tokenizer()
    fast.add_tokens(["newer"])
    assert token_states(ITEMS, saved(tmp_path, tokenizer=fast)).digest != first.digest


def test_a_plain_text_has_no_target(tmp_path: Path) -> None:
    found = token_states(["the old river", ITEMS[0]], saved(tmp_path))
    assert pieces_marked(found) == [[], TARGETS[0]]
    with pytest.raises(ValueError, match="1 of 2 texts have no target"):
        target_means(found)


def test_the_mean_of_a_target_is_that_of_its_pieces(tmp_path: Path) -> None:
    found = token_states(ITEMS, saved(tmp_path))
    expected = torch.stack([alone(one.text)[at].mean(dim=0) for one, at in zip(ITEMS, TARGETS, strict=True)])
    torch.testing.assert_close(target_means(found), expected, rtol=ROUNDING, atol=2e-3)


def test_a_long_text_is_cut_unless_its_target_would_be(tmp_path: Path) -> None:
    where = saved(tmp_path)
    found = token_states([ITEMS[3], "the old bank of the river"], where, max_tokens=6)
    assert found.mask.sum(dim=1).tolist() == [6, 6]
    assert pieces_marked(found) == [[2], []]
    cut = alone("a river the old")
    torch.testing.assert_close(found.states[0].float(), cut, rtol=ROUNDING, atol=1e-5)
    late = item("the river of the old bank", "bank")
    with pytest.raises(ValueError, match=r"'the river of the old bank' has 8 tokens, .* cut at 7"):
        token_states([ITEMS[0], late], where, max_tokens=7)
    assert pieces_marked(token_states([late], where, max_tokens=8)) == [[6]]
    partly = item("the river of bankers", "bankers")
    with pytest.raises(ValueError, match=r"'the river of bankers' has 8 tokens"):
        token_states([partly], where, max_tokens=7)


def test_characters_that_no_token_covers_are_no_target(tmp_path: Path) -> None:
    one = TextItem(text="the  bank", span=(3, 5), surface="  ", sense_id="1")
    with pytest.raises(ValueError, match="no token of 'the  bank' covers '  ' at 3 to 5"):
        token_states([one], saved(tmp_path))


def test_sizes_that_nothing_fits_in_are_refused(tmp_path: Path) -> None:
    where = saved(tmp_path)
    with pytest.raises(ValueError, match="0 texts, batches of 64"):
        token_states([], where)
    with pytest.raises(ValueError, match="4 texts, batches of 0"):
        token_states(ITEMS, where, batch_size=0)
    for wrong in (2, POSITIONS + 1):
        with pytest.raises(ValueError, match=f"max_tokens is {wrong}; this encoder takes 3 to {POSITIONS}"):
            token_states(ITEMS, where, max_tokens=wrong)


def test_a_tokeniser_without_offsets_is_refused(tmp_path: Path) -> None:
    slow: Any = ByT5Tokenizer
    where = saved(tmp_path, tokenizer=slow())
    with pytest.raises(ValueError, match=r"ByT5Tokenizer, gives no character offsets.*fast tokeniser"):
        token_states(ITEMS, where, max_tokens=20)


def test_a_checkpoint_without_a_pooler_will_do_and_one_that_lacks_other_weights_will_not(
    tmp_path: Path,
) -> None:
    whole = token_states(ITEMS, saved(tmp_path / "whole", bert(BertForMaskedLM)))
    assert whole.states.isfinite().all()
    where = saved(tmp_path / "torn")
    file = Path(where) / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "query" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 weights, the first 'encoder.layer.0.attention.self.query"):
        token_states(ITEMS, where, max_tokens=20)


def test_files_that_are_not_there_or_of_two_models_are_refused(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelMissing, match=r"has no tokenizer\*.json"):
        token_states(ITEMS, str(tmp_path / "bare"))
    where = saved(tmp_path / "broken")
    (Path(where) / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelMissing, match="cannot load"):
        token_states(ITEMS, where)
    with pytest.raises(ValueError, match=r"gives id 12, the encoder has 12; they are not of one model"):
        token_states(ITEMS, saved(tmp_path / "two", bert(BertModel, 12)), max_tokens=20)


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    made: Any = T5Config
    small = made(vocab_size=len(WORDS), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
    both: Any = T5Model
    with pytest.raises(ValueError, match="has a decoder; name an encoder"):
        token_states(ITEMS, saved(tmp_path, both(small)), max_tokens=20)


def test_states_beyond_float16_are_refused_with_the_text(tmp_path: Path) -> None:
    loud = bert(BertModel, len(WORDS) + 1)
    with torch.no_grad():
        loud.encoder.layer[0].output.LayerNorm.weight.fill_(1e6)
    with pytest.raises(
        ValueError, match=r"4 of 4 texts have states .* the first 'the old bank of the river'"
    ):
        token_states(ITEMS, saved(tmp_path, loud), max_tokens=20)
