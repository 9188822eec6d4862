"""Entropy sources give the words their definitions say, and a tape gives every draw again."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.entropy import KINDS, SourceSpec, Tape, TapeError, open_source, uniforms
from models.words import DOSES, LIVE, expand

REPOSITORY = Path(__file__).resolve().parents[1]


def spec(kind: str) -> SourceSpec:
    """A source of the kind, at a middling dose where it takes one."""
    return SourceSpec(kind=kind, stream=None if kind in LIVE else 42, dose=0.25 if kind in DOSES else None)


def first_draw(stream: int) -> int:
    return int.from_bytes(open_source(SourceSpec(kind="prng", stream=stream)).read(8), "big")


def test_the_declared_prng_streams_begin_with_the_declared_draws() -> None:
    assert first_draw(42) == 2053695854357871005
    assert first_draw(42) % 2**32 == 2746317213
    assert [first_draw(s) % 2**32 for s in (123, 7, 999, 314)] == [
        224899942,
        1390851128,
        3355859300,
        843665892,
    ]


def test_prng_words_are_those_of_cpython_however_they_are_asked_for() -> None:
    generator, source = random.Random(7), open_source(SourceSpec(kind="prng", stream=7))
    expected = [generator.getrandbits(64) for _ in range(20)]
    found = [int.from_bytes(source.read(8), "big") for _ in range(5)]
    found += np.frombuffer(source.read(8 * 15), ">u8").tolist()
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bytes", [0, 1, 7, 8, 9, 4000])
def test_a_source_gives_exactly_the_bytes_asked_for(kind: str, n_bytes: int) -> None:
    assert len(open_source(spec(kind)).read(n_bytes)) == n_bytes


@pytest.mark.parametrize("kind", sorted(set(KINDS) - LIVE))
def test_a_deterministic_source_repeats_itself(kind: str) -> None:
    first, second = open_source(spec(kind)), open_source(spec(kind))
    assert [first.read(8), first.read(800)] == [second.read(8), second.read(800)]


@pytest.mark.parametrize("kind", sorted(LIVE))
def test_a_live_source_does_not_repeat_itself(kind: str) -> None:
    assert open_source(spec(kind)).read(800) != open_source(spec(kind)).read(800)


def test_numpy_sources_are_the_raw_words_of_their_bit_generators() -> None:
    for kind, bits in (("pcg64", np.random.PCG64(42)), ("philox", np.random.Philox(42))):
        words = np.frombuffer(open_source(spec(kind)).read(80), ">u8")
        assert words.tolist() == bits.random_raw(10).tolist()


def test_hmix_hashes_time_entropy_and_a_counter_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1234567890)
    monkeypatch.setattr("os.urandom", lambda n: bytes(range(n)))
    source = open_source(SourceSpec(kind="hmix"))
    for counter in (1, 2):
        text = f"1234567890-000102030405060708090a0b0c0d0e0f-{counter}"
        assert source.read(8) == hashlib.sha256(text.encode()).digest()[:8]


def test_a_long_request_expands_in_counter_mode_and_repeats_nothing() -> None:
    digest = hashlib.sha256(b"x").digest()
    words = expand(digest, 1000)
    assert words[:4].astype(">u8").tobytes() == digest
    first, second, low, high = (int(word) for word in words[:4])
    counter = low << 128 | high << 192  # the least significant half counts
    bits = np.random.Philox(key=first | second << 64, counter=counter)
    assert words[4:].tolist() == bits.random_raw(996).tolist()
    assert expand(digest, 300).tolist() == words[:300].tolist()
    assert len(set(words.tolist())) == 1000


@pytest.mark.parametrize("kind", ["prng", "trng", "hmix", "pcg64", "philox"])
def test_uniforms_of_a_sound_source_look_uniform(kind: str) -> None:
    u = uniforms(open_source(spec(kind)), 50_000)
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    assert u.dtype == np.float64
    assert 0 <= u.min() <= u.max() < 1
    # chi-square with 49 degrees of freedom exceeds 115 with probability 3e-7
    assert ((counts - 1000) ** 2 / 1000).sum() < 115


def test_uniforms_are_the_upper_53_bits() -> None:
    value = first_draw(42)
    assert uniforms(open_source(SourceSpec(kind="prng", stream=42)), 1)[0] == (value >> 11) / 2**53


def test_the_controls_have_the_fault_they_are_named_for() -> None:
    def words(kind: str, n: int = 20_000) -> np.ndarray:
        return np.frombuffer(open_source(spec(kind)).read(8 * n), ">u8").astype(np.uint64)

    assert len(set(words("constant").tolist())) == 1
    assert set(words("short_range").tolist()) == set(range(1001))
    assert len(set(words("quantised8").tolist())) == 256
    assert len(set((words("quantised8") % 2**32).tolist())) == 256
    assert len(set(words("tiled").tolist())) == 4
    bits = np.unpackbits(words("biased_bits").view(np.uint8))
    assert abs(bits.mean() - 0.75) < 0.003  # 1.28 M bits: six standard errors are 0.0023
    u = words("lag1") / 2.0**64
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1] - 0.25) < 0.05
    assert abs(u.mean() - 0.5) < 0.02


def test_short_range_words_are_those_of_randint_however_they_are_asked_for() -> None:
    generator, source = random.Random(42), open_source(spec("short_range"))
    expected = [generator.randint(0, 1000) for _ in range(5000)]
    found = [source.words(n).tolist() for n in (1, 0, 2, 997, 4000)]
    assert [word for words in found for word in words] == expected


@pytest.mark.parametrize("kind", sorted(set(KINDS) - LIVE - {"tiled"}))
def test_the_words_do_not_depend_on_how_many_are_asked_for_at_once(kind: str) -> None:
    pieces, whole = open_source(spec(kind)), open_source(spec(kind)).words(600)
    assert np.concatenate([pieces.words(n) for n in (1, 0, 3, 96, 500)]).tolist() == whole.tolist()


@pytest.mark.parametrize("eps", [0.01, 0.05, 0.1, 0.25])
def test_biased_bits_are_ones_with_their_chance_and_independent(eps: float) -> None:
    words = open_source(SourceSpec(kind="biased_bits", stream=3, dose=eps)).words(100_000)
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 8)  # 800,000 bytes
    assert np.abs(bits.mean(axis=0) - 0.5 - eps).max() < 0.0034  # six standard errors
    correlations = np.corrcoef(bits.T)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() < 0.0068


def test_a_lagged_word_is_the_last_one_again_with_the_chance_rho() -> None:
    for rho in (0.0, 0.5, 1.0):
        source = open_source(SourceSpec(kind="lag1", stream=5, dose=rho))
        words = np.concatenate([source.words(9_999), source.words(10_001)])
        assert np.mean(words[1:] == words[:-1]) == pytest.approx(rho, abs=0.022)  # six standard errors


def test_uniforms_of_any_source_of_bytes_are_those_of_its_words() -> None:
    class Bytes:
        name = "bytes"

        def read(self, n_bytes: int) -> bytes:
            return open_source(spec("prng")).read(n_bytes)

    assert uniforms(Bytes(), 20).tolist() == uniforms(open_source(spec("prng")), 20).tolist()


def test_the_strongest_bias_sets_every_bit_and_the_weakest_none_more_than_chance() -> None:
    full = open_source(SourceSpec(kind="biased_bits", stream=1, dose=0.5)).read(80)
    assert full == b"\xff" * 80
    none = open_source(SourceSpec(kind="biased_bits", stream=1, dose=0.0)).read(80_000)
    assert abs(np.unpackbits(np.frombuffer(none, np.uint8)).mean() - 0.5) < 0.004


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "quantum"}, "unknown entropy source"),
        ({"kind": "prng"}, "stream None"),
        ({"kind": "prng", "stream": -1}, "stream -1"),
        ({"kind": "trng", "stream": 3}, "takes no stream"),
        ({"kind": "prng", "stream": 1, "dose": 0.1}, "takes no dose"),
        ({"kind": "biased_bits", "stream": 1}, "dose None"),
        ({"kind": "biased_bits", "stream": 1, "dose": 0.6}, "allowed: 0 to 0.5"),
        ({"kind": "lag1", "stream": 1, "dose": float("nan")}, "allowed: 0 to 1"),
    ],
)
def test_a_wrong_source_is_refused_with_what_is_allowed(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceSpec(**fields)  # type: ignore[arg-type]


PURPOSES = [f"prompt{i}/sample0" for i in range(6)]


@pytest.mark.parametrize("kind", ["prng", "trng", "hmix", "tiled"])
def test_a_reopened_tape_gives_the_same_draws_and_continues(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a tape é" / "t.jsonl"
    first = Tape(path, spec(kind)).draws(PURPOSES[:4])
    again = Tape(path, spec(kind)).draws(PURPOSES)
    assert again[:4] == first
    assert [d.index for d in again] == list(range(6))
    assert len({d.seed64 for d in again}) == 6
    assert Tape(path, spec(kind)).draws(PURPOSES[4:], start=4) == again[4:]


def test_a_deterministic_tape_continues_where_its_sequence_would_be(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Tape(path, spec("prng")).draws(PURPOSES[:3])
    found = Tape(path, spec("prng")).draws(PURPOSES)
    generator = random.Random(42)
    assert [d.seed64 for d in found] == [generator.getrandbits(64) for _ in PURPOSES]
    assert found[0].seed32 == 2746317213


def test_every_prefix_of_a_killed_write_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first = Tape(path, spec("trng")).draws(PURPOSES[:2])
    whole_bytes = path.stat().st_size
    Tape(path, spec("trng")).draws(PURPOSES[:4])
    full = path.read_bytes()
    for cut in range(whole_bytes, len(full)):
        path.write_bytes(full[:cut])
        found = Tape(path, spec("trng")).draws(PURPOSES)
        assert found[:2] == first
        assert Tape(path, spec("trng")).draws(PURPOSES) == found


def test_a_process_killed_at_once_after_drawing_has_its_draws_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    code = (
        "import os, signal, sys; from pathlib import Path; from models.entropy import SourceSpec, Tape\n"
        "draws = Tape(Path(sys.argv[1]), SourceSpec(kind='trng')).draws(['a', 'b'])\n"
        "print([d.seed64 for d in draws], flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    assert (
        str([d.seed64 for d in Tape(path, SourceSpec(kind="trng")).draws(["a", "b"])]) == done.stdout.strip()
    )


def test_processes_that_share_a_tape_see_the_same_draws(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    code = (
        "import sys; from pathlib import Path; from models.entropy import SourceSpec, Tape\n"
        "tape = Tape(Path(sys.argv[1]), SourceSpec(kind='trng')); names = [f'p{i}' for i in range(40)]\n"
        "for n in range(1, 41): draws = tape.draws(names[:n])\n"
        "print([d.seed64 for d in draws])"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(printed) == 1


def damage_value(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:2], lines[2].replace('"seed64": ', '"seed64": 1'), *lines[3:]])


def drop_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:2] + lines[3:])


def blank_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:2], "\n", *lines[3:]])


def half_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:2], lines[2][:20] + "\n", *lines[3:]])


@pytest.mark.parametrize("damage", [damage_value, drop_line, blank_line, half_line])
def test_a_damaged_line_is_named(damage: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Tape(path, spec("trng")).draws(PURPOSES)
    path.write_text(damage(path.read_text()))
    with pytest.raises(TapeError, match=r"t\.jsonl, line 3: "):
        Tape(path, spec("trng")).draws(PURPOSES)


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Tape(path, spec("trng")).draws(PURPOSES)
    path.write_text(path.read_text().replace("trng", "hmix", 1))
    with pytest.raises(TapeError, match="line 1"):
        Tape(path, spec("trng")).draws(PURPOSES)


def test_binary_rubbish_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rubbish = os.urandom(200).replace(b"\n", b"x") + b"\n" + os.urandom(50)
    path.write_bytes(rubbish)
    with pytest.raises(TapeError, match="line 1"):
        Tape(path, spec("trng")).draws(PURPOSES)
    assert path.read_bytes().startswith(rubbish[:201])


def test_a_recorded_draw_keeps_its_purpose(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "t.jsonl", spec("trng"))
    tape.draws(PURPOSES)
    with pytest.raises(TapeError, match="line 4: draw 2 was made for 'prompt2/sample0', asked for 'other'"):
        tape.draws([*PURPOSES[:2], "other"])


def test_a_tape_belongs_to_one_source(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    Tape(path, spec("prng")).draws(PURPOSES)
    with pytest.raises(TapeError, match="use one tape a source"):
        Tape(path, SourceSpec(kind="prng", stream=123)).draws(PURPOSES)


def test_draws_cannot_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="asked for number 3"):
        Tape(tmp_path / "t.jsonl", spec("prng")).draws(PURPOSES, start=3)


def test_a_deterministic_tape_with_another_value_and_a_right_checksum_is_refused(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.jsonl", tmp_path / "wrong.jsonl"
    Tape(right, spec("prng")).draws(PURPOSES[:2])
    Tape(wrong, SourceSpec(kind="prng", stream=123)).draws(PURPOSES[:2])
    header = right.read_text().splitlines()[0]
    wrong.write_text("\n".join([header, *wrong.read_text().splitlines()[1:], ""]))
    with pytest.raises(TapeError, match=r"line 2: draw 0 is .* gives 2053695854357871005 there"):
        Tape(wrong, spec("prng")).draws(PURPOSES)
