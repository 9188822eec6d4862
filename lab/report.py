"""The report: one HTML file that needs no network, made of what the store holds.

It opens with a sentence a question and goes down to the query behind each figure. The charts are there
twice, as SVG in the page and as a specification that the embedded Vega draws again, so that the page reads
the same without JavaScript. Everything comes through `Store.read`; nothing is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from lab import report_queries as queries
from lab.counted import counted
from lab.errors import UsageError
from lab.report_figures import WHOLE_STORE, figure
from lab.report_glance import contents, glance
from lab.report_group import Group, ask, read_groups
from lab.report_markup import badge, column, number, packed, sql, table, text
from lab.report_sections import study_section
from lab.report_summary import summary_section
from lab.still import Source, Still, still
from lab.store import Store

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"
)
"""The page may load nothing. Vega compiles its expressions, hence `unsafe-eval`."""


def write_report(store: Store, out: Path) -> Path:
    """Write the report of everything in the store as one HTML file, replaced in one step.

    Parameters
    ----------
    store
        What to report; waiting batches are drained first.
    out
        The file, e.g. `var/report.html`; its folder is made.

    Returns
    -------
    Path
        `out`, absolute.

    Raises
    ------
    UsageError
        `out` is a folder or in none that can be written.
    StoreLockedError
        The database stayed held by another program.
    OSError
        The file could not be written to its end, as on a full disk; an older one stands.
    """
    out = Path(out).expanduser().absolute()
    temporary = out.with_name(out.name + ".tmp")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; name the file: {out / 'report.html'}")
    try:  # before the work
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}); give a path that can be written") from None
    with still(store) as source:
        page = _page(source, read_groups(source))
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, out)
    if isinstance(source, Still):
        source.drawings.forget_others()
    return out


def _page(store: Source, groups: Sequence[Group]) -> str:
    body = _studies(store, groups) if groups else _empty()
    vega = f'<script type="text/plain" id="vega">{_vega(store)}</script>' if groups else ""
    script = f"{vega}<script>{_part('report.js')}</script>" if groups else ""
    made = datetime.now(UTC)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Overnight Ladder, {made:%Y-%m-%d}</title><style>{_part('report.css')}</style></head><body>"
        '<a class="skip" href="#glance">To the answers</a>'
        f"<header><h1>Overnight Ladder</h1>"
        f'<p class="meta">What the store held on {made:%Y-%m-%d at %H:%M} UTC.</p></header>'
        f"<main>{body}</main>{script}</body></html>\n"
    )


def _studies(store: Source, groups: Sequence[Group]) -> str:
    sections = "".join(study_section(store, group) for group in counted(groups, "report: studies"))
    return (
        f'<nav aria-label="Sections"><ul>{contents(groups)}<li><a href="#summary">across nights</a></li>'
        f'<li><a href="#quality">seeds and data quality</a></li></ul>'
        f'</nav><section id="glance"><h2>At a glance</h2>{_legend()}{glance(store, groups)}</section>'
        f"{sections}{summary_section(store)}{_quality(store)}"
    )


MEANINGS = {
    "DETECTED": "the declared test rejects after correction, the interval excludes 0; of a check: it holds",
    "EQUIVALENT": "the effect lies inside the declared margin",
    "INCONCLUSIVE": "neither: what would settle it stands beside it",
    "INVALID": "the data fail a check, so nothing may be concluded",
}


def _legend() -> str:
    words = "".join(f"<li>{badge(verdict)} {meaning}</li>" for verdict, meaning in MEANINGS.items())
    return (
        f'<ul class="legend note">{words}'
        '<li><span class="flag">exploratory</span> plan or looks other than declared, or the plan is younger '
        "than its texts</li>"
        '<li><span class="flag">negligible</span> detected, but inside the margin</li></ul>'
    )


def _quality(store: Source) -> str:
    counts = ask(store, queries.QUALITY)
    columns = [column("what", "what", is_number=False), column("count", "n", number)]
    charts = "".join(figure(shown, ask(store, shown.query)) for shown in WHOLE_STORE.values())
    drawn = f'<h3>Seeds</h3><div class="figures">{charts}</div>' if charts else ""
    return (
        f'<section id="quality"><h2>Seeds and data quality</h2>{drawn}<h3>Rows</h3>'
        f"{table(counts.rows, columns, caption='Rows that could not be used, and why they are still here')}"
        f"{sql(counts.sql)}{_refused(store)}</section>"
    )


def _refused(store: Source) -> str:
    """Batches that could not be stored, and those still waiting."""
    files = sorted(store.outbox.rejected.glob("*.txt")) if store.outbox.rejected.is_dir() else []
    rows = [{"file": f.stem, "why": f.read_text(encoding="utf-8", errors="replace").strip()} for f in files]
    columns = [column("file", "file", is_number=False), column("why", "why", is_number=False)]
    waiting = len(store.outbox.waiting())
    late = f"<p>{waiting} batches wait in the outbox and are not on this page.</p>" if waiting else ""
    return late + table(rows, columns, caption="Batches refused by the store", stack=True)


def _empty() -> str:
    return (
        "<h2>Nothing to report yet</h2>"
        "<p>No study has run in this store. Run one, then write the report again:</p>"
        f"<pre><code>{text('ladder run entropy_seeds --profile smoke')}\nladder report</code></pre>"
        "<p>The smoke profile trains its own small model, downloads nothing and takes some minutes.</p>"
    )


def _part(name: str) -> str:
    return resources.files("lab").joinpath(name).read_text(encoding="utf-8")


def _vega(store: Source) -> str:
    """Vega, Vega-Lite and Vega-Embed as one packed script; bundling takes some 2 s, so it is kept."""
    if isinstance(store, Still):
        return store.drawings.get(f"vega-packed-{version('vl-convert-python')}", _bundled)
    return _bundled()


def _bundled() -> str:
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    return packed(bundle)
