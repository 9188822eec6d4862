"""Texts that splits share, exactly or nearly, texts with two labels, and a manifest of files.

Near is a Jaccard index of word sets of .8 or more. All such pairs are found, not a sample: of two sets that
near, the rarest |x| - ceil(.8 |x|) + 1 words of each have one in common (prefix filter), so only texts that
meet in an index of those words are compared. Text of all different rare words costs time in proportion to its
length; the worst case, one sentence in thousands of versions, is still quadratic in their number.

Bayardo, Ma, Srikant (2007), "Scaling up all pairs similarity search", doi:10.1145/1242572.1242591.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from models.aligned_files import file_sha256
from models.sense_items import Bundle, CoherenceItem, RetrievalItem, TextItem

NEAR = 0.8
"""Jaccard index of word sets from which two texts count as shared."""


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """A text and where it stands."""

    where: str
    """File and line, or the item's id, for messages."""
    lemma: str
    """Of the item; a negative of another lemma has this one too."""
    surface: str
    sense_id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SharedText:
    """Two texts that are the same, or nearly."""

    first: PlacedText
    second: PlacedText
    jaccard: float
    """Of their word sets; 1 also where only order, case or punctuation differ."""

    @property
    def said(self) -> str:
        """Both places and the beginning of both texts."""
        how = "the same text" if self.first.text == self.second.text else f"Jaccard {self.jaccard:.2f}"
        return (
            f"{self.first.where}: {self.first.text[:60]!r} and {self.second.where}: "
            f"{self.second.text[:60]!r} ({how})"
        )


def placed(
    items: Sequence[Bundle] | Sequence[RetrievalItem] | Sequence[CoherenceItem],
    places: Mapping[str, str] | None = None,
) -> Iterator[PlacedText]:
    """Every text of items; `places` is id -> file and line, the id itself where None."""
    for one in items:
        where = places[one.id] if places is not None else one.id
        yield from (_placed(text, one.lemma, where) for text in one.texts())


def _placed(item: TextItem, lemma: str, where: str) -> PlacedText:
    return PlacedText(where=where, lemma=lemma, surface=item.surface, sense_id=item.sense_id, text=item.text)


def words(text: str) -> frozenset[str]:
    """The set of words, in lower case; a text of no word is its own only word.

    >>> sorted(words("The bank, the BANK of 2"))
    ['2', 'bank', 'of', 'the']
    """
    return frozenset(re.findall(r"\w+", text.lower())) or frozenset({text.strip()})


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over that of the union; 0 for two empty sets.

    >>> jaccard(frozenset("abc"), frozenset("bcd"))
    0.5
    """
    union = len(one | other)
    return len(one & other) / union if union else 0.0


def shared_texts(
    splits: Mapping[str, Sequence[PlacedText]], *, threshold: float = NEAR
) -> tuple[SharedText, ...]:
    """Pairs of texts of different splits with a Jaccard index of at least `threshold`, exact ones first.

    Texts of one split with the same word set are looked at once, at their first place.

    Raises
    ------
    ValueError
        For a threshold outside (0, 1].

    Examples
    --------
    >>> def one(text):
    ...     return [PlacedText(where="1", lemma="bank", surface="bank", sense_id="bank.1", text=text)]
    >>> train, test = one("A bank by the old river"), one("by the old grey river a bank")
    >>> [round(pair.jaccard, 3) for pair in shared_texts({"train": train, "test": test})]
    [0.857]
    """
    rows = [
        (split, text) for split, texts in splits.items() for text in _once(texts, by_sense=False).values()
    ]
    return _near(rows, threshold)


def label_conflicts(texts: Sequence[PlacedText], *, threshold: float = NEAR) -> tuple[SharedText, ...]:
    """Pairs of texts of one surface, case apart, that are the same, or nearly, and have different senses.

    Raises
    ------
    ValueError
        For a threshold outside (0, 1].
    """
    found = _near([(text.sense_id, text) for text in _once(texts, by_sense=True).values()], threshold)
    return tuple(pair for pair in found if pair.first.surface.lower() == pair.second.surface.lower())


def refuse_shared(splits: Mapping[str, Sequence[PlacedText]], *, threshold: float = NEAR) -> None:
    """Nothing, if no split shares a text or a lemma with another.

    Raises
    ------
    ValueError
        With both places of the first pair, and how many there are.
    """
    lemmas: dict[str, tuple[str, PlacedText]] = {}
    for split, texts in splits.items():
        for text in texts:
            before = lemmas.setdefault(text.lemma.strip().casefold(), (split, text))
            if before[0] != split:
                raise ValueError(
                    f"{text.where}: lemma {text.lemma!r} of split {split!r} is in split {before[0]!r} "
                    f"too, at {before[1].where}; splits are by lemma"
                )
    refuse_shared_texts(splits, threshold=threshold)


def refuse_shared_texts(splits: Mapping[str, Sequence[PlacedText]], *, threshold: float = NEAR) -> None:
    """Nothing, if no split shares a text with another.

    Raises
    ------
    ValueError
        With both places of the first pair, and how many there are.
    """
    found = shared_texts(splits, threshold=threshold)
    if found:
        raise ValueError(
            f"{len(found)} pairs of texts are shared across splits, the first {found[0].said}; a text may be "
            "in one split only"
        )


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file as it was read."""

    path: str
    sha256: str
    size_bytes: int


def manifest(paths: Sequence[Path], *, root: Path | None = None) -> tuple[FileEntry, ...]:
    """Path, relative to `root` if given, SHA-256 and size of each file, sorted by path.

    Raises
    ------
    ValueError
        When a file is missing.
    """
    found = []
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} is no file; a manifest lists files that are there")
        name = path.relative_to(root) if root else path
        size = path.stat().st_size
        found.append(FileEntry(path=name.as_posix(), sha256=file_sha256(path), size_bytes=size))
    return tuple(sorted(found, key=lambda entry: entry.path))


def manifest_text(entries: Sequence[FileEntry]) -> str:
    """The manifest as JSON, equal for equal files.

    >>> print(manifest_text([FileEntry(path="a.jsonl", sha256="00", size_bytes=1)]), end="")
    [
      {"path": "a.jsonl", "sha256": "00", "size_bytes": 1}
    ]
    """
    lines = ",\n".join(f"  {json.dumps(asdict(entry))}" for entry in entries)
    return f"[\n{lines}\n]\n"


def _once(texts: Sequence[PlacedText], *, by_sense: bool) -> dict[object, PlacedText]:
    """The first text of each word set, or of each sense, surface and word set."""
    found: dict[object, PlacedText] = {}
    for text in texts:
        key = words(text.text)
        found.setdefault((text.sense_id, text.surface.lower(), key) if by_sense else key, text)
    return found


def _near(rows: Sequence[tuple[str, PlacedText]], threshold: float) -> tuple[SharedText, ...]:
    """Pairs of rows of different groups at or above the threshold."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}; it must be above 0 and at most 1")
    share = Fraction(str(threshold))
    sets = [words(text.text) for _, text in rows]
    counts = Counter(itertools.chain.from_iterable(sets))
    index: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    found: list[tuple[int, int, float]] = []
    for place in sorted(range(len(rows)), key=lambda i: len(sets[i])):
        mine, group = sets[place], rows[place][0]
        least = -(-share.numerator * len(mine) // share.denominator)
        prefix = sorted(mine, key=lambda word: (counts[word], word))[: len(mine) - least + 1]
        met = {
            other
            for word in prefix
            for name, posting in index[word].items()
            if name != group
            for other in posting
            if len(sets[other]) >= least
        }
        for other in met:
            both = len(mine & sets[other])
            union = len(mine) + len(sets[other]) - both
            if both * share.denominator >= share.numerator * union:
                found.append((*sorted((other, place)), both / union))  # type: ignore[arg-type]
        for word in prefix:
            index[word][group].append(place)
    found.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
    return tuple(
        SharedText(first=rows[one][1], second=rows[other][1], jaccard=near) for one, other, near in found
    )
