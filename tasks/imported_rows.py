"""Rows of the store for a part of an imported file: cells, texts, seeds, metrics, tests.

Every identity is made of the file's content, so importing it again, under any name, writes the same rows. A
metric computed from the text has the metric's name, the file's own value `stored.<name>`; both are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.earlier_results import EarlierFile, EarlierText, Part
from lab.fingerprint import canonical, code, fingerprint
from lab.records import GenerationRow, MetricRow, Record, SeedDrawRow, TestResultRow
from stats.thinking import PREFIX
from tasks.imported_steps import Owner, answers, step
from tasks.importing import samples_a_cell

NOT_IN_FILE = "not in the file"
STORED = "stored."


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the rows of a part belong."""

    study: str
    model: str
    plan_hash: str
    environment_id: str
    file: EarlierFile
    part: Part

    @property
    def owner(self) -> Owner:
        """What its rows belong to."""
        return Owner(
            study=self.study,
            model=self.model,
            plan_hash=self.plan_hash,
            environment_id=self.environment_id,
        )


def cell_config(place: Place, arm: str, stream: int, prompt_id: str) -> dict[str, object]:
    """What a cell's step id is made of."""
    return {
        "imported": place.file.sha256,
        "part": place.part.name,
        "arm": arm,
        "stream": stream,
        "prompt_id": prompt_id,
    }


def cell_id(place: Place, arm: str, stream: int, prompt_id: str) -> str:
    """Step id of a cell."""
    return fingerprint(cell_config(place, arm, stream, prompt_id))


def step_rows(place: Place, analysis: str | None) -> list[Record]:
    """Steps of the cells and of the analysis, and that they belong to the plan."""
    texts = {prompt.prompt_id: prompt for prompt in place.part.prompts}
    cells = dict.fromkeys((text.arm, text.stream, text.prompt_id) for text in place.part.texts)
    reader = code("lab.earlier_formats")
    rows: list[Record] = []
    for arm, stream, prompt_id in cells:
        prompt = texts[prompt_id]
        told = {"prompt": prompt.text, "domain": prompt.domain, "constraint": prompt.constraint}
        config = cell_config(place, arm, stream, prompt_id)
        key = fingerprint(config)
        rows += step(place.owner, key, "cell", config | told, reader, arm=arm, seed=stream)
    if analysis is not None:
        config = {"imported": place.file.sha256, "part": place.part.name}
        rows += step(place.owner, analysis, "analyse", config, code("tasks.importing"))
    return rows


def generation_rows(place: Place) -> list[GenerationRow]:
    """One row a text; where the format has no seeds both seed columns hold 0 and `sampling` says so."""
    return [_generation(place, order, text) for order, text in enumerate(place.part.texts)]


def _generation(place: Place, order: int, text: EarlierText) -> GenerationRow:
    step_id = cell_id(place, text.arm, text.stream, text.prompt_id)
    seed = text.seed64 or 0
    return GenerationRow(
        step_id=step_id,
        sample=text.k,
        turn=text.turn,
        probe=text.probe,
        sample_id=fingerprint([step_id, text.k, text.turn, text.probe]),
        arm=text.arm,
        prompt_id=text.prompt_id,
        stream=text.stream,
        order_index=order,
        seed64=seed,
        seed32=seed % 2**32,
        text=text.text,
        finish_reason=None,
        tokens=None,
        seconds=None,
        model_digest=NOT_IN_FILE,
        server_version=None,
        sampling=_sampling(place.file.format, text.extent, text.seed64 is None),
        imported=True,
        reason=text.reason,
    )


def _sampling(format_: str, extent: str, seedless: bool) -> str:
    seed = NOT_IN_FILE if seedless else "as in the file"
    return canonical({"imported": format_, "text": extent, "seed": seed, "options": NOT_IN_FILE})


def seed_rows(place: Place) -> list[SeedDrawRow]:
    """The file's seeds as a tape of each source, in the order of the file."""
    drawn: dict[str, int] = {}
    rows = []
    for text in place.part.texts:
        if text.seed64 is None or text.probe:
            continue
        index = drawn[text.arm] = drawn.get(text.arm, -1) + 1
        rows.append(
            SeedDrawRow(
                tape=f"imported/{place.file.sha256[:16]}/{place.part.name}/{text.arm}",
                draw=index,
                source=text.arm,
                stream=text.stream,
                purpose=f"{text.prompt_id}/{text.k}/{text.turn}",
                seed64=text.seed64,
                seed32=text.seed64 % 2**32,
            )
        )
    return rows


def metric_rows(place: Place, body: Mapping[str, Any]) -> list[MetricRow]:
    """Metrics of every text: computed from it under their names, the file's own under `stored.<name>`."""
    rows = []
    for text, found in zip(place.part.texts, body["measured"], strict=True):
        step_id = cell_id(place, text.arm, text.stream, text.prompt_id)
        unit = f"sample/{text.k}/{text.turn}/{text.probe}"
        rows += [
            MetricRow(step_id=step_id, unit=unit, name=name, value=value, reason=reason)
            for name, value, reason in _values(text, found)
        ]
    return rows


def _values(text: EarlierText, found: Mapping[str, Any]) -> Iterator[tuple[str, float | None, str | None]]:
    for prefix, kind in (("", "metrics"), (PREFIX, "with_thinking")):
        for name, (value, reason) in found.get(kind, {}).items():
            yield prefix + name, value, reason
    for name, value in text.stored.items():
        yield f"{STORED}{name}", value, None if value is not None else "null or NaN in the file"


def similarity_rows(place: Place, body: Mapping[str, Any]) -> list[MetricRow]:
    """Similarity of each cell's texts; the unit is `look/<samples>`."""
    unit = f"look/{samples_a_cell(place.part)}"
    return [
        MetricRow(
            step_id=cell_id(place, arm, stream, prompt_id),
            unit=unit,
            name="pairwise_jaccard",
            value=value,
            reason=reason,
        )
        for arm, stream, prompt_id, value, reason in body["similarity"]
    ]


def result_rows(place: Place, body: Mapping[str, Any], analysis: str) -> list[TestResultRow]:
    """Rows of the `test` table."""
    return answers(place.owner, body["tests"], analysis, samples_a_cell(place.part))
