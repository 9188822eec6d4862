"""Strict JSON from a stranger's file: every refusal names the file and the place inside it.

`json` alone takes too much (repeated keys, NaN, any depth, any size) and says too little about where. So the
file is read whole under a size limit, parsed, walked once for what JSON does not forbid, and handed out as
`Node`s: a value with its path, such as `streams[0].single_turn["Tell a story"].PRNG.samples[3].output`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lab.errors import UsageError, unknown

MOST_BYTES = 64 * 2**20
"""Largest file that is read; 4,500 texts of 150 words are about 6 MiB."""
LONGEST_NAME = 200
DEEPEST = 40
"""Most objects and lists inside each other; the formats use 9."""
LONGEST_KEY_SHOWN = 60

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\],]|[^\s{}\[\],:"]+', re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A value of a file and where it stands; each reader refuses what is not of its kind."""

    value: Any
    file: str
    path: str
    """Empty at the top."""

    def refuse(self, why: str) -> NoReturn:
        """Raise the error for this place."""
        raise UsageError(f"{self.file}: {self.path or 'the file'}: {why}; nothing was imported")

    def child(self, key: str | int) -> Node:
        """A member that is known to be there."""
        return Node(value=self.value[key], file=self.file, path=joined(self.path, key))

    def members(self) -> dict[str, Node]:
        """The members of an object."""
        if not isinstance(self.value, dict):
            self.refuse(f"found {kind(self.value)}; an object is needed")
        return {key: self.child(key) for key in self.value}

    def member(self, key: str) -> Node:
        """A member that must be there."""
        if not isinstance(self.value, dict):
            self.refuse(f"found {kind(self.value)}; an object with {key!r} is needed")
        if key not in self.value:
            self.refuse(f"{key!r} is missing; found {', '.join(self.value) or 'no member'}"[:300])
        return self.child(key)

    def optional(self, key: str) -> Node | None:
        """A member, or None when there is none or it is null."""
        return self.child(key) if self.members_include(key) and self.value[key] is not None else None

    def members_include(self, key: str) -> bool:
        """Whether this is an object with that member."""
        return isinstance(self.value, dict) and key in self.value

    def items(self) -> list[Node]:
        """The items of a list."""
        if not isinstance(self.value, list):
            self.refuse(f"found {kind(self.value)}; a list is needed")
        return [self.child(index) for index in range(len(self.value))]

    def text(self) -> str:
        """A string that UTF-8 can hold."""
        if not isinstance(self.value, str):
            self.refuse(f"found {kind(self.value)}; text is needed")
        if not is_encodable(self.value):
            self.refuse("half of a surrogate pair, which is no character; write the whole character")
        return self.value

    def said(self) -> str:
        """Text that is not blank."""
        found = self.text()
        if not found.strip():
            self.refuse("blank text; some words are needed")
        return found

    def name(self) -> str:
        """Text that is not blank and fits on a line."""
        found = self.said()
        if len(found) > LONGEST_NAME or not found.isprintable():
            self.refuse(f"found {found[:30]!r}; a name has one line of at most {LONGEST_NAME} characters")
        return found

    def integer(self, low: int, high: int) -> int:
        """A whole number between two bounds, both allowed."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.refuse(f"found {kind(self.value)}; a whole number is needed")
        if not low <= self.value <= high:
            self.refuse(f"found {str(self.value)[:40]}; allowed: {low} to {high}")
        return self.value

    def number(self, most: float) -> float | None:
        """A number no further from 0 than `most`; None for null and for NaN."""
        if self.value is None:
            return None
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            self.refuse(f"found {kind(self.value)}; a number is needed")
        if abs(self.value) > most:
            self.refuse(f"found {str(self.value)[:40]}; allowed: {-most:g} to {most:g}")
        return None if math.isnan(self.value) else float(self.value)

    def choice(self, what: str, allowed: Sequence[str]) -> str:
        """One of the allowed texts."""
        found = self.text()
        if found not in allowed:
            self.refuse(str(unknown(what, found[:80], allowed)))
        return found


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text.

    >>> is_encodable("naïve"), is_encodable(chr(0xD800))
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind(value: object) -> str:
    """What JSON calls a value.

    >>> kind([]), kind(None), kind(True), kind("yes")
    ('a list', 'null', 'true', "the text 'yes'")
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"the number {value!s:.30}"


def joined(path: str, key: str | int) -> str:
    """The path of a member or item.

    >>> joined("", "a"), joined("a", 3), joined("a[3]", "two words")
    ('a', 'a[3]', 'a[3]["two words"]')
    """
    if isinstance(key, int):
        return f"{path}[{key}]"
    if _PLAIN_KEY.match(key):
        return f"{path}.{key}" if path else key
    shown = key if len(key) <= LONGEST_KEY_SHOWN else f"{key[: LONGEST_KEY_SHOWN - 1]}…"
    return f"{path}[{json.dumps(shown, ensure_ascii=not is_encodable(shown))}]"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file's content as strict JSON, not yet of any format."""

    root: Node
    sha256: str
    is_lines: bool
    """One value a line; `root` is then their list."""


def read_document(path: Path) -> Document:
    """Read a file whole.

    Raises
    ------
    UsageError
        Unreadable, too large, not UTF-8, not JSON, nested too deeply; the message names the place.
    """
    raw = _bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{raw[error.start]:02x}, which is not UTF-8; save the file as UTF-8"
        _refuse_syntax(path, raw[: error.start].decode("utf-8-sig", "replace"), found, None)
    value, is_lines = _parse(path, text)
    return Document(
        root=Node(value=value, file=str(path), path=""),
        sha256=hashlib.sha256(raw).hexdigest(),
        is_lines=is_lines,
    )


def _bytes(path: Path) -> bytes:
    if not is_encodable(str(path)):
        raise UsageError(f"{str(path)!a}: a name that is not UTF-8; rename the file; nothing was imported")
    try:
        if not path.exists():
            raise UsageError(f"{path}: no such file; nothing was imported")
        if not path.is_file():
            raise UsageError(f"{path}: not a file but a folder or device; nothing was imported")
        size = path.stat().st_size
        if size > MOST_BYTES:
            why = f"{size / 2**20:.0f} MiB; at most {MOST_BYTES // 2**20} MiB are read"
            raise UsageError(f"{path}: {why}; split it by model or stream; nothing was imported")
        with path.open("rb") as file:
            raw = file.read(size + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); nothing was imported") from error
    if len(raw) > size:
        raise UsageError(f"{path}: grows while it is read; import it when it is whole; nothing was imported")
    if not raw.strip():
        raise UsageError(f"{path}: the file is empty; nothing was imported")
    return raw


def _parse(path: Path, text: str) -> tuple[Any, bool]:
    """The value of the file, or the list of its lines' values."""
    try:
        return _loads(text), False
    except json.JSONDecodeError as error:
        first = text.partition("\n")[0]
        if error.msg != "Extra data" or not _is_object(first):
            _refuse_syntax(path, text, error.msg, error.pos)
    except RecursionError:
        _refuse_syntax(path, text, f"nested more than {DEEPEST} deep", None)
    except ValueError as error:  # an integer of more digits than Python converts
        found = re.search(r"\d{1000,}", text)
        _refuse_syntax(path, text, str(error).split(";")[0], found.start() if found else 0)
    return list(_lines(path, text)), True


def _is_object(line: str) -> bool:
    try:
        return isinstance(_loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(path: Path, text: str) -> Iterator[Any]:
    offset = 0
    for line in text.split("\n"):  # not splitlines: a text may hold other line separators
        if line.strip():
            try:
                yield _loads(line)
            except json.JSONDecodeError as error:
                _refuse_syntax(path, text, error.msg, offset + error.pos)
            except (RecursionError, ValueError):
                _refuse_syntax(path, text, "nested too deeply, or a number too long", offset)
        offset += len(line) + 1


class _Repeated(dict[str, Any]):
    """An object in which a key stood twice; the walk refuses it where its path is known."""

    key: str


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeated = _Repeated(found)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeated


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_pairs)


def _refuse_syntax(path: Path, text: str, why: str, position: int | None) -> NoReturn:
    """Refuse a file that is not JSON, or not to be walked, at a character."""
    where, at = _path_at(text, len(text) if position is None else position)
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    place = f"{where or 'the top'} (line {line}, column {column})"
    raise UsageError(f"{path}: {place}: {why}; nothing was imported")


def _path_at(text: str, position: int) -> tuple[str, int]:
    """The path of a character and the character, which moves up to where nesting goes too deep.

    >>> _path_at('{"a": [1, {"b": ', 16)
    ('a[1].b', 16)
    """
    places: list[str | int | None] = []
    for token in _TOKEN.finditer(text, 0, position):
        found = token.group()
        if found in "{[":
            places.append(0 if found == "[" else None)
            if len(places) > DEEPEST:
                position = token.start()
                break
        elif found in "}]" and places:
            places.pop()
        elif found == "," and places:
            top = places[-1]
            places[-1] = top + 1 if isinstance(top, int) else None
        elif found.startswith('"') and places and places[-1] is None:
            places[-1] = found.strip('"')
    path = ""
    for place in places:
        path = path if place is None else joined(path, place)
    return path, position


def check_tree(root: Node) -> None:
    """Refuse what a JSON parser lets pass: repeated keys, infinities, too many levels.

    Literal NaN may stand: Python's json wrote it for a missing number.
    """
    stack: list[tuple[Node, int]] = [(root, 1)] if isinstance(root.value, dict | list) else []
    while stack:
        node, depth = stack.pop()
        if depth > DEEPEST:
            node.refuse(f"nested more than {DEEPEST} deep")
        if isinstance(node.value, _Repeated):
            node.child(node.value.key).refuse("this key stands twice in its object")
        entries = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
        for key, value in entries:
            if isinstance(value, dict | list):
                stack.append((node.child(key), depth + 1))
            elif isinstance(value, float) and math.isinf(value):
                node.child(key).refuse(f"found {value}; a number or null is needed")
