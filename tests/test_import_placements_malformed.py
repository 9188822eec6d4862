"""What `ladder import` refuses of `aggregated_results.json`, by place and in one line."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments import cli
from lab.earlier_placements import holds_placements, read_placements
from lab.errors import UsageError
from tasks.importing_placements import analyse_file
from tests import earlier_files
from tests.placement_files import PLACED, PUBLISHED, Body, accuracy, variant


def changed(*place: str | int, value: Any) -> Callable[[], Body]:
    """The published file with one value replaced, or removed where the value is `...`."""

    def make() -> Body:
        body = copy.deepcopy(PUBLISHED)
        at: Any = body
        for key in place[:-1]:
            at = at[key]
        if value is ...:
            del at[place[-1]]
        else:
            at[place[-1]] = value
        return body

    return make


C, A = "compressed", "accuracy"
P = (C, "per_layer")
MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "no probe": (changed("probe", value=...), "the file: 'probe' is missing; found compressed, timestamp"),
    "a probe without accuracy": (changed("probe", value={}), "probe: 'accuracy' is missing; found no member"),
    "a probe that is a number": (changed("probe", value=0.7), "probe: found the number 0.7; an object with"),
    "no variants": (changed(C, value=...), "the file: 'compressed' is missing"),
    "variants in a list": (changed(C, value=[]), "compressed: found a list; an object is needed"),
    "empty": (changed(C, value={}), "compressed: 0 variants; allowed: 1 to 1000"),
    "no placement": (changed(*P, value=...), "compressed: 'per_layer' is missing; found per_layer_shuffled"),
    "no values": (changed(*P, A, "values", value=...), "compressed.per_layer.accuracy: 'values' is missing"),
    "empty values": (changed(*P, A, "values", value=[]), "accuracy.values: 0 values; allowed: 1 to 1000"),
    "text": (changed(*P, A, "values", 1, value="0.78"), "accuracy.values[1]: found the text '0.78'"),
    "true": (changed(*P, A, "values", 1, value=True), "values[1]: found true; an accuracy is a share from 0"),
    "null": (changed(*P, A, "values", 1, value=None), "values[1]: found null; an accuracy is a share"),
    "NaN": (changed(*P, A, "values", 1, value=math.nan), "values[1]: found the number nan; an accuracy is"),
    "infinity": (changed("probe", A, "values", 0, value=math.inf), "probe.accuracy.values[0]: found the"),
    "percent": (changed(*P, A, "values", 1, value=78), "values[1]: found the number 78; an accuracy is a sh"),
    "negative": (changed(*P, A, "values", 1, value=-0.1), "values[1]: found the number -0.1; an accuracy"),
    "fewer seeds": (
        changed(*P, A, value=accuracy(PLACED[:2])),
        "compressed.per_layer.accuracy.values: 2 values, the probe has 3; give one for each seed"),
    "another mean": (
        changed(*P, A, "mean", value=0.7567),
        "per_layer.accuracy.mean: found 0.7567, the values have the mean 0.756666667; make one of"),
    "a mean of NaN": (changed(*P, A, "mean", value=math.nan), "accuracy.mean: found the number nan"),
    "another std": (changed(*P, A, "std", value=0.03), "std: found 0.03, the values have 0.02081666 (ddof"),
    "ddof 0": (
        changed(*P, A, "std", value=pstdev(PLACED)),
        "found 0.0169967317, the values have 0.02081666 (ddof 1); ddof 0 fits, and ddof 1 is needed"),
    "no std": (changed(*P, A, "std", value=...), "compressed.per_layer.accuracy: 'std' is missing"),
    "std of one seed": (
        lambda: {"probe": {A: accuracy([0.7]) | {"std": 0.0}}, C: {"per_layer": {A: accuracy([0.7])}}},
        "probe.accuracy.std: found the number 0.0; one seed has no standard deviation (ddof 1): write null"),
    "a pass rate in percent": (
        changed(*P, "pass_rate", value=66.7), "pass_rate: found the number 66.7; a share of the seeds fr"),
    "a reduction in percent": (changed(*P, "param_reduction", value=60), "param_reduction: found the number"),
    "a difference in points": (changed(*P, "delta_vs_probe", value=-3.3), "delta_vs_probe: found the number"),
    "a blank verdict": (changed(*P, "verdict", value=" "), "per_layer.verdict: blank text; some words are"),
    "a blank variant": (changed(C, " ", value=variant(PLACED, 0.5)), "compressed: blank text; some words"),
    "two seeds named": (changed("seeds", value=[1, 2]), "seeds: 2 different seeds for 3 values; name each"),
    "a seed named twice": (changed("seeds", value=[1, 2, 2]), "seeds: 2 different seeds for 3 values"),
    "seeds by name": (changed("seeds", value=["a", "b", "c"]), "seeds[0]: found the text 'a'; a whole"),
    "a model that is a number": (changed("model", value=3), "model: found the number 3; text is needed"),
    "infinity elsewhere": (changed("took", value=math.inf), "took: found inf; a number or null is needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused_by_place_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = MALFORMED[name]
    path, home = earlier_files.save(tmp_path / "earlier.json", make()), tmp_path / "home"
    monkeypatch.setenv("LADDER_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["ladder", "import", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert f"{path}: " in err
    assert "nothing was imported" in err
    assert not home.exists()


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.floats(0.0, 1.0),
    st.floats(),
    st.integers(-1, 2),
    st.sampled_from([None, True, "0.5", [], {}, 10**200]),
)
NAMES = ["per_layer", "per_layer_shuffled", "shuffled_within", "shuffled_within 2", "shuffled_free",
         "shuffled_full", "uniform_equal", "eva", "\ud800", ""]  # fmt: skip


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seeds=st.integers(1, 4), sound=st.booleans())
def test_any_file_is_refused_or_gives_finite_rows(
    data: st.DataObject, seeds: int, sound: bool, tmp_path: Path
) -> None:
    share = st.floats(0.0, 1.0)
    found = {}
    for name in ["probe", "per_layer", *data.draw(st.lists(st.sampled_from(NAMES), max_size=5))]:
        one: Body = {A: accuracy(data.draw(st.lists(share, min_size=seeds, max_size=seeds)))}
        if not sound:
            one[A][data.draw(st.sampled_from(["mean", "std", "values"]))] = data.draw(VALUES)
        saved = data.draw(st.one_of(st.none(), share))
        found[name] = one | {"param_reduction": saved}
    body = {"probe": found.pop("probe"), C: found}
    path = earlier_files.save(tmp_path / "earlier.json", body)
    assert holds_placements(path)
    try:
        file = read_placements(path)
    except UsageError as error:
        refused = str(error)
    else:
        refused = ""
        tests = analyse_file(file)["tests"]  # TestRow refuses what is not finite
        assert len([row for row in tests if row["role"] == "verdict"]) == 1
        json.dumps(tests, allow_nan=False)
    assert not refused or "nothing was imported" in refused
    assert not refused or not sound or {"\ud800", ""} & found.keys()
