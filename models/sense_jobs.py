"""What a worker process does for the sense study: train a head, examine it, score baselines, verify contexts.

Arguments and results are plain data. Items and training sets stay in memory between calls. One thread: sums
are then the same whatever the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from models.kept import keep, load_kept
from models.sense_baselines import Scorer, baselines
from models.sense_conditions import Accept, TrainingArm, TrainingSet
from models.sense_danger import danger_scores, tiered
from models.sense_encoder import target_means, token_states
from models.sense_enrichment import Enrichment, labelled
from models.sense_exam import examine
from models.sense_items import Bundle, CoherenceItem, RetrievalItem, TextItem, without_killers
from models.sense_probes import mining_items, topic_scorer, watched_items
from models.sense_recipe import HeadRecipe, recipe_of
from models.sense_shortcuts import shortcuts
from models.sense_sources import SenseSource, exam_items, training
from models.sense_steps import expected_right, steps_of
from models.sense_texts import Network, Numbering, Read, Texts
from models.sense_tokens import FIRST, Marked, Vocabulary, marked, vocabulary
from models.sense_training import new_network, questions, train
from models.sense_world import WorldSpec, world

Report = Callable[[dict[str, Any]], None]
ExamSplit = Literal["dev", "test", "mining"]
WEIGHTS = "head.safetensors"
SCORE_DIGITS = 9


def train_head(
    *,
    source: dict[str, Any],
    arm: dict[str, Any],
    seed: int,
    recipe: dict[str, Any],
    directory: str,
    mislabelled: float,
    verifier: dict[str, Any] | None,
    report: Report,
) -> dict[str, Any]:
    """Train a head unless it is there; what the manifest says of it.

    Parameters
    ----------
    directory
        Where it is kept.
    mislabelled
        Share of bundles with a wrong positive, a planted fault.
    verifier
        For the arm "verified": `directory` of the head that encodes, and the least `cosine` and `gap`.
    """
    torch.set_num_threads(1)
    place = Path(directory)
    found = load_kept(place)
    if found is not None:
        return dict(found["facts"])
    told, taught = _source(source), recipe_of(recipe)
    made = _training(
        told,
        TrainingArm(**_tuples(arm)),
        seed,
        mislabelled,
        _accept(verifier),
        (taught.encoder, taught.max_tokens),
    )
    known = None if taught.encoder else vocabulary(made.texts, taught.lookup, buckets=taught.buckets)
    read = reader(taught, known)
    watched = questions(_watched(told), read)
    trained = train(made, taught, read, watched, seed=seed)
    facts = {
        "looks": [asdict(one) for one in trained.looks],
        "best_step": trained.best_step,
        "steps_to_threshold": trained.steps_to_threshold,
        "seconds": trained.seconds,
        "texts": len(made.texts),
        "bundles": len(made.bundles),
        "proposed": made.proposed,
        "accepted": made.accepted,
        "parameters": sum(one.numel() for one in trained.network.parameters()),
    }
    body = {"facts": facts, "recipe": recipe, "words": None if known is None else list(known.places)}
    state = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    keep(place, lambda fresh: save_file(state, fresh / WEIGHTS), body, identity=(WEIGHTS,))
    return facts


def examine_head(
    *,
    source: dict[str, Any],
    directory: str,
    split: ExamSplit,
    per_sense: int,
    per_lemma: int,
    chosen: Sequence[str] | None,
    report: Report,
) -> dict[str, Any]:
    """What a kept head answers to the items of a split, see `models.sense_exam.examine`.

    Parameters
    ----------
    chosen
        Ids of the retrieval items to ask, of the split "mining"; None asks all, and coherence items too.

    Raises
    ------
    OSError
        The head is gone or damaged.
    """
    torch.set_num_threads(1)
    network, read = load_head(Path(directory))
    retrieval, coherence = _items(_source(source), split, per_sense, per_lemma)
    if chosen is None:
        retrieval = without_killers(retrieval)
    else:
        wanted = set(chosen)
        retrieval, coherence = [item for item in retrieval if item.id in wanted], []
    return dict(examine(network, read, retrieval, coherence))


def score_baselines(
    *,
    source: dict[str, Any],
    split: ExamSplit,
    per_sense: int,
    per_lemma: int,
    arm: dict[str, Any],
    seed: int,
    recipe: dict[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Scores of everything that has not learned: baselines, shortcuts, untrained head, mean pooling.

    Returns
    -------
    dict
        `scores` of each scorer on the retrieval items; `coherence`, contexts of each item that it decides
        rightly, ties shared, where it is no shortcut; `roles`, what each is: baseline, shortcut or ceiling.
    """
    torch.set_num_threads(1)
    told = _source(source)
    retrieval, coherence = _items(told, split, per_sense, per_lemma)
    retrieval = without_killers(retrieval)
    networks = _untrained(told, TrainingArm(**_tuples(arm)), seed, recipe_of(recipe))
    found: dict[str, Any] = {"scores": {}, "coherence": {}, "roles": {}}

    def score(role: str, scorers: Mapping[str, Scorer]) -> None:
        for name, scorer in scorers.items():
            found["roles"][name] = role
            found["scores"][name] = [
                [round(float(one), SCORE_DIGITS) for one in scorer(item)] for item in retrieval
            ]

    if retrieval:
        score("baseline", {**baselines(retrieval), **_by_vector(networks, retrieval)})
        score("shortcut", shortcuts(retrieval))
        if not told.data:
            score("ceiling", {"topics_known": topic_scorer(world(told.world))})
    asked = [step.asked for item in coherence for step in steps_of(item)]
    if asked:
        deciding = {**baselines(asked), **_by_vector(networks, asked)}
        if not told.data:
            deciding["topics_known"] = topic_scorer(world(told.world))
        found["coherence"] = {name: expected_right(scorer, coherence) for name, scorer in deciding.items()}
    return found


def verification(
    *, source: dict[str, Any], directory: str, mix: Sequence[float], report: Report
) -> dict[str, Any]:
    """A kept head's cosines of labelled contexts of dev, drawn twice.

    Returns
    -------
    dict
        `calibration`, on which thresholds are chosen, and `check`, on which they are judged: each `cosine` to
        the original, `gap` to the nearest sibling, `genuine`, and `lemma`, one each a context.
    """
    torch.set_num_threads(1)
    network, read = load_head(Path(directory))
    found = {}
    for draw, name in enumerate(("calibration", "check")):
        offers = labelled(world(_source(source).world), "dev", mix=tuple(mix), seed=draw)
        cosine, gap = compared(network, read, offers)
        found[name] = {
            "cosine": cosine,
            "gap": gap,
            "genuine": [one.is_genuine for one in offers],
            "lemma": [one.original.surface for one in offers],
        }
    return found


def load_head(place: Path) -> tuple[Network, Read]:
    """A kept head and how it reads.

    Raises
    ------
    OSError
        It is gone or damaged.
    """
    found = load_kept(place)
    if found is None:
        raise OSError(f"the head at {place} is gone or damaged; run the study again")
    return _loaded(str(place), str(found["digest"]))


def reader(recipe: HeadRecipe, known: Vocabulary | None) -> Read:
    """How texts become states under a recipe."""
    if not recipe.encoder:
        return Read(vocabulary=known)

    def ask(texts: Sequence[Marked]) -> Texts:
        found = token_states([_item(one) for one in texts], recipe.encoder, max_tokens=recipe.max_tokens)
        return Texts(states=found.states, mask=found.mask, target=found.target, known=1.0)

    return Read(vocabulary=None, encoder=ask)


def _item(one: Marked) -> TextItem | str:
    """As the encoder takes it: a text with a target, or a plain one."""
    if one.span is None:
        return one.text
    start, end = one.span
    return TextItem(text=one.text, span=one.span, surface=one.text[start:end], sense_id="any")


def compared(network: Network, read: Read, offers: Sequence[Enrichment]) -> tuple[list[float], list[float]]:
    """Cosine of each context to the original, and that less the largest cosine to a sibling's context."""
    numbers = Numbering()

    def place(item: TextItem) -> int:
        return numbers.number(marked(item))

    rows = [
        (place(one.item), place(one.original), [place(other) for other in one.siblings]) for one in offers
    ]
    z, _ = network.vectors(read(numbers.texts))
    cosine, gap = [], []
    for item, original, siblings in rows:
        near = float(z[item] @ z[original])
        cosine.append(round(near, SCORE_DIGITS))
        gap.append(round(near - float((z[siblings] @ z[item]).max()), SCORE_DIGITS))
    return cosine, gap


@lru_cache(maxsize=4)
def _loaded(place: str, digest: str) -> tuple[Network, Read]:
    """`digest` is that of the files, so that another head at the same place is read anew."""
    body = load_kept(Path(place))
    if body is None:
        raise OSError(f"the head at {place} is gone or damaged; run the study again")
    recipe = recipe_of(body["recipe"])
    known = None
    if body["words"] is not None:
        words = MappingProxyType({word: FIRST + at for at, word in enumerate(body["words"])})
        size = FIRST + (recipe.buckets if recipe.lookup == "hashed" else len(words))
        known = Vocabulary(lookup=recipe.lookup, size=size, places=words)
    network = Network(recipe.shape, None if known is None else known.size)
    network.load_state_dict(load_file(Path(place, WEIGHTS)))
    return network.eval(), reader(recipe, known)


def _accept(verifier: Mapping[str, Any] | None) -> Accept | None:
    if verifier is None:
        return None
    network, read = load_head(Path(verifier["directory"]))

    def accept(offers: Sequence[Enrichment]) -> list[bool]:
        cosine, gap = compared(network, read, offers)
        return [
            near >= verifier["cosine"] and away >= verifier["gap"]
            for near, away in zip(cosine, gap, strict=True)
        ]

    return accept


def _training(
    source: SenseSource,
    arm: TrainingArm,
    seed: int,
    mislabelled: float,
    accept: Accept | None,
    encoder: tuple[str, int],
) -> TrainingSet:
    if accept is None:
        return _remembered(source, arm, seed, mislabelled, encoder)
    return training(source, arm, seed, accept=accept, mislabelled=mislabelled)


@lru_cache(maxsize=8)
def _remembered(
    source: SenseSource, arm: TrainingArm, seed: int, mislabelled: float, encoder: tuple[str, int]
) -> TrainingSet:
    by_danger = partial(_by_danger, *encoder) if encoder[0] else None
    return training(source, arm, seed, mislabelled=mislabelled, by_danger=by_danger)


def _by_danger(encoder: str, max_tokens: int, bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Tiers of bundles by an encoder's cosines of their lemmas' states."""
    texts = list(dict.fromkeys(text for one in bundles for text in one.texts()))
    means = target_means(token_states(texts, encoder, max_tokens=max_tokens)).numpy()
    return tiered(bundles, danger_scores(bundles, dict(zip(texts, means, strict=True))))


@lru_cache(maxsize=8)
def _cached_items(
    source: SenseSource, split: ExamSplit, per_sense: int, per_lemma: int
) -> tuple[tuple[RetrievalItem, ...], tuple[CoherenceItem, ...]]:
    if split == "mining":
        return mining_items(world(source.world), per_sense=per_sense), ()
    found = exam_items(source, split, per_sense=per_sense, per_lemma=per_lemma)
    return found.retrieval, found.coherence


def _watched(source: SenseSource) -> list[RetrievalItem]:
    """Dev items that training looks at; one's own dev bundles where there are any."""
    if source.has_dev:
        return _items(source, "dev", 1, 1)[0]
    return list(watched_items(world(source.world)))


def _items(
    source: SenseSource, split: ExamSplit, per_sense: int, per_lemma: int
) -> tuple[list[RetrievalItem], list[CoherenceItem]]:
    retrieval, coherence = _cached_items(source, split, per_sense, per_lemma)
    return list(retrieval), list(coherence)


def _source(fields: Mapping[str, Any]) -> SenseSource:
    return SenseSource(
        world=WorldSpec(**fields["world"]),
        data=fields["data"],
        bundles=tuple((name, path) for name, path in fields["bundles"]),
    )


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _untrained(
    source: SenseSource, arm: TrainingArm, seed: int, recipe: HeadRecipe
) -> dict[str, tuple[Network, Read]]:
    """The head as it starts, and its token states averaged."""
    made = _training(
        source, replace(arm, enrichment="none"), seed, 0.0, None, (recipe.encoder, recipe.max_tokens)
    )
    known = None if recipe.encoder else vocabulary(made.texts, recipe.lookup, buckets=recipe.buckets)
    read = reader(recipe, known)
    texts = read([marked(made.texts[0])])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = new_network(recipe, read, texts).eval()
    return {"untrained_head": (network, read), "mean_pooling": (network, read)}


def _by_vector(
    networks: Mapping[str, tuple[Network, Read]], items: Sequence[RetrievalItem]
) -> dict[str, Scorer]:
    """Cosines by the untrained head's vectors, and by the mean of its token states."""
    found: dict[str, Scorer] = {}
    for name, (network, read) in networks.items():
        asked = questions(items, read)
        if name == "mean_pooling":
            z = network.mean_states(asked.texts)
        else:
            z, _ = network.vectors(asked.texts)
        cos = (z[asked.query].unsqueeze(1) * z[asked.candidates.clamp(min=0)]).sum(-1).double().numpy()
        rows = {item.id: row[: len(item.candidates)] for item, row in zip(items, cos, strict=True)}
        found[name] = lambda item, rows=rows: rows[item.id]  # type: ignore[misc]
    return found
