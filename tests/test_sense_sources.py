"""Texts of a study from the world or from files: what is taken, its digest, what is refused and where."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sense_conditions import CONDITIONS, TrainingSet, draws, halved, sizes, training_set
from models.sense_files import json_line, write_items
from models.sense_items import Bundle, RetrievalItem, TextItem
from models.sense_probes import coherence_items, retrieval_items
from models.sense_sources import ExamItems, SenseSource, digest, exam_items, refuse_leaks, training
from models.sense_world import WorldSpec, world

SPEC = WorldSpec()
OURS = world(SPEC)
PLAIN = SenseSource(world=SPEC)
SMALL = SenseSource(world=WorldSpec(seed=3, train_lemmas=12, test_lemmas=12, dev_lemmas=12))
SETS = {name: training_set(OURS, CONDITIONS[name], 42) for name in "AB"}
DEV_BUNDLES = training_set(OURS, CONDITIONS["A"], 42, split="dev").bundles[:30]
RETRIEVAL = retrieval_items(OURS, per_sense=1)[:20]
COHERENCE = coherence_items(OURS, per_lemma=1)[:20]


def sides(made: TrainingSet) -> list[tuple[int | None, int]]:
    return [(one.difficulty_tier, n) for one, n in zip(made.bundles, made.repeats, strict=True)]


def from_files(root: Path, *, data: bool = True, a: Sequence[Bundle] = SETS["A"].bundles[:60]) -> SenseSource:
    """Files of A and B, and a folder with dev, retrieval and coherence items; the world is another one."""
    paths = {"A": root / "control.jsonl", "B": root / "more.jsonl"}
    write_items(paths["A"], a)
    write_items(paths["B"], SETS["B"].bundles[:200])
    folder = root / "data"
    folder.mkdir(exist_ok=True)
    write_items(folder / "dev.jsonl", DEV_BUNDLES)
    write_items(folder / "retrieval.jsonl", RETRIEVAL)
    write_items(folder / "coherence.jsonl", COHERENCE)
    return SenseSource(
        world=WorldSpec(seed=9),
        data=str(folder) if data else "",
        bundles=tuple((name, str(path)) for name, path in paths.items()),
    )


def test_the_world_alone_gives_its_own_sets_and_items() -> None:
    assert not PLAIN.from_files
    assert training(PLAIN, CONDITIONS["A"], 42) == SETS["A"]
    for split in ("dev", "test"):
        assert exam_items(PLAIN, split, per_sense=1, per_lemma=2) == ExamItems(
            retrieval=retrieval_items(OURS, split, per_sense=1),
            coherence=coherence_items(OURS, split, per_lemma=2),
        )
    assert {digest(PLAIN, split) for split in ("train", "dev", "test")} == {OURS.sha256}
    verified = replace(CONDITIONS["C"], name="C-verified", enrichment="verified")
    made = training(PLAIN, verified, 42, accept=lambda offers: [one.is_genuine for one in offers])
    assert 0 < made.accepted < made.proposed


def test_a_condition_is_trained_on_all_bundles_of_its_file_by_the_curriculum(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    assert source.from_files
    made = training(source, CONDITIONS["B"], 7)
    assert (made.arm, made.seed) == (CONDITIONS["B"], 7)
    assert made.bundles == SETS["B"].bundles[:200]
    assert set(sides(made)) == {(1, 1), (2, 2), (3, 4)}
    assert len(made.texts) == len(set(made.texts))
    assert set(made.texts) == {text for bundle in made.bundles for text in bundle.texts()}
    assert training(source, CONDITIONS["B"], 8).bundles == made.bundles
    assert len(draws(made, 500, seed=0)) == 500


def test_an_arm_belongs_to_the_condition_before_its_first_dash(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    for arm in (halved(CONDITIONS["B"]), sizes()[0]):
        assert training(source, arm, 42).bundles == SETS["B"].bundles[:200]
    assert set(sides(training(source, halved(CONDITIONS["B"]), 42))) == {(1, 1), (2, 1), (3, 2)}
    with pytest.raises(ValueError, match=r"arm 'C' is of condition 'C', which has no file .* are A, B$"):
        training(source, CONDITIONS["C"], 42)


def test_a_bundle_without_a_tier_is_of_tier_1_and_killers_are_refused_with_file_and_line(
    tmp_path: Path,
) -> None:
    plain = [replace(one, difficulty_tier=None) for one in SETS["A"].bundles[:6]]
    made = training(from_files(tmp_path, a=[*plain, *SETS["B"].bundles[-40:]]), CONDITIONS["B"], 42)
    assert all(one.difficulty_tier in (1, 2, 3) for one in made.bundles)
    source = from_files(tmp_path, a=plain)
    assert sides(training(source, replace(CONDITIONS["B"], name="A"), 42)) == [(1, 1)] * 6
    source = from_files(tmp_path, a=[*plain[:3], replace(plain[3], difficulty_tier=4)])
    with pytest.raises(ValueError, match=r"control.jsonl, line 4: bundle .* is of tier 4; killers are held"):
        training(source, CONDITIONS["A"], 42)


def test_contexts_of_files_are_not_verified_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`accept` was given with files of bundles"):
        training(from_files(tmp_path), CONDITIONS["A"], 42, accept=lambda offers: [])


def planted(made: TrainingSet, clean: TrainingSet) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(made.bundles, clean.bundles, strict=True)) if a != b]


def test_a_planted_fault_puts_a_sibling_sense_in_place_of_the_positive() -> None:
    clean, made = SETS["A"], training(PLAIN, CONDITIONS["A"], 42, mislabelled=0.25)
    places = planted(made, clean)
    assert len(places) == round(0.25 * len(clean.bundles))
    for place in places:
        before, after = clean.bundles[place], made.bundles[place]
        [taken] = set(before.within_lemma) - set(after.within_lemma)
        assert replace(taken, sense_id=before.anchor_sense, sense_gloss=before.anchor.sense_gloss) == (
            after.positive
        )
        assert after.within_lemma == tuple(one for one in before.within_lemma if one != taken)
        assert replace(after, positive=before.positive, within_lemma=before.within_lemma) == before
    assert made.repeats == clean.repeats
    assert made.texts[: len(clean.texts)] == clean.texts
    assert {text for bundle in made.bundles for text in bundle.texts()} <= set(made.texts)
    assert len(made.texts) == len(set(made.texts))


def test_planted_faults_are_seeded_and_those_of_a_smaller_share_are_among_those_of_a_larger() -> None:
    few, many = (training(PLAIN, CONDITIONS["A"], 42, mislabelled=share) for share in (0.1, 0.3))
    assert training(PLAIN, CONDITIONS["A"], 42, mislabelled=0.1) == few
    at = planted(few, SETS["A"])
    assert set(at) < set(planted(many, SETS["A"]))
    assert all(few.bundles[i] == many.bundles[i] for i in at)
    clean, other = (training(PLAIN, CONDITIONS["A"], 43, mislabelled=share) for share in (0.0, 0.1))
    assert planted(other, clean) != at


def test_a_share_that_cannot_be_planted_is_refused(tmp_path: Path) -> None:
    bare = [replace(one, within_lemma=()) for one in SETS["A"].bundles[:5]]
    source = from_files(tmp_path, a=[*bare, *SETS["A"].bundles[5:8]])
    clean = training(source, CONDITIONS["A"], 1)
    assert planted(training(source, CONDITIONS["A"], 1, mislabelled=3 / 8), clean) == [5, 6, 7]
    with pytest.raises(ValueError, match="4 of 8 bundles were to be mislabelled, 3 have negatives of their"):
        training(source, CONDITIONS["A"], 1, mislabelled=0.5)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="it must be a share from 0 to 1"):
            training(PLAIN, CONDITIONS["A"], 42, mislabelled=wrong)


def test_test_items_are_those_of_the_folder_and_a_kind_without_a_file_is_empty(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    found = exam_items(source, "test", per_sense=5, per_lemma=5)
    assert found == ExamItems(retrieval=RETRIEVAL, coherence=COHERENCE)
    (Path(source.data) / "retrieval.jsonl").unlink()
    assert exam_items(source, "test", per_sense=5, per_lemma=5) == replace(found, retrieval=())
    (Path(source.data) / "coherence.jsonl").unlink()
    with pytest.raises(ValueError, match=r"holds none of retrieval.jsonl, coherence.jsonl"):
        exam_items(source, "test", per_sense=5, per_lemma=5)
    only = replace(source, data="")
    assert exam_items(only, "test", per_sense=1, per_lemma=1).retrieval == retrieval_items(
        world(source.world), per_sense=1
    )


def test_dev_items_ask_for_the_positive_of_each_bundle(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    found = exam_items(source, "dev", per_sense=1, per_lemma=1)
    assert found.coherence == ()
    assert [one.id for one in found.retrieval] == [one.id for one in DEV_BUNDLES]
    for bundle, item in zip(DEV_BUNDLES, found.retrieval, strict=True):
        assert (item.query, item.lemma, item.tier) == (bundle.anchor, bundle.lemma, bundle.difficulty_tier)
        assert [item.candidates[place] for place in item.correct] == [bundle.positive]
        assert sorted(item.candidates, key=str) == sorted([*bundle.texts()][1:], key=str)
    assert len({item.correct for item in found.retrieval}) > 3
    write_items(Path(source.data) / "dev.jsonl", DEV_BUNDLES[::-1])
    again = exam_items(source, "dev", per_sense=1, per_lemma=1)
    assert again.retrieval == found.retrieval[::-1]
    (Path(source.data) / "dev.jsonl").unlink()
    assert exam_items(source, "dev", per_sense=1, per_lemma=1) == exam_items(
        SenseSource(world=source.world), "dev", per_sense=1, per_lemma=1
    )


def test_a_dev_bundle_that_asks_nothing_is_refused_with_file_and_line(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    rows = [*DEV_BUNDLES[:2], replace(DEV_BUNDLES[2], within_lemma=(), cross_lemma=())]
    write_items(Path(source.data) / "dev.jsonl", rows)
    with pytest.raises(ValueError, match=r"dev.jsonl, line 3: bundle .* has no negatives"):
        exam_items(source, "dev", per_sense=1, per_lemma=1)


def test_a_digest_is_of_what_the_files_hold_and_not_of_where_they_lie(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for root in (here, there):
        root.mkdir()
    source = from_files(here)
    found = {split: digest(source, split) for split in ("train", "dev", "test")}
    assert found == {split: digest(from_files(there), split) for split in found}
    assert len({*found.values(), world(source.world).sha256}) == 4
    assert digest(replace(source, bundles=source.bundles[::-1]), "train") == found["train"]
    (_, first), (_, second) = source.bundles
    swapped = (("A", second), ("B", first))
    assert digest(replace(source, bundles=swapped), "train") != found["train"]
    for split, name in (("train", "../more.jsonl"), ("dev", "dev.jsonl"), ("test", "coherence.jsonl")):
        with (Path(source.data) / name).open("a") as file:
            file.write("\n")
        changed = {other for other in found if digest(source, other) != found[other]}
        assert changed == {split}
        found[split] = digest(source, split)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    gone = SenseSource(world=SPEC, data=str(tmp_path / "gone"), bundles=(("A", str(tmp_path / "no.jsonl")),))
    for split in ("dev", "test"):
        with pytest.raises(ValueError, match="gone is no folder"):
            exam_items(gone, split, per_sense=1, per_lemma=1)
        with pytest.raises(ValueError, match="gone is no folder"):
            digest(gone, split)
    with pytest.raises(ValueError, match=r"A: .*no.jsonl does not exist"):
        digest(gone, "train")
    with pytest.raises(ValueError, match=r"no.jsonl does not exist"):
        training(gone, CONDITIONS["A"], 42)
    with pytest.raises(ValueError, match="unknown split 'train'; allowed are dev, test"):
        exam_items(PLAIN, "train", per_sense=1, per_lemma=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown split 'all'; allowed are train, dev, test"):
        digest(PLAIN, "all")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [(("", "a"),), (("A-1", "a"),), (("A", ""),), (("A", "a"), ("A", "b"))])
def test_conditions_that_no_arm_could_name_are_refused(wrong: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ValueError, match="give "):
        SenseSource(world=SPEC, bundles=wrong)


def test_nothing_leaks_between_files_of_the_worlds_splits(tmp_path: Path) -> None:
    refuse_leaks(from_files(tmp_path))


def leaking(text: TextItem, copied: str) -> Bundle:
    """A bundle of lemma "other" that holds `copied`, with the marked lemma of `text` somewhere in it."""
    made = SETS["A"].bundles[0]
    start = copied.index(text.surface)
    told = replace(text, text=copied, span=(start, start + len(text.surface)), cue_tokens=())
    return replace(made, id="leak", lemma="other", cross_lemma=(told,))


@pytest.mark.parametrize("how", ["exact", "near"])
@pytest.mark.parametrize("split", ["dev", "retrieval", "coherence"])
def test_a_text_of_dev_or_test_in_training_is_refused_with_both_lines(
    split: str, how: str, tmp_path: Path
) -> None:
    text = {
        "dev": DEV_BUNDLES[4].anchor,
        "retrieval": RETRIEVAL[4].query,
        "coherence": COHERENCE[4].contexts[0],
    }[split]
    copied = text.text if how == "exact" else f"again {text.text}"
    source = from_files(tmp_path, a=[*SETS["A"].bundles[1:3], leaking(text, copied)])
    said = rf"control.jsonl, line 3: .* and .*{split}.jsonl, line \d+: .*"
    with pytest.raises(ValueError, match=said + (r"\(the same text\)" if how == "exact" else r"Jaccard 0\.")):
        refuse_leaks(source)


def test_a_text_that_dev_and_test_share_is_refused_with_both_lines(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    rows = [*DEV_BUNDLES[:2], replace(DEV_BUNDLES[2], cross_lemma=(RETRIEVAL[7].query,))]
    write_items(Path(source.data) / "dev.jsonl", rows)
    with pytest.raises(ValueError, match=r"dev.jsonl, line 3: .*retrieval.jsonl, line 8: .*the same text"):
        refuse_leaks(source)


def test_a_lemma_in_two_splits_is_refused_with_both_lines(tmp_path: Path) -> None:
    source = from_files(tmp_path)
    path = Path(source.data) / "coherence.jsonl"
    taken = SETS["B"].bundles[5].lemma
    path.write_text(f"{json_line(COHERENCE[0])}\n{json_line(replace(COHERENCE[1], lemma=taken))}\n")
    with pytest.raises(
        ValueError, match=rf"coherence.jsonl, line 2: lemma '{taken}' of split 'test' is in split 'train'"
    ):
        refuse_leaks(source)


def test_files_are_held_against_the_items_of_the_world_where_those_are_used(tmp_path: Path) -> None:
    source = replace(from_files(tmp_path, data=False), world=SMALL.world)
    refuse_leaks(source)
    asked: RetrievalItem = exam_items(source, "test", per_sense=1, per_lemma=1).retrieval[3]
    write_items(Path(source.bundles[0][1]), [leaking(asked.query, asked.query.text)])
    with pytest.raises(ValueError, match=rf"control.jsonl, line 1: .* and {asked.id}: .*the same text"):
        refuse_leaks(source)


@settings(max_examples=30)
@given(st.floats(0, 1), st.integers(0, 5))
def test_any_share_plants_that_many_faults(share: float, seed: int) -> None:
    clean = training(SMALL, CONDITIONS["A"], seed)
    made = training(SMALL, CONDITIONS["A"], seed, mislabelled=share)
    assert len(planted(made, clean)) == round(share * len(clean.bundles))


def test_sources_and_danger_need_no_torch() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, models.sense_sources, models.sense_danger; "
            "print([n for n in ('torch', 'transformers') if n in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    ).stdout
    assert said == "[]\n"
