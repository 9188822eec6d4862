"""Bundles of one's own without tiers, read by a frozen encoder, and killers among the items asked."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from models.sense_conditions import CONDITIONS
from models.sense_files import write_items
from models.sense_jobs import _by_danger, examine_head, train_head
from models.sense_probes import retrieval_items
from models.sense_recipe import HeadRecipe, HeadShape
from models.sense_sources import SenseSource, training
from models.sense_world import WorldSpec, world
from tasks.sense_answers import asked
from tasks.sense_training import item_set

SPEC = WorldSpec(topics=6, topic_words=16, function_words=20, train_lemmas=24, test_lemmas=10, dev_lemmas=10,
                 cues=8)  # fmt: skip


def write_encoder(place: Path) -> str:
    """An untrained BERT of 32 numbers over the world's syllables, as `from_pretrained` loads it."""
    syllables = ["".join(pair) for pair in itertools.product("bdfghklmnprstvwz", "aeiou")]
    known = ["[PAD]", "[UNK]", *syllables, *(f"##{one}" for one in syllables)]
    pieces = Tokenizer(models.WordPiece({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(place)
    config: Any = BertConfig
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = BertModel(config(vocab_size=len(known), hidden_size=32, num_hidden_layers=1,
                                     num_attention_heads=4, intermediate_size=48,
                                     max_position_embeddings=64))  # fmt: skip
    made.save_pretrained(place)
    return str(place)


@pytest.fixture
def source(tmp_path: Path) -> SenseSource:
    """Bundles without tiers for A, and items of which the first three are killers."""
    ours = world(SPEC)
    made = training(SenseSource(world=SPEC), CONDITIONS["A"], 1).bundles[:60]
    write_items(tmp_path / "a.jsonl", [replace(one, difficulty_tier=None) for one in made])
    items = retrieval_items(ours, per_sense=1, tiers=(1,))
    folder = tmp_path / "own"
    folder.mkdir()
    told = [replace(one, tier=4) if n < 3 else one for n, one in enumerate(items)]
    write_items(folder / "retrieval.jsonl", told)
    return SenseSource(world=SPEC, data=str(folder), bundles=(("A", str(tmp_path / "a.jsonl")),))


def test_an_encoder_gives_bundles_their_tiers_and_a_head_on_it_answers(
    source: SenseSource, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "bert")
    plain = training(source, CONDITIONS["A"], 1)
    tiered = training(source, CONDITIONS["A"], 1, by_danger=partial(_by_danger, encoder, 64))
    assert {one.difficulty_tier for one in plain.bundles} == {1}
    counts = [sum(one.difficulty_tier == tier for one in tiered.bundles) for tier in (1, 2, 3)]
    assert counts == [51, 7, 2]  # 85 / 12 / 3 % of 60
    recipe = HeadRecipe(steps=4, batch=8, dev_every=2, shape=HeadShape(hidden=32, out=16), encoder=encoder)
    given: dict[str, Any] = {"source": asdict(source), "directory": str(tmp_path / "head")}
    train_head(**given, arm=asdict(CONDITIONS["A"]), seed=1, recipe=asdict(recipe), mislabelled=0.0,
               verifier=None, report=lambda body: None)  # fmt: skip
    items = item_set(source, "test", per_sense=1, per_lemma=1)
    found = examine_head(**given, split="test", per_sense=1, per_lemma=1, chosen=None,
                         report=lambda body: None)  # fmt: skip
    assert [len(one) for one in found["scores"]] == [len(one.candidates) for one in asked(items).retrieval]
    assert found["known"] == 1.0


def test_killers_of_ones_own_are_asked_on_their_own(source: SenseSource) -> None:
    items = item_set(source, "test", per_sense=1, per_lemma=1)
    every = retrieval_items(world(SPEC), per_sense=1, tiers=(1,))
    assert [one.id for one in asked(items).retrieval] == [one.id for one in every[3:]]
    few = asked(replace(items, chosen=tuple(one.id for one in every[:3])))
    assert [one.id for one in few.retrieval] == [one.id for one in every[:3]]
    assert {one.tier for one in few.retrieval} == {4}
