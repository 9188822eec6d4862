"""The sentence study: its numbers, and a run from question to decision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tasks.sentence_length import Asked, compare, ends

from tests.ladder_command import ask, ladder

ASKED = Asked(topics=200, margin=2.0, alpha=0.05)


@pytest.mark.parametrize("text", ["", "One sentence only", "One sentence. "])
def test_a_topic_without_two_sentences_is_left_out(text: str) -> None:
    assert ends(text) is None


@pytest.mark.parametrize(("planted", "verdict"), [(4.0, "DETECTED"), (0.0, "EQUIVALENT")])
def test_a_planted_difference_is_found_and_none_is_equivalence(planted: float, verdict: str) -> None:
    first = np.random.default_rng(0).poisson(15, size=200).astype(float)
    noise = np.random.default_rng(1).normal(scale=4.0, size=200)
    difference, found = compare(np.stack([first, first + planted + noise - noise.mean()], axis=1), ASKED)
    assert found.verdict == verdict
    assert difference.estimate == pytest.approx(planted)


def test_lengths_that_do_not_vary_have_no_verdict() -> None:
    [only] = compare(np.tile([5.0, 6.0], (30, 1)), ASKED)
    assert "do not vary" in str(only.reason)


def test_a_run_decides_and_a_second_one_measures_nothing(tmp_path: Path) -> None:
    done = ladder("run", "sentence_length", home=tmp_path)
    assert done.returncode == 0, done.stderr
    count = "SELECT (SELECT count(*) FROM metric) AS metrics, (SELECT count(*) FROM decision) AS decisions"
    found = ask(count, home=tmp_path)
    assert found[0]["metrics"] >= 100
    assert found[0]["decisions"] == 1
    [row] = ask("SELECT verdict, exploratory FROM decision", home=tmp_path)
    assert row["verdict"] in ("DETECTED", "EQUIVALENT", "INCONCLUSIVE")
    assert row["exploratory"] is False
    assert ladder("run", "sentence_length", home=tmp_path).returncode == 0
    assert ask(count, home=tmp_path) == found
