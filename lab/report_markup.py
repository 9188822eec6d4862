"""HTML pieces of the report: escaped text, numbers, verdicts, tables and the SQL behind them.

Everything that came out of the store passes `text` before it reaches the page. A verdict is a word, a mark
and a colour, in that order of importance.
"""

from __future__ import annotations

import base64
import gzip
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Row = Mapping[str, object]

MARKS: Mapping[str, str] = {"DETECTED": "◆", "EQUIVALENT": "≈", "INCONCLUSIVE": "○", "INVALID": "✕"}
NOTHING = '<span class="none">–</span>'


def text(value: object) -> str:
    """A value of the store as HTML; None is a dash.

    >>> text("<b>"), text(None) == NOTHING, text(True)
    ('&lt;b&gt;', True, 'yes')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return html.escape(str(value))


def number(value: object, digits: int = 3, *, sign: bool = False) -> str:
    """A number in plain notation with so many significant digits under 1000; None is a dash.

    >>> number(0.04567), number(1234567), number(-0.2, 2, sign=True), number(3.0)
    ('0.0457', '1,234,567', '−0.20', '3')
    """
    if not isinstance(value, int | float):
        return text(value)
    if isinstance(value, int) or value == round(value) or abs(value) >= 1000:
        shown = f"{value:{'+' if sign else ''},.0f}"
    elif sign:
        shown = f"{value:+.{digits}f}"
    else:
        places = digits - 1 - math.floor(math.log10(abs(value)))
        shown = f"{value:.{min(max(places, 0), 6)}f}"
    return shown.replace("-", "−")


def effect(value: object) -> str:
    """A signed effect with two decimals.

    >>> effect(-0.049), effect(None) == NOTHING
    ('−0.05', True)
    """
    return signed(value, 2)


def signed(value: object, digits: int) -> str:
    """A signed number with so many decimals; what rounds to 0 has no sign.

    >>> signed(-0.0265, 4), signed(0.00001, 4)
    ('−0.0265', '0.0000')
    """
    if not isinstance(value, int | float):
        return text(value)
    is_zero = abs(value) < 0.5 * 10**-digits
    return f"{0:.{digits}f}" if is_zero else f"{value:+.{digits}f}".replace("-", "−")


def p_value(value: object) -> str:
    """A p value, never printed as zero.

    >>> p_value(0.0421), p_value(1e-9), p_value(1.0)
    ('0.042', '&lt; 0.001', '1.000')
    """
    if not isinstance(value, int | float):
        return text(value)
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def percent(value: object) -> str:
    """A share in percent with one decimal.

    >>> percent(0.0156)
    '1.6 %'
    """
    return f"{value:.1%}".replace("%", " %") if isinstance(value, int | float) else text(value)


def interval(low: object, high: object, *, digits: int = 2) -> str:
    """`[low, high]`, signed; a bound that is missing shows as a dash.

    >>> interval(-0.2, 0.31), interval(None, 0.2)
    ('[−0.20, +0.31]', '≤ 0.20')
    """
    if low is None and high is None:
        return NOTHING
    if low is None:
        return f"≤ {number(high, digits)}"
    ends = (number(end, digits, sign=True) if end is not None else NOTHING for end in (low, high))
    return f"[{', '.join(ends)}]"


def contrast(value: object) -> str:
    """`A-B` with a minus sign, on one line.

    >>> contrast("PRNG-TRNG")
    '<span class="pair">PRNG − TRNG</span>'
    """
    if value == "*":
        return "all"
    return f'<span class="pair">{text(value).replace("-", " − ")}</span>'


def seconds(value: object) -> str:
    """A duration in the unit a person would use.

    >>> seconds(3.21), seconds(200), seconds(9000.0)
    ('3.2 s', '3 min 20 s', '2 h 30 min')
    """
    if not isinstance(value, int | float):
        return text(value)
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"


def badge(verdict: object, *, exploratory: object = False, negligible: object = False) -> str:
    """A verdict with its mark, then its flags.

    >>> badge("DETECTED")
    '<span class="verdict detected"><i aria-hidden="true">◆</i> DETECTED</span>'
    """
    if verdict is None:
        return NOTHING
    name = str(verdict)
    parts = [
        f'<span class="verdict {text(name.lower())}"><i aria-hidden="true">{MARKS.get(name, "?")}</i> '
        f"{text(name)}</span>"
    ]
    parts += ['<span class="flag">exploratory</span>'] if exploratory else []
    parts += ['<span class="flag">negligible</span>'] if negligible else []
    return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: its heading and how a row's value is shown."""

    head: str
    show: Callable[[Row], str]
    """Row -> HTML."""
    is_number: bool = True


def column(
    head: str, name: str, show: Callable[[object], str] = text, *, is_number: bool | None = None
) -> Column:
    """A column that shows one field; numbers align right unless `show` is `text`."""
    numeric = show not in (text, contrast) if is_number is None else is_number
    return Column(head=head, show=lambda row: show(row[name]), is_number=numeric)


def table(rows: Sequence[Row], columns: Sequence[Column], *, caption: str, stack: bool = False) -> str:
    """A table that scrolls sideways where it does not fit, or stacks its cells when `stack`.

    The first column heads its row. Rows that carry a `reason` in place of numbers show it in the last cell.
    """
    if not rows:
        return f'<p class="nothing">{caption}: none.</p>'
    heads = "".join(f'<th scope="col"{_number_class(c)}>{c.head}</th>' for c in columns)
    body = "".join(f"<tr>{_cells(row, columns, stack)}</tr>" for row in rows)
    return (
        f'<div class="scroll{" stack" if stack else ""}" role="group" tabindex="0" aria-label="{caption}">'
        f"<table><caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Row, columns: Sequence[Column], stack: bool) -> str:
    """A row's cells, with their headings where a narrow page stacks them."""
    first, *rest = columns

    def head(c: Column) -> str:
        return f' data-head="{c.head}"' if stack else ""

    cells = [f'<th scope="row"{head(first)}>{first.show(row)}</th>']
    cells += [f"<td{head(c)}{_number_class(c)}>{c.show(row)}</td>" for c in rest]
    return "".join(cells)


def _number_class(c: Column) -> str:
    return ' class="num"' if c.is_number else ""


def folded(summary: str, body: str, *, is_open: bool = False) -> str:
    """A part that opens on demand, without JavaScript."""
    return f"<details{' open' if is_open else ''}><summary>{summary}</summary>{body}</details>"


def packed(content: str) -> str:
    """Text for the page's script, gzip in base64: a third of a program, an eighth of a chart.

    >>> packed("")
    'H4sIAAAAAAACAwMAAAAAAAAAAAA='
    """
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()


def sql(query: str, label: str = "SQL") -> str:
    """The query behind a figure or table; the script adds a button that copies it."""
    return sqls([query], label)


def sqls(queries: Sequence[str], label: str = "SQL") -> str:
    """The queries behind something, each to be copied by itself."""
    code = "".join(f"<pre><code>{text(query)}</code></pre>" for query in queries)
    return f'<details class="query"><summary>{label}</summary>{code}</details>'
