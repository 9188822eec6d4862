"""The family of tests on sources: its rows, its four verdicts, and what makes it undefined."""

import math
from dataclasses import fields

import numpy as np
import pytest
from scipy import stats

from stats.multiplicity import holm
from stats.rows import FloatArray, TestRow
from stats.seed_effect import Design, analyse_seed_effect, compare_arms

NUMBERS = ("estimate", "low", "high", "effect", "statistic", "df1", "df2", "p", "p_adjusted", "power", "mde")


class Texts:
    """Labels of a balanced design and values drawn on them."""

    def __init__(
        self, *, prompts: int = 10, samples: int = 8, sources: str = "abc", streams: int = 1
    ) -> None:
        p, s, t, _ = (i.ravel() for i in np.indices((prompts, len(sources), streams, samples)))
        self.p, self.s = p, s
        self.source = [sources[i] for i in s]
        self.prompt = [f"p{i}" for i in p]
        self.stream = [f"t{i}" for i in t]
        self.rng = np.random.default_rng(prompts * samples)

    def values(self, *shifts: float, prompt_source_sd: float = 0.0) -> FloatArray:
        prompt, both = self.rng.normal(size=100), prompt_source_sd * self.rng.normal(size=(100, 5))
        shift = np.array([*shifts, *[0.0] * 5])
        return prompt[self.p] + both[self.p, self.s] + shift[self.s] + self.rng.normal(size=len(self.p))

    def analyse(self, values: dict[str, FloatArray], **plan: object) -> list[TestRow]:
        settings: dict[str, object] = {"primary": tuple(values), "looks": (8,), "look": 8, **plan}
        return analyse_seed_effect(
            values,
            source=self.source,
            prompt=self.prompt,
            stream=self.stream,
            design=Design(**settings),  # type: ignore[arg-type]
        )


def pick(rows: list[TestRow], hypothesis: str, metric: str, contrast: str = "*") -> TestRow:
    found = [
        r
        for r in rows
        if (r.hypothesis, r.metric, r.contrast) == (hypothesis, metric, contrast) and r.role != "diagnostic"
    ]
    assert len(found) == 1
    return found[0]


def test_a_family_has_its_rows_and_ends_in_one_verdict() -> None:
    texts = Texts()
    values = {name: texts.values() for name in ("mtld", "distinct_2", "length_words")}
    rows = texts.analyse(values, primary=("mtld", "distinct_2"), secondary=("length_words",))
    kinds = [(r.hypothesis, r.metric) for r in rows if r.role != "diagnostic"]
    for name in values:
        assert kinds.count(("omnibus", name)) == 1
        assert kinds.count(("pairwise", name)) == 3
        assert kinds.count(("tost", name)) == 3
    assert [r.hypothesis for r in rows].count("verdict") == 1
    assert (rows[-1].hypothesis, rows[-1].role, rows[-1].metric) == ("verdict", "verdict", "*")
    keys = [(r.family, r.hypothesis, r.metric, r.contrast, r.method, r.role) for r in rows]
    assert len(set(keys)) == len(keys)
    assert {r.role for r in rows if r.metric == "length_words"} == {"secondary", "equivalence", "diagnostic"}
    assert pick(rows, "omnibus", "length_words").family == "seed_effect_secondary"


def test_a_large_effect_is_detected_with_its_sign_and_size() -> None:
    texts = Texts(prompts=20, samples=20)
    rows = texts.analyse({"m": 50.0 * texts.values(1.0)})
    verdict, pair = rows[-1], pick(rows, "pairwise", "m", "a-b")
    assert (verdict.verdict, verdict.negligible, verdict.reason) == ("DETECTED", False, None)
    assert pair.effect == pytest.approx(1.0, abs=0.25)
    assert pair.estimate == pytest.approx(50.0, abs=12.5)
    assert pair.low is not None
    assert pair.low > 0
    assert verdict.effect == pytest.approx(
        max((r.effect or 0 for r in rows if r.hypothesis == "pairwise"), key=abs)
    )
    assert verdict.p == verdict.p_adjusted == pick(rows, "omnibus", "m").p_adjusted


def test_no_effect_with_many_samples_is_equivalent() -> None:
    texts = Texts(prompts=20, samples=100)
    rows = texts.analyse({"m": texts.values(), "w": texts.values()})
    assert rows[-1].verdict == "EQUIVALENT"
    assert rows[-1].negligible is False
    for r in rows:
        if r.hypothesis == "tost":
            assert r.p is not None
            assert r.p < 0.05


def test_few_samples_are_inconclusive_and_say_how_many_would_settle_it() -> None:
    texts = Texts(prompts=30, samples=8)
    verdict = texts.analyse({"m": texts.values()})[-1]
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.n == 720
    assert verdict.n_to_settle is not None
    assert verdict.n_to_settle > 8
    assert verdict.power is not None
    assert verdict.mde is not None
    assert verdict.power < 0.8
    assert verdict.mde > verdict.margin == 0.2


def test_prompts_that_disagree_cannot_be_settled_by_samples_and_the_row_says_so() -> None:
    texts = Texts(prompts=12, samples=20)
    verdict = texts.analyse({"m": texts.values(prompt_source_sd=0.8)})[-1]
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.n_to_settle is None
    assert verdict.reason is not None
    assert "no number of samples settles it" in verdict.reason
    assert int(verdict.reason.split("; ")[1].split()[0]) > 50  # prompts


def test_a_detected_effect_inside_the_margin_is_flagged_negligible() -> None:
    texts = Texts(prompts=30, samples=150)
    verdict = texts.analyse({"m": texts.values(0.12)})[-1]
    assert (verdict.verdict, verdict.negligible) == ("DETECTED", True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("constant", "no variation within cells"),
        ("missing", "no text has a value"),
        ("source", "no values from c"),
        ("single", "no cell has two texts"),
    ],
)
def test_an_undefined_primary_test_makes_the_family_invalid(spoil: str, reason: str) -> None:
    texts = Texts(prompts=6, samples=8)
    good, bad = texts.values(3.0), texts.values()
    first = np.tile(np.arange(8) == 0, 18)
    source_c = np.array(texts.source) == "c"
    if spoil == "constant":
        bad[:] = 0.7
    else:
        bad[{"missing": np.full(144, True), "source": source_c, "single": ~first}[spoil]] = np.nan
    rows = texts.analyse({"good": good, "bad": bad})
    verdict = rows[-1]
    assert verdict.verdict == "INVALID"
    assert (verdict.reason or "").startswith(f"bad: {reason}")
    assert all(getattr(verdict, name) is None for name in NUMBERS)
    for r in rows:
        if r.metric == "bad":
            assert r.reason is not None
            assert all(getattr(r, name) is None for name in NUMBERS)
    # the undefined test left the family: the other one is corrected alone
    omnibus = pick(rows, "omnibus", "good")
    assert omnibus.p == omnibus.p_adjusted


def test_one_text_a_stream_is_measured_in_residual_sd_and_equal_texts_are_undefined() -> None:
    texts = Texts(prompts=10, samples=1, streams=4)
    single = texts.analyse({"m": texts.values(3.0)})[-1]
    assert single.verdict == "DETECTED"
    assert single.effect == pytest.approx(3.0, abs=0.8)
    texts = Texts(prompts=10, samples=2, streams=4)
    equal = texts.analyse({"m": np.repeat(texts.values()[::2], 2)})[-1]
    assert (equal.verdict, equal.reason) == ("INVALID", "m: no variation within cells")


def test_an_undefined_secondary_test_leaves_the_verdict_alone() -> None:
    texts = Texts()
    rows = texts.analyse({"m": texts.values(2.0), "flat": np.zeros(240)}, primary=("m",), secondary=("flat",))
    assert rows[-1].verdict == "DETECTED"
    assert pick(rows, "omnibus", "flat").reason == "no variation within cells"


def test_sparse_and_lumpy_metrics_end_in_rows_never_in_an_error() -> None:
    # Of 3,000 such tables 11 raised: no finite Tukey quantile, a singular step, a mean over no streams.
    rng = np.random.default_rng(12)
    verdicts = []
    for _ in range(40):
        texts = Texts(prompts=int(rng.integers(2, 6)), samples=3, streams=int(rng.integers(1, 4)))
        n = len(texts.source)
        y = rng.choice([1e-6, 1.0, 1e5]) * np.round(rng.normal(size=n) * rng.choice([0.5, 2.0, 50.0]))
        y[rng.random(n) < rng.choice([0.1, 0.5, 0.8])] = np.nan
        rows = texts.analyse({"m": y}, looks=(4, 8, 16), look=4)
        assert all(r.p is not None or r.estimate is not None or r.reason for r in rows[:-1])
        verdicts.append(rows[-1].verdict)
    assert {"INVALID", "INCONCLUSIVE"} <= set(verdicts)


def test_no_row_ever_holds_a_number_that_is_not_finite() -> None:
    texts = Texts(prompts=5, samples=3)
    rows = texts.analyse({"m": texts.values(), "flat": np.zeros(45)})
    for r in rows:
        for field in fields(r):
            value = getattr(r, field.name)
            assert not isinstance(value, float) or math.isfinite(value)


def test_primary_p_values_are_corrected_by_holm_over_primary_metrics_only() -> None:
    texts = Texts()
    names = ("a", "b", "c", "d")
    rows = texts.analyse({n: texts.values(0.2) for n in names}, primary=names[:3], secondary=names[3:])
    tests = [pick(rows, "omnibus", n) for n in names]
    raw = [t.p for t in tests[:3] if t.p is not None]
    assert [t.p_adjusted for t in tests[:3]] == pytest.approx(holm(raw))
    assert tests[3].p_adjusted == tests[3].p
    assert rows[-1].p == min(holm(raw))


def test_an_early_look_is_judged_at_its_own_strict_level_with_wider_intervals() -> None:
    texts = Texts(samples=10)
    values = {"m": texts.values(0.5)}
    early = texts.analyse(values, looks=(10, 20, 40), look=10)
    last = texts.analyse(values, looks=(10,), look=10)
    assert {r.alpha for r in early} == {early[-1].alpha}
    assert early[-1].alpha == pytest.approx(0.001603, abs=1e-6)
    for contrast in ("a-b", "a-c", "b-c"):
        for kind in ("pairwise", "tost"):
            strict, plain = pick(early, kind, "m", contrast), pick(last, kind, "m", contrast)
            assert strict.estimate == plain.estimate
            assert strict.low is not None
            assert plain.low is not None
            assert strict.low < plain.low


def test_a_missing_value_is_the_same_as_a_missing_row() -> None:
    texts = Texts(prompts=8, samples=6)
    y = texts.values(0.3)
    gone = np.random.default_rng(0).random(len(y)) < 0.2
    holes = texts.analyse({"m": np.where(gone, np.nan, y)})
    kept = np.flatnonzero(~gone)
    rows = analyse_seed_effect(
        {"m": y[kept]},
        source=[texts.source[i] for i in kept],
        prompt=[texts.prompt[i] for i in kept],
        stream=[texts.stream[i] for i in kept],
        design=Design(primary=("m",), looks=(8,), look=8),
    )
    assert holes == rows
    assert rows[-1].n == len(kept)


def test_a_metrics_tests_do_not_depend_on_which_others_are_asked() -> None:
    texts = Texts()
    y, z = texts.values(0.3), texts.values()
    z[::7] = np.nan
    alone, together = texts.analyse({"y": y}), texts.analyse({"z": z, "y": y})
    assert pick(alone, "pairwise", "y", "a-b") == pick(together, "pairwise", "y", "a-b")
    assert pick(alone, "omnibus", "y").p == pick(together, "omnibus", "y").p


def test_order_of_rows_and_scale_of_the_metric_do_not_matter() -> None:
    texts = Texts(prompts=8, samples=6, streams=3)
    y = texts.values(0.3)
    order = np.random.default_rng(1).permutation(len(y))
    base = texts.analyse({"m": y})[-1]
    moved = analyse_seed_effect(
        {"m": 1000.0 * y[order] - 5.0},
        source=[texts.source[i] for i in order],
        prompt=[texts.prompt[i] for i in order],
        stream=[texts.stream[i] for i in order],
        design=Design(primary=("m",), looks=(8,), look=8),
    )[-1]
    for name in ("effect", "low", "high", "p", "power", "mde"):
        assert getattr(moved, name) == pytest.approx(getattr(base, name), rel=1e-6)
    assert moved.verdict == base.verdict


def test_renaming_two_sources_flips_their_contrast() -> None:
    texts = Texts(prompts=6, samples=5)
    y = texts.values(0.4)
    base = pick(texts.analyse({"m": y}), "pairwise", "m", "a-b")
    texts.source = [{"a": "b", "b": "a"}.get(s, s) for s in texts.source]
    flipped = pick(texts.analyse({"m": y}), "pairwise", "m", "a-b")
    assert flipped.estimate == pytest.approx(-(base.estimate or 0), rel=1e-9)
    assert flipped.low == pytest.approx(-(base.high or 0), rel=1e-8)
    assert flipped.p_adjusted == pytest.approx(base.p_adjusted, rel=1e-8)


def test_the_balanced_check_stands_beside_the_deciding_test_and_agrees_to_five_digits() -> None:
    for streams in (1, 3):
        texts = Texts(prompts=9, samples=5, streams=streams)
        rows = texts.analyse({"m": texts.values(0.3, prompt_source_sd=0.5)})
        decides = pick(rows, "omnibus", "m")
        (check,) = [r for r in rows if r.role == "diagnostic" and r.method.startswith("ANOVA")]
        assert [check.statistic, check.df1, check.df2] == pytest.approx(
            [decides.statistic, decides.df1, decides.df2], rel=1e-5
        )


def test_with_a_variance_at_zero_the_unpooled_test_decides_and_the_pooled_one_is_shown() -> None:
    texts = Texts(prompts=10, samples=8)
    for _ in range(50):
        rows = texts.analyse({"m": texts.values()})
        decides = pick(rows, "omnibus", "m")
        if "unpooled" in decides.method:
            pooled = [r for r in rows if r.role == "diagnostic" and "held at zero" in r.method]
            assert decides.df2 == pytest.approx(18.0, rel=1e-6)
            assert len(pooled) == 1
            assert pooled[0].df2 is not None
            assert pooled[0].df2 > 200
            return
    pytest.fail("no data set had a variance at zero")


def test_two_arms_are_compared_by_the_paired_t_test_on_prompt_means() -> None:
    texts = Texts(prompts=12, samples=8, sources="ab")
    y = texts.values(0.2, prompt_source_sd=0.3)
    rows = compare_arms(
        {"m": y},
        source=texts.source,
        prompt=texts.prompt,
        stream=texts.stream,
        design_alpha=0.001,
        primary=("m",),
        margin_sd=0.2,
        family="a_a",
    )
    means = y.reshape(12, 2, 8).mean(axis=2)
    paired = stats.ttest_rel(means[:, 0], means[:, 1])
    omnibus, pair = pick(rows, "omnibus", "m"), pick(rows, "pairwise", "m", "a-b")
    assert omnibus.p == pytest.approx(float(paired.pvalue), rel=1e-6)
    ci = paired.confidence_interval(0.999)
    assert [pair.low, pair.high] == pytest.approx([float(ci.low), float(ci.high)], rel=1e-6)
    assert (rows[-1].hypothesis, rows[-1].family, rows[-1].alpha) == ("verdict", "a_a", 0.001)


def test_a_positive_control_is_detected_and_one_arm_alone_is_invalid() -> None:
    texts = Texts(prompts=12, samples=16, sources="ab")
    y = texts.values(0.8)
    arguments = {"prompt": texts.prompt, "stream": texts.stream, "design_alpha": 0.05, "primary": ("m",)}
    hot = compare_arms({"m": y}, source=texts.source, margin_sd=0.2, family="control", **arguments)  # type: ignore[arg-type]
    assert hot[-1].verdict == "DETECTED"
    alone = compare_arms({"m": y}, source=["a"] * len(y), margin_sd=0.2, family="control", **arguments)  # type: ignore[arg-type]
    assert alone[-1].verdict == "INVALID"
    assert alone[-1].reason == "m: 1 source (a); a comparison needs two"
    with pytest.raises(ValueError, match=r"3 arms \(a, b, c\)"):
        compare_arms(
            {"m": y},
            source=[*texts.source[:-1], "c"],
            margin_sd=0.2,
            family="control",
            **arguments,  # type: ignore[arg-type]
        )


def test_a_source_that_the_design_names_and_no_row_has_makes_the_family_invalid() -> None:
    texts = Texts(sources="ab")
    verdict = texts.analyse({"m": texts.values(3.0)}, sources=("a", "b", "c"))[-1]
    assert verdict.verdict == "INVALID"
    assert verdict.reason == "m: no values from c"


def test_wrong_input_is_refused_with_what_was_found() -> None:
    texts = Texts(prompts=4, samples=3)
    y = texts.values()
    with pytest.raises(ValueError, match=r"no values for w; given are m"):
        texts.analyse({"m": y}, primary=("w",))
    with pytest.raises(ValueError, match="infinite"):
        texts.analyse({"m": np.where(np.arange(36) == 3, np.inf, y)})
    with pytest.raises(ValueError, match=r"m has shape \(35,\) for 36 rows"):
        texts.analyse({"m": y[:-1]})
    with pytest.raises(ValueError, match="rows of c, but the design names a, b"):
        texts.analyse({"m": y}, sources=("a", "b"))
    with pytest.raises(ValueError, match="look 9 is not among"):
        texts.analyse({"m": y}, look=9)
    with pytest.raises(ValueError, match="cannot be primary and secondary"):
        texts.analyse({"m": y}, secondary=("m",))
    with pytest.raises(ValueError, match="no primary metric"):
        texts.analyse({"m": y}, primary=())
    with pytest.raises(ValueError, match="names one twice"):
        texts.analyse({"m": y}, primary=("m", "m"))
    with pytest.raises(ValueError, match="names one twice"):
        texts.analyse({"m": y}, sources=("a", "b", "a"))
    with pytest.raises(ValueError, match="margin_sd"):
        texts.analyse({"m": y}, margin_sd=0.0)
