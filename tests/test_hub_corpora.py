"""Hub corpora are read from Parquet by `datasets`, aligned, and keep dataset, revision and hash of files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.hub_corpora import ARTICLES, calibration_texts, load_hub, udhr_articles

WITHOUT = importlib.util.find_spec("datasets") is None
needs_datasets = pytest.mark.skipif(WITHOUT, reason="the extra `corpora` (package datasets) is not installed")


def write(root: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def flores(root: Path, code: str, sentences: list[str], ids: list[int] | None = None) -> Path:
    rows = [
        {"id": number, "URL": f"page {number // 2}", "sentence": text}
        for number, text in zip(ids or range(len(sentences)), sentences, strict=True)
    ]
    return write(root, f"{code}/devtest-00000-of-00001.parquet", rows)


@needs_datasets
def test_flores_is_parallel_in_all_languages_and_keeps_its_files(tmp_path: Path) -> None:
    path = flores(tmp_path, "swh_Latn", ["habari", "asante", "ndiyo"])
    flores(tmp_path, "rus_Cyrl", ["привет", "спасибо", "да"])
    flores(tmp_path, "eng_Latn", ["hello", "thanks", "yes"])
    corpus = load_hub("flores", ["sw", "rus_Cyrl"], "devtest", root=tmp_path)
    assert corpus.languages == ("sw", "rus_Cyrl")
    assert corpus.texts["sw"] == ("habari", "asante", "ndiyo")
    assert corpus.ids == ("0", "1", "2")
    assert corpus.documents == ("page 0", "page 0", "page 1")
    source = corpus.sources[0]
    assert (source.dataset, source.revision) == ("facebook/flores", "local")
    assert source.file == "swh_Latn/devtest-00000-of-00001.parquet"
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_hub("flores", ["sw"], "devtest", root=tmp_path, limit=2).ids == ("0", "1")


@needs_datasets
def test_flores_plus_has_its_own_columns_and_layout(tmp_path: Path) -> None:
    for code, text in (("swh_Latn", "habari"), ("kaz_Cyrl", "сәлем")):
        row = {"id": 0, "url": "page", "text": text}
        write(tmp_path, f"dev/{code}.parquet", [row])
    corpus = load_hub("flores+", ["sw", "kk"], "dev", root=tmp_path)
    assert corpus.texts == {"sw": ("habari",), "kk": ("сәлем",)}


@needs_datasets
def test_sides_whose_ids_differ_are_refused_by_file_and_row(tmp_path: Path) -> None:
    flores(tmp_path, "eng_Latn", ["hello", "thanks", "yes"])
    flores(tmp_path, "swh_Latn", ["habari", "asante", "ndiyo"], ids=[0, 2, 1])
    with pytest.raises(
        ValueError, match=r"swh_Latn/devtest-.*, row 2 has id '2' where .*eng_Latn/.*row 2 has '1'"
    ):
        load_hub("flores", ["en", "sw"], "devtest", root=tmp_path)


@needs_datasets
def test_opus_gives_one_pair_whichever_way_round_it_is_asked_for(tmp_path: Path) -> None:
    rows = [{"translation": {"cy": "ie", "en": "yes"}}, {"translation": {"cy": "na", "en": "no"}}]
    write(tmp_path, "cy-en/test-00000-of-00001.parquet", rows)
    corpus = load_hub("opus-100", ["en", "cy"], "test", root=tmp_path)
    assert corpus.texts == {"en": ("yes", "no"), "cy": ("ie", "na")}
    assert corpus.documents == corpus.ids == ("1", "2")
    with pytest.raises(ValueError, match="name 2 languages, not 3"):
        load_hub("opus-100", ["en", "cy", "de"], "test", root=tmp_path)
    with pytest.raises(
        ValueError, match=r"no file 'en-kk/test-\*\.parquet'; it has 1 Parquet files, such as cy-en"
    ):
        load_hub("opus-100", ["en", "kk"], "test", root=tmp_path)


@needs_datasets
def test_an_empty_side_is_refused_by_row_and_language(tmp_path: Path) -> None:
    rows = [{"translation": {"cy": "ie", "en": "yes"}}, {"translation": {"cy": " ", "en": "no"}}]
    write(tmp_path, "cy-en/test-00000-of-00001.parquet", rows)
    with pytest.raises(ValueError, match="row 2, cy: the text of id '2' is empty"):
        load_hub("opus-100", ["en", "cy"], "test", root=tmp_path)


def declaration(word: str, body: str, digits: str = "0123456789") -> str:
    lines = ["A title with 1948 in it", "Preamble"]
    for number in range(1, ARTICLES + 1):
        shown = "".join(digits[int(d)] for d in str(number))
        lines += [
            f"{word} {shown}.",
            f"{body} {number}",
            "1. A numbered paragraph that is longer than a heading",
        ]
    return "\n".join(lines)


@needs_datasets
def test_udhr_is_aligned_by_the_numbers_of_its_articles_in_any_digits(tmp_path: Path) -> None:
    nepali = declaration("धारा", "पाठ", digits="०१२३४५६७८९")
    texts = {
        "eng": declaration("Article", "Body"),
        "npi": nepali,
        "fra": "Article premier\nTous\nArticle 2\nDeux",
    }
    scripts = {"eng": "Latn", "npi": "Deva", "fra": "Latn"}
    rows = [
        {"text": text, "lang_key": key, "iso639-3": key, "iso15924": scripts[key]}
        for key, text in texts.items()
    ]
    write(tmp_path, "default/train/0000.parquet", rows)
    corpus = load_hub("udhr", ["ne", "en"], "train", root=tmp_path)
    assert len(corpus.ids) == ARTICLES
    assert corpus.texts["en"][6].startswith("Body 7 1. A numbered")
    assert corpus.texts["ne"][6].startswith("पाठ 7 ")
    with pytest.raises(ValueError, match=r"row 3 \(fra\): no heading of article 1 is found"):
        load_hub("udhr", ["fr", "en"], "train", root=tmp_path)
    with pytest.raises(ValueError, match=r"no text in 'cy' \(cym_Latn\)"):
        load_hub("udhr", ["cy", "en"], "train", root=tmp_path)


def test_a_declaration_without_a_later_article_is_refused_by_its_number() -> None:
    text = declaration("Article", "A body that is no heading, as it is long: number").replace(
        "Article 12.", "Article twelve"
    )
    with pytest.raises(ValueError, match="page: no heading of article 12 is found"):
        udhr_articles(text, "page")


@needs_datasets
def test_calibration_texts_come_from_as_many_files_as_they_need(tmp_path: Path) -> None:
    for number in range(2):
        rows = [{"text": f"text {number}.{row}", "url": "u"} for row in range(3)]
        write(tmp_path, f"sw/partial-train/000{number}.parquet", rows)
    found = calibration_texts("sw", count=4, root=tmp_path)
    assert found.texts == ("text 0.0", "text 0.1", "text 0.2", "text 1.0")
    assert [source.file for source in found.sources] == [f"sw/partial-train/000{n}.parquet" for n in range(2)]
    assert len(calibration_texts("sw", count=3, root=tmp_path).sources) == 1
    with pytest.raises(ValueError, match="c4 has 6 texts in 'sw', split 'train'; 7 were asked for"):
        calibration_texts("sw", count=7, root=tmp_path)


@needs_datasets
@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (("flores", ["en"], "test"), "no split 'test'; it has dev, devtest"),
        (("flores", [], "dev"), "name at least 1"),
        (("flores", ["qx"], "dev"), "no language 'qx'"),
        (("flores", ["zu"], "dev"), "give one such as 'swh_Latn'"),
        (("c4", ["en"], "train"), "c4 is not aligned"),
        (("news", ["en"], "train"), r"known: flores, flores\+, udhr, opus-100"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_read(
    request_: tuple[str, list[str], str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        load_hub(*request_, root=tmp_path)


@needs_datasets
def test_a_file_without_the_column_is_refused_with_its_columns(tmp_path: Path) -> None:
    write(tmp_path, "eng_Latn/dev-00000-of-00001.parquet", [{"id": 1, "text": "x"}])
    with pytest.raises(ValueError, match="row 1 has no sentence, URL; its columns are id, text"):
        load_hub("flores", ["en"], "dev", root=tmp_path)


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'overnight-ladder\[corpora\]'"):
        load_hub("flores", ["en"], "dev", root=tmp_path)


@pytest.mark.hub
@needs_datasets
@pytest.mark.parametrize(
    ("name", "languages", "split"),
    [
        ("flores", ["en", "sw"], "devtest"),
        ("udhr", ["en", "sw"], "train"),
        ("opus-100", ["en", "cy"], "test"),
    ],
)
def test_the_hub_has_the_corpus_under_this_id_with_these_columns(
    name: str, languages: list[str], split: str
) -> None:
    corpus = load_hub(name, languages, split, limit=20)
    assert len(corpus.ids) == 20
    assert all(len(source.revision) == 40 for source in corpus.sources)


@pytest.mark.hub
@needs_datasets
def test_the_hub_has_c4_in_swahili_as_parquet() -> None:
    assert len(calibration_texts("sw", count=5, split="validation").texts) == 5
