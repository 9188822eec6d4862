"""CLDR sentences are parallel, in their own language and script, new in each range, and never a raw key."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from typing import Literal

import pytest
from babel import Locale, localedata
from babel.dates import format_date, get_day_names
from babel.lists import format_list
from babel.numbers import format_currency
from babel.units import UnknownUnitError, format_unit

from models.cldr import (
    FIRST_DAY,
    LANGUAGES,
    SENTENCES,
    SHAPES,
    Pieces,
    Slots,
    cldr_corpus,
    cldr_texts,
    dropped_items,
)
from models.cldr_items import WITNESSES, own_name, surviving_items, unit_length
from models.corpus import AlignedCorpus, Language, script_share

TRAIN, CHOOSE, REPORT = (0, 1500), (1_000_000, 300), (2_000_000, 300)
"""First document and number of documents of three parts."""
CODES = [one.code for one in LANGUAGES]


@pytest.fixture(scope="module")
def corpus() -> AlignedCorpus:
    return cldr_corpus(first=TRAIN[0], documents=TRAIN[1])


def with_language(code: str, script: str = "Latn") -> tuple[Language, ...]:
    more = Language(code=code, name=code, script=script, family="other", tier="low", share=0.0)
    return (*LANGUAGES, more)


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda one: one.code)
def test_every_letter_is_in_the_declared_script(language: Language, corpus: AlignedCorpus) -> None:
    shares = [script_share(text, language.script) for text in corpus.texts[language.code]]
    assert min(share for share in shares if share is not None) == 1.0
    assert None not in shares


@pytest.mark.parametrize("code", CODES)
def test_no_text_holds_a_raw_key_a_template_or_a_digit_of_another_system(
    code: str, corpus: AlignedCorpus
) -> None:
    raw = re.compile(r"[{}¤]|\bM\d\d\b|↑")
    keys = set(surviving_items(LANGUAGES).units)
    codes = set(surviving_items(LANGUAGES).currencies)
    for text in corpus.texts[code]:
        assert not raw.search(text), text
        words = set(re.findall(r"[\w-]+", text))
        assert not words & keys, text
        assert not words & codes, text
        assert all(c in "0123456789" for c in text if c.isdecimal()), text


@pytest.mark.parametrize("code", CODES)
def test_no_sentence_of_a_part_occurs_in_another(code: str, corpus: AlignedCorpus) -> None:
    parts = [set(corpus.texts[code])]
    parts += [set(cldr_texts(code, first=first, documents=n)) for first, n in (CHOOSE, REPORT)]
    assert [len(part) for part in parts] == [SENTENCES * n for _, n in (TRAIN, CHOOSE, REPORT)]
    assert len(set().union(*parts)) == sum(len(part) for part in parts)


def test_one_side_alone_is_the_side_of_the_corpus(corpus: AlignedCorpus) -> None:
    for code in CODES:
        assert cldr_texts(code, first=700, documents=20) == list(corpus.take(700, 720).texts[code])


def test_a_document_depends_on_seed_and_number_alone(corpus: AlignedCorpus) -> None:
    late = cldr_corpus(first=1200, documents=3)
    assert late == corpus.take(1200, 1203)
    assert cldr_texts("en", first=1200, documents=3, seed=1) != list(late.texts["en"])


def test_texts_are_the_same_in_another_process_that_asks_in_another_order() -> None:
    """Babel keeps state between languages (an alias resolved once for all); none of it may show."""
    script = (
        "from models.cldr import cldr_texts, LANGUAGES\n"
        "from babel.dates import get_day_names\n"
        "get_day_names('wide', 'stand-alone', 'sw')[3]\n"
        "texts = {one.code: cldr_texts(one.code, first=50, documents=40) for one in reversed(LANGUAGES)}\n"
        "import hashlib, json\n"
        "print(hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest())\n"
    )
    import hashlib
    import json

    here = {code: cldr_texts(code, first=50, documents=40) for code in CODES}
    expected = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == expected


def test_babel_itself_works_as_before_after_own_data_was_read() -> None:
    surviving_items(LANGUAGES)
    assert format_list(["a", "b", "c"], locale="kk") == "a, b, c"
    assert format_unit(3, "length-kilometer", locale="en") == "3 kilometers"
    assert get_day_names("wide", "format", "kk")[3] == "бейсенбі"


@pytest.mark.parametrize("code", CODES)
def test_pieces_are_worded_as_babel_words_them(code: str) -> None:
    slots = Slots(
        day=date(2031, 3, 13),
        other_day=date(2044, 12, 7),
        places=("TD", "PE", "FJ", "MN"),
        tongues=("sw", "de", "ne", "ur"),
        money=(821, "KES"),
        measures=((12, "length-kilometer"), (7, "mass-kilogram")),
        spans=((-12, "week"), (30, "day")),
        shapes=(0, 1, 2, 3),
    )
    pieces, locale = Pieces(code=code, slots=slots), Locale(code)
    assert pieces.day() == format_date(slots.day, "full", locale)
    names = [locale.territories[key] for key in ("TD", "FJ", "MN")]
    assert pieces.places(0, 2, 3) == format_list(names, "standard", locale)
    assert pieces.money() == format_currency(
        821, "KES", "#,##0", locale, currency_digits=False, format_type="name"
    )
    assert pieces.measure(0) == format_unit(
        12, "length-kilometer", unit_length(code, "length-kilometer"), locale=code
    )
    for text in (pieces.span(0), pieces.span(1)):
        assert re.findall(r"\d+", text) == (["12"] if text == pieces.span(0) else ["30"])
    assert pieces.weekday() == own_name(code, "days", 2)


def test_english_and_german_pieces_read_as_they_should() -> None:
    slots = Slots(
        day=date(2031, 3, 13),
        other_day=date(2044, 12, 7),
        places=("TD", "PE", "FJ", "MN"),
        tongues=("sw", "de", "ne", "ur"),
        money=(821, "KES"),
        measures=((12, "length-kilometer"), (7, "mass-kilogram")),
        spans=((-12, "week"), (30, "day")),
        shapes=(0, 1, 2, 3),
    )
    english, german, swahili = (Pieces(code=code, slots=slots) for code in ("en", "de", "sw"))
    assert SHAPES[0](english) == "Thursday, March 13, 2031: Chad, Peru, and Fiji – 12 weeks ago"
    assert SHAPES[0](german) == "Donnerstag, 13. März 2031: Tschad, Peru und Fidschi – vor 12 Wochen"
    assert SHAPES[4](german) == "Mittwoch, in 30 Tagen: 821 Kenia-Schilling – Tschad oder Mongolei"
    assert SHAPES[3](swahili) == "7 Desemba 2044: kilomita 12 na kilogramu 7 – Peru"


@pytest.mark.parametrize("code", CODES)
def test_99_of_100_sentences_have_40_to_120_characters(code: str, corpus: AlignedCorpus) -> None:
    lengths = [len(text) for text in corpus.texts[code]]
    assert sum(40 <= n <= 120 for n in lengths) / len(lengths) >= 0.99
    assert min(lengths) >= 30
    assert max(lengths) <= 200


@pytest.mark.parametrize("code", [*CODES, "yo"])
def test_a_unit_that_babel_words_by_its_key_is_used_in_no_language(code: str) -> None:
    """Yoruba kilometres come out as "12 length-kilometer", Swahili per cent as "12 concentr-percent"."""
    raw = {key for key in EVERY_UNIT if key in worded(key, code)}
    languages = with_language("yo") if code == "yo" else LANGUAGES
    own = {item.key for item in dropped_items(languages) if item.language == code and item.kind == "unit"}
    spelled_short = {key for key in raw - own if unit_length(code, key) == "short"}
    assert raw - own == spelled_short, "CLDR leaves out a long form that equals the short one"
    if code == "yo":
        assert {"length-kilometer", "mass-kilogram"} <= raw
        assert len(own) > 100
    if code not in ("en", "yo"):
        used = surviving_items(LANGUAGES).units
        assert [key for key in used if key in worded(key, code, unit_length(code, key))] == []


EVERY_UNIT = sorted(localedata.load("en")["unit_patterns"])


def worded(unit: str, code: str, length: Literal["long", "short"] = "long") -> str:
    try:
        return format_unit(12, unit, length, locale=code)
    except UnknownUnitError:
        return unit


def test_country_names_that_igbo_has_in_english_are_dropped() -> None:
    """CLDR's Igbo locale names Switzerland "Switzerland" and Cuba "Cuba"; only the first is a fallback."""
    lost = {
        item.key
        for item in dropped_items(with_language("ig"))
        if (item.language, item.kind) == ("ig", "territory")
    }
    assert {"AE", "BR", "CH", "CM"} <= lost
    english, igbo = Locale("en").territories, Locale("ig").territories
    assert all(igbo[key] == english[key] for key in lost - {"CQ"})
    assert igbo["CU"] == english["CU"]
    assert "CU" not in lost
    with pytest.raises(ValueError, match="leave out 'ig', which lacks most"):
        cldr_corpus(documents=1, languages=with_language("ig"))


def test_a_spelling_shared_with_english_stays_where_other_languages_share_it() -> None:
    kept = set(surviving_items(LANGUAGES).territories)
    assert {"AO", "CU"} <= kept, "Angola and Cuba are spelled so in Swahili, German and Spanish"
    assert "PL" not in kept, "Swahili carries the English 'Poland'"
    assert "sw" not in WITNESSES


def test_every_dropped_item_is_used_by_no_language_and_has_a_reason() -> None:
    items = surviving_items(LANGUAGES)
    kept = {
        "territory": set(items.territories),
        "language": set(items.languages),
        "currency": set(items.currencies),
        "unit": set(items.units),
    }
    assert len(dropped_items()) > 100
    for item in dropped_items():
        assert item.reason
        assert item.language in CODES
        assert item.key not in kept.get(item.kind, set())


def test_a_plural_form_that_is_the_root_locales_is_not_welsh() -> None:
    """Welsh has "{0} metr" for one and other and the root's "{0} m" for 2, 3 and 6, which are not drawn."""
    for number in (2, 3, 6):
        assert format_unit(number, "length-meter", locale="cy") == f"{number} m"
    for number in range(7, 100):
        assert "metr" in format_unit(number, "length-meter", locale="cy")
    for number, unit in [pair for slots in drawn(200) for pair in slots.measures]:
        assert number >= 7, unit


def drawn(documents: int) -> list[Slots]:
    from models.cldr import _draw

    return _draw(documents, 0, 0, LANGUAGES)


def test_slots_cover_pasts_futures_and_all_shapes() -> None:
    slots = drawn(500)
    assert {shape for one in slots for shape in one.shapes} == set(range(len(SHAPES)))
    past = sum(number < 0 for one in slots for number, _ in one.spans)
    assert 400 < past < 600
    assert min(one.day for one in slots) < date(FIRST_DAY.year + 2, 1, 1)
    assert all(1000 <= one.day.year <= 9999 for one in slots)


def test_a_language_that_lacks_what_every_text_needs_is_named() -> None:
    with pytest.raises(ValueError, match=r"'bho' cannot be in the corpus: .* choose another"):
        cldr_corpus(documents=1, languages=with_language("bho", "Deva"))
    with pytest.raises(ValueError, match="Babel has no locale 'acm'"):
        cldr_corpus(documents=1, languages=with_language("acm", "Arab"))


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="documents is 0 and first is 0"):
        cldr_corpus(documents=0)
    with pytest.raises(ValueError, match="first is -1"):
        cldr_texts("en", documents=1, first=-1)
    with pytest.raises(ValueError, match="'fr' is not in the corpus; its languages are en, de"):
        cldr_texts("fr", documents=1)
    with pytest.raises(ValueError, match="name at least 1"):
        cldr_corpus(documents=1, languages=())


def test_two_languages_share_more_pieces_than_ten() -> None:
    two = surviving_items(LANGUAGES[:2])
    ten = surviving_items(LANGUAGES)
    assert set(ten.currencies) < set(two.currencies)
    assert set(ten.units) < set(two.units)
