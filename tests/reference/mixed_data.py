"""The data sets of `mixed_lmertest.R`, made again from the same Park-Miller generator."""

import numpy as np
from scipy import special

SETS = {
    "balanced3": {"seed": 11, "P": 10, "S": 3, "T": 1, "k": 6, "sps": 0.5, "sst": 0.0},
    "unbalanced3": {"seed": 12, "P": 10, "S": 3, "T": 1, "k": 6, "sps": 0.5, "sst": 0.0, "drop": 0.2},
    "balanced2": {"seed": 13, "P": 12, "S": 2, "T": 1, "k": 5, "sp": 2.0, "sps": 0.4, "sst": 0.0},
    "unbalanced2": {
        "seed": 14,
        "P": 12,
        "S": 2,
        "T": 1,
        "k": 5,
        "sp": 2.0,
        "sps": 0.6,
        "sst": 0.0,
        "drop": 0.3,
    },
    "streams3": {"seed": 15, "P": 8, "S": 3, "T": 5, "k": 4, "sps": 0.5, "sst": 0.4},
    "streams3_unbalanced": {"seed": 16, "P": 8, "S": 3, "T": 5, "k": 4, "sps": 0.5, "sst": 0.4, "drop": 0.25},
    "streams2": {"seed": 17, "P": 10, "S": 2, "T": 4, "k": 3, "sps": 0.5, "sst": 0.5},
    "streams_of_one": {
        "seed": 18,
        "P": 10,
        "S": 3,
        "T": 5,
        "k": 3,
        "sps": 0.5,
        "sst": 0.6,
        "drop": 0.1,
        "streams_of": (5, 1, 5),
    },
    "full": {"seed": 19, "P": 30, "S": 3, "T": 5, "k": 10, "sps": 0.2, "sst": 0.15, "drop": 0.02},
    "zero": {"seed": 20, "P": 12, "S": 3, "T": 1, "k": 8, "sps": 0.0, "sst": 0.0},
    "zero_streams": {"seed": 23, "P": 8, "S": 3, "T": 5, "k": 4, "sps": 0.4, "sst": 0.0},
    "wide_prompts": {
        "seed": 41,
        "P": 8,
        "S": 3,
        "T": 3,
        "k": 3,
        "sp": 10.0,
        "sps": 0.3,
        "sst": 0.2,
        "drop": 0.1,
    },
}


def park_miller(n: int, state: int) -> np.ndarray:
    out = []
    for _ in range(n):
        state = 16807 * state % 2147483647
        out.append(state / 2147483647)
    return np.array(out)


def make(seed, P, S, T, k, sps, sst, sp=1.0, drop=0.0, streams_of=None):
    """(y, source, prompt, stream), the sample running fastest, then stream, source, prompt."""
    z = iter(special.ndtri(park_miller(P + P * S + S * T + 2 * P * S * T * k, seed)))

    def take(*shape: int) -> np.ndarray:
        return np.array([next(z) for _ in range(int(np.prod(shape)))]).reshape(shape)

    prompt_effect, ps_effect, st_effect = take(P) * sp, take(P, S) * sps, take(S, T) * sst
    noise, lose = take(P, S, T, k), special.ndtr(take(P, S, T, k))
    s = 10 + 0.1 * np.arange(1, S + 1)
    y = (
        s[:, None, None]
        + prompt_effect[:, None, None, None]
        + ps_effect[:, :, None, None]
        + st_effect[None, :, :, None]
        + noise
    )
    limit = np.array(streams_of or (T,) * S)
    keep = (lose >= drop) & (np.arange(T)[None, None, :, None] < limit[None, :, None, None])
    p, a, t, _ = np.indices(y.shape)
    labels = [[f"{name}{i}" for i in index[keep]] for name, index in (("", p), ("t", t))]
    return y[keep], ["abc"[i] for i in a[keep]], labels[0], labels[1]
