"""Regimes: what is done to a training, through which channel, how strongly and in which steps. As data.

A regime touches one channel only: `input` and `target` the batch, `stats` the copy of the statistics that the
update of the self-state sees, `self` the state, `optim` the learning rate. Windows are half-open, [start,
end). This file needs no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from models.nano_recipe import STATISTICS

Window = tuple[int, int]
EXAMPLE = (
    '{"regimes": [{"id": "fog", "channel": "input", "mode": "mask_tokens", "strength": 0.5, '
    '"windows": [[80, 100]]}]}'
)
"""Of a file of regimes."""

CHANNELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input": ("mask_tokens", "random_tokens"),
        "target": ("random_targets",),
        "stats": ("bias", "noise"),
        "self": ("clamp", "clamp_relative", "freeze", "noise", "scale"),
        "optim": ("lr_mult",),
    }
)
"""Modes of each channel."""
PROBABILITIES = frozenset({"mask_tokens", "random_tokens", "random_targets"})
"""Modes whose strength is the chance of each token."""
UNDISTURBED = "clean"
"""What steps outside of every window are called where regimes are told apart; no regime's id."""


def _is_whole(x: object) -> bool:
    """Whether it is a whole number; JSON's true is 1 to Python and none here, 80.5 and 80.0 are none."""
    return isinstance(x, int) and not isinstance(x, bool)


def _refuse_id(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch("[a-z0-9_-]{1,40}", name):
        raise ValueError(f"regime id {name!r}; allowed: up to 40 of a-z, 0-9, _ and -, as files are named")
    if name == UNDISTURBED:
        raise ValueError(f"regime id {name!r} is what undisturbed steps are called; give it another id")


@dataclass(frozen=True, kw_only=True)
class Regime:
    """One kind of disturbance and its windows.

    >>> Regime(id="fog", channel="inputs", mode="mask_tokens", strength=0.2)
    Traceback (most recent call last):
        ...
    ValueError: regime 'fog' has channel 'inputs'; allowed: input, target, stats, self, optim
    """

    id: str
    channel: str
    mode: str
    strength: float
    """Chance a token (`input`, `target`); number added or standard deviation (`stats`); box, share of the
    state's root mean square, standard deviation or factor (`self`; `freeze` takes none); factor (`optim`)."""
    windows: tuple[Window, ...] = ()
    """Steps [start, end) of each occurrence, in order."""
    statistic: str = "loss"
    """Which one `stats` changes."""

    def __post_init__(self) -> None:
        """Refuse what could not act."""
        _refuse_id(self.id)
        if self.channel not in CHANNELS:
            raise ValueError(
                f"regime {self.id!r} has channel {self.channel!r}; allowed: {', '.join(CHANNELS)}"
            )
        if self.mode not in CHANNELS[self.channel]:
            raise ValueError(
                f"regime {self.id!r} has mode {self.mode!r}; channel {self.channel!r} allows: "
                f"{', '.join(CHANNELS[self.channel])}"
            )
        if self.statistic not in STATISTICS:
            raise ValueError(
                f"regime {self.id!r} has statistic {self.statistic!r}; allowed: {', '.join(STATISTICS)}"
            )
        low, high = -math.inf if self.mode == "bias" else 0.0, 1.0 if self.mode in PROBABILITIES else math.inf
        is_number = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if not (is_number and math.isfinite(self.strength) and low <= self.strength <= high):
            allowed = "any number" if self.mode == "bias" else f"{low:g} to {high:g}"
            raise ValueError(f"regime {self.id!r} has strength {self.strength}; allowed: {allowed}")
        for window in self.windows:
            if not (len(window) == 2 and all(map(_is_whole, window)) and 0 <= window[0] < window[1]):
                raise ValueError(
                    f"regime {self.id!r} has window {list(window)}; allowed: [start, end] in whole steps, "
                    "0 <= start < end"
                )
        if list(self.windows) != sorted(self.windows):
            raise ValueError(f"regime {self.id!r} has windows {self.windows}; give them in order")

    def acts(self, step: int) -> bool:
        """Whether a window holds the step."""
        return any(start <= step < end for start, end in self.windows)


@dataclass(frozen=True, kw_only=True, order=True)
class Occurrence:
    """One window of one regime."""

    start: int
    end: int
    """First step after it."""
    regime: str
    number: int
    """Of the regime's windows, from 0."""

    @property
    def name(self) -> str:
        """As in rows: "sensory_fog/0"."""
        return f"{self.regime}/{self.number}"


@dataclass(frozen=True, kw_only=True)
class RegimePlan:
    """The regimes of one run.

    >>> published = RegimePlan(regimes=PUBLISHED, contact=True)
    >>> [regime.id for regime in published.acting(1250)], published.rate_factor(320)
    (['bewilderment'], 2.0)
    >>> RegimePlan(regimes=PUBLISHED)
    Traceback (most recent call last):
        ...
    ValueError: self_clamp/0 (steps 1100-1200) and bewilderment/0 (1200-1400) have 0 steps between them; \
allowed: 1 or more, or "contact": true, which lets one spoil the other's baseline
    """

    regimes: tuple[Regime, ...] = ()
    contact: bool = False
    """Whether windows may abut or overlap, which spoils their baselines."""
    least_gap: int = 1
    """Undisturbed steps between two windows; of no meaning with `contact`."""

    def __post_init__(self) -> None:
        """Refuse doubled ids, and contact unless asked for."""
        ids = [regime.id for regime in self.regimes]
        doubled = sorted({name for name in ids if ids.count(name) > 1})
        if doubled:
            raise ValueError(f"regimes occur twice: {', '.join(doubled)}; give each its windows in one")
        if not isinstance(self.contact, bool):
            raise ValueError(f"contact is {self.contact!r}; allowed: true or false")
        if not _is_whole(self.least_gap) or self.least_gap < 1:
            raise ValueError(f"least_gap is {self.least_gap!r}; allowed: 1 or more whole steps")
        for one, other in pairwise([] if self.contact else self.occurrences()):
            gap = other.start - one.end
            if gap < self.least_gap:
                between = f"overlap by {-gap} steps" if gap < 0 else f"have {gap} steps between them"
                raise ValueError(
                    f"{one.name} (steps {one.start}-{one.end}) and {other.name} ({other.start}-{other.end}) "
                    f'{between}; allowed: {self.least_gap} or more, or "contact": true, which lets one '
                    "spoil the other's baseline"
                )

    def refuse_outside(self, steps: int) -> None:
        """Check that every window lies in a run.

        Raises
        ------
        ValueError
            For a window that ends after the run.
        """
        for one in self.occurrences():
            if one.end > steps:
                raise ValueError(
                    f"{one.name} covers steps {one.start}-{one.end} of a run of {steps}; allowed: an end of "
                    f"at most {steps}: move the window or train longer"
                )

    def occurrences(self) -> tuple[Occurrence, ...]:
        """All windows by start."""
        return tuple(
            sorted(
                Occurrence(start=start, end=end, regime=regime.id, number=number)
                for regime in self.regimes
                for number, (start, end) in enumerate(regime.windows)
            )
        )

    def acting(self, step: int) -> tuple[Regime, ...]:
        """Regimes with a window over the step, in the order of the plan."""
        return tuple(regime for regime in self.regimes if regime.acts(step))

    def rate_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        return math.prod(regime.strength for regime in self.acting(step) if regime.mode == "lr_mult")

    def without(self, occurrence: Occurrence) -> RegimePlan:
        """The plan with one window taken out: what a counterfactual twin runs under."""
        gone = (occurrence.start, occurrence.end)
        kept = (
            replace(regime, windows=tuple(w for w in regime.windows if w != gone))
            if regime.id == occurrence.regime
            else regime
            for regime in self.regimes
        )
        return replace(self, regimes=tuple(kept))


def randomised(
    regimes: Sequence[Regime],
    *,
    steps: int,
    seed: int,
    occurrences: int = 3,
    length: int = 40,
    gaps: Window = (40, 80),
    first: int = 160,
) -> RegimePlan:
    """Windows drawn from a seed: each round holds every regime once, in an order of its own.

    Gaps are uniform on [low, high] while the run has room for the smallest gaps that are still to come. The
    wait before the first window is `first` and the excess of one gap.

    Parameters
    ----------
    regimes
        Their own windows are replaced.
    length
        Steps of a window.
    first
        Earliest step of a window.

    Raises
    ------
    ValueError
        When the windows with their smallest gaps do not fit into the run, or an argument is out of range.

    >>> plan = randomised(STRONG, steps=1800, seed=0)
    >>> len(plan.occurrences()), plan.occurrences()[0].start >= 160, plan.least_gap
    (15, True, 40)
    """
    low, high = gaps
    if not (1 <= low <= high and length >= 1 and occurrences >= 1 and first >= 0 and regimes):
        raise ValueError(
            f"{len(regimes)} regimes x {occurrences} windows of {length} steps, gaps {low}-{high}, first "
            f"{first}; allowed: 1 or more of each, gaps in order, first from 0"
        )
    n = len(regimes) * occurrences
    room = steps - first - n * length - (n - 1) * low
    if room < 0:
        raise ValueError(
            f"{n} windows of {length} steps with gaps of {low} from step {first} need {steps - room} steps; "
            f"the run has {steps}: train longer, or ask for fewer or shorter windows"
        )
    rng = np.random.default_rng([seed, n, length])
    windows: dict[str, list[Window]] = {regime.id: [] for regime in regimes}
    end = first - low
    for which in np.concatenate([rng.permutation(len(regimes)) for _ in range(occurrences)]):
        excess = int(rng.integers(0, min(high - low, room) + 1))
        room -= excess
        start = end + low + excess
        end = start + length
        windows[regimes[which].id].append((start, end))
    placed = tuple(replace(regime, windows=tuple(windows[regime.id])) for regime in regimes)
    return RegimePlan(regimes=placed, least_gap=low)


def plan_of(fields: Mapping[str, Any]) -> RegimePlan:
    """A plan from plain data.

    >>> from dataclasses import asdict
    >>> plan_of(asdict(SMOKE)) == SMOKE
    True
    """
    regimes = (Regime(**{**one, "windows": tuple(map(tuple, one["windows"]))}) for one in fields["regimes"])
    return RegimePlan(**{**fields, "regimes": tuple(regimes)})


def read_plan(path: Path) -> RegimePlan:
    """A plan from a JSON file.

    Raises
    ------
    ValueError
        A file that is absent, no JSON, not of regimes, or without a window; with what is wrong.
    """
    try:
        plan = plan_of({"contact": False, **json.loads(path.read_text(encoding="utf-8"))})
    except OSError as error:
        raise ValueError(f"the file of regimes {path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, RecursionError,
            OverflowError) as error:  # fmt: skip
        raise ValueError(
            f"{path} is no file of regimes ({error}); it holds JSON such as {EXAMPLE}"
        ) from error
    if not plan.regimes:
        raise ValueError(f"{path} has no regimes; it holds JSON such as {EXAMPLE}")
    idle = [regime.id for regime in plan.regimes if not regime.windows]
    if idle:
        raise ValueError(f"{path}: no windows of {', '.join(idle)}; give each regime one or more, in steps")
    return plan


LR_HEATWAVE = Regime(id="lr_heatwave", channel="optim", mode="lr_mult", strength=2.0, windows=((300, 350),))
SENSORY_FOG = Regime(
    id="sensory_fog", channel="input", mode="mask_tokens", strength=0.2, windows=((600, 800),)
)
FALSE_FEEDBACK = Regime(
    id="false_feedback", channel="stats", mode="bias", strength=0.5, windows=((900, 1000),)
)
SELF_CLAMP = Regime(id="self_clamp", channel="self", mode="clamp", strength=0.01, windows=((1100, 1200),))
BEWILDERMENT = Regime(
    id="bewilderment", channel="target", mode="random_targets", strength=0.5, windows=((1200, 1400),)
)

PUBLISHED = (LR_HEATWAVE, SENSORY_FOG, FALSE_FEEDBACK, SELF_CLAMP, BEWILDERMENT)
"""Windows and strengths of this study's earlier version; the last two abut."""
STRONG = (
    replace(LR_HEATWAVE, strength=10.0, windows=()),
    replace(SENSORY_FOG, strength=0.5, windows=()),
    replace(FALSE_FEEDBACK, strength=2.0, windows=()),
    replace(SELF_CLAMP, mode="clamp_relative", strength=0.2, windows=()),
    replace(BEWILDERMENT, windows=()),
)
"""Stronger, and without windows; a box of ±.01 does nothing to a small state, a share of its size does."""
SMOKE = RegimePlan(
    regimes=(
        replace(BEWILDERMENT, windows=((80, 100), (160, 180))),
        replace(SENSORY_FOG, strength=0.5, windows=((120, 140), (200, 220))),
    ),
    least_gap=20,
)
"""Of 240 steps."""
