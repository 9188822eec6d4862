"""What a head answers to retrieval and coherence items, and where it looks: plain data, judged elsewhere.

A context's sense is the nearest prototype: the mean vector of a sense's examples and gloss, those there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.sense_head import attention_entropy
from models.sense_items import CoherenceItem, RetrievalItem
from models.sense_steps import with_other_answers
from models.sense_texts import Network, Numbering, Read, Texts
from models.sense_tokens import Marked, marked, words_of
from models.sense_training import cosines, questions

FEW = 5
"""Fewer items than this may all be of one place by chance."""
DIGITS = 6
"""Of scores that are kept; float32 has no more."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Where a head looks in a query."""

    item: str
    entropy: float | None
    """H(w) / ln T; None for a text of one token."""
    cue_mass: float | None
    """Attention on cue words; None where the text has none, or tokens are no words."""
    lemma_mass: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A query with its attention, to be looked at."""

    item: str
    tier: int | None
    words: tuple[str, ...]
    target: tuple[bool, ...]
    cues: tuple[bool, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the vectors of queries lie."""

    mean_cosine: float
    """Of two different queries; near 1 where all vectors are one."""
    effective_dimensions: float
    """Participation ratio of the covariance's eigenvalues: (sum)^2 / sum of squares."""


def retrieval_scores(
    network: Network, read: Read, items: Sequence[RetrievalItem]
) -> tuple[list[list[float]], Texts, Tensor, Tensor, Tensor]:
    """Cosine of each candidate of each item; the texts, their vectors and attention, and the queries."""
    asked = questions(items, read)
    z, w = network.vectors(asked.texts)
    scores = cosines(z, asked)
    kept = [
        [round(float(one), DIGITS) for one in row[: len(item.candidates)]]
        for row, item in zip(scores, items, strict=True)
    ]
    return kept, asked.texts, z, w, asked.query


def attention_of(
    items: Sequence[RetrievalItem], texts: Texts, w: Tensor, query: Tensor, *, by_word: bool
) -> list[Attention]:
    """Where the head looks in each query."""
    entropy = attention_entropy(w[query])
    tokens = texts.mask[query].sum(-1)
    relative = entropy / tokens.clamp(min=2).float().log()
    lemma = (w[query] * texts.target[query]).sum(-1)
    found = []
    for place, item in enumerate(items):
        cues = cue_flags(item) if by_word else ()
        own = w[query[place]]
        found.append(
            Attention(
                item=item.id,
                entropy=round(float(relative[place]), DIGITS) if tokens[place] > 1 else None,
                cue_mass=round(float(own[: len(cues)][torch.tensor(cues)].sum()), DIGITS)
                if any(cues)
                else None,
                lemma_mass=round(float(lemma[place]), DIGITS),
            )
        )
    return found


def shown(items: Sequence[RetrievalItem], w: Tensor, query: Tensor, *, each: int = 2) -> list[Shown]:
    """The first `each` queries of each tier with their attention, word by word."""
    found: list[Shown] = []
    for place, item in enumerate(items):
        if sum(one.tier == item.tier for one in found) < each:
            read = words_of(marked(item.query))
            weights = w[query[place]][: len(read.words)]
            found.append(
                Shown(
                    item=item.id,
                    tier=item.tier,
                    words=read.words,
                    target=read.target,
                    cues=cue_flags(item),
                    weights=tuple(round(float(one), 4) for one in weights),
                )
            )
    return found


def cue_flags(item: RetrievalItem) -> tuple[bool, ...]:
    """Whether each word of the query is one of its cues."""
    cues = {cue.lower() for cue in item.query.cue_tokens}
    return tuple(word in cues for word in words_of(marked(item.query)).words)


def spread(z: Tensor) -> Spread:
    """How vectors lie; all equal ones have a mean cosine of 1 and 0 effective dimensions.

    Parameters
    ----------
    z : (N, D) of length 1, N at least 2

    Examples
    --------
    >>> found = spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> round(found.mean_cosine, 4), round(found.effective_dimensions, 4)
    (-0.3333, 2.0)
    """
    n = len(z)
    if n < 2:
        raise ValueError(f"{n} vectors; how they lie needs at least 2")
    total = z.double().sum(0)
    mean_cosine = float((total @ total - n) / (n * (n - 1)))
    away = z.double() - z.double().mean(0)
    eigenvalues = torch.linalg.eigvalsh(away.T @ away)
    squares = float((eigenvalues**2).sum())
    effective = float(eigenvalues.sum()) ** 2 / squares if squares > 0.0 else 0.0
    return Spread(mean_cosine=mean_cosine, effective_dimensions=effective)


def decisions(network: Network, read: Read, items: Sequence[CoherenceItem]) -> list[list[str]]:
    """The sense decided for each context of each item.

    Raises
    ------
    ValueError
        When a sense has neither an example nor a gloss, or all are decided for one place of it.
    """
    numbers = Numbering()
    contexts = [[numbers.number(marked(one)) for one in item.contexts] for item in items]
    senses = [[_parts(item, place, numbers) for place in range(len(item.inventory))] for item in items]
    z, _ = network.vectors(read(numbers.texts))
    found = []
    differ = False
    for item, asked, parts in zip(items, contexts, senses, strict=True):
        if not parts:
            raise ValueError(f"coherence item {item.id!r} has no inventory; there is nothing to decide among")
        prototypes = functional.normalize(torch.stack([z[own].mean(0) for own in parts]), dim=-1)
        alike = z[asked] @ prototypes.T
        differ = differ or bool((alike.amax(1) > alike.amin(1)).any())
        nearest = alike.argmax(1)
        found.append([item.inventory[int(place)].sense_id for place in nearest])
    places = {
        [sense.sense_id for sense in item.inventory].index(one)
        for item, own in zip(items, found, strict=True)
        for one in own
    }
    if found and (not differ or (len(places) == 1 and len(found) >= FEW)):
        raise ValueError(
            f"all {len(found)} items are decided for the same place; a constant scorer decides nothing"
        )
    return found


def _parts(item: CoherenceItem, place: int, numbers: Numbering) -> list[int]:
    sense = item.inventory[place]
    parts = [numbers.number(marked(one)) for one in sense.examples]
    if sense.gloss.strip():
        parts.append(numbers.number(Marked(text=sense.gloss)))
    if not parts:
        raise ValueError(
            f"coherence item {item.id!r}: sense {sense.sense_id!r} has neither example nor gloss; give one"
        )
    return parts


def examine(
    network: Network,
    read: Read,
    retrieval: Sequence[RetrievalItem],
    coherence: Sequence[CoherenceItem],
) -> Mapping[str, object]:
    """Everything a head answers, as plain data.

    Returns
    -------
    dict
        `scores` of each retrieval item's candidates, `attention`, `shown`, `spread`, `known` (share of words
        that the head knows); `decided` and `reshown`, the senses decided for each coherence item, the latter
        with other answers in the items. Empty lists where there are no items of a kind.
    """
    found: dict[str, object] = {
        "scores": [], "attention": [], "shown": [], "spread": None, "known": None, "decided": [],
        "reshown": [],
    }  # fmt: skip
    if retrieval:
        scores, texts, z, w, query = retrieval_scores(network, read, retrieval)
        by_word = read.vocabulary is not None
        told = attention_of(retrieval, texts, w, query, by_word=by_word)
        found |= {
            "scores": scores,
            "attention": [asdict(one) for one in told],
            "shown": [asdict(one) for one in shown(retrieval, w, query)] if by_word else [],
            "spread": asdict(spread(z[query])) if len(query) > 1 else None,
            "known": texts.known,
        }
    if coherence:
        other = [with_other_answers(item) for item in coherence]
        found["decided"] = decisions(network, read, coherence)
        found["reshown"] = decisions(network, read, other)
    return found
