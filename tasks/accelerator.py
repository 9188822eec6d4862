"""One task at a time on the accelerator: the server's limit of that name, which its pages show and change.

Where there is no accelerator nothing is asked, as asking costs some 180 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.concurrency.sync import concurrency

LIMIT = "accelerator"
DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""There is one where a driver for NVIDIA's or AMD's accelerators is loaded."""


@contextmanager
def accelerator() -> Iterator[None]:
    """Hold the accelerator, waiting for whoever does; on a server without the limit nobody waits."""
    if not any(device.exists() for device in DEVICES):
        yield
        return
    with concurrency(LIMIT, occupy=1):
        yield
