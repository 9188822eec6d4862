"""`aggregated_results.json` of the rank study: in the published shape, and back by `ladder import`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

from deployments import import_cli
from lab.earlier_placements import holds_placements, read_placements
from lab.products import Products
from lab.report_glance import glance
from lab.report_group import read_groups
from lab.store import Store
from models.kept import keep
from models.lora_recipe import Evaluation, LoraRecipe
from models.task_items import TaskSource
from stats.rows import FloatArray, TestRow
from tasks.importing_placements import NO_SHUFFLE, analyse_file
from tasks.rank_analysis import SECONDARY, Asked, compare
from tasks.rank_export import Outcome, aggregated, outcomes_of, write_results
from tasks.rank_training import ANSWERS, ArmJob, Base, Exam
from tests import earlier_files
from tests.ladder_command import ladder
from tests.placement_files import PLACED, PROBE, PUBLISHED, SHUFFLED, Body, accuracy

SHARES = {"probe": 0.8, "per_layer": 0.76, "shuffled_within 1": 0.7, "shuffled_within 2": 0.72,
          "shuffled_full": 0.71, "shuffled_free": 0.69, "inverse": 0.6, "uniform_equal": 0.74,
          "cross_seed": 0.75, "uniform_median": 0.7, "eva": 0.73}  # fmt: skip
SEEDS, ITEMS = (42, 43, 44), 300
ASKED = Asked(margin=0.01, non_inferiority=0.025, alpha=0.05, resamples=0)


def answered() -> dict[str, FloatArray]:
    """Arm -> (seeds, items) of right and wrong."""
    rng = np.random.default_rng(3)
    return {arm: (rng.random((len(SEEDS), ITEMS)) < share).astype(float) for arm, share in SHARES.items()}


def stacked(answers: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The same as the study's own analysis takes it: shuffles within projections in one array."""
    within = [found for arm, found in answers.items() if arm.startswith("shuffled_within")]
    others = {arm: found for arm, found in answers.items() if not arm.startswith("shuffled_within")}
    return others | {"shuffled_within": np.stack(within, axis=1)}


def our_rows(answers: Mapping[str, FloatArray]) -> list[TestRow]:
    """The rows of our own analysis."""
    arms = stacked(answers)
    return compare(dict.fromkeys(("strict", *SECONDARY), arms), ASKED)


def our_body(answers: Mapping[str, FloatArray], rows: list[TestRow]) -> Body:
    """What we write; the probe has 1,000 parameters, an arm 400, the free shuffle 430."""
    size = {"probe": 1000.0, "shuffled_free": 430.0}
    outcomes = {
        arm: {
            seed: Outcome(accuracy=float(right.mean()), parameters=size.get(arm, 400.0))
            for seed, right in zip(SEEDS, found, strict=True)
        }
        for arm, found in answers.items()
    }
    outcomes["broken"] = {42: outcomes["probe"][42]}
    return aggregated(outcomes, rows, model="arith-mistral", non_inferiority=0.025)


def analysed(path: Path) -> dict[tuple[str, str], Body]:
    """(hypothesis, contrast) -> row of the analysis of a file."""
    return {(row["hypothesis"], row["contrast"]): row for row in analyse_file(read_placements(path))["tests"]}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home that has a published file and one of ours, and the page that a person saw."""
    directory = tmp_path_factory.mktemp("placements")
    answers = answered()
    artifact = write_results(
        directory, our_body(answers, our_rows(answers)), profile="fast", plan_hash="abc", step_id="s"
    )
    published = earlier_files.save(directory / "published.json", PUBLISHED)
    home = directory / "home"
    done = ladder("import", str(published), str(directory / artifact.path), home=home)
    assert done.returncode == 0, done.stderr
    return home, done.stdout


def stored(home: Path, model: str) -> dict[tuple[str, str], Body]:
    """(hypothesis, contrast) -> row of the `test` table."""
    found = Store(home).read("SELECT * FROM test WHERE model = $model", {"model": model}).to_dicts()
    return {(row["hypothesis"], row["contrast"]): row for row in found}


def test_a_published_file_gives_the_hand_computed_t_d_and_scenario(imported: tuple[Path, str]) -> None:
    found = stored(imported[0], "published")
    # differences .01 .03 .00: mean .04/3, variance .0007/3, so t^2 = 16/7; with 2 degrees of freedom
    # p = 1 - t / sqrt(2 + t^2)
    row = found["paired_t", "per_layer-shuffled_free"]
    t = 4 / math.sqrt(7)
    assert row["estimate"] == pytest.approx(0.04 / 3)
    assert row["statistic"] == pytest.approx(t)
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert found["mechanism_d_z", "per_layer-shuffled_free"]["estimate"] == pytest.approx(t / math.sqrt(3))
    # variances over seeds: placed .0013/3, shuffled .0004/3, probe .0007/3
    d_pooled = (0.04 / 3) / math.sqrt((0.0013 + 0.0004) / 6)
    assert found["mechanism_d_pooled", "per_layer-shuffled_free"]["estimate"] == pytest.approx(d_pooled)
    row = found["superiority", "per_layer-probe"]  # differences .03 .04 .03: mean .1/3, SD .01/sqrt(3)
    assert (row["estimate"], row["statistic"]) == (pytest.approx(0.1 / 3), pytest.approx(10.0))
    assert row["p"] == pytest.approx(1 - 10 / math.sqrt(102))
    d_pooled = (0.1 / 3) / math.sqrt((0.0013 + 0.0007) / 6)
    assert found["superiority_d_pooled", "per_layer-probe"]["estimate"] == pytest.approx(d_pooled)
    assert found["superiority_d_z", "per_layer-probe"]["estimate"] == pytest.approx(10 / math.sqrt(3))
    assert found["legacy_scenario", "per_layer"]["reason"] == "S2"
    assert found["scenario", "inconclusive"]["reason"] == (
        "The file's shuffle is over all modules, at 112.5% of the cost, so more than the placement differs"
    )


def test_signs_of_three_seeds_settle_nothing_and_the_decision_is_exploratory(
    imported: tuple[Path, str],
) -> None:
    home = imported[0]
    verdict = stored(home, "published")["verdict", "per_layer-shuffled_free"]
    assert (verdict["role"], verdict["verdict"], verdict["p"]) == ("verdict", "INCONCLUSIVE", 0.5)
    decisions = Store(home).read("SELECT * FROM decision ORDER BY model").to_dicts()
    assert [(row["model"], row["gate"], row["exploratory"], row["look"]) for row in decisions] == [
        ("arith-mistral", "mechanism_import", True, 3), ("published", "mechanism_import", True, 3),
    ]  # fmt: skip
    assert decisions[1]["next"] == "mechanism"
    assert "3 seeds: +0.0133 of the items [-0.0246, +0.0513], sign-flip p = 0.5" in decisions[1]["sentence"]
    assert "by the earlier rule S2. Scenario inconclusive" in decisions[1]["sentence"]


def test_what_we_write_reads_back_to_the_numbers_of_our_own_analysis(imported: tuple[Path, str]) -> None:
    ours = {
        (row.hypothesis, row.contrast): asdict(row)
        for row in our_rows(answered())
        if row.metric in ("strict", "accuracy")
    }
    items_only = {"mcnemar", "hierarchical_bootstrap", "sd_seed", "sd_shuffle", "sd_item"}
    again = stored(imported[0], "arith-mistral")
    compared = 0
    for key, row in ours.items():
        if key[0] in items_only or key[0] == "scenario":
            continue
        for name in ("estimate", "low", "high", "statistic", "p", "p_adjusted", "mde", "n_to_settle"):
            same = row[name] is None and again[key][name] is None
            assert same or again[key][name] == pytest.approx(row[name], rel=1e-9, abs=1e-12), (key, name)
        assert (again[key]["verdict"], again[key]["n"]) == (row["verdict"], row["n"]), key
        compared += 1
    assert compared > 50
    [scenario] = [key[1] for key in ours if key[0] == "scenario"]
    said = next(row for key, row in ours.items() if key[0] == "scenario")["method"]
    assert again["scenario", scenario]["reason"] == said
    assert again["legacy_scenario", "per_layer"]["reason"] == ours["legacy_scenario", "per_layer"]["reason"]


def test_what_we_write_has_the_published_shape_with_every_number_defined() -> None:
    answers = answered()
    rows = our_rows(answers)
    body = our_body(answers, rows)
    means = {arm: [float(right.mean()) for right in found] for arm, found in answers.items()}
    assert body["seeds"] == [42, 43, 44]
    assert body["left_out"] == ["broken"]
    assert body["probe"]["accuracy"]["values"] == pytest.approx(means["probe"])
    assert list(body["compressed"])[:2] == ["per_layer", "per_layer_shuffled"]
    assert set(body["compressed"]) == (SHARES.keys() - {"probe"}) | {"per_layer_shuffled"}
    shuffled = [
        (a + b) / 2 for a, b in zip(means["shuffled_within 1"], means["shuffled_within 2"], strict=True)
    ]
    for name, values, saved, contrast in (
        ("per_layer", means["per_layer"], 0.6, "per_layer-probe"),
        ("per_layer_shuffled", shuffled, 0.6, "per_layer-shuffled_within"),
        ("shuffled_free", means["shuffled_free"], 0.57, None),
        ("inverse", means["inverse"], 0.6, "per_layer-inverse"),
    ):
        found = body["compressed"][name]
        assert found["accuracy"]["values"] == pytest.approx(values)
        assert (found["accuracy"]["mean"], found["accuracy"]["std"]) == pytest.approx(
            (mean(values), stdev(values))
        )
        assert found["delta_vs_probe"] == pytest.approx(mean(values) - mean(means["probe"]))
        assert found["param_reduction"] == pytest.approx(saved)
        passed = [one >= other - 0.025 for one, other in zip(values, means["probe"], strict=True)]
        assert found["pass_rate"] == pytest.approx(mean(passed))
        verdicts = [
            r.verdict
            for r in rows
            if r.family == "mechanism" and r.role == "decides" and r.contrast == contrast
        ]
        assert [found["verdict"]] == (verdicts or [None])
    one = {arm: {42: Outcome(accuracy=0.5, parameters=10.0)} for arm in ("probe", "per_layer")}
    assert aggregated(one, [], model="m", non_inferiority=0.025)["probe"]["accuracy"]["std"] is None


def test_outcomes_are_counted_from_the_answers_and_read_off_the_adapters(tmp_path: Path) -> None:
    source = TaskSource(kind="word_problems", n_train=8, n_validation=4, n_test=10, seed=0)
    base = Base(where="base", digest="d")
    job = ArmJob(base=base, source=source, items="i", ranks={"m": 2}, initialisation="nested",
                 recipe=LoraRecipe(), seed=42)  # fmt: skip

    def save(directory: Path) -> None:
        for name in ("model.safetensors", "tokenizer.json"):
            (directory / name).write_text(name)

    keep(job.place(tmp_path), save, {"facts": {"parameters": 96}})
    exams: dict[tuple[int | None, str], Exam] = {}
    for seed, of in ((42, job), (None, None)):
        exams[seed, "per_layer" if of else "base"] = Exam(
            base=base, job=of, source=source, items="t", evaluation=Evaluation()
        )
    for exam in exams.values():
        Products(tmp_path, ANSWERS).write(exam.key, {"answers": [{"strict": k < 7} for k in range(10)]})
    assert outcomes_of(tmp_path, exams) == {"per_layer": {42: Outcome(accuracy=0.7, parameters=96.0)}}


def test_the_file_is_written_whole_with_its_hash(tmp_path: Path) -> None:
    body = our_body(answered(), [])
    row = write_results(tmp_path, body, profile="smoke", plan_hash="0f", step_id="key")
    assert (row.step_id, row.path) == ("key", "exports/mechanism-smoke-0f/key/aggregated_results.json")
    path = tmp_path / row.path
    assert (row.bytes, row.sha256) == (path.stat().st_size, read_placements(path).sha256)
    assert json.loads(path.read_text()) == body
    assert write_results(tmp_path, body, profile="smoke", plan_hash="0f", step_id="key") == row
    assert [one.name for one in path.parent.iterdir()] == ["aggregated_results.json"]


def test_the_page_has_80_columns_and_shows_both_rules(imported: tuple[Path, str]) -> None:
    page = imported[1]
    assert max(map(len, page.splitlines())) <= 80
    said = " ".join(page.split())
    assert "published · published.json · 2 variants and a probe, 3 seeds; not read: timestamp" in said
    assert "per_layer 0.7567 0.0208 +0.0333 40.0% 100%" in said
    assert "per_layer-shuffled_free +0.0133 95% [-0.0246, +0.0513], Holm p 0.5, INCONCLUSIVE" in said
    assert (
        "superiority by the earlier rule, above 0.02: holds +0.0333, t 10, p 0.00985, d pooled 1.83, d_z 5.77"
        in said
    )
    assert "arith-mistral · aggregated_results.json · 11 variants and a probe, 3 seeds shuff" not in said
    assert "per_layer-shuffled_within" in said
    assert all(word not in page for word in ("nan", "inf,", " inf ", "None"))


def test_the_store_and_the_report_hold_both_files(imported: tuple[Path, str]) -> None:
    store = Store(imported[0])
    units = store.read(
        "SELECT unit, value FROM metric JOIN step USING (step_id) "
        "WHERE name = 'accuracy' AND model = 'published'"
    ).to_dicts()
    assert {row["unit"]: row["value"] for row in units} == {
        f"{arm}/seed {seed}": value
        for arm, values in (("probe", PROBE), ("per_layer", PLACED), ("per_layer_shuffled", SHUFFLED))
        for seed, value in enumerate(values, start=1)
    }
    page = glance(store, read_groups(store))
    assert page.count("mechanism_import, look 3") == 2
    assert "at 112.5% of the cost" in page


def one_seed(values: Mapping[str, float]) -> Body:
    """A file of one seed."""
    found = {name: {"accuracy": accuracy([value])} for name, value in values.items()}
    return {"probe": found.pop("probe"), "compressed": found}


def test_one_seed_and_no_shuffle_are_answers_with_their_reason(tmp_path: Path) -> None:
    body = one_seed({"probe": 0.7, "per_layer": 0.71, "per_layer_shuffled": 0.7})
    found = analysed(earlier_files.save(tmp_path / "one.json", body))
    verdict = found["verdict", "per_layer-shuffled_free"]
    assert (verdict["verdict"], verdict["low"]) == ("INCONCLUSIVE", None)
    assert verdict["reason"].startswith("1 seed; an interval over seeds needs two or more")
    assert "at a cost that it does not tell" in found["scenario", "inconclusive"]["reason"]
    body = copy.deepcopy(PUBLISHED)
    del body["compressed"]["per_layer_shuffled"]
    found = analysed(earlier_files.save(tmp_path / "none.json", body))
    assert found["verdict", "per_layer"]["reason"] == NO_SHUFFLE
    assert found["legacy_scenario", "per_layer"]["reason"] == f"undefined; {NO_SHUFFLE}"
    assert found["non_inferiority", "per_layer-probe"]["estimate"] == pytest.approx(0.1 / 3)


def test_a_difference_that_is_not_that_of_the_values_is_told(tmp_path: Path) -> None:
    body = copy.deepcopy(PUBLISHED)
    body["compressed"]["per_layer"]["delta_vs_probe"] = 0.05
    file = read_placements(earlier_files.save(tmp_path / "apart.json", body))
    assert file.contradictions == ("delta_vs_probe of per_layer is +0.0500, by the values +0.0333",)
    assert read_placements(earlier_files.save(tmp_path / "a.json", PUBLISHED)).contradictions == ()


def test_each_kind_of_file_is_taken_for_what_it_is(tmp_path: Path) -> None:
    pair = {"baseline": 20.0, "quantised": 21.0}
    perplexities = {"en": pair, "sw": pair}
    odd = copy.deepcopy(PUBLISHED)
    odd["compressed"]["baseline"] = odd["compressed"]["per_layer"]
    odd["baseline"] = 3
    kinds: dict[str, list[Any]] = {
             "placements": [PUBLISHED, odd, {"compressed": {}}, {"probe": {"accuracy": 3}}],
             "perplexities": [perplexities, {"perplexities": perplexities}, {"probe": pair}],
             "texts": [earlier_files.v2(prompts=2, samples=2), [PUBLISHED], {"probe": 3}, 7]}  # fmt: skip
    for kind, bodies in kinds.items():
        for body in bodies:
            assert import_cli.kind_of(earlier_files.save(tmp_path / "earlier.json", body)) == kind, body
    assert not holds_placements(tmp_path / "absent.json")
