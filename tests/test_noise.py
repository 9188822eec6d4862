"""Noise on a choice has the law it claims and keeps to its row; its divergence is the definition's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from models.backends import Sampling
from models.entropy import SourceSpec, WordSource, open_source, uniforms
from models.injection import LAWS
from models.noise import (
    GumbelMax,
    Modulated,
    Perturbed,
    RowNoise,
    divergence_nats,
    moved_temperatures,
    standardised,
)
from models.sampling import Floats, InverseCdf, keep, row_uniforms

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 40
STANDARD = Sampling(temperature=0.7, top_k=20, top_p=0.9, max_new_tokens=8)
OPEN = Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)


def sources(n: int, kind: str = "prng") -> list[WordSource]:
    return [open_source(SourceSpec(kind=kind, stream=100 + row)) for row in range(n)]


def some_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def perturbed(rows: int, dose: float, law: str = "uniform", settings: Sampling = STANDARD) -> Perturbed:
    own = row_uniforms(list(range(rows)), settings.max_new_tokens)
    kl = np.full(own.shape, np.nan)
    return Perturbed(settings, own, RowNoise(sources(rows), VOCABULARY), dose, law, kl)


def modulated(rows: int, temperatures: Floats, settings: Sampling = STANDARD) -> Modulated:
    own = row_uniforms(list(range(rows)), settings.max_new_tokens)
    return Modulated(settings, own, temperatures, np.full(own.shape, np.nan))


@pytest.mark.parametrize("law", LAWS)
def test_standardised_noise_has_the_moments_and_the_shape_of_its_law(law: str) -> None:
    n = 200_000
    noise = standardised(uniforms(sources(1)[0], n), law)
    kurtosis = {"uniform": 1.8, "gaussian": 3.0}[law]
    assert abs(noise.mean()) < 6 / np.sqrt(n)
    assert abs(noise.var() - 1) < 6 * np.sqrt((kurtosis - 1) / n)
    assert abs((noise**4).mean() - kurtosis) < 6 * np.sqrt(96 / n)  # 96: variance of a normal's fourth power
    law_of = {"uniform": stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)), "gaussian": stats.norm()}[law]
    assert stats.kstest(noise, law_of.cdf).pvalue > 1e-6


def test_gaussian_noise_is_the_inverse_normal_cdf_of_the_number() -> None:
    u = np.concatenate([uniforms(sources(1)[0], 1000), [1e-12, 1e-6, 0.5, 1 - 1e-6]])
    np.testing.assert_allclose(standardised(u.copy(), "gaussian"), special.ndtri(u), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
@pytest.mark.parametrize("law", LAWS)
def test_the_extreme_words_give_finite_noise(word: int, law: str) -> None:
    stuck = WordSource("stuck", lambda n: np.full(n, word, np.uint64))
    drawn = RowNoise([stuck], 3).draw(np.array([0]))
    assert 0 < drawn.min() <= drawn.max() < 1
    assert np.isfinite(standardised(drawn.copy(), law)).all()
    choice = GumbelMax(STANDARD, RowNoise([stuck], 20))(some_logits(1), np.array([0]), 0, exact=False)
    assert 0 <= choice.tokens[0] < VOCABULARY


def test_held_noise_is_that_of_the_row_wherever_it_stands() -> None:
    noise = RowNoise(sources(5), 4)
    drawn = noise.hold(noise.draw(np.array([1, 4, 2])))
    expected = [uniforms(source, 4) for source in sources(5)]
    assert drawn.tolist() == [expected[row].tolist() for row in (1, 4, 2)]
    assert noise.again(np.array([2, 1])).tolist() == [expected[2].tolist(), expected[1].tolist()]


def test_each_step_asks_each_row_once_and_a_second_asking_draws_nothing() -> None:
    asked = [0, 0]

    def counting(row: int) -> WordSource:
        words = sources(2)[row].words

        def count(n: int) -> Any:
            asked[row] += 1
            return words(n)

        return WordSource("counting", count)

    for choose in (
        GumbelMax(STANDARD, RowNoise([counting(0), counting(1)], 20)),
        Perturbed(
            STANDARD, row_uniforms([0, 1], 8), RowNoise([counting(0), counting(1)], VOCABULARY), 1.0,
            "uniform", np.zeros((2, 8)),
        ),
    ):  # fmt: skip
        asked[:] = [0, 0]
        logits, rows = some_logits(2), np.array([0, 1])
        for step in range(3):
            first = choose(logits, rows, step, exact=False)
            for row in rows:
                again = choose(logits[[row]].double(), np.array([row]), step, exact=True)
                assert again.tokens[0] == first.tokens[row]
                assert not again.unsure[0]
        assert asked == [3, 3]


@pytest.mark.parametrize("settings", [STANDARD, OPEN], ids=["cut", "whole"])
def test_gumbel_noise_draws_from_the_kept_distribution(settings: Sampling) -> None:
    n = 20_000
    logits = some_logits(1)
    kept = keep(logits.double(), settings, exact=True)
    p = np.zeros(VOCABULARY)
    p[kept.ids[0]] = kept.mass[0] / kept.mass.sum()
    size = settings.top_k or VOCABULARY
    source = sources(1)[0]
    choose = GumbelMax(settings, RowNoise([source] * n, size))
    tokens = choose(logits.expand(n, -1), np.arange(n), 0, exact=False).tokens
    counts = np.bincount(tokens, minlength=VOCABULARY)
    assert counts[p == 0].sum() == 0
    likely = n * p > 5
    observed = [*counts[likely], counts[~likely].sum()]
    expected = [*(n * p[likely]), n * p[~likely].sum()]
    usable = np.array(expected) > 0
    assert stats.chisquare(np.array(observed)[usable], np.array(expected)[usable]).pvalue > 1e-6


def test_gumbel_takes_the_largest_sum_of_log_probability_and_noise() -> None:
    logits = some_logits(3)
    choice = GumbelMax(OPEN, RowNoise(sources(3), VOCABULARY))(logits, np.arange(3), 0, exact=False)
    noise = np.stack([stats.gumbel_r.ppf(uniforms(source, VOCABULARY)) for source in sources(3)])
    assert choice.tokens.tolist() == (logits.numpy() + noise).argmax(axis=1).tolist()


def test_a_gumbel_race_that_rounding_could_turn_is_unsure() -> None:
    level = WordSource("level", lambda n: np.full(n, 2**63, np.uint64))
    logits = torch.tensor([[0.0, 3.0, 3.0 + 1e-6, 1.0], [0.0, 3.0, 2.0, 1.0]])
    choose = GumbelMax(OPEN, RowNoise([level, level], 4))
    assert choose(logits, np.arange(2), 0, exact=False).unsure.tolist() == [True, False]
    assert choose(logits[:1].double(), np.array([0]), 0, exact=True).tokens.tolist() == [2]


@pytest.mark.parametrize("law", LAWS)
def test_perturbed_choices_are_those_of_logits_with_noise_of_the_dose(law: str) -> None:
    logits, rows = some_logits(4), np.arange(4)
    choose = perturbed(4, 0.8, law)
    u = np.stack([uniforms(source, VOCABULARY) for source in sources(4)])
    noise = (u - 0.5) * np.sqrt(12) if law == "uniform" else special.ndtri(u)
    moved = logits.double().numpy() + 0.8 * noise
    plain = InverseCdf(STANDARD, choose.uniforms)
    expected = plain(torch.from_numpy(moved), rows, 0, exact=True).tokens
    assert choose(logits, rows, 0, exact=False).tokens.tolist() == expected.tolist()
    p, q = (special.softmax(x / STANDARD.temperature, axis=1) for x in (moved, logits.double().numpy()))
    np.testing.assert_allclose(choose.kl_nats[:, 0], special.rel_entr(p, q).sum(axis=1), atol=1e-5)
    assert np.isnan(choose.kl_nats[:, 1:]).all()


def test_without_dose_nothing_changes_and_the_divergence_is_zero() -> None:
    logits, rows = some_logits(6), np.arange(6)
    still = np.full((6, 8), STANDARD.temperature)
    for choose in (perturbed(6, 0.0, "gaussian"), modulated(6, still)):
        expected = InverseCdf(STANDARD, choose.uniforms)(logits, rows, 2, exact=False)
        found = choose(logits, rows, 2, exact=False)
        assert found.tokens.tolist() == expected.tokens.tolist()
        assert choose.kl_nats[:, 2].tolist() == [0.0] * 6


def test_a_small_dose_costs_the_divergence_that_theory_says() -> None:
    dose, n = 0.02, 4000
    logits = some_logits(1).expand(n, -1)
    choose = perturbed(n, dose, "gaussian", OPEN)
    choose(logits, np.arange(n), 0, exact=False)
    p = special.softmax(logits[0].double().numpy())
    expected = dose**2 / 2 * (p * (1 - p)).sum()  # second order: half the variance of the noise under p
    assert choose.kl_nats[:, 0].mean() == pytest.approx(expected, rel=0.06)


def test_a_moved_temperature_is_the_temperature_of_the_choice() -> None:
    logits, rows = some_logits(5), np.arange(5)
    temperatures = np.linspace(0.1, 2.0, 5)[:, None].repeat(8, axis=1)
    choose = modulated(5, temperatures)
    found = choose(logits, rows, 3, exact=False).tokens.tolist()
    for row, warmth in enumerate(temperatures[:, 0]):
        alone = InverseCdf(
            Sampling(temperature=warmth, top_k=20, top_p=0.9, max_new_tokens=8), choose.uniforms[[row]]
        )
        assert alone(logits[[row]], np.array([0]), 3, exact=False).tokens[0] == found[row]
        p, q = (special.softmax(logits[row].double().numpy() / t) for t in (warmth, STANDARD.temperature))
        assert choose.kl_nats[row, 3] == pytest.approx(special.rel_entr(p, q).sum(), abs=1e-5)


def test_a_moved_temperature_stays_between_its_bounds() -> None:
    u = np.linspace(0, 1, 11)
    assert moved_temperatures(u, 0.7, 0.3).tolist() == pytest.approx((0.7 + 0.3 * (u - 0.5)).tolist())
    far = moved_temperatures(u, 0.7, 4.0)
    assert (far.min(), far.max()) == (0.1, 2.0)


def test_the_divergence_is_the_definition_and_never_below_zero() -> None:
    x, y = some_logits(50, 1), some_logits(50, 2)
    p, q = (special.softmax(z.double().numpy(), axis=1) for z in (x, y))
    expected = special.rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(divergence_nats(x, y), expected, rtol=1e-10)
    target = torch.nn.functional.kl_div(y.double().log_softmax(1), x.double().softmax(1), reduction="none")
    np.testing.assert_allclose(divergence_nats(x, y), target.sum(1).numpy(), rtol=1e-10)
    shifted = divergence_nats(x + 5.0, x)
    assert shifted.min() >= 0.0
    assert shifted.max() < 1e-6


def test_a_seed_stream_and_a_source_stream_never_share_numbers() -> None:
    seeds = row_uniforms([7], 5)[0].tolist()
    for kind in ("prng", "pcg64", "philox"):
        assert uniforms(open_source(SourceSpec(kind=kind, stream=7)), 5).tolist() != seeds
