"""Byte-pair tokens of two texts, learned on the one that is trained on.

Byte-level, so any text is encoded and nothing is unknown: the 256 bytes come first, then pairs in the order
of how often they are met (Sennrich et al. 2016, arXiv:1508.07909). The held-out part is never counted. A
text is encoded line by line, so no token reaches over a line's end. This file needs `tokenizers`, not torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.nano_corpus import NanoCorpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256
"""Tokens before the first pair."""
LEAST_COUNT = 2
"""Times a pair must be met to become a token."""


def bpe_corpus(train: str, heldout: str, *, vocab_size: int, source: str) -> NanoCorpus:
    """Two texts as byte-pair tokens of the first.

    Parameters
    ----------
    vocab_size
        Tokens wanted, more than 256; a text with too few pairs that repeat gives fewer.

    Raises
    ------
    ValueError
        When a part is empty or vocab_size has no room for a pair.

    >>> corpus = bpe_corpus("to be or not to be\\n" * 9, "to be", vocab_size=260, source="a line")
    >>> corpus.vocab_size, [corpus.symbols[i] for i in corpus.heldout]
    (260, ['to', ' be'])
    >>> corpus.characters_per_token
    2.5
    """
    if vocab_size <= BYTES:
        raise ValueError(f"vocab_size is {vocab_size}; allowed: {BYTES + 1} or more, as each byte is a token")
    if not train or not heldout:
        raise ValueError(
            f"{source} gives {len(train)} characters to train on and {len(heldout)} held out; both need at "
            "least 1: use a longer text"
        )
    tokenizer = trained_tokenizer(train, vocab_size)
    told = tokenizer.to_str()
    digest = hashlib.sha256(
        json.dumps(
            {
                "tokens": "bpe",
                "vocab_size": vocab_size,
                "tokenizer": hashlib.sha256(told.encode()).hexdigest(),
                "text": hashlib.sha256(f"{train}\f{heldout}".encode()).hexdigest(),
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()
    held = encoded(tokenizer, heldout)
    return NanoCorpus(
        source=source,
        symbols=token_texts(tokenizer),
        train=encoded(tokenizer, train),
        heldout=held,
        sha256=digest,
        characters_per_token=len(heldout) / len(held),
    )


def trained_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """Byte-level pairs of a text's lines; the same text gives the same tokenizer in every process."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_COUNT,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def encoded(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """(tokens,) ids of a text; `tokenizer.decode` gives the text back."""
    lines = tokenizer.encode_batch_fast(text.splitlines(keepends=True))
    return np.concatenate([np.array(line.ids, dtype=np.int64) for line in lines])


def token_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Text of each id, for people; bytes that are no whole character are written as \\xNN."""
    values = _byte_values()
    ids = tokenizer.get_vocab()
    return tuple(
        bytes(values[sign] for sign in token).decode("utf-8", errors="backslashreplace")
        for token in sorted(ids, key=lambda token: ids[token])
    )


def _byte_values() -> dict[str, int]:
    """Sign that byte-level tokens spell a byte with -> the byte, as GPT-2 pairs them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(BYTES) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(BYTES + i): byte for i, byte in enumerate(hidden)}
