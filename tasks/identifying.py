"""Which model a backend has: asked anew in every run, since a name can mean another model tomorrow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.generation import Model, opened
from tasks.shell import RETRY_DELAYS_SECONDS, can_differ


@task(
    name="identify",
    task_run_name="identify {model.path}",
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=can_differ,
)
def identify(home: str, model: Model) -> dict[str, Any]:
    """Name, digest, sizes and server version of the model."""
    return asdict(opened(model, Path(home)).identity())
