"""What a person sees on the terminal: plain progress lines, verdicts, tables. Nothing here decides."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

COLOURS = {"DETECTED": "green", "EQUIVALENT": "blue", "INCONCLUSIVE": "yellow", "INVALID": "red"}
VERDICT_WIDTH, GATE_WIDTH = 13, 17


def show_progress() -> None:
    """Send the lab's own log lines to stderr, one line each, without Prefect's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    for name in ("tasks", "flows"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        logger.propagate = False


class _Lines(logging.Formatter):
    """Long lines folded at the width of a terminal; a file gets them whole."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if not sys.stderr.isatty() or "\n" in line:
            return line
        return textwrap.fill(line, width(), subsequent_indent=" " * 10)


def width() -> int:
    """Columns of the terminal, 80 where there is none."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def print_decisions(decisions: Sequence[Mapping[str, Any]]) -> None:
    """One paragraph a decision: verdict, gate, sentence."""
    console = Console(width=width(), highlight=False)
    indent = VERDICT_WIDTH + GATE_WIDTH
    for row in decisions:
        flags = [name for name in ("exploratory", "negligible") if row[name]]
        said = f"{row['sentence']}{' (' + ', '.join(flags) + ')' if flags else ''}."
        lines = textwrap.wrap(said, max(20, width() - indent)) or [""]
        first = Text(f"{row['verdict']:<{VERDICT_WIDTH}}", style=COLOURS[row["verdict"]])
        console.print(first + Text(f"{row['gate']:<{GATE_WIDTH}}", style="bold") + Text(lines[0]))
        for line in lines[1:]:
            console.print(Text(" " * indent + line))
