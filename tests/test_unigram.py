"""The unigram model against R and brute force; a network that forgot its text does not beat it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.losses import encode, sentence_losses
from models.unigram import fit_unigram, fitted_on, unigram_losses
from models.windows import Encoded
from tests.scored_models import TEXTS, VOCABULARY, small_model, small_tokenizer

REFERENCE = Path(__file__).parent / "reference" / "unigram_bits.txt"


def sentences(rows: list[list[int]]) -> Encoded:
    """Token rows as texts of one byte a token."""
    sizes = np.array([len(row) for row in rows])
    return Encoded(
        inputs=tuple(np.array([0, *row[:-1]]) for row in rows),
        targets=tuple(np.array(row) for row in rows),
        owner=np.arange(len(rows)),
        tokens=sizes,
        n_bytes=sizes,
        characters=sizes,
        block_size=int(sizes.max()),
        prefix_id=0,
    )


def test_sentence_bits_equal_those_of_a_mixture_in_r() -> None:
    witness = [
        float(row["bits"]) for row in csv.DictReader(REFERENCE.read_text().splitlines(), delimiter="\t")
    ]
    model = fit_unigram([i * i % 37 for i in range(1, 201)], 50)
    held = [(3 * i + i // 7) % 50 for i in range(108)]
    found = unigram_losses(model, sentences([held[9 * i : 9 * i + 9] for i in range(12)]))
    np.testing.assert_allclose(found.sentence_bits, witness, rtol=1e-12)
    assert math.isclose(found.bits_per_token, sum(witness) / 108)
    assert found.bits_per_byte == found.bits_per_token


@given(st.lists(st.integers(0, 19), min_size=1, max_size=60), st.integers(20, 200))
def test_probabilities_are_positive_sum_to_one_and_follow_the_counts(
    tokens: list[int], vocabulary: int
) -> None:
    model = fit_unigram(tokens, vocabulary)
    p = 2.0**-model.bits
    assert p.min() > 0
    assert math.isclose(p.sum(), 1.0, rel_tol=1e-12)
    counts = np.bincount(tokens, minlength=vocabulary)
    assert (np.diff(p[np.argsort(counts, kind="stable")]) > -1e-15).all()
    assert model.fitted_tokens == len(tokens)


def test_windows_of_one_sentence_are_summed_and_its_prefix_is_not_counted() -> None:
    tokenizer = small_tokenizer()
    whole, cut = (encode(tokenizer, TEXTS, block_size=n, prefix_id=0) for n in (400, 7))
    assert len(cut.targets) > len(whole.targets)
    model = fitted_on(whole, VOCABULARY)
    assert model.fitted_tokens == whole.tokens.sum()
    np.testing.assert_array_equal(fitted_on(cut, VOCABULARY).bits, model.bits)
    assert model.bits[0] == model.bits.max()
    mine, theirs = unigram_losses(model, whole), unigram_losses(model, cut)
    np.testing.assert_allclose(mine.sentence_bits, theirs.sentence_bits, rtol=1e-12)
    assert math.isclose(mine.bits_per_byte, mine.sentence_bits.sum() / whole.n_bytes.sum())


def test_a_network_of_equal_logits_is_worse_than_the_unigram_model() -> None:
    tokenizer = small_tokenizer()
    fit = encode(tokenizer, ["The ferry leaves the harbour at seven."] * 3, block_size=48, prefix_id=0)
    held = encode(tokenizer, ["The last ferry leaves at seven."], block_size=48, prefix_id=0)
    model = small_model("gpt2")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    flat = sentence_losses(model, held).bits
    unigram = unigram_losses(fitted_on(fit, VOCABULARY), held)
    assert unigram.sentence_bits[0] < flat[0]
    assert unigram.bits_per_token < math.log2(VOCABULARY)


def test_no_token_is_impossible_and_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        fit_unigram([], 5)
    with pytest.raises(ValueError, match="run from 0 to 5; allowed are 0 to 4"):
        fit_unigram([0, 5], 5)
    with pytest.raises(ValueError, match="run from -1 to 2"):
        fit_unigram([-1, 2], 5)
    model = fit_unigram([0], 5)
    assert np.isfinite(unigram_losses(model, sentences([[1, 2, 3, 4]])).sentence_bits).all()
    with pytest.raises(ValueError, match="run from 1 to 9; allowed are 0 to 4"):
        unigram_losses(model, sentences([[1, 9]]))
