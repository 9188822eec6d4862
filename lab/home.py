"""Where run products live. `LADDER_HOME` names it, `./var` is the default; every command shares it."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path

from lab.durable import write_durably
from lab.errors import UsageError

VARIABLE, HOME_ID = "LADDER_HOME", "home-id"
OWN_SERVER = "LADDER_OWN_SERVER"
"""Set where the Prefect server lasts no longer than the command that started it."""


def resolve_home() -> Path:
    """The home as an absolute path, made if absent.

    Raises
    ------
    UsageError
        When it cannot be made or written.
    """
    home = Path(os.environ.get(VARIABLE) or "var").expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise UsageError(
            f"home {home} cannot be written ({error.strerror}); set {VARIABLE} to a folder that can"
        ) from error
    return home


def home_id(home: Path) -> str:
    """16 hexadecimal digits, drawn once: they tell the runs of several homes on one Prefect server apart.

    Raises
    ------
    UsageError
        The file that holds them is damaged: with others, what is at work now could be launched again.
    OSError
        The home cannot be written.
    """
    path = home / HOME_ID
    if not path.exists():
        write_durably(path, secrets.token_hex(8).encode())
    found = path.read_bytes()
    if re.fullmatch(rb"[0-9a-f]{16}", found) is None:
        raise UsageError(f"{path} is damaged; delete it when no night of this home is at work")
    return found.decode()
