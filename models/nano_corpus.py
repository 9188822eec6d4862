"""Text as numbers of its characters: what any Python carries, or a text file, in two parts.

The standard library's English is split by topic (`models.english`), because its topics repeat each other, and
its source code by module; a file is split as nanoGPT does, the last tenth held out. No torch is needed.
"""

from __future__ import annotations

import hashlib
import math
import sys
import sysconfig
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.english import pydoc_english

HELD_OUT = 0.1
"""Share of the characters."""
# fmt: off
MODULES = (
    "argparse", "ast", "asyncio.base_events", "asyncio.events", "asyncio.streams", "asyncio.tasks",
    "base64", "bdb", "bisect", "calendar", "cmd", "codecs", "collections", "configparser", "contextlib",
    "copy", "csv", "ctypes", "dataclasses", "datetime", "_pydecimal", "difflib", "dis", "doctest",
    "email.message", "email.generator", "enum", "filecmp", "fileinput", "fnmatch", "fractions", "ftplib",
    "functools", "getopt", "gettext", "glob", "graphlib", "gzip", "hashlib", "heapq", "html.parser",
    "http.client", "http.cookiejar", "http.cookies", "http.server", "imaplib", "inspect", "ipaddress",
    "json.decoder", "json.encoder", "locale", "logging", "logging.config", "logging.handlers", "mailbox",
    "mimetypes", "netrc", "numbers", "optparse", "os", "pathlib", "pdb", "platform", "plistlib", "poplib",
    "pprint", "profile", "pydoc", "queue", "random", "reprlib", "sched", "selectors", "shelve", "shlex",
    "shutil", "smtplib", "socket", "socketserver", "ssl", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "timeit", "tokenize", "trace", "traceback", "tracemalloc",
    "turtle", "types", "typing", "unittest.case", "unittest.loader", "unittest.mock", "urllib.parse",
    "urllib.request", "urllib.robotparser", "uuid", "warnings", "wave", "weakref", "webbrowser",
    "xml.dom.minidom", "xml.etree.ElementTree", "xmlrpc.client", "xmlrpc.server", "zipfile", "zoneinfo",
)
# fmt: on
"""Modules of the source `stdlib`, in the order they are taken in; about 4 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NanoCorpus:
    """Two streams of token ids and what the ids stand for."""

    source: str
    """Where it is from, for people."""
    symbols: tuple[str, ...]
    """Text of each id."""
    train: NDArray[np.int64]
    """(tokens,) ids."""
    heldout: NDArray[np.int64]
    """(tokens,) ids."""
    sha256: str
    """Of both parts' text; with other tokens than characters, of the tokenizer too."""
    characters_per_token: float = 1.0
    """Of the held-out part."""

    def bits_per_character(self, nats_per_token: float) -> float:
        """A held-out loss in a unit that does not hang on the tokens: nats / (characters a token x ln 2).

        >>> corpus = character_corpus("abba", "cab", source="letters")
        >>> round(corpus.bits_per_character(math.log(3)), 4)
        1.585
        """
        return nats_per_token / (self.characters_per_token * math.log(2))

    @property
    def vocab_size(self) -> int:
        """Symbols of both parts together."""
        return len(self.symbols)

    def refuse_short(self, block_size: int) -> None:
        """Check that both parts hold a window and what follows it.

        Raises
        ------
        ValueError
            For a part of fewer than block_size + 1 tokens.
        """
        most = min(len(self.train), len(self.heldout)) - 1
        shorter = f", or a block of at most {most}" if most >= 2 else ""
        for name, part in (("training", self.train), ("held-out", self.heldout)):
            if len(part) <= block_size:
                raise ValueError(
                    f"the {name} part of {self.source} has {len(part):,} tokens; a block of {block_size} "
                    f"needs {block_size + 1} or more: use a longer text{shorter}"
                )


def character_corpus(train: str, heldout: str, *, source: str) -> NanoCorpus:
    """Characters of two texts, numbered in the order of their code points.

    >>> corpus = character_corpus("abba", "cab", source="letters")
    >>> corpus.symbols, corpus.train.tolist(), corpus.heldout.tolist()
    (('a', 'b', 'c'), [0, 1, 1, 0], [2, 0, 1])

    Raises
    ------
    ValueError
        When a part is empty.
    """
    if not train or not heldout:
        raise ValueError(
            f"{source} gives {len(train)} characters to train on and {len(heldout)} held out; both need at "
            "least 1: use a longer text"
        )
    symbols = tuple(sorted(set(train) | set(heldout)))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    return NanoCorpus(
        source=source,
        symbols=symbols,
        train=np.array([number[c] for c in train], dtype=np.int64),
        heldout=np.array([number[c] for c in heldout], dtype=np.int64),
        sha256=hashlib.sha256(f"{train}\f{heldout}".encode()).hexdigest(),
    )


def embedded_corpus() -> NanoCorpus:
    """English of the running Python's `pydoc_data.topics`; whole topics are held out.

    Raises
    ------
    ValueError
        When this Python has no topics.
    """
    return character_corpus(*english_parts(sys.maxsize), source="pydoc_data.topics")


def english_parts(most: int) -> tuple[str, str]:
    """English of `pydoc_data.topics` to train on and held out; beginnings of both beyond `most` characters.

    Raises
    ------
    ValueError
        When this Python has no topics.
    """
    text = pydoc_english(heldout_share=HELD_OUT)
    train, heldout = "\n".join(text.train), "\n".join(text.heldout)
    if len(train) + len(heldout) <= most:
        return train, heldout
    held = int(most * HELD_OUT)
    return train[: most - held], heldout[:held]


def library_parts(most: int) -> tuple[str, str]:
    """Source code of `MODULES` to train on and held out, by whole modules.

    They are taken in their order while they fit into `most` characters; those held out come in the order of
    their names' hashes, while they fit into a tenth.

    Raises
    ------
    ValueError
        When no module is there to be held out.
    """
    texts: dict[str, str] = {}
    for name in MODULES:
        text = _module_text(name)
        if text and sum(map(len, texts.values())) + len(text) <= most:
            texts[name] = text
    budget = HELD_OUT * sum(map(len, texts.values()))
    held: set[str] = set()
    for name in sorted(texts, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if len(texts[name]) <= budget:
            budget -= len(texts[name])
            held.add(name)
    if not held:
        raise ValueError(
            f"{len(texts)} library modules fit into {most:,} characters and none of them into the tenth "
            "held out: raise most_characters, or use a Python with its library's source (python.org's has it)"
        )
    train, heldout = ([texts[name] for name in texts if (name in held) == part] for part in (False, True))
    return "\n".join(train), "\n".join(heldout)


def _module_text(name: str) -> str:
    """Source of a module of the library, which is found and not imported; '' where there is none."""
    where, found = [sysconfig.get_path("stdlib")], ""
    for part in name.split(".")[:-1]:
        found = f"{found}.{part}".lstrip(".")
        spec = PathFinder.find_spec(found, where)
        if spec is None or spec.submodule_search_locations is None:
            return ""
        where = list(spec.submodule_search_locations)
    spec = PathFinder.find_spec(name, where)
    read = getattr(spec.loader, "get_source", None) if spec is not None else None
    return (read(name) or "") if read is not None else ""


def file_corpus(path: Path) -> NanoCorpus:
    """A UTF-8 text file, its last tenth held out.

    Raises
    ------
    ValueError
        When the file is absent, not UTF-8 or too short to be split.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"there is no text file {path}; give the path of one") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; convert it to UTF-8") from error
    return character_corpus(*split_text(text), source=path.name)


def split_text(text: str) -> tuple[str, str]:
    """A text cut as nanoGPT cuts: what is trained on, and the last tenth, held out.

    >>> split_text("0123456789" * 2)
    ('012345678901234567', '89')
    """
    cut = int(len(text) * (1 - HELD_OUT))
    return text[:cut], text[cut:]
