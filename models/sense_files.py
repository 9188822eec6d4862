"""Bundles, retrieval and coherence sets from files of JSON lines; what is wrong is named by file and line.

A line is one object. The form of this project:

    bundle     id, lemma, anchor, positive, negatives {within_lemma [..], cross_lemma [..]},
               metadata {anchor_sense, difficulty_tier, danger_score, bundle_type}
    retrieval  id, lemma, query, candidates [..]; if given, correct [places from 0] and tier
    coherence  id, lemma, contexts [2 or 3], senses [gold, one a context];
               if given, inventory [{sense_id, gloss, examples [..]}]

where a text is {text, span {start, end, surface}, sense_id, sense_gloss, pos, cue_tokens [..], source,
difficulty_tier, quality {cue_strength, ambiguity_risk}}, the last two null or left out where unknown. Fields
beyond these are passed over. A line with "word" is of the earlier form, see `models.sense_file_forms`.

`read_folder` reads `train.jsonl`, `dev.jsonl` (bundles), `retrieval.jsonl` and `coherence.jsonl`, those that
are there, and refuses lemmas and texts that splits share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from models.sense_file_forms import Row, bundle_of, coherence_of, retrieval_of
from models.sense_items import Bundle, CoherenceItem, RetrievalItem, TextItem
from models.sense_leakage import FileEntry, PlacedText, manifest, placed, refuse_shared

T = TypeVar("T", Bundle, RetrievalItem, CoherenceItem)

BUNDLE_FILES = ("train.jsonl", "dev.jsonl")
RETRIEVAL_FILE, COHERENCE_FILE = "retrieval.jsonl", "coherence.jsonl"


@dataclass(frozen=True, kw_only=True)
class SenseFile(Generic[T]):
    """What a file holds."""

    path: str
    items: tuple[T, ...]
    """In file order."""
    places: Mapping[str, str]
    """Id -> file and line."""
    notes: tuple[str, ...]
    """What was read but not kept, with file and line."""

    def texts(self) -> tuple[PlacedText, ...]:
        """Every text with its file and line."""
        return tuple(placed(self.items, self.places))


@dataclass(frozen=True, kw_only=True)
class SenseFolder:
    """The files of one's own data; None for one that is not there."""

    train: SenseFile[Bundle] | None
    dev: SenseFile[Bundle] | None
    retrieval: SenseFile[RetrievalItem] | None
    coherence: SenseFile[CoherenceItem] | None
    manifest: tuple[FileEntry, ...]


def read_bundles(path: str | Path) -> SenseFile[Bundle]:
    """Bundles of a file; one of the earlier form gives one for each of its positives.

    Raises
    ------
    ValueError
        With file and line: when the file is missing, empty or not UTF-8, a line is not a JSON object or holds
        NaN, a field is missing or of another type, a span holds another surface, senses contradict each
        other, or an id occurs twice.
    """
    return _read(Path(path), bundle_of)


def read_retrieval(path: str | Path) -> SenseFile[RetrievalItem]:
    """Retrieval items of a file; refused as in `read_bundles`."""
    return _read(Path(path), retrieval_of)


def read_coherence(path: str | Path) -> SenseFile[CoherenceItem]:
    """Coherence items of a file; refused as in `read_bundles`."""
    return _read(Path(path), coherence_of)


def read_folder(place: str | Path) -> SenseFolder:
    """The files of a folder; retrieval and coherence items are of one split, test.

    Raises
    ------
    ValueError
        When the folder is missing or holds none of the files, as the readers, and with file and line when a
        lemma or a text, exact or with a Jaccard index of .8 or more, is in two splits.
    """
    root = Path(place)
    names = (*BUNDLE_FILES, RETRIEVAL_FILE, COHERENCE_FILE)
    there = [root / name for name in names if (root / name).is_file()]
    if not there:
        raise ValueError(f"{root} holds none of {', '.join(names)}; name a folder with at least one of them")
    train, dev = (_if_there(root / name, read_bundles) for name in BUNDLE_FILES)
    retrieval = _if_there(root / RETRIEVAL_FILE, read_retrieval)
    coherence = _if_there(root / COHERENCE_FILE, read_coherence)
    asked = [file.texts() for file in (retrieval, coherence) if file is not None]
    splits: dict[str, Sequence[PlacedText]] = {
        name: file.texts() for name, file in (("train", train), ("dev", dev)) if file is not None
    }
    refuse_shared(splits | {"test": [text for texts in asked for text in texts]})
    return SenseFolder(
        train=train,
        dev=dev,
        retrieval=retrieval,
        coherence=coherence,
        manifest=manifest(there, root=root),
    )


def json_line(item: Bundle | RetrievalItem | CoherenceItem) -> str:
    """The item as a line of a file, without the line feed; reading it gives the item back.

    >>> bank = TextItem(text="a bank", span=(2, 6), surface="bank", sense_id="bank.1")
    >>> json.loads(json_line(CoherenceItem(
    ...     id="1", lemma="bank", contexts=(bank, bank), senses=("bank.1", "bank.1")
    ... )))["contexts"][0]["span"]
    {'start': 2, 'end': 6, 'surface': 'bank'}
    """
    if isinstance(item, Bundle):
        row: dict[str, Any] = {
            "id": item.id,
            "lemma": item.lemma,
            "anchor": _row(item.anchor),
            "positive": _row(item.positive),
            "negatives": {
                "within_lemma": _rows(item.within_lemma),
                "cross_lemma": _rows(item.cross_lemma),
            },
            "metadata": {
                "anchor_sense": item.anchor_sense,
                "difficulty_tier": item.difficulty_tier,
                "danger_score": item.danger_score,
                "bundle_type": item.bundle_type,
            },
        }
    elif isinstance(item, RetrievalItem):
        row = {"id": item.id, "lemma": item.lemma, "query": _row(item.query)}
        row |= {"candidates": _rows(item.candidates), "correct": list(item.correct), "tier": item.tier}
    else:
        row = {"id": item.id, "lemma": item.lemma, "contexts": _rows(item.contexts)}
        known = [
            {"sense_id": s.sense_id, "gloss": s.gloss, "examples": _rows(s.examples)} for s in item.inventory
        ]
        row |= {"senses": list(item.senses), "inventory": known}
    return json.dumps(row, ensure_ascii=False)


def write_items(path: Path, items: Sequence[Bundle | RetrievalItem | CoherenceItem]) -> None:
    """A file of `json_line`s."""
    path.write_bytes("".join(f"{json_line(item)}\n" for item in items).encode())


def json_rows(path: Path) -> Iterator[Row]:
    """Each line's object and place; only line feeds end a line, as U+2028 occurs inside texts.

    Raises
    ------
    ValueError
        With file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; name a file of JSON lines") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line} is not UTF-8; save the file as UTF-8") from error
    for number, line_text in enumerate(text.rstrip("\r\n").split("\n") if text.strip() else (), start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line_text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}; write one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {type(row).__name__}; write one object a line")
        yield Row(where=where, fields=row)


def _read(path: Path, parse: Callable[[Row], tuple[Sequence[T], Sequence[str]]]) -> SenseFile[T]:
    items: list[T] = []
    notes: list[str] = []
    places: dict[str, str] = {}
    for row in json_rows(path):
        found, said = parse(row)
        for item in found:
            if item.id in places:
                raise ValueError(
                    f"{row.where}: id {item.id!r} was used at {places[item.id]}; an id may occur once"
                )
            places[item.id] = row.where
        items += found
        notes += said
    if not items:
        raise ValueError(f"{path} has no items; it needs at least 1 line")
    return SenseFile(path=str(path), items=tuple(items), places=places, notes=tuple(notes))


def _if_there(path: Path, read: Callable[[Path], SenseFile[T]]) -> SenseFile[T] | None:
    return read(path) if path.is_file() else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _row(item: TextItem) -> dict[str, Any]:
    row = asdict(item)
    start, end = item.span
    row["span"] = {"start": start, "end": end, "surface": row.pop("surface")}
    return row


def _rows(items: Sequence[TextItem]) -> list[dict[str, Any]]:
    return [_row(item) for item in items]
