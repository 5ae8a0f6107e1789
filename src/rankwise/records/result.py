"""result.json: what a run's folder says of the run, finished or not."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from rankwise.records.record import Record, Tree, Upgrade

ENDED = ("finished", "stopped_early")
Interval = tuple[float, float]
"""the two ends, the lower first"""


class ClassScores(Record, kw_only=True):
    """Figures of one class; None where there is no row to divide by."""

    precision: float | None = None
    recall: float | None = None
    recall_ci95: Interval | None = None
    f1: float | None = None
    support: int = 0


class GoalScore(Record, kw_only=True):
    """What a run's goal came to on some rows: its name as it is written, its value, and for a recall its precision."""

    OMITTED: ClassVar[tuple[str, ...]] = ("precision",)

    name: str = ""
    value: float = 0.0
    precision: float | None = None


class Bin(Record, kw_only=True):
    """Confidence beside outcome: decisions whose confidence is above `low` and up to `high`, their mean confidence and the
    share of them that was right; None where there are none."""

    low: float
    high: float
    count: int = 0
    confidence: float | None = None
    accuracy: float | None = None


class Scores(Record, kw_only=True):
    """What `scoring.metrics.evaluate` measures on labelled rows, with the evaluation it stands for and its looks.

    step
        The optimizer step of the weights that were scored.
    folds
        Of how many runs, each scored on the rows that it was not fitted on.
    looks, looks_all
        How often these rows were scored by this run, and by every run of this user.
    drawn_from
        Rows that the scored ones were drawn from, where a clock had no time for all.
    """

    OMITTED = None

    step: int | None = None
    folds: int | None = None
    looks: int | None = None
    looks_all: int | None = None
    drawn_from: int | None = None
    examples: int
    accuracy: float
    accuracy_ci95: Interval
    loss: float
    macro_f1: float
    weighted_f1: float | None = None
    micro_f1: float | None = None
    subset_accuracy: float | None = None
    ece: float
    brier: float | None = None
    per_class: dict[str, ClassScores] = {}
    confusion: list[Any] = []
    predicted_mix: dict[str, float] = {}
    true_mix: dict[str, float] = {}
    reliability: list[Bin] = []
    notes: list[str] = []
    goal: GoalScore | None = None

    def value(self, metric: str) -> float:
        """The score of a name that a configuration may choose by: a metric's, or the goal's."""
        return self.goal.value if self.goal is not None and self.goal.name == metric else float(getattr(self, metric))


class LastScores(Record, kw_only=True):
    """Scores of the last evaluation, which need not be the chosen one."""

    step: int
    accuracy: float
    loss: float


class Floor(Record, kw_only=True):
    """What a simple method reaches on the same rows."""

    OMITTED: ClassVar[tuple[str, ...]] = ("validation", "test")

    method: str = ""
    validation: Scores | None = None
    test: Scores | None = None


class Metrics(Record, kw_only=True):
    """Scores by the rows they were measured on."""

    OMITTED = None

    validation: Scores | None = None
    validation_last: LastScores | None = None
    train_sample: Scores | None = None
    test: Scores | None = None
    floor: Floor | None = None


class Parameters(Record, kw_only=True):
    """Counts of the plan. `encoder` is what full fine-tuning trains, `words` what TF-IDF beside the encoder has fitted."""

    OMITTED: ClassVar[tuple[str, ...]] = ("encoder", "words")

    trainable: int = 0
    budget: int | None = None
    adapter: int = 0
    dora: int = 0
    bias: int = 0
    head: int = 0
    encoder: int | None = None
    words: int | None = None
    frozen: int = 0
    adapter_bytes: int = 0


class Timing(Record, kw_only=True):
    """Seconds of training, of evaluation, and of everything since the command began, over all sessions."""

    train_s: float = 0.0
    eval_s: float = 0.0
    total_s: float = 0.0
    steps: int = 0
    examples_per_s: float | None = None
    tokens_per_s: float | None = None


class Memory(Record, kw_only=True):
    """The most that was used, in megabytes."""

    peak_mb: float = 0.0


class Latency(Record, kw_only=True):
    """Milliseconds from one text to its answer on the machine of the run, alone in its batch: the median of the calls, and
    what all but one in a hundred keep within.

    tokens, percentile
        Of the text: what is kept of it, and where its length stands among the training texts'.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("tokens",)

    p50_ms: float
    p99_ms: float
    tokens: int | None = None
    percentile: int = 50


class RowsOfRole(Record, kw_only=True):
    """The rows of a role: how many, and their hash.

    source, set_apart
        Of test rows: the file named at evaluation, and the hash of those held out when the run was trained.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("source", "set_apart")

    rows: int = 0
    sha256: str = ""
    source: str | None = None
    set_apart: str | None = None


class Engine(Record, kw_only=True):
    """Which path computed the steps, why not the fast one, and in what arithmetic."""

    path: str = ""
    reason: str | None = None
    precision: str = ""
    kernels: str | None = None


class Environment(Record, kw_only=True):
    """What a result was made with."""

    versions: dict[str, str | None] = {}
    platform: str = ""
    cpu: str = ""
    cores: int | None = None
    threads: int | None = None
    gpu: str | None = None
    commit: str | None = None


class Calibration(Record, kw_only=True):
    """A fitted temperature, the rows it was fitted on, and loss and calibration error before and after there."""

    temperature: float = 1.0
    rows: int = 0
    rows_sha256: str = ""
    at_bound: bool = False
    loss_before: float | None = None
    loss_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None


class Decision(Record, kw_only=True):
    """How probabilities become answers, fitted on validation rows for a goal (`scoring.decisions`).

    thresholds
        Probability by class from which it is the answer, or from which a text carries it.
    costs
        By true class and answer, in the order of the classes: the answer expected to cost least is given.
    temperature
        What logits are divided by before the decision, whatever the probabilities that are shown.
    rows, value
        Rows it was fitted on, and what the goal came to there.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("thresholds", "costs", "value", "note")

    goal: str = ""
    thresholds: dict[str, float] = {}
    costs: list[list[float]] = []
    temperature: float = 1.0
    rows: int = 0
    value: float | None = None
    note: str | None = None


class Proof(Record, kw_only=True):
    """How far the reloaded adapter's logits were from the live model's."""

    max_logit_difference: float = 0.0


class Standing(Record, kw_only=True):
    """Scores at one evaluation of a run that is not finished; `goal` where it is none of the others."""

    OMITTED: ClassVar[tuple[str, ...]] = ("goal",)

    step: int = 0
    accuracy: float = 0.0
    loss: float = 0.0
    macro_f1: float = 0.0
    goal: GoalScore | None = None


class Reached(Record, kw_only=True):
    """Where a run stands that is not finished: its step, its best evaluation so far and its last."""

    step: int = 0
    best: Standing | None = None
    last: Standing | None = None


def _set_apart(tree: Tree) -> None:
    """Version 1 knew the rows held out as test by their plain hash until an evaluation named others."""
    test = (tree.get("data") or {}).get("test")
    if test and "source" not in test and "set_apart" not in test:
        test["set_apart"] = test.get("sha256")


class Refit(Record, kw_only=True):
    """Steps on training and validation rows together, after the scores: of how many rows, at which peak rate, and the largest
    difference between the logits of the live model and of the saved one after them. `words`: of those beside an encoder alone."""

    OMITTED: ClassVar[tuple[str, ...]] = ("learning_rate", "words")

    rows: int = 0
    steps: int = 0
    learning_rate: float | None = None
    words: bool = False
    seconds: float = 0.0
    max_logit_difference: float = 0.0

    @property
    def note(self) -> str:
        """What a reader of the scores should know."""
        what = "TF-IDF beside it" if self.words else "it"
        how = f"trained {self.steps:,} steps more" if self.steps else "fitted once more"
        return (
            f"once scored, {what} was {how} on all {self.rows:,} training and validation rows: the scores, thresholds and "
            "temperature are those of the weights before, which had not seen validation"
        )


class Result(Record, kw_only=True):
    """The contents of result.json.

    status
        running, finished, stopped_early, interrupted or failed.
    method
        Of a floor of `auto`, which is no encoder's.
    texts
        What the data was like: `data.Report.to_dict`.
    sessions
        The step that every session of the run began from.
    refit
        What came after the scores, where `train.refit_steps` asked for it.
    base
        sha256 of the base's weights and configuration, where it is named by a folder, which may move.
    """

    OMITTED: ClassVar[tuple[str, ...]] = (
        "base",
        "error",
        "method",
        "reached",
        "reload",
        "notes",
        "calibration",
        "decision",
        "latency",
        "texts",
        "refit",
    )
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = (_set_apart,)

    version: int = 2
    status: str = "running"
    error: str | None = None
    method: str | None = None
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    timing: Timing = msgspec.field(default_factory=Timing)
    processes: int = 1
    memory: Memory = msgspec.field(default_factory=Memory)
    seed: int = 0
    config_hash: str = ""
    labels: list[str] = []
    engine: Engine = msgspec.field(default_factory=Engine)
    data: dict[str, RowsOfRole] = {}
    texts: Tree = {}
    environment: Environment = msgspec.field(default_factory=Environment)
    sessions: list[int] = []
    base: str | None = None
    reached: Reached | None = None
    reload: Proof | None = None
    notes: list[str] = []
    calibration: Calibration | None = None
    decision: Decision | None = None
    latency: Latency | None = None
    refit: Refit | None = None

    @property
    def ended(self) -> bool:
        """Whether the run came to its end, by its last step or by stopping early."""
        return self.status in ENDED
