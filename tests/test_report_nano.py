"""The report on the nanodesmo study: what it says is in the rows, and `verify` sees what is missing."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lab import nano_verify, report_nano, report_nano_parts
from lab import report_queries_nano as nano
from lab.checks import Check
from lab.nano_exports import EXPORTS
from lab.nano_figures import is_newest
from lab.nano_verify import named_figures, verify
from lab.records import TestResultRow
from lab.report import write_report
from lab.report_figures import own_figures, write_figures
from lab.report_group import Asked, ask, read_groups
from lab.store import Store
from tests.small_nano import NO_SECOND, START, Invented, analyses, frozen_seed, record_nano
from tests.test_report import Page
from tests.test_report_chromium import CHROMIUM, FRAMES, HOST, LIGHT, look, with_probe

TOLD = Invented()
SHORT = Invented(seeds=(0, 1), second=False, failed={("mem-buf-l32", 1): "not trained: out of memory"})
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_nano(lab, TOLD)
    return lab


@pytest.fixture(scope="module")
def source(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(lab, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("short"))
    record_nano(lab, SHORT)
    return lab


def part(page: Page, head: str, following: str) -> str:
    """What stands from one heading of the section to the next."""
    text = page.text[page.text.index("Predicted before") :]
    start = text.index(head)
    return text[start : text.index(following, start)]


def minus(value: float | None, digits: int) -> str:
    assert value is not None
    return f"{value:+.{digits}f}".replace("-", "−")


def rows_of(lab: Store, what: str) -> list[dict[str, Any]]:
    return lab.read(f"SELECT * FROM test WHERE {what}").to_dicts()


def test_the_frozen_test_is_told_with_rotations_p_by_seed_and_the_earlier_criterion(
    lab: Store, page: Page
) -> None:
    said = part(page, "Does the state move predictions", "Do regimes leave")
    [verdict] = rows_of(
        lab, "family = 'leverage' AND role = 'verdict' AND step_id LIKE 'analyse-frozen_core%'"
    )
    assert verdict["verdict"] == "DETECTED"
    assert "◆ DETECTED Between the states" in said
    null = sum(frozen_seed("self-analysis", s).null_nats.mean() for s in TOLD.seeds) / len(TOLD.seeds)
    assert (
        f"entropy differs by 0.390 nats, mean of 5 seeds; through rotated injections by {null:.4f}"[:72]
        in said
    )
    ends = f"[{minus(verdict['low'], 4)}, {minus(verdict['high'], 4)}]"
    assert f"Beyond them: {minus(verdict['estimate'], 4)} {ends} nats" in said
    assert "The earlier criterion, an effect above 0.3, is met by 5 of 5 seeds." in said
    assert "Rotated injections pass it" not in said
    for seed in TOLD.seeds:
        assert f"self-analysisseed {seed}{0.35 + 0.02 * seed:.3f}0.005199" in said
    assert "zeroself-analysis3.220" in said


def test_rotations_that_pass_the_earlier_criterion_are_said_to(lab: Store) -> None:
    [group] = read_groups(lab)
    rows = rows_of(lab, "family = 'leverage' AND contrast = 'self-analysis' AND hypothesis = 'published'")
    told = [TestResultRow(**{**row, "estimate": row["estimate"] + 0.4}) for row in rows]
    kept = [TestResultRow(**row) for row in rows]
    lab.record(told)
    said = Page(report_nano.frozen(lambda sql: ask(lab, sql, group.parameters), "main")).text
    lab.record(kept)
    assert "Rotated injections pass it on average" in said


def test_signatures_stand_by_regime_and_false_feedback_is_said_to_be_what_it_is(
    lab: Store, page: Page
) -> None:
    said = part(page, "Do regimes leave signatures", "Does a memory change")
    found = {(r.contrast, r.hypothesis): r for r in analyses(TOLD)["core"] if r.family == "separability"}
    for regime in ("bewilderment", "false_feedback"):
        verdict = found[regime, "signature"].verdict
        both, null = found[regime, "common_state"], found[regime, "shuffled"]
        assert re.search(rf"{regime}\S+ {verdict}{both.estimate:.3f}", said), regime
        assert f"[{null.low:.3f}, {null.high:.3f}]" in said
        for name, words in (("step", "step"), ("step_before", "step, against before"), ("state", "state")):
            assert f"{regime}{words}{found[regime, name].estimate:.3f}" in said
    assert "false_feedback falsifies only the copy of the loss" in said
    state = found["false_feedback", "state"].estimate
    assert f"by common channels, {state:.3f} by the state." in said
    assert "Which regime is taken for which; chance is 1 in 3" in said


def test_each_regime_says_which_channels_it_moves(page: Page) -> None:
    said = part(page, "What regimes move", "States put in the place")
    found = [
        r for r in analyses(TOLD)["core"] if r.family == "regime_deltas" and r.hypothesis == "against_twin"
    ]
    sure = [r for r in found if r.contrast == "bewilderment" and (r.p_adjusted or 1.0) <= 0.05]
    assert {row.metric for row in sure} == {"loss_nats", "entropy_nats", "self_norm"}
    assert (
        "bewilderment against its twin moves loss, nats, entropy, nats, norm of s after Holm, of 11" in said
    )
    assert "false_feedback against its twin moves change of s after Holm, of 11" in said


def test_memory_and_controls_stand_with_their_verdicts_and_differences(lab: Store, page: Page) -> None:
    for family, head, following in (
        ("memory", "Does a memory change", "Does the state beat"),
        ("controls", "Does the state beat", "Decision path"),
    ):
        said = part(page, head, following)
        [verdict] = rows_of(lab, f"family = '{family}' AND role = 'verdict'")
        assert f"{verdict['verdict']} " in said
        for row in rows_of(lab, f"family = '{family}' AND role = 'decides'"):
            name = row["contrast"].removesuffix("-self-analysis").removeprefix("self-regimes-")
            numbers = f"{minus(row['estimate'], 4)}[{minus(row['low'], 4)}, {minus(row['high'], 4)}]"
            assert re.search(rf"{name}\S+ {row['verdict']}(?: negligible)?{re.escape(numbers)}", said), name
        assert "The largest difference, " in said


def test_swaps_lags_alarms_composites_and_probes_have_their_numbers(page: Page) -> None:
    swap = part(page, "States put in the place", "State effect against loss")
    assert "With weights fixed, another state costs, in nats: foreign" in swap
    lags = part(page, "State effect against loss", "Composite metrics")
    assert "Of 14 lags 1 differ from 0 after Holm over the lags of a channel" in lags
    assert "loss, nats at lag +2: +0.500." in lags  # +3 leaves the band, and p after Holm is 1
    assert "loss, nats+3+0.3500.0301.000[−0.300, +0.300]" in lags
    assert (
        "more than 3 SD above the mean of the clean steps before; top-1 probability more than 3 SD below"
        in lags
    )
    assert "loss, nats0.700" in lags
    composite = part(page, "Composite metrics", "What the state holds")
    assert "bewilderment −2.00 [−2.20, −1.80]" in composite
    assert "minus the clean steps right before" in composite
    for part_of in ("R", "R_z", "kappa_z"):
        assert f"bewilderment{part_of}−2.000" in composite
    held = part(page, "What the state holds", "On a second text")
    assert "effective rank of 4.50 [4.30, 4.70]" in held
    assert "correlates +0.80 [+0.60, +1.00] with the step" in held
    assert "entropy, nats+0.60[+0.40, +0.80]−0.10+0.10−0.200.0300.0903" in held
    assert "targets of other seeds" in held
    assert "p is the larger of theirs" in held
    assert re.search(r"rank in its seed.*10\.400–3", held)


def test_the_second_text_has_its_own_numbers(page: Page) -> None:
    said = part(page, "On a second text", "Held-out loss")
    assert "self-analysisseed 00.1750.005" in said
    first = part(page, "Does the state move predictions", "Do regimes leave")
    assert "self-analysisseed 00.3500.005" in first


def test_lags_probes_composites_and_alarms_of_the_second_text_are_a_table(lab: Store, page: Page) -> None:
    [group] = [one for one in read_groups(lab) if is_newest(lab, one)]
    rows = ask(lab, nano.SECOND_STATE, group.parameters).rows
    of = {row["what"]: row for row in rows}
    lag = of["state effect with loss_nats, strongest at lag 2"]
    assert (lag["estimate"], lag["low"], lag["note"]) == (0.5, None, "1 of 7 lags differ from 0")
    probe = of["linear probe of entropy_nats"]
    assert (probe["estimate"], probe["note"]) == (0.6, "shifted targets -0.1")
    assert {"valence inside bewilderment − before", "alarm on loss_nats, precision"} <= set(of)
    assert len(rows) == 2 + 3 + 2 * 2 + 2 * 2
    assert "State on the second text: lags, probes, composite, alarms" in page.text


def test_a_plan_of_two_looks_says_which_one_this_is_and_at_what_level() -> None:
    frozen = [{"hypothesis": "excess", "alpha": 0.025, "n": 10}]
    looks = [{"looks": [5, 10], "alpha": 0.05}]

    def asked(query: str) -> Asked:
        rows = looks if query == nano.LOOKS else frozen
        return Asked(frame=pl.DataFrame(rows), sql=query)

    said = report_nano_parts.look(asked)
    assert "looks at 5 and 10 seeds; this one, of 10, is judged at level 0.025 of 0.05 over both" in said
    looks[0]["looks"] = [2]
    assert report_nano_parts.look(asked) == ""


def test_every_run_has_its_loss_and_speed(page: Page) -> None:
    said = part(page, "Every run, the lowest loss", "Runs without a result")
    assert re.search(r"baselinecore3\.\d+\[[23]\.\d+, 3\.\d+\]\S*30,00015\.0 s", said)


def test_a_failed_run_and_skipped_phases_say_why(short: Store) -> None:
    [group] = read_groups(short)

    def asked(sql: str) -> Asked:
        return ask(short, sql, group.parameters)

    said = Page(report_nano_parts.failures(asked)).text
    assert "mem-buf-l32memory1not trained: out of memory" in said
    assert f"generalization{NO_SECOND}" in said
    assert Page(report_nano.second(asked)).text == f"Not asked: {NO_SECOND}."
    memory = Page(report_nano.compared(asked(nano.MEMORY), "Memory", "memory")).text
    assert re.search("mem-buf-l32✕ INVALID.*mem-buf-l32, seed 1: not trained: out of memory", memory)


def test_the_page_is_well_formed_and_its_queries_answer_as_they_stand(
    lab: Store, source: str, page: Page
) -> None:
    assert (page.open, page.wrong) == ([], [])
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    found = [html.unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)]
    assert len(found) > 30
    assert not any(re.search(r"\$(plan|study|scope|suite|regime|variant)\b", query) for query in found)
    empty = [query for query in dict.fromkeys(found) if lab.read(query).height == 0]
    assert len(empty) <= 4, empty  # no deviations, failures, skipped phases, seeds


def test_the_views_say_what_regimes_do_and_where_each_finding_is_drawn(lab: Store, short: Store) -> None:
    found = lab.read("SELECT * FROM regime_summary WHERE phase = 'core' AND regime = 'bewilderment'")
    assert found.height == 11
    row = found.filter(found["channel"] == "loss_nats").to_dicts()[0]
    told = {(r.hypothesis, r.metric): r for r in analyses(TOLD)["core"]
            if r.family == "regime_deltas" and r.contrast == "bewilderment"}  # fmt: skip
    assert row["twin"] == told["against_twin", "loss_nats"].estimate
    assert row["before_low"] == told["against_before", "loss_nats"].low
    assert row["verdict"] in ("DETECTED", "EQUIVALENT", "INCONCLUSIVE")
    trace = lab.read("SELECT * FROM figure_trace")
    assert trace["finding"].n_unique() == trace.height
    wanted = {"leverage", "signatures", "regime deltas", "memory", "controls", "swap", "lead-lag",
              "composite", "probes", "reaction to false_feedback", "leverage, second text"}  # fmt: skip
    assert wanted <= set(trace["finding"])
    assert all(lab.read(query).height > 0 for query in trace["query"])
    [group] = read_groups(lab)
    names = {f"figures/nanodesmo/{name}.svg" for name in own_figures(lab, group)}
    assert set(trace["figure"].drop_nulls()) <= names
    assert not [one for one in short.read("SELECT finding FROM figure_trace")["finding"] if "second" in one]


@pytest.fixture
def drawn(lab: Store, tmp_path: Path) -> Path:
    """A home with every trace and export, and drawings that open."""
    write_figures(lab, tmp_path / "figures", study="nanodesmo", formats=())
    folder = tmp_path / "figures" / "nanodesmo"
    for trace in folder.rglob("*.json"):
        if trace.name not in EXPORTS:
            trace.with_suffix(".svg").write_text(DRAWING)
    return tmp_path


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({one.name for one in checks}) == len(checks)
    return {one.name: one for one in checks}


def test_verify_passes_what_is_whole_and_sees_what_is_not(lab: Store, drawn: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "See `figures/nanodesmo/memory/memory-gate.svg`, `perturbation/regime_<id>` and "
        "figures/nanodesmo/manifest.json."
    )
    found = by_name(verify(lab, drawn, readme))
    assert [one for one in found.values() if not one.ok] == []
    assert found["frozen effect"].said.startswith("0.3900 nats, ")
    assert found["frozen effect"].said.endswith("DETECTED")
    assert {"README names perturbation/regime_<id>", "README names manifest.json"} <= set(found)
    assert set(named_figures(readme.read_text())) == {
        "memory/memory-gate.svg", "perturbation/regime_<id>", "manifest.json"
    }  # fmt: skip
    folder = drawn / "figures" / "nanodesmo"
    (folder / "separability.svg").write_text("<svg")
    (folder / "memory" / "memory-gate.svg").unlink()
    (folder / "manifest.json").write_text("{")
    (folder / "regime_deltas.csv").unlink()
    trace = folder / "frozen-weight-test.json"
    trace.write_text(trace.read_text().replace(read_groups(lab)[0].plan_hash, "another"))
    found = by_name(verify(lab, drawn, readme))
    assert {one.name for one in found.values() if not one.ok} == {
        "figure separability", "figure memory/memory-gate", "export manifest.json",
        "export regime_deltas.csv", "figure frozen-weight-test", "README names memory/memory-gate.svg",
    }  # fmt: skip
    assert "another plan" in found["figure frozen-weight-test"].said
    assert "ladder figures nanodesmo" in found["figure separability"].said


def test_verify_says_skipped_phases_and_takes_their_figures_for_granted(short: Store, tmp_path: Path) -> None:
    found = by_name(verify(short, tmp_path, tmp_path / "none.md"))
    assert found["phase generalization"] == Check(
        name="phase generalization", ok=True, said=f"skipped: {NO_SECOND}"
    )
    assert found["figure generalization/regime-deltas"].ok
    assert not found["figure separability"].ok
    assert found["memory comparison"].said.startswith("INVALID, 2 of 3 comparisons have a number")
    assert found["README"].ok


def test_verify_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    [only] = verify(Store(tmp_path), tmp_path)
    assert (only.ok, only.name) == (False, "run")
    assert "ladder run nanodesmo" in only.said


def test_a_newer_run_of_another_plan_takes_the_studys_folder(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    first = record_nano(lab, SHORT)
    second = record_nano(lab, Invented(seeds=(0, 2), second=False), started=START + timedelta(hours=1))
    newest = [group.plan_hash for group in read_groups(lab) if is_newest(lab, group)]
    assert newest == [second] != [first]
    assert nano_verify.README.name == "README.md"


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
    charts = source.count("<figure data-chart")
    assert charts > 15
    for name, width in FRAMES.items():
        assert (seen[name]["scroll"], seen[name]["spills"]) == (width, []), name
        assert seen[name]["drawn"] == [1] * charts
        assert seen[name]["live"] == (0 if name == "still" else charts)
    assert seen["console"] == []
