"""What a figure of the report is: a query, a chart of its rows, and words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair as alt
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart of the report."""

    title: str
    caption: str
    query: str
    draw: Callable[[pl.DataFrame], alt.TopLevelMixin]
