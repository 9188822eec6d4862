"""The sampler: one loop that turns prompts, and one stream of uniform numbers a row, into tokens.

A row's tokens must not depend on which rows share its batch, and float32 logits do: a matrix product sums in
another order at another shape, so logits move in their last digits. Two measures make tokens independent of
it. Choices are an inverse CDF in float64 over token ids in ascending order, so a tiny change of logits moves
an edge of the distribution by a tiny amount and never reorders it. And where the row's uniform lies so near
an edge that such a change could decide, a guard takes the token from float64 logits of that sequence alone,
which are the same in every batch.

How a token is chosen is a `Choose`; `InverseCdf` is the one that seeds use. Other ways of choosing (noise
from a source, a temperature that moves) are other small callables of the same shape.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backends import Sampling
from models.decoding import Network
from models.plain import Prompts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

GUARD = 1e-5
"""A uniform this near an edge of the distribution, or a mass this near top_p, is decided in float64."""

LOGIT_ULPS = 4.0
"""How far float32 logits may be off, in roundings of the largest. Closer ones count as tied at a cut; half of
it is the most that such errors can move an edge, and takes the place of GUARD where it is larger."""

SORTED_WHOLE = 4096
"""Columns up to which sorting all takes less time than a partition: 18 us, not 30, for 64 rows of 512."""

COMPACT_BELOW = 0.75
"""Finished rows leave the batch when fewer than this share of its rows is still running."""


@dataclass(frozen=True)
class Choice:
    """The next token of each row, and whether float32 logits were enough to choose it."""

    tokens: Ints
    unsure: Flags


class Choose(Protocol):
    """A way of choosing the next tokens."""

    def __call__(self, logits: Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
        """Choose one token a row.

        Parameters
        ----------
        logits
            (n, vocabulary), finite, repeat penalty applied. float32 from a batch, float64 when `exact`.
        rows
            (n,) the index of each row in the call of `sample`: who it is, not where it stands in the batch.
        step
            Number of tokens that these rows have already.
        exact
            The second asking, with exact logits, about a row that was unsure: noise must be that of the first
            asking, and the answer may not be unsure.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SampledRow:
    """What one row became."""

    tokens: tuple[int, ...]
    """New token ids, the stop token left out."""
    finish_reason: str | None
    """`stop` or `length`; None when the row failed."""
    guarded: int
    """Tokens that the guard chose in float64."""
    failure: str | None
    """What went wrong, with row and step; None when nothing did."""


def row_uniforms(seeds: Sequence[int], steps: int) -> Floats:
    """Each row's own stream: `steps` uniforms in [0, 1) from Philox keyed by the row's seed, (rows, steps).

    Number t is for token t, whatever the other rows do.

    >>> row_uniforms([1, 2], 2)[1].tolist() == row_uniforms([2], 3)[0, :2].tolist()
    True
    """
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(steps) for seed in seeds]
    return np.array(rows, np.float64).reshape(len(rows), steps)


@dataclass(frozen=True)
class Kept:
    """The distribution left by temperature, top-k and top-p: arrays (rows, columns), ids ascending."""

    ids: Ints
    mass: Floats
    """Probability up to a factor a row; 0 where a cut removed the token."""
    doubt: Floats
    """Mass, of the same scale, of tokens so close to a cut that either side is possible; 0 elsewhere."""
    near: Floats
    """(rows,) distance from an edge below which a uniform is undecided."""


def keep(logits: Tensor, sampling: Sampling, *, exact: bool = False) -> Kept:
    """Temperature, then the `top_k` largest logits, then the fewest tokens that reach `top_p` of their mass.

    The order is that of transformers' logits warpers and the kept sets are equal to theirs, but for exactly
    equal logits at the top-k cut: they keep all of them, this keeps `top_k` tokens.

    Parameters
    ----------
    logits
        (rows, vocabulary), finite.
    sampling
        temperature above 0.
    exact
        Break ties by token id and have no doubt.
    """
    vocabulary = logits.shape[1]
    top_k = min(sampling.top_k or vocabulary, vocabulary)
    # One token more than kept, to see how close the cut was.
    values, ids, falling = _largest(logits, min(top_k + 1, vocabulary))
    values, falling = values / sampling.temperature, falling / sampling.temperature
    share = np.exp(falling - falling[:, :1])
    scale = share[:, :top_k].sum(axis=1, keepdims=True)
    reached = np.cumsum(share, axis=1) / scale
    mass = np.exp(values - falling[:, :1]) / scale
    last = np.full(len(values), top_k - 1)  # place, by falling logit, of the last kept token
    if sampling.top_p < 1:
        last = np.minimum((reached < sampling.top_p).sum(axis=1), last)
    lowest = falling[np.arange(len(values)), last][:, None]
    kept = values >= lowest
    if exact:
        equal = values == lowest
        spare = last + 1 - (values > lowest).sum(axis=1)
        kept &= ~equal | (np.cumsum(equal, axis=1) <= spare[:, None])
        return Kept(ids, np.where(kept, mass, 0.0), np.zeros(mass.shape), np.zeros(len(mass)))
    tie = _tie(falling)
    doubtful = _doubtful(values, falling, reached, last, tie, sampling.top_p)
    return Kept(ids, np.where(kept, mass, 0.0), np.where(doubtful, mass, 0.0), np.maximum(GUARD, tie / 2))


def _largest(logits: Tensor, count: int) -> tuple[Floats, Ints, Floats]:
    """The `count` largest logits of each row in float64 by ascending id, their ids, and the same falling."""
    if logits.device.type != "cpu":
        best = torch.topk(logits.double(), count, dim=1).indices.sort(dim=1).values
        values = logits.gather(1, best).double().cpu().numpy()
        return values, best.cpu().numpy(), -np.sort(-values, axis=1)
    x = (logits if logits.dtype == torch.float64 else logits.float()).numpy()
    rows, vocabulary = x.shape
    last = x if vocabulary <= SORTED_WHOLE else np.partition(x, -count, axis=1)[:, -count:]
    falling = np.sort(last, axis=1)[:, : -count - 1 : -1]
    if count == vocabulary:
        ids = np.broadcast_to(np.arange(count), x.shape)
        return x.astype(np.float64), ids, falling.astype(np.float64)
    places = np.flatnonzero(x >= falling[:, -1:])  # a quarter of the time of nonzero
    if len(places) == rows * count:
        ids = places.reshape(rows, count) - np.arange(rows)[:, None] * vocabulary
        values = x.ravel()[places].reshape(rows, count)
    else:  # ties: those of the lower ids
        ids = np.sort(np.argsort(-x, axis=1, kind="stable")[:, :count], axis=1)
        values = np.take_along_axis(x, ids, axis=1)
    return values.astype(np.float64), ids, falling.astype(np.float64)


def _tie(falling: Floats) -> Floats:
    """(rows,) the distance below which two logits count as tied."""
    largest = np.maximum(np.abs(falling[:, 0]), np.abs(falling[:, -1]))
    return np.maximum(GUARD, LOGIT_ULPS * float(np.finfo(np.float32).eps) * largest)


def _doubtful(
    values: Floats, falling: Floats, reached: Floats, last: Ints, tie: Floats, top_p: float
) -> Flags:
    """Tokens that a change in the last digits could move across a cut, (rows, columns).

    Logits tied across the cut can trade places; where the mass reached is within GUARD of top_p, the last
    kept token can fall out or the next one come in.
    """
    each = np.arange(len(values))
    following = np.minimum(last + 1, values.shape[1] - 1)
    low, high = falling[each, last], falling[each, following]
    cut = following > last
    falls = comes = np.zeros(len(values), bool)
    if top_p < 1:
        near = np.maximum(GUARD, tie / 2)
        before = np.where(last > 0, reached[each, last - 1], -np.inf)
        falls = top_p - before < near
        comes = cut & (reached[each, last] - top_p < near)
    close = cut & (low - high <= tie)
    doubtful = np.zeros(values.shape, bool)
    if (close | falls | comes).any():  # in few steps
        doubtful |= (values <= (high + tie)[:, None]) & (values >= (low - tie)[:, None]) & close[:, None]
        doubtful |= (falls[:, None] & (values == low[:, None])) | (comes[:, None] & (values == high[:, None]))
    return doubtful


def pick(kept: Kept, uniforms: Floats, *, exact: bool = False) -> Choice:
    """Inverse CDF over ascending token ids: the token whose interval of cumulated mass holds the uniform.

    A choice is unsure when the uniform lies too near to an end of that interval, or would for some way of
    deciding the doubtful tokens: an interval begins latest when all doubtful tokens before it are kept and
    none after it is, and ends earliest the other way round.
    """
    each = np.arange(len(uniforms))
    upper = np.cumsum(kept.mass, axis=1)
    column = (upper <= (uniforms * upper[:, -1])[:, None]).sum(axis=1)
    tokens = kept.ids[each, column]
    if exact:
        return Choice(tokens, np.zeros(len(tokens), bool))
    sure, maybe = upper, kept.doubt
    if kept.doubt.any():  # else both are what they would become
        sure = np.cumsum(np.where(kept.doubt > 0, 0.0, kept.mass), axis=1)
        maybe = np.cumsum(kept.doubt, axis=1)
    own, here, least = kept.mass[each, column], sure[each, column], sure[:, -1]
    maybe_before, maybe_after = maybe[each, column], maybe[:, -1] - maybe[each, column]
    least = np.maximum(least, np.finfo(np.float64).tiny)  # 0 when every token is doubtful
    latest = (here - own + maybe_before) / (least + maybe_before)
    earliest = here / (least + maybe_after)
    # An interval that begins at 0 or ends at 1 in every case has no edge there to be near to.
    unsure = (uniforms - latest <= kept.near) & (latest > 0)
    unsure |= (earliest - uniforms <= kept.near) & ((here < least) | (maybe_after > 0))
    return Choice(tokens, unsure | (kept.doubt[each, column] > 0))


@dataclass(frozen=True)
class InverseCdf:
    """The `Choose` of a seed: temperature, top-k, top-p, then inverse CDF at the row's own uniform."""

    sampling: Sampling
    uniforms: Floats
    """(rows, steps), in [0, 1)."""

    def __call__(self, logits: Tensor, rows: Ints, step: int, *, exact: bool) -> Choice:
        """See `Choose`."""
        if self.sampling.temperature == 0:
            return likeliest(logits, exact=exact)
        return pick(keep(logits, self.sampling, exact=exact), self.uniforms[rows, step], exact=exact)


def likeliest(logits: Tensor, *, exact: bool) -> Choice:
    """The token of the largest logit; unsure when the second is tied with it."""
    values, ids, falling = _largest(logits, min(2, logits.shape[1]))
    tied = falling[:, 0] - falling[:, -1] <= _tie(falling)
    tokens = np.take_along_axis(ids, values.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Choice(tokens, tied & (not exact) & (values.shape[1] > 1))


@torch.inference_mode()
def sample(
    network: Network, prompts: Prompts, sampling: Sampling, choose: Choose, *, stop: Collection[int] = ()
) -> list[SampledRow]:
    """Continue each prompt until a stop token or `sampling.max_new_tokens` tokens.

    Parameters
    ----------
    network
        From `open_network`.
    prompts
        Token ids, one sequence a row, none empty. With the reply they must fit the network's window.
    sampling
        `max_new_tokens` and `repeat_penalty` act here (a seen token's logit is divided by the penalty when
        positive, multiplied when negative, prompt included); the rest is up to `choose`.
    choose
        Such as ``InverseCdf(sampling, row_uniforms(seeds, sampling.max_new_tokens))``.
    stop
        Token ids that end a row.

    Returns
    -------
    list of SampledRow
        One a prompt, in order. A row whose logits stop being finite ends with a failure; the others go on.

    Raises
    ------
    ValueError
        For an empty prompt, or one too long for the window.
    """
    if not prompts:
        return []
    longest = max(map(len, prompts)) + sampling.max_new_tokens
    if network.window is not None and longest > network.window:
        raise ValueError(
            f"the longest prompt and its reply take {longest} tokens, the model's window holds "
            f"{network.window}; shorten the prompt or lower max_new_tokens"
        )
    run = _Run(network, prompts, sampling, choose, np.array(sorted(stop), np.int64))
    # The last token is chosen and never read, so it needs no place.
    decoding = network.begin(prompts, sampling.max_new_tokens - 1)
    for step in range(sampling.max_new_tokens):
        tokens = run.advance(decoding.logits, step)
        if step + 1 == sampling.max_new_tokens or not run.running.any():
            break
        if run.running.mean() < COMPACT_BELOW:
            places = run.compact()
            decoding.keep(torch.from_numpy(places).to(decoding.logits.device))
            tokens = tokens[places]
        decoding.step(torch.from_numpy(tokens).to(decoding.logits.device))
    return run.results()


@dataclass
class _Run:
    """The rows of one call of `sample` while it goes on."""

    network: Network
    prompts: Prompts
    sampling: Sampling
    choose: Choose
    stop: Ints
    rows: Ints = field(init=False)
    """Row at each place of the batch."""
    running: Flags = field(init=False)
    """Whether the row at each place still runs."""

    def __post_init__(self) -> None:
        n = len(self.prompts)
        self.rows, self.running = np.arange(n), np.ones(n, bool)
        self._tokens = np.zeros((n, self.sampling.max_new_tokens), np.int64)
        self._lengths, self._guarded = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._stopped = np.zeros(n, bool)
        self._failures: dict[int, str] = {}

    def advance(self, logits: Tensor, step: int) -> Ints:
        """Choose the next token at each place, record it for running rows; returns the tokens to read."""
        self._fail(torch.isfinite(logits.sum(dim=1)).cpu().numpy(), step)
        if not self.running.all():  # rows that ended may hold anything; falling logits have no slow ties
            falling = -torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
            logits = torch.where(torch.from_numpy(self.running).to(logits.device)[:, None], logits, falling)
        choice = self.choose(self._penalised(logits, self.rows, step), self.rows, step, exact=False)
        tokens = choice.tokens.astype(np.int64)
        for place in np.flatnonzero(choice.unsure & self.running):
            tokens[place] = self._exact(int(self.rows[place]), step)
        stopping = self.running & np.isin(tokens, self.stop)
        self._stopped[self.rows[stopping]] = True
        self.running &= ~stopping
        going = self.rows[self.running]
        self._tokens[going, step] = tokens[self.running]
        self._lengths[going] = step + 1
        return tokens

    def compact(self) -> Ints:
        """Forget the places of rows that ended; returns the places that stay."""
        places = np.flatnonzero(self.running)
        self.rows, self.running = self.rows[places], self.running[places]
        return places

    def results(self) -> list[SampledRow]:
        """What the rows became."""
        return [self._result(row) for row in range(len(self.prompts))]

    def _result(self, row: int) -> SampledRow:
        failure = self._failures.get(row)
        ended = "stop" if self._stopped[row] else "length"
        return SampledRow(
            tokens=tuple(self._tokens[row, : self._lengths[row]].tolist()),
            finish_reason=None if failure else ended,
            guarded=int(self._guarded[row]),
            failure=failure,
        )

    def _fail(self, finite: Flags, step: int) -> None:
        """End the running rows whose logits are not finite."""
        for place in np.flatnonzero(self.running & ~finite):
            row = int(self.rows[place])
            self._failures[row] = f"logits of row {row} at step {step} are not finite"
            self.running[place] = False

    def _exact(self, row: int, step: int) -> int:
        """The token of one row from float64 logits of its sequence alone."""
        self._guarded[row] += 1
        logits = self.network.exact(self._sequence(row, step))
        who = np.array([row])
        return int(self.choose(self._penalised(logits, who, step), who, step, exact=True).tokens[0])

    def _sequence(self, row: int, step: int) -> list[int]:
        return [*self.prompts[row], *self._tokens[row, :step].tolist()]

    def _penalised(self, logits: Tensor, rows: Ints, step: int) -> Tensor:
        """Logits with `repeat_penalty` on every token that a row holds already."""
        penalty = self.sampling.repeat_penalty
        if penalty == 1:
            return logits
        logits = logits.clone()
        for place, row in enumerate(rows):
            seen = torch.tensor(sorted(set(self._sequence(int(row), step))), device=logits.device)
            values = logits[place, seen]
            logits[place, seen] = torch.where(values > 0, values / penalty, values * penalty)
        return logits
