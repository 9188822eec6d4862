"""Which ranks each arm of a seed gets: from the audit, by shuffling those, or the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from models import rank_controls
from models.rank_policies import POLICIES, shapes_of_audits
from models.spectra import ModuleAudit

PROBE, TREATMENT = "probe", "per_layer"
KINDS = (
    "shuffled_within",
    "shuffled_full",
    "shuffled_free",
    "inverse",
    "uniform_equal",
    "cross_seed",
    "uniform_median",
    "uniform_p90",
    "eva",
)
"""Arms beside probe and treatment."""
AT_BUDGET = ("shuffled_within", "shuffled_full", "inverse", "uniform_equal")
"""Arms that cost what the treatment costs; uniform_equal as nearly as one rank can."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What one arm of one seed is given."""

    arm: str
    ranks: Mapping[str, int]
    initialisation: Literal["nested", "eva"] = "nested"
    notes: tuple[str, ...] = ()


def arm_names(kinds: Sequence[str], shuffles: int) -> tuple[str, ...]:
    """Every arm by name, the probe first; shuffles within projections are numbered from 1."""
    within = [f"shuffled_within {k}" for k in range(1, shuffles + 1)]
    others = [kind for kind in KINDS if kind in kinds and kind != "shuffled_within"]
    return (PROBE, TREATMENT, *within, *others)


def kind_of(arm: str) -> str:
    """`shuffled_within 3` is a shuffled_within."""
    return arm.split(" ")[0]


def place(
    names: Sequence[str],
    audits: Mapping[int, Sequence[ModuleAudit]],
    seed: int,
    *,
    policy: str,
) -> dict[str, Placed]:
    """Ranks of every arm but the probe.

    Parameters
    ----------
    names
        See `arm_names`.
    audits
        Seed -> audit of its probe. `cross_seed` takes that of the seed before, the first seed that after it.
    """
    own, shapes = audits[seed], shapes_of_audits(audits[seed])
    chosen = POLICIES[policy](own)
    ranks, budget = chosen.ranks, chosen.parameters
    rows = {
        "shuffled_full": lambda: rank_controls.shuffled_full(ranks, shapes, seed=seed),
        "shuffled_free": lambda: rank_controls.shuffled_free(ranks, shapes, seed=seed),
        "inverse": lambda: rank_controls.inverse(ranks, shapes),
        "uniform_equal": lambda: rank_controls.uniform_equal(ranks, shapes),
        "cross_seed": lambda: POLICIES[policy](audits[_neighbour(seed, audits)], budget=budget),
        "uniform_median": lambda: POLICIES["uniform_median"](own),
        "uniform_p90": lambda: POLICIES["uniform_p90"](own),
        "eva": lambda: rank_controls.uniform_equal(ranks, shapes),
    }
    found = {TREATMENT: chosen}
    for name in names:
        kind = kind_of(name)
        if kind == "shuffled_within":
            draw = int(name.split(" ")[1])
            found[name] = rank_controls.shuffled_within(ranks, shapes, seed=seed, draw=draw)
        elif kind in rows:
            found[name] = rows[kind]()
    return {
        name: Placed(
            arm=name,
            ranks=one.ranks,
            initialisation="eva" if name == "eva" else "nested",
            notes=one.notes,
        )
        for name, one in found.items()
    }


def _neighbour(seed: int, audits: Mapping[int, object]) -> int:
    return seed - 1 if seed - 1 in audits else seed + 1
