"""Opens a backend by name.

Apart from `models.backends`, so that the code fingerprint of one backend does not contain the others.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from models.backends import KINDS, Backend, ServerUnreachable

ADDRESS = "give it as http://127.0.0.1:11434"
"""What to do about an address that cannot be read."""


def open_backend(
    kind: str, model: str, *, home: Path, timeout_seconds: float = 180.0, host: str | None = None
) -> Backend:
    """The backend of a kind, opened on a model.

    Parameters
    ----------
    kind
        One of KINDS. `local` and `transformers` load a model in this process, `ollama` asks a server,
        `replay` answers from recorded outputs.
    model
        `local`: the directory of a trained model. `transformers`: a hub id or a directory. `ollama`: a name
        such as `qwen3:0.6b`. `replay`: a file of recorded outputs; a relative path starts at `home`.
    home
        Directory of run products.
    timeout_seconds
        Limit on one generation (`ollama` only).
    host
        Address of the server (`ollama` only); None reads OLLAMA_HOST, then takes the default port here.

    Raises
    ------
    ValueError
        For an unknown kind.
    BackendError
        When the model cannot be opened.
    """
    if kind in ("local", "transformers"):
        from models.transformers_backend import TransformersBackend

        return TransformersBackend(model)
    if kind == "ollama":
        found = unreadable(host)
        if found is not None:
            raise ServerUnreachable(found, fix=ADDRESS)
        from models.ollama_backend import OllamaBackend

        return OllamaBackend(model, host=host, timeout_seconds=timeout_seconds)
    if kind == "replay":
        from models.replay_backend import ReplayBackend

        return ReplayBackend(home / model)
    raise ValueError(f"unknown backend {kind!r}; allowed: {', '.join(KINDS)}")


def unreadable(host: str | None) -> str | None:
    """Why the address of a server cannot be read, OLLAMA_HOST where none is given; None when it can.

    >>> unreadable("http://127.0.0.1:11434"), unreadable("http://[::1")
    (None, "server address 'http://[::1' cannot be read (Invalid IPv6 URL)")
    """
    import httpx

    given = os.environ.get("OLLAMA_HOST")
    try:
        import ollama  # this reads OLLAMA_HOST, whatever is given here

        given = host or given
        with closing(ollama.Client(host)):
            return None
    except (ValueError, httpx.InvalidURL) as error:
        return f"server address {given!r} cannot be read ({error})"


def refuse_unreadable(host: str | None) -> None:
    """Nothing, if no address is given or it can be read.

    Raises
    ------
    ValueError
        Else, with the reason.
    """
    found = unreadable(host) if host else None
    if found is not None:
        raise ValueError(f"{found}; {ADDRESS}")
