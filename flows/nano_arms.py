"""Arms of the nanodesmo study: every training of its suites as data, and the published windows.

Steps of one recipe are trained once, whatever they are called. Published windows are those of the study's
earlier version; two of them abut, so the plan that asks for them says that contact is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from models.nano_suites import RANDOM, ZERO, SuiteStep
from models.regimes import PUBLISHED, RegimePlan

OWN: Mapping[str, Any] = MappingProxyType({})
"""The study's self-state as it is."""

CORE = (
    SuiteStep(id="self-analysis", state=OWN),
    SuiteStep(id="self-analysis-noself", state={"injection": "zero"}),
    SuiteStep(id="self-analysis-random", state={"injection": "random"}),
    SuiteStep(id="regimes-all", state=OWN, regimes="windows", twins=True),
    SuiteStep(id="swap-a-half", state=OWN, kind="half"),
    SuiteStep(id="swap-b-half", state=OWN, kind="half", other_order=True),
    SuiteStep(id="patch", state=OWN, kind="go_on", after="swap-a-half", placed=ZERO),
    SuiteStep(id="baseline"),
    SuiteStep(id="swap-a", state=OWN),
    SuiteStep(id="swap-b", state=OWN, other_order=True),
    SuiteStep(id="swap-a-swapped", state=OWN, kind="go_on", after="swap-a-half", placed="swap-b-half"),
    SuiteStep(id="swap-b-swapped", state=OWN, kind="go_on", after="swap-b-half", placed="swap-a-half"),
    SuiteStep(id="swap-a-random", state=OWN, kind="go_on", after="swap-a-half", placed=RANDOM),
    SuiteStep(
        id="swap-a-other-init",
        state=OWN,
        kind="go_on",
        after="swap-a-half",
        placed="swap-a-half",
        other_init=True,
    ),
)
PUBLISHED_STEP = SuiteStep(id="regimes-published", state=OWN, regimes="published", twins=True)
"""Published windows and strengths; of the core suite where they are asked for."""
PUBLISHED_PLAN = RegimePlan(regimes=PUBLISHED, contact=True)
MEMORY = (
    SuiteStep(id="mem-ema-decay-0.1", state={"memory": "ema", "delta": 0.1}),
    *(
        SuiteStep(id=f"mem-buf-l{length}", state={"memory": "buffer", "length": length, "stride": 10})
        for length in (32, 64, 128)
    ),
    SuiteStep(id="mem-buf-l64-s5", state={"memory": "buffer", "length": 64, "stride": 5}),
    SuiteStep(id="mem-buf-l64-s20", state={"memory": "buffer", "length": 64, "stride": 20}),
)
CONTROLS = (
    SuiteStep(id="self-regimes", state=OWN, regimes="windows", twins=True),
    SuiteStep(id="vanilla-regimes", regimes="windows"),
    *(
        SuiteStep(
            id=f"fixed-bias-{norm}",
            state={"update": "fixed", "fixed_norm": norm, "memory": "none"},
            regimes="windows",
        )
        for norm in (0.5, 1.0, 2.0)
    ),
    SuiteStep(id="self-dim1-regimes", state={"dim": 1}, regimes="windows"),
    SuiteStep(id="no-step-frac", state={"step_frac": False}, regimes="windows"),
    SuiteStep(id="random-injection", state={"injection": "random"}, regimes="windows"),
)
GENERALIZATION = (
    SuiteStep(id="self-analysis", state=OWN),
    SuiteStep(id="self-analysis-noself", state={"injection": "zero"}),
    SuiteStep(id="self-analysis-random", state={"injection": "random"}),
    SuiteStep(id="regimes-all", state=OWN, regimes="windows", twins=True),
    SuiteStep(id="baseline"),
)
SUITES: Mapping[str, tuple[SuiteStep, ...]] = MappingProxyType(
    {"core": CORE, "generalization": GENERALIZATION, "memory": MEMORY, "controls": CONTROLS}
)
"""Every training of the study as data; steps of one recipe are trained once."""


def suites_of(*, published: bool, memory: bool, controls: bool) -> Mapping[str, tuple[SuiteStep, ...]]:
    """The suites with the published windows or without, and without those that are left out.

    >>> sorted(suites_of(published=False, memory=False, controls=True))
    ['controls', 'core', 'generalization']
    """
    left_out = {"memory": not memory, "controls": not controls}
    found = {name: steps for name, steps in SUITES.items() if not left_out.get(name)}
    return found | ({"core": (*CORE, PUBLISHED_STEP)} if published else {})
