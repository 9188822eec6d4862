"""The frozen test on real small trainings: what is discovered, what is measured, what chance would do."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from models.nano_corpus import NanoCorpus, character_corpus, embedded_corpus
from models.nano_directions import candidates, direction, discovered, entropy_gradient, haar, told
from models.nano_frozen import FrozenResult, FrozenSpec, frozen_test, held_out_windows
from models.nano_measures import evaluating, loss_and_statistics
from models.nano_recipe import PROFILES, GptShape, Injection, NanoRecipe, StateSpec, UpdateKind
from models.nano_run import NanoRun
from models.nano_streams import stream
from models.nano_training import one_thread, train

TEXT = "the cat sat on the mat and the dog lay in the sun while a bird sang of the sea; "
SHORT = NanoRecipe(
    shape=GptShape(n_layer=1, n_head=2, n_embd=16, block_size=8),
    state=StateSpec(dim=6, hidden=5),
    steps=60,
    batch=4,
    warmup_steps=5,
    learning_rate=1e-2,
)
FEW = FrozenSpec(rotations=9, discovery_windows=12, compared_windows=4, fresh_windows=6)
MANY = FrozenSpec(rotations=39, discovery_windows=32, fresh_windows=16)


@cache
def sentences() -> NanoCorpus:
    letters = np.random.default_rng(0).permuted(np.array(list(TEXT * 12)))  # a held-out part unlike the other
    return character_corpus(TEXT * 10, TEXT * 6 + "".join(letters), source="a sentence, whole and shuffled")


@cache
def short(update: UpdateKind = "mlp") -> NanoRun:
    state = StateSpec(dim=6, hidden=5, update=update)
    return train(replace(SHORT, state=state), sentences(), seeds=0).run


@cache
def smoke(seed: int, injection: Injection = "trained") -> tuple[NanoRun, FrozenResult]:
    recipe = replace(PROFILES["smoke"], state=StateSpec(injection=injection))
    run = train(recipe, embedded_corpus(), seeds=seed).run
    return run, frozen_test(run, MANY, seed=seed)


def p_of(effect: float, null: tuple[float, ...]) -> float:
    return (1 + sum(value >= effect for value in null)) / (1 + len(null))


def with_injection(run: NanoRun, P: Tensor) -> NanoRun:
    planted = deepcopy(run)
    assert planted.state is not None
    with torch.no_grad():
        planted.state.injection.copy_(P)
    return planted


def ids(run: NanoRun, starts: Tensor) -> Tensor:
    return torch.from_numpy(run.corpus.heldout)[starts[:, None] + torch.arange(run.recipe.shape.block_size)]


def test_a_trained_injection_beats_its_rotations() -> None:
    found = [smoke(seed)[1] for seed in range(3)]
    assert all(one.effect_nats > np.mean(one.null_nats) for one in found)
    assert math.prod(p_of(one.effect_nats, one.null_nats) for one in found) < 2.3e-3  # Fisher's p < .05


def test_of_an_injection_that_training_never_met_p_is_uniform() -> None:
    run, ranks = short(), []
    assert run.state is not None
    with one_thread(), evaluating(run.gpt):
        for i in range(100):
            held = held_out_windows(run, FEW, i)
            P = 0.3 * torch.randn(run.state.injection.shape, generator=stream(i, "planted"))
            turned = [haar(len(P), stream(i, "turned", j)) @ P for j in range(19)]
            found = discovered(
                run.gpt,
                torch.stack([P, *turned]),
                1.0,
                discovery=ids(run, held.discovery),
                compared=2,
                shortlist=2,
                fresh=ids(run, held.fresh[:3]),
            )
            effects = found.effect_nats
            ranks.append(int((effects[1:] >= effects[0]).sum()))
    counts = np.bincount(np.array(ranks) // 4, minlength=5)  # ranks 0 to 19 in fifths
    assert ((counts - 20) ** 2 / 20).sum() < 18.5  # chi-squared of 4, its .999 quantile
    assert sum(rank == 0 for rank in ranks) < 15  # p = .05 is met by 5 of 100


def test_an_injection_along_the_entropys_gradient_beats_every_rotation_and_one_across_it_none() -> None:
    run = short()
    assert run.state is not None
    with evaluating(run.gpt):
        g = entropy_gradient(run.gpt, ids(run, held_out_windows(run, FEW, 0).discovery))
    ways = torch.randn(6, generator=stream(0, "ways"))
    along = with_injection(run, 0.1 * torch.outer(g / g.norm(), ways))
    found = frozen_test(along, FEW, seed=0)
    assert found.effect_nats > max(found.null_nats)
    assert found.confident.kind == found.uncertain.kind == "gradient"
    assert (found.confident.sign, found.uncertain.sign) == (-1, 1)
    assert found.axis_nats == pytest.approx([found.effect_nats] * 9, rel=0.02)  # in one direction all is axis
    other = torch.randn(len(g), generator=stream(0, "other"))
    across = with_injection(run, 0.1 * torch.outer(other - g * (g @ other) / (g @ g), ways))
    assert frozen_test(across, FEW, seed=0).effect_nats < np.median(found.null_nats)


def test_without_an_injection_everything_is_exactly_0() -> None:
    recipe = replace(SHORT, state=StateSpec(dim=6, hidden=5, injection="zero"))
    run = train(recipe, sentences(), seeds=0).run
    for own in (run, stilled(run)):
        found = frozen_test(own, FEW, seed=0)
        assert (found.effect_nats, found.effect_top1) == (0.0, 0.0)
        assert {*found.null_nats, *found.null_top1, *found.axis_nats, *found.dimensions} == {0.0}
        assert len(found.null_nats) == len(found.axis_nats) == 9
        assert len(set(found.entropy_nats.values())) == len(set(found.top1.values())) == 1
        assert [(preset.measured_nats, preset.holds) for preset in found.presets.values()] == [
            (0.0, False)
        ] * 2
        assert found.sd_nats > 0


def stilled(run: NanoRun) -> NanoRun:
    other = deepcopy(run)
    assert other.state is not None
    other.state.place(torch.zeros(6))
    return other


def test_runs_that_cannot_be_tested_are_refused() -> None:
    with pytest.raises(ValueError, match="no self-state"):
        frozen_test(train(replace(SHORT, state=None), sentences(), seeds=0, until=3).run, FEW, seed=0)
    with pytest.raises(ValueError, match="the own state is 0"):
        frozen_test(stilled(short()), FEW, seed=0)
    with pytest.raises(ValueError, match="0 states of its own"):
        frozen_test(NanoRun(SHORT, sentences(), 0), FEW, seed=0)
    with pytest.raises(
        ValueError, match=r"180 windows of 8 tokens; 175 for discovery and 8 others are needed"
    ):
        frozen_test(short(), replace(FEW, discovery_windows=175), seed=0)
    with pytest.raises(ValueError, match="compared_windows is 13; allowed: at most the 12"):
        replace(FEW, compared_windows=13)
    with pytest.raises(ValueError, match="rotations is 0"):
        replace(FEW, rotations=0)


def test_discovery_and_fresh_windows_share_no_token_and_fall_differently_by_seed() -> None:
    run = short()
    held = held_out_windows(run, FEW, 3)
    t = run.recipe.shape.block_size
    discovery, fresh = set(held.discovery.tolist()), set(held.fresh.tolist())
    batches = set(held.batches.flatten().tolist())
    assert (len(discovery), len(fresh), len(batches)) == (12, 6, held.batches.numel())
    assert not discovery & (fresh | batches)
    assert {start % t for start in discovery | fresh | batches} == {0}
    assert max(discovery | fresh | batches) + t <= len(run.corpus.heldout)
    assert set(held_out_windows(run, FEW, 4).discovery.tolist()) != discovery


def test_nothing_of_the_run_is_changed_and_the_same_seed_gives_the_same() -> None:
    run = short()
    run.gpt.train()
    before = (run.digest(), run.gpt.training, [p.grad is None for p in run.gpt.parameters()])
    torch.manual_seed(1)
    generator, calls = torch.get_rng_state(), []
    found = frozen_test(run, FEW, seed=0, report=lambda done, of: calls.append((done, of)))
    assert (run.digest(), run.gpt.training, [p.grad is None for p in run.gpt.parameters()]) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert calls[-1][0] == calls[-1][1] == 19 * (6 * 4 + 2 * 6)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert frozen_test(run, FEW, seed=0) == found
    assert frozen_test(run, FEW, seed=1).null_nats != found.null_nats
    assert json.loads(json.dumps(asdict(found)))["confident"]["sign"] in (1, -1)


def test_what_is_told_of_a_vector_is_the_networks_entropy_and_confidence() -> None:
    run = short()
    x = ids(run, held_out_windows(run, FEW, 0).discovery)
    added = torch.randn(50, 16, generator=stream(0, "added"))  # 50 x 12 windows: the last chunk is not full
    with evaluating(run.gpt):
        entropy, top1 = told(run.gpt, x, added)
        for i in (0, 7, 49):
            _, one, other = loss_and_statistics(run.gpt(x, added=added[i]), x, "all")
            assert entropy[i].item() == pytest.approx(one, 1e-5)
            assert top1[i].item() == pytest.approx(other, 1e-5)


def test_the_gradient_is_that_of_the_entropy_where_nothing_is_injected() -> None:
    run = deepcopy(short())
    run.gpt.double()
    x, way = ids(run, held_out_windows(run, FEW, 0).discovery), torch.zeros(16)
    way[3] = 1e-3
    with evaluating(run.gpt):
        g = entropy_gradient(run.gpt, x.repeat(4, 1))  # more windows than one forward holds
        up, down = told(run.gpt, x, torch.stack([way, -way]).double())[0].tolist()
    assert g[3].item() == pytest.approx((up - down) / 2e-3, rel=1e-3)


def test_candidates_have_the_norm_of_the_state_and_their_numbers_name_them() -> None:
    P, g = torch.randn(2, 5, 3, generator=stream(0, "P")), torch.randn(5, generator=stream(0, "g"))
    found = candidates(P, g, 2.0)
    assert found.shape == (2, 8, 5)
    for number in range(8):
        named = direction(number, 3)
        s = P[1].T @ g / (P[1].T @ g).norm()
        if named.dimension is not None:
            s = torch.eye(3)[named.dimension]
        torch.testing.assert_close(found[1, number], 2.0 * named.sign * P[1] @ s)
    assert [direction(number, 3).sign for number in range(8)] == [1, 1, 1, -1, -1, -1, 1, -1]


def test_the_shortlist_finds_what_trying_all_candidates_finds() -> None:
    run = smoke(0)[0]
    assert run.state is not None
    held = held_out_windows(run, MANY, 0)
    P = run.state.injection.detach()
    turned = torch.stack([P, *(haar(32, stream(i, "turned")) @ P for i in range(3))])
    x, fresh = ids(run, held.discovery), ids(run, held.fresh)
    rho = float(run.state.s.norm())
    with one_thread(), evaluating(run.gpt):
        quick = discovered(
            run.gpt, turned, rho, compared=8, shortlist=2, discovery=x, fresh=fresh
        ).effect_nats
        whole = discovered(
            run.gpt, turned, rho, compared=32, shortlist=40, discovery=x, fresh=fresh
        ).effect_nats
        g = entropy_gradient(run.gpt, x)
        entropy = told(run.gpt, x, candidates(turned[:1], g, rho)[0])[0]
        both = candidates(turned[:1], g, rho)[0][[int(entropy.argmin()), int(entropy.argmax())]]
        least, most = told(run.gpt, fresh, both)[0].tolist()
    assert whole[0].item() == pytest.approx(most - least, abs=1e-5)
    assert quick.tolist() == pytest.approx(whole.tolist(), rel=0.05)


def test_what_is_reported_of_states_agrees_with_the_effect() -> None:
    run, found = smoke(2)
    assert run.state is not None
    assert found.rho == pytest.approx(float(run.state.s.norm()))
    apart = found.entropy_nats["uncertain"] - found.entropy_nats["confident"]
    assert found.effect_nats == pytest.approx(apart, abs=1e-5)
    assert found.effect_top1 == pytest.approx(found.top1["confident"] - found.top1["uncertain"], abs=1e-5)
    assert set(found.entropy_nats) == set(found.top1) == {"zero", "own", "confident", "uncertain", "random"}
    held = held_out_windows(run, MANY, 2)
    with evaluating(run.gpt):
        x = ids(run, held.fresh)
        own = run.gpt(x, added=run.added())
        assert found.entropy_nats["own"] == pytest.approx(loss_and_statistics(own, x, "all")[1], 1e-4)
    assert len(found.dimensions) == 32
    assert max(map(abs, found.dimensions)) <= 1.1 * found.effect_nats
    assert 0 < found.sd_nats < 0.5


def test_presets_are_the_runs_own_states_and_their_sign_is_checked() -> None:
    run, found = smoke(2)
    calm, alarmed = found.presets["calm"], found.presets["alarmed"]
    assert alarmed.measured_nats == -calm.measured_nats == alarmed.entropy_nats - calm.entropy_nats
    assert (calm.expected_sign, alarmed.expected_sign) == (-1, 1)
    assert calm.holds is alarmed.holds is (alarmed.measured_nats > 0)
    assert alarmed.holds
    states = torch.stack(run.trajectory[120:])
    for preset in (calm, alarmed):
        state = torch.tensor(preset.state)
        assert bool(((state >= states.amin(0) - 1e-6) & (state <= states.amax(0) + 1e-6)).all())
    fixed = frozen_test(short(update="fixed"), FEW, seed=0)
    assert [preset.holds for preset in fixed.presets.values()] == [False, False]
