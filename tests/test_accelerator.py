"""The limit on the accelerator: one at a time where there is one, nothing asked where there is none."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from deployments import register
from tasks import accelerator


def spans() -> list[tuple[float, float]]:
    """When two threads had the accelerator."""
    found: list[tuple[float, float]] = []

    def hold() -> None:
        with accelerator.accelerator():
            began = time.monotonic()
            time.sleep(0.5)
            found.append((began, time.monotonic()))

    both = [threading.Thread(target=hold) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    return sorted(found)


def test_two_tasks_take_turns_on_an_accelerator(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.setattr(accelerator, "DEVICES", (Path("/dev/null"),))
    with get_client(sync_client=True) as api:
        register.prepare_server(api)
    assert accelerator.LIMIT == register.ACCELERATOR
    (_, end), (begin, _) = spans()
    assert begin >= end


def test_without_an_accelerator_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "DEVICES", (Path("/dev/no accelerator"),))
    asked: list[str] = []
    monkeypatch.setattr(accelerator, "concurrency", lambda limit, occupy: asked.append(limit))
    with accelerator.accelerator():
        assert asked == []
