"""Can a regime be told from the same steps without it, and does the self-state add to the common channels?

A discriminant is trained on a regime's other windows, against their twins, and judged on the window left out.
Since a twin covers the same steps, the step number alone says nothing (`step`); against the clean steps
before, it says all (`step_before`).

What makes a regime DETECTED is in `stats.signatures`. A state that only smooths the common channels' past
adds to the common channels of a step, for a mean of steps is less noisy than one. `beyond_smoothed` shows
what it adds beside running means of the common channels, and decides nothing; its interval has to lie above 0
for that, a small p alone says that a wrong state would mislead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stats.held_out_windows import Null, combined, held_out_aucs, labellings
from stats.multiplicity import holm
from stats.paired_seeds import detectable, paired_t, seeds_to_settle
from stats.regime_classes import class_rows
from stats.regime_deltas import check_series, regimes_of
from stats.regime_series import COMMON, STATE, RunSeries
from stats.rows import FloatArray, TestRow
from stats.signatures import combined_row, signature_rows
from stats.window_features import SMOOTHED, SeedWindows, seed_windows, with_smoothed

FAMILY = "separability"
SETS: Mapping[str, tuple[str, ...]] = {"common": COMMON, "state": STATE, "common_state": (*COMMON, *STATE)}
TRAINED: Mapping[str, tuple[str, ...]] = {**SETS, "common_smoothed": (*COMMON, *SMOOTHED)}
"""With what the common channels show together with their recent past."""
CLOCKS = ("step", "step_before")
DECIDING = ("beyond_common", "beyond_step")
DIFFERENCES = (*DECIDING, "state_alone", "beyond_smoothed")
"""Of AUCs: not cut at 0 and 1."""
ASKED = (*TRAINED, *CLOCKS, *DIFFERENCES)
METHOD = "held-out windows, linear discriminant"

Tables = Mapping[str, list[FloatArray]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegimeTables:
    """What is known of one regime before any row is made."""

    regime: str
    tables: Tables
    """Name -> of each seed the (B,) statistics under its labellings, the observed one first."""
    why: Mapping[str, str]
    """Name -> why it has no tables."""
    windows: str
    """Windows of a seed, in words."""
    least: float
    """Smallest p that exchanging windows can reach: a labelling and its mirror give the same AUC."""
    few: bool
    """No seed has two windows of it, usable or not."""
    dropped: tuple[str, ...]
    """Channels that are no feature in some seed, each with the reason."""


def separability_rows(
    series: Sequence[RunSeries],
    *,
    rng: np.random.Generator,
    alpha: float,
    margin: float,
    permutations: int = 200,
    reference: int = 20,
) -> list[TestRow]:
    """Rows of family `separability`, one verdict a regime and one for all.

    Parameters
    ----------
    series : sequence of RunSeries
        One a seed, with the twins of its windows.
    alpha : float
        Level of the intervals, of the family of regimes and of each equivalence test.
    margin : float
        AUC that the state adds at most where it counts as adding nothing.
    permutations : int
        Labellings of a seed with more than 6 windows of a regime, and of all windows for the accuracy; up to
        6 windows all are used.
    reference : int
        Clean steps right before a window that it is normalised by, at most.

    Returns
    -------
    list of TestRow
        Of each regime, metric `auc`: `common`, `state`, `common_state`, `common_smoothed`, `step`,
        `step_before` (diagnostic; t interval over seeds cut at 0 and 1, p one-sided against labels of whole
        windows exchanged), `shuffled` (mean, 2.5 % and 97.5 % of the null of common_state), `beyond_common`,
        `beyond_step` (decides; Holm over regimes, an undefined one counted as p = 1), `state_alone` and
        `beyond_smoothed` (diagnostic), `signature` (verdict). Then `signatures` (verdict of all) and
        `accuracy` and `confusion` of `stats.regime_classes`. Seeds with one usable window of a regime are
        left out of it, `n` counts the others. A row without a number says why.

    Raises
    ------
    ValueError
        No series, a seed twice, alpha, margin, permutations or reference out of range.

    Notes
    -----
    S seeds of K windows reach p = 2^(-(K - 1) S) at the least: 2 x 2 never less than .25.

    References
    ----------
    Berger (1982), Technometrics 24, 295; Ojala & Garriga (2010), J. Mach. Learn. Res. 11, 1833, on labels
    permuted in training and test alike. Witness: R (`tests/reference/separability.R`); error rates and power:
    `tests/separability_campaign.py`.

    Examples
    --------
    >>> rows = separability_rows([RunSeries(seed=0, channels={}, occurrences=())],
    ...                          rng=np.random.default_rng(0), alpha=0.05, margin=0.05)
    >>> rows[0].hypothesis, rows[0].verdict, rows[0].reason
    ('signatures', 'INVALID', 'no regime occurs in any seed')
    """
    check_series(series)
    if not (0.0 < alpha < 0.5 and margin > 0.0 and permutations >= 1):
        raise ValueError(
            f"alpha {alpha}, margin {margin}, {permutations} permutations; allowed: alpha between 0 and .5, "
            "margin above 0, 1 permutation or more"
        )
    channels = (*COMMON, *STATE, *SMOOTHED)
    windows = [seed_windows(with_smoothed(run), reference=reference, channels=channels) for run in series]
    rows: list[TestRow] = []
    found = []
    for regime in regimes_of(series):
        one = regime_tables(series, windows, regime, rng=rng, permutations=permutations)
        found.append(one)
        rows += regime_rows(one, rng=rng, alpha=alpha, margin=margin, tests=len(regimes_of(series)))
    rows = _holm_over_regimes(rows)
    few, least = {one.regime for one in found if one.few}, {one.regime: one.least for one in found}
    rows += signature_rows(rows, few, alpha=alpha, margin=margin, least=least)
    rows.append(combined_row(rows, alpha=alpha, margin=margin))
    return rows + class_rows(windows, SETS, rng=rng, alpha=alpha, permutations=permutations)


def regime_tables(
    series: Sequence[RunSeries],
    windows: Sequence[SeedWindows],
    regime: str,
    *,
    rng: np.random.Generator,
    permutations: int,
) -> RegimeTables:
    """Statistics of one regime under every labelling, seed by seed."""
    usable = [of_seed for of_seed in windows if len(of_seed.of(regime)) >= 2]
    most = max(sum(one.regime == regime for one in run.occurrences) for run in series)
    counts = sorted({len(of_seed.of(regime)) for of_seed in usable}) or [0]
    known = RegimeTables(
        regime=regime,
        tables={},
        why={},
        windows=" to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))),
        least=float(np.prod([2.0 ** (1 - len(of_seed.of(regime))) for of_seed in usable])),
        few=most < 2,
        dropped=tuple(sorted({text for of_seed in usable for text in of_seed.dropped})),
    )
    if not usable:
        causes = sorted({why for of_seed in windows for name, why in of_seed.unusable if name == regime})
        channels = sorted({why for of_seed in windows if not of_seed.channels for why in of_seed.dropped})
        text = f"{most} window of it; one is held out, so two are needed" if most < 2 else ""
        text = text or "; ".join([*causes, *channels]) or "fewer than two usable windows in every seed"
        return replace(known, why=dict.fromkeys(ASKED, text))
    why = _undefined(usable)
    tables: dict[str, list[FloatArray]] = {name: [] for name in ASKED if name not in why}
    for of_seed in usable:
        for name, table in _seed_tables(of_seed, regime, why, rng=rng, permutations=permutations).items():
            tables[name].append(table)
    return replace(known, tables=tables, why=why)


def _undefined(usable: Sequence[SeedWindows]) -> dict[str, str]:
    """Hypothesis -> why some seed cannot answer it."""
    lacking: dict[str, str] = {}
    for name in ("common", "state"):
        bad = [of_seed for of_seed in usable if not of_seed.columns(SETS[name])]
        if bad:
            words = sorted({w for of_seed in bad for w in of_seed.dropped if w.split()[0] in SETS[name]})
            lacking[name] = f"no {name} channel in {len(bad)} of {len(usable)} seeds: {', '.join(words)}"
    any_of = "; ".join(lacking.values())
    why = dict(lacking)
    if lacking:
        why |= dict.fromkeys(("common_state", "beyond_common", "beyond_step", "beyond_smoothed"), any_of)
    if "common" in lacking:
        why["common_smoothed"] = lacking["common"]
    if "state" in lacking:
        why["state_alone"] = lacking["state"]
    return why


def _seed_tables(
    of_seed: SeedWindows,
    regime: str,
    why: Mapping[str, str],
    *,
    rng: np.random.Generator,
    permutations: int,
) -> dict[str, FloatArray]:
    """Every statistic of one seed and regime, (B,) each, on the same labellings."""
    pairs = of_seed.of(regime)
    exchanged = labellings(len(pairs), rng=rng, permutations=permutations)
    aucs: Callable[..., FloatArray] = partial(held_out_aucs, exchanged=exchanged)
    found: dict[str, FloatArray] = {}
    for name, channels in TRAINED.items():
        if name not in why:
            at = of_seed.columns(channels)
            found[name] = aucs([pair.window[:, at] for pair in pairs], [pair.twin[:, at] for pair in pairs])
    steps = [pair.steps[:, None] for pair in pairs]
    found["step"] = aucs(steps, steps)
    scaled = [(pair.before.mean(), pair.before.std(ddof=1)) for pair in pairs]
    found["step_before"] = aucs(
        [(pair.steps[:, None] - m) / sd for pair, (m, sd) in zip(pairs, scaled, strict=True)],
        [(pair.before[:, None] - m) / sd for pair, (m, sd) in zip(pairs, scaled, strict=True)],
    )
    if "state_alone" not in why:
        found["state_alone"] = found["state"] - 0.5
    if "beyond_common" not in why:
        found["beyond_step"] = found["common_state"] - found["step"]
        for name, base in (("beyond_common", "common"), ("beyond_smoothed", "common_smoothed")):
            at = of_seed.columns((*TRAINED[base], *STATE))
            moved = np.isin([of_seed.channels[place] for place in at], STATE)
            window, twin = [pair.window[:, at] for pair in pairs], [pair.twin[:, at] for pair in pairs]
            found[name] = aucs(window, twin, moved=moved) - found[base][0]
    return found


def regime_rows(
    one: RegimeTables, *, rng: np.random.Generator, alpha: float, margin: float, tests: int
) -> list[TestRow]:
    """Rows of one regime but for what needs the others; `tests` regimes are corrected together."""
    rows = []
    for name in ASKED:
        bare = TestRow(
            family=FAMILY,
            hypothesis=name,
            metric="auc",
            contrast=one.regime,
            method=METHOD + _without(one, name),
            role="decides" if name in DECIDING else "diagnostic",
            alpha=alpha,
            margin=margin if name in DECIDING else None,
            reason=one.why.get(name, "undefined"),
        )
        shuffled = replace(bare, hypothesis="shuffled", method="common_state, windows exchanged with twins")
        if name in one.why:
            rows += [bare, shuffled] if name == "common_state" else [bare]
            continue
        null = combined(one.tables[name], rng=rng)
        row = _filled(bare, one, null)
        rows.append(_planned(row, one, tests) if name in DECIDING else row)
        if name == "common_state":
            low, high = null.quantiles(0.05)
            rows.append(
                replace(shuffled, estimate=null.centre, low=low, high=high, n=row.n, alpha=0.05, reason=None)
            )
    return rows


def _without(one: RegimeTables, name: str) -> str:
    """Channels that a hypothesis would have used, in words."""
    past = SMOOTHED if name == "beyond_smoothed" else ()
    wanted = STATE if name == "state_alone" else TRAINED.get(name, (*COMMON, *STATE, *past))
    words = [text for text in one.dropped if text.split()[0] in wanted and name not in CLOCKS]
    return f"; without {', '.join(words)}" if words else ""


def _filled(bare: TestRow, one: RegimeTables, null: Null) -> TestRow:
    """Mean over seeds, its t interval and the p of exchanged windows."""
    values = np.array([table[0] for table in one.tables[bare.hypothesis]])
    t = paired_t(values, np.zeros(len(values)), alpha=bare.alpha or 0.05)
    differs = bare.hypothesis in DIFFERENCES
    moved = f"{'states' if bare.hypothesis in ('beyond_common', 'beyond_smoothed') else 'windows'} exchanged"
    alike = f"{'difference' if differs else 'AUC'} {values[0]:.3g} in all {len(values)} seeds: no t interval"
    drawn = f"{'all' if null.exact else len(null.values)} labellings, {moved}"
    return replace(
        bare,
        method=f"{bare.method}; t over seeds of means over {one.windows} windows; p: {drawn}",
        estimate=null.observed,
        low=t.low if t.low is None or differs else max(0.0, t.low),
        high=t.high if t.high is None or differs else min(1.0, t.high),
        p=null.p,
        n=len(values),
        reason=alike if t.reason is not None and len(values) > 1 else t.reason,
    )


def _planned(row: TestRow, one: RegimeTables, tests: int) -> TestRow:
    """With what these seeds would find, and how many a t test after Holm would take at the margin."""
    sd = (
        float(np.std([table[0] for table in one.tables[row.hypothesis]], ddof=1)) if (row.n or 0) > 1 else 0.0
    )
    if row.low is None or row.margin is None or row.alpha is None or row.n is None or not sd > 0.0:
        return row
    return replace(
        row,
        mde=detectable(sd, row.n, alpha=row.alpha),
        n_to_settle=seeds_to_settle(sd, margin=row.margin, alpha=row.alpha, tests=tests),
    )


def _holm_over_regimes(rows: Sequence[TestRow]) -> list[TestRow]:
    """Holm within each deciding hypothesis; an undefined row keeps its place, so the family never shrinks."""
    adjusted: dict[tuple[str, str], float] = {}
    for name in DECIDING:
        of = [row for row in rows if row.hypothesis == name]
        found = holm([1.0 if row.p is None else row.p for row in of])
        adjusted |= {(name, row.contrast): p for row, p in zip(of, found, strict=True)}
    return [
        replace(row, p_adjusted=adjusted[row.hypothesis, row.contrast])
        if row.role == "decides" and row.p is not None
        else row
        for row in rows
    ]
