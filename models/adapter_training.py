"""Training one LoRA adapter: a plain loop that can stop at any step and go on to the same result.

The network stays in eval mode, so no dropout of the base draws a number, and the order of the data hangs on
the seed alone. The state between two steps is then the adapter, AdamW's moments and the step's number; a
checkpoint holds just that, and going on from it gives the bits of a run that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (its usual name)
from transformers.modeling_layers import GradientCheckpointingLayer

from models.adapter_items import IGNORED, Row, Rows, collate, data_order, is_out_of_memory
from models.adapters import ADAPTER, lora_layers
from models.fast_lora import fast_layers
from models.greedy import answer_nats
from models.kept import keep, load_kept
from models.lora_recipe import LoraRecipe

POINTS = 20
"""Points of the log, evenly spaced; those at the ends of stages carry a validation loss too."""
STATE = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """What one training came to; the weights are in the model."""

    digest: str
    """SHA-256 over names, scales and bits of every A and B."""
    log: tuple[dict[str, Any], ...]
    """Points with `step`, `training_loss` (mean since the point before; None at the start), `validation_nll`
    (None between stages) and `learning_rate`; losses in nats an answer token."""
    loss_first: float
    """Of the first batch."""
    loss_last: float
    """Mean over the last twentieth of the steps."""
    validation_nll: float
    """Nats an answer token after the last step."""
    validation_fall: float | None
    """1 - that / the same before the last stage, the last fifth of the steps by default: a large one says
    that training was stopped too early. None when the loss was 0 before."""
    micro_batch: int
    """Items of one forward pass at the end; less than asked for where memory ran out."""
    steps_resumed: int
    """Steps taken over from a checkpoint."""
    seconds: float
    """Of all its runs, up to each last checkpoint."""


def train(
    adapted: Any,
    rows: Rows,
    validation: Rows,
    recipe: LoraRecipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> TrainedAdapter:
    """Train the adapter on a model, in place.

    Parameters
    ----------
    adapted
        From `models.adapters.attach`.
    seed
        Of the order of the data.
    checkpoint
        Directory for the state while training goes on, removed at the end; one of the same identity is taken
        up. Written every `recipe.checkpoint_every` steps.
    identity
        All that decides the result, as plain data.
    report
        Called with each point of the log.

    Raises
    ------
    ValueError
        When a loss or gradient stops being a number; the checkpoint is removed.
    """
    order = data_order(len(rows.rows), recipe.steps, recipe.batch_size, seed)
    run = _Run(adapted, rows.rows, validation.rows, recipe, order)
    if checkpoint is not None:
        run.take_up(checkpoint, identity or {})
    resumed = run.step
    try:
        with fast_layers(adapted), _recomputing(run.base, recipe.gradient_checkpointing):
            for _ in run.to_the_end(report):
                if checkpoint is not None:
                    run.put_down(checkpoint, identity or {})
    except ValueError:
        if checkpoint is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)
        raise
    if checkpoint is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return run.result(resumed)


@dataclass
class _Run:
    """A training between two steps."""

    adapted: Any
    rows: Sequence[Row]
    validation: Sequence[Row]
    recipe: LoraRecipe
    order: Tensor
    step: int = 0
    """Steps done."""
    losses: list[float] = field(default_factory=list)
    """Of every step, nats an answer token."""
    log: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    """Of earlier runs."""

    def __post_init__(self) -> None:
        self.base: Any = self.adapted.get_base_model()  # without PEFT's outer wrappers: the same forward
        self.parameters = dict(_tensors(self.adapted))
        self.device = next(iter(self.parameters.values())).device
        self.micro = min(self.recipe.micro_batch or self.recipe.batch_size, self.recipe.batch_size)
        self.began = time.perf_counter()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=0.0, weight_decay=self.recipe.weight_decay, fused=True
        )

    def to_the_end(self, report: Report | None) -> Iterator[None]:
        """Take the steps that are left; stops after each one at which a checkpoint is due."""
        points, every = _points(self.recipe), self.recipe.checkpoint_every
        while True:
            if self.step in points and (not self.log or self.log[-1]["step"] < self.step):
                self.log.append(self.point())
                if report is not None:
                    report(self.log[-1])
            if self.step == self.recipe.steps:
                return
            self.advance()
            if every is not None and self.step % every == 0 and self.step < self.recipe.steps:
                yield

    def point(self) -> dict[str, Any]:
        """The log's point at this step."""
        since = self.losses[self.log[-1]["step"] if self.log else 0 :]
        nll = None
        if self.step in self.recipe.stage_ends():
            nats = answer_nats(self.base, self.validation, batch_size=self.recipe.batch_size)
            nll = math.fsum(nats) / sum(len(row.ids) - row.asked for row in self.validation)
        return {
            "step": self.step,
            "training_loss": math.fsum(since) / len(since) if since else None,
            "validation_nll": nll,
            "learning_rate": self.recipe.rate(self.step - 1) if self.step else 0.0,
        }

    def advance(self) -> None:
        """One optimiser step.

        Raises
        ------
        ValueError
            When the loss or the gradient is not finite; no weight has changed.
        """
        rate = self.recipe.rate(self.step)
        loss = self.gradients([self.rows[i] for i in self.order[self.step].tolist()])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm)
        if not math.isfinite(loss + float(norm)):
            raise ValueError(
                f"the loss is {loss} and its gradient's norm {float(norm)} at step {self.step} of "
                f"{self.recipe.steps}, learning rate {rate:g}; nothing was kept: lower learning_rate "
                f"({self.recipe.learning_rate:g}) and train again"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.losses.append(loss)
        self.step += 1

    def gradients(self, rows: Sequence[Row]) -> float:
        """Gradients and mean loss of a batch; begun again in halves where memory runs out."""
        while True:
            try:
                return self._summed(rows)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.micro == 1:
                    raise
            self.micro //= 2  # outside the handler: the traceback holds what filled the memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _summed(self, rows: Sequence[Row]) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        tokens, loss = sum(len(row.ids) - row.asked for row in rows), 0.0
        rows = sorted(rows, key=lambda row: len(row.ids))  # less padding; the sum is over the same rows
        for start in range(0, len(rows), self.micro):
            batch = collate(rows[start : start + self.micro], self.device)
            first = batch.first  # logits of the prompts are not computed
            keep = batch.ids.shape[1] - first + 1
            logits = self.base(input_ids=batch.ids, use_cache=False, logits_to_keep=keep).logits[:, :-1]
            labels = batch.labels[:, first:].flatten()
            summed = F.cross_entropy(
                logits.flatten(0, 1).float(), labels, ignore_index=IGNORED, reduction="sum"
            )
            part = summed / tokens
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        return loss

    def put_down(self, directory: Path, identity: Mapping[str, Any]) -> None:
        """Write the state."""
        tensors = dict(self.parameters)
        for name, parameter in self.parameters.items():
            tensors |= {f"{name} {key}": self.optimizer.state[parameter][key] for key in _MOMENTS}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        body = {
            "identity": dict(identity),
            "step": self.step,
            "losses": self.losses,
            "log": self.log,
            "micro": self.micro,
            "seconds": self.seconds + time.perf_counter() - self.began,
        }
        keep(directory, lambda fresh: save_file(tensors, fresh / STATE), body, identity=(STATE,))

    @torch.no_grad()
    def take_up(self, directory: Path, identity: Mapping[str, Any]) -> None:
        """Go on from a state of the same identity, if one is there."""
        body = load_kept(directory)
        if body is None or body.get("identity") != json.loads(json.dumps(identity)):
            return
        tensors = load_file(directory / STATE, device=str(self.device))
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
            self.optimizer.state[parameter] = {key: tensors[f"{name} {key}"] for key in _MOMENTS}
        self.step, self.losses, self.log = body["step"], body["losses"], body["log"]
        self.micro, self.seconds = body["micro"], body["seconds"]

    def result(self, resumed: int) -> TrainedAdapter:
        """What the finished training came to."""
        last = self.losses[-max(1, self.recipe.steps // POINTS) :]
        stages = [p["validation_nll"] for p in self.log if p["validation_nll"] is not None]
        before, after = stages[-2:]
        return TrainedAdapter(
            digest=adapter_digest(self.adapted),
            log=tuple(self.log),
            loss_first=self.losses[0],
            loss_last=math.fsum(last) / len(last),
            validation_nll=after,
            validation_fall=1.0 - after / before if before > 0 else None,
            micro_batch=self.micro,
            steps_resumed=resumed,
            seconds=self.seconds + time.perf_counter() - self.began,
        )


def _points(recipe: LoraRecipe) -> frozenset[int]:
    """Steps at which the log gets a point."""
    marks = {recipe.steps * i // POINTS for i in range(POINTS + 1)}
    return frozenset(marks.union(recipe.stage_ends()))


def _tensors(adapted: Any) -> Iterator[tuple[str, Tensor]]:
    for name, layer in lora_layers(adapted):
        yield f"{name} A", layer.lora_A[ADAPTER].weight
        yield f"{name} B", layer.lora_B[ADAPTER].weight


def adapter_digest(adapted: Any) -> str:
    """SHA-256 over names, scales and bits of every A and B."""
    found = hashlib.sha256()
    for name, layer in lora_layers(adapted):
        found.update(f"{name} {float(layer.scaling[ADAPTER])!r}".encode())
    for name, tensor in _tensors(adapted):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _recomputing(base: Any, wanted: bool) -> Iterator[None]:
    """Blocks that forget their activations and compute them again in the backward pass.

    transformers does so in blocks whose `training` is True. Only the blocks' own flag is set, not that of the
    modules in them, whose dropout stays off.
    """
    blocks = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not wanted:
        yield
        return
    if not blocks:
        raise ValueError(
            f"{type(base).__name__} cannot recompute activations; set gradient_checkpointing=False"
        )
    base.activation_checkpointing_enable({"use_reentrant": False})
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        for block in blocks:
            block.training = False
        base.activation_checkpointing_disable()
