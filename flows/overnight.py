"""The night: every study within a budget, each followed to where its gates lead.

A queue of candidates, smallest first. Before each the time it needs is predicted from past runs; it starts
only if it fits into what is left, or if no night could hold it. It runs as a run of its deployment in a
process beside the night's, from a copy of the code, is stopped when the budget is spent, and goes on next
night. After it the decisions that it recorded are read, and what their routes name joins the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import registry
from flows.night_run import Wishes, begin
from lab.errors import unknown
from lab.home import resolve_home
from lab.night_book import only_night
from lab.night_queue import budget_seconds

Profile = Literal["smoke", "fast", "laptop", "full"]


def refuse_unknown(budget: str, profile: str, names: Sequence[str]) -> None:
    """Nothing, if the budget is one and every study and the profile exist.

    Raises
    ------
    UsageError
        Else, with the nearest names.
    """
    budget_seconds(budget)
    for name in names:
        registry.find_study(name)
    profiles = {known for study in registry.studies().values() for known in study.profiles}
    if profile not in profiles:
        raise unknown("profile", profile, profiles)


@flow(
    name="overnight",
    flow_run_name="night · {profile} · {budget}",
    description="Every study within a budget, each followed to where its gates lead.",
    validate_parameters=True,
)
def overnight(
    budget: str = "8h",
    profile: Profile = "smoke",
    studies: tuple[str, ...] = (),
    only_left: bool = False,
    climb: bool = True,
) -> State[dict[str, Any]]:
    """Run the night; its result says what was done and what is left, and why.

    Args:
        budget: How long it may take: 8h, 90m, 3m, 45s.
        profile: Of every study; one that lacks it runs its smoke.
        studies: Names in any order; empty: all of them.
        only_left: Run what earlier nights left, and where it leads, and nothing else.
        climb: Whether routes may lead to another profile; else they are proposed.
    """
    refuse_unknown(budget, profile, studies)
    home = resolve_home()
    with only_night(home):
        names = tuple(name.replace("-", "_") for name in studies)
        wishes = Wishes(profile=profile, names=names, only_left=only_left, climb=climb)
        night = begin(home, wishes, budget_seconds=budget_seconds(budget))
        try:
            night.fill()
            night.run()
        except BaseException as error:
            stopped = not isinstance(error, Exception)
            why = "stopped by hand; the next night goes on" if stopped else f"{type(error).__name__}: {error}"
            night.end("cancelled" if stopped else "failed", why)
            raise
        night.end(*night.how_it_ended())
    return Completed(message=night.summary(), data=night.result())
