"""The report says what the store holds: verdicts, numbers, queries, and nothing that a text smuggles in."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import html
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab import report_queries as queries
from lab.chart_style import PALETTE
from lab.errors import UsageError
from lab.records import MetricRow, TestResultRow
from lab.report import write_report
from lab.report_glance import _change
from lab.report_group import ask, read_groups
from lab.report_tree import draw_tree, exits
from lab.store import Store
from tests.small_study import GATES, MODEL, STUDY, record_study, small_plan

VOID = {"meta", "br", "link", "input", "img", "hr"}


class Page(HTMLParser):
    """Tags that do not close, ids, links, and the words a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.addresses += [found[name] or "" for name in ("src", "href", "xlink:href") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A study under its plan, then under a changed one in which TRNG differs."""
    lab = Store(tmp_path_factory.mktemp("lab"))
    plan = record_study(lab)
    record_study(lab, declared=plan, shift=0.8)
    return lab


@pytest.fixture(scope="module")
def source(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(lab, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def unpacked(chart: str) -> str:
    """The specification that the page draws again."""
    [packed] = re.findall(r'<script type="text/plain">(.*?)</script>', chart)
    return gzip.decompress(base64.b64decode(packed)).decode()


def written(lab: Store, tmp_path: Path) -> Page:
    return Page(write_report(lab, tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_well_formed_with_unique_ids_and_links_only_into_itself(page: Page) -> None:
    assert (page.open, page.wrong) == ([], [])
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert page.addresses
    assert [a for a in page.addresses if not (a.startswith("#") and a[1:] in page.ids)] == []
    assert page.tags["link"] == page.tags["img"] == page.tags["iframe"] == 0


def test_nothing_outside_the_packed_vega_names_an_address_on_the_network(source: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<>]+", source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in source


def test_every_decision_stands_in_the_page_with_its_verdict_and_sentence(lab: Store, page: Page) -> None:
    path = lab.read("SELECT gate, verdict, sentence, exploratory FROM decision_path").to_dicts()
    assert len(path) == 15 + 5
    rows = [group.standing for group in read_groups(lab)]
    for step in (step for standing in rows for step in standing):
        assert str(step["sentence"]) in page.text
    assert page.text.count("exploratory") > sum(step["exploratory"] for step in path)


def test_the_first_answer_is_the_studys_own_with_effect_interval_and_n(lab: Store, page: Page) -> None:
    [row] = lab.read(
        "SELECT effect, low, high, n, reason FROM look_test JOIN plan USING (plan_hash) "
        "WHERE family = 'seed_effect' AND role = 'verdict' AND is_last_look AND plan.frozen"
    ).to_dicts()
    shown = f"effect {row['effect']:+.2f} SD, 95.29 % interval [{row['low']:+.2f}, {row['high']:+.2f}]"
    first = page.text[page.text.index("Next: direct_injection.") :]
    assert shown.replace("-", "−") in first[:300]
    assert f"n = {row['n']}" in first[:300]
    assert f"What would change our mind: {row['reason']}." in first[:600]


def test_a_changed_plan_is_marked_and_each_field_it_departs_in_is_listed(page: Page) -> None:
    assert page.text.count("changed plan") >= 3
    section = page.text[page.text.rindex("Deviations from the plan") :]
    assert re.search(r"design\.temperature\s*0\.7\s*0\.9", section)
    assert "design.top_k" not in section[: section.index("Runs and environment")]


def test_findings_and_nulls_stand_in_one_table(lab: Store, page: Page) -> None:
    rows = lab.read("SELECT metric, contrast, effect FROM contrast_effects WHERE is_last_look").to_dicts()
    assert len(rows) == 2 * (15 + 6)
    for row in rows:
        effect = f"{row['effect']:+.2f}" if abs(row["effect"]) >= 0.005 else "0.00"
        assert f"{row['metric']}{row['contrast'].replace('-', ' − ')}{effect.replace('-', '−')}" in page.text


def test_what_does_not_decide_is_labelled_so(page: Page) -> None:
    assert "so it decides nothing" in page.text
    assert "Observed power is a function of p alone. None of it decides." in page.text
    assert "maximal" in page.text or "prompt:source" in page.text


def test_missing_texts_are_counted_by_arm_with_their_reasons(lab: Store, page: Page) -> None:
    assert re.search(r"PRNG\s*192\s*0\s*3\s*1\.6 %", page.text)
    assert re.search(r"TRNG\s*192\s*4\s*0\s*2\.1 %", page.text)
    assert "timeout after 180 s" in page.text


def test_runs_show_commit_state_seconds_and_versions(page: Page) -> None:
    for words in ("0123456789ab", "uncommitted changes", "completed", "12 min 0 s", "duckdb 2.0.0", "a CPU"):
        assert words in page.text


def test_the_printed_queries_answer_as_they_stand(lab: Store, source: str) -> None:
    found = [html.unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)]
    assert len(found) >= 25
    assert not any("$" in query for query in found)
    heights = [lab.read(query).height for query in dict.fromkeys(found)]
    assert sum(height > 0 for height in heights) >= len(heights) - 2  # no deviations, nothing refused


def test_every_chart_is_a_still_with_a_title_and_a_specification_with_the_same_rows(source: str) -> None:
    charts = re.findall(r'<figure data-chart="still">(.*?)</figure>', source, re.DOTALL)
    assert len(charts) == 2 * 6 + 2
    for chart in charts:
        assert re.search(r'<svg[^>]* role="img"><title>[^<]{20,}</title>', chart)
        data = json.loads(unpacked(chart))
        assert data["datasets"]
        assert "$schema" not in data


def test_chart_colours_are_variables_that_the_style_sheet_sets_for_light_and_dark(source: str) -> None:
    found = re.findall(r"<figure .*?</figure>", source, re.DOTALL)
    charts = "".join(found) + "".join(map(unpacked, found))
    assert not re.search("#[0-9a-f]{6}", charts)
    used = set(re.findall(r"var\(--([a-z]+)\)", charts))
    assert used <= set(PALETTE)
    for name in PALETTE:
        assert len(re.findall(rf"--{name}: #", source)) == 2
        assert f"--{name}: {PALETTE[name]}" in source


def test_text_from_the_store_cannot_become_markup(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(4,), prompts=4, question="<script>alert('q')</script> & \"quoted\"")
    row = TestResultRow(
        step_id=lab.read("SELECT step_id FROM test LIMIT 1").item(), study=STUDY, model=MODEL, look=4,
        family="seed_effect", hypothesis="pairwise", metric="</script><img src=x onerror=alert(1)>",
        contrast="A-B", method="<b>m", role="decides", estimate=1.0, low=0.5, high=1.5, effect=0.5,
        statistic=None, df1=None, df2=None, p=0.1, p_adjusted=0.1, alpha=0.05, margin=0.2, n=5, power=None,
        mde=None, n_to_settle=None, verdict=None, negligible=None, reason=None,
    )  # fmt: skip
    lab.record([row])
    page = written(lab, tmp_path)
    assert "<script>alert('q')</script> & \"quoted\"" in page.text
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert page.tags["img"] == page.tags["b"] == 0
    assert (page.open, page.wrong) == ([], [])


def test_an_undefined_answer_shows_its_reason_and_no_number(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(4,), prompts=4)
    [row] = lab.read(
        "SELECT * EXCLUDE (profile, plan_hash, is_last_look) FROM look_test WHERE hypothesis = 'pairwise' "
        "AND family = 'seed_effect' AND metric = 'mtld' AND contrast = 'HMIX-PRNG'"
    ).to_dicts()
    numbers = "estimate low high effect statistic p p_adjusted power mde"
    empty = dict.fromkeys(numbers.split())
    lab.record([TestResultRow(**(row | empty | {"reason": "no text has a factor"}))])
    page = written(lab, tmp_path)
    assert re.search(r"mtldHMIX − PRNG–––[^m]{0,12}no text has a factor", page.text)


def test_an_empty_store_gives_a_page_that_says_what_to_run(tmp_path: Path) -> None:
    page = written(Store(tmp_path / "none"), tmp_path)
    assert "ladder run entropy_seeds" in page.text
    assert page.tags["script"] == 0
    assert not (tmp_path / "none").exists()


def test_a_run_without_decisions_is_on_the_page(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(), prompts=0)
    page = written(lab, tmp_path)
    assert "No gate was asked yet." in page.text
    assert "Runs and environment" in page.text
    assert "Contrasts at the last look" not in page.text  # a figure without rows is left out


def test_refused_batches_and_undefined_metrics_are_counted(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(4,), prompts=2)
    lab.record(
        [MetricRow(step_id="cell", unit="*", name="mtld", value=None, reason="no factor")], drain=False
    )
    [path] = lab.outbox.waiting()
    path.write_bytes(b"torn")
    lab.record([MetricRow(step_id="cell", unit="*", name="mtld", value=None, reason="no factor")])
    page = written(lab, tmp_path)
    assert path.stem in page.text
    assert "metric values without a number, each with its reason1" in page.text


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    (tmp_path / "report.html.tmp").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*report\.html"):
        write_report(Store(tmp_path / "none"), out)
    assert out.read_text() == "old"


def test_a_report_is_no_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    with pytest.raises(UsageError, match=r"pages is a folder; name the file: .*pages/report\.html"):
        write_report(Store(tmp_path / "none"), tmp_path / "pages")
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_importing_the_report_imports_neither_altair_nor_vega() -> None:
    code = (
        "import sys, lab.report; print([m for m in ('altair', 'vl_convert', 'duckdb') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['duckdb']"


# --- the tree ---------------------------------------------------------------------------------------


def step(
    gate: str, look: int, verdict: str, to: str, *, negligible: bool = False, exploratory: bool = False
) -> dict[str, object]:
    told: dict[str, object] = {"gate": gate, "look": look, "verdict": verdict, "next": to}
    return told | {"negligible": negligible, "exploratory": exploratory}


def gates_of(plan_text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(plan_text)["gates"]
    return found


def test_the_exits_of_a_gate_carry_the_looks_at_which_they_were_taken(lab: Store) -> None:
    gate = gates_of(lab.read("SELECT text FROM plan WHERE frozen").item())[-1]
    path = [
        step("seed_effect", 4, "INCONCLUSIVE", "next_look"),
        step("seed_effect", 8, "INCONCLUSIVE", "next_look"),
        step("seed_effect", 16, "DETECTED", "direct_injection", negligible=True),
    ]
    taken = [(x.verdict, x.when, x.to, x.looks) for x in exits(gate, path) if x.looks]
    assert taken == [
        ("DETECTED", "when negligible", "direct_injection", (16,)),
        ("INCONCLUSIVE", "", "next_look", (4, 8)),
    ]


def test_a_look_that_only_exploratory_decisions_took_has_a_star(lab: Store) -> None:
    gates = gates_of(lab.read("SELECT text FROM plan WHERE frozen").item())
    last = gates[-1]["name"]
    assert isinstance(last, str)
    path = [
        step(last, 4, "INCONCLUSIVE", "next_look", exploratory=True),
        step(last, 4, "INCONCLUSIVE", "next_look"),
        step(last, 20, "INCONCLUSIVE", "next_look", exploratory=True),
    ]
    [way] = [x for x in exits(gates[-1], path) if x.looks]
    assert (way.looks, way.explored) == ((4, 20), (20,))
    assert "next look (4, 20*)" in draw_tree(gates, path, name="t")


def test_the_tree_draws_every_gate_and_marks_only_what_was_taken(lab: Store) -> None:
    gates = gates_of(lab.read("SELECT text FROM plan WHERE frozen").item())
    path = [step("positive_control", 4, "DETECTED", "a_a"), step("a_a", 4, "INVALID", "stop")]
    drawing = draw_tree(gates, path, name="t")
    assert [gate.name for gate in GATES if f">{gate.name}</text>" not in drawing] == []
    assert drawing.count('class="exit taken') == 2
    assert drawing.count('class="spine on"') == 1
    assert drawing.count('class="rail on"') == 0
    assert "positive_control at look 4: DETECTED, then a_a; a_a at look 4: INVALID, then stop" in drawing


def test_a_plan_of_another_study_needs_no_change_here(tmp_path: Path) -> None:
    lab = Store(tmp_path / "home")
    record_study(lab, looks=(4,), prompts=2)
    [group] = read_groups(lab)
    assert group.family == "seed_effect"
    other = dataclasses.replace(group, gates=[{"name": "rung_effect"}], verdicts={})
    assert other.parameters["family"] == "rung_effect"
    found = ask(lab, queries.EFFECTS, {**group.parameters, "family": "rung_effect"})
    assert found.rows == []
    assert "'rung_effect'" in found.sql
    assert small_plan().gates == GATES


def test_an_open_answer_says_what_would_settle_it_where_only_its_gate_knows(lab: Store) -> None:
    group = read_groups(lab)[0]
    step = {"verdict": "INCONCLUSIVE", "gate": "seed_effect", "look": 4, "negligible": False}
    told = {"margin": 0.2, "what_settles": "about 67 prompts would settle it"}
    assert _change(step, told, group) == "about 67 prompts would settle it."
    assert _change(step, {**told, "reason": "too few prompts"}, group) == "too few prompts."
    assert _change(step, {}, group).endswith("how many is not known.")
