"""A causal model given by name: its directory on disk, downloaded once, and what identifies its weights.

Asked before anything else runs, so that a gated model without a token, a wrong name or a missing network ends
a run in seconds with the command that helps, not after hours of probes. No torch, nothing is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from models.backends import ModelMissing

ASK_SECONDS = 10.0
"""How long the hub may take to say that it has a model."""
WEIGHTS = ("config.json", "*.safetensors", "tokenizer*.json")
"""What a directory must hold."""
WANTED = ("*.json", "*.safetensors", "*.model")
"""What is downloaded; pickled weights never are."""


@dataclass(frozen=True, kw_only=True)
class NamedBase:
    """Where a model's files are, and which model it is."""

    directory: Path
    digest: str
    """SHA-256 over weights and tokeniser of a directory; id and commit of a model from the hub."""
    revision: str | None
    """Commit, of a model from the hub."""


def resolve(model: str) -> NamedBase:
    """The model's files, from a directory or from the hub, whose download is kept.

    Raises
    ------
    ModelMissing
        No such directory or model, a gated one without a token, or no network; the message says what to do.
    """
    directory = Path(model).expanduser()
    if directory.is_dir():
        return NamedBase(directory=directory.absolute(), digest=_digest(directory), revision=None)
    try:
        commit = HfApi().model_info(model, timeout=ASK_SECONDS).sha
        path = snapshot_download(model, revision=commit, allow_patterns=list(WANTED))
    except GatedRepoError as error:
        known = "your token has no access" if get_token() else "there is no token on this machine"
        raise ModelMissing(
            f"{model} is gated and {known}",
            fix=f"accept its terms at https://huggingface.co/{model}, then run `hf auth login` "
            "or set HF_TOKEN",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelMissing(
            f"no model {model!r} on the hub, and no such directory",
            fix="check the name; a private or gated model needs `hf auth login` first",
        ) from error
    except (HTTPError, OSError) as error:
        token = "" if get_token() else "; a gated model also needs `hf auth login`"
        raise ModelMissing(
            f"cannot ask the hub for {model!r}: {str(error).strip().splitlines()[0]}",
            fix=f"check the network, or give a directory with {', '.join(WEIGHTS)}{token}",
        ) from error
    return NamedBase(directory=Path(path), digest=f"{model}@{commit}", revision=commit)


def _digest(directory: Path) -> str:
    fix = "give a directory that save_pretrained wrote (model and tokeniser)"
    for pattern in WEIGHTS:
        if not any(directory.glob(pattern)):
            raise ModelMissing(f"{directory} has no {pattern}", fix=fix)
    if (directory / "adapter_config.json").exists():
        raise ModelMissing(f"{directory} is an adapter, which would load another base", fix=fix)
    digests = {}
    for path in sorted({path for pattern in WANTED for path in directory.glob(pattern)}):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
