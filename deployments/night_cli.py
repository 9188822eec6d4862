"""`ladder night`: the overnight flow in this process, and its queue as people read it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from deployments import register, terminal
from deployments.service import client
from deployments.temporary_server import TemporaryServer, wait_ready
from deployments.visible import tell
from flows import night_run
from flows.overnight import overnight, refuse_unknown
from flows.registry import studies
from lab.night_book import only_night

BUDGET_SPENT = 4


def run_night(
    home: Path,
    *,
    began: datetime,
    budget: str,
    profile: str,
    names: Sequence[str],
    only_left: bool,
    climb: bool,
    server: TemporaryServer | None,
    url: str,
    as_json: bool,
) -> int:
    """Run a night here; returns the exit code: 0 all done, 1 a flow failed, 4 the budget is spent.

    The budget counts from `began`, when the command did.
    """
    night_run.command_began = began
    refuse_unknown(budget, profile, names)
    with only_night(home):  # refused at once while another one runs; the night itself holds it from its start
        pass
    importlib.import_module("pandas")  # pyarrow does at the night's first rows; now the server is waited for
    wait_ready(server)
    if server is not None:
        with client(url) as api:  # the night launches deployments, so this server must know them
            register.prepare_server(api)
            register.register(studies().values(), api)
    tell(f"Night · {profile} · {budget} · {home}", file=sys.stderr)
    with terminal.progress():
        told: Any = overnight(  # Prefect gives the state's data
            budget=budget, profile=cast(Any, profile), studies=tuple(names), only_left=only_left, climb=climb
        )
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        show(told, home)
    if told["failed"]:
        return 1
    return BUDGET_SPENT if told["state"] == "budget" else 0


def show(told: Mapping[str, Any], home: Path) -> None:
    """The queue, line by line, and where the report is."""
    print()
    terminal.say(f"Night {told['night_id']}: {told['summary']}.")
    for row in told["queue"]:
        took = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        changed = "".join(f" · {name} {value}" for name, value in json.loads(row["settings"]).items())
        tell(f"{row['state']:9} {row['study']} · {row['profile']}{changed} {took}".rstrip())
        if row["note"] and row["state"] != "done":
            print("\n".join(terminal.folded(f"{'':9} {row['note']}", " " * 10)))
    tell(f"Report: {home / 'report.html'}")
