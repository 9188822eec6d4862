"""Regimes: their windows, what is refused, and that each changes what its channel names and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nano_interventions import Batch, disturbed_batch, disturbed_state, seen_statistics
from models.nano_recipe import PROFILES, STATISTICS
from models.regimes import (
    BEWILDERMENT,
    CHANNELS,
    FALSE_FEEDBACK,
    LR_HEATWAVE,
    PUBLISHED,
    SELF_CLAMP,
    SENSORY_FOG,
    SMOKE,
    STRONG,
    UNDISTURBED,
    Regime,
    RegimePlan,
    randomised,
    read_plan,
)
from stats.regime_classes import CLEAN

VOCAB = 11
BATCH = Batch(
    x=torch.randint(VOCAB, (40, 50), generator=torch.Generator().manual_seed(0)),
    y=torch.randint(VOCAB, (40, 50), generator=torch.Generator().manual_seed(1)),
)
SEEN = {name: float(i) for i, name in enumerate(STATISTICS)}
S = torch.tensor([0.5, -2.0, 0.001, 1.0])
BEFORE = torch.tensor([0.1, 0.2, 0.3, 0.4])


def of(channel: str, mode: str, strength: float, **more: Any) -> Regime:
    return Regime(id=f"{channel}_{mode}", channel=channel, mode=mode, strength=strength, **more)


def done(*regimes: Regime, step: int = 3, seed: int = 0) -> tuple[Batch, dict[str, float], torch.Tensor]:
    return (
        disturbed_batch(BATCH, regimes, VOCAB, seed=seed, step=step),
        seen_statistics(SEEN, regimes, seed=seed, step=step),
        disturbed_state(S, BEFORE, regimes, seed=seed, step=step),
    )


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_regime_changes_what_its_channel_names_and_nothing_else(channel: str) -> None:
    for mode in CHANNELS[channel]:
        batch, seen, s = done(of(channel, mode, 0.5))
        x_is_as_it_was = torch.equal(batch.x, BATCH.x) and batch.hidden is None
        assert x_is_as_it_was == (channel != "input")
        assert torch.equal(batch.y, BATCH.y) == (channel != "target")
        assert (seen == SEEN) == (channel != "stats")
        assert torch.equal(s, S) == (channel != "self")
        plan = RegimePlan(regimes=(replace(of(channel, mode, 0.5), windows=((3, 5),)),))
        assert [plan.rate_factor(step) for step in (2, 3, 4, 5)] == (
            [1.0, 0.5, 0.5, 1.0] if channel == "optim" else [1.0] * 4
        )
    assert torch.equal(BATCH.x, torch.randint(VOCAB, (40, 50), generator=torch.Generator().manual_seed(0)))


def test_tokens_are_disturbed_with_the_chance_asked_for_and_evenly() -> None:
    assert done(SENSORY_FOG)[0].hidden is not None
    hidden = done(SENSORY_FOG)[0].hidden
    assert hidden is not None
    assert hidden.float().mean().item() == pytest.approx(0.2, abs=0.04)  # 4 standard errors of 2,000
    for regime in (BEWILDERMENT, of("input", "random_tokens", 0.5)):
        batch = done(regime)[0]
        other = batch.y != BATCH.y if regime is BEWILDERMENT else batch.x != BATCH.x
        assert other.float().mean().item() == pytest.approx(0.5 * (VOCAB - 1) / VOCAB, abs=0.045)
    everywhere = done(of("target", "random_targets", 1.0))[0].y
    counts = torch.bincount(everywhere.flatten(), minlength=VOCAB).float()
    assert len(counts) == VOCAB
    assert counts.min() > 2000 / VOCAB - 4 * (2000 / VOCAB) ** 0.5
    none = done(of("input", "mask_tokens", 0.0), of("target", "random_targets", 0.0))[0]
    assert none.hidden is not None
    assert not none.hidden.any()
    assert torch.equal(none.y, BATCH.y)


def test_the_update_sees_a_statistic_moved_and_the_original_stays() -> None:
    assert done(FALSE_FEEDBACK)[1] == {**SEEN, "loss": 0.5}
    assert done(of("stats", "bias", -1.0, statistic="entropy"))[1] == {**SEEN, "entropy": 2.0}
    moved = [done(of("stats", "noise", 2.0), step=step)[1]["loss"] for step in range(300)]
    assert sum(moved) / 300 == pytest.approx(0.0, abs=0.5)
    assert (sum(x * x for x in moved) / 300) ** 0.5 == pytest.approx(2.0, abs=0.4)
    assert SEEN["loss"] == 0.0


def test_the_state_is_boxed_held_scaled_or_shaken() -> None:
    assert done(SELF_CLAMP)[2].tolist() == pytest.approx([0.01, -0.01, 0.001, 0.01])
    box = 0.2 * float(S.square().mean().sqrt())
    assert done(replace(SELF_CLAMP, mode="clamp_relative", strength=0.2))[2].tolist() == pytest.approx(
        [box, -box, 0.001, box]
    )
    assert torch.equal(done(of("self", "freeze", 0.0))[2], BEFORE)
    assert torch.equal(done(of("self", "scale", 3.0))[2], 3 * S)
    shaken = torch.stack([done(of("self", "noise", 0.5), step=step)[2] - S for step in range(200)])
    assert shaken.std().item() == pytest.approx(0.5, abs=0.06)


def test_draws_hang_on_seed_regime_and_step_and_not_on_what_else_acts() -> None:
    fog = of("input", "random_tokens", 0.5)
    alone = done(fog)[0].x
    assert torch.equal(done(BEWILDERMENT, fog, FALSE_FEEDBACK)[0].x, alone)
    for other in (done(fog, step=4)[0], done(fog, seed=1)[0], done(replace(fog, id="other"))[0]):
        assert not torch.equal(other.x, alone)
    both = done(SENSORY_FOG, replace(SENSORY_FOG, id="second"))[0].hidden
    assert both is not None
    assert both.float().mean().item() == pytest.approx(1 - 0.8**2, abs=0.045)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel": "output"}, "channel 'output'; allowed: input, target, stats, self, optim"),
        ({"mode": "clamp"}, "mode 'clamp'; channel 'target' allows: random_targets"),
        ({"statistic": "accuracy"}, "statistic 'accuracy'; allowed: loss, grad_norm"),
        ({"strength": 1.5}, "strength 1.5; allowed: 0 to 1"),
        ({"strength": float("nan")}, "strength nan"),
        ({"windows": ((30, 30),)}, r"window \[30, 30\]; allowed: \[start, end\]"),
        ({"windows": ((-1, 30),)}, r"window \[-1, 30\]"),
        ({"windows": ((50, 60), (10, 20))}, "give them in order"),
    ],
)
def test_a_regime_that_could_not_act_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BEWILDERMENT, **change)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (((10, 20), (20, 30)), r"a/0 \(steps 10-20\) and b/0 \(20-30\) have 0 steps between them"),
        (((10, 20), (15, 30)), "overlap by 5 steps"),
        (((10, 40), (15, 20)), "overlap by 25 steps"),
        (((10, 20), (24, 30)), 'have 4 steps between them; allowed: 5 or more, or "contact": true'),
    ],
)
def test_windows_that_touch_are_refused_unless_asked_for(windows: Any, message: str) -> None:
    a, b = (replace(BEWILDERMENT, id=name, windows=(w,)) for name, w in zip("ab", windows, strict=True))
    with pytest.raises(ValueError, match=message):
        RegimePlan(regimes=(b, a), least_gap=5)
    with pytest.raises(ValueError, match="a/"):
        RegimePlan(regimes=(replace(a, windows=windows),), least_gap=5)
    plan = RegimePlan(regimes=(a, b), least_gap=5, contact=True)
    assert [one.name for one in plan.occurrences()] == ["a/0", "b/0"]
    assert len(plan.acting(15)) == 1 + (15 in range(*windows[1]))


def test_windows_outside_the_run_and_doubled_regimes_are_refused() -> None:
    plan = RegimePlan(regimes=(replace(BEWILDERMENT, windows=((10, 20), (90, 101))),))
    plan.refuse_outside(101)
    with pytest.raises(ValueError, match="bewilderment/1 covers steps 90-101 of a run of 100"):
        plan.refuse_outside(100)
    with pytest.raises(ValueError, match="regimes occur twice: lr_heatwave"):
        RegimePlan(regimes=(LR_HEATWAVE, replace(LR_HEATWAVE, windows=((5, 6),))))
    with pytest.raises(ValueError, match="least_gap is 0"):
        RegimePlan(least_gap=0)


def test_a_plan_without_one_window_keeps_the_others() -> None:
    gone = SMOKE.occurrences()[2]
    left = SMOKE.without(gone)
    assert gone.name == "bewilderment/1"
    assert [one.start for one in left.occurrences()] == [80, 120, 200]
    assert left.acting(165) == ()


def test_published_and_smoke_regimes_lie_in_their_runs() -> None:
    RegimePlan(regimes=PUBLISHED, contact=True).refuse_outside(PROFILES["full"].steps)
    SMOKE.refuse_outside(PROFILES["smoke"].steps)
    assert [regime.id for regime in STRONG] == [regime.id for regime in PUBLISHED]
    assert Counter(one.end - one.start for one in SMOKE.occurrences()) == {20: 4}


@settings(max_examples=60)
@given(
    kinds=st.integers(1, 5),
    occurrences=st.integers(1, 4),
    length=st.integers(1, 60),
    low=st.integers(1, 50),
    more=st.integers(0, 50),
    first=st.integers(0, 200),
    spare=st.integers(0, 300),
    seed=st.integers(0, 999),
)
def test_drawn_windows_keep_their_gaps_rounds_and_the_run(
    kinds: int, occurrences: int, length: int, low: int, more: int, first: int, spare: int, seed: int
) -> None:
    n = kinds * occurrences
    steps = first + n * length + (n - 1) * low + spare
    named: Any = {
        "seed": seed,
        "occurrences": occurrences,
        "length": length,
        "gaps": (low, low + more),
        "first": first,
    }
    plan = randomised(STRONG[:kinds], steps=steps, **named)
    plan.refuse_outside(steps)
    found = plan.occurrences()
    assert len(found) == n
    assert first <= found[0].start <= first + more
    assert all(one.end - one.start == length for one in found)
    assert all(low <= b.start - a.end <= low + more for a, b in pairwise(found))
    for start in range(0, n, kinds):
        assert len({one.regime for one in found[start : start + kinds]}) == kinds
    assert randomised(STRONG[:kinds], steps=steps, **named) == plan
    with pytest.raises(ValueError, match=f"need {steps - spare} steps; the run has {steps - spare - 1}"):
        randomised(STRONG[:kinds], steps=steps - spare - 1, **named)


def test_seeds_draw_other_windows_and_any_regime_may_come_first() -> None:
    plans = [randomised(STRONG, steps=1800, seed=seed) for seed in range(40)]
    assert len({plan.occurrences() for plan in plans}) == 40
    assert {plan.occurrences()[0].regime for plan in plans} == {regime.id for regime in STRONG}
    with pytest.raises(ValueError, match="gaps 50-40"):
        randomised(STRONG, steps=1800, seed=0, gaps=(50, 40))


def test_what_a_flow_takes_needs_no_torch() -> None:
    names = ("nano_recipe", "regimes", "nano_corpus", "nano_log")
    code = f"import sys, {', '.join('models.' + name for name in names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


FOG: dict[str, Any] = {"id": "fog", "channel": "input", "mode": "mask_tokens", "strength": 0.5}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"regimes": []}, "has no regimes; it holds JSON such as"),
        ({"regimes": [{**FOG, "windows": []}]}, "no windows of fog; give each regime one or more"),
        ({"regimes": [{**FOG, "windows": [[80.5, 100]]}]}, r"window \[80.5, 100\]; allowed: .* whole steps"),
        ({"regimes": [{**FOG, "windows": [[80, 100.0]]}]}, r"window \[80, 100.0\]"),
        ({"regimes": [{**FOG, "windows": [[True, 5]]}]}, r"window \[True, 5\]"),
        ({"regimes": [{**FOG, "windows": [["8", "9"]]}]}, r"window \['8', '9'\]"),
        ({"regimes": [{**FOG, "windows": [[8, 9]], "strength": True}]}, "strength True; allowed: 0 to 1"),
        ({"regimes": [{**FOG, "windows": [[8, 9]], "strength": "0.5"}]}, "strength 0.5; allowed"),
        ({"regimes": [{**FOG, "windows": [[8, 9]], "id": "clean"}]}, "'clean' is what undisturbed steps are"),
        ({"regimes": [{**FOG, "windows": [[8, 9]], "id": 7}]}, "regime id 7; allowed"),
        ({"regimes": [{**FOG, "windows": [[8, 9]]}], "contact": "no"}, "contact is 'no'; allowed: true or"),
        (
            {"regimes": [{**FOG, "windows": [[8, 9]]}], "least_gap": 1.5},
            "least_gap is 1.5; allowed: 1 or more",
        ),
        ({"regimes": 3}, "is no file of regimes"),
    ],
)
def test_a_file_that_would_fail_later_or_mean_something_else_is_refused(
    told: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "regimes.json"
    file.write_text(json.dumps({"regimes": [{**FOG, "windows": [[8, 9]]}]}))
    assert [one.name for one in read_plan(file).occurrences()] == ["fog/0"]
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message):
        read_plan(file)


def test_no_regime_is_called_what_the_statistics_call_undisturbed_steps() -> None:
    assert UNDISTURBED == CLEAN
