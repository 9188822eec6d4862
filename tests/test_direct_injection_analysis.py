"""What the injection study concludes from made-up texts: planted effects, faulty sources, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flows.direct_injection import SMOKE, arms, question
from stats.rows import TestRow
from tasks.injection_analysis import Question, Text, analyse_look
from tasks.injection_cells import InjectionArm

Shift = Callable[[InjectionArm, int], float]
"""Arm and prompt -> shift of every metric, in within-cell SD."""
PROMPTS = tuple(f"p{i:02d}" for i in range(10))
SETTINGS = replace(SMOKE, doses=(0.0, 0.3), gaussian_doses=(), looks=(6,), required_pairs=5)
ASKED = question(SETTINGS)


def texts(shift: Shift, *, repeated: str | None = None, excluded: str | None = None) -> list[Text]:
    """Normal metrics for every arm; the texts of one arm may repeat, or be too short."""
    rng = np.random.default_rng(7)
    found = []
    for number, arm in enumerate(arms(SETTINGS)):
        for p, prompt in enumerate(PROMPTS):
            for k in range(6 * arm.times):
                y = rng.normal(size=6) + shift(arm, p)
                metrics = dict(zip((*ASKED.primary, *ASKED.secondary), y.tolist(), strict=True))
                sha = "same" if arm.name == repeated else f"{number}-{p}-{k}"
                known = Text(
                    arm=arm, prompt=prompt, constraint="open", k=k, probe=0,
                    seed32=1000 * number + 100 * p + k,
                    kl_nats=0.05 + 0.01 * float(rng.random()) if arm.changes_distribution else None,
                    failure=None, excluded="under 10 words" if arm.name == excluded else None,
                    words=5 if arm.name == excluded else 40, sha256=sha,
                    metrics={name: (value, None) for name, value in metrics.items()},
                )  # fmt: skip
                found.append(known)
                if (7 * p + k) % 20 == 0:
                    found.append(replace(known, probe=1))
    return found


def verdicts(rows: list[TestRow]) -> dict[str, Any]:
    """The verdict of each deciding family, and the last one's mode."""
    found: dict[str, Any] = {row.family: row.verdict for row in rows if row.role == "verdict"}
    return found | {"mode": rows[-1].contrast}


def faulty(arm: InjectionArm, prompt: int) -> float:
    """A control that every prompt answers downwards."""
    return -2.0 if arm.role == "positive_control" else 0.0


def test_a_source_that_differs_in_one_mode_is_detected_there_and_nowhere_else() -> None:
    def shift(arm: InjectionArm, prompt: int) -> float:
        return 2.0 if arm.name == "gumbel/TRNG" else faulty(arm, prompt)

    found = verdicts(analyse_look(texts(shift), ASKED))
    assert (found["injection_effect"], found["mode"]) == ("DETECTED", "gumbel")
    assert found["a_a"] == "INCONCLUSIVE"
    assert {found[f"positive_control_{name}"] for name in ("constant", "biased", "tiled")} == {"DETECTED"}


def test_modes_that_differ_whatever_the_source_decide_nothing() -> None:
    def shift(arm: InjectionArm, prompt: int) -> float:
        return 3.0 if arm.condition.startswith(("logit_perturb:0.3", "temp")) else faulty(arm, prompt)

    rows = analyse_look(texts(shift), ASKED)
    assert verdicts(rows)["injection_effect"] == "INCONCLUSIVE"
    against = [
        r for r in rows if r.family == "dose_response" and r.contrast == "logit_perturb:0.3:uniform-none"
    ]
    assert against
    assert all(r.role == "secondary" and (r.p_adjusted or 0) < 0.001 for r in against)


def test_a_fault_that_moves_one_prompt_and_not_the_mean_over_prompts_is_seen() -> None:
    def shift(arm: InjectionArm, prompt: int) -> float:
        return 6.0 * (prompt == 0) if arm.label == "CONSTANT" else faulty(arm, prompt)

    rows = [row for row in analyse_look(texts(shift), ASKED) if row.family == "positive_control_constant"]
    assert next(row for row in rows if row.role == "verdict").verdict == "INCONCLUSIVE"
    anywhere = next(row for row in rows if row.hypothesis == "max_t")
    assert (anywhere.p or 0) < 0.001


@pytest.mark.parametrize(("name", "verdict"), [("select/BIASED", "DETECTED"), ("gumbel/HMIX", "INVALID")])
def test_repeated_texts_are_a_fault_of_a_working_source_and_expected_of_a_faulty_one(
    name: str, verdict: str
) -> None:
    assert verdicts(analyse_look(texts(faulty, repeated=name), ASKED))["integrity"] == verdict


def test_the_further_samples_of_the_controls_base_stay_out_of_the_comparison_of_sources() -> None:
    found = texts(faulty)
    rows = analyse_look(found, ASKED)
    [n] = {r.n for r in rows if r.family == "injection_effect select" and r.role == "verdict"}
    assert n == 3 * len(PROMPTS) * ASKED.look
    [control] = {r.n for r in rows if r.family == "positive_control_tiled" and r.role == "verdict"}
    assert control == 2 * len(PROMPTS) * ASKED.look * SETTINGS.control_times


def test_an_arm_without_a_usable_text_is_invalid_and_nothing_raises() -> None:
    found = verdicts(analyse_look(texts(faulty, excluded="seed_only/TRNG"), ASKED))
    assert found["injection_effect seed_only"] == "INVALID"
    assert found["injection_effect"] == "INVALID"
    control = verdicts(analyse_look(texts(faulty, excluded="select/TILED"), ASKED))
    assert control["positive_control_tiled"] == "INVALID"
    failed = [replace(t, failure="timeout", excluded="error", sha256=None, words=None) for t in texts(faulty)]
    nothing = {row.family: row.verdict for row in analyse_look(failed, ASKED) if row.role == "verdict"}
    assert nothing["integrity"] == "INVALID"
    assert "injection_effect" not in nothing


def test_a_question_is_asked_again_at_another_look() -> None:
    assert ASKED.at(9, (3, 9)) == replace(ASKED, look=9, looks=(3, 9))
    assert isinstance(ASKED, Question)
