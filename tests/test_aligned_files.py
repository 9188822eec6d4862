"""Folders of one's own text: three formats, one corpus; what is misaligned is named by file and line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.aligned_files import read_aligned

ENGLISH = ["yes", "no", "perhaps"]
RUSSIAN = ["да", "нет", "может"]


def lines(path: Path, texts: list[str]) -> None:
    path.write_bytes("".join(f"{text}\n" for text in texts).encode())


def json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])


def rows(texts: list[str], **more: Any) -> list[dict[str, Any]]:
    return [{"id": str(n), "text": text, **more} for n, text in enumerate(texts, start=1)]


def test_three_formats_in_one_folder_give_one_corpus(tmp_path: Path) -> None:
    lines(tmp_path / "en.txt", ENGLISH)
    json_lines(tmp_path / "ru.jsonl", rows(RUSSIAN))
    pq.write_table(pa.Table.from_pylist(rows(["ie", "na", "efallai"])), tmp_path / "cy.parquet")
    (tmp_path / "README.md").write_text("ignored")
    corpus = read_aligned(tmp_path, name="mine")
    assert corpus.languages == ("cy", "en", "ru")
    assert corpus.ids == corpus.documents == ("1", "2", "3")
    assert corpus.texts["ru"] == tuple(RUSSIAN)
    assert corpus.texts["cy"] == ("ie", "na", "efallai")
    hashes = {source.file: source.sha256 for source in corpus.sources}
    assert hashes["en.txt"] == hashlib.sha256(b"yes\nno\nperhaps\n").hexdigest()
    assert corpus.name == "mine"


def test_ids_may_stand_in_a_file_beside_plain_lines(tmp_path: Path) -> None:
    lines(tmp_path / "en.txt", ENGLISH)
    lines(tmp_path / "ids.txt", ["a", "b", "c"])
    json_lines(tmp_path / "ru.jsonl", [{"id": i, "text": t} for i, t in zip("abc", RUSSIAN, strict=True)])
    assert read_aligned(tmp_path).ids == ("a", "b", "c")
    assert "ids.txt" in {source.file for source in read_aligned(tmp_path).sources}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_one_file_may_hold_all_languages_with_documents(tmp_path: Path, suffix: str) -> None:
    table = [
        {"id": n, "language": code, "text": text, "document": f"page {n // 2}"}
        for code, texts in (("ru", RUSSIAN), ("en", ENGLISH))
        for n, text in enumerate(texts)
    ]
    path = tmp_path / f"all{suffix}"
    if suffix == ".jsonl":
        json_lines(path, table)
    else:
        pq.write_table(pa.Table.from_pylist(table), path)
    corpus = read_aligned(path)
    assert corpus.languages == ("ru", "en")
    assert corpus.documents == ("page 0", "page 0", "page 1")
    assert corpus.texts["en"] == tuple(ENGLISH)
    assert corpus.name == "all"


@settings(max_examples=40)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"), min_size=1).filter(str.strip),
        min_size=1,
        max_size=6,
    )
)
def test_any_line_without_a_line_feed_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    lines(folder / "en.txt", texts)
    json_lines(folder / "de.jsonl", rows(texts))
    corpus = read_aligned(folder)
    assert corpus.texts == {"de": tuple(texts), "en": tuple(texts)}


def test_line_ends_of_windows_and_a_byte_order_mark_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_bytes(b"\xef\xbb\xbfyes\r\nno\r\n")
    lines(tmp_path / "ru.txt", RUSSIAN[:2])
    assert read_aligned(tmp_path).texts["en"] == ("yes", "no")


REFUSED: list[tuple[dict[str, str], str]] = [
    (
        {"en.txt": "a\nb\n", "ru.txt": "а\nб\nв\n"},
        r"'en' has 2 sentences and 'ru' has 3: .*ru\.txt, line 3 \(id '3'\)",
    ),
    (
        {"en.txt": "a\nb\nc\n", "ru.txt": "а\nб\n"},
        r"en\.txt, line 3 \(id '3'\) stands in 'en' and not in 'ru'",
    ),
    (
        {"en.txt": "a\nb\n", "ru.jsonl": '{"id": 2, "text": "а"}\n{"id": 1, "text": "б"}\n'},
        r"ru\.jsonl, line 1 has id '2' where .*en\.txt, line 1 has '1'",
    ),
    ({"en.txt": "a\n\nc\n"}, r"en\.txt, line 2: the text of id '2' is empty"),
    (
        {"en.jsonl": '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n'},
        r"line 2: id '1' was used at .*line 1",
    ),
    ({"en.jsonl": '{"id": 1, "text": "a"}\n{"text": "b"}\n'}, r"line 2 has no 'id'; its fields are 'text'"),
    ({"en.jsonl": '{"id": 1, "sentence": "a"}\n'}, r"line 1 has no 'text'; its fields are 'id', 'sentence'"),
    ({"en.jsonl": '{"id": 1, "text": 5}\n'}, "'text' is int; it must be a string"),
    ({"en.jsonl": '{"id": 1, "text": "a"}\n{oops\n'}, r"line 2 is not JSON"),
    ({"en.jsonl": "[1]\n"}, r"line 1 is list; write one object a line"),
    (
        {"english.txt": "a\n"},
        r"english\.txt: a file is named after its language; 'english' is no language code",
    ),
    ({"xq.txt": "a\n"}, r"xq\.txt: .*CLDR knows no language 'xq'"),
    ({"en.txt": "a\n", "en.jsonl": '{"id": 1, "text": "a"}\n'}, r"'en' has another file"),
    (
        {"en.txt": "a\nb\n", "ids.txt": "x\n"},
        r"en\.txt has 2 lines and .*ids\.txt 1; they differ from line 2",
    ),
    ({"en.txt": "a\nb\n", "ids.txt": "x\n\n"}, r"ids\.txt, line 2 is empty"),
    (
        {
            "en.jsonl": '{"id": 1, "text": "a", "document": "p"}\n',
            "de.jsonl": '{"id": 1, "text": "a", "document": "q"}\n',
        },
        r"en\.jsonl, line 1 puts id '1' into document 'p', .*de\.jsonl, line 1 into 'q'",
    ),
    ({"notes.md": "a\n"}, r"holds no \.txt, \.jsonl, \.parquet file"),
    ({"en.txt": ""}, r"en\.txt, line 1: the text of id '1' is empty"),
    ({"en.parquet": "not parquet"}, r"en\.parquet cannot be read as Parquet"),
]


@pytest.mark.parametrize(("files", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_is_not_aligned_is_refused_by_file_and_line(
    files: dict[str, str], words: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_aligned(tmp_path)


def test_bytes_that_are_not_utf_8_are_refused_by_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "de.txt").write_bytes("grün\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"de\.txt is not UTF-8 at byte 2"):
        read_aligned(tmp_path)


def test_a_place_that_is_no_folder_and_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a folder nor a file"):
        read_aligned(tmp_path / "nowhere")
    (tmp_path / "all.csv").write_text("id,language,text\n")
    with pytest.raises(ValueError, match=r"must be \.jsonl or \.parquet, not '\.csv'"):
        read_aligned(tmp_path / "all.csv")
    json_lines(tmp_path / "all.jsonl", [{"id": 1, "text": "a"}])
    with pytest.raises(ValueError, match="line 1 has no 'language'"):
        read_aligned(tmp_path / "all.jsonl")


def test_a_language_that_lacks_an_id_in_one_file_for_all_is_refused(tmp_path: Path) -> None:
    table = [{"id": n, "language": code, "text": "x"} for code in ("en", "de") for n in (1, 2)]
    json_lines(tmp_path / "all.jsonl", table[:-1])
    with pytest.raises(ValueError, match=r"all\.jsonl, line 2 \(id '2'\) stands in 'en' and not in"):
        read_aligned(tmp_path / "all.jsonl")
