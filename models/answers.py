"""Worked answers in GSM8K's form: prompt and completion, and three rules that read a number off a text.

A reference answer is some lines of work and then `#### 20`. `strict` and `flexible` are the two filters of
lm-evaluation-harness's task `gsm8k` (version 3.0), and compare as its `exact_match` does, so figures can
stand beside published ones. `numeric` compares values, not spellings: 20.00 is 20.

The harness stops generation at `STOPS`; a text generated without that is cut by `until_stop` before reading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

ExtractionRule = Literal["strict", "flexible", "numeric"]
RULES: tuple[ExtractionRule, ...] = get_args(ExtractionRule)

MARK = "#### "
"""What stands before the final number of an answer."""
STOPS = ("Question:", "</s>", "<|im_end|>")
"""Texts at which the harness stops generating."""

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_SIGN = r"(?:(?<![0-9.,)])[-\u2212]\$?|\$[-\u2212]?)?"
_NUMBER = re.compile(_SIGN + r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question with its worked answer."""

    item_id: str
    question: str
    answer: str
    """All of the reference answer; the last `#### ` in it is followed by the gold."""

    def __post_init__(self) -> None:
        """Refuse what could not be scored: an empty field, or an answer without a gold that is a number."""
        for field in ("item_id", "question", "answer"):
            if not getattr(self, field).strip():
                raise ValueError(f"item {self.item_id!r}: {field} is empty; fill it in or leave the item out")
        if MARK not in self.answer or number(self.gold) is None:
            raise ValueError(
                f"item {self.item_id!r}: the answer ends in {self.answer[-40:]!r}, which is no gold; "
                f"it must end with a line such as '{MARK}20'"
            )

    @property
    def gold(self) -> str:
        """What an extracted text is compared with: the text after the last `#### `, normalised."""
        return normalised(self.answer.strip())


def prompt(question: str) -> str:
    """The text before the answer, as the harness words it.

    >>> prompt("What is 2 and 3?")
    'Question: What is 2 and 3?\\nAnswer:'
    """
    return f"Question: {question}\nAnswer:"


def completion(answer: str) -> str:
    """What follows the prompt; the space keeps the tokens of both the same when they are joined.

    >>> completion("2+3=5\\n#### 5")
    ' 2+3=5\\n#### 5'
    """
    return f" {answer}"


def until_stop(text: str) -> str:
    """A generated text up to the first of `STOPS`.

    >>> until_stop(" 2+3=5\\n#### 5\\n\\nQuestion: And 4?")
    ' 2+3=5\\n#### 5\\n\\n'
    """
    return text[: min((place for stop in STOPS if (place := text.find(stop)) >= 0), default=len(text))]


def normalised(text: str) -> str:
    """A text as the harness' `exact_match` compares it for this task.

    In its order: without commas, without dollar signs, without all up to the last `#### `, without one period
    at the end; in lower case.

    >>> normalised("5 x 210 is 1,050\\n#### $1,050.")
    '1050'
    """
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        text = re.sub(ignored, "", text)
    return text.lower()


def number(text: str) -> Decimal | None:
    """The value of a text that is a number and nothing else; None for any other.

    >>> number("-1,050.50"), number("12 apples")
    (Decimal('-1050.50'), None)
    """
    found = _NUMBER.fullmatch(text.strip())
    return _value(found.group()) if found else None


def extract(text: str, rule: ExtractionRule) -> str | None:
    """What a rule reads off a generated text; None when there is nothing that it would read.

    strict
        The first match of `#### (-?[0-9.,]+)`.
    flexible
        The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`; a full stop by itself is no match, a pair of them is.
    numeric
        After the last `####` the first number; without that mark the last number of the text. A minus after a
        digit or a closing bracket is an operator. Returned without commas, dollar sign and trailing zeros.

    Raises
    ------
    ValueError
        For another rule.

    Examples
    --------
    >>> text = "29-9=20\\n#### 20.0 of 29 apples"
    >>> [extract(text, rule) for rule in RULES]
    ['20.0', '29', '20']
    >>> extract("I do not know", "strict") is None
    True
    """
    if rule == "strict":
        first = _STRICT.search(text)
        return first.group(1) if first else None
    if rule == "flexible":
        found = _FLEXIBLE.findall(text)
        return found[-1] if found else None
    if rule == "numeric":
        return _extract_numeric(text)
    raise ValueError(f"unknown extraction rule {rule!r}; allowed are {', '.join(RULES)}")


def is_correct(text: str, gold: str, rule: ExtractionRule) -> bool:
    """Whether a rule reads the gold off a text.

    `gold` is normalised like the extracted text, so `Item.gold` and a whole reference answer both do.
    `strict` and `flexible` compare spellings, `numeric` values.

    Raises
    ------
    ValueError
        For another rule, or with `numeric` a gold that is not a number.

    Examples
    --------
    >>> [is_correct("#### 1,050.00", "1050", rule) for rule in RULES]
    [False, False, True]
    """
    found = extract(text, rule)
    wanted = normalised(gold.strip())
    if rule != "numeric":
        return found is not None and normalised(found) == wanted
    value = number(wanted)
    if value is None:
        raise ValueError(f"gold {gold!r} is not a number; 'numeric' needs one such as '20'")
    return found is not None and Decimal(found) == value


def _extract_numeric(text: str) -> str | None:
    marked = text.rpartition("####")
    found = _NUMBER.search(marked[2]) if marked[1] else None
    if not marked[1]:
        for found in _NUMBER.finditer(text):  # noqa: B007  (the last one is wanted)
            pass
    return _plain(_value(found.group())) if found else None


def _value(matched: str) -> Decimal:
    """Of a match of `_NUMBER`; `-$5` and `$-5` are both -5."""
    digits = re.sub(r"[^0-9.]", "", matched)
    return -Decimal(digits) if "-" in matched or "\u2212" in matched else Decimal(digits)


def _plain(value: Decimal) -> str:
    """Without exponent and trailing zeros; -0 is 0."""
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def read_items(path: Path) -> tuple[Item, ...]:
    """Items of a file of JSON lines with `question`, `answer` and, if given, `id`, as GSM8K is published.

    An item without an id is called by the file's stem and its line, `test-17`. Empty lines at the end are
    passed over.

    Raises
    ------
    ValueError
        With file and line: when the file is missing, empty or not UTF-8, a line is not a JSON object, a field
        is missing, empty or not text, the answer has no gold that is a number, or an id occurs twice.
    """
    items: list[Item] = []
    seen: dict[str, str] = {}
    for line, (where, row) in enumerate(_rows(path), start=1):
        item = item_of(row, where, f"{path.stem}-{line}")
        if item.item_id in seen:
            raise ValueError(
                f"{where}: id {item.item_id!r} was used at {seen[item.item_id]}; it may occur once"
            )
        seen[item.item_id] = where
        items.append(item)
    if not items:
        raise ValueError(f"{path} has no items; it needs at least 1 line with 'question' and 'answer'")
    return tuple(items)


def item_of(row: Mapping[str, Any], where: str, name: str) -> Item:
    """The item of a row, called `name` when it has no id of its own.

    Raises
    ------
    ValueError
        With `where`: when a field is missing or not text, or as `Item`.
    """
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str):
            found = ", ".join(f"{key} ({type(value).__name__})" for key, value in row.items()) or "none"
            raise ValueError(f"{where} has no text in {field!r}; its fields are {found}")
    own = row.get("id")
    if own is not None and (isinstance(own, bool) or not isinstance(own, str | int)):
        raise ValueError(f"{where}: id {own!r} is {type(own).__name__}; it must be text or a whole number")
    try:
        return Item(item_id=name if own is None else str(own), question=row["question"], answer=row["answer"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and object of each line; only line feeds end one, as U+2028 occurs inside texts."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; name a file of JSON lines") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    for number_, line in enumerate(text.rstrip("\r\n").split("\n") if text.strip() else (), start=1):
        where = f"{path}, line {number_}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}; write one object a line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {type(row).__name__}; write one object a line")
        yield where, row
