"""The embedded models: their text, the trigram they must beat, training, and what is kept on disk."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.embedded import (
    RUNGS,
    EmbeddedSpec,
    TrainedModel,
    TrainPoint,
    load_trained,
    obtain,
    train,
)
from models.english import Corpus, pydoc_english, split_topics
from models.kept import MANIFEST
from models.pretrain import stream_nats, token_stream, train_tokenizer
from models.trigram import fit_trigram, probability, total_nats

Tell = Callable[[str, object], None]
"""What `record_property` is: the conftest prints a `table`."""

TINY = EmbeddedSpec(
    name="tiny",
    n_layer=1,
    n_head=2,
    n_pair=1,
    n_embd=16,
    learning_rate=5e-3,
    weight_decay=0.1,
    vocab_size=320,
    block_size=32,
    batch=4,
    steps=30,
    warmup_steps=5,
    evaluations=3,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads of a model this small mostly wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """A tenth of the real text, so a training run takes about a second."""
    whole = pydoc_english()
    return dataclasses.replace(whole, train=whole.train[:6], heldout=whole.heldout[:2])


@pytest.fixture(scope="session")
def tiny(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return train(TINY, tmp_path_factory.mktemp("embedded") / "tiny", corpus=corpus)


# --- the text ---------------------------------------------------------------------------------------------


def test_the_text_keeps_prose_on_one_line_and_drops_markup() -> None:
    topic = (
        "Heading\n*******\n\nThe *first* paragraph has\nits lines   joined.\n\n"
        "   stmt ::= '|' | '||' | x[0]\n\n+-----+\n| a |\n\nThe “last” one isn’t dropped either.\n"
    )
    found = split_topics({"a": topic, "b": "held out words are five"}, seed=0, heldout_share=0.3)
    assert found.heldout == ("held out words are five",)
    assert found.train == ('The first paragraph has its lines joined. The "last" one isn\'t dropped either.',)


def test_no_held_out_paragraph_is_trained_on() -> None:
    shared = "this very paragraph is printed in two topics"
    own = "\n\n".join(f"a paragraph of the long topic with number word {'x' * n}" for n in range(1, 30))
    found = split_topics({"long": f"{shared}\n\n{own}", "short": shared}, seed=0, heldout_share=0.1)
    assert found.heldout == (shared,)
    assert shared not in found.train[0]
    assert "number word xxx" in found.train[0]


def test_the_split_of_the_real_text_follows_its_seed_and_share() -> None:
    one, same, other = pydoc_english(), pydoc_english(), pydoc_english(seed=1)
    assert one == same
    assert one.sha256 != other.sha256
    assert one.heldout_topics != other.heldout_topics
    share = one.heldout_bytes / (one.heldout_bytes + one.train_bytes)
    assert (
        0.08 < share < 0.14
    )  # 0.1 of the characters before repeats are dropped, and only training loses them


def test_missing_or_empty_topics_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="0 documents to train on and 0 held out; both need at least 1"):
        split_topics({}, seed=0, heldout_share=0.1)
    with pytest.raises(ValueError, match=r"heldout_share is 1\.5; it must lie between 0 and 1"):
        pydoc_english(heldout_share=1.5)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"no module pydoc_data\.topics"):
        pydoc_english()


# --- the trigram ------------------------------------------------------------------------------------------

TOY = [0, 3, 1, 2, 3, 1, 1, 2, 0, 3, 1, 2, 2, 1, 3, 0, 0, 2, 3, 1, 4]
TOY_VOCAB = 6  # id 5 never occurs


def _brute(tokens: list[int], u: int, v: int, w: int) -> float:
    """Interpolated Kneser-Ney written from its definition with sets and loops only."""
    seq = [tokens[0], *tokens]
    tri = [(seq[i], seq[i + 1], seq[i + 2]) for i in range(len(seq) - 2)]
    kinds3 = set(tri)
    kinds2 = {(b, c) for _, b, c in kinds3}

    def left2(b: int, c: int) -> int:
        return len({a for a, x, y in kinds3 if (x, y) == (b, c)})

    def left1(c: int) -> int:
        return len({b for b, x in kinds2 if x == c})

    def discount(counts: list[int]) -> float:
        n1, n2 = counts.count(1), counts.count(2)
        return n1 / (n1 + 2 * n2) if n1 and n2 else 0.5

    ids = range(TOY_VOCAB)
    d1 = discount([left1(c) for c in ids if left1(c)])
    d2 = discount([left2(b, c) for b, c in kinds2])
    d3 = discount([tri.count(kind) for kind in kinds3])
    all1 = sum(left1(c) for c in ids)
    p = max(left1(w) - d1, 0) / all1 + d1 * sum(left1(c) > 0 for c in ids) / all1 / TOY_VOCAB
    all2 = sum(left2(v, c) for c in ids)
    if all2:
        p = max(left2(v, w) - d2, 0) / all2 + d2 * sum(left2(v, c) > 0 for c in ids) / all2 * p
    all3 = sum(tri.count((u, v, c)) for c in ids)
    if all3:
        p = (
            max(tri.count((u, v, w)) - d3, 0) / all3
            + d3 * sum(tri.count((u, v, c)) > 0 for c in ids) / all3 * p
        )
    return p


def test_the_trigram_agrees_with_its_definition_and_sums_to_one_in_every_context() -> None:
    model = fit_trigram(TOY, TOY_VOCAB)
    for u in range(TOY_VOCAB):
        for v in range(TOY_VOCAB):
            row = [probability(model, (u, v), w) for w in range(TOY_VOCAB)]
            assert row == pytest.approx([_brute(TOY, u, v, w) for w in range(TOY_VOCAB)], rel=1e-12)
            assert math.fsum(row) == pytest.approx(1, rel=1e-12)
            assert min(row) > 0
    text = [2, 3, 1, 5, 4]
    by_hand = [(2, 2, 3), (2, 3, 1), (3, 1, 5), (1, 5, 4)]
    assert total_nats(model, text) == pytest.approx(
        -sum(math.log(_brute(TOY, *g)) for g in by_hand), rel=1e-12
    )


def test_the_trigram_refuses_ids_it_has_no_place_for() -> None:
    with pytest.raises(ValueError, match="token ids run from 0 to 4; allowed are 0 to 3"):
        fit_trigram(TOY, 4)
    with pytest.raises(ValueError, match="1 tokens; a trigram model needs at least 2"):
        total_nats(fit_trigram(TOY, TOY_VOCAB), [1])


# --- scoring ----------------------------------------------------------------------------------------------


class Bigram(torch.nn.Module):
    """Logits that depend on the last token alone, so the cost of a text has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 5)

    def forward(self, x: torch.Tensor, *, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(x))


@pytest.mark.parametrize("block_size", [1, 3, 4, 11, 12, 40])
def test_every_token_but_the_first_is_scored_once_whatever_the_window(block_size: int) -> None:
    torch.manual_seed(0)
    model = Bigram()
    tokens = torch.tensor([0, 4, 1, 1, 3, 2, 0, 2, 4, 4, 3, 1, 0])
    log_p = model.table.weight.detach().double().log_softmax(-1)
    expected = -sum(float(log_p[a, b]) for a, b in itertools.pairwise(tokens))
    assert stream_nats(model, tokens, block_size, batch=2) == pytest.approx(expected, rel=1e-6)
    assert model.training


def test_the_kept_bits_per_byte_is_that_of_the_loaded_model(tiny: TrainedModel, corpus: Corpus) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny.directory)
    tokenizer = Tokenizer.from_file(str(tiny.directory / "tokenizer.json"))
    ids = token_stream(tokenizer, corpus.heldout)
    bits = 0.0
    for start in range(0, len(ids) - 1, TINY.block_size):
        window = ids[start : start + TINY.block_size + 1]
        log_p = model(window[None, :-1]).logits[0].detach().log_softmax(-1)
        bits -= float(log_p.gather(1, window[1:, None]).sum()) / math.log(2)
    assert tiny.heldout_bits_per_byte == pytest.approx(bits / corpus.heldout_bytes, rel=1e-6)


# --- training and keeping ---------------------------------------------------------------------------------


def test_training_lowers_the_held_out_loss_from_that_of_a_blind_guess(tiny: TrainedModel) -> None:
    assert [point.iteration for point in tiny.log] == [0, 10, 20, 30]
    assert tiny.log[0].train_loss_nats is None
    assert tiny.log[0].valid_loss_nats == pytest.approx(math.log(TINY.vocab_size) + 0.64**2 / 2, abs=0.15)
    assert tiny.log[-1].valid_loss_nats < tiny.log[0].valid_loss_nats - 0.3
    assert tiny.log[-1].tokens == TINY.tokens == 30 * 4 * 32
    assert tiny.parameters == 320 * 16 + tiny.nonembedding_parameters
    # one layer: 16 x 16 for queries and output, 16 x 8 for keys and values, three 16 x 48 of the MLP, three
    # gains of 16
    assert tiny.nonembedding_parameters == 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 48 + 3 * 16


def test_the_same_spec_gives_the_same_weights_and_another_seed_gives_others(
    tiny: TrainedModel, corpus: Corpus, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    seen: list[TrainPoint] = []
    again = train(TINY, tmp_path / "again", corpus=corpus, report=seen.append)
    other = train(dataclasses.replace(TINY, seed=1), tmp_path / "other", corpus=corpus)
    assert again.digest == tiny.digest != other.digest
    assert tuple(seen) == again.log
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2


def test_transformers_loads_it_and_every_special_id_is_the_end_of_text(tiny: TrainedModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.directory)
    model = AutoModelForCausalLM.from_pretrained(tiny.directory)
    settings = model.generation_config
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (0, 0, 0)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == tokenizer.bos_token_id == 0
    text = "Zoë wrote  two\n\tlines… 日本 🙂 it 's (x) ."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    made = model.generate(**tokenizer("The class", return_tensors="pt"), max_new_tokens=5, do_sample=False)
    assert made.max() < TINY.vocab_size


def test_the_tokenizer_learns_from_the_training_part_alone(corpus: Corpus, tiny: TrainedModel) -> None:
    kept = Tokenizer.from_file(str(tiny.directory / "tokenizer.json"))
    assert kept.get_vocab() == train_tokenizer(corpus.train, TINY.vocab_size).get_vocab()
    with pytest.raises(ValueError, match="vocab_size asks for 320; use a longer text"):
        train_tokenizer(["a b"], 320)


def test_a_diverging_run_says_so_and_leaves_what_was_there(
    tiny: TrainedModel, corpus: Corpus, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    with pytest.raises(
        ValueError, match=r"tiny: the loss is nan at step \d+ of 30.*nothing was saved: lower"
    ):
        train(dataclasses.replace(TINY, learning_rate=1e30), target, corpus=corpus)
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(tiny.directory, target)
    with pytest.raises(ValueError, match="nothing was saved"):
        train(dataclasses.replace(TINY, learning_rate=1e30), target, corpus=corpus)
    assert load_trained(target) == dataclasses.replace(tiny, directory=target)
    assert list(tmp_path.iterdir()) == [target]


def test_damage_of_any_file_is_seen_and_mended_by_training_again(
    tiny: TrainedModel, corpus: Corpus, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    shutil.copytree(tiny.directory, target)
    kept = dataclasses.replace(tiny, directory=target)
    assert load_trained(target) == kept
    for path in sorted(target.iterdir()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for damaged in (flipped, whole[:middle], b""):
            path.write_bytes(damaged)
            assert load_trained(target) is None, path.name
        path.unlink()
        assert load_trained(target) is None, path.name
        path.write_bytes(whole)
    assert load_trained(target) == kept
    manifest = json.loads((target / MANIFEST).read_text())
    manifest["body"]["heldout_bits_per_byte"] = 0.5
    (target / MANIFEST).write_text(json.dumps(manifest))
    assert load_trained(target) is None
    assert train(TINY, target, corpus=corpus).digest == tiny.digest
    assert load_trained(tmp_path / "absent") is None


def test_a_model_of_another_spec_or_text_is_not_served(tmp_path: Path) -> None:
    quick = dataclasses.replace(TINY, steps=2, warmup_steps=1, evaluations=1, heldout_share=0.01)
    first = obtain(quick, tmp_path / "model")
    assert obtain(quick, tmp_path / "model") == first  # seconds included: nothing was trained
    changed = obtain(dataclasses.replace(quick, weight_decay=0.2), tmp_path / "model")
    assert changed.spec.weight_decay == 0.2
    assert changed.digest != first.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 3}, "n_embd 16, n_head 3; each head needs an even width"),
        ({"n_pair": 0}, "n_pair 0, n_head 2; n_pair must divide n_head"),
        ({"n_pair": 3}, "n_pair 3, n_head 2; n_pair must divide n_head"),
        ({"vocab_size": 256}, "256 bytes and the end of text need 257"),
        ({"block_size": 2000}, "allowed are 2 to 1024"),
        ({"evaluations": 31}, "evaluations between 1 and steps"),
        ({"warmup_steps": 30}, "allowed are 0 to 29"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_refused_at_once(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_window_longer_than_the_text_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    short = dataclasses.replace(corpus, train=("the text of a page is here " * 3,))
    wide = dataclasses.replace(TINY, vocab_size=258, block_size=1000)
    with pytest.raises(ValueError, match="block_size 1000 needs more than that"):
        train(wide, tmp_path / "model", corpus=short)


def test_naming_a_rung_needs_no_torch() -> None:
    code = "import sys; from models.embedded import RUNGS; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


# --- the ladder -------------------------------------------------------------------------------------------


def _table(models: list[TrainedModel]) -> str:
    head = f"{'model':<12}{'parameters':>12}{'in layers':>14}{'held-out bpb':>14}{'trigram':>13}{'CPU s':>8}"
    rows = [
        f"{m.name:<12}{m.parameters:>12}{m.nonembedding_parameters:>14}{m.heldout_bits_per_byte:>14.4f}"
        f"{m.trigram_bits_per_byte:>13.4f}{m.cpu_seconds:>8.0f}"
        for m in models
    ]
    return "\n".join(["", head, *rows])


def _climb(names: list[str], home: Path, tell: Tell) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:  # one torch thread each
        waiting = {name: pool.submit(obtain, RUNGS[name], home / name) for name in reversed(names)}
        models = [waiting[name].result() for name in names]
    tell("table", _table(models))
    sizes = [m.parameters for m in models]
    costs = [m.heldout_bits_per_byte for m in models]
    assert sizes == sorted(set(sizes))
    assert all(large < small for small, large in itertools.pairwise(costs)), costs
    assert all(large > 1.5 * small for small, large in itertools.pairwise(sizes)), sizes
    assert all(m.heldout_bits_per_byte < m.trigram_bits_per_byte for m in models), costs


def test_all_rungs_share_text_tokenizer_and_number_of_tokens() -> None:
    shared = ("vocab_size", "block_size", "batch", "steps", "seed", "corpus_seed", "heldout_share", "tokens")
    assert len({tuple(getattr(spec, name) for name in shared) for spec in RUNGS.values()}) == 1


@pytest.mark.slow
def test_the_smallest_two_rungs_beat_the_trigram_and_the_larger_wins(
    trained: Path, record_property: Tell
) -> None:
    _climb(list(RUNGS)[:2], trained, record_property)


@pytest.mark.slow
def test_every_rung_beats_the_trigram_and_each_larger_one_wins(trained: Path, record_property: Tell) -> None:
    _climb(list(RUNGS), trained, record_property)
