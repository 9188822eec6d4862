"""Damage that chance does to files: to plain data before it is written, and to bytes after.

Everything is drawn from the `random.Random` that is handed in, so a case comes again from its number.
"""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, 5e-324, 2**31, 2**63, 2**64, -(2**63), 10**400,
    float("nan"), float("inf"), -float("inf"), "", " ", "0", "1e999", "NaN", "null", "é", "\u0000",
    "\ud800", "\u2028", "a\nb", "x" * 3000, "../../etc/passwd", "/etc/passwd", "~root", "%s%n{0}{x!r}",
    "'; drop table x", [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": [1]}},
    ["2020-01-01T00:00:00+00:00"], "2020-13-45", "9999-12-31T23:59:59.999999", "en", "TRNG", "DETECTED",
)  # fmt: skip
JUNK = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b'"', b"{", b"}", b"[" * 3000, b"]", b",",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"\\ud800", b"\\u0000", b"\xe2\x80\xa8", b"null",
    b'{"a":' * 60,
)  # fmt: skip


def mutate(body: Any, rng: Random) -> Any:
    """A copy of plain data in which something was replaced, removed, doubled, renamed or put elsewhere."""
    if not isinstance(body, dict | list) or not body or rng.random() < 0.01:
        return copy.deepcopy(rng.choice(STRANGE))
    body = copy.deepcopy(body)
    node = body
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            node = inner
            continue
        _change(node, key, inner, rng)
        return body


def _change(node: Any, key: Any, inner: Any, rng: Random) -> None:
    how = rng.choice(("replace", "replace", "remove", "double", "rename", "nest", "near"))
    if how == "replace":
        node[key] = copy.deepcopy(rng.choice(STRANGE))
    elif how == "remove":
        del node[key]
    elif how == "nest":
        node[key] = [inner] if rng.random() < 0.5 else {str(key): inner}
    elif how == "near" and isinstance(inner, int | float) and abs(inner) < 1e300:
        node[key] = inner * rng.choice((-1, 0, 1.0000001, 2, 1e9)) + rng.choice((0, 1, -1, 0.5))
    elif how == "near" and isinstance(inner, str) and inner:
        place = rng.randrange(len(inner))
        node[key] = inner[:place] + rng.choice(("", "\u0000", "é", " ", "Z", "\ud83d")) + inner[place + 1 :]
    elif isinstance(node, list):
        node.append(copy.deepcopy(inner))
    else:
        names = (*node, "error", "metrics", "samples", "values", "x", "")
        node[rng.choice(names)] = copy.deepcopy(inner)


def mutated(body: Any, rng: Random, *, most: int = 4) -> Any:
    """Up to `most` changes, one after the other; now and then none."""
    for _ in range(rng.randint(0, most)):
        body = mutate(body, rng)
    return body


def damage(raw: bytes, rng: Random) -> bytes:
    """Bytes with bits flipped, a range gone, doubled or cut off, or junk put in."""
    how = rng.choice(("flip", "flip", "junk", "gone", "doubled", "cut", "overwritten"))
    if not raw:
        return rng.choice(JUNK)
    first = rng.randrange(len(raw))
    last = min(len(raw), first + rng.choice((1, 2, 8, 40, 400)))
    if how == "flip":
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 1, 3, 20))):
            changed[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if how == "overwritten":
        return raw[:first] + rng.randbytes(last - first) + raw[last:]
    put = {"junk": rng.choice(JUNK), "gone": b"", "doubled": raw[first:last] * 2, "cut": b""}[how]
    return raw[:first] + put + (b"" if how == "cut" else raw[first if how == "junk" else last :])


def as_bytes(body: Any, rng: Random) -> bytes:
    """JSON text, sometimes damaged as bytes too."""
    raw = json.dumps(body, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.7)
    whole = raw.encode("utf-8", "surrogatepass")
    return damage(whole, rng) if rng.random() < 0.3 else whole


def one_line(error: Exception, *holding: str) -> str:
    """The message, which a person gets as a line of sane length that says where."""
    said = str(error)
    assert said.strip(), f"{type(error).__name__} without a word"
    assert len(said) < 20_000, f"a message of {len(said)} characters: {said[:300]}"
    for part in holding:
        assert part in said, f"no {part!r} in {said!r}"
    return said
