"""Levels of looks that add up to alpha, and what they keep: the error over both looks, under the null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stats.frozen_effect import FrozenSeed, leverage_rows
from stats.sequential import look_levels
from stats.split_looks import split_levels

STUDIES = 400
ALPHA = 0.05


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6, unique=True),
    st.floats(0.001, 0.4),
    st.floats(-6.0, 4.0),
)
def test_levels_are_above_0_and_add_up_to_alpha(looks: list[int], alpha: float, gamma: float) -> None:
    levels = split_levels(sorted(looks), alpha=alpha, gamma=gamma)
    assert list(levels) == sorted(looks)
    assert min(levels.values()) > 0.0
    assert sum(levels.values()) == pytest.approx(alpha)


@pytest.mark.parametrize("looks", [(), (5, 5), (10, 5), (0, 5)])
def test_looks_that_do_not_rise_are_refused(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising numbers of units"):
        split_levels(looks)


def test_the_bound_is_not_above_the_levels_that_use_how_looks_correlate() -> None:
    spent, path = split_levels((5, 10), gamma=-4.0), look_levels((5, 10), groups=2)
    assert spent[5] == pytest.approx(path[5])
    assert spent[10] < path[10]


def _null_seed(rng: np.random.Generator, seed: int) -> FrozenSeed:
    """Effect and rotations from one distribution, which differs between seeds."""
    scale = float(rng.uniform(0.05, 0.4))
    drawn = np.abs(rng.normal(0.0, scale, 200))
    return FrozenSeed(
        seed=seed, effect_nats=float(drawn[0]), effect_top1=float(drawn[0]), null_nats=drawn[1:],
        null_top1=drawn[1:], axis_nats=drawn[1:], sd_nats=0.1, entropy_nats={"own": 2.0}, top1={"own": 0.3},
    )  # fmt: skip


@pytest.mark.long
def test_two_looks_at_leverage_reject_a_true_null_in_at_most_alpha_of_the_studies() -> None:
    """5 seeds, and 10 where those do not reject, as the gate looks; beside it both looks at .05 each."""
    rng = np.random.default_rng(0)
    levels = split_levels((5, 10), alpha=ALPHA)
    rejected = {"spent": 0, "twice .05": 0}
    fisher = {"spent": 0, "twice .05": 0}
    for _ in range(STUDIES):
        seeds = [_null_seed(rng, s) for s in range(10)]
        for name, at in (("spent", levels), ("twice .05", dict.fromkeys(levels, ALPHA))):
            rows = {k: leverage_rows({"self": seeds[:k]}, main="self", alpha=at[k]) for k in (5, 10)}
            rejected[name] += any(found[-1].verdict == "DETECTED" for found in rows.values())
            p = {k: next(r.p for r in found if r.hypothesis == "combined") for k, found in rows.items()}
            fisher[name] += any((p[k] or 0.0) <= at[k] for k in p)
    two_sd = 2.0 * np.sqrt(ALPHA * (1 - ALPHA) / STUDIES)
    assert rejected["spent"] / STUDIES <= ALPHA
    assert fisher["spent"] / STUDIES <= ALPHA + two_sd  # Fisher's part alone, which is nearly exact
    assert fisher["twice .05"] > fisher["spent"]
    assert rejected["twice .05"] >= rejected["spent"]
    print({name: (rejected[name] / STUDIES, fisher[name] / STUDIES) for name in rejected})


def test_two_looks_that_share_nothing_reject_a_true_null_in_at_most_alpha_of_the_studies() -> None:
    """As where windows are drawn anew: two exact tests whose p values are joined by anything."""
    rng = np.random.default_rng(1)
    levels = split_levels((5, 10), alpha=ALPHA)
    n = 400_000
    first = rng.random(n)
    for second in (rng.random(n), first, 1.0 - first):
        rate = float(((first <= levels[5]) | (second <= levels[10])).mean())
        assert rate <= ALPHA + 3.0 * np.sqrt(ALPHA * (1 - ALPHA) / n)
