"""Where run products live. `LADDER_HOME` names it, `./var` is the default; every command shares it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lab.errors import UsageError

VARIABLE = "LADDER_HOME"


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
