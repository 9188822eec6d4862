"""The sense study from the audit of its items to the curve, run as a person runs it, in a small world."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from deployments.settings import settings_for
from flows.sense_run import begin
from flows.sense_scaling import SMOKE, STUDY, protocol
from lab.errors import UsageError
from models.backends import ModelMissing
from models.sense_files import write_items
from models.sense_probes import coherence_items, retrieval_items
from models.sense_world import WorldSpec, world
from tests.ladder_command import ask, ladder, work_done

WORLD: dict[str, int] = {"topics": 8, "train_lemmas": 80, "test_lemmas": 20, "dev_lemmas": 10}
SMALL: dict[str, object] = {
    **WORLD,
    "seeds": "42,123,456",
    "curve_seeds": 3,
    "steps": 60,
    "batch": 48,
    "learning_rate": 0.01,
    "dev_every": 20,
    "hidden": 32,
    "per_sense": 1,
    "per_lemma": 1,
    "dev_per_sense": 1,
    "top1": 0.2,
    "top3": 0.4,
    "coherence": 0.99,
    "shortcut_margin": 0.2,
}
COUNTS = """
SELECT (SELECT count(*) FROM retrieval) AS ranks, (SELECT count(*) FROM metric) AS metrics,
       (SELECT count(*) FROM test) AS tests, (SELECT count(*) FROM decision) AS decisions,
       (SELECT count(*) FROM step) AS steps, (SELECT count(*) FROM train_log) AS looks
"""
DECIDED = "SELECT gate, verdict, sentence, evidence FROM decision ORDER BY decided_at"
LAST = "SELECT plan_hash FROM run ORDER BY started_at DESC LIMIT 1"
RANKS = """
SELECT arm, seed, item, rank, round(margin, 6) AS margin FROM retrieval JOIN step USING (step_id)
WHERE experiment = 'exam on test' ORDER BY ALL
"""


def settings(**changes: object) -> list[str]:
    """Arguments of `ladder run sense_scaling` in a small world."""
    chosen = [f"{name}={value}" for name, value in {**SMALL, **changes}.items()]
    return ["run", "sense_scaling", *(part for one in chosen for part in ("--set", one))]


def path(home: Path) -> list[dict[str, str]]:
    """Gates of the last run, in order."""
    return ask(
        f"SELECT gate, verdict, next, sentence FROM decision_path WHERE plan_hash = ({LAST}) "
        "ORDER BY position",
        home=home,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the study has run once to its end; no arm reaches its coherence."""
    home = tmp_path_factory.mktemp("senses") / "home"
    done = ladder(*settings(), home=home)
    assert done.returncode == 0, done.stderr
    assert "Verdicts at 3 seeds" in done.stdout
    return home


@pytest.fixture
def home(small: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    return Path(shutil.copytree(small, tmp_path / "home"))


def test_every_condition_and_seed_has_its_ranks_and_every_baseline_its_coherence(small: Path) -> None:
    rows = ask(
        "SELECT arm, seed, count(*) AS n FROM retrieval JOIN step USING (step_id) "
        "WHERE experiment = 'exam on test' AND arm IN ('A', 'B', 'C', 'B-flat') GROUP BY ALL",
        home=small,
    )
    assert {(row["arm"], row["seed"]) for row in rows} == {
        (arm, seed) for arm in ("A", "B", "C", "B-flat") for seed in (42, 123, 456)
    }
    assert len({row["n"] for row in rows}) == 1
    told = ask(
        "SELECT arm, value FROM metric JOIN step USING (step_id) WHERE name = 'coherence_step' "
        "AND unit = '*' AND experiment LIKE '%on test'",
        home=small,
    )
    decided = {row["arm"] for row in told}
    assert decided >= {"A", "B", "C", "lemma_only", "word_tfidf", "untrained_head", "topics_known"}
    assert all(0.0 <= row["value"] <= 1.0 for row in told)


def test_a_failed_blocker_starts_the_contingency_and_each_step_really_retrains(small: Path) -> None:
    assert [(row["gate"], row["verdict"]) for row in path(small)][3:] == [
        ("ship_b", "INCONCLUSIVE"),
        ("ship_c", "INCONCLUSIVE"),
        ("halved", "INCONCLUSIVE"),
        ("raised", "INCONCLUSIVE"),
        ("fallback", "INCONCLUSIVE"),
        ("curve", path(small)[-1]["verdict"]),
    ]
    assert "Nothing ships" in path(small)[-2]["sentence"]
    trained = ask(
        "SELECT arm, step_id, json_extract_string(config, '$.arm.curriculum') AS drawn, "
        "json_extract(config, '$.verifier') AS verifier FROM step WHERE experiment = 'train' "
        "AND arm IN ('C', 'C-halved', 'C-raised')",
        home=small,
    )
    assert len({row["step_id"] for row in trained}) == 9
    assert {row["arm"]: row["drawn"] for row in trained} == {
        "C": "[1,2,4]",
        "C-halved": "[1,1,2]",
        "C-raised": "[1,1,2]",
    }
    verified = [json.loads(row["verifier"]) for row in trained if row["arm"] == "C-raised"]
    thresholds = ask(
        "SELECT name, value FROM metric JOIN step USING (step_id) WHERE experiment = 'verify' "
        "AND unit = 'calibrated' AND name IN ('cosine', 'gap')",
        home=small,
    )
    calibrated = {round(row["value"] + 0.05, 9) for row in thresholds}
    assert {round(x, 9) for _, *pair in verified for x in pair} == calibrated
    dev_only = ask("SELECT DISTINCT experiment FROM step WHERE arm IN ('C-halved', 'C-raised')", home=small)
    assert {row["experiment"] for row in dev_only} == {"train", "exam on dev"}


@pytest.mark.slow
def test_it_falls_back_to_a_where_a_passes_and_another_store_gives_the_same_ranks(
    small: Path, tmp_path: Path
) -> None:
    """B and C learn from wrong positives; A, which does not, passes thresholds it can reach."""
    easy = {"coherence": 0.6, "mislabelled": 0.5, "groups": "[]", "processes": 1}
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = ladder(*settings(**easy), "--strict", home=tmp_path, extra=threads)
    assert done.returncode == 1, done.stderr
    told = path(tmp_path)
    assert [(row["gate"], row["verdict"]) for row in told][-6:-1] == [
        ("ship_b", "INCONCLUSIVE"),
        ("ship_c", "INCONCLUSIVE"),
        ("halved", "INCONCLUSIVE"),
        ("raised", "INCONCLUSIVE"),
        ("fallback", "DETECTED"),
    ]
    assert "Ship A" in told[-2]["sentence"]
    assert "not passed: ship_b, ship_c" in done.stderr
    ranks = {tuple(row.values()) for row in ask(RANKS, home=tmp_path) if row["arm"] == "A"}
    assert ranks
    assert ranks == {tuple(row.values()) for row in ask(RANKS, home=small) if row["arm"] == "A"}


@pytest.mark.long
def test_a_second_run_computes_nothing_and_changes_no_number(home: Path) -> None:
    before = ask(COUNTS, home=home), ask(DECIDED, home=home)
    done = ladder(*settings(), home=home, own_server=True)
    assert done.returncode == 0, done.stderr
    assert work_done(home) == []
    assert (ask(COUNTS, home=home), ask(DECIDED, home=home)) == before


def test_a_shortcut_above_chance_stops_the_study(home: Path) -> None:
    done = ladder(*settings(shortcut_margin=0.001), home=home)
    assert done.returncode == 3, done.stderr
    assert [(row["gate"], row["verdict"], row["next"]) for row in path(home)] == [
        ("sound", "INVALID", "stop")
    ]


@pytest.mark.slow
def test_heads_that_exceed_their_limit_make_every_contrast_invalid_and_nothing_is_lost(home: Path) -> None:
    before = ask("SELECT count(*) AS n FROM retrieval", home=home)
    done = ladder(*settings(steps=61, timeout_minutes=0.0002), home=home)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    told = path(home)
    assert [(row["gate"], row["verdict"]) for row in told] == [
        ("sound", "DETECTED"),
        ("more_data", "INVALID"),
    ]
    assert "stopped at its time limit" in told[-1]["sentence"]
    assert ask("SELECT count(*) AS n FROM retrieval", home=home) == before


@pytest.mark.slow
def test_own_files_are_asked_in_place_of_the_worlds(home: Path, tmp_path: Path) -> None:
    other = world(WorldSpec(**WORLD))
    folder = tmp_path / "own"
    folder.mkdir()
    write_items(folder / "retrieval.jsonl", retrieval_items(other, per_sense=1, tiers=(1, 2)))
    write_items(folder / "coherence.jsonl", coherence_items(other, per_lemma=1, tiers=(1,)))
    done = ladder(*settings(data=folder, coherence=0.2), home=home)
    assert done.returncode == 0, done.stderr
    assert [(row["gate"], row["verdict"]) for row in path(home)][3:5] == [
        ("ship_b", "DETECTED"),
        ("ship_c", "DETECTED"),
    ]
    counted = ask(
        "SELECT count(*) AS n FROM retrieval JOIN step USING (step_id) WHERE experiment = 'exam on test' "
        f"AND step_id IN (SELECT step_id FROM plan_step WHERE plan_hash = ({LAST})) "
        "AND arm = 'B' AND seed = 42",
        home=home,
    )
    assert counted[0]["n"] == (folder / "retrieval.jsonl").read_bytes().count(b"\n")
    (folder / "retrieval.jsonl").write_text('{"id": 1}\n', encoding="utf-8")
    broken = ladder(*settings(data=folder), home=home)
    assert broken.returncode == 2
    assert "retrieval.jsonl, line 1" in broken.stderr


@pytest.mark.slow
def test_a_capsule_holds_one_head_with_all_that_judges_it(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "capsule"
    done = ladder(
        *settings(), "--only", "B_seed42", "--out", str(out), "--strict", home=home, own_server=True
    )
    assert done.returncode == 1, done.stderr  # coherence fails
    assert "threshold coherence (B)" in done.stdout
    assert [line for line in work_done(home) if "analyse" not in line] == []
    names = {str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()}
    assert names == {
        "config.json", "data.json", "metrics.json", "verdicts.json", "manifest.json",
        "head/head.safetensors", "head/trained.json",
    }  # fmt: skip
    top1 = json.loads((out / "metrics.json").read_text())["test"]["*"]["top1"]
    kept = ask(
        "SELECT value FROM metric JOIN step USING (step_id) WHERE arm = 'B' AND seed = 42 AND "
        "name = 'top1' AND unit = '*' AND experiment = 'exam on test'",
        home=home,
    )
    assert kept == [{"value": top1}]
    assert load_file(out / "head" / "head.safetensors")["head.norm.weight"].shape == (256,)
    wrong = ladder(*settings(), "--only", "B42", "--out", str(out), home=home)
    assert wrong.returncode == 2
    assert "write ARM_seedN" in wrong.stderr
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("kept", encoding="utf-8")
    refused = ladder(*settings(), "--only", "B_seed42", "--out", str(taken), home=home)
    assert refused.returncode == 2
    assert (taken / "mine.txt").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("seeds=1,1,2", "name each once"),
        ("curve_seeds=11", "give no more than there are"),
        ("bundles_b=b.jsonl", "name bundles_a, bundles_b and bundles_c, or none"),
        ("hidden=30", "multiple of 4"),
        ("groups=all", "groups"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        settings_for(STUDY, "smoke", [changes])


def test_a_folder_or_an_encoder_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        begin(protocol(replace(SMOKE, data=str(tmp_path / "none"))))
    with pytest.raises(ModelMissing, match="none"):
        begin(protocol(replace(SMOKE, model=str(tmp_path / "none"))))


def test_killers_of_ones_own_with_two_labels_are_refused(tmp_path: Path) -> None:
    ours = world(WorldSpec(**WORLD))
    items = retrieval_items(ours, per_sense=1, tiers=(1,))[:12]
    wrong = []
    for item in items:
        first, *rest = item.candidates
        taken = replace(rest[0], text=first.text, span=first.span, surface=first.surface)
        told = (first, taken, *rest[1:])
        right = tuple(i for i, one in enumerate(told) if one.sense_id == item.query.sense_id)
        wrong.append(replace(item, candidates=told, correct=right, tier=4))
    write_items(tmp_path / "retrieval.jsonl", wrong)
    with pytest.raises(UsageError, match="have two senses"):
        begin(protocol(replace(SMOKE, data=str(tmp_path), **WORLD)))


def test_coherence_items_that_nothing_could_decide_are_refused(tmp_path: Path) -> None:
    ours = world(WorldSpec(**WORLD))
    items = [replace(item, inventory=()) for item in coherence_items(ours, per_lemma=1, tiers=(1,))]
    write_items(tmp_path / "coherence.jsonl", items)
    with pytest.raises(UsageError, match="has no inventory"):
        begin(protocol(replace(SMOKE, data=str(tmp_path), **WORLD)))
