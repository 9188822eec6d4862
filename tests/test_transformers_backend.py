"""The in-process backend: one output a job, whatever the jobs beside it, and every fault with its reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from models import transformers_backend
from models.backends import Job, Message, ModelMissing, Sampling
from models.embedded import EmbeddedSpec, train
from models.english import Corpus
from models.opening import open_backend
from models.transformers_backend import TransformersBackend

pytestmark = pytest.mark.usefixtures("one_thread")

STANDARD = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=10)
END = "<|endoftext|>"


def byte_tokenizer(*, end: bool, template: str | None = None) -> Any:
    """A tokenizer of single bytes, ids in the order of the byte alphabet; the end token, if any, is id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [END, *alphabet] if end else alphabet
    tokenizer = Tokenizer(BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    special = {"eos_token": END, "pad_token": END} if end else {}
    made = fast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    made.chat_template = template
    return made


def saved(directory: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def llama(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    fields = {
        "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 96,
        "tie_word_embeddings": True, "initializer_range": 0.3,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**fields, **changes}))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("a model é"), llama(), byte_tokenizer(end=True))


def jobs(n: int, sampling: Sampling = STANDARD) -> list[Job]:
    return [
        Job(key=f"k{i}", prompt="a" + "bc " * (i % 5) + "x", seed=i * 7919, sampling=sampling)
        for i in range(n)
    ]


def test_each_job_gets_its_output_in_order_as_if_alone(path: str) -> None:
    some = jobs(23)
    together = TransformersBackend(path, batch_rows=8).generate(some)
    assert [output.key for output in together] == [job.key for job in some]
    for job, output in zip(some, together, strict=True):
        alone = TransformersBackend(path).generate([job])[0]
        assert replace(alone, seconds=None) == replace(output, seconds=None)
        assert output.finish_reason in ("stop", "length")
        assert output.seconds is not None
        assert output.seconds > 0


def test_jobs_of_different_sampling_share_a_call(path: str) -> None:
    hot = replace(STANDARD, temperature=1.6)
    mixed = [job for pair in zip(jobs(6), jobs(6, hot), strict=True) for job in pair]
    backend = TransformersBackend(path)
    separate = [backend.generate([job])[0].text for job in mixed]
    assert [output.text for output in backend.generate(mixed)] == separate
    assert separate[0::2] != separate[1::2]


def test_the_length_limit_is_counted_in_tokens(path: str) -> None:
    outputs = [o for o in TransformersBackend(path).generate(jobs(20)) if o.finish_reason == "length"]
    assert outputs
    assert {output.tokens for output in outputs} == {10}


def test_an_end_token_stops_a_text_and_is_not_in_it(path: str) -> None:
    long = replace(STANDARD, max_new_tokens=80, temperature=2.0, top_k=0, top_p=1.0)
    outputs = TransformersBackend(path).generate(jobs(60, long))
    stopped = [output for output in outputs if output.finish_reason == "stop"]
    assert stopped
    assert all(output.tokens is not None and output.tokens < 80 for output in stopped)
    assert not any(END in (output.text or "") for output in outputs)


def test_a_text_that_ends_at_once_is_a_reason(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=False)
    with torch.no_grad():  # the norm before the head becomes all zero but one, which speaks for the end token
        model.model.norm.weight.zero_()
        model.lm_head.weight.zero_()
    where = saved(tmp_path / "m", model, byte_tokenizer(end=True))
    output = TransformersBackend(where).generate(jobs(1, replace(STANDARD, temperature=0.0)))[0]
    assert output.text is None
    assert output.reason is not None
    assert output.reason.startswith("EmptyReply: 0 tokens without text, finish reason stop")


def test_non_finite_logits_are_a_reason_and_spare_the_other_jobs(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=False)
    tokenizer = byte_tokenizer(end=True)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer("z")["input_ids"][0]] = float("nan")
    backend = TransformersBackend(saved(tmp_path / "m", model, tokenizer))
    keep_to_top = replace(STANDARD, top_k=1, max_new_tokens=1)
    bad = Job(key="bad", prompt="abz", seed=1, sampling=keep_to_top)
    outputs = backend.generate([*jobs(2, keep_to_top), bad])
    assert [output.text is None for output in outputs] == [False, False, True]
    assert (outputs[2].reason or "").startswith("NonFiniteLogits: logits of row ")
    assert "at step 0 are not finite (job 'bad')" in (outputs[2].reason or "")


def test_identity_is_the_digest_of_weights_and_tokenizer(path: str, tmp_path: Path) -> None:
    identity = TransformersBackend(path).identity()
    files = {
        name: hashlib.sha256(Path(path, name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "tokenizer.json")
    }
    assert identity.name == path
    assert identity.digest == hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    assert identity.parameters == sum(p.numel() for p in llama().parameters())
    other = saved(tmp_path / "other", llama(seed=1), byte_tokenizer(end=True))
    assert TransformersBackend(other).identity().digest != identity.digest


def test_an_embedded_model_has_the_digest_that_was_recorded_when_it_was_trained(tmp_path: Path) -> None:
    text = " ".join(str(i * i) for i in range(3000))
    corpus = Corpus(train=(text,), heldout=(text[:500],), heldout_topics=("b",), sha256="0" * 64)
    spec = EmbeddedSpec(
        name="t", n_layer=1, n_head=2, n_pair=1, n_embd=16, learning_rate=1e-3, weight_decay=0.1,
        vocab_size=270, block_size=16, steps=2, warmup_steps=1, evaluations=1,
    )  # fmt: skip
    trained = train(spec, tmp_path / "m", corpus=corpus)
    backend = TransformersBackend(str(trained.directory))
    assert backend.identity().digest == trained.digest
    assert backend.generate(jobs(3))[0].tokens is not None


def test_a_model_is_loaded_once_and_again_when_its_files_change(tmp_path: Path) -> None:
    where = saved(tmp_path / "m", llama(), byte_tokenizer(end=True))
    first = TransformersBackend(where).identity()
    assert TransformersBackend(where).identity() is first
    shutil.rmtree(where)
    saved(Path(where), llama(seed=1), byte_tokenizer(end=True))
    assert TransformersBackend(where).identity().digest != first.digest


def test_a_model_without_special_tokens_takes_no_letter_for_an_end(tmp_path: Path) -> None:
    model = llama(vocab_size=256, bos_token_id=1, eos_token_id=2, pad_token_id=None)
    backend = open_backend("local", saved(tmp_path / "m", model, byte_tokenizer(end=False)), home=tmp_path)
    outputs = backend.generate(jobs(40, replace(STANDARD, temperature=3.0, top_k=0, top_p=1.0)))
    assert {output.finish_reason for output in outputs} == {"length"}


def test_a_gpt2_with_its_default_ids_outside_the_vocabulary_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=257, n_positions=64, bos_token_id=None, eos_token_id=None
    )
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = 50256
    where = saved(tmp_path / "m", model, byte_tokenizer(end=True))
    outputs = TransformersBackend(where).generate(jobs(4))
    assert all(output.text for output in outputs)


def test_a_prompt_longer_than_the_window_loses_its_oldest_tokens(path: str) -> None:
    tail = "the last words stay in view and the first ones do not " * 2
    backend = TransformersBackend(path)  # 96 positions, one a byte
    texts = [
        backend.generate([Job(key="k", prompt=head + tail, seed=1, sampling=STANDARD)])[0].text
        for head in ("", "something else ", "u" * 500)
    ]
    assert len(set(texts)) == 1
    narrow = replace(STANDARD, num_ctx=20)
    short = [
        backend.generate([Job(key="k", prompt=p, seed=1, sampling=narrow)])[0].text
        for p in ("0123456789", "zzz0123456789")
    ]
    assert short[0] == short[1]


def test_a_reply_longer_than_the_window_is_refused_as_a_row(path: str) -> None:
    output = TransformersBackend(path).generate(jobs(1, replace(STANDARD, max_new_tokens=96)))[0]
    assert output.text is None
    assert (output.reason or "").startswith("RequestRefused: max_new_tokens 96 leaves no room")


def test_history_reaches_the_model_with_and_without_a_template(path: str, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chatty = saved(tmp_path / "m", llama(), byte_tokenizer(end=True, template=template))
    history = (Message(role="user", content="ab"), Message(role="assistant", content="cd"))
    job = Job(key="k", prompt="ef", seed=3, sampling=STANDARD, history=history)

    def text(where: str, job: Job) -> str | None:
        return TransformersBackend(where).generate([job])[0].text

    written = replace(job, history=(), prompt="[user]ab[assistant]cd[user]ef[assistant]")
    assert text(chatty, job) == text(path, written)
    assert text(path, job) == text(path, replace(job, history=(), prompt="ab\n\ncd\n\nef"))
    assert text(chatty, replace(job, history=(), chat=True)) == text(
        path, replace(job, history=(), prompt="[user]ef[assistant]")
    )
    assert text(chatty, replace(job, history=())) == text(path, replace(job, history=(), prompt="ef"))


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"has no config\.json; train the embedded model first"):
        TransformersBackend(str(tmp_path / "nothing")).identity()
    with pytest.raises(ModelMissing, match=r"has no config\.json"):
        TransformersBackend(str(tmp_path)).generate(jobs(1))


def test_weights_in_pickle_are_not_read(tmp_path: Path) -> None:
    where = Path(saved(tmp_path / "m", llama(), byte_tokenizer(end=True)))
    (where / "model.safetensors").rename(where / "pytorch_model.bin")
    with pytest.raises(ModelMissing, match=r"has no \*\.safetensors"):
        TransformersBackend(str(where)).identity()


def test_damaged_weights_are_a_missing_model(tmp_path: Path) -> None:
    where = Path(saved(tmp_path / "m", llama(), byte_tokenizer(end=True)))
    weights = (where / "model.safetensors").read_bytes()
    (where / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelMissing, match="cannot load"):
        TransformersBackend(str(where)).identity()


def test_out_of_memory_halves_the_batch_and_ends_as_a_reason(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TransformersBackend(path).generate(jobs(11))
    real, sizes = transformers_backend._sample, []

    def short_of_memory(loaded: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 3 or "k7" in [job.key for job, _ in batch]:
            raise torch.OutOfMemoryError("too much")
        return real(loaded, batch)

    monkeypatch.setattr(transformers_backend, "_sample", short_of_memory)
    found = TransformersBackend(path).generate(jobs(11))
    assert max(sizes) == 11
    for before, after in zip(whole, found, strict=True):
        if after.key == "k7":
            assert (after.reason or "").startswith("OutOfMemory: no memory for one row of")
        else:
            assert replace(after, seconds=None) == replace(before, seconds=None)


def test_settings_that_cannot_be_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="batch_rows is 0"):
        TransformersBackend(path, batch_rows=0)
    with pytest.raises(ValueError, match="dtype is 'int4'"):
        TransformersBackend(path, dtype="int4")


def test_bfloat16_runs_and_is_named_in_the_identity(path: str) -> None:
    backend = TransformersBackend(path, dtype="bfloat16")
    assert backend.identity().quantisation == "bfloat16"
    assert all(output.text for output in backend.generate(jobs(4)))
