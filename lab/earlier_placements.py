"""Accuracies of a rank study, one a seed and variant, as one plain shape: `aggregated_results.json`.

    {"probe": {"accuracy": {"mean": 0.72, "std": 0.02, "values": [0.70, 0.72, 0.74]}},
     "compressed": {"per_layer": {"accuracy": {...}, "delta_vs_probe": 0.01, "param_reduction": 0.6,
                                  "pass_rate": 1.0, "verdict": "..."},
                    "per_layer_shuffled": {...}}}

Values stand in the order of the seeds, which `seeds` at the top may name. `std` has ddof 1. Mean and standard
deviation are computed again from the values, and a file in which they disagree is refused: which of the two
is right it does not say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.earlier_reading import Node, check_tree, kind, read_document

MOST_BYTES = 2**20
"""A larger file is of another format."""
MOST_SEEDS = MOST_VARIANTS = 1000
TREATMENT, SHUFFLED = "per_layer", "per_layer_shuffled"
RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Tolerance of a mean or standard deviation against its values."""
ROUNDED = 5e-4
"""A `delta_vs_probe` further than this from its values is told."""
SHAPE = '{"probe": {"accuracy": {mean, std, values}}, "compressed": {variant: {"accuracy": {...}, ...}}}'

_TOP = ("model", "seeds", "definitions", "left_out", "probe", "compressed")
_VARIANT = ("accuracy", "delta_vs_probe", "param_reduction", "pass_rate", "verdict")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to give ranks, over seeds. All but the values as the file says it, None where it does not."""

    values: tuple[float, ...]
    """Accuracy of each seed, share of the items."""
    mean: float
    std: float | None
    """Over seeds, ddof 1; None with one seed."""
    delta_vs_probe: float | None = None
    """Share of the items."""
    param_reduction: float | None = None
    """Share of the probe's parameters that it does without; below 0 where it has more."""
    pass_rate: float | None = None
    verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class EarlierPlacements:
    """All of a file."""

    path: Path
    sha256: str
    model: str | None
    seeds: tuple[int, ...]
    """As the file names them, else 1, 2, ..."""
    probe: Variant
    compressed: Mapping[str, Variant]
    """Name -> variant, in the order of the file; `per_layer` is among them."""
    contradictions: tuple[str, ...]
    """Differences to the probe that are not those of the values."""
    unread: tuple[str, ...]
    """Members that were passed over."""


def holds_placements(path: Path) -> bool:
    """Whether a file is meant as one of placements, sound or not.

    Raises
    ------
    UsageError
        It is small enough to be one and cannot be read as JSON.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            return False
    except OSError:
        return False  # the reader of the other formats says what is wrong
    found = read_document(path).root.value
    if not isinstance(found, dict):
        return False
    probe = found.get("probe")
    return "compressed" in found or (isinstance(probe, dict) and "accuracy" in probe)


def read_placements(path: Path) -> EarlierPlacements:
    """Read a file of placements.

    Raises
    ------
    UsageError
        Malformed, or means and standard deviations that are not those of the values; the message names the
        place.
    """
    document = read_document(path)
    root = document.root
    probe_node, node = root.member("probe"), root.member("compressed")
    probe = _variant(probe_node)
    named = node.members()
    if not 1 <= len(named) <= MOST_VARIANTS:
        node.refuse(f"{len(named)} variants; allowed: 1 to {MOST_VARIANTS}, as {SHAPE}")
    node.member(TREATMENT)
    for name in named:
        Node(value=name, file=node.file, path=node.path).name()
    compressed = {name: _variant(one) for name, one in named.items()}
    for name, found in compressed.items():
        if len(found.values) != len(probe.values):
            named[name].child("accuracy").child("values").refuse(
                f"{len(found.values)} values, the probe has {len(probe.values)}; give one for each seed"
            )
    check_tree(root)
    model = root.optional("model")
    return EarlierPlacements(
        path=path,
        sha256=document.sha256,
        model=None if model is None else model.name(),
        seeds=_seeds(root, len(probe.values)),
        probe=probe,
        compressed=compressed,
        contradictions=tuple(_contradictions(probe, compressed)),
        unread=_unread(root, [probe_node, *named.values()]),
    )


def _variant(node: Node) -> Variant:
    accuracy = node.member("accuracy")
    mean, values = accuracy.member("mean"), _values(accuracy.member("values"))
    delta, saved = node.optional("delta_vs_probe"), node.optional("param_reduction")
    passed, verdict = node.optional("pass_rate"), node.optional("verdict")
    return Variant(
        values=values,
        mean=_checked_mean(mean, values),
        std=_checked_std(accuracy, values),
        delta_vs_probe=None if delta is None else _number(delta, -1.0, "a difference of shares"),
        param_reduction=None if saved is None else _number(saved, -1.0, "a share of the probe's parameters"),
        pass_rate=None if passed is None else _number(passed, 0.0, "a share of the seeds"),
        verdict=verdict.name() if verdict is not None and isinstance(verdict.value, str) else None,
    )


def _values(node: Node) -> tuple[float, ...]:
    items = node.items()
    if not 1 <= len(items) <= MOST_SEEDS:
        node.refuse(f"{len(items)} values; allowed: 1 to {MOST_SEEDS}, one for each seed")
    return tuple(_number(item, 0.0, "an accuracy is a share") for item in items)


def _number(node: Node, low: float, what: str) -> float:
    value = node.value
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= 1.0:
        node.refuse(f"found {kind(value)}; {what} from {low:g} to 1 is needed")
    return float(value)


def _checked_mean(node: Node, values: tuple[float, ...]) -> float:
    found, due = _number(node, 0.0, "a mean of shares"), statistics.fmean(values)
    if not _agree(found, due):
        node.refuse(f"found {found:.9g}, the values have the mean {due:.9g}; make one of them right")
    return found


def _checked_std(accuracy: Node, values: tuple[float, ...]) -> float | None:
    """The standard deviation that the file gives, which must be that of n - 1."""
    if len(values) == 1:
        node = accuracy.optional("std")
        if node is not None:
            node.refuse(f"found {kind(node.value)}; one seed has no standard deviation (ddof 1): write null")
        return None
    node = accuracy.member("std")
    found, due = _number(node, 0.0, "a standard deviation of shares"), statistics.stdev(values)
    if not _agree(found, due):
        fits = "; ddof 0 fits, and ddof 1 is needed" if _agree(found, statistics.pstdev(values)) else ""
        node.refuse(f"found {found:.9g}, the values have {due:.9g} (ddof 1){fits}")
    return found


def _agree(found: float, due: float) -> bool:
    return math.isclose(found, due, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _seeds(root: Node, count: int) -> tuple[int, ...]:
    node = root.optional("seeds")
    if node is None:
        return tuple(range(1, count + 1))
    seeds = tuple(item.integer(0, 2**63 - 1) for item in node.items())
    if len(seeds) != count or len(set(seeds)) < len(seeds):
        node.refuse(f"{len(set(seeds))} different seeds for {count} values; name each seed once")
    return seeds


def _contradictions(probe: Variant, compressed: Mapping[str, Variant]) -> list[str]:
    """Where `delta_vs_probe` is not the difference of the means."""
    means = {name: statistics.fmean(one.values) for name, one in compressed.items()}
    due = {name: mean - statistics.fmean(probe.values) for name, mean in means.items()}
    return [
        f"delta_vs_probe of {name} is {one.delta_vs_probe:+.4f}, by the values {due[name]:+.4f}"
        for name, one in compressed.items()
        if one.delta_vs_probe is not None and abs(one.delta_vs_probe - due[name]) > ROUNDED
    ]


def _unread(root: Node, variants: list[Node]) -> tuple[str, ...]:
    inside = {
        name
        for variant in variants
        for name, value in variant.value.items()
        if name not in _VARIANT or (name == "verdict" and not isinstance(value, str | None))
    }
    outside = [name for name in root.value if name not in _TOP]
    return tuple(ascii(name)[1:-1][:60] for name in (*outside, *sorted(inside)))
