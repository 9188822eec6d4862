"""What the server does by itself when a run dies or fails; `ladder up` makes both, once.

A run whose worker and process are both gone says nothing any more and would show as running for ever:
without a heartbeat for three beats it is marked as crashed. And a note is sent when a run of the lab fails or
crashes, once somebody has filled in where to.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

DEAD_RUNS = "ladder: mark dead runs as crashed"
NOTES = "ladder: tell me when a run fails"
BLOCK = "ladder-notes"
BLOCK_TYPE = "custom-webhook"
NOWHERE = "http://127.0.0.1:9/fill-in"
"""Address in the block as it is made: nothing listens there."""
BEATS = 3
"""Heartbeats that a healthy run never misses together; fewer would mark busy runs as crashed."""
USUAL_BEAT_SECONDS = 180
"""Prefect's own, where no setting says otherwise."""
_HEARTBEAT = "prefect.flow-run.heartbeat"
_QUIET = ("Completed", "Failed", "TimedOut", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")
"""States in which a run sends no heartbeats. Cancelling is none: a dead run would stay in it for ever."""
_SUBJECT = "{{ flow_run.name }}: {{ flow_run.state.name }}"
_BODY = """\
{{ flow.name }}/{{ deployment.name }}, run {{ flow_run.name }}, is {{ flow_run.state.name }}.
{{ flow_run.state.message }}
{{ flow_run|ui_url }}
Nothing is lost: run the deployment again, and it goes on where it stopped."""


def ensure(client: SyncPrefectClient) -> None:
    """Make the automations that a server lacks; one that is there stays as a person set it.

    Only a patience of under three heartbeats is raised: it would end runs that are well.

    Parameters
    ----------
    client
        Of the server.
    """
    wanted = dead_runs(beat_seconds())
    there = client.read_automations_by_name(DEAD_RUNS)
    if not there:
        client.create_automation(wanted)
    for one in there:
        if getattr(one.trigger, "within", timedelta.max) < BEATS * timedelta(seconds=beat_seconds()):
            client.update_automation(one.id, wanted.model_copy(update={"enabled": one.enabled}))
    if not client.read_automations_by_name(NOTES):
        client.create_automation(notes(_block(client)))


def beat_seconds() -> int:
    """Time between two heartbeats of a run, as this environment and all that it starts have it."""
    return int(os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY") or USUAL_BEAT_SECONDS)


def dead_runs(beat: int) -> AutomationCore:
    """Mark a deployment's run as crashed when it has sent no heartbeat for three beats and said no end.

    Runs in terminals are left out: they may have another beat, and people see them.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=DEAD_RUNS,
        description="Its process and its worker are gone; run the deployment again and it resumes.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _QUIET)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": "prefect.deployment.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=BEATS * beat),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message="no sign of life any more: its process and worker are gone; run it again to resume",
            )
        ],
    )


def notes(block: UUID) -> AutomationCore:
    """Send a note when a run with the tag `ladder` fails or crashes; off until somebody switches it on.

    Parameters
    ----------
    block
        The notification block that knows where to.
    """
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=NOTES,
        description=f"Fill in the block {BLOCK}, or choose another one, then switch this on.",
        enabled=False,
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in ("Failed", "TimedOut", "Crashed")},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.ladder"},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block, subject=_SUBJECT, body=_BODY)],
    )


def _block(client: SyncPrefectClient) -> UUID:
    """The webhook block, which a person fills in; made with an address where nothing listens."""
    from prefect.client.schemas.actions import BlockDocumentCreate
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_block_document_by_name(BLOCK, BLOCK_TYPE).id
    except ObjectNotFound:
        kind = client.read_block_type_by_slug(BLOCK_TYPE)
    schema = client.get_most_recent_block_schema_for_block_type(kind.id)
    assert schema is not None, f"the server has no schema of its own block {BLOCK_TYPE}"
    data = {"name": BLOCK, "url": NOWHERE, "method": "POST", "json_data": {"text": "{{subject}}\n{{body}}"}}
    made = client.create_block_document(
        BlockDocumentCreate(name=BLOCK, data=data, block_type_id=kind.id, block_schema_id=schema.id)
    )
    return made.id
