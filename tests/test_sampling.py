"""The sampler draws from the declared distribution, and a row's tokens do not depend on its batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from models import sampling as sampling_module
from models.backends import Sampling
from models.decoding import HubNetwork, Network, PlainNetwork, open_network
from models.sampling import Choice, InverseCdf, SampledRow, keep, likeliest, pick, row_uniforms, sample

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 211
STANDARD = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=12)
WIDE = {
    "hidden_size": 96, "intermediate_size": 288, "num_key_value_heads": 1, "initializer_range": 0.15,
    "rms_norm_eps": 0.01,
}  # fmt: skip
"""A Llama with shared keys, wide enough that `models.plain` packs its larger weights."""


def gpt2(seed: int = 0) -> Any:
    """A random GPT-2 whose weights are wide enough for uneven distributions."""
    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=2, n_embd=96, n_head=3, vocab_size=VOCABULARY, n_positions=160, initializer_range=0.15,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama in the shape of the embedded models."""
    torch.manual_seed(seed)
    fields = {
        "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 160,
        "tie_word_embeddings": True, "initializer_range": 0.25,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**{**fields, **changes}))
    for gain in (p for p in model.parameters() if p.dim() == 1):
        torch.nn.init.uniform_(gain, 0.5, 1.5)
    return model.eval()


def networks() -> dict[str, Network]:
    """One of each kind of arithmetic: our GPT-2, our Llama, also with shared keys, a model's own forward."""
    return {
        "gpt2": open_network(gpt2()),
        "llama": open_network(llama()),
        "grouped": open_network(llama(**WIDE)),
        "hub": open_network(llama(attention_bias=True)),
    }


NETWORKS = networks()


def prompts(n: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCABULARY, size=int(rng.integers(1, 25))).tolist() for _ in range(n)]


def run(
    network: Network, rows: list[list[int]], seeds: list[int], settings: Sampling = STANDARD, stop: Any = ()
) -> list[SampledRow]:
    choose = InverseCdf(settings, row_uniforms(seeds, settings.max_new_tokens))
    return sample(network, rows, settings, choose, stop=stop)


def test_plain_shapes_run_by_our_arithmetic_and_others_by_their_own() -> None:
    assert isinstance(NETWORKS["gpt2"], PlainNetwork)
    assert isinstance(NETWORKS["llama"], PlainNetwork)
    assert isinstance(NETWORKS["grouped"], PlainNetwork)
    assert isinstance(NETWORKS["hub"], HubNetwork)


@pytest.mark.parametrize(
    "model",
    [
        gpt2(),
        llama(),
        llama(**WIDE),
        llama(num_attention_heads=4, num_key_value_heads=2, head_dim=8),
        llama(attention_bias=True),
        llama(tie_word_embeddings=False),
    ],
)
@pytest.mark.parametrize("width", [9, 120])
def test_batched_and_exact_logits_are_those_of_the_model(model: Any, width: int) -> None:
    network = open_network(model)
    rows = [*prompts(4), [3] * width]
    with torch.inference_mode():
        decoding = network.begin(rows, 12)
        for step in range(8):
            alone = torch.cat([model(torch.tensor([row])).logits[:, -1] for row in rows])
            torch.testing.assert_close(decoding.logits, alone, atol=5e-5, rtol=0)
            exact = torch.cat([network.exact(row) for row in rows])
            assert exact.dtype == torch.float64
            torch.testing.assert_close(exact.float(), alone, atol=5e-5, rtol=0)
            if step == 3:
                stay = torch.tensor([1, 3, 4])
                decoding.keep(stay)
                rows = [rows[i] for i in stay.tolist()]
            tokens = torch.arange(len(rows)) * 17 + step
            decoding.step(tokens)
            rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]


@pytest.mark.parametrize("model", [gpt2(), llama()])
def test_the_first_logits_are_those_of_generate(model: Any) -> None:
    rows = prompts(5)
    width = max(map(len, rows))
    padded = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    out = model.generate(
        padded, attention_mask=mask, max_new_tokens=1, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    with torch.inference_mode():
        torch.testing.assert_close(
            open_network(model).begin(rows, 0).logits, out.logits[0], atol=2e-5, rtol=0
        )


@pytest.mark.parametrize("kind", NETWORKS)
def test_rows_do_not_depend_on_their_batch(kind: str) -> None:
    network, texts = NETWORKS[kind], prompts(8)
    jobs = [(text, seed) for text in texts for seed in (0, 1, 2**32 - 1)]
    alone = [run(network, [text], [seed])[0] for text, seed in jobs]
    rng = np.random.default_rng(1)
    for size in (2, 7, len(jobs)):
        order = rng.permutation(len(jobs))
        for start in range(0, len(jobs), size):
            part = order[start : start + size]
            together = run(network, [jobs[i][0] for i in part], [jobs[i][1] for i in part])
            assert [row.tokens for row in together] == [alone[i].tokens for i in part]


def edge_uniforms(
    network: Network, rows: list[list[int]], settings: Sampling
) -> tuple[np.ndarray, list[Any]]:
    """Uniforms 1e-9 beside an edge of each exact distribution, and the tokens that they mean."""
    rng = np.random.default_rng(5)
    uniforms = np.zeros((len(rows), settings.max_new_tokens))
    tokens: list[Any] = []
    for i, row in enumerate(rows):
        sequence = list(row)
        for step in range(settings.max_new_tokens):
            kept = keep(network.exact(sequence), settings, exact=True)
            edges = np.cumsum(kept.mass[0]) / kept.mass[0].sum()
            inner = np.unique(edges[(edges > 1e-6) & (edges < 1 - 1e-6)])
            edge = rng.choice(inner) if len(inner) else 0.5
            uniforms[i, step] = edge + rng.choice([-1e-9, 1e-9])
            sequence.append(int(pick(kept, uniforms[i, step : step + 1], exact=True).tokens[0]))
        tokens.append(tuple(sequence[len(row) :]))
    return uniforms, tokens


@pytest.mark.parametrize("kind", NETWORKS)
def test_uniforms_beside_an_edge_are_decided_alike_in_every_batch(kind: str) -> None:
    network, rows = NETWORKS[kind], prompts(6, seed=3)
    settings = replace(STANDARD, max_new_tokens=5)
    with torch.inference_mode():
        uniforms, tokens = edge_uniforms(network, rows, settings)
    together = sample(network, rows, settings, InverseCdf(settings, uniforms))
    assert [row.tokens for row in together] == tokens
    assert sum(row.guarded for row in together) >= 25  # of 30; a token with all the mass has no edge
    for i, row in enumerate(rows):
        alone = sample(network, [row], settings, InverseCdf(settings, uniforms[i : i + 1]))
        assert alone[0].tokens == tokens[i]


def test_without_the_guard_uniforms_beside_an_edge_are_decided_by_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, rows = NETWORKS["gpt2"], prompts(12, seed=3)
    settings = replace(STANDARD, max_new_tokens=5)
    with torch.inference_mode():
        uniforms, tokens = edge_uniforms(network, rows, settings)
    monkeypatch.setattr(sampling_module, "GUARD", -1.0)
    monkeypatch.setattr(sampling_module, "LOGIT_ULPS", -1.0)
    together = sample(network, rows, settings, InverseCdf(settings, uniforms))
    assert [row.tokens for row in together] != tokens


def warped(logits: torch.Tensor, settings: Sampling) -> torch.Tensor:
    """Transformers' own probabilities for the settings, (rows, vocabulary)."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(settings.temperature)])
    if settings.top_k:
        warpers.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        warpers.append(TopPLogitsWarper(settings.top_p))
    return warpers(torch.zeros((len(logits), 1), dtype=torch.long), logits).softmax(1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 0},
        {"top_p": 1.0},
        {"top_k": 0, "top_p": 1.0},
        {"top_k": 1},
        {"top_k": 5, "top_p": 0.5},
        {"top_k": 1000},
        {"temperature": 3.0},
        {"temperature": 0.05},
        {"top_p": 1e-6},
    ],
)
def test_the_kept_distribution_is_that_of_the_transformers_warpers(changes: Any, exact: bool) -> None:
    settings = replace(STANDARD, **changes)
    logits = 3 * torch.randn(
        (40, VOCABULARY), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    logits = logits if exact else logits.float()
    kept = keep(logits, settings, exact=exact)
    dense = np.zeros(logits.shape)
    np.put_along_axis(dense, kept.ids, kept.mass, axis=1)
    dense /= dense.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(dense, warped(logits.double(), settings).numpy(), atol=1e-12)


def test_sampled_tokens_follow_the_exact_truncated_distribution() -> None:
    row, n = prompts(1)[0], 10_000
    network = NETWORKS["llama"]
    settings = replace(STANDARD, max_new_tokens=1, temperature=1.5)
    kept = keep(network.exact(row), settings, exact=True)
    p = kept.mass[0] / kept.mass[0].sum()
    counts = np.zeros(VOCABULARY)
    for start in range(0, n, 2000):
        for result in run(network, [row] * 2000, list(range(start, start + 2000)), settings):
            counts[result.tokens[0]] += 1
    assert counts.sum() == counts[kept.ids[0][p > 0]].sum() == n
    expected = n * p[p > 0]
    chi_square = ((counts[kept.ids[0][p > 0]] - expected) ** 2 / expected).sum()
    degrees = len(expected) - 1
    assert degrees > 5
    assert expected.min() > 5
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)  # five standard deviations


def test_the_inverse_cdf_runs_over_ids_and_reaches_both_ends() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]])).repeat(6, 1)
    settings = replace(STANDARD, temperature=1.0, top_k=0, top_p=1.0)
    uniforms = np.array([0.0, 0.0999, 0.1001, 0.4999, 0.7001, 1 - 2.0**-53])
    choice = pick(keep(logits, settings), uniforms)
    assert choice.tokens.tolist() == [0, 0, 1, 1, 3, 3]
    assert not choice.unsure.any()


@pytest.mark.parametrize(
    ("mass", "top_k", "top_p", "uniform", "unsure"),
    [
        ([0.5, 0.25, 0.25], 0, 1.0, 0.500009, True),  # beside an edge
        ([0.5, 0.25, 0.25], 0, 1.0, 0.50002, False),
        ([0.5, 0.25, 0.25], 0, 1.0, 0.0, False),  # 0 and 1 are no edges
        ([0.5, 0.250001, 0.249999], 2, 1.0, 0.6, True),  # a tie across the top-k cut: id 1 or id 2
        ([0.5, 0.250001, 0.249999], 2, 1.0, 0.3, False),  # id 0 either way
        ([0.5, 0.3, 0.2], 0, 0.800005, 0.1, False),  # top_p may or may not take in id 2: id 0 either way
        ([0.5, 0.3, 0.2], 0, 0.800005, 0.55, True),  # id 1 of two, of three still 1, but near id 0's new end
        ([0.5, 0.3, 0.2], 0, 0.799995, 0.9, True),
        ([0.5, 0.3, 0.2], 0, 0.8001, 0.9, False),
        ([0.25, 0.25, 0.25, 0.25], 2, 1.0, 0.4, True),  # nothing but ties
    ],
)
def test_the_guard_fires_where_rounding_could_decide(
    mass: list[float], top_k: int, top_p: float, uniform: float, unsure: bool
) -> None:
    settings = replace(STANDARD, temperature=1.0, top_k=top_k, top_p=top_p)
    logits = torch.log(torch.tensor([mass], dtype=torch.float64))
    assert pick(keep(logits, settings), np.array([uniform])).unsure.tolist() == [unsure]


def test_exact_ties_at_the_cut_keep_the_lower_ids() -> None:
    kept = keep(torch.zeros((1, 9), dtype=torch.float64), replace(STANDARD, top_k=4, top_p=1.0), exact=True)
    assert kept.ids[0][kept.mass[0] > 0].tolist() == [0, 1, 2, 3]
    kept = keep(torch.zeros((1, 9), dtype=torch.float64), replace(STANDARD, top_k=0, top_p=0.3), exact=True)
    assert kept.ids[0][kept.mass[0] > 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("model", [gpt2(), llama()])
def test_temperature_zero_and_its_limit_are_greedy_decoding(model: Any) -> None:
    row = prompts(1)[0]
    out = model.generate(
        torch.tensor([row]), attention_mask=torch.ones(1, len(row)), do_sample=False, max_new_tokens=12,
        eos_token_id=None,
    )  # fmt: skip
    greedy = tuple(out[0, len(row) :].tolist())
    network = open_network(model)
    for temperature in (0.0, 1e-4):
        settings = replace(STANDARD, temperature=temperature)
        assert run(network, [row, [5, 6]], [3, 4], settings)[0].tokens == greedy


def test_tied_greedy_tokens_are_unsure_until_they_are_exact() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [1.0, 2.0, 3.0]])
    assert likeliest(logits, exact=False).unsure.tolist() == [True, False]
    assert likeliest(logits, exact=True).tokens.tolist() == [1, 2]


def test_a_stop_token_ends_its_row_alone_and_is_left_out() -> None:
    network, rows, seeds = NETWORKS["llama"], prompts(20), list(range(20))
    free = run(network, rows, seeds)
    stop = {free[0].tokens[3], free[1].tokens[0], free[2].tokens[5]}
    for row, long in zip(run(network, rows, seeds, stop=stop), free, strict=True):
        hits = [i for i, token in enumerate(long.tokens) if token in stop]
        assert row.tokens == (long.tokens[: hits[0]] if hits else long.tokens)
        assert row.finish_reason == ("stop" if hits else "length")


@dataclass(frozen=True)
class Scripted:
    """A `Choose` that ignores logits: token (7 row + step) mod the vocabulary."""

    def __call__(self, logits: torch.Tensor, rows: Any, step: int, *, exact: bool) -> Choice:
        assert len(logits) == len(rows)
        assert bool((logits.sort(dim=1).values.diff(dim=1) > 0).all()), "a tie sends all rows its slow way"
        return Choice((7 * rows + step) % VOCABULARY, np.zeros(len(rows), bool))


def test_a_row_that_ended_and_stays_in_the_batch_has_no_tied_logits() -> None:
    found = sample(NETWORKS["gpt2"], prompts(10), STANDARD, Scripted(), stop={2})
    assert [len(row.tokens) for row in found] == [2, *[12] * 9]


@pytest.mark.parametrize("kind", NETWORKS)
def test_rows_keep_their_identity_while_others_leave_the_batch(kind: str) -> None:
    rows = prompts(10)
    stop = {7 * r + 2 for r in range(0, 10, 2)} | {7 * r + 4 for r in range(1, 8, 2)}
    found = sample(NETWORKS[kind], rows, STANDARD, Scripted(), stop=stop)
    assert found[9].tokens == tuple(63 + t for t in range(12))
    for r, row in enumerate(found):
        first = next((t for t in range(12) if 7 * r + t in stop), 12)
        assert row.tokens == tuple(7 * r + t for t in range(first))


def test_a_row_with_nan_logits_fails_by_name_and_the_others_go_on() -> None:
    model = llama(tie_word_embeddings=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("nan")
    network, rows = open_network(model), [[5, 6], [5, 7], [8, 9, 10]]
    found = run(network, rows, [1, 2, 3], replace(STANDARD, top_k=5))
    assert found[1].failure == "logits of row 1 at step 0 are not finite"
    assert (found[1].finish_reason, found[1].tokens) == (None, ())
    for i in (0, 2):
        alone = run(network, [rows[i]], [i + 1], replace(STANDARD, top_k=5))[0]
        assert alone == found[i]


def test_the_repeat_penalty_is_that_of_transformers() -> None:
    settings = replace(STANDARD, temperature=0.0, repeat_penalty=1.3)
    network, rows = NETWORKS["gpt2"], prompts(3)
    for row, found in zip(rows, run(network, rows, [1, 2, 3], settings), strict=True):
        sequence = list(row)
        for token in found.tokens:
            penalised = RepetitionPenaltyLogitsProcessor(1.3)(
                torch.tensor([sequence]), network.exact(sequence)
            )
            assert token == int(penalised.argmax())
            sequence.append(token)


def test_a_row_stream_is_its_seed_and_nothing_else() -> None:
    first = row_uniforms([5, 9], 30)
    assert np.array_equal(first[1], row_uniforms([9], 50)[0, :30])
    assert not np.array_equal(first[0], first[1])
    assert first.min() >= 0
    assert first.max() < 1


def test_what_cannot_be_sampled_is_refused() -> None:
    network = NETWORKS["gpt2"]
    assert run(network, [], []) == []
    with pytest.raises(ValueError, match="empty prompt"):
        run(network, [[1], []], [1, 2])
    with pytest.raises(ValueError, match="take 162 tokens, the model's window holds 160"):
        run(network, [[1] * 150], [1])
