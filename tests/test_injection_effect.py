"""Direct injection: what decides, what only describes, and how often a true null is called DETECTED."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stats.injection_effect import InjectedText, analyse_injection, slope_rows
from stats.multiplicity import holm
from stats.rows import TestRow
from stats.seed_effect import Design

PRINTED = Path(__file__).parent / "reference" / "injection_slopes.txt"
SOURCES = ("HMIX", "PRNG", "TRNG")
DESIGN = Design(primary=("mtld", "distinct_2"), looks=(10, 20), look=20, sources=SOURCES)
DOSES = (0.0, 0.3, 1.0)


def texts_of(
    mode: str,
    rng: np.random.Generator,
    *,
    prompts: int = 15,
    samples: int = 20,
    sources: tuple[str, ...] = SOURCES,
    shift: Mapping[str, float] | None = None,
    offset: float = 0.0,
    block_sd: float = 0.0,
    prompt_source_sd: float = 0.0,
    kl: bool = False,
    **setting: object,
) -> list[InjectedText]:
    """Texts of one setting; `block_sd` is shared by the sources of a prompt's sample k."""
    P, S, k = prompts, len(sources), samples
    y = rng.normal(size=(P, S, k, 2)) + 2 * np.sin(np.arange(P))[:, None, None, None] + offset
    y += block_sd * rng.normal(size=(P, 1, k, 1)) + prompt_source_sd * rng.normal(size=(P, S, 1, 1))
    out = []
    for s, source in enumerate(sources):
        y[:, s] += (shift or {}).get(source, 0.0)
        for p in range(P):
            for i in range(k):
                values = {"mtld": float(y[p, s, i, 0]), "distinct_2": float(y[p, s, i, 1])}
                nats = float(rng.exponential() + (shift or {}).get(source, 0.0)) if kl else None
                text = InjectedText(
                    mode=mode,
                    source=source,
                    prompt=f"p{p:02d}",
                    values=values,
                    kl_nats=nats,
                    **setting,  # type: ignore[arg-type]
                )
                out.append(text)
    return out


def study(rng: np.random.Generator, **kind: object) -> list[InjectedText]:
    """Three modes with several sources, a baseline, and the controls of temp_modulate."""
    out = texts_of("none", rng, sources=("",), samples=20)
    out += texts_of("select", rng, **kind)  # type: ignore[arg-type]
    for dose in DOSES:
        out += texts_of("logit_perturb", rng, offset=0.5 * dose, kl=True, dose=dose, law="uniform")
    out += texts_of("temp_modulate", rng, kl=True)
    out += texts_of("temp_modulate", rng, kl=True, control="shuffled")
    return out + texts_of("temp_modulate", rng, sources=("",), control="fixed")


def family(rows: list[TestRow], name: str) -> list[TestRow]:
    return [row for row in rows if row.family == name]


def test_without_a_difference_the_sources_are_not_told_apart_and_n_to_settle_is_given() -> None:
    rows = analyse_injection(study(np.random.default_rng(1)), DESIGN)
    last = rows[-1]
    assert (last.family, last.role, last.verdict) == ("injection_effect", "verdict", "INCONCLUSIVE")
    assert last.n_to_settle is not None
    assert last.n_to_settle > 20
    assert last.n == sum(row.n or 0 for row in rows if row.hypothesis == "source")


def test_only_modes_in_which_the_source_acts_decide() -> None:
    rows = analyse_injection(study(np.random.default_rng(2)), DESIGN)
    decided = [row.contrast for row in family(rows, "injection_effect") if row.role == "decides"]
    assert decided == ["select", "logit_perturb:0.3:uniform", "logit_perturb:1:uniform", "temp_modulate"]


def test_a_mode_that_differs_from_none_alone_never_answers_for_the_source() -> None:
    rng = np.random.default_rng(3)
    moved = texts_of("none", rng, sources=("",)) + texts_of("select", rng, offset=3.0)
    rows = analyse_injection(moved, DESIGN)
    against = family(rows, "dose_response")
    assert {row.hypothesis for row in against} == {"against_none"}
    assert all(row.p_adjusted is not None and row.p_adjusted < 1e-6 for row in against)
    assert all(row.role == "secondary" for row in against)
    assert rows[-1].verdict in ("EQUIVALENT", "INCONCLUSIVE")


def test_a_source_that_shifts_the_text_under_one_mode_is_detected_and_the_mode_named() -> None:
    rng = np.random.default_rng(4)
    rows = analyse_injection(study(rng, shift={"TRNG": 0.6}), DESIGN)
    assert rows[-1].verdict == "DETECTED"
    assert rows[-1].contrast == "select"
    assert rows[-1].negligible is False


def test_holm_runs_over_the_modes() -> None:
    rows = analyse_injection(study(np.random.default_rng(5)), DESIGN)
    decided = [row for row in family(rows, "injection_effect") if row.role == "decides"]
    p = [row.p for row in decided if row.p is not None]
    assert [row.p_adjusted for row in decided] == pytest.approx(holm(p))
    own = [row for row in rows if row.family.startswith("injection_effect ") and row.role == "verdict"]
    assert [row.p for row in own] == p


def test_enough_samples_without_a_difference_are_equivalent_in_every_mode() -> None:
    rng = np.random.default_rng(6)
    texts = [
        text
        for mode in ("select", "gumbel")
        for text in texts_of(mode, rng, prompts=20, samples=80, sources=("PRNG", "TRNG"))
    ]
    design = replace(DESIGN, looks=(80,), look=80, sources=("PRNG", "TRNG"))
    assert analyse_injection(texts, design)[-1].verdict == "EQUIVALENT"


def test_an_undefined_mode_makes_the_family_invalid_and_is_named() -> None:
    rng = np.random.default_rng(7)
    good, bad = texts_of("select", rng), texts_of("gumbel", rng)
    flat = [replace(text, values={"mtld": 1.0, "distinct_2": 0.5}) for text in bad]
    last = analyse_injection([*good, *flat], DESIGN)[-1]
    assert last.verdict == "INVALID"
    assert last.reason is not None
    assert last.reason.startswith("gumbel: mtld: no variation within cells")
    lost = [text for text in bad if text.source != "TRNG"]
    assert "no values from TRNG" in str(analyse_injection([*good, *lost], DESIGN)[-1].reason)


def test_token_kl_has_rows_only_where_the_distribution_changes() -> None:
    rows = family(analyse_injection(study(np.random.default_rng(8)), DESIGN), "token_kl")
    assert [(row.hypothesis, row.contrast) for row in rows] == [
        ("omnibus", "logit_perturb:0.3:uniform"),
        ("omnibus", "logit_perturb:1:uniform"),
        ("omnibus", "temp_modulate"),
        ("slope_on_dose", "logit_perturb:uniform"),
    ]
    assert {row.role for row in rows} == {"secondary"}


def test_token_kl_finds_a_source_that_perturbs_more() -> None:
    rng = np.random.default_rng(9)
    texts = texts_of("logit_perturb", rng, kl=True, shift={"PRNG": 0.5}, dose=1.0, law="gaussian")
    row = family(analyse_injection(texts, DESIGN), "token_kl")[0]
    assert row.p is not None
    assert row.p < 1e-4


def test_temp_modulate_is_held_against_both_its_controls() -> None:
    rows = family(analyse_injection(study(np.random.default_rng(10)), DESIGN), "temp_modulate_controls")
    tests = [row for row in rows if row.hypothesis == "against_control"]
    assert {row.contrast for row in tests} == {"temp_modulate-fixed", "temp_modulate-shuffled"}
    assert len(tests) == 4
    assert all(row.p_adjusted is not None for row in tests)
    assert {row.role for row in rows} == {"secondary", "equivalence"}


def made(case: int) -> list[InjectedText]:
    """The texts of one case of the R script."""
    doses, out, i = (0.0, 0.05, 0.1, 0.3, 1.0, 3.0), [], 0
    for prompt in range(1, (5, 15, 2)[case - 1] + 1):
        for dose in doses:
            for source in range(3):
                for _ in range(4):
                    i += 1
                    y = (0.2, 0.0, 1.0)[case - 1] * dose + 2 * np.sin(1.3 * i)
                    y += 0.3 * dose * np.sin(7 * prompt) + prompt
                    if case != 2 or i % 7:
                        text = InjectedText(
                            mode="logit_perturb",
                            source=SOURCES[source],
                            prompt=f"p{prompt}",
                            values={"m": float(y)},
                            dose=dose,
                            law="uniform",
                        )
                        out.append(text)
    return out


@pytest.mark.parametrize("case", [1, 2, 3])
def test_the_slope_on_dose_is_the_t_test_of_prompt_slopes_that_r_prints(case: int) -> None:
    lines = [line.split() for line in PRINTED.read_text().splitlines()]
    expected = next([float(v) for v in values] for c, *values in lines if c == str(case))
    (row,) = slope_rows(made(case), ("m",), 0.05, family="dose_response")
    found = [row.estimate, row.low, row.high, row.statistic, row.df2, row.p]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_reversed_dose_reverses_the_slope() -> None:
    texts = made(1)
    (row,) = slope_rows(texts, ("m",), 0.05, family="f")
    turned = [replace(text, dose=3.0 - (text.dose or 0.0)) for text in texts]
    (back,) = slope_rows(turned, ("m",), 0.05, family="f")
    assert row.estimate is not None
    assert back.estimate == pytest.approx(-row.estimate)
    assert back.p == pytest.approx(row.p)


def test_without_a_dose_of_zero_the_baseline_stands_in_for_it() -> None:
    rng = np.random.default_rng(11)
    one = texts_of("logit_perturb", rng, dose=1.0, law="uniform", offset=2.0)
    (alone,) = slope_rows(one, ("mtld",), 0.05, family="f")
    assert alone.reason == "0 prompts with texts at two doses; a mean slope needs two prompts"
    (row,) = slope_rows(one + texts_of("none", rng, sources=("",)), ("mtld",), 0.05, family="f")
    assert row.estimate == pytest.approx(2.0, abs=0.3)


def test_a_study_without_a_mode_in_which_a_source_acts_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        analyse_injection(texts_of("none", np.random.default_rng(1), sources=("",)), DESIGN)


def false_positives(n: int, seed: int, **kind: float) -> int:
    """Of n studies of four modes without any effect of the source, those called DETECTED."""
    rng, count = np.random.default_rng(seed), 0
    design = replace(DESIGN, looks=(10,), look=10)
    for _ in range(n):
        texts = [
            text
            for mode in ("select", "gumbel", "seed_only", "temp_modulate")
            for text in texts_of(mode, rng, samples=10, **kind)  # type: ignore[arg-type]
        ]
        count += analyse_injection(texts, design)[-1].verdict == "DETECTED"
    return count


@pytest.mark.parametrize("kind", [{}, {"block_sd": 1.5}], ids=["independent texts", "common random numbers"])
def test_over_the_modes_a_true_null_is_rarely_detected(kind: dict[str, float]) -> None:
    n = 15
    assert false_positives(n, 12, **kind) <= stats.binom.isf(1e-4, n, 0.05)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kind",
    [{}, {"block_sd": 1.5}, {"prompt_source_sd": 0.3}],
    ids=["independent texts", "common random numbers", "prompts differ"],
)
def test_over_the_modes_the_error_stays_below_6_percent(kind: dict[str, float]) -> None:
    n = 500
    assert false_positives(n, 13, **kind) <= stats.binom.isf(1e-3, n, 0.05)
