"""The loop: what nanoGPT's steps give, arms that see the same, twins, stopping and going on, faults."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from models.kept import load_kept
from models.nano_corpus import NanoCorpus, character_corpus
from models.nano_log import Reaction
from models.nano_measures import mean_nats
from models.nano_recipe import GptShape, NanoRecipe, Seeds, StateSpec
from models.nano_run import NanoRun
from models.nano_training import CHECKPOINT, LOG, Begin, NanoTrained, load_run, one_thread, train
from models.regimes import BEWILDERMENT, FALSE_FEEDBACK, LR_HEATWAVE, SENSORY_FOG, Regime, RegimePlan

TEXT = "the cat sat on the mat and the dog lay in the sun while a bird sang of the sea; " * 12
SHORT = NanoRecipe(
    shape=GptShape(n_layer=1, n_head=2, n_embd=16, block_size=8),
    state=StateSpec(dim=6, hidden=5),
    steps=30,
    batch=4,
    warmup_steps=5,
    learning_rate=1e-2,
    probe_every=4,
    evaluations=3,
    evaluation_batches=2,
    checkpoint_every=6,
)
PLAN = RegimePlan(
    regimes=(
        replace(BEWILDERMENT, windows=((8, 12), (20, 23))),
        replace(SENSORY_FOG, windows=((14, 17),)),
        Regime(id="shake", channel="self", mode="noise", strength=0.3, windows=((25, 27),)),
    )
)
MEMORIES = {
    "none": SHORT.state,
    "ema": StateSpec(dim=6, memory="ema"),
    "buffer": StateSpec(dim=6, memory="buffer", length=3, stride=2),
    "gru": StateSpec(dim=6, update="gru"),
    "plain": None,
}
OF_THE_NETWORK = ("loss_nats", "learning_rate", "grad_norm", "entropy_nats", "top1")


@cache
def corpus() -> NanoCorpus:
    return character_corpus(TEXT[:800], TEXT[800:], source="a sentence")


def trained(recipe: NanoRecipe = SHORT, plan: RegimePlan = PLAN, **more: Any) -> NanoTrained:
    return train(recipe, corpus(), **{"seeds": 0, "plan": plan, **more})


def with_state(name: str) -> NanoRecipe:
    return replace(SHORT, state=MEMORIES[name])


@cache
def whole(name: str = "none") -> NanoTrained:
    """Never stopped, and without a directory."""
    return trained(with_state(name))


def of_network(rows: tuple[Reaction, ...]) -> list[tuple[float, ...]]:
    return [tuple(getattr(row, name) for name in OF_THE_NETWORK) for row in rows]


class Killed(Exception):  # noqa: N818 -- no error: a person's hand
    """Raised in the middle of a training."""


def stopped(at: int, directory: Path, recipe: NanoRecipe, **more: Any) -> None:
    def report(row: Reaction) -> None:
        if (row.step, row.twin) == (at, ""):
            raise Killed

    with pytest.raises(Killed):
        trained(recipe, directory=directory, report=report, **more)


def test_the_plain_gpt_trains_as_nanogpts_loop_does() -> None:
    recipe = replace(SHORT, state=None)
    run = NanoRun(recipe, corpus(), 0)
    other = NanoRun(recipe, corpus(), 0)
    matrices = [p for p in other.gpt.parameters() if p.dim() >= 2]
    gains = [p for p in other.gpt.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99))
    for step in range(30):
        batch = other.windows(step)
        logits = other.gpt(batch.x)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.y.flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(other.gpt.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        optimizer.step()
        row = run.advance()
        assert row.loss_nats == pytest.approx(loss.item(), rel=1e-4)
        assert row.grad_norm == pytest.approx(norm.item(), rel=1e-3)
    assert row.loss_nats < 0.9 * math.log(corpus().vocab_size)


@pytest.mark.parametrize("memory", ["none", "buffer"])
def test_with_p_held_at_0_the_curve_is_the_plain_gpts_bit_for_bit(memory: str) -> None:
    state = MEMORIES[memory]
    assert state is not None
    zero = trained(replace(SHORT, state=replace(state, injection="zero")))
    plain = whole("plain")
    assert of_network(zero.rows) == of_network(plain.rows)
    assert zero.valid_loss_nats == plain.valid_loss_nats
    probed = [(row.effect_kl_nats, row.effect_logits) for row in zero.rows if row.effect_kl_nats is not None]
    assert set(probed) == {(0.0, 0.0)}
    assert max(row.self_norm or 0.0 for row in zero.rows) > 0.1
    assert of_network(whole(memory).rows) != of_network(plain.rows)


def test_arms_see_the_same_windows_and_start_from_the_same_weights() -> None:
    arms = [whole(name) for name in MEMORIES]
    arms.append(trained(plan=RegimePlan()))
    assert len({arm.rows[0].loss_nats for arm in arms}) == 1  # the state is 0 at step 0
    for step in (0, 9, 29):
        first = arms[0].run.windows(step)
        for arm in arms[1:]:
            assert torch.equal(arm.run.windows(step).x, first.x)
            assert torch.equal(arm.run.windows(step).y, first.y)
        assert torch.equal(first.x[:, 1:], first.y[:, :-1])
        assert not torch.equal(first.x, arms[0].run.windows(step + 1).x)


def test_each_seed_decides_its_own() -> None:
    def losses(**other: int) -> list[float]:
        seeds = replace(Seeds.of(0), **other)
        return [row.loss_nats for row in trained(seeds=seeds).rows]

    base = losses()
    assert base == [row.loss_nats for row in whole().rows]
    assert losses(evaluation=1) == base
    shaken = losses(intervention=1)
    assert shaken[:8] == base[:8]
    assert shaken[8] != base[8]
    assert losses(init=1)[0] != base[0]
    assert losses(order=1)[0] != base[0]


def test_the_state_takes_the_statistics_of_the_step_before() -> None:
    found = whole()
    before = [[r.loss_nats, r.grad_norm, r.step_frac, r.entropy_nats, r.top1] for r in found.rows[:-1]]
    torch.testing.assert_close(torch.stack(found.run.seen), torch.tensor(before))
    assert torch.equal(found.run.trajectory[0], torch.zeros(6))
    norms = [s.norm().item() for s in found.run.trajectory]
    assert norms == [row.self_norm for row in found.rows]


def test_false_feedback_moves_only_what_the_update_sees() -> None:
    lied_to = trained(plan=RegimePlan(regimes=(replace(FALSE_FEEDBACK, windows=((10, 12),)),)))
    clean = trained(plan=RegimePlan())
    assert [asdict(row) for row in lied_to.rows[:10]] == [asdict(row) for row in clean.rows[:10]]
    apart = torch.stack(lied_to.run.seen) - torch.stack(clean.run.seen)  # row 9 is the update of step 10
    assert not apart[:9].any()
    assert apart[9].tolist() == pytest.approx([0.5, 0, 0, 0, 0], abs=1e-6)
    assert lied_to.rows[10].self_norm != clean.rows[10].self_norm


def test_a_heatwave_multiplies_the_rate_and_acts_from_the_next_step_on() -> None:
    hot = trained(plan=RegimePlan(regimes=(replace(LR_HEATWAVE, windows=((10, 12),)),)))
    clean = trained(plan=RegimePlan())
    assert [row.learning_rate for row in hot.rows] == [
        row.learning_rate * (2.0 if row.step in (10, 11) else 1.0) for row in clean.rows
    ]
    assert [row.regimes for row in hot.rows[9:13]] == ["", "lr_heatwave", "lr_heatwave", ""]
    same = [a.loss_nats == b.loss_nats for a, b in zip(hot.rows, clean.rows, strict=True)]
    assert same == [True] * 11 + [False] * 19


def test_twins_go_on_as_if_their_window_were_not_and_disturb_nothing() -> None:
    found = trained(replace(SHORT, twin_tail=2))
    mine = tuple(row for row in found.rows if not row.twin)
    assert mine == whole().rows
    assert found.digest == whole().digest
    assert len({(row.step, row.twin) for row in found.rows}) == len(found.rows)
    twins = {one.name: [row for row in found.rows if row.twin == one.name] for one in PLAN.occurrences()}
    for one in PLAN.occurrences():
        steps = [row.step for row in twins[one.name]]
        assert steps == list(range(one.start, one.end + 2))
        assert twins[one.name][0].loss_nats != mine[one.start].loss_nats or one.regime == "shake"
        assert twins[one.name][-1].self_norm != mine[one.end + 1].self_norm
    undisturbed = {row.step: row for row in trained(plan=RegimePlan()).rows}
    assert mine[:8] == tuple(undisturbed[step] for step in range(8))
    assert [replace(row, twin="") for row in twins["bewilderment/0"]] == [
        undisturbed[step] for step in range(8, 14)
    ]
    assert mine[8].loss_nats != undisturbed[8].loss_nats


def test_the_effect_is_a_number_on_probed_steps_only_and_costs_the_run_nothing() -> None:
    rows = whole().rows
    probed = [row.step for row in rows if row.effect_kl_nats is not None]
    assert probed == list(range(0, 30, 4))
    assert [row.effect_logits is not None for row in rows] == [row.step in probed for row in rows]
    assert rows[0].effect_kl_nats == 0.0  # zero against zero
    assert min(row.effect_kl_nats or 1.0 for row in rows[1:]) > 0
    rare = trained(replace(SHORT, probe_every=29))
    assert of_network(rare.rows) == of_network(rows)
    assert rare.digest == whole().digest


@pytest.mark.parametrize(("name", "at"), [(name, 7 + 3 * i) for i, name in enumerate(MEMORIES)])
def test_a_run_killed_and_taken_up_ends_in_the_same_bits(tmp_path: Path, name: str, at: int) -> None:
    recipe, undisturbed = with_state(name), tmp_path / "undisturbed"
    known = trained(recipe, directory=undisturbed)
    assert known.digest == whole(name).digest
    stopped(at, tmp_path / "run", recipe)
    stopped(at + 3, tmp_path / "run", recipe)  # a second time
    with (tmp_path / "run" / LOG).open("ab") as log:
        log.write(b'{"step": 99, "lo')  # killed while it wrote
    found = trained(recipe, directory=tmp_path / "run")
    assert found.steps_resumed == (at + 3) // 6 * 6
    assert found.digest == known.digest
    assert found.valid_loss_nats == known.valid_loss_nats
    assert found.run.looks == known.run.looks
    assert (tmp_path / "run" / LOG).read_bytes() == (undisturbed / LOG).read_bytes()
    bodies = [load_kept(folder / CHECKPOINT) for folder in (tmp_path / "run", undisturbed)]
    assert None not in bodies
    digests = {body["digest"] for body in bodies if body is not None}
    assert len(digests) == 1


def test_a_run_killed_between_a_twin_and_its_checkpoint_has_every_row_once(tmp_path: Path) -> None:
    recipe = replace(with_state("buffer"), twin_tail=2)
    known = trained(recipe)
    stopped(10, tmp_path, recipe)
    assert trained(recipe, directory=tmp_path).rows == known.rows
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines()
    assert [Reaction(**json.loads(line)) for line in lines] == list(known.rows)


def test_dropout_is_drawn_by_step_so_it_too_is_taken_up(tmp_path: Path) -> None:
    recipe = replace(SHORT, shape=replace(SHORT.shape, dropout=0.2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    known = trained(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert known.digest != whole().digest
    stopped(16, tmp_path, recipe)
    torch.manual_seed(6)
    assert trained(recipe, directory=tmp_path).digest == known.digest
    same = character_corpus("a" * 99, "b" * 99, source="one letter")  # all windows alike, the weights held
    held = replace(recipe, state=None, learning_rate=1e-30, least_rate=1e-30)
    losses = {row.loss_nats for row in train(held, same, seeds=0, until=5).rows}
    assert len(losses) == 5


@pytest.mark.parametrize("name", list(MEMORIES))
def test_a_run_goes_on_from_its_first_part_elsewhere_to_the_same_bits(tmp_path: Path, name: str) -> None:
    recipe, known = with_state(name), tmp_path / "known"
    whole_run = trained(recipe, directory=known)
    half = trained(recipe, directory=tmp_path / "half", until=15)
    before = {path: path.read_bytes() for path in (tmp_path / "half").rglob("*") if path.is_file()}
    run = tmp_path / "run"
    run.mkdir()
    (run / LOG).write_bytes(b"what one that was killed before its first checkpoint left\n")
    found = trained(recipe, directory=run, first=tmp_path / "half")
    assert (found.steps_resumed, found.digest) == (15, whole_run.digest)
    assert found.rows == whole_run.rows
    assert found.valid_loss_nats == whole_run.valid_loss_nats != half.valid_loss_nats
    assert found.run.looks == whole_run.run.looks
    assert (run / LOG).read_bytes() == (known / LOG).read_bytes()
    assert before == {path: path.read_bytes() for path in before}


def test_a_first_part_of_another_run_or_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    trained(directory=tmp_path / "half", until=15, seeds=1)
    other = trained(directory=tmp_path / "run", first=tmp_path / "half")
    assert (other.steps_resumed, other.digest) == (0, whole().digest)
    trained(directory=tmp_path / "own", until=15)
    (tmp_path / "own" / LOG).unlink()
    found = trained(directory=tmp_path / "again", first=tmp_path / "own")
    assert (found.steps_resumed, found.digest) == (0, whole().digest)
    stopped(20, tmp_path / "later", SHORT)  # its own checkpoint is further on
    assert trained(directory=tmp_path / "later", first=tmp_path / "own").steps_resumed == 18


def test_a_finished_run_is_read_back_and_another_arms_is_not(tmp_path: Path) -> None:
    first = trained(directory=tmp_path)
    again = trained(directory=tmp_path)
    assert again.steps_resumed == 30
    assert (again.rows, again.digest, again.valid_loss_nats) == (
        first.rows,
        first.digest,
        first.valid_loss_nats,
    )
    for change in ({"seeds": 1}, {"plan": RegimePlan()}):
        other = trained(directory=tmp_path, **change)  # type: ignore[arg-type]
        assert other.steps_resumed == 0
        assert other.digest == trained(**change).digest  # type: ignore[arg-type]
        assert len((tmp_path / LOG).read_bytes().splitlines()) == 30


@pytest.mark.parametrize("what", [LOG, f"{CHECKPOINT}/state.safetensors"])
def test_what_is_damaged_is_not_taken_up(tmp_path: Path, what: str) -> None:
    stopped(20, tmp_path, SHORT)
    path = tmp_path / what
    path.write_bytes(path.read_bytes()[:200])
    found = trained(directory=tmp_path)
    assert found.steps_resumed == 0
    assert (found.rows, found.digest) == (whole().rows, whole().digest)


def test_a_run_stopped_on_purpose_goes_on_to_the_same_end(tmp_path: Path) -> None:
    part = trained(directory=tmp_path, until=20)  # held-out text is looked at there
    assert (len(part.rows), part.run.step) == (20, 20)
    rest = trained(directory=tmp_path)
    assert (rest.steps_resumed, rest.digest, rest.rows) == (20, whole().digest, whole().rows)
    assert rest.run.looks == whole().run.looks
    with pytest.raises(ValueError, match="stands at step 30, beyond 20"):
        trained(directory=tmp_path, until=20)
    with pytest.raises(ValueError, match="until is 31; allowed: 1 to 30"):
        trained(until=31)


def test_a_run_that_begins_from_another_goes_on_with_the_state_it_is_given(tmp_path: Path) -> None:
    trained(directory=tmp_path / "a", until=17)
    own = trained(begin=Begin(directory=tmp_path / "a"))
    assert own.rows == whole().rows[17:]
    foreign = torch.linspace(-1, 1, 6)
    swapped = trained(begin=Begin(directory=tmp_path / "a", state=foreign), directory=tmp_path / "b")
    assert [row.step_frac for row in swapped.rows] == [row.step_frac for row in own.rows]
    assert swapped.rows[0].loss_nats != own.rows[0].loss_nats
    assert swapped.rows[0].self_norm != own.rows[0].self_norm
    assert len(swapped.run.trajectory) == len(swapped.run.seen) == 13
    begin = Begin(directory=tmp_path / "a", state=foreign)
    assert trained(begin=begin, directory=tmp_path / "b").steps_resumed == 30
    other = trained(begin=replace(begin, state=-foreign), directory=tmp_path / "b")
    assert other.digest != swapped.digest
    with pytest.raises(ValueError, match="holds no whole state of a run"):
        trained(begin=Begin(directory=tmp_path / "nowhere"))


def test_a_kept_run_is_read_back_without_its_recipe_but_not_on_another_text(tmp_path: Path) -> None:
    for name in ("buffer", "plain"):
        known = trained(with_state(name), directory=tmp_path / name, until=20)
        run = load_run(tmp_path / name, corpus())
        assert (run.recipe, run.plan, run.digest()) == (with_state(name), PLAN, known.digest)
        with one_thread():
            while run.step < 30:
                row = run.advance()
        assert row == whole(name).rows[-1]
    other = character_corpus(TEXT[:700], TEXT[700:], source="another cut")
    with pytest.raises(ValueError, match="another cut is"):
        load_run(tmp_path / "buffer", other)
    with pytest.raises(ValueError, match="holds no whole state of a run"):
        load_run(tmp_path, corpus())


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_log(tmp_path: Path) -> None:
    burnt = RegimePlan(
        regimes=(Regime(id="burn", channel="optim", mode="lr_mult", strength=1e30, windows=((13, 14),)),)
    )
    with pytest.raises(ValueError, match=r"step 14 of 30 has loss nan.*log up to it is kept: lower"):
        trained(plan=burnt, directory=tmp_path)
    rows = [Reaction(**json.loads(line)) for line in (tmp_path / LOG).read_bytes().splitlines()]
    assert [row.step for row in rows] == list(range(14))
    assert rows[:13] == list(trained(plan=RegimePlan()).rows[:13])
    body = load_kept(tmp_path / CHECKPOINT)
    assert body is not None
    assert body["step"] == 12
    with pytest.raises(ValueError, match="step 14 of 30"):  # taken up, it meets the same
        trained(plan=burnt, directory=tmp_path)
    with pytest.raises(ValueError, match="after step 13 of 30 the held-out loss is nan"):
        trained(plan=burnt, until=14)


def test_one_dimension_has_no_drift_and_a_frozen_state_stays() -> None:
    freeze = RegimePlan(
        regimes=(Regime(id="ice", channel="self", mode="freeze", strength=1.0, windows=((10, 14),)),)
    )
    found = trained(replace(SHORT, state=StateSpec(dim=1)), plan=freeze)
    assert {row.self_drift for row in found.rows} == {None}
    assert [row.self_delta == 0 for row in found.rows] == [
        row.step in (0, *range(10, 14)) for row in found.rows
    ]
    fixed = trained(replace(SHORT, state=StateSpec(dim=6, update="fixed", fixed_norm=2.0)))
    held = [row.self_norm == pytest.approx(2.0) for row in fixed.rows]
    assert held == [row.regimes != "shake" for row in fixed.rows]  # its state comes back after the window
    assert {row.gate for row in fixed.rows} == {None}


def test_the_held_out_loss_takes_every_token_but_the_first_once() -> None:
    run = whole().run
    held = torch.from_numpy(corpus().heldout)
    added, nats = run.added(), 0.0
    assert added is not None
    with torch.no_grad():
        for start in range(0, len(held) - 1, 8):
            piece = held[start : start + 9]
            logits = run.gpt(piece[None, :-1], added=added)[0]
            nats += float(torch.nn.functional.cross_entropy(logits, piece[1:], reduction="sum"))
    assert whole().valid_loss_nats == pytest.approx(nats / (len(held) - 1), rel=1e-5)
    assert whole().valid_loss_nats != mean_nats(run.gpt, run.heldout.whole(64), None)
    assert [look.step for look in run.looks] == [0, 10, 20, 30]
    assert run.looks[-1].valid_loss_nats < run.looks[0].valid_loss_nats


def test_a_text_too_short_and_a_window_outside_the_run_are_refused_before_training() -> None:
    long_block = replace(SHORT, shape=replace(SHORT.shape, block_size=4000))
    with pytest.raises(ValueError, match=r"has 800 tokens; a block of 4000 needs 4001 or more"):
        trained(long_block)
    with pytest.raises(ValueError, match="covers steps 28-31 of a run of 30"):
        trained(plan=RegimePlan(regimes=(replace(BEWILDERMENT, windows=((28, 31),)),)))
