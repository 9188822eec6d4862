"""A sweep over blocks that is stopped and goes on: each language once, the product of one undisturbed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.quant_asking import question_of, start_sweeps
from flows.quant_protocol import replicates
from lab.errors import TimeLimitError, WorkError
from lab.products import Products
from models import quant_jobs
from tasks import quant_measuring
from tasks.quant_measuring import SWEEP, SWEEP_LANGUAGE, Subject, language_key
from tests.test_quant_jobs import CODES, MIX, SOURCE, SPEC, saved

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    where = saved(tmp_path_factory.mktemp("swept"))
    return Subject(where=where, digest="0" * 64, source=SOURCE, mix=MIX)


class Here:
    """A worker in this process that is stopped after so many reports, as at its time limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[list[str]] = []

    def call(
        self, function: str, arguments: Mapping[str, Any], *, seconds: float, report: Callable[[Any], None]
    ) -> Any:
        given = json.loads(json.dumps(arguments))
        self.asked.append(given["languages"])
        left = self.most

        def tell(body: Any) -> None:
            nonlocal left
            report(json.loads(json.dumps(body)))
            left -= 1
            if not left:
                raise TimeLimitError("stopped at its time limit of 5 s")

        return getattr(quant_jobs, function.partition(":")[2])(**given, report=tell)


Sets = tuple[tuple[int, ...], ...]


@pytest.fixture
def swept(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Sets, int], Here]:
    """Sweep into a home, stopped after so many languages."""
    monkeypatch.setattr("tasks.progress.create_progress_artifact", lambda **_: None)

    def run(home: Path, sets: Sets, most: int) -> Here:
        here = Here(most)

        @contextmanager
        def worker(near: str) -> Iterator[Here]:
            yield here

        monkeypatch.setattr(quant_measuring, "worker", worker)
        key = subject.sweep_key(SPEC, sets)
        stopped = False
        try:
            told = quant_measuring.sweep.fn(str(home), "a sweep", subject, SPEC, sets, 5.0, key)
            assert told == key
        except TimeLimitError:
            stopped = True
        assert stopped == (Products(home, SWEEP).read(key) is None)
        return here

    return run


@pytest.mark.parametrize("sets", [(), ((0,), (1, 2))], ids=["each block", "sets of blocks"])
def test_a_sweep_stopped_twice_goes_on_with_the_languages_it_lacks_and_is_as_one_undisturbed(
    swept: Callable[[Path, Sets, int], Here], subject: Subject, tmp_path: Path, sets: Sets
) -> None:
    key, calm, home = subject.sweep_key(SPEC, sets), tmp_path / "calm", tmp_path / "home"
    assert swept(calm, sets, 9).asked == [list(CODES)]
    asked = [swept(home, sets, most).asked for most in (2, 1, 9)]
    assert asked == [[list(CODES)], [list(CODES[2:])], [list(CODES[3:])]]
    found, expected = Products(home, SWEEP).read(key), Products(calm, SWEEP).read(key)
    for product in (found, expected):
        seconds = [one.pop("seconds") for one in product["languages"].values()]
        assert product.pop("seconds") == pytest.approx(sum(seconds))
        assert min(seconds) > 0.0
    assert found == expected
    assert list(found["languages"]) == sorted(CODES)
    assert found["blocks"] == 3


def test_a_run_that_ended_before_the_whole_was_filed_measures_no_language_again(
    swept: Callable[[Path, Sets, int], Here], subject: Subject, tmp_path: Path
) -> None:
    key, products = subject.sweep_key(SPEC, ()), Products(tmp_path, SWEEP)
    swept(tmp_path, (), 9)
    before = products.read(key)
    products.path(key).unlink()
    assert swept(tmp_path, (), 9).asked == []
    assert products.read(key) == before
    products.path(key).unlink()
    Products(tmp_path, SWEEP_LANGUAGE).path(language_key(key, "de")).write_text("damaged")
    assert swept(tmp_path, (), 9).asked == [["de"]]


def test_where_no_blocks_were_chosen_none_are_swept_and_the_experiment_says_so() -> None:
    [one] = replicates("cldr-gpt2", 1)
    run: Any = SimpleNamespace(saved={}, sweeps={}, protocol=SimpleNamespace(pairs={}))
    start_sweeps(run, "C-002", [one], 32)
    assert run.sweeps == {}
    with pytest.raises(WorkError, match="no blocks were chosen: C-001 has no number"):
        question_of(run, ("C-002",), one, 32)
