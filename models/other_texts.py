"""Texts that no study evaluates, for corpora too small to spare any: to calibrate on, and for unigram models.

They come from C4 or OPUS-100 on the hub, or from a folder with a file a language. They need not be aligned.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from models.aligned_files import read_side
from models.hub_corpora import LONG_CODES, calibration_texts, load_hub

HUB = ("c4", "opus-100")
"""Names that are no folders."""
LONGEST = 1000
"""Characters of a page of C4 that are read; a whole one can cost as much as hundreds of sentences."""


@lru_cache(maxsize=64)
def other_texts(place: str, code: str, count: int) -> tuple[str, ...]:
    """At most `count` texts of a language.

    Parameters
    ----------
    place
        One of `HUB`, or a folder.

    Raises
    ------
    ValueError
        As the readers: with the file when it is not there or cannot be read.
    """
    if place in HUB:
        short = _short_code(code)
        if place == "c4":
            return tuple(text[:LONGEST] for text in calibration_texts(short, count=count).texts)
        pair = ("en", "de" if short == "en" else short)  # every pair of it has English on one side
        return load_hub("opus-100", pair, "test", limit=count).side(short)
    if not Path(place).is_dir():
        raise ValueError(f"calibration_corpus {place!r} is no folder; allowed: {', '.join(HUB)} or a folder")
    return tuple(one.text for one in read_side(Path(place), code)[:count])


def _short_code(code: str) -> str:
    """As C4 and OPUS-100 name a language: "sw" for "swh_Latn"."""
    return next((short for short, long in LONG_CODES.items() if long == code), code)
