"""Texts from a model that has just been loaded, a batch a task.

What `cold` means depends on the backend. Ollama: the server is told to drop the model before every single
text (`keep_alive` 0), so each one is the first after a load. Models in this process: weights are read from
disk again and a new backend object made before every batch, whose rows do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from tasks import generation
from tasks.generation import Model, opened
from tasks.seed_cells import Sample
from tasks.shell import RETRY_DELAYS_SECONDS, can_differ, product_key

TEXTS_A_LOAD = {"local": 64, "transformers": 64, "ollama": 1}
"""Texts that one load of the model serves."""


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return not generation.missing(home, parameters["samples"])


@task(
    name="generate cold",
    task_run_name="generate cold {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=can_differ,
)
def generate_cold(home: str, what: str, model: Model, samples: Sequence[Sample], key: str) -> dict[str, Any]:
    """Make the missing texts of a batch, the model loaded anew; see `tasks.generation.generate_batch`."""
    place = Path(home)
    failures: dict[str, Any] = {}
    for part in generation.batches(generation.missing(place, samples), TEXTS_A_LOAD[model.backend]):
        unload(place, model)
        failures |= generation.generate_batch(place, model, part)["failures"]
    return {"failures": failures}


def unload(home: Path, model: Model) -> None:
    """Have the next text start from a load of the model."""
    if model.backend == "ollama":
        from models.ollama_backend import OllamaBackend

        timeout = model.timeout_seconds
        OllamaBackend(model.path, host=model.host, timeout_seconds=timeout).unload()
        return
    from models import transformers_backend  # imports torch

    transformers_backend._load.cache_clear()  # it has no public door yet
    opened.cache_clear()
