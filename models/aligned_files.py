"""Aligned sentences from files of one's own: one file a language, or one file with a column of languages.

A folder holds `sw.txt` (one sentence a line, its number the id, or the line of `ids.txt`), `sw.jsonl`
(objects with "id", "text" and, if wanted, "document") or `sw.parquet` (such columns); formats may be mixed.
Instead of a folder, one `.jsonl` or `.parquet` file with "id", "language" and "text" will do. Sentence n of
every language must carry the same id; the first that does not is named by file and line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.corpus import AlignedCorpus, Source, check_code

IDS = "ids.txt"
"""Optional file beside `.txt` files: the id of each line."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One text as it stands in a file."""

    where: str
    """File and line, for messages."""
    id: str
    text: str
    document: str
    """The id where the file names no document."""


def read_aligned(place: str | Path, *, name: str | None = None) -> AlignedCorpus:
    """Corpus of a folder of files, one a language, or of one file for all.

    Parameters
    ----------
    place
        The folder or the file.
    name
        Of the corpus; the folder's or file's own when None.

    Raises
    ------
    ValueError
        With file and line: when the place is missing or holds no such file, a file is not UTF-8 text, JSON
        lines or Parquet, a line lacks an id or a text, or the ids of two languages differ; also as
        `AlignedCorpus`.
    """
    path = Path(place)
    if path.is_dir():
        sides, files = _folder(path)
    elif path.is_file():
        sides, files = _one_file(path), [path]
    else:
        raise ValueError(
            f"{path} is neither a folder nor a file; name a folder of <code>.txt, .jsonl or .parquet"
        )
    return align_sides(
        name or path.stem,
        sides,
        tuple(
            Source(dataset=path.stem, revision="local", file=one.name, sha256=file_sha256(one))
            for one in files
        ),
    )


def read_side(folder: Path, code: str) -> list[Sentence]:
    """The texts of one language of a folder, which need not be aligned with any other.

    Raises
    ------
    ValueError
        When the folder has no file or more than one of the language, or as `read_aligned`.
    """
    found = [one for suffix in _READERS if (one := folder / f"{code}{suffix}").is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder} has {len(found)} files of {code!r}; keep one there, {code} with "
            f"{', '.join(_READERS)} as its ending"
        )
    side = list(_READERS[found[0].suffix](found[0]))
    _check_side(side)
    return side


def align_sides(
    name: str, sides: Mapping[str, Sequence[Sentence]], sources: tuple[Source, ...]
) -> AlignedCorpus:
    """Corpus of one list of sentences a language, refused at the first place where ids or documents differ.

    Raises
    ------
    ValueError
        With the place of the sentence.
    """
    first, *others = sides
    for side in sides.values():
        _check_side(side)
    for code in others:
        _compare(first, sides[first], code, sides[code])
    return AlignedCorpus(
        name=name,
        languages=tuple(sides),
        ids=tuple(one.id for one in sides[first]),
        documents=tuple(one.document for one in sides[first]),
        texts={code: tuple(one.text for one in side) for code, side in sides.items()},
        sources=sources,
    )


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_side(side: Sequence[Sentence]) -> None:
    seen: dict[str, str] = {}
    for one in side:
        if one.id in seen:
            raise ValueError(f"{one.where}: id {one.id!r} was used at {seen[one.id]}; an id may occur once")
        if not one.text.strip():
            raise ValueError(
                f"{one.where}: the text of id {one.id!r} is empty; fill it in or drop the id everywhere"
            )
        seen[one.id] = one.where


def _compare(first: str, ours: Sequence[Sentence], code: str, theirs: Sequence[Sentence]) -> None:
    for one, other in zip(ours, theirs, strict=False):
        if one.id != other.id:
            raise ValueError(
                f"{other.where} has id {other.id!r} where {one.where} has {one.id!r}; "
                "every language needs the same ids in the same order"
            )
        if one.document != other.document:
            raise ValueError(
                f"{other.where} puts id {other.id!r} into document {other.document!r}, {one.where} into "
                f"{one.document!r}; an id belongs to one document"
            )
    if len(ours) != len(theirs):
        longer, shorter, extra = (
            (first, code, ours[len(theirs) :])
            if len(ours) > len(theirs)
            else (code, first, theirs[len(ours) :])
        )
        raise ValueError(
            f"{first!r} has {len(ours)} sentences and {code!r} has {len(theirs)}: {extra[0].where} (id "
            f"{extra[0].id!r}) stands in {longer!r} and not in {shorter!r}; drop it or add the other side"
        )


def _folder(folder: Path) -> tuple[dict[str, list[Sentence]], list[Path]]:
    files = sorted(one for one in folder.iterdir() if one.suffix in _READERS and not one.name.startswith("."))
    ids = [one for one in files if one.name == IDS]
    texts = [one for one in files if one.name != IDS]
    if not texts:
        raise ValueError(
            f"{folder} holds no {', '.join(_READERS)} file; put <code>.txt, .jsonl or .parquet there"
        )
    sides: dict[str, list[Sentence]] = {}
    for path in texts:
        try:
            check_code(path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: a file is named after its language; {error}") from error
        if path.stem in sides:
            raise ValueError(f"{path}: {path.stem!r} has another file in {folder}; keep one file a language")
        sides[path.stem] = list(_READERS[path.suffix](path))
    return sides, ids + texts


def _one_file(path: Path) -> dict[str, list[Sentence]]:
    if path.suffix not in (".jsonl", ".parquet"):
        raise ValueError(
            f"{path} is one file for all languages and must be .jsonl or .parquet, not {path.suffix!r}"
        )
    rows = _json_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path)
    sides: dict[str, list[Sentence]] = {}
    for where, row in rows:
        code = _field(where, row, "language")
        sides.setdefault(code, []).append(_sentence(where, row))
    if not sides:
        raise ValueError(f"{path} has no rows; it needs at least 1")
    return sides


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line; only line feeds end one, as U+2028 and others occur inside sentences."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        yield f"{path}, line {number}", line.removesuffix("\r")


def _plain(path: Path) -> Iterator[Sentence]:
    ids_file = path.with_name(IDS)
    lines = list(_lines(path))
    ids = [line.strip() for _, line in _lines(ids_file)] if ids_file.exists() else None
    if ids is not None and len(ids) != len(lines):
        raise ValueError(
            f"{path} has {len(lines)} lines and {ids_file} {len(ids)}; they differ from line "
            f"{min(len(ids), len(lines)) + 1} on: give one id a line"
        )
    for number, (where, line) in enumerate(lines):
        name = ids[number] if ids is not None else str(number + 1)
        if not name:
            raise ValueError(f"{ids_file}, line {number + 1} is empty; give one id a line")
        yield Sentence(where=where, id=name, text=line, document=name)


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}; write one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {type(row).__name__}; write one object a line")
        yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", row


def _sentence(where: str, row: Mapping[str, Any]) -> Sentence:
    name = _field(where, row, "id")
    document = _field(where, row, "document") if row.get("document") is not None else name
    return Sentence(where=where, id=name, text=_field(where, row, "text"), document=document)


def _field(where: str, row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if field == "text" and value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: 'text' is {type(value).__name__}; it must be a string")
    if value is None or (isinstance(value, str) and not value and field != "text"):
        found = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where} has no {field!r}; its fields are {found}")
    return str(value)


def _json_side(path: Path) -> Iterator[Sentence]:
    return (_sentence(where, row) for where, row in _json_rows(path))


def _parquet_side(path: Path) -> Iterator[Sentence]:
    return (_sentence(where, row) for where, row in _parquet_rows(path))


_READERS: dict[str, Callable[[Path], Iterator[Sentence]]] = {
    ".txt": _plain,
    ".jsonl": _json_side,
    ".parquet": _parquet_side,
}
