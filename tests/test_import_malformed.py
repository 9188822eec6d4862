"""Malformed files of earlier results: refused whole, naming the place inside, and nothing is written."""

from __future__ import annotations

import copy
import json
import os
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import cli
from lab.earlier_formats import read_earlier
from lab.earlier_reading import MOST_BYTES
from lab.earlier_results import EarlierFile
from lab.errors import UsageError
from tasks import importing
from tests import earlier_files

Change = Callable[[Any], Any]
STREAM = 'streams[0].single_turn["Prompt 1 about philosophical things, please."]'
CELL = f"{STREAM}.TRNG.samples"


TINY: dict[str, Callable[[], Any]] = {
    "v1": lambda: earlier_files.v1(prompts=2, samples=4),
    "v2": lambda: earlier_files.v2(prompts=2, samples=4, turns=2),
    "injection": lambda: earlier_files.injection(prompts=2, samples=4),
    "flat": lambda: earlier_files.flat(prompts=2, samples=4),
}


def tiny(format_: str) -> Any:
    """A small file of a format."""
    return TINY[format_]()


def refusal(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `ladder import` says of a file, after checking that it says it in one line and touches no home."""
    home = tmp_path / "home"
    monkeypatch.setenv("LADDER_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["ladder", "import", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert (out, err.count("\n")) == ("", 1)
    assert "nothing was imported" in err
    assert not home.exists()
    return err


def cell(body: Any) -> Any:
    """The samples of one source at the second prompt of a v2 file."""
    return list(body["streams"][0]["single_turn"].values())[1]["TRNG"]["samples"]


def put(change: Callable[[Any], object]) -> Change:
    """A change made in place."""

    def changed(body: Any) -> Any:
        change(body)
        return body

    return changed


MALFORMED: dict[str, tuple[str, Change, str]] = {
    "a seed that is text": (
        "v2", put(lambda b: cell(b)[3].update(seed="12")), f"{CELL}[3].seed: found the text '12'; a whole"),
    "a seed that is true": ("v2", put(lambda b: cell(b)[0].update(seed=True)), f"{CELL}[0].seed: found true"),
    "a seed below zero": ("v2", put(lambda b: cell(b)[0].update(seed=-1)), f"{CELL}[0].seed: found -1"),
    "a seed over 64 bits": ("v2", put(lambda b: cell(b)[0].update(seed=2**64)), f"{CELL}[0].seed: found 18"),
    "another seed_32": ("v2", put(lambda b: cell(b)[1].update(seed_32=1)), f"{CELL}[1].seed_32: found 1"),
    "no seed": ("v2", put(lambda b: cell(b)[2].pop("seed")), f"{CELL}[2]: 'seed' is missing; found output"),
    "an output that is a list": ("v2", put(lambda b: cell(b)[2].update(output=[])), f"{CELL}[2].output: f"),
    "no output": ("v2", put(lambda b: cell(b)[2].pop("output")), f"{CELL}[2]: 'output' is missing"),
    "half a character": (
        "v2", put(lambda b: cell(b)[0].update(output="\ud800")), f"{CELL}[0].output: half of a"),
    "a metric that is text": (
        "v2", put(lambda b: cell(b)[0]["metrics"].update(mtld="9")), f"{CELL}[0].metrics.mtld: found"),
    "a metric beyond sense": (
        "v2", put(lambda b: cell(b)[0]["metrics"].update(mtld=1e300)), f"{CELL}[0].metrics.mtld: found 1e"),
    "samples that are an object": (
        "v2",
        put(lambda b: list(b["streams"][0]["single_turn"].values())[1]["TRNG"].update(samples={})),
        f"{CELL}: found an object; a list is needed"),
    "an unknown source": (
        "v2",
        put(lambda b: list(b["streams"][0]["single_turn"].values())[1].update(TRGN={"samples": []})),
        f"{STREAM}.TRGN: unknown source 'TRGN'; did you mean TRNG? allowed: HMIX, PCG64"),
    "an unknown level": (
        "v2",
        put(lambda b: list(b["streams"][0]["single_turn"].values())[1].update(constraint="lax")),
        f"{STREAM}.constraint: unknown constraint 'lax'"),
    "a stream twice": ("v2", put(lambda b: b["streams"].append(b["streams"][0])), "streams[1]: stream 42"),
    "no stream": ("v2", put(lambda b: b.update(streams=[])), "streams: no stream"),
    "another version": ("v2", put(lambda b: b.update(experiment_version="v3")), "unknown version 'v3'"),
    "a version that is a number": ("v2", put(lambda b: b.update(experiment_version=2)), "found the number 2"),
    "conversations that are a list": (
        "v2", put(lambda b: b["streams"][0].update(multi_turn=[])), "streams[0].multi_turn: found a list"),
    "a conversation without turns": (
        "v2",
        put(lambda b: b["streams"][0]["multi_turn"]["Conversation 0"]["PRNG"]["samples"][1].update(turns=[])),
        'streams[0].multi_turn["Conversation 0"].PRNG.samples[1].turns: 0 turns; allowed: 1 to'),
    "a model that is a number": ("v2", put(lambda b: b.update(model=3)), "model: found the number 3"),
    "a model of two lines": ("v2", put(lambda b: b.update(model="a\nb")), "model: found 'a\\nb'; a name has"),
    "a blank prompt": ("v1", put(lambda b: b["single_turn"].update({" ": {}})), 'single_turn[" "]: a blank'),
    "one source": (
        "v1",
        lambda b: {"single_turn": {p: {"PRNG": c["PRNG"]} for p, c in b["single_turn"].items()}},
        "the file: texts of PRNG alone; a comparison needs two sources"),
    "no prompt": ("v1", lambda b: {"single_turn": {}}, "the file: no text; a comparison needs two sources"),
    "the same prompt twice": (
        "injection",
        put(lambda b: b["prompts"].append(b["prompts"][0])),
        "prompts[2].prompt: the same prompt as prompts[0].prompt"),
    "a condition without a source": (
        "injection",
        put(lambda b: b["prompts"][0]["conditions"].update(none={"samples": []})),
        "prompts[0].conditions.none: a condition is named MODE__SOURCE"),
    "a condition of an unknown source": (
        "injection",
        put(lambda b: b["prompts"][0]["conditions"].update(none__DICE={"samples": []})),
        "prompts[0].conditions.none__DICE: unknown source 'DICE'"),
    "more valid samples than samples": (
        "injection",
        put(lambda b: b["prompts"][1]["conditions"]["none__PRNG"].update(n_valid=9)),
        "prompts[1].conditions.none__PRNG.n_valid: found 9; allowed: 0 to 4"),
    "a row twice": ("flat", put(lambda b: b.append(b[5])), "[24]: the same source, prompt and seed as [5]"),
    "a row that is a number": ("flat", put(lambda b: b.insert(1, 7)), "[1]: found the number 7; an object"),
    "rows of two models": (
        "flat",
        put(lambda b: (b[0].update(model="a"), b[1].update(model="b"))),
        "the file: rows of 2 models (a, b); one file a model"),
    "a preview without metrics": (
        "flat", put(lambda b: b[2].pop("metrics")), "[2]: no metrics beside a text that is not"),
    "a category that changes": (
        "flat", put(lambda b: b[3].update(category="naming")), "[3]: prompt 'p00' has category 'creative'"),
    "no known format": ("v1", lambda b: {"results": 3}, "no known format: found results; v2 has"),
    "a number": ("v1", lambda b: 7, "the file: not an object or list"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_wrong_inside_a_file_is_named_with_its_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    format_, change, message = MALFORMED[name]
    path = earlier_files.save(tmp_path / "earlier.json", change(tiny(format_)))
    assert message in refusal(path, tmp_path, monkeypatch, capsys)


DEEP = b'{"streams": ' + b"[" * 100_000
NOT_JSON: dict[str, tuple[Callable[[str], bytes], str]] = {
    "truncated": (
        lambda text: text.encode()[: text.index('"TRNG"') + 40],
        "streams[0].single_turn",
    ),
    "cut in an output": (
        lambda text: text.encode()[: text.index('"output"') + 20],
        ".PRNG.samples[0].output (line 1, column ",
    ),
    "empty": (lambda text: b"", "the file is empty"),
    "white space": (lambda text: b" \n\n", "the file is empty"),
    "binary": (lambda text: bytes(random.Random(1).randbytes(5000)), "which is not UTF-8"),
    "zeros": (lambda text: bytes(5000), "the top (line 1, column 1): Expecting value"),
    "UTF-16": (lambda text: text.encode("utf-16"), "byte 0 is 0xff, which is not UTF-8; save the"),
    "Latin-1": (
        lambda text: text.replace('"model": "', '"model": "é', 1).encode("latin-1"),
        "model (line 1, column 40): byte 39 is 0xe9, which is not UTF-8",
    ),
    "deep": (lambda text: DEEP, "streams[0][0][0][0]"),
    "forty-one deep": (lambda text: b"[" * 41 + b"]" * 41, "[0][0][0][0][0]"),
    "a key twice": (
        lambda text: text.replace('"domain": "creative"', '"domain": "creative", "domain": "x"', 1).encode(),
        '"Prompt 0 about creative things, please."].domain: this key stands twice in its object',
    ),
    "a prompt twice": (
        lambda text: text.replace("Prompt 1 about philosophical", "Prompt 0 about creative", 1).encode(),
        'single_turn["Prompt 0 about creative things, please."]: this key stands twice',
    ),
    "something after the end": (lambda text: f"{text}\n{{".encode(), "(line 2, column 2): Expecting"),
    "an endless number": (lambda text: b'{"streams": [' + b"9" * 5000 + b"]}", "streams[0] (line 1, col"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_JSON)
def test_a_file_that_is_not_json_is_refused_with_line_and_column(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = NOT_JSON[name]
    path = tmp_path / "earlier.json"
    path.write_bytes(damage(json.dumps(tiny("v2"))))
    assert message in refusal(path, tmp_path, monkeypatch, capsys)


def test_a_large_file_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "earlier.json"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    tracemalloc.start()
    said = refusal(path, tmp_path, monkeypatch, capsys)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"200 MiB; at most {MOST_BYTES // 2**20} MiB are read; split it by model or stream" in said
    assert peak_bytes < 5 * 2**20


@pytest.mark.parametrize("name", ["folder", "absent", "pipe", "locked", "bytes \udcff"])
def test_what_is_no_readable_file_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name.startswith("bytes"):
        path.write_text(json.dumps(tiny("v2")))
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "locked":
        path.write_text("{}")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read every file")
    said = refusal(path, tmp_path, monkeypatch, capsys)
    expected = {
        "absent": "no such file",
        "locked": "cannot be read (Permission denied)",
        "bytes \udcff": "a name that is not UTF-8; rename the file",
    }
    assert expected.get(name, "not a file but a folder or device") in said


def test_one_malformed_file_among_several_keeps_all_of_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = earlier_files.save(tmp_path / "good.json", tiny("v2"))
    bad = earlier_files.save(tmp_path / "bad.json", {"results": 3})
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["ladder", "import", str(good), str(bad)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "bad.json: the file: no known format" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**60, max_value=2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", " ", "TRNG", "\ud800", "é" * 500, "<think>", {}, [], [[]], {"samples": []}, -0.0]),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
).map(copy.deepcopy)  # a later mutation must not change the strategy itself


def read_or_refused(path: Path) -> tuple[EarlierFile | None, str]:
    """The file, or what its refusal says; any other exception is a fault."""
    try:
        return read_earlier(path), ""
    except UsageError as error:
        return None, str(error)


def mutate(body: Any, data: st.DataObject) -> None:
    """Replace, remove, add, copy or rename something at a place that chance picks."""
    node = body
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 3)):
            node = inner
            continue
        how = data.draw(st.sampled_from(["replace", "remove", "copy", "rename"]))
        if how == "replace":
            node[key] = data.draw(STRANGE)
        elif how == "remove":
            del node[key]
        elif isinstance(node, list):
            node.append(copy.deepcopy(inner))
        else:
            names = [*keys, "TRNG", "PRNG", "error", "metrics", "x"]
            node[data.draw(st.sampled_from(names))] = copy.deepcopy(inner)
        return


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format_=st.sampled_from(["v1", "v2", "injection", "flat"]))
def test_a_file_changed_anywhere_is_read_or_refused(
    data: st.DataObject, format_: str, tmp_path: Path
) -> None:
    body = tiny(format_)
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(body, data)
    file, said = read_or_refused(earlier_files.save(tmp_path / "earlier.json", body))
    if file is None:
        assert "nothing was imported" in said
        return
    for part in file.parts:
        measured = [importing.measure_text(text) for text in part.texts]
        assert len(importing.units(part, measured, stored=not file.is_whole)) <= len(part.texts)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format_=st.sampled_from(["v1", "v2", "injection", "flat"]))
def test_what_is_read_can_be_analysed(data: st.DataObject, format_: str, tmp_path: Path) -> None:
    body = tiny(format_)
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(body, data)
    file, _ = read_or_refused(earlier_files.save(tmp_path / "earlier.json", body))
    if file is None:
        return
    for part in file.parts:
        tests = importing.analyse_part(file, part)["tests"]
        verdicts = [t["verdict"] for t in tests if t["role"] == "verdict"]
        assert len(verdicts) == (5 if len(part.arms) > 1 else 0)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format_=st.sampled_from(["v1", "v2", "injection", "flat"]), junk=st.binary(max_size=6))
def test_bytes_changed_anywhere_are_read_or_refused(
    data: st.DataObject, format_: str, junk: bytes, tmp_path: Path
) -> None:
    raw = json.dumps(tiny(format_)).encode()
    start = data.draw(st.integers(0, len(raw)))
    length = data.draw(st.integers(0, 40))
    path = tmp_path / "earlier.json"
    path.write_bytes(raw[:start] + junk + raw[start + length :])
    file, said = read_or_refused(path)
    assert file is not None or said.startswith(str(path))
