"""Results of earlier scripts, in four formats, as one plain shape that the study's analysis takes.

A file is refused whole or read whole. What comes out are `Part`s: sets of texts that may be compared with
each other, since sources are compared within single turns, within conversations or within one injection mode
and never across. A prompt's text was the key in these files; here it gets an id made of its hash.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.earlier_reading import LONGEST_NAME, Document, Node, check_tree, read_document
from lab.earlier_results import (
    CUT,
    CUT_CHARACTERS,
    PREVIEW,
    SOURCES,
    WHOLE,
    EarlierFile,
    EarlierPrompt,
    EarlierText,
    Part,
)

CONSTRAINTS = ("open", "medium", "high")
HIGHEST_SEED = 2**64 - 1
MOST_TURNS = 100
MOST_SAMPLES = 100_000
LARGEST_METRIC = 1e12
"""Sums of squares of more would overflow; no metric comes near."""
CellReader = Callable[[Node, str, str, int], Iterator[EarlierText]]
"""Samples of a source's cell: the cell, the source, the prompt's id, the stream."""


def read_earlier(path: Path) -> EarlierFile:
    """Read a file of any of the four formats.

    Raises
    ------
    UsageError
        The file is not of a format or malformed; the message names the place inside it.
    """
    document = read_document(path)
    found = _format(document)
    check_tree(document.root)
    parts = tuple(part for part in _READERS[found](document.root) if part.texts)
    if not any(len(part.arms) > 1 for part in parts):
        every = sorted({arm for part in parts for arm in part.arms})
        have = f"texts of {', '.join(every)} alone" if every else "no text"
        document.root.refuse(f"{have}; a comparison needs two sources")
    return EarlierFile(
        path=path,
        sha256=document.sha256,
        format=found,
        model=_model(document.root),
        parts=parts,
        unread=_unread(document.root, found),
    )


def _unread(root: Node, found: str) -> tuple[str, ...]:
    """Members at the top that the format does not know; what they hold is not taken in."""
    if not isinstance(root.value, dict) or found == "flat":
        return ()
    return tuple(name for name in root.value if name not in _READ[found])


def _format(document: Document) -> str:
    root = document.root
    if isinstance(root.value, list):
        return "flat"
    if not isinstance(root.value, dict):
        root.refuse("not an object or list; allowed are results of v1, v2, direct injection, or flat rows")
    if root.members_include("experiment_version"):
        root.child("experiment_version").choice("version", ("v2",))
        return "v2"
    for member, name in (("single_turn", "v1"), ("prompts", "injection"), ("prompt_id", "flat")):
        if root.members_include(member):
            return name
    have = f"no known format: found {', '.join(root.value) or 'no member'}"[:200]
    return root.refuse(
        f"{have}; v2 has experiment_version, v1 single_turn, direct injection prompts; flat rows are a list "
        "or one row a line; perplexities name baseline and quantised of each language"
    )


def _model(root: Node) -> str | None:
    """The model's name, where the file says one."""
    if isinstance(root.value, dict):
        found = root.optional("model")
        return found.name() if found else None
    names = {row.child("model").name() for row in root.items() if row.members_include("model")}
    if len(names) > 1:
        root.refuse(f"rows of {len(names)} models ({', '.join(sorted(names))[:80]}); one file a model")
    return next(iter(names), None)


def prompt_id(text: str, domain: str | None) -> str:
    """Domain and the text's hash, since the text itself is never a key.

    >>> prompt_id("Tell a story.", "creative"), prompt_id("Tell a story.", None)
    ('creative-b877060d', 'prompt-b877060d')
    """
    return f"{domain or 'prompt'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass
class _Collected:
    """A part under way."""

    name: str
    prompts: dict[str, EarlierPrompt] = field(default_factory=dict)
    texts: list[EarlierText] = field(default_factory=list)

    def add_prompt(self, text: str, where: Node, domain: str | None, constraint: str | None) -> str:
        """Id of a prompt; the same text under two domains or levels is refused."""
        prompt = EarlierPrompt(
            prompt_id=prompt_id(text, domain), text=text, domain=domain, constraint=constraint
        )
        known = self.prompts.setdefault(text, prompt)
        if known != prompt:
            said = f"{known.domain}/{known.constraint} before and {domain}/{constraint} here"
            where.refuse(f"this prompt is {said}; one of them is wrong")
        return prompt.prompt_id

    def done(self) -> Part:
        """The part."""
        return Part(name=self.name, prompts=tuple(self.prompts.values()), texts=tuple(self.texts))


def _read_v1(root: Node) -> list[Part]:
    part = _Collected("single_turn")
    for text, prompt in _prompts(root.member("single_turn")):
        name = part.add_prompt(text, prompt, None, None)
        for arm, cell in prompt.members().items():
            _check_source(arm, cell)
            part.texts += _single_cell(cell, arm, name, 0)
    return [part.done()]


def _read_v2(root: Node) -> list[Part]:
    single, multi = _Collected("single_turn"), _Collected("multi_turn")
    streams = root.member("streams").items()
    if not streams:
        root.child("streams").refuse("no stream; at least one is needed")
    seen: set[int] = set()
    for index, stream in enumerate(streams):
        told = stream.optional("stream")
        label = index if told is None else told.integer(0, 2**62)
        if label in seen:
            stream.refuse(f"stream {label} stands twice")
        seen.add(label)
        for text, prompt in _prompts(stream.member("single_turn")):
            _read_v2_prompt(single, text, prompt, label, _single_cell)
        turns = stream.optional("multi_turn")
        if turns is not None and not _is_skipped(turns):
            for text, conversation in _prompts(turns):
                _read_v2_prompt(multi, text, conversation, label, _conversation_cell)
        seeds = stream.optional("seed_distributions")
        if seeds is not None:
            seeds.members()
    return [single.done(), multi.done()]


def _is_skipped(turns: Node) -> bool:
    said = turns.optional("skipped")
    if said is not None and not isinstance(said.value, bool | dict):
        said.refuse("`skipped` is true, or multi_turn holds conversations")
    return said is not None and said.value is True


def _prompts(node: Node) -> Iterator[tuple[str, Node]]:
    for text, prompt in node.members().items():
        if not text.strip():
            prompt.refuse("a blank prompt")
        Node(value=text, file=prompt.file, path=prompt.path).text()
        yield text, prompt


def _read_v2_prompt(part: _Collected, text: str, prompt: Node, stream: int, read: CellReader) -> None:
    constraint = prompt.optional("constraint")
    domain = prompt.member("domain").name()
    level = constraint.choice("constraint", CONSTRAINTS) if constraint else None
    name = part.add_prompt(text, prompt, domain, level)
    for arm, cell in prompt.members().items():
        if arm not in ("domain", "constraint"):
            _check_source(arm, cell)
            part.texts += read(cell, arm, name, stream)


def _check_source(arm: str, where: Node) -> None:
    Node(value=arm, file=where.file, path=where.path).choice("source", tuple(SOURCES))


def _single_cell(cell: Node, arm: str, prompt: str, stream: int) -> Iterator[EarlierText]:
    """The samples of a source at a prompt."""
    samples = _samples(cell)
    seeds = [_seed(sample) for sample in samples]
    for sample, seed, (k, probe) in zip(samples, seeds, numbered(seeds), strict=True):
        yield _text(
            sample, WHOLE, arm=arm, prompt_id=prompt, stream=stream, k=k, turn=0, probe=probe, seed64=seed
        )


def _conversation_cell(cell: Node, arm: str, prompt: str, stream: int) -> Iterator[EarlierText]:
    """The conversations of a source: each sample has its turns, each turn its seed."""
    samples = [_turns(sample) for sample in _samples(cell)]
    seeds = [tuple(_seed(turn) for turn in turns) for turns in samples]
    for turns, drawn, (k, probe) in zip(samples, seeds, numbered(seeds), strict=True):
        for t, (turn, seed) in enumerate(zip(turns, drawn, strict=True), start=1):
            yield _text(
                turn, WHOLE, arm=arm, prompt_id=prompt, stream=stream, k=k, turn=t, probe=probe, seed64=seed
            )


def _samples(cell: Node) -> list[Node]:
    samples = cell.member("samples")
    found = samples.items()
    if len(found) > MOST_SAMPLES:
        samples.refuse(f"{len(found)} samples; at most {MOST_SAMPLES} a cell are read")
    return found


def _turns(sample: Node) -> list[Node]:
    turns = sample.member("turns")
    found = turns.items()
    if not 1 <= len(found) <= MOST_TURNS:
        turns.refuse(f"{len(found)} turns; allowed: 1 to {MOST_TURNS}")
    return found


def numbered(seeds: Sequence[object]) -> list[tuple[int, int]]:
    """Sample and repeat of each seed of a cell: a seed that comes again is a repeat of its first sample.

    >>> numbered([7, 8, 7, 9])
    [(0, 0), (1, 0), (0, 1), (2, 0)]
    """
    first: dict[object, int] = {}
    again: Counter[object] = Counter()
    found = []
    for seed in seeds:
        k = first.setdefault(seed, len(first))
        found.append((k, again[seed]))
        again[seed] += 1
    return found


def _seed(sample: Node) -> int:
    seed = sample.member("seed").integer(0, HIGHEST_SEED)
    used = sample.optional("seed_32")
    if used is not None and used.integer(0, 2**32 - 1) != seed % 2**32:
        used.refuse(f"found {used.value}; seed {seed} mod 2^32 is {seed % 2**32}")
    return seed


def _text(
    sample: Node,
    extent: str,
    *,
    arm: str,
    prompt_id: str,
    stream: int,
    k: int,
    turn: int,
    probe: int,
    seed64: int | None,
) -> EarlierText:
    """A sample with its output, or with its error in place of one."""
    error, member = sample.optional("error"), "text_preview" if extent == PREVIEW else "output"
    output = None if error is not None else sample.member(member)
    text = None if output is None or output.value is None else output.text()
    if text is None:
        reason = f"the file says: {error.said()}" if error is not None else f"{member} is null in the file"
    else:
        reason = None
    if extent == WHOLE and text is not None and seed64 is None and len(text) == CUT_CHARACTERS:
        extent = CUT
    metrics = sample.optional("metrics")
    if metrics is None and text is not None and extent != WHOLE:
        sample.refuse(f"no metrics beside a text that is not whole ({extent})")
    return EarlierText(
        arm=arm,
        prompt_id=prompt_id,
        stream=stream,
        k=k,
        turn=turn,
        probe=probe,
        seed64=seed64,
        text=text,
        extent=extent,
        reason=reason,
        stored={} if metrics is None else {name: m.number(LARGEST_METRIC) for name, m in _named(metrics)},
    )


def _named(metrics: Node) -> Iterator[tuple[str, Node]]:
    for name, value in metrics.members().items():
        Node(value=name, file=value.file, path=value.path).name()
        yield name, value


def _read_injection(root: Node) -> list[Part]:
    parts: dict[str, _Collected] = {}
    seen: dict[str, str] = {}
    for entry in root.member("prompts").items():
        prompt = entry.member("prompt")
        text = prompt.said()
        if text in seen:
            prompt.refuse(f"the same prompt as {seen[text]}")
        seen[text] = prompt.path
        domain = entry.member("domain").name()
        for condition, cell in entry.member("conditions").members().items():
            mode, separator, arm = condition.rpartition("__")
            if not separator or not mode.strip("_"):
                cell.refuse("a condition is named MODE__SOURCE, such as logit_perturb__PRNG")
            _check_source(arm, cell)
            part = parts.setdefault(mode, _Collected(mode))
            part.texts += _injected_cell(cell, arm, part.add_prompt(text, cell, domain, None))
    return [part.done() for part in parts.values()]


def _injected_cell(cell: Node, arm: str, prompt: str) -> Iterator[EarlierText]:
    samples = _samples(cell)
    valid = cell.optional("n_valid")
    if valid is not None:
        valid.integer(0, len(samples))
    for k, sample in enumerate(samples):
        yield _text(sample, WHOLE, arm=arm, prompt_id=prompt, stream=0, k=k, turn=0, probe=0, seed64=None)


def _read_flat(root: Node) -> list[Part]:
    rows = [root] if isinstance(root.value, dict) else root.items()
    part, ids = _Collected("single_turn"), dict[str, str | None]()
    seen: dict[tuple[str, str, int], str] = {}
    samples: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        arm, text = row.member("source").choice("source", tuple(SOURCES)), row.member("prompt_id").said()
        category = row.optional("category")
        domain, seed = category.name() if category else None, _seed(row)
        name = text if len(text) <= LONGEST_NAME and text.isprintable() else prompt_id(text, domain)
        where = seen.setdefault((arm, name, seed), row.path)
        if where != row.path:
            row.refuse(f"the same source, prompt and seed as {where}")
        if ids.setdefault(name, domain) != domain:
            row.refuse(f"prompt {name!r} has category {ids[name]!r} in an earlier row, {domain!r} here")
        part.prompts[name] = EarlierPrompt(prompt_id=name, text=text, domain=domain, constraint=None)
        part.texts.append(
            _text(row, PREVIEW, arm=arm, prompt_id=name, stream=0, k=samples[arm, name], turn=0, probe=0,
                  seed64=seed)
        )  # fmt: skip
        samples[arm, name] += 1
    return [part.done()]


_READ = {
    "v1": ("model", "single_turn"),
    "v2": ("experiment_version", "model", "streams"),
    "injection": ("model", "prompts"),
}
_READERS = {"v1": _read_v1, "v2": _read_v2, "injection": _read_injection, "flat": _read_flat}
