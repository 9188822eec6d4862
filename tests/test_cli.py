"""The `ladder` command: what each bad input says, and what the small commands print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.main import get_command

from deployments import cli
from flows.registry import studies
from lab.machine import environment
from lab.records import MetricRow
from lab.store import Store
from tests.ladder_command import ROOT
from tests.night_rows import NOON, RUN
from tests.small_study import record_study


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, and afterwards the environment as it was: commands set Prefect's variables."""
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command."""
    monkeypatch.setattr(sys, "argv", ["ladder", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "entropy_seed"), "did you mean entropy_seeds or entropy_ladder?"),
        (("run", "entropy_seeds", "--profile", "night"), "unknown profile of entropy_seeds 'night'"),
        (("run", "entropy_seeds", "--set", "seeds=3"), "unknown field 'seeds'"),
        (("run", "entropy_seeds", "--set", "model=gpt9"), "unknown embedded model 'gpt9'; allowed: pydoc-"),
        (("run", "entropy_seeds", "--set", "margin_sd=nan"), "margin_sd = 'nan'"),
        (("plan", "entropy_seeds", "--set", "looks=3,2"), "allowed: rising whole numbers"),
        (("plan", "--profile", "smok"), "unknown profile 'smok'; did you mean smoke?"),
        (("night", "--budget", "8 hours"), "write a number and s, m or h"),
        (("night", "--budget", "99999999999999h"), "is over a year; allowed: 1s to 8760h"),
        (
            ("run", "entropy_seeds", "--set", "host=http://[::1"),
            "cannot be read (Invalid IPv6 URL); give it as",
        ),
        (("run", "entropy_control", "--set", "host=x:99999"), "cannot be read (Port out of range 0-65535)"),
        (("run", "entropy_ladder", "--set", "host=a\x01"), r"a\x01' cannot be read (Invalid non-printable"),
        (("plan", "entropy_seeds", "--profile", "\x1b[31m"), r"unknown profile of entropy_seeds '\x1b[31m'"),
        (("gates", "mechanisms"), "did you mean mechanism?"),
        (("verify", "nanodesm"), "did you mean nanodesmo?"),
        (("figures", "nanodesm"), "unknown study 'nanodesm'"),
        (("freeze", "nothing"), "unknown study 'nothing'"),
        (("gates", "entropy-seeds", "--why", "abc"), "no decision 'abc' of entropy_seeds; allowed: none yet"),
        (("sql", "select 1"), "no store in"),
        (("sql",), "Missing"),
        (("dance",), "Commands: clean, doctor, down"),
        (("up", "--port", "99999"), "or equal to 65535. `ladder up --help` tells its options."),
        (("sql", "-- all of it\nselect 1"), "no store in"),
        (("run", "entropy_seeds", "--fast"), "--fresh, --set). `ladder run --help` tells its options."),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed_and_exit_2(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(monkeypatch, capsys, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_home_that_cannot_be_written_is_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "file" / "home"))
    code, _, err = said(monkeypatch, capsys, "plan")
    assert code == 2
    assert "cannot be written" in err
    assert "set LADDER_HOME" in err


def test_sql_writes_every_format_and_only_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "home").record(
        [MetricRow(step_id="s", unit="*", name=n, value=v, reason=None) for n, v in (("a", 1.5), ("ö", 2.0))]
    )
    query = "SELECT name, value FROM metric ORDER BY name"
    assert said(monkeypatch, capsys, "sql", query) == (
        0,
        "name  value\na       1.5\nö         2\n(2 rows)\n",
        "",
    )
    assert said(monkeypatch, capsys, "sql", query, "--format", "csv")[1] == "name,value\na,1.5\nö,2.0\n"
    found = json.loads(said(monkeypatch, capsys, "sql", query, "--format", "json")[1])
    assert found == [{"name": "a", "value": 1.5}, {"name": "ö", "value": 2.0}]
    out = tmp_path / "x.parquet"
    assert said(monkeypatch, capsys, "sql", query, "--format", "parquet", "--out", str(out))[0] == 0
    assert pl.read_parquet(out).rows() == [("a", 1.5), ("ö", 2.0)]
    for words, message in (
        (("delete from metric",), "only"),
        ((query, "--format", "xml"), "unknown format 'xml'; allowed: csv, json, parquet, table"),
        ((query, "--format", "parquet"), "--out FILE"),
        ((query, "--out", str(tmp_path / "no" / "x")), "cannot write"),
    ):
        code, _, err = said(monkeypatch, capsys, "sql", *words)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert (
        said(monkeypatch, capsys, "sql", "SELECT count(*) AS n FROM metric", "--format", "csv")[1] == "n\n2\n"
    )


ROW = MetricRow(step_id="s", unit="*", name="a", value=1.0, reason=None)
MARKUP = "SELECT '[/b]' AS \"[/x]\", 'a[red]b :smile:' AS b, chr(27) || '[31m' || chr(155) AS c"


def test_sql_shows_cells_and_heads_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "home").record([ROW])
    lines = said(monkeypatch, capsys, "sql", MARKUP)[1].splitlines()
    assert lines[:2] == [
        "[/x]  b                c",
        r"[/b]  a[red]b :smile:  \x1b[31m\x9b",
    ]
    code, _, err = said(monkeypatch, capsys, "sql", "SELECT error(chr(27) || '[31m')")
    assert (code, err) == (2, "ladder: Invalid Input Error: \\x1b[31m\n")


def test_sql_says_nothing_to_a_terminal_that_it_would_obey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "home").record([ROW])
    table = tmp_path / "table.txt"
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "80")
        seen = said(patch, capsys, "sql", MARKUP)[1]
        wide = said(patch, capsys, "sql", f"{MARKUP}, repeat('[/b] ', 40) AS \"[/y]\"")[1]
        long = said(patch, capsys, "sql", f"SELECT 'a b' AS {'n' * 200}")[1]
        csv = said(patch, capsys, "sql", MARKUP, "--format", "csv")[1]
        said(patch, capsys, "sql", MARKUP, "--out", str(table))
    assert "\x1b[1m" in seen  # the heads are bold
    for text in (seen, wide, csv):
        assert r"\x1b[31m\x9b" in text
        assert not {"\x1b[31m", "\x9b"} & {text[i : i + n] for n in (1, 5) for i in range(len(text))}
    assert "[/y]" in wide
    assert f"{'n' * 200}\n{' ' * 40}a b\n-----" in long
    assert "\x1b" not in table.read_text()  # a file is no terminal
    assert "\x1b[31m\x9b" in said(monkeypatch, capsys, "sql", MARKUP, "--format", "csv")[1]  # for a program


@pytest.mark.parametrize(
    ("value", "format_"),
    [
        ("[1]", "csv"),
        ("{'a': 1}", "csv"),
        ("'x'::BLOB", "csv"),
        ("1::BIGNUM", "csv"),
        ("'x'::BLOB", "json"),
        ("[MAP {1: 'x'::BLOB}]", "json"),
        ("1::BIGNUM", "json"),
    ],
)
def test_a_format_that_cannot_hold_a_type_says_so(
    value: str,
    format_: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Store(tmp_path / "home").record([ROW])
    code, out, err = said(monkeypatch, capsys, "sql", f"SELECT {value} AS it", "--format", format_)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("ladder: column 'it' is ")
    assert f"which {format_} does not hold; cast it to VARCHAR" in err


def test_a_plan_of_an_empty_home_shows_what_is_to_make_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(monkeypatch, capsys, "plan", "entropy_seeds")
    assert code == 0
    assert "generate look 16" in out
    assert "no plan is frozen yet" in out
    assert list((tmp_path / "home").iterdir()) == []


def test_a_plan_names_what_an_ollama_server_must_have_and_every_profile_has_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(monkeypatch, capsys, "plan", "entropy_ladder", "--profile", "laptop")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    said_whole = " ".join(out.split())
    assert "needs an Ollama server (`ladder doctor` asks it) and ollama pull qwen3:0.6b; " in said_whole
    assert "ollama" not in said(monkeypatch, capsys, "plan", "entropy_ladder")[1]
    undeclared = [
        f"{study.name}/{profile}"
        for study in studies().values()
        for profile in study.profiles
        if profile not in study.expected_seconds
    ]
    assert undeclared == []


def test_a_plan_reckons_as_a_night_would_and_leaves_the_home_byte_for_byte_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    said(monkeypatch, capsys, "freeze", "entropy_seeds")
    store, here = Store(home), environment(device="cpu")
    mine = replace(RUN, study="entropy_seeds", environment_id=here.environment_id)
    store.record([here, mine, replace(mine, run_id="again", ended_at=NOON + timedelta(seconds=12))])
    store.record([replace(mine, run_id="waits")], drain=False)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    [told] = json.loads(said(monkeypatch, capsys, "plan", "entropy-seeds", "--json")[1])
    assert told["expected_from"] == "learnt from 1 run"
    assert told["expected_seconds"] == pytest.approx(360.0, abs=1.0)  # the longest by hand, none of it here
    code, out, _ = said(monkeypatch, capsys, "plan", "entropy_seeds")
    assert (code, "expected: 6 min, learnt from 1 run on this processor" in out) == (0, True)
    assert max(map(len, out.splitlines())) <= 80
    every = json.loads(said(monkeypatch, capsys, "plan", "--json")[1])
    assert {one["study"]: one["expected_from"] for one in every} == {
        name: "learnt from 1 run" if name == "entropy_seeds" else "declared" for name in studies()
    }
    other = json.loads(said(monkeypatch, capsys, "plan", "entropy_seeds", "--set", "samples=32", "--json")[1])
    assert other[0]["expected_seconds"] > told["expected_seconds"]  # more to make than the profile has
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "mechanism"),
        ("gates",),
        ("gates", "entropy_seeds"),
        ("gates", "entropy_seeds", "--why", "FIRST"),
        ("status",),
        ("doctor",),
        ("verify",),
        ("verify", "mechanism"),
        ("figures", "entropy_seeds", "--format", "svg"),
        ("clean", "entropy_seeds"),
        ("sql", "SELECT * FROM decision_path", "--format", "json"),
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record_study(Store(tmp_path / "home"))
    [first, *_] = Store(tmp_path / "home").read("SELECT decision_id FROM decision")["decision_id"]
    words = tuple(first if word == "FIRST" else word for word in words)
    flag = () if words[0] == "sql" else ("--json",)
    code, out, _ = said(monkeypatch, capsys, *words, *flag)
    assert json.loads(out)
    plain = said(monkeypatch, capsys, *words)
    assert plain[0] == code
    assert "\x1b" not in plain[1] + plain[2]


def test_freezing_twice_keeps_the_date_and_another_plan_says_what_it_replaces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "froze plan" in said(monkeypatch, capsys, "freeze", "entropy_seeds")[1]
    assert "is frozen since" in said(monkeypatch, capsys, "freeze", "entropy_seeds")[1]
    assert "in place of" in said(monkeypatch, capsys, "freeze", "entropy_seeds", "--set", "alpha=0.01")[1]
    code, out, _ = said(monkeypatch, capsys, "plan", "entropy_seeds")
    assert code == 0
    assert "departs from the frozen plan" in out
    assert "in alpha: exploratory" in out


def test_drain_and_snapshot_say_what_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [MetricRow(step_id="s", unit="*", name="a", value=1.0, reason=None)]
    Store(tmp_path / "home").record(rows, drain=False)
    found = said(monkeypatch, capsys, "drain")
    assert found == (0, "1 batches with 1 rows brought in, 0 waiting\n", "")
    assert said(monkeypatch, capsys, "snapshot")[1].strip().endswith("lab-snapshot.duckdb")


def test_figures_are_files_with_their_rows_and_an_unknown_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_study(Store(tmp_path / "home"))
    code, out, _ = said(monkeypatch, capsys, "figures", "entropy-seeds", "--format", "svg")
    written = [Path(line) for line in out.splitlines()]
    assert code == 0
    assert {path.suffix for path in written} == {".svg", ".json"}
    assert all(path.stat().st_size > 100 for path in written)
    code, _, err = said(monkeypatch, capsys, "figures", "--format", "gif")
    assert (code, err.count("\n")) == (2, 1)
    assert "gif" in err


def test_a_report_of_an_empty_home_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(monkeypatch, capsys, "report")
    assert code == 0
    assert "ladder run" in Path(out.strip()).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(get_command(cli.app).commands))  # type: ignore[attr-defined]
def test_help_says_what_a_command_does_with_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = said(monkeypatch, capsys, name, "--help")
    assert code == 0
    assert "Example: " in out
    assert f"ladder {name}" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_shell_completes_commands_and_studies() -> None:
    def offered(line: str) -> list[str]:
        told = {
            "_LADDER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        done = subprocess.run(
            [Path(sys.executable).with_name("ladder")], env=os.environ | told, capture_output=True, text=True
        )
        return done.stdout.split()

    assert offered("ladder ni") == ["night"]
    assert offered("ladder run entropy_s") == ["entropy_seeds"]
    assert {name for letter in "deimns" for name in offered(f"ladder plan {letter}")} == set(studies())


def test_a_command_takes_a_home_with_spaces_and_other_scripts_whole(tmp_path: Path) -> None:
    home = tmp_path / "mein Lab's é 実験"
    Store(home).record([MetricRow(step_id="s", unit="*", name="naïve", value=1.0, reason=None)])
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "sql", "FROM metric", "--format", "json"],
        env={**os.environ, "LADDER_HOME": str(home), "PYTHONPATH": str(ROOT), "LC_ALL": "C"},
        capture_output=True, text=True, cwd=tmp_path, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)] == ["naïve"]
    assert list(tmp_path.iterdir()) == [home]
