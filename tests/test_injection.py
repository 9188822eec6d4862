"""Every mode of injection on a trained model: what a source does to a text, in any batch and again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.backends import Job, Output, Sampling
from models.embedded import RUNGS, train
from models.english import pydoc_english
from models.entropy import SourceSpec, Tape, TapeError, open_source, uniforms
from models.injection import LAWS, MODES, UNCHANGED, Injection, InjectionJob, inject
from models.sampling import InverseCdf, sample
from models.transformers_backend import TransformersBackend

pytestmark = pytest.mark.usefixtures("one_thread")

STANDARD = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=12)
PRNG, TRNG = SourceSpec(kind="prng", stream=42), SourceSpec(kind="trng")
PROMPTS = ("The function returns", "A list of", "In this module the statement is not", "It")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The smallest rung's shape after 60 steps on a tenth of its text: English in fragments, in 3 s."""
    whole = pydoc_english()
    corpus = dataclasses.replace(whole, train=whole.train[:6], heldout=whole.heldout[:2])
    spec = replace(RUNGS["pydoc-0.1m"], steps=60, warmup_steps=5, evaluations=1)
    return str(train(spec, tmp_path_factory.mktemp("injection") / "m", corpus=corpus).directory)


def arms_of(source: SourceSpec) -> list[Injection]:
    """Every way of acting that this source can take part in."""
    return [
        Injection(mode="select", source=source),
        Injection(mode="gumbel", source=source),
        *(Injection(mode="logit_perturb", source=source, dose=1.0, law=law) for law in LAWS),
        Injection(mode="temp_modulate", source=source, amplitude=1.5),
        Injection(mode="temp_modulate", source=source, amplitude=1.5, control="shuffled"),
        Injection(mode="seed_only", source=source),
    ]


SOURCELESS = [
    Injection(mode="none"),
    Injection(mode="temp_modulate", amplitude=0.3, control="fixed"),
]


def jobs(
    n: int, *, draws: bool = True, settings: Sampling = STANDARD, same: bool = False
) -> list[InjectionJob]:
    """Jobs of prompts of four lengths, each with a seed and a draw of its own."""
    return [
        InjectionJob(
            job=Job(key=f"job{i}", prompt=PROMPTS[0 if same else i % 4], seed=900 + i, sampling=settings),
            draw=(2**63 + 7919 * i) if draws else None,
        )
        for i in range(n)
    ]


def texts(found: Sequence[Any]) -> list[str | None]:
    return [one.output.text for one in found]


@pytest.mark.parametrize("arm", [*arms_of(PRNG), *arms_of(TRNG), *SOURCELESS], ids=lambda arm: arm.name)
def test_a_row_is_the_same_alone_in_every_batch_and_from_its_tape(
    arm: Injection, model: str, tmp_path: Path
) -> None:
    tape, todo = tmp_path / "words", jobs(10, draws=arm.source is not None)
    together = inject(TransformersBackend(model), todo, arm, tape=tape)
    alone = inject(TransformersBackend(model, batch_rows=1), todo, arm, tape=tape)
    turned = inject(TransformersBackend(model, batch_rows=3), todo[::-1], arm, tape=tape)[::-1]
    for others in (alone, turned):
        for one, other in zip(together, others, strict=True):
            assert one.output.key == other.output.key
            assert one.output.text == other.output.text
            assert (one.words, one.words_sha256) == (other.words, other.words_sha256)
            assert (one.kl_nats is None) == (other.kl_nats is None)
            assert one.kl_nats == (pytest.approx(other.kl_nats, abs=1e-4) if other.kl_nats else None)
    assert len(set(texts(together))) > 5  # rows differ, so rows could be mixed up


@pytest.mark.parametrize("arm", [a for a in arms_of(PRNG) if a.mode != "seed_only"], ids=lambda arm: arm.name)
def test_the_draw_decides_and_a_new_one_gives_another_text(arm: Injection, model: str) -> None:
    backend, todo = TransformersBackend(model), jobs(8)
    moved = [replace(item, draw=(item.draw or 0) + 1) for item in todo]
    first, second = inject(backend, todo, arm), inject(backend, moved, arm)
    changed = sum(a != b for a, b in zip(texts(first), texts(second), strict=True))
    assert changed >= 4
    if arm.mode in ("select", "gumbel"):  # the job's own seed has no say
        others = [replace(item, job=replace(item.job, seed=5)) for item in todo]
        assert texts(inject(backend, others, arm)) == texts(first)


def test_select_takes_the_tokens_of_the_inverse_cdf_at_the_numbers_of_the_source(model: str) -> None:
    backend, todo = TransformersBackend(model), jobs(8)
    streams = {item.job.key: replace(PRNG, stream=item.draw) for item in todo}

    def draw(network: Any, batch: Sequence[Job], prompts: Any, stop: frozenset[int]) -> Any:
        u = np.stack([uniforms(open_source(streams[job.key]), 12) for job in batch])
        return sample(network, prompts, STANDARD, InverseCdf(STANDARD, u), stop=stop)

    expected = backend.generate_by([item.job for item in todo], draw)
    found = inject(backend, todo, Injection(mode="select", source=PRNG))
    assert texts(found) == [output.text for output in expected]


def test_seed_only_is_the_seed_arm_at_the_draws_lower_half(model: str) -> None:
    backend, todo = TransformersBackend(model), jobs(8)
    seeded = [replace(item.job, seed=(item.draw or 0) % 2**32) for item in todo]
    found = inject(backend, todo, Injection(mode="seed_only", source=PRNG))
    assert texts(found) == [output.text for output in backend.generate(seeded)]
    assert [one.words for one in found] == [1] * 8


def test_no_injection_a_dose_of_zero_and_a_fixed_temperature_are_the_seed_arm(model: str) -> None:
    backend, todo = TransformersBackend(model), jobs(8)
    expected = [output.text for output in backend.generate([item.job for item in todo])]
    for arm in SOURCELESS:
        found = inject(backend, jobs(8, draws=False), arm)
        assert texts(found) == expected
        assert {(one.words, one.kl_reason) for one in found} == {(0, f"{arm.name} {UNCHANGED}")}
    still = [
        *(Injection(mode="logit_perturb", source=PRNG, dose=0.0, law=law) for law in LAWS),
        Injection(mode="temp_modulate", source=PRNG, amplitude=0.0),
    ]
    for arm in still:
        found = inject(backend, todo, arm)
        assert texts(found) == expected
        assert all(one.kl_nats is not None and max(one.kl_nats) == 0.0 for one in found)


def references(directory: str, prompt: str, tokens: list[int]) -> np.ndarray:
    """(tokens + 1, vocabulary) float64 logits before each new token, by transformers' own forward."""
    net: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64)
    ids = AutoTokenizer.from_pretrained(directory)(prompt)["input_ids"]
    with torch.inference_mode():
        return net(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 :].numpy()


def traced(
    backend: TransformersBackend, item: InjectionJob, arm: Injection, stop: frozenset[int] = frozenset()
) -> tuple[list[int], Any]:
    """The new tokens of a job that these ids stop, and what was found of it."""
    seen: list[int] = []

    class Watching:
        def generate_by(self, todo: Sequence[Job], draw: Any) -> list[Output]:
            def watched(*batch: Any) -> Any:
                rows = draw(*batch[:3], stop)
                seen.extend(rows[0].tokens)
                return rows

            return backend.generate_by(todo, watched)

    return seen, inject(Watching(), [item], arm)[0]


@pytest.mark.parametrize("law", LAWS)
def test_the_divergence_of_perturbed_logits_is_that_of_an_independent_computation(
    law: str, model: str
) -> None:
    arm, item = Injection(mode="logit_perturb", source=PRNG, dose=0.7, law=law), jobs(1)[0]
    tokens, found = traced(TransformersBackend(model), item, arm)
    logits, source = references(model, item.job.prompt, tokens), open_source(replace(PRNG, stream=item.draw))
    expected = []
    for row in logits[: len(found.kl_nats)]:
        u = uniforms(source, row.size)
        noise = np.sqrt(12) * (u - 0.5) if law == "uniform" else special.ndtri(u)
        p, q = (special.softmax(x / 0.7) for x in (row + 0.7 * noise, row))
        expected.append(special.rel_entr(p, q).sum())
    assert found.kl_nats == pytest.approx(expected, abs=1e-5)
    assert (len(expected), found.words) == (12, 12 * logits.shape[1])
    last = next(i for i in range(3, 12) if tokens[i] not in tokens[:i])
    kept, cut = traced(TransformersBackend(model), item, arm, frozenset({tokens[last]}))
    assert (kept, cut.output.finish_reason) == (tokens[:last], "stop")
    assert cut.kl_nats == pytest.approx(expected[: last + 1], abs=1e-5)
    assert cut.words == (last + 1) * logits.shape[1]


@pytest.mark.parametrize("control", [None, "shuffled"])
def test_the_divergence_of_moved_temperatures_is_that_of_an_independent_computation(
    control: str | None, model: str
) -> None:
    arm = Injection(mode="temp_modulate", source=PRNG, amplitude=1.0, control=control)
    item = jobs(1)[0]
    tokens, found = traced(TransformersBackend(model), item, arm)
    u = uniforms(open_source(replace(PRNG, stream=item.draw)), 12)
    if control:
        u = np.random.Generator(np.random.Philox(key=item.job.seed + 2**32)).permutation(u)
    warmth = np.clip(0.7 + 1.0 * (u - 0.5), 0.1, 2.0)
    expected = []
    for row, t in zip(references(model, item.job.prompt, tokens), warmth, strict=False):
        p, q = special.softmax(row / t), special.softmax(row / 0.7)
        expected.append(special.rel_entr(p, q).sum())
    assert found.kl_nats == pytest.approx(expected[: len(found.kl_nats)], abs=1e-5)
    assert len(found.kl_nats) >= len(tokens)


@pytest.mark.parametrize("law", LAWS)
def test_the_divergence_grows_with_the_dose_and_a_small_dose_by_its_square(law: str, model: str) -> None:
    backend, todo = TransformersBackend(model), jobs(12)
    means = []
    for dose in (0.05, 0.1, 0.3, 1.0, 3.0):
        found = inject(backend, todo, Injection(mode="logit_perturb", source=PRNG, dose=dose, law=law))
        means.append(np.mean(np.concatenate([one.kl_nats for one in found if one.kl_nats])))
    assert means == sorted(means)
    assert means[0] > 0
    assert means[1] / means[0] == pytest.approx(4.0, rel=0.25)


def test_only_modes_that_change_the_distribution_have_a_divergence(model: str) -> None:
    for arm in arms_of(PRNG):
        changed = arm.mode in ("logit_perturb", "temp_modulate")
        for one in inject(TransformersBackend(model), jobs(2), arm):
            assert (one.kl_nats is not None) == changed
            assert one.kl_reason == (None if changed else f"{arm.name} {UNCHANGED}")


def test_the_words_of_a_row_are_counted(model: str, tmp_path: Path) -> None:
    backend = TransformersBackend(model)
    sized = {"select": 1, "gumbel": 50, "temp_modulate": 1, "logit_perturb": 512}
    for arm in arms_of(PRNG):
        for one in inject(backend, jobs(4), arm):
            choices = (one.output.tokens or 0) + (one.output.finish_reason == "stop")
            assert one.words == (1 if arm.mode == "seed_only" else choices * sized[arm.mode])
            assert one.words_sha256 is None
    long = replace(STANDARD, max_new_tokens=40)  # 40 x 512 words: kept as 4 a token and stretched
    arm = Injection(mode="logit_perturb", source=TRNG, dose=1.0, law="uniform")
    for one in inject(backend, jobs(2, settings=long), arm, tape=tmp_path / "t"):
        choices = (one.output.tokens or 0) + (one.output.finish_reason == "stop")
        assert one.words == 4 * choices
        assert one.words_sha256 is not None
    assert (tmp_path / "t").stat().st_size < 2 * (40 * 4 * 8 + 400)


def test_the_same_numbers_in_another_order_give_another_text(model: str) -> None:
    settings = replace(STANDARD, max_new_tokens=30)
    plain, shuffled = (
        inject(
            TransformersBackend(model),
            jobs(8, settings=settings),
            Injection(mode="temp_modulate", source=PRNG, amplitude=1.5, control=control),
        )
        for control in (None, "shuffled")
    )
    assert texts(plain) != texts(shuffled)


def taped(source: SourceSpec, n: int, home: Path) -> list[InjectionJob]:
    """Jobs of one prompt, their draws from a tape of the source itself, as a study makes them."""
    todo = jobs(n, same=True)
    drawn = Tape(home / f"{source.name}.jsonl", source).draws([item.job.key for item in todo])
    return [replace(item, draw=draw.seed64) for item, draw in zip(todo, drawn, strict=True)]


@pytest.mark.parametrize(
    ("kind", "dose", "different"),
    [("constant", None, 1), ("biased_bits", 0.5, 1), ("short_range", None, 1), ("tiled", None, 8),
     ("prng", None, 8)],
)  # fmt: skip
def test_under_select_a_stuck_source_gives_a_prompt_one_text(
    kind: str, dose: float | None, different: int, model: str, tmp_path: Path
) -> None:
    source = SourceSpec(kind=kind, stream=42, dose=dose)
    found = inject(
        TransformersBackend(model), taped(source, 8, tmp_path), Injection(mode="select", source=source)
    )
    assert len(set(texts(found))) == different


class Small:
    """A device on which four rows run out of memory, after their source has been read."""

    def __init__(self, backend: TransformersBackend) -> None:
        self.backend, self.refused = backend, 0

    def generate_by(self, todo: Sequence[Job], draw: Any) -> list[Output]:
        def limited(network: Any, batch: Sequence[Job], prompts: Any, stop: frozenset[int]) -> Any:
            rows = draw(network, batch, prompts, stop)
            if len(batch) > 3:
                self.refused += 1
                raise MemoryError
            return rows

        return self.backend.generate_by(todo, limited)


@pytest.mark.parametrize("arm", arms_of(TRNG), ids=lambda arm: arm.name)
def test_a_batch_halved_for_memory_gives_the_same_rows(arm: Injection, model: str, tmp_path: Path) -> None:
    small = Small(TransformersBackend(model))
    found = inject(small, jobs(10), arm, tape=tmp_path / "t")
    whole = inject(TransformersBackend(model), jobs(10), arm, tape=tmp_path / "t")
    assert small.refused >= 3
    assert texts(found) == texts(whole)


def test_a_live_row_that_is_run_again_replays_and_a_new_tape_does_not(model: str, tmp_path: Path) -> None:
    backend, arm = TransformersBackend(model), Injection(mode="select", source=TRNG)
    first = inject(backend, jobs(8), arm, tape=tmp_path / "t")
    again = inject(backend, jobs(12)[4:], arm, tape=tmp_path / "t")
    assert texts(again)[:4] == texts(first)[4:]
    assert texts(inject(backend, jobs(8), arm, tape=tmp_path / "other")) != texts(first)
    longer = [replace(i, job=replace(i.job, sampling=replace(STANDARD, max_new_tokens=13))) for i in jobs(8)]
    with pytest.raises(TapeError, match="use another tape for another plan"):
        inject(backend, longer, arm, tape=tmp_path / "t")


def test_a_job_that_cannot_run_is_an_output_with_a_reason_and_the_others_run(model: str) -> None:
    arm = Injection(mode="logit_perturb", source=PRNG, dose=0.3, law="uniform")
    todo = jobs(3)
    endless = replace(STANDARD, max_new_tokens=1100)  # the model's window holds 1,024
    todo[1] = replace(todo[1], job=replace(todo[1].job, sampling=endless))
    found = inject(TransformersBackend(model), todo, arm)
    assert [one.output.text is None for one in found] == [False, True, False]
    assert "leaves no room" in (found[1].kl_reason or "")
    assert (found[1].words, found[1].kl_nats) == (0, None)


def test_an_output_is_plain_data(model: str) -> None:
    arm = Injection(mode="temp_modulate", source=PRNG, amplitude=0.3)
    one = inject(TransformersBackend(model), jobs(1), arm)[0]
    fields = json.loads(json.dumps(dataclasses.asdict(one)))
    assert fields["kl_nats"] == list(one.kl_nats or ())
    assert fields["output"]["text"] == one.output.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "shake"}, "unknown injection mode 'shake'; allowed: select, gumbel"),
        ({"mode": "select"}, "has no source; give a SourceSpec"),
        ({"mode": "none", "source": PRNG}, "draws from no source"),
        ({"mode": "select", "source": PRNG, "dose": 1.0}, "takes no dose"),
        ({"mode": "gumbel", "source": PRNG, "law": "uniform"}, "takes no law"),
        ({"mode": "seed_only", "source": PRNG, "amplitude": 0.3}, "takes no amplitude"),
        ({"mode": "select", "source": PRNG, "control": "fixed"}, "takes no control"),
        ({"mode": "logit_perturb", "source": PRNG, "law": "uniform"}, "has dose None; allowed: 0 to 10"),
        ({"mode": "logit_perturb", "source": PRNG, "law": "uniform", "dose": -1.0}, "dose -1.0; allowed"),
        ({"mode": "logit_perturb", "source": PRNG, "dose": 1.0}, "law None; allowed: uniform, gaussian"),
        ({"mode": "logit_perturb", "source": PRNG, "dose": 1.0, "law": "cauchy"}, "law 'cauchy'"),
        ({"mode": "temp_modulate", "source": PRNG}, "amplitude None; allowed: 0 to 4"),
        ({"mode": "temp_modulate", "source": PRNG, "amplitude": float("nan")}, "amplitude nan"),
        (
            {"mode": "temp_modulate", "source": PRNG, "amplitude": 0.3, "control": "x"},
            "control 'x'; allowed: None, fixed",
        ),
        (
            {"mode": "temp_modulate", "source": PRNG, "amplitude": 0.3, "control": "fixed"},
            "draws from no source",
        ),
    ],
)
def test_a_wrong_injection_is_refused_with_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Injection(**fields)


def test_every_mode_can_be_named_and_the_names_differ() -> None:
    names = [arm.name for arm in (*arms_of(PRNG), *arms_of(TRNG), *SOURCELESS)]
    assert len(set(names)) == len(names)
    assert {name.split(":")[0].split("@")[0] for name in names} == set(MODES)


def test_wrong_jobs_are_refused_before_any_model_is_loaded() -> None:
    nowhere, arm = TransformersBackend("/no such model"), Injection(mode="select", source=PRNG)
    good = jobs(2)
    cold = replace(good[0], job=replace(good[0].job, sampling=replace(STANDARD, temperature=0.0)))
    for todo, message in (
        ([good[0], good[0]], "two jobs have the key 'job0'"),
        (jobs(1, draws=False), "has draw None for 'select@prng:42'"),
        ([replace(good[0], draw=2**64)], "allowed: 0 to 2.64 - 1"),
        ([cold], "has temperature 0"),
    ):
        with pytest.raises(ValueError, match=message):
            inject(nowhere, todo, arm)
    with pytest.raises(ValueError, match="give a draw exactly when"):
        inject(nowhere, good, Injection(mode="none"))
