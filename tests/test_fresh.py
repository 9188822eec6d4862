"""`ladder run --fresh`: everything that the run asks for is made again, once, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lab import fresh
from lab.errors import UsageError
from lab.machine import this_process
from lab.products import Products
from lab.records import RunRow
from lab.store import Store
from tasks.training import directory
from tests.ladder_command import COUNTS, DECISIONS, RUN, ask, ladder


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    fresh._seen.clear()
    yield
    os.environ.pop(fresh.VARIABLE, None)
    fresh._seen.clear()


def test_a_product_of_before_does_not_count_and_one_of_now_does(tmp_path: Path) -> None:
    products = Products(tmp_path, "texts")
    for key in ("old", "unasked"):
        products.write(key, {"made": "before"})
    with fresh.begun(tmp_path, "a run") as earlier:
        assert earlier is None
        assert products.read("old") is None
        products.write("old", {"made": "again"})
        assert products.read("old") == {"made": "again"}
    assert products.read("unasked") == {"made": "before"}
    assert not fresh.mark(tmp_path, "a run").exists()
    assert fresh.since() is None


def test_a_clock_that_is_set_back_makes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime.now() + timedelta(days=400)
    fresh.mark(tmp_path, "a run").parent.mkdir()
    fresh.mark(tmp_path, "a run").write_text(later.isoformat(), encoding="ascii")
    products = Products(tmp_path, "texts")
    with fresh.begun(tmp_path, "a run"):
        products.write("one", {"n": 1})
        assert products.read("one") == {"n": 1}
        fresh._seen.clear()  # as another process of the run
        assert products.read("one") == {"n": 1}


def interrupted(home: Path, products: Products) -> bool:
    try:
        with fresh.begun(home, "a run"):
            assert products.read("one") is None
            products.write("one", {"made": "again"})
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return fresh.since() is None


def test_what_is_interrupted_goes_on_from_the_same_moment(tmp_path: Path) -> None:
    products = Products(tmp_path, "texts")
    for key in ("one", "two"):
        products.write(key, {"made": "before"})
    assert interrupted(tmp_path, products)
    fresh._seen.clear()
    with fresh.begun(tmp_path, "a run") as earlier:
        assert earlier is not None
        assert products.read("one") == {"made": "again"}
        assert products.read("two") is None
    fresh.mark(tmp_path, "a run").write_text("yesterday", encoding="ascii")
    with pytest.raises(UsageError, match="damaged; delete it"), fresh.begun(tmp_path, "a run"):
        pass


def test_a_studys_own_training_goes_and_a_model_of_several_studies_stays(tmp_path: Path) -> None:
    own, shared = (tmp_path / "models" / f"{name}-key" for name in ("nano_run", "pydoc-0.1m"))
    for place in (own, shared):
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"x")
        os.utime(place, (0, 0))
    assert directory(tmp_path, "nano_run", "key") == own
    assert own.exists()
    with fresh.begun(tmp_path, "a run"):
        assert directory(tmp_path, "pydoc-0.1m", "key") == shared
        assert directory(tmp_path, "nano_run", "key") == own
        assert (own.exists(), shared.exists()) == (False, True)
        own.mkdir()
        os.utime(own, (0, 0))  # a clock that is set back
        assert directory(tmp_path, "nano_run", "key").exists()


@pytest.mark.slow
def test_a_study_done_anew_makes_every_text_again_and_leaves_the_same_rows(home: Path) -> None:
    before, decided = ask(COUNTS, home=home), ask(DECISIONS, home=home)
    done = ladder(*RUN, "--fresh", "--json", home=home)
    assert done.returncode == 0, done.stderr
    texts = [line for line in done.stderr.splitlines() if "made now" in line and "texts" in line]
    assert texts
    assert all(line.endswith(" made now") for line in texts)
    assert "train pydoc" not in done.stderr
    assert json.loads(done.stdout)["concluding"]
    assert ask(COUNTS, home=home) == before
    assert ask(DECISIONS, home=home) == decided
    assert list((home / "fresh").iterdir()) == []


def test_doing_anew_waits_for_nobody(home: Path) -> None:
    row = Store(home).read("SELECT * FROM run LIMIT 1").row(0, named=True)
    Store(home).record([RunRow(**row | {"run_id": "x", "state": "running", "process": this_process()})])
    done = ladder(*RUN, "--fresh", home=home)
    assert done.returncode == 2
    assert "run of entropy_seeds/smoke" in done.stderr
