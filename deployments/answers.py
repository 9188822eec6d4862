"""A query's answer as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from lab.errors import UsageError, unknown
from lab.store import Answer

FORMATS = ("table", "csv", "json", "parquet")


def write(answer: Answer, format_: str, out: Path | None) -> None:
    """Print the answer, or write it to a file.

    Raises
    ------
    UsageError
        Unknown format, Parquet without a file, or a file that cannot be written.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if format_ == "parquet" and out is None:
        raise UsageError("parquet is no text; say where to write it: --out FILE")
    if out is None:
        print(_text(answer.frame, format_))
    else:
        _write_file(answer.frame, format_, out)
    if answer.note:
        print(f"note: {answer.note}", file=sys.stderr)


def _write_file(frame: pl.DataFrame, format_: str, out: Path) -> None:
    try:
        if format_ == "parquet":
            frame.write_parquet(out)
        else:
            out.write_text(_text(frame, format_) + "\n", encoding="utf-8")
    except OSError as error:
        why = f"cannot write {out} ({error.strerror}); give a path in a folder that exists"
        raise UsageError(why) from error


def _text(frame: pl.DataFrame, format_: str) -> str:
    return {"table": as_table, "csv": _csv, "json": _json}[format_](frame)


def _csv(frame: pl.DataFrame) -> str:
    return frame.write_csv().rstrip("\n")


def _json(frame: pl.DataFrame) -> str:
    return frame.write_json()


def as_table(frame: pl.DataFrame) -> str:
    """Every row and column, long values whole, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    from deployments.terminal import width

    console = Console(width=width() if sys.stdout.isatty() else 10_000, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        table.add_row(*("" if value is None else _cell(value) for value in row))
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, f"({frame.height} row{'' if frame.height == 1 else 's'})"])


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
