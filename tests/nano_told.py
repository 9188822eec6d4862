"""A nanodesmo study of a second a training, as a person would ask for it."""

from __future__ import annotations

import json
from pathlib import Path

REGIMES = {
    "regimes": [
        {
            "id": "bewilderment",
            "channel": "target",
            "mode": "random_targets",
            "strength": 0.5,
            "windows": [[20, 26], [42, 48]],
        },
        {
            "id": "lr_heatwave",
            "channel": "optim",
            "mode": "lr_mult",
            "strength": 10.0,
            "windows": [[31, 37], [53, 59]],
        },
    ]
}
SMALL: dict[str, object] = {
    "seeds": "0,1",
    "width": 16,
    "block": 16,
    "batch": 8,
    "steps": 64,
    "warmup_steps": 10,
    "state_dim": 8,
    "before": 5,
    "probe_every": 5,
    "rotations": 199,
    "permutations": 50,
}


def regimes(folder: Path, **changes: object) -> Path:
    """A file of regimes, with changes to the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.loads(json.dumps(REGIMES))
    told["regimes"][0] |= changes
    file = folder / "regimes.json"
    file.write_text(json.dumps(told))
    return file
