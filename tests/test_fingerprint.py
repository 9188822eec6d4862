"""Code fingerprints: kept beside the bytecode, and never believed when text or keeping is not as it was."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ladder_command import copy_tree

ASK = "from lab.fingerprint import code; print(code('stats.mixed'), code('models.entropy'))"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_tree(tmp_path / "tree")


def asked(tree: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tree, env={"PYTHONPATH": str(tree)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept(tree: Path, module: str) -> Path:
    """File of what is kept of a module's syntax."""
    source = tree.joinpath(*module.split(".")).with_suffix(".py")
    return Path(importlib.util.cache_from_source(str(source))).with_suffix(".syntax.json")


def test_what_is_kept_gives_the_same_fingerprint_as_reading_the_syntax(tree: Path) -> None:
    first = asked(tree)
    assert kept(tree, "stats.mixed").is_file()
    assert asked(tree) == first
    assert asked(tree / ".." / "tree") == first


def test_an_edit_is_seen_and_a_comment_is_none(tree: Path) -> None:
    first = asked(tree)
    source = tree / "stats" / "mixed.py"
    source.write_text(f"# a comment\n{source.read_text()}")
    assert asked(tree) == first
    source.write_text(f"{source.read_text()}\nEDITED = 1\n")
    mixed, entropy = asked(tree).split()
    assert mixed != first.split()[0]
    assert entropy == first.split()[1]


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "another digest"])
def test_a_damaged_keeping_is_not_believed(damage: str, tree: Path) -> None:
    first = asked(tree)
    file = kept(tree, "stats.mixed")
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"digest": "0" * 64}) if damage == "another digest" else damage)
    assert asked(tree) == first
    assert json.loads(file.read_text()) == told


def test_a_tree_that_cannot_be_written_gives_the_same(tree: Path) -> None:
    first = asked(tree)
    for folder in tree.rglob("__pycache__"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        folder.touch()  # a file where the folder would be
    assert asked(tree) == first
