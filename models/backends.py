"""What a study asks of anything that writes text: jobs in, outputs out, one `Backend` Protocol.

The types hold plain data and import neither torch nor a client library, so flows can use them as
configuration. Faults come in two kinds. One that concerns a single job ends as an `Output` without text and
with a reason, so that no planned sample is ever lost. One that concerns the whole batch (no server, no such
model) is raised as a `BackendError`, whose `retryable` says whether the same call can go better later.
"""

# ruff: noqa: N818 -- an error's name is what a row's reason opens with: it says the fault, without a suffix

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

KINDS = ("local", "transformers", "ollama", "replay")
"""Backends that `models.opening.open_backend` knows."""

ROLES = ("system", "user", "assistant")

SEED_LIMIT = 2**32
"""Seeds are 0 .. SEED_LIMIT - 1: what reaches a sampler is 32 bits wide."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One earlier turn of a conversation."""

    role: str
    """One of ROLES."""
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"message role is {self.role!r}; allowed: {', '.join(ROLES)}")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Every option that shapes the next-token distribution, none left to a server's default.

    >>> Sampling(temperature=0.7, top_k=50, top_p=0.9, max_new_tokens=150).num_ctx
    2048
    >>> Sampling(temperature=-1.0, top_k=50, top_p=0.9, max_new_tokens=150)
    Traceback (most recent call last):
    ValueError: temperature is -1.0; allowed: 0 (always the likeliest token) to 10
    """

    temperature: float
    """0 takes the likeliest token; 1 leaves the model's distribution as it is."""
    top_k: int
    """Tokens kept, likeliest first; 0 keeps all."""
    top_p: float
    """Probability mass kept, in (0, 1]; 1 keeps all."""
    max_new_tokens: int
    repeat_penalty: float = 1.0
    """Divisor for logits of tokens seen before; 1 changes nothing."""
    num_ctx: int = 2048
    """Context window in tokens, prompt and reply together."""
    think: bool | None = None
    """Whether a thinking model thinks first (`ollama` only); None leaves it to the model."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 10):
            raise ValueError(
                f"temperature is {self.temperature}; allowed: 0 (always the likeliest token) to 10"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; allowed: 0 (keep all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; allowed: above 0, up to 1 (keep all tokens)")
        if not (math.isfinite(self.repeat_penalty) and self.repeat_penalty > 0):
            raise ValueError(f"repeat_penalty is {self.repeat_penalty}; allowed: above 0 (1 changes nothing)")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; allowed: 1 or more")
        if self.num_ctx <= self.max_new_tokens:
            raise ValueError(
                f"num_ctx is {self.num_ctx} with max_new_tokens {self.max_new_tokens}; the window must "
                "exceed the reply, or no token is left for the prompt: raise num_ctx or lower max_new_tokens"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One text to generate."""

    key: str
    """The caller's name for the sample; comes back on its `Output`."""
    prompt: str
    """The text to answer; in a conversation, the current user turn."""
    seed: int
    """0 .. 2**32 - 1."""
    sampling: Sampling
    history: tuple[Message, ...] = ()
    """Earlier turns, oldest first; any history makes the job a chat turn."""
    chat: bool = False
    """Ask through the chat interface even without history, as the first turn of a conversation does."""

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("job key is empty; give the sample's id")
        if not self.prompt.strip():
            raise ValueError(f"prompt of job {self.key!r} is blank; give a text to answer")
        if not 0 <= self.seed < SEED_LIMIT:
            raise ValueError(f"seed of job {self.key!r} is {self.seed}; allowed: 0 to {SEED_LIMIT - 1}")

    @property
    def is_chat(self) -> bool:
        """Whether the job is a turn of a conversation."""
        return self.chat or bool(self.history)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What came of one job: a text, or the reason why there is none."""

    key: str
    """The job's key."""
    text: str | None
    """As generated, `<think>...</think>` included; None when it failed."""
    finish_reason: str | None
    """`stop` (the model ended) or `length` (the token limit did)."""
    tokens: int | None
    """New tokens, where the backend counts them."""
    seconds: float | None
    """Wall time of this job; in a batch, the batch's time divided by its rows."""
    reason: str | None
    """Why `text` is None: the error's name, a colon, what was found and what to do."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.reason is None):
            raise ValueError(
                f"output {self.key!r} has {'neither' if self.text is None else 'both'} text and reason; "
                "give exactly one of them"
            )


def failed(job: Job, error: BackendError, *, seconds: float | None) -> Output:
    """The output of a job that ended in `error`; `seconds` is the time it took to fail."""
    return Output(
        key=job.key, text=None, finish_reason=None, tokens=None, seconds=seconds, reason=error.reason
    )


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model answered: a name is not an identity, the digest is."""

    name: str
    digest: str
    """SHA-256 of weights and settings, as the backend reports it."""
    parameters: int | None
    """Number of weights; None when the backend does not say."""
    quantisation: str | None
    """Such as `Q4_K_M`; None for unquantised weights."""
    revision: str | None
    """Commit on a model hub."""
    server_version: str | None
    """Version of the server that runs the model; None without a server."""


class Backend(Protocol):
    """Anything that writes text."""

    def identity(self) -> ModelIdentity:
        """Which model this is.

        Raises
        ------
        BackendError
            When the model or its server is not there.
        """
        ...

    def generate(self, jobs: Sequence[Job]) -> list[Output]:
        """One output for each job, in the order of the jobs.

        Raises
        ------
        BackendError
            Only for a fault of the whole batch; a job's own fault is an output with a reason.
        """
        ...


class BackendError(Exception):
    """A known failure of a backend; its text says what was found and what to do.

    Parameters
    ----------
    found
        What happened, with the numbers and names involved.
    fix
        What to do about it; the class has a default.

    >>> error = ModelMissing("the server at http://127.0.0.1:11434 has no model 'qwen3:8b'")
    >>> error.retryable, error.reason.split(":")[0]
    (False, 'ModelMissing')
    """

    retryable: ClassVar[bool] = False
    """Whether the same call can go better later."""
    default_fix: ClassVar[str] = "see the cause above"

    fix: str
    """What to do, in words for a person."""

    def __init__(self, found: str, *, fix: str | None = None) -> None:
        super().__init__(found)
        self.fix = self.default_fix if fix is None else fix

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.fix}"

    @property
    def reason(self) -> str:
        """The text that a row without a result carries: error name, what was found, what to do."""
        return f"{type(self).__name__}: {self}"


class ServerUnreachable(BackendError):
    """No connection to the server."""

    retryable = True
    default_fix = "start the server (`ollama serve`) or give the right address in OLLAMA_HOST"


class ModelMissing(BackendError):
    """The server runs, or the directory is readable, and the model is not there."""

    default_fix = "pull or train the model first, or name one that is there"


class ServerError(BackendError):
    """The server answered with HTTP 5xx, or with an error in the middle of its reply."""

    retryable = True
    default_fix = "read the server's log; often the model does not fit in memory beside another one"


class RequestRefused(BackendError):
    """The server answered with HTTP 4xx, or would misread the request: it fares no better the next time."""

    default_fix = "change the request; the message names what the server does not take"


class GenerationTimeout(BackendError):
    """No complete reply in time. Not retried: a sample that ran out of time is censored, and counted so."""

    default_fix = "raise timeout_seconds, lower max_new_tokens or take a smaller model"


class TruncatedReply(BackendError):
    """The connection ended before the reply did."""

    retryable = True
    default_fix = "ask again; if it returns, look for a restart in the server's log or a proxy in between"


class EmptyReply(BackendError):
    """A complete reply without text. Not retried: the same seed gives it again, and another would select."""

    default_fix = (
        "check the prompt and the model's chat template; a thinking model may need more max_new_tokens"
    )


class MalformedReply(BackendError):
    """A reply that is not what the interface promises."""

    retryable = True
    default_fix = "check that the address is the model server's own, of a version that this client knows"


class NonFiniteLogits(BackendError):
    """The network put out NaN or infinity."""

    default_fix = "run the model in float32 and check its weights"


class NotRecorded(BackendError):
    """A recording has no output for a job."""

    default_fix = "replay with the prompts, seeds and sampling options of the recording"


def is_transient(reason: str) -> bool:
    """Whether a row's reason names an error that the same call may not meet again.

    >>> is_transient("ServerError: HTTP 500; ..."), is_transient("EmptyReply: no text; ...")
    (True, False)
    """
    name = reason.partition(":")[0]
    return any(kind.retryable for kind in BackendError.__subclasses__() if kind.__name__ == name)
