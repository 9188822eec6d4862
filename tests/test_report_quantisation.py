"""The report on quantised models: statuses follow the stored rows, and nothing of seeds stands in it."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lab.records import TestResultRow
from lab.report import write_report
from lab.store import Store
from tests.small_quantisation import record_quantisation
from tests.small_study import record_study
from tests.test_report import Page
from tests.test_report_chromium import CHROMIUM, FRAMES, HOST, LIGHT, look, with_probe

QUESTIONS = "SELECT research_question AS name, question, status FROM research_questions ORDER BY name"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_quantisation(lab)
    return lab


@pytest.fixture(scope="module")
def source(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(lab, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def written(lab: Store, directory: Path) -> str:
    return write_report(lab, directory / "report.html").read_text(encoding="utf-8")


def statuses(page: Page) -> dict[str, str]:
    """What the table of research questions says."""
    table = page.text[
        page.text.index("Status, from the stored verdicts") : page.text.index("CONFIRMED: detected")
    ]
    words = "CONFIRMED|REFUTED|EQUIVALENT|PARTIAL|PENDING|INVALID"
    return dict(re.findall(rf"(RQ\d)\s.*?\s({words})", table.replace("RQ1", " RQ1 ").replace("RQ", " RQ")))


def rewritten(lab: Store, experiment: str, **changes: Any) -> list[TestResultRow]:
    """The verdict rows of an experiment with other values; the same keys, so they replace what is stored."""
    found = lab.read(
        "SELECT * EXCLUDE (profile, plan_hash, is_last_look) FROM look_test "
        "WHERE hypothesis = 'experiment' AND family = $experiment",
        {"experiment": experiment},
    ).to_dicts()
    assert len(found) == 2
    return [TestResultRow(**(row | changes)) for row in found]


def test_every_research_question_stands_with_the_status_of_its_rows(lab: Store, page: Page) -> None:
    stored = lab.read(QUESTIONS).to_dicts()
    assert [row["status"] for row in stored] == ["CONFIRMED", "PARTIAL", "CONFIRMED", "EQUIVALENT"]
    for row in stored:
        assert re.search(rf"{row['name']}{re.escape(row['question'])}\S* {row['status']}", page.text), row


def test_an_edited_verdict_row_changes_the_status_on_the_page(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_quantisation(lab)
    lab.record(rewritten(lab, "A-003", verdict="EQUIVALENT"))
    lab.record(rewritten(lab, "D-001", verdict="INVALID", reason="planted"))
    lab.record(rewritten(lab, "C-001", estimate=-1.0, low=-2.0, high=-0.5))
    text = Page(written(lab, tmp_path)).text
    assert re.search(r"RQ1Does INT4 cost low-resource[^?]*\?\S* EQUIVALENT1 of 1A-003 EQUIVALENT", text)
    assert re.search(r"RQ4[^?]*\?\S* PARTIAL1 of 2D-001 INVALID, D-002 EQUIVALENT", text)
    assert re.search(r"RQ3[^?]*\?\S* PARTIAL2 of 2", text)  # one for it, one against
    assert "invalid: planted" in text


def test_all_eleven_experiments_stand_with_outcome_estimate_and_time(lab: Store, page: Page) -> None:
    rows = lab.read("SELECT * FROM experiments").to_dicts()
    assert len(rows) == 11
    for row in rows:
        found = re.search(rf"{row['experiment']}{re.escape(row['question'])} Above 0: (.*?) min", page.text)
        assert found is not None, row["experiment"]
        said = found[1].replace("−", "-")
        assert said.startswith(f"{row['predicted']}.")
        interval = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        if abs(row["low"]) < 100:
            assert f"{row['verdict']}success{row['estimate']:+.2f}{interval}{row['n']}2" in said, said
        assert said.endswith(f"{row['expected_minutes']:g}")


def test_a_run_that_broke_off_says_what_was_not_run_and_shows_no_empty_part(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_quantisation(lab, families=("A-001",))
    source = written(lab, tmp_path)
    page = Page(source)
    assert page.text.count("not run") >= 10
    assert {row["status"] for row in lab.read(QUESTIONS).to_dicts()} == {"PENDING"}
    assert page.text.count("PENDING") == 4 + 1  # and in the list of what the words mean
    for head in ("Do low-resource languages lose more", "What keeping weights buys", "Do the nulls hold"):
        assert head not in page.text
    assert "data-chart" not in re.sub(r"<script>.*?</script>|<style>.*?</style>", "", source, flags=re.DOTALL)
    assert (page.open, page.wrong) == ([], [])


def test_an_undefined_ratio_says_why_and_a_legacy_ratio_has_its_word(lab: Store, page: Page) -> None:
    [row] = lab.read(
        "SELECT estimate, reason FROM look_test WHERE family = 'A-003' AND hypothesis = 'degradation_ratio' "
        "AND contrast = 'int4' AND model = 'cldr-gpt2 seed 0'"
    ).to_dicts()
    assert f"{row['estimate']:.2f}, called “moderate”" in page.text
    undefined = lab.read(
        "SELECT DISTINCT reason FROM look_test WHERE hypothesis IN ('degradation_ratio', 'ratio_of_means') "
        "AND reason IS NOT NULL AND contrast <> 'fp32 again'"
    )["reason"].to_list()
    assert undefined
    for reason in undefined:
        assert reason in page.text


def test_units_are_bits_and_sentences_and_nothing_of_seeds_is_there(page: Page) -> None:
    assert "over looks at 96 aligned sentences." in page.text
    assert "bits an aligned sentence, interval [+2.97, +3.07], n = 10" in page.text
    assert (
        "What would change our mind: an interval that includes 0 in a run of the same plan on other"
        in page.text
    )
    for words in (
        "samples a cell",
        " SD",
        "Missing and excluded",
        "between sources",
        "Omnibus",
        "fresh samples",
    ):
        assert words not in page.text.split("Seeds and data quality")[-2], words


def test_the_page_is_well_formed_and_its_queries_answer_as_they_stand(
    lab: Store, source: str, page: Page
) -> None:
    assert (page.open, page.wrong) == ([], [])
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    found = [html.unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)]
    assert not any("$plan" in query or "$study" in query for query in found)
    empty = [query for query in dict.fromkeys(found) if lab.read(query).height == 0]
    assert len(empty) <= 1, empty  # no deviations


def test_the_report_of_another_study_is_the_same_with_this_one_beside_it(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(4,), prompts=4)
    alone = written(lab, tmp_path)
    assert not re.search("Research questions|RQ1", re.sub(r"<script.*?</script>", "", alone, flags=re.DOTALL))
    record_quantisation(lab)
    both = written(lab, tmp_path)
    [section] = re.findall(r'<section id="entropy-seeds-.*?</section>', alone, re.DOTALL)
    assert section in both
    assert both.count("Research questions</h3>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
def test_in_a_browser_every_chart_comes_alive_and_nothing_spills(source: str, tmp_path: Path) -> None:
    for name in FRAMES:
        (tmp_path / f"{name}.html").write_text(with_probe(source, name), encoding="utf-8")
    frames = "".join(
        f'<iframe src="{name}.html" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, width in FRAMES.items()
    )
    (tmp_path / "host.html").write_text(HOST % frames, encoding="utf-8")
    seen = look(tmp_path, LIGHT)
    for name, width in FRAMES.items():
        assert (seen[name]["scroll"], seen[name]["spills"]) == (width, []), name
        assert seen[name]["drawn"] == [1] * 8
        assert seen[name]["live"] == (0 if name == "still" else 8)
        assert seen[name]["smallest"] >= 11
    assert seen["console"] == []
