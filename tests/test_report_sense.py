"""The report on the sense study: contrasts, blockers, baselines and failures are those of the stored rows."""

from __future__ import annotations

import html
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lab import report_sense
from lab.records import TestResultRow
from lab.report import write_report
from lab.report_group import ask, read_groups
from lab.store import Store
from tests.small_sense import CURVE, LEMMAS, STEPS, Invented, made, record_sense
from tests.test_report import Page
from tests.test_report_chromium import CHROMIUM, FRAMES, HOST, LIGHT, look, with_probe

TOLD = Invented()
FAILED = Invented(failed={("C", 123): "not trained: out of memory"})


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_sense(lab, TOLD)
    return lab


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_sense(lab, FAILED)
    return lab


@pytest.fixture(scope="module")
def source(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(lab, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def written(lab: Store, directory: Path) -> str:
    return write_report(lab, directory / "report.html").read_text(encoding="utf-8")


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def ends(low: float, high: float) -> str:
    return f"[{signed(low)}, {signed(high)}]"


def part(page: Page, head: str, following: str) -> str:
    """What stands from one heading of the section to the next."""
    text = page.text[page.text.index("Predicted before") :]
    start = text.index(head)
    return text[start : text.index(following, start)]


def rows_of(lab: Store, what: str) -> list[dict[str, Any]]:
    return lab.read(f"SELECT * FROM test WHERE {what}").to_dicts()


def test_each_contrast_stands_with_its_numbers_and_what_would_change_it(lab: Store, page: Page) -> None:
    said = part(page, "Contrasts of conditions", "SELECT")
    found = rows_of(lab, "family = 'sense_scaling' AND role = 'decides'")
    assert len(found) == 3
    for row in found:
        name = row["contrast"].replace("-", " − ")
        numbers = signed(row["estimate"]) + ends(row["low"], row["high"])
        assert re.search(rf"{name}\S+ {row['verdict']}{re.escape(numbers)}", said), name
    unsettled = [row for row in found if row["verdict"] == "INCONCLUSIVE"]
    assert unsettled
    for row in unsettled:
        assert f"this design finds {row['mde']:.3f}" in said
    assert "an interval that includes 0 on other seeds or lemmas" in said


def test_a_condition_that_fails_says_what_it_reached_and_what_it_lacks(lab: Store, page: Page) -> None:
    said = part(page, "What may ship", "Blockers by condition")
    for condition in "ABC":
        [verdict] = rows_of(lab, f"family = 'ship' AND hypothesis = 'ship' AND contrast = '{condition}'")
        reached = {
            row["metric"]: row
            for row in rows_of(
                lab, f"family = 'ship' AND hypothesis = 'threshold' AND contrast = '{condition}'"
            )
        }
        assert f"{condition} does not ship: {verdict['reason']}." in said or verdict["verdict"] == "DETECTED"
        top1 = reached["top1"]
        assert f"top1 {top1['estimate']:.3f} of {top1['margin']}" in said
        for row in reached.values():
            if row["verdict"] == "INCONCLUSIVE":
                assert f"{row['margin'] - row['estimate']:.3f} of {row['metric']}" in said


def test_of_several_baselines_the_one_that_is_beaten_by_least_stands_in_the_table(
    lab: Store, page: Page
) -> None:
    said = part(page, "Blockers by condition", "SELECT")
    beaten = rows_of(lab, "family = 'ship' AND hypothesis = 'better_than_baseline' AND metric = 'top1' "
                          "AND starts_with(contrast, 'B-')")  # fmt: skip
    worst = min(beaten, key=lambda row: (row["verdict"] == "DETECTED", row["low"]))
    name = worst["contrast"].removeprefix("B-")
    numbers = signed(worst["estimate"]) + ends(worst["low"], worst["high"])
    assert f"top1: beats every baseline, worst ({name})" in said
    assert numbers in said


def test_coherence_of_every_scorer_stands_beside_that_of_the_ceiling(lab: Store, page: Page) -> None:
    said = part(page, "Every scorer on the same test items", "SELECT")
    for condition in "ABC":
        mean = float(made(condition, TOLD.seeds).steps.sum()) / (3 * 2 * LEMMAS * STEPS)
        assert f"{mean:.3f}" in said
        share = f"{mean / (2.6 / 3):.1%}".replace("%", " %")
        assert share in said
    for name in ("lemma only", "word jaccard", "mean pooling", "topics known"):
        assert name in said


def test_the_items_that_every_seed_fails_are_named_the_worst_first(page: Page) -> None:
    ranks, margin = made("B", TOLD.seeds).ranks, made("B", TOLD.seeds).margin.mean(axis=0)
    lost = [at for at in range(ranks.shape[1]) if (ranks[:, at] > 3).all()]
    assert {5, 11} <= set(lost)
    worst = sorted(lost, key=lambda at: margin[at])[:8]
    said = part(page, "Of those, the 8 lost by the most", "SELECT")
    assert re.findall(r"item (\d+)(?=\d[a-z])", said) == [str(at) for at in worst]


def test_killers_oversampling_and_the_earlier_rule_stand_with_their_numbers(lab: Store, page: Page) -> None:
    killers = part(page, "Killers answered", "SELECT")
    for row in rows_of(lab, "family = 'killers' AND role = 'diagnostic' AND contrast = 'B:seed 42'"):
        assert f"[{row['low']:.3f}, {row['high']:.3f}]" in killers
    [flat] = rows_of(lab, "family = 'oversampling' AND role = 'decides'")
    parts = part(page, "Parts by themselves", "SELECT")
    assert (
        f"B − B-flat○ {flat['verdict']}{signed(flat['estimate'])}{ends(flat['low'], flat['high'])}" in parts
    )
    earlier = part(page, "The earlier rule", "SELECT")
    for row in rows_of(lab, "family = 'legacy_sense'"):
        assert f"{signed(row['estimate'])}{ends(row['low'], row['high'])}" in earlier
        assert row["reason"] in earlier


def test_thresholds_calibrated_and_published_stand_with_precision_and_recall(page: Page) -> None:
    said = part(page, "Verification by the heads of B", "SELECT")
    assert "calibratedcosine0.100[0.000, 0.200]3" in said
    assert "calibratedrecall0.820[0.800, 0.840]3" in said
    assert "publishedcosine0.500[0.500, 0.500]3" in said
    assert "rocauc gap0.950" in said


def test_the_curve_says_at_how_many_sizes_its_law_misses(lab: Store, page: Page) -> None:
    said = part(page, "How much data", "SELECT")
    [twice] = rows_of(lab, "hypothesis = 'doubling'")
    assert f"Twice the data would add {signed(twice['estimate'])} {ends(twice['low'], twice['high'])}" in said
    rows = part(page, "top1 of B cut to fewer senses", "SELECT")
    missed = len(re.findall(r"no3(?=B-|power)", rows))
    told = f"The law lies outside the interval at {missed} of {len(CURVE)} sizes"
    assert (told in said) == (missed > 0)


def test_a_verdict_that_is_edited_changes_the_section(lab: Store, tmp_path: Path) -> None:
    shutil.copytree(lab.home, tmp_path / "home")
    lab = Store(tmp_path / "home")
    [found] = rows_of(lab, "family = 'sense_scaling' AND role = 'decides' AND contrast = 'C-B'")
    lab.record([TestResultRow(**(found | {"verdict": "EQUIVALENT", "estimate": -0.2}))])
    [group] = read_groups(lab)
    said = Page(report_sense.contrasts(lambda sql: ask(lab, sql, group.parameters))).text
    assert "C − B≈ EQUIVALENT−0.200" in said
    assert "a difference beyond 0.02 on other seeds or lemmas" in said


def test_a_run_that_broke_off_says_why_and_shows_the_conditions_that_it_has(
    broken: Store, tmp_path: Path
) -> None:
    page = Page(written(broken, tmp_path))
    said = part(page, "Do more, harder or enriched data help", "Decision path")
    assert "seed 123: not trained: out of memory" in said
    assert "an answer at all: " in said
    for head in ("What may ship", "How much data", "By the rule of an earlier study"):
        assert head not in page.text
    assert (page.open, page.wrong) == ([], [])


def test_the_views_say_what_each_head_reached_and_what_each_blocker_found(lab: Store, broken: Store) -> None:
    heads = lab.read("SELECT * FROM sense_scaling WHERE arm = 'B' AND split = 'test' ORDER BY seed")
    assert heads["top1"].to_list() == pytest.approx((made("B", (42, 123, 456)).ranks == 1).mean(axis=1))
    assert heads["reason"].null_count() == 3
    blockers = lab.read("SELECT condition, split FROM ship_blockers WHERE blocker = 'ship'")
    assert set(blockers.rows()) == {
        ("A", "test"), ("B", "test"), ("C", "test"), ("C-halved", "dev"), ("C-raised", "dev")
    }  # fmt: skip
    [tier1] = lab.read(
        "SELECT against, threshold, asks FROM ship_blockers WHERE blocker = 'tier1_non_inferior' "
        "AND condition = 'C-halved'"
    ).rows()
    assert tier1 == ("A", -0.02, "low above")
    lost = broken.read("SELECT arm, seed, split, top1, reason FROM sense_scaling WHERE reason IS NOT NULL")
    assert lost.rows() == [("C", 123, None, None, "not trained: out of memory")]


def test_the_page_is_well_formed_and_its_queries_answer_as_they_stand(
    lab: Store, source: str, page: Page
) -> None:
    assert (page.open, page.wrong) == ([], [])
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    found = [html.unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)]
    assert len(found) > 20
    assert not any("$plan" in query or "$study" in query for query in found)
    empty = [query for query in dict.fromkeys(found) if lab.read(query).height == 0]
    assert len(empty) <= 1, empty  # no deviations


@pytest.mark.slow
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
