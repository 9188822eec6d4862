"""A study's settings changed field by field, checked before anything runs, and written as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lab.errors import UsageError, unknown


def changed(settings: Any, changes: Mapping[str, object]) -> Any:
    """A copy of a settings dataclass with some fields changed; itself without changes.

    Raises
    ------
    UsageError
        A field that it does not have, or a value that the field does not take; in one line.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for name in changes:
        if name not in values:
            raise unknown("field", name, [known for known in values if known != "profile"])
    if not changes:
        return settings
    try:
        return TypeAdapter(type(settings)).validate_python(values | dict(changes))
    except ValidationError as error:
        raise UsageError(_one_line(error, changes)) from error


def as_json(settings: Any) -> Any:
    """Settings as a deployment's parameters."""
    return TypeAdapter(type(settings)).dump_python(settings, mode="json", warnings=False)


def _one_line(error: ValidationError, changes: Mapping[str, object]) -> str:
    problems = []
    for found in error.errors(include_url=False):
        name = str(found["loc"][0]) if found["loc"] else ""
        message = found["msg"].removeprefix("Value error, ")
        said = message[:1].lower() + message[1:]
        problems.append(f"{name} = {changes.get(name, found['input'])!r}: {said}" if name else said)
    return "; ".join(problems)
