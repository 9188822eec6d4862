"""Recorded outputs in place of a model, so that a study can run again without one.

A recording is a file of JSON lines. Its first line names the model (`{"model": {...}}`, the fields of
`ModelIdentity`); each further line is one output with a fingerprint of the prompt, history, seed and
sampling it answers. A job is answered by content: by the output recorded under its own key where there are
several, as with repeats of a seed, else by the first. What was recorded as a failure fails again with the
same reason, and what was not recorded is an output with a reason, never another text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.backends import Job, MalformedReply, ModelIdentity, ModelMissing, NotRecorded, Output, failed


class ReplayBackend:
    """The outputs of a recording.

    Parameters
    ----------
    path
        A file that `write_recording` wrote.

    Raises
    ------
    ModelMissing
        When there is no such file.
    MalformedReply
        When a line is not of a recording; the message names the line.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelMissing(f"no recording at {path}", fix="give the path of a recorded file")
        text = path.read_text(encoding="utf-8")
        lines = text.removesuffix("\n").split("\n")  # splitlines would also cut at U+2028 inside a text
        self._path = path
        self._by_content: dict[str, dict[str, Output]] = {}  # fingerprint -> key -> output
        self._identity = self._read_identity(lines[0])
        for number, line in enumerate(lines[1:], start=2):
            self._read_output(number, line)

    def identity(self) -> ModelIdentity:
        """The recorded model's identity."""
        return self._identity

    def generate(self, jobs: Sequence[Job]) -> list[Output]:
        """The recorded output of each job, under the job's key."""
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Output:
        recorded = self._by_content.get(_content(job), {})
        found = recorded.get(job.key) or next(iter(recorded.values()), None)
        if found is None:
            error = NotRecorded(f"{self._path.name} has no output for job {job.key!r} with seed {job.seed}")
            return failed(job, error, seconds=None)
        return Output(**{**asdict(found), "key": job.key})

    def _read_identity(self, line: str) -> ModelIdentity:
        try:
            return ModelIdentity(**json.loads(line)["model"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._malformed(1, error) from error

    def _read_output(self, number: int, line: str) -> None:
        try:
            fields = json.loads(line)
            content = fields.pop("content")
            output = Output(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._malformed(number, error) from error
        self._by_content.setdefault(content, {})[output.key] = output

    def _malformed(self, number: int, error: Exception) -> MalformedReply:
        return MalformedReply(
            f"line {number} of {self._path} is not a line of a recording ({error})",
            fix="give a file that write_recording wrote, whole",
        )


def write_recording(path: Path, model: ModelIdentity, answers: Iterable[tuple[Job, Output]]) -> None:
    """Write outputs and the jobs they answer as a recording; a file already there is replaced whole."""
    lines: list[dict[str, Any]] = [{"model": asdict(model)}]
    lines.extend({"content": _content(job), **asdict(output)} for job, output in answers)
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
    part = path.with_name(f"{path.name}.tmp")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _content(job: Job) -> str:
    """Fingerprint of all in a job that can change its text: everything but the key."""
    fields = {name: value for name, value in asdict(job).items() if name != "key"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
