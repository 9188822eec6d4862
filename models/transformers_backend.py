"""A `Backend` that loads a causal model in this process: an embedded model's directory or any hub id.

Jobs are put in batches of similar prompt length and run through `models.sampling`, whose rows do not depend
on their batch, so grouping, batch size and order change the time and nothing else. Weights are read from
safetensors only, in float32 unless asked otherwise, once a process.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from models.backends import (
    BackendError,
    EmptyReply,
    Job,
    ModelIdentity,
    ModelMissing,
    NonFiniteLogits,
    Output,
    RequestRefused,
    Sampling,
    failed,
)
from models.decoding import Network, open_network
from models.plain import Prompts
from models.sampling import InverseCdf, SampledRow, row_uniforms, sample

THREADED_FROM = 20_000_000
"""Parameters from which more than one CPU thread pays. Below, a step is many small operations: a second
thread gains little on an idle machine, and on a busy one made 64 rows of a 0.4 M model take 25 s, not 0.5."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


Draw = Callable[[Network, Sequence[Job], Prompts, frozenset[int]], list[SampledRow]]
"""How a batch becomes tokens: network, jobs of one sampling, their token ids, stop set. Asked again for the
halves of a batch that does not fit in memory, it must answer each job as before."""


class OutOfMemory(BackendError):  # noqa: N818 -- named as the other faults of backends are
    """One row alone does not fit in memory."""

    default_fix = "take a smaller model, a shorter prompt or a machine with more memory"


@dataclass(frozen=True)
class _Loaded:
    """A model ready to sample from."""

    network: Network
    tokenizer: Any
    stop: frozenset[int]
    identity: ModelIdentity


_Way = Callable[[_Loaded, list[tuple[Job, list[int]]]], list[SampledRow]]


class TransformersBackend:
    """Generates with a transformers model.

    Parameters
    ----------
    model
        A directory written by `save_pretrained`, or a hub id such as `distilgpt2`.
    revision
        Commit or tag of a hub id; None takes the newest.
    batch_rows
        Most rows at once. When memory runs out, the batch is halved.
    dtype
        One of DTYPES. Texts are independent of their batch in float32 only.
    device
        Such as `cpu` or `cuda`; None takes an accelerator when there is one.

    Raises
    ------
    ModelMissing
        When there is no such directory or the hub has no such model; at the first use, not here.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        batch_rows: int = 64,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        if batch_rows < 1:
            raise ValueError(f"batch_rows is {batch_rows}; allowed: 1 or more")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
        self._model, self._revision, self._dtype = model, revision, dtype
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_rows = batch_rows

    def identity(self) -> ModelIdentity:
        """Name, digest of weights and tokenizer, parameters; `quantisation` is None for float32."""
        return self._load().identity

    def generate(self, jobs: Sequence[Job]) -> list[Output]:
        """One output a job, in order; each as if the job had run alone."""
        return self._generate(jobs, _sample)

    def generate_by(self, jobs: Sequence[Job], draw: Draw) -> list[Output]:
        """As `generate`, with another way of choosing tokens."""

        def way(loaded: _Loaded, batch: list[tuple[Job, list[int]]]) -> list[SampledRow]:
            with _threads(loaded.identity):
                return draw(loaded.network, [job for job, _ in batch], [ids for _, ids in batch], loaded.stop)

        return self._generate(jobs, way)

    def _generate(self, jobs: Sequence[Job], way: _Way) -> list[Output]:
        loaded = self._load()
        outputs: dict[int, Output] = {}
        ready: list[tuple[int, Job, list[int]]] = []
        for place, job in enumerate(jobs):
            try:
                ready.append((place, job, _prompt_ids(loaded, job)))
            except BackendError as error:
                outputs[place] = failed(job, error, seconds=0.0)
        for batch in _batches(ready, self._batch_rows):
            rows = _run(loaded, [(job, ids) for _, job, ids in batch], way)
            outputs.update(zip((place for place, _, _ in batch), rows, strict=True))
        return [outputs[place] for place in range(len(jobs))]

    def _load(self) -> _Loaded:
        if _is_path(self._model):
            _check_directory(Path(self._model))
            stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in _files(Path(self._model)))
        else:
            stamp = ()
        return _load(self._model, self._revision, self._dtype, self._device, stamp)


def _is_path(model: str) -> bool:
    """Whether a name means a directory; hub ids are `name` or `owner/name`."""
    return Path(model).is_dir() or model.startswith((".", "~", "/")) or model.count("/") > 1


def _files(directory: Path) -> list[Path]:
    """Weights and what shapes their use, by name."""
    return sorted([*directory.glob("*.safetensors"), *directory.glob("*.json")])


def _check_directory(directory: Path) -> None:
    for pattern in ("config.json", "*.safetensors", "tokenizer*.json"):
        if not any(directory.glob(pattern)):
            raise ModelMissing(
                f"{directory} has no {pattern}",
                fix="train the embedded model first, or give a directory that save_pretrained wrote "
                "(model and tokenizer)",
            )


@lru_cache(maxsize=2)
def _load(model: str, revision: str | None, dtype: str, device: str, stamp: tuple[object, ...]) -> _Loaded:
    """Model, tokenizer, stop set and identity; `stamp` changes when a directory's files do."""
    try:
        with _no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
            net: Any = AutoModelForCausalLM.from_pretrained(
                model,
                revision=revision,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelMissing(
            f"cannot load {model!r}: {str(error).strip().splitlines()[0]}",
            fix="check the name and the network (a hub id is downloaded once), or give a directory with "
            "config.json, safetensors weights and a tokenizer",
        ) from error
    net = net.eval().requires_grad_(False).to(device)
    network = open_network(net)
    directory, commit = _resolve(model, revision, net)
    identity = ModelIdentity(
        name=model,
        digest=_digest(directory),
        parameters=sum(p.numel() for p in net.parameters()),
        quantisation=None if dtype == "float32" else dtype,
        revision=commit,
        server_version=None,
    )
    return _Loaded(network, tokenizer, _stop_set(net, tokenizer, network.vocabulary), identity)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading takes a second or less from disk; its bars would end up in the night's log."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _resolve(model: str, revision: str | None, net: Any) -> tuple[Path, str | None]:
    """The directory that holds the files, and the hub's commit."""
    if Path(model).is_dir():
        return Path(model), None
    commit = getattr(net.config, "_commit_hash", None)
    config: Any = cached_file(model, "config.json", revision=commit or revision)
    return Path(config).parent, commit


def _digest(directory: Path) -> str:
    """SHA-256 of the names and digests of what decides a text: weights and tokenizer.

    Of an embedded model it is the digest that `models.embedded` records.
    """
    digests = {}
    for path in [*directory.glob("*.safetensors"), *directory.glob("tokenizer.json")]:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _stop_set(net: Any, tokenizer: Any, vocabulary: int) -> frozenset[int]:
    """Ids that end a text: the tokenizer's end token, and the model's where the tokenizer has it as special.

    A tiny model saved without an end token carries its class's default (2 for Llama), there a letter.
    """
    stop = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    configured = net.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    special = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    return frozenset(i for i in stop.union(special.intersection(listed)) if i < vocabulary)


def _prompt_ids(loaded: _Loaded, job: Job) -> list[int]:
    """The job as token ids, its oldest ones dropped where the window is too small for prompt and reply."""
    ids = _encode(loaded.tokenizer, job)
    sampling = job.sampling
    window = min(sampling.num_ctx, loaded.network.window or sampling.num_ctx)
    room = window - sampling.max_new_tokens
    if room < 1:
        raise RequestRefused(
            f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in the window of {window}",
            fix="lower max_new_tokens",
        )
    if not ids:
        raise RequestRefused(
            f"the tokenizer makes no token of the prompt of job {job.key!r}", fix="change the prompt"
        )
    return ids[-room:]


def _encode(tokenizer: Any, job: Job) -> list[int]:
    """A chat turn through the tokenizer's template where it has one, else the texts joined by blank lines."""
    if job.is_chat and tokenizer.chat_template:
        turns = [{"role": m.role, "content": m.content} for m in job.history]
        turns.append({"role": "user", "content": job.prompt})
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    text = "\n\n".join([*(m.content for m in job.history), job.prompt])
    return list(tokenizer(text)["input_ids"])


_Ready = tuple[int, Job, list[int]]


def _batches(ready: Sequence[_Ready], rows: int) -> Iterator[list[_Ready]]:
    """Jobs of one sampling, ordered by prompt length, at most `rows` together."""

    def order(item: _Ready) -> tuple[str, int, int]:
        return repr(item[1].sampling), len(item[2]), item[0]

    for _, group in groupby(sorted(ready, key=order), key=lambda item: item[1].sampling):
        members = list(group)
        for start in range(0, len(members), rows):
            yield members[start : start + rows]


def _run(loaded: _Loaded, batch: list[tuple[Job, list[int]]], way: _Way) -> list[Output]:
    """One batch, in halves when memory runs out."""
    began = time.perf_counter()
    try:
        sampled = way(loaded, batch)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        sampled = None  # halve outside the handler: the traceback holds the tensors that filled the memory
    if sampled is None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return _run_halves(loaded, batch, began, way)
    seconds = (time.perf_counter() - began) / len(batch)
    return [_output(loaded, job, row, seconds) for (job, _), row in zip(batch, sampled, strict=True)]


def _run_halves(loaded: _Loaded, batch: list[tuple[Job, list[int]]], began: float, way: _Way) -> list[Output]:
    if len(batch) > 1:
        middle = len(batch) // 2
        return _run(loaded, batch[:middle], way) + _run(loaded, batch[middle:], way)
    job, ids = batch[0]
    error = OutOfMemory(f"no memory for one row of {len(ids) + job.sampling.max_new_tokens} tokens")
    return [failed(job, error, seconds=time.perf_counter() - began)]


def _is_out_of_memory(error: Exception) -> bool:
    """Torch says it by type on accelerators, on CPU only in the message of a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def _threads(identity: ModelIdentity) -> Iterator[None]:
    """One torch thread for a small model, restored afterwards."""
    before = torch.get_num_threads()
    if (identity.parameters or 0) < THREADED_FROM:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sample(loaded: _Loaded, batch: list[tuple[Job, list[int]]]) -> list[SampledRow]:
    sampling: Sampling = batch[0][0].sampling
    uniforms = row_uniforms([job.seed for job, _ in batch], sampling.max_new_tokens)
    prompts = [ids for _, ids in batch]
    with _threads(loaded.identity):
        return sample(loaded.network, prompts, sampling, InverseCdf(sampling, uniforms), stop=loaded.stop)


def _output(loaded: _Loaded, job: Job, row: SampledRow, seconds: float) -> Output:
    if row.failure is not None:
        return failed(job, NonFiniteLogits(f"{row.failure} (job {job.key!r})"), seconds=seconds)
    text = loaded.tokenizer.decode(row.tokens, skip_special_tokens=True)
    if not text.strip():
        found = f"{len(row.tokens)} tokens without text, finish reason {row.finish_reason}"
        return failed(job, EmptyReply(found), seconds=seconds)
    return Output(
        key=job.key,
        text=text,
        finish_reason=row.finish_reason,
        tokens=len(row.tokens),
        seconds=seconds,
        reason=None,
    )
