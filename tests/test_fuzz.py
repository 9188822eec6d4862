"""Some cases of every fuzz target, and what earlier campaigns found; thousands by `tests.fuzz_campaign`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

import duckdb
import pytest

from lab.errors import UsageError
from lab.gates import GateError, read_rule
from lab.handover import STORE_ID
from lab.outbox import MAGIC, CorruptBatchError, read_batch
from lab.readonly import query
from lab.store import Store
from models.aligned_files import read_aligned
from models.answers import read_items
from models.entropy import Tape, TapeError
from models.regimes import read_plan
from models.sense_files import read_bundles
from tests.fuzz_batches import SPEC, rows
from tests.fuzz_campaign import TARGETS, run
from tests.fuzz_mutation import damage

SLOW = {"plan": 30, "drains": 10, "owners": 30, "sql": 60, "cli": 60}
"""Cases of targets that take over 20 ms each; 100 of the others."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_case_of_a_target_comes_to_a_fault(target: str, tmp_path: Path) -> None:
    found = run(target, range(SLOW.get(target, 100)), seed=1, folder=tmp_path)
    assert found.first == {}
    assert len(found.outcomes) > 1  # both what is taken and what is refused came up


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_no_case_of_ten_thousand_comes_to_a_fault(target: str, tmp_path: Path) -> None:
    assert run(target, range(10_000), folder=tmp_path).first == {}


def test_damage_comes_again_from_its_number() -> None:
    assert damage(b"some bytes", Random("a/0/7")) == damage(b"some bytes", Random("a/0/7"))


# --- what was found -------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_bundles, read_aligned, read_items, read_plan])
def test_a_file_nested_without_end_is_refused(read: object, tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.jsonl"):
        read(path)  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        '{"rules": [], "min_n": "DETECTED"}',
        '{"rules": [], "min_n": Infinity}',
        '{"rules": [], "min_n": ' + "9" * 5000 + "}",
        '{"rules": [{"verdict": "MAYBE", "when": []}], "min_n": 1}',
        '{"rules": [{"verdict": "DETECTED", "when": [{"left": {}, "op": "<", "right": 1}]}], "min_n": 1}',
        "[" * 100_000,
    ],
    ids=["word", "infinity", "digits", "verdict", "left", "depth"],
)
def test_a_stored_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(GateError, match="not a stored rule"):
        read_rule(text)


def test_a_tape_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    Tape(path, SPEC).draws(["p/0"])
    path.write_bytes(path.read_bytes() + b"[" * 100_000 + b"\n")
    with pytest.raises(TapeError, match=r"tape\.jsonl"):
        Tape(path, SPEC).draws(["p/0", "p/1"])


def test_a_regime_of_a_strength_beyond_floats_is_refused(tmp_path: Path) -> None:
    one = {"id": "fog", "channel": "input", "mode": "mask_tokens", "strength": 10**400, "windows": [[0, 5]]}
    path = tmp_path / "regimes.json"
    path.write_text(json.dumps({"regimes": [one]}))
    with pytest.raises(ValueError, match=r"regimes\.json is no file of regimes"):
        read_plan(path)


def test_a_batch_whose_list_of_tables_has_an_endless_number_is_refused(tmp_path: Path) -> None:
    content = b'[{"table": "metric", "rows": 1, "bytes": Infinity}]\n'
    raw = MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
    with pytest.raises(CorruptBatchError, match="does not decode"):
        read_batch(tmp_path / "a.batch", raw)


def test_a_damaged_store_id_is_one_line_and_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_OUTBOX", str(tmp_path / "share"))
    home = tmp_path / "home"
    Store(home).drain()
    (home / STORE_ID).write_bytes(b"\xad")
    lab = Store(home)
    lab.record(rows("kept"))
    with pytest.raises(UsageError, match="store-id is damaged; write the `store` of taken-by"):
        lab.read("SELECT 1")
    told = json.loads((tmp_path / "share" / "taken-by.json").read_text())
    (home / STORE_ID).write_text(told["store"])
    assert Store(home).read("SELECT count(*) FROM metric").item() == 3


@pytest.mark.parametrize(
    "value",
    [
        "TIMESTAMP 'infinity'",
        "DATE '-infinity'",
        "TIMESTAMP '290000-12-31'",
        "[DATE 'infinity']",
        "{'a': [TIMESTAMPTZ 'infinity']}",
        "MAP {'a': DATE 'infinity'}",
    ],
)
def test_a_time_without_a_date_is_refused_where_polars_would_panic(value: str) -> None:
    with duckdb.connect() as con, pytest.raises(UsageError, match="'moment' holds a time before"):
        query(con, f"SELECT {value} AS moment")


def test_the_first_and_the_last_day_are_answered() -> None:
    with duckdb.connect() as con:
        [row] = query(con, "SELECT DATE '0001-01-01', TIMESTAMP '9999-12-31 23:59:59', []::DATE[]").rows()
    assert [str(value) for value in row] == ["0001-01-01", "9999-12-31 23:59:59", "[]"]


def test_a_query_with_half_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="half of one"):
        Store(tmp_path).read("SELECT '\ud800'")
