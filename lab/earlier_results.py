"""What a file of earlier results becomes: texts with their arm, prompt and seed, grouped into parts.

The shape knows nothing of the four formats; `lab.earlier_formats` reads those, `tasks.importing` measures and
analyses what came out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = {
    "PRNG": "prng",
    "TRNG": "trng",
    "HMIX": "hmix",
    "QRNG": "hmix",
    "PCG64": "pcg64",
    "PHILOX": "philox",
}
"""Sources a file may name, and what each is taken for; QRNG was v1's name for the hash-mixed source."""
CUT_CHARACTERS = 500
"""Injection scripts kept this many characters of a text; one of that length counts as cut."""
WHOLE, CUT, PREVIEW = "whole", f"cut at {CUT_CHARACTERS} characters", "preview"

Metrics = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class EarlierPrompt:
    """A prompt or a conversation."""

    prompt_id: str
    text: str
    domain: str | None
    constraint: str | None
    """Room it leaves; None where the format does not say."""


@dataclass(frozen=True, kw_only=True)
class EarlierText:
    """One text of a file, or the reason why there is none."""

    arm: str
    prompt_id: str
    stream: int
    k: int
    """Sample within arm, stream and prompt."""
    turn: int
    """1, 2, ... in a conversation, else 0."""
    probe: int
    """0, or 1.. for a sample whose seed an earlier one of its cell had: a same-seed repeat, no sample."""
    seed64: int | None
    """None in formats without seeds."""
    text: str | None
    extent: str
    """WHOLE, CUT or PREVIEW."""
    reason: str | None
    """Why there is no text."""
    stored: Metrics
    """The file's own values; None for null and NaN."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Texts that may be compared with each other."""

    name: str
    """`single_turn`, `multi_turn`, or the injection mode."""
    prompts: tuple[EarlierPrompt, ...]
    texts: tuple[EarlierText, ...]
    """In the order of the file."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Sources with a text, by name."""
        return tuple(sorted({text.arm for text in self.texts}))


@dataclass(frozen=True, kw_only=True)
class EarlierFile:
    """All of a file."""

    path: Path
    sha256: str
    format: str
    """v1, v2, injection or flat."""
    model: str | None
    parts: tuple[Part, ...]
    unread: tuple[str, ...] = ()
    """Members at the top that were passed over."""

    @property
    def has_seeds(self) -> bool:
        """Whether samples were seeded; under injection the source acted on every token."""
        return self.format != "injection"

    @property
    def is_whole(self) -> bool:
        """Whether every text is whole, so that every metric can be computed again."""
        return all(text.extent == WHOLE for part in self.parts for text in part.texts)
