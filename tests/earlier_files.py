"""Files as the earlier scripts wrote them, with metrics by formulas of their own, for tests of the import.

The formulas are written from their definitions, without `stats.diversity`, so that both agree only if both
are right; v1 counted words with their case.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCES = ("PRNG", "TRNG", "HMIX")
DOMAINS = ("creative", "philosophical", "technical", "naming")
LEVELS = {"creative": "open", "philosophical": "open", "technical": "medium", "naming": "open"}
WORDS = [
    a + b for a in ("lo", "ma", "ti", "ru", "se", "Ka", "no") for b in ("ra", "n", "lin", "to", "ve", "d")
]
MODES = ("none", "logit_perturb", "temp_modulate")

Json = dict[str, Any]
Write = Callable[[str, random.Random], str]
"""Source and a generator to a text."""


def text_of(source: str, rng: random.Random, words: int = 70) -> str:
    """A text in which words come back, some of them capitalised; every source writes alike.

    70 to 89 words are 250 to 400 characters.
    """
    picked = rng.choices(WORDS, weights=[1 / (i + 2) for i in range(len(WORDS))], k=words + rng.randrange(20))
    return " ".join(word.capitalize() if rng.random() < 0.2 else word for word in picked)


def long_text(source: str, rng: random.Random) -> str:
    """A text of over 500 characters."""
    return text_of(source, rng, words=200)


def seed_of(*place: object) -> int:
    """A 64-bit seed by place."""
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8], "big")


def metrics_of(text: str, *, lower: bool = True) -> dict[str, float | None]:
    """The metrics of a text, from their definitions."""
    words = (text.lower() if lower else text).split()
    n, kinds = len(words), len(set(words))
    trigrams = [tuple(words[i : i + 3]) for i in range(n - 2)]
    return {
        "length_words": n,
        "shannon_char": _bits(text),
        "shannon_word": (_bits(words) or 0.0) + (kinds - 1) / (2 * n * math.log(2)) if n else None,
        "type_token_ratio": kinds / n if n else None,
        "mtld": _mtld(words) if n >= 10 else None,
        "distinct_2": len({(words[i], words[i + 1]) for i in range(n - 1)}) / (n - 1) if n > 1 else None,
        "repetition_ratio": 1 - len(set(trigrams)) / len(trigrams) if n >= 50 else None,
    }


def _bits(symbols: Sequence[str]) -> float | None:
    if not symbols:
        return None
    shares = [count / len(symbols) for count in Counter(symbols).values()]
    return -sum(p * math.log2(p) for p in shares)


def _mtld(words: Sequence[str]) -> float | None:
    both = [_one_way(words), _one_way(list(reversed(words)))]
    return None if 0.0 in both else sum(len(words) / factors for factors in both) / 2


def _one_way(words: Sequence[str]) -> float:
    factors, part = 0.0, list[str]()
    for word in words:
        part.append(word)
        if len(set(part)) / len(part) <= 0.72:
            factors, part = factors + 1, []
    return factors + (1 - len(set(part)) / len(part)) / 0.28 if part else factors


def prompt_of(index: int) -> tuple[str, str]:
    """Text and domain of a prompt."""
    domain = DOMAINS[index % len(DOMAINS)]
    return f"Prompt {index} about {domain} things, please.", domain


def sample(place: tuple[object, ...], source: str, write: Write, *, lower: bool = True) -> Json:
    """One sample of v1 or v2."""
    seed = seed_of(*place)
    output = write(source, random.Random(seed))
    found: Json = {"seed": seed, "output": output, "metrics": metrics_of(output, lower=lower)}
    return found | {"seed_32": seed % 2**32} if lower else found


def v1(*, prompts: int = 15, samples: int = 10, write: Write = text_of) -> Json:
    """A v1 file: no version, QRNG in place of HMIX, case-sensitive words."""
    return {
        "single_turn": {
            prompt_of(p)[0]: {
                source: {
                    "samples": [sample((source, p, k), source, write, lower=False) for k in range(samples)]
                }
                for source in ("PRNG", "TRNG", "QRNG")
            }
            for p in range(prompts)
        }
    }


def v2(
    *, prompts: int = 15, samples: int = 10, streams: int = 1, turns: int = 0, write: Write = text_of
) -> Json:
    """A v2 file; with `turns`, also three conversations of that many turns."""
    return {
        "experiment_version": "v2",
        "model": "tiny:1b",
        "streams": [
            {
                "stream": 42 + s,
                "single_turn": {
                    prompt_of(p)[0]: _v2_prompt(
                        p, {source: [sample((source, s, p, k), source, write) for k in range(samples)]
                            for source in SOURCES})
                    for p in range(prompts)
                },
                "multi_turn": {
                    f"Conversation {c}": _v2_prompt(
                        c, {source: [_turns((source, s, c, k), source, write, turns) for k in range(samples)]
                            for source in SOURCES})
                    for c in range(3)
                } if turns else {"skipped": True},
                "seed_distributions": {source: {"n": prompts * samples} for source in SOURCES},
            }
            for s in range(streams)
        ],
    }  # fmt: skip


def _turns(place: tuple[object, ...], source: str, write: Write, turns: int) -> Json:
    return {"turns": [sample((*place, t), source, write) for t in range(turns)]}


def _v2_prompt(index: int, samples: Mapping[str, list[Json]]) -> Json:
    domain = prompt_of(index)[1]
    cells = {source: {"samples": found, "aggregate": {"n": len(found)}} for source, found in samples.items()}
    return {"domain": domain, "constraint": LEVELS[domain], **cells}


def injection(
    *, prompts: int = 15, samples: int = 10, cut: int | None = None, write: Write = text_of
) -> Json:
    """A file of direct injection; texts end after `cut` characters, their metrics do not."""
    return {
        "model": "distil",
        "prompts": [
            {
                "prompt": prompt_of(p)[0],
                "domain": prompt_of(p)[1],
                "conditions": {
                    f"{mode}__{source}": {
                        "samples": [
                            _injected((mode, source, p, k), source, write, cut) for k in range(samples)
                        ],
                        "n_valid": samples,
                    }
                    for mode in MODES
                    for source in (SOURCES[:1] if mode == "none" else SOURCES)
                },
            }
            for p in range(prompts)
        ],
    }


def _injected(place: tuple[object, ...], source: str, write: Write, cut: int | None) -> Json:
    output = write(source, random.Random(seed_of(*place)))
    metrics = {name: math.nan if value is None else value for name, value in metrics_of(output).items()}
    return {"output": output[:cut], "metrics": metrics}


def flat(
    *, prompts: int = 15, samples: int = 10, without: Sequence[str] = (), write: Write = text_of
) -> list[Json]:
    """Flat rows; metrics in `without` are NaN in every row."""
    rows = []
    for p in range(prompts):
        for source in SOURCES:
            for k in range(samples):
                made = sample((source, p, k), source, write)
                rows.append({
                    "source": source,
                    "prompt_id": f"p{p:02d}",
                    "category": prompt_of(p)[1],
                    "seed": made["seed"],
                    "metrics": made["metrics"] | dict.fromkeys(without, math.nan),
                    "text_preview": made["output"][:100],
                })  # fmt: skip
    return rows


def emptied(share: float, of: str = "TRNG") -> Write:
    """Texts of which one source loses a share, spread evenly over its prompts."""
    written = Counter[str]()

    def write(source: str, rng: random.Random) -> str:
        n = written[source]
        written[source] += 1
        empty = source == of and math.floor((n + 1) * share) > math.floor(n * share)
        return "" if empty else text_of(source, rng)

    return write


def repeated(source: str, rng: random.Random) -> str:
    """One text for every seed."""
    return text_of(source, random.Random(1))


def all_different(source: str, rng: random.Random) -> str:
    """Texts in which no word comes back: MTLD has no value anywhere."""
    return " ".join(f"w{i}" for i in rng.sample(range(10_000), 80))


def save(path: Path, body: object) -> Path:
    """Write a file as Python's json does, NaN literal and all."""
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def save_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows, one a line."""
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path
