"""Every study's profiles as Prefect deployments: one list, for `ladder up` and for prefect.yaml.

A deployment is a module entrypoint (a file path would put `flows/` first on `sys.path`), the profile's
settings as the default of the flow's one parameter, and a pull step that changes to the home. The step names
the home by variable, so nothing of this machine is stored and each worker works in its own home.
`python -m deployments.register` prints prefect.yaml.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployments import environment
from lab.errors import UsageError
from lab.home import resolve_home
from lab.study import Study

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from yaml import SafeDumper, ScalarNode

WORK_POOL = "local"
ACCELERATOR = "accelerator"
"""Global concurrency limit: one training or generation at a time."""
HOME_VARIABLE = "{{ $LADDER_HOME }}"
PULL_STEPS = [{"prefect.deployments.steps.set_working_directory": {"directory": HOME_VARIABLE}}]
COLLISION_STRATEGY = "ENQUEUE"
_YAML_HEAD = """\
# Every study and profile as a deployment, the same as `ladder up` registers.
# `prefect deploy --all` needs a server (PREFECT_API_URL) and a work pool of type process named `local`;
# a worker needs LADDER_HOME. `eval "$(ladder env)"` sets what `ladder up` uses.
# Written by `python -m deployments.register > prefect.yaml`; a test compares it with the studies.
"""


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
                    parameters={"settings": _as_json(settings)},
                    parameter_schema=schema,
                )
            )
            _check(study, profile, found[-1].parameters)
    return found


def register(studies: Iterable[Study], client: SyncPrefectClient) -> list[str]:
    """Create or update every deployment on a server; returns their full names.

    Parameters
    ----------
    studies
        What to register.
    client
        Of the server.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    strategy = ConcurrencyLimitStrategy(COLLISION_STRATEGY)
    found = specifications(studies)
    for spec in found:
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
        )
    return [spec.full_name for spec in found]


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
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=ACCELERATOR, limit=1))


def document(studies: Iterable[Study]) -> dict[str, Any]:
    """The content of prefect.yaml."""
    return {
        "name": "overnight-ladder",
        "pull": PULL_STEPS,
        "deployments": [_entry(spec) for spec in specifications(studies)],
    }


def _entry(spec: Specification) -> dict[str, Any]:
    return {
        "name": spec.name,
        "flow_name": spec.flow,
        "entrypoint": spec.entrypoint,
        "description": spec.description,
        "tags": list(spec.tags),
        "parameters": dict(spec.parameters),
        "concurrency_limit": {"limit": 1, "collision_strategy": COLLISION_STRATEGY},
        "work_pool": {"name": WORK_POOL},
    }


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


def _as_json(settings: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(type(settings)).dump_python(settings, mode="json", warnings=False)


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
