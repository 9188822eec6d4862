"""Which sentences and languages a run of the quantisation study is about, and what is refused of them.

Settings are checked by name when they are made; files are read when a run begins, before anything is made.
"""

from __future__ import annotations

from pathlib import Path

from flows.quant_protocol import QuantProtocol
from lab.errors import UsageError
from models.corpus import Language
from models.families import refuse_unknown_family
from models.hub_corpora import CORPORA, PARALLEL
from models.language_file import NAME, read_languages
from models.languages import LANGUAGES, WEB_LANGUAGES
from models.multilingual import MODELS
from models.variants import CorpusSource, unevaluated_texts

CLDR = "cldr"
LEAST_OTHERS = 100
"""Sentences of each language that must not be evaluated: a unigram model of fewer is no floor."""
NOT_ALIGNED = {
    "opus-100": "pairs English with one other language at a time, each pair with other sentences: none "
    "stands in three languages, and two languages allow no test between tiers",
    "c4": "is not aligned",
}


def refuse_corpus(corpus: str, split: str) -> None:
    """Refuse what is known by name to be no aligned corpus of several languages, or to lack the split.

    Raises
    ------
    UsageError
        With the corpora, or the splits, that there are.
    """
    if corpus in NOT_ALIGNED:
        raise UsageError(
            f"corpus = {corpus!r} {NOT_ALIGNED[corpus]}; allowed: cldr, {', '.join(PARALLEL)} or a folder. "
            f"Its texts can calibrate: calibration_corpus={corpus}"
        )
    if split and corpus in PARALLEL and split not in PARALLEL[corpus].splits:
        raise UsageError(f"split = {split!r} of {corpus}; allowed: {', '.join(PARALLEL[corpus].splits)}")


def language_table(corpus: str, file: str, *, model: str) -> tuple[tuple[Language, ...], str]:
    """The languages that a run may choose among, and the file that states them: "" for the built-in ten.

    Parameters
    ----------
    file
        Stated languages; of a folder, its own `languages.json` where this is empty.

    Raises
    ------
    UsageError
        For a file that is malformed, with its place, or one beside sentences that have their own languages.
    """
    table = LANGUAGES if model in MODELS else WEB_LANGUAGES
    if corpus == CLDR and file:
        raise UsageError(
            f"languages_file = {file!r} beside corpus = 'cldr'; its ten languages have their tiers"
        )
    path = Path(file) if file else Path(corpus) / NAME
    if not file and (corpus == CLDR or corpus in CORPORA or not path.is_file()):
        return table, ""
    try:
        return read_languages(path, table), str(path)
    except ValueError as error:
        raise UsageError(str(error)) from error


def corpus_source(
    corpus: str, codes: tuple[str, ...], *, split: str, revision: str | None, others: str
) -> CorpusSource:
    """Where the sentences come from, and the texts that are not evaluated."""
    if corpus == CLDR:
        return CorpusSource(kind="cldr", languages=codes, others=others)
    if corpus not in CORPORA:
        return CorpusSource(kind="folder", name=corpus, languages=codes, others=others)
    return CorpusSource(
        kind="hub",
        name=corpus,
        languages=codes,
        split=split or CORPORA[corpus].split,
        revision=revision,
        others=others,
    )


def refuse(protocol: QuantProtocol) -> None:
    """Look at every model's config and read every text of the run.

    Raises
    ------
    UsageError
        For a model of a kind whose blocks are not known, or a corpus that is not aligned or too small, with
        the place.
    """
    try:
        for name in dict.fromkeys((protocol.model, *protocol.transfer.values())):
            if name not in MODELS:
                refuse_unknown_family(name)
        for look in protocol.plan.looks:
            protocol.source_at(look).load()
        _refuse_too_few(protocol)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _refuse_too_few(protocol: QuantProtocol) -> None:
    """Read what is left to calibrate on when the last look is evaluated."""
    look = protocol.plan.looks[-1]
    source = protocol.source_at(look)
    place = f"left to calibrate on when {look} are evaluated"
    if source.others:
        place = f"in {source.others}"
    for code, declared in protocol.mix.texts:
        count = max(declared, LEAST_OTHERS)
        found = len(unevaluated_texts(source, code, count))
        if found < count:
            raise UsageError(
                f"{found} sentences in {code!r} are {place}, {count} are needed; evaluate fewer (looks), "
                "give more, or name other texts (calibration_corpus)"
            )
