"""What a person sees of work under way: bars on a terminal, a line now and then in a file."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from types import SimpleNamespace

import pytest

from deployments import terminal
from deployments.terminal import duration, folded
from deployments.visible import tell
from lab import counted
from tests.ladder_command import ROOT

WORK = """
import logging, time
from deployments import terminal
from tasks.progress import Progress

with terminal.progress():
    logging.getLogger("flows.x").info("phase core of a study whose name is " + "long " * 12)
    training = Progress("train a model of a long name and a seed, steps of the training", 300)
    for step in range(300):
        training.advance(1, made=1)
        time.sleep(0.005)
    part = Progress("a short part", 2, every_seconds=20.0)
    part.advance(1, made=1)
    part.advance(1, made=1)
    strange = Progress("[/b] [red]a :smile: \\x1b[35m", 9)
    strange.advance(1, made=1)
    time.sleep(0.6)
    strange.advance(8, made=8)
    logging.getLogger("tasks.launching").info("a model said [/INST] \\x1b[35m :smile:")
    logging.getLogger("tasks.launching").info("  look 4, texts: 3 of 9, about 130 s left")
    time.sleep(0.6)
    logging.getLogger("tasks.launching").info("  look 4, texts: 9 of 9, 9 made now")
print("after")
"""
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "TERM": "xterm-256color",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def on_a_terminal(columns: int) -> str:
    """All that the work writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ):
        os.close(theirs)
        written = b""
        while True:
            try:
                new = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not new:
                break
            written += new
    os.close(ours)
    return written.decode("utf-8")


def test_a_terminal_has_bars_with_the_time_left_and_is_left_as_it_was() -> None:
    written = on_a_terminal(80)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"train a model of a long.*…\s.*\d+/300 +\d+ s left", plain)
    assert re.search(r"look 4, texts .*3/9 +2 min left", plain)
    lines = re.split(r"[\r\n]+", plain)
    assert max(map(len, lines)) <= 80
    assert ", about " not in plain  # news of a bar is no line
    assert "look 4, texts: 9 of 9, 9 made now" in plain
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l") >= 0  # the cursor is shown again
    assert plain.rstrip().endswith("after")
    assert re.search(r"\[/b\] \[red\]a :smile: .*1/9", plain)  # what is at work may have any name
    assert r"a model said [/INST] \x1b[35m :smile:" in plain
    assert "\x1b[35m :smile:" not in written


def test_a_file_has_lines_without_control_characters_seldom() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "after\n"
    lines = done.stderr.splitlines()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stderr)
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)
    assert len(lines) <= 6  # 300 steps and two short parts: none of them within 3 s
    assert r"a model said [/INST] \x1b[35m :smile:" in done.stderr


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_line_is_folded_for_people_and_whole_for_programs() -> None:
    line = "ok      a_study a check: " + "found what it looked for " * 8
    seen, piped = Screen(), io.StringIO()
    terminal.say(line, " " * 8, stream=seen)
    terminal.say(line, " " * 8, stream=piped)
    assert piped.getvalue() == line + "\n"
    lines = seen.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= terminal.width()
    assert all(one.startswith(" " * 8) for one in lines[1:])


def test_stored_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[/INST] [red]a :smile: \x1b[31m\x9b\r\u202e"
    shown = r"[/INST] [red]a :smile: \x1b[31m\x9b\r\u202e"
    terminal.say(text)
    assert folded(text) == [shown]
    tell(text)
    decision = {"gate": text[:9], "verdict": "DETECTED", "sentence": text, "exploratory": True}
    terminal.print_decisions([decision | {"negligible": False}])
    said = capsys.readouterr().out
    assert said.splitlines()[:2] == [shown, shown]
    assert " ".join(said.split()).endswith(f"DETECTED [/INST] [ {shown} (exploratory).")


def test_a_long_loop_tells_bars_of_every_turn_and_a_file_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 2.0, 4.0])
    monkeypatch.setattr(counted, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    caplog.set_level(logging.DEBUG)
    assert list(counted.counted("abc", "studies")) == ["a", "b", "c"]
    bars = [record.args for record in caplog.records if record.name == "progress"]
    assert bars == [
        ("studies", 0, 3, None),
        ("studies", 1, 3, 4.0),
        ("studies", 2, 3, 2.0),
        ("studies", 3, 3, 0.0),
    ]
    said = [record.getMessage() for record in caplog.records if record.name == counted.logger.name]
    assert said == ["studies: 2 of 3, about 2 s left"]


def test_durations_and_folded_lines() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 90, 5400)] == ["0 s", "89 s", "2 min", "1.5 h"]
    assert folded("mem-ema-decay " * 10)[1].startswith("    mem-ema-decay")
