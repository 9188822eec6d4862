"""Which question each experiment of the quantisation study asks, made of what a run has measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flows.quant_protocol import Replicate
from lab.errors import WorkError
from lab.products import Products
from tasks import quant_measuring
from tasks.quant_analysis import Question
from tasks.quant_nulls import MAIN
from tasks.quant_questions import chosen_sets
from tasks.shell import unwalked

if TYPE_CHECKING:
    from flows.quant_run import QuantRun

Experiments = tuple[str, ...]
SWEEPS = ("C-001", "C-002")
"""Each block alone; then the sets of blocks that the first names."""


def _about(
    run: QuantRun, kind: str, family: str, one: Replicate, look: int, *names: str, **more: Any
) -> Question:
    """A question about the variants of experiments; the baseline is always among them."""
    source = run.protocol.source_at(look)
    wanted = {name for experiment in names for name in run.protocol.variants[experiment]} | {"fp32"}
    found = run.keys[one.name, look]
    return Question(
        kind=kind,
        family=family,
        asked=run.protocol.asked(look),
        source=source,
        places=one.places(source.load().documents),
        keys={name: key for name, key in sorted(found.items()) if name in wanted},
        **more,
    )


def _baseline(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    return _about(run, "baseline", experiments[0], one, look, "A-001")


def _degradation(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    return _about(run, "degradation", experiments[0], one, look, "A-002")


def _disparity(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    own = experiments[0] in run.protocol.transfer
    measured = experiments[0] if own else "A-002"
    others = [name for name in run.protocol.variants[measured] if name not in (MAIN, "fp32", "fp32 again")]
    details = {"others": others, "with_nulls": own}
    return _about(run, "disparity", experiments[0], one, look, measured, details=details)


def _budgets(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    kept = [name for name in experiments if (name, one.name, look) not in run.failures]
    details = {
        "pairs": {name: list(pair) for name, pair in run.protocol.pairs.items()},
        "variants": [name for experiment in kept for name in run.protocol.variants[experiment]],
        "absent": {name: run.failures[name, one.name, look] for name in experiments if name not in kept},
    }
    return _about(run, "budgets", "B", one, look, "A-002", *kept, details=details)


def _best_budget(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    details = {"names": [list(pair) for pair in run.protocol.kept]}
    budgets = tuple(run.protocol.pairs)
    return _about(run, "best_budget", experiments[0], one, look, "A-002", *budgets, details=details)


def _blocks(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    key = _swept(run, experiments[0], one, look)
    return _about(run, "blocks", experiments[0], one, look, "A-002", sweep=key)


def _layer_protection(run: QuantRun, experiments: tuple[str, ...], one: Replicate, look: int) -> Question:
    key = _swept(run, experiments[0], one, look)
    details = {"sets": [list(found) for found in _sets(run, experiments[0], one, look)]}
    return _about(run, "layer_protection", experiments[0], one, look, "A-002", sweep=key, details=details)


def _sets(run: QuantRun, experiment: str, one: Replicate, look: int) -> Sequence[tuple[int, ...]]:
    """The sets of blocks that are kept; none where each block is quantised alone and kept alone."""
    if experiment == SWEEPS[0]:
        return ()
    return chosen_sets(run.saved[one.name, look], run.protocol.keep_blocks, seed=0)


def start_sweeps(run: QuantRun, experiment: str, live: Sequence[Replicate], look: int) -> None:
    """Begin to sweep over the blocks of each replicate's model, beside each other and no model twice.

    Where the sweep over single blocks had no numbers, no blocks were chosen and none is begun.
    """
    begun: dict[str, Any] = {}
    for one in live:
        if experiment != SWEEPS[0] and (one.name, look) not in run.saved:
            continue
        subject, sets = run.subject(one, look), _sets(run, experiment, one, look)
        key = subject.sweep_key(run.protocol.main, sets)
        if key not in begun:
            begun[key] = quant_measuring.sweep.submit(
                str(run.home),
                f"{experiment}, {one.name}, {look} sentences",
                unwalked(subject),
                unwalked(run.protocol.main),
                unwalked(sets),
                run.protocol.timeout_seconds,
                key,
            )
        run.sweeps[experiment, one.name, look] = begun[key]


def _swept(run: QuantRun, experiment: str, one: Replicate, look: int) -> str:
    """Wait for the sweep and record what it took; returns the product's key.

    Raises
    ------
    TimeLimitError, WorkError
        It exceeded the limit or failed, or there were no blocks to keep.
    """
    if (experiment, one.name, look) not in run.sweeps:
        raise WorkError(f"no blocks were chosen: {SWEEPS[0]} has no number in some tier of languages")
    key: str = run.sweeps[experiment, one.name, look].result()
    sets = _sets(run, experiment, one, look)
    seconds = Products(run.home, quant_measuring.SWEEP).read(key).get("seconds")
    config = {"sweep": asdict(run.protocol.main), "sets": [list(kept) for kept in sets], "look": look}
    code = quant_measuring.measuring_code()
    step = run.step(key, experiment, one, arm="sweep", config=config, code=code, seconds=seconds)
    run.record(f"sweep of {experiment}, {one.name}", [step, run.planned(key)])
    return key


_ASK: Mapping[str, Callable[[QuantRun, Experiments, Replicate, int], Question]] = MappingProxyType(
    {
        "A-001": _baseline,
        "A-002": _degradation,
        "B-004": _best_budget,
        "C-001": _blocks,
        "C-002": _layer_protection,
    }
)


def question_of(run: QuantRun, experiments: Experiments, one: Replicate, look: int) -> Question:
    """The question of an experiment, or of the three budgets together, to one replicate.

    Raises
    ------
    TimeLimitError, WorkError
        A sweep over blocks that it needs exceeded the limit or failed.
    """
    if experiments[0] in run.protocol.pairs:
        return _budgets(run, experiments, one, look)
    return _ASK.get(experiments[0], _disparity)(run, experiments, one, look)
