"""The worker's calls in this process: languages that cannot be scored, sweeps of some languages, windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from models import quant_jobs
from models.losses import check_fits, encode, keep_baselines, sentence_losses
from models.multilingual import MAX_POSITIONS
from models.quant_spec import LEGACY, CalibrationMix, QuantSpec
from models.quantize import quantized
from models.variants import CorpusSource, Variant, unevaluated_texts
from tests.scored_models import VOCABULARY, small_model, small_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CODES = ("en", "de", "hi", "sw")
SOURCE = CorpusSource(kind="cldr", sentences=8, languages=CODES)
SPEC = QuantSpec(group_size=16)
MIX = CalibrationMix(texts=tuple((code, 2) for code in CODES))
VARIANTS = {
    "plain": Variant(),
    "int4": Variant(spec=SPEC, compared=True),
    "alone": Variant(spec=SPEC),
    "legacy": Variant(spec=LEGACY, compared=True),
    "again": Variant(compared=True),
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hindi alone is written with this byte: its losses are no numbers."""
    model, tokenizer = small_model("llama"), small_tokenizer()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("न")["input_ids"][0]] = float("nan")
    return saved(tmp_path_factory.mktemp("broken"), model)


def saved(where: Path, model: Any = None) -> str:
    """A Llama of three blocks, untied: a token that is only read changes nothing where it is not."""
    (small_model("llama") if model is None else model).save_pretrained(where)
    small_tokenizer().save_pretrained(where)
    return str(where)


def plain(value: Any) -> Any:
    """As the worker gets it."""
    return json.loads(json.dumps(value, allow_nan=False))


def evaluated(where: str, source: CorpusSource = SOURCE) -> dict[str, Any]:
    """Every variant's languages, by its name; the unquantised model's unigram bits under `unigram`."""
    found = {}

    def keep(told: dict[str, Any]) -> None:
        body = plain(told)["body"]
        found[told["key"]] = body["languages"]
        found.update({"unigram": body["unigram"]} if "unigram" in body else {})

    variants = {name: plain(asdict(one)) for name, one in VARIANTS.items()}
    texts, mix = plain(asdict(source)), plain(asdict(MIX))
    quant_jobs.evaluate(where=where, source=texts, variants=variants, mix=mix, report=keep)
    return found


def swept(where: str, languages: Sequence[str], sets: Sequence[Sequence[int]] = ()) -> dict[str, Any]:
    """What a sweep reports, by language, without its seconds."""
    found: dict[str, Any] = {}

    def keep(told: dict[str, Any]) -> None:
        body = plain(told)
        assert body.pop("seconds") > 0.0
        found[body["language"]] = body

    given = {"where": where, "source": plain(asdict(SOURCE)), "spec": plain(asdict(SPEC))}
    if sets:
        quant_jobs.keep_sets(**given, sets=sets, languages=languages, report=keep)
    else:
        quant_jobs.sweep(**given, languages=languages, report=keep)
    return found


def test_a_language_that_cannot_be_scored_has_the_reason_and_the_others_their_numbers(
    healthy: str, broken: str
) -> None:
    whole, found = evaluated(healthy), evaluated(broken)
    for name in VARIANTS:
        assert found[name]["hi"]["bits"] is None
        for code in ("en", "de", "sw"):
            assert whole[name][code]["reason"] is None
            if name == "legacy":  # it rounds the embeddings too, whose NaN has no scale
                assert found[name][code]["reason"].startswith(f"{code}: not made: weights have no finite")
                continue
            assert found[name][code] == whole[name][code], (name, code)
            assert found[name]["hi"]["reason"].startswith("hi: sentence 0 has a loss of nan"), name
    assert found["unigram"] == whole["unigram"]  # it reads tokens and not the network
    assert whole["int4"]["hi"]["kl_bits"] is not None


def test_without_the_unquantised_models_answers_a_language_has_bits_and_says_why_no_divergence(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(healthy)

    def partly(model: Any, encoded: Any) -> Any:
        kept, _ = keep_baselines(model, {code: one for code, one in encoded.items() if code != "hi"})
        return kept, {"hi": "hi: sentence 3 has a loss of nan"}

    monkeypatch.setattr(quant_jobs, "keep_baselines", partly)
    quant_jobs._loaded.cache_clear()
    found = evaluated(healthy)
    quant_jobs._loaded.cache_clear()
    told = found["int4"]["hi"]
    assert told["bits"] == pytest.approx(whole["int4"]["hi"]["bits"], rel=1e-6)
    assert told["kl_bits"] is told["flips"] is told["reason"] is None
    assert told["kl_reason"] == "no unquantised model beside it: hi: sentence 3 has a loss of nan"
    assert found["alone"] == whole["alone"]  # not to be compared
    assert found["int4"]["en"] == whole["int4"]["en"]
    assert found["plain"]["hi"]["reason"] == "hi: sentence 3 has a loss of nan"


def test_texts_that_cannot_be_read_are_the_reason_of_their_language_alone(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(healthy)
    unread = SOURCE.load().side("hi")

    def refusing(tokenizer: Any, texts: Sequence[str], **more: Any) -> Any:
        if tuple(texts) == tuple(unread):
            raise ValueError("text 0 (8 in all) has no token")
        return encode(tokenizer, texts, **more)

    monkeypatch.setattr(quant_jobs, "encode", refusing)
    quant_jobs._loaded.cache_clear()
    found, blocks = evaluated(healthy), swept(healthy, CODES)
    quant_jobs._loaded.cache_clear()
    for name in (*VARIANTS, "unigram"):
        assert found[name]["hi"]["reason"] == "hi: text 0 (8 in all) has no token"
        assert found[name]["en"] == whole[name]["en"]
    assert blocks["hi"] == {"language": "hi", "blocks": 3, "reason": "hi: text 0 (8 in all) has no token"}
    assert blocks["en"]["reason"] is None


def test_a_language_without_a_unigram_model_keeps_its_losses(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(healthy)

    def refusing(source: CorpusSource, code: str, count: int) -> list[str]:
        if code == "hi":
            raise ValueError("all are evaluated")
        return unevaluated_texts(source, code, count)

    monkeypatch.setattr(quant_jobs, "unevaluated_texts", refusing)
    found = evaluated(healthy)
    nothing = {"bits": None, "bits_per_token": None, "reason": "hi: no unigram model: all are evaluated"}
    assert found["unigram"] == {**whole["unigram"], "hi": nothing}
    assert found["plain"] == whole["plain"]


def test_a_sweep_measures_the_languages_asked_for_and_spares_the_others_of_one_that_has_no_number(
    healthy: str, broken: str
) -> None:
    for sets, column in (((), "protected"), (((0,), (1, 2)), "kept_sets")):
        whole = swept(healthy, CODES, sets)
        assert list(whole) == list(CODES)
        assert swept(healthy, ("sw", "en"), sets) == {code: whole[code] for code in ("sw", "en")}
        found = swept(broken, CODES, sets)
        assert found["hi"].keys() == {"language", "blocks", "reason"}
        assert found["hi"]["reason"].startswith("hi: blocks ")
        assert "sentence 0 has a loss of nan" in found["hi"]["reason"]
        for code in ("en", "de", "sw"):
            np.testing.assert_array_equal(found[code][column], whole[code][column])
            assert found[code]["reason"] is None


def test_a_sweep_does_not_score_the_unquantised_model_of_every_language_first(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quant_jobs._loaded.cache_clear()
    monkeypatch.setattr(quant_jobs, "keep_baselines", lambda *_: pytest.fail("nobody asked for it"))
    assert list(swept(healthy, ("sw",))) == ["sw"]


@pytest.mark.parametrize(
    ("positions", "window"), [(MAX_POSITIONS, 256), (1024, 1024), (2048, 2048), (131_072, 2048)]
)
def test_a_window_is_as_long_as_the_model_can_read_up_to_a_limit(positions: int, window: int) -> None:
    model = small_model("llama")
    model.config.max_position_embeddings = positions
    assert quant_jobs.window_of(model) == window


def test_a_model_that_names_no_positions_has_windows_of_the_usual_length() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=1, n_head=4))
    size = quant_jobs.window_of(model)
    assert size == 1024
    check_fits(model, encode(small_tokenizer(), SOURCE.load().side("en"), block_size=size, prefix_id=0))


def test_a_long_sentence_is_read_whole_where_the_model_has_the_positions(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for code in ("en", "hi"):
        lines = SOURCE.load().side(code)
        (folder / f"{code}.txt").write_text("\n".join(" ".join([line] * 2) for line in lines) + "\n")
    model = small_model("llama")
    model.config.max_position_embeddings = 400
    source = CorpusSource(kind="folder", name=str(folder), languages=("en", "hi"))
    found = evaluated(saved(tmp_path / "model", model), source)["alone"]["hi"]
    longest, losses = int(np.argmax(found["tokens"])), {}
    assert 256 < found["tokens"][longest] <= 400
    with quantized(model, SPEC):
        for size in (256, 400):
            read = encode(small_tokenizer(), source.load().side("hi"), block_size=size, prefix_id=0)
            losses[size] = sentence_losses(model, read).bits[longest]
    assert found["bits"][longest] == pytest.approx(losses[400], rel=1e-9)
    assert abs(losses[256] - losses[400]) > 0.1
