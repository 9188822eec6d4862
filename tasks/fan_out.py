"""Where a flow's tasks run at once: threads here, or the workers of a Ray or Dask cluster, by setting.

`LADDER_TASK_RUNNER` is `threads` (the default), `ray` or `dask`; `LADDER_RAY_ADDRESS` and
`LADDER_DASK_ADDRESS` name a running cluster, and without one the runner starts a local one for the flow, a
worker a core. Workers need this code installed, the home at the same path (shared storage) and a Prefect
server they can reach. The variables are read when a flow is imported. Trainings run in processes of
`tasks.killable` all the same, each a child of its worker.
"""

from __future__ import annotations

import copyreg
import os
from collections.abc import Callable
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from lab.errors import UsageError, unknown

VARIABLE = "LADDER_TASK_RUNNER"
RAY_ADDRESS = "LADDER_RAY_ADDRESS"
DASK_ADDRESS = "LADDER_DASK_ADDRESS"
RAY_OBJECT_STORE_BYTES = 256 * 2**20
"""Of a local cluster: tasks return a few numbers, and Ray would take a third of the memory."""


def _as_it_is(quoted: Any) -> tuple[Any, tuple[Any]]:
    return quote, (quoted[0],)


# sent to another process as it stands, Prefect 3.8.8's `quote` comes out with its value in a tuple
copyreg.pickle(quote, _as_it_is)


def runner() -> TaskRunner[Any]:
    """The task runner that the environment asks for, for `@flow(task_runner=...)`.

    Raises
    ------
    UsageError
        Another name, or a package that is not installed.
    """
    name = os.environ.get(VARIABLE, "").strip() or "threads"
    if name not in _RUNNERS:
        raise unknown(VARIABLE, name, _RUNNERS)
    return _RUNNERS[name]()


def _threads() -> TaskRunner[Any]:
    return ThreadPoolTaskRunner()


def _ray() -> TaskRunner[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports use unless told otherwise
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise _not_installed("ray", error) from error
    address = os.environ.get(RAY_ADDRESS, "").strip()
    if address:
        return _typed(RayTaskRunner(address=address))
    local = {
        "num_cpus": os.cpu_count() or 1,
        "include_dashboard": False,
        "object_store_memory": RAY_OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "log_to_driver": False,
    }
    return _typed(RayTaskRunner(init_kwargs=local))


def _dask() -> TaskRunner[Any]:
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise _not_installed("dask", error) from error
    address = os.environ.get(DASK_ADDRESS, "").strip()
    if address:
        return _typed(DaskTaskRunner(address=address))
    local = {"n_workers": os.cpu_count() or 1, "threads_per_worker": 1, "dashboard_address": None}
    return _typed(DaskTaskRunner(cluster_kwargs=local))


def _typed(made: Any) -> TaskRunner[Any]:
    assert isinstance(made, TaskRunner)
    return made


def _not_installed(name: str, error: ImportError) -> UsageError:
    return UsageError(
        f"{VARIABLE} is {name!r}, but {error}; install it with "
        f"pip install -e '.[{name}]' -c constraints.txt, or unset the variable"
    )


_RUNNERS: dict[str, Callable[[], TaskRunner[Any]]] = {"threads": _threads, "ray": _ray, "dask": _dask}
