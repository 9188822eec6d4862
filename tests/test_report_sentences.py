"""Each number in a sentence of the report's first page is in what the SQL printed beside it returns.

The page is read as a person reads it: sentences out of the HTML, queries out of their boxes, put to the
store by the door that `ladder sql` uses. Numbers inside names (`A-001`, `gpt2`) are no numbers; numbers of a
finding that the store keeps as text must stand in a text that a query returns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab.report import write_report
from lab.report_group import read_groups
from lab.store import Store
from tests.night_rows import NIGHT, QUEUED
from tests.small_mechanism import record_mechanism
from tests.small_nano import record_nano
from tests.small_quantisation import record_quantisation
from tests.small_sense import record_sense
from tests.small_study import record_study

NUMBER = re.compile(r"(?<![\w.])(?<!\w-)(< )?([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)( ?%)?(?!\w|\.\d|-\w)")
FIXED = ("80 % power", "includes 0")
"""Numbers that are words of the page: the power that reaches are computed for, and no difference."""


@dataclass
class Said:
    """Sentences and the queries beside them."""

    words: str = ""
    queries: list[str] = field(default_factory=list)


class Glance(HTMLParser):
    """What stands in the items of the first page; the night's sentence is one of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Said] = []
        self._in: list[str] = []
        self.feed(page[page.index('<section id="glance">') : page.index("</article></section>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = dict(attrs).get("class") or ""
        if ("answers" in self._in and tag == "li") or name == "night":
            self.found.append(Said())
        if tag == "code":
            self.found[-1].queries.append("")
        self._in.append(tag if tag == "code" else name)

    def handle_endtag(self, tag: str) -> None:
        self._in.pop()

    def handle_data(self, data: str) -> None:
        if "code" in self._in:
            self.found[-1].queries[-1] += data
        elif self._in and self._in[-1] in ("said", "note") and self.found:
            self.found[-1].words += f"{data} "


def unfounded(words: str, values: list[object]) -> list[str]:
    """The numbers of a sentence that no value explains: itself, its share in percent, 1 minus that."""
    for phrase in FIXED:
        words = words.replace(phrase, "")
    texts = [value for value in values if isinstance(value, str)]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    bad = []
    for less, digits, percent in NUMBER.findall(words.replace("−", "-")):
        if not (_written(digits, texts) or any(_shows(less, digits, percent, v) for v in numbers)):
            bad.append(f"{less}{digits}{percent}")
    return bad


def _written(digits: str, texts: list[str]) -> bool:
    return any(re.search(rf"(?<![\w.]){re.escape(digits)}(?![\w])", text) for text in texts)


def _shows(less: str, digits: str, percent: str, value: float) -> bool:
    """Whether digits are what rounding a value gives."""
    shown, mantissa = float(digits.replace(",", "")), digits.split("e")[0]
    if less:
        return value < shown
    unit = 10.0 ** -len(mantissa.partition(".")[2])
    if "e" in digits:
        unit *= 10.0 ** int(digits.split("e")[1])
    meant = (100 * value, 100 * (1 - value)) if percent else (value,)
    return any(math.isclose(shown, one, rel_tol=1e-9, abs_tol=0.5001 * unit) for one in meant)


def check(store: Store, page: Path) -> int:
    """Every sentence of a report against its queries; how many numbers were found."""
    counted, bad = 0, []
    for said in Glance(page.read_text(encoding="utf-8")).found:
        values: list[object] = []
        for query in said.queries:
            values += [value for row in store.sql(query).frame.rows() for value in row]
        counted += len(NUMBER.findall(said.words))
        bad += [(number, said.words) for number in unfounded(said.words, values)]
    assert bad == []
    return counted


def record_night(store: Store) -> None:
    """A study, and a night beside it."""
    record_study(store)
    store.record([NIGHT, QUEUED])


RECORDED: dict[str, tuple[Callable[[Store], object], int]] = {
    "seeds": (record_study, 30),
    "quantisation": (record_quantisation, 30),
    "mechanism": (record_mechanism, 20),
    "nanodesmo": (record_nano, 15),
    "sense": (record_sense, 30),
    "night": (record_night, 35),
}
"""Study -> how it is recorded, and the least numbers that its sentences have."""


@pytest.mark.parametrize("study", RECORDED)
def test_each_number_of_a_sentence_is_recomputed_by_the_sql_beside_it(study: str, tmp_path: Path) -> None:
    record, least = RECORDED[study]
    lab = Store(tmp_path)
    record(lab)
    assert check(lab, write_report(lab, tmp_path / "report.html")) >= least


def test_a_decision_without_a_row_of_its_family_prints_where_its_look_is_from(tmp_path: Path) -> None:
    lab = Store(tmp_path)
    record_quantisation(lab)
    [group] = read_groups(lab)
    for step in group.standing:
        assert (str(step["gate"]), int(str(step["look"]))) not in group.verdicts
        *_, last = group.queries(step)
        assert lab.sql(last).frame["look"].to_list() == [step["look"]]


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        ("effect −0.12 SD [-0.30, +0.05], p < 0.001, 1,024 texts, 95 % interval, 12.5 %", []),
        ("effect −0.13 SD over 1,025 texts", ["-0.13", "1,025"]),
        ("A-001 of cldr-gpt2 at 0.1m, seed 3 says 7.5e-08", []),
        ("seed 4 says 7.6e-08", ["4", "7.6e-08"]),
    ],
)
def test_a_number_that_no_query_returns_is_found(words: str, bad: list[str]) -> None:
    values = [-0.1234, -0.2999, 0.05, 1e-9, 1024, 0.05, 0.125, "seed 3 DETECTED", 7.51e-8, None, True]
    assert unfounded(words, values) == bad
