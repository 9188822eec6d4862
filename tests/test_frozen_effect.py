"""The frozen test: R's numbers, verdicts, what is undefined, and how often nothing is called something."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stats.frozen_effect import FEWEST_ROTATIONS, FrozenSeed, leverage_rows, rotation_p
from stats.rows import FloatArray, TestRow

REFERENCE = Path(__file__).parent / "reference" / "frozen_effect.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
STATES = ("zero", "own", "confident", "uncertain", "random")


def frozen(
    seed: int, effect: float, null: FloatArray, axis: FloatArray | None = None, sd: float = 0.2
) -> FrozenSeed:
    return FrozenSeed(
        seed=seed,
        effect_nats=effect,
        effect_top1=effect / 4.0,
        null_nats=null,
        null_top1=null / 4.0,
        axis_nats=null if axis is None else axis,
        sd_nats=sd,
        entropy_nats={state: 2.0 + 0.1 * k + 0.01 * seed for k, state in enumerate(STATES)},
        top1={state: 0.4 + 0.01 * k + 0.001 * seed for k, state in enumerate(STATES)},
    )


def r_seeds() -> list[FrozenSeed]:
    """The effects and rotations that `frozen_effect.R` makes."""
    s, i = np.ogrid[1:6, 1:201]
    effect = 0.22 + 0.05 * np.sin(3 * np.arange(1, 6))
    null = np.abs(0.1 + 0.1 * np.sin(1.3 * i + 0.7 * s) + 0.03 * np.cos(2.9 * i * s))
    axis = np.abs(0.2 + 0.1 * np.sin(0.9 * i + 1.1 * s))
    return [frozen(k + 1, float(effect[k]), null[k], axis[k], sd=0.2 + 0.01 * (k + 1)) for k in range(5)]


def rows_of(seeds: Sequence[FrozenSeed], margin: float = 0.05) -> list[TestRow]:
    return leverage_rows({"self": seeds}, main="self", margin=margin)


def one(
    rows: list[TestRow], hypothesis: str, metric: str = "entropy_nats", contrast: str = "self"
) -> TestRow:
    (row,) = (r for r in rows if (r.hypothesis, r.metric, r.contrast) == (hypothesis, metric, contrast))
    return row


def verdict(seeds: Sequence[FrozenSeed], margin: float = 0.05) -> TestRow:
    return rows_of(seeds, margin)[-1]


def drawn(rng: np.random.Generator, seeds: int, *, shift: float = 0.0, m: int = 199) -> list[FrozenSeed]:
    """Effects from the distribution of their rotations, which differs between seeds, moved by `shift`."""
    made = []
    for seed in range(seeds):
        all_ = np.abs(rng.normal(0.1 + 0.05 * seed, 0.04 + 0.01 * seed, m + 1))
        made.append(frozen(seed, float(all_[0]) + shift, all_[1:]))
    return made


def test_every_number_is_that_of_r() -> None:
    rows = rows_of(r_seeds())
    excess, tost, fisher = one(rows, "excess"), one(rows, "tost"), one(rows, "combined")
    axis, size = one(rows, "axis_alignment"), one(rows, "standardised")
    found = {
        **{f"p_{s}": one(rows, "rotation", contrast=f"self:seed {s}").p for s in range(1, 6)},
        "chi2": fisher.statistic,
        "fisher_p": fisher.p,
        "axis_chi2": axis.statistic,
        "axis_p": axis.p,
        "excess": excess.estimate,
        "low": excess.low,
        "high": excess.high,
        "t": excess.statistic,
        "p": excess.p,
        "tost_p": tost.p,
        "tost_low": tost.low,
        "tost_high": tost.high,
        "standardised": size.estimate,
        "standardised_low": size.low,
        "standardised_high": size.high,
    }
    assert found == pytest.approx({name: R[name] for name in found}, rel=1e-9)
    assert excess.mde == pytest.approx(R["mde"], rel=1e-5)
    assert (fisher.df1, fisher.n, axis.df1) == (10.0, 5, 10.0)


def test_the_verdict_carries_fishers_p_and_the_interval_of_the_excess() -> None:
    rows = rows_of(r_seeds())
    last = rows[-1]
    assert (last.hypothesis, last.role, last.contrast, last.verdict) == (
        "leverage",
        "verdict",
        "*",
        "DETECTED",
    )
    assert (last.p, last.low) == (one(rows, "combined").p, one(rows, "excess").low)
    assert one(rows, "excess").verdict == "DETECTED"
    assert last.negligible is False


def test_scipy_gives_the_same_fisher() -> None:
    rows = rows_of(r_seeds())
    p = [row.p or 0.0 for row in rows if row.hypothesis == "rotation" and row.metric == "entropy_nats"]
    assert one(rows, "combined").p == pytest.approx(
        stats.combine_pvalues(p, method="fisher").pvalue, rel=1e-12
    )


def test_roles_and_the_published_criterion() -> None:
    rows = rows_of(r_seeds())
    roles = {(row.hypothesis, row.metric): row.role for row in rows}
    assert roles[("rotation", "entropy_nats")] == "secondary"
    assert roles[("excess", "entropy_nats")] == roles[("combined", "entropy_nats")] == "decides"
    assert (
        roles[("excess", "top1")] == roles[("combined", "top1")] == roles[("rotation", "top1")] == "secondary"
    )
    assert roles[("axis_alignment", "entropy_nats")] == roles[("state", "top1")] == "diagnostic"
    published = one(rows, "published")
    effects = [seed.effect_nats for seed in r_seeds()]
    assert (published.role, published.verdict, published.reason) == ("legacy", None, None)
    assert published.estimate == pytest.approx(np.mean(effects))
    assert published.statistic == sum(effect > 0.3 for effect in effects)
    states = [row for row in rows if row.hypothesis == "state"]
    assert len(states) == 2 * len(STATES)
    assert one(rows, "state", contrast="self:own").estimate == pytest.approx(2.13)
    names = [(row.hypothesis, row.metric, row.contrast) for row in rows]
    assert len(set(names)) == len(names)


def test_ties_count_as_at_least_as_large() -> None:
    assert rotation_p(0.2, np.array([0.1, 0.2, 0.3])) == 0.75
    assert rotation_p(0.1 + 0.2, np.array([0.3, 0.1, 0.1])) == 0.5  # .1 + .2 is not .3 in floating point
    assert rotation_p(1.0, np.zeros(199)) == 1 / 200
    with pytest.raises(ValueError, match="one or more"):
        rotation_p(0.2, np.array([]))


def test_no_injection_at_all_is_exactly_equivalent() -> None:
    seeds = [frozen(seed, 0.0, np.zeros(200)) for seed in range(5)]
    rows = rows_of(seeds)
    assert all(row.p == 1.0 for row in rows if row.hypothesis == "rotation")
    assert (one(rows, "combined").p, one(rows, "combined").statistic) == (1.0, 0.0)
    last = rows[-1]
    assert (last.verdict, last.estimate, last.low, last.high, last.p) == ("EQUIVALENT", 0.0, 0.0, 0.0, 1.0)
    assert last.reason == "effects and rotations are exactly 0 in every seed"
    assert one(rows, "excess").p == 1.0


def test_an_effect_like_its_rotations_is_equivalent_and_a_noisy_one_inconclusive() -> None:
    rng = np.random.default_rng(0)
    null = [np.abs(rng.normal(0.1, 0.03, 200)) for _ in range(5)]
    alike = [frozen(s, float(n.mean()) + 0.004 * (-1) ** s, n) for s, n in enumerate(null)]
    assert verdict(alike).verdict == "EQUIVALENT"
    noisy = [frozen(s, float(n.mean()) + 0.09 * (-1) ** s, n) for s, n in enumerate(null)]
    found = verdict(noisy)
    assert found.verdict == "INCONCLUSIVE"
    assert found.n_to_settle is not None
    assert found.n_to_settle > 5


def test_one_special_seed_makes_fisher_reject_and_is_not_enough() -> None:
    rng = np.random.default_rng(1)
    made = [np.abs(rng.normal(0.1, 0.02, 999)) for _ in range(3)]
    seeds = [frozen(s, 0.9 if s == 0 else float(np.median(n)), n) for s, n in enumerate(made)]
    rows = rows_of(seeds)
    assert (one(rows, "combined").p or 1.0) < 0.05
    assert rows[-1].verdict == "INCONCLUSIVE"


def test_an_excess_above_0_without_fishers_p_is_not_detected() -> None:
    rng = np.random.default_rng(5)
    null = [np.abs(rng.normal(0.1, 0.03, 200)) for _ in range(5)]
    rows = rows_of([frozen(s, float(n.mean()) + 0.004 + 0.0005 * s, n) for s, n in enumerate(null)])
    assert (one(rows, "excess").low or 0.0) > 0.0
    assert (one(rows, "combined").p or 0.0) > 0.3
    assert rows[-1].verdict == "EQUIVALENT"


def test_one_seed_is_inconclusive_whatever_its_effect() -> None:
    found = verdict([frozen(0, 5.0, np.full(200, 0.1))])
    assert found.verdict == "INCONCLUSIVE"
    assert found.estimate == pytest.approx(4.9)
    assert found.reason == (
        "1 seed, a verdict needs 5 or more; 1 seed; an interval over seeds needs two or more"
    )


def test_fewer_than_five_seeds_are_inconclusive_with_their_numbers() -> None:
    rng = np.random.default_rng(6)
    special = drawn(rng, 5, shift=0.4)
    for n, expected in ((2, "INCONCLUSIVE"), (4, "INCONCLUSIVE"), (5, "DETECTED")):
        rows = rows_of(special[:n])
        assert rows[-1].verdict == one(rows, "excess").verdict == expected, n
        assert rows[-1].estimate is not None
        assert (rows[-1].reason is None) == (n == 5)
    none = [frozen(seed, 0.0, np.zeros(200)) for seed in range(4)]
    found = verdict(none)
    assert (found.verdict, found.p) == ("INCONCLUSIVE", 1.0)
    assert (found.reason or "").startswith("4 seeds, a verdict needs 5 or more; effects and rotations")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"effect_nats": math.nan}, "seed 2: effect_nats not finite"),
        ({"sd_nats": math.inf}, "seed 2: sd_nats not finite"),
        ({"null_nats": np.array([])}, "seed 2: 0 rotations in null_nats, 199 are the fewest"),
        ({"axis_nats": np.ones(198)}, "seed 2: 198 rotations in axis_nats, 199 are the fewest"),
        ({"null_top1": np.append(np.ones(199), np.nan)}, "seed 2: null_top1 not finite"),
        ({"entropy_nats": {"own": math.nan}}, "seed 2: entropy_nats of own not finite"),
    ],
)
def test_a_seed_with_something_missing_makes_the_arm_invalid(change: dict[str, object], why: str) -> None:
    seeds = r_seeds()
    seeds[1] = replace(seeds[1], **change)  # type: ignore[arg-type]
    rows = rows_of(seeds)
    assert (rows[-1].verdict, rows[-1].reason, rows[-1].estimate) == ("INVALID", why, None)
    broken = one(rows, "rotation", contrast="self:seed 2")
    assert (broken.p, broken.reason) == (None, why.removeprefix("seed 2: "))
    assert one(rows, "rotation", contrast="self:seed 1").p == pytest.approx(R["p_1"])


def test_the_verdict_rests_on_the_main_arm_alone() -> None:
    nothing = [frozen(seed, 0.0, np.zeros(200)) for seed in range(5)]
    broken = [frozen(0, math.nan, np.zeros(200))]
    rows = leverage_rows({"none": nothing, "self": r_seeds(), "broken": broken}, main="self")
    assert rows[-1].verdict == "DETECTED"
    assert one(rows, "excess", contrast="none").verdict == "EQUIVALENT"
    assert one(rows, "excess", contrast="broken").verdict == "INVALID"
    gone = leverage_rows({"none": nothing}, main="self")[-1]
    assert (gone.verdict, gone.reason) == ("INVALID", "no frozen test of self")
    assert leverage_rows({"self": []}, main="self")[-1].reason == "no seed was tested"


def test_what_cannot_be_an_absolute_effect_is_refused() -> None:
    seeds = r_seeds()
    with pytest.raises(ValueError, match="pass absolute differences"):
        rows_of([replace(seeds[0], effect_nats=-0.1)])
    with pytest.raises(ValueError, match="below 0; pass absolute ones"):
        rows_of([replace(seeds[0], null_nats=-seeds[0].null_nats)])
    with pytest.raises(ValueError, match="pass \\(m,\\)"):
        rows_of([replace(seeds[0], null_nats=np.ones((2, 200)))])
    with pytest.raises(ValueError, match="each counts once"):
        rows_of([seeds[0], seeds[0]])
    with pytest.raises(ValueError, match="margin is above 0"):
        rows_of(seeds, margin=0.0)


def test_a_state_that_never_varies_over_batches_has_no_standardised_effect() -> None:
    rows = rows_of([replace(seed, sd_nats=0.0) for seed in r_seeds()])
    assert (one(rows, "standardised").estimate, rows[-1].verdict) == (None, "DETECTED")
    assert one(rows, "standardised").reason == "5 of 5 seeds left out: undefined there"


def test_larger_units_scale_the_excess_and_leave_p_alone() -> None:
    seeds = r_seeds()
    larger = [
        replace(s, effect_nats=3 * s.effect_nats, null_nats=3 * s.null_nats, axis_nats=3 * s.axis_nats)
        for s in seeds
    ]
    was, found = verdict(seeds), verdict(larger, margin=0.15)
    assert found.p == was.p
    assert [found.estimate, found.low, found.mde] == pytest.approx(
        [3 * (was.estimate or 0.0), 3 * (was.low or 0.0), 3 * (was.mde or 0.0)]
    )
    assert (found.verdict, found.n_to_settle) == (was.verdict, was.n_to_settle)


def test_p_of_a_seed_is_uniform_and_fishers_conservative_when_p_is_nothing_special() -> None:
    rng = np.random.default_rng(2)
    trials, S = 4000, 5
    draws = np.abs(rng.normal(0.1, 0.05, (trials, S, FEWEST_ROTATIONS + 1)))
    p = np.array([[rotation_p(float(d[0]), d[1:]) for d in trial] for trial in draws])
    assert stats.kstest(p.ravel() - 0.5 / 200, "uniform").pvalue > 1e-4
    assert p.min() >= 1 / 200
    for alpha in (0.05, 0.01):
        rejected = np.mean(stats.combine_pvalues(p, method="fisher", axis=1).pvalue < alpha)
        assert rejected < alpha + 4.0 * math.sqrt(alpha * (1 - alpha) / trials)


def test_an_injection_like_any_other_is_detected_at_most_at_alpha_and_a_special_one_nearly_always() -> None:
    rng = np.random.default_rng(3)
    trials = 150
    nothing = [verdict(drawn(rng, 5)).verdict for _ in range(trials)]
    assert nothing.count("DETECTED") / trials < 0.025 + 4.0 * math.sqrt(0.025 * 0.975 / trials)
    special = [verdict(drawn(rng, 5, shift=0.2)).verdict for _ in range(40)]
    assert special.count("DETECTED") >= 36


def test_the_interval_of_the_excess_covers() -> None:
    rng = np.random.default_rng(4)
    trials, inside = 200, 0
    for _ in range(trials):
        null = rng.normal(0.1, 0.001, 199)
        seeds = [frozen(s, float(e), null) for s, e in enumerate(np.abs(rng.normal(0.3, 0.04, 4)))]
        row = one(rows_of(seeds), "excess")
        inside += (row.low or 0.0) <= 0.3 - float(null.mean()) <= (row.high or 0.0)
    assert abs(inside / trials - 0.95) < 4.0 * math.sqrt(0.95 * 0.05 / trials)
