"""Fuzz targets over files: whatever lies in one, it is read, or refused in a line, or made again.

A target takes what makes chance and a folder, runs one case and returns a word for what came of it. Anything
that it raises is a fault.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from deployments import environment, import_cli
from deployments.settings import settings_for
from flows.registry import studies
from lab.errors import UsageError
from lab.fingerprint import canonical, fingerprint
from lab.plan import deviations, freeze, plan_row, read_declared
from lab.products import Products
from models import aligned_files, answers, sense_files
from models.kept import keep, load_kept
from models.regimes import PUBLISHED, read_plan
from models.sense_conditions import CONDITIONS, training_set
from models.sense_files import json_line
from models.sense_probes import coherence_items, retrieval_items
from models.sense_world import WorldSpec, world
from tests import earlier_files, placement_files
from tests.fuzz_mutation import STRANGE, as_bytes, damage, mutate, mutated, one_line

NOW = datetime(2026, 1, 1)
PAIR = {"baseline": 21.0, "quantised": 21.2}


@functools.cache
def earlier_bodies() -> dict[str, Any]:
    """A small sound file of every form that is imported."""
    return {
        "v1": earlier_files.v1(prompts=2, samples=3),
        "v2": earlier_files.v2(prompts=2, samples=3, turns=2),
        "injection": earlier_files.injection(prompts=2, samples=3),
        "flat": earlier_files.flat(prompts=2, samples=3),
        "perplexities": {"en": PAIR, "sw": {"baseline": 40.0, "quantised": 44.0}},
        "tiers": {
            "model": "m", "tiers": {"high": ["en"], "low": ["sw"]}, "perplexities": {"en": PAIR, "sw": PAIR},
        },
        "placements": placement_files.PUBLISHED,
    }  # fmt: skip


def importing(rng: Random, folder: Path) -> str:
    """`ladder import` reads every form or refuses it before the home is touched."""
    bodies = earlier_bodies()
    body = mutated(bodies[rng.choice(list(bodies))], rng)
    if rng.random() < 0.05 and isinstance(body, dict):
        other = bodies[rng.choice(list(bodies))]
        body |= other if isinstance(other, dict) else {}
    raw = as_bytes(body, rng)
    if isinstance(body, list) and rng.random() < 0.5:
        raw = b"\n".join(as_bytes(row, rng) for row in body)
    path = folder / "earlier.json"
    path.write_bytes(raw)
    try:
        import_cli.check_files([path])
    except UsageError as error:
        one_line(error, "nothing was imported")
        return "refused"
    return "read"


def plan(rng: Random, folder: Path) -> str:
    """A frozen plan on disk comes back, or is refused; its fields can be compared."""
    study = rng.choice(list(studies().values()))
    profile = rng.choice(list(study.profiles))
    made = study.plan(study.profiles[profile])
    freeze(folder, made, now=NOW)
    [path] = folder.glob("plans/*/*.json")
    body = json.loads(path.read_text())
    if rng.random() < 0.6:  # a sound file that holds another text
        text = mutated(json.loads(body["text"]), rng)
        body["text"] = json.dumps(text) if rng.random() < 0.5 else _canonical_or_not(text)
        body["plan_hash"] = _hash_or_not(body["text"])
    else:
        body = mutated(body, rng)
    path.write_bytes(as_bytes(body, rng))
    try:
        found = read_declared(folder, study.name, profile)
        assert found is not None
        deviations(made, found)
        plan_row(made, found, now=NOW)
    except UsageError as error:
        one_line(error, str(path))
        return "refused"
    finally:
        path.unlink()
    return "read"


def _canonical_or_not(value: object) -> str:
    try:
        return canonical(value)
    except (TypeError, ValueError):
        return json.dumps(value)


def _hash_or_not(text: str) -> str:
    try:
        return fingerprint(json.loads(text))
    except (TypeError, ValueError):
        return "0" * 16


def assignments(rng: Random, folder: Path) -> str:
    """`--set` of any field to anything gives settings with a plan, or one line."""
    study = rng.choice(list(studies().values()))
    profile = rng.choice([*study.profiles, *study.profiles, "", "nosuch"])
    fields = [*vars(next(iter(study.profiles.values())))]
    said = [_assignment(rng, fields, study.profiles) for _ in range(rng.randint(1, 3))]
    try:
        settings = settings_for(study, profile, said)
        study.plan(settings)
    except UsageError as error:
        one_line(error)
        return "refused"
    return "taken"


def _assignment(rng: Random, fields: list[str], profiles: Any) -> str:
    name = rng.choice([*fields, *fields, "nosuch", "", "--", "samples "])
    values = [getattr(one, name) for one in profiles.values() if hasattr(one, name)]
    near = rng.choice(values) if values else None
    value = rng.choice([near, near, mutate([near], rng), *rng.choices(STRANGE, k=4)])
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(near, int | float) and rng.random() < 0.4:
        text = str(near * rng.choice((-1, 0, 0.5, 2, 1000)))
    return rng.choice(("{}={}", "{}={}", "{}={}", "{}={}", "{}{}", "{} = {}")).format(name, text)


def regimes(rng: Random, folder: Path) -> str:
    """A file of regimes gives a plan of windows or a `ValueError` that says what is wrong."""
    body = mutated({"regimes": [asdict(one) for one in PUBLISHED], "contact": True}, rng)
    path = folder / "regimes.json"
    path.write_bytes(as_bytes(body, rng))
    return _read_or_refused(read_plan, path)


ANSWER = {"id": "a", "question": "How many is 2 and 2?", "answer": "2 + 2 = 4\n#### 4"}
SENTENCES = [
    {"id": "1", "language": "en", "text": "Monday"}, {"id": "1", "language": "sw", "text": "Jumatatu"},
    {"id": "2", "language": "en", "text": "Sunday"}, {"id": "2", "language": "sw", "text": "Jumapili"},
]  # fmt: skip


@functools.cache
def _sense_rows() -> dict[str, list[Any]]:
    """Lines of a small generated world, of every kind of file."""
    small = world(WorldSpec(topics=6, topic_words=16, train_lemmas=24, test_lemmas=10, dev_lemmas=10, cues=8))
    made: dict[str, Any] = {
        "train.jsonl": training_set(small, CONDITIONS["A"], 42).bundles[:3],
        "retrieval.jsonl": retrieval_items(small, per_sense=1)[:3],
        "coherence.jsonl": coherence_items(small)[:3],
    }
    return {name: [json.loads(json_line(one)) for one in items] for name, items in made.items()}


def own_data(rng: Random, folder: Path) -> str:
    """A person's own items, sentences and bundles: read, or refused by file and line."""
    kinds: dict[str, tuple[Any, list[Any]]] = {
        "items.jsonl": (answers.read_items, [ANSWER, {**ANSWER, "id": "b", "question": "And 3 and 3?"}]),
        "aligned.jsonl": (aligned_files.read_aligned, SENTENCES),
        "train.jsonl": (sense_files.read_bundles, _sense_rows()["train.jsonl"]),
        "retrieval.jsonl": (sense_files.read_retrieval, _sense_rows()["retrieval.jsonl"]),
        "coherence.jsonl": (sense_files.read_coherence, _sense_rows()["coherence.jsonl"]),
    }
    name = rng.choice(list(kinds))
    read, rows = kinds[name]
    lines = [as_bytes(mutated(row, rng, most=2), rng).replace(b"\n", b" ") for row in rows]
    path = folder / name
    raw = b"\n".join(lines) + rng.choice((b"", b"\n"))
    path.write_bytes(damage(raw, rng) if rng.random() < 0.2 else raw)
    return _read_or_refused(read, path)


def _read_or_refused(read: Any, path: Path) -> str:
    try:
        read(path)
    except ValueError as error:
        one_line(error)
        return "refused"
    return "read"


def products(rng: Random, folder: Path) -> str:
    """A product with changed bytes is absent, or still what was written; it can be made again."""
    kept = Products(folder, "generation")
    body = {"rows": [{"i": i, "x": rng.random(), "text": "naïve"} for i in range(rng.randint(0, 5))]}
    key = f"{rng.randrange(16**16):016x}"
    kept.write(key, body)
    path = kept.path(key)
    if rng.random() < 0.9:
        path.write_bytes(damage(path.read_bytes(), rng))
    when, found = kept.first_made(key), kept.read(key)
    assert found is None or found == body
    assert when is None or when.tzinfo is None
    assert found is not None or not path.exists()
    kept.write(key, body)
    assert kept.read(key) == body
    path.unlink()
    return "made again" if found is None else "whole"


def checkpoints(rng: Random, folder: Path) -> str:
    """A kept model with changed bytes counts as absent; its manifest alone decides that."""
    body = {"step": rng.randrange(1000), "losses": [rng.random() for _ in range(3)]}
    state = rng.randbytes(64)
    where = folder / "checkpoint"
    keep(where, lambda fresh: _write(fresh / "state", state), body, identity=("state",))
    path = rng.choice(sorted(where.iterdir()))
    raw = path.read_bytes()
    changed = as_bytes(mutated(json.loads(raw), rng), rng) if path.suffix == ".json" else damage(raw, rng)
    path.write_bytes(changed)
    found = load_kept(where)
    if found is None:
        return "made again"
    assert {name: found[name] for name in body} == body
    assert (where / "state").read_bytes() == state
    return "whole"


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def services(rng: Random, folder: Path) -> str:
    """What `ladder up` noted, changed anyhow: read as a service or as none."""
    process = {"pid": 1, "started": 1.5}
    body = {"url": "http://127.0.0.1:4200/api", "mark": "m", "server": process, "worker": process}
    path = environment.service_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_bytes(mutated(body, rng), rng))
    return "none" if environment.read_service(folder) is None else "read"
