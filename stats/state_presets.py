"""States made to calm or to alarm a network: does each do what it was made for?

A run's own states are sorted by the entropy they give on some held-out windows; the means of the lowest and
of the highest tenth are its presets `calm` and `alarmed`. On other windows each is measured against the
other, and the sign is expected: calm below 0, alarmed above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stats.over_seeds import mean_over_seeds
from stats.rows import TestRow

EXPECTED: Mapping[str, int] = {"calm": -1, "alarmed": 1}
"""Preset -> sign of its entropy less that of the other."""
METHOD = "less the other preset, t over seeds; statistic: seeds of the expected sign"


def preset_rows(
    arms: Mapping[str, Mapping[int, Mapping[str, Mapping[str, Any]]]], *, alpha: float
) -> list[TestRow]:
    """What each preset does to entropy, and in how many seeds its sign is the expected one.

    Parameters
    ----------
    arms : mapping of str to mapping of int to mapping of str to mapping
        Arm -> seed -> preset -> what was measured; `measured_nats`: its entropy less that of the other on
        fresh windows.

    Returns
    -------
    list of TestRow
        Family `preset`, hypothesis `sign`, metric `entropy_nats`, role `secondary`, contrast "ARM:PRESET":
        mean over seeds with t interval; statistic: seeds with the expected sign, an exact 0 has none. The two
        presets of an arm are each other's mirror image.

    References
    ----------
    Witness: as `stats.over_seeds.mean_over_seeds`.

    Examples
    --------
    >>> made = {seed: {"calm": {"measured_nats": -nats}, "alarmed": {"measured_nats": nats}}
    ...         for seed, nats in enumerate((0.2, -0.1, 0.5))}
    >>> found = preset_rows({"self": made}, alpha=0.05)
    >>> [(row.contrast, round(row.estimate, 1), row.statistic, row.n) for row in found]
    [('self:calm', -0.2, 2.0, 3), ('self:alarmed', 0.2, 2.0, 3)]
    """
    rows = []
    for arm, by_seed in arms.items():
        for name, sign in EXPECTED.items():
            values = np.array([float(found[name]["measured_nats"]) for found in by_seed.values()])
            bare = TestRow(family="preset", hypothesis="sign", metric="entropy_nats",
                           contrast=f"{arm}:{name}", role="secondary", alpha=alpha, method=METHOD,
                           reason="undefined")  # fmt: skip
            row = mean_over_seeds(values, bare, tested=False)
            rows.append(replace(row, statistic=float((sign * values > 0.0).sum()) if row.n else None))
    return rows
