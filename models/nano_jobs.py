"""What a worker process does for the nanodesmo study: train a run.

Arguments and results are plain data. A corpus stays in memory between calls. One thread: sums are then the
same whatever the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from models.nano_corpus import NanoCorpus
from models.nano_log import Reaction
from models.nano_recipe import Seeds, recipe_of
from models.nano_texts import TextSource, corpus_of
from models.nano_training import Begin, load_run, train
from models.regimes import plan_of

Report = Callable[[dict[str, Any]], None]
REPORT_EVERY = 50
"""Steps between two reports."""


def train_run(
    *,
    source: dict[str, Any],
    cache: str,
    recipe: dict[str, Any],
    seeds: dict[str, int],
    plan: dict[str, Any],
    directory: str,
    until: int | None,
    begin: str | None,
    placed: str | None,
    first: str | None = None,
    report: Report,
) -> dict[str, Any]:
    """Train a run, or go on with it from its checkpoint.

    Parameters
    ----------
    begin
        Directory of the run that it goes on from; None: from its own beginning.
    placed
        What replaces the state then: `zero`, or the directory of the run whose state it is; None: nothing.
    first
        Directory of its own first part, if that was trained by itself.

    Returns
    -------
    dict
        `digest`, `valid_loss_nats`, `steps_resumed`.

    Raises
    ------
    ValueError
        A state is placed in a run without one, or of one.
    """
    torch.set_num_threads(1)
    corpus = text_of(cache, **source)

    def tell(row: Reaction) -> None:
        if not row.twin and row.step % REPORT_EVERY == 0:
            report({"step": row.step})

    state = None
    if begin is not None and placed is not None:
        own = state_of(Path(begin), corpus)
        state = torch.zeros_like(own) if placed == "zero" else state_of(Path(placed), corpus)
    trained = train(
        recipe_of(recipe),
        corpus,
        seeds=Seeds(**seeds),
        plan=plan_of(plan),
        directory=Path(directory),
        begin=None if begin is None else Begin(directory=Path(begin), state=state),
        first=None if first is None else Path(first),
        until=until,
        report=tell,
    )
    return {
        "digest": trained.digest,
        "valid_loss_nats": trained.valid_loss_nats,
        "steps_resumed": trained.steps_resumed,
    }


def state_of(directory: Path, corpus: NanoCorpus) -> torch.Tensor:
    """The state of a kept run as it ended, (d,).

    Raises
    ------
    ValueError
        It has none.
    """
    run = load_run(directory, corpus)
    if run.state is None:
        raise ValueError(
            f"{directory.name} has no self-state to lend or to be replaced; name a run that has one"
        )
    return run.state.s.clone()


@lru_cache(maxsize=4)
def text_of(cache: str, **source: Any) -> NanoCorpus:
    """A text by the fields of its source."""
    return corpus_of(TextSource(**source), Path(cache))
