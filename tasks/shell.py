"""How work becomes a Prefect task: our own cache keys, and retries only for what can differ next time.

Every cached task takes `home` and `key`; the key is made by the flow of config and code fingerprints. Prefect
remembers the small result; the product itself is a file with a checksum. A task's `is_complete` says whether
the product is whole, and if not, Prefect's record is dropped, so that the task runs again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from models.backends import BackendError

RETRY_DELAYS_SECONDS = [2.0, 15.0]

T = TypeVar("T")
IsComplete = Callable[[Path, Mapping[str, Any]], bool]
KeyFunction = Callable[[TaskRunContext, dict[str, Any]], str]


def product_key(is_complete: IsComplete) -> KeyFunction:
    """A Prefect `cache_key_fn`: `<task>-<key>`, the record dropped when its product is gone or damaged."""

    def cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        name = f"{context.task.name}-{parameters['key']}"
        record = Path(get_current_settings().results.local_storage_path) / name
        if record.exists() and not (
            _reads_back(record) and is_complete(Path(parameters["home"]), parameters)
        ):
            record.unlink(missing_ok=True)
        return name

    return cache_key


def _reads_back(record: Path) -> bool:
    try:
        json.loads(record.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def unwalked(value: T) -> T:
    """A task's argument that Prefect takes as it is.

    Prefect looks into every list and dataclass among the arguments for results of other tasks: with 25,000
    rows that took ten times as long as recording them. The task gets the value itself.
    """
    return cast(T, quote(value))


def can_differ(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """A Prefect `retry_condition_fn`: retry a model server's passing faults and nothing else."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BackendError) and error.retryable
