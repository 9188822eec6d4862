"""The night: every study within a budget, each followed to where its gates lead.

A queue of candidates, smallest first. Before each the time it needs is predicted from past runs; it starts
only if it fits into what is left, or if no night could hold it. It runs as a run of its deployment in a
process of its own, from a copy of the code, is stopped when the budget is spent, and goes on next night.
After it the decisions that it recorded are read, and what their routes name joins the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.night_run import Wishes, begin
from flows.registry import find_study, studies
from lab.errors import unknown
from lab.home import resolve_home
from lab.night_book import only_night
from lab.night_queue import budget_seconds


@dataclass(frozen=True, kw_only=True)
class Overnight:
    """What a night can be told."""

    budget: Annotated[str, Field(description="How long it may take: 8h, 90m, 3m, 45s")] = "8h"
    profile: Annotated[
        Literal["smoke", "fast", "laptop", "full"],
        Field(description="Of every study; one that lacks it runs its smoke"),
    ] = "smoke"
    studies: Annotated[tuple[str, ...], Field(description="Names in any order; empty: all of them")] = ()
    only_left: Annotated[
        bool, Field(description="Run what earlier nights left, and where it leads, and nothing else")
    ] = False
    climb: Annotated[
        bool, Field(description="Whether routes may lead to another profile; else they are proposed")
    ] = True

    def __post_init__(self) -> None:
        """Refuse what no night can be."""
        budget_seconds(self.budget)


def refuse_unknown(settings: Overnight) -> None:
    """Nothing, if every study and the profile exist.

    Raises
    ------
    UsageError
        Else, with the nearest names.
    """
    known = studies()
    for name in settings.studies:
        find_study(name)
    profiles = {profile for study in known.values() for profile in study.profiles}
    if settings.profile not in profiles:
        raise unknown("profile", settings.profile, profiles)


@flow(
    name="overnight",
    flow_run_name="night · {settings.profile} · {settings.budget}",
    description="Every study within a budget, each followed to where its gates lead.",
    validate_parameters=True,
)
def overnight(settings: Overnight = Overnight()) -> State[dict[str, Any]]:
    """Run the night; its result says what was done and what is left, and why."""
    refuse_unknown(settings)
    home = resolve_home()
    with only_night(home):
        wishes = Wishes(
            profile=settings.profile,
            names=settings.studies,
            only_left=settings.only_left,
            climb=settings.climb,
        )
        night = begin(home, wishes, budget_seconds=budget_seconds(settings.budget))
        try:
            night.run()
        except BaseException as error:
            stopped = not isinstance(error, Exception)
            night.end("cancelled" if stopped else "failed", f"{type(error).__name__}: {error}")
            raise
        night.end(*night.how_it_ended())
    return Completed(message=night.summary(), data=night.result())
