"""The losses of the head against a plain loop over anchors and candidates, and what must hold of any."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from models.sense_losses import MARGIN, contrast_loss
from models.sense_recipe import LOSSES, Loss

Batch = tuple[NDArray[np.float64], NDArray[np.float64], list[int], list[int]]


def batch(seed: int, n: int, more: int, senses: int, missing: float = 0.2) -> Batch:
    """Anchors, candidates (positives first) and their senses; some of the further candidates are no text."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2 * n + more, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    own = [int(one) for one in rng.integers(0, senses, n)]
    others = [-1 if rng.random() < missing else int(rng.integers(0, senses + 3)) for _ in range(more)]
    return z[:n], z[n:], own, own + others


def by_torch(given: Batch, loss: Loss, temperature: float = 0.1) -> float:
    a, c, own, theirs = given
    found = contrast_loss(
        torch.from_numpy(a), torch.from_numpy(c), torch.tensor(own), torch.tensor(theirs),
        loss=loss, temperature=temperature,
    )  # fmt: skip
    return float(found)


def by_hand(given: Batch, loss: str, temperature: float = 0.1) -> float:
    """One anchor after another, one candidate after another."""
    anchors, candidates, own, theirs = given
    each = []
    for i, anchor in enumerate(anchors):
        near = sum(a * b for a, b in zip(anchor, candidates[i], strict=True))
        against = []
        for j, candidate in enumerate(candidates):
            if j != i and theirs[j] >= 0 and theirs[j] != own[i]:
                against.append(sum(a * b for a, b in zip(anchor, candidate, strict=True)))
        if loss == "infonce":
            total = math.exp(near / temperature) + sum(math.exp(far / temperature) for far in against)
            each.append(-math.log(math.exp(near / temperature) / total))
        elif loss == "triplet":
            each.append(max(0.0, 0.5 - near + max(against)) if against else 0.0)
        else:
            slack = [max(0.0, 0.5 - near + far) for far in against]
            each.append(sum(slack) / len(slack) if slack else 0.0)
    return sum(each) / len(each)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 7), more=st.integers(0, 9), senses=st.integers(1, 5))
def test_a_loss_equals_a_plain_loop(loss: Loss, seed: int, n: int, more: int, senses: int) -> None:
    given = batch(seed, n, more, senses)
    for temperature in (0.05, 0.3):
        assert by_torch(given, loss, temperature) == pytest.approx(
            by_hand(given, loss, temperature), rel=1e-9, abs=1e-12
        )


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(6)), rest=st.permutations(range(8)))
def test_the_order_of_bundles_and_of_negatives_changes_nothing(
    loss: Loss, seed: int, order: Sequence[int], rest: Sequence[int]
) -> None:
    a, c, own, theirs = batch(seed, 6, 8, 3)
    places = [*order, *(6 + j for j in rest)]
    turned = a[list(order)], c[places], [own[i] for i in order], [theirs[j] for j in places]
    assert by_torch(turned, loss) == pytest.approx(by_torch((a, c, own, theirs), loss), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.9))
def test_a_positive_nearer_to_its_anchor_lowers_the_loss(loss: Loss, seed: int, share: float) -> None:
    a, c, own, theirs = batch(seed, 1, 6, 1, missing=0.0)
    theirs = [own[0], *range(1, 7)]
    nearer = c.copy()
    nearer[0] = (1 - share) * c[0] + share * a[0]
    nearer[0] /= np.linalg.norm(nearer[0])
    before, after = by_torch((a, c, own, theirs), loss), by_torch((a, nearer, own, theirs), loss)
    assert after < before or before == after == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_texts_of_the_anchors_own_sense_and_missing_ones_are_masked_and_others_count(loss: Loss) -> None:
    a, c, own, theirs = batch(3, 4, 0, 1)
    own, theirs = [0, 1, 2, 3], [0, 1, 2, 3]
    before = by_torch((a, c, own, theirs), loss)
    twin = np.concatenate([c, a])  # each anchor itself, the nearest candidate there can be
    assert by_torch((a, twin, own, [*theirs, -1, -1, -1, -1]), loss) == pytest.approx(before, rel=1e-12)
    single = a[:1], np.concatenate([c, a[:1]]), own[:1]
    assert by_torch((*single, [*theirs, 0]), loss) == pytest.approx(
        by_torch((a[:1], c, own[:1], theirs), loss), rel=1e-12
    )
    assert by_torch((*single, [*theirs, 9]), loss) > by_torch((a[:1], c, own[:1], theirs), loss)


def test_two_bundles_of_one_sense_do_not_push_each_other_away() -> None:
    a = torch.nn.functional.normalize(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    c = torch.nn.functional.normalize(torch.randn(2, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    same, other = torch.tensor([5, 5]), torch.tensor([5, 6])
    assert float(contrast_loss(a, c, same, same)) == 0.0
    assert float(contrast_loss(a, c, other, other)) > 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_where_nothing_stands_against_an_anchor(loss: Loss) -> None:
    z = torch.eye(3, requires_grad=True)
    senses = torch.zeros(3, dtype=torch.long)
    found = contrast_loss(z, z, senses, senses, loss=loss)
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == 0.0
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_triplet_asks_of_the_hardest_what_hinge_asks_on_average() -> None:
    given = batch(5, 4, 8, 4)
    assert by_torch(given, "triplet") >= by_torch(given, "hinge")
    z = torch.tensor([[1.0, 0.0]])
    far = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    senses = torch.tensor([0]), torch.tensor([0, 1, 2])
    # cosines against: .8 and -1; slack: .5 - 1 + .8 = .3 and none
    assert float(contrast_loss(z, far, *senses, loss="triplet")) == pytest.approx(0.3, rel=1e-6)
    assert float(contrast_loss(z, far, *senses, loss="hinge")) == pytest.approx(0.15, rel=1e-6)
    assert MARGIN == 0.5


def test_a_lower_temperature_asks_less_of_a_positive_that_is_nearest() -> None:
    z, senses = torch.eye(3), torch.arange(3)
    values: list[Tensor] = [contrast_loss(z, z, senses, senses, temperature=t) for t in (0.5, 0.2, 0.1)]
    assert float(values[0]) > float(values[1]) > float(values[2])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_not_above_0_is_refused(temperature: float) -> None:
    z, senses = torch.eye(2), torch.arange(2)
    with pytest.raises(ValueError, match=r"temperature is .*; it must be above 0"):
        contrast_loss(z, z, senses, senses, temperature=temperature)


def test_another_loss_is_refused() -> None:
    z, senses = torch.eye(2), torch.arange(2)
    with pytest.raises(ValueError, match="unknown loss 'cosine'; allowed are infonce, triplet, hinge"):
        contrast_loss(z, z, senses, senses, loss="cosine")  # type: ignore[arg-type]
