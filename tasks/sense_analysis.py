"""The analyses of the sense study as a cached task: answers in, rows of tests out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from lab.fingerprint import code, fingerprint
from lab.products import Products
from models.sense_conditions import FACTORS
from stats.factorial import analyse_factorial
from stats.retrieval import COLLAPSED, killer_share, margins
from stats.rows import FloatArray, TestRow
from stats.scaling_rows import scaling_rows
from stats.sense_rows import PAIRS, analyse_contrasts, legacy_rows, tier_rows
from stats.ship_blockers import Evidence, Limits, Outcomes, ship_rows
from stats.ship_one_head import one_head_rows
from stats.shortcut_audit import shortcut_rows
from stats.two_way_bootstrap import crossed
from tasks.sense_answers import Answers, Asked, Unlearned, answers, asked, unlearned
from tasks.sense_training import ItemSet
from tasks.shell import product_key

KIND = "sense_analysis"
FAMILY = "sense_scaling"
CONTROL = "A"
PUBLISHED = (42, 123, 456)
LEAST_KNOWN = 0.5
"""Share of the words asked that a head must have read in training; in the world they know .94 and more."""
Exams = Mapping[str, Mapping[int, str]]
"""Arm -> seed -> product of its exam."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """An analysis, and all that it reads; fixed before the answers."""

    kind: str
    """sound, compare, ship, dev or curve."""
    items: ItemSet
    exams: Exams
    baselines: str
    """Product of the scores of all that has not learned, on the same items."""
    margin: float
    alpha: float
    limits: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)
    """Arm -> why there are no answers of all its seeds."""
    contrasts: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Family -> (X, Y) pairs beyond A, B, C."""
    factorial: tuple[str, ...] = ()
    """Names of the arms of the factorial."""
    killers: Exams = field(default_factory=dict)
    """Arm -> seed -> product of its exam on the killers."""
    killer_items: ItemSet | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Arm -> bundles, of the data-scaling curve."""
    judged: tuple[str, ...] = ()
    """Arms that may ship."""


@lru_cache(maxsize=1)
def analysis_code() -> str:
    """Fingerprint of the statistics and of what calls them."""
    return code(
        "stats.sense_rows",
        "stats.ship_blockers",
        "stats.ship_one_head",
        "stats.factorial",
        "stats.scaling_rows",
        "stats.coherence",
        alone=("tasks.sense_analysis", "tasks.sense_answers"),
    )


def question_key(question: Question) -> str:
    """What the analysis is filed under."""
    plain = {
        **{name: value for name, value in vars(question).items() if name not in ("items", "killer_items")},
        "items": question.items.config,
        "killer_items": None if question.killer_items is None else question.killer_items.config,
        "exams": _pairs(question.exams),
        "killers": _pairs(question.killers),
    }
    return fingerprint([plain, analysis_code()])


def _pairs(exams: Exams) -> dict[str, list[tuple[int, str]]]:
    return {arm: sorted(found.items()) for arm, found in exams.items()}


def _is_complete(home: Path, parameters: Mapping[str, Any]) -> bool:
    return Products(home, KIND).read(parameters["key"]) is not None


@task(
    name="analyse",
    task_run_name="analyse: {what}",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=product_key(_is_complete),
)
def analyse(home: str, what: str, question: Question, key: str) -> str:
    """Answer a question unless that was done; returns the key of the product."""
    products = Products(Path(home), KIND)
    if products.read(key) is None:
        rows = KINDS[question.kind](_Study(Path(home), question))
        products.write(key, {"rows": [asdict(row) for row in rows]})
    return key


def rows_of(home: Path, key: str) -> list[TestRow]:
    """The rows of a product."""
    return [TestRow(**row) for row in Products(home, KIND).read(key)["rows"]]


class _Study:
    """Answers as they are asked for, and why some are not there."""

    def __init__(self, home: Path, question: Question) -> None:
        self.home, self.question = home, question
        self.items: Asked = asked(question.items)
        self.limits = Limits(**question.limits)
        self.rng = np.random.default_rng(0)
        self.found: dict[str, Answers] = {}
        self.broken: dict[str, str] = dict(question.failed)
        seeds = {tuple(sorted(exams)) for exams in question.exams.values()}
        if len(seeds) > 1:
            raise ValueError(f"arms have seeds {sorted(seeds)}; they are paired, give all arms the same")
        for arm, exams in question.exams.items():
            if arm in self.broken:
                continue
            try:
                self.found[arm] = answers(home, [exams[seed] for seed in sorted(exams)], self.items)
            except ValueError as error:
                self.broken[arm] = str(error)
        if question.kind in ("compare", "curve"):  # the blockers have a row of their own for it
            self._leave_out_the_unfit()

    def _leave_out_the_unfit(self) -> None:
        """Arms that answer without having learned: a collapsed seed, or texts of words they never read."""
        for arm, one in list(self.found.items()):
            if one.known is not None and one.known < LEAST_KNOWN:
                why = (
                    f"its heads know {one.known:.0%} of the words asked; train on texts of the same language"
                )
            elif one.ranked is not None and (fallen := _collapsed(one.ranked.margin)):
                why = f"{fallen} of {len(one.ranked.margin)} seeds collapsed, margins within {COLLAPSED:g}"
            else:
                continue
            self.broken[arm] = why
            del self.found[arm]

    @property
    def unlearned(self) -> Unlearned:
        return unlearned(self.home, self.question.baselines, self.items)

    def outcomes(self, arm: str) -> Outcomes:
        """Of an arm; nothing was measured where it is broken."""
        found = self.found.get(arm)
        return Outcomes(top1=None, top3=None) if found is None else found.outcomes

    def table(self, metric: str) -> dict[str, FloatArray]:
        """Arm -> (S, items) of a metric, of the arms that have it."""
        found = {}
        for arm, one in self.found.items():
            value = one.entropy if metric == "attention_entropy" else getattr(one.outcomes, metric)
            if value is not None:
                found[arm] = value
        return found


def _collapsed(margin: FloatArray) -> int:
    """Seeds whose margins have no spread to speak of."""
    return sum(bool(margins(own).collapsed) for own in margin)


def sound(study: _Study) -> list[TestRow]:
    """Do shortcuts stay at chance, and can the items be answered at all?"""
    known = study.unlearned
    rows = shortcut_rows(
        known.shortcuts,
        margin=study.limits.shortcut_margin,
        alpha=study.limits.alpha,
        rng=study.rng,
        family="sound",
    )
    if known.ceiling is not None and known.ceiling.top1 is not None:
        rows.append(_ceiling(study, known.ceiling.top1[0]))
    return [*rows, _all_hold(rows, "sound")]


def _ceiling(study: _Study, hits: FloatArray) -> TestRow:
    """A scorer that knows the topics must pass what a head is asked to pass."""
    asked_for = study.limits.top1
    held = float(hits.mean()) >= asked_for
    return TestRow(
        family="sound", hypothesis="positive_control", metric="top1", contrast="topics known",
        method=f"mean at least {asked_for:g}", role="decides", estimate=float(hits.mean()), n=len(hits),
        margin=asked_for, verdict="DETECTED" if held else "INVALID",
        reason=None if held else "what knows every topic fails: the items cannot be answered",
    )  # fmt: skip


def _all_hold(rows: Sequence[TestRow], family: str) -> TestRow:
    bad = [f"{row.contrast}: {row.reason}" for row in rows if row.verdict != "DETECTED"]
    return TestRow(
        family=family, hypothesis="check", method=f"all of {len(rows)} checks", role="verdict",
        n=len(rows), verdict="INVALID" if bad or not rows else "DETECTED",
        reason="; ".join(bad) if bad else None if rows else "nothing was audited",
    )  # fmt: skip


def compare(study: _Study) -> list[TestRow]:
    """Contrasts of conditions in every metric, tiers, killers, the earlier rule, the other comparisons."""
    question = study.question
    rows = _contrasts(study, "top1", PAIRS, FAMILY)
    for metric in ("top3", "coherence", "attention_entropy"):
        rows += _secondary(_contrasts(study, metric, PAIRS, f"{FAMILY}, {metric}"))
    top1 = study.table("top1")
    for arm in [name for name in ("A", "B", "C") if name in top1]:
        rows += tier_rows(top1[arm], study.items.lemmas, study.items.tiers, condition=arm, rng=study.rng)
    rows += _legacy(study, top1)
    for family, pairs in question.contrasts.items():
        rows += _contrasts(study, "top1", pairs, family)
    if question.factorial:
        arms = {tuple(name.split("-")): top1[name] for name in question.factorial if name in top1}
        broken = {
            tuple(name.split("-")): study.broken.get(name, "top1 was not measured")
            for name in question.factorial
            if name not in top1
        }
        rows += analyse_factorial(
            arms, FACTORS, study.items.lemmas, rng=study.rng, margin=question.margin, alpha=question.alpha,
            unusable=broken,
        )  # fmt: skip
    return [*rows, *_killers(study)]


def _contrasts(study: _Study, metric: str, pairs: Sequence[tuple[str, str]], family: str) -> list[TestRow]:
    table = study.table(metric)
    names = dict.fromkeys(name for pair in pairs for name in pair)
    broken = {
        name: study.broken.get(name, f"{metric} was not measured") for name in names if name not in table
    }
    of_steps = metric == "coherence"
    who = study.items.test_set
    return analyse_contrasts(
        table,
        who.coherence_lemmas if of_steps else who.lemmas,
        rng=study.rng,
        pairs=pairs,
        metric=metric,
        margin=study.question.margin,
        alpha=study.question.alpha,
        sizes=who.coherence_steps if of_steps else 1.0,
        unusable=broken,
        family=family,
    )


def _secondary(rows: Sequence[TestRow]) -> list[TestRow]:
    """The same contrasts in another metric, which decide nothing."""
    return [
        replace(row, role="secondary", verdict=None, negligible=None, margin=None, n_to_settle=None)
        for row in rows
        if row.role == "decides"
    ]


def _legacy(study: _Study, top1: Mapping[str, FloatArray]) -> list[TestRow]:
    """The earlier rule on the published seeds, where all were trained."""
    seeds = sorted(study.question.exams.get(CONTROL, {}))
    if set(PUBLISHED) - set(seeds) or not {"A", "B", "C"} <= set(top1):
        return []
    places = [seeds.index(seed) for seed in PUBLISHED]
    return legacy_rows({arm: top1[arm][places] for arm in ("A", "B", "C")})


def _killers(study: _Study) -> list[TestRow]:
    """Share of killers answered: each seed with Wilson's interval, and the mean over seeds."""
    items = study.question.killer_items
    if items is None or not items.chosen:
        return []
    few = asked(items)
    rows = []
    for arm, exams in study.question.killers.items():
        seeds = sorted(exams)
        try:
            found = answers(study.home, [exams[seed] for seed in seeds], few).ranked
        except ValueError as error:
            found, why = None, str(error)
        if found is None:
            rows.append(TestRow(family="killers", hypothesis="top1", metric="top1", contrast=arm,
                                method="share", role="diagnostic", reason=why))  # fmt: skip
            continue
        hits = found.top(1)
        for seed, own in zip(seeds, hits, strict=True):
            share = killer_share(own)
            rows.append(
                TestRow(
                    family="killers", hypothesis="top1", metric="top1", contrast=f"{arm}:seed {seed}",
                    method=share.method, role="diagnostic", estimate=share.estimate, low=share.low,
                    high=share.high, n=share.n,
                )
            )  # fmt: skip
        rows.append(
            TestRow(
                family="killers", hypothesis="top1", metric="top1", contrast=arm, role="secondary",
                method=f"mean over {len(hits)} seeds", estimate=float(hits.mean()), n=len(few.retrieval),
            )
        )  # fmt: skip
    return rows


def ship(study: _Study) -> list[TestRow]:
    """Blockers and verdict of every arm that may ship."""
    known = study.unlearned
    rows = []
    for arm in study.question.judged:
        why = {
            f"{name} is no measurement": study.broken[name]
            for name in dict.fromkeys((arm, CONTROL))
            if name in study.broken
        }
        rows += ship_rows(
            Evidence(
                condition=arm,
                test=study.items.test_set,
                ours=study.outcomes(arm),
                baselines=known.baselines,
                shortcuts=known.shortcuts,
                control=CONTROL,
                control_outcomes=None if arm == CONTROL else study.outcomes(CONTROL),
                checks=why,
            ),
            rng=study.rng,
            limits=study.limits,
            family="ship" if study.question.items.split == "test" else f"ship, {study.question.items.split}",
        )
    return rows


def one_head(study: _Study) -> list[TestRow]:
    """Blockers of one head alone, and the audit of the items it was asked."""
    [arm] = study.question.judged
    broken = [
        TestRow(family="check", hypothesis="check", metric=name, contrast=arm, method="check", role="decides",
                verdict="INVALID", reason=why)
        for name, why in study.broken.items()
    ]  # fmt: skip
    return one_head_rows(
        arm,
        study.items.test_set,
        study.outcomes(arm),
        study.unlearned.baselines,
        None if arm == CONTROL else study.outcomes(CONTROL),
        rng=study.rng,
        limits=study.limits,
        audit=[*broken, *sound(study)],
    )


def curve(study: _Study) -> list[TestRow]:
    """Top1 over sizes of the training set, its power law, and what twice the data would add."""
    question = study.question
    table = study.table("top1")
    bare = TestRow(
        family="scaling", hypothesis="doubling", metric="top1", contrast="twice the data",
        method="power law", role="decides", alpha=question.alpha, margin=question.margin,
        reason="undefined",
    )  # fmt: skip
    if not question.sizes:
        why = "sizes of the training set can be cut of the world's alone, or none was trained"
        return [replace(bare, verdict="INVALID", reason=why)]
    missing = [
        f"{arm}: {study.broken.get(arm, 'not measured')}"
        for arm in dict.fromkeys([*question.sizes, *study.broken])
        if arm not in table
    ]
    if missing:
        return [replace(bare, verdict="INVALID", reason="; ".join(missing))]
    tables = {arm: crossed(table[arm], study.items.lemmas) for arm in question.sizes}
    return scaling_rows(
        question.sizes, tables, rng=study.rng, margin=question.margin, alpha=question.alpha, family="scaling"
    )


KINDS: Mapping[str, Callable[[_Study], list[TestRow]]] = {
    "sound": sound,
    "compare": compare,
    "ship": ship,
    "one_head": one_head,
    "curve": curve,
}
