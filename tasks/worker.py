"""The far side of `tasks.killable`: one process that takes calls as lines of JSON and answers them.

    python -m tasks.worker ANSWERS_FD

Calls come on standard input, answers go to an inherited descriptor, so whatever a library prints to standard
output can do no harm. Only functions of `models` may be called. When the caller dies, standard input ends and
so does this process, in the middle of a call too; and a call that outlives its deadline ends it by an alarm.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

PACKAGE = "models."
EXPECTED = (ValueError, OSError, RuntimeError, ImportError, MemoryError, KeyError, TypeError, ArithmeticError)
"""What a call may raise and have reported by name; anything else ends the process with its traceback."""


def main() -> None:
    """Serve calls until standard input ends."""
    answers = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1)
    calls: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()

    def say(kind: str, body: object) -> None:
        answers.write(json.dumps({kind: body}, allow_nan=False) + "\n")

    while True:
        call = json.loads(calls.get())
        signal.alarm(max(1, round(call["deadline_seconds"])))
        try:
            result = _function(call["function"])(**call["arguments"], report=lambda body: say("report", body))
            say("result", result)
        except EXPECTED as error:
            say("error", {"type": type(error).__name__, "message": str(error)})
        signal.alarm(0)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if not module.startswith(PACKAGE):
        raise ValueError(f"{name} is not of {PACKAGE}*; allowed are functions of that package")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _listen(calls: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        calls.put(line)
    os._exit(0)  # the caller is gone: nobody waits for an answer


if __name__ == "__main__":
    main()
