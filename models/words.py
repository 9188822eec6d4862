"""The 64-bit words behind each kind of entropy source: generators, the operating system, faulty controls.

Each builder takes the stream and the dose of a source and returns a function: asked for n, it gives the next
n words. One call is one request, which matters where a request is the unit (`hmix`, `tiled`). Words and not
bytes, because every definition here speaks of 64-bit draws. A request of 50,000 words (one a token of a large
vocabulary, at every token of a text) is made of NumPy operations alone, so that it takes well under 1 ms.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Words = Callable[[int], NDArray[np.uint64]]
"""Asked for n, gives the next n 64-bit words; one call is one request."""

LIVE = frozenset({"trng", "hmix"})
"""Kinds that never give the same words twice; they take no stream."""

DOSES = {"biased_bits": (0.0, 0.5), "lag1": (0.0, 1.0)}
"""Kinds with a dose, and its closed range: eps of P(bit = 1) = 1/2 + eps, and the lag-1 correlation rho."""

SHORT_RANGE_TOP = 1000
"""Largest word of `short_range`."""

BIAS_DIGITS = 16
"""Fair bits for one byte of biased ones: the probability of a byte is met within 2^-BIAS_DIGITS."""


def _twister(stream: int | None) -> Callable[[int], NDArray[np.uint32]]:
    """The 32-bit outputs of CPython's `random.Random(stream)`, n at a time; NumPy runs the same generator."""
    *key, position = random.Random(stream).getstate()[1]
    bits = np.random.MT19937(0)
    bits.state = {"bit_generator": "MT19937", "state": {"key": np.array(key, np.uint32), "pos": position}}
    generator = np.random.Generator(bits)
    return lambda n: generator.integers(0, 2**32, size=n, dtype=np.uint32)


def _mt19937(stream: int | None, dose: float | None) -> Words:
    outputs = _twister(stream)
    return lambda n: _paired(outputs(2 * n))  # `getrandbits(64)`: the first output is the low half


def _paired(outputs: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return outputs.astype("<u4").view("<u8").astype(np.uint64)


def _pcg64(stream: int | None, dose: float | None) -> Words:
    bits = np.random.PCG64(stream)
    return lambda n: np.asarray(bits.random_raw(n), np.uint64)


def _philox(stream: int | None, dose: float | None) -> Words:
    bits = np.random.Philox(stream)
    return lambda n: np.asarray(bits.random_raw(n), np.uint64)


def _trng(stream: int | None, dose: float | None) -> Words:
    return lambda n: np.frombuffer(os.urandom(8 * n), ">u8").astype(np.uint64)


def _hmix(stream: int | None, dose: float | None) -> Words:
    counter = 0

    def words(n: int) -> NDArray[np.uint64]:
        nonlocal counter
        counter += 1
        text = f"{time.time_ns()}-{os.urandom(16).hex()}-{counter}"
        return expand(hashlib.sha256(text.encode()).digest(), n)

    return words


def expand(digest: bytes, n_words: int) -> NDArray[np.uint64]:
    """The first `n_words` 64-bit words of a 32-byte digest stretched in counter mode.

    The digest itself, four words, then Philox 4x64: the digest's first half is its key, the second half where
    its 256-bit counter starts. A SHA-256 a block, as generators of key material stretch, took 3.3 ms for
    50,000 words, nearly all of it calls.

    >>> first = expand(bytes(32), 6)
    >>> int(first[0]), len(set(first.tolist()))
    (0, 3)
    """
    head = np.frombuffer(digest, ">u8").astype(np.uint64)
    if n_words <= len(head):
        return head[:n_words]
    start = np.array([0, 0, head[2], head[3]], np.uint64)  # the low half counts, and never comes near 2^128
    tail = np.random.Philox(key=head[:2], counter=start).random_raw(n_words - len(head))
    return np.concatenate([head, tail])


def _constant(stream: int | None, dose: float | None) -> Words:
    value = _mt19937(stream, dose)(1)
    return lambda n: np.repeat(value, n)


def _short_range(stream: int | None, dose: float | None) -> Words:
    outputs, spare = _twister(stream), np.zeros(0, np.uint64)

    def words(n: int) -> NDArray[np.uint64]:
        # As `randint(0, 1000)`: the top 10 bits of an output, drawn again when above 1000 (23 in 1,024).
        nonlocal spare
        while len(spare) < n:
            top = outputs(n - len(spare) + 8) >> np.uint32(22)
            spare = np.concatenate([spare, top[top <= SHORT_RANGE_TOP].astype(np.uint64)])
        taken, spare = spare[:n], spare[n:]
        return taken

    return words


def _biased_bits(stream: int | None, dose: float | None) -> Words:
    draw = _philox(stream, None)  # half the time of MT19937, which counts at two words a word
    byte = _biased_byte(0.5 + (dose or 0.0))

    def words(n: int) -> NDArray[np.uint64]:
        fair = draw(n * 64 // BIAS_DIGITS // 2).view(np.uint16)  # (8 n,)
        return byte.take(fair).view(np.uint64)

    return words


def _biased_byte(p: float) -> NDArray[np.uint8]:
    """(2^BIAS_DIGITS,) the byte that each 16 fair bits stand for, so that its bits are 1 with chance p.

    Inverse CDF: 16 bits for 8, where drawing bit by bit to the same accuracy takes 16 bits for 1.
    """
    ones = np.array([byte.bit_count() for byte in range(256)])
    upper = np.cumsum(p**ones * (1 - p) ** (8 - ones))
    middle = (np.arange(2**BIAS_DIGITS) + 0.5) / 2**BIAS_DIGITS
    byte: NDArray[np.uint8] = np.searchsorted(upper / upper[-1], middle, side="right").astype(np.uint8)
    return byte


def _lag1(stream: int | None, dose: float | None) -> Words:
    """A word is the last one again with probability rho: words stay uniform, rho is their correlation."""
    new, decide = _mt19937(stream, None), _philox(stream, None)
    repeats_below = np.uint64(round((dose or 0.0) * 2**53))
    last = new(1)  # before the first word, which may repeat it: uniform all the same

    def words(n: int) -> NDArray[np.uint64]:
        nonlocal last
        made = np.concatenate([last, new(n)])
        fresh = decide(n) >> np.uint64(11) >= repeats_below
        newest = np.maximum.accumulate(np.where(fresh, np.arange(1, n + 1, dtype=np.int32), 0))
        made = made[newest]  # 0: the last word stays
        last = made[-1:] if n else last
        return made

    return words


def _quantised8(stream: int | None, dose: float | None) -> Words:
    draw = _mt19937(stream, dose)
    # The top byte in all eight places: 256 values for the seed and for the uniform alike.
    return lambda n: (draw(n) >> np.uint64(56)) * np.uint64(0x0101010101010101)


def _tiled(stream: int | None, dose: float | None) -> Words:
    counter = 0

    def words(n: int) -> NDArray[np.uint64]:
        nonlocal counter
        counter += 1
        digest = hashlib.sha256(f"{stream}-{counter}".encode()).digest()
        return np.tile(np.frombuffer(digest, ">u8").astype(np.uint64), -(-n // 4))[:n]

    return words


BUILDERS: dict[str, Callable[[int | None, float | None], Words]] = {
    "prng": _mt19937,
    "trng": _trng,
    "hmix": _hmix,
    "pcg64": _pcg64,
    "philox": _philox,
    "constant": _constant,
    "short_range": _short_range,
    "biased_bits": _biased_bits,
    "lag1": _lag1,
    "quantised8": _quantised8,
    "tiled": _tiled,
}
