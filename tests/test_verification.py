"""ROC, calibrated thresholds and what they accept: against pROC, pairs counted one by one, and simulated."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from models.sense_conditions import HARD_MIX
from models.sense_enrichment import labelled
from models.sense_world import WorldSpec, world
from stats.proportions import Share
from stats.rows import FloatArray
from stats.verification import BoolArray, calibrate, judged, roc

REFERENCE = Path(__file__).parent / "reference" / "verification.txt"
R = {name: float(value) for name, value in csv.reader(REFERENCE.read_text().splitlines(), delimiter="\t")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The contexts of the R script."""

    cosine: FloatArray
    gap: FloatArray
    genuine: BoolArray
    cluster: list[int]


def same_contexts_as_r() -> Labelled:
    x = 7

    def draw(size: int) -> int:
        nonlocal x
        x = 16807 * x % 2147483647
        return size * x // 2147483647

    rows = []
    for _ in range(60):
        cluster, right = draw(14), draw(10) < 6
        cosine = (draw(50) + draw(50) + (20 if right else 0) + 2 * (cluster % 5)) / 100
        rows.append((cosine, (draw(30) + draw(30) - (15 if right else 30)) / 100, right, cluster))
    cosines, gaps, genuine, clusters = zip(*rows, strict=True)
    return Labelled(
        cosine=np.array(cosines), gap=np.array(gaps), genuine=np.array(genuine), cluster=list(clusters)
    )


OURS = same_contexts_as_r()


def ends(share: Share | None) -> list[float]:
    assert share is not None
    return [share.estimate, share.low, share.high]


def test_area_and_interval_are_those_of_proc_and_of_mann_whitney() -> None:
    found = roc(OURS.cosine, OURS.genuine)
    assert found.n_genuine == R["n_genuine"]
    assert [found.auc, found.se] == pytest.approx([R["auc"], R["se"]], rel=1e-9)
    assert [found.low, found.high] == pytest.approx([R["low"], R["high"]], rel=1e-9)
    assert found.auc == pytest.approx(R["mann_whitney"], rel=1e-9)


def test_standard_error_over_clusters_is_obuchowskis() -> None:
    found = roc(OURS.cosine, OURS.genuine, clusters=OURS.cluster)
    assert (found.auc, found.se) == pytest.approx((R["auc"], R["clustered_se"]), rel=1e-9)
    assert R["clustered_se"] > 1.05 * R["se"]


def test_thresholds_are_those_of_trying_every_pair() -> None:
    found = calibrate(OURS.cosine, OURS.gap, OURS.genuine)
    assert (found.cosine, found.gap) == (R["cosine_least"], R["gap_least"])
    assert found.youden == pytest.approx(R["youden"], rel=1e-12)
    for name, share in (("precision", found.precision), ("recall", found.recall)):
        wanted = [R[f"chosen_{name}{end}"] for end in ("", "_low", "_high")]
        assert ends(share) == pytest.approx(wanted, rel=1e-9)


def test_one_threshold_has_the_youden_of_proc() -> None:
    found = calibrate(OURS.cosine, np.zeros(60), OURS.genuine)
    assert found.gap == 0.0
    assert found.youden == pytest.approx(R["one_youden"], rel=1e-9)


def test_given_thresholds_have_rs_shares() -> None:
    found = judged(OURS.cosine, OURS.gap, OURS.genuine)
    for name, share in (("precision", found.precision), ("recall", found.recall)):
        wanted = [R[f"given_{name}{end}"] for end in ("", "_low", "_high")]
        assert ends(share) == pytest.approx(wanted, rel=1e-9)
    assert (found.cosine_least, found.gap_least, found.reason) == (0.5, 0.05, None)


CONTEXTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-3, 3), st.booleans()), min_size=2, max_size=14
).filter(lambda rows: len({row[2] for row in rows}) == 2)


@settings(max_examples=150)
@given(CONTEXTS)
def test_no_pair_of_observed_values_is_better_and_of_equal_ones_the_highest_is_taken(
    rows: list[tuple[int, int, bool]],
) -> None:
    c, g, right = (np.array(column) for column in zip(*rows, strict=True))
    found = calibrate(c, g, right)
    tried = []
    for cosine in np.unique(c):
        for gap in np.unique(g):
            taken = (c >= cosine) & (g >= gap)
            J = int((taken & right).sum()) * int((~right).sum()) - int((taken & ~right).sum()) * int(
                right.sum()
            )
            tried.append((J, float(cosine), float(gap)))
    best = max(tried)
    if best[0] <= 0:
        assert (found.cosine, found.gap, found.youden) == (None, None, None)
        assert found.reason is not None
    else:
        assert (found.cosine, found.gap) == best[1:]
        assert found.youden == best[0] / (int(right.sum()) * int((~right).sum()))


@settings(max_examples=60)
@given(CONTEXTS)
def test_swapping_the_classes_mirrors_the_area_and_a_monotone_scale_changes_nothing(
    rows: list[tuple[int, int, bool]],
) -> None:
    x, right = np.array([row[0] for row in rows], dtype=float), np.array([row[2] for row in rows])
    one, other, scaled = roc(x, right), roc(x, ~right), roc(np.exp(x) - 3.0, right)
    assert one.auc is not None
    assert other.auc == pytest.approx(1.0 - one.auc)
    assert (scaled.auc, scaled.se) == (one.auc, one.se)
    assert (one.se is None) == (other.se is None)
    if one.se is not None and one.low is not None and other.high is not None:
        assert other.se == pytest.approx(one.se)
        assert 0.0 < one.low < one.auc < 1.0
        assert other.high == pytest.approx(1.0 - one.low)


def test_a_cluster_each_is_no_cluster_and_contexts_written_out_again_are_no_new_ones() -> None:
    plain = roc(OURS.cosine, OURS.genuine)
    each = roc(OURS.cosine, OURS.genuine, clusters=[f"c{i}" for i in range(60)])
    assert (each.se, each.low, each.high) == pytest.approx((plain.se, plain.low, plain.high), rel=1e-12)
    thrice = [np.repeat(x, 3) for x in (OURS.cosine, OURS.genuine, np.arange(60))]
    again = roc(thrice[0], thrice[1], clusters=thrice[2].tolist())
    assert (again.auc, again.se) == pytest.approx((plain.auc, plain.se), rel=1e-9)


def bounds(studies: int, p: float) -> tuple[float, float]:
    """Shares that a binomial passes with probability below 1e-4 a side."""
    low, high = (float(scipy_stats.binom.ppf(q, studies, p)) / studies for q in (1e-4, 1 - 1e-4))
    return low, high


def covered(studies: int, auc: float, rng: np.random.Generator, *, of_one: int = 1) -> dict[str, float]:
    """Share of studies whose .95 interval holds the area; `of_one` contexts share half their variance."""
    d, held = math.sqrt(2.0) * float(scipy_stats.norm.ppf(auc)), []
    for _ in range(studies):
        k = np.repeat(np.arange(40), of_one)
        right = np.repeat(np.arange(40) < 24, of_one)
        share = 0.5 if of_one > 1 else 0.0
        x = math.sqrt(share) * rng.normal(size=40)[k] + math.sqrt(1 - share) * rng.normal(size=len(k))
        row = {}
        for name, clusters in (("plain", None), ("clustered", k.tolist())):
            found = roc(x + d * right, right, clusters=clusters)
            row[name] = found.low is None or found.high is None or found.low <= auc <= found.high
        held.append(row)
    return {name: float(np.mean([row[name] for row in held])) for name in held[0]}


def test_the_interval_covers_and_only_clusters_keep_that_where_contexts_share_an_original() -> None:
    rng = np.random.default_rng(3)
    for auc in (0.7, 0.93):
        assert covered(400, auc, rng)["plain"] >= bounds(400, 0.94)[0]
    found = covered(400, 0.8, rng, of_one=6)
    assert found["clustered"] >= bounds(400, 0.94)[0]
    assert found["plain"] < bounds(400, 0.90)[0]


def test_what_is_chosen_on_noise_looks_good_there_and_nowhere_else() -> None:
    rng, chosen, left = np.random.default_rng(4), [], []
    for _ in range(60):
        c, g, right = rng.normal(size=(2, 80)), rng.normal(size=(2, 80)), rng.random((2, 80)) < 0.6
        found = calibrate(c[0], g[0], right[0])
        assert found.youden is not None
        assert found.cosine is not None
        assert found.gap is not None
        other = judged(c[1], g[1], right[1], cosine_least=found.cosine, gap_least=found.gap)
        strays = judged(c[1], g[1], ~right[1], cosine_least=found.cosine, gap_least=found.gap)
        chosen.append(found.youden)
        left.append(ends(other.recall)[0] - ends(strays.recall)[0])
    assert np.mean(chosen) > 0.15
    assert abs(np.mean(left)) < 4 * np.std(left) / math.sqrt(60)


def test_thresholds_found_in_the_world_hold_on_other_contexts_of_it() -> None:
    """Cosines of word counts of the topics: a plain encoder that sees the senses."""
    ours = world(WorldSpec())
    topics = sorted(set(ours.topic_of.values()))

    def vector(text: str) -> FloatArray:
        counts = np.array([sum(ours.topic_of.get(w) == topic for w in text.split()) for topic in topics])
        return np.asarray(counts / max(1.0, float(np.linalg.norm(counts))), dtype=np.float64)

    def scores(seed: int) -> tuple[FloatArray, FloatArray, BoolArray]:
        made = labelled(ours, mix=HARD_MIX, seed=seed)
        cosine = np.array([vector(one.item.text) @ vector(one.original.text) for one in made])
        sibling = [max(vector(one.item.text) @ vector(s.text) for s in one.siblings) for one in made]
        return cosine, cosine - np.array(sibling), np.array([one.is_genuine for one in made])

    cosine, gap, genuine = scores(0)
    assert (roc(gap, genuine).low or 0.0) > 0.6
    found = calibrate(cosine, gap, genuine)
    assert found.cosine is not None
    assert found.gap is not None
    held_out = judged(*scores(1), cosine_least=found.cosine, gap_least=found.gap)
    base = float(scores(1)[2].mean())
    assert ends(held_out.precision)[1] > base


def test_an_encoder_that_tells_nothing_has_no_thresholds_and_says_why() -> None:
    same = calibrate([0.5] * 6, [0.1] * 6, [1, 1, 1, 0, 0, 0])
    assert (same.cosine, same.precision, same.youden) == (None, None, None)
    assert same.reason == "no thresholds accept more of the 3 genuine than of the 3 stray contexts"
    one = calibrate([0.5, 0.6], [0.1, 0.2], [1, 1])
    assert (one.gap, one.reason) == (None, "2 genuine and 0 stray contexts; thresholds need one of each")


def test_areas_without_a_number_or_an_interval_say_why() -> None:
    perfect = roc([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    assert (perfect.auc, perfect.se, perfect.low, perfect.high) == (1.0, None, None, None)
    assert perfect.reason == "area 1 with a variance of 0, which says nothing of other contexts"
    tied = roc([0.5] * 6, [1, 1, 1, 0, 0, 0])
    assert (tied.auc, tied.low) == (0.5, None)
    few = roc([0.9, 0.3, 0.5], [1, 0, 0])
    assert (few.auc, few.reason) == (
        1.0,
        "genuine contexts in 1 clusters, strays in 2; an interval needs two of each",
    )
    assert roc([0.1], [0]).auc is None


def test_nothing_accepted_has_no_precision_and_nothing_genuine_no_recall() -> None:
    found = judged([0.1, 0.2], [0.0, 0.0], [0, 0])
    assert (found.precision, found.recall, found.accepted) == (None, None, 0)
    assert found.reason is not None
    assert found.reason.endswith("none of 2 contexts is genuine, so there is no recall")
    exactly = judged([0.5], [0.05], [1])
    assert exactly.accepted == 1


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(2,\) and \(3,\) labels"):
        roc([0.1, 0.2], [1, 0, 1])
    with pytest.raises(ValueError, match="1 scores of 2 contexts are not finite"):
        calibrate([0.1, float("nan")], [0.1, 0.2], [1, 0])
    with pytest.raises(ValueError, match=r"labels \[0, 2\]"):
        judged([0.1, 0.2], [0.1, 0.2], [0, 2])
    with pytest.raises(ValueError, match="1 clusters for 2 contexts"):
        roc([0.1, 0.2], [1, 0], clusters=["a"])
    with pytest.raises(ValueError, match="both must be finite"):
        judged([0.1, 0.2], [0.1, 0.2], [0, 1], gap_least=float("nan"))
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        roc([0.1, 0.2], [1, 0], alpha=0.0)
