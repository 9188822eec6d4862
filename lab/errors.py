"""The errors a person meets. Each says what was found, what is allowed and what to do, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Bad input from a person; the command line prints the message alone and exits 2."""


class WorkError(RuntimeError):
    """Work in a process of its own that gave no result; the message says why."""


class TimeLimitError(WorkError):
    """Work that was killed at its time limit."""


def unknown(kind: str, found: str, allowed: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, nearest valid names first.

    >>> str(unknown("study", "entropy_seed", ["entropy_seeds", "mechanism"]))
    "unknown study 'entropy_seed'; did you mean entropy_seeds? allowed: entropy_seeds, mechanism"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(found, names, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(f"unknown {kind} {found!r}; {hint}allowed: {', '.join(names)}")
