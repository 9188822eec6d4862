"""How a small GPT with a self-state is shaped and trained: all that can change a number, apart from regimes.

Layers, rates and steps are those of nanoGPT's smallest character recipe. This file needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

UpdateKind = Literal["mlp", "linear", "gru", "fixed"]
Injection = Literal["trained", "random", "zero"]
Memory = Literal["none", "ema", "buffer"]
Positions = Literal["all", "last"]

STATISTICS = ("loss", "grad_norm", "step_frac", "entropy", "top1")
"""What a step leaves for the next one's update, in the order of the features."""
READ_OUT = 8
"""Numbers that are read from the memory: rows of Q."""


@dataclass(frozen=True, kw_only=True)
class GptShape:
    """Size of the network; its vocabulary is the corpus's.

    >>> GptShape(n_layer=4, n_head=4, n_embd=128, block_size=64).parameters(65)
    804096
    """

    n_layer: int
    n_head: int
    n_embd: int
    """Width C; a multiple of the heads."""
    block_size: int
    """T, tokens of a window."""
    dropout: float = 0.0
    """Share of activations dropped in training: after the embeddings, in attention, after each branch."""

    def __post_init__(self) -> None:
        """Refuse what has no network."""
        for name in ("n_layer", "n_head", "n_embd", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd is {self.n_embd} with {self.n_head} heads; allowed: a multiple of them")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; allowed: 0 up to, not including, 1")

    def parameters(self, vocab_size: int) -> int:
        """V C + T C + n_layer (12 C² + 2 C) + C weights; the head is the token embedding."""
        c = self.n_embd
        return (vocab_size + self.block_size) * c + self.n_layer * (12 * c * c + 2 * c) + c


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """The self-state: its width, what updates it, what it remembers.

    >>> StateSpec().features, StateSpec(step_frac=False, memory="ema").features
    (5, 14)
    """

    dim: int = 32
    """d, numbers of the state."""
    update: UpdateKind = "mlp"
    """What makes `raw` of the features; `fixed` holds a constant state and updates nothing."""
    hidden: int = 32
    """Width of h with `mlp`."""
    rate: float = 0.2
    """a of s <- (1 - a) s + a new."""
    slow: float = 0.01
    """Share of s that the slow reference takes a step: r <- .99 r + .01 s."""
    step_frac: bool = True
    """Whether the update sees how far training is; with it the state is nearly a clock."""
    positions: Positions = "all"
    """Over which entropy and confidence are averaged."""
    injection: Injection = "trained"
    """P: trained, or held at its random start, or held at 0 (nothing of the state is then trained)."""
    fixed_norm: float = 1.0
    """|s| with `fixed`."""
    memory: Memory = "none"
    delta: float = 0.1
    """Of `ema`: M <- (1 - delta) M + delta s."""
    length: int = 64
    """Of `buffer`: states it holds, L."""
    stride: int = 10
    """Of `buffer`: steps between two states that are put into it."""
    memory_scale: float = 1.0
    """Factor of m before the clamp."""
    memory_clamp: float = 1.0
    """k: the memory's part has at most the norm k |raw|."""

    def __post_init__(self) -> None:
        """Refuse what would fail later or silently train something else."""
        for name in ("dim", "hidden", "length", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        for name in ("rate", "slow", "delta"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0, at most 1")
        for name in ("fixed_norm", "memory_scale", "memory_clamp"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: a number from 0")
        kinds = {"update": UpdateKind, "injection": Injection, "memory": Memory, "positions": Positions}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(get_args(kind))}")
        if self.update == "fixed" and self.memory != "none":
            raise ValueError(f"a fixed state with memory {self.memory!r}; allowed: memory 'none'")

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that the update sees."""
        return tuple(name for name in STATISTICS if self.step_frac or name != "step_frac")

    @property
    def features(self) -> int:
        """Numbers the update sees: statistics, and with memory |m|, cos(s, s + m) and Q m."""
        return len(self.statistics) + (0 if self.memory == "none" else 2 + READ_OUT)


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """One seed for each thing that chance decides, so that arms differ in what they mean to."""

    init: int
    """Of weights, the state's included."""
    order: int
    """Of the windows of each step."""
    intervention: int
    """Of what regimes draw."""
    evaluation: int
    """Of held-out batches."""

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """The same for all."""
        return cls(init=seed, order=seed, intervention=seed, evaluation=seed)


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """One training."""

    shape: GptShape
    state: StateSpec | None = StateSpec()
    """None: the plain GPT."""
    steps: int
    """Of the whole schedule."""
    batch: int
    """Windows of a step, B."""
    learning_rate: float = 1e-3
    """Peak, after warm-up."""
    least_rate: float = 1e-4
    """Where the cosine ends."""
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    """AdamW's, on matrices; gains and biases have none."""
    clip_norm: float = 1.0
    """Largest norm of the gradient over all that is trained."""
    probe_every: int = 10
    """Steps between two measurements of the state's effect."""
    probe_windows: int = 4
    """Held-out windows of such a measurement; with a whole batch they cost 7 % of a training."""
    evaluations: int = 4
    """Looks at held-out text along the way, evenly spaced, beside the one at the start."""
    evaluation_batches: int = 20
    """Of such a look; the last one reads the whole held-out text."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    twin_tail: int | None = None
    """Steps that a counterfactual twin goes on after its window; None trains no twins."""

    def __post_init__(self) -> None:
        """Refuse what would fail later or silently train something else."""
        least_one = (
            "steps",
            "batch",
            "probe_every",
            "probe_windows",
            "evaluations",
            "evaluation_batches",
            "checkpoint_every",
        )
        for name in least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        for name in ("learning_rate", "least_rate", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: a number above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 up to, not including, 1")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; allowed: 0 to {self.steps - 1}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}; allowed: a number from 0")
        if self.least_rate > self.learning_rate:
            raise ValueError(f"least_rate {self.least_rate:g} is above learning_rate {self.learning_rate:g}")
        if (self.twin_tail or 0) < 0:
            raise ValueError(f"twin_tail is {self.twin_tail}; allowed: None, 0 or more")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: nanoGPT's warm-up and cosine.

        >>> recipe = PROFILES["full"]
        >>> [round(recipe.rate(step), 6) for step in (0, 99, 100, 1050, 1999)]
        [1e-05, 0.00099, 0.001, 0.00055, 0.0001]
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        height = self.learning_rate - self.least_rate
        return self.least_rate + height * 0.5 * (1 + math.cos(math.pi * done))

    def look_steps(self) -> frozenset[int]:
        """Steps before which held-out text is looked at; the first and the last among them."""
        return frozenset(self.steps * i // self.evaluations for i in range(self.evaluations + 1))


def recipe_of(fields: Mapping[str, Any]) -> NanoRecipe:
    """A recipe from plain data.

    >>> from dataclasses import asdict
    >>> recipe_of(asdict(PROFILES["smoke"])) == PROFILES["smoke"]
    True
    """
    state = None if fields["state"] is None else StateSpec(**fields["state"])
    return NanoRecipe(**{**fields, "shape": GptShape(**fields["shape"]), "state": state})


PROFILES: Mapping[str, NanoRecipe] = MappingProxyType(
    {
        "smoke": NanoRecipe(
            shape=GptShape(n_layer=1, n_head=2, n_embd=32, block_size=32), steps=240, batch=16
        ),
        "fast": NanoRecipe(
            shape=GptShape(n_layer=2, n_head=2, n_embd=64, block_size=32), steps=1800, batch=12
        ),
        "full": NanoRecipe(
            shape=GptShape(n_layer=4, n_head=4, n_embd=128, block_size=64),
            steps=2000,
            batch=12,
            probe_windows=2,
        ),
    }
)
"""`full` is nanoGPT's published CPU recipe: validation loss 1.88 nats on tiny Shakespeare."""
