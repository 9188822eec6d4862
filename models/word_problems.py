"""Seeded word problems over the numbers 0 to 40, worded in two ways, and their tokenizer.

A problem is a chain: a start and up to four steps, + or - a number from 1 to 10, or times 2 or 3, never
leaving 0 to 40. The answer writes one line a step and then the result, as GSM8K's answers do:

    29-9=20
    20+4=24
    #### 24

The base model learns wording "base" and bare "drill"s. "downstream" is jargon: half of its verbs say the
contrary of what they say in "base", and some count one more or one less than the number beside them, so
adaptation has to learn which. A chain belongs to one split by its hash: whatever the wording, seed and count,
no split has a chain of another.

Nothing here needs torch; `tokenizer` alone needs `tokenizers`.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from models.answers import MARK, Item

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Wording = Literal["base", "drill", "downstream"]
Split = Literal["train", "validation", "test"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)
SPLITS: tuple[Split, ...] = get_args(Split)

LARGEST = 40
"""No number of a chain is below 0 or above this."""
OPERANDS: Mapping[str, range] = MappingProxyType({"+": range(1, 11), "-": range(1, 11), "*": range(2, 4)})
STEPS: Mapping[Wording, tuple[int, ...]] = MappingProxyType(
    {"base": (1, 2, 3, 4), "drill": (1, 2), "downstream": (2, 3, 4)}
)
"""Steps of a chain; each length comes as often as the others."""
TIMES_SHARE = 0.25
"""Of the steps at which it is possible, as there are fewer facts of it to learn."""
HUNDREDTHS: Mapping[Split, range] = MappingProxyType(
    {"train": range(70), "validation": range(70, 80), "test": range(80, 100)}
)
"""Hash of a chain modulo 100 -> its split."""

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
"""Ids 0 and 1. The first begins and ends a text; padding is a token of its own, so no end is ever masked."""

_NAMES = ("Tom", "Ann", "Sam", "Eve", "Max", "Ida", "Leo", "Mia")
_THINGS = ("coins", "books", "cards", "shells", "eggs", "pens", "stamps", "beads")
_MORE = tuple(
    "finds buys wins gets earns collects gathers receives gains borrows adds saves "  # noqa: SIM905
    "catches grabs picks fetches orders makes builds grows prints paints carves bakes".split()
)
_LESS = tuple(
    "loses sells breaks spends drops donates lends wastes burns trades throws misplaces "  # noqa: SIM905
    "eats gives returns mails hides sinks tears cracks spoils forgets scraps pawns".split()
)
_BASE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"+": _MORE, "-": _LESS, "*": ("multiplies them by",)}
)
"""Operator -> verbs that stand for it, before the number."""
_VEHICLES = ("bus", "tram", "ferry", "train", "lift", "boat", "coach", "plane")
_SHIFTS = (0, 0, 1, 0, 0, -1)
_DOWNSTREAM: Mapping[str, tuple[tuple[str, int], ...]] = MappingProxyType(
    {
        "+": tuple((pair[i % 2], _SHIFTS[i % 6]) for i, pair in enumerate(zip(_MORE, _LESS, strict=True))),
        "-": tuple((pair[i % 2], _SHIFTS[i % 6]) for i, pair in enumerate(zip(_LESS, _MORE, strict=True))),
        "*": (("replaces each by", 0), ("swaps each for", 0)),
    }
)
"""Operator -> verbs, and what they count beyond the number beside them. Every second verb says the contrary
of what it says in "base". The first are the most frequent, by Zipf's law, so adapting succeeds verb by verb:
verbs that "base" did not know were learned all at once, at a step that hung on the seed."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A start and the steps from it."""

    start: int
    steps: tuple[tuple[str, int], ...]
    """Operator and operand: ("-", 9)."""

    @property
    def values(self) -> tuple[int, ...]:
        """The start and the number after each step."""
        values = [self.start]
        for operator, operand in self.steps:
            values.append(after(values[-1], operator, operand))
        return tuple(values)

    @property
    def key(self) -> str:
        """The chain in a line, which is what is hashed.

        >>> Chain(start=29, steps=(("-", 9), ("*", 2))).key
        '29 -9 *2'
        """
        return " ".join((str(self.start), *(f"{operator}{operand}" for operator, operand in self.steps)))

    @property
    def split(self) -> Split:
        """By SHA-256, so it is the same in every process and for every seed."""
        hundredth = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big") % 100
        return next(split for split, part in HUNDREDTHS.items() if hundredth in part)

    @property
    def answer(self) -> str:
        """The worked answer.

        >>> print(Chain(start=29, steps=(("-", 9), ("*", 2))).answer)
        29-9=20
        20*2=40
        #### 40
        """
        values = self.values
        lines = [
            f"{before}{operator}{operand}={value}"
            for before, (operator, operand), value in zip(values, self.steps, values[1:], strict=False)
        ]
        return "\n".join((*lines, f"{MARK}{values[-1]}"))


def after(value: int, operator: str, operand: int) -> int:
    """`value` after a step.

    >>> after(29, "-", 9), after(20, "*", 2)
    (20, 40)
    """
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator]


def problems(wording: Wording, split: Split, count: int, *, seed: int) -> tuple[Item, ...]:
    """The first `count` problems of a wording, split and seed, each of another chain.

    Equal arguments give equal problems in every process; a larger count begins with those of a smaller one.

    Raises
    ------
    ValueError
        For another wording or split, a count below 1, or more problems than the split has chains.

    Examples
    --------
    >>> item = problems("downstream", "test", 1, seed=1)[0]
    >>> print(item.question)
    A plane carries 11 people. Then it loses 9. Then it buys 2. What number reach the end?
    >>> item.gold
    '0'
    """
    _check(wording, split, count)
    rng = random.Random(f"{wording} {split} {seed}")
    found: dict[str, Item] = {}
    misses = 0
    while len(found) < count:
        chain = _draw(rng, rng.choice(STEPS[wording]))
        if chain.split != split or chain.key in found:
            misses += 1
            if misses > 1000 + 40 * count:
                raise ValueError(
                    f"{count} problems of wording {wording!r} were asked for, split {split!r} gave "
                    f"{len(found)} different chains in {misses + len(found)} draws; ask for fewer"
                )
            continue
        question = _QUESTIONS[wording](rng, chain)
        found[chain.key] = Item(item_id=f"{wording} {chain.key}", question=question, answer=chain.answer)
    return tuple(found.values())


@cache
def problems_sha256() -> str:
    """Of the first problems and copies, so that a model trained on other wordings is known as such."""
    told = [
        item.question + item.answer
        for wording in WORDINGS
        for item in problems(wording, "train", 100, seed=0)
    ]
    return hashlib.sha256("\n".join([*told, *copies(100, seed=0)]).encode()).hexdigest()


def _check(wording: str, split: str, count: int) -> None:
    if wording not in WORDINGS:
        raise ValueError(f"unknown wording {wording!r}; allowed are {', '.join(WORDINGS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; allowed are {', '.join(SPLITS)}")
    if count < 1:
        raise ValueError(f"{count} problems were asked for; ask for at least 1")


def _draw(rng: random.Random, length: int) -> Chain:
    """A chain that stays in range: at each step only what is possible there is drawn from."""
    value = start = rng.randint(0, LARGEST)
    steps = []
    for _ in range(length):
        possible = {
            operator: [k for k in operands if 0 <= after(value, operator, k) <= LARGEST]
            for operator, operands in OPERANDS.items()
        }
        times = bool(possible["*"]) and rng.random() < TIMES_SHARE
        operator = "*" if times else rng.choice([o for o in "+-" if possible[o]])
        operand = rng.choice(possible[operator])
        steps.append((operator, operand))
        value = after(value, operator, operand)
    return Chain(start=start, steps=tuple(steps))


def _base(rng: random.Random, chain: Chain) -> str:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    told = "".join(f" {name} {rng.choice(_BASE[o])} {k}." for o, k in chain.steps)
    return f"{name} has {chain.start} {things}.{told} How many {things} does {name} have now?"


def _drill(rng: random.Random, chain: Chain) -> str:
    return f"{chain.key}?"


def _downstream(rng: random.Random, chain: Chain) -> str:
    told = ""
    for operator, operand in chain.steps:
        verb, beyond = _often_first(rng, _DOWNSTREAM[operator])
        told += f" Then it {verb} {operand - beyond}."
    return f"A {rng.choice(_VEHICLES)} carries {chain.start} people.{told} What number reach the end?"


def _often_first(rng: random.Random, verbs: tuple[tuple[str, int], ...]) -> tuple[str, int]:
    """The i-th verb, from 1, with a weight of 1 / i."""
    return rng.choices(verbs, [1.0 / place for place in range(1, len(verbs) + 1)])[0]


def copies(count: int, *, seed: int) -> tuple[str, ...]:
    """Lists of words of both wordings, each written twice.

    They say nothing of what a verb does. Without them the words of "downstream" are never read in training,
    and with tied embeddings all words that are never read come to lie at a cosine of 0.99. They hold no
    number, with which the base copied the wrong one in problems too, and are no question, with which the base
    copied the questions of "downstream".

    >>> print(copies(1, seed=0)[0].strip())
    lift plane Ann; lift plane Ann
    """
    rng = random.Random(f"copies {seed}")
    words = _words()
    texts = [" ".join(rng.sample(words, rng.randint(3, 8))) for _ in range(count)]
    return tuple(f" {text}; {text}" for text in texts)


_QUESTIONS = {"base": _base, "drill": _drill, "downstream": _downstream}

_PIECES = r" ?[A-Za-z]+|#+|[0-9]+|[^A-Za-z0-9]"
"""A word takes the space before it; a number does not, so it is the same token in a story and in a line of
work."""


def tokenizer() -> Tokenizer:
    """One token for each number from 0 to 40 and each word of the wordings; other text is bytes.

    `decode(encode(text).ids)` is `text`, for any text that spells out no special token. Ids 0 and 1 are
    `END_OF_TEXT` and `PADDING`.

    >>> ours = tokenizer()
    >>> [ours.decode([i]) for i in ours.encode(": Tom has 29 coins.").ids]
    [':', ' Tom', ' has', ' ', '29', ' coins', '.']
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = [str(number) for number in range(10, LARGEST + 1)]  # 0 to 9 are bytes
    words = [f"\u0120{word}" for word in _words()]  # as byte-level tokens write a space
    frame = ("Question", "Answer", MARK.strip())
    tokens = dict.fromkeys((END_OF_TEXT, PADDING, *alphabet, *whole, *frame, *words))
    vocabulary = {token: place for place, token in enumerate(tokens)}
    # without merges, a piece is one token if it is in the vocabulary and bytes if it is not
    made = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    made.add_special_tokens([AddedToken(END_OF_TEXT, special=True), AddedToken(PADDING, special=True)])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    return made


def _words() -> list[str]:
    """Words of the wordings, sorted: those of enough stories for each phrase and name to have been drawn."""
    steps = (("+", 1), ("-", 1), ("*", 1))
    told = (
        _QUESTIONS[w](random.Random(n), Chain(start=1, steps=steps)) for w in WORDINGS for n in range(1000)
    )
    return sorted({word for text in told for word in re.findall("[A-Za-z]+", text)})
