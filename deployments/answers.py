"""A query's answer as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
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

    rows = [["" if value is None else _cell(value) for value in row] for row in frame.iter_rows()]
    ended = f"({frame.height} row{'' if frame.height == 1 else 's'})"
    if sys.stdout.isatty() and _columns(frame.columns, rows) > width():
        return "\n".join([*_records(frame.columns, rows), ended])
    console = Console(width=10_000, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines, ended])


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Width of the table, two spaces between columns."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def _records(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A block a row, a line a value: for rows wider than the terminal."""
    from deployments.terminal import width

    margin = max(map(len, names)) + 2
    for row in rows:
        for name, value in zip(names, row, strict=True):
            head = f"{name:<{margin}}"
            folded = textwrap.fill(value, width(), initial_indent=head, subsequent_indent=" " * margin)
            yield folded or name
        yield "-" * min(width(), 40)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
