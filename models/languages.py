"""The ten languages of the embedded study.

Five with much training text and five with little. Each of the four scripts has at least one language of
either tier, so that what is found for low-resource languages is not a property of a script; Latin has two of
each. Shares differ within a tier too, so that a slope over log share can be fitted. They sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from models.corpus import Language

LANGUAGES: tuple[Language, ...] = (
    Language(code="en", name="English", script="Latn", family="Germanic", tier="high", share=0.24),
    Language(code="de", name="German", script="Latn", family="Germanic", tier="high", share=0.20),
    Language(code="ru", name="Russian", script="Cyrl", family="Slavic", tier="high", share=0.18),
    Language(code="ar", name="Arabic", script="Arab", family="Semitic", tier="high", share=0.16),
    Language(code="hi", name="Hindi", script="Deva", family="Indo-Aryan", tier="high", share=0.14),
    Language(code="sw", name="Swahili", script="Latn", family="Bantu", tier="low", share=0.024),
    Language(code="kk", name="Kazakh", script="Cyrl", family="Turkic", tier="low", share=0.020),
    Language(code="ne", name="Nepali", script="Deva", family="Indo-Aryan", tier="low", share=0.016),
    Language(code="cy", name="Welsh", script="Latn", family="Celtic", tier="low", share=0.012),
    Language(code="ur", name="Urdu", script="Arab", family="Indo-Aryan", tier="low", share=0.008),
)
"""High tier first, by falling share."""

WEB_SHARES: Mapping[str, float] = MappingProxyType(
    {
        "en": 0.4,
        "de": 0.06,
        "ru": 0.06,
        "ar": 0.006,
        "hi": 0.002,
        "sw": 0.0001,
        "kk": 0.0005,
        "ne": 0.0005,
        "cy": 0.0001,
        "ur": 0.0003,
    }
)
"""Share of the web's pages, to one digit: the order of magnitude that Common Crawl's statistics give."""

WEB_LANGUAGES: tuple[Language, ...] = tuple(replace(one, share=WEB_SHARES[one.code]) for one in LANGUAGES)
"""The same ten languages for models that were trained on the web. The tiers stand: high are classes 4 and 5
of Joshi et al. (2020), "The State and Fate of Linguistic Diversity", low are the classes under 4."""
