"""Arguments and options that several commands of `ladder` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _studies(incomplete: str) -> list[str]:
    """Names of studies for the shell, read off the files of `flows`: importing them takes seconds."""
    folder = Path(__file__).resolve().parent.parent / "flows"
    names = [file.stem for file in folder.glob("*.py") if "\nSTUDY = " in file.read_text(encoding="utf-8")]
    return sorted(name for name in names if name.startswith(incomplete))


StudyArgument = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study, such as entropy_seeds", autocompletion=_studies),
]
StudyOption = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="Only this one", autocompletion=_studies)
]
ProfileOption = Annotated[str, typer.Option("--profile", help="smoke, fast, laptop or full")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change one setting; repeatable")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Where to write it")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable")]
