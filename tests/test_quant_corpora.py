"""What the quantisation study may run on: models, hub corpora, stated languages, other texts to calibrate on.

Hub corpora are read from folders of the same layout.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deployments import cli
from flows.int4_disparity import FULL, SMOKE, Int4Disparity, chosen_languages, plan, protocol
from flows.quant_corpora import refuse
from flows.quant_run import begin
from lab.errors import UsageError
from lab.plan import plan_hash
from models import hub_corpora, other_texts, variants
from models.aligned_files import read_side
from models.cldr import cldr_corpus, cldr_texts
from models.languages import LANGUAGES
from models.quant_spec import CalibrationMix, Preservation, QuantSpec
from models.variants import CorpusSource, Variant, unevaluated_sha256, unevaluated_texts
from tasks.quant_measured import Asked, Measured, Sentences
from tasks.quant_measuring import Subject
from tests.test_families import config
from tests.test_hub_corpora import declaration, needs_datasets, write

STATED = {"fr": "high", "es": "high", "it": "high", "pt": "high", "nl": "high"} | dict.fromkeys(
    ("am", "ha", "ig", "yo", "zu"), "low"
)


@pytest.fixture(autouse=True)
def _nothing_read_before() -> Iterator[None]:
    """Corpora are kept by name for a run; here each test has its own of that name."""
    for kept in (variants._load, other_texts.other_texts, unevaluated_sha256):
        kept.cache_clear()
    yield
    for kept in (variants._load, other_texts.other_texts, unevaluated_sha256):
        kept.cache_clear()


def folder(place: Path, sides: dict[str, list[str]]) -> Path:
    """Plain lines, a file a language."""
    place.mkdir(parents=True)
    for code, side in sides.items():
        (place / f"{code}.txt").write_text("\n".join(side) + "\n", encoding="utf-8")
    return place


def stated(place: Path, languages: dict[str, Any] | None = None, sentences: int = 160) -> Path:
    """A folder of other languages than the built-in ones, with their tiers."""
    languages = STATED if languages is None else languages
    english = cldr_corpus(documents=sentences // 4).side("en")
    found = folder(place, {code: [f"{code} {text}" for text in english] for code in languages})
    (found / "languages.json").write_text(json.dumps(languages), encoding="utf-8")
    return found


def of_settings(**changed: Any) -> Int4Disparity:
    return replace(SMOKE, **changed)


# --- hub corpora


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """UDHR, C4 and OPUS-100 of the ten languages, on disk."""
    rows = []
    for one in LANGUAGES:
        long = hub_corpora.LONG_CODES[one.code]
        known = {"lang_key": one.code, "iso639-3": long[:3], "iso15924": long[4:]}
        rows.append({"text": declaration("Article", f"Body in {one.code}"), **known})
        pages = [{"text": f"Page {n} in {one.code} " + "and on " * 400} for n in range(450)]
        write(tmp_path / "c4", f"{one.code}/partial-train/0000.parquet", pages)
        pair = "-".join(sorted(("en", "de" if one.code == "en" else one.code)))
        both = [{"translation": {c: f"pair {n} of {c}" for c in pair.split("-")}} for n in range(450)]
        write(tmp_path / "opus", f"{pair}/test-00000-of-00001.parquet", both)
    write(tmp_path / "udhr", "default/train/0000.parquet", rows)
    load, pages_of = hub_corpora.load_hub, hub_corpora.calibration_texts
    monkeypatch.setattr(hub_corpora, "load_hub", partial(load, root=tmp_path / "udhr"))
    monkeypatch.setattr(other_texts, "load_hub", partial(load, root=tmp_path / "opus"))
    monkeypatch.setattr(other_texts, "calibration_texts", partial(pages_of, root=tmp_path / "c4"))
    return tmp_path


@needs_datasets
@pytest.mark.parametrize("others", ["c4", "opus-100"])
def test_udhr_can_be_studied_with_texts_of_another_corpus(hub: Path, others: str) -> None:
    settings = of_settings(corpus="udhr", looks=(30,), calibration_corpus=others)
    asked = protocol(settings)
    refuse(asked)
    source = asked.source_at(30)
    assert source.split == "train"
    assert len(source.load().ids) == 30
    texts = unevaluated_texts(source, "sw", 400)
    assert len(texts) == 400
    assert texts[3].startswith("Page 3 in sw" if others == "c4" else "pair 3 of sw")
    assert max(map(len, texts)) <= other_texts.LONGEST
    english = unevaluated_texts(source, "en", 2)[1]
    assert english.startswith("Page 1 in en" if others == "c4" else "pair 1 of en")


@needs_datasets
def test_udhr_without_other_texts_is_refused_with_the_setting_that_helps(hub: Path) -> None:
    for looks in ((30,), (16,)):
        with pytest.raises(UsageError, match="calibration_corpus"):
            refuse(protocol(of_settings(corpus="udhr", looks=looks)))


@pytest.mark.parametrize(
    ("corpus", "split"), [("flores", "devtest"), ("flores+", "devtest"), ("udhr", "train")]
)
def test_each_hub_corpus_has_its_own_split(corpus: str, split: str) -> None:
    assert protocol(of_settings(corpus=corpus)).source.split == split
    assert split in hub_corpora.CORPORA[corpus].splits


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"corpus": "udhr", "split": "devtest"}, "split = 'devtest' of udhr; allowed: train"),
        ({"corpus": "opus-100"}, "pairs English with one.*two languages allow no test.*corpus=opus-100"),
        ({"corpus": "c4"}, "'c4' is not aligned; allowed: cldr, flores, .*calibration_corpus=c4"),
        ({"corpus": "cldr", "languages_file": "mine.json"}, "beside corpus = 'cldr'"),
    ],
)
def test_a_corpus_that_cannot_be_studied_is_refused_when_settings_are_made(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        of_settings(**changed)
    assert "\n" not in str(refused.value)


# --- other texts


def test_other_texts_of_a_folder_need_not_be_aligned_and_change_the_fingerprint(tmp_path: Path) -> None:
    sides = {one.code: cldr_texts(one.code, first=500_000, documents=30) for one in LANGUAGES}
    sides["sw"] = sides["sw"][:110]
    place = folder(tmp_path / "others", sides)
    mine = stated(tmp_path / "mine", {one.code: one.tier for one in LANGUAGES}, sentences=32)
    asked = protocol(of_settings(corpus=str(mine), looks=(32,), calibration_corpus=str(place)))
    refuse(asked)  # all 32 sentences are evaluated and the texts are elsewhere
    source = asked.source_at(32)
    assert unevaluated_texts(source, "sw", 400) == sides["sw"]

    def key() -> str:
        for kept in (other_texts.other_texts, unevaluated_sha256):
            kept.cache_clear()
        one = Subject(where="m", digest="d", source=source, mix=CalibrationMix(texts=(("sw", 4),)))
        return one.key(Variant())

    before = key()
    (place / "sw.txt").write_text("\n".join([*sides["sw"][:-1], "jambo"]) + "\n", encoding="utf-8")
    assert key() != before
    plain = replace(source, others="", sentences=16)
    assert unevaluated_texts(plain, "sw", 4)[0].startswith("sw ")


def test_other_texts_belong_to_the_plan(tmp_path: Path) -> None:
    hashes = {plan_hash(plan(of_settings(calibration_corpus=name))) for name in ("", "c4", str(tmp_path))}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda place: (place / "sw.txt").unlink(), "has 0 files of 'sw'"),
        (lambda place: (place / "sw.jsonl").write_text("{}"), "has 2 files of 'sw'"),
        (lambda place: _head(place / "sw.txt", 99), "99 sentences in 'sw' are in .*others, 100 are needed"),
        (lambda place: _blank(place / "sw.txt"), "sw.txt, line 3: the text of id '3' is empty"),
        (lambda place: _evaluated(place), r"text 5 in 'sw' of .*others is evaluated too: '.+'; calibrate on"),
    ],
)
def test_other_texts_that_will_not_do_are_refused_by_place(tmp_path: Path, change: Any, said: str) -> None:
    sides = {one.code: cldr_texts(one.code, first=500_000, documents=30) for one in LANGUAGES}
    place = folder(tmp_path / "others", sides)
    change(place)
    with pytest.raises(UsageError, match=said):
        refuse(protocol(of_settings(looks=(32,), calibration_corpus=str(place))))


def test_a_place_of_other_texts_that_is_none_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UsageError, match="'flores' is no folder; allowed: c4, opus-100 or a folder"):
        refuse(protocol(of_settings(looks=(32,), calibration_corpus="flores")))


def _head(path: Path, lines: int) -> None:
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:lines]) + "\n", encoding="utf-8")


def _blank(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], " ", *lines[3:]]) + "\n", encoding="utf-8")


def _evaluated(place: Path) -> None:
    path = place / "sw.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4] = cldr_corpus(documents=8).side("sw")[7]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_one_side_of_a_folder_may_be_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "sw.jsonl").write_text('{"id": 1, "text": "jambo"}\n', encoding="utf-8")
    assert [one.text for one in read_side(tmp_path, "sw")] == ["jambo"]


# --- stated languages


def test_a_folder_may_state_any_languages(tmp_path: Path) -> None:
    place = stated(tmp_path / "mine")
    settings = of_settings(corpus=str(place), looks=(32,), model="owner/name")
    assert {one.code: one.tier for one in chosen_languages(settings)} == STATED
    refuse(protocol(settings))
    assert protocol(settings).source_at(32).load().languages == tuple(STATED)
    assert [one["tier"] for one in plan(settings).design["languages"]] == list(STATED.values())  # type: ignore
    fewer = ("fr", "es", "it", "pt", "nl", "am", "ha", "ig", "yo")
    assert [one.code for one in chosen_languages(replace(settings, languages=fewer))] == list(fewer)
    with pytest.raises(UsageError, match="unknown language 'sw'"):
        replace(settings, languages=("sw",))


def test_a_file_elsewhere_states_the_languages_of_a_hub_corpus(tmp_path: Path) -> None:
    path = stated(tmp_path / "mine") / "languages.json"
    path.write_text(json.dumps({"hau_Latn": "low"} | STATED))
    settings = replace(FULL, languages_file=str(path))
    assert chosen_languages(settings)[0].code == "hau_Latn"
    assert protocol(settings).source.languages[0] == "hau_Latn"


def test_without_a_file_the_built_in_table_stands(tmp_path: Path) -> None:
    place = stated(tmp_path / "mine")
    (place / "languages.json").unlink()
    assert chosen_languages(of_settings(corpus=str(place))) == LANGUAGES


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ({**STATED, "fr": "medium"}, "tier 'medium' of 'fr'"),
        ({"fr": "high", "es": "high", "it": "high", "am": "low", "ha": "low", "ig": "low"}, "3 low v 3 high"),
        (dict.fromkeys(STATED, "low"), "10 low and 0 high"),
    ],
)
def test_stated_languages_that_no_test_can_use_are_one_line_with_the_place(
    languages: dict[str, str], said: str, tmp_path: Path
) -> None:
    place = stated(tmp_path / "mine", languages)
    with pytest.raises(UsageError, match=said) as refused:
        of_settings(corpus=str(place), looks=(32,))
    assert str(refused.value).startswith(str(place / "languages.json"))
    assert "\n" not in str(refused.value)


def test_a_malformed_file_of_languages_ends_the_command_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)  # the command sets Prefect's variables; afterwards they are as before
    place = stated(tmp_path / "mine")
    (place / "languages.json").write_text('{"sw": "low", "sw": "high"}')
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["ladder", "run", "int4_disparity", "--set", f"corpus={place}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1
    assert "languages.json: 'sw' stands there twice" in err


def test_a_share_that_nobody_stated_leaves_the_slope_over_shares_out(tmp_path: Path) -> None:
    place = stated(tmp_path / "mine")
    settings = of_settings(corpus=str(place), looks=(32,))
    corpus = protocol(settings).source_at(32).load()
    side = {"reason": None, "bits": [1.0] * 32, "tokens": [2] * 32}
    body = {"languages": dict.fromkeys(corpus.languages, side)}

    def shares(table: tuple[Any, ...]) -> Any:
        asked = Asked(languages=table, margin=1.0, alpha=0.05, resamples=2000)
        sentences = Sentences(corpus=corpus, places=tuple(range(32)))
        return Measured(asked, sentences, {"fp32": body}).aligned.shares

    table = chosen_languages(settings)
    assert shares(table) is None
    assert shares(tuple(replace(one, share=0.1) for one in table)) == (0.1,) * 10


# --- the whole way of one model


def test_a_small_xglm_is_measured_on_stated_languages_with_other_texts(tmp_path: Path) -> None:
    from models.quant_jobs import evaluate
    from tests.scored_models import small_model, small_tokenizer

    small_model("xglm").save_pretrained(tmp_path / "model")
    small_tokenizer().save_pretrained(tmp_path / "model")
    mine = stated(tmp_path / "mine", {"fr": "high", "yo": "low"}, sentences=16)
    apart = {code: [f"{code} other {n}" for n in range(12)] for code in ("fr", "yo")}
    others = folder(tmp_path / "others", apart)
    source = CorpusSource(kind="folder", name=str(mine), languages=("fr", "yo"), others=str(others))
    spec = QuantSpec(group_size=16)
    kept = Variant(spec=spec, preservation=Preservation(selector="hessian", percent=5.0))
    asked = {"plain": Variant(), "kept": kept, "gptq": Variant(spec=spec, gptq=True, compared=True)}
    found: dict[str, Any] = {}
    where, mix = str(tmp_path / "model"), asdict(CalibrationMix(texts=(("fr", 4), ("yo", 4))))
    evaluate(
        where=where,
        source=asdict(source),
        variants={name: asdict(one) for name, one in asked.items()},
        mix=mix,
        report=lambda one: found.__setitem__(one["key"], one["body"]),
    )
    assert len(found["plain"]["languages"]["yo"]["bits"]) == 16
    assert found["plain"]["unigram"]["yo"]["bits_per_token"] > 0
    assert found["gptq"]["coverage"]["modules"] == 18


@pytest.mark.parametrize("field", ["model", "transfer"])
def test_a_run_refuses_such_a_model_before_anything_is_made(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    other = config(tmp_path / "other", '{"model_type": "mamba"}')
    changed: dict[str, Any] = {field: other if field == "model" else ("cldr-opt", other)}
    with pytest.raises(UsageError, match=r"'mamba'.*allowed: gpt2") as refused:
        begin(protocol(of_settings(**changed)))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "home").exists()
