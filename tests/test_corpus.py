"""An aligned corpus refuses what is not aligned, by id and language, and counts bytes as UTF-8 has them."""

from __future__ import annotations

from typing import Any

import pytest

from models.corpus import AlignedCorpus, Language, check_code, script_share
from models.languages import LANGUAGES


def corpus(**changed: Any) -> AlignedCorpus:
    given: dict[str, Any] = {
        "name": "three",
        "languages": ("en", "ru"),
        "ids": ("a", "b", "c"),
        "documents": ("one", "one", "two"),
        "texts": {"en": ("yes", "no", "perhaps"), "ru": ("да", "нет", "может")},
    }
    return AlignedCorpus(**(given | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"texts": {"en": ("yes", "no", "perhaps"), "ru": ("да", "нет")}}, "'ru' has 2 texts for 3 ids.*'c'"),
        (
            {"texts": {"en": ("yes", "no", "m", "x"), "ru": ("да", "нет", "м")}},
            "'en' has 4 texts.*texts are left",
        ),
        ({"texts": {"en": ("yes", "no", "perhaps"), "ru": ("да", " \t", "м")}}, "id 'b' in 'ru' is empty"),
        ({"texts": {"en": ("yes", "no", "perhaps")}}, "no texts in 'ru'; it has en"),
        ({"languages": ("en",)}, "has texts in ru, which its languages .en. do not name"),
        ({"languages": ("en", "ru", "en")}, "language 'en' stands at places 1 and 3"),
        ({"ids": ("a", "b", "a")}, "id 'a' stands at places 1 and 3"),
        ({"documents": ("one", "two")}, "2 documents for 3 ids"),
        ({"ids": (), "documents": (), "texts": {"en": (), "ru": ()}}, "2 languages and 0 sentences"),
        ({"languages": (), "texts": {}}, "0 languages"),
    ],
)
def test_a_corpus_whose_sides_are_not_aligned_is_refused_by_id_and_language(
    changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        corpus(**changed)


@pytest.mark.parametrize("code", ["sw", "swh", "swh_Latn", "sw-KE", "zh_Hant", "acm_Arab", "cjk_Latn"])
def test_codes_of_iso_639_with_script_or_territory_are_known(code: str) -> None:
    check_code(code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("xq", "no language 'xq'"),
        ("english", "allowed: an ISO 639 code"),
        ("EN", "allowed"),
        ("", "allowed"),
        ("en_Zzzq", "no script 'Zzzq'"),
        ("en\n", "allowed"),
    ],
)
def test_an_unknown_code_is_refused_with_what_is_allowed(code: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_code(code)


def test_a_corpus_in_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="'qx' is no language code"):
        corpus(languages=("en", "qx"), texts={"en": ("a", "b", "c"), "qx": ("a", "b", "c")})


def test_bytes_and_premium_are_those_of_utf_8() -> None:
    made = corpus()
    assert made.n_bytes("ru") == (4, 6, 10)
    assert made.byte_premium("ru", "en") == 20 / 12
    assert made.byte_premium("en", "ru") * made.byte_premium("ru", "en") == pytest.approx(1, rel=1e-15)
    with pytest.raises(ValueError, match="no language 'de'; it has en, ru"):
        made.n_bytes("de")


def test_taking_documents_keeps_them_whole_and_the_parts_make_the_corpus() -> None:
    made = corpus(documents=("one", "two", "one"))
    first, second = made.take(0, 1), made.take(1, 2)
    assert first.ids == ("a", "c")
    assert first.texts["ru"] == ("да", "может")
    assert second.ids == ("b",)
    assert made.take(0, 2) == made
    for bad in ((0, 0), (1, 3), (-1, 1), (2, 1)):
        with pytest.raises(ValueError, match="it has 2, so 0 <= first < last <= 2"):
            made.take(*bad)


def test_the_hash_follows_content_and_not_the_name() -> None:
    made = corpus()
    assert corpus(name="other").sha256 == made.sha256
    changed = [
        corpus(ids=("a", "b", "d")),
        corpus(documents=("one", "two", "two")),
        corpus(texts={"en": ("yes", "no", "perhaps"), "ru": ("да", "нет", "можеТ")}),
        corpus(languages=("ru", "en")),
        corpus(texts={"en": ("yes", "no", "perhaps"), "ru": ("дан", "ет", "может")}),
    ]
    assert len({one.sha256 for one in changed} | {made.sha256}) == len(changed) + 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tier": "middle"}, "allowed: 'high' and 'low'"),
        ({"script": "Xxxx"}, "allowed: ISO 15924, such as 'Latn'"),
        ({"share": 1.5}, "between 0 and 1"),
        ({"code": "qx"}, "no language"),
    ],
)
def test_a_language_is_refused_with_what_is_allowed(changed: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "code": "sw",
        "name": "Swahili",
        "script": "Latn",
        "family": "Bantu",
        "tier": "low",
        "share": 0.1,
    }
    with pytest.raises(ValueError, match=words):
        Language(**(given | changed))


def test_the_share_of_a_script_counts_letters_only() -> None:
    assert script_share("год 2031 km", "Cyrl") == 3 / 5
    assert script_share("काठमाडौँ 12", "Deva") == 1
    assert script_share("12 –", "Latn") is None
    with pytest.raises(ValueError, match="'Xxxx' is not known"):
        script_share("a", "Xxxx")


def test_script_and_resource_are_not_the_same_variable_in_the_table() -> None:
    assert sum(one.share for one in LANGUAGES) == pytest.approx(1, abs=1e-12)
    assert len({one.code for one in LANGUAGES}) == 10
    tiers = {tier: {one.script for one in LANGUAGES if one.tier == tier} for tier in ("high", "low")}
    assert tiers["high"] == tiers["low"] == {"Latn", "Cyrl", "Arab", "Deva"}
    assert sum(one.tier == "high" for one in LANGUAGES) == 5
    high = min(one.share for one in LANGUAGES if one.tier == "high")
    low = max(one.share for one in LANGUAGES if one.tier == "low")
    assert high > 5 * low
    assert len({one.share for one in LANGUAGES}) == 10
