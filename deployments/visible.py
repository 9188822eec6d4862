"""Text that a file, a model or a person gave, made safe to show on a terminal."""

from __future__ import annotations

import re
from typing import TextIO

_UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but line feeds, marks that turn the direction, line separators, halves of characters."""


def visible(text: str) -> str:
    r"""The text with what a terminal would obey, or cannot show, written as escapes; line feeds stay.

    >>> visible("a[red]b \x1b[31m\r\x9b \u202e")
    'a[red]b \\x1b[31m\\r\\x9b \\u202e'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def tell(text: str, *, file: TextIO | None = None) -> None:
    """Print what is for people and may hold stored or given text."""
    print(visible(text), file=file)
