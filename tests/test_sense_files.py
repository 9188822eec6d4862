"""Files of bundles, retrieval and coherence items: both forms are read, what is broken is named by line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.sense_conditions import CONDITIONS, training_set
from models.sense_files import (
    json_line,
    read_bundles,
    read_coherence,
    read_folder,
    read_retrieval,
    write_items,
)
from models.sense_items import Bundle, CoherenceItem, Quality, RetrievalItem, Sense, TextItem
from models.sense_probes import coherence_items, retrieval_items
from models.sense_world import WorldSpec, world

WORLD = world(WorldSpec())
BUNDLES = training_set(WORLD, CONDITIONS["A"], 42).bundles[:40]
RETRIEVAL = retrieval_items(WORLD, per_sense=1)[:20]
COHERENCE = coherence_items(WORLD)[:20]
READERS: dict[str, Callable[[Path], Any]] = {
    "bundle": read_bundles,
    "retrieval": read_retrieval,
    "coherence": read_coherence,
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "bundle": [json.loads(json_line(one)) for one in BUNDLES[:3]],
    "retrieval": [json.loads(json_line(one)) for one in RETRIEVAL[:3]],
    "coherence": [json.loads(json_line(one)) for one in COHERENCE[:3]],
}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for kind, items in (("bundle", BUNDLES), ("retrieval", RETRIEVAL), ("coherence", COHERENCE)):
        write_items(tmp_path / f"{kind}.jsonl", items)
        found = READERS[kind](tmp_path / f"{kind}.jsonl")
        assert found.items == tuple(items)
        assert found.places[items[4].id] == f"{tmp_path / kind}.jsonl, line 5"
        assert found.notes == ()


def test_separators_inside_a_text_end_no_line_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    rows = copy.deepcopy(ROWS["bundle"])
    rows[0]["anchor"]["text"] += "\u2028naïve\u0085"
    path = write(tmp_path / "a.jsonl", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = read_bundles(path)
    assert len(found.items) == 3
    assert found.items[0].anchor.text.endswith("\u2028naïve\u0085")


def test_unknown_fields_are_passed_over_and_unknown_tiers_may_be_left_out(tmp_path: Path) -> None:
    row = copy.deepcopy(ROWS["retrieval"][0])
    del row["tier"], row["correct"]
    row["query"] |= {"difficulty_tier": 2, "quality": None, "note": "mine"}
    [found] = read_retrieval(write(tmp_path / "a.jsonl", [row])).items
    assert (found.tier, found.query.quality) == (2, None)
    assert found.correct == RETRIEVAL[0].correct


BROKEN: list[tuple[str, str, Callable[[dict[str, Any]], Any], str]] = [
    ("bundle", "id", lambda r: r.pop("id"), "line 2 has no 'id'; its fields are 'lemma'"),
    ("bundle", "anchor", lambda r: r.pop("anchor"), "line 2 has no 'anchor'"),
    ("bundle", "negatives", lambda r: r["negatives"].pop("within_lemma"), "line 2: negatives has no 'within"),
    ("bundle", "metadata", lambda r: r["metadata"].pop("anchor_sense"), "line 2: metadata has no 'anchor_s"),
    ("bundle", "text", lambda r: r["positive"].pop("text"), "line 2: positive has no 'text'"),
    (
        "bundle",
        "no list",
        lambda r: r["negatives"].update(cross_lemma={}),
        "'cross_lemma' is dict; it must be a list",
    ),
    (
        "bundle",
        "no object",
        lambda r: r["negatives"].update(cross_lemma=["x"]),
        "line 2: negatives: cross_lemma[0] is str; it must be an object",
    ),
    ("bundle", "number", lambda r: r.update(id=7), "line 2: 'id' is int; it must be text"),
    (
        "bundle",
        "bool",
        lambda r: r["anchor"]["span"].update(start=True),
        "anchor: span: 'start' is bool; it must be a whole",
    ),
    ("bundle", "float", lambda r: r["anchor"]["span"].update(end=2.5), "anchor: span: 'end' is float"),
    (
        "bundle",
        "span",
        lambda r: r["anchor"]["span"].update(start=1, end=4),
        "line 2: anchor: span 1 to 4 of '",
    ),
    ("bundle", "outside", lambda r: r["anchor"]["span"].update(end=999), "line 2: anchor: span"),
    (
        "bundle",
        "surface",
        lambda r: r["anchor"]["span"].update(surface="tank"),
        "surface is 'tank'; make them agree",
    ),
    ("bundle", "negative span", lambda r: r["anchor"]["span"].update(start=-3), "anchor: span -3 to"),
    ("bundle", "empty", lambda r: r["anchor"].update(text=" "), "line 2: anchor: the text is empty"),
    (
        "bundle",
        "tier",
        lambda r: r["anchor"].update(difficulty_tier=5),
        "line 2: anchor: tier 5; allowed are 1, 2",
    ),
    (
        "bundle",
        "sense",
        lambda r: r["positive"].update(sense_id="x"),
        "positive has sense 'x', anchor_sense is",
    ),
    ("bundle", "cues", lambda r: r["anchor"].update(cue_tokens=[1]), "line 2: anchor: cue_tokens[0] is int"),
    (
        "bundle",
        "quality",
        lambda r: r["anchor"].update(quality={"cue_strength": 2, "ambiguity_risk": 0}),
        "line 2: anchor: quality: cue_strength is 2.0; it must be from 0 to 1",
    ),
    (
        "bundle",
        "four",
        lambda r: r["negatives"]["cross_lemma"].append(r["negatives"]["cross_lemma"][0]),
        "has 4 negatives in cross_lemma; at most 3",
    ),
    (
        "bundle",
        "own",
        lambda r: r["negatives"].update(cross_lemma=[r["positive"]]),
        "a negative in cross_lemma has the anchor's sense",
    ),
    ("bundle", "twice", lambda r: r.update(positive=r["anchor"]), "is in two places; use it once"),
    (
        "retrieval",
        "correct",
        lambda r: r.update(correct=[0, 1]),
        "correct is (0, 1), the candidates of sense",
    ),
    (
        "retrieval",
        "none",
        lambda r: r["query"].update(sense_id="x", text=r["query"]["text"]),
        "candidates of sense 'x'",
    ),
    (
        "retrieval",
        "candidates",
        lambda r: r.update(candidates=[], correct=None),
        "0 of 0 candidates have the query's",
    ),
    (
        "retrieval",
        "query",
        lambda r: r["candidates"].__setitem__(0, r["query"] | {"sense_id": "x"}),
        "line 2: retrieval item",
    ),
    ("retrieval", "lemma", lambda r: r.update(lemma=""), "of lemma ''; neither may be empty"),
    ("coherence", "senses", lambda r: r["senses"].pop(), "the contexts say"),
    ("coherence", "one", lambda r: r.update(contexts=r["contexts"][:1]), "has 1 contexts; 2 or 3"),
    ("coherence", "inventory", lambda r: r.update(inventory=r["inventory"][:1]), "are decided among"),
    ("coherence", "double", lambda r: r["inventory"].append(r["inventory"][0]), "has a sense twice"),
    ("coherence", "gloss", lambda r: r["inventory"][0].pop("gloss"), "line 2: inventory[0] has no 'gloss'"),
    (
        "coherence",
        "example",
        lambda r: r["inventory"][0]["examples"][0].update(sense_id="x"),
        "line 2: inventory[0]: sense",
    ),
]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [(k, c, s) for k, _, c, s in BROKEN],
    ids=[f"{k} {n}" for k, n, _, _ in BROKEN],
)
def test_a_broken_field_is_refused_with_file_and_line(
    kind: str, change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    rows = copy.deepcopy(ROWS[kind])
    change(rows[1])
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(ValueError) as refused:
        READERS[kind](path)
    assert str(refused.value).startswith(f"{path}, line 2")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2 is not JSON"),
        (b"", "line 2 is not JSON"),
        (b"[1]", "line 2 is list; write one object a line"),
        (b'{"id": NaN}', "line 2 is not JSON: NaN is no JSON number"),
        (b"\xff\xfe", "line 2 is not UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", READERS)
def test_a_bad_line_is_refused_with_file_and_line(kind: str, line: bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", ROWS[kind])
    lines = path.read_bytes().split(b"\n")
    lines[1] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError) as refused:
        READERS[kind](path)
    assert f"{path}, {said}" in str(refused.value)


@pytest.mark.parametrize("kind", READERS)
def test_an_id_twice_an_empty_file_and_a_missing_one_are_refused(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [*ROWS[kind], ROWS[kind][0]])
    with pytest.raises(ValueError, match=r"mine.jsonl, line 4: id '.*' was used at .*mine.jsonl, line 1;"):
        READERS[kind](path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"mine.jsonl has no items"):
        READERS[kind](path)
    with pytest.raises(ValueError, match=r"gone.jsonl does not exist"):
        READERS[kind](tmp_path / "gone.jsonl")


def earlier(**changes: Any) -> dict[str, Any]:
    """A line of the earlier form."""
    items = [
        ("q", "anchor", "bank.1", "They sat on the river bank.", "easy"),
        ("p", "positive", "bank.1", "Banks of reeds.", None),
        ("p2", "positive", "bank.1", "Mud of the bank.", 2),
        ("n1", "negative", "bank.2", "The bank lent money.", "medium"),
        ("n2", "hard_negative", "bank.2", "A bank loan.", "hard"),
        ("n3", "negative", "shore.1", "The shore.", None),
    ]
    names = ("item_id", "role", "sense_id", "context", "hardness")
    row: dict[str, Any] = {
        "word": {"lemma": "bank", "pos": "noun"},
        "sense_catalog": [{"sense_id": "bank.1", "gloss": "edge"}, {"sense_id": "bank.2", "gloss": "money"}],
        "items": [dict(zip(names, one, strict=True)) for one in items],
    }
    row["items"][5]["lemma"] = "shore"
    return row | changes


def test_the_earlier_form_gives_a_bundle_for_each_positive(tmp_path: Path) -> None:
    found = read_bundles(write(tmp_path / "a.jsonl", [earlier()])).items
    assert [one.id for one in found] == ["q", "q#2"]
    first = found[0]
    assert (first.anchor.span, first.anchor.surface, first.anchor.pos) == ((22, 26), "bank", "noun")
    assert (first.positive.surface, first.positive.sense_gloss) == ("Banks", "edge")
    assert [one.text for one in first.within_lemma] == ["A bank loan.", "The bank lent money."]
    assert [one.surface for one in first.cross_lemma] == ["shore"]
    assert [one.difficulty_tier for one in first.texts()] == [1, None, 3, 2, None]
    assert found[1].positive.text == "Mud of the bank."


def test_the_earlier_form_is_a_retrieval_item_too(tmp_path: Path) -> None:
    [found] = read_retrieval(write(tmp_path / "a.jsonl", [earlier(id="mine")])).items
    assert (found.id, found.query.text, found.correct, found.tier) == (
        "mine",
        "They sat on the river bank.",
        (0, 1),
        1,
    )
    assert [one.sense_id for one in found.candidates] == ["bank.1", "bank.1", "bank.2", "bank.2", "shore.1"]


def test_the_earlier_form_of_coherence_takes_its_inventory_from_the_catalog(tmp_path: Path) -> None:
    row = earlier(items=[dict(one, role="context") for one in earlier()["items"][2:4]])
    [found] = read_coherence(write(tmp_path / "a.jsonl", [row])).items
    assert found.senses == ("bank.1", "bank.2")
    assert [(sense.sense_id, sense.gloss) for sense in found.inventory] == [
        ("bank.1", "edge"),
        ("bank.2", "money"),
    ]


def test_a_span_may_be_given_in_the_earlier_form(tmp_path: Path) -> None:
    row = earlier()
    row["items"][1]["context"] = {
        "text": "bank and bank",
        "span": {"start": 9, "end": 13, "surface": "bank"},
    }
    assert read_bundles(write(tmp_path / "a.jsonl", [row])).items[0].positive.span == (9, 13)


def test_more_than_three_negatives_of_the_earlier_form_are_noted(tmp_path: Path) -> None:
    row = earlier()
    row["items"] += [
        {"item_id": f"m{i}", "role": "negative", "sense_id": "bank.2", "context": f"bank {i}"}
        for i in range(2)
    ]
    found = read_bundles(write(tmp_path / "a.jsonl", [row]))
    assert len(found.items[0].within_lemma) == 3
    assert found.items[0].within_lemma[0].text == "A bank loan."
    assert "line 1: 4 negatives within the lemma, the first 3 are kept" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["items"][0].update(role="positive"), "line 1: roles are"),
        (lambda r: r["items"][1].update(role="decoy"), "line 1: roles are"),
        (lambda r: [r["items"].pop(1) for _ in range(2)], "line 1 has no item of role positive"),
        (
            lambda r: r["items"][1].update(context="Reeds."),
            "items[1]: no word of 'Reeds.' begins with 'bank'",
        ),
        (lambda r: r["items"][1].update(hardness="brutal"), "items[1]: hardness 'brutal'; allowed are easy"),
        (lambda r: r["items"][1].update(item_id="q"), "items[0]: item_id 'q' is used 2 times"),
        (lambda r: r["items"][1].pop("sense_id"), "line 1: items[1] has no 'sense_id'"),
        (lambda r: r["sense_catalog"].pop(0), "the anchor's sense 'bank.1' is not in the catalog"),
        (lambda r: r["sense_catalog"].append(r["sense_catalog"][0]), "is in the catalog twice"),
        (lambda r: r["word"].pop("pos"), "line 1: word has no 'pos'"),
        (lambda r: r.update(items=[]), "line 1 has no items"),
    ],
)
def test_a_broken_line_of_the_earlier_form_is_refused(
    change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    row = earlier()
    change(row)
    with pytest.raises(ValueError) as refused:
        read_bundles(write(tmp_path / "a.jsonl", [row]))
    assert str(refused.value).startswith(f"{tmp_path / 'a.jsonl'}, line 1")
    assert said in str(refused.value)


def test_a_folder_is_read_with_the_hash_of_every_file(tmp_path: Path) -> None:
    write_items(tmp_path / "train.jsonl", BUNDLES)
    write_items(tmp_path / "retrieval.jsonl", RETRIEVAL)
    write_items(tmp_path / "coherence.jsonl", COHERENCE)
    found = read_folder(tmp_path)
    assert found.train is not None
    assert found.train.items == BUNDLES
    assert found.dev is None
    assert [entry.path for entry in found.manifest] == ["coherence.jsonl", "retrieval.jsonl", "train.jsonl"]


def test_a_text_or_lemma_in_two_files_is_refused_with_file_and_line(tmp_path: Path) -> None:
    write_items(tmp_path / "train.jsonl", BUNDLES)
    query = ROWS["retrieval"][1]["query"]
    rows = copy.deepcopy(ROWS["bundle"])
    for row in rows:
        row["lemma"] = "other"
    rows[2]["negatives"]["cross_lemma"] = [query | {"text": query["text"] + " again"}]
    write(tmp_path / "train.jsonl", rows)
    write_items(tmp_path / "retrieval.jsonl", RETRIEVAL)
    with pytest.raises(ValueError, match=r"1 pairs .*train.jsonl, line 3: .*retrieval.jsonl, line 2: "):
        read_folder(tmp_path)
    write(tmp_path / "train.jsonl", [ROWS["bundle"][0] | {"lemma": RETRIEVAL[0].lemma}])
    with pytest.raises(
        ValueError, match=r"retrieval.jsonl, line 1: lemma .* of split 'test' is in split 'train'"
    ):
        read_folder(tmp_path)


def test_a_folder_without_any_of_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds none of train.jsonl, dev.jsonl, retrieval.jsonl, coherence"):
        read_folder(tmp_path)


def test_items_refuse_what_no_file_could_hold() -> None:
    bank = TextItem(text="a bank", span=(2, 6), surface="bank", sense_id="1")
    with pytest.raises(ValueError, match="a context is also an example"):
        CoherenceItem(
            id="1", lemma="bank", contexts=(bank, bank), senses=("1", "1"),
            inventory=(Sense(sense_id="1", gloss="", examples=(bank,)), Sense(sense_id="2", gloss="")),
        )  # fmt: skip
    with pytest.raises(ValueError, match="ambiguity_risk is nan"):
        Quality(cue_strength=0.5, ambiguity_risk=float("nan"))
    other = TextItem(text="my bank", span=(3, 7), surface="bank", sense_id="2")
    with pytest.raises(ValueError, match="the query's text is among the candidates"):
        RetrievalItem(id="1", lemma="bank", query=bank, candidates=(bank, other), correct=(0,))
    with pytest.raises(ValueError, match="bundle '' of lemma 'bank'"):
        Bundle(
            id="", lemma="bank", anchor=bank, positive=bank, within_lemma=(), cross_lemma=(), anchor_sense="1"
        )
