"""What the R scripts in `tests/reference` printed, and the random draws that they make."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

REFERENCE = Path(__file__).parent / "reference"


def printed(name: str) -> dict[str, float]:
    """Of a script that prints a name and a number a line; lines that start with # are left out."""
    lines = (line for line in (REFERENCE / name).read_text().splitlines() if not line.startswith("#"))
    return {key: float(value) for key, value in csv.reader(lines, delimiter="\t")}


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
    """Those draws from the start, for a function that draws integers only."""
    return cast(np.random.Generator, Congruential())
