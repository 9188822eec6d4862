"""`--set FIELD=VALUE` onto a profile's settings, checked field by field before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lab.errors import UsageError
from lab.settings import changed
from lab.study import Study


def settings_for(study: Study, profile: str, assignments: Sequence[str]) -> Any:
    """The profile's settings with the assignments applied.

    Raises
    ------
    UsageError
        Unknown profile or field, or a value the field does not take; in one line, with what is allowed.
    """
    settings = study.settings(profile)
    return changed(settings, dict(_assignment(text, settings) for text in assignments))


def _assignment(text: str, settings: Any) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals:
        raise UsageError(f"--set {text!r} has no `=`; write --set FIELD=VALUE, such as --set samples=12")
    if name == "profile":
        raise UsageError("--set profile is not a field to change; write --profile NAME")
    return name, _value(value.strip(), getattr(settings, name, None))


def _value(text: str, current: Any) -> Any:
    if text.lower() in ("none", "null"):
        return None
    if not isinstance(current, tuple):
        return text
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
    return found if isinstance(found, list) else [found]
