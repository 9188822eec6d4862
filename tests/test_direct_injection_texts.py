"""Texts of the injection study on a model that is really trained: made once, and again from the tapes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flows.direct_injection import SMOKE, design
from lab.products import Products
from models.embedded import RUNGS, train
from models.english import pydoc_english
from models.words import LIVE
from tasks.generation import KIND, Model, opened
from tasks.injection_cells import InjectedSample, InjectionDesign
from tasks.injection_generation import (
    divergence_rows,
    generate_batch,
    generation_rows,
    missing,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = replace(
    SMOKE,
    backend="transformers",
    prompts=("creative-1", "code-1", "naming-1"),
    new_tokens=12,
    probe_every=4,
    control_times=1,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The smallest rung's shape after 60 steps on a tenth of its text."""
    whole = pydoc_english()
    corpus = dataclasses.replace(whole, train=whole.train[:6], heldout=whole.heldout[:2])
    spec = replace(RUNGS["pydoc-0.1m"], steps=60, warmup_steps=5, evaluations=1)
    path = train(spec, tmp_path_factory.mktemp("injected") / "m", corpus=corpus).directory
    return Model(backend="transformers", path=str(path), timeout_seconds=1.0)


@dataclass(frozen=True)
class Made:
    """A look of the study in a home."""

    home: Path
    design: InjectionDesign
    samples: list[InjectedSample]
    tapes: dict[str, str | None]

    def read(self) -> dict[str, dict[str, Any]]:
        """What came of each sample."""
        texts = Products(self.home, KIND)
        return {one.sample.sample_id: texts.read(one.sample.sample_id) for one in self.samples}


def prepare(home: Path, settings: Any = SETTINGS) -> Made:
    """Tapes and samples of two samples a cell."""
    made = design(settings, "digest")
    samples = made.block(made.draws(home, 2), 0, 2)
    tapes = {arm.name: made.words_tape(home, arm) for arm in made.arms}
    return Made(home, made, samples, {name: str(path) if path else None for name, path in tapes.items()})


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = prepare(tmp_path_factory.mktemp("texts"))
    assert generate_batch(found.home, model, found.samples, found.tapes) == {"failures": {}}
    assert missing(found.home, found.samples) == []
    return found


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    home = tmp_path / "home"
    shutil.copytree(made.home, home)
    tapes = {name: path and path.replace(str(made.home), str(home)) for name, path in made.tapes.items()}
    return Made(home, made.design, made.samples, tapes)


def test_a_same_seed_repeat_is_the_same_text_under_every_arm(made: Made) -> None:
    bodies = made.read()
    by_key: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in made.samples:
        by_key[one.arm.name, one.words_key].append(bodies[one.sample.sample_id]["text"])
    repeated = {name: texts for name, texts in by_key.items() if len(texts) > 1}
    assert len({arm for arm, _ in repeated}) > len(made.design.arms) // 2
    assert all(len(set(texts)) == 1 for texts in repeated.values())


def test_texts_that_are_lost_come_again_from_the_tapes_live_sources_among_them(
    copied: Made, made: Made, model: Model
) -> None:
    lost = [one for i, one in enumerate(copied.samples) if i % 3 == 0]
    assert {one.arm.injection.source.kind for one in lost if one.arm.injection.source} >= LIVE
    for one in lost:
        Products(copied.home, KIND).path(one.sample.sample_id).unlink()
    assert missing(copied.home, copied.samples) == lost
    generate_batch(copied.home, model, copied.samples, copied.tapes)
    again, first = copied.read(), made.read()
    for name in ("text", "finish_reason", "tokens", "words", "words_sha256", "order_index"):
        assert {k: body[name] for k, body in again.items()} == {k: body[name] for k, body in first.items()}
    for key, body in first.items():  # the network's rounding depends on the batch
        assert again[key]["kl_nats"] == pytest.approx(body["kl_nats"], abs=1e-4)


def test_only_what_is_missing_is_made(copied: Made, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    backend = opened(model, copied.home)
    real = type(backend).generate_by  # type: ignore[attr-defined]

    def counted(self: Any, jobs: Any, draw: Any) -> Any:
        asked.extend(jobs)
        return real(self, jobs, draw)

    monkeypatch.setattr(type(backend), "generate_by", counted)
    generate_batch(copied.home, model, copied.samples, copied.tapes)
    assert asked == []
    Products(copied.home, KIND).path(copied.samples[5].sample.sample_id).unlink()
    generate_batch(copied.home, model, copied.samples, copied.tapes)
    assert [job.key for job in asked] == [copied.samples[5].words_key]


def test_other_settings_take_other_words_and_leave_the_recorded_ones(copied: Made, model: Model) -> None:
    before = {path: path.read_bytes() for path in copied.home.glob("tapes/**/*.words")}
    other = prepare(copied.home, replace(SETTINGS, new_tokens=14))
    assert [one.sample.draw for one in other.samples] == [one.sample.draw for one in copied.samples]
    chosen = [one for one in other.samples if one.arm.name == "gumbel/TRNG"]
    generate_batch(copied.home, model, chosen, other.tapes)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(copied.home.glob("tapes/**/*.words"))) == len(before) + 1


def test_sources_that_work_give_different_texts_and_a_constant_or_always_set_one_repeats(made: Made) -> None:
    bodies = made.read()
    texts: dict[str, list[str]] = defaultdict(list)
    for one in made.samples:
        if one.sample.probe == 0 and one.sample.cell.prompt.prompt_id == "creative-1":
            texts[one.arm.name].append(bodies[one.sample.sample_id]["text"])
    stuck = {name for name, found in texts.items() if len(found) > 1 and len(set(found)) == 1}
    assert stuck >= {"select/CONSTANT", "select/BIASED"}
    every = [text for name in texts.keys() - {"select/CONSTANT", "select/BIASED"} for text in texts[name]]
    assert len(set(every)) >= len(every) - 3  # of texts of 12 tokens two may be equal by chance


def test_divergence_is_a_row_where_the_distribution_changes_and_rises_with_the_dose(made: Made) -> None:
    rows = divergence_rows(made.home, made.samples, {})
    arms = {cell.step_id: cell.arm.name.split("/")[0] for cell in made.design.cells}
    mean: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        assert row.value is not None
        assert row.reason is None
        if row.name == "token_kl_nats":
            mean[arms[row.step_id]].append(row.value)
    level = {name: sum(found) / len(found) for name, found in mean.items()}
    assert set(level) == {
        "logit_perturb:0:uniform", "logit_perturb:0.3:uniform", "logit_perturb:3:uniform",
        "logit_perturb:0.3:gaussian", "temp_modulate", "temp_modulate:shuffled",
    }  # fmt: skip
    assert level["logit_perturb:0:uniform"] == 0.0
    assert 0.0 < level["logit_perturb:0.3:uniform"] < level["logit_perturb:3:uniform"] / 4
    largest = {(r.step_id, r.unit): r.value for r in rows if r.name == "token_kl_nats_max"}
    assert all((largest[r.step_id, r.unit] or 0) >= (r.value or 0) for r in rows)


def test_a_text_that_failed_has_a_divergence_with_its_reason(made: Made) -> None:
    one = next(one for one in made.samples if one.arm.name == "temp_modulate/TRNG")
    failure = {"text": None, "reason": "ServerError: HTTP 500; ask again", "order_index": 0}
    empty = Made(made.home / "none", made.design, [one], {})
    rows = divergence_rows(empty.home, [one], {one.sample.sample_id: failure})
    assert {(row.value, row.reason) for row in rows} == {(None, failure["reason"])}


def test_a_generation_row_says_how_the_source_acted_and_which_draw_it_began_at(made: Made) -> None:
    rows = generation_rows(made.home, made.samples, {}, digest="digest")
    assert len(rows) == len(made.samples)
    by_id = {one.sample.sample_id: one for one in made.samples}
    for row in rows:
        one = by_id[row.sample_id]
        how = json.loads(row.sampling)["injection"]
        assert (how["mode"], how["dose"]) == (one.arm.injection.mode, one.arm.injection.dose)
        assert row.seed64 == one.sample.draw.seed64
        assert row.arm == one.arm.name
