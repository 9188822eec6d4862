"""Training a retrieval head: a plain loop over a fixed number of draws, with a look at dev along the way.

Every arm sees `steps` x `batch` bundles whatever it has (`models.sense_conditions.draws`). On dev, whose
lemmas are its own, the state is kept that retrieves best; training ends early when `patience` looks brought
no better one. What the loop draws comes from generators of the seed, so the same call gives the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.sense_conditions import TrainingSet, draws
from models.sense_head import attention_entropy, entropy_floor
from models.sense_items import MOST_NEGATIVES, RetrievalItem
from models.sense_losses import contrast_loss
from models.sense_recipe import HeadRecipe
from models.sense_texts import Network, Numbering, Read, Texts
from models.sense_tokens import marked

NO_TEXT = -1


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where training stood."""

    step: int
    """Done so far."""
    loss_nats: float
    """Mean over the steps since the look before; in units of cosine for triplet and hinge."""
    dev_loss_nats: float
    """-ln softmax(cos / temperature) of the correct candidates of dev items."""
    dev_top1: float
    attention_entropy: float
    """Mean over dev queries of H(w) / ln T."""
    learning_rate: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A head and how it came about."""

    network: Network
    """In the state that was best on dev."""
    looks: tuple[Look, ...]
    best_step: int
    steps_to_threshold: int | None
    """First step at which dev reached the threshold; None when it never did."""
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """Bundles as numbers of texts."""

    texts: Texts
    bundles: Tensor
    """(B, 2 + MOST_NEGATIVES) anchor, positive, within-lemma negatives; NO_TEXT where there are fewer."""
    senses: Tensor
    """(B, 2 + MOST_NEGATIVES) number of each text's sense; NO_TEXT for no text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Retrieval items as numbers of texts."""

    texts: Texts
    query: Tensor
    """(I,)"""
    candidates: Tensor
    """(I, C); NO_TEXT where an item has fewer."""
    correct: Tensor
    """(I, C) bool"""


def lesson(made: TrainingSet, read: Read) -> Lesson:
    """Bundles of a training set; other lemmas' texts come from the rest of a batch."""
    numbers, senses = Numbering(), dict[str, int]()
    rows, labels = [], []
    for one in made.bundles:
        held = (one.anchor, one.positive, *one.within_lemma)
        padding = [NO_TEXT] * (2 + MOST_NEGATIVES - len(held))
        rows.append([numbers.number(marked(item)) for item in held] + padding)
        labels.append([senses.setdefault(item.sense_id, len(senses)) for item in held] + padding)
    return Lesson(texts=read(numbers.texts), bundles=torch.tensor(rows), senses=torch.tensor(labels))


def questions(items: Sequence[RetrievalItem], read: Read) -> Questions:
    """Retrieval items as a head is asked them.

    Raises
    ------
    ValueError
        Without items.
    """
    if not items:
        raise ValueError("there are no retrieval items; give at least 1")
    numbers = Numbering()
    width = max(len(item.candidates) for item in items)
    query = [numbers.number(marked(item.query)) for item in items]
    shown = [
        [numbers.number(marked(one)) for one in item.candidates] + [NO_TEXT] * (width - len(item.candidates))
        for item in items
    ]
    correct = torch.zeros(len(items), width, dtype=torch.bool)
    for row, item in enumerate(items):
        correct[row, list(item.correct)] = True
    return Questions(
        texts=read(numbers.texts),
        query=torch.tensor(query),
        candidates=torch.tensor(shown),
        correct=correct,
    )


def cosines(z: Tensor, asked: Questions) -> Tensor:
    """(I, C) cosine of query and candidate; -inf where there is no candidate."""
    found = (z[asked.query].unsqueeze(1) * z[asked.candidates.clamp(min=0)]).sum(-1)
    return found.masked_fill(asked.candidates == NO_TEXT, -torch.inf)


def train(made: TrainingSet, recipe: HeadRecipe, read: Read, dev: Questions, *, seed: int) -> Trained:
    """Train a head on a set.

    Parameters
    ----------
    read
        With the vocabulary of the set, or the recipe's encoder.
    dev
        Read the same way.
    seed
        Of initialisation, dropout and order.

    Raises
    ------
    ValueError
        A set without bundles; a loss that is not a number.
    """
    started = time.perf_counter()
    order = torch.from_numpy(draws(made, recipe.steps * recipe.batch, seed=seed)).view(recipe.steps, -1)
    taught = lesson(made, read)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = new_network(recipe, read, taught.texts)
        run = _Run(recipe, network, dev)
        for step in range(recipe.steps):
            loss = run.advance(taught, order[step])
            if not math.isfinite(loss):
                raise ValueError(f"the loss of step {step + 1} is {loss}; lower the learning rate")
            if (step + 1) % recipe.dev_every == 0 or step + 1 == recipe.steps:
                run.look(step + 1)
                if run.is_over:
                    break
    return run.ended(time.perf_counter() - started)


def new_network(recipe: HeadRecipe, read: Read, texts: Texts) -> Network:
    """An untrained network, by torch's generator as it stands.

    Raises
    ------
    ValueError
        An encoder whose states have another width than the recipe's head.
    """
    if read.vocabulary is not None:
        return Network(recipe.shape, read.vocabulary.size)
    if texts.states.shape[-1] != recipe.shape.hidden:
        raise ValueError(
            f"the encoder's states have {texts.states.shape[-1]} numbers, the head takes "
            f"{recipe.shape.hidden}; set hidden to {texts.states.shape[-1]}"
        )
    return Network(recipe.shape, None)


class _Run:
    """A training under way."""

    def __init__(self, recipe: HeadRecipe, network: Network, dev: Questions) -> None:
        self._recipe, self._network, self._dev = recipe, network, dev
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, recipe.steps)
        self._losses: list[float] = []
        self._looks: list[Look] = []
        self._best: tuple[float, float, int, dict[str, Tensor]] = (-1.0, 0.0, 0, {})

    def advance(self, taught: Lesson, which: Tensor) -> float:
        """One step on some bundles; returns its loss."""
        recipe, rows, senses = self._recipe, taught.bundles[which], taught.senses[which]
        there = rows != NO_TEXT
        z, w = self._network(taught.texts, rows[there])
        place = torch.full(rows.shape, NO_TEXT)
        place[there] = torch.arange(int(there.sum()))
        candidates = torch.cat([place[:, 1], place[:, 2:][there[:, 2:]]])
        labels = torch.cat([senses[:, 1], senses[:, 2:][there[:, 2:]]])
        loss = contrast_loss(
            z[place[:, 0]],
            z[candidates],
            senses[:, 0],
            labels,
            loss=recipe.loss,
            temperature=recipe.temperature,
        )
        if recipe.entropy_weight:
            loss = loss + recipe.entropy_weight * entropy_floor(w)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        self._losses.append(float(loss.detach()))
        return self._losses[-1]

    def look(self, step: int) -> None:
        """Score dev; keep the state if it is the best so far, by top1 and then by loss.

        Raises
        ------
        ValueError
            The last step left parameters that are no numbers.
        """
        z, w = self._network.vectors(self._dev.texts)
        scores = cosines(z, self._dev)
        top1 = float(self._dev.correct.gather(1, scores.argmax(1, keepdim=True)).float().mean())
        logs = functional.log_softmax(scores / self._recipe.temperature, dim=1)
        dev_loss = float(-logs.masked_fill(~self._dev.correct, -torch.inf).logsumexp(1).mean())
        if not math.isfinite(dev_loss):
            raise ValueError(f"the dev loss after step {step} is {dev_loss}; lower the learning rate")
        rate = float(self._schedule.get_last_lr()[0])
        self._looks.append(
            Look(
                step=step,
                loss_nats=float(np.mean(self._losses)),
                dev_loss_nats=dev_loss,
                dev_top1=top1,
                attention_entropy=relative_entropy(w[self._dev.query], self._dev.texts.mask[self._dev.query]),
                learning_rate=rate,
            )
        )
        self._losses = []
        if (top1, -dev_loss) > self._best[:2]:
            state = {name: value.clone() for name, value in self._network.state_dict().items()}
            self._best = (top1, -dev_loss, step, state)

    @property
    def is_over(self) -> bool:
        """Whether as many looks as the patience came after the best."""
        after = [one for one in self._looks if one.step > self._best[2]]
        return len(after) >= self._recipe.patience

    def ended(self, seconds: float) -> Trained:
        """The best state and what was seen."""
        self._network.load_state_dict(self._best[3])
        reached = [one.step for one in self._looks if one.dev_top1 >= self._recipe.threshold]
        return Trained(
            network=self._network.eval(),
            looks=tuple(self._looks),
            best_step=self._best[2],
            steps_to_threshold=reached[0] if reached else None,
            seconds=seconds,
        )


def relative_entropy(w: Tensor, mask: Tensor) -> float:
    """Mean of H(w) / ln T over texts of T >= 2 tokens: 1 for uniform attention.

    >>> relative_entropy(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[True, True, False]]))
    1.0

    Raises
    ------
    ValueError
        Where every text has one token.
    """
    tokens = mask.sum(-1)
    long = tokens > 1
    if not long.any():
        raise ValueError(f"each of {len(mask)} texts has 1 token; attention has nothing to choose from")
    return float((attention_entropy(w)[long] / tokens[long].float().log()).mean())
