"""What a ladder of models says together: which rungs count after correction, how the effect goes with size.

A rung is decided by `stats.seed_effect` at the look where it stopped. Here its p becomes one over all looks,
Benjamini-Hochberg runs over the rungs, and the effects of the rungs are pooled, regressed on log10 parameters
and compared. Pooling takes the rungs' errors for independent. They are under the null; where one prompt moves
alike in every model, errors correlate and the pooled interval is too short, which tau^2 cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import scipy
from scipy import special

from stats.layout import Undefined
from stats.meta_analysis import MetaResult, meta_regression, random_effects
from stats.multiplicity import correct_rows
from stats.rows import TestRow
from stats.sequential import hwang_shih_decani, nominal_levels


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One model of the ladder, with the rows of the look at which it stopped."""

    model: str
    parameters: int
    line: str = ""
    """Models of one line share it: slopes run within a line."""
    rows: Sequence[TestRow] = ()
    """Rows of `analyse_seed_effect`, its verdict among them."""
    look: int = 1
    looks: tuple[int, ...] = (1,)
    skipped: str | None = None
    """Why this machine did not measure it; then `rows` is empty."""
    tapes: frozenset[str] = frozenset()
    """Names of the tapes its seeds came from."""

    def __post_init__(self) -> None:
        if self.parameters < 1:
            raise ValueError(f"{self.model} has {self.parameters} parameters; a rung has at least 1")
        if self.look not in self.looks:
            raise ValueError(f"look {self.look} of {self.model} is not among its looks {self.looks}")
        if bool(self.rows) == bool(self.skipped):
            raise ValueError(f"{self.model} has {len(self.rows)} rows, skipped: {self.skipped}; give one")
        if self.rows and sum(row.role == "verdict" for row in self.rows) != 1:
            raise ValueError(f"the rows of {self.model} must hold one verdict; pass one family at one look")

    @property
    def answer(self) -> TestRow | None:
        """Its verdict row."""
        return next((row for row in self.rows if row.role == "verdict"), None)

    @property
    def verdict(self) -> str | None:
        """One of the four, None when skipped."""
        return self.answer.verdict if self.answer else None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Difference of two sources in one model, in within-cell SD."""

    model: str
    parameters: int
    estimate: float
    se: float
    df: float


def p_over_looks(
    p: float, look: int, looks: tuple[int, ...], *, alpha: float = 0.05, gamma: float = -4.0, groups: int = 3
) -> float:
    """p of the whole sequential test from the nominal p of the look at which it stopped.

    Stagewise ordering: the error spent before this look, plus the chance to get past the earlier looks and to
    reach this p. At a look's own level it is the error spent by then; at the last look's, alpha. A look
    that does not reject keeps at least alpha: stopping early for equivalence earns nothing.

    References
    ----------
    Armitage (1957), Biometrika 44, 9; Jennison & Turnbull (2000), section 8.4.

    Examples
    --------
    >>> round(p_over_looks(0.0010, 10, (10, 20, 40)), 6), round(p_over_looks(0.0010, 20, (10, 20, 40)), 6)
    (0.001, 0.002436)
    >>> p_over_looks(0.3, 20, (10, 20, 40)), p_over_looks(0.03, 20, (20,))
    (0.3, 0.03)
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p = {p}; must lie in [0, 1]")
    if look not in looks:
        raise ValueError(f"look {look} is not among {looks}")
    place = looks.index(look)
    fractions = tuple(k / looks[-1] for k in looks[: place + 1])
    spent = tuple(hwang_shih_decani(t, alpha=alpha, gamma=gamma) for t in fractions)
    if p >= nominal_levels(spent, fractions, groups - 1)[-1]:
        return max(p, spent[-1] if look == looks[-1] else alpha)
    before = spent[place - 1] if place else 0.0
    if place == 0 or p < 1e-9:
        return min(1.0, before + p)

    def excess(extra: float) -> float:
        return nominal_levels((*spent[:-1], before + extra), fractions, groups - 1)[-1] - p

    extra: float = scipy.optimize.brentq(excess, 1e-3 * p, spent[-1] - before, xtol=1e-12, rtol=1e-9)
    return before + extra


def effects_of(rungs: Iterable[Rung], metric: str, contrast: str) -> list[Effect]:
    """The rungs' estimates of one contrast, smallest model first; a rung without one is left out.

    The standard error comes from the row's t, or, where that is zero, from its equivalence test.

    Examples
    --------
    >>> row = TestRow(family="seed_effect", hypothesis="pairwise", metric="mtld", contrast="a-b", method="t",
    ...               role="decides", estimate=3.0, effect=0.3, statistic=2.0, df2=58.0, p=0.05)
    >>> end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict",
    ...               verdict="INCONCLUSIVE")
    >>> (effect,) = effects_of([Rung(model="m", parameters=10, rows=[row, end])], "mtld", "a-b")
    >>> effect.estimate, effect.se, effect.df
    (0.3, 0.15, 58.0)
    """
    found = []
    for rung in sorted(rungs, key=lambda rung: rung.parameters):
        of = {r.hypothesis: r for r in rung.rows if r.metric == metric and r.contrast == contrast}
        pair, inside = of.get("pairwise"), of.get("tost")
        if rung.verdict == "INVALID" or pair is None or pair.effect is None or pair.df2 is None:
            continue
        if pair.statistic is not None and abs(pair.statistic) > 1e-6:
            se = pair.effect / pair.statistic
        elif inside is not None and inside.statistic and inside.margin is not None:
            se = (inside.margin - abs(pair.effect)) / inside.statistic
        else:
            continue
        effect = Effect(
            model=rung.model, parameters=rung.parameters, estimate=pair.effect, se=se, df=pair.df2
        )
        found.append(effect)
    return found


def rung_rows(rungs: Sequence[Rung], *, alpha: float = 0.05, gamma: float = -4.0) -> list[TestRow]:
    """Every rung after Benjamini-Hochberg over the rungs, smallest model first.

    DETECTED stays only where the rung's own verdict is DETECTED and its corrected p over all looks lies under
    alpha; it is INCONCLUSIVE otherwise, with the reason. An INVALID or skipped rung leaves the family, keeps
    its row and its reason, and is counted in the others' `method`.

    Examples
    --------
    >>> def rung(model, size, verdict, p):
    ...     end = TestRow(family="seed_effect", hypothesis="verdict", method="v", role="verdict", p=p,
    ...                   verdict=verdict)
    ...     return Rung(model=model, parameters=size, rows=[end])
    >>> rows = rung_rows([rung("small", 1, "DETECTED", 0.001), rung("large", 9, "DETECTED", 0.045),
    ...                   rung("middle", 3, "EQUIVALENT", 0.5)])
    >>> [(row.contrast, round(row.p_adjusted, 4), row.verdict) for row in rows]
    [('small', 0.003, 'DETECTED'), ('middle', 0.5, 'EQUIVALENT'), ('large', 0.0675, 'INCONCLUSIVE')]
    """
    _check_rungs(rungs)
    ordered = sorted(rungs, key=lambda rung: rung.parameters)
    family = correct_rows([_rung_row(rung, alpha, gamma) for rung in ordered], "benjamini-hochberg")
    out = []
    for row in family.rows:
        after = replace(row, method=f"{row.method}; {family.note}")
        if row.verdict == "DETECTED" and row.p_adjusted is not None and row.p_adjusted >= alpha:
            why = f"DETECTED on its own, not after correction over {family.tested} rungs"
            after = replace(after, verdict="INCONCLUSIVE", reason=why)
        out.append(after)
    return out


def _check_rungs(rungs: Sequence[Rung]) -> None:
    names = [rung.model for rung in rungs]
    if not names:
        raise ValueError("no rungs; a ladder has at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"{names} names a model twice; give each rung once, at its last look")


def _rung_row(rung: Rung, alpha: float, gamma: float) -> TestRow:
    row = TestRow(
        family="ladder",
        hypothesis="rung",
        contrast=rung.model,
        method="p over all looks, Benjamini-Hochberg over rungs",
        role="decides",
        alpha=alpha,
        verdict=rung.verdict,
        reason=rung.skipped or "undefined",
    )
    answer = rung.answer
    if answer is None:
        return row
    if answer.verdict == "INVALID" or answer.p is None:
        return replace(row, verdict="INVALID", n=answer.n, reason=answer.reason or "it has no p value")
    sources = next((row.df1 for row in rung.rows if row.hypothesis == "omnibus" and row.df1), 2.0)
    p = p_over_looks(answer.p, rung.look, rung.looks, alpha=alpha, gamma=gamma, groups=int(sources) + 1)
    return replace(
        row,
        estimate=answer.effect,
        low=answer.low,
        high=answer.high,
        effect=answer.effect,
        p=p,
        margin=answer.margin,
        n=answer.n,
        n_to_settle=answer.n_to_settle,
        negligible=answer.negligible,
        reason=None,
    )


def pooled_rows(
    rungs: Sequence[Rung], contrasts: Sequence[tuple[str, str]], *, alpha: float = 0.05
) -> list[TestRow]:
    """Random-effects mean over the rungs of each (metric, contrast), Holm over them; family `meta_analysis`.

    First the `secondary` rows, with Knapp and Hartung's interval, then the `diagnostic` ones with the
    safeguard. `statistic` is t; tau and I^2 are named in `method`. Undefined ones keep a row with the reason.

    Examples
    --------
    >>> pooled_rows([Rung(model="m", parameters=10, skipped="no server")], [("mtld", "a-b")])[0].reason
    '0 estimates; a mean needs two'
    """

    def pool(effects: Sequence[Effect], safeguard: bool) -> MetaResult:
        estimates, ses = [e.estimate for e in effects], [e.se for e in effects]
        return random_effects(estimates, ses, alpha=alpha, safeguard=safeguard)

    return _meta_rows("meta_analysis", "mean_over_models", rungs, contrasts, pool, alpha)


def slope_rows(
    rungs: Sequence[Rung], contrasts: Sequence[tuple[str, str]], *, line: str, alpha: float = 0.05
) -> list[TestRow]:
    """Slope of each contrast on log10 parameters over the rungs of one line; family `scale_slope`.

    Rows as `pooled_rows`; a slope is in within-cell SD per factor 10 of parameters.

    Examples
    --------
    >>> rungs = [Rung(model="m", parameters=10, skipped="no server")]
    >>> slope_rows(rungs, [("mtld", "a-b")], line="")[0].reason
    '0 estimates; a slope needs three'
    """

    def regress(effects: Sequence[Effect], safeguard: bool) -> MetaResult:
        x = [math.log10(e.parameters) for e in effects]
        estimates, ses = [e.estimate for e in effects], [e.se for e in effects]
        return meta_regression(x, estimates, ses, alpha=alpha, safeguard=safeguard)

    chosen = [rung for rung in rungs if rung.line == line]
    hypothesis = f"slope_on_log10_parameters {line}".strip()
    return _meta_rows("scale_slope", hypothesis, chosen, contrasts, regress, alpha)


def _meta_rows(
    family: str,
    hypothesis: str,
    rungs: Sequence[Rung],
    contrasts: Sequence[tuple[str, str]],
    combine: Callable[[Sequence[Effect], bool], MetaResult],
    alpha: float,
) -> list[TestRow]:
    plain: list[TestRow] = []
    guarded: list[TestRow] = []
    for metric, contrast in contrasts:
        effects = effects_of(rungs, metric, contrast)
        for rows, safeguard in ((plain, False), (guarded, True)):
            row = TestRow(
                family=family,
                hypothesis=hypothesis,
                metric=metric,
                contrast=contrast,
                method="REML, Knapp-Hartung",
                role="diagnostic" if safeguard else "secondary",
                alpha=alpha,
                n=len(effects),
                reason="undefined",
            )
            try:
                rows.append(_with_meta(row, combine(effects, safeguard)))
            except Undefined as missing:
                rows.append(replace(row, reason=str(missing)))
    return [*correct_rows(plain).rows, *guarded]


def _with_meta(row: TestRow, found: MetaResult) -> TestRow:
    return replace(
        row,
        method=f"{found.method}; tau = {math.sqrt(found.tau2):.3g}, I2 = {found.i2:.0%}",
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        effect=found.estimate,
        statistic=found.t,
        df1=1.0,
        df2=found.df,
        p=found.p,
        reason=None,
    )


def model_contrast_rows(
    rungs: Sequence[Rung],
    declared: tuple[str, str],
    contrasts: Sequence[tuple[str, str]],
    *,
    alpha: float = 0.05,
) -> list[TestRow]:
    """The source effect in one model minus that in another, by Welch's t; family `model_contrast`, Holm.

    se^2 = se_a^2 + se_b^2 on (se_a^2 + se_b^2)^2 / (se_a^4 / df_a + se_b^4 / df_b) degrees of freedom.
    `contrast` reads `first - second: A-B`.

    Raises
    ------
    ValueError
        When a declared model is not among the rungs.

    Examples
    --------
    >>> rungs = [Rung(model=name, parameters=10, skipped="too large") for name in ("big", "old")]
    >>> row = model_contrast_rows(rungs, ("big", "old"), [("mtld", "a-b")])[0]
    >>> row.contrast, row.reason
    ('big - old: a-b', 'no estimate from big (too large), old (too large)')
    """
    by_name = {rung.model: rung for rung in rungs}
    missing = [name for name in declared if name not in by_name]
    if missing or declared[0] == declared[1]:
        raise ValueError(f"{declared} must be two of the rungs {', '.join(by_name)}")
    rows = []
    for metric, contrast in contrasts:
        row = TestRow(
            family="model_contrast",
            hypothesis="difference_of_effects",
            metric=metric,
            contrast=f"{declared[0]} - {declared[1]}: {contrast}",
            method="Welch t of two rungs' effects, within-cell SD",
            role="secondary",
            alpha=alpha,
            reason="undefined",
        )
        found = {name: effects_of([by_name[name]], metric, contrast) for name in declared}
        lost = [f"{name} ({by_name[name].skipped or 'undefined'})" for name in declared if not found[name]]
        if lost:
            rows.append(replace(row, reason=f"no estimate from {', '.join(lost)}"))
        else:
            rows.append(_welch(row, found[declared[0]][0], found[declared[1]][0], alpha))
    return correct_rows(rows).rows


def _welch(row: TestRow, a: Effect, b: Effect, alpha: float) -> TestRow:
    variance = a.se**2 + b.se**2
    df = variance**2 / (a.se**4 / a.df + b.se**4 / b.df)
    difference, se = a.estimate - b.estimate, math.sqrt(variance)
    reach = -float(special.stdtrit(df, alpha / 2.0)) * se
    return replace(
        row,
        estimate=difference,
        low=difference - reach,
        high=difference + reach,
        effect=difference,
        statistic=difference / se,
        df1=1.0,
        df2=df,
        p=2.0 * float(special.stdtr(df, -abs(difference / se))),
        n=2,
        reason=None,
    )
