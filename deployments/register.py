"""Every study's profiles and what runs by the clock as Prefect deployments: one list, for `ladder up` and for
prefect.yaml.

A deployment is a module entrypoint (a file path would put `flows/` first on `sys.path`), the profile's
settings as the default of the flow's one parameter, and a pull step that changes to the home. The step names
the home by variable, so nothing of this machine is stored and each worker works in its own home. Schedules
are made with their deployment and belong to the person from then on: registering again keeps each as it is,
paused, changed or removed. `python -m deployments.register` prints prefect.yaml.
"""

from __future__ import annotations

import contextlib
import os
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import environment
from lab.errors import UsageError
from lab.home import resolve_home
from lab.settings import as_json
from lab.study import Study

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from yaml import SafeDumper, ScalarNode

WORK_POOL = os.environ.get("LADDER_WORK_POOL") or "local"
ACCELERATOR = "accelerator"
"""Global concurrency limit: one training or generation at a time."""
HOME_VARIABLE = "{{ $LADDER_HOME }}"
PULL_STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": HOME_VARIABLE}}]
COLLISION_STRATEGY = "ENQUEUE"
"""A second run of a deployment waits for the first."""
UNIVERSAL = "UTC"
"""Time zone in prefect.yaml, which holds nothing of a machine, and where a machine does not tell its own."""
NIGHT = """\
A night: every study within a budget, each followed to where its gates lead; the next goes on with the rest.

A night that is due while another runs is cancelled; one that starts late ends when it would have ended
anyway. Cancelling a night ends what it runs, and the next night resumes.
"""
SUMMARY = """\
The morning: results across runs, drift, cost, open questions, an export of every table and the report.
"""
_YAML_HEAD = """\
# Every study and profile as a deployment, and what runs by the clock, the same as `ladder up` registers.
# `prefect deploy --all` needs a server (PREFECT_API_URL) and a work pool of type process named `local`;
# a worker needs LADDER_HOME. `eval "$(ladder env)"` sets what `ladder up` uses.
# Schedules are in UTC here (`ladder up` takes the machine's time zone): change `timezone` to the IANA name
# of yours. `prefect deploy` again sets cron and time zone to what stands here and leaves a schedule that was
# paused paused, except that entropy-ladder/nightly, off until you switch it on, is switched off again.
# Written by `python -m deployments.register > prefect.yaml`; a test compares it with the studies.
"""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """When a deployment runs by itself."""

    slug: str
    """Names the schedule, so that `prefect deploy` changes it and adds no second one."""
    cron: str
    active: bool = True
    """Whether it is on from the start."""


@dataclass(frozen=True, kw_only=True)
class Specification:
    """One deployment, as data."""

    flow: str
    name: str
    entrypoint: str
    description: str
    tags: tuple[str, ...]
    parameters: Mapping[str, Any]
    """JSON values by parameter."""
    parameter_schema: Mapping[str, Any]
    """What the form of the UI shows and the server checks."""
    collision_strategy: str = COLLISION_STRATEGY
    clock: Clock | None = None

    @property
    def full_name(self) -> str:
        """What `prefect deployment run` takes."""
        return f"{self.flow}/{self.name}"


def specifications(studies: Iterable[Study]) -> list[Specification]:
    """One deployment per study and profile, in the order of the studies.

    Raises
    ------
    UsageError
        A profile that the flow's parameter does not accept.
    """
    from prefect.utilities.callables import parameter_schema

    found: list[Specification] = []
    for study in studies:
        flow = _flow(study)
        schema = parameter_schema(flow).model_dump(exclude_unset=True)
        for profile, settings in study.profiles.items():
            found.append(
                Specification(
                    flow=flow.name,
                    name=profile,
                    entrypoint=study.entrypoint,
                    description=_description(study, profile),
                    tags=("ladder", study.name, profile),
                    parameters={"settings": as_json(settings)},
                    parameter_schema=schema,
                )
            )
            _check(study, profile, found[-1].parameters)
    return found


def scheduled() -> list[Specification]:
    """What runs by the clock: the night, the ladder of models alone, the summaries where they are built."""
    from prefect.utilities.callables import parameter_schema

    from flows.overnight import overnight
    from flows.registry import find_study

    night = Specification(
        flow=overnight.name,
        name="nightly",
        entrypoint="flows.overnight.overnight",
        description=NIGHT,
        tags=("ladder", "overnight", "nightly"),
        parameters={"budget": "8h", "profile": "smoke"},
        parameter_schema=parameter_schema(overnight).model_dump(exclude_unset=True),
        collision_strategy="CANCEL_NEW",  # a night that is due while one runs is no second night
        clock=Clock(slug="nightly", cron="0 22 * * *"),
    )
    [ladder] = [one for one in specifications([find_study("entropy_ladder")]) if one.name == "laptop"]
    alone = replace(
        ladder,
        name="nightly",
        description=f"The scale ladder alone. {ladder.description}",
        tags=("ladder", "entropy_ladder", "nightly"),
        clock=Clock(slug="nightly", cron="0 22 * * *", active=False),
    )
    return [night, alone, *_summaries()]


def _summaries() -> list[Specification]:
    from prefect.utilities.callables import parameter_schema

    from flows.summary import summary as flow

    return [
        Specification(
            flow=flow.name,
            name="daily",
            entrypoint="flows.summary.summary",
            description=SUMMARY,
            tags=("ladder", "summary", "daily"),
            parameters={},
            parameter_schema=parameter_schema(flow).model_dump(exclude_unset=True),
            clock=Clock(slug="daily", cron="0 7 * * *"),
        )
    ]


def register(studies: Iterable[Study], client: SyncPrefectClient) -> list[str]:
    """Create or update the deployments of studies on a server; returns their full names.

    Parameters
    ----------
    studies
        What to register.
    client
        Of the server.
    """
    return _register(specifications(studies), client, UNIVERSAL)


def register_scheduled(client: SyncPrefectClient, time_zone: str) -> list[str]:
    """Create or update what runs by the clock; returns their full names.

    Parameters
    ----------
    client
        Of the server.
    time_zone
        IANA name; of schedules that are made now.
    """
    return _register(scheduled(), client, time_zone)


def _register(found: list[Specification], client: SyncPrefectClient, time_zone: str) -> list[str]:
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    for spec in found:
        strategy = ConcurrencyLimitStrategy(spec.collision_strategy)
        client.create_deployment(
            flow_id=client.create_flow_from_name(spec.flow),
            name=spec.name,
            entrypoint=spec.entrypoint,
            description=spec.description,
            tags=list(spec.tags),
            parameters=dict(spec.parameters),
            parameter_openapi_schema=dict(spec.parameter_schema),
            enforce_parameter_schema=True,
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=strategy),
            work_pool_name=WORK_POOL,
            pull_steps=PULL_STEPS,
            schedules=_schedules(spec, client, time_zone),
        )
    return [spec.full_name for spec in found]


def _schedules(
    spec: Specification, client: SyncPrefectClient, time_zone: str
) -> list[DeploymentScheduleCreate]:
    """Those the deployment has, as they are; of one that is new, its own.

    The server drops every schedule that it is not told again.
    """
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound

    with contextlib.suppress(ObjectNotFound):
        return [
            DeploymentScheduleCreate(
                schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
            )
            for one in client.read_deployment_by_name(spec.full_name).schedules
        ]
    if spec.clock is None:
        return []
    cron = CronSchedule(cron=spec.clock.cron, timezone=time_zone)
    return [DeploymentScheduleCreate(schedule=cron, active=spec.clock.active, slug=spec.clock.slug)]


def local_time_zone(etc: Path = Path("/etc")) -> str:
    """IANA name of the machine's time zone; UTC where it does not tell.

    `TZ` if it is such a name, else the file that `localtime` links to, else what `timezone` says.

    >>> local_time_zone(Path("no-such-folder")) in zoneinfo.available_timezones()
    True
    """
    linked, written = os.path.realpath(etc / "localtime"), ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        written = (etc / "timezone").read_text(encoding="utf-8").strip()
    told = (os.environ.get("TZ", "").removeprefix(":"), linked.partition("zoneinfo/")[2], written)
    known = zoneinfo.available_timezones()
    return next((name for name in told if name in known), UNIVERSAL)


def prepare_server(client: SyncPrefectClient) -> None:
    """Make the work pool and the concurrency limit; what is there already stays as it was set."""
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))
    try:
        client.read_global_concurrency_limit_by_name(ACCELERATOR)
    except ObjectNotFound:
        with contextlib.suppress(ObjectAlreadyExists):  # a busy server has the request sent twice
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=ACCELERATOR, limit=1))


def document(studies: Iterable[Study]) -> dict[str, Any]:
    """The content of prefect.yaml."""
    return {
        "name": "overnight-ladder",
        "pull": PULL_STEPS,
        "deployments": [_entry(spec) for spec in [*specifications(studies), *scheduled()]],
    }


def _entry(spec: Specification) -> dict[str, Any]:
    entry = {
        "name": spec.name,
        "flow_name": spec.flow,
        "entrypoint": spec.entrypoint,
        "description": spec.description,
        "tags": list(spec.tags),
        "parameters": dict(spec.parameters),
        "concurrency_limit": {"limit": 1, "collision_strategy": spec.collision_strategy},
        "work_pool": {"name": WORK_POOL},
    }
    if spec.clock is None:
        return entry
    when: dict[str, Any] = {"slug": spec.clock.slug, "cron": spec.clock.cron, "timezone": UNIVERSAL}
    if not spec.clock.active:  # said only then: `active: true` would switch on what a person paused
        when["active"] = False
    return {**entry, "schedules": [when]}


def _description(study: Study, profile: str) -> str:
    return (
        f"{study.title}, profile `{profile}`.\n\n{study.question.strip()}\n\n"
        f"Prediction, fixed before the first run: {study.prediction.strip()}\n"
    )


def _flow(study: Study) -> Flow[..., Any]:
    from prefect import Flow

    if not isinstance(study.flow, Flow):
        raise UsageError(f"study {study.name} has no Prefect flow but {study.flow!r}; decorate it with @flow")
    return study.flow


def _check(study: Study, profile: str, parameters: Mapping[str, Any]) -> None:
    """What a worker will be given must make the very settings of the profile."""
    made = _flow(study).validate_parameters(dict(parameters))["settings"]
    if made != study.profiles[profile]:
        raise UsageError(
            f"profile {profile!r} of {study.name} does not survive JSON: {study.profiles[profile]} "
            f"became {made}; give its fields types that JSON holds"
        )


def _as_scalar(dumper: SafeDumper, value: str) -> ScalarNode:
    """Texts of several lines as blocks, which people can read."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


def main() -> None:
    """Print prefect.yaml for the studies of this checkout."""
    environment.prepare(resolve_home())
    import yaml

    from flows.registry import studies

    yaml.SafeDumper.add_representer(str, _as_scalar)
    text = yaml.safe_dump(document(studies().values()), sort_keys=False, width=100, allow_unicode=True)
    print(_YAML_HEAD + text, end="")


if __name__ == "__main__":
    main()
