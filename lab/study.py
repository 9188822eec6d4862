"""What every study declares about itself, so that commands, deployments and the report treat all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import unknown
from lab.gates import Gate
from lab.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Call:
    """Work of a process: `models.module:function` and its arguments by name, plain data."""

    function: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One line of a dry run."""

    name: str
    units: int
    """Texts, models or analyses the step makes."""
    cached: int
    """How many of them are here already."""
    expected_seconds: float | None = None
    """For what is missing; None when nobody has measured it yet."""
    ahead: tuple[Call, ...] = ()
    """What makes the missing units that wait for nothing else, so that a night may make them beforehand."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: its question, its profiles, its tree and the flow that runs it."""

    name: str
    title: str
    question: str
    prediction: str
    profiles: Mapping[str, Any]
    """Profile name -> frozen settings, smallest first; all of one dataclass, `smoke` among them."""
    gates: tuple[Gate, ...]
    plan: Callable[[Any], Plan]
    """Settings -> plan."""
    steps: Callable[[Any, Path], list[PlannedStep]]
    """Settings, home -> dry run; changes nothing."""
    flow: Callable[..., Any]
    """`flow(settings=...)`, a Prefect flow."""
    entrypoint: str
    """Module entrypoint of the flow, e.g. `flows.entropy_seeds.entropy_seeds`."""
    next_flows: tuple[str, ...]
    """Flows its routes may name, built or not."""
    expected_seconds: Mapping[str, float] = field(default_factory=dict)
    """Profile -> wall time from cold on two cores: measured where it was run, else reckoned from `smoke`."""
    parts: Callable[[Any], list[Mapping[str, Any]]] | None = None
    """Settings -> changed fields of each part that a night runs before the whole, in order."""
    only: Callable[[Any, str, str | None], Mapping[str, Any]] | None = None
    """(settings, name, folder of --out) -> `lines` to print, whether all `passed`: one part of the study."""
    strict_gates: tuple[str, ...] = ()
    """Gates that `ladder run --strict` asks to be DETECTED."""

    @property
    def primary_gate(self) -> str:
        """The gate that answers the question; its INVALID makes the command line exit 3."""
        return [gate.name for gate in self.gates if gate.is_primary][-1]

    def settings(self, profile: str) -> Any:
        """A profile's settings.

        Raises
        ------
        UsageError
            There is no such profile.
        """
        if profile not in self.profiles:
            raise unknown(f"profile of {self.name}", profile, self.profiles)
        return self.profiles[profile]

    def smaller_profile(self, profile: str) -> str | None:
        """The profile before this one, where a night goes when a run of this one gave no result."""
        names = list(self.profiles)
        place = names.index(profile) if profile in names else 0
        return names[place - 1] if place else None

    def deployment(self, profile: str) -> str:
        """Name of the deployment that runs a profile."""
        return f"{self.name.replace('_', '-')}/{profile}"
