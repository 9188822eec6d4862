"""A home with a real server and worker for tests, and a study small enough to be run by them."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State

from deployments import environment, processes, service
from flows.registry import find_study
from lab.study import Study

NIGHT = "overnight/nightly"
COIN = '''
"""A study small enough to be run by a worker in a test."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from prefect import flow, task
from prefect.concurrency.sync import concurrency
from pydantic import Field

from lab.study import Study


@dataclass(frozen=True, kw_only=True)
class Coin:
    tosses: Annotated[int, Field(description="How often", ge=1)] = 3
    sides: tuple[str, ...] = ("heads", "tails")
    seconds: float = 0.0


SMOKE, LONG = Coin(), Coin(seconds=300.0)


@task
def toss(settings: Coin) -> int:
    if settings.seconds:  # killed runs are long ones, and would hold the limit for another five minutes
        time.sleep(settings.seconds)
        return settings.tosses
    with concurrency("accelerator", occupy=1, strict=True):
        pass
    return settings.tosses


@flow(name="coin-toss")
def coin_toss(settings: Coin = SMOKE) -> int:
    if not settings.sides:
        raise ValueError("a coin without sides")
    Path(os.environ["LADDER_HOME"], "started.txt").write_text(os.getcwd(), encoding="utf-8")
    return toss(settings)


STUDY = Study(
    name="coin_toss",
    title="Coin",
    question="Is it fair?",
    prediction="It is.",
    profiles={"smoke": SMOKE, "long": LONG},
    gates=(),
    plan=lambda settings: None,
    steps=lambda settings, home: [],
    flow=coin_toss,
    entrypoint="coinstudy.coin.coin_toss",
    next_flows=(),
)
'''


@dataclass(frozen=True)
class Lab:
    """A home, a study, and what `up` says."""

    home: Path
    study: Study
    said: list[str]

    def up(self) -> environment.Service:
        """`ladder up` with the coin and one study of ours."""
        studies = [self.study, find_study("nanodesmo")]
        return service.up(self.home, studies, port=None, report=self.said.append)


def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab for the tests of a module; when they are done, nothing of it may run."""
    packages = tmp_path_factory.mktemp("packages")
    (packages / "coinstudy").mkdir()
    (packages / "coinstudy" / "__init__.py").touch()
    (packages / "coinstudy" / "coin.py").write_text(COIN, encoding="utf-8")
    home = tmp_path_factory.mktemp("homes") / "Nächte und Tage"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("PREFECT_") or name == "LADDER_HOME":
                patch.delenv(name)
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        patch.setenv("PYTHONPATH", str(packages))
        patch.syspath_prepend(str(packages))
        try:
            yield Lab(home=home, study=importlib.import_module("coinstudy.coin").STUDY, said=[])
        finally:
            found = environment.read_service(home)
            service.down(home, report=lambda _: None)
            assert found is None or processes.marked(found.mark) == []


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def begin(lab: Lab, deployment: str, **settings: Any) -> UUID:
    """Have the worker begin a run; the lab is up."""
    found = environment.read_service(lab.home)
    assert found is not None
    with service.client(found.url) as api:
        known = api.read_deployment_by_name(deployment)
        parameters = settings if deployment == NIGHT or not settings else {"settings": settings}
        return api.create_flow_run_from_deployment(known.id, parameters=parameters).id


def state_of(lab: Lab, run: UUID) -> State[Any]:
    """What the server says of a run."""
    found = environment.read_service(lab.home)
    assert found is not None
    with service.client(found.url) as api:
        state = api.read_flow_run(run).state
    assert state is not None
    return state
