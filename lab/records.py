"""One frozen dataclass per table of the store; fields are columns, in order.

`table` names the table, `key` its primary key. A batch replaces rows of the same key, so recording twice
changes nothing. JSON columns are text, made by `lab.fingerprint.canonical`. Times are UTC without a zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, get_args


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study: its question and the prediction fixed before the first run."""

    table: ClassVar[str] = "study"
    key: ClassVar[tuple[str, ...]] = ("study",)
    study: str
    question: str
    text: str


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A plan as it was used; `frozen` marks the declared one."""

    table: ClassVar[str] = "plan"
    key: ClassVar[tuple[str, ...]] = ("plan_hash",)
    plan_hash: str
    study: str
    profile: str
    frozen: bool
    recorded_at: datetime
    text: str
    """Canonical JSON of the plan."""


@dataclass(frozen=True, kw_only=True)
class PlanStepRow:
    """Which steps belong to which plan, so that a changed plan reuses what it shares."""

    table: ClassVar[str] = "plan_step"
    key: ClassVar[tuple[str, ...]] = ("plan_hash", "step_id")
    plan_hash: str
    step_id: str


@dataclass(frozen=True, kw_only=True)
class DeviationRow:
    """One field in which a run departs from its declared plan."""

    table: ClassVar[str] = "deviation"
    key: ClassVar[tuple[str, ...]] = ("plan_hash", "declared_hash", "field")
    plan_hash: str
    declared_hash: str
    field: str
    declared: str
    used: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentRow:
    """What the numbers were measured on."""

    table: ClassVar[str] = "environment"
    key: ClassVar[tuple[str, ...]] = ("environment_id",)
    environment_id: str
    python: str
    platform: str
    cpu: str
    cores: int
    memory_gib: float
    device: str
    packages: str
    """JSON: package -> version."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One execution of a flow."""

    table: ClassVar[str] = "run"
    key: ClassVar[tuple[str, ...]] = ("run_id",)
    run_id: str
    study: str
    profile: str
    model: str
    plan_hash: str
    settings: str
    """JSON of the settings used."""
    state: str
    """running, completed, failed, crashed, cancelled or stopped."""
    started_at: datetime
    ended_at: datetime | None
    exploratory: bool
    environment_id: str
    git_commit: str | None
    git_dirty: bool | None
    flow_run_id: str | None
    """Prefect flow run."""
    parent_flow_run_id: str | None
    process: str
    """`host:pid:start` of the process, to tell a crashed run from a live one."""
    note: str | None


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One unit of measured work, addressed by the fingerprint of its config."""

    table: ClassVar[str] = "step"
    key: ClassVar[tuple[str, ...]] = ("step_id",)
    step_id: str
    study: str
    experiment: str
    """Kind of step: train, cell, measure, analyse."""
    arm: str | None
    model: str | None
    seed: int | None
    config: str
    """JSON of what the fingerprint was taken of."""
    code: str
    """Fingerprint of the project code the result depends on."""
    seconds: float | None
    device: str | None
    environment_id: str
    recorded_at: datetime
    reason: str | None
    """Why the step has no result, when it has none."""


@dataclass(frozen=True, kw_only=True)
class GenerationRow:
    """One generated text, or the reason why there is none."""

    table: ClassVar[str] = "generation"
    key: ClassVar[tuple[str, ...]] = ("step_id", "sample", "turn", "probe")
    step_id: str
    """The cell: model, arm and prompt."""
    sample: int
    """Index within the cell, from 0."""
    turn: int
    """0 for single-turn prompts."""
    probe: int
    """0 for the sample itself, 1.. for same-seed repeats of it."""
    sample_id: str
    """Fingerprint of everything that can change the text."""
    arm: str
    prompt_id: str
    stream: int | None
    order_index: int
    """Place in the interleaved order of jobs."""
    seed64: int
    seed32: int
    text: str | None
    """As generated; NULL when it failed."""
    finish_reason: str | None
    """stop or length."""
    tokens: int | None
    seconds: float | None
    """Wall time of the batch divided by its rows."""
    model_digest: str
    server_version: str | None
    sampling: str
    """JSON of every sampling option."""
    imported: bool
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class SeedDrawRow:
    """One logged draw of an entropy source; the tape replays it."""

    table: ClassVar[str] = "seed_draw"
    key: ClassVar[tuple[str, ...]] = ("tape", "draw")
    tape: str
    draw: int
    """Index on the tape, from 0."""
    source: str
    stream: int | None
    purpose: str
    seed64: int
    seed32: int


@dataclass(frozen=True, kw_only=True)
class TrainLogRow:
    """One evaluated point of a training run."""

    table: ClassVar[str] = "train_log"
    key: ClassVar[tuple[str, ...]] = ("step_id", "iteration")
    step_id: str
    iteration: int
    train_loss_nats: float | None
    valid_loss_nats: float | None
    learning_rate: float | None
    tokens: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One number about one unit of a step, or the reason why it has none."""

    table: ClassVar[str] = "metric"
    key: ClassVar[tuple[str, ...]] = ("step_id", "unit", "name")
    step_id: str
    unit: str
    """What was measured: `sample/3/0/0` (sample, turn, probe), a language, a layer, or `*`."""
    name: str
    value: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class SentenceLossRow:
    """What one aligned sentence costs a model, from which every loss metric can be computed again."""

    table: ClassVar[str] = "sentence_loss"
    key: ClassVar[tuple[str, ...]] = ("step_id", "language", "sentence")
    step_id: str
    language: str
    sentence: str
    document: str
    bits: float | None
    tokens: int | None
    bytes: int
    characters: int
    kl_bits: float | None
    flips: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class AdapterModuleRow:
    """One LoRA module of an arm: its planned and realised rank and, where audited, its spectrum."""

    table: ClassVar[str] = "adapter_module"
    key: ClassVar[tuple[str, ...]] = ("step_id", "module")
    step_id: str
    """The trained arm."""
    module: str
    projection: str
    layer: int | None
    kind: str
    d_out: int
    d_in: int
    planned_rank: int | None
    rank: int
    parameters: int
    scale: float | None
    sigma: str | None
    """JSON: singular values of BA, unscaled, falling."""
    stable_rank: float | None
    utilization: float | None
    effective_rank: float | None
    energy_rank_90: int | None
    energy_rank_95: int | None
    energy_rank_99: int | None
    spectral: float | None
    frobenius: float | None
    udr_spectral: float | None
    udr_frobenius: float | None
    sdi_spectral: float | None
    sdi_frobenius: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class AnswerRow:
    """What a model answered to one item, read by each rule, or the reason why there is no answer."""

    table: ClassVar[str] = "answer"
    key: ClassVar[tuple[str, ...]] = ("step_id", "item")
    step_id: str
    """The evaluation: weights, items, decoding."""
    item: str
    text: str | None
    strict: bool | None
    flexible: bool | None
    numeric: bool | None
    nll_nats: float | None
    tokens: int | None
    stopped: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class RetrievalRow:
    """Where a head ranks the best correct candidate of one item, or the reason why it ranks none."""

    table: ClassVar[str] = "retrieval"
    key: ClassVar[tuple[str, ...]] = ("step_id", "item")
    step_id: str
    """The exam: head and items."""
    item: str
    lemma: str
    tier: int | None
    rank: int | None
    margin: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class ReactionRow:
    """One step of a training with a self-state, or of a twin of it; fields as `models.nano_log.Reaction`."""

    table: ClassVar[str] = "reaction"
    key: ClassVar[tuple[str, ...]] = ("step_id", "twin", "step")
    step_id: str
    """The training."""
    twin: str
    step: int
    regimes: str
    loss_nats: float
    learning_rate: float
    grad_norm: float
    step_frac: float
    entropy_nats: float
    top1: float
    self_norm: float | None
    self_delta: float | None
    self_drift: float | None
    relative_drift: float | None
    raw_norm: float | None
    memory_norm: float | None
    clamped_norm: float | None
    memory_filled: int | None
    gate: float | None
    cosine: float | None
    effect_kl_nats: float | None
    effect_logits: float | None


@dataclass(frozen=True, kw_only=True)
class TestResultRow:
    """One statistical answer; the fields after `look` are those of `stats.rows.TestRow`."""

    __test__ = False
    table: ClassVar[str] = "test"
    key: ClassVar[tuple[str, ...]] = (
        "step_id",
        "family",
        "hypothesis",
        "metric",
        "contrast",
        "method",
        "role",
    )
    step_id: str
    """The analysis step."""
    study: str
    model: str
    look: int
    """Samples a cell at this look."""
    family: str
    hypothesis: str
    metric: str
    contrast: str
    method: str
    role: str
    estimate: float | None
    low: float | None
    high: float | None
    effect: float | None
    statistic: float | None
    df1: float | None
    df2: float | None
    p: float | None
    p_adjusted: float | None
    alpha: float | None
    margin: float | None
    n: int | None
    power: float | None
    mde: float | None
    n_to_settle: int | None
    verdict: str | None
    negligible: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """A gate's verdict with everything needed to compute it again."""

    table: ClassVar[str] = "decision"
    key: ClassVar[tuple[str, ...]] = ("decision_id",)
    decision_id: str
    study: str
    profile: str
    model: str
    gate: str
    look: int
    plan_hash: str
    run_id: str
    question: str
    verdict: str
    exploratory: bool
    negligible: bool
    evidence: str
    """JSON: the one row the query returned."""
    sql: str
    parameters: str
    """JSON of the query's parameters."""
    rule: str
    """JSON of min_n and the comparisons."""
    sentence: str
    next: str
    """What the route table says comes next."""
    next_parameters: str
    flow_run_id: str | None
    launched_flow_run_id: str | None
    decided_at: datetime


@dataclass(frozen=True, kw_only=True)
class NightRow:
    """One night: a budget, and what came of it."""

    table: ClassVar[str] = "night"
    key: ClassVar[tuple[str, ...]] = ("night_id",)
    night_id: str
    profile: str
    budget_seconds: float
    started_at: datetime
    deadline: datetime
    """When it was due, and its budget."""
    ended_at: datetime | None
    state: str
    """running, completed, budget, failed, cancelled or crashed."""
    continues: str | None
    """Unfinished night before it."""
    process: str
    """`host:pid:start`."""
    flow_run_id: str | None
    source: str | None
    """Copy of the code that its runs import, relative to the home."""
    note: str | None


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """One candidate of a night."""

    table: ClassVar[str] = "queue"
    key: ClassVar[tuple[str, ...]] = ("night_id", "item")
    night_id: str
    item: str
    """Fingerprint of study, profile and settings."""
    position: int
    study: str
    profile: str
    settings: str
    """JSON of the fields that differ from the profile's."""
    why: str
    decision_id: str | None
    """Decision whose route it is."""
    state: str
    """queued, running, done, left, proposed, refused or failed."""
    expected_seconds: float | None
    expected_from: str | None
    missing: float | None
    """Share of its units that were not here when it was weighed."""
    attempt: int
    flow_run_id: str | None
    run_id: str | None
    started_at: datetime | None
    seconds: float | None
    note: str | None


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """A file of a step, checked by its hash."""

    table: ClassVar[str] = "artifact"
    key: ClassVar[tuple[str, ...]] = ("step_id", "path")
    step_id: str
    path: str
    """Relative to the lab's home."""
    kind: str
    sha256: str
    bytes: int


Record = (
    StudyRow
    | PlanRow
    | PlanStepRow
    | DeviationRow
    | EnvironmentRow
    | RunRow
    | StepRow
    | GenerationRow
    | SeedDrawRow
    | TrainLogRow
    | MetricRow
    | SentenceLossRow
    | AdapterModuleRow
    | AnswerRow
    | RetrievalRow
    | ReactionRow
    | TestResultRow
    | DecisionRow
    | ArtifactRow
    | NightRow
    | QueueRow
)

RECORDS: tuple[type[Record], ...] = get_args(Record)
