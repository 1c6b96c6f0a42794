"""What is recorded of a trial: a record per epoch, the verdict after it, and the diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from spaces.config import Direction, MetricConfig

Used = Mapping[str, Any]
"""Dotted path of a hyperparameter → the value read back from the live loss, optimizer or model."""


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Number of valid (not ignored) pixels or samples of each class in the training split."""

    names: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TestScore:
    """Score of the finished model on the test split, by which nothing is chosen."""

    __test__ = False  # pytest collects classes of this name otherwise

    metric: float
    class_metric: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class InputFigures:
    """Figures of the images of some batches, as the model receives them.

    Attributes:
        mean: of each channel.
        deviation: standard deviation of each channel.
        at_minimum: share of each channel's pixels that have the lowest value of their batch.
        at_maximum: likewise for the highest value.
        constant: share of the images whose pixels all have one value.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    at_minimum: tuple[float, ...]
    at_maximum: tuple[float, ...]
    constant: float

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> InputFigures:
        """Invert `dataclasses.asdict`."""
        return cls(
            mean=tuple(data["mean"]),
            deviation=tuple(data["deviation"]),
            at_minimum=tuple(data["at_minimum"]),
            at_maximum=tuple(data["at_maximum"]),
            constant=data["constant"],
        )


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Everything that is recorded of one epoch; losses are means over its steps, times in seconds.

    `metric` is the study's metric on the validation split, `class_metric` its value for each class
    (None for a class that is not in it). `val_loss` is the trial's own loss on the validation
    split, `val_ce` the plain cross entropy there, which no hyperparameter rescales. Gradient norms
    are global and before clipping. A record with a `broken_step` ends the trial: at that optimizer
    step (counted from 1 within the epoch), which was not applied, loss or norm were not finite, or
    the norm exceeded its bound.

    `grad_shares` has the shares of the L1 norm of the gradient at the logits over the first batches
    of the epoch: `ce` (cross entropy or focal) and `dice`, each with its weight in the loss;
    `class_grad_shares` has the share of each class's elements. Both are empty where an objective
    does not measure them. `last_steps` of a broken epoch are loss and gradient norm of the steps up
    to the broken one, and `inputs_finite` says whether its inputs were finite.

    `inputs` and `val_inputs` are figures of the images of the first steps of training and of
    validation; None where inputs are no images. `target_shares` has the share of each class among
    the valid targets of the epoch, as they were sampled; empty where it was not measured.
    `skipped_steps` counts the optimizer steps that the loss scaler of float16 skipped because a
    gradient overflowed. `batch_norm_samples` is the smallest number of samples over which batch
    normalization normalized; None for a model without it.
    """

    epoch: int
    train_loss: float
    ce_loss: float
    dice_loss: float | None
    val_loss: float
    val_ce: float
    metric: float
    class_metric: tuple[float | None, ...]
    metrics: Mapping[str, float]
    lr: float
    ce_weight: float
    dice_weight: float
    smooth: float
    weight_ratio: float
    grad_norm_median: float
    grad_norm_max: float
    clipped_share: float
    steps: int
    seconds: float
    samples_per_s: float
    peak_mib: float
    broken_step: int | None = None
    settled: bool = True
    grad_shares: Mapping[str, float] = field(default_factory=dict)
    class_grad_shares: tuple[float | None, ...] = ()
    last_steps: tuple[tuple[float, float], ...] = ()
    inputs_finite: bool = True
    inputs: InputFigures | None = None
    val_inputs: InputFigures | None = None
    target_shares: tuple[float, ...] = ()
    skipped_steps: int = 0
    batch_norm_samples: int | None = None
    used: Used = field(default_factory=dict)
    test: TestScore | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a mapping for JSON, in which NaN and infinity are still floats."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Invert `as_dict`; unknown keys, which a newer version may have written, are ignored."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["class_metric"] = tuple(values["class_metric"])
        values["class_grad_shares"] = tuple(values.get("class_grad_shares", ()))
        values["target_shares"] = tuple(values.get("target_shares", ()))
        for name in ("inputs", "val_inputs"):
            if values.get(name) is not None:
                values[name] = InputFigures.from_dict(values[name])
        values["last_steps"] = tuple((loss, norm) for loss, norm in values.get("last_steps", ()))
        if values.get("test") is not None:
            values["test"] = TestScore(
                values["test"]["metric"], tuple(values["test"]["class_metric"])
            )
        return cls(**values)


SPARED = "spared"
"""Key in the numbers of a warning's evidence: why the signal did not end the trial."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a signal fired, or a peer pruner ended a trial: the epoch, the step, and the numbers.

    The severity is above 0 for a signal that ended the trial, and 0 for a warning and for a peer
    pruner.
    """

    signal: str
    epoch: int
    step: int | None
    statement: str
    numbers: Mapping[str, Any]
    severity: float

    @property
    def is_warning(self) -> bool:
        """Whether the signal spared the trial, which continued."""
        return SPARED in self.numbers


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an epoch: continue, prune, or diverged.

    Evidence comes with a signal that fired: with `diverged`, with `prune` if the trial is slow
    rather than diverged, and with `continue` if the signal spared the trial, which is a warning.
    `prune` without evidence is that of the peer pruner.
    """

    action: Literal["continue", "prune", "diverged"]
    reason: str = ""
    evidence: Evidence | None = None


CONTINUE = Verdict("continue")


CLEAR_CONFIDENCE = 0.4
"""Confidence from which on a cause is named; below it every place says `no clear cause`."""

UNCLEAR_CAUSE = "no clear cause"
"""The cause of a diagnosis below that confidence."""

POSSIBLE_CONFIDENCE = 0.15
"""Confidence from which on a cause is listed as possible where none is clear."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The likely cause of a trial's problem and what to try, in this order.

    Attributes:
        because: what supports the cause, the strongest first.
        confidence: likelihood of the cause among all known causes and an unknown one, in 0 … 1.
        against: what speaks against it.
        others: the next likely causes, each with its likelihood. Where the cause is not clear, all
            that are at least `POSSIBLE_CONFIDENCE` likely; there may be none.
    """

    cause: str
    because: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    confidence: float = 1.0
    against: tuple[str, ...] = ()
    others: tuple[tuple[str, float], ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether the cause is likely enough to be named and acted on."""
        return self.confidence >= CLEAR_CONFIDENCE

    def withhold_unclear(self) -> Diagnosis:
        """Return the diagnosis as people and programs get it.

        Where the cause is not clear, none is named and no change of the configuration is
        prescribed, as a remedy for another cause can do harm. What changes nothing remains, such as
        a look at the masks. The likeliest cause is then the first of the possible ones, if there is
        one.
        """
        if self.is_clear:
            return self
        possible = tuple(
            cause
            for cause in ((self.cause, self.confidence), *self.others)
            if cause[1] >= POSSIBLE_CONFIDENCE
        )
        harmless = tuple(remedy for remedy in self.remedies if not remedy.patch)
        return Diagnosis(UNCLEAR_CAUSE, (), harmless, self.confidence, (), possible)


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the configuration that a person or the next trial can try.

    Attributes:
        title: what to do, in a few words.
        patch: dotted path → new value; empty where no change of the configuration helps.
    """

    title: str
    patch: Mapping[str, Any]


def better(a: float, b: float, direction: Direction) -> bool:
    """Return whether score `a` is better than `b`; NaN is worse than every number."""
    if a != a:
        return False
    return b != b or (a > b if direction == "maximize" else a < b)


def best_record(records: Sequence[EpochRecord], direction: Direction) -> EpochRecord:
    """Return the first record with the best metric.

    Raises:
        ValueError: when there are no records.
    """
    if not records:
        raise ValueError("no epoch record to choose from")
    best = records[0]
    for record in records[1:]:
        if better(record.metric, best.metric, direction):
            best = record
    return best


def score(records: Sequence[EpochRecord], metric: MetricConfig) -> float:
    """Return the score of a trial by the rule of its study (the best epoch by default)."""
    if metric.score == "last":
        return records[-1].metric
    if metric.score == "mean_last_5":
        tail = records[-5:]
        return sum(record.metric for record in tail) / len(tail)
    return best_record(records, metric.direction).metric
