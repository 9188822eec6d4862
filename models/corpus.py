"""Aligned sentences: the same ids in several languages, so that a change can be paired sentence by sentence.

What is compared across languages is the bits of a sentence, never the bits of a token, so everything rests on
the sides saying the same thing in the same order. A corpus therefore refuses, when it is made, sides of
unequal length, an empty text, an id that occurs twice, a language without a side and a code that names no
language, each by id and language.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

Tier = Literal["high", "low"]

_CODE = re.compile(r"([a-z]{2,3})(?:[-_]([A-Z][a-z]{3}))?(?:[-_][A-Z]{2})?")

_SCRIPT_NAMES = {
    "Arab": ("ARABIC",),
    "Beng": ("BENGALI",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Grek": ("GREEK",),
    "Hebr": ("HEBREW",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "Hang": ("HANGUL",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Latn": ("LATIN", "MODIFIER"),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Thai": ("THAI",),
}
"""First words of the Unicode names of a script's letters."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language of a study."""

    code: str
    """ISO 639, as CLDR spells it: "sw"."""
    name: str
    """In English."""
    script: str = ""
    """ISO 15924: "Latn"; empty where nobody said."""
    family: str = ""
    """Branch of its language family; empty where nobody said."""
    tier: Tier
    """Whether the model had much or little of it to learn from."""
    share: float | None = None
    """Of the training sentences, 0 to 1; None where nobody said."""

    def __post_init__(self) -> None:
        check_code(self.code)
        if self.script and self.script not in _english("scripts"):
            raise ValueError(f"script {self.script!r} of {self.code!r}; allowed: ISO 15924, such as 'Latn'")
        if self.tier not in ("high", "low"):
            raise ValueError(f"tier {self.tier!r} of {self.code!r}; allowed: 'high' and 'low'")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share} of {self.code!r}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file that a corpus was read from."""

    dataset: str
    """Id on a hub, or the folder's name."""
    revision: str
    """Commit of the dataset; "local" for a folder."""
    file: str
    """Path within the dataset."""
    sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True, kw_only=True)
class AlignedCorpus:
    """The same sentences in each language.

    Raises
    ------
    ValueError
        When no language or no sentence is given, a language is named twice or has no side, a code names no
        language, a side has more or fewer texts than there are ids, a text is empty or an id occurs twice.

    >>> corpus = AlignedCorpus(name="greeting", languages=("en", "de"), ids=("1", "2"), documents=("a", "b"),
    ...                        texts={"en": ("good day", "thanks"), "de": ("guten Tag", "danke")})
    >>> corpus.n_bytes("de"), round(corpus.byte_premium("de", "en"), 3)
    ((9, 5), 1.0)
    >>> corpus.take(1, 2).ids
    ('2',)
    """

    name: str
    languages: tuple[str, ...]
    """Codes, in the order in which they are shown."""
    ids: tuple[str, ...]
    """One a sentence, in order; the same for every language."""
    documents: tuple[str, ...]
    """Document of each id: the cluster whose sentences depend on one another."""
    texts: Mapping[str, tuple[str, ...]]
    """Code -> one text an id."""
    sources: tuple[Source, ...] = ()
    """Files it was read from; empty when it was made."""

    def __post_init__(self) -> None:
        if not self.languages or not self.ids:
            raise ValueError(
                f"corpus {self.name!r} has {len(self.languages)} languages and {len(self.ids)} sentences; "
                "it needs at least 1 of each"
            )
        _refuse_repeated(self.name, "language", self.languages)
        _refuse_repeated(self.name, "id", self.ids)
        if len(self.documents) != len(self.ids):
            raise ValueError(
                f"corpus {self.name!r} names {len(self.documents)} documents for {len(self.ids)} ids; "
                "give one document an id"
            )
        for code in self.languages:
            check_code(code)
            self._check_side(code)
        extra = sorted(self.texts.keys() - set(self.languages))
        if extra:
            raise ValueError(
                f"corpus {self.name!r} has texts in {', '.join(extra)}, which its languages "
                f"({', '.join(self.languages)}) do not name"
            )

    def _check_side(self, code: str) -> None:
        if code not in self.texts:
            raise ValueError(
                f"corpus {self.name!r} has no texts in {code!r}; it has {', '.join(sorted(self.texts))}: "
                "add the side or leave the language out"
            )
        side = self.texts[code]
        if len(side) != len(self.ids):
            at = min(len(side), len(self.ids))
            where = (
                f"the first id without a text is {self.ids[at]!r}" if at < len(self.ids) else "texts are left"
            )
            raise ValueError(
                f"corpus {self.name!r}: {code!r} has {len(side)} texts for {len(self.ids)} ids ({where}); "
                "every language needs one text an id"
            )
        for name, text in zip(self.ids, side, strict=True):
            if not text.strip():
                raise ValueError(
                    f"corpus {self.name!r}: the text of id {name!r} in {code!r} is empty; "
                    "fill it in or leave the id out of every language"
                )

    @cached_property
    def sha256(self) -> str:
        """Of languages, ids, documents and texts; not of name and sources."""
        content = [self.languages, self.ids, self.documents, [self.texts[code] for code in self.languages]]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    @cached_property
    def document_names(self) -> tuple[str, ...]:
        """Each document once, in order of its first sentence."""
        return tuple(dict.fromkeys(self.documents))

    def side(self, code: str) -> tuple[str, ...]:
        """The texts of a language.

        Raises
        ------
        ValueError
            When the corpus does not have it.
        """
        if code not in self.texts:
            raise ValueError(
                f"corpus {self.name!r} has no language {code!r}; it has {', '.join(self.languages)}"
            )
        return self.texts[code]

    def n_bytes(self, code: str) -> tuple[int, ...]:
        """UTF-8 bytes of each text of a language."""
        return tuple(len(text.encode()) for text in self.side(code))

    def byte_premium(self, code: str, reference: str) -> float:
        """UTF-8 bytes of a language for each byte of `reference`, over the same sentences."""
        return sum(self.n_bytes(code)) / sum(self.n_bytes(reference))

    def take(self, first: int, last: int) -> AlignedCorpus:
        """The sentences of documents number `first` to `last` - 1, by the order of `document_names`.

        Raises
        ------
        ValueError
            When that range is empty or reaches past the last document.
        """
        total = len(self.document_names)
        if not 0 <= first < last <= total:
            raise ValueError(
                f"documents {first} to {last} (exclusive) of corpus {self.name!r}; "
                f"it has {total}, so 0 <= first < last <= {total}"
            )
        wanted = set(self.document_names[first:last])
        return self.choose([i for i, name in enumerate(self.documents) if name in wanted])

    def keep(self, codes: Sequence[str]) -> AlignedCorpus:
        """The same sentences in some of the languages, in the order given.

        Raises
        ------
        ValueError
            For a language that the corpus does not have.
        """
        return AlignedCorpus(
            name=self.name,
            languages=tuple(codes),
            ids=self.ids,
            documents=self.documents,
            texts={code: self.side(code) for code in codes},
            sources=self.sources,
        )

    def choose(self, places: Sequence[int]) -> AlignedCorpus:
        """The sentences at these places, in the order given."""
        return AlignedCorpus(
            name=self.name,
            languages=self.languages,
            ids=tuple(self.ids[i] for i in places),
            documents=tuple(self.documents[i] for i in places),
            texts={code: tuple(self.texts[code][i] for i in places) for code in self.languages},
            sources=self.sources,
        )


def check_code(code: str) -> None:
    """Refuse what is not the code of a language: "sw", "swh", "sw_Latn", "swh_Latn" or "sw-KE".

    Raises
    ------
    ValueError
        With the code, when it has another form or CLDR knows no such language or script.

    >>> check_code("swh_Latn")
    >>> check_code("xq")
    Traceback (most recent call last):
    ValueError: 'xq' is no language code: CLDR knows no language 'xq'; ...
    """
    from babel.core import get_global

    allowed = 'allowed: an ISO 639 code, with or without a script or a territory, such as "sw" or "swh_Latn"'
    found = _CODE.fullmatch(code)
    if not found:
        raise ValueError(f"{code!r} is no language code; {allowed}")
    tag, script = found.groups()
    if tag not in _english("languages") and tag not in get_global("language_aliases") and tag not in _MORE:
        raise ValueError(f"{code!r} is no language code: CLDR knows no language {tag!r}; {allowed}")
    if script and script not in _english("scripts"):
        raise ValueError(f"{code!r} is no language code: CLDR knows no script {script!r}; {allowed}")


def script_share(text: str, script: str) -> float | None:
    """Share of the letters of a text that are of a script (ISO 15924); None when it has no letter.

    >>> script_share("Чад 2041", "Cyrl"), script_share("Чад in", "Cyrl"), script_share("2041", "Latn")
    (1.0, 0.6, None)
    """
    if script not in _SCRIPT_NAMES:
        raise ValueError(f"script {script!r} is not known here; known: {', '.join(_SCRIPT_NAMES)}")
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return None
    return sum(_first_word(letter) in _SCRIPT_NAMES[script] for letter in letters) / len(letters)


@cache
def _first_word(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


@cache
def _english(kind: str) -> frozenset[str]:
    """Keys of CLDR's English names of languages or scripts."""
    from babel import Locale

    return frozenset(getattr(Locale("en"), kind))


_MORE = frozenset(("acm", "acq", "apc", "azb", "cjk", "fuv", "hne", "kbp", "pbt", "quy", "taq"))
"""Codes of FLORES-200 of which CLDR has neither name nor alias."""


def _refuse_repeated(name: str, what: str, values: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for place, value in enumerate(values):
        if value in seen:
            raise ValueError(
                f"corpus {name!r}: {what} {value!r} stands at places {seen[value] + 1} and {place + 1}; "
                f"each {what} may occur once"
            )
        seen[value] = place
