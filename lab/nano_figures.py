"""The nanodesmo study's figures by name; what stands before the slash is a folder.

Some are one a regime or one a control: which there are is read off the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from lab import figures_nano, figures_nano_courses, figures_nano_runs
from lab import report_queries_nano as nano
from lab import report_queries_nano_runs as runs
from lab.figure_kind import Figure
from lab.report_group import Asked, Group, ask
from lab.still import Source

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

STUDY = nano.STUDY
NEWEST = """
SELECT plan_hash FROM run WHERE study = 'nanodesmo' ORDER BY started_at DESC, run_id DESC LIMIT 1
"""
FROZEN = (
    "By seed: how much entropy moves between the state that makes the network most sure and the one that "
    "makes it least, weights fixed, on fresh batches. Black tick: the mean of rotated injections, each with "
    "its own search. Dashed: an earlier criterion, above .3. Band: the margin. Below: entropy with each "
    "state."
)
DELTAS = (
    "Filled, with t interval over seeds at the look's level: the window minus its twin, which went through "
    "the same steps without it. Hollow: minus the clean steps before, which also holds what training does "
    "meanwhile. Linear within 1 SD, logarithmic beyond."
)
REACTIONS = (
    "Steps count from a window's first. Lines: means over windows and seeds in SD of the clean steps "
    "before; shade: least to most seed. Linear within 1 SD, logarithmic beyond."
)
COURSES = (
    "Means over windows and seeds in each channel's unit; shade: least to most seed. Grey band: the window. "
    "Dashed: the twin, which goes through the same steps without it."
)

PUBLISHED = "perturbation/regime-deltas-published"
"""Figure of published windows, where they were trained."""
_MEMORY = "Lines: means over seeds; marks with spans, least to most seed, tell lines apart."


def quiet(shown: Figure) -> Figure:
    """The figure without a label on each mark: it says what it shows as a whole, and a page has it twice.

    A still is one image to a reader; of the live chart axes, legends and the description stay.
    """

    @wraps(shown.draw)
    def draw(frame: pl.DataFrame) -> alt.TopLevelMixin:
        chart: Any = shown.draw(frame)
        done: alt.TopLevelMixin = chart.configure_mark(aria=False)
        return done

    return replace(shown, draw=draw)


_STILL: Mapping[str, Figure] = {
    "frozen-weight-test": Figure(
        title="Frozen test", caption=FROZEN, query=nano.frozen(nano.MAIN), draw=figures_nano.frozen
    ),
    "separability": Figure(
        title="Signatures",
        caption="AUC of windows against their twins, one window held out, t intervals over seeds at the "
        "look's level. Grey bar: the middle 95 % with labels of whole windows exchanged. Step: the step "
        "number alone; against before: the same against the clean steps before, which a clock tells apart. "
        "Seeds that are alike have no t interval.",
        query=nano.separable(nano.MAIN),
        draw=figures_nano.separability,
    ),
    "perturbation/regime-reactions": Figure(
        title="Reactions to regimes",
        caption=REACTIONS,
        query=runs.reactions("core"),
        draw=figures_nano_courses.reactions,
    ),
    "perturbation/regime-deltas": Figure(
        title="What regimes move", caption=DELTAS, query=nano.deltas(nano.MAIN), draw=figures_nano.deltas
    ),
    "generalization/frozen-weight-test": Figure(
        title="Frozen test, second text",
        caption=FROZEN,
        query=nano.frozen(nano.SECOND),
        draw=figures_nano.frozen,
    ),
    "generalization/regime-reactions": Figure(
        title="Reactions, second text",
        caption=REACTIONS,
        query=runs.reactions("generalization"),
        draw=figures_nano_courses.reactions,
    ),
    "generalization/regime-deltas": Figure(
        title="What regimes move, second text",
        caption=DELTAS,
        query=nano.deltas(nano.SECOND),
        draw=figures_nano.deltas,
    ),
    "memory/memory_decay_summary": Figure(
        title="Memories beside each other",
        caption="Means over seeds with 95 % t intervals; drift and effect over clean steps after the first "
        "quarter, share over all steps. self-analysis has no memory.",
        query=runs.MEMORY_SUMMARY,
        draw=figures_nano_runs.memory_summary,
    ),
    "memory/memory-self_drift": Figure(
        title="Drift over steps",
        caption=_MEMORY,
        query=runs.memory_line("self_drift"),
        draw=figures_nano_courses.memory_line("self_drift"),
    ),
    "memory/memory-state_effect": Figure(
        title="State effect over steps",
        caption=f"{_MEMORY} Probed steps only.",
        query=runs.memory_line("effect_kl_nats"),
        draw=figures_nano_courses.memory_line("effect_kl_nats"),
    ),
    "memory/memory-gate": Figure(
        title="Gate over steps",
        caption=_MEMORY,
        query=runs.memory_line("gate"),
        draw=figures_nano_courses.memory_line("gate"),
    ),
    "memory/memory_buffer_summary": Figure(
        title="Length and stride of the buffer",
        caption="Means over seeds, intervals cut to the panel. Hollow: the run was too short to fill the "
        "buffer, so its length was not in use.",
        query=runs.BUFFERS,
        draw=figures_nano_runs.buffers,
    ),
    "controls/controls-comparison": Figure(
        title="The state against controls",
        caption="Above: seeds as dots, means as ticks. Below: paired differences over seeds with t intervals "
        "at the look's level; left of 0 the state is better. Band: the margin.",
        query=runs.CONTROL_LOSSES,
        draw=figures_nano_runs.controls,
    ),
    "mlp/input_sensitivity": Figure(
        title="What moves the state",
        caption="Slope of the new state in each feature times how much the feature varies, last half of "
        "training, mean over seeds with its t interval at the look's level.",
        query=nano.SENSITIVITY,
        draw=figures_nano.sensitivity,
    ),
    "mlp/state_effect_leadlag": Figure(
        title="State effect against loss and entropy",
        caption="Correlation of detrended series at probes; right of 0 the effect comes first. Band, for the "
        "eye: what independence leaves at the look's level, from circular shifts of the mirrored effect. "
        "Filled: differs from 0 after Holm, t over seeds.",
        query=nano.LEAD_LAG,
        draw=figures_nano_courses.lead_lag,
    ),
    "composite/valence": Figure(
        title="Valence and intensity",
        caption="Inside windows minus the clean steps right before, t intervals over seeds. Valence is "
        "−(D + S + U + C), each in SD of all clean steps.",
        query=nano.COMPOSITE,
        draw=figures_nano.valence,
    ),
    "composite/components": Figure(
        title="What valence is made of",
        caption="The same for distance, speed, entropy and loss of state effect, for what intensity is made "
        "of (R, the change of valence between probes, and κ, curvature), and for the raw measures. Linear "
        "within 1, logarithmic beyond.",
        query=nano.COMPOSITE,
        draw=figures_nano.components,
    ),
    "composite/trajectory": Figure(
        title="Path of the state",
        caption="First seed of regimes-all, means of a few steps a point: size of the state against its "
        "distance from its slow reference. Marks: inside windows.",
        query=runs.TRAJECTORY,
        draw=figures_nano_courses.trajectory,
    ),
}
STILL = {name: quiet(shown) for name, shown in _STILL.items()}
"""Name -> figure of which there is one."""


def figures_of(asked: Callable[[str], Asked]) -> dict[str, Figure]:
    """Name -> figure of a study; those that have no rows are not left out."""
    found = dict(STILL)
    for row in asked(runs.REGIMES).rows:
        regime = str(row["regime"])
        found[f"perturbation/regime_{regime}"] = Figure(
            title=f"Around windows of {regime}",
            caption=COURSES,
            query=runs.course(regime),
            draw=figures_nano_courses.course(regime),
        )
        found[f"perturbation/regime_{regime}_update"] = Figure(
            title=f"The update around windows of {regime}",
            caption=COURSES,
            query=runs.update(regime),
            draw=figures_nano_courses.course(regime),
        )
    if asked(nano.CONTACT).rows:
        found[PUBLISHED] = Figure(
            title="What published windows move",
            caption=f"{DELTAS} Windows and strengths of the study's earlier version, one of each; without a "
            "hollow mark another window abuts.",
            query=nano.PUBLISHED_DELTAS,
            draw=figures_nano.deltas,
        )
    for row in asked(nano.VARIANTS).rows:
        variant = str(row["variant"])
        found[f"controls/{variant}_delta_scatter"] = Figure(
            title=f"How alike {variant} reacts",
            caption="Each mark a regime: window minus the clean steps before, in SD, with t intervals over "
            "seeds both ways. On the dashed line the control reacts as the run with the state.",
            query=nano.scatter(variant),
            draw=figures_nano_runs.scatter,
        )
    return {name: STILL.get(name) or quiet(shown) for name, shown in found.items()}


def is_newest(store: Source, group: Group) -> bool:
    """Whether a group is of this study and of the plan that it ran last."""
    return group.study == STUDY and ask(store, NEWEST).rows == [{"plan_hash": group.plan_hash}]
