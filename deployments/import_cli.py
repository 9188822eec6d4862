"""`ladder import`: files of earlier results into the store, through the gates.

Every file is read before the home is touched, so a malformed one leaves nothing behind. The command ends with
0 when the files are in, whatever the gates say of them: `ladder import FILE && ladder gates` shows it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments import terminal
from deployments.temporary_server import TemporaryServer
from lab.earlier_formats import read_earlier


def check_files(files: Sequence[Path]) -> None:
    """Read every file and forget it.

    Raises
    ------
    UsageError
        One of them is not of a known format, or malformed.
    """
    for path in files:
        read_earlier(path)


def import_files(files: Sequence[Path], *, server: TemporaryServer | None, as_json: bool) -> None:
    """Import files and print what each holds and what the gates say."""
    from flows.entropy_import import entropy_import

    if server is not None:
        server.wait_ready()
    terminal.show_progress()
    print(f"{len(files)} file{'s' if len(files) > 1 else ''} of earlier results", file=sys.stderr)
    found: Any = entropy_import([str(path.absolute()) for path in files])
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for part in found["parts"]:
        print(
            f"\n{part['model']} · {Path(part['file']).name} · {part['format']} {part['part']}: "
            f"{part['texts']} texts of {', '.join(part['arms'])}, {part['prompts']} prompts, "
            f"up to {part['samples']} samples a cell; metrics {part['metrics']}"
            + (f"; not read: {', '.join(part['not_read'])}" if part["not_read"] else "")
        )
        if part["decisions"]:
            terminal.print_decisions(part["decisions"])
            print(f"Next: {part['decisions'][-1]['next']}")
        else:
            print("Recorded, not compared: one source.")
