"""The kinds of network whose blocks are known, and what kind a model is before any of it is loaded.

No torch here: a run refuses a model of another kind by its `config.json`, before any work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Attribute paths of one kind of network in `transformers`."""

    trunk: str
    """From the model to the module that holds the blocks."""
    blocks: str
    """From the trunk to its list of blocks."""
    tail: tuple[str, ...]
    """Modules of the trunk after the last block, in order; one that is None there is skipped."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gpt2": Family(trunk="transformer", blocks="h", tail=("ln_f",)),
        "opt": Family(trunk="model.decoder", blocks="layers", tail=("final_layer_norm", "project_out")),
        "gpt_neox": Family(trunk="gpt_neox", blocks="layers", tail=("final_layer_norm",)),
        "llama": Family(trunk="model", blocks="layers", tail=("norm",)),
        "bloom": Family(trunk="transformer", blocks="h", tail=("ln_f",)),
        "xglm": Family(trunk="model", blocks="layers", tail=("layer_norm",)),
    }
)
"""By `model_type` of the model's config."""


def refuse_unknown_family(model: str) -> None:
    """Refuse a model whose config says that it is of another kind.

    One whose config is not on this machine passes: it is refused when it is loaded.

    Parameters
    ----------
    model
        A directory or a hub id.

    Raises
    ------
    ValueError
        For a model type outside `FAMILIES`, or a config that cannot be read, with its place.
    """
    path = _config_of(model)
    if path is None:
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; download the model again") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in FAMILIES:
        raise ValueError(
            f"model {model!r} has model type {kind!r} ({path}); allowed: {', '.join(FAMILIES)}: choose such "
            "a model"
        )


def _config_of(model: str) -> Path | None:
    """The config on this machine: in the directory, or in the hub's cache; None where there is none."""
    if Path(model).is_dir():
        path = Path(model) / CONFIG
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, CONFIG)
    except HFValidationError:  # a path that is not there; loading it says so
        return None
    return Path(found) if isinstance(found, str) else None
