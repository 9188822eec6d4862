"""Cached results of steps: whole and checked, or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lab import fresh, machine, runs
from lab.fingerprint import canonical, code, fingerprint
from lab.products import Products
from lab.records import RunRow
from lab.store import Store
from lab.tables import utc_now


def test_a_product_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = Products(tmp_path, "texts")
    body = {"text": "naïve ☃ \u2028 line", "n": 3, "x": 0.1, "none": None, "list": [1, [2]]}
    kept.write("abcd", body)
    assert kept.read("abcd") == body
    assert kept.read("abce") is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b.replace(b"3", b"4"), lambda b: b"\xff" + b]
)
def test_a_damaged_product_is_not_there_and_is_deleted(tmp_path: Path, damage: object) -> None:
    kept = Products(tmp_path, "texts")
    kept.write("abcd", {"n": 3})
    path = kept.path("abcd")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert kept.read("abcd") is None
    assert not path.exists()


def test_a_number_that_is_none_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Products(tmp_path, "texts").write("abcd", {"x": float("nan")})
    assert Products(tmp_path, "texts").read("abcd") is None


def test_code_counts_what_a_module_imports_and_not_its_comments() -> None:
    assert code("stats.seed_study") != code("stats.seed_effect")
    assert code("stats.seed_effect") == code("stats.seed_effect")
    with pytest.raises(ValueError, match="not a module of this project"):
        code("numpy")


def test_a_config_has_one_text_whatever_its_order_and_no_text_for_what_is_not_data() -> None:
    assert canonical({"b": {2, 1}, "a": (1,)}) == '{"a":[1],"b":[1,2]}'
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1})
    for bad in (float("nan"), object(), {1: 2}, Path("x"), lambda: 1):
        with pytest.raises((TypeError, ValueError)):
            canonical({"field": bad})


def run_of(process: str) -> RunRow:
    fixed = dict.fromkeys(["run_id", "study", "profile", "model", "plan_hash", "environment_id"], "x")
    return RunRow(
        **fixed | {"run_id": process},
        settings="{}",
        state="running",
        started_at=utc_now(),
        ended_at=None,
        exploratory=False,
        git_commit=None,
        git_dirty=None,
        flow_run_id=None,
        parent_flow_run_id=None,
        process=process,
        note=None,
    )


def test_a_run_whose_process_is_gone_is_marked_as_crashed_and_a_live_one_is_not(tmp_path: Path) -> None:
    store, alive = Store(tmp_path), machine.this_process()
    dead = alive.rsplit(":", 1)[0] + ":1"
    store.record([run_of(alive), run_of(dead)])
    assert runs.reconcile(store) == [dead]
    states = dict(store.read("SELECT process, state FROM run").rows())
    assert states == {alive: "running", dead: "crashed"}
    assert runs.reconcile(store) == []


def test_the_machine_says_what_it_is() -> None:
    found = machine.environment(device="cpu")
    assert found.cores >= 1
    assert '"duckdb":"2' in found.packages
    assert found.environment_id == machine.environment(device="cpu").environment_id
    assert found.environment_id != machine.environment(device="other").environment_id


def test_the_time_of_making_stays_with_a_copy(tmp_path: Path) -> None:
    products = Products(tmp_path / "home", "generation")
    products.write("ab12", {"text": "x"})
    made = products.first_made("ab12")
    assert made is not None
    copied = tmp_path / "copy" / "cache"
    shutil.copytree(tmp_path / "home" / "cache", copied, copy_function=shutil.copyfile)
    there = Products(tmp_path / "copy", "generation")
    os.utime(there.path("ab12"), (0, 0))
    assert there.first_made("ab12") == made
    assert there.read("ab12") == {"text": "x"}
    assert there.first_made("cd34") is None


def test_the_same_text_made_anew_is_as_old_as_it_was_and_another_is_not(tmp_path: Path) -> None:
    products = Products(tmp_path, "generation")
    for key in ("ab12", "cd34"):
        products.write(key, {"text": key})
    first = products.first_made("ab12")
    assert first is not None
    with fresh.begun(tmp_path, "a run"):
        for key in ("ab12", "cd34"):
            assert products.read(key) is None
            assert products.read(key) is None
        products.write("ab12", {"text": "ab12"})
        products.write("cd34", {"text": "something else"})
        assert products.read("ab12") == {"text": "ab12"}
    assert products.first_made("ab12") == first
    other = products.first_made("cd34")
    assert other is not None
    assert other > first
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".json", ".json"]


def test_a_head_that_says_no_time_is_damage(tmp_path: Path) -> None:
    products = Products(tmp_path, "generation")
    products.write("ab12", {"text": "x"})
    path = products.path("ab12")
    digest, _, body = path.read_bytes().partition(b" ")
    path.write_bytes(digest + b" yesterday\n" + body.partition(b"\n")[2])
    assert products.first_made("ab12") is None
    assert products.read("ab12") is None
    assert not path.exists()
