"""The prompts of the entropy study: 30 single questions in nine domains, and three conversations.

A constraint level says how much room a prompt leaves: an `open` one has as many answers as writers, a
`high` one nearly one. If the source of randomness matters anywhere, it should show where there is room, so
domain and level stay with every sample. A prompt is known by its id; its text is never a key, and an edit
to a text is a new id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CONSTRAINTS = ("open", "medium", "high")
"""Room left for the answer, widest first."""

LEVELS = {
    "creative": "open",
    "philosophical": "open",
    "technical": "medium",
    "code": "high",
    "factual": "high",
    "summarization": "medium",
    "structured": "high",
    "reasoning": "high",
    "naming": "open",
}
"""Constraint level of each domain."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question."""

    prompt_id: str
    """Domain and number, such as `creative-1`."""
    domain: str
    constraint: str
    """One of CONSTRAINTS."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns that a person says, one after each reply."""

    conversation_id: str
    domain: str
    turns: tuple[str, ...]


_TEXTS = {
    "creative": (
        "Write the opening paragraph of a story about a lighthouse keeper who finds a door in the sea wall.",
        "Write a short poem about the last bus of the night and the people still on it.",
        "Describe a market where people trade memories instead of money.",
        "Tell the story of a snowstorm from the point of view of an old dog.",
    ),
    "philosophical": (
        "Is it possible to owe something to people who have not been born yet? Argue for your view.",
        "If every part of a ship is replaced over the years, what, if anything, stays the same?",
        "Can a person be brave without being afraid? Explain what you think and why.",
        "Would you rather know an unpleasant truth or keep a comforting mistake? Give your reasons.",
    ),
    "technical": (
        "Explain to a new colleague how a database index makes some queries faster and others slower.",
        "Describe how a heat pump can move more heat than the electricity it uses.",
        "Explain what happens between typing a web address and seeing the page.",
        "Explain why bridges have expansion joints and what goes wrong without them.",
    ),
    "code": (
        "Write a Python function that returns the second largest distinct number in a list, or None.",
        "Write a SQL query that lists each customer with the date of that customer's most recent order.",
        "Write a Python function that checks whether the brackets in a string are balanced.",
        "Write a shell command that counts the lines of all .txt files below the current directory.",
    ),
    "factual": (
        "What causes the tides, and why are there usually two high tides a day?",
        "Which organ in the human body makes insulin, and what does insulin do?",
        "Name the planets of the solar system in order from the Sun outwards.",
        "What is the difference between weather and climate?",
    ),
    "summarization": (
        "Summarise this passage in two sentences.\n\n"
        "The town library used to close at five. Three years ago a group of students asked whether "
        "the reading room could stay open later, and the council agreed to a trial: two evenings a "
        "week, staffed by volunteers. Few people came in the first month. Then the bus timetable "
        "changed, the last bus moved from six to nine, and the room filled up. The council now pays "
        "for four evenings, and the volunteers have become part-time staff. Nobody can say whether "
        "the students or the bus should have the credit.",
        "Summarise this passage in two sentences.\n\n"
        "Gardeners have long put crushed eggshells around lettuce to keep slugs away, on the idea "
        "that sharp edges hurt them. When a gardening club tested this on twelve beds, six with "
        "shells and six without, slugs crossed the shells as if they were not there, and both sets of "
        "beds lost about a third of their leaves. What did help was watering in the morning instead "
        "of the evening: dry soil at night kept most slugs under the hedge. The club still uses the "
        "shells, but now as a slow source of calcium.",
        "Summarise this passage in two sentences.\n\n"
        "A ferry company wanted shorter queues, so it put up a second ticket window. Queues grew "
        "longer. Passengers who used to buy on board, where a crew member walked around with a "
        "machine, now saw an open window and stopped there. The company counted again and found that "
        "four in five passengers carried a phone with the fare already loaded. It closed both "
        "windows, left one person on the pier to help, and the ferry has departed on time since, "
        "except in fog.",
    ),
    "structured": (
        "Give three common kitchen ingredients as a JSON array of objects with the keys name, unit "
        "and price.",
        "Make a table in Markdown of four European rivers with the columns river, country at the "
        "mouth, and sea.",
        "List five steps for changing a bicycle tube, numbered, one line each, each starting with a verb.",
    ),
    "reasoning": (
        "A train leaves at 9:40 and arrives at 13:05 after two stops of 10 minutes each. How long was "
        "it moving? Show your steps.",
        "Anna is older than Ben. Carl is younger than Ben. Dora is older than Anna. Who is the second "
        "oldest? Explain how you know.",
    ),
    "naming": (
        "Suggest a name for a small bakery on a steep street, and say in one sentence why it fits.",
        "Invent a name for a colour between rust and rose, and describe where one would see it.",
    ),
}

SINGLE_TURN = tuple(
    Prompt(prompt_id=f"{domain}-{number}", domain=domain, constraint=LEVELS[domain], text=text)
    for domain, texts in _TEXTS.items()
    for number, text in enumerate(texts, start=1)
)
"""All 30 prompts, by domain."""

CONVERSATIONS = (
    Conversation(
        conversation_id="storytelling-1",
        domain="storytelling",
        turns=(
            "Let us write a story together. Begin with a clockmaker who hears one of the clocks speak.",
            "Now let somebody come into the shop who must not find out about it.",
            "Bring the story to an end that answers why the clock spoke.",
        ),
    ),
    Conversation(
        conversation_id="debate-1",
        domain="debate",
        turns=(
            "Make the case that cities should close their centres to private cars.",
            "Now answer as a shop owner in such a centre who disagrees.",
            "Which of the two arguments is stronger, and what fact would change your mind?",
        ),
    ),
    Conversation(
        conversation_id="worldbuilding-1",
        domain="worldbuilding",
        turns=(
            "Describe an island whose people measure time by the colour of the water.",
            "What do its children learn at school that ours do not?",
            "A foreign ship arrives with a mechanical clock. What changes in the first year?",
        ),
    ),
)
"""Three conversations of three turns."""

SMOKE = (
    "creative-1",
    "creative-2",
    "philosophical-1",
    "philosophical-2",
    "technical-1",
    "code-1",
    "factual-1",
    "summarization-1",
    "structured-1",
    "reasoning-1",
    "naming-1",
    "naming-2",
)
"""Ids of the 12 prompts of the smoke profile: every domain, and a second one where there is most room."""

INJECTION = (
    "creative-1",
    "creative-2",
    "philosophical-1",
    "philosophical-2",
    "technical-1",
    "technical-2",
    "code-1",
    "code-2",
    "factual-1",
    "factual-2",
    "summarization-1",
    "summarization-2",
    "structured-1",
    "reasoning-1",
    "naming-1",
)
"""Ids of the 15 prompts of direct injection."""

_BY_ID = {prompt.prompt_id: prompt for prompt in SINGLE_TURN}


def select(prompt_ids: Iterable[str]) -> tuple[Prompt, ...]:
    """The prompts of these ids, in their order.

    >>> [prompt.constraint for prompt in select(["naming-1", "code-2"])]
    ['open', 'high']
    """
    wanted = tuple(prompt_ids)
    missing = [name for name in wanted if name not in _BY_ID]
    if missing:
        raise ValueError(f"no prompt {missing[0]!r}; allowed: {', '.join(_BY_ID)}")
    return tuple(_BY_ID[name] for name in wanted)
