"""The study's texts as data: what a source gives, what enters a fingerprint, faults of files and servers."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import nano_texts
from models.nano_corpus import MODULES, NanoCorpus, embedded_corpus, file_corpus, library_parts
from models.nano_texts import TextSource, corpus_of, describe, digest_fields, resolved

LINE = "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind. €\n"
TEXT = "".join(f"{n} {LINE}" for n in range(60))
BODY = TEXT.encode()
Answer = Callable[[BaseHTTPRequestHandler], object]
WITHOUT = importlib.util.find_spec("datasets") is None
needs_datasets = pytest.mark.skipif(WITHOUT, reason="the extra `corpora` (package datasets) is not installed")


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def text_of(corpus: NanoCorpus) -> tuple[str, ...]:
    parts = (corpus.train, corpus.heldout)
    return tuple("".join(corpus.symbols[i] for i in part.tolist()) for part in parts)


def printed(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh process prints."""
    command, env = [sys.executable, "-c", code, *arguments], {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()


def same(one: NanoCorpus, other: NanoCorpus) -> bool:
    arrays = np.array_equal(one.train, other.train) and np.array_equal(one.heldout, other.heldout)
    return arrays and (one.symbols, one.sha256) == (other.symbols, other.sha256)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "a text.txt"
    place.write_text(TEXT, encoding="utf-8")
    return place


def test_the_default_is_the_embedded_english_and_its_hash_is_of_the_text(tmp_path: Path) -> None:
    corpus = corpus_of(TextSource(), tmp_path / "cache")
    assert same(corpus, embedded_corpus())
    source = resolved(TextSource(), tmp_path / "cache")
    assert source.sha256 == corpus.sha256 == sha("\f".join(text_of(corpus)))
    assert resolved(source, tmp_path) == source
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match=r"pydoc_data.topics has sha256 \w+, not the 0+ asked for"):
        corpus_of(TextSource(sha256="0" * 64), tmp_path)
    train, heldout = text_of(corpus)
    short = text_of(corpus_of(TextSource(most_characters=5000), tmp_path))
    assert short == (train[:4500], heldout[:500])


def test_library_source_is_a_megabyte_of_whole_modules_none_of_which_is_in_both_parts() -> None:
    train, heldout = library_parts(2_000_000)
    assert library_parts(2_000_000) == (train, heldout)
    assert 1_000_000 < len(train) + len(heldout) <= 2_000_001
    assert 0.05 < len(heldout) / (len(train) + len(heldout)) <= 0.1
    import argparse
    import inspect

    assert (inspect.getsource(argparse) in train) != (inspect.getsource(argparse) in heldout)
    pieces = [heldout[i : i + 300] for i in range(0, len(heldout) - 300, 1000)]
    assert sum(piece in train for piece in pieces) <= 0.01 * len(pieces)
    assert len(library_parts(10**9)[0]) > len(train)


def test_library_source_is_found_without_importing_any_of_it_and_is_the_same_in_every_process() -> None:
    code = (
        "import sys, hashlib; from models.nano_corpus import library_parts; before = set(sys.modules); "
        "text = chr(12).join(library_parts(300_000)); "
        "print(hashlib.sha256(text.encode()).hexdigest(), sorted(set(sys.modules) - before))"
    )
    digest, _, fresh = printed(code).partition(" ")
    assert digest == sha("\f".join(library_parts(300_000)))
    assert not {name for name in MODULES if f"'{name}'" in fresh}


def test_a_python_without_library_source_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="0 library modules fit into 10 characters"):
        library_parts(10)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="use a Python with its library's source"):
        library_parts(10**9)


def test_a_file_is_cut_as_before_and_known_by_content_not_path(path: Path, tmp_path: Path) -> None:
    source = TextSource(source=str(path))
    assert same(corpus_of(source, tmp_path), file_corpus(path))
    other = path.rename(tmp_path / "moved.txt")
    moved = resolved(TextSource(source=str(other)), tmp_path)
    known = {"how": "text", "sha256": sha(TEXT), "tokens": "characters", "most_characters": 2_000_000}
    assert digest_fields(moved) == known
    assert corpus_of(moved, tmp_path).source == "moved.txt"
    assert str(tmp_path) not in describe(moved)
    assert sha(TEXT)[:12] in describe(moved)
    with pytest.raises(ValueError, match=r"moved.txt has no sha256 yet"):
        digest_fields(replace(moved, sha256=""))
    capped = corpus_of(replace(moved, most_characters=100), tmp_path)
    assert "".join(text_of(capped)) == TEXT[:100]
    assert digest_fields(replace(moved, most_characters=100)) != digest_fields(moved)


def test_a_file_that_changes_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolved(TextSource(source=str(path)), path.parent)
    reads = iter([BODY, BODY + b"x"])
    monkeypatch.setattr(nano_texts, "_file_bytes", lambda source: next(reads))
    with pytest.raises(ValueError, match="it is another text or has changed"):
        corpus_of(source, path.parent)  # between two readings
    monkeypatch.undo()
    path.write_bytes(BODY + b"x")
    with pytest.raises(ValueError, match=r"a text.txt has sha256 \w+, not the \w+ asked for"):
        corpus_of(source, path.parent)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 characters to train on and 0 held out"),
        (b"abc\xff", "not UTF-8 at byte 3; convert it"),
        (b"a" * 5, r"has \d tokens; a block of 8 needs 9"),
    ],
)
@pytest.mark.parametrize("tokens", ["characters", "bpe"])
def test_an_empty_broken_or_short_file_is_refused(
    data: bytes, words: str, tokens: str, path: Path, tmp_path: Path
) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        corpus_of(TextSource(source=str(path), tokens=tokens), tmp_path).refuse_short(8)  # type: ignore[arg-type]


def test_what_is_no_text_file_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"there is no text file openwebtext; allowed: 'pydoc', 'stdlib'"):
        resolved(TextSource(source="openwebtext"), tmp_path)
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        resolved(TextSource(source=str(tmp_path)), tmp_path)
    monkeypatch.setattr(nano_texts, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes; allowed: 100"):
        resolved(TextSource(source=str(path)), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": " "}, "source is empty"),
        ({"source": "hub::x"}, "names no dataset"),
        ({"tokens": "words"}, "tokens is 'words'; allowed: characters, bpe"),
        ({"tokens": "bpe", "vocab_size": 256}, "vocab_size is 256; allowed: 257 or more"),
        ({"sha256": "ABC"}, "sha256 is 'ABC'; allowed: 64 of"),
        ({"most_characters": 0}, "most_characters is 0"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextSource(**change)  # type: ignore[arg-type]


def test_a_corpus_of_byte_pairs_is_known_by_text_and_tokenizer_and_loses_convert(path: Path) -> None:
    source = TextSource(source=str(path), tokens="bpe", vocab_size=300)
    corpus = corpus_of(source, path.parent)
    assert corpus.vocab_size == 300
    held = len(file_corpus(path).heldout)
    assert corpus.characters_per_token == held / len(corpus.heldout) > 1
    bits = 2.0 * len(corpus.heldout) / held / math.log(2)
    assert corpus.bits_per_character(2.0) == pytest.approx(bits, rel=1e-12)
    assert file_corpus(path).bits_per_character(2.0) == pytest.approx(2.0 / math.log(2))
    three = (source, replace(source, vocab_size=301), replace(source, tokens="characters"))
    assert len({corpus_of(one, path.parent).sha256 for one in three}) == 3
    assert len({str(digest_fields(resolved(one, path.parent))) for one in three}) == 3


class Server:
    """A local server with one answer, counting its requests."""

    def __init__(self, answer: Answer) -> None:
        self.requests, self.gate = 0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                answer(self)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/shelf/a.txt?key=secret"


@contextmanager
def served(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def whole(handler: BaseHTTPRequestHandler, body: bytes = BODY, length: int | None = len(BODY)) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def leftovers(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def test_a_url_is_downloaded_once_and_read_back_without_a_network(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with served(whole) as server:
        source = TextSource(source=server.url, sha256=sha(BODY))
        assert resolved(source, cache) == source
        assert server.requests == 0
        corpus = corpus_of(source, cache)
        assert server.requests == 1
        (cache / f"{sha(BODY)}.txt").write_bytes(BODY[:99])  # damaged, it is downloaded again
        assert same(corpus_of(source, cache), corpus)
        assert server.requests == 2
    assert "".join(text_of(corpus)) == TEXT
    assert leftovers(cache) == [cache / f"{sha(BODY)}.txt"]
    assert same(corpus_of(source, cache), corpus)  # the server is gone
    assert "secret" not in corpus.source + describe(source)
    kept = leftovers(cache)[0]
    assert digest_fields(source) == digest_fields(resolved(TextSource(source=str(kept)), cache))


def endless(handler: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        whole(handler, b"x" * 1000, length=None)
        for _ in range(10_000):
            handler.wfile.write(b"x" * 1000)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda h: whole(h, BODY[::-1]), ValueError, r"gave [\d,]+ bytes with sha256 \w+, not the"),
        (lambda h: whole(h, BODY[:1000]), ConnectionError, "cannot be read: peer closed connection"),
        (lambda h: whole(h, BODY[:1000], None), ValueError, r"gave 1,000 bytes with .*nothing is kept"),
        (lambda h: h.send_error(404), ValueError, "answered 404; allowed: 200"),
        (lambda h: h.send_error(503), ConnectionError, "answered 503; try again later"),
        (lambda h: h.wfile.write(b"hello\r\n\r\n"), ConnectionError, "cannot be read: "),
        (endless, ValueError, "has more than the 100,000 bytes allowed"),
        (lambda h: whole(h, b"x", 10**9), ValueError, "has more than the 100,000 bytes allowed"),
    ],
    ids=["hash", "cut", "cut, no length", "404", "503", "no http", "endless", "too large"],
)
def test_a_faulty_answer_is_an_error_that_says_which_and_leaves_nothing(
    answer: Answer, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_texts, "MOST_BYTES", 100_000)
    with served(answer) as server, pytest.raises(error, match=rf"127.0.0.1/shelf/a.txt {words}"):
        corpus_of(TextSource(source=server.url, sha256=sha(BODY)), tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_silent_slow_or_absent_server_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hanging(handler: BaseHTTPRequestHandler) -> None:
        whole(handler, BODY[:10])
        gates[0].wait(5)

    def trickling(handler: BaseHTTPRequestHandler) -> None:
        whole(handler, b"")
        while not gates[0].wait(0.05):
            with suppress(OSError):
                handler.wfile.write(b"x")

    monkeypatch.setattr(nano_texts, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(nano_texts, "DOWNLOAD_SECONDS", 0.4)
    cases = ((hanging, "said nothing for 0.3 s"), (trickling, r"gave \d+ bytes in 0.4 s; get it by hand"))
    for answer, words in cases:
        with served(answer) as server:
            gates = [server.gate]
            source = TextSource(source=server.url, sha256=sha(BODY))
            with pytest.raises(TimeoutError, match=words):
                corpus_of(source, tmp_path / "cache")
    with pytest.raises(ConnectionError, match="check the network and the address"):
        corpus_of(source, tmp_path / "cache")  # the server is gone
    assert leftovers(tmp_path / "cache") == []


def test_a_redirect_is_followed_to_what_is_allowed_only(tmp_path: Path) -> None:
    def leading(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to[0])
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with served(lambda h: whole(h) if h.path == "/there" else leading(h)) as server:
        source = TextSource(source=server.url, sha256=sha(BODY))
        to = ["http://example.invalid/there"]
        with pytest.raises(ValueError, match=r"http://example.invalid is no https URL"):
            corpus_of(source, tmp_path)
        to = ["/again"]
        with pytest.raises(ValueError, match="leads on more than 5 times"):
            corpus_of(source, tmp_path)
        to = ["/there"]
        assert "".join(text_of(corpus_of(source, tmp_path))) == TEXT


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("https://example.invalid/a.txt", "", "is not downloaded without one; get the file once by hand"),
        ("http://example.invalid/a.txt", "0" * 64, "is no https URL; allowed"),
        ("ftp://127.0.0.1/a.txt", "0" * 64, "is no https URL"),
        ("https:///a.txt", "0" * 64, "is no https URL"),
        ("https://me:word@example.invalid/a.txt", "0" * 64, "holds a user or a password"),
    ],
)
def test_a_url_without_a_hash_or_not_safe_is_refused_before_anything_is_sent(
    url: str, sha256: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_texts, "_downloaded", lambda source: pytest.fail("a download was begun"))
    for use in (resolved, corpus_of):
        with pytest.raises(ValueError, match=words) as caught:
            use(TextSource(source=url, sha256=sha256), tmp_path)
        assert "word@" not in str(caught.value)


def shelf(root: Path, config: str, rows: list[dict[str, object]], number: int = 0) -> None:
    place = root / config / "train" / f"000{number}.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), place)


@needs_datasets
def test_a_dataset_gives_its_rows_in_order_up_to_a_number_of_characters_and_is_kept(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    shelf(root, "default", [{"text": "one " * 20}, {"text": "two " * 20}])
    shelf(root, "default", [{"text": "drei € " * 20}], number=1)
    shelf(root, "other", [{"body": "vier " * 20}])
    source = TextSource(source="hub:owner/name", most_characters=200)
    found = resolved(source, cache, root=root)
    text = ("one " * 20 + "\n\n" + "two " * 20 + "\n\n" + "drei € " * 20)[:200]
    assert (found.sha256, found.revision) == (sha(text), "local")
    corpus = corpus_of(found, cache)  # no folder, no hub: from the cache
    assert "".join(text_of(corpus)) == text
    assert same(corpus_of(source, cache, root=root), corpus)
    other = TextSource(source="hub:owner/name:other", text_field="body")
    assert "".join(text_of(corpus_of(other, cache, root=root))) == "vier " * 20
    with pytest.raises(ValueError, match=r"row 1 of owner/name, in other/train/0000.parquet, has no text in"):
        resolved(replace(other, text_field="text"), cache, root=root)
    with pytest.raises(
        ValueError, match=r"no file 'none/\*train\*.parquet'; it has 3 Parquet files, such as"
    ):
        resolved(replace(other, source="hub:owner/name:none"), cache, root=root)
    with pytest.raises(ValueError, match="hub:owner/name has sha256"):
        resolved(replace(source, sha256="0" * 64), cache, root=root)


@needs_datasets
def test_offline_the_hub_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"the hub cannot be asked for owner/name: .*check the network"):
        resolved(TextSource(source="hub:owner/name"), tmp_path)
    assert leftovers(tmp_path) == []


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'overnight-ladder\[corpora\]'"):
        corpus_of(TextSource(source="hub:owner/name"), tmp_path)


def test_sources_need_neither_torch_nor_a_client_until_they_are_read() -> None:
    code = "import sys, models.nano_texts; print([m for m in sys.modules if m in sys.argv])"
    assert printed(code, "torch", "tokenizers", "datasets", "httpx", "huggingface_hub") == "[]"
