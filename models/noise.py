"""What an entropy source does to a token's choice: Gumbel noise, noise on logits, a temperature that moves.

Each class here is a `models.sampling.Choose`, and keeps its promise that a row's tokens do not depend on its
batch. Noise is drawn once a row and step, from that row's own source, and used again when the guard asks a
second time with float64 logits. It is added to logits before temperature and cuts, so the guard's bounds on
what rounding can do to logits hold for perturbed ones as well.

Where the distribution itself is changed, each choice has the Kullback-Leibler divergence of the changed from
the unchanged next-token distribution, both at their temperatures and before top-k and top-p: after the cuts a
token can have mass in one and none in the other, and the divergence is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from models.backends import Sampling
from models.entropy import WordSource, uniforms
from models.sampling import Choice, Floats, Ints, keep, pick

if TYPE_CHECKING:
    from torch import Tensor

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 2.0
"""Bounds of a temperature that moves."""

_FIRST, _LAST = 2.0**-54, 1 - 2.0**-53
"""Uniforms are brought into these bounds where 0 or 1 would give infinite noise."""


@dataclass
class RowNoise:
    """Uniforms a row and step, one request each of the row's own source; kept until the next step."""

    sources: Sequence[WordSource]
    """One a row of the call of `sample`."""
    size: int
    """Numbers a request."""
    _block: Floats = field(init=False, default_factory=lambda: np.zeros((0, 0)))
    _place: dict[int, int] = field(init=False, default_factory=dict)

    def draw(self, rows: Ints) -> Floats:
        """New numbers for these rows, (rows, size), in (0, 1)."""
        block = np.empty((len(rows), self.size))
        for place, row in enumerate(rows.tolist()):
            block[place] = uniforms(self.sources[row], self.size)
        np.clip(block, _FIRST, _LAST, out=block)
        self._place = {row: place for place, row in enumerate(rows.tolist())}
        return block

    def hold(self, noise: Floats) -> Floats:
        """Keep the noise made of the numbers just drawn, for a second asking."""
        self._block = noise
        return noise

    def again(self, rows: Ints) -> Floats:
        """The held noise of these rows."""
        return self._block[[self._place[row] for row in rows.tolist()]]


@dataclass(frozen=True)
class GumbelMax:
    """The kept token of the largest log probability plus Gumbel noise, -ln(-ln u): distributed as they are.

    The noise goes to the kept tokens in the order of their ids. A row is unsure when the two best scores lie
    within what rounding can move them, or a cut is in doubt, which would hand the noise to other tokens.
    """

    sampling: Sampling
    noise: RowNoise
    """Of as many numbers as top-k can keep tokens."""

    def __call__(self, logits: Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
        """See `models.sampling.Choose`."""
        kept = keep(logits, self.sampling, exact=exact)
        noise = self.noise.again(rows) if exact else self.noise.hold(gumbel(self.noise.draw(rows)))
        there = kept.mass > 0
        # Ties in float32 may keep more than top_k; such a row is in doubt and asked again.
        place = np.minimum(np.cumsum(there, axis=1) - 1, self.noise.size - 1).clip(0)
        with np.errstate(divide="ignore"):
            scores = np.log(kept.mass) + np.take_along_axis(noise, place, axis=1)
        best = scores.argmax(axis=1)
        tokens = np.take_along_axis(kept.ids, best[:, None], axis=1)[:, 0]
        if exact:
            return Choice(tokens, np.zeros(len(rows), bool))
        top = np.take_along_axis(scores, best[:, None], axis=1)
        close = (scores >= top - 2 * kept.near[:, None]).sum(axis=1) > 1
        return Choice(tokens, close | (kept.doubt > 0).any(axis=1))


def gumbel(uniforms: Floats) -> Floats:
    """Standard Gumbel noise from uniforms in (0, 1), in their place: -ln(-ln u).

    >>> gumbel(np.array([np.exp(-1.0), 0.5])).round(3).tolist()
    [-0.0, 0.367]
    """
    for _ in range(2):
        np.log(uniforms, out=uniforms)
        np.negative(uniforms, out=uniforms)
    return uniforms


@dataclass(frozen=True)
class Perturbed:
    """Noise of the source added to all logits; the token by inverse CDF at the row's independent uniform."""

    sampling: Sampling
    uniforms: Floats
    """(rows, steps), in [0, 1): not from the source."""
    noise: RowNoise
    """Of as many numbers as the vocabulary has tokens."""
    dose: float
    """Standard deviation of the noise, in logits."""
    law: str
    kl_nats: Floats
    """(rows, steps), filled in as choices are made."""

    def __call__(self, logits: Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
        """See `models.sampling.Choose`."""
        logits = logits if exact else logits.float()
        made = self.noise.again(rows) if exact else self.noise.hold(self._made(rows))
        moved = logits + logits.new_tensor(made)
        warmth = self.sampling.temperature
        self.kl_nats[rows, step] = divergence_nats(moved / warmth, logits / warmth)
        return pick(keep(moved, self.sampling, exact=exact), self.uniforms[rows, step], exact=exact)

    def _made(self, rows: Ints) -> Floats:
        block = standardised(self.noise.draw(rows), self.law)
        block *= self.dose
        return block


def standardised(uniforms: Floats, law: str) -> Floats:
    """Noise of mean 0 and variance 1 from uniforms in (0, 1), in their place.

    `uniform`: (u - 1/2) sqrt 12. `gaussian`: the inverse normal CDF, sqrt 2 erfinv(2u - 1).

    >>> standardised(np.array([0.5, 0.975]), "gaussian").round(3).tolist()
    [0.0, 1.96]
    """
    if law == "uniform":
        uniforms -= 0.5
        uniforms *= math.sqrt(12.0)
        return uniforms
    import torch  # here: naming a law needs none

    uniforms *= 2.0
    uniforms -= 1.0
    # 1 - 2^-53 doubled rounds to 1, whose inverse is infinite
    np.clip(uniforms, -_LAST, _LAST, out=uniforms)
    torch.from_numpy(uniforms).erfinv_().mul_(math.sqrt(2.0))
    return uniforms


@dataclass(frozen=True)
class Modulated:
    """A temperature a token; the token by inverse CDF at the row's independent uniform."""

    sampling: Sampling
    """Its temperature is the one that the cuts and the divergence compare to."""
    uniforms: Floats
    """(rows, steps), in [0, 1): not from the source."""
    temperatures: Floats
    """(rows, steps)."""
    kl_nats: Floats
    """(rows, steps), filled in as choices are made."""

    def __call__(self, logits: Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
        """See `models.sampling.Choose`."""
        logits = logits if exact else logits.float()
        warmth = self.sampling.temperature
        # `keep` divides by one temperature for all rows; what is left to do is a factor a row.
        scaled = logits * logits.new_tensor(warmth / self.temperatures[rows, step])[:, None]
        self.kl_nats[rows, step] = divergence_nats(scaled / warmth, logits / warmth)
        return pick(keep(scaled, self.sampling, exact=exact), self.uniforms[rows, step], exact=exact)


def moved_temperatures(uniforms: Floats, temperature: float, amplitude: float) -> Floats:
    """clamp(T0 + a (u - 1/2), 0.1, 2.0).

    >>> moved_temperatures(np.array([0.0, 0.5, 1.0]), 0.7, 0.3).round(2).tolist()
    [0.55, 0.7, 0.85]
    """
    return np.clip(temperature + amplitude * (uniforms - 0.5), LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)


def divergence_nats(changed: Tensor, unchanged: Tensor) -> Floats:
    """Kullback-Leibler divergence of softmax(changed) from softmax(unchanged), each row, in nats.

    sum p (x - y) - ln Z_x + ln Z_y with x and y the logits and p = softmax(x); in float64.
    """
    x, y = changed.double(), unchanged.double()
    log_zx, log_zy = x.logsumexp(1), y.logsumexp(1)
    p = (x - log_zx[:, None]).exp_()
    nats = p.mul_(x - y).sum(1) - log_zx + log_zy
    found: Floats = nats.clamp_(min=0.0).cpu().numpy()  # of equal distributions rounding leaves +-1e-16
    return found
