"""Does what a run of the nanodesmo study left hold together: figures, answers, phases, names in the README?

Each check says what it looked at. Nothing is computed again; rows and files are read as they are.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from lab import report_queries_nano as nano
from lab import report_queries_nano_runs as runs
from lab.checks import Check
from lab.nano_exports import EXPORTS
from lab.nano_figures import figures_of, is_newest
from lab.report_group import Asked, Group, ask, read_groups
from lab.store import Store

COLUMNS = 80
"""Of a line of the trace."""
TRACE = "SELECT finding, phase, query, figure FROM figure_trace"
README = Path(__file__).resolve().parent.parent / "README.md"
FOLDERS = ("perturbation", "generalization", "memory", "controls", "mlp", "composite")
ENDINGS = r"(?:\.(?:svg|png|html|json|jsonl|csv))?"
NAME = re.compile(
    rf"figures/nanodesmo/([\w.<>*/-]+?{ENDINGS})(?=[^\w.<>*/-]|\.?$|\.\s)|`((?:{'|'.join(FOLDERS)})/[\w.<>*-]+)`"
)
"""A figure of this study as a README names it: by its path, or in backticks with its folder."""


def verify(store: Store, home: Path, readme: Path | None = None) -> list[Check]:
    """Check the last plan of the study: its figures and exports, its answers, and the README's names.

    Parameters
    ----------
    home
        Figures lie in `home/figures/nanodesmo`.
    readme
        None for the README of this checkout; without one, nothing it could name is missing.

    Returns
    -------
    list of Check
        One a line; a store without a run of the study has a single one, that fails.
    """
    groups = [group for group in read_groups(store) if is_newest(store, group)]
    if not groups:
        return [
            Check(name="run", ok=False, said="no run of nanodesmo is in the store; `ladder run nanodesmo`")
        ]
    group, folder = groups[0], home / "figures" / nano.STUDY

    def asked(query: str) -> Asked:
        return ask(store, query, group.parameters)

    return [
        *_figures(asked, folder, group),
        *_exports(asked, folder),
        _leverage(asked),
        *_signatures(asked),
        _comparison(asked, "memory", "memory_matters", nano.MEMORY),
        _comparison(asked, "controls", "beats_controls", nano.CONTROLS),
        *_phases(asked),
        *_named(readme or README, folder),
    ]


def trace(store: Store) -> list[str]:
    """Where each finding comes from: its phase and figure, and below them the query that gives its rows.

    Queries are in DuckDB's short form, every column of `test` and in no order; the view `figure_trace` has
    them as figures ask. Lines are at most 80 columns, but for a name that is longer.
    """
    rows = store.read(TRACE).to_dicts()
    found: list[str] = []
    for row in rows:
        figure = row["figure"] or "no figure of its own"
        found += _folded(f"{row['finding']} · {row['phase']} · {figure}", "  ")
        short = str(row["query"]).partition(" FROM ")[2].rpartition(" ORDER BY ")[0]
        found += _folded(f"    FROM {short}", "      ")
    return found


def _folded(line: str, indent: str) -> list[str]:
    return textwrap.wrap(
        line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _figures(asked: Callable[[str], Asked], folder: Path, group: Group) -> Iterator[Check]:
    """Every figure with rows is there, opens, and is of this plan."""
    for name, shown in figures_of(asked).items():
        rows = asked(shown.query).frame.height
        drawing, trace = folder / f"{name}.svg", folder / f"{name}.json"
        if not rows:
            why = _skipped(asked, name)
            told = f"no rows: {why or 'its phase was not run, or has no result; `ladder run nanodesmo`'}"
            yield Check(name=f"figure {name}", ok=why is not None, said=told)
            continue
        problem = _opens(drawing) or _holds(trace, group.plan_hash)
        said = f"{drawing.relative_to(folder.parent)} of {rows} rows"
        told = f"{problem}; write it again with `ladder figures nanodesmo`" if problem else said
        yield Check(name=f"figure {name}", ok=problem is None, said=told)


def _skipped(asked: Callable[[str], Asked], name: str) -> str | None:
    """Why the phase of a figure was skipped; None when it was not."""
    told = {str(row["phase"]): str(row["reason"]) for row in asked(runs.SKIPPED).rows}
    frozen = name.endswith("frozen-weight-test")
    folder = name.partition("/")[0]
    suite = folder if folder in runs.SUITES else "core"
    return told.get(f"frozen_{suite}" if frozen else suite)


def _opens(path: Path) -> str | None:
    """Why a drawing cannot be read; None when it can."""
    try:
        root = ElementTree.parse(path).getroot()
    except OSError:
        return f"{path.name} is not there"
    except ElementTree.ParseError as error:
        return f"{path.name} is no SVG: {error}"
    return None if root.tag.endswith("svg") else f"{path.name} is <{root.tag}>, not SVG"


def _holds(path: Path, plan_hash: str) -> str | None:
    """Why a figure's rows cannot be trusted; None when they can."""
    body = _json(path)
    if not isinstance(body, dict) or not body.get("rows"):
        return f"{path.name} has no rows"
    return None if plan_hash in str(body.get("query")) else f"{path.name} is of another plan"


def _json(path: Path) -> object:
    try:
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found


def _exports(asked: Callable[[str], Asked], folder: Path) -> Iterator[Check]:
    """Files beside the figures: there, not empty, and JSON where they say so."""
    for name in EXPORTS:
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        wrong = size == 0 or (path.suffix == ".json" and _json(path) is None)
        said = f"{size} bytes" if not wrong else "not there or not readable; `ladder figures nanodesmo`"
        yield Check(name=f"export {name}", ok=not wrong, said=said)


def _leverage(asked: Callable[[str], Asked]) -> Check:
    """The frozen effect and its p are numbers in the store."""
    rows = asked(nano.frozen(nano.MAIN)).rows
    of = {(row["hypothesis"], row["arm"]): row for row in rows if row["metric"] == "entropy_nats"}
    effect, verdict = of.get(("published", "self-analysis")), of.get(("leverage", "*"))
    if effect is None or verdict is None or effect["estimate"] is None or verdict["p"] is None:
        why = verdict["reason"] if verdict else None
        return Check(name="frozen effect", ok=False, said=f"no effect or no p: {why or 'not tested'}")
    said = (
        f"{effect['estimate']:.4f} nats, {verdict['estimate']:+.4f} beyond rotations, p {verdict['p']:.3g} "
        f"over {verdict['n']} seeds: {verdict['verdict']}"
    )
    return Check(name="frozen effect", ok=True, said=said)


def _signatures(asked: Callable[[str], Asked]) -> Iterator[Check]:
    """Every regime has a verdict by the separability rule; none that is INVALID."""
    found = asked(nano.signatures(nano.MAIN)).rows
    if not found:
        yield Check(name="signatures", ok=False, said="not asked; `ladder run nanodesmo --only core`")
    for row in found:
        name = "signatures" if row["regime"] == "*" else f"signature of {row['regime']}"
        numbers = (
            f", AUC {row['common_state']:.3f} of all channels, shuffled up to {row['shuffled_high']:.3f}"
            if row["common_state"] is not None and row["shuffled_high"] is not None
            else ""
        )
        why = f" ({row['reason']})" if row["reason"] else ""
        verdict = row["verdict"]
        yield Check(name=name, ok=verdict not in (None, "INVALID"), said=f"{verdict}{numbers}{why}")


def _comparison(asked: Callable[[str], Asked], family: str, hypothesis: str, query: str) -> Check:
    """A family of comparisons is there with numbers and a verdict that is not INVALID."""
    compared = [row for row in asked(query).rows if row["role"] == "decides"]
    left_out = [row for row in asked(runs.SKIPPED).rows if row["phase"] == family]
    if left_out and not compared:
        return Check(name=f"{family} comparison", ok=True, said=f"skipped: {left_out[0]['reason']}")
    known = sum(row["estimate"] is not None for row in compared)
    verdict = [
        row
        for row in asked(nano.VERDICTS).rows
        if row["hypothesis"] == hypothesis and row["scope"] == nano.MAIN
    ]
    told = f"{known} of {len(compared)} comparisons have a number"
    said = f"{verdict[0]['verdict']}, {told}" if verdict else f"no verdict, {told}"
    ok = bool(known and verdict and verdict[0]["verdict"] not in (None, "INVALID"))
    why = f" ({verdict[0]['reason']})" if verdict and verdict[0]["reason"] and not ok else ""
    return Check(name=f"{family} comparison", ok=ok, said=said + why)


def _phases(asked: Callable[[str], Asked]) -> Iterator[Check]:
    """Every phase with runs or answers was run, or says why it was skipped."""
    skipped = {str(row["phase"]): str(row["reason"]) for row in asked(runs.SKIPPED).rows}
    analysed = {str(row["phase"]) for row in asked(ANALYSED).rows}
    for phase in nano.PHASES[1:-2]:
        if phase in analysed:
            yield Check(name=f"phase {phase}", ok=True, said="analysed")
        elif phase in skipped:
            yield Check(name=f"phase {phase}", ok=True, said=f"skipped: {skipped[phase]}")
        else:
            told = f"neither analysed nor skipped with a reason; `ladder run nanodesmo --only {phase}`"
            yield Check(name=f"phase {phase}", ok=False, said=told)


ANALYSED = f"""WITH {nano.ANSWERS}
SELECT DISTINCT phase FROM answer ORDER BY phase
"""


def named_figures(text: str) -> list[str]:
    """Figures of this study that a text names, in order, each once.

    >>> named_figures("see `var/figures/nanodesmo/memory/memory-gate.svg` and `perturbation/regime_<id>`.")
    ['memory/memory-gate.svg', 'perturbation/regime_<id>']
    """
    found = [match[1] or match[2] for match in NAME.finditer(text)]
    return list(dict.fromkeys(name for name in found if name and not name.endswith("/")))


def _named(readme: Path, folder: Path) -> Iterator[Check]:
    """Every figure that the README names is there; `<id>` and `*` stand for any."""
    if not readme.is_file():
        yield Check(name="README", ok=True, said=f"there is no {readme.name} beside the program")
        return
    names = named_figures(readme.read_text(encoding="utf-8"))
    if not names:
        yield Check(name="README", ok=True, said="names no figure of nanodesmo")
    for name in names:
        pattern = re.sub(r"<[^>]*>", "*", name)
        pattern = pattern if re.search(r"\.(svg|png|html|json|jsonl|csv)$", pattern) else f"{pattern}.svg"
        here = sorted(folder.glob(pattern))
        said = f"{here[0].name}{' and others' if len(here) > 1 else ''}" if here else "not there"
        yield Check(name=f"README names {name}", ok=bool(here), said=said)
