"""One call's conversation with an Ollama server: requests, deadlines, and names for faults.

The official client lets through its own errors, those of httpx, and whatever its parsing raises on a line
that is not what the protocol promises. `Session.named` turns each into one `BackendError`. A total deadline
needs a hand on the socket: a read timeout starts anew with every byte, so a server that dribbles would
never time out.

A limit of the client: its line reader also splits at U+0085, which Ollama does not escape inside a reply,
so a text with that control character ends as a `MalformedReply`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from socket import SHUT_RDWR
from typing import Any, TypeVar

import httpx
import ollama

from models.backends import (
    SEED_LIMIT,
    BackendError,
    EmptyReply,
    GenerationTimeout,
    Job,
    MalformedReply,
    Message,
    ModelMissing,
    Output,
    RequestRefused,
    Sampling,
    ServerError,
    ServerUnreachable,
    TruncatedReply,
    failed,
)

CONNECT_SECONDS = 5.0
"""Limit on opening a connection; a server that is there accepts in milliseconds."""

UNREPEATABLE_SEED = SEED_LIMIT - 1
"""llama.cpp's marker for "draw a seed"."""

NEUTRAL = {"min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Options a model's own settings may switch on; sent at the value that changes nothing."""

LOCAL_ADDRESSES = ("localhost", "127.0.0.1", "[::1]")
"""Never asked through a proxy."""

WIRE_FAULTS = (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError, AttributeError, TypeError)
"""What the client lets through; the last three come from its parsing of a line that is no JSON object."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PullProgress:
    """One report of a running pull."""

    status: str
    completed_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class _Reply:
    text: str
    finish_reason: str | None
    tokens: int | None


class Session:
    """One client, for the length of one call of the backend; its owner closes `client`."""

    def __init__(
        self,
        model: str,
        *,
        host: str | None,
        timeout_seconds: float,
        retry_delays_seconds: Sequence[float],
        keep_alive: str | float,
    ) -> None:
        self.model = model
        self.timeout_seconds = timeout_seconds
        self.retry_delays_seconds = retry_delays_seconds
        self.keep_alive = keep_alive
        self._deadline: _Deadline | None = None
        self.client = ollama.Client(
            host,
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
            event_hooks={"response": [self._answered]},
            mounts={f"all://{address}": None for address in LOCAL_ADDRESSES},
        )
        self.address = str(self.client._client.base_url).rstrip("/")

    def _answered(self, response: httpx.Response) -> None:
        if self._deadline is not None:
            self._deadline.watch(response)

    def listed(self) -> ollama.ListResponse.Model:
        """The server's entry for the model."""
        models = self.ask(self.client.list).models
        names = [str(entry.model) for entry in models]
        for entry in models:
            if str(entry.model).lower() == self.model.lower():
                if not entry.digest:
                    raise MalformedReply(
                        f"the server at {self.address} lists {self.model!r} without a digest"
                    )
                return entry
        raise ModelMissing(
            f"the server at {self.address} has no model {self.model!r}, only "
            f"{', '.join(sorted(names)) or 'none at all'}",
            fix=f"run `ollama pull {self.model}` or name one of these",
        )

    def version(self) -> str | None:
        """The server's version; the client has no method for it, so its connection is asked."""
        path = "/api/version"
        found = self.ask(lambda: self.client._client.get(path).raise_for_status().json().get("version"))
        return None if found is None else str(found)

    def ask(self, call: Callable[[], T]) -> T:
        """What `call` returns; its fault as a named error, silence as a server that is not there."""
        try:
            return call()
        except WIRE_FAULTS as error:
            named = self.named(error)
            if isinstance(named, GenerationTimeout):
                named = ServerUnreachable(
                    f"the server at {self.address} was silent for {self.timeout_seconds:g} s"
                )
            raise named from error

    def pull(self, progress: Callable[[PullProgress], None] | None) -> None:
        """Follow a pull to its end."""
        status = None
        reports: Any = self.ask(lambda: self.client.pull(self.model, stream=True))
        with closing(reports):
            while (report := self.ask(lambda: next(reports, None))) is not None:
                status = str(report.status)
                if progress is not None:
                    progress(
                        PullProgress(
                            status=status, completed_bytes=report.completed, total_bytes=report.total
                        )
                    )
        if status != "success":
            raise TruncatedReply(f"the pull of {self.model!r} ended at {status!r}, not at 'success'")

    def run(self, job: Job) -> tuple[Output, BackendError | None]:
        """Try a job, again where that can help; the error is the last try's."""
        delays = iter(self.retry_delays_seconds)
        while True:
            started = time.perf_counter()
            try:
                reply = self._reply(job)
            except BackendError as error:
                seconds = time.perf_counter() - started
                delay = next(delays, None) if error.retryable else None
                if delay is None:
                    return failed(job, error, seconds=seconds), error
                time.sleep(delay)
                continue
            return Output(
                key=job.key,
                text=reply.text,
                finish_reason=reply.finish_reason,
                tokens=reply.tokens,
                seconds=time.perf_counter() - started,
                reason=None,
            ), None

    def _reply(self, job: Job) -> _Reply:
        if job.seed == UNREPEATABLE_SEED:
            raise RequestRefused(
                f"seed {job.seed} was not sent: the server's llama.cpp engine takes it for 'draw any seed'",
                fix="draw another seed for this sample",
            )
        with _Deadline(self.timeout_seconds) as deadline:
            self._deadline = deadline
            try:
                reply = _collect(self._stream(job))
            except (BackendError, *WIRE_FAULTS) as error:
                raise (self._timeout() if deadline.passed else self.named(error)) from error
            finally:
                self._deadline = None
        return reply

    def _stream(self, job: Job) -> Any:
        think = job.sampling.think
        options = {**server_options(job.sampling), "seed": job.seed}
        if not job.is_chat:
            return self.client.generate(
                self.model, job.prompt, stream=True, think=think, options=options, keep_alive=self.keep_alive
            )
        messages = [wire_message(m) for m in (*job.history, Message(role="user", content=job.prompt))]
        return self.client.chat(
            self.model, messages, stream=True, think=think, options=options, keep_alive=self.keep_alive
        )

    def _timeout(self) -> GenerationTimeout:
        return GenerationTimeout(f"no complete reply of {self.model!r} within {self.timeout_seconds:g} s")

    def named(self, error: Exception) -> BackendError:
        """The one named error for whatever the client let through."""
        if isinstance(error, BackendError):
            return error
        where = f"the server at {self.address}"
        if isinstance(error, ConnectionError | httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnreachable(f"no connection to {where}")
        if isinstance(error, httpx.TimeoutException):
            return self._timeout()
        if isinstance(error, ollama.ResponseError):
            return self._answer(error.status_code, str(error.error))
        if isinstance(error, httpx.HTTPStatusError):
            return self._answer(error.response.status_code, error.response.text)
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return TruncatedReply(f"{where} closed the connection before the reply was complete ({error})")
        return MalformedReply(f"{where} sent something that is not its protocol ({_short(str(error))})")

    def _answer(self, status: int, message: str) -> BackendError:
        """The error for an HTTP status, or for an error line inside a reply (status -1)."""
        found = f"the server at {self.address} answered {_short(message)!r}"
        missing = status == 404 and "model" in message
        if missing or (status == -1 and "file does not exist" in message):
            return ModelMissing(found, fix=f"run `ollama pull {self.model}`, or check the name")
        if status == -1:
            return ServerError(f"{found} in the middle of its reply")
        found = f"{found} with HTTP status {status}"
        if status == 429 or status >= 500:
            return ServerError(found)
        return RequestRefused(found)


class _Deadline:
    """Cuts the connection when time is up: a read timeout alone starts anew with every byte that arrives."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._response: httpx.Response | None = None
        self._timer = threading.Timer(seconds, self._expire)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def watch(self, response: httpx.Response) -> None:
        """Cut this response's connection at the deadline, or now if it has passed."""
        with self._lock:
            self._response = response
        if self.passed:
            self._expire()

    def _expire(self) -> None:
        self.passed = True
        with self._lock:
            response = self._response
        if response is None:
            return
        socket = response.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):  # closed already
            socket.shutdown(SHUT_RDWR)


def _collect(parts: Any) -> _Reply:
    """Join a streamed reply, of generate or of chat, and check that it is whole."""
    thinking: list[str] = []
    content: list[str] = []
    last = None
    with closing(parts):  # a generator: left unfinished, it would keep its connection
        for last in parts:
            source = last.message if hasattr(last, "message") else last
            thinking.append(source.thinking or "")
            content.append((source.content if hasattr(last, "message") else source.response) or "")
    thought, answer = "".join(thinking), "".join(content)
    if last is None or not last.done:
        raise TruncatedReply(f"the reply ended after {len(answer)} characters without its closing record")
    if not (thought + answer).strip():
        raise EmptyReply(f"the reply has no text after {last.eval_count or 0} tokens")
    text = joined(thought, answer, cut=last.done_reason == "length")
    return _Reply(text=text, finish_reason=last.done_reason, tokens=last.eval_count)


def joined(thinking: str, answer: str, *, cut: bool) -> str:
    """One text of a reply's thinking and its answer; `cut` says that the length limit ended the reply.

    >>> joined("two and two", "4", cut=False), joined("", "4", cut=True), joined("two and", "", cut=True)
    ('<think>two and two</think>4', '4', '<think>two and')
    """
    if not thinking:
        return answer
    return f"<think>{thinking}" if cut and not answer else f"<think>{thinking}</think>{answer}"


def wire_message(message: Message) -> dict[str, str]:
    """A message as the server takes it, with an assistant's leading thinking in its own field.

    >>> wire_message(Message(role="assistant", content="<think>two and two</think>4"))
    {'role': 'assistant', 'content': '4', 'thinking': 'two and two'}
    """
    head, closed, rest = message.content.partition("</think>")
    if message.role == "assistant" and closed and head.startswith("<think>"):
        return {"role": message.role, "content": rest, "thinking": head.removeprefix("<think>")}
    return {"role": message.role, "content": message.content}


def server_options(sampling: Sampling) -> dict[str, float]:
    """The server's names for the sampling options, the seed left out."""
    return {
        **NEUTRAL,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repeat_penalty,
        "num_ctx": sampling.num_ctx,
        "num_predict": sampling.max_new_tokens,
    }


def _short(message: str, limit: int = 200) -> str:
    line = " ".join(message.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
