"""Texts of earlier results, measured and analysed by the functions that our own texts go through.

A whole text is measured again. Of a text that was cut, the file's own values are all there is; since the
earlier scripts defined some metrics otherwise, definitions are never mixed: one text of a file that is cut,
and the whole file is analysed by its stored values. What a file cannot have, a positive control and an A/A
arm, gets an INCONCLUSIVE verdict that says so.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.earlier_results import SOURCES, WHOLE, EarlierFile, EarlierText, Part
from lab.fingerprint import canonical, code, fingerprint
from lab.products import Products
from models.prompts import LEVELS
from stats.conversations import as_unit
from stats.diversity import EXTRA, METRICS, MIN_WORDS, PRIMARY, SECONDARY, describe, pairwise_jaccard
from stats.rows import IntArray, TestRow
from stats.seed_effect import Design
from stats.seed_study import Question, Text, analyse_look
from stats.thinking import measure_with_thinking
from tasks.shell import product_key

KIND = "imported"
MARGIN_SD, ALPHA = 0.2, 0.05
REQUIRED_PAIRS = 400
PERMUTATIONS = 10_000
NO_LEVEL = "open"
"""Room of a prompt whose format says neither level nor a domain we know: its texts must be distinct."""
ABSENT = {
    "positive_control": "the file has no positive control, so a null may be blindness",
    "a_a": "the file has no source under two labels",
}
NO_SEEDS = "under injection the source acts on every token, there are no seeds to compare"

Found = dict[str, Any]
"""What `stats.diversity.describe` returns; `with_thinking` where a text has reasoning."""


def measure_text(text: EarlierText) -> Found:
    """Failure, exclusion, words, hash and metrics of one text.

    Of a cut text the words are the file's count, or else those that are left, and where these are too few
    nobody knows: it is excluded. The hash takes in the stored values, so that two texts with one beginning
    stay two; metrics are undefined.
    """
    if text.text is None or text.extent == WHOLE:
        found, thought = describe(text.text, text.reason), measure_with_thinking(text.text)
        if thought is not None:
            found["with_thinking"] = {name: list(value) for name, value in thought.items()}
        return found
    words = len(text.text.split())
    length = text.stored.get("length_words")
    if length is not None and length >= 0 and words:
        words = max(words, round(length))
    failure = None if words else "no words left after stripping"
    seen = f"{words} words" if length is not None else f"{words} words seen, its length not in the file"
    short = f"{seen}, under {MIN_WORDS}" if words < MIN_WORDS else None
    why = f"the text is not whole ({text.extent}); see stored.*"
    return {
        "failure": failure,
        "excluded": failure or short,
        "words": words,
        "sha256": hashlib.sha256((text.text + canonical(text.stored)).encode()).hexdigest(),
        "metrics": {name: [None, failure or why] for name in METRICS + EXTRA},
    }


def stored_metrics(text: EarlierText) -> dict[str, list[float | str | None]]:
    """The file's values of our metrics, each with the reason when it has none."""
    return {
        name: [
            text.stored.get(name),
            None
            if text.stored.get(name) is not None
            else "null or NaN in the file"
            if name in text.stored
            else "not in the file",
        ]
        for name in METRICS
    }


def units(part: Part, measured: Sequence[Found], *, stored: bool) -> list[Text]:
    """The part as the analysis takes it: one unit a sample, a conversation counting as one.

    Parameters
    ----------
    part
        Texts of a file.
    measured
        What `measure_text` says of each, in their order.
    stored
        Whether the file's own values are analysed.
    """
    prompts = {prompt.prompt_id: prompt for prompt in part.prompts}
    turns: dict[tuple[str, int, str, int, int], list[tuple[EarlierText, Found]]] = defaultdict(list)
    for text, found in zip(part.texts, measured, strict=True):
        values = found | {"metrics": stored_metrics(text), "with_thinking": {}} if stored else found
        turns[text.arm, text.stream, text.prompt_id, text.k, text.probe].append((text, values))
    return [
        Text(
            arm=arm,
            stream=stream,
            prompt=prompt,
            domain=prompts[prompt].domain or "",
            constraint=prompts[prompt].constraint or LEVELS.get(prompts[prompt].domain or "", NO_LEVEL),
            k=k,
            probe=probe,
            seed32=k if group[0][0].seed64 is None else group[0][0].seed64 % 2**32,
            **(group[0][1] if len(group) == 1 else as_unit([found for _, found in group])),
        )
        for (arm, stream, prompt, k, probe), group in turns.items()
    ]


def samples_a_cell(part: Part) -> int:
    """The largest number of samples that a source has at a prompt in a stream."""
    return 1 + max(text.k for text in part.texts)


def question(part: Part) -> Question:
    """The analysis of a part: our primary metrics, margin and level, spent in its one look."""
    look = samples_a_cell(part)
    return Question(
        treatments=part.arms,
        controls={},
        control_alpha={},
        kinds={arm: (SOURCES[arm], None) for arm in part.arms},
        design=Design(
            primary=PRIMARY,
            secondary=SECONDARY,
            margin_sd=MARGIN_SD,
            alpha=ALPHA,
            looks=(look,),
            look=look,
            sources=part.arms,
        ),
        required_pairs=REQUIRED_PAIRS,
        permutations=PERMUTATIONS,
        seed=look,
    )


def seeds(file: EarlierFile, arms: Sequence[str]) -> dict[str, IntArray]:
    """Arm -> 32-bit seeds of all its texts in the file, in order, repeats left out."""
    drawn: dict[str, list[int]] = {arm: [] for arm in arms}
    for part in file.parts:
        for text in part.texts:
            if text.arm in drawn and text.probe == 0 and text.seed64 is not None:
                drawn[text.arm].append(text.seed64 % 2**32)
    return {arm: np.array(found, dtype=np.int64) for arm, found in drawn.items()}


def analyse_part(file: EarlierFile, part: Part) -> dict[str, Any]:
    """Measure and analyse a part.

    Returns
    -------
    dict
        `measured`: what `measure_text` says of each text; `tests`: rows of the analysis, none where the part
        has one source only; `similarity`: [arm, stream, prompt, value, reason] of each cell of whole texts.
    """
    measured = [measure_text(text) for text in part.texts]
    rows: list[TestRow] = []
    if len(part.arms) > 1:
        asked = units(part, measured, stored=not file.is_whole)
        rows = [_absent(family, reason) for family, reason in ABSENT.items()]
        rows += analyse_look(
            asked, seeds(file, part.arms), question(part), conversations=_conversations(file, part)
        )
        if not file.has_seeds:
            rows = [row for row in rows if row.family not in ("seed_sources", "data_processing_bound")]
            rows.append(_absent("seed_sources", NO_SEEDS))
    return {"measured": measured, "tests": [asdict(row) for row in rows], "similarity": _similarity(part)}


def _conversations(file: EarlierFile, part: Part) -> list[Text]:
    """The file's conversations, to compare with its single turns."""
    if part.name != "single_turn":
        return []
    return [
        unit
        for other in file.parts
        if other.name == "multi_turn"
        for unit in units(other, [measure_text(text) for text in other.texts], stored=False)
    ]


def _absent(family: str, reason: str) -> TestRow:
    return TestRow(
        family=family,
        hypothesis="verdict",
        method="not asked of imported results",
        role="verdict",
        n=0,
        verdict="INCONCLUSIVE",
        reason=reason,
    )


def _similarity(part: Part) -> list[list[Any]]:
    """Mean pairwise Jaccard similarity of the whole first turns of each cell."""
    cells: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for text in part.texts:
        if text.probe == 0 and text.turn <= 1 and text.text is not None and text.extent == WHOLE:
            cells[text.arm, text.stream, text.prompt_id].append(text.text)
    return [[*cell, *pairwise_jaccard(texts)] for cell, texts in cells.items()]


def analysis_key(file: EarlierFile, part: Part) -> str:
    """Fingerprint of the file's content, the part, the question and the code."""
    return fingerprint([file.sha256, part.name, asdict(question(part)), code("tasks.importing")])


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse imported",
    task_run_name="analyse imported {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse_imported(home: str, what: str, file: EarlierFile, part: Part, key: str) -> dict[str, Any]:
    """Measure and analyse a part; the product is what `analyse_part` returns."""
    body = analyse_part(file, part)
    return {"sha256": Products(Path(home), KIND).write(key, body), "rows": len(body["tests"])}
