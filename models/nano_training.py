"""Training a GPT that may read its own statistics: a plain loop that can be killed anywhere.

Its directory holds the log, a line a step, and the last checkpoint: safetensors and a manifest with every
hash. Going on cuts the log back to the checkpoint and ends in the bits of a run that was never stopped.

The plain GPT of `PROFILES["full"]` reaches 1.88 nats on tiny Shakespeare's held-out tenth in nanoGPT.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.kept import keep, load_kept
from models.nano_corpus import NanoCorpus
from models.nano_log import CHECKPOINT, LOG, STATE, Reaction, ReactionLog
from models.nano_recipe import NanoRecipe, Seeds, recipe_of
from models.nano_run import NanoRun
from models.regimes import RegimePlan, plan_of

Report = Callable[[Reaction], None]
Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Begin:
    """Another run's kept state to go on from, with a state of one's own choice."""

    directory: Path
    """Of the other run; its recipe has the same shapes."""
    state: Tensor | None = None
    """(d,) put in the place of its state; None leaves it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NanoTrained:
    """What one training came to."""

    run: NanoRun
    """Network and state as they ended, with the state's trajectory, what the update saw and the looks."""
    rows: tuple[Reaction, ...]
    """Of the run, and of its twins at the step where they fork."""
    valid_loss_nats: float
    """Over the whole held-out text, with the own state."""
    digest: str
    """Of weights, moments, state and memory."""
    steps_resumed: int
    """Taken over from a checkpoint."""
    seconds: float
    """Of all its runs, up to each last checkpoint."""


def train(
    recipe: NanoRecipe,
    corpus: NanoCorpus,
    *,
    seeds: Seeds | int,
    plan: RegimePlan | None = None,
    directory: Path | None = None,
    begin: Begin | None = None,
    first: Path | None = None,
    until: int | None = None,
    report: Report | None = None,
) -> NanoTrained:
    """Train a run, or go on with one.

    Parameters
    ----------
    directory
        Of the log and the state. A run of the same recipe, text, seeds and plan that is there goes on where
        its checkpoint stands, and one that is done is read back.
    begin
        Where to start from when there is no checkpoint.
    first
        Directory of the same run, trained until an earlier step: gone on with when there is no checkpoint.
    until
        Stop after so many steps; the schedule stays that of the recipe. None: all of them.
    report
        Called with each row as it comes.

    Raises
    ------
    ValueError
        When a loss stops being a number: rows and the last checkpoint stay. Else as `NanoRun`.
    """
    last = recipe.steps if until is None else until
    if not 0 < last <= recipe.steps:
        raise ValueError(f"until is {until}; allowed: 1 to {recipe.steps}, the recipe's steps")
    with one_thread():
        run = NanoRun(recipe, corpus, seeds, plan)
        kept = _Kept(run, directory, begin, first)
        resumed = kept.take_up()
        try:
            valid = kept.valid if run.step == last else None
            for row in _to(last, run, kept):
                kept.log.add(row)
                if report is not None:
                    report(row)
            if valid is None:
                valid = run.valid_loss_nats()
                kept.put_down(valid)
        finally:
            kept.log.close()
        return NanoTrained(
            run=run,
            rows=tuple(kept.log.rows),
            valid_loss_nats=valid,
            digest=run.digest(),
            steps_resumed=resumed,
            seconds=kept.seconds(),
        )


def _to(last: int, run: NanoRun, kept: _Kept) -> Iterator[Reaction]:
    """Rows up to a step; looks, twins and checkpoints on the way."""
    if run.step > last:
        raise ValueError(f"the run stands at step {run.step}, beyond {last}: ask for a later `until`")
    looks = run.recipe.look_steps()
    while True:
        if run.step in looks:
            run.look()
        if run.step == last:
            return
        if run.recipe.twin_tail is not None:
            for occurrence in run.plan.occurrences():
                if occurrence.start == run.step:
                    yield from run.twin_rows(occurrence)
        yield run.advance()
        if run.step % run.recipe.checkpoint_every == 0 and run.step < last:
            kept.put_down(None)


class _Kept:
    """A run's directory: its log and its last checkpoint."""

    def __init__(self, run: NanoRun, directory: Path | None, begin: Begin | None, first: Path | None) -> None:
        self._run, self._directory, self._begin, self._first = run, directory, begin, first
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self.log = ReactionLog(None if directory is None else directory / LOG)
        self.valid: float | None = None
        """Of a checkpoint that ended a training."""
        self._began, self._before = time.perf_counter(), 0.0

    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _identity(self) -> Body:
        run, begin = self._run, self._begin
        told = {
            "recipe": dataclasses.asdict(run.recipe),
            "seeds": dataclasses.asdict(run.seeds),
            "plan": dataclasses.asdict(run.plan),
            "corpus_sha256": run.corpus.sha256,
        }
        if begin is not None:
            state = None if begin.state is None else begin.state.tolist()
            told["begin"] = {"digest": _kept_body(begin)["digest"], "state": state}
        found: Body = json.loads(json.dumps(told))
        return found

    def put_down(self, valid: float | None) -> None:
        """Write the state, then it replaces the one before."""
        if self._directory is None:
            return
        body = {
            "identity": self._identity(),
            **self._run.body(),
            "log": self.log.mark(),
            "valid_loss_nats": valid,
            "seconds": self.seconds(),
        }
        tensors = {name: t.detach().contiguous() for name, t in self._run.tensors().items()}
        where = self._directory / CHECKPOINT
        keep(where, lambda fresh: save_file(tensors, fresh / STATE), body, identity=(STATE,))

    def take_up(self) -> int:
        """Go on from the checkpoint of this run or of its first part, or begin; steps taken over."""
        for folder in (self._directory, self._first):
            body = None if folder is None else load_kept(folder / CHECKPOINT)
            if folder is None or body is None or body.get("identity") != self._identity():
                continue
            if self.log.cut(body["log"], folder / LOG):
                self._run.restore(load_file(folder / CHECKPOINT / STATE), body)
                self.valid, self._before = body["valid_loss_nats"], body["seconds"]
                return self._run.step
        self.log.cut(None)
        if self._begin is not None:
            self._begin_from(self._begin)
        return 0

    def _begin_from(self, begin: Begin) -> None:
        run, body = self._run, {**_kept_body(begin), "looks": []}
        run.restore(load_file(begin.directory / CHECKPOINT / STATE), body)
        run.trajectory, run.seen = [], []
        if begin.state is not None and run.state is not None:
            run.state.place(begin.state)


def _kept_body(begin: Begin) -> Body:
    body = load_kept(begin.directory / CHECKPOINT)
    if body is None:
        raise ValueError(f"{begin.directory} holds no whole state of a run; train that run first")
    return body


def load_run(directory: Path, corpus: NanoCorpus) -> NanoRun:
    """The run that `train` kept at a directory, as it stands, with its recipe, seeds and plan.

    Raises
    ------
    ValueError
        When there is none, or it was trained on another text.
    """
    body = _kept_body(Begin(directory=directory))
    told = body["identity"]
    if told["corpus_sha256"] != corpus.sha256:
        raise ValueError(
            f"{directory} was trained on the text {told['corpus_sha256'][:12]}, {corpus.source} is "
            f"{corpus.sha256[:12]}: give the text it was trained on"
        )
    run = NanoRun(recipe_of(told["recipe"]), corpus, Seeds(**told["seeds"]), plan_of(told["plan"]))
    run.restore(load_file(directory / CHECKPOINT / STATE), body)
    return run


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums are split by thread, and small tensors gain nothing; the number comes back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
