"""The report on the nanodesmo study, beside its verdicts: smoothed pasts, swaps, presets, runs without."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lab import report_nano_signatures
from lab import report_queries_nano as nano
from lab.report import write_report
from lab.report_group import Asked, ask, read_groups
from lab.store import Store
from tests.small_nano import Invented, analyses, record_nano
from tests.test_report import Page
from tests.test_report_nano import minus, part, rows_of

TOLD = Invented()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Store:
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_nano(lab, TOLD)
    return lab


@pytest.fixture(scope="module")
def page(lab: Store, tmp_path_factory: pytest.TempPathFactory) -> Page:
    written: Path = write_report(lab, tmp_path_factory.mktemp("out") / "report.html")
    return Page(written.read_text(encoding="utf-8"))


def test_a_signature_says_what_the_state_adds_beyond_smoothed_common_channels(page: Page) -> None:
    said = part(page, "Do regimes leave signatures", "Does a memory change")
    found = {(r.contrast, r.hypothesis): r for r in analyses(TOLD)["core"] if r.family == "separability"}
    assert "DETECTED needs two things" in said
    assert "stands at .5 by construction" in said
    for regime in ("bewilderment", "false_feedback"):
        past = found[regime, "beyond_smoothed"]
        ends = f"[{minus(past.low, 3)}, {minus(past.high, 3)}]" if past.low is not None else past.reason
        assert f"{minus(past.estimate, 3)}{ends}".replace("+0.000", "0.000") in said
    assert "no t interval" in said  # in the place of an interval that seeds do not have


def test_a_detected_signature_says_whether_it_is_more_than_a_smoothed_past(lab: Store) -> None:
    [group] = read_groups(lab)

    def told(low: float | None) -> str:
        def asked(sql: str) -> Asked:
            found = ask(lab, sql, group.parameters)
            if sql != nano.signatures(nano.MAIN):
                return found
            cells = {"verdict": "DETECTED", "past_adds": 0.12, "past_adds_low": low, "past_adds_high": 0.2,
                     "past_adds_why": None if low else "all alike"}  # fmt: skip
            return replace(found, frame=found.frame.with_columns(**{k: pl.lit(v) for k, v in cells.items()}))

        return Page(report_nano_signatures.signatures(asked, nano.MAIN)).text

    start = "false_feedback: beside running means of the common channels the state adds +0.120"
    assert f"{start} [+0.010, +0.200] AUC, so it holds more than these running means." in told(0.01)
    smooth = "AUC, so it is not shown to hold more than a smoothing of their recent past."
    assert f"{start} [−0.010, +0.200] {smooth}" in told(-0.01)
    assert f"{start} all alike {smooth}" in told(None)


def test_swaps_are_of_the_first_text_alone_and_say_what_is_negligible(lab: Store, page: Page) -> None:
    swap = part(page, "States put in the place", "State effect against loss")
    assert len(rows_of(lab, "family = 'swap' AND role = 'secondary'")) == 8  # made up: both texts have them
    [group] = read_groups(lab)
    shown = ask(lab, nano.SWAP, group.parameters).rows
    assert sorted(str(row["state"]) for row in shown) == ["foreign", "other_init", "random", "zero"]
    [zero] = [row for row in shown if row["state"] == "zero"]
    assert (zero["verdict"], zero["negligible"]) == ("DETECTED", True)
    assert re.search(r"zero\S+ DETECTED negligible\+0\.005", swap)


def test_presets_stand_with_their_sign(page: Page) -> None:
    said = part(page, "Does the state move predictions", "Do regimes leave")
    mean = (0.10 - 0.11 + 0.12 + 0.13 + 0.14) / 5
    assert f"calm {minus(-mean, 4)} [" in said
    assert "nats, as made in 4 of 5 seeds" in said
    assert f"alarmedself-analysis{minus(mean, 4)}[" in said


def test_the_state_stands_beside_runs_without_it(lab: Store, page: Page) -> None:
    said = part(page, "Held-out loss", "Runs without a result")
    assert "Without any regime, held-out loss in nats: self-analysis − baseline −0.0" in said
    found = rows_of(lab, "family = 'undisturbed' AND hypothesis = 'difference' AND step_id LIKE '%-core-%'")
    assert len(found) == 2
    for row in found:
        name = "noself" if row["contrast"].endswith("noself") else "baseline"
        assert (row["role"], row["margin"]) == ("secondary", 0.02)
        assert row["p_adjusted"] >= row["p"]
        numbers = f"{minus(row['estimate'], 4)}[{minus(row['low'], 4)}, {minus(row['high'], 4)}]"
        assert re.search(rf"self-analysis − {name}\S+ {row['verdict']}[a-z ]*{re.escape(numbers)}", said), (
            name
        )


def test_buffers_stand_beside_the_running_mean_and_shares_are_not_tested(lab: Store, page: Page) -> None:
    said = part(page, "Does a memory change", "Does the state beat")
    found = rows_of(lab, "family = 'memory' AND hypothesis = 'buffer_minus_ema'")
    assert {(row["contrast"], row["metric"]) for row in found} == {
        (f"{buffer}-mem-ema-decay-0.1", metric)
        for buffer in ("mem-buf-l32", "mem-buf-l64-s5") for metric in ("valid_loss_nats", "self_drift")
    }  # fmt: skip
    assert "mem-buf-l32 − mem-ema-decay-0.1held-out loss, nats" in said
    shares = rows_of(lab, "family = 'memory' AND metric = 'memory_share'")
    assert [row["hypothesis"] for row in shares] == ["share"] * 3
    assert all(row["p"] is None and row["low"] > 0.0 for row in shares)
    assert "mem-buf-l320.052[" in said
