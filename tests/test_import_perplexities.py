"""`ladder import` of perplexities: the legacy ratio beside the gap in nats, and what a file may not hold."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import mean, variance
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import cli
from lab.earlier_perplexities import HIGH, LOW, TIERS, holds_perplexities, read_perplexities
from lab.errors import UsageError
from lab.store import Store
from models.corpus import check_code
from models.languages import LANGUAGES
from stats.legacy_disparity import legacy_disparity
from tasks.importing_perplexities import MISSING, analyse_file, what_the_ratio_hides
from tests import earlier_files
from tests.ladder_command import COUNTS, ask, ladder

BEFORE = {"en": 21.0, "de": 25.0, "fr": 24.0, "es": 26.0, "it": 20.0,
          "sw": 31.0, "yo": 44.0, "he": 50.0, "am": 28.0, "ko": 35.0}  # fmt: skip
AFTER = {"en": 21.16, "de": 25.396, "fr": 24.02, "es": 26.22, "it": 20.18,
         "sw": 47.5, "yo": 63.1, "he": 71.0, "am": 40.9, "ko": 47.032}  # fmt: skip
LOW_CODES = ("sw", "yo", "he", "am", "ko")
CLAIM = {code: {"baseline": BEFORE[code], "quantised": AFTER[code]} for code in BEFORE}
"""The earlier claim's ratio of 52.47, of languages that differ by 0.35 nats a token."""
UNDEFINED = {
    "model": "small",
    "tiers": {"high": ["id"], "low": ["Klingon"]},
    "perplexities": {
        "id": {"baseline": 20, "quantized": 19.5, "tokens": 7},
        "Klingon": {"baseline": 30, "quantized": 33},
    },
}
BOTH = {"claim": CLAIM, "undefined": UNDEFINED}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file."""
    directory = tmp_path_factory.mktemp("earlier, naïve")
    return {name: earlier_files.save(directory / f"{name}.json", body) for name, body in BOTH.items()}


@pytest.fixture(scope="module")
def imported(
    written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]], str]:
    """A home that has both, what was told of each, and the page that a person saw."""
    home = tmp_path_factory.mktemp("import") / "home"
    done = ladder("import", *map(str, written.values()), home=home)
    assert done.returncode == 0, done.stderr
    again = ladder("import", *map(str, written.values()), "--json", home=home)
    parts = json.loads(again.stdout)["perplexities"]
    return home, {Path(part["file"]).stem: part for part in parts}, done.stdout


def rows(home: Path, model: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(hypothesis, contrast) -> row of the `test` table."""
    found = Store(home).read("SELECT * FROM test WHERE model = $model", {"model": model}).to_dicts()
    return {(row["hypothesis"], row["contrast"]): row for row in found}


def test_the_numbers_are_those_of_the_definitions(
    imported: tuple[Path, dict[str, dict[str, Any]], str],
) -> None:
    percent = {code: 100 * (AFTER[code] - BEFORE[code]) / BEFORE[code] for code in BEFORE}
    nats = {code: math.log(AFTER[code] / BEFORE[code]) for code in BEFORE}
    low = mean(percent[code] for code in LOW_CODES)
    high = mean(percent[code] for code in BEFORE if code not in LOW_CODES)
    gap = mean(nats[code] for code in LOW_CODES) - mean(nats[code] for code in nats if code not in LOW_CODES)
    assert low / high == pytest.approx(52.47, abs=0.01)
    assert gap == pytest.approx(0.35, abs=0.01)
    found = rows(imported[0], "claim")
    expected = {
        ("mean_degradation_percent", "quantised:low"): low,
        ("mean_degradation_percent", "quantised:high"): high,
        ("degradation_ratio", "quantised"): low / high,
        ("gap_nats", "quantised"): gap,
        ("gap", "quantised"): gap,
        ("perplexity_variance_before", "quantised"): variance(BEFORE.values()),
        ("perplexity_variance_after", "quantised"): variance(AFTER.values()),
        **{("degradation_percent", f"quantised:{code}"): value for code, value in percent.items()},
        **{("change_nats", f"quantised:{code}"): value for code, value in nats.items()},
    }
    for key, value in expected.items():
        assert found[key]["estimate"] == pytest.approx(value, rel=1e-12), key
    assert found["degradation_ratio", "quantised"]["method"].endswith(": massive")
    legacy = {key for key, row in found.items() if row["role"] == "legacy"}
    assert legacy == expected.keys() - {("gap", "quantised")}
    reached = sum(
        mean(nats[code] for code in chosen) - mean(nats[code] for code in nats if code not in chosen)
        >= gap - 1e-12
        for chosen in combinations(nats, 5)
    )
    assert found["gap", "quantised"]["p"] == pytest.approx(2 * reached / 252) == pytest.approx(2 / 252)


def test_perplexities_come_to_no_verdict_however_small_the_p(
    imported: tuple[Path, dict[str, dict[str, Any]], str],
) -> None:
    for name, model in (("claim", "claim"), ("undefined", "small")):
        [decision] = imported[1][name]["decisions"]
        assert (decision["verdict"], decision["exploratory"], decision["next"]) == (
            "INCONCLUSIVE", True, "int4_disparity")  # fmt: skip
        assert MISSING in decision["sentence"]
        verdicts = [row for row in rows(imported[0], model).values() if row["verdict"] is not None]
        assert [(row["role"], row["verdict"], row["reason"]) for row in verdicts] == [
            ("verdict", "INCONCLUSIVE", MISSING)
        ]


def test_a_ratio_over_a_mean_of_zero_or_less_is_a_row_with_its_reason(
    imported: tuple[Path, dict[str, dict[str, Any]], str],
) -> None:
    found = rows(imported[0], "small")
    ratio = found["degradation_ratio", "quantised"]
    assert ratio["estimate"] is None
    assert ratio["reason"] == (
        "undefined: the high-resource languages degrade by -2.5 % on average, not above zero"
    )
    assert found["gap_nats", "quantised"]["estimate"] == pytest.approx(math.log(1.1) - math.log(0.975))
    gap = found["gap", "quantised"]
    assert (gap["p"], gap["low"], gap["reason"]) == (1.0, None, "2 arrangements give no 95 % interval")
    assert imported[1]["undefined"]["not_read"] == ["tokens"]


def test_the_page_has_80_columns_and_says_what_the_ratio_hides(
    imported: tuple[Path, dict[str, dict[str, Any]], str],
) -> None:
    page = imported[2]
    assert max(map(len, page.splitlines())) <= 80
    said = " ".join(page.split())
    assert "mean degradation, high 0.8" in said
    assert "mean degradation, low 43." in said
    assert "legacy ratio 52.47, massive" in said
    assert "massive gap, nats a token +0.3" in said
    assert "The ratio divides by a mean of 0.8" in said
    assert "legacy ratio undefined gap, nats a token +0.121" in said
    assert "There is no ratio, since the high-resource languages degrade by -2.5 % on average" in said
    assert all(word not in page for word in ("nan", "inf,", " inf ", "None"))


@pytest.mark.slow
def test_a_second_import_computes_nothing_and_adds_no_rows(
    imported: tuple[Path, dict[str, dict[str, Any]], str], written: dict[str, Path], tmp_path: Path
) -> None:
    home, parts, _ = imported
    store = Store(home)
    before = store.read(COUNTS).to_dicts()
    products = {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.json")}
    assert len(products) == 2
    renamed = tmp_path / "another name.json"
    renamed.write_bytes(written["claim"].read_bytes())
    texts = earlier_files.save(tmp_path / "v1.json", earlier_files.v1(prompts=3, samples=4))
    done = ladder("import", str(renamed), "--json", home=home)
    assert done.returncode == 0, done.stderr
    [again] = json.loads(done.stdout)["perplexities"]
    assert again["model"] == "claim"
    assert again["decisions"] == parts["claim"]["decisions"]
    assert store.read(COUNTS).to_dicts() == before
    assert {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.json")} == products
    done = ladder("import", str(texts), str(renamed), "--json", home=home)
    found = json.loads(done.stdout)
    assert (found["study"], len(found["parts"]), len(found["perplexities"])) == ("entropy_import", 1, 1)


def test_sql_and_the_report_show_ratio_and_gap(
    imported: tuple[Path, dict[str, dict[str, Any]], str], tmp_path: Path
) -> None:
    home = imported[0]
    shown = ask("SELECT model, quantity, round(estimate, 2) AS estimate FROM disparity", home=home)
    values = {(row["model"], row["quantity"]): row["estimate"] for row in shown}
    assert values["claim", "gap"] == pytest.approx(0.35, abs=0.02)
    assert values["claim", "degradation_ratio"] == 52.47
    assert values["small", "degradation_ratio"] is None
    assert values["claim", "gap_nats"] == values["claim", "gap"]
    given = ask("SELECT unit, value FROM metric WHERE name = 'perplexity'", home=home)
    assert {row["unit"]: row["value"] for row in given}["quantised/sw"] == 47.5
    out = tmp_path / "report.html"
    done = ladder("report", "--out", str(out), home=home)
    assert done.returncode == 0, done.stderr
    page = out.read_text()
    assert "degradation_ratio" in page
    assert "52.47, massive" in page
    assert "perplexities decide nothing" in page


def test_gates_show_the_decision(imported: tuple[Path, dict[str, dict[str, Any]], str]) -> None:
    shown = ladder("gates", home=imported[0])
    assert "INCONCLUSIVE disparity_import" in shown.stdout, shown.stderr


Body = dict[str, Any]


def claim(**changed: Any) -> Body:
    """The claim with other members."""
    return copy.deepcopy(CLAIM) | changed


def wrapped(**tiers: Any) -> Body:
    """The longer form with these tiers."""
    return {"tiers": tiers, "perplexities": claim()}


def pair(before: Any, after: Any) -> Body:
    """A language."""
    return {"baseline": before, "quantised": after}


MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: claim(sw=pair(31.0, math.nan)), "sw.quantised: found the number nan; a perplexity is a"),
    "infinity": (lambda: claim(sw=pair(math.inf, 40.0)), "sw.baseline: found the number inf; a perplexity"),
    "zero": (
        lambda: claim(sw=pair(31.0, 0)), "sw.quantised: found the number 0; a perplexity is a number from 1"),
    "negative": (lambda: claim(sw=pair(-31.0, 40)), "sw.baseline: found the number -31.0; a perplexity"),
    "a loss": (
        lambda: claim(sw=pair(0.9, 40)), "sw.baseline: found the number 0.9; a perplexity is a number"),
    "beyond sense": (lambda: claim(sw=pair(31, 10**300)), "sw.quantised: found the number 1000"),
    "text": (lambda: claim(sw=pair("31", 40)), "sw.baseline: found the text '31'; a perplexity is a number"),
    "true": (
        lambda: claim(sw=pair(31, True)), "sw.quantised: found true; a perplexity is a number from 1 to"),
    "null": (lambda: claim(sw=pair(31, None)), "sw.quantised: found null; a perplexity is a number"),
    "no quantised": (
        lambda: claim(sw={"baseline": 31}), "sw: 'quantised' is missing; found baseline; allowed: {language"),
    "no baseline": (
        lambda: claim(sw={"quantised": 31}), "sw: 'baseline' is missing; found quantised; allowed: {lang"),
    "both spellings": (
        lambda: claim(sw=pair(31, 40) | {"quantized": 41}), "sw: quantised and quantized stand both"),
    "a number for a language": (lambda: claim(sw=40), "sw: found the number 40; an object with baseline and"),
    "an empty language": (lambda: claim(sw={}), "sw: 'baseline' is missing; found no member"),
    "a blank language": (lambda: claim(**{" ": pair(3, 4)}), '[" "]: blank text'),
    "empty": (dict, "the file: 0 languages; allowed: 2 to 1000, as {language"),
    "empty inside": (lambda: {"perplexities": {}}, "perplexities: 0 languages; allowed: 2 to"),
    "a list": (lambda: {"perplexities": [3]}, "perplexities: found a list; an object is needed"),
    "inside out": (
        lambda: {"baseline": BEFORE, "quantised": AFTER}, "the file: found baseline, quantised at the top"),
    "tiers without the longer form": (
        lambda: claim(tiers={"high": ["en"]}), 'tiers: stands beside "perplexities", which is missing'),
    "one tier": (
        lambda: {code: CLAIM[code] for code in ("en", "de")}, "the file: en, de: high-resource, all of"),
    "one tier by the file": (
        lambda: wrapped(low=["en", "de", "fr", "es", "it"]), ": low-resource, all of them; a comparison"),
    "no tier": (
        lambda: claim(tlh=pair(3, 4)), 'tlh: no tier is known; say it beside "perplexities", in "tiers"'),
    "an unknown tier": (lambda: wrapped(mid=["en"]), "tiers.mid: unknown tier 'mid'; allowed: high, low"),
    "a tier of another language": (
        lambda: wrapped(low=["sw", "swa"]), "tiers.low[1]: unknown language 'swa'; did you mean sw"),
    "a tier said twice": (
        lambda: wrapped(low=["sw"], high=["en", "sw"]), "tiers.high[1]: sw is low already; a language"),
    "a tier that is text": (lambda: wrapped(low="sw"), "tiers.low: found the text 'sw'; a list is needed"),
    "tiers that are a list": (lambda: wrapped() | {"tiers": ["sw"]}, "tiers: found a list; an object is"),
    "a model that is a number": (
        lambda: wrapped() | {"model": 3}, "model: found the number 3; text is needed"),
}  # fmt: skip
TEXT = json.dumps(CLAIM)
NOT_JSON: dict[str, tuple[bytes, str]] = {
    "truncated": (TEXT[: TEXT.index('"yo"') + 20].encode(), "yo"),
    "a language twice": (TEXT.replace('"yo"', '"sw"').encode(), "sw: this key stands twice in its object"),
    "a side twice": (TEXT.replace("quantised", "baseline", 1).replace(
        '"baseline": 21.16', '"baseline": 21.16, "quantised": 3').encode(),
        "en.baseline: this key stands twice in its object"),
    "UTF-16": (TEXT.encode("utf-16"), "byte 0 is 0xff, which is not UTF-8; save the file as UTF-8"),
    "Latin-1": (TEXT.replace("sw", "swé").encode("latin-1"), "which is not UTF-8; save the file as UTF-8"),
    "NaN literal at the top": (
        b'{"en": NaN, "sw": {"baseline": 3, "quantised": 4}}', "en: found the number nan"),
}  # fmt: skip


def refusal(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What the command says of a file, after checking that it says it in one line and touches no home."""
    home = tmp_path / "home"
    monkeypatch.setenv("LADDER_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["ladder", "import", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert str(path) in err
    assert "nothing was imported" in err
    assert not home.exists()
    return err


@pytest.mark.parametrize("name", [*MALFORMED, *NOT_JSON])
def test_a_malformed_file_is_refused_by_place_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "earlier.json"
    if name in MALFORMED:
        body, message = MALFORMED[name]
        earlier_files.save(path, body())
    else:
        raw, message = NOT_JSON[name]
        path.write_bytes(raw)
    assert message in refusal(path, tmp_path, monkeypatch, capsys)


def test_the_file_says_the_tiers_or_the_table_does(tmp_path: Path) -> None:
    short = read_perplexities(earlier_files.save(tmp_path / "short.json", CLAIM))
    assert {code for code, tier in short.tiers.items() if tier == LOW} == set(LOW_CODES)
    assert short.told == ()
    longer = read_perplexities(earlier_files.save(tmp_path / "long.json", wrapped(high=["ko"], low=["it"])))
    assert (longer.tiers["ko"], longer.tiers["it"], longer.tiers["sw"]) == (HIGH, LOW, LOW)
    assert longer.told == ("ko", "it")
    assert longer.perplexities == short.perplexities


def test_every_code_of_the_table_is_a_language_and_the_study_s_are_in_it() -> None:
    for code in TIERS:
        check_code(code)
    assert {one.code for one in LANGUAGES} <= TIERS.keys()
    apart = [one.code for one in LANGUAGES if TIERS[one.code] != one.tier]
    assert apart == ["ar", "hi"]  # much of the embedded model's training text, little of the web's


def test_files_of_texts_are_not_taken_for_perplexities(tmp_path: Path) -> None:
    for body in (earlier_files.v1(prompts=2, samples=2), earlier_files.v2(prompts=2, samples=2),
                 earlier_files.injection(prompts=2, samples=2), earlier_files.flat(prompts=2, samples=2),
                 {"results": 3}, [CLAIM], 7):  # fmt: skip
        assert not holds_perplexities(earlier_files.save(tmp_path / "earlier.json", body))
    assert not holds_perplexities(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"en": (20, 22), "sw": (30, 60), "yo": (30, 31)}, "Most of the low-resource mean is sw: without it"),
        ({"en": (20, 22), "sw": (30, 60), "yo": (30, 50)}, "low-resource languages grow by"),
        ({"en": (20, 20.1), "sw": (30, 60), "yo": (30, 50)}, "The ratio divides by a mean of 0.5 %"),
        ({"en": (20, 20), "sw": (30, 60), "yo": (30, 50)}, "There is no ratio, since"),
    ],
)
def test_one_sentence_says_what_the_ratio_hides(given: dict[str, tuple[float, float]], said: str) -> None:
    is_low = {"en": False, "sw": True, "yo": True}
    assert said in what_the_ratio_hides(legacy_disparity(given, is_low), is_low)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.floats(1.0, 1e6),
    st.floats(),
    st.integers(-3, 10**6),
    st.sampled_from([None, True, "20", 1e100, 1, [], {}, "\ud800", 10**200]),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from([*CLAIM, "xx", "\ud800", ""]), st.tuples(VALUES, VALUES), min_size=2, max_size=12
    )
)
def test_any_file_is_refused_or_gives_finite_rows(values: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    body = {code: pair(*two) for code, two in values.items()}
    path = earlier_files.save(tmp_path / "earlier.json", body)
    assert holds_perplexities(path)
    try:
        file = read_perplexities(path)
    except UsageError as error:
        said = str(error)
    else:
        found = analyse_file(file)["tests"]  # TestRow refuses what is not finite
        assert [row["verdict"] for row in found if row["role"] == "verdict"] == ["INCONCLUSIVE"]
        said = json.dumps(found, allow_nan=False) + "nothing was imported"
    assert "nothing was imported" in said


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.lists(st.floats(1.0, 1e100), min_size=10, max_size=10))
def test_any_perplexities_in_range_can_be_analysed(after: list[float], tmp_path: Path) -> None:
    body = {code: pair(BEFORE[code], after[i]) for i, code in enumerate(BEFORE)}
    shown = analyse_file(read_perplexities(earlier_files.save(tmp_path / "earlier.json", body)))["shown"]
    assert math.isfinite(shown["gap_nats"])
    assert (shown["ratio"] is None) == (shown["ratio_reason"] is not None)
    assert shown["hides"].count(".") < 12
