"""What error a look of the nanodesmo study may spend."""

from __future__ import annotations

from collections.abc import Sequence

from stats.split_looks import split_levels


def level_of(looks: Sequence[int], alpha: float, look: int) -> float:
    """Level of a look, of the plan's alpha over all looks.

    Parameters
    ----------
    look
        From 1.

    >>> level_of((5, 10), 0.05, 2)
    0.025
    """
    return split_levels(looks, alpha=alpha)[looks[look - 1]]
