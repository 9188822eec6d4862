"""First and last sentences of each topic, measured once, and the comparison of both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.english import pydoc_english
from stats.equivalence import tost
from stats.paired_seeds import paired_t
from stats.rows import TestRow
from tasks.shell import product_key

KIND = "sentence_length"
CODE = (__name__, "models.english", "stats.equivalence", "stats.paired_seeds")
"""What the numbers depend on: edit one of these, or what it imports, and they are made again."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the comparison is told."""

    topics: int
    margin: float
    alpha: float


def analysis_key(asked: Asked) -> str:
    """The same as long as neither the question nor the code changes."""
    return fingerprint({"asked": asked, "code": code(*CODE)})


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="compare sentences",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def compare_sentences(home: str, asked: Asked, key: str) -> str:
    """Measure the topics and compare both ends unless that was done; returns the key of the product."""
    corpus = pydoc_english()
    pairs = [ends(text) for text in corpus.train + corpus.heldout]
    kept = [pair for pair in pairs if pair is not None][: asked.topics]
    rows = compare(np.array(kept, dtype=np.float64), asked)
    Products(Path(home), KIND).write(key, {"words": kept, "rows": [asdict(row) for row in rows]})
    return key


def ends(text: str) -> tuple[int, int] | None:
    """Words of the first and of the last sentence; None for a topic of one sentence.

    >>> ends("It is a word. So are these two words.")
    (4, 5)
    """
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
    return (len(sentences[0].split()), len(sentences[-1].split())) if len(sentences) > 1 else None


def compare(words: np.ndarray[Any, np.dtype[np.float64]], asked: Asked) -> list[TestRow]:
    """The difference last minus first with its interval, and the verdict.

    Parameters
    ----------
    words
        (topics, 2), first and last.
    """
    t = paired_t(words[:, 1], words[:, 0], alpha=asked.alpha)
    shared: dict[str, Any] = {"family": "length", "metric": "words", "contrast": "last-first", "n": t.n}
    difference = TestRow(
        hypothesis="difference", method="paired t over topics", role="decides", estimate=t.estimate,
        low=t.low, high=t.high, statistic=t.statistic, df1=float(t.df), p=t.p, alpha=asked.alpha,
        margin=asked.margin, reason=t.reason, **shared,
    )  # fmt: skip
    if t.se is None or t.p is None:
        return [difference]
    same = tost(t.estimate, t.se, t.df, asked.margin, asked.alpha)
    found = "DETECTED" if t.p < asked.alpha else "EQUIVALENT" if same.equivalent else "INCONCLUSIVE"
    verdict = TestRow(
        hypothesis="verdict", method="t, then two one-sided tests", role="verdict", verdict=found,
        negligible=found == "DETECTED" and same.equivalent, **shared,
    )  # fmt: skip
    return [difference, verdict]
