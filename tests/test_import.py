"""`ladder import FILE...` as a person runs it: files of all four formats, sound and faulty, in one home."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from lab.store import Store
from stats.diversity import METRICS
from tests import earlier_files
from tests.ladder_command import COUNTS, ROOT, environment, ladder

FILES: dict[str, Any] = {
    "v1": lambda: earlier_files.v1(prompts=15, samples=10),
    "v2": lambda: earlier_files.v2(prompts=15, samples=10),
    "turns": lambda: earlier_files.v2(prompts=4, samples=4, streams=2, turns=3),
    "injection": lambda: earlier_files.injection(prompts=5, samples=4),
    "cut": lambda: earlier_files.injection(prompts=5, samples=4, write=earlier_files.long_text, cut=500),
    "flat": lambda: earlier_files.flat(prompts=6, samples=5),
}
FAULTY: dict[str, tuple[Any, str, str]] = {
    "empty": (
        lambda: earlier_files.v2(prompts=15, samples=10, write=earlier_files.emptied(0.45)),
        "integrity",
        "TRNG: 44.7% of the samples are missing; of an arm at most 20% may be",
    ),
    "repeated": (
        lambda: earlier_files.v2(prompts=5, samples=6, write=earlier_files.repeated),
        "integrity",
        "PRNG: 16.7% distinct texts over 30 seeds, under 95%",
    ),
    "without": (
        lambda: earlier_files.flat(prompts=6, samples=5, without=("mtld",)),
        "seed_effect",
        "mtld: no text has a value",
    ),
    "constant": (
        lambda: earlier_files.v2(prompts=5, samples=6, write=earlier_files.all_different),
        "seed_effect",
        "distinct_2: no variation within cells",
    ),
}
"""File -> body, the gate that must call it INVALID, and why."""

OFFLINE = """
import os, socket

def refuse(address):
    with open(os.environ["REACHED"], "a") as file:
        file.write(f"{address}\\n")
    raise OSError(f"no network: {address}")

def is_here(host):
    return host in (None, "", b"", "localhost", "0.0.0.0") or str(host).startswith(("127.", "::1"))

inner, look_up = socket.socket.connect, socket.getaddrinfo

def connect(self, address):
    if self.family != socket.AF_UNIX and not is_here(address[0]):
        refuse(address)
    return inner(self, address)

def getaddrinfo(host, *rest, **more):
    if not is_here(host):
        refuse(host)
    return look_up(host, *rest, **more)

socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""
"""Every Python process that finds this as `sitecustomize` reaches its own machine only."""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which a process has no network and notes every try to reach one."""
    directory = tmp_path_factory.mktemp("offline")
    (directory / "sitecustomize.py").write_text(OFFLINE)
    return {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}", "REACHED": str(directory / "reached")}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file, of every body above."""
    directory = tmp_path_factory.mktemp("earlier, naïve")
    bodies = FILES | {name: body for name, (body, _, _) in FAULTY.items()}
    return {name: earlier_files.save(directory / f"{name}.json", body()) for name, body in bodies.items()}


@pytest.fixture(scope="module")
def imported(
    written: dict[str, Path], offline: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A home into which all of them went by one command without a network, and what it printed."""
    home = tmp_path_factory.mktemp("import") / "home"
    done = ladder("import", *map(str, written.values()), "--json", home=home, extra=offline)
    assert done.returncode == 0, done.stderr
    parts: list[dict[str, Any]] = json.loads(done.stdout)["parts"]
    return home, parts


@pytest.fixture(scope="module")
def store(imported: tuple[Path, list[dict[str, Any]]]) -> Store:
    """The store of that home."""
    return Store(imported[0])


def told(imported: tuple[Path, list[dict[str, Any]]], name: str, part: str) -> dict[str, Any]:
    """What the command said of a part of a file."""
    [found] = [p for p in imported[1] if Path(p["file"]).stem == name and p["part"] == part]
    return found


def analysis(store: Store, part: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the `test` table of a part."""
    sql = """
    SELECT test.* FROM test JOIN decision ON decision.parameters ->> '$.analysis' = test.step_id
    WHERE decision.decision_id = $id
    """
    return store.read(sql, {"id": part["decisions"][0]["decision_id"]}).to_dicts()


def test_every_format_goes_in_by_one_command_and_is_marked_imported(
    imported: tuple[Path, list[dict[str, Any]]], store: Store
) -> None:
    modes = ("logit_perturb", "none", "temp_modulate")
    assert {(Path(p["file"]).stem, p["part"]) for p in imported[1]} == {
        *((name, "single_turn") for name in ("v1", "v2", "turns", "flat", *FAULTY)),
        ("turns", "multi_turn"),
        *((name, mode) for name in ("injection", "cut") for mode in modes),
    }
    [counts] = store.read(
        "SELECT count(*) AS n, count(*) FILTER (imported) AS imported FROM generation"
    ).to_dicts()
    assert counts["n"] == counts["imported"] == sum(p["texts"] for p in imported[1])
    assert all(decision["exploratory"] for p in imported[1] for decision in p["decisions"])
    assert {row["exploratory"] for row in store.read("SELECT exploratory FROM run").to_dicts()} == {True}


def test_nothing_outside_the_machine_was_reached(
    imported: tuple[Path, list[dict[str, Any]]], offline: dict[str, str]
) -> None:
    assert not Path(offline["REACHED"]).exists()
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    noted = Path(offline["REACHED"]).with_name("control")
    extra = os.environ | offline | {"REACHED": str(noted)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=extra, capture_output=True, text=True, check=False
    )
    assert "no network" in done.stderr
    assert noted.read_text().startswith("192.0.2.1")


SAMPLES = """
SELECT order_index, arm, prompt_id, sample, seed64::VARCHAR AS seed64, seed32, text,
       map_from_entries(list((name, value)) FILTER (NOT starts_with(name, 'stored.'))) AS computed,
       map_from_entries(list((name[8:], value)) FILTER (starts_with(name, 'stored.'))) AS stored
FROM generation JOIN metric
  ON metric.step_id = generation.step_id AND metric.unit = 'sample/' || sample || '/0/0'
WHERE generation.step_id IN (SELECT step_id FROM step WHERE config ->> '$.imported' = $sha256)
GROUP BY ALL ORDER BY order_index
"""


def samples(store: Store, path: Path) -> list[dict[str, Any]]:
    """Texts of a file in the store with both kinds of metrics, in the order of the file."""
    return store.read(SAMPLES, {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}).to_dicts()


def in_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Source and sample of a v1 file, or of the single turns of a v2 file, in the order of the file."""
    body = json.loads(path.read_text())
    for stream in body.get("streams", [body]):
        for cells in stream["single_turn"].values():
            for source, cell in cells.items():
                if isinstance(cell, dict):
                    yield from ((source, sample) for sample in cell["samples"])


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_a_seeded_file_comes_out_of_the_store_as_it_went_in(
    name: str, written: dict[str, Path], store: Store
) -> None:
    rows, expected = samples(store, written[name]), list(in_file(written[name]))
    assert len(rows) == len(expected) == 450
    for row, (source, sample) in zip(rows, expected, strict=True):
        assert (row["arm"], int(row["seed64"]), row["text"]) == (source, sample["seed"], sample["output"])
        assert row["seed32"] == sample["seed"] % 2**32
        assert row["stored"] == sample["metrics"]
        for metric, value in earlier_files.metrics_of(sample["output"]).items():
            assert _close(row["computed"][metric], value)
    same = sum(row["computed"]["type_token_ratio"] == row["stored"]["type_token_ratio"] for row in rows)
    assert (same == 450) if name == "v2" else (same < 45)


def _close(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-13, abs_tol=1e-14)


def legacy_by_scipy(path: Path) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """Method, metric and contrast -> statistic, p and p after BH, from the file alone."""
    values: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for prompt, cells in enumerate(json.loads(path.read_text())["streams"][0]["single_turn"].values()):
        for source in earlier_files.SOURCES:
            for sample in cells[source]["samples"]:
                for metric in METRICS:
                    values[metric, source][prompt].append(sample["metrics"][metric])
    means = {key: np.array([np.mean(found[p]) for p in sorted(found)]) for key, found in values.items()}
    out: dict[tuple[str, str, str], tuple[float, float, float]] = {}
    for method in ("paired_t", "wilcoxon"):
        tests = {}
        for metric in METRICS:
            for a, b in combinations(sorted(earlier_files.SOURCES), 2):
                x, y = means[metric, a], means[metric, b]
                test = scipy_stats.ttest_rel if method == "paired_t" else scipy_stats.wilcoxon
                found: Any = test(x, y)
                tests[metric, f"{a}-{b}"] = (float(found.statistic), float(found.pvalue))
        adjusted = multipletests([p for _, p in tests.values()], method="fdr_bh")[1]
        for (key, (statistic, p)), q in zip(tests.items(), adjusted, strict=True):
            out[method, *key] = (statistic, p, float(q))
    return out


def test_the_legacy_view_equals_scipy_and_statsmodels_on_the_same_file(
    imported: tuple[Path, list[dict[str, Any]]], written: dict[str, Path], store: Store
) -> None:
    rows = analysis(store, told(imported, "v2", "single_turn"))
    found = {
        (row["hypothesis"], row["metric"], row["contrast"]): row for row in rows if row["family"] == "legacy"
    }
    expected = legacy_by_scipy(written["v2"])
    assert len(expected) == 2 * len(METRICS) * 3
    ranks = 15 * 16 / 2
    for (method, metric, contrast), (statistic, p, adjusted) in expected.items():
        row = found[method, metric, contrast]
        assert row["p"] == pytest.approx(p, rel=1e-9), (method, metric, contrast)
        assert row["p_adjusted"] == pytest.approx(adjusted, rel=1e-9)
        if method == "paired_t":
            assert row["statistic"] == pytest.approx(statistic, rel=1e-9)
            d_z = found["d_z", metric, contrast]["estimate"]
            assert d_z == pytest.approx(statistic / math.sqrt(15), rel=1e-9)
        else:
            assert min(row["statistic"], ranks - row["statistic"]) == pytest.approx(statistic)


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_file_is_invalid_with_its_reason(
    name: str, imported: tuple[Path, list[dict[str, Any]]], store: Store
) -> None:
    _, gate, why = FAULTY[name]
    part = told(imported, name, "single_turn")
    last = part["decisions"][-1]
    assert (last["gate"], last["verdict"], last["next"]) == (gate, "INVALID", "stop")
    assert why in last["sentence"]
    tests = pl.DataFrame(analysis(store, part), infer_schema_length=None)
    assert not tests.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True)
    undefined = tests.filter(pl.col("p").is_null() & (pl.col("hypothesis") == "paired_t"))
    assert undefined["reason"].null_count() == 0
    assert (len(undefined) > 0) == (name in ("without", "constant", "repeated"))


def test_sound_files_walk_all_gates_and_say_what_they_lack(
    imported: tuple[Path, list[dict[str, Any]]],
) -> None:
    for name in ("v1", "v2", "flat", "turns"):
        decisions = told(imported, name, "single_turn")["decisions"]
        assert [d["gate"] for d in decisions] == [
            "positive_control", "a_a", "integrity", "seed_sources", "seed_effect"]  # fmt: skip
        assert [d["verdict"] for d in decisions[:3]] == ["INCONCLUSIVE"] * 3
        assert "no positive control" in decisions[0]["sentence"]
        assert decisions[-1]["verdict"] in ("INCONCLUSIVE", "EQUIVALENT", "DETECTED")


def test_conversations_are_a_part_of_their_own_counted_as_units(
    imported: tuple[Path, list[dict[str, Any]]], store: Store
) -> None:
    part = told(imported, "turns", "multi_turn")
    assert (part["texts"], part["prompts"], part["model"]) == (2 * 3 * 3 * 4 * 3, 3, "tiny:1b · multi_turn")
    [verdict] = [r for r in analysis(store, part) if r["family"] == "seed_effect" and r["role"] == "verdict"]
    assert verdict["n"] == part["texts"] / 3


def test_injection_is_analysed_mode_by_mode_without_seeds(
    imported: tuple[Path, list[dict[str, Any]]], store: Store
) -> None:
    for name, metrics in (("injection", "computed from the texts"), ("cut", "as stored in the file")):
        assert told(imported, name, "none")["decisions"] == []
        part = told(imported, name, "temp_modulate")
        assert part["metrics"] == metrics
        seeds = part["decisions"][3]
        assert (seeds["gate"], seeds["verdict"]) == ("seed_sources", "INCONCLUSIVE")
        assert "there are no seeds to compare" in seeds["sentence"]
        decisive = [
            r for r in analysis(store, part) if r["role"] == "decides" and r["family"] == "seed_effect"
        ]
        assert {r["metric"] for r in decisive} == {"mtld", "distinct_2", "shannon_word"}
        assert all(r["p"] is not None for r in decisive if r["hypothesis"] == "omnibus")


@pytest.mark.long
def test_a_second_import_computes_nothing_and_adds_no_rows(
    imported: tuple[Path, list[dict[str, Any]]], written: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    home, parts = imported
    before = store.read(COUNTS).to_dicts()
    products = {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.json")}
    renamed = tmp_path / "another name.json"
    renamed.write_bytes(written["v1"].read_bytes())
    done = ladder("import", str(renamed), str(written["turns"]), "--json", home=home)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)["parts"]
    ids = {d["decision_id"] for p in parts for d in p["decisions"]}
    assert {d["decision_id"] for p in again for d in p["decisions"]} <= ids
    assert again[0]["model"] == "v1"
    assert store.read(COUNTS).to_dicts() == before
    assert {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.json")} == products


def test_gates_show_the_reasons_and_a_decision_can_be_computed_again(
    imported: tuple[Path, list[dict[str, Any]]],
) -> None:
    home, parts = imported
    shown = " ".join(ladder("gates", home=home).stdout.split())
    assert all(f"INVALID {gate}" in shown and why in shown for _, gate, why in FAULTY.values())
    decided = told((home, parts), "empty", "single_turn")["decisions"][-1]["decision_id"]
    why = ladder("gates", "entropy_import", "--why", decided, home=home)
    assert (why.returncode, "INVALID" in why.stdout) == (0, True), why.stderr


@pytest.mark.slow
def test_import_and_gates_in_one_line_of_a_shell(
    imported: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    home = shutil.copytree(imported[0], tmp_path / "home")
    body = earlier_files.v2(prompts=10, samples=6, write=earlier_files.emptied(0.45))
    path = earlier_files.save(tmp_path / "with spaces.json", body)
    command = f"{sys.executable} -m deployments.cli"
    line = f'{command} import "{path}" && {command} gates'
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert (
        said.count("INVALID integrity The data cannot be used: TRNG: 45.0% of the samples are missing") == 2
    )
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_the_report_has_the_imported_results(
    imported: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    done = ladder("report", "--out", str(out), home=imported[0])
    assert done.returncode == 0, done.stderr
    page = out.read_text()
    assert "tiny:1b · multi_turn" in page
    assert "44.7% of the samples are missing" in page
