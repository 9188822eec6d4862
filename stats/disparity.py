"""Does quantising cost low-resource languages more? Changes per language and the gap between tiers.

The primary number is the paired change in bits per aligned sentence: the same sentences in every language, so
neither tokenizer nor script enters. The gap is mean change over low-resource minus mean over high-resource
languages, defined at zero, unlike the ratio. Two uncertainties answer two questions. Documents resampled with
the languages fixed: is the change in these languages real (`stats.aligned_bootstrap`)? Labels permuted over
languages: does it concern low-resource languages as such (`stats.language_tests`)? Only the second decides.

Preservation and its budgets are in `stats.preservation`, blocks in `stats.layer_effects`, the percentages of
perplexity in `stats.legacy_disparity`, verdicts and replicates in `stats.language_verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stats.aligned_bootstrap import Interval, Resampled, interval_row, intervals, ratio_interval
from stats.language_power import sized
from stats.language_tests import Arrangements, label_permutations, shift_test, slope_permutations
from stats.language_verdicts import concluded, shift_rows
from stats.rows import FloatArray, TestRow

PRIMARY = "bits_per_sentence"
NEAR_UNIFORM = 0.02
"""Loss this close to log2 V, as a share of it, counts as a uniform guess."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """The baseline on aligned sentences, and what is known of the languages."""

    languages: tuple[str, ...]
    """L codes, all different."""
    is_low: tuple[bool, ...]
    """(L,) True for a low-resource language; both kinds occur."""
    documents: tuple[str, ...]
    """(S,) document of each aligned sentence."""
    bits: FloatArray
    """(L, S) total bits of each sentence under the unquantised model; NaN is recorded, not refused."""
    n_bytes: npt.ArrayLike | None = None
    """(L, S) UTF-8 bytes."""
    characters: npt.ArrayLike | None = None
    """(L, S)"""
    tokens: npt.ArrayLike | None = None
    """(L, S); NaN where bits are."""
    premiums: tuple[float, ...] | None = None
    """(L,) bytes of the language over bytes of the reference language on the same sentences."""
    shares: tuple[float, ...] | None = None
    """(L,) share of the training sentences, above 0."""

    def __post_init__(self) -> None:
        L, S = len(self.languages), len(self.documents)
        if len(set(self.languages)) != L or len(self.is_low) != L or not 0 < sum(self.is_low) < L:
            raise ValueError(
                f"languages {self.languages} with {sum(self.is_low)} of {len(self.is_low)} labelled low; "
                "pass different codes, a label each, and at least one language in each tier"
            )
        for name in ("bits", "n_bytes", "characters", "tokens"):
            array = getattr(self, name)
            if array is not None and np.shape(array) != (L, S):
                raise ValueError(
                    f"{name} has shape {np.shape(array)}; {L} languages by {S} sentences are due"
                )
            unscored = np.isnan(self.bits) & (name == "tokens")
            if array is not None and name != "bits" and not ((np.asarray(array) > 0) | unscored).all():
                raise ValueError(
                    f"{name} holds {np.min(np.asarray(array))}; an empty sentence cannot be scored"
                )
        for name in ("premiums", "shares"):
            values = getattr(self, name)
            if values is not None and (len(values) != L or not all(0 < v < math.inf for v in values)):
                raise ValueError(
                    f"{name} {values}; pass one finite number above 0 for each of {self.languages}"
                )

    def unusable(self, bits: FloatArray) -> dict[str, str]:
        """Language -> why its losses give no number, in the baseline or under a variant."""
        found = {}
        for code, before, after in zip(self.languages, self.bits, bits, strict=True):
            for side, losses in (("baseline", before), ("variant", after)):
                wrong = losses.size - int((np.isfinite(losses) & (losses > 0.0)).sum())
                if wrong:
                    found[code] = (
                        f"{code}: {wrong} of {losses.size} losses of the {side} are no number above 0"
                    )
                    break
        return found


def collapsed(
    *,
    bits_per_token: float,
    unigram_bits_per_token: float,
    vocab_size: int,
) -> str | None:
    """Why a model counts as collapsed in a language, or None where it does not.

    Collapsed: worse than the language's held-out unigram model on the same tokens, or within 2 % of log2 V
    (or above it). Such a language is excluded from any claim: pass the reason on as `unusable`.

    Examples
    --------
    >>> collapsed(bits_per_token=6.0, unigram_bits_per_token=8.5, vocab_size=4096)
    >>> collapsed(bits_per_token=8.6, unigram_bits_per_token=8.5, vocab_size=4096)
    'collapsed: 8.6 bits a token, worse than the unigram model (8.5)'
    >>> collapsed(bits_per_token=11.8, unigram_bits_per_token=12.5, vocab_size=4096)
    'collapsed: 11.8 bits a token, within 2 % of log2 of 4096 tokens (12)'
    """
    if vocab_size < 2 or not unigram_bits_per_token > 0.0:
        raise ValueError(
            f"vocabulary of {vocab_size}, unigram model at {unigram_bits_per_token} bits a token"
        )
    if not math.isfinite(bits_per_token):
        return f"collapsed: {bits_per_token} bits a token"
    said = f"collapsed: {bits_per_token:.4g} bits a token"
    if bits_per_token > unigram_bits_per_token:
        return f"{said}, worse than the unigram model ({unigram_bits_per_token:.4g})"
    if bits_per_token >= (1.0 - NEAR_UNIFORM) * math.log2(vocab_size):
        return f"{said}, within 2 % of log2 of {vocab_size} tokens ({math.log2(vocab_size):.4g})"
    return None


def analyse_disparity(
    aligned: Aligned,
    variants: Mapping[str, FloatArray],
    *,
    margin: float,
    drawn: Resampled,
    alpha: float = 0.05,
    unusable: Mapping[str, Mapping[str, str]] | None = None,
    family: str = "disparity",
    rng: np.random.Generator | None = None,
) -> list[TestRow]:
    """All rows on what each variant costs each language, and low- more than high-resource ones.

    Parameters
    ----------
    aligned : Aligned
    variants : mapping of str to (L, S) float array
        Name (`int4`) -> total bits of each sentence; one multiplicity family. Put nulls (bf16) and controls
        into a call of their own with another `family` and the same `drawn`.
    margin : float
        Smallest gap of interest, bits per aligned sentence.
    drawn : Resampled
        From `resample_documents(aligned.documents)`; the same one for everything of a corpus.
    unusable : mapping, optional
        Variant -> language -> reason (collapsed, for instance). Such a variant is INVALID.
    rng : numpy Generator, optional
        Needed beyond 10 v 10 languages, and for the slope from 9 languages on.

    Returns
    -------
    list of TestRow
        Of each variant V; the metric is a measure (`measures`). `change` (contrast `V:code`): mean change
        with a bootstrap interval. `gap` (contrast `V`): label permutation, role `decides` with verdict for
        PRIMARY, `secondary` for other measures; `gap_tost`. `gap_fixed_languages`, `ratio_of_means`,
        `geometric_mean_ratio`, `spread` (SD over languages; sampling of sentences adds to it) and
        `worst_language` (contrast `V:code`; chosen as the largest, so its interval lies high; statistic:
        share of resamples in which it is the worst): bootstrap, PRIMARY. `slope_on_log_share` (bits per
        sentence per e-fold of share): permutation of shares.

    Examples
    --------
    >>> from stats.aligned_bootstrap import resample_documents
    >>> rng = np.random.default_rng(0)
    >>> documents = tuple(str(i // 4) for i in range(80))
    >>> before = rng.gamma(9.0, 10.0, size=(10, 80))
    >>> aligned = Aligned(languages=tuple("abcdefghij"), is_low=(True,) * 5 + (False,) * 5,
    ...                   documents=documents, bits=before)
    >>> cost = np.repeat([3.0, 1.0], 5) + rng.normal(0.0, 0.3, 10)
    >>> drawn = resample_documents(documents, rng=rng)
    >>> rows = analyse_disparity(aligned, {"int4": before + cost[:, None] + rng.normal(size=(10, 80)),
    ...                                    "fp32": before}, margin=0.5, drawn=drawn)
    >>> for name in ("int4", "fp32"):
    ...     row = find(rows, "gap", name)
    ...     print(row.verdict, round(row.estimate, 2), round(row.low, 2), round(row.high, 2), round(row.p, 4))
    DETECTED 2.3 1.8 2.7 0.0079
    EQUIVALENT 0.0 0.0 0.0 1.0
    >>> find(rows, "ratio_of_means", "fp32").reason
    'undefined: the interval of the denominator, 0 to 0, is not above zero'
    """
    denominators = _denominators(aligned, drawn)
    labels = label_permutations(aligned.is_low, rng=rng)
    slopes = None
    if aligned.shares is not None and len(set(aligned.shares)) > 1 and len(aligned.shares) > 2:
        slopes = slope_permutations(np.log(aligned.shares), rng=rng)
    rows: list[TestRow] = []
    for name, bits in variants.items():
        if np.shape(bits) != aligned.bits.shape:
            raise ValueError(f"{name}: {np.shape(bits)} losses for a baseline of {aligned.bits.shape}")
        broken = aligned.unusable(bits) | dict((unusable or {}).get(name, {}))
        bare = TestRow(
            family=family,
            hypothesis="gap",
            metric=PRIMARY,
            contrast=name,
            method="permutation of labels over languages",
            role="decides",
            alpha=alpha,
            margin=margin,
            n=len(aligned.languages),
            reason="undefined",
        )
        changes = _changes(aligned, bits, denominators, drawn, broken)
        rows += _change_rows(aligned, changes, broken, bare, drawn)
        if broken:
            rows += _invalid_rows(bare, broken, slopes is not None)
            continue
        rows += _gap_rows(aligned, changes, bare, labels)
        rows += _fixed_language_rows(aligned, changes[PRIMARY], bare, drawn)
        if slopes is not None:
            rows += _slope_rows(changes[PRIMARY][0], bare, slopes)
    return concluded(rows, alpha=alpha)


def find(rows: Sequence[TestRow], hypothesis: str, contrast: str, metric: str = PRIMARY) -> TestRow:
    """The one row of a question; `contrast` is `V` or `V:code`.

    Raises
    ------
    ValueError
        No such row, or several.
    """
    found = [r for r in rows if (r.hypothesis, r.contrast, r.metric) == (hypothesis, contrast, metric)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} rows of {hypothesis} / {contrast} / {metric}; there are hypotheses "
            f"{sorted({row.hypothesis for row in rows})}, contrasts {sorted({row.contrast for row in rows})}"
        )
    return found[0]


def measures(aligned: Aligned) -> tuple[str, ...]:
    """Names of the measures that these data allow, PRIMARY first; all are changes from the baseline.

    `relative` is total change over total bits of the baseline; `premium_bits_per_byte` is bits per byte times
    the byte premium; the others are total change over total bytes, characters, tokens (nats).
    """
    there = {
        PRIMARY: True,
        "relative": True,
        "bits_per_byte": aligned.n_bytes is not None,
        "premium_bits_per_byte": aligned.n_bytes is not None and aligned.premiums is not None,
        "bits_per_character": aligned.characters is not None,
        "nats_per_token": aligned.tokens is not None,
    }
    return tuple(name for name, present in there.items() if present)


def _denominators(aligned: Aligned, drawn: Resampled) -> dict[str, FloatArray]:
    """Measure -> (1 + R, L) what the total change is divided by."""
    count = drawn.totals(np.ones(len(aligned.documents)))[:, None]
    found = {PRIMARY: count, "relative": drawn.totals(np.where(np.isfinite(aligned.bits), aligned.bits, 1.0))}
    if aligned.n_bytes is not None:
        found["bits_per_byte"] = drawn.totals(aligned.n_bytes)
        if aligned.premiums is not None:
            found["premium_bits_per_byte"] = found["bits_per_byte"] / np.array(aligned.premiums)
    if aligned.characters is not None:
        found["bits_per_character"] = drawn.totals(aligned.characters)
    if aligned.tokens is not None:
        tokens = np.where(np.isfinite(aligned.bits), aligned.tokens, 1.0)
        found["nats_per_token"] = drawn.totals(tokens) / math.log(2.0)
    return found


def _changes(
    aligned: Aligned,
    bits: FloatArray,
    denominators: Mapping[str, FloatArray],
    drawn: Resampled,
    broken: Mapping[str, str],
) -> dict[str, FloatArray]:
    """Measure -> (1 + R, L) change of each language; 0 for an unusable one, which is never reported."""
    usable = np.array([code not in broken for code in aligned.languages])
    with np.errstate(invalid="ignore"):
        delta = np.where(usable[:, None], bits - aligned.bits, 0.0)
    total = drawn.totals(delta)
    return {name: total / denominators[name] for name in measures(aligned)}


def _change_rows(
    aligned: Aligned,
    changes: Mapping[str, FloatArray],
    broken: Mapping[str, str],
    bare: TestRow,
    drawn: Resampled,
) -> list[TestRow]:
    rows = []
    for measure, values in changes.items():
        found = intervals(values, drawn, bare.alpha or 0.05)
        for code, interval in zip(aligned.languages, found, strict=True):
            contrast = f"{bare.contrast}:{code}"
            row = replace(
                bare, hypothesis="change", metric=measure, contrast=contrast, role="secondary", margin=None
            )
            why = broken.get(code)
            rows.append(interval_row(row, interval) if why is None else replace(row, reason=why))
    return rows


def _invalid_rows(bare: TestRow, broken: Mapping[str, str], sloped: bool) -> list[TestRow]:
    """Every question about this variant, unanswered for the same reason."""
    reason = "; ".join(
        why if why.startswith(f"{code}: ") else f"{code}: {why}" for code, why in broken.items()
    )
    secondary = ["gap_fixed_languages", "mean_change", "ratio_of_means", "geometric_mean_ratio"]
    secondary += ["worst_language", "spread"]
    secondary += ["slope_on_log_share"] if sloped else []
    return [
        replace(bare, reason=reason),
        replace(bare, hypothesis="gap_tost", role="equivalence", reason=reason),
        *(replace(bare, hypothesis=h, role="secondary", margin=None, reason=reason) for h in secondary),
    ]


def _gap_rows(
    aligned: Aligned, changes: Mapping[str, FloatArray], bare: TestRow, labels: Arrangements
) -> list[TestRow]:
    alpha, margin = bare.alpha or 0.05, bare.margin
    primary, tost = shift_rows(shift_test(changes[PRIMARY][0], labels), bare, margin=margin, alpha=alpha)
    rows = [sized(primary, changes[PRIMARY][0], aligned.is_low), tost]
    for measure in changes:
        if measure != PRIMARY:
            other = replace(bare, metric=measure, role="secondary")
            rows += shift_rows(shift_test(changes[measure][0], labels), other, margin=None, alpha=alpha)
    return rows


def _fixed_language_rows(
    aligned: Aligned, values: FloatArray, bare: TestRow, drawn: Resampled
) -> list[TestRow]:
    """Bootstrap rows of the primary measure: gap, ratios, spread, worst language."""
    alpha, low = bare.alpha or 0.05, np.array(aligned.is_low)
    mean_low, mean_high = values[:, low].mean(axis=1), values[:, ~low].mean(axis=1)
    spread = np.std(values, axis=1, ddof=1)
    shown = np.column_stack([mean_low - mean_high, spread, values.mean(axis=1)])
    gap, sd, mean = intervals(shown, drawn, alpha)
    found = {
        "gap_fixed_languages": gap,
        "mean_change": mean,
        "ratio_of_means": ratio_interval(mean_low, mean_high, drawn, alpha),
        "geometric_mean_ratio": _geometric_ratio(aligned, values, drawn, alpha),
        "spread": sd,
    }
    secondary = replace(bare, role="secondary", margin=None)
    rows = [interval_row(replace(secondary, hypothesis=name), one) for name, one in found.items()]
    worst = int(values[0].argmax())
    code = aligned.languages[worst]
    draws = values[1:]
    row = replace(
        secondary,
        hypothesis="worst_language",
        contrast=f"{bare.contrast}:{code}",
        statistic=float((draws.argmax(axis=1) == worst).mean()),
    )
    return [*rows, interval_row(row, intervals(values[:, [worst]], drawn, alpha)[0])]


def _geometric_ratio(aligned: Aligned, values: FloatArray, drawn: Resampled, alpha: float) -> Interval:
    """exp(mean ln change of the low - mean ln change of the high); every change must be above zero."""
    found = intervals(values, drawn, alpha)
    touching = [
        code
        for code, one in zip(aligned.languages, found, strict=True)
        if one.low is None or one.low <= 0.0 or (values[:, aligned.languages.index(code)] <= 0.0).any()
    ]
    if touching:
        why = found[0].reason or f"undefined: the change is not surely above zero in {', '.join(touching)}"
        return replace(found[0], estimate=None, low=None, high=None, reason=why)
    low, logs = np.array(aligned.is_low), np.log(values)
    ratio = np.exp(logs[:, low].mean(axis=1) - logs[:, ~low].mean(axis=1))
    return intervals(ratio[:, None], drawn, alpha)[0]


def _slope_rows(values: FloatArray, bare: TestRow, slopes: Arrangements) -> list[TestRow]:
    row = replace(bare, hypothesis="slope_on_log_share", role="secondary")
    return shift_rows(shift_test(values, slopes), row, margin=None, alpha=bare.alpha or 0.05)
