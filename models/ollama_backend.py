"""Text from an Ollama server, through the official client: one generation at a time, streamed.

Who is gone when. `identity`, `pull` and the look at the model list that opens every `generate` raise
`ServerUnreachable` or `ModelMissing`: nothing has been generated yet, so the caller can repeat the batch
and loses nothing. Once a batch runs nothing is raised: after UNREACHABLE_LIMIT jobs in a row without a
server the rest of the batch is not tried, and each of its jobs gets that as its reason.

Seeds. Ollama reads `options.seed` as a JSON number into a 64-bit Go `int`, so 0 .. 2**32 - 1 arrive
unchanged and distinct; negative values mean "draw one" and are never sent. Its own engine seeds a PCG with
all 64 bits. Its llama.cpp engine narrows to `uint32`, which keeps every 32-bit value too, but takes 2**32 -
1 as its marker for "draw one": that single seed would not repeat, and any stand-in for it would collide, so
such a job is refused with a reason. (Read in Ollama's api/types.go, sample/samplers.go and llama/llama.go.)

Thinking. A reply's thinking comes in a field of its own, or as `<think>` text from models whose template
Ollama does not parse. Both end as `<think>...</think>` at the head of `Output.text`, so both versions can
be made from it. A reply that met its length limit while thinking keeps its `<think>` open. In a history the
same text is taken apart again and returns in the field it came from, where the model's template decides
what to show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from models.backends import Job, ModelIdentity, Output, ServerUnreachable, failed
from models.ollama_session import PullProgress, Session

UNREACHABLE_LIMIT = 3
"""Jobs in a row without a server after which the rest of a batch is not tried."""


class OllamaBackend:
    """A model on an Ollama server.

    Connections live inside one call, so the object holds nothing open.

    Parameters
    ----------
    model
        Name as `ollama list` shows it; without a tag, `:latest` is meant.
    host
        Address of the server; None reads OLLAMA_HOST, then takes 127.0.0.1:11434.
    timeout_seconds
        Limit on one generation from request to last byte, and on every other silence of the server.
    retry_delays_seconds
        Pause before each further try of a job whose fault can go better; its length is the number of retries.
    keep_alive
        How long the server keeps the model loaded after a request, such as `10m`.
    """

    def __init__(
        self,
        model: str,
        *,
        host: str | None = None,
        timeout_seconds: float = 180.0,
        retry_delays_seconds: Sequence[float] = (1.0, 4.0),
        keep_alive: str | float = "10m",
    ) -> None:
        if not model.strip():
            raise ValueError("model name is blank; give a name such as 'qwen3:0.6b'")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}; allowed: above 0")
        if any(delay < 0 for delay in retry_delays_seconds):
            raise ValueError(f"retry_delays_seconds is {tuple(retry_delays_seconds)}; allowed: 0 or more")
        self.model = model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"
        self.host = host
        self.timeout_seconds = timeout_seconds
        self.retry_delays_seconds = tuple(retry_delays_seconds)
        self.keep_alive = keep_alive

    def identity(self) -> ModelIdentity:
        """Digest, size and quantisation as the server knows them, and the server's version.

        The digest covers the weights and the model's own settings (template, stop words, defaults).

        Raises
        ------
        BackendError
            `ServerUnreachable`, `ModelMissing`, or what the server answered instead.
        """
        with self._session() as session:
            listed = session.listed()
            shown = session.ask(lambda: session.client.show(self.model))
            version = session.version()
        details = shown.details
        count = (shown.modelinfo or {}).get("general.parameter_count")
        size = details.parameter_size if details else None
        return ModelIdentity(
            name=self.model,
            digest=str(listed.digest),
            parameters=int(count) if count else parameter_count(size),
            quantisation=details.quantization_level if details else None,
            revision=None,
            server_version=version,
        )

    def generate(self, jobs: Sequence[Job]) -> list[Output]:
        """Generate one job after the other.

        Raises
        ------
        BackendError
            When the server or the model is not there before the first job; see the module's text.
        """
        outputs: list[Output] = []
        if not jobs:
            return outputs
        with self._session() as session:
            session.listed()
            gone = 0
            for job in jobs:
                if gone >= UNREACHABLE_LIMIT:
                    found = f"not tried: the {gone} jobs before it found no server at {session.address}"
                    outputs.append(failed(job, ServerUnreachable(found), seconds=None))
                    continue
                output, error = session.run(job)
                gone = gone + 1 if isinstance(error, ServerUnreachable) else 0
                outputs.append(output)
        return outputs

    def pull(self, progress: Callable[[PullProgress], None] | None = None) -> None:
        """Download the model to the server; `progress` is called with every report.

        Raises
        ------
        BackendError
            `ModelMissing` when the registry has no such model; else what went wrong.
        """
        with self._session() as session:
            session.pull(progress)

    def unload(self) -> None:
        """Have the server drop the model from memory, so that the next generation starts cold."""
        with self._session() as session:
            session.ask(lambda: session.client.generate(self.model, keep_alive=0))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            session = Session(
                self.model,
                host=self.host,
                timeout_seconds=self.timeout_seconds,
                retry_delays_seconds=self.retry_delays_seconds,
                keep_alive=self.keep_alive,
            )
        except ValueError as error:
            raise ValueError(
                f"server address {self.host!r} cannot be read ({error}); give it as http://127.0.0.1:11434"
            ) from error
        with closing(session.client):
            yield session


def parameter_count(size: str | None) -> int | None:
    """The number of weights from a server's short form; None where it says nothing.

    >>> parameter_count("751.63M"), parameter_count("4.0B"), parameter_count(None)
    (751630000, 4000000000, None)
    """
    units: Mapping[str, float] = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    if not size or size[-1].upper() not in units:
        return None
    try:
        return round(float(size[:-1]) * units[size[-1].upper()])
    except ValueError:
        return None
