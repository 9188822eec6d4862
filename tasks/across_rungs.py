"""The analysis over all rungs of a ladder as a cached task: analyses of the rungs in, rows of `test` out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from stats.across_models import Rung
from stats.crossover import LADDER_ENDED, analyse_ladder, scale_up_rows
from stats.rows import TestRow
from tasks import seed_analysis
from tasks.shell import product_key

KIND = "across"
ENDED = LADDER_ENDED
"""Why a rung above an ended ladder has no answer."""


@dataclass(frozen=True, kw_only=True)
class Climbed:
    """A rung as far as it was climbed."""

    model: str
    parameters: int
    line: str
    analysis: str
    """Key of its analysis at the look where it stopped; empty when it was skipped."""
    look: int
    looks: tuple[int, ...]
    skipped: str | None
    """Why it has no answer, whether it was measured or not."""
    tapes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Across:
    """What the plan fixes about the rungs together."""

    primary: tuple[str, ...]
    sources: tuple[str, ...]
    model_contrast: tuple[str, str] | None
    """Two rungs whose effects are declared to be compared."""
    alpha: float
    confirmation_samples: int


def across_code() -> str:
    """Fingerprint of every formula between the rungs' rows and the rows over all of them."""
    return code("stats.crossover", alone=("tasks.across_rungs",))


def across_key(climbed: Sequence[Climbed], fresh: Sequence[Climbed], asked: Across) -> str:
    """Fingerprint of the rungs, their confirmations, the question and the formulas."""
    rungs = [[asdict(rung) for rung in found] for found in (climbed, fresh)]
    return fingerprint([rungs, asdict(asked), across_code()])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="compare models",
    task_run_name="compare models, {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def compare_models(
    home: str, what: str, climbed: Sequence[Climbed], fresh: Sequence[Climbed], asked: Across, key: str
) -> dict[str, Any]:
    """Analyse the rungs together; the product holds the test rows."""
    screen = [_rung(Path(home), rung) for rung in climbed]
    rows = compare(screen, [_rung(Path(home), rung) for rung in fresh], asked)
    body = {"tests": [asdict(row) for row in rows]}
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(rows)}


def compare(screen: Sequence[Rung], fresh: Sequence[Rung], asked: Across) -> list[TestRow]:
    """Rows over all rungs: correction, pooled effects, slopes, declared contrast, crossover, the end."""
    contrasts = [
        (metric, f"{a}-{b}")
        for metric in asked.primary
        for i, a in enumerate(asked.sources)
        for b in asked.sources[i + 1 :]
    ]
    counts = Counter(rung.line for rung in screen)
    rows = analyse_ladder(
        screen,
        contrasts,
        lines=sorted(line for line, count in counts.items() if count > 2),  # a slope needs three
        declared=asked.model_contrast,
        alpha=asked.alpha,
    )
    if fresh:
        rows += scale_up_rows(
            screen, fresh, alpha=asked.alpha, samples=asked.confirmation_samples, screen_alpha=asked.alpha
        )
    return rows


def detected(body: Mapping[str, Any]) -> list[str]:
    """Models DETECTED after correction over rungs."""
    return [
        row["contrast"]
        for row in body["tests"]
        if row["family"] == "ladder" and row["hypothesis"] == "rung" and row["verdict"] == "DETECTED"
    ]


def _rung(home: Path, rung: Climbed) -> Rung:
    known: dict[str, Any] = {
        "model": rung.model,
        "parameters": rung.parameters,
        "line": rung.line,
        "look": rung.look,
        "looks": rung.looks,
        "tapes": frozenset(rung.tapes),
    }
    if rung.skipped is not None:
        return Rung(**known, skipped=rung.skipped)
    body = Products(home, seed_analysis.KIND).read(rung.analysis)
    if body is None:
        raise ValueError(f"the analysis of {rung.model} is gone or damaged; run the study again")
    tests = [TestRow(**row) for row in body["tests"]]
    return Rung(**known, rows=[row for row in tests if row.family == "seed_effect"])
