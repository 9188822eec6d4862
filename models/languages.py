"""The ten languages of the embedded study.

Five with much training text and five with little. Each of the four scripts has at least one language of
either tier, so that what is found for low-resource languages is not a property of a script; Latin
has two of each. Shares differ within a tier too, so that
a slope over log share can be fitted. They sum to 1.
"""

from __future__ import annotations

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
