"""The mixed model against lme4, lmerTest, emmeans, statsmodels, the balanced ANOVA and the paired t test."""

import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from stats.contrasts import balanced_anova, omnibus, pooled_df, tukey_contrasts
from stats.layout import Layout, Undefined, arrange, within_cell_sd
from stats.mixed import METHOD, METHOD_POOLED, METHOD_UNPOOLED, deciding_fit, fit_mixed
from stats.rows import FloatArray

REFERENCE = Path(__file__).parent / "reference"


def _data_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mixed_data", REFERENCE / "mixed_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = _data_module()


def printed(name: str) -> dict[str, list[float]]:
    """What R printed for one data set."""
    lines = (REFERENCE / "mixed_lmertest.txt").read_text().splitlines()
    fields = [line.split() for line in lines if line.split()[0] == name]
    return {key: [float(value) for value in values] for _, key, *values in fields}


def data(name: str) -> tuple[FloatArray, Layout]:
    y, source, prompt, stream = DATA.make(**DATA.SETS[name])
    return y, arrange(source, prompt, stream)


def simulated(
    rng: np.random.Generator,
    *,
    P: int = 6,
    S: int = 3,
    T: int = 1,
    k: int = 4,
    sps: float = 0.0,
    sst: float = 0.0,
) -> tuple[FloatArray, list[str], list[str], list[str]]:
    p, s, t, _ = (index.ravel() for index in np.indices((P, S, T, k)))
    y = (
        rng.normal(size=P)[p]
        + sps * rng.normal(size=(P, S))[p, s]
        + sst * rng.normal(size=(S, T))[s, t]
        + rng.normal(size=len(p))
    )
    return y, [f"s{i}" for i in s], [f"p{i}" for i in p], [f"t{i}" for i in t]


@pytest.mark.parametrize("name", list(DATA.SETS))
def test_the_fit_is_lme4s(name: str) -> None:
    y, layout = data(name)
    expected = printed(name)
    fit = fit_mixed(y, layout)
    assert len(y) == expected["rows"][0]
    assert fit.deviance == pytest.approx(expected["deviance"][0], abs=1e-7)
    variances = [fit.residual, *(fit.ratios * fit.residual)]
    assert variances == pytest.approx(expected["variances"], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", list(DATA.SETS))
def test_standard_errors_and_satterthwaite_tests_are_lmertests_to_five_digits(name: str) -> None:
    y, layout = data(name)
    expected = printed(name)
    fit = fit_mixed(y, layout)
    test = omnibus(fit)
    assert [test.statistic, test.df1, test.df2] == pytest.approx(expected["F"][:3], rel=5e-6)
    assert test.p == pytest.approx(expected["F"][3], rel=2e-5)  # p moves some ten times as fast as F
    for c in tukey_contrasts(fit, 0.05):
        estimate, se, df, t, p, low, high = expected[f"contrast_{c.name}"]
        assert c.estimate == pytest.approx(estimate, abs=1e-5 * se)
        assert c.se == pytest.approx(se, rel=1e-5)
        assert [c.df, c.t] == pytest.approx([df, t], rel=1e-5)
        assert c.p == pytest.approx(p, rel=2e-5)
        assert [c.low, c.high] == pytest.approx([low, high], abs=1e-5)


@pytest.mark.parametrize("name", list(DATA.SETS))
def test_tukey_p_values_and_intervals_are_those_of_emmeans(name: str) -> None:
    y, layout = data(name)
    expected = printed(name)
    for c in tukey_contrasts(fit_mixed(y, layout), 0.05):
        assert [c.p_tukey, c.low_tukey, c.high_tukey] == pytest.approx(expected[f"tukey_{c.name}"], abs=1e-5)


@pytest.mark.parametrize("name", ["balanced3", "balanced2", "streams3", "streams2", "zero_streams"])
def test_kenward_roger_gives_the_same_f_in_balanced_data(name: str) -> None:
    y, layout = data(name)
    F, _, df2, _ = printed(name)["KR"]
    test = omnibus(deciding_fit(y, layout)) if name != "zero_streams" else omnibus(fit_mixed(y, layout))
    assert test.statistic == pytest.approx(F, rel=1e-4)
    if name != "zero_streams":
        assert test.df2 == pytest.approx(df2, rel=1e-5)


@pytest.mark.parametrize("streams", [1, 3])
def test_in_balanced_data_the_deciding_f_is_the_unpooled_analysis_of_variance(streams: int) -> None:
    rng = np.random.default_rng(4)
    methods = set()
    for trial in range(60):
        scale = 0.4 if trial % 2 else 0.0
        y, source, prompt, stream = simulated(rng, T=streams, sps=scale, sst=scale)
        layout = arrange(source, prompt, stream)
        fit, anova = deciding_fit(y, layout), balanced_anova(y, layout)
        methods.add(fit.method)
        if fit.method == METHOD_POOLED:
            assert anova is None or anova.df2 < 1.0
            continue
        assert anova is not None
        test = omnibus(fit)
        assert test.statistic == pytest.approx(anova.statistic, rel=1e-6)
        assert test.df2 == pytest.approx(anova.df2, rel=1e-6)
    assert {METHOD, METHOD_UNPOOLED} <= methods


def test_with_a_variance_at_zero_the_unpooled_test_decides_and_lmertest_pools() -> None:
    # lmerTest: df = n - 3 - 11 = 274 by pooling prompt:source into the residual; unpooled: (3-1)(12-1) = 22.
    y, layout = data("zero")
    pooled, unpooled = fit_mixed(y, layout), deciding_fit(y, layout)
    assert pooled.at_zero == ("prompt:source",)
    assert (pooled.method, unpooled.method) == (METHOD_POOLED, METHOD_UNPOOLED)
    assert omnibus(pooled).df2 == pytest.approx(printed("zero")["F"][2], rel=1e-6)
    assert omnibus(unpooled).df2 == pytest.approx(22.0, rel=1e-8)
    assert omnibus(unpooled).statistic > omnibus(pooled).statistic  # MS_prompt:source < MS_residual here


def test_a_missing_unpooled_fit_leaves_the_constrained_one_and_says_so() -> None:
    rng = np.random.default_rng(0)
    for _ in range(400):  # 4 % of data sets with two streams and neither variance
        y, source, prompt, stream = simulated(rng, P=5, T=2, k=5)
        layout = arrange(source, prompt, stream)
        if balanced_anova(y, layout) is None:
            fit = deciding_fit(y, layout)
            assert fit.method == METHOD_POOLED
            assert fit.at_zero
            assert 0.0 < omnibus(fit).p <= 1.0
            return
    pytest.fail("no data set without an unpooled fit was drawn")


@pytest.mark.parametrize("scale", [10.0, 30.0, 100.0])
def test_prompts_and_streams_may_differ_by_a_hundred_within_cell_sd(scale: float) -> None:
    # At 30, 15 % of designs with streams and missing texts did not converge, which made a family INVALID.
    rng = np.random.default_rng(5)
    for trial in range(12):
        stream_sd = scale if trial % 2 else 0.2
        y, source, prompt, stream = simulated(rng, P=8, T=3, k=4, sps=0.3, sst=stream_sd)
        y += 0.0 if trial % 2 else scale * rng.normal(size=8)[np.arange(len(y)) // 36]
        keep = np.flatnonzero(rng.random(len(y)) < 0.9)
        kept = arrange(*([labels[i] for i in keep] for labels in (source, prompt, stream)))
        assert 0.0 < omnibus(deciding_fit(y[keep], kept)).p < 1.0
        layout = arrange(source, prompt, stream)
        anova, fit = balanced_anova(y, layout), deciding_fit(y, layout)
        assert anova is not None
        close = 1e-5 if scale < 100 else 1e-4  # rounding grows with the square of the ratio
        assert omnibus(fit).statistic == pytest.approx(anova.statistic, rel=close)
        assert omnibus(fit).df2 == pytest.approx(anova.df2, rel=close)


def test_two_prompts_and_two_sources_keep_the_one_degree_of_freedom_of_the_paired_t_test() -> None:
    # Rounding put it at 1 - 1e-14 in 13 % of cases, and the fit that pools 34 decided instead.
    rng = np.random.default_rng(2)
    for _ in range(40):
        y, source, prompt, stream = simulated(rng, P=2, S=2, k=9)
        means = y.reshape(2, 2, 9).mean(axis=2)
        paired = stats.ttest_rel(means[:, 0], means[:, 1])
        assert omnibus(deciding_fit(y, arrange(source, prompt, stream))).p == pytest.approx(
            float(paired.pvalue), rel=1e-4
        )


def test_the_fit_that_decides_does_not_depend_on_the_names_of_the_sources() -> None:
    rng = np.random.default_rng(3)
    for _ in range(15):
        y, source, prompt, stream = simulated(rng, P=4, S=4, k=3)
        keep = np.flatnonzero(rng.random(len(y)) < 0.6)
        labels = [[names[i] for i in keep] for names in (source, prompt, stream)]
        renamed = [{"s0": "s2", "s1": "s0", "s2": "s3", "s3": "s1"}[name] for name in labels[0]]
        one, two = (arrange(names, *labels[1:]) for names in (labels[0], renamed))
        assert deciding_fit(y[keep], one).method == deciding_fit(y[keep], two).method


def test_a_layout_of_prompts_alone_has_the_variance_of_the_one_way_analysis() -> None:
    y, source, prompt, stream = simulated(np.random.default_rng(6), P=8, S=2, k=5)
    layout = arrange(source, prompt, stream)
    fit = fit_mixed(y, replace(layout, factors=layout.factors[:1], V=layout.V[:1]))
    rows = (y - y.reshape(8, 2, 5).mean(axis=(0, 2))[np.arange(80) // 5 % 2]).reshape(8, 10)
    between = 10 * rows.mean(axis=1).var(ddof=1)
    within = float(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum()) / (80 - 8 - 1)
    assert fit.residual == pytest.approx(within, rel=1e-8)
    assert fit.ratios == pytest.approx([(between / within - 1) / 10], rel=1e-6)


def test_sparse_rows_end_in_a_fit_or_a_reason_never_in_another_error() -> None:
    one_stream_a_cell = deciding_fit(
        np.array([5.55, 5.6, 0.57, -4.96, -5.4, -7.32, 7.01, -2.25, -0.91, 1.89, 1.92]),
        arrange(list("bcbaaababbb"), list("00122223344"), list("01100010011")),
    )
    assert 0.0 < omnibus(one_stream_a_cell).p < 1.0
    with_flat_deviance = deciding_fit(
        np.array([3.0, 7, 2, 4, 4, 6]), arrange(list("bbabab"), list("223344"), ["s"] * 6)
    )
    assert 0.0 < omnibus(with_flat_deviance).p < 1.0
    with pytest.raises(ValueError, match="rows of z, but the sources named are a, b"):
        arrange(list("aabbz"), list("11111"), ["s"] * 5, sources=("a", "b"))


def test_two_balanced_sources_give_the_paired_t_test_on_prompt_means() -> None:
    rng = np.random.default_rng(8)
    for _ in range(10):
        y, source, prompt, stream = simulated(rng, S=2, sps=0.5)
        fit = deciding_fit(y, arrange(source, prompt, stream))
        means = y.reshape(6, 2, 4).mean(axis=2)
        paired = stats.ttest_rel(means[:, 0], means[:, 1])
        (c,) = tukey_contrasts(fit, 0.05)
        assert c.t == pytest.approx(float(paired.statistic), rel=1e-6)
        assert c.df == pytest.approx(5.0, rel=1e-6)
        assert [c.p, c.p_tukey, omnibus(fit).p] == pytest.approx([float(paired.pvalue)] * 3, rel=1e-5)
        assert [c.low, c.high] == pytest.approx([c.low_tukey, c.high_tukey], rel=1e-8)


def test_statsmodels_finds_the_same_model() -> None:
    # The second witness: it stops earlier than Newton's method does, hence 1 %.
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    y, source, prompt, _ = DATA.make(**DATA.SETS["unbalanced2"])
    frame = pd.DataFrame({"y": y, "source": source, "prompt": prompt})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM.from_formula(
            "y ~ source", frame, groups="prompt", re_formula="1", vc_formula={"ps": "0 + C(source)"}
        )
        result = model.fit(reml=True)
    (c,) = tukey_contrasts(fit_mixed(*data("unbalanced2")), 0.05)
    assert c.estimate == pytest.approx(-float(result.params["source[T.b]"]), rel=1e-2)
    assert c.se == pytest.approx(float(result.bse["source[T.b]"]), rel=1e-2)


def test_renaming_two_sources_flips_the_sign_of_their_contrast() -> None:
    y, source, prompt, stream = DATA.make(**DATA.SETS["unbalanced3"])
    swapped = ["".join({"a": "b", "b": "a"}.get(name, name)) for name in source]
    one = tukey_contrasts(fit_mixed(y, arrange(source, prompt, stream)), 0.05)[0]
    two = tukey_contrasts(fit_mixed(y, arrange(swapped, prompt, stream)), 0.05)[0]
    assert two.estimate == pytest.approx(-one.estimate, rel=1e-8)
    assert [two.low_tukey, two.high_tukey] == pytest.approx([-one.high_tukey, -one.low_tukey], rel=1e-7)
    assert [two.p, two.p_tukey] == pytest.approx([one.p, one.p_tukey], rel=1e-7)


def test_order_shift_and_scale_of_the_values_change_nothing_that_they_should_not() -> None:
    y, source, prompt, stream = DATA.make(**DATA.SETS["streams3_unbalanced"])
    base = fit_mixed(y, arrange(source, prompt, stream))
    order = np.random.default_rng(0).permutation(len(y))
    mixed = [[labels[i] for i in order] for labels in (source, prompt, stream)]
    moved = fit_mixed(1e6 + 250.0 * y[order], arrange(*mixed))
    assert omnibus(moved).p == pytest.approx(omnibus(base).p, rel=1e-5)
    assert np.sqrt(moved.covariance[0, 0]) == pytest.approx(250.0 * np.sqrt(base.covariance[0, 0]), rel=1e-5)


def test_a_source_with_one_stream_has_no_stream_effect() -> None:
    # streams_of_one: b has one stream, and its contrasts rest on the 8 degrees of freedom of a's and c's.
    _, layout = data("streams_of_one")
    assert layout.factors == ("prompt", "prompt:source", "source:stream")
    assert layout.levels == 10


def test_the_within_cell_sd_is_the_pooled_scatter_around_cell_means() -> None:
    y, source, prompt, stream = simulated(np.random.default_rng(3), P=4, T=2, k=5)
    cells = y.reshape(4, 3, 2, 5)
    expected = np.sqrt(cells.var(axis=3, ddof=1).mean())
    assert within_cell_sd(y, arrange(source, prompt, stream)) == pytest.approx(float(expected), rel=1e-10)


def test_rows_that_cannot_answer_are_undefined_with_the_reason() -> None:
    with pytest.raises(Undefined, match="a comparison needs two"):
        arrange(["a"] * 4, list("1122"), ["s"] * 4)
    with pytest.raises(Undefined, match="one prompt"):
        arrange(list("aabb"), ["1"] * 4, ["s"] * 4)
    with pytest.raises(Undefined, match="no cell has two texts"):
        arrange(list("abab"), list("1122"), ["s"] * 4)
    with pytest.raises(Undefined, match="too few prompts have values from two sources"):
        arrange(list("aabb"), list("1122"), ["s"] * 4)
    with pytest.raises(Undefined, match="no values from c"):
        arrange(list("aabb" * 2), list("11112222"), ["s"] * 8, sources=("a", "b", "c"))
    layout = arrange(list("aabb" * 2), list("11112222"), ["s"] * 8)
    for constant in (np.zeros(8), np.full(8, 0.1), np.repeat([0.1, 0.7, 0.2, 0.4], 2)):
        with pytest.raises(Undefined, match="no variation within cells"):
            fit_mixed(constant, layout)


def test_wrong_input_is_refused_with_what_was_found() -> None:
    layout = arrange(list("aabb" * 2), list("11112222"), ["s"] * 8)
    with pytest.raises(ValueError, match=r"shape \(7,\) for a layout of 8 rows"):
        fit_mixed(np.zeros(7), layout)
    with pytest.raises(ValueError, match="must be finite"):
        fit_mixed(np.array([1, 2, 3, 4, 5, 6, 7, np.nan]), layout)
    with pytest.raises(ValueError, match="4 sources, 3 prompts"):
        arrange(list("aabb"), list("112"), ["s"] * 4)
    with pytest.raises(ValueError, match=r"alpha = 1\.5"):
        tukey_contrasts(fit_mixed(np.arange(8.0) ** 2, layout), 1.5)


def test_degrees_of_freedom_combine_as_lmertests_do() -> None:
    # lmerTest:::get_Fstat_ddf(c(10, 20)) and (c(3.5, 8, 30))
    assert pooled_df([10.0, 20.0]) == pytest.approx(13.076923, rel=1e-7)
    assert pooled_df([1.5, 40.0]) == 2.0
    assert pooled_df([7.0]) == 7.0
