"""A query's answer as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from deployments.visible import visible
from lab.errors import UsageError, unknown
from lab.store import Answer

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

FORMATS = ("table", "csv", "json", "parquet")


def write(answer: Answer, format_: str, out: Path | None) -> None:
    """Print the answer, or write it to a file.

    Raises
    ------
    UsageError
        Unknown format, Parquet without a file, a file that cannot be written, or a format that cannot hold
        the answer's types.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if format_ == "parquet" and out is None:
        raise UsageError("parquet is no text; say where to write it: --out FILE")
    _refuse_unwritable(answer.frame, format_)
    if out is None:
        print(_text(answer.frame, format_, on_terminal=sys.stdout.isatty()))
    else:
        _write_file(answer.frame, format_, out)
    if answer.note:
        print(visible(f"note: {answer.note}"), file=sys.stderr)


def _refuse_unwritable(frame: pl.DataFrame, format_: str) -> None:
    """Refuse types that the format has no form for: polars would raise on the first, panic on the second."""
    for name, dtype in frame.schema.items():
        holds_bytes = any(kind == pl.Binary for kind in _within(dtype))
        in_parts = dtype.is_nested() or isinstance(dtype, pl.BaseExtension)
        if (format_ == "csv" and (in_parts or holds_bytes)) or (format_ == "json" and holds_bytes):
            kind = str(dtype).lower()
            raise UsageError(f"column {name!r} is {kind}, which {format_} does not hold; cast it to VARCHAR")


def _within(dtype: PolarsDataType) -> Iterator[PolarsDataType]:
    """A type and those that it is made of."""
    yield dtype
    parts: list[PolarsDataType] = []
    if isinstance(dtype, pl.Struct):
        parts = [field.dtype for field in dtype.fields]
    elif isinstance(dtype, pl.Map):
        parts = [dtype.key, dtype.value]
    elif isinstance(dtype, pl.List | pl.Array):
        parts = [dtype.inner]
    elif isinstance(dtype, pl.BaseExtension):
        parts = [dtype.ext_storage()]
    for part in parts:
        yield from _within(part)


def _write_file(frame: pl.DataFrame, format_: str, out: Path) -> None:
    try:
        if format_ == "parquet":
            frame.write_parquet(out)
        else:
            out.write_text(_text(frame, format_, on_terminal=False) + "\n", encoding="utf-8")
    except OSError as error:
        why = f"cannot write {out} ({error.strerror}); give a path in a folder that exists"
        raise UsageError(why) from error


def _text(frame: pl.DataFrame, format_: str, *, on_terminal: bool) -> str:
    """The answer as text: CSV and JSON as they are for programs, nothing that a terminal obeys for people."""
    if format_ == "table":
        return as_table(frame, on_terminal=on_terminal)
    text = _csv(frame) if format_ == "csv" else _json(frame)
    return visible(text) if on_terminal else text


def _csv(frame: pl.DataFrame) -> str:
    return frame.write_csv().rstrip("\n")


def _json(frame: pl.DataFrame) -> str:
    return frame.write_json()


def as_table(frame: pl.DataFrame, *, on_terminal: bool) -> str:
    """Every row and column, long values whole, for people; names and values stand as they are, unread."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deployments.terminal import width

    names = [visible(name) for name in frame.columns]
    rows = [["" if value is None else visible(_cell(value)) for value in row] for row in frame.iter_rows()]
    ended = f"({frame.height} row{'' if frame.height == 1 else 's'})"
    if on_terminal and _columns(names, rows) > width():
        return "\n".join([*_records(names, rows), ended])
    console = Console(width=10_000, highlight=False, force_terminal=on_terminal)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, dtype in zip(names, frame.dtypes, strict=True):
        side: Literal["left", "right"] = "right" if dtype.is_numeric() else "left"
        table.add_column(Text(name), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
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

    margin = min(max(map(len, names)) + 2, width() // 2)  # `textwrap` hangs without room beside it
    for row in rows:
        for name, value in zip(names, row, strict=True):
            beside = len(name) < margin - 1 and bool(value.strip())
            if not beside:
                yield name
            if value.strip():
                head = f"{name if beside else '':<{margin}}"
                yield textwrap.fill(value, width(), initial_indent=head, subsequent_indent=" " * margin)
        yield "-" * min(width(), 40)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
