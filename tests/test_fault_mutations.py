"""The list of protections holds: each text stands where it is looked for, each test is there."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache

import pytest

from tests.fault_mutations import MUTATIONS
from tests.fault_protections import Mutation
from tests.ladder_command import ROOT


@cache
def _functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef))


def test_every_protection_has_a_name_of_its_own() -> None:
    assert [name for name, times in Counter(one.fault for one in MUTATIONS).items() if times > 1] == []


@pytest.mark.parametrize("one", MUTATIONS, ids=lambda one: one.fault)
def test_a_protection_stands_once_in_its_file_and_its_tests_exist(one: Mutation) -> None:
    text = (ROOT / one.file).read_text(encoding="utf-8")
    assert text.count(one.old) == 1
    changed = text.replace(one.old, one.new)
    assert changed != text
    if one.file.endswith(".py"):
        ast.parse(changed)
    assert one.tests
    for test in one.tests:
        file, _, name = test.partition("::")
        assert not name or name.partition("[")[0] in _functions(file), test
        assert _functions(file), test
