"""The page of a run's decisions: drawn from the plan, and without the drawing while the store is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.records import DecisionRow
from lab.store import Store
from tasks import deciding
from tests.small_study import record_study
from tests.test_doctor import held_by_another_program


def test_a_page_is_drawn_or_says_who_holds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Store(tmp_path)
    record_study(lab, looks=(4,), prompts=4)
    path = [DecisionRow(**row) for row in lab.read("SELECT * FROM decision ORDER BY decided_at").to_dicts()]
    pages: list[dict[str, Any]] = []
    monkeypatch.setattr(deciding, "create_markdown_artifact", lambda **page: pages.append(page))
    monkeypatch.setattr(deciding, "PATIENCE_SECONDS", 0.2)
    deciding.show_path(tmp_path, path)
    with held_by_another_program(lab.path) as pid:
        deciding.show_path(tmp_path, path)
    drawn, held = (page["markdown"] for page in pages)
    assert "```mermaid\nflowchart TD" in drawn
    assert path[-1].sentence in drawn
    before, after = held.split("## The way through the gates\n")
    assert before == drawn.split("## The way through the gates\n")[0]
    assert after.startswith("Not drawn: ")
    assert str(pid) in after
