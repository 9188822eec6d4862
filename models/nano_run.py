"""One training of a GPT that may read its own statistics, between two steps.

A step first updates the self-state from the statistics of the step before, then trains on its windows. What
is drawn at a step hangs on a seed, a purpose and the step only, so weights, moments, state, memory and the
last statistics are all there is to copy: for a checkpoint, or for a twin that goes on without a window.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.nano_adamw import MOMENTS, NanoAdamW
from models.nano_corpus import NanoCorpus
from models.nano_interventions import Batch, disturbed_batch, disturbed_state, seen_statistics
from models.nano_log import Reaction
from models.nano_measures import Windows, loss_and_statistics, mean_nats, state_effect
from models.nano_recipe import STATISTICS, NanoRecipe, Seeds
from models.nano_streams import stream
from models.nanogpt import GPT
from models.regimes import Occurrence, RegimePlan
from models.self_state import SelfState, Update

HELD_OUT_BATCH = 64
"""Windows at a time where the whole held-out text is scored."""

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Held-out loss along the way."""

    step: int
    """Done so far."""
    valid_loss_nats: float
    """With the own state, over batches that are the same at every look and for every arm."""


class NanoRun:
    """A training between two steps.

    Parameters
    ----------
    seeds
        Of init, order, intervention and evaluation; an int stands for all four.
    plan
        Regimes; a window outside the run is refused.
    twin
        Name of the window that this run goes without, for its rows.

    Raises
    ------
    ValueError
        A corpus too short for the block, or a window outside the run.
    """

    def __init__(
        self,
        recipe: NanoRecipe,
        corpus: NanoCorpus,
        seeds: Seeds | int,
        plan: RegimePlan | None = None,
        *,
        twin: str = "",
    ) -> None:
        self.recipe, self.corpus, self.twin = recipe, corpus, twin
        self.seeds = Seeds.of(seeds) if isinstance(seeds, int) else seeds
        self.plan = plan or RegimePlan()
        corpus.refuse_short(recipe.shape.block_size)
        self.plan.refuse_outside(recipe.steps)
        self.gpt = GPT(recipe.shape, corpus.vocab_size, stream(self.seeds.init, "gpt"))
        self.state: SelfState | None = None
        if recipe.state is not None:
            self.state = SelfState(recipe.state, recipe.shape.n_embd, stream(self.seeds.init, "state"))
        self._train = Windows(corpus.train, recipe.shape.block_size)
        self.heldout = Windows(corpus.heldout, recipe.shape.block_size)
        self.trained = {name: p for name, p in self._parameters() if p.requires_grad}
        self._optimizer = NanoAdamW(
            self.trained.values(), beta1=recipe.beta1, beta2=recipe.beta2, weight_decay=recipe.weight_decay
        )
        self.step = 0
        self.statistics: dict[str, float] | None = None
        """Of the step before, by name; None before the first."""
        self.looks: list[Look] = []
        self.trajectory: list[Tensor] = []
        """s that each step used, (d,)."""
        self.seen: list[Tensor] = []
        """f of each update, as the update saw it, (features,): step 0 has none."""

    def _parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for part, module in self._modules():
            for name, parameter in module.named_parameters():
                yield f"{part}.{name}", parameter

    def _modules(self) -> list[tuple[str, torch.nn.Module]]:
        return [("gpt", self.gpt)] + ([] if self.state is None else [("self", self.state)])

    def windows(self, step: int) -> Batch:
        """What the data hold for a step, undisturbed; the same for all arms of an order seed."""
        return self._train.drawn(self.recipe.batch, stream(self.seeds.order, "order", step))

    def advance(self) -> Reaction:
        """Train one step.

        Raises
        ------
        ValueError
            When the loss or the gradient is not finite; nothing has changed.
        """
        recipe, step, acting = self.recipe, self.step, self.plan.acting(self.step)
        batch = disturbed_batch(
            self.windows(step), acting, self.corpus.vocab_size, seed=self.seeds.intervention, step=step
        )
        update, s = self._updated()
        added = None if self.state is None or s is None else self.state.injected(s)
        with self._dropout():
            logits = self.gpt(batch.x, added=added, hidden=batch.hidden)
        positions = "all" if recipe.state is None else recipe.state.positions
        loss, entropy, top1 = loss_and_statistics(logits, batch.y, positions)
        self._optimizer.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), recipe.clip_norm))
        found = (float(loss.detach()), norm, step / recipe.steps, entropy, top1)
        rate = recipe.rate(step) * self.plan.rate_factor(step)
        self._refuse_no_number(found, rate)
        about = self._about_state(update, s)  # with the weights that the loss is of
        self._optimizer.step(rate)
        self.statistics = dict(zip(STATISTICS, found, strict=True))
        self.step += 1
        return Reaction(
            step=step,
            twin=self.twin,
            regimes="+".join(regime.id for regime in acting),
            loss_nats=found[0],
            learning_rate=rate,
            grad_norm=norm,
            step_frac=found[2],
            entropy_nats=entropy,
            top1=top1,
            **about,
        )

    def _updated(self) -> tuple[Update | None, Tensor | None]:
        """The update from the last statistics, and the state that this step uses."""
        if self.state is None:
            return None, None
        seed, step, acting = self.seeds.intervention, self.step, self.plan.acting(self.step)
        update = None
        if self.statistics is not None:
            update = self.state.update(seen_statistics(self.statistics, acting, seed=seed, step=step))
        s = self.state.s.clone() if update is None else update.s
        return update, disturbed_state(s, self.state.s.clone(), acting, seed=seed, step=step)

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """torch's own generator, which dropout takes, by seed and step; the caller's comes back."""
        if not self.recipe.shape.dropout:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(self.seeds.order, "dropout", self.step).initial_seed())
            yield

    def _refuse_no_number(self, found: tuple[float, ...], rate: float) -> None:
        if not all(map(math.isfinite, found)):
            named = ", ".join(f"{name} {value:g}" for name, value in zip(STATISTICS, found, strict=True))
            whose = f" of the twin without {self.twin}" if self.twin else ""
            raise ValueError(
                f"step {self.step} of {self.recipe.steps}{whose} has {named} at learning rate {rate:g}; the "
                f"log up to it is kept: lower learning_rate ({self.recipe.learning_rate:g}) or a regime's "
                "strength and train again"
            )

    def _about_state(self, update: Update | None, s: Tensor | None) -> dict[str, Any]:
        """Carry the state on; what the row says of it."""
        state = self.state
        if state is None or s is None:
            return {}
        s = s.detach()
        delta = float((s - state.s).norm())
        state.carry(s)
        self.trajectory.append(s.clone())
        about: dict[str, Any] = {
            "self_norm": float(s.norm()),
            "self_delta": delta,
            "self_drift": state.drift(),
            "relative_drift": state.relative_drift(),
            "memory_filled": state.filled if state.spec.memory == "buffer" else None,
        }
        if update is not None:
            self.seen.append(update.features)
            names = ("raw_norm", "memory_norm", "clamped_norm", "gate", "cosine")
            about |= {name: getattr(update, name) for name in names}
        if self.step % self.recipe.probe_every == 0:
            x = self.heldout.drawn(
                self.recipe.probe_windows, stream(self.seeds.evaluation, "probe", self.step)
            ).x
            with torch.no_grad():
                own, zero = state.injected(s), state.injected(torch.zeros_like(s))
            effect = state_effect(self.gpt, x, own, zero)
            about |= {"effect_kl_nats": effect.kl_nats, "effect_logits": effect.logits}
        return about

    def added(self) -> Tensor | None:
        """P s of the state as it stands, (C,); None without one."""
        with torch.no_grad():
            return None if self.state is None else self.state.injected(self.state.s)

    def look(self) -> None:
        """Score held-out batches, once a step."""
        if not self.looks or self.looks[-1].step < self.step:
            n, seed = self.recipe.evaluation_batches, self.seeds.evaluation
            batches = (self.heldout.drawn(self.recipe.batch, stream(seed, "look", i)) for i in range(n))
            self.looks.append(Look(step=self.step, valid_loss_nats=self._heldout_nats(batches)))

    def valid_loss_nats(self) -> float:
        """Mean loss over the whole held-out text with the own state.

        Raises
        ------
        ValueError
            When it is not finite, as after a last step that spoilt the weights.
        """
        return self._heldout_nats(self.heldout.whole(HELD_OUT_BATCH))

    def _heldout_nats(self, batches: Iterator[Batch]) -> float:
        nats = mean_nats(self.gpt, batches, self.added())
        if not math.isfinite(nats):
            raise ValueError(
                f"after step {self.step - 1} of {self.recipe.steps} the held-out loss is {nats}; the log is "
                f"kept: lower learning_rate ({self.recipe.learning_rate:g}) and train again"
            )
        return nats

    def twin_rows(self, occurrence: Occurrence) -> Iterator[Reaction]:
        """Rows of this run as it would go on without a window, from here to its end and the recipe's tail."""
        twin = NanoRun(
            self.recipe, self.corpus, self.seeds, self.plan.without(occurrence), twin=occurrence.name
        )
        twin.restore({name: t.clone() for name, t in self.tensors().items()}, self.body())
        last = min(self.recipe.steps, occurrence.end + (self.recipe.twin_tail or 0))
        while twin.step < last:
            yield twin.advance()

    def tensors(self) -> dict[str, Tensor]:
        """All that is carried on, by name; views, not copies."""
        found = {f"{part}.{name}": t for part, m in self._modules() for name, t in m.state_dict().items()}
        for name, parameter in self.trained.items():
            moments = self._optimizer.moments.get(parameter, {})
            found |= {f"{name} {key}": tensor for key, tensor in moments.items()}
        for name, rows in (("trajectory", self.trajectory), ("seen", self.seen)):
            if rows:
                found[name] = torch.stack(rows)
        return found

    def body(self) -> Body:
        """What goes with the tensors, as plain data."""
        looks = [dataclasses.asdict(look) for look in self.looks]
        return {"step": self.step, "statistics": self.statistics, "looks": looks}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], body: Body) -> None:
        """Take over what `tensors` and `body` gave; the tensors become this run's own."""
        for part, module in self._modules():
            for name, t in module.state_dict().items():
                t.copy_(tensors[f"{part}.{name}"])
        for name, parameter in self.trained.items():
            held = {key: tensors[f"{name} {key}"] for key in MOMENTS if f"{name} {key}" in tensors}
            if held:  # none where no step reached the parameter
                self._optimizer.moments[parameter] = held
        for name, into in (("trajectory", self.trajectory), ("seen", self.seen)):
            into[:] = list(tensors[name]) if name in tensors else []
        self.step, self.statistics = body["step"], body["statistics"]
        self.looks = [Look(**look) for look in body["looks"]]

    def digest(self) -> str:
        """SHA-256 over names and bits of all that is carried on."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            found.update(f"{name} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().numpy().tobytes())
        return found.hexdigest()
