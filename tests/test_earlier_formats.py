"""Files of the four earlier formats: what is read from them, and that their metrics come out again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.earlier_formats import prompt_id, read_earlier
from lab.earlier_results import EarlierFile, EarlierText, Part
from lab.errors import UsageError
from stats.diversity import METRICS, describe
from stats.rows import IntArray
from stats.seed_study import Text, analyse_look
from tasks import importing
from tests import earlier_files

SMALL: dict[str, Callable[[], Any]] = {
    "v1": lambda: earlier_files.v1(prompts=3, samples=2),
    "v2": lambda: earlier_files.v2(prompts=3, samples=2, streams=2),
    "v2 with conversations": lambda: earlier_files.v2(prompts=3, samples=2, turns=3),
    "injection": lambda: earlier_files.injection(prompts=3, samples=2),
    "flat": lambda: earlier_files.flat(prompts=3, samples=2),
}


def read(tmp_path: Path, body: object) -> EarlierFile:
    """A body, written and read."""
    return read_earlier(earlier_files.save(tmp_path / "earlier.json", body))


def refused(tmp_path: Path, body: object) -> str:
    """What the refusal of a body says."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, body)
    return str(caught.value)


def same(left: float | None, right: float | None) -> bool:
    """Equal up to the rounding of two ways to add."""
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=1e-13, abs_tol=1e-14)


def metrics_again(text: EarlierText) -> dict[str, float | None]:
    """The metrics that the import computes, by name, without those the scripts did not have."""
    found = importing.measure_text(text)["metrics"]
    return {name: value for name, (value, _) in found.items() if name in METRICS}


@pytest.mark.parametrize(
    ("name", "format_", "parts", "model"),
    [
        ("v1", "v1", {"single_turn": 18}, None),
        ("v2", "v2", {"single_turn": 36}, "tiny:1b"),
        ("v2 with conversations", "v2", {"single_turn": 18, "multi_turn": 54}, "tiny:1b"),
        ("injection", "injection", {"none": 6, "logit_perturb": 18, "temp_modulate": 18}, "distil"),
        ("flat", "flat", {"single_turn": 18}, None),
    ],
)
def test_every_format_is_known_by_its_shape(
    name: str, format_: str, parts: dict[str, int], model: str | None, tmp_path: Path
) -> None:
    file = read(tmp_path, SMALL[name]())
    assert (file.format, file.model) == (format_, model)
    assert {part.name: len(part.texts) for part in file.parts} == parts


def test_flat_rows_may_stand_one_a_line(tmp_path: Path) -> None:
    rows = SMALL["flat"]()
    lines = read_earlier(earlier_files.save_lines(tmp_path / "rows.jsonl", rows))
    assert lines.parts == read(tmp_path, rows).parts


def test_v2_metrics_computed_from_the_texts_equal_those_in_the_file(tmp_path: Path) -> None:
    file = read(tmp_path, earlier_files.v2(prompts=6, samples=4, streams=2, turns=2))
    assert file.is_whole
    texts = [text for part in file.parts for text in part.texts]
    assert len(texts) == 2 * 3 * 4 * (6 + 3 * 2)
    for text in texts:
        again = metrics_again(text)
        assert again.keys() == text.stored.keys()
        assert all(same(again[name], text.stored[name]) for name in again), text
        for name in ("length_words", "type_token_ratio", "distinct_2"):  # quotients: equal to the last bit
            assert again[name] == text.stored[name]


def test_v1_words_counted_with_their_case_stay_beside_ours(tmp_path: Path) -> None:
    file = read(tmp_path, SMALL["v1"]())
    for text in file.parts[0].texts:
        assert text.text is not None
        again = metrics_again(text)
        ours = earlier_files.metrics_of(text.text)
        theirs = earlier_files.metrics_of(text.text, lower=False)
        assert all(same(again[name], ours[name]) for name in again)
        assert dict(text.stored) == theirs
        assert again["type_token_ratio"] != theirs["type_token_ratio"]
    assert file.parts[0].arms == ("PRNG", "QRNG", "TRNG")
    assert importing.question(file.parts[0]).kinds["QRNG"] == ("hmix", None)


def test_nan_is_a_missing_number_and_infinity_is_refused(tmp_path: Path) -> None:
    body = SMALL["injection"]()
    metrics = body["prompts"][0]["conditions"]["none__PRNG"]["samples"][1]["metrics"]
    metrics["mtld"] = math.nan
    assert "NaN" in json.dumps(body)
    assert read(tmp_path, body).parts[0].texts[1].stored["mtld"] is None
    metrics["mtld"] = math.inf
    place = "prompts[0].conditions.none__PRNG.samples[1].metrics.mtld: found inf"
    assert place in refused(tmp_path, body)


def test_injection_outputs_cut_at_500_characters_are_analysed_by_their_stored_metrics(tmp_path: Path) -> None:
    whole = earlier_files.injection(prompts=4, samples=3, write=earlier_files.long_text)
    cut = earlier_files.injection(prompts=4, samples=3, write=earlier_files.long_text, cut=500)
    file = read(tmp_path, cut)
    assert not file.is_whole
    for part, before in zip(file.parts, read(tmp_path, whole).parts, strict=True):
        texts = importing.units(part, [importing.measure_text(t) for t in part.texts], stored=True)
        uncut = importing.units(before, [importing.measure_text(t) for t in before.texts], stored=False)
        for kept, full in zip(texts, uncut, strict=True):
            assert (kept.failure, kept.excluded, kept.words) == (None, None, full.words)
            for name, (value, _) in kept.metrics.items():
                assert same(value, full.metrics[name][0])  # type: ignore[arg-type]
        assert all(metrics_again(text)["mtld"] is None for text in part.texts)


def test_a_text_of_a_seeded_format_is_whole_at_any_length(tmp_path: Path) -> None:
    body = earlier_files.v2(prompts=2, samples=2, write=lambda source, rng: ("word " * 100)[:500])
    assert read(tmp_path, body).is_whole


def test_a_seed_that_comes_again_is_a_repeat_and_no_sample(tmp_path: Path) -> None:
    body = SMALL["v1"]()
    samples = next(iter(body["single_turn"].values()))["PRNG"]["samples"]
    samples.append(dict(samples[0]))
    texts = [t for t in read(tmp_path, body).parts[0].texts if t.arm == "PRNG"]
    assert [(t.k, t.probe) for t in texts[:3]] == [(0, 0), (1, 0), (0, 1)]


def test_errors_and_empty_outputs_are_failures_with_their_reason(tmp_path: Path) -> None:
    body = SMALL["injection"]()
    samples = body["prompts"][0]["conditions"]["logit_perturb__TRNG"]["samples"]
    samples[0] = {"error": "timed out after 180 s"}
    samples[1] = {"output": " ", "metrics": {}}
    part = next(part for part in read(tmp_path, body).parts if part.name == "logit_perturb")
    said = [importing.measure_text(t)["failure"] for t in part.texts if t.arm == "TRNG"][:2]
    assert said == ["the file says: timed out after 180 s", "no words left after stripping"]


def test_a_conversation_counts_as_one_unit_with_the_mean_of_its_turns(tmp_path: Path) -> None:
    file = read(tmp_path, earlier_files.v2(prompts=2, samples=4, turns=3))
    part = file.parts[1]
    found = [importing.measure_text(text) for text in part.texts]
    units = importing.units(part, found, stored=False)
    assert (len(part.texts), len(units)) == (3 * 3 * 4 * 3, 3 * 3 * 4)
    first = [t.stored["mtld"] for t in part.texts[:3]]
    assert [t.turn for t in part.texts[:3]] == [1, 2, 3]
    assert same(units[0].metrics["mtld"][0], sum(x for x in first if x is not None) / 3)  # type: ignore[arg-type]
    tests = importing.analyse_part(file, part)["tests"]
    [verdict] = [t for t in tests if t["family"] == "seed_effect" and t["role"] == "verdict"]
    assert verdict["n"] == 3 * 3 * 4
    beside = importing.analyse_part(file, file.parts[0])["tests"]
    compared = [t for t in beside if t["family"] == "multi_turn" and t["hypothesis"] == "omnibus"]
    assert {t["n"] for t in compared} == {3 * 3 * 4}
    assert {t["role"] for t in compared} == {"secondary", "diagnostic"}  # nothing that decides


def test_a_failed_turn_closes_its_conversation(tmp_path: Path) -> None:
    body = earlier_files.v2(prompts=2, samples=2, turns=3)
    sample = body["streams"][0]["multi_turn"]["Conversation 0"]["PRNG"]["samples"][0]
    sample["turns"][1:] = [{"seed": 5, "error": "timeout"}]
    part = read(tmp_path, body).parts[1]
    [unit, *_] = importing.units(part, [importing.measure_text(t) for t in part.texts], stored=False)
    assert unit.failure == "turn 2: the file says: timeout"


def test_imported_units_get_the_rows_of_our_own_analysis(tmp_path: Path) -> None:
    body = earlier_files.v2(prompts=5, samples=4)
    texts, draws = _own_units(body)
    file = read(tmp_path, body)
    part = file.parts[0]
    own = [asdict(row) for row in analyse_look(texts, draws, importing.question(part))]
    ours = [
        row
        for row in importing.analyse_part(file, part)["tests"]
        if row["n"] != 0 or row["family"] not in importing.ABSENT
    ]
    assert ours == own
    assert {"integrity", "seed_sources", "seed_effect", "legacy"} <= {row["family"] for row in own}


def _own_units(body: Any) -> tuple[list[Text], dict[str, IntArray]]:
    """A v2 file's samples as our own study would hand them to its analysis."""
    texts, draws = [], dict[str, list[int]]()
    for prompt, cells in body["streams"][0]["single_turn"].items():
        for arm in earlier_files.SOURCES:
            for k, sample in enumerate(cells[arm]["samples"]):
                draws.setdefault(arm, []).append(sample["seed_32"])
                found = describe(sample["output"])
                texts.append(
                    Text(
                        arm=arm,
                        stream=42,
                        domain=cells["domain"],
                        prompt=prompt_id(prompt, cells["domain"]),
                        constraint=cells["constraint"],
                        k=k,
                        probe=0,
                        seed32=sample["seed_32"],
                        **found,
                    )
                )
    return texts, {arm: np.array(found, dtype=np.int64) for arm, found in sorted(draws.items())}


def test_a_part_without_a_defined_primary_metric_has_an_invalid_verdict(tmp_path: Path) -> None:
    file = read(tmp_path, earlier_files.flat(prompts=4, samples=4, without=("mtld",)))
    tests = importing.analyse_part(file, file.parts[0])["tests"]
    [verdict] = [t for t in tests if t["family"] == "seed_effect" and t["role"] == "verdict"]
    assert verdict["verdict"] == "INVALID"
    assert "mtld: no text has a value" in verdict["reason"]
    [paired, *_] = [t for t in tests if t["hypothesis"] == "paired_t" and t["metric"] == "mtld"]
    assert paired["p"] is None
    assert all(x is None or not isinstance(x, float) or math.isfinite(x) for t in tests for x in t.values())


@pytest.mark.parametrize(
    ("prompts", "samples"), [(1, 1), (1, 3), (2, 1), (2, 2)], ids=lambda count: str(count)
)
@pytest.mark.parametrize(
    "write", [earlier_files.text_of, earlier_files.repeated, lambda source, rng: "few words"]
)
def test_the_smallest_files_are_analysed_too(
    prompts: int, samples: int, write: earlier_files.Write, tmp_path: Path
) -> None:
    file = read(tmp_path, earlier_files.v2(prompts=prompts, samples=samples, write=write))
    body = importing.analyse_part(file, file.parts[0])
    verdicts = {t["family"]: t["verdict"] for t in body["tests"] if t["role"] == "verdict"}
    assert verdicts.keys() == {"positive_control", "a_a", "integrity", "seed_sources", "seed_effect"}
    assert verdicts["seed_effect"] in ("INVALID", "INCONCLUSIVE", "DETECTED")


def test_a_preview_under_ten_words_without_a_length_is_left_out(tmp_path: Path) -> None:
    body = SMALL["flat"]()
    body[0] |= {"text_preview": "three words here", "metrics": {"mtld": 40.0}}
    said = importing.measure_text(read(tmp_path, body).parts[0].texts[0])
    assert said["excluded"] == "3 words seen, its length not in the file, under 10"


def test_reasoning_is_left_out_and_measured_beside(tmp_path: Path) -> None:
    body = SMALL["v1"]()
    sample = next(iter(body["single_turn"].values()))["PRNG"]["samples"][0]
    answer = sample["output"]
    sample["output"] = f"<think>some thoughts</think>{answer}"
    found = importing.measure_text(read(tmp_path, body).parts[0].texts[0])
    assert found["metrics"] == describe(answer)["metrics"]
    assert found["with_thinking"]["length_words"][0] == found["words"] + 2


def test_parts_of_one_source_are_kept_for_the_record(tmp_path: Path) -> None:
    parts: tuple[Part, ...] = read(tmp_path, SMALL["injection"]()).parts
    assert {part.name: part.arms for part in parts}["none"] == ("PRNG",)


def test_members_that_are_passed_over_are_named(tmp_path: Path) -> None:
    assert read(tmp_path, SMALL["v1"]() | {"config": {}, "multi_turn": {}}).unread == ("config", "multi_turn")
