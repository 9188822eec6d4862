"""Corpora from the Hugging Face hub: FLORES-200, FLORES+, UDHR, OPUS-100, and C4.

Only Parquet is read: no dataset script runs. A revision is resolved to its commit, the files are fetched by
name and hashed, and `datasets` reads them from disk; dataset, commit, file and SHA-256 stay with the corpus.
`root` takes a folder with the same layout instead, for machines without a network.

FLORES and FLORES+ are parallel in all languages. UDHR is aligned by the numbers of its 30 articles. OPUS-100
is aligned within a pair only, English with one other language, and each pair has other sentences: it gives
two languages, too few to compare tiers. C4 is not aligned. The quantisation study evaluates on the first
three; the last two give it texts to calibrate on.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

from models.aligned_files import Sentence, align_sides, file_sha256
from models.corpus import AlignedCorpus, Source, check_code

ARTICLES = 30
"""Of the Universal Declaration of Human Rights."""
LONGEST_HEADING = 40
"""Characters of a line that can be the heading of an article."""

LONG_CODES = {
    "ar": "arb_Arab",
    "cy": "cym_Latn",
    "de": "deu_Latn",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "fr": "fra_Latn",
    "ha": "hau_Latn",
    "hi": "hin_Deva",
    "ig": "ibo_Latn",
    "kk": "kaz_Cyrl",
    "ne": "npi_Deva",
    "ru": "rus_Cyrl",
    "sw": "swh_Latn",
    "ur": "urd_Arab",
    "yo": "yor_Latn",
}
"""ISO 639-3 with script, as FLORES spells languages; any such code may be given itself."""


@dataclass(frozen=True, kw_only=True)
class HubCorpus:
    """Where a corpus lies and how its files are named."""

    dataset: str
    """Id on the hub."""
    revision: str
    """Branch, tag or commit taken when none is asked for."""
    splits: tuple[str, ...]
    split: str
    """The one taken when none is asked for."""
    pattern: Callable[[str, str], str]
    """Language and split -> pattern of its Parquet files."""
    text: str = ""
    """Column of the text."""
    document: str = ""
    """Column of the document."""


FLORES = HubCorpus(
    dataset="facebook/flores",
    revision="main",
    splits=("dev", "devtest"),
    split="devtest",
    pattern=lambda code, split: f"{code}/{split}-*.parquet",
    text="sentence",
    document="URL",
)
FLORES_PLUS = HubCorpus(
    dataset="openlanguagedata/flores_plus",
    revision="main",
    splits=("dev", "devtest"),
    split="devtest",
    pattern=lambda code, split: f"{split}/{code}.parquet",
    text="text",
    document="url",
)
UDHR = HubCorpus(
    dataset="community-datasets/udhr",
    revision="refs/convert/parquet",
    splits=("train",),
    split="train",
    pattern=lambda _, split: f"*{split}*.parquet",
)
OPUS_100 = HubCorpus(
    dataset="Helsinki-NLP/opus-100",
    revision="main",
    splits=("train", "validation", "test"),
    split="test",
    pattern=lambda pair, split: f"{pair}/{split}-*.parquet",
)
C4 = HubCorpus(
    dataset="allenai/c4",
    revision="refs/convert/parquet",
    splits=("train", "validation"),
    split="train",
    pattern=lambda code, split: f"{code}/*{split}/*.parquet",
    text="text",
)
PARALLEL = {"flores": FLORES, "flores+": FLORES_PLUS, "udhr": UDHR}
"""The same sentences in every language."""
CORPORA = {**PARALLEL, "opus-100": OPUS_100}
"""What `load_hub` takes."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Running text of one language, aligned with nothing."""

    language: str
    texts: tuple[str, ...]
    sources: tuple[Source, ...]


def load_hub(
    name: str,
    languages: Sequence[str],
    split: str,
    *,
    revision: str | None = None,
    root: str | Path | None = None,
    limit: int | None = None,
) -> AlignedCorpus:
    """Aligned sentences of a corpus on the hub.

    Parameters
    ----------
    name
        One of `CORPORA`.
    languages
        Codes, such as "sw" or "swh_Latn"; two of them for opus-100.
    split
        One of the corpus' own.
    revision
        Commit, branch or tag; the corpus' default when None. What it stood for is in `sources`.
    root
        A folder with the files of the dataset, read instead of the hub.
    limit
        Largest number of sentences; all when None.

    Raises
    ------
    ValueError
        When name, split or a language is unknown, `datasets` is not installed, the dataset, revision or files
        are not there, a column is missing, or the sides are not aligned.
    """
    if name == "c4":
        raise ValueError("c4 is not aligned; take its text for calibration, by calibration_texts")
    if name not in CORPORA:
        raise ValueError(f"no corpus {name!r} is known; known: {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    _check_request(name, corpus, languages, split, limit)
    files = Files(corpus=corpus, revision=revision, root=Path(root) if root is not None else None)
    readers = {"udhr": _udhr_sides, "opus-100": _opus_sides}
    sides, sources = readers.get(name, _flores_sides)(files, languages, split)
    if limit is not None:
        sides = {code: side[:limit] for code, side in sides.items()}
    return align_sides(name, sides, sources)


def calibration_texts(
    language: str,
    *,
    count: int,
    split: str = "train",
    revision: str | None = None,
    root: str | Path | None = None,
) -> Calibration:
    """The first `count` texts of C4 in a language (mC4's for any but English).

    Raises
    ------
    ValueError
        As `load_hub`, or when there are fewer texts than asked for.
    """
    _check_request("c4", C4, [language], split, count)
    files = Files(corpus=C4, revision=revision, root=Path(root) if root is not None else None)
    texts: list[str] = []
    sources = []
    for path, source in files.find(C4.pattern(language, split)):
        sources.append(source)
        texts += [row["text"] for _, row in islice(_rows(path, source, ("text",)), count - len(texts))]
        if len(texts) == count:
            return Calibration(language=language, texts=tuple(texts), sources=tuple(sources))
    raise ValueError(f"c4 has {len(texts)} texts in {language!r}, split {split!r}; {count} were asked for")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The Parquet files of a dataset, on the hub or in a folder."""

    corpus: HubCorpus
    revision: str | None
    root: Path | None

    def find(self, pattern: str) -> Iterator[tuple[Path, Source]]:
        """Files whose path matches, each fetched when it is asked for.

        Raises
        ------
        ValueError
            When there is none.
        """
        names, commit = self._listing()
        wanted = sorted(name for name in names if fnmatchcase(name, pattern))
        if not wanted:
            raise ValueError(
                f"{self.corpus.dataset} at {commit} has no file {pattern!r}; "
                f"it has {len(names)} Parquet files, such as {', '.join(sorted(names)[:3]) or 'none'}"
            )
        for name in wanted:
            path = self.root / name if self.root else self._download(name, commit)
            yield (
                path,
                Source(dataset=self.corpus.dataset, revision=commit, file=name, sha256=file_sha256(path)),
            )

    def _listing(self) -> tuple[list[str], str]:
        """Names of all Parquet files, and the commit they are of."""
        if self.root is not None:
            return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*.parquet")], "local"
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        asked = self.revision or self.corpus.revision
        try:
            info = HfApi().dataset_info(self.corpus.dataset, revision=asked)
        except GatedRepoError as error:
            raise ValueError(
                f"{self.corpus.dataset} asks for consent to its conditions; give it on the hub and log in "
                "with `hf auth login`"
            ) from error
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise ValueError(f"the hub has no dataset {self.corpus.dataset} at revision {asked!r}") from error
        names = [file.rfilename for file in info.siblings or () if file.rfilename.endswith(".parquet")]
        return names, str(info.sha)

    def _download(self, name: str, commit: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.corpus.dataset, name, repo_type="dataset", revision=commit))


Sides = dict[str, list[Sentence]]


def _flores_sides(files: Files, languages: Sequence[str], split: str) -> tuple[Sides, tuple[Source, ...]]:
    corpus = files.corpus
    sides: Sides = {}
    sources = []
    for code in languages:
        sides[code] = []
        for path, source in files.find(corpus.pattern(_long_code(code), split)):
            sources.append(source)
            for where, row in _rows(path, source, ("id", corpus.text, corpus.document)):
                sides[code].append(
                    Sentence(
                        where=where,
                        id=str(row["id"]),
                        text=row[corpus.text],
                        document=str(row[corpus.document]),
                    )
                )
    return sides, tuple(sources)


def _opus_sides(files: Files, languages: Sequence[str], split: str) -> tuple[Sides, tuple[Source, ...]]:
    if len(languages) != 2:
        raise ValueError(
            "opus-100 is aligned within pairs, each of other sentences; "
            f"name 2 languages, not {len(languages)}"
        )
    pair = "-".join(sorted(languages))
    sides: Sides = {code: [] for code in languages}
    sources = []
    for path, source in files.find(files.corpus.pattern(pair, split)):
        sources.append(source)
        for where, row in _rows(path, source, ("translation",)):
            name = str(len(sides[languages[0]]) + 1)
            for code in languages:
                text = row["translation"][code]
                sides[code].append(Sentence(where=f"{where}, {code}", id=name, text=text, document=name))
    return sides, tuple(sources)


def _udhr_sides(files: Files, languages: Sequence[str], split: str) -> tuple[Sides, tuple[Source, ...]]:
    sides: Sides = {}
    sources = []
    wanted = {code: _long_code(code) for code in languages}
    columns = ("text", "lang_key", "iso639-3", "iso15924")
    for path, source in files.find(files.corpus.pattern("", split)):
        sources.append(source)
        for where, row in _rows(path, source, columns):
            found = f"{row['iso639-3']}_{row['iso15924']}"
            for code in (code for code, long in wanted.items() if long == found):
                if code in sides:
                    continue  # another edition of the same language, as deu_1901 beside deu_1996
                bodies = udhr_articles(row["text"], f"{where} ({row['lang_key']})")
                names = [f"article {number}" for number in range(1, ARTICLES + 1)]
                sides[code] = [
                    Sentence(where=f"{where}, {name}", id=name, text=body, document=name)
                    for name, body in zip(names, bodies, strict=True)
                ]
    for code in languages:
        if code not in sides:
            raise ValueError(
                f"{files.corpus.dataset} has no text in {code!r} ({wanted[code]}); leave it out of the corpus"
            )
    return {code: sides[code] for code in languages}, tuple(sources)


def udhr_articles(text: str, where: str) -> list[str]:
    """Bodies of the 30 articles, in order; a heading is a short line whose only number is the next one.

    Raises
    ------
    ValueError
        With the first article whose heading is not found, as in texts that spell numbers out.

    >>> text = "\\n".join(f"Kifungu {n}.\\nMaandishi ya {n} hapa" for n in range(1, 31))
    >>> udhr_articles(text, "test")[4]
    'Maandishi ya 5 hapa'
    """
    bodies: list[list[str]] = []
    for line in text.split("\n"):
        numbers = re.findall(r"\d+", line)
        heading = len(line) <= LONGEST_HEADING and [int(n) for n in numbers] == [len(bodies) + 1]
        if heading and len(bodies) < ARTICLES:
            bodies.append([])
        elif bodies:
            bodies[-1].append(line.strip())
    if len(bodies) < ARTICLES:
        raise ValueError(
            f"{where}: no heading of article {len(bodies) + 1} is found, a line of at most {LONGEST_HEADING} "
            "characters with that number; leave the language out"
        )
    return [" ".join(body) for body in bodies]


def _rows(path: Path, source: Source, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and row of a Parquet file, read by `datasets` without a copy in its cache."""
    library = _datasets()
    rows = library.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    for number, row in enumerate(rows, start=1):
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise ValueError(
                f"{source.dataset}/{source.file}, row {number} has no {', '.join(missing)}; "
                f"its columns are {', '.join(row)}"
            )
        yield f"{source.dataset}/{source.file}, row {number}", row


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            "corpora from the hub need the optional package `datasets`; install the extra: "
            "pip install 'overnight-ladder[corpora]'"
        ) from error


def _check_request(
    name: str, corpus: HubCorpus, languages: Sequence[str], split: str, limit: int | None
) -> None:
    _datasets()
    if split not in corpus.splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(corpus.splits)}")
    if not languages:
        raise ValueError(f"no language of {name} is named; name at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"{limit} sentences of {name} were asked for; ask for at least 1")
    for code in languages:
        check_code(code)


def _long_code(code: str) -> str:
    if "_" in code:
        return code
    if code not in LONG_CODES:
        raise ValueError(
            f"no ISO 639-3 code with a script is kept for {code!r}; give one such as 'swh_Latn', "
            f"or one of {', '.join(LONG_CODES)}"
        )
    return LONG_CODES[code]
