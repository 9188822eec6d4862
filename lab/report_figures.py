"""The report's figures by name: which query feeds which chart, and what it shows.

The page draws them from here, and so does `write_figures`: a figure on disk is the figure in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab import (
    figures,
    figures_distribution,
    figures_mechanism,
    figures_mechanism_audit,
    figures_quantisation,
    figures_quantisation_checks,
    figures_scale,
    figures_sense,
    figures_sense_learning,
)
from lab import report_queries as queries
from lab import report_queries_mechanism as placed
from lab import report_queries_quantisation as quantised
from lab import report_queries_sense as senses
from lab.counted import counted
from lab.errors import unknown
from lab.figure_kind import Figure as Figure  # for those who import it from here
from lab.nano_exports import write_exports
from lab.nano_figures import STUDY as NANO
from lab.nano_figures import figures_of, is_newest
from lab.report_drawing import figure as figure
from lab.report_group import Asked, Group, ask, read_groups
from lab.still import Source, still
from lab.store import Store

FIGURES: Mapping[str, Figure] = {
    "contrasts": Figure(
        title="Contrasts at the last look",
        caption="Every primary and secondary contrast with its Tukey interval at the look's level; the band "
        "is the margin. Inside margin: the equivalence test rejects at the same level.",
        query=queries.EFFECTS,
        draw=figures.forest,
    ),
    "looks": Figure(
        title="Look by look",
        caption="The largest primary contrast at each look. Red ticks: how far from 0 it had to be for its "
        "interval to exclude 0 at that look.",
        query=queries.LOOKS,
        draw=figures.looks,
    ),
    "controls": Figure(
        title="Positive control and A/A",
        caption="The positive control must differ, or a null means nothing; two labels of one source must "
        "not.",
        query=queries.ASSAY,
        draw=figures.forest,
    ),
    "detectable": Figure(
        title="Detectable difference",
        caption="The smallest difference found with 80 % power, from the variances estimated at that look, "
        "for the least favourable primary metric. Dashed: the margin.",
        query=queries.DETECTABLE,
        draw=figures.detectable,
    ),
    "missingness": Figure(
        title="Missing by arm",
        caption="Failed or under 10 words, with 95 % Wilson intervals. Above the dashed line the model is "
        "INVALID.",
        query=queries.MISSING_SHARES,
        draw=figures.missingness,
    ),
    "doses": Figure(
        title="Dose-response",
        caption="Noise on the logits against none: difference of each metric by dose, with its interval. It "
        "says how far noise moves texts, nothing about its source.",
        query=queries.DOSES,
        draw=figures_scale.doses,
    ),
    "permutations": Figure(
        title="Sharp null",
        caption="Observed omnibus statistic of each metric; bar: the middle 95 % of what permuting the "
        "sources' labels within prompts gives.",
        query=queries.PERMUTATIONS,
        draw=figures_distribution.permutation_null,
    ),
    "scale": Figure(
        title="Effect against scale",
        caption="Largest primary effect of each rung with its interval, at its last look; the band "
        "is the margin. Dashed: EQUIVALENT from here on. Verdicts after correction over rungs.",
        query=queries.SCALE,
        draw=figures_scale.scale,
    ),
    "languages": Figure(
        title="What INT4 costs each language",
        caption="Change in bits on the same sentences, the most harmed language first, with intervals over "
        "documents. In each row the replicates, the first one on top. Below 0: the rounded model is "
        "better.",
        query=quantised.CHANGES,
        draw=figures_quantisation.languages,
    ),
    "languages-elsewhere": Figure(
        title="The same in other architectures",
        caption="As above, for the models of the transfer question, each in its own order.",
        query=quantised.CHANGES_ELSEWHERE,
        draw=figures_quantisation.languages,
    ),
    "metrics": Figure(
        title="Legacy ratio beside the gap",
        caption="Left: mean degradation % of low- over high-resource languages, with the word an earlier "
        "study gave such a ratio; dashed: 1. Right: the gap in bits a sentence on the same rows. The "
        "ratio has no interval, and it can be large where nothing changed (bf16). Axes are linear within 1 "
        "of zero, logarithmic beyond.",
        query=quantised.DISPARITY,
        draw=figures_quantisation_checks.metrics,
    ),
    "budgets": Figure(
        title="Gap against budget",
        caption="Low- minus high-resource change where a share of the weights is kept; the language is the "
        "unit of the intervals. Random masks of equal bits are the control. 0: nothing kept.",
        query=quantised.BUDGETS,
        draw=figures_quantisation.budgets,
    ),
    "pareto-change": Figure(
        title="Size against mean change",
        caption="Lower left is better. Bits per weight count scales, kept weights and their indices; "
        "variants of one size stand beside each other. Crosses: INT4 and INT8 with nothing kept; "
        "INT2 and the legacy rounding are in the table. A point without a bar has no stored "
        "interval.",
        query=quantised.PARETO,
        draw=figures_quantisation.pareto_change,
    ),
    "pareto-gap": Figure(
        title="Size against gap",
        caption="The same variants: what their size buys in equality between languages. 0 is equal loss.",
        query=quantised.PARETO,
        draw=figures_quantisation.pareto_gap,
    ),
    "blocks": Figure(
        title="Where the damage is",
        caption="Bits a sentence saved by keeping one block in full precision and rounding all others. "
        "Colour: the sign; its strength: the size. Grey numbers: the interval covers 0.",
        query=quantised.BLOCKS,
        draw=figures_quantisation_checks.blocks,
    ),
    "nulls": Figure(
        title="Nulls",
        caption="What must be nearly nothing, as a share of the most that is allowed; the band is allowed. "
        "fp32 again: exactly no change. bf16: mean change. INT8 and INT4: divergence over that of "
        "the next coarser.",
        query=quantised.NULLS,
        draw=figures_quantisation_checks.nulls,
    ),
    "accuracy": Figure(
        title="What each arm answers",
        caption="Large marks: means over seeds with 95 % t intervals; dots below: seeds, a seed's shuffles "
        "as their mean. Grey bar: how far the items alone would move one adapter (95 %, binomial). An "
        "interval of few seeds runs off the panel; the table has its ends.",
        query=placed.SEEDS,
        draw=figures_mechanism.accuracy,
    ),
    "shuffles": Figure(
        title="The placement among its shuffles",
        caption="In each row one seed: the audit's placement and the same ranks shuffled within projections, "
        "all of one cost. Bar: what the items alone allow the placement (95 %, binomial). Beside the seed "
        "the placement's place, 1 being best; .5 is a tie.",
        query=placed.SHUFFLES,
        draw=figures_mechanism.shuffles,
    ),
    "cost": Figure(
        title="Accuracy against budget",
        caption="Means over seeds with 95 % t intervals. Arms whose budgets are nearly equal stand beside "
        "each other, around their budget. Upper left is better.",
        query=placed.ARMS,
        draw=figures_mechanism.cost,
    ),
    "ranks": Figure(
        title="Which module gets which rank",
        caption="Means over seeds, and over shuffles where there are several; the stronger the colour, "
        "the higher the rank. Arms with one rank everywhere are left out. A shuffle keeps what its row "
        "(within) or the whole adapter (full) spends.",
        query=placed.RANKS,
        draw=figures_mechanism_audit.ranks,
    ),
    "spectra": Figure(
        title="Spectra of the probe",
        caption="Singular values of each module's update over its largest, a thin line a module, mean over "
        "seeds; thick: the median of the modules. A line that falls early uses few of its ranks.",
        query=placed.SPECTRA,
        draw=figures_mechanism_audit.spectra,
    ),
    "stability": Figure(
        title="Do two seeds audit alike",
        caption="Rank correlation over modules (Spearman): a dot a pair of seeds, a tick their median, the "
        "line from the least to the most. Where it is low, a placement copies noise of its seed.",
        query=placed.STABILITY,
        draw=figures_mechanism_audit.stability,
    ),
    "conditions": Figure(
        title="What each condition reaches",
        caption="Large marks: means over seeds with 95 % intervals over seeds and lemmas; dots below: seeds. "
        "Red ticks: the blockers. A condition left of one does not ship.",
        query=senses.RETRIEVED,
        draw=figures_sense.retrieved,
    ),
    "contingency": Figure(
        title="What was judged, in order",
        caption="How far each metric lies from its blocker (red, 0) with its interval. A condition that "
        "fails is retrained with half the oversampling, then with contexts verified at raised thresholds, "
        "and judged on dev; then A is looked at.",
        query=senses.CONTINGENCY,
        draw=figures_sense.contingency,
    ),
    "scorers": Figure(
        title="Baseline ladder",
        caption="top1 on the same items. Intervals: of conditions over seeds and lemmas; of shortcuts chance "
        "plus the audit's interval over lemmas; others have none. Dashed: the blocker.",
        query=senses.BASELINES,
        draw=figures_sense.baselines,
    ),
    "tiers": Figure(
        title="Tier by tier",
        caption="top1 by tier with 95 % intervals over seeds and lemmas. Grey ticks: chance. In the "
        "world, tier 3 has fewer cues and more words of sibling senses.",
        query=senses.TIERS,
        draw=figures_sense.tiers,
    ),
    "margins": Figure(
        title="Margins",
        caption="Quantiles over test items of the best correct minus the best wrong cosine: dots are seeds, "
        "large marks their means. Left of 0 the item is lost.",
        query=senses.MARGINS,
        draw=figures_sense.margins,
    ),
    "attention": Figure(
        title="Attention on example queries",
        caption="The first seed's weights on one query a tier, the one with most cues among those recorded: "
        "the stronger the colour, the more. Underlined: cues of the sense; framed: the lemma.",
        query=senses.ATTENTION,
        draw=figures_sense_learning.attention,
    ),
    "sizes": Figure(
        title="More data",
        caption="top1 of B cut to fewer bundles, with 95 % intervals over seeds and lemmas. Line: the fitted "
        "law; dashed, with its interval: what it says of twice the data, which is an extrapolation.",
        query=senses.SIZES,
        draw=figures_sense_learning.sizes,
    ),
    "learning": Figure(
        title="While it learns",
        caption="Thin: seeds; thick: their mean, as far as all are trained; shade: its 95 % t interval over "
        "seeds. Entropy 1 is even attention over all words.",
        query=senses.LEARNING,
        draw=figures_sense_learning.learning,
    ),
}
"""Name -> figure of one study, profile, model and plan; a figure without rows is not shown."""

SEEDS = Figure(
    title="Seeds by source",
    caption="All draws on tape, each once, choices of tokens left out. Line: what uniform seeds give on "
    "average; shade: where a bin of theirs lies 99 times of 100.",
    query=queries.SEEDS,
    draw=figures.seed_histogram,
)
SEED_QUANTILES = Figure(
    title="Seeds against uniform ones",
    caption="Quantiles of each source's seeds minus those of uniform ones. Shade: where one quantile lies 99 "
    "times of 100.",
    query=queries.SEED_QUANTILES,
    draw=figures_distribution.seed_quantiles,
)
WHOLE_STORE: Mapping[str, Figure] = {"seeds": SEEDS, "seed-quantiles": SEED_QUANTILES}
"""Figures of the whole store."""


def side_by_side(asked: Callable[[str], Asked], *names: str) -> str:
    """The figures that have rows, beside each other."""
    drawn = "".join(figure(FIGURES[name], asked(FIGURES[name].query)) for name in names)
    return f'<div class="figures">{drawn}</div>' if drawn else ""


def write_figures(
    store: Store, directory: Path, *, study: str | None = None, formats: Sequence[str] = figures.FORMATS
) -> list[Path]:
    """Write every figure that has rows as `<directory>/<study>-<model>-<plan>/<name>.*`, seeds beside them.

    The last run's plan of the nanodesmo study is written to `<directory>/nanodesmo`, with its exports.

    Parameters
    ----------
    study
        Only this one; None for all.
    formats
        See `lab.figures.save_figure`.

    Returns
    -------
    list of Path
        The files written; none from an empty store.

    Raises
    ------
    UsageError
        A study that the store does not have.
    """
    written: list[Path] = []
    with still(store) as source:
        groups = read_groups(source)
        names = {group.study for group in groups}
        if study is not None and study not in names:
            raise unknown("study", study, names)
        for group in counted([one for one in groups if study in (None, one.study)], "figures: studies"):
            folder = directory / (group.study if is_newest(source, group) else group.name)
            written += write_group(source, group, folder, formats=formats)
            if group.study == NANO:
                written += write_exports(source, group, folder, _commit(source, group))
        for name, shown in WHOLE_STORE.items():
            written += _save(shown, ask(source, shown.query), directory, name, None, formats)
    return written


def write_group(
    store: Source,
    group: Group,
    folder: Path,
    *,
    formats: Sequence[str],
    wanted: Callable[[str], bool] = lambda _: True,
) -> list[Path]:
    """Write the figures of one group whose names are wanted; the files written."""
    written: list[Path] = []
    commit = _commit(store, group)
    for name, shown in own_figures(store, group).items():
        if wanted(name):
            asked = ask(store, shown.query, group.parameters)
            written += _save(shown, asked, folder, name, commit, formats)
    return written


def _commit(store: Source, group: Group) -> str | None:
    """Of the program that measured the group's last run."""
    runs = ask(store, queries.RUNS, group.parameters).rows
    return str(runs[-1]["git_commit"]) if runs and runs[-1]["git_commit"] else None


def own_figures(store: Source, group: Group) -> Mapping[str, Figure]:
    """Name -> figure of a group's kind of study."""
    if group.study == NANO:
        return figures_of(lambda query: ask(store, query, group.parameters))
    return FIGURES


def _save(
    shown: Figure, asked: Asked, directory: Path, name: str, commit: str | None, formats: Sequence[str]
) -> list[Path]:
    if asked.frame.is_empty():
        return []
    (directory / name).parent.mkdir(parents=True, exist_ok=True)  # a name may stand in a folder
    return figures.save_figure(
        shown.draw(asked.frame),
        directory,
        name,
        query=asked.sql,
        frame=asked.frame,
        commit=commit,
        formats=formats,
    )
