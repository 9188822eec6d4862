"""Opens a backend by name.

Apart from `models.backends`, so that the code fingerprint of one backend does not contain the others.
"""

from __future__ import annotations

from pathlib import Path

from models.backends import KINDS, Backend


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
        from models.ollama_backend import OllamaBackend

        return OllamaBackend(model, host=host, timeout_seconds=timeout_seconds)
    if kind == "replay":
        from models.replay_backend import ReplayBackend

        return ReplayBackend(home / model)
    raise ValueError(f"unknown backend {kind!r}; allowed: {', '.join(KINDS)}")
