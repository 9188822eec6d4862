"""Discriminant, held-out AUC and confusions against R (MASS::lda, wilcox.test); p values under the null."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from stats.discriminant import auc, discriminant, from_moments
from stats.held_out_windows import combined, held_out_aucs, labellings
from stats.paired_seeds import paired_t
from stats.regime_classes import balanced_accuracy, held_out_confusion
from stats.rows import FloatArray
from stats.window_features import WindowPair

REFERENCE = Path(__file__).parent / "reference" / "separability.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}
ALL = labellings(3, rng=np.random.default_rng(0), permutations=1)


def block(s: int, r: int, k: int, twin: bool) -> FloatArray:
    t, f = np.mgrid[1:7, 1:4].astype(np.float64)
    x = np.sin(3.7 * t * f + 5 * k + 2 * s + 11 * r + 7 * twin * f) + 0.5 * np.cos(1.3 * t + f * f + k * s)
    found: FloatArray = x if twin else x + np.array([0.6, 0.3 * r, -0.2 * r])
    return found


def pair(s: int, r: int, k: int) -> WindowPair:
    steps = np.arange(6.0)
    return WindowPair(
        regime=f"r{r}",
        number=k,
        window=block(s, r, k, False),
        twin=block(s, r, k, True),
        steps=steps,
        before=steps,
    )


def tables(moved: tuple[bool, ...] | None, features: int = 3) -> list[FloatArray]:
    return [
        held_out_aucs(
            [pair(s, 1, k).window[:, :features] for k in (1, 2, 3)],
            [pair(s, 1, k).twin[:, :features] for k in (1, 2, 3)],
            ALL,
            moved=None if moved is None else np.array(moved),
            shrinkage=0.0,
        )
        for s in (1, 2)
    ]


def test_auc_is_that_of_wilcox_test_with_and_without_ties() -> None:
    plain = auc(np.array([3.1, 0.2, 2.2, 5.0]), np.array([1.0, 2.0, 0.1]))
    ties = auc(np.array([3.0, 2.0, 2.0, 1.0, 5.0]), np.array([1.0, 2.0, 2.0, 0.0]))
    assert (float(plain), float(ties)) == pytest.approx((R["auc_plain"], R["auc_ties"]), rel=1e-12)


def test_posteriors_without_shrinkage_are_those_of_mass_lda() -> None:
    two = discriminant(
        np.vstack([block(1, 1, 1, False), block(1, 1, 1, True)]), np.repeat([0, 1], 6), shrinkage=0.0
    )
    new = block(1, 1, 2, False)
    wanted = [R[f"posterior2_{t}"] for t in range(1, 7)]
    assert two.posterior(new)[:, 1] == pytest.approx(wanted, rel=1e-9)
    x = np.vstack([block(1, 1, 1, False), block(1, 1, 1, True), block(1, 2, 1, False)])
    three = discriminant(x, np.repeat([0, 1, 2], 6), shrinkage=0.0)
    wanted = [R[f"posterior3_{t}_{c}"] for t in range(1, 7) for c in (1, 2, 3)]
    assert three.posterior(new).ravel() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("kind", "moved"), [("all", None), ("third", (False, False, True))])
def test_held_out_aucs_under_every_labelling_and_their_p_are_those_of_r(
    kind: str, moved: tuple[bool, ...] | None
) -> None:
    of = tables(moved)
    for s, table in enumerate(of, start=1):
        wanted = [R[f"held_out_{kind}_{s}_{b}"] for b in range(1, 9)]
        assert table == pytest.approx(wanted, rel=1e-9)
    null = combined(of, rng=np.random.default_rng(0))
    assert (null.p, null.centre) == pytest.approx((R[f"p_{kind}"], R[f"null_mean_{kind}"]), rel=1e-9)
    low_high = (R[f"null_low_{kind}"], R[f"null_high_{kind}"])
    assert null.quantiles(0.05) == pytest.approx(low_high, rel=1e-9)


def test_what_a_feature_adds_has_the_t_interval_of_r() -> None:
    both = np.array([table[0] for table in tables(None)])
    without = np.array([table[0] for table in tables(None, features=2)])
    t = paired_t(both, without)
    wanted = (R["adds"], R["adds_low"], R["adds_high"])
    assert (t.estimate, t.low, t.high) == pytest.approx(wanted, rel=1e-9)


def test_confusions_of_all_classes_are_those_of_mass_lda() -> None:
    for s in (1, 2):
        pairs = [pair(s, r, k) for k in (1, 2, 3) for r in (1, 2)]
        counts = held_out_confusion(
            pairs, [0, 1, 2], ["r1", "r2"], np.zeros((1, 6), dtype=np.bool_), shrinkage=0.0
        )
        assert counts.ravel().tolist() == [R[f"confusion_{s}_{a}_{b}"] for a in (1, 2, 3) for b in (1, 2, 3)]
        assert float(balanced_accuracy(counts)[0]) == pytest.approx(R[f"balanced_{s}"], rel=1e-12)


def test_classes_swapped_give_one_minus_the_auc() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 5, size=(4, 9)).astype(float), rng.integers(0, 5, size=(4, 7)).astype(float)
    assert auc(x, y) == pytest.approx(1.0 - auc(y, x), rel=1e-12)
    assert float(auc(x[0], x[0])) == 0.5


def test_a_labelling_and_its_mirror_give_the_same_auc() -> None:
    for table in tables(None):
        assert table == pytest.approx(table[::-1], abs=1e-12)


def test_units_change_nothing_with_or_without_shrinkage() -> None:
    units = np.array([1e-6, 1.0, 1e4])
    for shrinkage in (0.0, 0.1, 1.0):
        plain, scaled = (
            held_out_aucs(
                [pair(1, 1, k).window * by for k in (1, 2, 3)],
                [pair(1, 1, k).twin * by for k in (1, 2, 3)],
                ALL,
                shrinkage=shrinkage,
            )
            for by in (np.ones(3), units)
        )
        assert plain == pytest.approx(scaled, abs=1e-12)


def test_a_perfect_and_a_constant_feature_leave_the_discriminant_finite() -> None:
    x = np.array([[0.0, 7.0], [0.0, 7.0], [1.0, 7.0], [1.0, 7.0]])
    fit = discriminant(x, np.array([0, 0, 1, 1]))
    assert np.isfinite(fit.weights).all()
    assert fit.scores(x).argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert fit.weights[:, 1].tolist() == [0.0, 0.0]


def test_many_windows_are_relabelled_at_random_and_many_seeds_drawn() -> None:
    rng = np.random.default_rng(3)
    drawn = labellings(8, rng=rng, permutations=50)
    assert drawn.shape == (51, 8)
    assert not drawn[0].any()
    null = combined([np.array([1.0, 0.0])] * 17, rng=rng)
    assert (null.exact, len(null.values)) == (False, 9_999)
    assert null.p == pytest.approx(1e-4)


def test_p_of_exchanged_windows_is_uniform_under_the_null() -> None:
    rng, p = np.random.default_rng(4), np.ones(400)
    for place in range(len(p)):
        windows, twins = rng.normal(size=(2, 3, 3, 4, 2))  # seeds, windows, steps, features
        p[place] = combined(
            [held_out_aucs(list(x), list(y), ALL) for x, y in zip(windows, twins, strict=True)], rng=rng
        ).p
    for level in (1 / 16, 1 / 4, 1 / 2, 3 / 4):  # reached exactly but for ties
        share = float((p <= level).mean())
        sd = (level * (1.0 - level) / len(p)) ** 0.5
        assert level - 4.0 * sd - 0.03 <= share <= level + 4.0 * sd


def test_bad_input_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="two or more"):
        held_out_aucs([np.zeros((2, 1))], [np.zeros((2, 1))], ALL[:, :1])
    with pytest.raises(ValueError, match="some features move only between equals"):
        held_out_aucs([np.zeros((2, 1))] * 3, [np.zeros((3, 1))] * 3, ALL, moved=np.array([True]))
    with pytest.raises(ValueError, match="allowed: 0 to 1"):
        from_moments(np.zeros((2, 1)), np.full(2, 2.0), np.eye(1), shrinkage=2.0)
    with pytest.raises(ValueError, match="a score or more"):
        auc(np.zeros(0), np.zeros(2))
    with pytest.raises(ValueError, match="one finite statistic"):
        combined([np.array([np.nan])], rng=np.random.default_rng(0))
