"""Which model a backend has: asked anew in every run, since a name can mean another model tomorrow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.generation import Model, opened


@task(name="identify", task_run_name="identify {model.path}", cache_policy=NO_CACHE)
def identify(home: str, model: Model) -> dict[str, Any]:
    """Name, digest, sizes and server version of the model."""
    return asdict(opened(model, Path(home)).identity())
