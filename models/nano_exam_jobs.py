"""What a worker process does with a kept run: test it frozen, swap its state, ask its update.

Arguments and results are plain data, as in `models.nano_jobs`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.nano_frozen import FrozenSpec, frozen_test
from models.nano_jobs import Report, state_of, text_of
from models.nano_sensitivity import input_sensitivity
from models.nano_streams import stream
from models.nano_swap import swap_losses
from models.nano_training import load_run
from models.nanogpt import INIT_STD


def frozen(
    *, source: dict[str, Any], cache: str, directory: str, spec: dict[str, Any], seed: int, report: Report
) -> dict[str, Any]:
    """The frozen test of a kept run, as plain data.

    Parameters
    ----------
    spec
        Fields of `FrozenSpec`, and `random_injection`: whether a P drawn at random is put in first.
    """
    torch.set_num_threads(1)
    run = load_run(Path(directory), text_of(cache, **source))
    told = dict(spec)
    if told.pop("random_injection") and run.state is not None:
        draws = stream(seed, "random injection")
        with torch.no_grad():
            run.state.injection.normal_(0.0, INIT_STD, generator=draws)
    return asdict(frozen_test(run, FrozenSpec(**told), seed=seed))


def swap(
    *,
    source: dict[str, Any],
    cache: str,
    directory: str,
    foreign: str,
    other_init: str,
    seed: int,
    report: Report,
) -> dict[str, float]:
    """Held-out loss of a kept run with its own and with other states."""
    torch.set_num_threads(1)
    corpus = text_of(cache, **source)
    run = load_run(Path(directory), corpus)
    return swap_losses(
        run, foreign=state_of(Path(foreign), corpus), other_init=state_of(Path(other_init), corpus), seed=seed
    )


def sensitivity(*, source: dict[str, Any], cache: str, directory: str, report: Report) -> dict[str, float]:
    """What each feature of the update moves, in a kept run."""
    torch.set_num_threads(1)
    return input_sensitivity(load_run(Path(directory), text_of(cache, **source)))
