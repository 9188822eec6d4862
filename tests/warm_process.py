"""Commands forked from a process that has imported the libraries already: `python -m tests.warm_process`.

A command imports for some 4 CPU seconds before it begins, which over a session is minutes. Only libraries are
imported here that read nothing of a home, so neither Prefect nor the project; the rest of a command is as in
a process begun from nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    "numpy", "scipy.stats", "scipy.optimize", "polars", "pyarrow", "duckdb", "psutil", "pydantic",
    "pydantic_settings", "jsonschema", "griffe", "pathspec", "httpx", "rich.table", "typer", "jinja2",
    "fsspec", "torch", "huggingface_hub", "safetensors.torch", "transformers",
)  # fmt: skip
SAME_FOR_ALL = {
    "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip
"""Read by libraries when they are imported; what `deployments.environment` sets unless told otherwise."""


class WarmProcess:
    """Begins commands one after the other and waits for each."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._process = self._begun()

    def _begun(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.warm_process"],
            cwd=self._tree,
            env={**os.environ, **SAME_FOR_ALL, "PYTHONPATH": str(self._tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, arguments: Sequence[str], *, tree: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m deployments.cli` with these arguments to its end, in `tree`.

        Raises
        ------
        subprocess.TimeoutExpired
            It took longer; it is killed with this process.
        """
        if self._process.poll() is not None:  # a command took too long and was killed with it
            self._process = self._begun()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            said = {name: Path(folder, name) for name in ("out", "err")}
            told = {
                "arguments": [*arguments], "tree": str(tree), "environment": {**environment},
                "files": [str(file) for file in said.values()],
            }  # fmt: skip
            print(json.dumps(told), file=self._process.stdin, flush=True)
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                self.end()
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            code = int(self._process.stdout.readline())
            out, err = (file.read_text(encoding="utf-8") for file in said.values())
        return subprocess.CompletedProcess([*arguments], code, out, err)

    def end(self) -> None:
        """Kill it and what it began."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()


def _become(told: dict[str, Any]) -> None:
    """Turn this forked process into the command that was told of."""
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["tree"])
    sys.path[:] = [told["tree"], *sys.path[1:]]
    for number, path in enumerate((os.devnull, *told["files"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.argv[1:] = told["arguments"]
    runpy.run_module("deployments.cli", run_name="__main__", alter_sys=True)


def main() -> None:
    """Fork for each line of standard input; its exit code is a line of standard output."""
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
