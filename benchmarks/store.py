"""`Store.record` beside DuckDB's keyed appender, rows a second, in paired runs.

Both sides start from the same records and write into the same tables with the same keys and checks; nobody
may keep the database open, so both open and close it for each batch. The appender (`con.appender(table,
action="upsert")`) is the fastest keyed ingest DuckDB offers from Python; `record` adds a hashed outbox file
and checks before anything is written. Small batches go to the outbox and are drained in groups. The last
line lets the appender break the rule and keep the file through a whole group: what the outbox costs against
that, each batch being synced on its own, is shown and has no target.

Runs alternate, so that a loaded machine loads both; the ratio of each pair is reported.

    python -m benchmarks.store [--pairs 9]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from pathlib import Path

import duckdb

from benchmarks.table import promised, runs
from lab.records import GenerationRow, MetricRow, Record, TestResultRow
from lab.store import Store

TARGET = 0.8
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`batches` batches of `rows` rows each; ours are drained together."""

    name: str
    make: Callable[[int, int], Sequence[Record]]
    rows: int
    batches: int = 1
    peer_keeps_open: bool = False


def metric_rows(batch: int, rows: int) -> Sequence[Record]:
    """Numbers about samples, every 20th undefined."""
    return [
        MetricRow(
            step_id=f"cell-{batch:06d}",
            unit=f"sample/{i}/0/0",
            name="mtld",
            value=None if i % 20 == 0 else 40.0 + i / 7,
            reason="under 10 words" if i % 20 == 0 else None,
        )
        for i in range(rows)
    ]


def generation_rows(batch: int, rows: int) -> Sequence[Record]:
    """Generated texts of 600 characters."""
    return [
        GenerationRow(
            step_id=f"cell-{batch:06d}-{i % 90}",
            sample=i,
            turn=0,
            probe=0,
            sample_id=f"{batch:08x}{i:08x}",
            arm="TRNG",
            prompt_id=f"prompt-{i % 30}",
            stream=None,
            order_index=i,
            seed64=2**64 - 1 - i,
            seed32=2**32 - 1 - i,
            text=f"{i} " + "the quick brown fox " * 30,
            finish_reason="length",
            tokens=150,
            seconds=0.25,
            model_digest="0" * 64,
            server_version=None,
            sampling='{"temperature":0.7,"top_k":50,"top_p":0.9}',
            imported=False,
            reason=None,
        )
        for i in range(rows)
    ]


def result_rows(batch: int, rows: int) -> Sequence[Record]:
    """Statistical answers, the widest table."""
    unset: dict[str, None] = dict.fromkeys(
        ("effect", "df1", "df2", "power", "mde", "n_to_settle", "verdict", "negligible", "reason"), None
    )
    return [
        TestResultRow(
            step_id=f"analysis-{batch:06d}",
            study="entropy_seeds",
            model="pydoc-0.4m",
            look=40,
            family="seed_effect",
            hypothesis="pairwise",
            metric=f"metric-{i}",
            contrast="TRNG-PRNG",
            method="welch",
            role="decides",
            estimate=i / 7,
            low=i / 7 - 1,
            high=i / 7 + 1,
            statistic=i / 3,
            p=1 / (1 + i),
            p_adjusted=1 / (1 + i),
            alpha=0.05,
            margin=0.2,
            n=480,
            **unset,
        )
        for i in range(rows)
    ]


CASES = (
    Case(name="metric, 1 batch of 5,000", make=metric_rows, rows=5_000),
    Case(name="metric, 1 batch of 20,000", make=metric_rows, rows=20_000),
    Case(name="generation, 1 batch of 4,500", make=generation_rows, rows=4_500),
    Case(name="test, 1 batch of 5,000", make=result_rows, rows=5_000),
    Case(name="metric, 50 batches of 50 in one drain", make=metric_rows, rows=50, batches=50),
    Case(
        name="the same, appender keeps the file open",
        make=metric_rows,
        rows=50,
        batches=50,
        peer_keeps_open=True,
    ),
)


def record(store: Store, batches: Sequence[Sequence[Record]]) -> None:
    """Our side: every batch durable on its own, all of them drained together."""
    for batch in batches[:-1]:
        store.record(batch, drain=False)
    store.record(batches[-1])


def append(path: Path, batches: Sequence[Sequence[Record]], *, keep_open: bool) -> None:
    """The peer: one upsert and commit for each batch, opening and closing for each unless it keeps open."""
    groups = [batches] if keep_open else [[batch] for batch in batches]
    for group in groups:
        kind = type(group[0][0])
        as_tuple = attrgetter(*(field.name for field in fields(kind)))
        con = duckdb.connect(path, config=CONFIG)
        try:
            with con.appender(kind.table, action="upsert") as appender:
                for batch in group:
                    appender.append_rows([as_tuple(row) for row in batch])
                    appender.flush()
        finally:
            con.close()


def seconds_of(work: Callable[[], None]) -> float:
    """Wall time of one call, seconds; the last side's garbage is not on this one's bill."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(case: Case, directory: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of our runs and of the peer's, pair by pair, a database each; the first pair is thrown away."""
    ours, theirs = Store(directory / "ours"), Store(directory / "theirs")
    for store in (ours, theirs):
        store.snapshot()  # makes the tables
    ours_seconds: list[float] = []
    theirs_seconds: list[float] = []
    for pair in range(pairs + 1):
        batches = [case.make(pair * case.batches + i, case.rows) for i in range(case.batches)]
        sides = [
            (ours_seconds, partial(record, ours, batches)),
            (theirs_seconds, partial(append, theirs.path, batches, keep_open=case.peer_keeps_open)),
        ]
        for seconds, work in sides if pair % 2 else reversed(sides):
            seconds.append(seconds_of(work))
    return ours_seconds[1:], theirs_seconds[1:]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each case: rows a second of both; minimum, median and maximum ratio over the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=runs(9, 2))
    pairs = parser.parse_args(arguments).pairs
    print(f"{'record against the keyed appender':42} {'ours':>9} {'appender':>9}   ratio min / median / max")
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            ours, theirs = compare(case, Path(directory), pairs)
        rows = case.rows * case.batches
        ratios = [peer / own for own, peer in zip(ours, theirs, strict=True)]
        median = statistics.median(ratios)
        own, peer = (rows / statistics.median(seconds) for seconds in (ours, theirs))
        below = f"  below {TARGET}" if median < TARGET and not case.peer_keeps_open else ""
        goal = None if case.peer_keeps_open else TARGET
        promised(f"record: {case.name}", "DuckDB's keyed appender", ratios, least=goal)
        print(
            f"{case.name:42} {own:9,.0f} {peer:9,.0f}   "
            f"{min(ratios):.2f} / {median:.2f} / {max(ratios):.2f}{below}"
        )


if __name__ == "__main__":
    main()
