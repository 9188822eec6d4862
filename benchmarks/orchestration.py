"""What a task of a flow costs beside a bare function call: `python -m benchmarks.orchestration`.

A flow of N tasks shaped as the lab's (a key of our own, a small JSON result kept, a product read back to see
whether it is whole) against the same N functions called in a loop, each of which writes the same product. A
second pass finds every task in the cache; the bare loop then finds every product. The goal is the night's:
what Prefect adds stays under 5 % of steps that take as long as ours do, some seconds each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments import environment, temporary_server

HOME = Path(tempfile.mkdtemp(prefix="orchestration-"))
environment.prepare(HOME)
SERVER = temporary_server.start(HOME)

from prefect import flow, task  # noqa: E402  (after the environment is set)

from benchmarks.table import promised, runs  # noqa: E402
from lab.products import Products  # noqa: E402
from tasks.shell import product_key  # noqa: E402

STEP_SECONDS, GOAL = 3.0, 0.05
"""A measured step of the studies at `smoke` takes about so long; what the night may add to it."""


def work(home: Path, key: str) -> dict[str, Any]:
    """What a step does: nothing, and keeps it."""
    products = Products(home, "trivial")
    if products.read(key) is None:
        products.write(key, {"key": key})
    return {"key": key}


def _is_whole(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, "trivial").read(parameters["key"]) is not None


@task(name="trivial", persist_result=True, result_serializer="json", cache_key_fn=product_key(_is_whole))
def step(home: str, key: str) -> dict[str, Any]:
    """The same as a task."""
    return work(Path(home), key)


@flow(name="trivial")
def study(home: str, keys: list[str]) -> int:
    """A flow of trivial tasks."""
    return len([step(home, key) for key in keys])


def timed(call: Any, *arguments: Any) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def bare(home: Path, keys: list[str]) -> None:
    """The peer."""
    for key in keys:
        work(home, key)


def main() -> None:
    """Print milliseconds a task, cold and cached, and the share of a step of STEP_SECONDS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=50)
    many = parser.parse_args().tasks
    if SERVER is not None:
        SERVER.wait_ready()
    study(str(HOME), ["first"])  # connects, and makes the flow known
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "cached": []}
    for run in range(runs(5, 2)):
        keys = [f"run{run}-{i}" for i in range(many)]
        for kind in found:
            ours, theirs = timed(study, str(HOME), keys), timed(bare, HOME / "bare", keys)
            found[kind].append((1000 * ours / many, 1000 * theirs / many))
    for kind, pairs in found.items():
        promised(f"a {kind} task, ms, flow's start and end in it", "ms, wall", [a for a, _ in pairs])
        promised(f"a {kind} task, times as long", "a bare function", [a / b for a, b in pairs])
    share = [(a - b) / 1000 / STEP_SECONDS for a, b in found["cold"]]
    promised(f"overhead of a task, share of {STEP_SECONDS:g} s", "a bare function", share, most=GOAL)


if __name__ == "__main__":
    main()
