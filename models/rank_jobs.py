"""What a worker process does for the mechanism study: train the base and the arms, audit, answer the items.

Arguments and results are plain data. The frozen base and the items stay in memory between calls; an adapter
is put on the base, used and taken off again. One thread: sums are then the same whatever the machine.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.adapter_items import Rows, collate, data_order, prompt_ids, tokenised
from models.adapter_training import adapter_digest, train
from models.adapters import (
    adaptable,
    attach,
    detach,
    lora_factors,
    realised_ranks,
    shapes_of,
    trainable_parameters,
    without_peft_notices,
)
from models.answers import RULES, Item, is_correct, until_stop
from models.base_norms import base_norms
from models.eva import eva_start
from models.greedy import Answer, answer_nats, greedy, merged
from models.kept import keep, load_kept
from models.lora_recipe import Evaluation, Initialisation, LoraRecipe, Precision
from models.mistral_base import BASES, obtain
from models.rank_policies import parameters
from models.spectra import audit_module
from models.task_items import TaskSource
from models.word_problems import Split

Report = Callable[[dict[str, Any]], None]
WEIGHTS = "adapter_model.safetensors"
"""PEFT's name for the file of the factors."""
EVA_BATCHES = 32
EVA_ROWS = 8
"""Items in one of them. PEFT turns the inputs of every module in the first batch into Python numbers."""
SCORED_TOGETHER = 32
"""Rows of a forward pass over reference answers."""
DTYPES: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train_base(*, name: str, seed: int, directory: str, report: Report) -> dict[str, Any]:
    """Train an embedded base unless it is there; reports each evaluated point."""
    torch.set_num_threads(1)
    if name not in BASES:
        raise ValueError(f"unknown embedded base {name!r}; allowed are {', '.join(BASES)}")
    spec = dataclasses.replace(BASES[name], seed=seed)
    found = obtain(spec, Path(directory), report=lambda point: report(dataclasses.asdict(point)))
    return {"digest": found.digest}


def modules(*, base: str, report: Report) -> dict[str, Any]:
    """Names of the modules of a directory or hub id that take an adapter, in order; loads no weights."""
    return {"modules": [shape.name for shape in shapes_of(base)]}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Base:
    """A frozen model, without an adapter between calls."""

    model: Any
    tokenizer: Any

    @property
    def stop(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset({int(self.tokenizer.eos_token_id)})


@lru_cache(maxsize=1)
def _loaded(where: str, precision: Precision, digest: str | None) -> _Base:
    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        where, dtype=DTYPES[precision], use_safetensors=True, trust_remote_code=False
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    return _Base(model=model.to(device).eval().requires_grad_(False), tokenizer=tokenizer)


def _base(where: str, precision: Precision) -> _Base:
    return _loaded(where, precision, _digest(where))


def _digest(where: str) -> str | None:
    """Of an embedded base; None of another model."""
    body = load_kept(Path(where))
    return None if body is None else str(body["digest"])


@lru_cache(maxsize=4)
def _items(source: TaskSource, split: Split) -> tuple[Item, ...]:
    return source.load(split)


def train_arm(
    *,
    base: str,
    source: Mapping[str, Any],
    ranks: Mapping[str, int],
    recipe: Mapping[str, Any],
    seed: int,
    initialisation: Initialisation,
    directory: str,
    base_digest: str | None = None,
    report: Report,
) -> dict[str, Any]:
    """Train one adapter and keep it at `directory`, unless it is there; reports each point of the log.

    Stopped at any time, the next call goes on from the last checkpoint, beside `directory`.

    Parameters
    ----------
    base
        Directory or hub id of the model.
    source, recipe
        `dataclasses.asdict` of a `TaskSource` and a `LoraRecipe`.
    ranks
        Of every adaptable module. With `eva` they set the budget in parameters, and EVA the ranks.
    seed
        Of initialisation and data order.
    initialisation
        `nested` or `eva`.

    Returns
    -------
    dict
        The fields of `TrainedAdapter`, `digest` among them; `realised` (rank of every adaptable module; 0
        where EVA left one out), `parameters` as counted in the model, `budget` (that of `ranks`), `truncated`
        (training items too long) and `validation_truncated`.

    Raises
    ------
    ValueError
        See `models.adapters.attach` and `models.adapter_training.train`; nothing is kept then.
    """
    how, task = LoraRecipe(**recipe), TaskSource(**source)
    identity = {
        "base": base_digest or _digest(base) or base, "source": dict(source), "ranks": dict(ranks),
        "recipe": dataclasses.asdict(how), "seed": seed, "initialisation": initialisation,
    }  # fmt: skip
    kept = load_kept(Path(directory))
    if kept is not None and kept.get("identity") == json.loads(json.dumps(identity)):
        return dict(kept["facts"])
    at = _base(base, how.precision)
    return _trained(at, task, ranks, how, seed, initialisation, Path(directory), identity, report)


def _trained(
    at: _Base,
    source: TaskSource,
    ranks: Mapping[str, int],
    recipe: LoraRecipe,
    seed: int,
    initialisation: Initialisation,
    directory: Path,
    identity: Mapping[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Train an arm and keep it; the base has no adapter afterwards."""
    rows, validation = (
        tokenised(at.tokenizer, _items(source, split), max_tokens=recipe.max_tokens)
        for split in ("train", "validation")
    )
    budget = parameters(ranks, shapes_of(at.model.config))
    plan, start = dict(ranks), None
    if initialisation == "eva":
        seen = _seen(rows, recipe, seed, at.model.device)
        found = eva_start(at.model, seen, budget=budget, rho=recipe.eva_rho)
        plan, start = found.kept, found.rows
    adapted = attach(at.model, plan, recipe, seed=seed, start=start)
    try:
        trained = train(
            adapted, rows, validation, recipe, seed=seed, identity=identity, report=report,
            checkpoint=directory.with_name(f"{directory.name}.partial"),
        )  # fmt: skip
        realised = realised_ranks(adapted)
        facts = {
            **dataclasses.asdict(trained),
            "realised": {name: realised.get(name, 0) for name in adaptable(at.model)},
            "parameters": trainable_parameters(adapted),
            "budget": budget,
            "truncated": len(rows.too_long),
            "validation_truncated": len(validation.too_long),
        }
        body = {"identity": identity, "facts": facts}
        keep(directory, lambda fresh: _save(adapted, fresh), body, identity=(WEIGHTS,))
    finally:
        detach(adapted)
    return facts


def _seen(rows: Rows, recipe: LoraRecipe, seed: int, device: Any) -> list[dict[str, Any]]:
    """The first training batches as EVA takes them."""
    order = data_order(len(rows.rows), recipe.steps, recipe.batch_size, seed).flatten().tolist()
    found = []
    for start in range(0, min(len(order), EVA_BATCHES * EVA_ROWS), EVA_ROWS):
        batch = collate([rows.rows[i] for i in order[start : start + EVA_ROWS]], device)
        real = torch.arange(batch.ids.shape[1], device=device) < batch.lengths[:, None]
        found.append({"input_ids": batch.ids, "attention_mask": real.long(), "labels": batch.labels})
    return found


def _save(adapted: Any, directory: Path) -> None:
    """PEFT's own two files; a set of names in the configuration is put in order."""
    with without_peft_notices():
        adapted.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _with_adapter(at: _Base, base: str, adapter: str | None, digest: str | None) -> Iterator[Any]:
    """The base, of a known digest if one is given, with a kept adapter on it, taken off again afterwards."""
    if adapter is None:
        yield at.model
        return
    kept = load_kept(Path(adapter))
    if kept is None:
        raise ValueError(f"no intact adapter at {adapter}; train the arm again")
    if kept["identity"]["base"] != (digest or _digest(base) or base):
        raise ValueError(f"the adapter at {adapter} was trained on another base than {base}; train it again")
    with without_peft_notices():
        adapted: Any = PeftModel.from_pretrained(at.model, adapter).eval()
    try:
        if adapter_digest(adapted) != kept["facts"]["digest"]:
            raise ValueError(f"PEFT loaded another adapter than {adapter} holds; train the arm again")
        yield adapted
    finally:
        detach(adapted)


def audit(*, base: str, adapter: str, base_digest: str | None = None, report: Report) -> dict[str, Any]:
    """Audit of every module of a kept adapter: `modules`, `dataclasses.asdict` of each `ModuleAudit`."""
    kept = load_kept(Path(adapter))
    precision: Precision = "float32" if kept is None else kept["identity"]["recipe"]["precision"]
    at = _base(base, precision)
    with _with_adapter(at, base, adapter, base_digest) as adapted:
        factors = lora_factors(adapted)
    norms = _norms(base, precision, _digest(base))
    return {
        "modules": [dataclasses.asdict(audit_module(name, one, norms[name])) for name, one in factors.items()]
    }


@lru_cache(maxsize=1)
def _norms(where: str, precision: Precision, digest: str | None) -> dict[str, tuple[float, float]]:
    return base_norms(_loaded(where, precision, digest).model)


def evaluate(
    *,
    base: str,
    adapter: str | None,
    source: Mapping[str, Any],
    split: Split,
    evaluation: Mapping[str, Any],
    base_digest: str | None = None,
    report: Report,
) -> dict[str, Any]:
    """Generated answer and cost of the reference answer of every item; reports `done` and `of` each batch.

    Parameters
    ----------
    adapter
        Directory of a kept adapter; None evaluates the base alone.
    source, evaluation
        `dataclasses.asdict` of a `TaskSource` and an `Evaluation`.

    Returns
    -------
    dict
        `answers`, one an item in order: `item_id`, `text` (up to the harness' stop texts), for each
        extraction rule whether it reads the gold, `nll_nats` of reference answer and end token, `tokens` of
        these, `stopped` (False: cut at `max_new_tokens`).
    """
    how = Evaluation(**evaluation)
    items = _items(TaskSource(**source), split)
    at = _base(base, how.precision)
    rows = tokenised(at.tokenizer, items, max_tokens=sys.maxsize).rows
    with _with_adapter(at, base, adapter, base_digest) as adapted:
        model = merged(adapted)
        found = greedy(
            model, prompt_ids(at.tokenizer, items), stop=at.stop, max_new_tokens=how.max_new_tokens,
            batch_size=how.batch_size, report=lambda done: report({"done": done, "of": len(items)}),
        )  # fmt: skip
        nats = answer_nats(model, rows, batch_size=SCORED_TOGETHER)
    texts = at.tokenizer.batch_decode([list(answer.tokens) for answer in found], skip_special_tokens=True)
    return {
        "answers": [
            _scored(item, text, answer) | {"nll_nats": float(cost), "tokens": len(row.ids) - row.asked}
            for item, text, answer, cost, row in zip(items, texts, found, nats, rows, strict=True)
        ]
    }


def _scored(item: Item, text: str, answer: Answer) -> dict[str, Any]:
    read = until_stop(text)
    rules: dict[str, bool] = {rule: is_correct(read, item.gold, rule) for rule in RULES}
    return {"item_id": item.item_id, "text": read, **rules, "stopped": answer.stopped or read != text}
