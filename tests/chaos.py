"""Nights disturbed at random, and what holds whatever happens: `python -m tests.chaos --minutes 30`.

A home with two small candidates has night after night until both are done. Meanwhile the night is killed or
interrupted, a foreign program holds the database, the Prefect server dies and comes back, the disk fills up,
the clock on the wall jumps (by `clock_shim.c`; without a C compiler, not). After each night the store is
checked: every row belongs to a step, a run and a night that are there, verdicts follow from their evidence,
no batch was refused, nothing that was seen has gone. A home whose candidates are done holds what an
undisturbed one holds, and the next home begins. It ends with 1 where that fails, and says what was done until
then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from lab.gates import judge, read_rule
from lab.store import Store
from tests.ladder_command import ask, free_port, ladder, server_url, start, start_server
from tests.small_night import FOUND, asked, left_by_a_night, night, prepared

Rows = list[dict[str, Any]]
BUDGET, DISK = "6m", "192m"
MOST_FULL_DISKS = 1
"""A home: a run without room counts as failed, and three failures end it."""
SHIM = Path(__file__).with_name("clock_shim.c")
JUMPS_HOURS = (0, -3, 5, -48, 24)
HOLDER = """
import duckdb, sys, time
for _ in range(200):
    try:
        held = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        time.sleep(0.05)
time.sleep(float(sys.argv[2]))
"""
DECIDED = (
    "SELECT gate, decision.model, look, verdict, sentence, evidence FROM decision JOIN run USING (run_id) "
    "WHERE run.state <> 'failed' ORDER BY ALL"
)
"""Without those of runs that lacked something, as on a full disk: they analysed what there was."""
WITH_STEP = (
    "SELECT table_name FROM information_schema.columns JOIN information_schema.tables USING (table_name) "
    "WHERE column_name = 'step_id' AND table_type = 'BASE TABLE' AND table_name <> 'step' ORDER BY ALL"
)
LOOSE = {
    "decision without its run": "SELECT run_id FROM decision ANTI JOIN run USING (run_id)",
    "queue without its night": "SELECT night_id FROM queue ANTI JOIN night USING (night_id)",
    "plan step without its plan": "SELECT plan_hash FROM plan_step ANTI JOIN plan USING (plan_hash)",
    "a gate decided twice": "SELECT decision.plan_hash, decision.model, gate, look FROM decision "
    "JOIN run USING (run_id) WHERE run.state <> 'failed' GROUP BY ALL HAVING count(*) > 1",
    "an item done twice": "SELECT item FROM queue WHERE state = 'done' GROUP BY ALL HAVING count(*) > 1",
    "a result that is no number": "SELECT step_id FROM metric WHERE isinf(value) OR isnan(value)",
}  # fmt: skip
OPEN = """
SELECT count(*) AS n FROM (
    SELECT item FROM queue GROUP BY item
    HAVING bool_or(state IN ('queued', 'running', 'left')) AND NOT bool_or(state IN ('done', 'failed'))
)
"""
"""Candidates that no night has done or given up; the clock may be wrong, so not by date."""


@dataclass
class Place:
    """A home, its server and who disturbs it."""

    home: Path
    server_folder: Path
    port: int
    server: subprocess.Popen[bytes]
    draw: Random
    clock: Path
    """Seconds by which the night's clock is wrong; beside it the library that reads them, if it was built."""
    full_disks: int = 0
    done: Counter[str] = field(default_factory=Counter)

    @property
    def extra(self) -> dict[str, str]:
        """What the night's process is told."""
        told = {"PREFECT_API_URL": server_url(self.port)}
        library = self.clock.with_suffix(".so")
        return told | (
            {"LD_PRELOAD": str(library), "CLOCK_SHIM": str(self.clock)} if library.exists() else {}
        )

    def hold(self, _: subprocess.Popen[str]) -> None:
        """A foreign program holds the database."""
        seconds = self.draw.uniform(2.0, 40.0)
        command = [sys.executable, "-c", HOLDER, str(self.home / "lab.duckdb"), str(seconds)]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def restart_server(self, _: subprocess.Popen[str]) -> None:
        """The server dies and comes back at the same address, with its database."""
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        time.sleep(self.draw.uniform(0.0, 15.0))
        self.server = start_server(self.server_folder, self.port)

    def fill(self, _: subprocess.Popen[str]) -> None:
        """No room is left for a while."""
        self.full_disks += 1
        filler, until = self.home.parent / "filler", time.monotonic() + self.draw.uniform(1.0, 15.0)
        with filler.open("wb") as file:
            while time.monotonic() < until:  # what others free meanwhile is taken too
                with contextlib.suppress(OSError):
                    file.write(b"\0" * 65_536)
                    file.flush()
        filler.unlink()

    def jump(self, _: subprocess.Popen[str]) -> None:
        """The clock on the wall is set, back or forth."""
        self.clock.write_text(str(3600 * self.draw.choice(JUMPS_HOURS)))

    def kill(self, process: subprocess.Popen[str]) -> None:
        """`kill -9` for the night; what it started ends with it."""
        others = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert psutil.wait_procs(others, timeout=30)[1] == [], "a run outlived its night"

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)

    def disturbances(self) -> Mapping[str, Callable[[subprocess.Popen[str]], None]]:
        """What may happen now, by name."""
        found = {
            "kill -9": self.kill, "Ctrl-C": self.interrupt, "store held": self.hold,
            "server killed": self.restart_server,
        }  # fmt: skip
        if self.full_disks < MOST_FULL_DISKS and self.home.parent.is_mount():
            found["disk full"] = self.fill
        if self.clock.with_suffix(".so").exists():
            found["clock set"] = self.jump
        return found

    def one_night(self, *, in_peace: bool) -> None:
        """A night, with a disturbance now and then unless it is left in peace."""
        self.clock.write_text("0")  # as the server's, which says when the night was due
        process = start(*night("--budget", BUDGET), home=self.home, extra=self.extra)
        try:
            while process.poll() is None and not in_peace:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=self.draw.uniform(3.0, 20.0))
                    break
                name, disturb = self.draw.choice(list(self.disturbances().items()))
                disturb(process)
                self.done[name] += 1
            _, said = process.communicate(timeout=600) if process.returncode != -signal.SIGKILL else ("", "")
        except BaseException:
            self.kill(process)
            raise
        self.done["nights"] += 1
        self.done[f"ended with {process.returncode}"] += 1
        assert process.returncode in (0, 1, 4, 130, -signal.SIGKILL, -signal.SIGINT), said
        assert "Traceback" not in said, said


def check(home: Path, seen: dict[str, int]) -> None:
    """What must hold whatever happened; `seen` are counts of rows, which never fall.

    Raises
    ------
    AssertionError
        With what does not hold.
    """
    lab = Store(home)
    if not (home / "lab.duckdb").exists():
        return
    found = lab.drain(wait_seconds=60.0)
    assert (found.waiting, found.rejected, found.problem) == (0, (), None), found
    for what, query in LOOSE.items():
        rows = lab.read(query)
        assert rows.is_empty(), f"{what}: {rows}"
    for [table] in lab.read(WITH_STEP).iter_rows():
        loose = lab.read(f"SELECT count(*) FROM {table} ANTI JOIN step USING (step_id)").item()
        assert loose == 0, f"{table}: {loose} rows without their step"
        count = lab.read(f"SELECT count(*) FROM {table}").item()
        assert count >= seen.get(table, 0), f"{table}: {seen[table]} rows were seen, now {count}"
        seen[table] = count
    for row in lab.read("SELECT gate, verdict, evidence, rule FROM decision").iter_rows(named=True):
        again = judge(*read_rule(row["rule"]), json.loads(row["evidence"]))
        assert again == row["verdict"], row


def is_as(found: list[Rows], expected: list[Rows], full_disks: int) -> bool:
    """Whether counts and decisions are those; a full disk may leave rows of an analysis that lacked runs."""
    if full_disks:
        return found[1] == expected[1] and all(found[0][0][key] >= n for key, n in expected[0][0].items())
    return found == expected


def different(found: list[Rows], expected: list[Rows], home: Path) -> str:
    """What a home has in place of what was expected, and how its runs ended."""
    lines = [f"{one} in place of {other}" for one, other in zip(found[0], expected[0], strict=True)]
    lines += [f"not expected: {row}" for row in found[1] if row not in expected[1]]
    lines += [f"missing: {row}" for row in expected[1] if row not in found[1]]
    ended = "SELECT night_id, position, state, attempt, run_id, note FROM queue ORDER BY night_id, position"
    runs = "SELECT run_id, state, started_at, ended_at, note FROM run ORDER BY started_at"
    lines += [str(row) for query in (ended, runs) for row in ask(query, home=home)]
    return "\n".join(lines)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own where we may mount one, else a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def chaos(
    folder: Path, *, seconds: float, seed: int = 0, report: Callable[[str], None] = print
) -> Counter[str]:
    """Disturb nights for so long, then leave those in peace that the home at work still needs.

    Returns what was done, counted.

    Raises
    ------
    AssertionError
        Something did not hold.
    """
    draw, port = Random(seed), free_port()
    server_folder = folder / "prefect"
    server_folder.mkdir()
    server = start_server(server_folder, port)
    extra = prepared(server_url(port))
    clock = folder / "clock"
    compiler = shutil.which("cc")
    if compiler:
        library = str(clock.with_suffix(".so"))
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, str(SHIM), "-ldl"], check=True)
    candidates = (asked(folder), asked(folder, seeds=[2, 3]))
    done: Counter[str] = Counter()
    try:
        whole = left_by_a_night(folder / "undisturbed", *candidates)
        told = ladder(*night("--budget", "10m"), home=whole, extra=extra)
        assert told.returncode == 0, told.stderr
        expected = [ask(query, home=whole) for query in (FOUND, DECIDED)]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with small_disk(folder / f"disk-{done['homes']}") as disk:
                home = left_by_a_night(disk / "home", *candidates)
                place = Place(
                    home=home, server_folder=server_folder, port=port, server=server, draw=draw, clock=clock
                )
                seen: dict[str, int] = {}
                while ask(OPEN, home=home)[0]["n"]:
                    try:
                        place.one_night(in_peace=time.monotonic() > deadline)
                    finally:
                        server = place.server
                    check(home, seen)
                    report(f"{dict(place.done)}")
                found = [ask(query, home=home) for query in (FOUND, DECIDED)]
                assert is_as(found, expected, place.full_disks), different(found, expected, home)
            done += place.done
            done["homes"] += 1
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    return done


def main() -> None:
    """Run it in a folder that goes afterwards, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        found = chaos(Path(folder), seconds=60 * given.minutes, seed=given.seed)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
