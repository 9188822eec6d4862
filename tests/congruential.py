"""The random draws that R scripts in `tests/reference` make, made again for the function under test."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt


class Congruential:
    """x_{k+1} = 16807 x_k mod (2^31 - 1) from 42, in the order in which R makes them."""

    def __init__(self) -> None:
        self._x = 42

    def integers(self, size_of: int, *, size: int | tuple[int, ...]) -> npt.NDArray[np.int64]:
        """As of a `numpy.random.Generator`."""
        drawn = []
        for _ in range(int(np.prod(size))):
            self._x = 16807 * self._x % 2147483647
            drawn.append(size_of * self._x // 2147483647)
        return np.array(drawn).reshape(size)


def congruential() -> np.random.Generator:
    """A new generator of those draws."""
    return cast(np.random.Generator, Congruential())
