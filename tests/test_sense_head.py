"""The retrieval head against plain arithmetic: attention, padding, penalty, entropy floor, and the phase."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from models.sense_head import (
    SenseHead,
    TokenTable,
    attention_entropy,
    entropy_floor,
    magnitude,
    rotated,
)
from models.sense_recipe import PHASES, POOLINGS, HeadRecipe, HeadShape, Phase, Pooling, recipe_of

SMALL = HeadShape(hidden=8, out=6, dropout=0.0)
N, T = 3, 5


def head(seed: int = 0, **shape: Any) -> SenseHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SenseHead(replace(SMALL, **shape)).eval()


def texts(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """States, mask and target of three texts of 5, 3 and 1 tokens."""
    states = torch.randn(N, T, 8, generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(T) < torch.tensor([5, 3, 1])[:, None]
    target = torch.zeros(N, T, dtype=torch.bool)
    target[:, 0] = True
    return states, mask, target


def ask(made: SenseHead, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        z, w = made(*given)
    return z, w


def turned(states: Tensor, theta: Tensor) -> Tensor:
    real, imaginary = states.chunk(2, dim=-1)
    return rotated(real, imaginary, theta)


def by_hand(made: SenseHead, h: NDArray[np.float64], lemma: list[bool]) -> tuple[NDArray[np.float64], Any]:
    """One text without padding, in plain arithmetic: the formula of the module's head."""
    p = {name: value.detach().double().numpy() for name, value in made.named_parameters()}
    score = np.tanh(h @ p["key.weight"].T + p["key.bias"]) @ p["score.weight"][0] + p["score.bias"][0]
    score -= made.shape.target_penalty * np.array(lemma)
    w = np.exp(score) / np.exp(score).sum()
    pooled = np.sum([weight * row for weight, row in zip(w, h, strict=True)], axis=0)
    inner = p["inner.weight"] @ pooled + p["inner.bias"]
    gelu = np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in inner])
    outer = p["outer.weight"] @ gelu + p["outer.bias"]
    normed = (outer - outer.mean()) / np.sqrt(outer.var() + 1e-5) * p["norm.weight"] + p["norm.bias"]
    return normed / np.sqrt((normed**2).sum()), w


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_the_head_is_its_formula(penalty: float) -> None:
    made = head(target_penalty=penalty)
    states, mask, target = texts()
    z, w = ask(made, (states, mask, target))
    for n in range(N):
        size = int(mask[n].sum())
        wanted, weights = by_hand(made, states[n, :size].double().numpy(), target[n, :size].tolist())
        np.testing.assert_allclose(z[n].numpy(), wanted, atol=1e-5)
        np.testing.assert_allclose(w[n, :size].numpy(), weights, atol=1e-6)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("pooling", POOLINGS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), more=st.integers(1, 4), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_padding_gets_no_weight_and_changes_nothing(
    phase: Phase, pooling: Pooling, seed: int, more: int, scale: float
) -> None:
    made = head(phase=phase, pooling=pooling)
    states, mask, target = texts(seed)
    z, w = ask(made, (states, mask, target))
    assert bool((w[~mask] == 0).all())
    assert bool((w[mask] > 0).all())
    torch.testing.assert_close(w.sum(-1), torch.ones(N))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(N))
    filled = torch.where(mask.unsqueeze(-1), states, scale)
    wide = torch.cat([filled, torch.full((N, more, 8), scale)], dim=1)
    none = torch.zeros(N, more, dtype=torch.bool)
    same_z, same_w = ask(made, (wide, torch.cat([mask, none], 1), torch.cat([target, none], 1)))
    torch.testing.assert_close(same_z, z)
    torch.testing.assert_close(same_w[:, :T], w)


def test_a_texts_vector_does_not_depend_on_the_others_of_its_batch() -> None:
    made, (states, mask, target) = head(phase="rotated"), texts()
    together, _ = ask(made, (states, mask, target))
    for n in range(N):
        alone, _ = ask(made, (states[n : n + 1], mask[n : n + 1], target[n : n + 1]))
        torch.testing.assert_close(alone[0], together[n])


def test_mean_pooling_gives_every_token_the_same_weight() -> None:
    states, mask, target = texts()
    _, w = ask(head(pooling="mean"), (states, mask, target))
    torch.testing.assert_close(w, mask / torch.tensor([[5.0], [3.0], [1.0]]))
    _, own = ask(head(), (states, mask, target))
    assert not torch.allclose(own, w, atol=1e-3)


def test_a_penalty_divides_the_lemmas_odds_by_its_exponential_and_no_others() -> None:
    given = texts()
    _, plain = ask(head(), given)
    _, less = ask(head(target_penalty=2.0), given)
    for n in (0, 1):
        odds = plain[n, 0] / plain[n, 1], less[n, 0] / less[n, 1]
        torch.testing.assert_close(odds[1], odds[0] * math.exp(-2.0))
        torch.testing.assert_close(less[n, 1] / less[n, 2], plain[n, 1] / plain[n, 2])
        assert less[n, 0] < plain[n, 0]
    assert float(less[2, 0]) == 1.0  # the only token keeps all


def test_dropout_acts_in_training_only() -> None:
    made, given = head(dropout=0.5), texts()
    z, w = ask(made, given)
    again, _ = ask(made, given)
    assert torch.equal(z, again)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other, same = ask(made.train(), given)
    assert not torch.allclose(other, z, atol=1e-3)
    assert torch.equal(same, w)


def test_the_entropy_floor_is_what_entropies_fall_short_of_1_nat() -> None:
    w = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(
        attention_entropy(w), torch.tensor([0.0, math.log(2), math.log(3)]), atol=1e-6, rtol=1e-6
    )
    assert float(entropy_floor(w)) == pytest.approx((1.0 + 1.0 - math.log(2) + 0.0) / 3, rel=1e-6)
    assert float(entropy_floor(w, least=2.0)) == pytest.approx(
        (6.0 - math.log(2) - math.log(3)) / 3, rel=1e-6
    )


def test_descending_the_floor_spreads_sharp_attention_and_leaves_even_attention_alone() -> None:
    scores = torch.tensor([[4.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]], requires_grad=True)
    entropy_floor(scores.softmax(-1)).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    sharp, even = scores.grad
    assert float(sharp[0]) > 0.0  # descent lowers the largest score
    assert bool((sharp[1:] < 0.0).all())
    assert bool((even == 0.0).all())
    with torch.no_grad():
        after = (scores - scores.grad).softmax(-1)
    assert bool((attention_entropy(after) >= attention_entropy(scores.detach().softmax(-1))).all())


def test_a_rotation_is_multiplication_by_a_complex_number_of_length_1() -> None:
    states, theta = texts()[0].double(), torch.randn(N, 1, 4, generator=torch.Generator().manual_seed(1))
    real, imaginary = states.chunk(2, dim=-1)
    found = turned(states, theta.double())
    by_torch = torch.complex(real, imaginary) * torch.polar(torch.ones(N, 1, 4), theta).to(torch.complex128)
    torch.testing.assert_close(found, torch.cat([by_torch.real, by_torch.imag], -1), rtol=1e-6, atol=1e-6)
    by_numpy = (real.numpy() + 1j * imaginary.numpy()) * np.exp(1j * theta.double().numpy())
    np.testing.assert_allclose(found.numpy(), np.concatenate([by_numpy.real, by_numpy.imag], -1), atol=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), angles=st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_no_rotation_changes_the_magnitude_and_turning_back_restores_the_states(
    seed: int, angles: list[float]
) -> None:
    states, theta = texts(seed)[0].double(), torch.tensor(angles, dtype=torch.float64)
    found = turned(states, theta)
    torch.testing.assert_close(magnitude(found), magnitude(states))
    torch.testing.assert_close(turned(found, -theta), states)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), angle=st.floats(0.1, 2 * math.pi - 0.1))
def test_real_and_imaginary_parts_do_change_with_the_angle(seed: int, angle: float) -> None:
    states = texts(seed)[0].double()
    for before, after in zip(
        states.chunk(2, dim=-1), turned(states, torch.tensor(angle)).chunk(2, dim=-1), strict=True
    ):
        assert float((after - before).abs().max()) > 1e-3


def heads_of_each_phase() -> dict[str, SenseHead]:
    """The same parameters in all; angles of 1 radian or so."""
    made: dict[str, SenseHead] = {phase: head(phase=phase) for phase in PHASES}
    state = made["rotated"].state_dict()
    state["angle.bias"] = torch.tensor([1.0, -0.5, 2.0, 0.7])
    for name, one in made.items():
        own = {k: v for k, v in state.items() if name != "none" or not k.startswith("angle")}
        one.load_state_dict(own)
    return made


def test_the_rotated_head_differs_from_one_without_phase_and_from_the_unrotated_one() -> None:
    found = {phase: ask(made, texts())[0] for phase, made in heads_of_each_phase().items()}
    for a, b in (("rotated", "none"), ("rotated", "unrotated"), ("unrotated", "none")):
        assert float((found[a] - found[b]).abs().max()) > 1e-2, (a, b)


def test_rotated_and_unrotated_heads_have_the_same_parameters_and_more_than_none() -> None:
    sizes = {
        phase: {name: value.numel() for name, value in head(phase=phase).named_parameters()}
        for phase in PHASES
    }
    assert sizes["rotated"] == sizes["unrotated"]
    assert sum(sizes["rotated"].values()) - sum(sizes["none"].values()) == 8 * 4 + 4


def test_a_head_that_read_magnitudes_would_not_know_that_it_was_rotated() -> None:
    """What the phase must not be read out by, on the very states that the arm makes."""
    states, mask, _ = texts()
    made = heads_of_each_phase()
    with torch.no_grad():
        rotated_states = made["rotated"].phased(states, mask)
        unrotated = made["unrotated"].phased(states, mask)
    torch.testing.assert_close(magnitude(rotated_states), magnitude(states))
    assert not torch.allclose(rotated_states, states, atol=1e-2)
    assert not torch.allclose(magnitude(unrotated), magnitude(states), atol=1e-2)


def test_the_angles_of_a_phase_are_learned() -> None:
    for phase in ("rotated", "unrotated"):
        made = head(phase=phase)
        z, _ = made(*texts())
        (z[:, 0].sum() - z[:, 1].sum()).backward()
        assert made.angle is not None
        assert made.angle.weight.grad is not None
        assert float(made.angle.weight.grad.abs().max()) > 1e-6, phase


def test_a_head_without_phase_turns_nothing() -> None:
    with pytest.raises(ValueError, match="this head has no phase; build it with"):
        head().phased(*texts()[:2])


def test_the_state_of_a_word_is_the_mean_of_its_rows_and_padding_is_zero() -> None:
    table = TokenTable(7, 4)
    rows = torch.tensor([[[3, 4, 5], [6, 0, 0], [0, 0, 0]]])
    with torch.no_grad():
        found, weight = table(rows), table.rows.weight
        torch.testing.assert_close(found[0, 0], (weight[3] + weight[4] + weight[5]) / 3)
        torch.testing.assert_close(found[0, 1], weight[6])
        assert bool((found[0, 2] == 0).all())
        torch.testing.assert_close(table(rows[..., :1])[0, 0], weight[3])
        assert bool((table(torch.tensor([[[0]]])) == 0).all())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"hidden": 6}, "hidden 6, out 256; hidden is a multiple of 4"),
        ({"hidden": 0}, "hidden 0"),
        ({"out": 1}, "out 1; hidden is a multiple of 4, out at least 2"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"phase": "magnitude"}, "phase 'magnitude', pooling 'attention'; allowed are none, rotated"),
        ({"pooling": "max"}, "pooling 'max'; allowed are .* attention, mean"),
        ({"target_penalty": -1.0}, "target_penalty is -1.0; it must be at least 0"),
        ({"target_penalty": math.inf}, "target_penalty is inf"),
    ],
)
def test_shapes_that_make_no_head_are_refused(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadShape(**shape)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"{name} is 0; it must be at least 1") for name in ("steps", "batch", "dev_every")),
        ({"patience": 0}, "patience is 0"),
        *(({name: 0.0}, f"{name} is 0.0; it must be above 0") for name in ("learning_rate", "temperature")),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        *(({name: -0.1}, f"{name} is -0.1") for name in ("weight_decay", "entropy_weight")),
        ({"loss": "cosine"}, "unknown loss 'cosine'; allowed are infonce, triplet, hinge"),
    ],
)
def test_recipes_that_train_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadRecipe(**fields)


def test_a_recipe_comes_back_from_its_plain_fields() -> None:
    made = HeadRecipe(steps=7, shape=HeadShape(hidden=16, phase="rotated"), lookup="hashed")
    assert recipe_of(asdict(made)) == made


def test_the_entropy_floor_has_a_finite_gradient_where_texts_are_padded() -> None:
    """The padding's weight is exactly 0, where the entropy's own slope is infinite."""
    torch.manual_seed(0)
    head = SenseHead(HeadShape(hidden=8, out=16))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    _, w = head(torch.randn(2, 3, 8), mask, torch.zeros_like(mask))
    entropy_floor(w, least=2.0).backward()  # type: ignore[no-untyped-call]
    slopes = [one.grad for one in (head.key.weight, head.score.weight)]
    assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes)
    assert any(bool((slope != 0).any()) for slope in slopes if slope is not None)
