"""Commands about what runs in the background and what this machine can do."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

from deployments import service
from deployments import status as status_
from deployments.doctor import checks
from deployments.terminal import width
from deployments.visible import tell


def up(home: Path, port: int | None) -> None:
    """Start server and worker, register every deployment."""
    from flows.registry import studies

    service.up(home, studies().values(), port=port, report=print)


def down(home: Path) -> int:
    """Stop what `up` started."""
    service.down(home, report=print)
    return 0


def show_status(home: Path, *, as_json: bool) -> None:
    """What runs, as lines or JSON."""
    found = status_.status(home)
    if as_json:
        print(json.dumps(asdict(found), indent=1, default=str))
    else:
        tell("\n".join(status_.lines(found)))


def show_doctor(home: Path, *, as_json: bool) -> int:
    """One line a check, the fix under it; 1 when something would keep every study from running."""
    found = checks(home)
    if as_json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    else:
        indent = " " * 24
        for check in found:
            head = f"{check.state:<6}{check.name:<18}"
            tell(textwrap.fill(check.found, width(), initial_indent=head, subsequent_indent=indent))
            if check.fix:
                fix = f"fix: {check.fix}"
                tell(textwrap.fill(fix, width(), initial_indent=indent, subsequent_indent=indent))
    return 1 if any(check.state == "fail" for check in found) else 0
