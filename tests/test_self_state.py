"""The self-state: its update against plain arithmetic, memory, what is carried, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.nano_recipe import STATISTICS, StateSpec
from models.self_state import SelfState

Array = NDArray[np.float64]
WIDTH = 10
STEPS = 60


def fresh(spec: StateSpec, seed: int = 0) -> SelfState:
    return SelfState(spec, WIDTH, torch.Generator().manual_seed(seed))


def statistics(n: int = STEPS, seed: int = 0) -> list[dict[str, float]]:
    rows = np.random.default_rng(seed).uniform(0.1, 4.0, (n, len(STATISTICS)))
    return [dict(zip(STATISTICS, row.tolist(), strict=True)) for row in rows]


def carried(state: SelfState, rows: list[dict[str, float]]) -> Array:
    """s after each update, (rows, d)."""
    found = []
    for row in rows:
        update = state.update(row)
        assert update is not None
        state.carry(update.s)
        found.append(state.s.numpy().astype(float).copy())
    return np.array(found)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


class Plain:
    """The same by hand: float64, lists, no torch."""

    def __init__(self, state: SelfState) -> None:
        self.w = {name: p.detach().numpy().astype(float) for name, p in state.named_parameters()}
        self.spec = state.spec
        self.s = self.slow = self.mean = np.zeros(state.spec.dim)
        self.held: list[Array] = []
        self.steps = 0

    def recalled(self) -> Array | None:
        if self.spec.memory == "none":
            return None
        if self.spec.memory == "ema":
            return np.asarray(self.mean - self.s)
        if not self.held:
            return np.zeros(self.spec.dim)
        held = np.array(self.held[-self.spec.length :])
        scores = np.exp(held @ self.s / math.sqrt(self.spec.dim))
        return np.asarray(scores / scores.sum() @ held - self.s)

    def gru(self, f: Array) -> Array:
        a = np.split(self.w["inner.weight_ih"] @ f + self.w["inner.bias_ih"], 3)
        b = np.split(self.w["inner.weight_hh"] @ self.s + self.w["inner.bias_hh"], 3)
        reset, keep = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        return np.asarray((1 - keep) * np.tanh(a[2] + reset * b[2]) + keep * self.s)

    def advance(self, row: dict[str, float]) -> dict[str, float]:
        spec, w, m = self.spec, self.w, self.recalled()
        f = np.array([row[name] for name in spec.statistics])
        if m is not None:
            norms = np.linalg.norm(self.s) * np.linalg.norm(self.s + m)
            cosine = self.s @ (self.s + m) / norms if norms > 0 else 0.0
            f = np.concatenate([f, [np.linalg.norm(m), cosine], w["read_out.weight"] @ m])
        if spec.update == "gru":
            h = raw = self.gru(f)
        else:
            h = np.tanh(w["inner.weight"] @ f + w["inner.bias"]) if spec.update == "mlp" else f
            raw = w["outer.weight"] @ h + w["outer.bias"]
        g = float(sigmoid(w["gate.weight"] @ h + w["gate.bias"])[0])
        new, size = (1 - g) * raw, np.linalg.norm(raw)
        if m is not None:
            mem = spec.memory_scale * m
            norm = np.linalg.norm(mem)
            new = new + g * (mem * min(1.0, spec.memory_clamp * size / norm) if norm > 0 else mem)
        self.s = np.asarray((1 - spec.rate) * self.s + spec.rate * new)
        self.slow = np.asarray((1 - spec.slow) * self.slow + spec.slow * self.s)
        self.mean = np.asarray((1 - spec.delta) * self.mean + spec.delta * self.s)
        self.steps += 1
        if self.steps % spec.stride == 0:
            self.held.append(self.s)
        return {"gate": g, "raw_norm": float(size)}


@pytest.mark.parametrize("kind", ["mlp", "linear", "gru"])
@pytest.mark.parametrize("memory", ["none", "ema", "buffer"])
@pytest.mark.parametrize("change", [{}, {"step_frac": False, "memory_scale": 30.0, "memory_clamp": 0.7}])
def test_the_update_is_that_of_a_plain_loop(kind: Any, memory: Any, change: dict[str, Any]) -> None:
    spec = replace(StateSpec(dim=6, hidden=5, update=kind, memory=memory, length=7, stride=3), **change)
    state = fresh(spec)
    plain = Plain(state)
    clamped = 0
    for row in statistics():
        update, known = state.update(row), plain.advance(row)
        assert update is not None
        state.carry(update.s)
        np.testing.assert_allclose(state.s.numpy(), plain.s, rtol=1e-4, atol=1e-5)
        assert update.gate == pytest.approx(known["gate"], rel=1e-4)
        assert update.raw_norm == pytest.approx(known["raw_norm"], rel=1e-4)
        if update.memory_norm is not None and update.clamped_norm is not None:
            clamped += update.clamped_norm < update.memory_norm
            assert update.clamped_norm <= spec.memory_clamp * update.raw_norm * (1 + 1e-5)
    np.testing.assert_allclose(state.slow.numpy(), plain.slow, rtol=1e-4, atol=1e-5)
    cosine = plain.s @ plain.slow / np.linalg.norm(plain.s) / np.linalg.norm(plain.slow)
    assert state.drift() == pytest.approx(1 - cosine, rel=1e-2, abs=1e-6)
    apart = np.linalg.norm(plain.s - plain.slow) / np.linalg.norm(plain.slow)
    assert state.relative_drift() == pytest.approx(apart, rel=1e-4)
    assert (clamped > 0) == (memory != "none" and bool(change))


def test_the_gradient_reaches_one_step_back_and_no_further() -> None:
    state = fresh(StateSpec(dim=4, memory="ema"))
    first, second = statistics(2)
    update = state.update(first)
    assert update is not None
    state.carry(update.s)
    assert not state.s.requires_grad
    update = state.update(second)
    assert update is not None
    update.s.sum().backward()  # type: ignore[no-untyped-call]
    gradient = state.outer.bias.grad if state.outer is not None else None
    assert gradient is not None
    torch.testing.assert_close(gradient, torch.full((4,), 0.2 * (1 - update.gate)))


@pytest.mark.parametrize("memory", ["none", "ema", "buffer"])
def test_all_that_lasts_is_in_the_state_dict(memory: Any) -> None:
    spec = StateSpec(dim=5, memory=memory, length=3, stride=2)
    rows = statistics()
    whole = carried(fresh(spec), rows)
    half, other = fresh(spec), fresh(spec, seed=1)
    carried(half, rows[:31])
    other.load_state_dict(half.state_dict())
    assert np.array_equal(carried(other, rows[31:]), whole[31:])
    for name, tensor in half.state_dict().items():  # every buffer counts, apart from those of other kinds
        used = {"none": "s", "ema": "s ema", "buffer": "s ring pushed carried"}[memory].split()
        if name in used:
            spoilt = fresh(spec)
            spoilt.load_state_dict(half.state_dict() | {name: tensor + 1})
            assert not np.array_equal(carried(spoilt, rows[31:]), whole[31:]), name


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"length": 4}, {"length": 8}, 25),  # the fifth state comes in after 5 x 5 steps
        ({"stride": 5}, {"stride": 6}, 6),  # the state put in after 5 steps is the own one at the next update
    ],
)
def test_length_and_stride_are_in_use_from_the_step_on_where_they_must_be(
    one: dict[str, Any], other: dict[str, Any], alike: int
) -> None:
    spec = StateSpec(dim=4, memory="buffer", length=4, stride=5)
    a, b = (carried(fresh(replace(spec, **change)), statistics()) for change in (one, other))
    assert np.array_equal(a[:alike], b[:alike])
    assert not np.array_equal(a[alike], b[alike])


def test_without_step_frac_the_state_does_not_see_the_step() -> None:
    rows = statistics()
    later = [{**row, "step_frac": row["step_frac"] + 1} for row in rows]
    for kept in (True, False):
        a, b = (carried(fresh(StateSpec(dim=4, step_frac=kept)), given) for given in (rows, later))
        assert np.array_equal(a, b) is not kept


def test_one_dimension_works_and_has_no_drift() -> None:
    state = fresh(StateSpec(dim=1, memory="buffer"))
    carried(state, statistics())
    assert state.drift() is None
    assert state.relative_drift() is not None
    untouched = fresh(StateSpec())
    assert (untouched.drift(), untouched.relative_drift()) == (None, None)


def test_a_fixed_state_has_the_norm_asked_for_and_no_update() -> None:
    for norm in (0.5, 2.0):
        state = fresh(StateSpec(update="fixed", fixed_norm=norm))
        assert state.s.norm().item() == pytest.approx(norm, rel=1e-6)
        assert state.update(statistics()[0]) is None
        assert [name for name, _ in state.named_parameters()] == ["injection"]


def test_the_injection_is_trained_or_held() -> None:
    trained, random, zero = (fresh(StateSpec(injection=kind)) for kind in ("trained", "random", "zero"))
    assert torch.equal(trained.injection, random.injection)
    assert trained.injection.requires_grad
    assert not random.injection.requires_grad
    assert all(p.requires_grad for name, p in random.named_parameters() if name != "injection")
    assert not zero.injection.any()
    assert not any(p.requires_grad for p in zero.parameters())
    s = torch.randn(3, 32)
    torch.testing.assert_close(trained.injected(s)[1], trained.injection @ s[1])


def test_another_state_is_put_in_whole_and_only_of_the_same_width() -> None:
    state = fresh(StateSpec(dim=3))
    carried(state, statistics())
    slow = state.slow.clone()
    state.place(torch.tensor([1.0, 2.0, 3.0]))
    assert state.s.tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(state.slow, slow)
    with pytest.raises(ValueError, match=r"the state has shape \(3,\), what was given \(4,\)"):
        state.place(torch.zeros(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"rate": 0.0}, "rate is 0.0; allowed: above 0, at most 1"),
        ({"delta": 1.5}, "delta is 1.5"),
        ({"memory_clamp": math.inf}, "memory_clamp is inf"),
        ({"update": "lstm"}, "update is 'lstm'; allowed: mlp, linear, gru, fixed"),
        ({"memory": "disk"}, "memory is 'disk'; allowed: none, ema, buffer"),
        ({"update": "fixed", "memory": "ema"}, "a fixed state with memory 'ema'"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(StateSpec(), **change)
