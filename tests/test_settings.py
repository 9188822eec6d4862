"""`--set FIELD=VALUE`: what it takes, and what it says to what it does not."""

from __future__ import annotations

import pytest

from deployments.settings import settings_for
from flows.entropy_seeds import LAPTOP, SMOKE, STUDY
from lab.errors import UsageError


def test_text_becomes_what_the_field_holds() -> None:
    found = settings_for(
        STUDY,
        "laptop",
        ["samples=10", "temperature=1", "single-stream=true", "looks=5, 10", "streams=[7]", "think=none"],
    )
    assert (found.samples, found.temperature, found.single_stream) == (10, 1.0, True)
    assert (found.looks, found.streams, found.think) == ((5, 10), (7,), None)
    assert isinstance(found.temperature, float)
    assert settings_for(STUDY, "laptop", []) is LAPTOP
    assert settings_for(STUDY, "smoke", ["samples=none"]) == SMOKE


@pytest.mark.parametrize(
    ("profile", "assignment", "message"),
    [
        ("huge", "samples=1", "unknown profile of entropy_seeds 'huge'; allowed: full, laptop, smoke"),
        ("smoke", "sample=1", "unknown field 'sample'; did you mean samples?"),
        ("smoke", "samples", "has no `=`; write --set FIELD=VALUE"),
        ("smoke", "profile=full", "write --profile NAME"),
        ("smoke", "samples=0", "samples = '0': .*greater than or equal to 1"),
        ("smoke", "samples=many", "samples = 'many': .*valid integer"),
        ("smoke", "margin_sd=nan", "margin_sd = 'nan': "),
        ("smoke", "temperature=nan", "temperature = 'nan': "),
        ("smoke", "temperature=inf", "temperature = 'inf': "),
        ("smoke", "top_p=0", "top_p = '0': .*greater than 0"),
        ("smoke", "looks=8,4", "looks = .*allowed: rising whole numbers from 1"),
        ("smoke", "looks=", "looks = "),
        ("smoke", "backend=cuda", "backend = 'cuda': input should be 'local', 'transformers', 'ollama'"),
        ("smoke", "model=gpt9", "unknown embedded model 'gpt9'; allowed: pydoc-0.1m"),
        ("smoke", "num_ctx=32", "the window must exceed the reply"),
        ("smoke", "prompts=none", "prompts = None: input should be 'smoke' or 'all'"),
    ],
)
def test_what_is_refused_says_in_one_line_what_is_allowed(
    profile: str, assignment: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        settings_for(STUDY, profile, [assignment])
    assert "\n" not in str(caught.value)
