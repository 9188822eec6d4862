"""The control experiment on runs whose causal chain is known: the value, the label, or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from stats.control import (
    ALPHA,
    RATES,
    ControlRun,
    Transfer,
    _Agreement,
    _share_row,
    _widened,
    analyse_control,
)
from stats.proportions import p_at_least, wilson
from stats.rows import TestRow

BINOMIAL = Path(__file__).parent / "reference" / "control_binomial.txt"

SOURCES = ("HMIX", "PRNG", "TRNG")
PROMPTS = ("p1", "p2", "p3", "p4", "p5")
Writer = Callable[[ControlRun], str | None]


def by_value(run: ControlRun) -> str | None:
    return f"{run.prompt} {run.seed32}"


def by_label(run: ControlRun) -> str | None:
    return f"{run.prompt} {run.label}"


def constant(run: ControlRun) -> str | None:
    return run.prompt


def experiment(
    write: Writer, *, seeds: int = 20, conditions: Sequence[str] = ("cold", "warm")
) -> list[ControlRun]:
    """Sample, a repeat a condition, a swap under each other label, and a replay of every value."""
    runs = []
    for s, source in enumerate(SOURCES):
        for p, prompt in enumerate(PROMPTS):
            for k in range(seeds):
                base = ControlRun(
                    part="sample",
                    label=source,
                    drawn_by=source,
                    prompt=prompt,
                    k=k,
                    seed32=10_000 * s + 100 * p + k,
                    sha256="?",
                )
                runs.append(base)
                runs += [replace(base, part="repeat", condition=name) for name in conditions]
                runs += [replace(base, part="swap", label=other) for other in SOURCES if other != source]
                runs.append(replace(base, part="replay"))
    return [written(run, write(run)) for run in runs]


def written(run: ControlRun, text: str | None) -> ControlRun:
    return replace(run, sha256=text, failure=None if text else "timed out")


def analyse(runs: Sequence[ControlRun], required: int = 400) -> list[TestRow]:
    return analyse_control(runs, required_pairs=required, rng=np.random.default_rng(1))


def found(rows: Sequence[TestRow], hypothesis: str, contrast: str = "*") -> TestRow:
    return next(r for r in rows if (r.hypothesis, r.contrast) == (hypothesis, contrast))


def test_a_text_that_follows_the_value_is_detected_at_the_designs_own_size() -> None:
    rows = analyse(experiment(by_value))
    assert rows[-1].verdict == "DETECTED"
    assert (rows[-1].family, rows[-1].role, rows[-1].reason) == ("control", "verdict", None)
    swap = found(rows, "swap_agreement")
    assert (swap.estimate, swap.n) == (1.0, 600)  # 300 values under three labels, two free pairs each
    assert found(rows, "same_seed_identity", "cold").n == 300
    assert found(rows, "same_seed_identity", "warm").n == 300
    assert found(rows, "same_seed_identity").n == 600
    assert found(rows, "different_values_agree").estimate == 0.0
    assert found(rows, "different_values_agree").n == 150
    assert (
        found(rows, "label_changes_text", "swap-repeat").reason
        == "all pairs agree, or none does; there is nothing to tell apart"
    )


def test_a_text_that_follows_the_label_voids_the_backend() -> None:
    rows = analyse(experiment(by_label))
    assert rows[-1].verdict == "INVALID"
    assert rows[-1].reason is not None
    assert "swap_agreement: 0.0%, surely under 99%" in rows[-1].reason
    label = found(rows, "label_changes_text", "swap-repeat")
    assert label.p is not None
    assert label.p < 1e-50
    assert label.estimate == -1.0


def test_a_text_that_follows_nothing_is_equivalent() -> None:
    last = analyse(experiment(constant))[-1]
    assert (last.verdict, last.reason) == ("EQUIVALENT", "different values give the same text")


def test_texts_that_repeats_do_not_reproduce_void_the_backend() -> None:
    rng = np.random.default_rng(2)

    def careless(run: ControlRun) -> str | None:
        return f"{by_value(run)} {'again' if run.part == 'repeat' and rng.random() < 0.05 else ''}"

    rows = analyse(experiment(careless))
    assert rows[-1].verdict == "INVALID"
    identity = found(rows, "same_seed_identity")
    assert identity.high is not None
    assert identity.high < 0.99
    assert f"same_seed_identity: {identity.estimate:.1%}, surely under 99%" in str(rows[-1].reason)


def test_a_rate_that_is_low_only_by_chance_is_not_invalid() -> None:
    runs = experiment(by_value)
    place = next(i for i, run in enumerate(runs) if run.part == "repeat")
    runs[place] = replace(runs[place], sha256="another")
    last = analyse(runs)[-1]
    assert last.verdict == "DETECTED"


def test_equal_error_texts_never_count_as_agreement() -> None:
    def fails(run: ControlRun) -> str | None:
        return None if run.k < 2 else by_value(run)

    rows = analyse(experiment(fails), required=300)
    identity = found(rows, "same_seed_identity")
    assert (identity.estimate, identity.n) == (1.0, 540)  # 60 free pairs of 30 failed values are gone
    missing = found(rows, "missing_pairs", "repeat")
    assert missing.estimate == pytest.approx(0.1)
    assert missing.n == 900
    assert rows[-1].verdict == "DETECTED"


def test_many_missing_texts_void_the_experiment() -> None:
    last = analyse(experiment(lambda run: None if run.k < 6 else by_value(run)), required=100)[-1]
    assert last.verdict == "INVALID"
    assert "repeat: 30.0% of the pairs miss a text" in str(last.reason)


def test_nothing_but_failures_is_invalid_with_the_reason() -> None:
    last = analyse(experiment(lambda _: None))[-1]
    assert last.verdict == "INVALID"
    assert "same_seed_identity: no pair of two texts, 900 pairs with a missing one" in str(last.reason)


def test_too_few_pairs_are_inconclusive_with_the_number_that_settles() -> None:
    last = analyse(experiment(by_value, seeds=4))[-1]
    assert (last.verdict, last.n_to_settle) == ("INCONCLUSIVE", 400)
    assert "same_seed_identity: 120 independent pairs, under the 400 required" in str(last.reason)


def test_values_that_only_sometimes_matter_are_inconclusive() -> None:
    rows = analyse(experiment(lambda run: f"{run.prompt} {run.k % 2 if run.prompt == 'p1' else ''}"))
    assert rows[-1].verdict == "INCONCLUSIVE"
    assert rows[-1].reason == "texts of different values do not surely differ in most pairs"
    assert rows[-1].n_to_settle == 1200


def test_a_replay_with_other_values_or_texts_is_invalid() -> None:
    runs = experiment(by_value)
    moved = [replace(r, seed32=r.seed32 + 1) if r.part == "replay" and r.k == 3 else r for r in runs]
    assert "replay: the tape gave 15 other values" in str(analyse(moved)[-1].reason)
    other = [replace(r, sha256="x") if r.part == "replay" and r.k < 2 else r for r in runs]
    assert "replay_agreement: 90.0%, surely under 99%" in str(analyse(other)[-1].reason)
    without = [r for r in runs if r.part != "replay"]
    assert analyse(without)[-1].verdict == "INVALID"


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from("ab-"), min_size=2, max_size=4), min_size=1, max_size=12))
def test_rates_over_all_pairs_are_those_of_a_plain_count(jobs: list[list[str]]) -> None:
    runs = []
    for k, texts in enumerate(jobs):
        for i, text in enumerate(texts):
            run = ControlRun(
                part="repeat" if i else "sample",
                label="A",
                drawn_by="A",
                prompt="p",
                k=k,
                seed32=k,
                sha256=None if text == "-" else text,
                failure="timed out" if text == "-" else None,
            )
            runs.append(run)
    pairs = [(a, b) for texts in jobs for i, a in enumerate(texts) for b in texts[i + 1 :]]
    there = [a == b for a, b in pairs if "-" not in (a, b)]
    row = found(analyse(runs), "same_seed_identity")
    assert found(analyse(runs), "missing_pairs", "repeat").estimate == pytest.approx(
        1 - len(there) / len(pairs)
    )
    if not there:
        assert row.estimate is None
        return
    assert row.estimate == pytest.approx(sum(there) / len(there))
    free = sum(max(0, sum(t != "-" for t in texts) - 1) for texts in jobs)
    assert row.n == free
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.estimate + 1e-12
    assert row.high >= row.estimate - 1e-12
    if all(len(texts) == 2 for texts in jobs):  # one pair a job: Wilson's interval itself
        plain = wilson(sum(there), len(there))
        assert (row.low, row.high) == pytest.approx((plain.low, plain.high))


def transfer(shift: float, seed: int, samples: int = 60) -> Transfer:
    rng = np.random.default_rng(seed)
    p, a, _ = (index.ravel() for index in np.indices((12, 2, samples)))
    y = rng.normal(size=12)[p] + rng.normal(size=len(p)) + shift * a
    return Transfer(
        values={"mtld": y},
        arm=[("FULL", "SHORT")[i] for i in a],
        prompt=[f"p{i}" for i in p],
        primary=("mtld",),
    )


def test_the_distribution_transfer_has_a_verdict_and_a_bound_of_its_own() -> None:
    runs = experiment(by_value)
    verdicts = {}
    for shift in (0.0, 0.6):
        rows = analyse_control(runs, transfer(shift, 5), rng=np.random.default_rng(1))
        own = [r for r in rows if r.family == "distribution_transfer"]
        verdicts[shift] = own[-1].verdict
        assert own[-1].role == "verdict"
        assert {r.hypothesis for r in own} == {"omnibus", "pairwise", "tost", "verdict"}
        bound = next(r for r in rows if r.family == "data_processing_bound" and r.metric == "distinct_2")
        assert bound.estimate == pytest.approx(1 - 1001 / 2**32)
        assert (rows[-1].family, rows[-1].verdict) == ("control", "DETECTED")
    assert verdicts == {0.0: "EQUIVALENT", 0.6: "DETECTED"}


def test_the_exact_p_of_a_rate_is_what_r_prints() -> None:
    lines = [line.split() for line in BINOMIAL.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 45
    for rate, pairs, wrong, expected in lines:
        n = int(pairs)
        found = p_at_least(float(rate), 1.0 - int(wrong) / n, n)
        assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-12), (rate, pairs, wrong)


def test_what_cannot_be_a_run_of_the_experiment_is_refused() -> None:
    run = experiment(by_value)[0]
    with pytest.raises(ValueError, match="allowed parts and conditions"):
        replace(run, part="probe")
    with pytest.raises(ValueError, match="a swap runs under another label"):
        replace(run, part="swap")
    with pytest.raises(ValueError, match="exactly one"):
        replace(run, sha256=None)
    with pytest.raises(ValueError, match="occurs twice"):
        analyse([run, run])
    with pytest.raises(ValueError, match="one value, one seed"):
        analyse([run, replace(run, part="repeat", seed32=5)])


@pytest.mark.parametrize("pairs", [30, 60, 400, 2000])
def test_a_rate_that_is_high_enough_is_called_too_low_as_rarely_as_declared(pairs: int) -> None:
    share = ALPHA / len(RATES)
    rejects = [wrong for wrong in range(pairs) if p_at_least(0.99, 1.0 - wrong / pairs, pairs) <= share]
    assert rejects == list(range(rejects[0], pairs))
    assert binom.sf(rejects[0] - 1, pairs, 0.01) <= share < binom.sf(rejects[0] - 2, pairs, 0.01)


@given(st.integers(1, 400), st.data())
def test_whatever_missing_texts_would_have_said_is_inside_the_interval(
    pairs: int, data: st.DataObject
) -> None:
    """Against Wilson's interval of every filling, by statsmodels."""
    agree = data.draw(st.integers(0, pairs))
    gone = data.draw(st.integers(0, 60))
    would_agree = data.draw(st.integers(0, gone))
    known = _Agreement(pairs=pairs, agree=agree, free=pairs, missing=gone)
    row = _widened(_share_row("different_values_agree", "*", known), known)
    low, high = proportion_confint(agree + would_agree, pairs + gone, method="wilson")
    assert row.low is not None
    assert row.high is not None
    assert row.low <= low + 1e-12
    assert row.high >= high - 1e-12
    assert row.estimate == agree / pairs
