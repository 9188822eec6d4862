"""Protections against kills, crowds, full disks and a held store; see `tests.fault_mutations`."""

from __future__ import annotations

from dataclasses import dataclass

OVERNIGHT, FAULTS = "tests/test_overnight.py", "tests/test_store_faults.py"
BOOK, STEPS = "tests/test_night_book.py", "tests/test_night_steps.py"
FULL = "tests/test_full_disk.py"
KILLED = f"{OVERNIGHT}::test_a_stopped_and_a_killed_night_are_gone_on_with_and_end_as_if_nothing_had_been"
CROWD = f"{FAULTS}::test_eight_recording_processes_and_a_reader_lose_and_double_nothing[40]"
FULL_DRAIN = f"{FULL}::test_a_disk_full_while_draining_lets_the_batch_wait_and_the_store_readable"
FULL_SNAPSHOT = f"{FULL}::test_a_disk_too_full_for_a_snapshot_keeps_the_old_one"
FULL_COMMIT = f"{FULL}::test_a_disk_full_while_a_drain_commits_lets_the_batch_wait"
FULL_CHECKPOINT = f"{FULL}::test_a_disk_full_while_the_store_is_checkpointed_keeps_its_journal"
FULL_PRODUCT = f"{FULL}::test_a_disk_full_while_a_product_is_kept_leaves_the_old_one_and_no_half"
FULL_MODEL = f"{FULL}::test_a_disk_full_while_a_checkpoint_is_kept_leaves_the_old_one"


@dataclass(frozen=True)
class Mutation:
    """A protection and the tests that need it."""

    fault: str
    file: str
    old: str
    """Stands exactly once in the file."""
    new: str
    tests: tuple[str, ...]
    limit_seconds: int = 600
    """A test that takes longer has failed, as one that waits for ever without its protection."""


KILLS = (
    Mutation(
        "kill: a run launched before is found by its key", "flows/night_run.py",
        "{asked_by}/{one.item}/{attempt}", "{self.book.night.night_id}/{one.item}/{attempt}",
        (f"{OVERNIGHT}::test_a_run_that_ended_after_its_night_was_killed_is_not_run_again",),
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
        "kill: a batch is taken whole or not at all", "lab/ingest.py",
        "        new = _claim(con, batches)\n",
        "        new = _claim(con, batches)\n        con.commit()\n        con.begin()\n",
        ("tests/test_database.py::test_killed_at_any_write_of_a_batch_the_store_opens_and_has_it_whole",),
    ),
    Mutation(
        "kill: a batch that was taken is not taken again", "lab/ingest.py",
        "for batch in batches if batch.batch_id not in old}", "for batch in batches}",
        (f"{FAULTS}::test_taking_a_file_twice_changes_nothing",),
    ),
    Mutation(
        "two homes on one server: each has runs of its own", "flows/night_run.py",
        'key=f"{home_id(self.home)}/', 'key=f"',
        (f"{STEPS}::test_homes_that_share_a_server_have_keys_of_their_own_and_one_home_keeps_its",),
    ),
    Mutation(
        "budget: it counts from the command", "flows/night_run.py",
        "(due or datetime.now(UTC), command_began)", "(due or datetime.now(UTC), None)",
        (f"{STEPS}::test_the_budget_counts_from_the_command_and_not_from_when_its_server_was_there",),
    ),
    Mutation(
        "failure: a smaller profile follows", "lab/study.py",
        "return names[place - 1] if place else None", "return None",
        (f"{STEPS}::test_a_run_that_failed_or_was_refused_leads_to_the_next_smaller_profile",),
    ),
    Mutation(
        "server restarted: it is waited for", "tasks/launching.py",
        "SERVER_PATIENCE_SECONDS = 120.0", "SERVER_PATIENCE_SECONDS = 0.0",
        (f"{STEPS}::test_a_server_that_does_not_answer_for_a_while_is_waited_for",),
    ),
    Mutation(
        "worker killed: a run that outlived it is waited for", "tasks/launching.py",
        "        if is_worked_on(Store(home), str(run.id)):", "        if False:",
        (f"{STEPS}::test_a_run_whose_process_outlived_its_worker_is_waited_for_and_one_without_either_is_gone",),
    ),
    Mutation(
        "worker killed: its run is executed here", "tasks/launching.py",
        "                if is_waiting and not served(self.deployment):", "                if False:",
        (f"{STEPS}::test_a_run_that_no_worker_came_for_is_executed_here_once_none_is_there",),
    ),
    Mutation(
        "two nights: the second is refused", "lab/night_book.py",
        "        with lock.held(path):\n", "        with lock.held(path, shared=True):\n",
        (BOOK,),
    ),
    Mutation(
        "code edited at night: runs import the copy", "flows/night_run.py",
        "        children=Children(source, home / \"logs\"),",
        "        children=Children(Path(__file__).resolve().parent.parent, home / \"logs\"),",
        (f"{OVERNIGHT}::test_code_edited_during_a_night_changes_nothing_that_runs_in_it",),
    ),
)  # fmt: skip

STORE = (
    Mutation(
        "store held: reads wait", "lab/lock.py",
        "        if left <= 0.0:\n", "        if True:\n",
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
        (CROWD,),
    ),
    Mutation(
        "crowd: a batch has its name once it is whole", "lab/outbox.py",
        "temporary = self.directory / (batch_id + TEMPORARY)",
        "temporary = self.directory / (batch_id + SUFFIX)",
        ("tests/test_outbox.py::test_a_reader_beside_a_writer_finds_whole_batches_alone",),
    ),
    Mutation(
        "crowd: the poller waits for its turn", "lab/lock.py",
        "        if left <= 0.0:\n", "        if True:\n",
        (CROWD,),
    ),
    Mutation(
        "full disk: a half-written batch goes", "lab/outbox.py",
        "        with self._nothing_recorded_on_error(temporary):\n", "        if temporary:\n",
        (f"{FULL}::test_a_disk_full_while_recording_is_an_error_that_leaves_no_half_file",
         f"{FULL}::test_a_file_size_limit_while_recording_leaves_no_half_file"),
    ),
    Mutation(
        "full disk: what a drain cannot store waits", "lab/ingest.py",
        "        except (duckdb.Error, OSError) as error:\n", "        except duckdb.Error as error:\n",
        (FULL_DRAIN,),
    ),
    Mutation(
        "full disk: it is no fault of a batch", "lab/ingest.py",
        "BAD_DATA = (duckdb.DataError, ", "BAD_DATA = (duckdb.Error, OSError, duckdb.DataError, ",
        (FULL_COMMIT,),
    ),
    Mutation(
        "full disk: no half journal stays", "lab/database.py",
        "        journal_of(path).unlink(missing_ok=True)\n        raise OSError(", "        raise OSError(",
        (FULL_DRAIN,),
    ),
    Mutation(
        "full disk: the journal of a checkpoint that failed stays", "lab/database.py",
        '    if not Path(f"{path}.wal").exists():', "    if True:",
        (FULL_CHECKPOINT,),
    ),
    Mutation(
        "full disk: a snapshot is written beside the old one", "lab/store.py",
        'temporary = self.snapshot_path.with_suffix(".tmp")', "temporary = self.snapshot_path",
        (FULL_SNAPSHOT,),
    ),
    Mutation(
        "full disk: a half-written snapshot goes", "lab/store.py",
        "                temporary.unlink(missing_ok=True)\n", "",
        (FULL_SNAPSHOT,),
    ),
    Mutation(
        "full disk: a product is written beside the old one", "lab/durable.py",
        'tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False)',
        'path.open("wb")',
        (FULL_PRODUCT,),
    ),
    Mutation(
        "full disk: a half-written product goes", "lab/durable.py",
        "            os.unlink(file.name)\n", "",
        (FULL_PRODUCT,),
    ),
    Mutation(
        "full disk: a checkpoint is written beside the old one", "models/kept.py",
        "        fresh.mkdir()\n",
        "        shutil.rmtree(directory, ignore_errors=True)\n        fresh.mkdir()\n",
        (FULL_MODEL,),
    ),
)  # fmt: skip
