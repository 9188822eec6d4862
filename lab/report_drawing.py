"""A chart on the page: a still that reads without scripts, and the specification that Vega draws again.

Both are made small first. Vega names every mark for screen readers, which in a chart of 500 marks is half of
the drawing and read by nobody: the still has one title instead, and the live chart names its marks anyway.
The specification is packed (gzip in base64): an eighth of its text, and the rows are in the query's answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lab import figures
from lab.chart_style import PALETTE
from lab.drawings import key_of
from lab.figure_kind import Figure
from lab.report_group import Asked
from lab.report_markup import packed, sql

DIGITS = 6
"""Significant digits of a chart's data on the page; a pixel needs three, a tooltip shows four."""
_NAMED = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')
_LONG = re.compile(r"(?<=\.\d\d)\d+")
_SHAPES = re.compile(r' (?:d|transform|x|y|x1|x2|y1|y2|width|height)="[^"]*"')


def figure(shown: Figure, asked: Asked) -> str:
    """A chart as a still, its specification for the script, what it shows, its query; empty without rows."""
    if asked.frame.is_empty():
        return ""

    def drawn() -> str:
        return _drawn(shown, asked)

    key = key_of(asked.frame, shown.draw, __name__, shown.title, shown.query)
    body = drawn() if asked.drawings is None else asked.drawings.get(key, drawn)
    return (
        f'<figure data-chart="still"><h4>{shown.title}</h4>{body}<figcaption>{shown.caption}</figcaption>'
        f"{sql(asked.sql)}</figure>"
    )


def _drawn(shown: Figure, asked: Asked) -> str:
    spec = figures.specification(shown.draw(asked.frame))
    data = json.dumps(slim_data(spec), ensure_ascii=False, default=str, separators=(",", ":"))
    return (
        f'<div class="still">{themed(slim_svg(figures.draw_svg(spec)))}</div>'
        f'<script type="text/plain">{packed(themed(data))}</script>'
    )


def slim_svg(drawing: str) -> str:
    """A drawing without names for single marks, places to a hundredth of a pixel.

    >>> slim_svg('<svg role="img"><title>t</title><path aria-label="a: 1" role="mark" d="M0.12345,2"/></svg>')
    '<svg role="img"><title>t</title><path d="M0.12,2"/></svg>'
    """
    head, rest = drawing.split(">", 1)
    return f"{head}>{_SHAPES.sub(lambda found: _LONG.sub('', found[0]), _NAMED.sub('', rest))}"


def slim_data(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A specification with the columns that the chart names, numbers to `DIGITS` significant digits.

    >>> slim_data({"encoding": {"x": "a"}, "datasets": {"d": [{"a": 0.123456789, "b": 1}]}})
    {'encoding': {'x': 'a'}, 'datasets': {'d': [{'a': 0.123457}]}}
    """
    chart = {name: part for name, part in spec.items() if name != "datasets"}
    named = json.dumps(chart, ensure_ascii=False, default=str)
    datasets = {
        key: [{name: _short(value) for name, value in row.items() if name in named} for row in rows]
        for key, rows in spec.get("datasets", {}).items()
    }
    return {**chart, "datasets": datasets}


def _short(value: object) -> object:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def themed(drawing: str) -> str:
    """SVG or JSON of a chart with its colours as variables of the style sheet.

    >>> themed('fill="#1d2329"')
    'fill="var(--ink)"'
    """
    for name, colour in PALETTE.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing
