"""Perplexities of earlier scripts, before and after quantising, as one plain shape.

    {"en": {"baseline": 20.1, "quantised": 20.4}, "sw": {"baseline": 31.0, "quantised": 47.5}}

`quantized` is read too. Inside `perplexities` the same may stand beside `tiers` and `model`:

    {"model": "gpt2", "tiers": {"high": ["en"], "low": ["sw"]}, "perplexities": {"en": {...}, "sw": {...}}}

`tiers` says of a language whether it is high- or low-resource; of any other, TIERS does. A language in
neither is refused, since the tier decides the answer. A file is refused whole or read whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.earlier_reading import Node, check_tree, kind, read_document

MOST_BYTES = 2**20
"""A larger file is of another format; a thousand languages take 60 KiB."""
MOST_LANGUAGES = 1000
LEAST, MOST = 1.0, 1e100
"""exp(mean loss) of a probability is at least 1; squares of the most still are numbers."""
HIGH, LOW = "high", "low"
BASELINE, QUANTISED = ("baseline",), ("quantised", "quantized")
SHAPE = '{language: {"baseline": perplexity, "quantised": perplexity}}'

_WEB_TEXT = {
    HIGH: "en ru ja de fr zh es pt it pl nl",
    LOW: "ar fa ko ro hu el uk da fi th no bg sk ca he sr lt hr ms sl et lv hi bn sq kk ta az is hy ka ur eu "
    "be ne mn mk te af uz tl my mr kn cy sw gu am pa km si so yo ha ig zu xh",
}
TIERS: Mapping[str, str] = {code: tier for tier, codes in _WEB_TEXT.items() for code in codes.split()}
"""By share of web text: over 1.2 % of the pages of Common Crawl's crawl of August 2018 (CC-MAIN-2018-34) are
high, under 0.7 % low. Czech, Turkish, Vietnamese, Indonesian and Swedish lie between and are left to the
file. What a model was trained on may differ: then the file's `tiers` say so."""

_OTHERS = ("experiment_version", "single_turn", "prompts", "prompt_id")
"""Members by which `lab.earlier_formats` knows its formats."""
_READ = ("model", "tiers", "perplexities")
"""Members at the top of the longer form."""


@dataclass(frozen=True, kw_only=True)
class EarlierPerplexities:
    """All of a file."""

    path: Path
    sha256: str
    model: str | None
    perplexities: Mapping[str, tuple[float, float]]
    """Language -> before, after quantising; in the order of the file."""
    tiers: Mapping[str, str]
    """Each of these languages -> HIGH or LOW."""
    told: tuple[str, ...]
    """Languages whose tier the file says; that of the others is from TIERS."""
    unread: tuple[str, ...]
    """Members at the top and of languages that were passed over."""


def holds_perplexities(path: Path) -> bool:
    """Whether a file is meant as one of perplexities, sound or not.

    Raises
    ------
    UsageError
        It is small enough to be one and cannot be read as JSON.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            return False
    except OSError:
        return False  # the reader of the other formats says what is wrong
    root = read_document(path).root
    found = root.value
    if not isinstance(found, dict) or any(name in found for name in _OTHERS):
        return False
    sides = {*BASELINE, *QUANTISED}
    inside = any(isinstance(value, dict) and sides & value.keys() for value in found.values())
    return not found or "perplexities" in found or inside or bool(sides & found.keys())


def read_perplexities(path: Path) -> EarlierPerplexities:
    """Read a file of perplexities.

    Raises
    ------
    UsageError
        Malformed, a language without a tier, or no language in one of the tiers; the message names the place.
    """
    document = read_document(path)
    root = document.root
    wrapped = root.members_include("perplexities")
    node = root.child("perplexities") if wrapped else root
    languages = node.members()
    if not wrapped:
        _check_short(root, languages)
    if not 1 <= len(languages) <= MOST_LANGUAGES:
        node.refuse(f"{len(languages)} languages; allowed: 2 to {MOST_LANGUAGES}, as {SHAPE}")
    given = {code: _pair(code, language) for code, language in languages.items()}
    check_tree(root)
    tiers = root.optional("tiers") if wrapped else None
    told = {} if tiers is None else _told(tiers, given)
    model = root.optional("model") if wrapped else None
    return EarlierPerplexities(
        path=path,
        sha256=document.sha256,
        model=None if model is None else model.name(),
        perplexities=given,
        tiers=_tiers(node, given, told),
        told=tuple(told),
        unread=_unread(root, languages, wrapped),
    )


def _check_short(root: Node, found: Mapping[str, Node]) -> None:
    """Refuse what stands inside out, or needs the longer form."""
    if {*BASELINE, *QUANTISED} & found.keys():
        root.refuse(f"found {', '.join(found)} at the top; languages come first: {SHAPE}"[:300])
    for name in ("tiers", "model"):
        if name in found:
            found[name].refuse('stands beside "perplexities", which is missing; languages go inside that')


def _pair(code: str, language: Node) -> tuple[float, float]:
    """Perplexity before and after."""
    Node(value=code, file=language.file, path=language.path).name()
    if not isinstance(language.value, dict):
        language.refuse(f"found {kind(language.value)}; an object with baseline and quantised is needed")
    return _perplexity(language, BASELINE), _perplexity(language, QUANTISED)


def _perplexity(language: Node, names: Sequence[str]) -> float:
    found = [name for name in names if name in language.value]
    if len(found) > 1:
        language.refuse(f"{' and '.join(found)} stand both; one of them is needed")
    if not found:
        have = ", ".join(language.value) or "no member"
        language.refuse(f"{names[0]!r} is missing; found {have}; allowed: {SHAPE}"[:300])
    node = language.child(found[0])
    value, range_ = node.value, f"a perplexity is a number from {LEAST:g} to {MOST:g}"
    if not isinstance(value, int | float) or isinstance(value, bool) or not LEAST <= value <= MOST:
        node.refuse(f"found {kind(value)}; {range_}")
    return float(value)


def _told(tiers: Node, given: Mapping[str, object]) -> dict[str, str]:
    """Language -> tier, where the file says it."""
    told: dict[str, str] = {}
    for tier, names in tiers.members().items():
        Node(value=tier, file=names.file, path=names.path).choice("tier", (HIGH, LOW))
        for item in names.items():
            code = item.choice("language", tuple(given))
            if code in told:
                item.refuse(f"{code} is {told[code]} already; a language stands once in tiers")
            told[code] = tier
    return told


def _tiers(node: Node, given: Mapping[str, object], told: Mapping[str, str]) -> dict[str, str]:
    """Tier of each language: the file's, else that of TIERS."""
    for code in given:
        if code not in told and code not in TIERS:
            node.child(code).refuse(
                'no tier is known; say it beside "perplexities", in "tiers": {"high": [...], "low": [...]}; '
                f"known without: high {_WEB_TEXT[HIGH]}; low {_WEB_TEXT[LOW]}"
            )
    tiers = {code: told.get(code, TIERS.get(code, "")) for code in given}
    for tier, other in ((HIGH, LOW), (LOW, HIGH)):
        if other not in tiers.values():
            found = f"{', '.join(given)}"[:120]
            node.refuse(
                f"{found}: {tier}-resource, all of them; a comparison needs both tiers: add a language "
                f'that is {other}-resource, or say in "tiers" which are'
            )
    return tiers


def _unread(root: Node, languages: Mapping[str, Node], wrapped: bool) -> tuple[str, ...]:
    inside = {
        name for language in languages.values() for name in language.value if name not in BASELINE + QUANTISED
    }
    outside = [name for name in root.value if name not in _READ] if wrapped else []
    return tuple(ascii(name)[1:-1][:60] for name in (*outside, *sorted(inside)))
