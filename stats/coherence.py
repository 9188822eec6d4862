"""Does a scorer follow a lemma's sense through two or three contexts? Steps, transitions, the last step.

A decision is the nearest of the lemma's senses (`nearest_senses`), made without the answers. A scorer that
is missing, says one thing throughout or repeats the answers is an error. Whether it reads the answers is
found by showing it others: decisions that then change are no decisions. Without that second showing,
decisions that equal the answers in every step are refused, since nothing tells them from an echo.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stats.rows import FloatArray, IntArray

Senses = Sequence[Sequence[Hashable]]
"""Of each item, the sense of each context in order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coherence:
    """One scorer's decisions against the answers; (I,) counts of each item."""

    steps: IntArray
    """Contexts."""
    right: IntArray
    """Contexts whose sense was decided rightly."""
    moves_right: IntArray
    """Moves (sense differs from the context before) that the answers have and the decisions too."""
    moves_decided: IntArray
    moves_gold: IntArray
    final_right: IntArray
    """1 where the last context's sense is right."""

    @property
    def step_accuracy(self) -> float:
        """Right contexts / contexts."""
        return float(self.right.sum() / self.steps.sum())

    @property
    def final(self) -> float:
        """Items whose last context is right / items."""
        return float(self.final_right.mean())

    @property
    def transition_precision(self) -> float | None:
        """Moves in both / moves decided; None where none was decided."""
        return _ratio(self.moves_right.sum(), self.moves_decided.sum())

    @property
    def transition_recall(self) -> float | None:
        """Moves in both / moves of the answers; None where they have none."""
        return _ratio(self.moves_right.sum(), self.moves_gold.sum())

    @property
    def transition_f1(self) -> float | None:
        """2 both / (decided + of the answers): the harmonic mean of precision and recall where both exist."""
        return _ratio(2 * self.moves_right.sum(), self.moves_decided.sum() + self.moves_gold.sum())


def nearest_senses(similarities: Sequence[npt.ArrayLike] | None) -> list[int]:
    """Index of the nearest sense of each context, ties in file order.

    Parameters
    ----------
    similarities : sequence of (senses,) arrays
        Of each context to the prototype (or gloss) of each sense of its lemma; higher is nearer.

    Raises
    ------
    ValueError
        None, fewer than two senses, a number that is not finite, senses tied in every context.

    Examples
    --------
    >>> nearest_senses([[0.1, 0.7], [0.4, 0.4, 0.2]])
    [1, 0]
    """
    if similarities is None or not len(similarities):
        raise ValueError("no similarities; a missing scorer has no coherence")
    rows = [np.asarray(own, dtype=np.float64) for own in similarities]
    for step, own in enumerate(rows):
        if own.ndim != 1 or len(own) < 2:
            raise ValueError(f"context {step}: shape {own.shape}; a decision needs two senses or more")
        if not np.isfinite(own).all():
            raise ValueError(
                f"context {step}: similarities {own.tolist()} are not all finite; mend the scorer"
            )
    if all(np.ptp(own) == 0.0 for own in rows):
        raise ValueError(f"all senses tie in each of {len(rows)} contexts; a constant scorer decides nothing")
    return [int(own.argmax()) for own in rows]


def coherence(decided: Senses | None, gold: Senses, *, reshown: Senses | None = None) -> Coherence:
    """Count right steps, moves and last steps of each item.

    Parameters
    ----------
    decided : sequence of sequences
        Sense decided for each context of each item.
    gold : sequence of sequences
        The answers, two contexts or more an item.
    reshown : sequence of sequences, optional
        What the scorer decides on the same items when they carry other answers; equal to `decided` unless the
        scorer reads them.

    Raises
    ------
    ValueError
        No decisions, or not of these contexts; the same sense in every context of every item while the
        answers vary; decisions that follow the answers shown; decisions equal to the answers throughout, with
        no second showing.

    References
    ----------
    Precision, recall and F1: van Rijsbergen (1979), Information Retrieval, 7. Witness:
    `tests/reference/retrieval.R`.

    Examples
    --------
    >>> found = coherence([("river", "bank"), ("a", "a", "a")], [("river", "money"), ("a", "b", "a")])
    >>> found.step_accuracy, found.final, found.transition_precision
    (0.6, 0.5, 1.0)
    >>> round(found.transition_recall, 3), found.transition_f1
    (0.333, 0.5)
    >>> coherence([("a", "b")], [("a", "b")])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: all 2 decisions equal the answers; ...
    """
    if decided is None or not len(decided):
        raise ValueError(f"no decisions for {len(gold)} items; a missing scorer has no coherence")
    lengths = [len(item) for item in gold]
    if [len(item) for item in decided] != lengths:
        raise ValueError(f"decisions of {len(decided)} items do not fit the {len(gold)} items' contexts")
    if min(lengths) < 2:
        raise ValueError(f"item {lengths.index(min(lengths))} has {min(lengths)} context; allowed: 2 or more")
    _refuse_what_is_no_decision(decided, gold, reshown)
    pairs = list(zip(decided, gold, strict=True))
    right = [[ours == theirs for ours, theirs in zip(d, g, strict=True)] for d, g in pairs]
    moved = [(_moves(d), _moves(g)) for d, g in pairs]
    return Coherence(
        steps=np.array(lengths, dtype=np.int64),
        right=np.array([sum(item) for item in right], dtype=np.int64),
        moves_right=np.array([int((d & g).sum()) for d, g in moved], dtype=np.int64),
        moves_decided=np.array([int(d.sum()) for d, _ in moved], dtype=np.int64),
        moves_gold=np.array([int(g.sum()) for _, g in moved], dtype=np.int64),
        final_right=np.array([item[-1] for item in right], dtype=np.int64),
    )


def _refuse_what_is_no_decision(decided: Senses, gold: Senses, reshown: Senses | None) -> None:
    flat, answers = [s for item in decided for s in item], [s for item in gold for s in item]
    missing = sum(sense is None for sense in flat)
    if missing:
        raise ValueError(f"{missing} of {len(flat)} contexts have no decision; a decision names a sense")
    if len(set(flat)) == 1 < len(set(answers)):
        raise ValueError(f"every decision is {flat[0]!r}; a constant scorer decides nothing")
    if reshown is None:
        if flat == answers:
            raise ValueError(
                f"all {len(flat)} decisions equal the answers; show that they are not read off them: decide "
                "the items again with other answers and pass that as `reshown`"
            )
        return
    if len(reshown) != len(decided):
        raise ValueError(
            f"{len(reshown)} items were decided again, {len(decided)} before; decide all of them"
        )
    changed = sum(tuple(a) != tuple(b) for a, b in zip(decided, reshown, strict=True))
    if changed:
        raise ValueError(
            f"the decisions of {changed} of {len(decided)} items change with the answers shown: the "
            "scorer reads them; hide them from it"
        )


def _moves(senses: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    return np.array([b != a for a, b in pairwise(senses)], dtype=np.bool_)


def _ratio(part: FloatArray | np.int64, whole: FloatArray | np.int64) -> float | None:
    return float(part / whole) if whole else None
