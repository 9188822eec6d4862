"""Where the items of an adaptation task come from: generated word problems, files of JSON lines, or the hub.

Validation items are cut from the training side, by hash, and test items are left alone until they are scored.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from models.answers import Item, item_of, read_items
from models.word_problems import SPLITS, Split, problems

SourceKind = Literal["word_problems", "jsonl"]
HUB_CONFIG = "main"
"""Of a dataset on the hub that names none; GSM8K's."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A task's items by kind, place and number."""

    kind: SourceKind
    train: str = ""
    """For jsonl: a file, or the split `train` of a dataset on the hub, such as "openai/gsm8k" or
    "openai/gsm8k:socratic"."""
    test: str = ""
    """Likewise; of a dataset the split `test`."""
    n_train: int
    n_validation: int
    n_test: int
    seed: int
    """Of the choice of problems, or of which training rows are set aside for validation."""

    def __post_init__(self) -> None:
        """Refuse what could not be loaded."""
        if self.kind not in get_args(SourceKind):
            raise ValueError(
                f"unknown kind of source {self.kind!r}; allowed are {', '.join(get_args(SourceKind))}"
            )
        for field in ("n_train", "n_validation", "n_test"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; a split needs at least 1 item")
        if self.kind == "jsonl" and not (self.train and self.test):
            raise ValueError(
                f"train is {self.train!r} and test is {self.test!r}; a jsonl source needs a file or a "
                "dataset on the hub for each"
            )
        if self.kind == "word_problems" and (self.train or self.test):
            raise ValueError(
                f"train is {self.train!r} and test is {self.test!r}; word problems are generated: leave both "
                "out"
            )

    def load(self, split: Split) -> tuple[Item, ...]:
        """Exactly the number of items that the source declares for a split.

        Training rows are ordered by a hash of seed and id; validation takes the first, training the next. A
        question is used once: rows that ask what an earlier row or a test row asks are passed over. Test rows
        keep their order.

        Raises
        ------
        ValueError
            For another split; when a file, dataset or row is not as it must be; when there are too few
            rows.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; allowed are {', '.join(SPLITS)}")
        if self.kind == "word_problems":
            count = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}[split]
            return problems("downstream", split, count, seed=self.seed)
        if split == "test":
            return _first(_read(self.test, "test"), self.n_test, f"{self.test} (test)")
        asked = {item.question for item in _read(self.test, "test")}
        items = [item for item in _once(_read(self.train, "train")) if item.question not in asked]
        taken = _first(
            sorted(items, key=self._place), self.n_validation + self.n_train, f"{self.train} (train)"
        )
        return taken[: self.n_validation] if split == "validation" else taken[self.n_validation :]

    def _place(self, item: Item) -> bytes:
        return hashlib.sha256(f"{self.seed} {item.item_id}".encode()).digest()


def _first(items: Sequence[Item], count: int, where: str) -> tuple[Item, ...]:
    if len(items) < count:
        raise ValueError(f"{where} has {len(items)} different items, {count} were asked for; ask for fewer")
    return tuple(items[:count])


def _once(items: Sequence[Item]) -> list[Item]:
    """The first item of each question."""
    return list({item.question: item for item in reversed(items)}.values())


def _read(place: str, split: Literal["train", "test"]) -> tuple[Item, ...]:
    path = Path(place)
    if path.exists() or path.suffix in (".jsonl", ".json") or not _HUB_ID.fullmatch(place):
        return read_items(path)
    return _from_hub(place, split)


def _from_hub(place: str, split: Literal["train", "test"]) -> tuple[Item, ...]:
    try:
        library: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            f"{place} is read from the hub with the optional package `datasets`; install the extra: "
            "pip install 'overnight-ladder[corpora]', or name a file of JSON lines"
        ) from error
    dataset, _, config = place.partition(":")
    try:
        rows = library.load_dataset(dataset, config or HUB_CONFIG, split=split)
    except (library.exceptions.DatasetsError, OSError, ValueError) as error:
        raise ValueError(
            f"{place}, split {split!r}, cannot be read from the hub: {error}; name a file instead"
        ) from error
    return tuple(
        item_of(row, f"{place} ({split}), row {number}", f"{split}-{number}")
        for number, row in enumerate(rows, start=1)
    )
