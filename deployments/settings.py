"""`--set FIELD=VALUE` onto a profile's settings, checked field by field before anything runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lab.errors import UsageError, unknown
from lab.study import Study


def settings_for(study: Study, profile: str, assignments: Sequence[str]) -> Any:
    """The profile's settings with the assignments applied.

    Raises
    ------
    UsageError
        Unknown profile or field, or a value the field does not take; in one line, with what is allowed.
    """
    if profile not in study.profiles:
        raise unknown(f"profile of {study.name}", profile, study.profiles)
    settings = study.profiles[profile]
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    changes = dict(_assignment(text, values) for text in assignments)
    if not changes:
        return settings
    try:
        return TypeAdapter(type(settings)).validate_python(values | changes)
    except ValidationError as error:
        raise UsageError(_one_line(error, changes)) from error


def _assignment(text: str, fields: dict[str, Any]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals:
        raise UsageError(f"--set {text!r} has no `=`; write --set FIELD=VALUE, such as --set samples=12")
    if name == "profile":
        raise UsageError("--set profile is not a field to change; write --profile NAME")
    if name not in fields:
        raise unknown("field", name, [field for field in fields if field != "profile"])
    return name, _value(value.strip(), fields[name])


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


def _one_line(error: ValidationError, changes: dict[str, Any]) -> str:
    problems = []
    for found in error.errors(include_url=False):
        name = str(found["loc"][0]) if found["loc"] else ""
        message = found["msg"].removeprefix("Value error, ")
        said = message[:1].lower() + message[1:]
        problems.append(f"{name} = {changes.get(name, found['input'])!r}: {said}" if name else said)
    return "; ".join(problems)
