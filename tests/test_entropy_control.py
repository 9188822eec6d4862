"""The control experiment's design: conditions, order, what counts as which text, and its gate."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.control_gates import CONTROL
from flows.entropy_control import FULL, LAPTOP, SMOKE, control_design, plan, protocol, steps
from flows.seed_protocol import seed_design
from lab.errors import UsageError
from lab.gates import rule_on
from lab.plan import plan_hash
from models.transformers_backend import TransformersBackend
from stats.power import Components, Size, samples_to_settle
from tasks.control_analysis import control_runs
from tasks.control_cells import Condition, ControlDesign, interleave
from tasks.control_generation import unload
from tasks.generation import Model, opened
from tasks.seed_cells import Sample
from tests.test_transformers_backend import byte_tokenizer, llama, saved

TINY = replace(SMOKE, seeds_per_source=3, transfer_samples=4, prompts=("creative-1", "technical-1"))
TEXT = {"excluded": None, "sha256": "a", "metrics": {}}


def design() -> ControlDesign:
    return control_design(TINY, seed_design(protocol(TINY), "digest"))


def test_every_source_has_every_label_and_its_own_one_in_every_state() -> None:
    found = design().conditions
    assert len(found) == 9 + 6
    assert found["PRNG_AS_TRNG"] == Condition(source="PRNG", label="TRNG", state="warm")
    assert {c.label for c in found.values() if c.state != "warm"} == {"PRNG", "TRNG", "HMIX"}
    steps_of = [cell.step_id for cell in design().every_cell()]
    assert len(set(steps_of)) == len(steps_of) == 15 * 2 + 2 * 2


@given(first=st.integers(2, 5), more=st.integers(1, 4))
def test_looks_add_up_to_the_repeats_of_one_look_taken_at_once(first: int, more: int) -> None:
    for condition in design().conditions.values():
        taken = [*condition.repeats(0, first), *condition.repeats(first, first + more)]
        assert taken == list(condition.repeats(0, first + more)), condition.name


def test_all_values_are_used_on_every_prompt_and_a_swap_runs_the_values_of_its_source(tmp_path: Path) -> None:
    made = design()
    values = made.values(tmp_path)
    samples = made.conditioned(values, 0, 2, "warm", "cold")
    by_arm: dict[str, set[tuple[str, int]]] = {}
    for sample in samples:
        by_arm.setdefault(sample.cell.arm.name, set()).add((sample.cell.prompt.prompt_id, sample.draw.seed32))
    for name, found in by_arm.items():
        own = {draw.seed32 for draw in values[made.conditions[name].source]}
        assert found == {(prompt, seed) for prompt in TINY.prompts for seed in own}, name
    assert len({sample.sample_id for sample in samples}) == len(samples) == 3 * 2 * 3 * (2 + 2 + 1)


def test_the_tape_read_anew_gives_the_values_and_draws_nothing(tmp_path: Path) -> None:
    assert design().read_back(tmp_path) == {"PRNG": [], "TRNG": [], "HMIX": []}
    values = design().values(tmp_path)
    assert design().read_back(tmp_path) == values
    assert len({draw.seed32 for found in values.values() for draw in found}) == 9


def test_both_ranges_are_drawn_from_streams_of_their_own_and_one_ends_at_1000(tmp_path: Path) -> None:
    texts = design().transferred(tmp_path, 0)
    seeds = {arm: [s.draw.seed32 for s in texts if s.cell.arm.name == arm] for arm in ("FULL", "SHORT")}
    assert {len(found) for found in seeds.values()} == {8}
    assert max(seeds["SHORT"]) <= 1000 < min(seeds["FULL"])
    assert design().transferred(tmp_path, 2) == []
    assert not set(seeds["FULL"]) & {draw.seed32 for draw in design().values(tmp_path)["PRNG"]}


def test_the_dry_run_counts_what_the_looks_add_and_draws_nothing(tmp_path: Path) -> None:
    planned = {step.name: step.units for step in steps(TINY, tmp_path)}
    assert planned == {
        "train pydoc-0.4m": 1,
        "generate look 2": 18 * 2 + 36 + 18 + 18 + 16,
        "generate look 3": 36,
    }
    assert not list(tmp_path.iterdir())


@given(warm=st.integers(0, 40), cold=st.integers(0, 40), rows=st.integers(1, 9), start=st.integers(0, 9))
def test_interleaving_keeps_every_text_once_and_never_mixes_states(
    warm: int, cold: int, rows: int, start: int
) -> None:
    def texts(n: int, sign: int) -> list[Sample]:
        return [
            Sample(sample_id=str(i), cell=None, k=sign, probe=0, draw=None, order_index=0)  # type: ignore[arg-type]
            for i in range(n)
        ]

    batches = interleave(texts(warm, 0), texts(cold, 1), rows=rows, seed="order", start=start)
    flat = [sample for batch in batches for sample in batch.samples]
    assert [sample.order_index for sample in flat] == list(range(start, start + warm + cold))
    assert Counter((s.k, s.sample_id) for s in flat) == Counter(
        [*((0, str(i)) for i in range(warm)), *((1, str(i)) for i in range(cold))]
    )
    assert all({sample.k for sample in batch.samples} == {int(batch.cold)} for batch in batches)
    assert batches == interleave(texts(warm, 0), texts(cold, 1), rows=rows, seed="order", start=start)


def test_states_alternate_through_the_run_instead_of_following_each_other(tmp_path: Path) -> None:
    values = design().values(tmp_path)
    warm, cold = (design().conditioned(values, 0, 2, state) for state in ("warm", "cold"))
    states = [batch.cold for batch in interleave(warm, cold, rows=3, seed="order", start=0)]
    assert sum(a != b for a, b in pairwise(states)) > 4


def test_a_sample_comes_before_its_repeats_and_an_excluded_text_has_no_hash(tmp_path: Path) -> None:
    made = design()
    samples = made.conditioned(made.values(tmp_path), 0, 2, "replay", "cold", "warm")[::-1]
    short = samples[0].sample_id
    found = {
        s.sample_id: TEXT | ({"excluded": "3 words, under 10"} if s.sample_id == short else {})
        for s in samples
    }
    runs = control_runs(samples, found, made.conditions)
    assert Counter(run.part for run in runs) == {"sample": 18, "repeat": 36, "swap": 36, "replay": 18}
    assert {run.part for run in runs[:18]} == {"sample"}
    assert Counter(run.condition for run in runs if run.part == "repeat") == {"warm": 18, "cold": 18}
    assert [(run.sha256, run.failure) for run in runs if run.failure] == [(None, "3 words, under 10")]


def test_a_cold_text_starts_from_weights_read_again(tmp_path: Path) -> None:
    path = saved(tmp_path / "model", llama(), byte_tokenizer(end=True))
    model = Model(backend="local", path=path, timeout_seconds=1.0)
    backend, loaded = opened(model, tmp_path), opened(model, tmp_path).identity()
    assert opened(model, tmp_path) is backend
    assert TransformersBackend(path).identity() is loaded  # weights are kept for the process
    unload(tmp_path, model)
    assert opened(model, tmp_path) is not backend
    assert opened(model, tmp_path).identity() is not loaded
    assert opened(model, tmp_path).identity() == loaded


def test_the_planned_transfer_tells_either_truth_at_the_margin() -> None:
    size = Size(prompts=len(LAPTOP.prompts), samples=1, groups=2)
    needed = samples_to_settle(Components(), size, margin=LAPTOP.margin_sd, alpha=LAPTOP.alpha, metrics=3)
    assert needed is not None
    assert needed <= LAPTOP.transfer_samples == FULL.transfer_samples < needed + 5


@pytest.mark.parametrize(
    ("verdict", "last", "following", "said"),
    [
        ("DETECTED", False, "entropy_ladder", "Text follows the seed value, not the label: 100.0%"),
        ("EQUIVALENT", False, "direct_injection", "The value of the seed cannot matter: why"),
        ("INCONCLUSIVE", False, "next_look", "Not settled by 300 independent pairs: why"),
        ("INCONCLUSIVE", True, "direct_injection", "Not settled by 300 independent pairs: why"),
        ("INVALID", False, "direct_injection", "Seed effects of this backend are void: why"),
        (None, False, "direct_injection", "Seed effects of this backend are void: why"),
    ],
)
def test_each_verdict_leads_where_the_tree_says(
    verdict: str | None, last: bool, following: str, said: str
) -> None:
    names = ["apart_agree", "warm_agree", "swap_agree", "transfer_effect", "transfer_low", "transfer_high"]
    evidence = {"tested": verdict, "negligible": False, "n": 300, "findings": "why", "pairs_to_settle": 400}
    evidence |= dict.fromkeys(names, 1.0) | {"transfer": "INCONCLUSIVE", "transfer_settles": ""}
    ruling = rule_on(CONTROL, evidence, last_look=last)
    assert (ruling.verdict, ruling.next) == (verdict or "INVALID", following)
    assert ruling.sentence.startswith(said)


def test_model_and_machine_are_outside_the_plan_and_one_text_a_value_is_refused() -> None:
    assert plan_hash(plan(replace(SMOKE, model="pydoc-0.1m"))) == plan_hash(plan(SMOKE))
    assert plan_hash(plan(replace(SMOKE, seeds_per_source=21))) != plan_hash(plan(SMOKE))
    with pytest.raises(UsageError, match="a pair takes 2 same-seed texts"):
        replace(SMOKE, looks=(1, 2))
    with pytest.raises(UsageError, match="unknown embedded model"):
        replace(SMOKE, model="pydoc-9m")
    with pytest.raises(ValueError, match="no prompt 'nonesuch-1'"):
        replace(SMOKE, prompts=("nonesuch-1", "creative-1"))
