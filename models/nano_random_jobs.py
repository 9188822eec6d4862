"""What a worker process does to go on with a kept run whose state is replaced by a random one of its norm.

Apart from `models.nano_jobs`, so that a change here leaves every other training what it is filed under.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.nano_jobs import REPORT_EVERY, Report, state_of, text_of
from models.nano_log import Reaction
from models.nano_recipe import Seeds, recipe_of
from models.nano_streams import stream
from models.nano_training import Begin, train
from models.regimes import plan_of


def random_like(own: Tensor, seed: int) -> Tensor:
    """|own| u with u uniform on the sphere, (d,).

    >>> own = torch.tensor([3.0, 4.0])
    >>> found = random_like(own, seed=0)
    >>> round(float(found.norm()), 5), bool(torch.equal(found, random_like(own, seed=0)))
    (5.0, True)
    """
    way = torch.randn(own.shape, generator=stream(seed, "swap", "continued"))
    found: Tensor = way * (own.norm() / way.norm())
    return found


def go_on_random(
    *,
    source: dict[str, Any],
    cache: str,
    recipe: dict[str, Any],
    seeds: dict[str, int],
    plan: dict[str, Any],
    directory: str,
    until: int | None,
    begin: str,
    report: Report,
) -> dict[str, Any]:
    """Go on with a kept run from a random state.

    Parameters
    ----------
    begin
        Directory of the run that it goes on from.

    Returns
    -------
    dict
        As of `models.nano_jobs.train_run`.

    Raises
    ------
    ValueError
        The run has no state.
    """
    torch.set_num_threads(1)
    corpus, told = text_of(cache, **source), Seeds(**seeds)

    def tell(row: Reaction) -> None:
        if row.step % REPORT_EVERY == 0:
            report({"step": row.step})

    trained = train(
        recipe_of(recipe),
        corpus,
        seeds=told,
        plan=plan_of(plan),
        directory=Path(directory),
        begin=Begin(
            directory=Path(begin), state=random_like(state_of(Path(begin), corpus), told.intervention)
        ),
        until=until,
        report=tell,
    )
    return {
        "digest": trained.digest,
        "valid_loss_nats": trained.valid_loss_nats,
        "steps_resumed": trained.steps_resumed,
    }
