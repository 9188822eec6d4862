"""Text that a file, a model or a person gave, made safe to show on a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
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


_COMMENT = re.compile(r"--[^=\s]*\s")


def spoken(arguments: Sequence[str]) -> list[str]:
    r"""Arguments with SQL that begins with a comment kept apart from options, which hold no blanks.

    >>> spoken(["sql", "-- all\nSELECT 1", "--out=a b.csv", "--format", "csv"])
    ['sql', '\n-- all\nSELECT 1', '--out=a b.csv', '--format', 'csv']
    """
    return [f"\n{word}" if _COMMENT.match(word) else word for word in arguments]
