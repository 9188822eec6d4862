"""States put in the place of others, and what moves the update: against the network and the update."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from models.nano_corpus import NanoCorpus, character_corpus
from models.nano_measures import mean_nats
from models.nano_random_jobs import random_like
from models.nano_recipe import GptShape, NanoRecipe, StateSpec
from models.nano_run import HELD_OUT_BATCH, NanoRun
from models.nano_sensitivity import feature_names, input_sensitivity
from models.nano_swap import swap_losses
from models.nano_training import Begin, one_thread, train
from models.regimes import FALSE_FEEDBACK, RegimePlan
from models.self_state import SelfState

TEXT = "the cat sat on the mat and the dog lay in the sun while a bird sang of the sea; " * 12
STATE = StateSpec(dim=6, hidden=5)
SHORT = NanoRecipe(
    shape=GptShape(n_layer=1, n_head=2, n_embd=16, block_size=8),
    state=STATE,
    steps=40,
    batch=4,
    warmup_steps=5,
    learning_rate=1e-2,
)
STATES = {
    "mlp": STATE,
    "no clock": replace(STATE, step_frac=False),
    "linear": replace(STATE, update="linear"),
    "gru": replace(STATE, update="gru"),
    "ema": replace(STATE, memory="ema", memory_clamp=0.1),
    "buffer": replace(STATE, memory="buffer", length=3, stride=2, memory_scale=2.0),
}


@cache
def corpus() -> NanoCorpus:
    return character_corpus(TEXT[:800], TEXT[800:], source="a sentence")


@cache
def run_with(name: str = "mlp", seed: int = 0) -> NanoRun:
    plan = RegimePlan(regimes=(replace(FALSE_FEEDBACK, windows=((25, 30),)),))
    return train(replace(SHORT, state=STATES[name]), corpus(), seeds=seed, plan=plan).run


def state_of(run: NanoRun) -> SelfState:
    assert run.state is not None
    return run.state


def test_equal_states_give_equal_losses_to_the_bit_and_the_own_one_that_of_the_run() -> None:
    run = run_with()
    own = state_of(run).s.clone()
    before = run.digest()
    found = swap_losses(run, foreign=own, other_init=own, seed=0)
    assert run.digest() == before
    names = ("own", "foreign", "foreign_matched", "other_init", "other_init_given")
    assert {found[name] for name in names} == {run.valid_loss_nats()}
    zero = swap_losses(run, foreign=1e-10 * own, other_init=own, seed=0)
    with one_thread():  # sums are split by thread
        without = mean_nats(run.gpt, run.heldout.whole(HELD_OUT_BATCH), None)
    assert zero["zero"] == zero["foreign"] == without


def test_other_states_give_the_loss_of_what_they_inject() -> None:
    run, other = run_with(), state_of(run_with(seed=1)).s
    own = state_of(run).s
    found = swap_losses(run, foreign=-2 * own, other_init=other, seed=0, draws=3)

    def nats(s: torch.Tensor) -> float:
        with torch.no_grad():
            return mean_nats(run.gpt, run.heldout.whole(HELD_OUT_BATCH), state_of(run).injected(s))

    assert found["foreign"] == pytest.approx(nats(-2 * own), rel=1e-6)
    assert found["foreign_matched"] == pytest.approx(nats(-own), rel=1e-6)
    assert found["other_init_given"] == pytest.approx(nats(other), rel=1e-6)
    assert found["other_init"] == pytest.approx(nats(other * (own.norm() / other.norm())), rel=1e-6)
    assert len(set(found.values())) == 7
    assert swap_losses(run, foreign=own, other_init=own, seed=0, draws=3)["random"] == found["random"]
    assert swap_losses(run, foreign=own, other_init=own, seed=1, draws=3)["random"] != found["random"]


def test_a_random_state_has_the_norm_of_the_own_one_and_another_way_a_seed() -> None:
    own = state_of(run_with()).s.clone()
    first, again, other = random_like(own, 0), random_like(own, 0), random_like(own, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert [float(s.norm()) for s in (first, other)] == pytest.approx([float(own.norm())] * 2)
    assert abs(float(torch.cosine_similarity(first, own, dim=0))) < 0.99


def test_states_that_cannot_be_swapped_are_refused() -> None:
    run = run_with()
    own = state_of(run).s
    plain = train(replace(SHORT, state=None), corpus(), seeds=0, until=2).run
    with pytest.raises(ValueError, match="no self-state"):
        swap_losses(plain, foreign=own, other_init=own, seed=0)
    with pytest.raises(ValueError, match=r"foreign has shape \(5,\), the run's state \(6,\)"):
        swap_losses(run, foreign=own[:5], other_init=own, seed=0)
    with pytest.raises(ValueError, match="other_init holds a number that is not finite"):
        swap_losses(run, foreign=own, other_init=own / 0, seed=0)
    with pytest.raises(ValueError, match="other_init is 0 and cannot be stretched"):
        swap_losses(run, foreign=own, other_init=0 * own, seed=0)
    with pytest.raises(ValueError, match="draws is 0"):
        swap_losses(run, foreign=own, other_init=own, seed=0, draws=0)


def following(run: NanoRun, step: int, changed: dict[str, float]) -> torch.Tensor:
    """The state that the run's own update makes at a step, what it sees changed; in double precision."""
    spec = state_of(run).spec
    again = SelfState(spec, 16, torch.Generator()).double()
    for s in run.trajectory[:step]:
        again.carry(s.double())
    weights = {name: p.double() for name, p in state_of(run).state_dict().items() if name not in BUFFERS}
    again.load_state_dict(weights, strict=False)
    seen = run.seen[step - 1].double().tolist()
    statistics = {
        name: value + changed.get(name, 0.0) for name, value in zip(spec.statistics, seen, strict=False)
    }
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        update = again.update(statistics)
    finally:
        torch.set_default_dtype(default)
    assert update is not None
    if not changed:
        told, seen_then = update.features[:7].float(), run.seen[step - 1][:7]  # Q was trained on since
        torch.testing.assert_close(told, seen_then, atol=1e-5, rtol=1e-4)
    return update.s.detach()


BUFFERS = ("s", "slow", "ema", "ring", "pushed", "carried")


@pytest.mark.parametrize("name", STATES)
def test_sensitivity_is_the_slope_of_the_runs_own_update_by_finite_differences(name: str) -> None:
    run, by = run_with(name), 1e-5
    before = run.digest()
    found = input_sensitivity(run)
    assert run.digest() == before
    assert tuple(found) == feature_names(state_of(run).spec)
    assert all(value > 0 for value in found.values())
    spread = torch.stack(run.seen[19:]).double().std(0)
    for j, statistic in enumerate(state_of(run).spec.statistics):
        slopes = [
            (following(run, step, {statistic: by}) - following(run, step, {statistic: -by})).norm() / (2 * by)
            for step in range(20, 40)
        ]
        expected = float(torch.stack(slopes).mean() * spread[j])
        assert found[statistic] == pytest.approx(expected, rel=1e-3)


def test_the_memory_is_filled_again_as_the_run_filled_it() -> None:
    for name in ("ema", "buffer"):
        for step in (20, 33, 39):
            following(run_with(name), step, {})  # compares |m| and cos with what the update saw


def test_what_the_memory_says_moves_a_linear_gate_as_its_weights_say() -> None:
    run = run_with("linear")
    state = state_of(run)
    assert state.outer is not None
    f = torch.stack(run.seen[19:]).double()
    slope = 0.2 * state.outer.weight.detach().double()  # without memory the gate takes (1 - g) of raw
    assert state.gate is not None
    w, b = state.gate.weight.detach().double()[0], state.gate.bias.detach().double()
    raw = f @ state.outer.weight.detach().double().T + state.outer.bias.detach().double()
    g = torch.sigmoid(f @ w + b)
    each = (1 - g)[:, None, None] * slope - 0.2 * (g * (1 - g))[:, None, None] * raw[:, :, None] * w
    expected = each.norm(dim=1).mean(0) * f.std(0)
    assert list(input_sensitivity(run).values()) == pytest.approx(expected.tolist(), rel=1e-4)


def test_runs_without_an_update_or_a_known_memory_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.raises(ValueError, match="no self-state"):
        input_sensitivity(train(replace(SHORT, state=None), corpus(), seeds=0, until=2).run)
    fixed = replace(SHORT, state=replace(STATE, update="fixed"))
    with pytest.raises(ValueError, match="a fixed state"):
        input_sensitivity(train(fixed, corpus(), seeds=0, until=2).run)
    with pytest.raises(ValueError, match="1 updates in the last half of 2 steps"):
        input_sensitivity(train(SHORT, corpus(), seeds=0, until=2).run)
    for name in ("mlp", "ema"):
        first = tmp_path_factory.mktemp(name)
        recipe = replace(SHORT, state=STATES[name])
        train(recipe, corpus(), seeds=0, until=20, directory=first)
        rest = train(recipe, corpus(), seeds=0, begin=Begin(directory=first)).run
        if name == "ema":
            with pytest.raises(ValueError, match="began at step 20 from another and has a memory"):
                input_sensitivity(rest)
        else:
            assert len(rest.seen) == len(rest.trajectory) == 20
            assert all(value > 0 for value in input_sensitivity(rest).values())
