"""Which blocks of a model matter? Ablation both ways, documents as unit, languages fixed.

Protecting block i alone: r_i = loss with every block quantised minus loss with block i left alone. Quantising
block i alone: loss with only i quantised minus the baseline's. A block is critical when r_i differs from the
mean over blocks, so that is what is tested: signs of the documents' totals flipped, Holm over blocks.
Diagnostics (kurtosis, outliers) are correlated with r, never put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import scipy

from stats.aligned_bootstrap import Resampled, interval_row, intervals
from stats.disparity import PRIMARY, Aligned
from stats.language_tests import Arrangements, shift_test, sign_flips
from stats.language_verdicts import concluded, family_verdict, shift_rows
from stats.rows import FloatArray, TestRow


def analyse_layers(
    aligned: Aligned,
    quantised: FloatArray,
    protected: FloatArray,
    *,
    margin: float,
    drawn: Resampled,
    rng: np.random.Generator,
    only: FloatArray | None = None,
    diagnostics: Mapping[str, Sequence[float]] | None = None,
    alpha: float = 0.05,
    family: str = "layers",
) -> list[TestRow]:
    """All rows on the blocks of one model; the last one is the verdict of the family.

    Parameters
    ----------
    aligned : Aligned
    quantised : (L, S) float array
        Bits of each sentence, every block quantised.
    protected : (B, L, S) float array
        Bits with block b left alone and the others quantised.
    only : (B, L, S) float array, optional
        Bits with block b alone quantised.
    margin : float
        Smallest difference of a block from the mean over blocks, bits per aligned sentence.
    rng : numpy Generator
        For the signs where there are more than 17 documents.
    diagnostics : mapping of str to (B,) floats, optional

    Returns
    -------
    list of TestRow
        `protect_block` and, with `only`, `quantise_block` (contrast `block b` over all languages, `block
        b:code` in one): bootstrap. `protect_contrast` (contrast `block b`, role `decides`): r_b minus the
        mean of r, bootstrap interval, sign-flip p, verdict; `protect_contrast_tost`. `diagnostic_correlation`
        (metric: the diagnostic's name): Spearman with r, bootstrap interval. `verdict`: DETECTED when some
        block differs, EQUIVALENT when none can differ by the margin.

    Examples
    --------
    >>> from stats.aligned_bootstrap import resample_documents
    >>> rng = np.random.default_rng(0)
    >>> documents = tuple(str(i // 4) for i in range(80))
    >>> before = rng.gamma(9.0, 10.0, size=(4, 80))
    >>> aligned = Aligned(languages=tuple("abcd"), is_low=(True, True, False, False),
    ...                   documents=documents, bits=before)
    >>> quantised = before + 6.0
    >>> protected = quantised - np.array([3.0, 1.0, 1.0])[:, None, None] + rng.normal(size=(3, 4, 80))
    >>> rows = analyse_layers(aligned, quantised, protected, margin=0.2, rng=rng,
    ...                       drawn=resample_documents(documents, rng=rng),
    ...                       diagnostics={"kurtosis": [9, 3, 4]})
    >>> rows[-1].verdict, rows[-1].contrast, round(rows[-1].estimate, 1)
    ('DETECTED', 'block 0', 1.4)
    """
    B = len(protected)
    _check(aligned, quantised, protected, only, diagnostics)
    bare = TestRow(
        family=family,
        hypothesis="protect_contrast",
        metric=PRIMARY,
        method="sign flips of documents",
        role="decides",
        alpha=alpha,
        margin=margin,
        n=drawn.documents,
        reason="undefined",
    )
    broken = _broken(aligned, quantised, protected, only)
    if broken:
        gone = [replace(bare, contrast=f"block {b}", reason=broken) for b in range(B)]
        rows = concluded(gone, alpha=alpha)
        return [*rows, family_verdict(rows)]
    saved = drawn.means(quantised - protected)  # (1 + R, B, L)
    rows = _effect_rows(aligned, saved, replace(bare, hypothesis="protect_block"), drawn)
    if only is not None:
        cost = drawn.means(only - aligned.bits)
        rows += _effect_rows(aligned, cost, replace(bare, hypothesis="quantise_block"), drawn)
    r = saved.mean(axis=2)
    per_document = drawn.by_document((quantised - protected).mean(axis=1))  # (D, B)
    flips = sign_flips(drawn.documents, sizes=np.bincount(drawn.code).astype(np.float64), rng=rng)
    rows += _contrast_rows(r, per_document, flips, bare, drawn)
    for name, values in (diagnostics or {}).items():
        rows.append(_correlation_row(np.asarray(values, dtype=np.float64), r, name, bare, drawn))
    rows = concluded(rows, alpha=alpha)
    return [*rows, family_verdict(rows)]


def _check(
    aligned: Aligned,
    quantised: FloatArray,
    protected: FloatArray,
    only: FloatArray | None,
    diagnostics: Mapping[str, Sequence[float]] | None,
) -> None:
    B, shape = len(protected), aligned.bits.shape
    found = {"quantised": np.shape(quantised), "protected": np.shape(protected)}
    due = {"quantised": shape, "protected": (B, *shape)}
    if only is not None:
        found["only"], due["only"] = np.shape(only), (B, *shape)
    if found != due or B < 2:
        raise ValueError(f"shapes {found}; due are {due} with two blocks or more")
    for name, values in (diagnostics or {}).items():
        if len(values) != B or not np.isfinite(np.asarray(values, dtype=np.float64)).all():
            raise ValueError(
                f"diagnostic {name}: {list(values)}; pass one finite number for each of {B} blocks"
            )


def _broken(
    aligned: Aligned, quantised: FloatArray, protected: FloatArray, only: FloatArray | None
) -> str | None:
    """The family compares every block with the mean of all, so one bad loss leaves none of it."""
    sides = {"all blocks quantised": quantised}
    sides |= {f"block {b} protected": bits for b, bits in enumerate(protected)}
    sides |= {f"block {b} alone": bits for b, bits in enumerate(() if only is None else only)}
    reasons = [f"{name}: {why}" for name, bits in sides.items() for why in aligned.unusable(bits).values()]
    return "; ".join(reasons) or None


def _effect_rows(aligned: Aligned, values: FloatArray, bare: TestRow, drawn: Resampled) -> list[TestRow]:
    """Each block over all languages, then in each; `values` is (1 + R, B, L)."""
    alpha, B = bare.alpha or 0.05, values.shape[1]
    row = replace(bare, role="secondary", margin=None)
    names = [f"block {b}" for b in range(B)]
    names += [f"block {b}:{code}" for b in range(B) for code in aligned.languages]
    columns = np.column_stack([values.mean(axis=2), values.reshape(len(values), -1)])
    found = intervals(columns, drawn, alpha)
    return [interval_row(replace(row, contrast=n), one) for n, one in zip(names, found, strict=True)]


def _contrast_rows(
    r: FloatArray, per_document: FloatArray, flips: Arrangements, bare: TestRow, drawn: Resampled
) -> list[TestRow]:
    alpha = bare.alpha or 0.05
    away = per_document - per_document.mean(axis=1, keepdims=True)
    bounds = intervals(r - r.mean(axis=1, keepdims=True), drawn, alpha)
    rows: list[TestRow] = []
    for b, found in enumerate(bounds):
        row = replace(bare, contrast=f"block {b}")
        decides, tost = shift_rows(shift_test(away[:, b], flips), row, margin=bare.margin, alpha=alpha)
        method = f"{decides.method}; interval: {found.method}"
        rows += [
            replace(decides, low=found.low, high=found.high, method=method, reason=found.reason),
            tost,
        ]
    return rows


def _correlation_row(
    diagnostic: FloatArray, r: FloatArray, name: str, bare: TestRow, drawn: Resampled
) -> TestRow:
    """Spearman of a diagnostic with r over blocks; documents are resampled, diagnostic and blocks fixed."""
    row = replace(bare, hypothesis="diagnostic_correlation", metric=name, role="diagnostic", margin=None)
    row = replace(row, method="Spearman over blocks", n=len(diagnostic))
    if len(diagnostic) < 3 or np.ptp(diagnostic) == 0.0 or (np.ptp(r, axis=1) == 0.0).any():
        return replace(row, reason=f"{len(diagnostic)} blocks, or all equal: no rank correlation")
    x = scipy.stats.rankdata(diagnostic)
    y = scipy.stats.rankdata(r, axis=1)
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    rho = (y @ x) / np.sqrt((x @ x) * (y**2).sum(axis=1))
    found = intervals(rho[:, None], drawn, bare.alpha or 0.05)[0]
    method = f"Spearman over blocks, {found.method}"
    return replace(interval_row(row, found), n=len(diagnostic), method=method)
