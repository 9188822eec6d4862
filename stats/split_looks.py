"""Levels of successive looks whose data may depend on each other in any way: each spends a part of alpha.

`stats.sequential.look_levels` gains a little from how looks at growing data correlate. A later look that also
draws new disturbances on the seeds of the first is no such path, and a union bound needs none: the looks'
levels add up to alpha, so a first rejection at any of them happens with probability at most alpha, whatever
the looks share and whatever made anyone take the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from stats.sequential import hwang_shih_decani


def split_levels(looks: Sequence[int], *, alpha: float = 0.05, gamma: float = 0.0) -> dict[int, float]:
    """Level of each look: the error spent since the look before it.

    Parameters
    ----------
    looks
        Units at each look, rising; the last one is the whole plan.
    gamma
        Of Hwang-Shih-DeCani spending; 0 spends in proportion, so that an early look, at which most studies
        end, has its share.

    Returns
    -------
    dict
        Look -> level; they add up to alpha.

    Raises
    ------
    ValueError
        Looks that do not rise from 1, alpha out of range.

    References
    ----------
    Hwang, Shih & DeCani (1990), Stat. Med. 9, 1439; the bound is Boole's. Error rates of two looks under the
    null: `tests/test_split_looks.py`.

    Examples
    --------
    >>> split_levels((5, 10)), split_levels((5,))
    ({5: 0.025, 10: 0.025}, {5: 0.05})
    """
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < 1:
        raise ValueError(f"looks {tuple(looks)}; give rising numbers of units, from 1")
    spent = [hwang_shih_decani(k / looks[-1], alpha=alpha, gamma=gamma) for k in looks]
    return {k: now - before for k, now, before in zip(looks, spent, [0.0, *spent], strict=False)}
