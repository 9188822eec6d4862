"""Singular values of BA from its factors, what is read off them, their summary and their stability."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.audit_summary import MEASURES, aggregates, audit_stability, spearman
from models.spectra import (
    Factors,
    FloatArray,
    ModuleAudit,
    audit_from,
    audit_module,
    effective_rank,
    energy_rank,
    place,
    singular_values,
    stable_rank,
)

LINES = (Path(__file__).parent / "reference" / "spectra_svd.txt").read_text(encoding="utf-8").splitlines()
REFERENCE: dict[str, dict[str, str]] = defaultdict(dict)
for line in LINES:
    name, quantity, *fields = line.split("\t")
    REFERENCE[name][quantity] = "\t".join(fields)
CASES = ("full", "flat", "wide", "steep", "zero")
SPECTRA = st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=24).map(lambda v: sorted(v, reverse=True))


def numbers(text: str) -> list[float]:
    return [float(value) for value in text.split(" ")]


def factor(case: str, which: str) -> FloatArray:
    """One factor that R printed row by row."""
    size, entries = REFERENCE[case][which].split("\t")
    rows, columns = (int(side) for side in size.split(" "))
    return np.array(numbers(entries)).reshape(rows, columns)


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0]


def conditioned(rng: np.random.Generator, rows: int, columns: int, condition: float) -> FloatArray:
    """A matrix whose singular values fall evenly in the logarithm from 1 to 1 / condition."""
    n = min(rows, columns)
    return orthonormal(rng, rows, n) * np.geomspace(1.0, 1.0 / condition, n) @ orthonormal(rng, columns, n).T


def audit(name: str, *sigma: float, scale: float = 1.0, base: float | None = None) -> ModuleAudit:
    """The audit of a square module with these singular values."""
    factors = Factors(a=np.eye(len(sigma)), b=np.diag(sigma), scale=scale)
    return audit_module(name, factors, None if base is None else (base, base))


@pytest.mark.parametrize("condition", [1.0, 1e8])
@pytest.mark.parametrize("rank", [1, 2, 3, 8, 16, 33, 64])
def test_singular_values_are_those_of_the_explicit_product(rank: int, condition: float) -> None:
    rng = np.random.default_rng(rank)
    for d_out, d_in in (
        (80, 96),
        (256, 70),
        (12, 90),
        (90, 5),
        (7, 7),
    ):  # the last three fall below some ranks
        if condition == 1.0:
            a, b = rng.normal(size=(rank, d_in)), rng.normal(size=(d_out, rank))
        else:
            a, b = conditioned(rng, rank, d_in, condition), conditioned(rng, d_out, rank, condition)
        found = singular_values(a, b)
        whole = np.linalg.svd(b @ a, compute_uv=False)
        assert found.shape == (min(rank, d_out, d_in),)
        assert np.abs(found - whole[: found.size]).max() <= 1e-10 * whole[0]
        assert np.abs(whole[found.size :]).max(initial=0.0) <= 1e-10 * whole[0]
        assert (np.diff(found) <= 0.0).all()


def test_known_small_singular_values_survive_where_a_gram_matrix_loses_them() -> None:
    rng = np.random.default_rng(1)
    sigma = np.geomspace(1.0, 1e-12, 8)
    a, b = orthonormal(rng, 40, 8).T, orthonormal(rng, 30, 8) * sigma
    found = singular_values(a, b)
    assert found == pytest.approx(sigma, rel=0.0, abs=1e-15)
    gram = np.sqrt(np.abs(np.linalg.eigvalsh((b @ a).T @ (b @ a))[::-1][:8]))
    assert np.abs(gram - sigma).max() > 1e-10  # squaring misses the tolerance that the factors keep


@pytest.mark.parametrize("zero", ["a", "b"])
def test_a_zero_factor_has_no_energy_and_says_so(zero: str) -> None:
    a, b = np.ones((2, 5)), np.ones((4, 2))
    found = audit_module(
        "h.0.mlp.up", Factors(a=a * (zero != "a"), b=b * (zero != "b"), scale=2.0), (1.0, 1.0)
    )
    assert found.sigma == (0.0, 0.0)
    assert (found.stable_rank, found.utilization, found.effective_rank) == (None, None, None)
    assert (found.energy_rank_90, found.energy_rank_95, found.energy_rank_99) == (0, 0, 0)
    assert (found.spectral, found.frobenius, found.udr_spectral, found.udr_frobenius) == (0.0, 0.0, 0.0, 0.0)
    assert (found.sdi_spectral, found.sdi_frobenius) == (None, None)
    assert found.reason == "no energy: every singular value of BA is 0; log10 of an update of 0"


@pytest.mark.parametrize("case", CASES)
def test_an_audit_agrees_with_r(case: str) -> None:
    a, b, wanted = factor(case, "a"), factor(case, "b"), REFERENCE[case]
    found = audit_module("model.layers.3.self_attn.q_proj", Factors(a=a, b=b, scale=-0.5), (2.0, 4.0))
    assert found.sigma == pytest.approx(numbers(wanted["sigma"]), rel=0.0, abs=1e-14 * 12)
    assert found.spectral == pytest.approx(0.5 * float(wanted["spectral"]), rel=1e-13)
    assert found.frobenius == pytest.approx(0.5 * float(wanted["frobenius"]), rel=1e-13)
    assert found.udr_spectral == pytest.approx(found.spectral / 2.0)
    assert found.udr_frobenius == pytest.approx(found.frobenius / 4.0)
    assert found.parameters == a.size + b.size
    if case == "zero":
        assert found.stable_rank is None
        return
    assert found.stable_rank == pytest.approx(float(wanted["stable_rank"]), rel=1e-13)
    assert found.utilization == pytest.approx(float(wanted["stable_rank"]) / a.shape[0], rel=1e-13)
    assert found.effective_rank == pytest.approx(float(wanted["effective_rank"]), rel=1e-12)
    for share in (90, 95, 99):
        assert getattr(found, f"energy_rank_{share}") == int(wanted[f"energy_rank_{share}"])
    assert found.sdi_frobenius == pytest.approx(math.log10(found.frobenius / 4.0))


@settings(max_examples=60)
@given(SPECTRA, st.floats(1e-150, 1e150))
def test_ranks_do_not_depend_on_scale_and_lie_between_one_and_all(sigma: list[float], scale: float) -> None:
    scaled = [value * scale for value in sigma]
    for rank in (stable_rank, effective_rank):
        found = rank(sigma)
        assert found is not None
        assert 1.0 - 1e-12 <= found <= len(sigma) * (1.0 + 1e-12)
        assert rank(scaled) == pytest.approx(found, rel=1e-9)
    stable, effective = stable_rank(sigma), effective_rank(sigma)
    assert stable is not None
    assert effective is not None
    assert stable <= effective * (
        1.0 + 1e-9
    )  # sum sigma^2 / sigma_1^2 <= sum sigma / sigma_1 <= exp(entropy)


@settings(max_examples=60)
@given(SPECTRA, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_energy_ranks_grow_with_the_share_and_hold_it(sigma: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    kept = energy_rank(sigma, high)
    assert 1 <= energy_rank(sigma, low) <= kept <= len(sigma)
    energy = np.array(sigma) ** 2
    assert energy[:kept].sum() >= high * energy.sum() * (1.0 - 1e-9)
    assert kept == 1 or energy[: kept - 1].sum() < high * energy.sum() * (1.0 + 1e-9)


def test_an_energy_reached_exactly_counts_as_reached() -> None:
    for value in (1.0, 0.1, 1e-3, 7.3):
        assert energy_rank([value] * 10, 0.9) == 9
        assert energy_rank([value] * 20, 0.95) == 19
        assert energy_rank([value] * 100, 0.99) == 99
    assert energy_rank([5.0, 4.0, 2.0, 2.0, 1.0], 0.9) == 3  # 45 of 50; over 5 in float64 they fall short
    for k in range(1, 12):  # k^2 : 1 in exact arithmetic
        assert energy_rank([float(k), 1.0], k * k / (k * k + 1)) == 1
        assert energy_rank([k / 7.0, 1.0 / 7.0], k * k / (k * k + 1)) == 1


def test_rotating_the_outer_or_the_inner_space_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(6, 20)), rng.normal(size=(15, 6))
    wanted = singular_values(a, b)
    inner = rng.normal(size=(6, 6))
    turned = (a @ orthonormal(rng, 20, 20), orthonormal(rng, 15, 15) @ b)
    for found in (singular_values(*turned), singular_values(inner @ a, b @ np.linalg.inv(inner))):
        assert found == pytest.approx(wanted, rel=0.0, abs=1e-11 * wanted[0])
    assert singular_values(b.T, a.T) == pytest.approx(wanted, rel=1e-12)  # transposed


def test_what_cannot_be_audited_is_refused_with_the_place() -> None:
    ok = np.ones((2, 3))
    for a, b, said in (
        (ok, np.ones((4, 3)), r"factors a \(2, 3\) and b \(4, 3\)"),
        (np.ones((0, 3)), np.ones((4, 0)), "r >= 1"),
        (ok * np.nan, np.ones((4, 2)), "not finite"),
        (ok * 1e200, np.ones((4, 2)) * 1e200, "exceeds float64"),
    ):
        with pytest.raises(ValueError, match=said):
            singular_values(a, b)
    with pytest.raises(ValueError, match="scale is 0"):
        Factors(a=ok, b=np.ones((4, 2)), scale=0.0)
    with pytest.raises(ValueError, match="norms of the base weight"):
        audit_module("h.0.up", Factors(a=ok, b=np.ones((4, 2)), scale=1.0), (-1.0, 1.0))
    with pytest.raises(ValueError, match="share of energy 0"):
        energy_rank([1.0], 0.0)
    with pytest.raises(ValueError, match="0 or more"):
        stable_rank([1.0, -1.0])


def test_places_of_modules_are_read_off_their_names() -> None:
    assert place("model.layers.11.mlp.down_proj") == ("down_proj", 11, "mlp")
    assert place("transformer.h.0.attn.c_attn") == ("c_attn", 0, "attention")
    assert place("base_model.model.model.layers.2.self_attn.o_proj") == ("o_proj", 2, "attention")
    assert place("model.embed_tokens") == ("embed_tokens", None, "other")


def test_an_unknown_or_zero_base_weight_leaves_the_ratio_undefined_with_a_reason() -> None:
    for one, why in (
        (audit("h.0.up", 2.0), "no norms of the base weight"),
        (audit("h.0.up", 2.0, base=0.0), "the base weight is 0"),
    ):
        assert (one.udr_spectral, one.sdi_spectral, one.reason) == (None, None, why)
        assert audit_from(json.loads(json.dumps(asdict(one)))) == one
    assert audit("h.0.up", 2.0, base=1.0).reason is None


AUDITS = [
    audit("h.0.attn.q_proj", 3.0, 1.0, base=10.0),
    audit("h.0.mlp.up_proj", 6.0, 0.0, base=10.0),
    audit("h.1.attn.q_proj", 1.0, 1.0, base=10.0),
    audit("h.1.mlp.up_proj", 0.0, 0.0, base=10.0),
    audit("h.10.mlp.up_proj", 2.0, 1.0, scale=2.0, base=10.0),
]


def test_aggregates_are_quantiles_shares_and_concentration_of_gain() -> None:
    rows = {(row.by, row.group, row.quantity, row.statistic): row for row in aggregates(AUDITS)}
    assert len(rows) == (1 + 2 + 2 + 3) * (2 * len(MEASURES) + 2)
    gains = np.array([10.0, 36.0, 2.0, 0.0, 20.0])
    assert rows["kind", "mlp", "gain", "share"].value == pytest.approx(56.0 / 68.0)
    assert rows["layer", "0", "gain", "share"].value == pytest.approx(46.0 / 68.0)
    assert rows["all", "all", "gain", "hhi"].value == pytest.approx(((gains / 68.0) ** 2).sum())
    assert rows["kind", "attention", "gain", "hhi"].value == pytest.approx((10**2 + 2**2) / 12**2)
    for by in ("kind", "projection", "layer"):
        shares = [row.value or 0.0 for key, row in rows.items() if key[0] == by and key[3] == "share"]
        assert sum(shares) == pytest.approx(1.0)
    stable = rows["kind", "mlp", "stable_rank", "median"]
    assert (stable.n, stable.value) == (2, 1.125)  # the module without energy has none
    assert rows["kind", "mlp", "energy_rank_99", "median"].n == 3
    silent = rows["layer", "1", "gain", "hhi"]
    assert silent.value == 1.0
    assert list(dict.fromkeys(row.group for row in aggregates(AUDITS) if row.by == "layer")) == [
        "0",
        "1",
        "10",
    ]
    ((sample, values),) = REFERENCE["quantiles"].items()
    many = [audit(f"h.{i}.up", value) for i, value in enumerate(numbers(sample))]
    of_r = {(row.quantity, row.statistic): row.value for row in aggregates(many) if row.by == "all"}
    assert [of_r["spectral", "median"], of_r["spectral", "p90"]] == pytest.approx(numbers(values))


def test_aggregates_of_no_energy_are_undefined_with_a_reason() -> None:
    for row in aggregates([audit("h.0.up", 0.0), audit("h.1.up", 0.0)]):
        assert (row.value is None) == (row.reason is not None)
        if row.statistic in ("share", "hhi"):
            assert row.reason is not None
            assert row.reason.startswith("no energy in any module of the ")
    with pytest.raises(ValueError, match="0 audits"):
        aggregates([])
    with pytest.raises(ValueError, match=r"twice: \['h.0.up'\]"):
        aggregates([audit("h.0.up", 1.0), audit("h.0.up", 1.0)])


def test_stability_is_the_rank_correlation_of_each_pair_of_seeds() -> None:
    turned = [audit(one.name, *one.sigma, scale=1.0 / one.scale) for one in AUDITS]
    rows = {(row.first, row.second, row.measure): row for row in audit_stability({44: turned, 42: AUDITS})}
    assert {key[:2] for key in rows} == {(42, 44)}
    assert rows[42, 44, "stable_rank"].spearman == pytest.approx(1.0)
    assert rows[42, 44, "stable_rank"].n == 4
    frobenius = rows[42, 44, "frobenius"]
    assert frobenius.n == 5
    assert frobenius.spearman == pytest.approx(spearman([10, 36, 2, 0, 20], [10, 36, 2, 0, 1.25]))
    three = audit_stability({1: AUDITS, 2: AUDITS, 3: turned})
    assert [(row.first, row.second) for row in three[::5]] == [(1, 2), (1, 3), (2, 3)]
    with pytest.raises(ValueError, match="differ in modules"):
        audit_stability({1: AUDITS, 2: AUDITS[1:]})


def test_spearman_agrees_with_r_and_is_none_where_it_is_undefined() -> None:
    ((x, rest),) = REFERENCE["spearman"].items()
    y, rho = rest.split("\t")
    assert spearman(numbers(x), numbers(y)) == pytest.approx(float(rho), rel=1e-14)
    assert spearman(numbers(x), [-value for value in numbers(y)]) == pytest.approx(-float(rho), rel=1e-14)
    for few in (([1.0], [2.0]), ([], []), ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0])):
        assert spearman(*few) is None
    same = [audit(f"h.{i}.up", 1.0) for i in range(3)]
    for row in audit_stability({1: same, 2: same}):
        assert row.spearman is None
        assert row.reason == "3 modules, and one seed's values do not differ"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=20))
def test_spearman_sees_only_order(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(one) for one, _ in pairs], [float(other) for _, other in pairs]
    rho = spearman(x, y)
    stretched = spearman([math.exp(value) for value in x], [value**3 for value in y])
    assert (rho is None) == (stretched is None) == (len(set(x)) == 1 or len(set(y)) == 1)
    if rho is not None:
        assert stretched == pytest.approx(rho, abs=1e-12)
        assert spearman(y, x) == pytest.approx(rho, abs=1e-12)
        assert -1.0 <= rho <= 1.0
