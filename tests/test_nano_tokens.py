"""Byte pairs: any text comes back, the held-out part teaches nothing, every process learns the same."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from models import nano_tokens
from models.nano_tokens import bpe_corpus, encoded, token_texts, trained_tokenizer

LINE = "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind. €\n"
TEXT = "".join(f"{n} {LINE}" for n in range(60))


def test_byte_pairs_give_the_text_back_whatever_it_holds() -> None:
    tokenizer = trained_tokenizer(TEXT, 300)
    for text in (TEXT, "日本 €\u2028\r\n\x00 tabs\t\t  \n\n", LINE * 2):
        assert tokenizer.decode(encoded(tokenizer, text).tolist()) == text
    ascii_only = "a b  c\n\n\td" * 9
    texts = token_texts(tokenizer)
    assert "".join(texts[i] for i in encoded(tokenizer, ascii_only)) == ascii_only
    assert len(set(texts)) == 300
    assert "\\xe2" in texts


def test_byte_pairs_learn_nothing_from_the_held_out_part() -> None:
    one = bpe_corpus(TEXT, "Nacht " * 40, vocab_size=400, source="a")
    other = bpe_corpus(TEXT, "zzzzzz" * 40, vocab_size=400, source="a")
    assert one.symbols == other.symbols
    assert np.array_equal(one.train, other.train)
    assert not any("zz" in symbol for symbol in other.symbols)
    assert one.sha256 != other.sha256


def test_byte_pairs_are_the_same_in_a_process_with_other_threads() -> None:
    code = "from models.nano_corpus import library_parts as p; from models.nano_tokens import bpe_corpus; "
    code += "print(bpe_corpus(*p(300_000), vocab_size=600, source='x').sha256)"
    found = set()
    for n in ("1", "3"):
        env = {**os.environ, "RAYON_NUM_THREADS": n, "PYTHONHASHSEED": n}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env)
        found.add(done.stdout)
    assert len(found) == 1


def test_another_tokenizer_of_the_same_text_and_size_is_another_corpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = bpe_corpus(TEXT, LINE, vocab_size=400, source="a")
    monkeypatch.setattr(nano_tokens, "LEAST_COUNT", 1_000_000)
    assert bpe_corpus(TEXT, LINE, vocab_size=400, source="a").sha256 != known.sha256


def test_a_text_without_pairs_gives_fewer_tokens_and_no_error() -> None:
    assert bpe_corpus("abcdef", "fed", vocab_size=500, source="six letters").vocab_size == 256
    with pytest.raises(ValueError, match="vocab_size is 256; allowed: 257"):
        bpe_corpus("abc", "abc", vocab_size=256, source="x")
