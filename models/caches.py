"""What a process holds between two runs of a night: its imports, and nothing that was read.

A file may change between the runs, and a cache by its path would answer with what it was.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

PACKAGES = frozenset({"models", "tasks"})
"""Their functions keep what they read; those of `stats` keep numbers that hang on their arguments alone."""


def forget(*, report: Callable[[Any], None] | None = None) -> None:
    """Empty the caches of all functions (`functools.lru_cache`), and give the memory back.

    >>> from models.corpus import _first_word
    >>> _ = _first_word("b")
    >>> forget()
    >>> _first_word.cache_info().currsize
    0
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear):
                    clear()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; `tasks.killable.MEMORY` has it keep all
    if trim is not None:
        trim(0)
