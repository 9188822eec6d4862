"""A local server that speaks Ollama's HTTP protocol, faults included, for tests and for dry runs.

It writes word salad, some hundred generations a second, and always streams. A text is a function of model,
prompt, history, seed and temperature: `random.Random` draws made-up words with weights rank ** (-a /
temperature), so the same request repeats its text and a hotter arm is more diverse.

    with OllamaServer() as server:
        OllamaBackend("qwen3:0.6b", host=server.url)

`python -m tests.ollama_server --port 11435` serves until it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VERSION = "0.40.12"
CREATED = "2026-11-01T12:00:00Z"
VOCABULARY_SIZE = 600
WORDS_PER_CHUNK = 4
ZIPF_EXPONENT = 0.6
"""a; at temperature 0.7 two words in three of a text of 100 are new ones."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model of the server's list."""

    name: str
    parameters: int
    thinking: bool = False
    """Whether it has the `thinking` capability, and so thinks unless told not to."""
    inline_thinking: bool = False
    """Whether its thinking arrives as `<think>` text, as from a template that the server does not parse."""

    @property
    def digest(self) -> str:
        """64 hex digits, stable for a name."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    def details(self) -> dict[str, object]:
        """The `details` object of the list and of show."""
        family = self.name.split(":")[0]
        size = f"{self.parameters / 1e9:.1f}B" if self.parameters >= 1e9 else f"{self.parameters / 1e6:.2f}M"
        return {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": size,
            "quantization_level": "Q4_K_M",
        }


LADDER = (
    ServedModel(name="qwen3:0.6b", parameters=751_632_384, thinking=True),
    ServedModel(name="qwen3:1.7b", parameters=2_031_739_904, thinking=True),
    ServedModel(name="llama3.2:3b", parameters=3_212_749_888),
    ServedModel(name="gemma3:4b", parameters=4_299_915_632),
    ServedModel(name="qwen3:4b", parameters=4_022_468_096, thinking=True),
    ServedModel(name="qwen3:8b", parameters=8_190_735_360, thinking=True),
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one generation.

    Kinds: `status` (an HTTP status and message), `disconnect` (closed without an answer), `hang` (silence
    before the first byte), `hang_mid` (silence after the first words), `dribble` (words without end, one each
    `seconds`), `truncate` (connection cut in the middle), `unfinished` (a proper end without `done`),
    `malformed` (a line that is not JSON), `not_an_object` (a line of other JSON), `error_line` (an error as a
    line of the stream), `empty` (done without text), `slow` (whole, `seconds` before each line), `text` (the
    reply is `message`).
    """

    kind: str
    status: int = 500
    message: str = "llama runner process has terminated"
    seconds: float = 0.05


FaultPlan = Callable[[int], "Fault | None"]
"""From the number of a generation request, from 0, to its fault."""


def first(*faults: Fault | None) -> FaultPlan:
    """These faults for the first requests, one each; none after that."""
    return lambda number: faults[number] if number < len(faults) else None


def always(fault: Fault | None) -> FaultPlan:
    """The same for every request."""
    return lambda _number: fault


class OllamaServer:
    """The server, on a free port of this machine; it answers inside `with`.

    Parameters
    ----------
    models
        What the server lists.
    pullable
        What a pull can add to the list.
    faults
        Which generation goes wrong, and how.
    """

    def __init__(
        self,
        models: Iterable[ServedModel] = LADDER,
        *,
        pullable: Iterable[ServedModel] = (),
        faults: FaultPlan = always(None),  # noqa: B008 -- a constant function
        port: int = 0,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.pullable = {model.name: model for model in pullable}
        self.faults = faults
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Path and body of every POST, in order of arrival."""
        self._count = itertools.count()
        self.stopping = threading.Event()
        self._server = _Listener(("127.0.0.1", port), _Handler)
        self._server.shared = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def generations(self) -> list[dict[str, Any]]:
        """Bodies of the generation requests so far."""
        return [body for path, body in self.requests if path in ("/api/generate", "/api/chat")]

    def refuse_from_now_on(self) -> Fault:
        """Stop listening, as a server that dies does; the running request is disconnected."""
        self._server.socket.close()
        return Fault(kind="disconnect")

    def next_fault(self) -> Fault | None:
        """The fault of the generation that is starting."""
        return self.faults(next(self._count))

    def __enter__(self) -> OllamaServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()  # joins the handlers' threads
        self._thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    shared: OllamaServer

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        super().__init__(*args)

    def hang_up(self) -> None:
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _HangUp(Exception):  # noqa: N818 -- not an error: the script says to stop here
    """Drop the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.open.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):  # the client may be gone
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, _HangUp):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        shared = self.server.shared
        if self.path == "/api/version":
            return self._json({"version": VERSION})
        if self.path == "/api/tags":
            return self._json({"models": [_listing(model) for model in list(shared.models.values())]})
        return self._json({"error": "404 page not found"}, status=404)

    def do_POST(self) -> None:
        shared = self.server.shared
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shared.requests.append((self.path, body))
        if self.path == "/api/pull":
            return self._stream(pulling(shared, body["model"]), None)
        if self.path not in ("/api/generate", "/api/chat", "/api/show"):
            return self._json({"error": "404 page not found"}, status=404)
        model = shared.models.get(body["model"])
        if model is None:
            return self._json({"error": f"model '{body['model']}' not found"}, status=404)
        if self.path == "/api/show":
            return self._json(_showing(model))
        if self.path == "/api/generate" and not body.get("prompt"):
            reason = "unload" if body.get("keep_alive") == 0 else "load"
            return self._json({"model": model.name, "response": "", "done": True, "done_reason": reason})
        return self._generation(model, body)

    def _generation(self, model: ServedModel, body: dict[str, Any]) -> None:
        fault = self.server.shared.next_fault()
        if body.get("think") and not model.thinking:
            fault = Fault(kind="status", status=400, message=f'"{model.name}" does not support thinking')
        if fault is not None and fault.kind == "status":
            return self._json({"error": fault.message}, status=fault.status)
        if fault is not None and fault.kind == "disconnect":
            raise _HangUp
        if fault is not None and fault.kind == "hang":
            self._wait(None)
        return self._stream(records(model, body, self.path == "/api/chat", fault), fault)

    def _wait(self, seconds: float | None) -> None:
        """Sleep, for ever when None; the server's end ends it."""
        if self.server.shared.stopping.wait(seconds):
            raise _HangUp

    def _json(self, content: object, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _stream(self, lines: Iterable[str], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, line in enumerate(lines):
            if number == 1 and kind in ("hang_mid", "truncate"):
                self.wfile.flush()
                if kind == "truncate":
                    raise _HangUp
                self._wait(None)
            if fault is not None and kind in ("dribble", "slow"):
                self.wfile.flush()
                self._wait(fault.seconds)
            data = f"{line}\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def records(model: ServedModel, body: dict[str, Any], chat: bool, fault: Fault | None) -> Iterator[str]:
    """The lines of one reply, with what `fault` does to them."""
    kind = fault.kind if fault else ""
    thought, answer, tokens, reason = compose(model, body)
    if fault is not None and kind == "text":
        thought, answer = [], [fault.message]
    if kind == "empty":
        thought, answer, tokens = [], [], 0

    def line(content: str = "", thinking: str = "", **more: object) -> str:
        words = {"content" if chat else "response": content, **({"thinking": thinking} if thinking else {})}
        part: dict[str, object] = {"message": {"role": "assistant", **words}} if chat else {**words}
        record = {"model": model.name, "created_at": CREATED, **part, "done": False, **more}
        text = json.dumps(record, ensure_ascii=False)  # with the two escapes that Go's encoder adds
        return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

    for piece in thought:
        yield line(thinking=piece)
    for number, piece in enumerate(itertools.cycle(answer) if kind == "dribble" else answer):
        yield line(piece)
        if number == 0 and fault is not None and kind in ("malformed", "not_an_object", "error_line"):
            error = json.dumps({"error": fault.message})
            yield {"malformed": '{"model": "q', "not_an_object": "[1, 2]", "error_line": error}[kind]
    if kind != "unfinished":
        yield line(done=True, done_reason=reason, eval_count=tokens, total_duration=1_000_000)


def compose(model: ServedModel, body: dict[str, Any]) -> tuple[list[str], list[str], int, str]:
    """Pieces of thinking and of answer, the number of tokens, and the done reason."""
    options = body.get("options") or {}
    asked = json.dumps([model.name, body.get("prompt"), body.get("messages")], sort_keys=True)
    rng = random.Random(f"{asked}{options.get('seed')}")
    limit = int(options.get("num_predict", 128))
    weights = cumulative_weights(float(options.get("temperature", 0.8)))
    thinks = (model.thinking and body.get("think") is not False) or model.inline_thinking
    n_thought = min(limit, rng.randint(5, 12)) if thinks else 0
    planned = rng.randint(limit // 2 + 1, limit + limit // 4 + 1)
    n_answer = min(planned, limit - n_thought)
    reason = "stop" if n_answer == planned else "length"
    thought = pieces(rng.choices(vocabulary(), cum_weights=weights, k=n_thought))
    answer = pieces(rng.choices(vocabulary(), cum_weights=weights, k=n_answer))
    if model.inline_thinking:
        thought, answer = [], ["<think>", *thought, *(["</think>"] if answer else []), *answer]
    return thought, answer, n_thought + n_answer, reason


def pieces(words: Sequence[str]) -> list[str]:
    """Words joined into a stream's pieces; pieces after the first open with their space."""
    groups = [words[i : i + WORDS_PER_CHUNK] for i in range(0, len(words), WORDS_PER_CHUNK)]
    return [(" " if number else "") + " ".join(group) for number, group in enumerate(groups)]


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Made-up words of one to three syllables, the commonest first."""
    rng = random.Random(1)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "il")]
    words: dict[str, None] = {}
    while len(words) < VOCABULARY_SIZE:
        words["".join(rng.choices(syllables, k=1 + min(2, len(words) // 60)))] = None
    return tuple(words)


@lru_cache(maxsize=64)
def cumulative_weights(temperature: float) -> tuple[float, ...]:
    """Running sums of the words' weights; at temperature 0 the first word has practically all of it."""
    power = ZIPF_EXPONENT / max(temperature, 1e-2)
    return tuple(itertools.accumulate((rank + 1) ** -power for rank in range(VOCABULARY_SIZE)))


def pulling(shared: OllamaServer, name: str) -> Iterator[str]:
    """The lines of a pull; a model that arrives joins the list."""
    yield json.dumps({"status": "pulling manifest"})
    model = shared.pullable.get(name)
    if model is None:
        yield json.dumps({"error": "pull model manifest: file does not exist"})
        return
    for completed in (0, 400, 1000):
        layer = {"digest": f"sha256:{model.digest}", "total": 1000, "completed": completed}
        yield json.dumps({"status": f"pulling {model.digest[:12]}", **layer})
    for status in ("verifying sha256 digest", "writing manifest"):
        yield json.dumps({"status": status})
    shared.models[name] = model
    yield json.dumps({"status": "success"})


def _listing(model: ServedModel) -> dict[str, object]:
    entry = {"name": model.name, "model": model.name, "modified_at": CREATED, "digest": model.digest}
    return {**entry, "size": model.parameters // 2, "details": model.details()}


def _showing(model: ServedModel) -> dict[str, object]:
    return {
        "modelfile": f"FROM {model.name}",
        "template": "{{ .Prompt }}",
        "details": model.details(),
        "model_info": {"general.parameter_count": model.parameters},
        "capabilities": ["completion", *(["thinking"] if model.thinking else [])],
    }


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A local stand-in for an Ollama server.")
    parser.add_argument("--port", type=int, default=11435)
    with OllamaServer(port=parser.parse_args().port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"serving {', '.join(server.models)} at {server.url}", flush=True)
        server.stopping.wait()


if __name__ == "__main__":
    main()
