"""Runs of the nanodesmo study as rows: every step, looks, what a run came to, its files; and as series.

What is undefined keeps its row with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lab.fingerprint import fingerprint
from lab.records import ArtifactRow, MetricRow, ReactionRow, Record, TrainLogRow
from models.nano_dump import NanoDump, read_dump, series
from models.nano_log import CHECKPOINT, LOG, STATE, Reaction, read_log
from models.nano_texts import TextSource, corpus_of, describe
from stats.regime_series import Occurrence, RunSeries
from stats.rows import FloatArray
from stats.state_probes import effective_rank, pc1_step
from tasks.nano_training import NanoJob, run_facts

NO_STATE = "the run has no self-state"
NO_MEMORY = "the run has no memory"
SETTLED = 0.25
"""Share of the steps, from the beginning, that means of a run leave out."""


def text_facts(source: TextSource, cache: Path, block_size: int) -> dict[str, Any]:
    """What a text is.

    Raises
    ------
    ValueError
        It cannot be had, or is too short for windows of `block_size`.
    """
    corpus = corpus_of(source, cache)
    corpus.refuse_short(block_size)
    return {
        "said": describe(source),
        "sha256": corpus.sha256,
        "vocab_size": corpus.vocab_size,
        "train_tokens": len(corpus.train),
        "heldout_tokens": len(corpus.heldout),
    }


def text_rows(described: Mapping[str, Mapping[str, Any]], book: Any) -> list[Record]:
    """One step a text, with its size."""
    rows: list[Record] = []
    for name, facts in described.items():
        key = fingerprint(["text", facts])
        rows += [book.step(key, "prepare", name, None, config=dict(facts)), book.planned(key)]
        rows += [
            _metric(key, one, float(facts[one])) for one in ("vocab_size", "train_tokens", "heldout_tokens")
        ]
    return rows


def seconds(home: Path, job: NanoJob) -> float | None:
    """Of the run, all its sittings together."""
    facts = run_facts(job.place(home))
    return None if facts is None else float(facts["seconds"])


def run_rows(home: Path, job: NanoJob, key: str) -> list[Record]:
    """A whole run: its steps and its twins', its looks, what it came to, and its files."""
    place = job.place(home)
    dump = read_dump(place)
    rows: list[Record] = [ReactionRow(step_id=key, **asdict(row)) for row in _every_row(dump)]
    for step, nats in dump.looks:
        rows.append(
            TrainLogRow(
                step_id=key,
                iteration=step,
                train_loss_nats=None,
                valid_loss_nats=nats,
                learning_rate=None,
                tokens=step * job.recipe.batch * job.recipe.shape.block_size,
                seconds=None,
            )
        )
    rows += _metrics(dump, job, key)
    return rows + _files(home, place, key)


def logged_rows(place: Path, key: str) -> list[Record]:
    """What a run that broke had logged."""
    return [ReactionRow(step_id=key, **asdict(row)) for row in read_log(place / LOG)]


def _every_row(dump: NanoDump) -> list[Reaction]:
    return [*dump.rows, *(row for rows in dump.twins.values() for row in rows)]


def _metrics(dump: NanoDump, job: NanoJob, key: str) -> list[Record]:
    channels = series(dump)[""]
    first = int(SETTLED * len(dump.rows))
    clean = np.array([row.regimes == "" for row in dump.rows])
    clean[:first] = False

    def mean(name: str) -> float | None:
        values = channels[name][clean]
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else None

    steps = len(_every_row(dump))  # those of twins took time too
    tokens = steps * job.recipe.batch * job.recipe.shape.block_size
    share = memory_share(channels)
    without_state = NO_STATE if job.recipe.state is None else "undefined at every step"
    rows = [
        _metric(key, "valid_loss_nats", dump.valid_loss_nats),
        _metric(key, "tokens_per_second", tokens / float(dump.facts["seconds"])),
        _metric(key, "self_drift_mean", mean("self_drift"), without_state),
        _metric(key, "self_norm_mean", mean("self_norm"), without_state),
        _metric(key, "effect_kl_mean", mean("effect_kl_nats"), without_state),
        _metric(key, "memory_share", share, NO_MEMORY),
        _metric(key, "memory_filled", _last(channels["memory_filled"]), "the run has no buffer"),
    ]
    s = dump.trajectory
    if s is None:
        return [*rows, *(_metric(key, name, None, NO_STATE) for name in ("effective_rank", "pc1_step"))]
    for name, measure in (("effective_rank", effective_rank), ("pc1_step", pc1_step)):
        try:
            rows.append(_metric(key, name, float(measure(s))))
        except ValueError as error:
            rows.append(_metric(key, name, None, str(error)))
    return list(rows)


def memory_share(channels: Mapping[str, FloatArray]) -> float | None:
    """Mean of g |mem| / ((1 - g) |raw| + g |mem|) over steps that have a memory."""
    g, mem, raw = (channels[name] for name in ("gate", "clamped_norm", "raw_norm"))
    whole = (1 - g) * raw + g * mem
    share = np.divide(g * mem, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    known = share[np.isfinite(share)]
    return float(known.mean()) if len(known) else None


def _last(values: FloatArray) -> float | None:
    return float(values[-1]) if len(values) and np.isfinite(values[-1]) else None


def _files(home: Path, place: Path, key: str) -> list[Record]:
    rows: list[Record] = []
    for path, kind in ((place / CHECKPOINT / STATE, "checkpoint"), (place / LOG, "log")):
        body = path.read_bytes()
        rows.append(
            ArtifactRow(
                step_id=key,
                path=path.relative_to(home).as_posix(),
                kind=kind,
                sha256=hashlib.sha256(body).hexdigest(),
                bytes=len(body),
            )
        )
    return rows


def run_series(home: Path, job: NanoJob, seed: int) -> RunSeries:
    """A run with its windows and their twins, for statistics."""
    found = series(read_dump(job.place(home)))
    occurrences = tuple(
        Occurrence(
            regime=one.regime, number=one.number, start=one.start, end=one.end, twin=found.get(one.name, {})
        )
        for one in job.plan.occurrences()
    )
    return RunSeries(seed=seed, channels=found[""], occurrences=occurrences)


def _metric(key: str, name: str, value: float | None, reason: str | None = None) -> MetricRow:
    why = None if value is not None else reason or "not measured"
    return MetricRow(step_id=key, unit="*", name=name, value=value, reason=why)
