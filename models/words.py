"""The 64-bit words behind each kind of entropy source: generators, the operating system, faulty controls.

Each builder takes the stream and the dose of a source and returns a function: asked for n, it gives the next
n words. One call is one request, which matters where a request is the unit (`hmix`, `tiled`). Words and not
bytes, because every definition here speaks of 64-bit draws and NumPy makes 50,000 of them in under 1 ms.
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
"""Binary digits of the probability of a biased bit: it is met within 2^-17."""


def _mt19937(stream: int | None, dose: float | None) -> Words:
    generator = random.Random(stream)

    def words(n: int) -> NDArray[np.uint64]:
        # getrandbits fills from the low end, so one call of 64 n bits equals n calls of 64 bits.
        return np.frombuffer(generator.getrandbits(64 * n).to_bytes(8 * n, "little"), "<u8")

    return words


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
    """The first `n_words` 64-bit words of a digest stretched in counter mode.

    Block 0 is the digest itself, block j is SHA-256(digest, j as 8 bytes big-endian), four words a block.

    >>> first = expand(bytes(32), 6)
    >>> int(first[0]), len(set(first.tolist()))
    (0, 3)
    """
    keyed = hashlib.sha256(digest)
    blocks = [digest]
    for j in range(1, -(-n_words // 4)):
        block = keyed.copy()
        block.update(j.to_bytes(8, "big"))
        blocks.append(block.digest())
    return np.frombuffer(b"".join(blocks), ">u8")[:n_words].astype(np.uint64)


def _constant(stream: int | None, dose: float | None) -> Words:
    value = _mt19937(stream, dose)(1)
    return lambda n: np.repeat(value, n)


def _short_range(stream: int | None, dose: float | None) -> Words:
    generator = random.Random(stream)
    return lambda n: np.array([generator.randint(0, SHORT_RANGE_TOP) for _ in range(n)], np.uint64)


def _biased_bits(stream: int | None, dose: float | None) -> Words:
    draw = _mt19937(stream, dose)
    digits = round((0.5 + (dose or 0.0)) * 2**BIAS_DIGITS)

    def words(n: int) -> NDArray[np.uint64]:
        if digits == 2**BIAS_DIGITS:
            return np.full(n, 2**64 - 1, np.uint64)
        # Bit by bit Horner: OR for a binary digit 1 of the probability, AND for a 0, from the last digit up.
        out = np.zeros(n, np.uint64)
        for level, fresh in enumerate(draw(n * BIAS_DIGITS).reshape(n, BIAS_DIGITS).T):
            out = out | fresh if digits >> level & 1 else out & fresh
        return out

    return words


def _lag1(stream: int | None, dose: float | None) -> Words:
    generator, rho, last = random.Random(stream), dose or 0.0, None

    def step() -> int:
        # Repeating the last word with probability rho keeps words uniform and makes rho their correlation.
        nonlocal last
        if last is None or generator.random() >= rho:
            last = generator.getrandbits(64)
        return last

    return lambda n: np.array([step() for _ in range(n)], np.uint64)


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
        return np.resize(np.frombuffer(digest, ">u8"), n).astype(np.uint64)

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
