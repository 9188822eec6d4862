"""The types every backend shares, the errors' words, the door to the backends, and replay."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from models import backends
from models.backends import (
    BackendError,
    GenerationTimeout,
    Job,
    MalformedReply,
    Message,
    ModelIdentity,
    ModelMissing,
    Output,
    Sampling,
    ServerUnreachable,
    failed,
)
from models.ollama_backend import OllamaBackend
from models.opening import open_backend
from models.replay_backend import ReplayBackend, write_recording
from tests.ollama_server import OllamaServer

SAMPLING = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=30)
IDENTITY = ModelIdentity(
    name="m", digest="d" * 64, parameters=10, quantisation=None, revision=None, server_version=None
)
ERRORS = [
    kind for kind in vars(backends).values() if isinstance(kind, type) and issubclass(kind, BackendError)
]


def job(key: str = "a", seed: int = 1, prompt: str = "Say something.") -> Job:
    return Job(key=key, prompt=prompt, seed=seed, sampling=SAMPLING)


def said(job: Job, text: str) -> Output:
    return Output(key=job.key, text=text, finish_reason="stop", tokens=2, seconds=0.5, reason=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; allowed: 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1; allowed: 0"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed: above 0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"repeat_penalty": 0.0}, "repeat_penalty is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_ctx": 30}, "num_ctx is 30 with max_new_tokens 30"),
    ],
)
def test_sampling_out_of_range_is_refused_with_what_is_allowed(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SAMPLING, **wrong)


@pytest.mark.parametrize("edge", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.0}, {"num_ctx": 31}])
def test_sampling_takes_its_edges(edge: dict[str, float]) -> None:
    assert replace(SAMPLING, **edge) != SAMPLING


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_outside_32_bits_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed of job 'a' is {seed}; allowed: 0 to 4294967295"):
        job(seed=seed)


def test_a_seed_may_be_any_32_bit_value() -> None:
    assert [job(seed=seed).seed for seed in (0, 2**31, 2**32 - 1)] == [0, 2**31, 2**32 - 1]


def test_a_job_without_a_key_or_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="job key is empty"):
        job(key="")
    with pytest.raises(ValueError, match="prompt of job 'a' is blank"):
        job(prompt=" \n")


def test_history_or_the_flag_makes_a_job_a_chat_turn() -> None:
    assert not job().is_chat
    assert replace(job(), chat=True).is_chat
    assert replace(job(), history=(Message(role="user", content="Hello."),)).is_chat


def test_a_role_nobody_plays_is_refused() -> None:
    with pytest.raises(ValueError, match="message role is 'tool'; allowed: system, user, assistant"):
        Message(role="tool", content="4")


@pytest.mark.parametrize(("text", "reason"), [(None, None), ("words", "why")])
def test_an_output_has_a_text_or_a_reason_and_never_both(text: str | None, reason: str | None) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Output(key="a", text=text, finish_reason=None, tokens=None, seconds=None, reason=reason)


def test_a_failed_job_keeps_its_key_and_the_errors_words() -> None:
    output = failed(job("k"), GenerationTimeout("no reply in 3 s", fix="wait longer"), seconds=3.0)
    assert (output.key, output.text, output.seconds) == ("k", None, 3.0)
    assert output.reason == "GenerationTimeout: no reply in 3 s; wait longer"


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_says_what_to_do_and_survives_a_trip_to_another_process(
    kind: type[BackendError],
) -> None:
    error = kind("found this")
    assert str(error) == f"found this; {kind.default_fix}"
    assert len(kind.default_fix) > 10
    again = pickle.loads(pickle.dumps(kind("found this", fix="do that")))
    assert (type(again), str(again), again.fix) == (kind, "found this; do that", "do that")


def test_only_faults_that_can_pass_are_worth_another_try() -> None:
    retryable = {kind.__name__ for kind in ERRORS if kind.retryable}
    assert retryable == {"ServerUnreachable", "ServerError", "TruncatedReply", "MalformedReply"}
    assert len(ERRORS) == 11


def test_an_unknown_kind_of_backend_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="unknown backend 'llama'; allowed: local, transformers, ollama, replay"
    ):
        open_backend("llama", "m", home=tmp_path)


def test_ollama_opens_with_its_host_and_time_limit(tmp_path: Path) -> None:
    with OllamaServer() as server:
        backend = open_backend("ollama", "gemma3:4b", home=tmp_path, host=server.url, timeout_seconds=9.0)
        assert backend.identity().name == "gemma3:4b"
    assert isinstance(backend, OllamaBackend)
    assert backend.timeout_seconds == 9.0


@pytest.mark.parametrize("host", ["http://[::1", "http://127.0.0.1:port", "http://a\x00b", "http://-é-.com"])
def test_an_address_that_cannot_be_read_is_refused_on_opening(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServerUnreachable, match=r"cannot be read \(.*\); give it as http://127"):
        open_backend("ollama", "gemma3:4b", home=tmp_path, host=host)
    if "\x00" not in host:
        monkeypatch.setenv("OLLAMA_HOST", host)
        with pytest.raises(ServerUnreachable, match="cannot be read"):
            open_backend("ollama", "gemma3:4b", home=tmp_path)


def test_replay_answers_by_key_and_says_who_spoke(tmp_path: Path) -> None:
    jobs = [job("a", 1), job("b", 2)]
    write_recording(tmp_path / "r.jsonl", IDENTITY, [(j, said(j, f"text of {j.key}\u2028ü")) for j in jobs])
    backend = open_backend("replay", "r.jsonl", home=tmp_path)
    assert backend.identity() == IDENTITY
    assert backend.generate(jobs[::-1]) == [said(j, f"text of {j.key}\u2028ü") for j in jobs[::-1]]


def test_replay_knows_a_job_under_another_key_by_its_content(tmp_path: Path) -> None:
    write_recording(tmp_path / "r.jsonl", IDENTITY, [(job("a"), said(job("a"), "hello"))])
    backend = ReplayBackend(tmp_path / "r.jsonl")
    (output,) = backend.generate([job("renamed")])
    assert (output.key, output.text) == ("renamed", "hello")


def test_replay_tells_repeats_of_a_seed_apart_by_their_keys(tmp_path: Path) -> None:
    jobs = [job("probe-0"), job("probe-1")]
    answers = [(jobs[0], said(jobs[0], "hello")), (jobs[1], said(jobs[1], "hallo"))]
    write_recording(tmp_path / "r.jsonl", IDENTITY, answers)
    outputs = ReplayBackend(tmp_path / "r.jsonl").generate([jobs[1], jobs[0], job("other")])
    assert [output.text for output in outputs] == ["hallo", "hello", "hello"]


@pytest.mark.parametrize(
    "other",
    [
        job("a", seed=2),
        job("x", seed=2),
        job("x", prompt="Say another thing."),
        replace(job("x"), sampling=replace(SAMPLING, temperature=0.8)),
        replace(job("x"), history=(Message(role="user", content="Hello."),)),
    ],
    ids=["seed under the same key", "seed", "prompt", "sampling", "history"],
)
def test_what_was_not_recorded_is_a_reason_and_never_another_text(tmp_path: Path, other: Job) -> None:
    write_recording(tmp_path / "r.jsonl", IDENTITY, [(job("a"), said(job("a"), "hello"))])
    (output,) = ReplayBackend(tmp_path / "r.jsonl").generate([other])
    assert output.text is None
    assert str(output.reason).startswith("NotRecorded: r.jsonl has no output for job")


def test_a_recorded_failure_fails_again_with_its_reason(tmp_path: Path) -> None:
    lost = failed(job("a"), GenerationTimeout("no reply in 3 s"), seconds=3.0)
    write_recording(tmp_path / "r.jsonl", IDENTITY, [(job("a"), lost)])
    assert ReplayBackend(tmp_path / "r.jsonl").generate([job("a")]) == [lost]


def test_a_missing_recording_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"no recording at .*none\.jsonl"):
        open_backend("replay", "none.jsonl", home=tmp_path)


@pytest.mark.parametrize(
    ("number", "line"),
    [(1, ""), (1, '{"model": {"name": "m"}}'), (2, "{half"), (2, "[]"), (2, '{"content": "c", "key": "a"}')],
)
def test_a_line_that_is_not_of_a_recording_is_named(tmp_path: Path, number: int, line: str) -> None:
    path = tmp_path / "r.jsonl"
    write_recording(path, IDENTITY, [(job("a"), said(job("a"), "hello"))])
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(MalformedReply, match=f"line {number} of .* is not a line of a recording"):
        ReplayBackend(path)


def test_a_recording_is_plain_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_recording(path, IDENTITY, [(job("a"), said(job("a"), "hello"))])
    header, line = (json.loads(text) for text in path.read_text(encoding="utf-8").splitlines())
    assert header["model"]["digest"] == IDENTITY.digest
    assert (line["key"], line["text"], line["reason"]) == ("a", "hello", None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.jsonl"]
