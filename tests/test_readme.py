"""README and docs stay true: commands parse, settings and deployments exist, queries answer, links lead."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from deployments.cli import app
from deployments.settings import settings_for
from flows.registry import find_study, studies
from lab.store import Store
from tests.ladder_command import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "\n\n".join([README, *(file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("docs/*.md")))])
SQL = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL) + re.findall(r'ladder sql "([^"$]+)"', TEXT)
TEN = 10


def lines() -> Iterator[str]:
    """Indented lines and code spans; a span that goes over a line is one."""
    without_blocks = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    for line in without_blocks.splitlines():
        if line.startswith("    "):
            yield line.strip()
    prose = "\n".join(line for line in without_blocks.splitlines() if not line.startswith("    "))
    for span in re.findall(r"`([^`]+)`", prose):
        yield " ".join(span.split())


def commands(program: str) -> list[list[str]]:
    """Arguments of every call of a program."""
    found = []
    for line in lines():
        if "..." in line or "$(" in line:
            continue
        for part in re.split(r"\s(?:&&|\|)\s", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # an apostrophe in a span that is no command
                continue
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words[1:] and words[0] == program:  # a name alone is a program's, or a study's
                found.append(words[1:])
    return found


@pytest.mark.parametrize("words", commands("ladder"), ids=" ".join)
def test_a_command_is_one_and_its_settings_exist(words: list[str]) -> None:
    ladder = get_command(app)
    if words[0].startswith("-"):
        assert any(words[0] in option.opts for option in ladder.params)
        return
    name, *rest = words
    command = ladder.commands[name]  # type: ignore[attr-defined]
    if not rest:  # named in a sentence
        return
    context = command.make_context(name, list(rest))
    if "study" in context.params and isinstance(context.params["study"], str):
        study = find_study(context.params["study"]) if context.params["study"] != "sentence_length" else None
        if study is not None and name in ("run", "plan", "freeze"):
            wanted = context.params.get("assignments") or context.params.get("set") or []
            wanted = [one.replace("FOLDER", "x").replace("FILE", "x") for one in wanted]
            settings_for(study, context.params.get("profile") or "smoke", wanted)


def test_there_are_commands_to_test() -> None:
    assert len(commands("ladder")) > 25
    assert len(re.findall(r"```sql", TEXT)) == TEN


@pytest.mark.parametrize("query", SQL)
def test_a_query_answers(query: str, finished: Path) -> None:
    found = Store(finished).read(query)
    if "FROM decision_path" in query or "FROM generation" in query:
        assert len(found) > 0


def test_every_study_is_in_the_table_with_a_verdict_and_the_limits_are_told() -> None:
    row = r"\| `(\w+)` \| .+\? \| .+ \| `(DETECTED|EQUIVALENT|INCONCLUSIVE|INVALID)` \| \d.* \| .+ \|"
    assert {name for name, _ in re.findall(f"^{row}$", README, re.MULTILINE)} == set(studies())
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert {"A result in minutes", "The night", "A new study", "Limits"} <= set(headings)
    assert "Your own model, corpus, bundles" in headings


def test_makes_modules_extras_deployments_and_links_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{words[0]}:" in makefile for words in commands("make") if words)
    modules = [words[1] for words in commands("python") if words[0] == "-m"]
    assert all(importlib.util.find_spec(module) is not None for module in modules)
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    assert set(re.findall(r"\.\[([a-z]+)\]", TEXT)) <= extras
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    known = {f"{one['entrypoint'].rsplit('.', 1)[1].replace('_', '-')}/{one['name']}" for one in declared}
    wanted = {words[2] for words in commands("prefect") if words[:2] == ["deployment", "run"]}
    assert wanted
    assert wanted <= known
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert all((ROOT / link).exists() for link in links)
