"""The report on placed ranks: scenario, contrasts and arms are those of the stored rows."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import report_mechanism
from lab.records import TestResultRow
from lab.report import write_report
from lab.report_group import ask, read_groups
from lab.store import Store
from tests.small_mechanism import Invented, record_mechanism
from tests.test_figures_mechanism import FAILED, TOLD, accuracies
from tests.test_report import Page
from tests.test_report_chromium import CHROMIUM, FRAMES, HOST, LIGHT, look, with_probe

DECIDES = "SELECT * FROM look_test WHERE family = 'mechanism' AND role = 'decides'"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_mechanism(lab, TOLD)
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
    return f"{value:+.4f}".replace("-", "−")


def ends(low: float, high: float) -> str:
    return f"[{signed(low)}, {signed(high)}]"


def part(page: Page, head: str, following: str) -> str:
    """What stands from one heading of the section to the next."""
    text = page.text[page.text.index("Predicted before") :]
    start = text.index(head)
    return text[start : text.index(following, start)]


def rewritten(lab: Store, contrast: str, **changes: Any) -> TestResultRow:
    """A deciding row with other values; the same key, so it replaces what is stored."""
    [found] = lab.read(
        f"{DECIDES.replace('*', '* EXCLUDE (profile, plan_hash, is_last_look)')} AND contrast = $contrast",
        {"contrast": contrast},
    ).to_dicts()
    return TestResultRow(**(found | changes))


def test_the_scenario_stands_with_effect_interval_n_and_what_would_settle_it(lab: Store, page: Page) -> None:
    [main] = lab.read(f"{DECIDES} AND contrast = 'per_layer-shuffled_within'").to_dicts()
    [ending] = lab.read("SELECT * FROM look_test WHERE hypothesis = 'scenario'").to_dicts()
    said = part(page, "Scenario", "SELECT")
    assert f"{ending['verdict']} {ending['contrast'].capitalize()}. {ending['method']}." in said
    assert (
        f"Placed minus shuffled within projections: {signed(main['estimate'])} of the items, 95 % interval "
        f"{ends(main['low'], main['high'])}, 3 seeds, p {main['p']:.3f}, adjusted {main['p_adjusted']:.3f}, "
    ) in said
    assert f"finds a difference of {main['mde']:.4f} with 80 % power" in said
    assert f"About {main['n_to_settle']} seeds would settle it." in said
    assert "alpha 0.05 over looks at 3 seeds." in page.text


def test_every_declared_contrast_stands_with_its_numbers_and_its_equivalence_test(
    lab: Store, page: Page
) -> None:
    rows = lab.read(DECIDES).to_dicts()
    tost = lab.read("SELECT * FROM look_test WHERE family = 'mechanism' AND role = 'equivalence'").to_dicts()
    by_contrast = {row["contrast"]: row for row in tost}
    said = part(page, "Declared contrasts", "SELECT")
    assert len(rows) == 6
    for row in rows:
        name = row["contrast"].replace("-", " − ")
        numbers = (
            f"{signed(row['estimate'])}{ends(row['low'], row['high'])}{row['p']:.3f}{row['p_adjusted']:.3f}"
        )
        equal = by_contrast.get(row["contrast"])
        also = f"{equal['p']:.3f}{ends(equal['low'], equal['high'])}" if equal else "––"
        assert re.search(rf"{name}\S+ {row['verdict']}{re.escape(numbers + also)}", said), row["contrast"]


def test_an_arm_stands_with_mean_sd_budget_and_distance_from_the_placement(page: Page) -> None:
    said = part(page, "Arms: share of items right", "SELECT")
    found = accuracies(TOLD)
    for kind, values in found.items():
        mean, sd = np.mean(values), np.std(values, ddof=1)
        apart = signed(float(np.mean(found["per_layer"]) - mean)) if kind != "per_layer" else "–"
        [row] = re.findall(rf"{kind}(0\.\S+ \(.*?\)) ?\[.*?\].*?([−+]0\.\d{{4}}|–)3", said)
        assert row[0] == f"{mean:.4f} ({sd:.4f})", kind
        assert row[1] == apart, kind
    assert re.search(r"base0\.0900–0\.0900", said)


def test_the_earlier_rule_stands_beside_with_both_sizes_of_effect(lab: Store, page: Page) -> None:
    rows = lab.read("SELECT * FROM look_test WHERE family = 'mechanism' AND role = 'legacy'").to_dicts()
    of = {row["hypothesis"]: row for row in rows}
    said = part(page, "By the rule of an earlier study", "SELECT")
    assert said.startswith(
        f"By the rule of an earlier study, on the same answers: {of['legacy_scenario']['reason']}."
    )
    for name in ("superiority", "mechanism"):
        sizes = (of[f"{name}_d_pooled"]["estimate"], of[f"{name}_d_z"]["estimate"])
        shown = "".join(f"{size:+.2f}".replace("-", "−") for size in sizes)
        assert f"{of[name]['p']:.3f}{shown}does not hold" in said, name
    assert "> 0.02, p < 0.05, d pooled > 0.5" in said


def test_checks_audits_and_spread_are_those_of_the_rows(lab: Store, page: Page) -> None:
    checks = part(page, "Checks before any comparison", "SELECT")
    assert re.findall(r"(probe|controls|fair)◆ DETECTED", checks) == ["probe", "controls", "fair"]
    alike = lab.read(
        "SELECT max(estimate) FROM look_test WHERE family = 'controls' AND contrast LIKE 'shuffled%'"
    ).item()
    assert f"{alike:.1%}".replace("%", " %") in checks
    audits = part(page, "By kind and projection", "By layer")
    share = lab.read(
        "SELECT avg(value) FROM metric WHERE unit = 'kind/attention' AND name = 'gain_share'"
    ).item()
    assert re.search(rf"attention.*?{share:.1%}".replace("%", " %"), audits)
    spread = part(page, "Spread and reach", "SELECT")
    [sd] = lab.read(
        "SELECT estimate FROM look_test WHERE hypothesis = 'sd_shuffle' AND contrast LIKE '%_within'"
    )["estimate"].to_list()
    assert f"{sd:.4f}" in spread
    assert spread.count("1 control a seed") == 5


def test_a_verdict_that_is_edited_changes_the_section(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_mechanism(lab, Invented(seeds=(42, 43), kinds=("shuffled_within",), shuffles=2))
    row = rewritten(
        lab, "per_layer-shuffled_within", verdict="DETECTED", estimate=-0.2, low=-0.3, high=-0.1, reason=None
    )
    lab.record([row])
    [group] = read_groups(lab)
    said = Page(dict(report_mechanism.answers(lambda sql: ask(lab, sql, group.parameters)))["Scenario"]).text
    assert "−0.2000 of the items, 95 % interval [−0.3000, −0.1000]" in said
    assert "◆ DETECTED; the margin is ±0.01." in said
    assert "sign flips reach" not in said


def test_a_run_that_broke_off_says_why_and_shows_the_arms_that_it_has(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_mechanism(lab, FAILED)
    page = Page(written(lab, tmp_path))
    assert "None yet: arms were not compared. fair: The arms may not be compared: " in page.text
    said = part(page, "Arms: share of items right", "SELECT")
    assert "uniform_equal" in said
    assert "seed 43: not trained: out of memory" in said
    for head in ("Placed ranks against each control", "What varies", "By the rule of an earlier study"):
        assert head not in page.text
    assert (page.open, page.wrong) == ([], [])


def test_the_page_is_well_formed_and_its_queries_answer_as_they_stand(
    lab: Store, source: str, page: Page
) -> None:
    assert (page.open, page.wrong) == ([], [])
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    found = [html.unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)]
    assert len(found) > 15
    assert not any("$plan" in query or "$study" in query for query in found)
    empty = [query for query in dict.fromkeys(found) if lab.read(query).height == 0]
    assert len(empty) <= 1, empty  # no deviations
    for words in ("samples a cell", " SD,", "Missing and excluded", "between sources", "Omnibus"):
        assert (
            words not in page.text[page.text.index("Predicted before") : page.text.rindex("Seeds and data")]
        )


def test_the_first_page_shows_sizes_to_a_hundredth_of_the_margin_and_of_checks_only_n(
    lab: Store, page: Page
) -> None:
    [main] = lab.read(f"{DECIDES} AND contrast = 'per_layer-shuffled_within'").to_dicts()
    glance = page.text[: page.text.index("Predicted before")]
    rests = (
        f"estimate {signed(main['estimate'])} share of items, 95 % interval {ends(main['low'], main['high'])}"
    )
    settles = f"What would change our mind: {main['n_to_settle']} seeds would settle it; there are 3."
    assert glance.count(rests) == glance.count(settles) == 2  # placement and scenario
    assert (
        glance.count("n = 3What would change our mind: a check that fails in a run of the same plan on") == 3
    )


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
        assert seen[name]["drawn"] == [1] * 6
        assert seen[name]["live"] == (0 if name == "still" else 6)
        assert seen[name]["smallest"] >= 11
    assert seen["console"] == []
