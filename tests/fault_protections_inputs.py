"""Protections against what comes in: models, files, clocks, queries, homes; see `tests.fault_mutations`.

A home with other letters needs no protection of its own: paths go through whole. Its mutations are what would
break one, such as a name cut at a space or written as ASCII.
"""

from __future__ import annotations

from tests.fault_protections import FAULTS, Mutation

BOOK = "tests/test_night_book.py"
OLLAMA, MALFORMED = "tests/test_ollama_backend.py", "tests/test_import_malformed.py"
LASTING = f"{OLLAMA}::test_a_lasting_fault_ends_as_a_named_reason_after_the_tries_that_can_help"
SILENCE = f"{OLLAMA}::test_silence_and_endless_words_both_end_at_the_time_limit_and_are_not_retried"
NOT_JSON = f"{MALFORMED}::test_a_file_that_is_not_json_is_refused_with_line_and_column"
HOSTILE = "tests/test_store_sql.py::test_a_statement_that_does_not_only_read_the_tables_is_refused"
HOSTILE_EMPTY = "tests/test_store_sql.py::test_a_store_without_a_file_reads_and_writes_no_file_either"
NAMED_HOME = "tests/test_store.py::test_a_home_with_spaces_and_other_scripts_works"
COMMAND_HOME = "tests/test_cli.py::test_a_command_takes_a_home_with_spaces_and_other_scripts_whole"

MODELS = (
    Mutation(
        "Ollama refusing: no connection has a name", "models/ollama_session.py",
        "WIRE_FAULTS = (ConnectionError, httpx.HTTPError,", "WIRE_FAULTS = (httpx.HTTPError,",
        (f"{OLLAMA}::test_a_closed_port_is_unreachable_and_worth_another_try",),
    ),
    Mutation(
        "Ollama refusing: the rest of a batch is not tried", "models/ollama_backend.py",
        "                if gone >= UNREACHABLE_LIMIT:\n", "                if False:\n",
        (f"{OLLAMA}::test_a_server_that_dies_during_a_batch_leaves_a_reason_on_every_job_left",),
    ),
    Mutation(
        "Ollama hanging: silence ends at the limit", "models/ollama_session.py",
        "timeout=httpx.Timeout(timeout_seconds, connect=", "timeout=httpx.Timeout(None, connect=",
        (SILENCE,), limit_seconds=30,
    ),
    Mutation(
        "Ollama hanging: words without end are cut", "models/ollama_session.py",
        "            socket.shutdown(SHUT_RDWR)\n", "            pass\n",
        (SILENCE,), limit_seconds=30,
    ),
    Mutation(
        "Ollama 404: the model is missing", "models/ollama_session.py",
        'missing = status == 404 and "model" in message', "missing = False",
        (f"{OLLAMA}::test_a_model_removed_during_a_batch_is_a_reason_on_its_jobs",),
    ),
    Mutation(
        "Ollama 500: it is the server's fault", "models/ollama_session.py",
        "if status == 429 or status >= 500:", "if status == 429:",
        (LASTING,),
    ),
    Mutation(
        "Ollama 500: one that passes is asked again", "models/ollama_session.py",
        "next(delays, None) if error.retryable else None", "None",
        (f"{OLLAMA}::test_a_fault_that_passes_is_retried_with_the_same_request",),
    ),
    Mutation(
        "Ollama malformed: a line that is no record has a name", "models/ollama_session.py",
        "ollama.ResponseError, ValueError, AttributeError, TypeError)", "ollama.ResponseError)",
        (LASTING,),
    ),
    Mutation(
        "Ollama truncated: a reply without its end is none", "models/ollama_session.py",
        "        raise TruncatedReply(f\"the reply ended after", "        print(f\"the reply ended after",
        (LASTING,),
    ),
    Mutation(
        "Ollama empty: a reply without text is none", "models/ollama_session.py",
        "    if not (thought + answer).strip():\n", "    if False:\n",
        (LASTING,),
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
        "NaN: no row holds one", "lab/schema.sql",
        "    value DOUBLE CHECK (isfinite(value)),\n", "    value DOUBLE,\n",
        ("tests/test_store.py::test_a_wrong_value_is_refused_by_table_column_and_key_before_anything_is_written",),
    ),
    Mutation(
        "NaN: a sentence's loss is a number", "models/losses.py",
        "bad = np.flatnonzero(~np.isfinite(sums))", "bad = np.flatnonzero(np.zeros(len(sums), bool))",
        ("tests/test_losses.py::test_a_loss_that_is_no_number_names_its_sentence",),
    ),
    Mutation(
        "NaN: a training ends at one", "models/pretrain.py",
        "        if not math.isfinite(losses[-1]):\n", "        if False:\n",
        ("tests/test_embedded.py::test_a_diverging_run_says_so_and_leaves_what_was_there",),
    ),
    Mutation(
        "NaN: a nano training ends at one", "models/nano_run.py",
        "        if not all(map(math.isfinite, found)):\n", "        if False:\n",
        ("tests/test_nano_training.py::test_a_loss_that_is_no_number_names_the_step_and_keeps_the_log",),
    ),
    Mutation(
        "NaN: the training of an adapter ends at one", "models/adapter_training.py",
        "        if not math.isfinite(loss + float(norm)):\n", "        if False:\n",
        ("tests/test_adapter_training.py::test_a_loss_that_is_no_number_is_an_error_and_leaves_nothing",),
    ),
)  # fmt: skip

FILES = (
    Mutation(
        "corrupted cache entry: its checksum is compared", "lab/products.py",
        "head is None or head.digest != hashlib.sha256(body).hexdigest()", "head is None",
        ("tests/test_products.py",),
    ),
    Mutation(
        "corrupted model: its files are hashed", "models/kept.py",
        "if any(_file_sha256(directory / name) != digest for name", "if any(False for name",
        ("tests/test_embedded.py", "tests/test_nano_training.py"),
    ),
    Mutation(
        "corrupted checkpoint: its files are hashed", "models/kept.py",
        "if any(_file_sha256(directory / name) != digest for name", "if any(False for name",
        ("tests/test_pretrain_state.py",
         "tests/test_adapter_training.py::test_a_checkpoint_of_another_arm_or_a_damaged_one_is_not_taken_up"),
    ),
    Mutation(
        "corrupted checkpoint: its manifest is hashed", "models/kept.py",
        'if manifest["sha256"] != _text_sha256(body):', "if False:",
        ("tests/test_embedded.py::test_damage_of_any_file_is_seen_and_mended_by_training_again",),
    ),
    Mutation(
        "corrupted checkpoint: its log is hashed", "models/nano_log.py",
        'if mark is not None and hashlib.sha256(kept).hexdigest() != mark["sha256"]:', "if False:",
        ("tests/test_nano_training.py::test_what_is_damaged_is_not_taken_up",),
    ),
    Mutation(
        "corrupted outbox file: its hash is compared", "lab/outbox.py",
        '    if sha256 != declared.decode("ascii", "replace"):', "    if False:",
        ("tests/test_outbox.py",),
    ),
    Mutation(
        "corrupted outbox file: it blocks no other", "lab/ingest.py",
        "        except CorruptBatchError as error:\n", "        except ZeroDivisionError as error:\n",
        (f"{FAULTS}::test_a_corrupt_file_is_set_aside_with_its_reason_and_blocks_nobody",),
    ),
    Mutation(
        "corrupted journal: its hash is compared", "lab/database.py",
        "    if hashlib.sha256(content).digest() != digest:\n", "    if False:\n",
        ("tests/test_database.py::test_a_journal_that_decayed_changes_nothing",),
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
        "clock: what is made anew is not older", "lab/products.py",
        "moment = max(now, fresh.since() or now)", "moment = now",
        ("tests/test_fresh.py::test_a_clock_that_is_set_back_makes_nothing_twice",),
    ),
    Mutation(
        "clock: time left goes on when it is set back", "lab/clock.py",
        '_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)', "_CLOCK = time.CLOCK_REALTIME",
        ("tests/test_clock.py",),
    ),
    Mutation(
        "import malformed: what is no JSON is refused with its place", "lab/earlier_reading.py",
        "            _refuse_syntax(path, text, error.msg, error.pos)\n", "            raise\n",
        (NOT_JSON,),
    ),
    Mutation(
        "import huge: a file is not read", "lab/earlier_reading.py",
        "MOST_BYTES = 64 * 2**20", "MOST_BYTES = 64 * 2**40",
        (f"{MALFORMED}::test_a_large_file_is_refused_unread",),
    ),
    Mutation(
        "import deeply nested: what Python cannot read is refused", "lab/earlier_reading.py",
        "    except RecursionError:\n", "    except ZeroDivisionError:\n",
        (NOT_JSON,),
    ),
    Mutation(
        "import deeply nested: the depth is counted", "lab/earlier_reading.py",
        "        if depth > DEEPEST:\n", "        if False:\n",
        (NOT_JSON,),
    ),
    Mutation(
        "import wrong encoding: it is refused, not guessed", "lab/earlier_reading.py",
        'text = raw.decode("utf-8-sig")', 'text = raw.decode("utf-8-sig", "replace")',
        (NOT_JSON,),
    ),
    Mutation(
        "SQL: what does not read is refused", "lab/readonly.py",
        "        _refuse_writing(con, sql)\n", "",
        ("tests/test_store_sql.py",),
    ),
    Mutation(
        "SQL writing: the connection only reads", "lab/database.py",
        "with _connected(path, read_only=True) as con:", "with _connected(path, read_only=False) as con:",
        (HOSTILE,),
    ),
    Mutation(
        "SQL of files: the connection has none", "lab/database.py",
        '"enable_external_access": False', '"enable_external_access": True',
        (HOSTILE,),
    ),
    Mutation(
        "SQL of files: nor has the one of an empty store", "lab/template.py",
        '        self._con.execute("SET enable_external_access = false")\n', "",
        (HOSTILE_EMPTY,),
    ),
    Mutation(
        "SQL writing: an empty store stays empty", "lab/template.py",
        "                self._con.rollback()\n", "                self._con.commit()\n",
        ("tests/test_store.py::test_a_query_cannot_fill_the_empty_tables",),
    ),
    Mutation(
        "home with other letters: a shell takes it whole", "deployments/environment.py",
        "{name}={shlex.quote(value)}", "{name}={value}",
        ("tests/test_prefect_environment.py::test_a_shell_takes_the_exports_as_they_are_meant",),
    ),
    Mutation(
        "home with other letters: DuckDB takes it whole", "lab/store.py",
        "quoted = str(temporary).replace(\"'\", \"''\")", "quoted = str(temporary)",
        (NAMED_HOME,),
    ),
    Mutation(
        "home with other letters: the store takes it as it is", "lab/store.py",
        "self.home = Path(home).expanduser().absolute()",
        'self.home = Path(str(home).encode("ascii", "replace").decode()).absolute()',
        (NAMED_HOME,),
    ),
    Mutation(
        "home with other letters: a command takes it whole", "lab/home.py",
        'home = Path(os.environ.get(VARIABLE) or "var").',
        'home = Path((os.environ.get(VARIABLE) or "var").split()[0]).',
        (COMMAND_HOME,),
    ),
)  # fmt: skip
