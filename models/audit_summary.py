"""An adapter's audit summed up by kind, projection and layer, and how far two seeds' audits agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from models.spectra import FloatArray, ModuleAudit, checked_audits

By = Literal["all", "kind", "projection", "layer"]
MEASURES = (
    "stable_rank",
    "utilization",
    "effective_rank",
    "energy_rank_90",
    "energy_rank_95",
    "energy_rank_99",
    "spectral",
    "frobenius",
    "udr_spectral",
    "udr_frobenius",
    "sdi_spectral",
    "sdi_frobenius",
)
"""Fields of `ModuleAudit` that are summed up."""
STABILITY = ("energy_rank_90", "effective_rank", "stable_rank", "spectral", "frobenius")
"""Fields whose order over modules is compared between seeds."""


QUANTILES: Mapping[Literal["median", "p90"], float] = {"median": 0.5, "p90": 0.9}


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One number about a group of modules."""

    by: By
    """What the modules are grouped by."""
    group: str
    """Which group: `attention`, `q_proj`, `3`; `all`; `none` for modules outside numbered layers."""
    quantity: str
    """One of MEASURES, or `gain`: the squared Frobenius norm of a weight's change."""
    statistic: Literal["median", "p90", "share", "hhi"]
    """Quantiles interpolate linearly (R's type 7); `share`: the group's gain over that of all modules;
    `hhi`: Herfindahl-Hirschman index of gain within the group, from 1 / n (even) to 1 (one module)."""
    n: int
    """Modules it is computed from."""
    value: float | None
    """None when undefined."""
    reason: str | None = None
    """Why `value` is None."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Agreement of two seeds' audits about the order of modules."""

    first: int
    """Seed."""
    second: int
    """Seed, above `first`."""
    measure: str
    """One of STABILITY."""
    n: int
    """Modules measured in both."""
    spearman: float | None
    """Rank correlation, -1 to 1, average ranks for ties; None when undefined."""
    reason: str | None = None
    """Why `spearman` is None."""


def aggregates(audits: Sequence[ModuleAudit]) -> tuple[Aggregate, ...]:
    """Median and p90 of each measure, share of gain and its HHI, over all modules and by each grouping.

    Gain is s^2 sum sigma^2, squared because only squared Frobenius norms of separate weights add up to that
    of the whole change, so that shares are parts of one sum. A module without energy counts in n of what is
    defined for it (its norms and its energy ranks, 0) and is left out of what is not.

    >>> from models.spectra import Factors, audit_module
    >>> one, two = (Factors(a=np.eye(1, 2), b=np.eye(2, 1), scale=s) for s in (1.0, 3.0))
    >>> audits = [audit_module("h.0.up_proj", one, None), audit_module("h.1.up_proj", two, None)]
    >>> found = aggregates(audits)
    >>> [(row.group, row.value) for row in found if (row.by, row.statistic) == ("layer", "share")]
    [('0', 0.1), ('1', 0.9)]

    Raises
    ------
    ValueError
        No audit, or two of one module.
    """
    total = sum(one.gain for one in checked_audits(audits))
    return tuple(
        row
        for by, group, members in _groups(audits)
        for row in (*_quantiles(by, group, members), *_gains(by, group, members, total))
    )


def _groups(audits: Sequence[ModuleAudit]) -> Iterator[tuple[By, str, list[ModuleAudit]]]:
    """Every grouping's groups; layers in number order, the others by name."""
    yield "all", "all", list(audits)
    for kind in sorted({one.kind for one in audits}):
        yield "kind", kind, [one for one in audits if one.kind == kind]
    for projection in sorted({one.projection for one in audits}):
        yield "projection", projection, [one for one in audits if one.projection == projection]
    for layer in sorted({one.layer for one in audits}, key=lambda layer: (layer is None, layer)):
        members = [one for one in audits if one.layer == layer]
        yield "layer", "none" if layer is None else str(layer), members


def _quantiles(by: By, group: str, members: list[ModuleAudit]) -> Iterator[Aggregate]:
    for measure in MEASURES:
        values = [value for one in members if (value := getattr(one, measure)) is not None]
        reason = None if values else members[0].reason
        for statistic, share in QUANTILES.items():
            yield Aggregate(
                by=by,
                group=group,
                quantity=measure,
                statistic=statistic,
                n=len(values),
                value=float(np.quantile(values, share)) if values else None,
                reason=reason,
            )


def _gains(by: By, group: str, members: list[ModuleAudit], total: float) -> Iterator[Aggregate]:
    own = sum(one.gain for one in members)
    share = own / total if total > 0.0 else None
    hhi = sum((one.gain / own) ** 2 for one in members) if own > 0.0 else None
    found: tuple[tuple[Literal["share", "hhi"], float | None, str], ...] = (
        ("share", share, "no energy in any module of the adapter"),
        ("hhi", hhi, "no energy in any module of the group"),
    )
    for statistic, value, why in found:
        yield Aggregate(
            by=by,
            group=group,
            quantity="gain",
            statistic=statistic,
            n=len(members),
            value=value,
            reason=why if value is None else None,
        )


def audit_stability(audits: Mapping[int, Sequence[ModuleAudit]]) -> tuple[Stability, ...]:
    """Spearman correlation over modules between each pair of seeds, one row a measure of STABILITY.

    Parameters
    ----------
    audits
        Seed -> its audits, of the same modules under every seed.

    Raises
    ------
    ValueError
        Seeds with other modules.

    Examples
    --------
    >>> from models.spectra import Factors, audit_module
    >>> sized = [Factors(a=np.eye(1), b=np.eye(1), scale=scale) for scale in (1.0, 2.0, 3.0)]
    >>> one = [audit_module(f"h.{layer}.up", factors, None) for layer, factors in enumerate(sized)]
    >>> [(row.measure, row.spearman) for row in audit_stability({42: one, 43: one})][2:4]
    [('stable_rank', None), ('spectral', 1.0)]
    """
    by_name = {seed: {one.name: one for one in checked_audits(rows)} for seed, rows in audits.items()}
    found = []
    for first, second in combinations(sorted(by_name), 2):
        one, two = by_name[first], by_name[second]
        if one.keys() != two.keys():
            other = sorted(one.keys() ^ two.keys())
            raise ValueError(f"seeds {first} and {second} differ in modules {other[:3]}; audit the same ones")
        for measure in STABILITY:
            pairs = [(getattr(one[name], measure), getattr(two[name], measure)) for name in sorted(one)]
            whole = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
            rho = spearman(whole[:, 0], whole[:, 1])
            reason = None if rho is not None else f"{len(whole)} modules, and one seed's values do not differ"
            found.append(
                Stability(
                    first=first, second=second, measure=measure, n=len(whole), spearman=rho, reason=reason
                )
            )
    return tuple(found)


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Pearson correlation of average ranks; None for fewer than 2 values or when one side is constant.

    >>> spearman([1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 4.0, 3.0])
    0.9486832980505138

    Raises
    ------
    ValueError
        Sides of other lengths.
    """
    first, second = _average_ranks(x), _average_ranks(y)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values; give pairs")
    u, v = first - (first.size + 1) / 2, second - (second.size + 1) / 2
    norm = np.sqrt((u @ u) * (v @ v))
    return float(np.clip(u @ v / norm, -1.0, 1.0)) if norm > 0.0 else None


def _average_ranks(values: ArrayLike) -> FloatArray:
    _, where, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    means: FloatArray = np.cumsum(counts) - (counts - 1) / 2
    return means[where]
