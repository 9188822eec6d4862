"""Controls of a rank plan: same ranks, same cost, other places; and when a control is none."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rank_controls import (
    DEGENERATE_SHARE,
    TOLERANCE,
    arrangements,
    degenerate,
    inverse,
    share_alike,
    shuffled_free,
    shuffled_full,
    shuffled_within,
    uniform_equal,
)
from models.rank_policies import ALLOWED, RankPlan, Shape, parameters

LINES = (Path(__file__).parent / "reference" / "rank_costs.txt").read_text(encoding="utf-8").splitlines()
REFERENCE = [line.split("\t") for line in LINES]
OF_R = {row[1]: int(row[2]) for row in REFERENCE if row[0] == "mistral"}

MISTRAL_SIDES = {  # d_out, d_in
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
SMALL_SIDES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (176, 64),
    "mlp.up_proj": (176, 64),
    "mlp.down_proj": (64, 176),
}


def shapes_of(sides: Mapping[str, tuple[int, int]], layers: int) -> tuple[Shape, ...]:
    return tuple(
        Shape(name=f"model.layers.{i}.{part}", projection=part.split(".")[1], d_out=d_out, d_in=d_in)
        for i in range(layers)
        for part, (d_out, d_in) in sides.items()
    )


MISTRAL, SMALL = shapes_of(MISTRAL_SIDES, 32), shapes_of(SMALL_SIDES, 4)


def drawn(shapes: tuple[Shape, ...], seed: int, values: tuple[int, ...] = ALLOWED) -> dict[str, int]:
    """Any allowed rank for each module."""
    rng = random.Random(seed)
    return {shape.name: rng.choice(values) for shape in shapes}


# rank of module m in layer l: 2^((3 m + 5 l + m l) mod 7), as the R script has it
BY_RULE = {
    shape.name: 2 ** ((3 * m + 5 * layer + m * layer) % 7)
    for layer in range(32)
    for m, shape in enumerate(MISTRAL[7 * layer : 7 * layer + 7])
}
BY_TYPE = {s.name: (32 if s.projection.startswith(("gate", "up", "down")) else 4) for s in MISTRAL}
PLANS = {"by rule": BY_RULE, "mixed": drawn(MISTRAL, 1), "by type": BY_TYPE}


def by_projection(ranks: Mapping[str, int], shapes: tuple[Shape, ...]) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for shape in shapes:
        found[shape.projection][ranks[shape.name]] += 1
    return found


def test_costs_on_mistral_are_those_that_r_counts() -> None:
    assert {shape.unit_cost for shape in MISTRAL} == {8_192, 5_120, 18_432}
    assert parameters(BY_RULE, MISTRAL) == OF_R["parameters"]
    assert parameters(dict.fromkeys(BY_RULE, 1), MISTRAL) == OF_R["one_rank"]
    plan = uniform_equal(BY_RULE, MISTRAL)
    assert set(plan.ranks.values()) == {OF_R["uniform_equal"]}
    assert plan.parameters == OF_R["uniform_equal"] * OF_R["one_rank"]


@pytest.mark.parametrize("plan", PLANS)
def test_a_shuffle_within_projections_costs_exactly_the_same_on_mistral(plan: str) -> None:
    ranks = PLANS[plan]
    for draw in range(1, 9):
        found = shuffled_within(ranks, MISTRAL, seed=42, draw=draw)
        assert found.parameters == parameters(found.ranks, MISTRAL) == parameters(ranks, MISTRAL)
        assert by_projection(found.ranks, MISTRAL) == by_projection(ranks, MISTRAL)
        assert (found.ranks == ranks) == (plan == "by type")


def test_a_free_shuffle_changes_the_cost_on_mistral(record_property: Callable[[str, object], None]) -> None:
    rows = ["parameters of shuffled_free against its treatment, Mistral-7B, r <= 64:"]
    for name, ranks in PLANS.items():
        plans = [shuffled_free(ranks, MISTRAL, seed=seed) for seed in range(42, 52)]
        off = [plan.parameters / parameters(ranks, MISTRAL) - 1.0 for plan in plans]
        assert all(sorted(plan.ranks.values()) == sorted(ranks.values()) for plan in plans)
        assert f"({off[0]:+.2%})" in plans[0].notes[0]
        rows.append(f"  {name:8s} seed 42 {off[0]:+.2%}, seeds 42..51 {min(off):+.2%} to {max(off):+.2%}")
        if name == "by type":
            assert min(off) < -0.2  # high ranks where they cost most: any move makes the adapter smaller
    record_property("table", "\n".join(rows))


@pytest.mark.parametrize("plan", PLANS)
def test_a_full_shuffle_is_repaired_to_the_cost_on_mistral(plan: str) -> None:
    ranks = PLANS[plan]
    target = parameters(ranks, MISTRAL)
    for draw in (1, 2):
        found = shuffled_full(ranks, MISTRAL, seed=42, draw=draw)
        assert abs(found.parameters - target) <= TOLERANCE * target
        assert sorted(found.ranks.values()) == sorted(ranks.values())
        assert len(found.notes) == 1
        assert found == shuffled_full(ranks, MISTRAL, seed=42, draw=draw)
    if plan != "by type":
        assert share_alike(ranks, found.ranks) < 0.5
        assert by_projection(found.ranks, MISTRAL) != by_projection(ranks, MISTRAL)


SEEDS = st.integers(0, 10_000)


@settings(max_examples=25)
@given(SEEDS, SEEDS)
def test_every_control_keeps_what_it_promises(plan_seed: int, seed: int) -> None:
    ranks = drawn(SMALL, plan_seed, (1, 2, 4, 8, 16))
    total = parameters(ranks, SMALL)
    within = [shuffled_within(ranks, SMALL, seed=seed, draw=k) for k in (1, 2, 3, 4)]
    keys = {tuple(plan.ranks.values()) for plan in within} | {tuple(ranks.values())}
    assert len(keys) == 5
    for plan in (*within, inverse(ranks, SMALL)):
        assert plan.parameters == total
        assert by_projection(plan.ranks, SMALL) == by_projection(ranks, SMALL)
    full, free = shuffled_full(ranks, SMALL, seed=seed), shuffled_free(ranks, SMALL, seed=seed)
    assert sorted(full.ranks.values()) == sorted(free.ranks.values()) == sorted(ranks.values())
    assert abs(full.parameters - total) <= TOLERANCE * total
    uniform = uniform_equal(ranks, SMALL)
    assert abs(uniform.parameters - total) <= sum(shape.unit_cost for shape in SMALL) / 2
    for plan in (*within, full, free, uniform):
        assert list(plan.ranks) == list(ranks)
        assert plan.parameters == parameters(plan.ranks, SMALL)


def test_the_order_of_shapes_and_other_draws_change_no_draw() -> None:
    ranks = drawn(SMALL, 3)
    wanted = [shuffled_within(ranks, SMALL, seed=7, draw=k) for k in (1, 2, 3)]
    moved = tuple(reversed(SMALL))
    assert [shuffled_within(ranks, moved, seed=7, draw=k) for k in (3, 1)] == [wanted[2], wanted[0]]
    assert shuffled_full(ranks, moved, seed=7) == shuffled_full(ranks, SMALL, seed=7)
    assert shuffled_within(ranks, SMALL, seed=8, draw=1) != wanted[0]
    assert shuffled_full(ranks, SMALL, seed=8) != shuffled_full(ranks, SMALL, seed=8, draw=2)


@pytest.mark.parametrize("row", [row for row in REFERENCE if row[0] == "group"], ids=lambda row: row[1])
def test_arrangements_and_reverse_order_are_those_that_r_finds_by_listing_all(row: list[str]) -> None:
    values = [int(value) for value in row[1].split(" ")]
    shapes = tuple(Shape(name=f"h.{i}.up", projection="up", d_out=8, d_in=4) for i in range(len(values)))
    ranks = {shape.name: value for shape, value in zip(shapes, values, strict=True)}
    assert arrangements(ranks, shapes) == int(row[2])
    turned = inverse(ranks, shapes).ranks
    assert sum(turned[name] * rank for name, rank in ranks.items()) == int(row[3])  # the least of all orders
    others = int(row[2]) - 1
    keys = [tuple(shuffled_within(ranks, shapes, seed=1, draw=k + 1).ranks.values()) for k in range(others)]
    assert len({*keys, tuple(values)}) == others + 1  # every arrangement once


def test_the_published_shuffle_is_of_the_values_in_order_of_name() -> None:
    ranks = {f"model.layers.{i}.mlp.up_proj": rank for i, rank in enumerate((1, 2, 4, 8, 16, 32, 64) * 2)}
    shapes = shapes_of({"mlp.up_proj": (8, 4)}, 14)
    names = ["0", "1", "10", "11", "12", "13", *"23456789"]  # text order, not that of layers
    values = [ranks[f"model.layers.{i}.mlp.up_proj"] for i in names]
    random.Random(10_042).shuffle(values)
    plan = shuffled_free(ranks, shapes, seed=42)
    assert [plan.ranks[f"model.layers.{i}.mlp.up_proj"] for i in names] == values
    assert "(+0.00%)" in plan.notes[0]


def test_no_draw_is_degenerate_where_enough_ranks_can_move() -> None:
    shapes = tuple(Shape(name=f"h.{i}.up", projection="up", d_out=8, d_in=4) for i in range(12))
    ranks = {shape.name: 8 if i in (0, 1) else 4 for i, shape in enumerate(shapes)}
    plain = random.Random(0)
    values = list(ranks.values())
    alike = 0
    for _ in range(200):  # one free shuffle in three moves one of the two eights only, or none
        plain.shuffle(values)
        alike += share_alike(ranks, dict(zip(ranks, values, strict=True))) >= DEGENERATE_SHARE
    assert alike > 40
    draws = [shuffled_within(ranks, shapes, seed=s, draw=k).ranks for s in range(8) for k in (1, 2, 3, 4)]
    assert all(degenerate(ranks, found) is None for found in draws)
    one = ranks | {"h.1.up": 4}
    stuck = shuffled_within(one, shapes, seed=0, draw=1)
    assert degenerate(one, stuck.ranks) is not None
    assert "every arrangement drawn keeps 80%" in stuck.notes[0]


def test_more_draws_than_arrangements_repeat_and_say_so() -> None:
    shapes = tuple(Shape(name=f"h.{i}.up", projection="up", d_out=8, d_in=4) for i in range(3))
    ranks = {"h.0.up": 2, "h.1.up": 2, "h.2.up": 4}
    plans = [shuffled_within(ranks, shapes, seed=5, draw=k) for k in (1, 2, 3, 4)]
    assert plans[0].ranks != plans[1].ranks
    assert plans[2].ranks == plans[0].ranks
    assert plans[3].notes == ("draw 4 repeats draw 2: 2 other arrangements exist",)


def test_a_draw_is_even_over_the_other_arrangements() -> None:
    shapes = tuple(Shape(name=f"h.{i}.up", projection="up", d_out=8, d_in=4) for i in range(3))
    ranks = {"h.0.up": 1, "h.1.up": 2, "h.2.up": 4}
    counts = Counter(
        tuple(shuffled_within(ranks, shapes, seed=seed, draw=2).ranks.values()) for seed in range(2000)
    )
    assert set(counts) == {*permutations((1, 2, 4))} - {(1, 2, 4)}
    assert all(abs(count - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5 for count in counts.values())


def test_equal_ranks_in_each_projection_leave_nothing_to_permute() -> None:
    found = shuffled_within(BY_TYPE, MISTRAL, seed=1, draw=1)
    assert found.ranks == BY_TYPE
    assert found.notes[-1] == "nothing can be permuted"
    assert "q_proj 4096 x 4096: rank 4 in all 32, unchanged" in found.notes
    assert inverse(BY_TYPE, MISTRAL).notes[-1] == "nothing can be reversed"
    assert "100% of 224" in (degenerate(BY_TYPE, found.ranks) or "")


def test_a_projection_of_unequal_shapes_is_permuted_within_each_shape_and_says_so() -> None:
    sides = [(8, 4)] * 3 + [(16, 4)] * 3
    shapes = tuple(
        Shape(name=f"h.{i}.up", projection="up", d_out=a, d_in=b) for i, (a, b) in enumerate(sides)
    )
    ranks = {f"h.{i}.up": rank for i, rank in enumerate((1, 2, 4, 8, 16, 32))}
    for plan in (shuffled_within(ranks, shapes, seed=1, draw=1), inverse(ranks, shapes)):
        assert plan.parameters == parameters(ranks, shapes)
        assert sorted(list(plan.ranks.values())[:3]) == [1, 2, 4]
        assert plan.notes == ("up: modules of unequal shapes, permuted within each shape",)


@settings(max_examples=25)
@given(SEEDS)
def test_the_inverse_reverses_each_order_and_twice_restores_distinct_ranks(seed: int) -> None:
    ranks = drawn(SMALL, seed)
    turned = inverse(ranks, SMALL).ranks
    for one in SMALL:
        for other in SMALL:
            if one.projection == other.projection and ranks[one.name] > ranks[other.name]:
                assert turned[one.name] <= turned[other.name]
    distinct = {
        shape.name: rank
        for shape, rank in zip(SMALL, random.Random(seed).sample(range(1, 65), 28), strict=True)
    }
    assert inverse(inverse(distinct, SMALL).ranks, SMALL).ranks == distinct


def test_a_cost_that_no_shuffle_reaches_is_said() -> None:
    rng = random.Random(3)
    shapes = tuple(
        Shape(name=f"h.{i}.up", projection=f"up{i}", d_out=rng.randrange(1, 10**9), d_in=1) for i in range(40)
    )
    ranks = drawn(shapes, 4)
    total = parameters(ranks, shapes)
    near, exact = (shuffled_full(ranks, shapes, seed=1, tolerance=t) for t in (TOLERANCE, 0.0))
    assert len(near.notes) == 1
    assert 0 < abs(exact.parameters - total) < 1e-6 * total  # the nearest of 50, the first is off by 9e-6
    assert sorted(exact.ranks.values()) == sorted(ranks.values())
    assert exact.notes[1:] == (
        "none of 50 shuffles could be brought within 0.0% of the treatment's parameters",
    )


def degenerate_plan(ranks: Mapping[str, int], alike: int) -> dict[str, int]:
    """The plan with all but the first `alike` modules given another rank."""
    return {name: rank if i < alike else rank + 1 for i, (name, rank) in enumerate(ranks.items())}


def test_degenerate_controls_are_named_with_their_reason() -> None:
    ranks = {f"h.{i}.up": 2 ** (i % 3) for i in range(10)}
    assert DEGENERATE_SHARE == 0.8
    for alike in range(11):
        why = degenerate(ranks, degenerate_plan(ranks, alike))
        assert share_alike(ranks, degenerate_plan(ranks, alike)) == alike / 10
        assert (why is not None) == (alike >= 8)
        if why is not None:
            assert why == f"degenerate: {alike}0% of 10 modules keep the treatment's rank (80% or more)"
    equal = dict.fromkeys(ranks, 4)
    assert "all 10 modules rank 4" in (degenerate(equal, ranks) or "")
    assert "2 modules have one other order" in (degenerate({"a": 1, "b": 2}, {"a": 2, "b": 1}) or "")


def test_controls_of_other_modules_or_draws_are_refused() -> None:
    ranks = drawn(SMALL, 1)
    short = {name: rank for name, rank in ranks.items() if "layers.0" not in name}
    builders: tuple[Callable[[], RankPlan], ...] = (
        lambda: shuffled_within(short, SMALL, seed=1, draw=1),
        lambda: shuffled_full(short, SMALL, seed=1),
        lambda: shuffled_free(short, SMALL, seed=1),
        lambda: inverse(short, SMALL),
        lambda: uniform_equal(short, SMALL),
    )
    for build in builders:
        with pytest.raises(ValueError, match="21 ranks for 28 modules"):
            build()
    for shuffle in (shuffled_within, shuffled_full):
        with pytest.raises(ValueError, match="draws count from 1"):
            shuffle(ranks, SMALL, seed=1, draw=0)
    with pytest.raises(ValueError, match="28 and 21 modules"):
        share_alike(ranks, short)
    with pytest.raises(ValueError, match="0 and 0 modules"):
        degenerate({}, {})
