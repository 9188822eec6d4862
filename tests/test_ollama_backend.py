"""The Ollama backend against a local server that speaks its protocol, with every fault it names."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

import pytest

from models.backends import (
    Job,
    Message,
    ModelMissing,
    RequestRefused,
    Sampling,
    ServerError,
    ServerUnreachable,
    TruncatedReply,
)
from models.ollama_backend import UNREACHABLE_LIMIT, OllamaBackend
from models.ollama_session import PullProgress
from tests.ollama_server import LADDER, VERSION, Fault, OllamaServer, ServedModel, always, first

SAMPLING = Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=40, think=False)
SMALL = LADDER[0]


def job(key: str = "a", *, seed: int = 7, prompt: str = "Say something.", **more: object) -> Job:
    return replace(Job(key=key, prompt=prompt, seed=seed, sampling=SAMPLING), **more)


def opened(
    server: OllamaServer, *, model: str = "qwen3:0.6b", timeout_seconds: float = 20.0, retries: int = 2
) -> OllamaBackend:
    delays = (0.01, 0.02)[:retries]
    return OllamaBackend(model, host=server.url, timeout_seconds=timeout_seconds, retry_delays_seconds=delays)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_each_job_gets_its_own_output_in_order() -> None:
    jobs = [job("b", seed=2), job("a", seed=1), job("c", seed=3)]
    with OllamaServer() as server:
        outputs = opened(server).generate(jobs)
    assert [output.key for output in outputs] == ["b", "a", "c"]
    assert len({output.text for output in outputs}) == 3
    assert all(output.reason is None and output.finish_reason in ("stop", "length") for output in outputs)
    assert all(output.tokens == len(str(output.text).split()) for output in outputs)


def test_the_same_seed_repeats_its_text_and_another_seed_changes_it() -> None:
    with OllamaServer() as server:
        first_text, again, other = (
            output.text for output in opened(server).generate([job(seed=1), job(seed=1), job(seed=2)])
        )
    assert first_text == again != other


def test_every_sampling_option_reaches_the_server_as_it_was_given() -> None:
    with OllamaServer() as server:
        opened(server).generate([job(seed=11)])
        (body,) = server.generations()
    assert body["options"] == {
        "seed": 11,
        "temperature": 0.7,
        "top_k": 50,
        "top_p": 0.9,
        "repeat_penalty": 1.0,
        "num_ctx": 2048,
        "num_predict": 40,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert (body["model"], body["prompt"], body["stream"], body["think"]) == (
        "qwen3:0.6b",
        "Say something.",
        True,
        False,
    )
    assert body["keep_alive"] == "10m"


def test_seeds_above_the_signed_range_arrive_unsigned_and_distinct() -> None:
    seeds = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2746317213, 2**32 - 2]
    with OllamaServer() as server:
        outputs = opened(server).generate([job(str(seed), seed=seed) for seed in seeds])
        assert [body["options"]["seed"] for body in server.generations()] == seeds
    assert len({output.text for output in outputs}) == len(seeds)


def test_the_one_seed_that_means_any_seed_is_refused_with_a_reason_and_never_sent() -> None:
    with OllamaServer() as server:
        (output,) = opened(server).generate([job(seed=2**32 - 1)])
        assert server.generations() == []
    assert output.text is None
    assert str(output.reason).startswith("RequestRefused: seed 4294967295 was not sent")


def test_identity_carries_digest_size_quantisation_and_version() -> None:
    with OllamaServer() as server:
        identity = opened(server).identity()
    assert identity.name == "qwen3:0.6b"
    assert identity.digest == SMALL.digest
    assert (identity.parameters, identity.quantisation) == (751_632_384, "Q4_K_M")
    assert (identity.server_version, identity.revision) == (VERSION, None)


def test_a_name_without_a_tag_means_latest() -> None:
    with OllamaServer([ServedModel(name="tiny:latest", parameters=1000)]) as server:
        assert opened(server, model="tiny").identity().name == "tiny:latest"


def test_a_model_the_server_does_not_list_is_missing_and_says_what_is_there() -> None:
    with OllamaServer() as server:
        backend = opened(server, model="qwen3:32b")
        with pytest.raises(
            ModelMissing, match=r"no model 'qwen3:32b', only gemma3:4b, .*`ollama pull qwen3:32b`"
        ):
            backend.identity()
        with pytest.raises(ModelMissing) as caught:
            backend.generate([job()])
        assert server.generations() == []
    assert not caught.value.retryable


def test_a_model_removed_during_a_batch_is_a_reason_on_its_jobs() -> None:
    gone = Fault(kind="status", status=404, message="model 'qwen3:0.6b' not found")
    with OllamaServer(faults=first(None, gone)) as server:
        outputs = opened(server).generate([job("a"), job("b"), job("c")])
    assert [output.text is None for output in outputs] == [False, True, False]
    assert str(outputs[1].reason).startswith("ModelMissing: ")


def test_a_closed_port_is_unreachable_and_worth_another_try() -> None:
    backend = OllamaBackend("qwen3:0.6b", host=f"http://127.0.0.1:{closed_port()}")
    for call in (backend.identity, lambda: backend.generate([job()]), backend.pull, backend.unload):
        with pytest.raises(ServerUnreachable, match="ollama serve") as caught:
            call()
        assert caught.value.retryable


def test_an_empty_batch_asks_nobody() -> None:
    assert OllamaBackend("qwen3:0.6b", host=f"http://127.0.0.1:{closed_port()}").generate([]) == []


def test_a_server_that_dies_during_a_batch_leaves_a_reason_on_every_job_left() -> None:
    jobs = [job(str(i), seed=i) for i in range(UNREACHABLE_LIMIT + 4)]
    with OllamaServer() as server:
        backend = opened(server)
        server.faults = lambda number: server.refuse_from_now_on() if number == 1 else None
        outputs = backend.generate(jobs)
    assert [output.key for output in outputs] == [job.key for job in jobs]
    assert outputs[0].text is not None
    kinds = [str(output.reason).partition(":")[0] for output in outputs[1:]]
    assert set(kinds) == {"ServerUnreachable"}
    assert ["not tried" in str(output.reason) for output in outputs] == [False] * 4 + [True] * 3


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        (Fault(kind="status", status=400, message="invalid option"), 1, "RequestRefused: "),
        (Fault(kind="status", status=500), 3, "ServerError: "),
        (Fault(kind="status", status=503, message="server busy"), 3, "ServerError: "),
        (Fault(kind="status", status=429, message="too many"), 3, "ServerError: "),
        (Fault(kind="disconnect"), 3, "TruncatedReply: "),
        (Fault(kind="truncate"), 3, "TruncatedReply: "),
        (Fault(kind="unfinished"), 3, "TruncatedReply: "),
        (Fault(kind="malformed"), 3, "MalformedReply: "),
        (Fault(kind="not_an_object"), 3, "MalformedReply: "),
        (Fault(kind="error_line"), 3, "ServerError: "),
        (Fault(kind="empty"), 1, "EmptyReply: "),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
@pytest.mark.parametrize("chat", [False, True], ids=["generate", "chat"])
def test_a_lasting_fault_ends_as_a_named_reason_after_the_tries_that_can_help(
    fault: Fault, tries: int, reason: str, chat: bool
) -> None:
    with OllamaServer(faults=always(fault)) as server:
        (output,) = opened(server).generate([job(chat=chat)])
        assert len(server.generations()) == tries
    assert output.text is None
    assert str(output.reason).startswith(reason)
    assert "; " in str(output.reason)


@pytest.mark.parametrize(
    "kind", ["status", "disconnect", "truncate", "unfinished", "malformed", "error_line"]
)
def test_a_fault_that_passes_is_retried_with_the_same_request(kind: str) -> None:
    with OllamaServer(faults=first(Fault(kind=kind))) as server:
        (output,) = opened(server).generate([job(seed=5)])
        refused, taken = server.generations()
    with OllamaServer() as calm:
        (expected,) = opened(calm).generate([job(seed=5)])
    assert output.text == expected.text is not None
    assert refused == taken


@pytest.mark.parametrize("kind", ["hang", "hang_mid", "dribble"])
def test_silence_and_endless_words_both_end_at_the_time_limit_and_are_not_retried(kind: str) -> None:
    with OllamaServer(faults=first(Fault(kind=kind))) as server:
        outputs = opened(server, timeout_seconds=0.4).generate([job("a"), job("b")])
        assert len(server.generations()) == 2
    assert str(outputs[0].reason).startswith(
        "GenerationTimeout: no complete reply of 'qwen3:0.6b' within 0.4 s"
    )
    assert outputs[0].seconds is not None
    assert outputs[0].seconds >= 0.4
    assert outputs[1].text is not None


def test_a_slow_reply_within_the_limit_is_whole() -> None:
    with OllamaServer(faults=always(Fault(kind="slow", seconds=0.02))) as server:
        (slow,) = opened(server).generate([job()])
    with OllamaServer() as server:
        (quick,) = opened(server).generate([job()])
    assert slow.text == quick.text is not None


def test_no_retry_when_none_is_wanted() -> None:
    with OllamaServer(faults=first(Fault(kind="status"))) as server:
        (output,) = opened(server, retries=0).generate([job()])
    assert str(output.reason).startswith("ServerError: ")


def test_text_in_any_script_comes_back_as_it_was_sent() -> None:
    text = "Grüße, 東京, Привет, 🌧️, “quoted”\nline\ttab \u2028 end"
    with OllamaServer(faults=always(Fault(kind="text", message=text))) as server:
        (output,) = opened(server).generate([job(prompt="naïve 問い 🙂")])
        assert server.generations()[0]["prompt"] == "naïve 問い 🙂"
    assert output.text == text


def test_a_conversation_goes_through_chat_with_its_history() -> None:
    history = (Message(role="user", content="Hello."), Message(role="assistant", content="Good day."))
    with OllamaServer() as server:
        (output,) = opened(server).generate([job(history=history, prompt="And now?")])
        path, body = server.requests[-1]
    assert path == "/api/chat"
    assert body["messages"] == [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And now?"},
    ]
    assert body["options"]["seed"] == 7
    assert output.text is not None


def test_the_first_turn_of_a_conversation_goes_through_chat_too() -> None:
    with OllamaServer() as server:
        opened(server).generate([job(chat=True)])
        assert server.requests[-1][0] == "/api/chat"


@pytest.mark.parametrize("chat", [False, True], ids=["generate", "chat"])
@pytest.mark.parametrize("inline", [False, True], ids=["field", "inline"])
def test_thinking_is_kept_in_think_marks_at_the_head_of_the_text(chat: bool, inline: bool) -> None:
    model = ServedModel(name="thinker:latest", parameters=1000, thinking=not inline, inline_thinking=inline)
    think = None if inline else True
    with OllamaServer([model]) as server:
        (output,) = opened(server, model="thinker").generate(
            [job(chat=chat, sampling=replace(SAMPLING, think=think))]
        )
    text = str(output.text)
    thought, closed, answer = text.removeprefix("<think>").partition("</think>")
    assert text.startswith("<think>")
    assert closed
    assert thought.strip()
    assert answer.strip()


def test_a_reply_cut_while_thinking_keeps_its_think_mark_open() -> None:
    sampling = replace(SAMPLING, think=True, max_new_tokens=3)
    with OllamaServer() as server:
        (output,) = opened(server).generate([job(sampling=sampling)])
    assert str(output.text).startswith("<think>")
    assert "</think>" not in str(output.text)
    assert output.finish_reason == "length"


def test_thinking_in_a_history_goes_back_in_its_own_field() -> None:
    history = (
        Message(role="user", content="2 + 2?"),
        Message(role="assistant", content="<think>add</think>4"),
    )
    with OllamaServer() as server:
        opened(server).generate([job(history=history)])
        sent = server.generations()[0]["messages"][1]
    assert sent == {"role": "assistant", "content": "4", "thinking": "add"}


def test_thinking_asked_of_a_model_that_cannot_is_refused_with_a_reason() -> None:
    sampling = replace(SAMPLING, think=True)
    with OllamaServer() as server:
        (output,) = opened(server, model="llama3.2:3b").generate([job(sampling=sampling)])
    assert str(output.reason).startswith("RequestRefused: ")
    assert "does not support thinking" in str(output.reason)


def test_a_pull_reports_progress_and_the_model_is_there_after_it() -> None:
    reports: list[PullProgress] = []
    with OllamaServer([], pullable=[SMALL]) as server:
        backend = opened(server)
        with pytest.raises(ModelMissing, match="only none at all"):
            backend.identity()
        backend.pull(reports.append)
        assert backend.identity().digest == SMALL.digest
    assert [report.completed_bytes for report in reports if report.total_bytes == 1000] == [0, 400, 1000]
    assert reports[-1].status == "success"


def test_a_pull_of_a_model_nobody_has_is_missing() -> None:
    with OllamaServer() as server, pytest.raises(ModelMissing, match="file does not exist"):
        opened(server, model="nobody/has-it:1b").pull()


def test_an_error_of_the_progress_function_is_not_taken_for_the_servers() -> None:
    def broken(_report: PullProgress) -> None:
        raise ValueError("mine")

    with OllamaServer([], pullable=[SMALL]) as server, pytest.raises(ValueError, match="mine"):
        opened(server).pull(broken)


def test_unload_asks_for_a_stay_of_zero_seconds() -> None:
    with OllamaServer() as server:
        opened(server).unload()
        (body,) = server.generations()
    assert body["keep_alive"] == 0
    assert not body.get("prompt")


def test_a_server_that_is_not_ollama_says_so() -> None:
    with OllamaServer() as server, pytest.raises(RequestRefused, match="404 page not found"):
        OllamaBackend("qwen3:0.6b", host=f"{server.url}/elsewhere").identity()


def test_an_address_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match=r"server address 'http://127.0.0.1:port'.*give it as"):
        OllamaBackend("qwen3:0.6b", host="http://127.0.0.1:port").identity()


def test_without_a_host_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaServer() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        assert OllamaBackend("qwen3:0.6b").identity().digest == SMALL.digest


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with OllamaServer() as server:
        assert opened(server).identity().digest == SMALL.digest


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": " "}, "model name is blank"),
        ({"timeout_seconds": 0.0}, "timeout_seconds is 0"),
        ({"retry_delays_seconds": (1.0, -1.0)}, "retry_delays_seconds is"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OllamaBackend(**{"model": "qwen3:0.6b", **wrong})


def test_errors_say_whether_another_try_can_help() -> None:
    retryable: Sequence[type] = (ServerUnreachable, ServerError, TruncatedReply)
    assert all(kind.retryable for kind in retryable)
    assert not any(kind.retryable for kind in (ModelMissing, RequestRefused))
