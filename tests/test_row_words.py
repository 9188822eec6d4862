"""The words of a row: from its draw where the source can be repeated, else from a tape that repeats them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.entropy import KINDS, SourceSpec, Tape, TapeError, open_source, uniforms
from models.row_words import ROW_WORDS, Demand, open_rows
from models.words import DOSES, LIVE, expand

REPOSITORY = Path(__file__).resolve().parents[1]
TRNG = SourceSpec(kind="trng")
DEMAND = Demand(requests=3, words=5)
DRAWS = {f"row{i}": 1000 + i for i in range(4)}

Read = dict[str, list[list[int]]]


def read(tape: Path | None, draws: dict[str, int], demand: Demand = DEMAND, spec: SourceSpec = TRNG) -> Read:
    """Row -> its requests."""
    rows = open_rows(spec, draws, demand, tape)
    return {
        key: [row.source.words(demand.words).tolist() for _ in range(demand.requests)]
        for key, row in rows.items()
    }


def control(kind: str, dose: float | None = None) -> SourceSpec:
    return SourceSpec(kind=kind, stream=42, dose=dose)


def series(spec: SourceSpec, rows: int, steps: int, home: Path) -> np.ndarray:
    """(rows, steps) uniforms of rows whose draws come from a tape of the source itself, as a study's do."""
    draws = Tape(home / f"{spec.kind}.jsonl", spec).draws([f"row{i}" for i in range(rows)])
    keyed = {draw.purpose: draw.seed64 for draw in draws}
    opened = open_rows(spec, keyed, Demand(requests=1, words=steps), None)
    return np.stack([uniforms(opened[f"row{i}"].source, steps) for i in range(rows)])


@pytest.mark.parametrize("kind", sorted(set(KINDS) - LIVE))
def test_a_row_of_a_repeatable_source_begins_at_its_draw_and_needs_no_tape(kind: str, tmp_path: Path) -> None:
    spec = control(kind, 0.25 if kind in DOSES else None)
    found = open_rows(spec, DRAWS, DEMAND, tmp_path / "unused")
    for key, draw in DRAWS.items():
        expected = open_source(replace(spec, stream=draw)).words(5)
        assert found[key].source.words(5).tolist() == expected.tolist()
        assert found[key].sha256 is None
    assert not (tmp_path / "unused").exists()


def test_a_constant_source_gives_all_rows_and_tokens_of_its_tape_one_number(tmp_path: Path) -> None:
    assert len(np.unique(series(control("constant"), 20, 60, tmp_path))) == 1
    assert np.all(series(control("biased_bits", 0.5), 20, 60, tmp_path) == 1 - 2**-53)
    assert np.all(series(control("short_range"), 20, 60, tmp_path) == 0.0)


def test_a_tiled_digest_repeats_every_four_tokens_and_differs_between_rows(tmp_path: Path) -> None:
    found = series(control("tiled"), 20, 60, tmp_path)
    assert np.array_equal(found[:, 4:], found[:, :-4])
    assert len(np.unique(found)) == 80


def test_weaker_controls_keep_their_fault_in_every_row(tmp_path: Path) -> None:
    quantised = series(control("quantised8"), 200, 60, tmp_path)
    assert 200 < len(np.unique(quantised)) <= 256
    lagged = series(control("lag1", 0.6), 200, 60, tmp_path)
    assert np.mean(lagged[:, 1:] == lagged[:, :-1]) == pytest.approx(0.6, abs=0.03)  # six standard errors
    biased = series(control("biased_bits", 0.1), 200, 60, tmp_path)
    assert np.mean(biased >= 0.5) == pytest.approx(0.6, abs=0.03)
    sound = series(control("prng"), 200, 60, tmp_path)
    assert len(np.unique(sound)) == 12_000
    assert sound.mean() == pytest.approx(0.5, abs=0.016)


@pytest.mark.parametrize("kind", sorted(LIVE))
def test_a_live_row_replays_alone_in_other_order_and_beside_new_rows(kind: str, tmp_path: Path) -> None:
    spec, tape = SourceSpec(kind=kind), tmp_path / "a dir é" / "words"
    first = read(tape, DRAWS, spec=spec)
    assert len({word for row in first.values() for request in row for word in request}) == 60
    assert read(tape, {"row2": 1002}, spec=spec)["row2"] == first["row2"]
    mixed = read(tape, {"new": 7, "row3": 1003, "row0": 1000}, spec=spec)
    assert (mixed["row3"], mixed["row0"]) == (first["row3"], first["row0"])
    assert read(tape, {**DRAWS, "new": 7}, spec=spec) == {**first, "new": mixed["new"]}
    assert read(tmp_path / "other", DRAWS, spec=spec) != first


def test_the_digest_of_a_row_is_that_of_its_words_and_stays(tmp_path: Path) -> None:
    digests = [
        {key: row.sha256 for key, row in open_rows(TRNG, DRAWS, DEMAND, tmp_path / "t").items()}
        for _ in range(2)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == 4


def test_a_long_row_keeps_four_words_a_request_and_stretches_them(tmp_path: Path) -> None:
    demand = Demand(requests=3, words=ROW_WORDS)
    assert (demand.kept, Demand(requests=1, words=ROW_WORDS).kept) == (4, ROW_WORDS)
    first = read(tmp_path / "t", {"a": 1}, demand)["a"]
    assert (tmp_path / "t").stat().st_size < 1000
    for request in first:
        digest = np.array(request[:4], ">u8").tobytes()
        assert request == expand(digest, ROW_WORDS).tolist()
    assert len({request[0] for request in first}) == 3
    assert read(tmp_path / "t", {"a": 1}, demand)["a"] == first


def test_a_live_source_without_a_tape_is_refused() -> None:
    with pytest.raises(ValueError, match="'trng' cannot be repeated and has no tape"):
        open_rows(TRNG, DRAWS, DEMAND, None)


def test_every_prefix_of_a_killed_write_is_survived(tmp_path: Path) -> None:
    tape = tmp_path / "t"
    first = read(tape, {"row0": 1000, "row1": 1001})
    whole = tape.stat().st_size
    read(tape, DRAWS)
    full = tape.read_bytes()
    for cut in range(whole, len(full), 3):
        tape.write_bytes(full[:cut])
        found = read(tape, DRAWS)
        assert {key: found[key] for key in first} == first
        assert read(tape, DRAWS) == found


def test_a_process_killed_at_once_after_drawing_has_its_words_on_disk(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.test_row_words import DRAWS, read\n"
        "print(read(Path(sys.argv[1]), DRAWS), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert str(read(tmp_path / "t", DRAWS)) == done.stdout.strip()


def test_processes_that_share_a_tape_see_the_same_words(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.test_row_words import read\n"
        "names = {f'p{i}': i for i in range(20)}\n"
        "for n in range(1, 21): found = read(Path(sys.argv[1]), dict(list(names.items())[:n]))\n"
        "print(found)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "t")],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(printed) == 1


def flip_payload(full: bytes) -> bytes:
    place = full.index(b"\n", full.index(b"row1")) + 20
    return full[:place] + bytes([full[place] ^ 1]) + full[place + 1 :]


def change_draw(full: bytes) -> bytes:
    return full.replace(b'"draw": 1001', b'"draw": 1009')


def change_key(full: bytes) -> bytes:
    return full.replace(b'"key": "row1"', b'"key": "row9"')


def drop_bytes(full: bytes) -> bytes:
    place = full.index(b"\n", full.index(b"row1")) + 20
    return full[:place] + full[place + 8 :]


def blank_header(full: bytes) -> bytes:
    return full.replace(b'"row1"', b"      ")


@pytest.mark.parametrize("damage", [flip_payload, change_draw, change_key, drop_bytes, blank_header])
def test_damage_is_named_with_its_place_and_left_as_it_is(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    tape = tmp_path / "t"
    read(tape, DRAWS)
    damaged = damage(tape.read_bytes())
    tape.write_bytes(damaged)
    with pytest.raises(TapeError, match=rf"{re.escape(str(tape))}, byte \d+: .*damaged"):
        read(tape, DRAWS)
    assert tape.read_bytes() == damaged


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tape = tmp_path / "t"
    for content in (b"my notes", b"my notes\nand more\n", os.urandom(300), b"{}\n", bytes(64)):
        tape.write_bytes(content)
        with pytest.raises(TapeError, match="byte 0: damaged, or not of source 'trng'"):
            read(tape, DRAWS)
        assert tape.read_bytes() == content


def test_a_tape_belongs_to_one_source(tmp_path: Path) -> None:
    read(tmp_path / "t", DRAWS)
    with pytest.raises(TapeError, match="not of source 'hmix'"):
        read(tmp_path / "t", DRAWS, spec=SourceSpec(kind="hmix"))


@pytest.mark.parametrize(
    ("draws", "demand"),
    [
        ({"row1": 5}, DEMAND),
        ({"row1": 1001}, Demand(requests=4, words=5)),
        ({"row1": 1001}, Demand(requests=3, words=6)),
    ],
)
def test_a_recorded_row_keeps_its_draw_and_its_demand(
    draws: dict[str, int], demand: Demand, tmp_path: Path
) -> None:
    read(tmp_path / "t", DRAWS)
    message = "row 'row1' was drawn as 3 requests of 5 words for draw 1001, asked for"
    with pytest.raises(TapeError, match=message):
        read(tmp_path / "t", draws, demand)
