"""Does the study's decision see a faulty source under `select`, and not the same generator twice?

Default tier: two tapes of each strong control on a model trained for seconds. The campaign of 50 tapes on the
smoke profile's model, with the weaker controls: `python -m pytest -m slow tests/test_injection_detection.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.embedded import RUNGS, obtain, train
from models.english import pydoc_english
from models.transformers_backend import TransformersBackend
from stats.diversity import PRIMARY
from tests.injection_campaign import (
    SAME,
    STRONG,
    Arm,
    Control,
    Plan,
    Seen,
    campaign,
    detected,
    generate,
    judge,
    measured,
    null_pairs,
    repeat,
    table_line,
    texts_differ,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Plan(looks=(4, 8), controls=(*STRONG, SAME))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest rung's shape after 60 steps on a tenth of its text."""
    whole = pydoc_english()
    corpus = dataclasses.replace(whole, train=whole.train[:6], heldout=whole.heldout[:2])
    spec = replace(RUNGS["pydoc-0.1m"], steps=60, warmup_steps=5, evaluations=1)
    return str(train(spec, tmp_path_factory.mktemp("detection") / "m", corpus=corpus).directory)


def test_stuck_and_tiled_sources_are_always_detected_and_the_same_generator_is_not(model: str) -> None:
    seen: dict[Control, list[Seen]] = {control: [] for control in SMALL.controls}
    for number in (1, 2):
        for control, found in repeat(model, number, SMALL)[1].items():
            seen[control].append(found)
    assert {control: texts_differ(seen[control]) for control in STRONG} == dict.fromkeys(STRONG, 1.0)
    assert texts_differ(seen[SAME]) < 1.0  # both of two sound tapes are rejected with probability .0025


def noise_arm(rng: np.random.Generator, shift: float = 0.0) -> Arm:
    """Made-up metrics, in the size of the small plan."""
    values = {name: rng.normal(shift, 1.0, size=(8, 12)) for name in PRIMARY}
    return Arm(values=values, excluded=0)


def test_the_judge_sees_a_shift_and_its_pairs_of_references_keep_near_alpha() -> None:
    rng = np.random.default_rng(3)
    references = [noise_arm(rng) for _ in range(12)]
    shifted = [judge(noise_arm(rng, 1.5), reference, SMALL) for reference in references]
    assert detected(shifted) == texts_differ(shifted) == 1.0
    assert all(s.effect is not None and s.effect > 1.0 for s in shifted)
    pairs = null_pairs(references, SMALL, most=40)
    assert len(pairs) == 40
    assert (
        max(detected(pairs), texts_differ(pairs)) <= 0.25
    )  # a binomial (40, .05) exceeds 10 with probability 1e-5


def test_texts_that_the_study_excludes_are_left_out_and_counted() -> None:
    plan = Plan(prompts=("creative-1", "code-1"), looks=(2,))
    whole = " ".join(f"word{i}" for i in range(12)) + " word1 word2 word1 word2"
    arm = measured([whole, None, "too short", whole], plan)
    assert arm.excluded == 2
    assert np.isnan(arm.values["distinct_2"]).tolist() == [[False, True], [True, False]]


def test_rows_of_equal_prompt_and_numbers_share_one_text(model: str, tmp_path: Path) -> None:
    plan = Plan(prompts=("creative-1", "code-1"), looks=(3,))
    stuck = generate(TransformersBackend(model), ("constant", None), 7, plan, tmp_path / "a")
    sound = generate(TransformersBackend(model), SAME, 7, plan, tmp_path / "b")
    assert all(len(np.unique(column[~np.isnan(column)])) <= 1 for column in stuck.values["distinct_2"].T)
    assert len(np.unique(sound.values["shannon_word"])) == 6


def test_a_table_line_shows_rates_by_look() -> None:
    yes = Seen(("INCONCLUSIVE", "DETECTED"), 0.5, texts_differ=True, excluded=3)
    no = Seen(("INCONCLUSIVE", "INVALID"), None, texts_differ=True, excluded=1)
    line = table_line("tiled", [yes, no], SMALL)
    assert line.split() == ["tiled", "2", "1.000", "0.500", "0.00", "0.50", "0.50", "+0.50", "0.021"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_strong_controls_are_detected_on_95_of_100_tapes_and_the_same_generator_on_7_at_most(
    tmp_path: Path,
) -> None:
    directory = obtain(RUNGS["pydoc-0.4m"], tmp_path / "model").directory
    plan = Plan()
    references, seen = campaign(str(directory), 50, plan, processes=2)
    rates = {control: texts_differ(of_control) for control, of_control in seen.items()}
    for control in STRONG:
        assert rates[control] >= 0.95, (control, rates)
    assert max(rates[SAME], detected(seen[SAME])) <= 0.07, rates
    pairs = null_pairs(references, plan, most=400)
    assert max(texts_differ(pairs), detected(pairs)) <= 0.07
    curve = [rates["biased_bits", dose] for dose in (0.01, 0.05, 0.1, 0.25, 0.5)]
    assert curve == sorted(curve)
