"""Ranks from spectra: each policy's own wish, the published threshold, and what a budget makes of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rank_policies import (
    ALLOWED,
    POLICIES,
    RankPlan,
    Shape,
    energy_90,
    nearest_uniform,
    next_allowed,
    parameters,
    shapes_of_audits,
    steps,
)
from models.rank_wishes import (
    hard_threshold_rank,
    knee_rank,
    known_noise_coefficient,
    unknown_noise_coefficient,
)
from models.spectra import Factors, ModuleAudit, audit_module

LINES = (Path(__file__).parent / "reference" / "spectra_svd.txt").read_text(encoding="utf-8").splitlines()
REFERENCE: dict[str, dict[str, list[str]]] = defaultdict(dict)
for line in LINES:
    case, quantity, *fields = line.split("\t")
    REFERENCE[case][quantity] = fields
FOLLOWS_BUDGET = ("energy_90", "entropy", "hard_threshold", "knee", "stable_rank", "global_sigma")
SIDES = {"q_proj": (64, 64), "k_proj": (32, 64), "up_proj": (176, 64), "down_proj": (64, 176)}


def audit(name: str, sigma: tuple[float, ...], *, d_out: int, d_in: int, scale: float = 1.0) -> ModuleAudit:
    """The audit of a module of these sides whose adapter has these singular values."""
    rank = len(sigma)
    return audit_module(
        name, Factors(a=np.eye(rank, d_in), b=np.eye(d_out, rank) * np.array(sigma), scale=scale), None
    )


def adapter(seed: int, *, layers: int = 4, rank: int = 16, empty: int = 0) -> list[ModuleAudit]:
    """A probe over the projections of SIDES: spectra fall at different speeds, the first `empty` are 0."""
    rng = np.random.default_rng(seed)
    found = []
    for layer in range(layers):
        for projection, (d_out, d_in) in SIDES.items():
            sigma = rng.gamma(2.0) * np.exp(-rng.uniform(0.02, 1.5) * np.arange(rank)) * (len(found) >= empty)
            name = f"model.layers.{layer}.{projection}"
            found.append(audit(name, tuple(sigma.tolist()), d_out=d_out, d_in=d_in))
    return found


SEEDS = st.integers(0, 10_000)


def floor_and_ceiling(audits: list[ModuleAudit]) -> tuple[int, int]:
    """Parameters of the cheapest and of the dearest plan; a module without energy stays at rank 1."""
    units = {shape.name: shape.unit_cost for shape in shapes_of_audits(audits)}
    most = sum(units[one.name] * (one.rank if one.frobenius else 1) for one in audits)
    return sum(units.values()), most


def test_each_policy_gives_its_own_wish_rounded_up() -> None:
    sigma = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)  # energies 64, 16, 4, 1, ... of 85.33
    audits = [
        audit("h.0.up_proj", sigma, d_out=9, d_in=8),
        audit("h.1.up_proj", (1.0,) * 8, d_out=9, d_in=8),
        audit("h.2.up_proj", (0.0,) * 8, d_out=9, d_in=8),
    ]
    wanted = {
        "energy_90": (2, 8, 1),  # 80 of 85.33 is .94; 8 of 8 equal values hold .90
        "entropy": (4, 8, 1),  # effective rank 3.76
        "hard_threshold": (2, 1, 1),  # 2.858 * .75 = 2.14 lies under two values; under no equal ones
        "knee": (4, 8, 1),
        "stable_rank": (2, 8, 1),  # 85.33 / 64
        "global_sigma": (4, 1, 1),  # 64 + 16 + 4 = 84 of 93.332 is .90: what reaches 2
        "uniform_median": (2, 2, 2),  # of 2, 8 and 1
        "uniform_p90": (8, 8, 8),  # 6.8
        "uniform_equal": (4, 4, 4),  # (2 + 8 + 1) / 3 = 3.67
    }
    assert set(POLICIES) == set(wanted)
    for name, ranks in wanted.items():
        plan = POLICIES[name](audits, budget=None)
        assert tuple(plan.ranks.values()) == ranks, name
        assert plan.parameters == 17 * sum(ranks)
        assert plan.notes[0] == "energy 0 in 1 modules, whose wish is rank 1: h.2.up_proj"


@pytest.mark.parametrize("row", ["0.05", "0.1", "0.2", "0.25", "0.5", "0.75", "1"])
def test_the_published_coefficients_are_those_that_r_integrates(row: str) -> None:
    known, unknown = (float(value) for value in REFERENCE["coefficient"][row])
    assert known_noise_coefficient(float(row)) == pytest.approx(known, rel=1e-14)
    assert unknown_noise_coefficient(float(row)) == pytest.approx(unknown, rel=1e-9)


def test_the_coefficients_are_those_printed_in_the_paper() -> None:
    assert known_noise_coefficient(1.0) == pytest.approx(4 / np.sqrt(3), rel=1e-14)
    assert unknown_noise_coefficient(1.0) == pytest.approx(2.858, abs=5e-4)
    for beta in (0.0, -0.5, 1.01):
        with pytest.raises(ValueError, match="aspect ratio"):
            unknown_noise_coefficient(beta)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (40, 64)])
def test_the_hard_threshold_finds_a_planted_rank_in_noise(rows: int, columns: int) -> None:
    rng = np.random.default_rng(7)
    for planted in (0, 1, 3, 8):
        u = np.linalg.qr(rng.normal(size=(rows, rows)))[0][:, :planted]
        v = np.linalg.qr(rng.normal(size=(columns, columns)))[0][:, :planted]
        noisy = 5.0 * u @ v.T + rng.normal(size=(rows, columns)) / np.sqrt(columns)
        sigma = np.linalg.svd(noisy, compute_uv=False)
        assert (
            hard_threshold_rank(sigma, rank=64, d_out=rows, d_in=1000 if columns == 64 else columns)
            == planted
        )


@pytest.mark.parametrize("case", ["full", "flat", "wide", "steep"])
def test_the_knee_is_the_one_that_r_finds_by_the_cross_product(case: str) -> None:
    sigma = [float(value) for value in REFERENCE[case]["sigma"][0].split(" ")]
    assert knee_rank(sigma) == int(REFERENCE[case]["knee"][0])
    assert knee_rank([1e-9 * value for value in sigma]) == knee_rank(sigma)


def test_a_spectrum_on_its_chord_has_no_knee_and_keeps_all() -> None:
    assert [knee_rank(one) for one in ([2.0], [2.0, 1.0], [0.3, 0.2, 0.1], [1.0] * 5)] == [1, 2, 3, 5]
    assert knee_rank([5.0, 4.9, 4.8, 0.1]) == 3  # above its chord: the last value before it drops
    for scale in (1.0, 0.3, 1 / 7):  # three points equally far: the first, whatever the last digits say
        assert knee_rank(np.array([10.0, 6.5, 4.0, 1.5, 0.0]) * scale) == 2
    for wrong in ([], [0.0, 0.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="give falling ones"):
            knee_rank(wrong)


def test_ranks_round_up_to_the_allowed_ones_and_stop_at_the_probe() -> None:
    for most in (1, 2, 3, 12, 16, 64, 100):
        ladder = steps(most)
        assert max(ladder) == min(most, 64)
        assert set(ladder) <= {*ALLOWED, most}
        for wish in np.linspace(0.0, 80.0, 321):
            rank = next_allowed(float(wish), most)
            assert rank == min((step for step in ladder if step >= wish), default=ladder[-1])
    assert next_allowed(4.0 * (1.0 + 1e-12), 64) == 4


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(FOLLOWS_BUDGET), st.floats(0.05, 0.95), st.integers(0, 2))
def test_a_budget_is_met_within_half_a_step_of_one_module(
    seed: int, policy: str, share: float, empty: int
) -> None:
    audits = adapter(seed, empty=empty)
    low, high = floor_and_ceiling(audits)
    budget = round(low + share * (high - low))
    plan = POLICIES[policy](audits, budget=budget)
    shapes = shapes_of_audits(audits)
    assert plan.parameters == parameters(plan.ranks, shapes)
    assert set(plan.ranks.values()) <= set(steps(16))
    assert all(plan.ranks[one.name] == 1 for one in audits[:empty])
    # the dearest step is from rank 8 to 16 in a module of 240 parameters a rank
    assert abs(plan.parameters - budget) <= 8 * 240 / 2
    assert plan.notes[-1] == f"{plan.parameters} parameters for a budget of {budget} " + (
        f"({plan.parameters / budget - 1:+.2%})"
    )


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(FOLLOWS_BUDGET))
def test_a_policy_given_its_own_cost_as_budget_gives_its_own_plan(seed: int, policy: str) -> None:
    audits = adapter(seed, empty=1)
    own = POLICIES[policy](audits, budget=None)
    assert POLICIES[policy](audits, budget=own.parameters).ranks == own.ranks


WISHES = {
    "energy_90": lambda one: one.energy_rank_90,
    "entropy": lambda one: one.effective_rank,
    "stable_rank": lambda one: one.stable_rank,
    "knee": lambda one: knee_rank(one.sigma),
}


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(sorted(WISHES)), st.floats(0.05, 0.95))
def test_a_budget_keeps_the_order_of_wishes_among_modules_of_one_size(
    seed: int, policy: str, share: float
) -> None:
    audits = adapter(seed)
    low, high = floor_and_ceiling(audits)
    ranks = POLICIES[policy](audits, budget=round(low + share * (high - low))).ranks
    for one in audits:
        for other in audits:
            if one.projection == other.projection and WISHES[policy](one) > WISHES[policy](other):
                assert ranks[one.name] >= ranks[other.name]


def test_equal_wishes_are_served_by_gain_and_not_by_name() -> None:
    spectra = [(1.0, 1.0, 0.1, 0.1), (9.0, 9.0, 0.9, 0.9), (4.0, 4.0, 0.4, 0.4)]
    audits = [audit(f"h.{i}.up", sigma, d_out=10, d_in=10) for i, sigma in enumerate(spectra)]
    assert set(energy_90(audits).ranks.values()) == {2}
    assert energy_90(audits, budget=160).ranks == {"h.0.up": 2, "h.1.up": 4, "h.2.up": 2}
    assert energy_90(audits, budget=80).ranks == {"h.0.up": 1, "h.1.up": 2, "h.2.up": 1}
    # 139: a step to 160 is 21 over, to stay at 120 is 19 under; 140: as near; 141: over is nearer
    assert [energy_90(audits, budget=b).parameters for b in (139, 140, 141)] == [120, 120, 160]


@settings(max_examples=15)
@given(SEEDS, st.sampled_from(sorted(POLICIES)), st.sampled_from([None, 12_000]), st.randoms())
def test_the_order_of_modules_and_a_common_scale_change_no_plan(
    seed: int, policy: str, budget: int | None, random: object
) -> None:
    audits = adapter(seed)
    wanted = POLICIES[policy](audits, budget=budget).ranks
    moved = audits.copy()
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert POLICIES[policy](moved, budget=budget).ranks == wanted
    # s = 4 for every module: powers of two, so that not even the last digit moves
    scaled = [
        replace(one, scale=-4.0, spectral=4.0 * one.spectral, frobenius=4.0 * one.frobenius) for one in audits
    ]
    assert POLICIES[policy](scaled, budget=budget).ranks == wanted


def test_one_magnitude_threshold_ranks_modules_by_what_they_add() -> None:
    small, large = (1.0, 0.9, 0.8, 0.7), (40.0, 30.0, 20.0, 10.0)
    audits = [audit("h.0.up", small, d_out=6, d_in=4), audit("h.1.up", large, d_out=6, d_in=4)]
    assert POLICIES["global_sigma"](audits, budget=None).ranks == {"h.0.up": 1, "h.1.up": 4}
    for budget, ranks in ((50, (1, 4)), (60, (2, 4)), (30, (1, 2)), (80, (4, 4))):
        assert tuple(POLICIES["global_sigma"](audits, budget=budget).ranks.values()) == ranks
    louder = [replace(audits[0], scale=100.0, frobenius=100.0 * audits[0].frobenius), audits[1]]
    assert POLICIES["global_sigma"](louder, budget=50).ranks == {"h.0.up": 4, "h.1.up": 1}


def test_what_is_left_of_a_budget_goes_to_the_largest_value_left_out() -> None:
    audits = [
        audit("h.0.up", (10.0, 9.0, 3.0, 2.0), d_out=6, d_in=4),
        audit("h.1.up", (8.0, 7.0, 4.0, 1.0), d_out=6, d_in=4),
        audit("h.0.down", (6.0, 5.5, 5.0, 0.5), d_out=60, d_in=40),  # its step to 4 costs 200
    ]
    for left, ranks in ((0, (2, 2, 2)), (20, (2, 4, 2)), (40, (4, 4, 2)), (200, (2, 2, 4))):
        plan = POLICIES["global_sigma"](audits, budget=240 + left)
        assert tuple(plan.ranks.values()) == ranks


def test_the_core_of_a_rank_above_a_side_has_another_aspect_ratio() -> None:
    sigma = (2.5, 1.0, 1.0, 1.0)  # omega(1) = 2.86, omega(.5) = 2.17
    assert hard_threshold_rank(sigma, rank=4, d_out=4, d_in=100) == 0
    assert hard_threshold_rank(sigma, rank=8, d_out=4, d_in=100) == 1
    assert hard_threshold_rank(sigma, rank=8, d_out=100, d_in=4) == 1


def test_a_module_without_energy_counts_as_rank_1_in_uniform_quantiles() -> None:
    audits = [audit("h.0.up", (0.0,) * 4, d_out=4, d_in=4), audit("h.1.up", (1.0,) * 4, d_out=4, d_in=4)]
    plan = POLICIES["uniform_median"](audits, budget=None)
    assert set(plan.ranks.values()) == {4}  # 2.5 of 1 and 4, and not 2 of 0 and 4
    assert plan.notes[-1] == "rank 4 for every module: quantile 0.5 of the energy-90 ranks is 2.5"


def test_uniform_plans_of_quantiles_keep_their_cost_and_say_how_far_the_budget_is() -> None:
    audits = adapter(3)
    wishes = [one.energy_rank_90 for one in audits]
    for name, share in (("uniform_median", 0.5), ("uniform_p90", 0.9)):
        plan = POLICIES[name](audits, budget=5_000)
        rank = next_allowed(float(np.quantile(wishes, share)), 16)
        assert set(plan.ranks.values()) == {rank}
        assert plan.ranks == POLICIES[name](audits, budget=None).ranks
        assert f"{plan.parameters} parameters for a budget of 5000" in plan.notes[0]
        assert plan.notes[-1].startswith(f"rank {rank} for every module: quantile {share}")


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=5), st.integers(1, 4000)
)
def test_the_nearest_uniform_rank_is_the_one_that_trying_all_finds(
    sides: list[tuple[int, int]], budget: int
) -> None:
    shapes = [Shape(name=str(i), projection="up", d_out=a, d_in=b) for i, (a, b) in enumerate(sides)]
    unit = sum(shape.unit_cost for shape in shapes)
    tried = min(range(1, 65), key=lambda rank: abs(rank * unit - budget))
    assert nearest_uniform(shapes, budget, most=64) == tried
    assert nearest_uniform(shapes, 5 * unit // 2, most=64) == 2  # as near to 3, if unit is even


def test_an_equal_uniform_plan_follows_energy_90_and_never_exceeds_the_probe() -> None:
    audits = adapter(5)
    own = energy_90(audits)
    plan = POLICIES["uniform_equal"](audits, budget=None)
    (rank,) = set(plan.ranks.values())
    unit, _ = floor_and_ceiling(audits)
    assert abs(plan.parameters - own.parameters) <= unit / 2
    assert rank == round(own.parameters / unit)
    assert set(POLICIES["uniform_equal"](audits, budget=10**9).ranks.values()) == {16}


def test_budgets_beyond_reach_end_at_the_floor_or_the_probe_and_say_so() -> None:
    audits = adapter(6, empty=2)
    low, high = floor_and_ceiling(audits)
    for name in FOLLOWS_BUDGET:
        floor, ceiling = (POLICIES[name](audits, budget=budget) for budget in (1, 10 * high))
        assert (floor.parameters, ceiling.parameters) == (low, high)
        assert f"for a budget of {10 * high} (-9" in ceiling.notes[-1]
    silent = adapter(6, empty=16)
    for name in FOLLOWS_BUDGET:
        for budget in (None, 10 * low):
            assert set(POLICIES[name](silent, budget=budget).ranks.values()) == {1}


def test_a_margin_multiplies_the_energy_rank() -> None:
    sigma = (4.0, 4.0, 4.0, 4.0, 0.1, 0.1, 0.1, 0.1)
    audits = [audit("h.0.up", sigma, d_out=8, d_in=8)]
    assert [energy_90(audits, margin=m).ranks["h.0.up"] for m in (0.5, 1.0, 1.5, 9.0)] == [2, 4, 8, 8]


def test_what_cannot_be_planned_is_refused() -> None:
    audits = adapter(1)
    for name in (*FOLLOWS_BUDGET, "uniform_equal"):
        with pytest.raises(ValueError, match="a budget of 0 parameters"):
            POLICIES[name](audits, budget=0)
    for policy in POLICIES.values():
        with pytest.raises(ValueError, match="0 audits"):
            policy([], budget=None)
        with pytest.raises(ValueError, match="twice"):
            policy([audits[0], audits[0]], budget=None)
    with pytest.raises(ValueError, match="a margin of 0"):
        energy_90(audits, margin=0.0)
    shapes = shapes_of_audits(audits)
    ranks = dict.fromkeys((shape.name for shape in shapes), 2)
    with pytest.raises(ValueError, match=r"without a rank: \['model.layers.0.q_proj'\]"):
        parameters({name: 2 for name in ranks if name != "model.layers.0.q_proj"}, shapes)
    with pytest.raises(ValueError, match=r"unknown: \['head'\]"):
        parameters({**ranks, "head": 2}, shapes)
    with pytest.raises(ValueError, match="ranks below 1"):
        parameters({**ranks, "model.layers.0.q_proj": 0}, shapes)
    with pytest.raises(ValueError, match="give sides of 1 or more"):
        Shape(name="up", projection="up", d_out=0, d_in=4)
    with pytest.raises(ValueError, match="5 singular values of a core of 4 x 4"):
        hard_threshold_rank([1.0] * 5, rank=4, d_out=9, d_in=9)
    assert RankPlan(ranks=ranks, parameters=parameters(ranks, shapes)).notes == ()
