"""Texts of the nanodesmo study, named as data: the Python's own, a file, a URL with its hash, a hub dataset.

A source is resolved to the hash of its content before any work, so a fingerprint says what was read and not
where it lay. What came over the network is kept by that hash and read back without one. Only `https` is
asked, and http on this machine; of the hub only Parquet is read, by `datasets`. This file needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from models.hub_corpora import Files, HubCorpus
from models.nano_corpus import NanoCorpus, character_corpus, english_parts, library_parts, split_text
from models.nano_tokens import BYTES, bpe_corpus

Tokens = Literal["characters", "bpe"]
Kind = Literal["pydoc", "stdlib", "file", "url", "hub"]

MOST_BYTES = 2**28
"""Of a text file or a download, 256 MiB."""
SILENT_SECONDS = 20.0
"""A server may say nothing for so long."""
DOWNLOAD_SECONDS = 600.0
"""A download may take so long in all."""
MOST_REDIRECTS = 5
HUB_REVISION = "refs/convert/parquet"
"""Branch where the hub keeps each dataset as CONFIG/SPLIT/NNNN.parquet; `default` where none is named."""
BETWEEN_ROWS = "\n\n"
ALLOWED = "'pydoc', 'stdlib', the path of a UTF-8 text file, an https URL or 'hub:NAME[:CONFIG]'"
OWN = {"pydoc": english_parts, "stdlib": library_parts}
"""What this Python carries: parts of at most so many characters."""


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Which text, and what its tokens are."""

    source: str = "pydoc"
    """`pydoc` (its topics' English), `stdlib` (source code), a path, a URL or hub:NAME[:CONFIG]."""
    tokens: Tokens = "characters"
    vocab_size: int = 512
    """Of `bpe`; characters number themselves."""
    sha256: str = ""
    """Of the file, the download or the text made of rows; `resolved` fills it in. A URL must have it."""
    revision: str = ""
    """Of a hub dataset: commit, branch or tag; the hub's Parquet branch where empty."""
    text_field: str = "text"
    """Column of a hub dataset."""
    most_characters: int = 2_000_000
    """Read from the text's beginning; what is held out is part of them."""

    def __post_init__(self) -> None:
        """Refuse what no text can have."""
        if not self.source.strip():
            raise ValueError(f"source is empty; allowed: {ALLOWED}")
        if self.tokens not in get_args(Tokens):
            raise ValueError(f"tokens is {self.tokens!r}; allowed: {', '.join(get_args(Tokens))}")
        if self.tokens == "bpe" and self.vocab_size <= BYTES:
            raise ValueError(
                f"vocab_size is {self.vocab_size}; allowed: {BYTES + 1} or more, as each byte is a token"
            )
        if self.sha256 and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"sha256 is {self.sha256!r}; allowed: 64 of 0-9 and a-f, as sha256sum prints them"
            )
        if self.most_characters < 1:
            raise ValueError(f"most_characters is {self.most_characters}; allowed: 1 or more")
        if self.kind == "hub" and not self.hub_id[0]:
            raise ValueError(f"{self.source!r} names no dataset; allowed: 'hub:NAME[:CONFIG]'")

    @property
    def kind(self) -> Kind:
        """What the source is.

        >>> [TextSource(source=s).kind for s in ("stdlib", "hub:owner/name", "https://a.b/c", "a/b.txt")]
        ['stdlib', 'hub', 'url', 'file']
        """
        if self.source in ("pydoc", "stdlib"):
            return "pydoc" if self.source == "pydoc" else "stdlib"
        if self.source.startswith("hub:"):
            return "hub"
        return "url" if "://" in self.source else "file"

    @property
    def hub_id(self) -> tuple[str, str]:
        """Name and config of a hub dataset; no config is ''."""
        name, _, config = self.source.removeprefix("hub:").partition(":")
        return name, config

    @property
    def name(self) -> str:
        """The source for people: no folder of this machine, no query of a URL."""
        if self.kind == "file":
            return Path(self.source).name
        if self.kind == "url":
            parts = urlsplit(self.source)
            return f"{parts.hostname}{parts.path}"
        return {"pydoc": "pydoc_data.topics", "stdlib": "standard library"}.get(self.kind, self.source)


def describe(source: TextSource) -> str:
    """One line for people.

    >>> describe(TextSource(source="stdlib", tokens="bpe"))
    'up to 512 byte-pair tokens of standard library, at most 2,000,000 characters'
    """
    unit = "characters" if source.tokens == "characters" else f"up to {source.vocab_size:,} byte-pair tokens"
    known = [f"revision {source.revision[:12]}"] if source.kind == "hub" and source.revision else []
    known += [f"sha256 {source.sha256[:12]}"] if source.sha256 else []
    about = f" ({', '.join(known)})" if known else ""
    return f"{unit} of {source.name}{about}, at most {source.most_characters:,} characters"


def digest_fields(source: TextSource) -> dict[str, str | int]:
    """What of a resolved source can change a number: its content's hash, not its place.

    Raises
    ------
    ValueError
        When it has no hash yet.

    >>> digest_fields(TextSource(source="a/b.txt", sha256="0" * 64))["how"]
    'text'
    """
    if not source.sha256:
        raise ValueError(f"{source.name} has no sha256 yet; give what `resolved` makes of it")
    found: dict[str, str | int] = {
        "how": source.kind if source.kind in OWN else "text",
        "sha256": source.sha256,
        "tokens": source.tokens,
        "most_characters": source.most_characters,
    }
    return found | ({"vocab_size": source.vocab_size} if source.tokens == "bpe" else {})


def resolved(source: TextSource, cache: Path, *, root: Path | None = None) -> TextSource:
    """The source with the hash of its content, and of a hub dataset its commit.

    Nothing is fetched for a URL, whose hash is given. A hub dataset is read once, up to `most_characters`,
    and kept; with the hash of a text that is kept, the network is not asked.

    Parameters
    ----------
    cache
        Folder of what came over the network.
    root
        A folder with the Parquet files of a hub dataset, read instead of the hub.

    Raises
    ------
    ValueError
        The source is absent, not allowed or not what its hash says.
    OSError
        The network or the hub does not answer, or the cache cannot be written.
    """
    if source.kind == "url":
        _refuse_url(source)
        return source
    if source.kind == "hub":
        return _resolved_hub(source, cache, root)
    if source.kind == "file":
        return _with_hash(source, _sha256(_file_bytes(source)))
    return _with_hash(source, _sha256("\f".join(OWN[source.kind](source.most_characters)).encode()))


def corpus_of(source: TextSource, cache: Path, *, root: Path | None = None) -> NanoCorpus:
    """The text as tokens, in two parts; a file and what was fetched have their last tenth held out.

    Raises
    ------
    ValueError
        As `resolved`; also for a text that is empty, not UTF-8 or too short to be split.
    OSError
        As `resolved`; also when a download breaks off.
    """
    source = resolved(source, cache, root=root)
    if source.kind in OWN:
        parts = OWN[source.kind](source.most_characters)
    else:
        data = _file_bytes(source) if source.kind == "file" else _fetched(source, cache)
        _with_hash(source, _sha256(data))  # a file may have changed since
        parts = split_text(_decoded(data, source)[: source.most_characters])
    if source.tokens == "bpe":
        return bpe_corpus(*parts, vocab_size=source.vocab_size, source=source.name)
    return character_corpus(*parts, source=source.name)


def _with_hash(source: TextSource, found: str) -> TextSource:
    if source.sha256 and source.sha256 != found:
        raise ValueError(
            f"{source.name} has sha256 {found}, not the {source.sha256} asked for: it is another text or has "
            "changed; get the right one, or give the hash found if that is the text you mean"
        )
    return replace(source, sha256=found)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _decoded(data: bytes, source: TextSource) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source.name} is not UTF-8 at byte {error.start}; convert it to UTF-8") from error


# Files and downloads


def _file_bytes(source: TextSource) -> bytes:
    path = Path(source.source).expanduser()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(
                f"{source.name} has {path.stat().st_size:,} bytes; allowed: {MOST_BYTES:,}: give a part of it"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"there is no text file {path}; allowed: {ALLOWED}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a text file") from error


def _refuse_url(source: TextSource) -> None:
    if not source.sha256:
        raise ValueError(
            f"{source.name} has no sha256 and is not downloaded without one; get the file once by hand, look "
            "at it, and give what sha256sum prints for it"
        )
    _refuse_open(source.source, source.source)


def _refuse_open(url: str, first: str) -> None:
    parts, of_first = urlsplit(url), urlsplit(first)
    local = _is_loopback(parts.hostname) and _is_loopback(of_first.hostname)
    if not parts.hostname or parts.scheme not in (("https", "http") if local else ("https",)):
        raise ValueError(f"{parts.scheme}://{parts.hostname or ''} is no https URL; allowed: {ALLOWED}")
    if parts.username or parts.password:
        raise ValueError(f"the URL at {parts.hostname} holds a user or a password; give one without")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _kept(cache: Path, sha256: str) -> bytes | None:
    """A text of the cache, if it is there and whole."""
    try:
        data = (cache / f"{sha256}.txt").read_bytes()
    except FileNotFoundError:
        return None
    return data if _sha256(data) == sha256 else None


def _keep(cache: Path, chunks: Iterator[bytes], sha256: str, named: str) -> None:
    """Write a text whole or not at all; other bytes than the hash says are not kept."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".text-") as scratch:
        digest, fresh = hashlib.sha256(), Path(scratch, "fresh")
        with fresh.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{named} gave {fresh.stat().st_size:,} bytes with sha256 {digest.hexdigest()}, not the "
                f"{sha256} asked for; nothing is kept: check the address and the hash"
            )
        os.replace(fresh, cache / f"{sha256}.txt")


def _fetched(source: TextSource, cache: Path) -> bytes:
    """A URL's or a dataset's text, from the cache; what is not there, of a URL, is downloaded."""
    data = _kept(cache, source.sha256)
    if data is None and source.kind == "url":
        _keep(cache, _downloaded(source), source.sha256, source.name)
    return data or (cache / f"{source.sha256}.txt").read_bytes()


def _downloaded(source: TextSource) -> Iterator[bytes]:
    """Bytes of a URL as they come.

    Raises
    ------
    ValueError
        It is not there, too large, or leads to what is no https.
    OSError
        The server cannot be reached, fails, breaks off or takes too long.
    """
    import httpx

    ends = time.monotonic() + DOWNLOAD_SECONDS
    url, proxied = source.source, not _is_loopback(urlsplit(source.source).hostname)
    try:
        with httpx.Client(timeout=SILENT_SECONDS, trust_env=proxied) as client:
            for _ in range(MOST_REDIRECTS + 1):
                _refuse_open(url, source.source)
                with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                    if response.next_request is not None:
                        url = str(response.next_request.url)
                        continue
                    yield from _body(response, source, ends)
                    return
        raise ValueError(f"{source.name} leads on more than {MOST_REDIRECTS} times; give the last address")
    except httpx.TimeoutException as error:
        raise TimeoutError(f"{source.name} said nothing for {SILENT_SECONDS:g} s; try again later") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(
            f"{source.name} cannot be read: {error}; check the network and the address"
        ) from error


def _body(response: Any, source: TextSource, ends: float) -> Iterator[bytes]:
    """Bytes of an answer, within size and time."""
    if response.status_code >= 500:
        raise ConnectionError(f"{source.name} answered {response.status_code}; try again later")
    if response.status_code != 200:
        raise ValueError(f"{source.name} answered {response.status_code}; allowed: 200: check the address")
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if max(size, int(response.headers.get("Content-Length", 0))) > MOST_BYTES:
            raise ValueError(
                f"{source.name} has more than the {MOST_BYTES:,} bytes allowed; give a part of it"
            )
        if time.monotonic() > ends:
            raise TimeoutError(
                f"{source.name} gave {size:,} bytes in {DOWNLOAD_SECONDS:g} s; get it by hand, give its path"
            )
        yield chunk


# The hub


def _resolved_hub(source: TextSource, cache: Path, root: Path | None) -> TextSource:
    """A dataset's text put into the cache, unless the text of that hash is there."""
    if source.sha256 and _kept(cache, source.sha256) is not None:
        return source
    text, commit = _hub_text(source, root)
    data = text.encode()
    found = replace(_with_hash(source, _sha256(data)), revision=commit)
    _keep(cache, iter([data]), found.sha256, source.name)
    return found


def _hub_text(source: TextSource, root: Path | None) -> tuple[str, str]:
    """Rows of the training split in their order, up to `most_characters`, and the commit they are of."""
    try:
        library = importlib.import_module("datasets")
        from httpx2 import HTTPError
    except ImportError as error:
        raise ValueError(
            "texts from the hub need the optional package `datasets`; install the extra: "
            "pip install 'overnight-ladder[corpora]'"
        ) from error
    name, config = source.hub_id
    hub = HubCorpus(
        dataset=name, revision=HUB_REVISION, splits=("train",), split="train", pattern=lambda *_: ""
    )
    files = Files(corpus=hub, revision=source.revision or None, root=root)
    rows: list[str] = []
    size, commit = 0, ""
    try:
        for path, one in files.find(f"{config or 'default'}/*train*.parquet"):
            commit = one.revision
            for row in library.load_dataset("parquet", data_files=str(path), split="train", streaming=True):
                if not isinstance(row.get(source.text_field), str):
                    raise ValueError(
                        f"row {len(rows) + 1} of {name}, in {one.file}, has no text in "
                        f"{source.text_field!r}; its columns are {', '.join(row)}: name one as text_field"
                    )
                rows.append(row[source.text_field])
                size += len(rows[-1]) + len(BETWEEN_ROWS)
                if size >= source.most_characters + len(BETWEEN_ROWS):
                    return BETWEEN_ROWS.join(rows)[: source.most_characters], commit
    except (HTTPError, OSError) as error:
        why = (str(error).strip() or repr(error)).splitlines()[0]
        raise ConnectionError(
            f"the hub cannot be asked for {name}: {why}; check the network, or give the sha256 of a text "
            "that was read before"
        ) from error
    return BETWEEN_ROWS.join(rows), commit
