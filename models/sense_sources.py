"""Where a sense study's texts come from: the seeded world, or files of one's own for any of the three splits.

train
    A file of bundles for each condition, or the world's sets.
dev
    `dev.jsonl` of the data folder, each bundle asked as a retrieval item, or the world's items.
test
    `retrieval.jsonl` and `coherence.jsonl` of the data folder, or the world's items.

A `train.jsonl` in the data folder is not read here: which condition it is of has to be said in `bundles`.
Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.aligned_files import file_sha256
from models.sense_conditions import CONDITIONS, Accept, TrainingArm, TrainingSet, training_set
from models.sense_files import (
    BUNDLE_FILES,
    COHERENCE_FILE,
    RETRIEVAL_FILE,
    SenseFile,
    read_bundles,
    read_coherence,
    read_retrieval,
)
from models.sense_items import Bundle, CoherenceItem, RetrievalItem, TextItem
from models.sense_leakage import PlacedText, placed, refuse_shared, refuse_shared_texts
from models.sense_probes import coherence_items, retrieval_items
from models.sense_world import SPLITS, Split, WorldSpec, world

ExamSplit = Literal["dev", "test"]
ByDanger = Callable[[Sequence[Bundle]], Sequence[Bundle]]
"""Bundles without a tier -> the same with one each."""

DEV_FILE = BUNDLE_FILES[1]
TEST_FILES = (RETRIEVAL_FILE, COHERENCE_FILE)
LEAK_SEED, LEAK_ITEMS = 42, 2
"""Of the world's sets that `refuse_leaks` looks at, and how many items a sense and a lemma."""


@dataclass(frozen=True, kw_only=True)
class SenseSource:
    """The world, and the files that replace parts of it."""

    world: WorldSpec
    data: str = ""
    """Folder of retrieval.jsonl and/or coherence.jsonl, and dev.jsonl if there is one; "" for the world's."""
    bundles: tuple[tuple[str, str], ...] = ()
    """(condition, path of its file of bundles); empty for the world's training sets."""

    def __post_init__(self) -> None:
        """Refuse conditions that no arm could name, and one named twice."""
        names = [name for name, _ in self.bundles]
        for name, path in self.bundles:
            if not name or "-" in name or not path:
                raise ValueError(
                    f"condition {name!r} with file {path!r}; give a name without '-', such as A, and a path"
                )
        if len(set(names)) < len(names):
            raise ValueError(f"conditions {', '.join(names)}; give each one file")

    @property
    def from_files(self) -> bool:
        """Whether any part is read from files.

        >>> SenseSource(world=WorldSpec()).from_files
        False
        """
        return bool(self.data or self.bundles)

    @property
    def has_dev(self) -> bool:
        """Whether dev is read from a file."""
        return bool(self.data) and (Path(self.data) / DEV_FILE).is_file()


@dataclass(frozen=True, kw_only=True)
class ExamItems:
    """What a head is asked; a kind that the files do not have is empty."""

    retrieval: tuple[RetrievalItem, ...]
    coherence: tuple[CoherenceItem, ...]


def training(
    source: SenseSource,
    arm: TrainingArm,
    seed: int,
    *,
    accept: Accept | None = None,
    mislabelled: float = 0.0,
    by_danger: ByDanger | None = None,
) -> TrainingSet:
    """What an arm and seed is trained on; every text of a bundle is among its texts.

    From files it is all of the condition's bundles at any seed: the condition is the arm's name before the
    first "-", and of the arm's fields only the curriculum counts.

    Parameters
    ----------
    accept
        As in `models.sense_conditions.training_set`; not with files, whose enrichment is done.
    mislabelled
        A planted fault: of this share of the bundles, drawn by the seed, the positive is replaced by a
        negative of the lemma under the anchor's sense. Those of a smaller share are among those of a larger.
    by_danger
        Gives the bundles of a file that have no tier one each (`models.sense_danger`); without it they get
        tier 1.

    Raises
    ------
    ValueError
        For a condition without a file, `accept` with files, a bundle of tier 4, which is held out of
        training, a share that is none or that too few bundles have negatives for, and as the readers and
        `training_set`.

    Examples
    --------
    >>> made = training(SenseSource(world=WorldSpec()), CONDITIONS["A"], 42)
    >>> wrong = training(SenseSource(world=WorldSpec()), CONDITIONS["A"], 42, mislabelled=0.1)
    >>> len(made.bundles), sum(a != b for a, b in zip(made.bundles, wrong.bundles))
    (987, 99)
    """
    if not 0 <= mislabelled <= 1:
        raise ValueError(f"mislabelled is {mislabelled}; it must be a share from 0 to 1")
    if source.bundles:
        if accept is not None:
            raise ValueError(
                f"arm {arm.name!r}: `accept` was given with files of bundles, whose enrichment is done; "
                "leave it out"
            )
        made = _from_file(source, arm, seed, by_danger)
    else:
        made = training_set(world(source.world), arm, seed, accept=accept)
    return _mislabel(made, mislabelled)


def exam_items(source: SenseSource, split: ExamSplit, *, per_sense: int, per_lemma: int) -> ExamItems:
    """The items of a split, from files where there are any.

    Parameters
    ----------
    per_sense, per_lemma
        Retrieval items of each sense and tier, coherence items of each lemma and tier, of the world; files
        are taken whole.

    Raises
    ------
    ValueError
        For another split, a folder that is missing or has no file for "test", a bundle of dev.jsonl without
        negatives (with file and line), and as the readers.

    Examples
    --------
    >>> found = exam_items(SenseSource(world=WorldSpec()), "dev", per_sense=1, per_lemma=1)
    >>> len(found.retrieval), len(found.coherence)
    (180, 60)
    """
    if split not in ("dev", "test"):
        raise ValueError(f"unknown split {split!r}; allowed are dev, test")
    files = _files(source, split)
    if not files:
        ours = world(source.world)
        return ExamItems(
            retrieval=retrieval_items(ours, split, per_sense=per_sense),
            coherence=coherence_items(ours, split, per_lemma=per_lemma),
        )
    if split == "dev":
        file = read_bundles(files[DEV_FILE])
        return ExamItems(
            retrieval=tuple(_asked(one, file.places[one.id]) for one in file.items), coherence=()
        )
    return ExamItems(
        retrieval=read_retrieval(files[RETRIEVAL_FILE]).items if RETRIEVAL_FILE in files else (),
        coherence=read_coherence(files[COHERENCE_FILE]).items if COHERENCE_FILE in files else (),
    )


def digest(source: SenseSource, split: Split) -> str:
    """SHA-256 of the split's files, wherever they lie, or of the world.

    Raises
    ------
    ValueError
        For another split, or a file or folder that is missing.

    Examples
    --------
    >>> source = SenseSource(world=WorldSpec())
    >>> digest(source, "train") == digest(source, "test") == world(WorldSpec()).sha256
    True
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; allowed are {', '.join(SPLITS)}")
    files = _files(source, split)
    if not files:
        return world(source.world).sha256
    for name, path in files.items():
        if not path.is_file():
            raise ValueError(f"{name}: {path} does not exist; name a file of JSON lines")
    hashes = {name: file_sha256(path) for name, path in files.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def own_items(source: SenseSource) -> ExamItems:
    """The test items of one's own files; none where the world's are asked."""
    if not source.data:
        return ExamItems(retrieval=(), coherence=())
    return exam_items(source, "test", per_sense=1, per_lemma=1)


def bundle_counts(source: SenseSource) -> dict[str, int]:
    """Condition -> bundles of its file; empty for the world."""
    return {name: len(read_bundles(path).items) for name, path in source.bundles}


def source_files(source: SenseSource) -> list[Path]:
    """Every file that a source is read from; none for the world."""
    found = [path for split in SPLITS for path in _files(source, split).values()]
    return sorted(dict.fromkeys(found))


def refuse_leaks(source: SenseSource) -> None:
    """Nothing, if train, dev and test share no lemma and no text, exact or of a Jaccard index of .8 or more.

    Of files all is looked at. Of the world it is the sets of conditions A, B and C at one seed and two items
    a sense or lemma of each tier; other seeds and more items are drawn from the same senses.

    Raises
    ------
    ValueError
        With both places, file and line where files are used; and as the readers.

    Examples
    --------
    >>> refuse_leaks(SenseSource(world=WorldSpec(train_lemmas=20, test_lemmas=10, dev_lemmas=10)))
    """
    dev = _files(source, "dev")
    splits: dict[str, Sequence[PlacedText]] = {
        "train": list(_train_texts(source)),
        "dev": read_bundles(dev[DEV_FILE]).texts() if dev else _world_texts(source, "dev"),
        "test": _test_texts(source),
    }
    refuse_shared_texts(splits)
    for own in (True, False):  # a pseudo-lemma of the world may be a word of one's own files
        refuse_shared({name: splits[name] for name in SPLITS if bool(_files(source, name)) == own})


def _files(source: SenseSource, split: Split) -> dict[str, Path]:
    """Name -> path of the files that a split is read from; empty when it is the world's."""
    if split == "train":
        return {name: Path(path) for name, path in source.bundles}
    if not source.data:
        return {}
    root = Path(source.data)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; name one with at least one of {', '.join(TEST_FILES)}")
    names = TEST_FILES if split == "test" else (DEV_FILE,)
    there = {name: root / name for name in names if (root / name).is_file()}
    if split == "test" and not there:
        raise ValueError(f"{root} holds none of {', '.join(names)}; name a folder with at least one of them")
    return there


def _from_file(source: SenseSource, arm: TrainingArm, seed: int, by_danger: ByDanger | None) -> TrainingSet:
    condition = arm.name.split("-")[0]
    paths = dict(source.bundles)
    if condition not in paths:
        raise ValueError(
            f"arm {arm.name!r} is of condition {condition!r}, which has no file of bundles; conditions with "
            f"one are {', '.join(paths)}"
        )
    file = read_bundles(paths[condition])
    bare = [one for one in file.items if one.difficulty_tier is None] if by_danger else []
    known = {one.id: one for one in by_danger(bare)} if by_danger and bare else {}
    bundles = tuple(_tiered(known.get(one.id, one), file) for one in file.items)
    by_sense: dict[str, dict[TextItem, None]] = {}
    for bundle in bundles:
        for text in bundle.texts():
            by_sense.setdefault(text.sense_id, {})[text] = None
    return TrainingSet(
        arm=arm,
        seed=seed,
        texts=tuple(text for group in by_sense.values() for text in group),
        bundles=bundles,
        repeats=tuple(arm.curriculum[(one.difficulty_tier or 1) - 1] for one in bundles),
        proposed=0,
        accepted=0,
    )


def _tiered(bundle: Bundle, file: SenseFile[Bundle]) -> Bundle:
    """The bundle with tier 1 where it has none."""
    tier = bundle.difficulty_tier
    if tier is not None and tier > 3:
        raise ValueError(
            f"{file.places[bundle.id]}: bundle {bundle.id!r} is of tier {tier}; killers are held out of "
            "training, take it out of the file"
        )
    return replace(bundle, difficulty_tier=1) if tier is None else bundle


def _mislabel(made: TrainingSet, share: float) -> TrainingSet:
    count = round(share * len(made.bundles))
    order = [place for place, one in enumerate(made.bundles) if one.within_lemma]
    if count > len(order):
        raise ValueError(
            f"{count} of {len(made.bundles)} bundles were to be mislabelled, {len(order)} have negatives of "
            "their lemma; ask for a smaller share"
        )
    random.Random(f"mislabelled|{made.seed}").shuffle(order)
    bundles = list(made.bundles)
    for place in order[:count]:
        bundles[place] = _with_wrong_positive(bundles[place], made.seed)
    told = dict.fromkeys((*made.texts, *(bundles[place].positive for place in sorted(order[:count]))))
    return replace(made, texts=tuple(told), bundles=tuple(bundles))


def _with_wrong_positive(bundle: Bundle, seed: int) -> Bundle:
    group = list(bundle.within_lemma)
    drawn = group.pop(random.Random(f"mislabelled|{seed}|{bundle.id}").randrange(len(group)))
    told = replace(drawn, sense_id=bundle.anchor_sense, sense_gloss=bundle.anchor.sense_gloss)
    return replace(bundle, positive=told, within_lemma=tuple(group))


def _asked(bundle: Bundle, where: str) -> RetrievalItem:
    """The anchor against positive and negatives, in an order that the id alone decides."""
    shown = [bundle.positive, *bundle.within_lemma, *bundle.cross_lemma]
    if len(shown) == 1:
        raise ValueError(
            f"{where}: bundle {bundle.id!r} has no negatives, so nothing can be asked with it; give it one "
            "or take it out"
        )
    random.Random(f"dev|{bundle.id}").shuffle(shown)
    return RetrievalItem(
        id=bundle.id,
        lemma=bundle.lemma,
        query=bundle.anchor,
        candidates=tuple(shown),
        correct=(shown.index(bundle.positive),),
        tier=bundle.difficulty_tier,
    )


def _train_texts(source: SenseSource) -> Iterator[PlacedText]:
    for path in dict.fromkeys(path for _, path in source.bundles):
        yield from read_bundles(path).texts()
    for name, arm in CONDITIONS.items() if not source.bundles else ():
        for text in training(source, arm, LEAK_SEED).texts:
            yield PlacedText(
                where=f"world, condition {name}, seed {LEAK_SEED}, sense {text.sense_id}",
                lemma=text.surface,
                surface=text.surface,
                sense_id=text.sense_id,
                text=text.text,
            )


def _test_texts(source: SenseSource) -> list[PlacedText]:
    files = _files(source, "test")
    found: list[PlacedText] = [] if files else _world_texts(source, "test")
    if RETRIEVAL_FILE in files:
        found += read_retrieval(files[RETRIEVAL_FILE]).texts()
    if COHERENCE_FILE in files:
        found += read_coherence(files[COHERENCE_FILE]).texts()
    return found


def _world_texts(source: SenseSource, split: ExamSplit) -> list[PlacedText]:
    ours = world(source.world)
    return [
        *placed(retrieval_items(ours, split, per_sense=LEAK_ITEMS)),
        *placed(coherence_items(ours, split, per_lemma=LEAK_ITEMS)),
    ]
