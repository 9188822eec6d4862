"""What a trained LoRA adapter did to each module, read off the singular values of its update BA.

The singular values come from the factors: with A^T = Q_a R_a and B = Q_b R_b, BA = Q_b (R_b R_a^T) Q_a^T has
those of the small core R_b R_a^T, at most r by r. BA is never formed, and nothing is squared before its
singular values are known: singular values of a Gram matrix lose half the digits.
Energy is the sum of squared singular values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Kind = Literal["attention", "mlp", "other"]
KINDS: Mapping[Kind, tuple[str, ...]] = {
    "attention": ("attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("mlp", "feed_forward", "ffn", "gate_proj", "up_proj", "down_proj"),
}
"""Words in a module's name that tell its kind; anything else is `other`."""
TIE = 1e-12
"""Relative slack with which an energy counts as reached: ten equal values hold .9 in nine of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """The two LoRA factors of one module; its weight changes by `scale` times BA."""

    a: FloatArray
    """(r, d_in), float64."""
    b: FloatArray
    """(d_out, r), float64."""
    scale: float
    """s = alpha / r, or what the scale rule makes of alpha and r; not 0."""

    def __post_init__(self) -> None:
        checked_factors(self.a, self.b)
        if not math.isfinite(self.scale) or self.scale == 0.0:
            raise ValueError(f"scale is {self.scale}; give alpha / r, finite and not 0")


@dataclass(frozen=True, kw_only=True)
class ModuleAudit:
    """The update of one module in numbers; None where undefined, and then `reason` says why."""

    name: str
    """Full module name, such as `model.layers.3.self_attn.q_proj`."""
    projection: str
    """Last part of the name, such as `q_proj`."""
    layer: int | None
    """First number among the parts of the name; None without one."""
    kind: Kind
    """What part of a block it belongs to, by KINDS."""
    d_out: int
    """Rows of the module's weight."""
    d_in: int
    """Columns of the module's weight."""
    rank: int
    """r of the audited adapter."""
    parameters: int
    """r (d_in + d_out)."""
    sigma: tuple[float, ...]
    """Singular values of BA, unscaled, falling; min(r, d_in, d_out) of them, the others are 0."""
    scale: float
    """s, which multiplies BA."""
    stable_rank: float | None
    """sum sigma^2 / sigma_1^2, from 1 to r; None without energy."""
    utilization: float | None
    """stable_rank / r; None without energy."""
    effective_rank: float | None
    """exp of the entropy of sigma / sum sigma, from 1 to r; None without energy."""
    energy_rank_90: int
    """Least number of directions that hold .90 of the energy; 0 without energy."""
    energy_rank_95: int
    """The same for .95."""
    energy_rank_99: int
    """The same for .99."""
    spectral: float
    """|s| sigma_1: spectral norm of the change of the weight."""
    frobenius: float
    """|s| sqrt(sum sigma^2): Frobenius norm of the change of the weight."""
    udr_spectral: float | None
    """Update-to-weight ratio |dW| / |W| in spectral norms; None where |W| is unknown or 0."""
    udr_frobenius: float | None
    """The same in Frobenius norms."""
    sdi_spectral: float | None
    """log10 of udr_spectral; None where that is None or 0."""
    sdi_frobenius: float | None
    """log10 of udr_frobenius; None where that is None or 0."""
    reason: str | None = None
    """Why a value above is None; None when none is."""

    @property
    def gain(self) -> float:
        """Squared Frobenius norm of the weight's change, which adds up over modules, as norms do not."""
        return self.frobenius**2


def audit_from(data: Mapping[str, Any]) -> ModuleAudit:
    """An audit from the plain data of `dataclasses.asdict`, with JSON's lists.

    >>> import json
    >>> from dataclasses import asdict
    >>> one = audit_module("h.0.mlp.up_proj", Factors(a=np.eye(2, 3), b=np.eye(4, 2), scale=1.0), (2.0, 4.0))
    >>> audit_from(json.loads(json.dumps(asdict(one)))) == one
    True
    """
    return ModuleAudit(**{**data, "sigma": tuple(data["sigma"])})


def checked_factors(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both factors as float64.

    Raises
    ------
    ValueError
        Not two matrices with one inner dimension r >= 1, or an entry that is not finite.
    """
    A, B = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or 0 in (*A.shape, *B.shape):
        raise ValueError(f"factors a {A.shape} and b {B.shape}; give a (r, d_in) and b (d_out, r), r >= 1")
    if not (np.isfinite(A).all() and np.isfinite(B).all()):
        raise ValueError("a factor holds a value that is not finite; the adapter's training diverged")
    return A, B


def singular_values(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Singular values of BA, falling, from its factors.

    Parameters
    ----------
    a, b
        (r, d_in) and (d_out, r).

    Returns
    -------
    FloatArray
        min(r, d_in, d_out) values, 0 or more; the other singular values of BA are 0. Each is wrong by at most
        about 1e-15 |B| |A|, as those of the product formed in float64 are: factors whose large directions
        meet the other's small ones leave fewer digits relative to sigma_1, here and there.

    Raises
    ------
    ValueError
        See `checked_factors`, or a product beyond the range of float64.

    References
    ----------
    Golub & Van Loan (2013), Matrix Computations, 4th ed., 5.2 and 8.6.

    Examples
    --------
    >>> singular_values([[3.0, 4.0]], [[0.0], [2.0]]).round(12).tolist()
    [10.0]
    """
    A, B = checked_factors(a, b)
    # (min(d_out, r), r) @ (r, min(d_in, r))
    with np.errstate(over="ignore", invalid="ignore"):
        core = triangle(B) @ triangle(A.T).T
    if not np.isfinite(core).all():
        raise ValueError("the product of the factors exceeds float64; the adapter's training diverged")
    return np.asarray(np.linalg.svd(core, compute_uv=False), dtype=np.float64)


def triangle(matrix: FloatArray) -> FloatArray:
    """R of the QR decomposition, (min(m, n), n) of an (m, n) matrix."""
    return np.asarray(np.linalg.qr(matrix, mode="r"), dtype=np.float64)


def stable_rank(sigma: ArrayLike) -> float | None:
    """sum sigma^2 / sigma_1^2; None when every value is 0 (Rudelson & Vershynin 2007).

    >>> stable_rank([2.0, 1.0, 1.0])
    1.5
    >>> stable_rank([0.0, 0.0]) is None
    True
    """
    shares = _of_largest(sigma)
    return None if shares is None else float((shares**2).sum())


def effective_rank(sigma: ArrayLike) -> float | None:
    """exp(-sum p ln p), p = sigma / sum sigma; None when every value is 0 (Roy & Vetterli 2007).

    >>> round(effective_rank([1.0, 1.0, 1.0, 0.0]), 12)
    3.0
    """
    shares = _of_largest(sigma)
    if shares is None:
        return None
    p = shares[shares > 0.0] / shares.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def energy_rank(sigma: ArrayLike, share: float) -> int:
    """Least k with sum of the k largest sigma^2 >= share * sum sigma^2; 0 when every value is 0.

    >>> [energy_rank([3.0, 1.0], share) for share in (0.9, 0.95)]
    [1, 2]

    Raises
    ------
    ValueError
        A share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share of energy {share}; give one above 0 and at most 1")
    shares = _of_largest(sigma)
    if shares is None:
        return 0
    held = np.cumsum(shares**2)
    return int(np.argmax(held >= share * held[-1] * (1.0 - TIE))) + 1


def _of_largest(sigma: ArrayLike) -> FloatArray | None:
    """Values over the largest of them, falling, so that squares neither vanish nor overflow."""
    values = np.sort(np.asarray(sigma, dtype=np.float64))[::-1]
    if values.size == 0 or not np.isfinite(values).all() or values[-1] < 0.0:
        raise ValueError(f"singular values {values.tolist()}; give one or more, finite, 0 or more")
    return None if values[0] == 0.0 else values / values[0]


def audit_module(name: str, factors: Factors, base_norms: tuple[float, float] | None) -> ModuleAudit:
    """The audit of one module.

    Parameters
    ----------
    name
        Full name of the module.
    factors
        Its LoRA factors and scale.
    base_norms
        Spectral and Frobenius norm of the weight it adapts; None when unknown.

    Raises
    ------
    ValueError
        See `singular_values`; a norm below 0 or not finite.

    Examples
    --------
    >>> factors = Factors(a=np.eye(2), b=np.diag([2.0, 0.0]), scale=0.5)
    >>> one = audit_module("h.0.attn.q_proj", factors, (4.0, 8.0))
    >>> one.kind, one.layer, one.spectral, one.stable_rank, one.energy_rank_90, one.udr_frobenius
    ('attention', 0, 1.0, 1.0, 1, 0.125)
    """
    sigma = singular_values(factors.a, factors.b)
    (rank, d_in), d_out = factors.a.shape, factors.b.shape[0]
    stable = stable_rank(sigma)
    spectral = abs(factors.scale) * float(sigma[0])
    frobenius = spectral * math.sqrt(stable or 0.0)
    ratios, reasons = _ratios(spectral, frobenius, base_norms)
    if stable is None:
        reasons.insert(0, "no energy: every singular value of BA is 0")
    projection, layer, kind = place(name)
    return ModuleAudit(
        name=name,
        projection=projection,
        layer=layer,
        kind=kind,
        d_out=d_out,
        d_in=d_in,
        rank=rank,
        parameters=rank * (d_in + d_out),
        sigma=tuple(sigma.tolist()),
        scale=factors.scale,
        stable_rank=stable,
        utilization=None if stable is None else stable / rank,
        effective_rank=effective_rank(sigma),
        energy_rank_90=energy_rank(sigma, 0.90),
        energy_rank_95=energy_rank(sigma, 0.95),
        energy_rank_99=energy_rank(sigma, 0.99),
        spectral=spectral,
        frobenius=frobenius,
        udr_spectral=ratios[0],
        udr_frobenius=ratios[1],
        sdi_spectral=_log10(ratios[0]),
        sdi_frobenius=_log10(ratios[1]),
        reason="; ".join(reasons) or None,
    )


def place(name: str) -> tuple[str, int | None, Kind]:
    """Projection, layer and kind that a module's name tells.

    >>> place("model.layers.3.self_attn.q_proj"), place("lm_head")
    (('q_proj', 3, 'attention'), ('lm_head', None, 'other'))
    """
    parts = name.split(".")
    layer = next((int(part) for part in parts if re.fullmatch(r"[0-9]+", part)), None)
    for kind, words in KINDS.items():
        if any(word in part for part in parts for word in words):
            return parts[-1], layer, kind
    return parts[-1], layer, "other"


def _ratios(
    spectral: float, frobenius: float, base_norms: tuple[float, float] | None
) -> tuple[tuple[float | None, float | None], list[str]]:
    """|dW| / |W| in both norms, and why one or its logarithm is undefined."""
    if base_norms is None:
        return (None, None), ["no norms of the base weight"]
    if not all(math.isfinite(norm) and norm >= 0.0 for norm in base_norms):
        raise ValueError(f"norms of the base weight {base_norms}; give finite ones, 0 or more")
    if 0.0 in base_norms:
        return (None, None), ["the base weight is 0"]
    ratios = (spectral / base_norms[0], frobenius / base_norms[1])
    return ratios, ["log10 of an update of 0"] if 0.0 in ratios else []


def _log10(ratio: float | None) -> float | None:
    return math.log10(ratio) if ratio else None


def checked_audits(audits: Sequence[ModuleAudit]) -> Sequence[ModuleAudit]:
    """The audits, one a module.

    Raises
    ------
    ValueError
        None at all, or two of one name.
    """
    names = [one.name for one in audits]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise ValueError(f"{len(names)} audits, twice: {twice}; give one for each module of an adapter")
    return audits
