"""Does the source matter once it acts on every token? Contrasts between sources, one mode at a time.

A setting is a mode with its dose and law. Within each setting the sources are compared by the primary test of
`stats.seed_effect`; Holm over the settings; that decides. Two settings differ in more than their source, so a
mode against none, a slope on dose, and `temp_modulate` against its own controls say what a mode does and
never answer for the source: their rows are secondary, in families of their own. So are those of token-level
KL, which only modes that change the distribution have.

Where the sources of a setting share the independent stream that picks tokens (common random numbers), sample
k of a prompt is a block over sources. In balanced data the test is one on differences of prompt means, from
which blocks cancel, so it holds its level; the unit stays the SD of single texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from stats.across_models import Rung, effects_of
from stats.layout import Undefined
from stats.metric_tests import FamilyPlan, answer_metric, contrast_rows, label_rows, omnibus_row
from stats.multiplicity import correct_rows
from stats.power import Components, Size, samples_to_settle
from stats.rows import FloatArray, TestRow, by_reason
from stats.seed_effect import Design, analyse_seed_effect
from stats.sequential import look_levels

FAMILY = "injection_effect"
NO_KL = ("select", "gumbel", "seed_only", "none")
"""Modes that leave the next-token distribution as it is."""
KL = "kl_nats"
"""The metric: divergence of the changed from the unchanged distribution, mean over a text's tokens."""
BASELINE = "none"


@dataclass(frozen=True, kw_only=True)
class InjectedText:
    """One text of the injection study that is not excluded."""

    mode: str
    """`select`, `gumbel`, `logit_perturb`, `temp_modulate`, `seed_only` or `none`."""
    source: str
    """Name of the entropy source; empty where the mode has none."""
    prompt: str
    values: Mapping[str, float | None]
    """Metric -> value, None where the text has none."""
    dose: float | None = None
    law: str | None = None
    control: str | None = None
    """`fixed` or `shuffled` for the controls of `temp_modulate`."""
    stream: str = "one"
    kl_nats: float | None = None
    """Mean over the text's tokens; None where the mode leaves the distribution as it is."""

    @property
    def setting(self) -> str:
        """Mode, dose, law and control, joined by colons.

        >>> InjectedText(mode="logit_perturb", source="PRNG", prompt="p", values={}, dose=0.3, law="gaussian"
        ... ).setting
        'logit_perturb:0.3:gaussian'
        """
        dose = None if self.dose is None else f"{self.dose:g}"
        return ":".join(part for part in (self.mode, dose, self.law, self.control) if part is not None)

    @property
    def decides(self) -> bool:
        """Whether its setting enters the verdict: the source acts, and it is no control."""
        return self.mode != BASELINE and self.control is None and self.dose != 0.0


def analyse_injection(texts: Sequence[InjectedText], design: Design) -> list[TestRow]:
    """All rows of the injection study at one look; the last is the verdict of family `injection_effect`.

    Parameters
    ----------
    texts
        Texts of the sources that the plan compares and of the modes without a source. Positive controls and
        A/A arms are left to `stats.injection_assay`.
    design
        Primary and secondary metrics, margin, alpha, looks; `sources` names the sources compared.

    Returns
    -------
    list of TestRow
        `injection_effect SETTING`: rows of `analyse_seed_effect` with the setting's own verdict.
        `dose_response`: `against_none` a setting and metric, `slope_on_dose` a law and metric.
        `temp_modulate_controls`: against `fixed` and `shuffled`. `token_kl`: the omnibus over sources and the
        slope on dose. `injection_effect`: a `source` row a setting with Holm over settings, then the verdict:
        INVALID when a setting's verdict is, DETECTED when one is after Holm, EQUIVALENT when all are, else
        INCONCLUSIVE, with the samples a cell that would settle all settings together in `n_to_settle`.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> texts = [
    ...     InjectedText(mode=mode, source=s, prompt=p, values={"mtld": rng.normal() + (s == "A" and shift)})
    ...     for mode, shift in (("select", 0.0), ("gumbel", 1.5))
    ...     for s in "AB" for p in "12345678" for _ in range(10)
    ... ]
    >>> rows = analyse_injection(texts, Design(primary=("mtld",), looks=(10,), look=10, sources=("A", "B")))
    >>> rows[-1].verdict, rows[-1].contrast
    ('DETECTED', 'gumbel')
    """
    by_setting: dict[str, list[InjectedText]] = {}
    for text in texts:
        if text.decides:
            by_setting.setdefault(text.setting, []).append(text)
    if not by_setting:
        raise ValueError("no text of a mode in which a source acts; there is nothing to compare")
    rows: list[TestRow] = []
    answers: dict[str, TestRow] = {}
    needed: list[int | None] = []
    for setting, found in by_setting.items():
        of_setting = _compare_sources(found, design, f"{FAMILY} {setting}")
        rows += of_setting
        answers[setting] = of_setting[-1]
        needed.append(_samples_needed(of_setting, found, design, len(by_setting)))
    alpha = next(iter(answers.values())).alpha or design.alpha
    rows += _dose_response(texts, by_setting, design, alpha)
    rows += _temperature_controls(texts, design, alpha)
    rows += _token_kl(texts, by_setting, design, alpha)
    decided = _over_settings(answers)
    return [*rows, *decided, _verdict_row(decided, needed)]


def _compare_sources(texts: Sequence[InjectedText], design: Design, family: str) -> list[TestRow]:
    return analyse_seed_effect(
        _columns(texts, (*design.primary, *design.secondary)),
        source=[text.source for text in texts],
        prompt=[text.prompt for text in texts],
        stream=[text.stream for text in texts],
        design=design,
        family=family,
    )


def _samples_needed(
    rows: Sequence[TestRow], texts: Sequence[InjectedText], design: Design, settings: int
) -> int | None:
    """Samples a cell that settle this setting when every metric of every setting must be settled.

    The prompt:source variance is what the contrasts' standard errors leave over that of texts within cells.
    """
    P, S = len({text.prompt for text in texts}), len(design.sources or {text.source for text in texts})
    k, most = max(1, round(len(texts) / (P * S))), 1
    levels = look_levels(design.looks, alpha=design.alpha, gamma=design.gamma, groups=max(2, S))
    rung = Rung(model="setting", parameters=1, rows=rows)
    for row in rows:
        if row.hypothesis != "pairwise" or row.role != "decides":
            continue
        for effect in effects_of([rung], row.metric, row.contrast):
            found = samples_to_settle(
                Components(prompt_source=max(0.0, effect.se**2 * P / 2.0 - 1.0 / k)),
                Size(prompts=P, samples=k, groups=S),
                margin=design.margin_sd,
                alpha=levels[design.looks[-1]],
                metrics=len(design.primary) * settings,
            )
            if found is None:
                return None
            most = max(most, found)
    return most


def _columns(texts: Sequence[InjectedText], metrics: Sequence[str]) -> dict[str, FloatArray]:
    return {
        name: np.array(
            [np.nan if (value := _value(text, name)) is None else value for text in texts], dtype=np.float64
        )
        for name in metrics
    }


def _value(text: InjectedText, metric: str) -> float | None:
    return text.kl_nats if metric == KL else text.values[metric]


def _over_settings(answers: Mapping[str, TestRow]) -> list[TestRow]:
    """A row a setting, Holm over settings; DETECTED only where the corrected p still rejects."""
    rows = [
        replace(
            answer,
            family=FAMILY,
            hypothesis="source",
            contrast=setting,
            method=f"{answer.method}; Holm over {len(answers)} modes",
            role="decides",
            p_adjusted=None,
            reason=answer.reason or (None if answer.p is not None else "undefined"),
        )
        for setting, answer in answers.items()
    ]
    out = []
    for row in correct_rows(rows).rows:
        lost = row.verdict == "DETECTED" and row.p_adjusted is not None and row.p_adjusted >= (row.alpha or 0)
        why = f"DETECTED on its own, not after correction over {len(rows)} modes"
        out.append(replace(row, verdict="INCONCLUSIVE", reason=why) if lost else row)
    return out


def _verdict_row(decided: Sequence[TestRow], needed: Sequence[int | None]) -> TestRow:
    void = [row for row in decided if row.verdict == "INVALID" or row.p_adjusted is None]
    detected = [row for row in decided if row.verdict == "DETECTED"]
    open_rows = [row for row in decided if row.verdict == "INCONCLUSIVE"]
    end = TestRow(
        family=FAMILY,
        hypothesis="verdict",
        method="Holm over modes of the verdicts between sources",
        role="verdict",
        alpha=decided[0].alpha,
        margin=decided[0].margin,
        n=sum(row.n or 0 for row in decided),
        verdict="INVALID",
        reason="; ".join(f"{row.contrast}: {row.reason}" for row in void) or None,
    )
    if void:
        return end
    best = min(decided, key=lambda row: (row.verdict != "DETECTED", row.p_adjusted))
    known = [count for count in needed if count is not None]
    verdict = "DETECTED" if detected else "INCONCLUSIVE" if open_rows else "EQUIVALENT"
    stuck = by_reason([(row.contrast, row.reason) for row in open_rows if row.reason])
    return replace(
        end,
        contrast=best.contrast,
        effect=best.effect,
        low=best.low,
        high=best.high,
        p=best.p,
        p_adjusted=best.p_adjusted,
        power=min((row.power for row in decided if row.power is not None), default=None),
        mde=max((row.mde for row in decided if row.mde is not None), default=None),
        negligible=bool(detected) and all(row.negligible is True for row in detected),
        n_to_settle=max(known) if open_rows and not detected and len(known) == len(needed) else None,
        verdict=verdict,
        reason=stuck if verdict == "INCONCLUSIVE" and stuck else None,
    )


def _plan(family: str, metrics: tuple[str, ...], design: Design, alpha: float) -> FamilyPlan:
    return FamilyPlan(
        family=family, primary=(), secondary=metrics, margin=design.margin_sd, alpha=alpha, last_alpha=alpha
    )


def _against(
    texts: Sequence[InjectedText],
    others: Sequence[InjectedText],
    names: tuple[str, str],
    family: str,
    design: Design,
    alpha: float,
) -> list[TestRow]:
    """`pairwise` and `tost` rows of two groups of texts, whatever their sources; secondary."""
    both = [*texts, *others]
    groups = [names[0]] * len(texts) + [names[1]] * len(others)
    labelled = label_rows(names, groups, [text.prompt for text in both], ["one"] * len(both))
    plan = _plan(family, design.primary, design, alpha)
    values = _columns(both, design.primary)
    rows: list[TestRow] = []
    for metric in design.primary:
        found = contrast_rows(answer_metric(values, metric, labelled, plan), names, family, "secondary", plan)
        rows += [replace(row, p_adjusted=None) for row in found if row.hypothesis in ("pairwise", "tost")]
    return rows


def _dose_response(
    texts: Sequence[InjectedText],
    by_setting: Mapping[str, Sequence[InjectedText]],
    design: Design,
    alpha: float,
) -> list[TestRow]:
    baseline = [text for text in texts if text.mode == BASELINE]
    rows: list[TestRow] = []
    for setting, found in by_setting.items() if baseline else ():
        pairs = _against(found, baseline, (setting, BASELINE), "dose_response", design, alpha)
        rows += [replace(row, hypothesis="against_none") for row in pairs if row.hypothesis == "pairwise"]
    rows += slope_rows(texts, design.primary, alpha, family="dose_response")
    return correct_rows(rows).rows


def _temperature_controls(texts: Sequence[InjectedText], design: Design, alpha: float) -> list[TestRow]:
    of = {
        control: [text for text in texts if text.mode == "temp_modulate" and text.control == control]
        for control in (None, "fixed", "shuffled")
    }
    rows: list[TestRow] = []
    for control in ("fixed", "shuffled"):
        if of[None] and of[control]:
            names = ("temp_modulate", control)
            rows += _against(of[None], of[control], names, "temp_modulate_controls", design, alpha)
    tests = [replace(row, hypothesis="against_control") for row in rows if row.hypothesis == "pairwise"]
    return [*correct_rows(tests).rows, *(row for row in rows if row.hypothesis == "tost")]


def _token_kl(
    texts: Sequence[InjectedText],
    by_setting: Mapping[str, Sequence[InjectedText]],
    design: Design,
    alpha: float,
) -> list[TestRow]:
    """Sources within each setting that changes the distribution, then the slope on dose; Holm over all."""
    rows: list[TestRow] = []
    plan = _plan("token_kl", (KL,), design, alpha)
    for setting, found in by_setting.items():
        if found[0].mode in NO_KL:
            continue
        names = design.sources or tuple(sorted({text.source for text in found}))
        labels = zip(*((text.source, text.prompt, text.stream) for text in found), strict=True)
        labelled = label_rows(names, *labels)
        answer = answer_metric(_columns(found, (KL,)), KL, labelled, plan)
        rows.append(replace(omnibus_row(answer, "token_kl", "secondary", plan), contrast=setting))
    rows += slope_rows(texts, (KL,), alpha, family="token_kl")
    return correct_rows(rows).rows


def slope_rows(
    texts: Sequence[InjectedText], metrics: Sequence[str], alpha: float, *, family: str
) -> list[TestRow]:
    """Slope of each metric on the dose of `logit_perturb`, a row a law and metric, not yet corrected.

    One least-squares slope a prompt through its texts of all doses and sources, then the t test that their
    mean is zero, on prompts - 1 degrees of freedom: prompts are the random units. Texts of `none` stand in
    for dose 0 where it was not run. `estimate`, `low` and `high` are in the metric's units per unit of dose.

    References
    ----------
    Matthews, Altman, Campbell & Royston (1990), BMJ 300, 230: summary measures. Witness: R's `lm` and
    `t.test` (`tests/reference/injection_slopes.R`).

    Examples
    --------
    >>> texts = [
    ...     InjectedText(mode="logit_perturb", source="A", prompt=p, law="uniform", dose=d,
    ...                  values={"m": slope * d + 0.1 * i})
    ...     for p, slope in zip("123", (1.0, 2.0, 3.0)) for d in (0.0, 1.0, 3.0) for i in (0, 1)
    ... ]
    >>> (row,) = slope_rows(texts, ("m",), 0.05, family="dose_response")
    >>> round(row.estimate, 4), row.df2, round(row.p, 4)
    (2.0, 2.0, 0.0742)
    """
    laws = sorted({text.law or "" for text in texts if text.mode == "logit_perturb"})
    rows = []
    for law in laws:
        chosen = [text for text in texts if text.mode == "logit_perturb" and (text.law or "") == law]
        dosed = [(text.dose or 0.0, text) for text in chosen]
        if not any(dose == 0.0 for dose, _ in dosed) and KL not in metrics:
            dosed += [(0.0, text) for text in texts if text.mode == BASELINE]
        for metric in metrics:
            row = TestRow(
                family=family,
                hypothesis="slope_on_dose",
                metric=metric,
                contrast=f"logit_perturb:{law}".rstrip(":"),
                method="t test of the prompts' least-squares slopes on dose",
                role="secondary",
                alpha=alpha,
                reason="undefined",
            )
            try:
                rows.append(_slope_row(row, dosed, alpha))
            except Undefined as missing:
                rows.append(replace(row, reason=str(missing)))
    return rows


def _slope_row(row: TestRow, dosed: Sequence[tuple[float, InjectedText]], alpha: float) -> TestRow:
    there = [(dose, text.prompt, v) for dose, text in dosed if (v := _value(text, row.metric)) is not None]
    if not there:
        raise Undefined("no text has a value")
    x, y = np.array([dose for dose, _, _ in there]), np.array([value for _, _, value in there])
    prompt = np.unique([name for _, name, _ in there], return_inverse=True)[1]
    texts = np.bincount(prompt)
    dx, dy = x - (np.bincount(prompt, x) / texts)[prompt], y - (np.bincount(prompt, y) / texts)[prompt]
    spread = np.bincount(prompt, dx**2)
    slopes = np.bincount(prompt, dx * dy)[spread > 0] / spread[spread > 0]
    P = len(slopes)
    if P < 2:
        raise Undefined(f"{P} prompts with texts at two doses; a mean slope needs two prompts")
    se = float(np.std(slopes, ddof=1)) / P**0.5
    if se <= 1e-12 * float(np.abs(slopes).max(initial=0.0)) or se == 0.0:
        raise Undefined("every prompt has the same slope, so its error is not known")
    mean = float(slopes.mean())
    reach = -float(special.stdtrit(P - 1, alpha / 2.0)) * se
    return replace(
        row,
        estimate=mean,
        low=mean - reach,
        high=mean + reach,
        statistic=mean / se,
        df1=1.0,
        df2=P - 1.0,
        p=2.0 * float(special.stdtr(P - 1, -abs(mean / se))),
        n=len(there),
        reason=None,
    )
