"""Whether each fault's test fails when its protection is gone: `python -m tests.fault_mutations [FAULT...]`.

The protection is taken out of a copy of the project, and the named tests run on it; a mutation that they
pass is printed as SURVIVED, and the command ends with 1. Some 15 minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.ladder_command import ROOT, copy_tree

OVERNIGHT, FAULTS = "tests/test_overnight.py", "tests/test_store_faults.py"
BOOK, STEPS = "tests/test_night_book.py", "tests/test_night_steps.py"
KILLED = f"{OVERNIGHT}::test_a_stopped_and_a_killed_night_are_gone_on_with_and_end_as_if_nothing_had_been"

PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow")


@dataclass(frozen=True)
class Mutation:
    """A protection and the tests that need it."""

    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "kill: a run launched before is found by its key", "flows/night_run.py",
        "{asked_by}/{one.item}/{attempt}", "{self.book.night.night_id}/{one.item}/{attempt}",
        (f"{OVERNIGHT}::test_a_run_that_ended_after_its_night_was_killed_is_not_run_again",),
    ),
    Mutation(
        "two homes on one server: each has runs of its own", "flows/night_run.py",
        'key=f"{home_id(self.home)}/', 'key=f"',
        (f"{STEPS}::test_homes_that_share_a_server_have_keys_of_their_own_and_one_home_keeps_its",),
    ),
    Mutation(
        "worker killed: a run that outlived it is waited for", "tasks/launching.py",
        "        if is_worked_on(Store(home), str(run.id)):", "        if False:",
        (f"{STEPS}::test_a_run_whose_process_outlived_its_worker_is_waited_for_and_one_without_either_is_gone",),
    ),
    Mutation(
        "kill: what it left half-written in the database is put back", "lab/database.py",
        "os.pwrite(file.fileno(), content[at - size : at], place)", "pass",
        ("tests/test_database.py",),
    ),
    Mutation(
        "kill: a training goes on from its checkpoint", "models/pretrain.py",
        "log = [] if kept is None else kept.load()", "log = []",
        ("tests/test_pretrain_state.py",),
    ),
    Mutation(
        "budget: it counts from the command", "flows/night_run.py",
        "(due or datetime.now(UTC), command_began)", "(due or datetime.now(UTC), None)",
        (f"{STEPS}::test_the_budget_counts_from_the_command_and_not_from_when_its_server_was_there",),
    ),
    Mutation(
        "kill: routes are queued before the run counts as done", "flows/night_run.py",
        "            follow(self.book, row, climb",
        '            self.book.put(replace(row, state="done"))\n            follow(self.book, row, climb',
        (f"{STEPS}::test_a_route_is_in_the_queue_before_its_run_counts_as_done",),
    ),
    Mutation(
        "kill: what a killed night left is found", "lab/night_book.py",
        'UNFINISHED = ("budget", "crashed", "cancelled", "failed")', 'UNFINISHED = ("budget",)',
        (BOOK, KILLED),
    ),
    Mutation(
        "kill: runs die with their night", "tasks/night_child.py",
        "    threading.Thread(target=_end_with, args=(line,), daemon=True).start()\n", "",
        (KILLED,),
    ),
    Mutation(
        "failure: a smaller profile follows", "lab/study.py",
        "return names[place - 1] if place else None", "return None",
        (f"{STEPS}::test_a_run_that_failed_or_was_refused_leads_to_the_next_smaller_profile",),
    ),
    Mutation(
        "store held: reads wait", "lab/store.py",
        "        *,\n        wait_seconds: float | None = 600.0,\n",
        "        *,\n        wait_seconds: float | None = 0.0,\n",
        (f"{FAULTS}::test_a_read_waits_until_the_foreign_holder_lets_go",),
    ),
    Mutation(
        "store held: records wait in the outbox", "lab/store.py",
        "        except lock.HeldError as held:\n            if held.foreign:\n                first",
        "        except ZeroDivisionError as held:\n            if held.foreign:\n                first",
        (f"{FAULTS}::test_while_a_foreign_process_holds_the_file_batches_wait_and_it_is_named",),
    ),
    Mutation(
        "crowd: one process at a time takes the outbox", "lab/lock.py",
        "        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)\n",
        "        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        (f"{FAULTS}::test_eight_recording_processes_and_a_reader_lose_and_double_nothing[40]",),
    ),
    Mutation(
        "full disk: a half-written batch goes", "lab/outbox.py",
        "        with self._nothing_recorded_on_error(temporary):\n", "        if temporary:\n",
        (f"{FAULTS}::test_a_disk_full_while_recording_is_an_error_that_leaves_no_half_file",
         f"{FAULTS}::test_a_file_size_limit_while_recording_leaves_no_half_file"),
    ),
    Mutation(
        "server restarted: it is waited for", "tasks/launching.py",
        "SERVER_PATIENCE_SECONDS = 120.0", "SERVER_PATIENCE_SECONDS = 0.0",
        (f"{STEPS}::test_a_server_that_does_not_answer_for_a_while_is_waited_for",),
    ),
    Mutation(
        "worker killed: its run is executed here", "tasks/launching.py",
        "                if is_waiting and not served(self.deployment):", "                if False:",
        (f"{STEPS}::test_a_run_that_no_worker_came_for_is_executed_here_once_none_is_there",),
    ),
    Mutation(
        "Ollama: a reply without its end is none", "models/ollama_session.py",
        "        raise TruncatedReply(f\"the reply ended after", "        print(f\"the reply ended after",
        ("tests/test_ollama_backend.py",),
    ),
    Mutation(
        "NaN: the sampler refuses logits that are no numbers", "models/sampling.py",
        "torch.isfinite(logits.sum(dim=1)).cpu().numpy()", "np.ones(len(logits), bool)",
        ("tests/test_sampling.py", "tests/test_transformers_backend.py"),
    ),
    Mutation(
        "NaN: no product holds one", "lab/products.py", "allow_nan=False", "allow_nan=True",
        ("tests/test_products.py",),
    ),
    Mutation(
        "corrupted cache entry: its checksum is compared", "lab/products.py",
        "digest != hashlib.sha256(body).hexdigest() or ", "",
        ("tests/test_products.py",),
    ),
    Mutation(
        "corrupted model: its files are hashed", "models/kept.py",
        "if any(_file_sha256(directory / name) != digest for name", "if any(False for name",
        ("tests/test_embedded.py", "tests/test_nano_training.py"),
    ),
    Mutation(
        "corrupted outbox file: its hash is compared", "lab/outbox.py",
        '    if sha256 != declared.decode("ascii", "replace"):', "    if False:",
        ("tests/test_outbox.py",),
    ),
    Mutation(
        "clock: batches keep their order", "lab/outbox.py",
        "max(time.time_ns(), _last_stamp_ns + 1, after_ns + 1)", "time.time_ns()",
        ("tests/test_outbox.py",),
    ),
    Mutation(
        "clock: nights keep their order", "lab/night_book.py",
        "started_at=max(utc_now(), last + timedelta(milliseconds=1))", "started_at=utc_now()",
        (BOOK,),
    ),
    Mutation(
        "two nights: the second is refused", "lab/night_book.py",
        "        with lock.held(path):\n", "        with lock.held(path, shared=True):\n",
        (BOOK,),
    ),
    Mutation(
        "import: a huge file is not read", "lab/earlier_reading.py",
        "MOST_BYTES = 64 * 2**20", "MOST_BYTES = 64 * 2**40",
        ("tests/test_import_malformed.py",),
    ),
    Mutation(
        "SQL: what does not read is refused", "lab/readonly.py",
        "        _refuse_writing(con, sql)\n", "",
        ("tests/test_store_sql.py",),
    ),
    Mutation(
        "code edited at night: runs import the copy", "flows/night_run.py",
        "        children=Children(source, home / \"logs\"),",
        "        children=Children(Path(__file__).resolve().parent.parent, home / \"logs\"),",
        (f"{OVERNIGHT}::test_code_edited_during_a_night_changes_nothing_that_runs_in_it",),
    ),
)  # fmt: skip


def survives(mutation: Mutation, tree: Path) -> bool:
    """Whether the tests pass on a copy without the protection.

    Raises
    ------
    ValueError
        The protection is not where it was.
    """
    place = tree / mutation.file
    text = place.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.fault}: {mutation.file} has it {text.count(mutation.old)} times")
    place.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = subprocess.run(
            [*PYTEST, *mutation.tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
        )
    finally:
        place.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutation.fault}: pytest ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.returncode == 0


def main() -> None:
    """Try every mutation whose fault begins with one of the given words."""
    wanted = [one for one in MUTATIONS if not sys.argv[1:] or one.fault.startswith(tuple(sys.argv[1:]))]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder) / "tree")
        for name in ("tests", "docs"):
            shutil.copytree(ROOT / name, tree / name)
        for one in wanted:
            lives = survives(one, tree)
            survivors += lives
            print(f"{'SURVIVED' if lives else 'seen':8}  {one.fault}", flush=True)
    print(f"{len(wanted) - survivors} of {len(wanted)} protections are tested")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
