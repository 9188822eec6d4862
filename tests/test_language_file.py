"""Languages that a person states are read with their tiers, and refused by file and code."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.language_file import read_languages
from models.languages import WEB_LANGUAGES


def write(folder: Path, text: str) -> Path:
    path = folder / "languages.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_tier_is_enough_and_the_table_gives_what_it_has(tmp_path: Path) -> None:
    text = '{"am": "low", "fr": {"tier": "high", "script": "Latn", "share": 0.04}, "sw": "high"}'
    amharic, french, swahili = read_languages(write(tmp_path, text), WEB_LANGUAGES)
    assert (amharic.code, amharic.tier, amharic.script, amharic.share) == ("am", "low", "", None)
    assert (french.code, french.tier, french.script, french.share) == ("fr", "high", "Latn", 0.04)
    assert (swahili.tier, swahili.script, swahili.name, swahili.share) == ("high", "Latn", "Swahili", 0.0001)


def test_a_script_beyond_those_of_the_made_sentences_may_be_stated(tmp_path: Path) -> None:
    (one,) = read_languages(write(tmp_path, '{"am": {"tier": "low", "script": "Ethi"}}'), ())
    assert one.script == "Ethi"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('["sw"]', "must be one object of codes and tiers"),
        ("{}", "must be one object of codes and tiers"),
        ('{"sw": "middle"}', "tier 'middle' of 'sw'; allowed: 'high' and 'low'"),
        ('{"sw": {"script": "Latn"}}', "tier None of 'sw'"),
        ('{"sw": null}', "tier None of 'sw'"),
        ('{"sw": ["low"]}', r"tier \['low'\] of 'sw'"),
        ('{"sw": {"tier": "low", "speakers": 5}}', "'sw' has a field 'speakers'; allowed: tier, script"),
        ('{"qx": "low"}', "'qx' is no language code"),
        ('{"sw": "low", "sw": "high"}', "'sw' stands there twice"),
        ('{"sw": {"tier": "low", "script": "Latin"}}', "script 'Latin' of 'sw'"),
        ('{"sw": {"tier": "low", "script": []}}', r"script \[\] of 'sw'"),
        ('{"sw": {"tier": "low", "share": 0}}', "share 0 of 'sw'; allowed: a number above 0"),
        ('{"sw": {"tier": "low", "share": 2}}', "share 2 of 'sw'"),
        ('{"sw": {"tier": "low", "share": NaN}}', "share nan of 'sw'"),
        ('{"sw": {"tier": "low", "share": true}}', "share True of 'sw'"),
        ('{"sw": {"tier": "low", "share": "0.1"}}', "share '0.1' of 'sw'"),
    ],
)
def test_what_is_malformed_is_refused_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_languages(write(tmp_path, text), WEB_LANGUAGES)
    assert str(refused.value).startswith(str(tmp_path / "languages.json"))
    assert "\n" not in str(refused.value)
