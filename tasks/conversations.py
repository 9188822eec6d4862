"""The multi-turn part of a design: three turns a conversation, each with a seed of its own, stage by stage.

A conversation's cell is (model, arm, stream, conversation); only treatments hold conversations. Turns have
draws and tapes of their own, so that single-turn seeds are the same with conversations and without. All first
turns of a look are generated, then all second ones: a later turn's prompt holds the earlier replies, and so
does its sample id. A reply that is no text closes its conversation; the turns after it are never asked and
become rows that say so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lab.fingerprint import fingerprint
from models.backends import Message, Output
from models.entropy import Draw, SourceSpec, Tape
from models.prompts import Prompt
from models.words import LIVE
from stats.diversity import text_failure
from tasks.generation import NEVER, read_output
from tasks.seed_cells import Arm, Cell, Sample, SeedDesign

OTHER_STREAM = 2_000_003
"""Added to a deterministic source's stream, whose own draws are the seeds of single-turn texts."""
CONSTRAINT = "open"
"""Room that a conversation leaves."""

Draws = Mapping[tuple[str, int], Sequence[Draw]]
"""Draws by arm and stream."""


def treatments(design: SeedDesign) -> list[tuple[Arm, int]]:
    """Arm and stream of every replicate that holds conversations."""
    return [(arm, stream) for arm in design.arms if arm.role == "treatment" for stream in arm.streams]


def conversation_cells(design: SeedDesign) -> list[Cell]:
    """The cells of the conversations, conversations fastest."""
    pairs = itertools.product(treatments(design), design.conversations)
    return [
        design.cell(
            index,
            arm,
            stream,
            _source(arm, stream),
            Prompt(
                prompt_id=conversation.conversation_id,
                domain=conversation.domain,
                constraint=CONSTRAINT,
                text=conversation.turns[0],
            ),
            conversation.turns,
        )
        for index, ((arm, stream), conversation) in enumerate(pairs)
    ]


def _source(arm: Arm, stream: int) -> SourceSpec:
    return SourceSpec(kind=arm.kind, stream=None if arm.kind in LIVE else stream + OTHER_STREAM)


def conversation_tapes(design: SeedDesign, home: Path) -> dict[tuple[str, int], Tape]:
    """Where the seeds of turns are kept, by arm and stream; none without conversations."""
    directory = design.tapes(home, [conversation.conversation_id for conversation in design.conversations])
    return {
        (arm.name, stream): Tape(directory / f"{arm.name}-{stream}-turns.jsonl", _source(arm, stream))
        for arm, stream in treatments(design)
        if design.conversations
    }


def purposes(design: SeedDesign, samples: int) -> list[str]:
    """What each draw of such a tape is for: `<conversation>/<sample>/<turn>`, turns fastest."""
    return [
        f"{conversation.conversation_id}/{k}/{turn}"
        for k in range(samples)
        for conversation in design.conversations
        for turn in range(1, len(conversation.turns) + 1)
    ]


def conversation_draws(design: SeedDesign, home: Path, samples: int) -> dict[tuple[str, int], list[Draw]]:
    """Seeds of all turns of the first `samples` samples of every conversation; taped if new."""
    wanted = purposes(design, samples)
    return {place: tape.draws(wanted) for place, tape in conversation_tapes(design, home).items()}


def first_turns(design: SeedDesign, draws: Draws, start: int, stop: int) -> list[Sample]:
    """First turns of samples `start` to `stop - 1`, in the order of generation; none without a taped seed."""
    jobs = design.with_repeats(conversation_cells(design), start, stop)
    order = design.order("turns", start, stop, len(jobs))
    offset = start * design.places + 2 * (stop - start) * len(design.cells)
    found = [_turn(design, draws, *jobs[place], turn=1, history=()) for place in order]
    return [replace(turn, order_index=offset + i) for i, turn in enumerate(found) if turn is not None]


def next_turns(
    design: SeedDesign, draws: Draws, before: Sequence[Sample], outputs: Mapping[str, Mapping[str, Any]]
) -> list[Sample]:
    """The turns after `before`, in its order; a conversation at its end has none.

    Parameters
    ----------
    design
        Of the conversations.
    draws
        Seeds of all turns.
    before
        One turn of every conversation, all of the same stage.
    outputs
        What came of them, by sample id.
    """
    follows = []
    for sample in before:
        if sample.turn == len(sample.cell.turns):
            continue
        output = outputs[sample.sample_id]
        closed = sample.closed or _closing(sample, output)
        said = () if closed else _said(sample, output["text"])
        turn = _turn(
            design,
            draws,
            sample.cell,
            sample.k,
            sample.probe,
            turn=sample.turn + 1,
            history=(*sample.history, *said),
            closed=closed,
        )
        if turn is not None:
            follows.append(turn)
    offset = len(before) + min((sample.order_index for sample in before), default=0)
    return [replace(turn, order_index=offset + i) for i, turn in enumerate(follows)]


def _said(sample: Sample, text: str) -> tuple[Message, Message]:
    return Message(role="user", content=sample.says), Message(role="assistant", content=text)


def _closing(sample: Sample, output: Mapping[str, Any]) -> str | None:
    """Why a conversation ends with this turn; None when it goes on."""
    text = output["text"]
    failure = output["reason"] if text is None else text_failure(text)
    return f"ConversationClosed: turn {sample.turn} failed ({failure})" if failure else None


def _turn(
    design: SeedDesign,
    draws: Draws,
    cell: Cell,
    k: int,
    probe: int,
    *,
    turn: int,
    history: tuple[Message, ...],
    closed: str | None = None,
) -> Sample | None:
    turns = [len(conversation.turns) for conversation in design.conversations]
    place = cell.index % len(turns)
    number = k * sum(turns) + sum(turns[:place]) + turn - 1
    taped = draws[cell.arm.name, cell.stream]
    if number >= len(taped):
        return None
    draw = taped[number]
    earlier = [message.content for message in history]
    identity = [cell.step_id, k, probe, draw.seed32, design.code, turn, earlier, closed is not None]
    return Sample(
        sample_id=fingerprint(identity),
        cell=cell,
        k=k,
        probe=probe,
        draw=draw,
        order_index=0,
        turn=turn,
        history=history,
        closed=closed,
    )


def closed_outputs(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Outputs of the turns that are never asked, by sample id."""
    return {
        sample.sample_id: asdict(
            Output(
                key=sample.sample_id,
                text=None,
                finish_reason=None,
                tokens=None,
                seconds=None,
                reason=sample.closed,
            )
        )
        | {"order_index": sample.order_index}
        for sample in samples
        if sample.closed
    }


def turns_between(design: SeedDesign, start: int, stop: int) -> int:
    """How many turns samples `start` to `stop - 1` have, repeats included."""
    return sum(len(cell.turns) for cell, _, _ in design.with_repeats(conversation_cells(design), start, stop))


def known_turns(design: SeedDesign, home: Path, start: int, stop: int) -> Iterator[Sample]:
    """The turns of samples `start` to `stop - 1` that are here; draws and generates nothing."""
    draws = {place: tape.recorded() for place, tape in conversation_tapes(design, home).items()}
    stage = first_turns(design, draws, start, stop)
    while stage:
        outputs = {turn.sample_id: read_output(home, turn.sample_id, {}) for turn in stage}
        here = [turn for turn in stage if turn.closed or outputs[turn.sample_id] is not None]
        yield from here
        stage = next_turns(design, draws, here, {name: found or NEVER for name, found in outputs.items()})
