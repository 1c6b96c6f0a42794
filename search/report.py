"""What a study, or one of its trials, amounts to: read from the store in a handful of queries, and nothing but data.

It works on a study that runs, that has ended, or that has not begun. How it is shown is another matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from spaces.config import Direction, MetricConfig, ScoreRule
from spaces.errors import StoreError, nearest
from spaces.loader import check
from spaces.parameters import active
from spaces.paths import flatten
from spaces.records import EpochRecord, best_record
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, Finding, StoredStudy, StoredTrial, TrialState

if TYPE_CHECKING:
    from storage.store import Store

KILLED_STATES = tuple(state for state in FINAL_STATES if state != "complete")

WORSE_THAN_PEERS = "worse than its peers"
"""The cause of every prune: the trial itself may be healthy."""

RATE, BASE_RATE = "optimizer.lr_multiple", "optimizer.base_lr"

HEALTHY_NORM = (0.1, 10.0)
"""Gradient norms before clipping."""

STEADY_SHARE = 2 / 3
"""A loss falls steadily when it fell in at least so many of the epochs; minibatch noise makes the others."""

HELD_WITHIN = 0.02
"""Frequent classes have held when their mean lost no more than this; it is about the noise between two epochs."""


class Told:
    """A report that can be written as JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """A mapping of JSON values. NaN and infinity, which JSON has no word for, are null."""
        told: dict[str, Any] = _jsonable(asdict(self))  # type: ignore[call-overload]
        return told


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """A complete trial in its place.

    Attributes:
        noise: how much the metric moves from epoch to epoch for no reason (see `noise`); None for a short trial.
        best_epoch: the epoch with the best metric; the score is of that one by default.
        params: what was sampled for it, dimensions that do not exist under its choices left out.
        lr: the learning rate that a sampled multiple amounts to.
        test: the metric on the test split, which decided nothing.
        tied: whether noise alone could have put it behind the first row. The first row itself is not tied.
    """

    rank: int
    number: int
    score: float
    noise: float | None
    best_epoch: int
    epochs: int
    preset: str
    params: Mapping[str, Any]
    lr: float | None
    test: float | None
    tied: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """A trial that did not complete, and why. `signal` is a divergence signal, a pruner, or `error`."""

    number: int | None
    state: TrialState
    signal: str
    epoch: int | None
    step: int | None
    reason: str
    cause: str
    remedy: str
    severity: float | None


@dataclass(frozen=True, slots=True)
class StudyReport(Told):
    """How a study stands. `states` counts trials; `left` in it are those of the budget that have not begun."""

    name: str
    about: str
    objective: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    epochs: int
    budget: int
    states: Mapping[str, int]
    leaderboard: tuple[LeaderboardRow, ...]
    kills: tuple[Kill, ...]
    causes: Mapping[str, int]
    health: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialReport(Told):
    """Everything that is known of one trial. `attempts` counts the workers that had it."""

    study: str
    number: int
    state: TrialState
    preset: str
    metric: str
    direction: Direction
    score_rule: ScoreRule
    epochs: int
    score: float | None
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    lr: float | None
    used: Mapping[str, Any]
    reason: str
    error: str
    records: tuple[EpochRecord, ...]
    findings: tuple[Finding, ...]
    health: tuple[str, ...]
    class_names: tuple[str, ...]
    attempts: int
    worker: str
    host: str


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of health: present, missing, or None when the records are too few to tell; with the numbers."""

    name: str
    present: bool | None
    told: str

    def __str__(self) -> str:
        word = {True: "present", False: "missing", None: "not judged"}[self.present]
        return f"{word}: {self.name} ({self.told})"


def study_report(store: Store, name: str) -> StudyReport:
    """How the study called `name` stands.

    Raises:
        StoreError: when there is none.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trials = store.trials(stored.id)
    records, findings = store.study_records(stored.id), store.study_evidence(stored.id)
    killed = [trial for trial in trials if trial.state in KILLED_STATES]
    kills = tuple(_kill(trial, records.get(trial.id, []), findings.get(trial.id, [])) for trial in killed)
    complete = [trial for trial in trials if trial.state == "complete"]
    return StudyReport(
        name=name, about=spec.about, objective=spec.objective, metric=spec.metric.name, direction=spec.metric.direction,
        score_rule=spec.metric.score, epochs=spec.epochs, budget=spec.trials, states=_states(trials, spec.trials),
        leaderboard=_leaderboard(complete, records, spec), kills=kills,
        causes=dict(Counter(kill.cause for kill in kills).most_common()), health=_study_health(complete, records, spec.metric),
    )  # fmt: skip


def trial_report(store: Store, name: str, number: int) -> TrialReport:
    """Everything that is known of one trial of the study called `name`.

    Raises:
        StoreError: when there is no such study, or no such trial in it.
    """
    stored = find_study(store, name)
    spec = check(StudySpec, stored.definition, f"study {name} in the store")
    trial = store.trial(stored.id, number)
    if trial is None:
        raise _no_trial(store, stored, number)
    records = tuple(store.records(trial.id))
    params, lr = sampled(spec, trial.config or {})
    return TrialReport(
        study=name, number=number, state=trial.state, preset=trial.preset or "", metric=spec.metric.name, direction=spec.metric.direction,
        score_rule=spec.metric.score, epochs=spec.epochs, score=trial.score, config=trial.config or {}, params=params, lr=lr,
        used=trial.used or {}, reason=trial.reason, error=trial.error, records=records, findings=tuple(store.evidence(trial.id)),
        health=health(records, spec.metric.direction), class_names=_class_names(trial, records),
        attempts=trial.attempt, worker=trial.worker, host=trial.host,
    )  # fmt: skip


def find_study(store: Store, name: str) -> StoredStudy:
    """The study called `name` in the store.

    Raises:
        StoreError: when there is none.
    """
    stored = store.study(name)
    if stored is None:
        known = [study.name for study in store.studies()]
        what = f"there is no study {name!r} in the store{nearest(name, known)}"
        allowed = ", ".join(known) or "the store is empty"
        raise StoreError(what, where=store.where, found=name, allowed=allowed, next_step="start it with `search run --study …`")
    return stored


def sampled(spec: StudySpec, config: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Path → value of what was sampled for a configuration, and the learning rate that a sampled multiple amounts to."""
    values = dict(flatten(config))
    params = {path: values[path] for path, dimension in spec.space.items() if path in values and active(dimension.when, values)}
    return params, values[BASE_RATE] * params[RATE] if RATE in params and BASE_RATE in values else None


def noise(records: Sequence[EpochRecord]) -> float | None:
    """How far one epoch's metric is from where it would be without noise, read from the second half of the epochs.

    The standard deviation of successive differences, divided by √2, as each difference holds the noise of two epochs;
    a steady trend drops out. It is a lower bound: another seed adds more. None when there are fewer than two differences.
    """
    values = [record.metric for record in records[len(records) // 2 :] if math.isfinite(record.metric)]
    steps = [after - before for before, after in pairwise(values)]
    return stdev(steps) / math.sqrt(2) if len(steps) > 1 else None


def health(records: Sequence[EpochRecord], direction: Direction) -> tuple[str, ...]:
    """The signs of health of a trial, present and missing, a line each with its numbers."""
    return tuple(str(sign) for sign in signs(records, direction))


def signs(records: Sequence[EpochRecord], direction: Direction) -> tuple[Sign, ...]:
    """The signs of health of a trial. Epochs that broke off say nothing; losses are compared once the schedule has settled."""
    whole = [record for record in records if record.broken_step is None]
    settled = [record for record in whole if record.settled]
    return _falling_loss(settled), _improving_metric(whole, direction), _healthy_norm(whole), _falling_parts(settled), _fair_gains(whole)


def _falling_loss(records: Sequence[EpochRecord]) -> Sign:
    name = "a steadily falling training loss"
    if len(records) < 2:
        return Sign(name, None, "fewer than 2 epochs with the final loss")
    falls = sum(after.train_loss < before.train_loss for before, after in pairwise(records))
    steps, first, last = len(records) - 1, records[0].train_loss, records[-1].train_loss
    return Sign(name, last < first and falls >= STEADY_SHARE * steps, f"{first:.4g} → {last:.4g}, lower in {falls} of {steps} epochs")


def _improving_metric(records: Sequence[EpochRecord], direction: Direction) -> Sign:
    name, values = "an improving metric", [record.metric for record in records]
    if len(values) < 2:
        return Sign(name, None, "fewer than 2 epochs")
    # Means of halves, and not the first and the last epoch: one of those may be lucky.
    early, late = fmean(values[: len(values) // 2]), fmean(values[len(values) // 2 :])
    told = f"mean of the first half {early:.4f}, of the second {late:.4f}"
    return Sign(name, late > early if direction == "maximize" else late < early, told)


def _healthy_norm(records: Sequence[EpochRecord]) -> Sign:
    low, high = HEALTHY_NORM
    name, medians = f"a gradient norm within {low:g} to {high:g}", [record.grad_norm_median for record in records]
    if not medians:
        return Sign(name, None, "no epoch")
    inside = sum(low <= median <= high for median in medians)
    return Sign(name, inside == len(medians), f"in {inside} of {len(medians)} epochs; medians {min(medians):.3g} to {max(medians):.3g}")


def _falling_parts(records: Sequence[EpochRecord]) -> Sign:
    name = "cross entropy and Dice both fall"
    if len(records) < 2:
        return Sign(name, None, "fewer than 2 epochs with the final loss")
    ce, dice = [record.ce_loss for record in records], [record.dice_loss for record in records if record.dice_loss is not None]
    told = f"cross entropy {ce[0]:.4g} → {ce[-1]:.4g}, " + (f"Dice {dice[0]:.4g} → {dice[-1]:.4g}" if dice else "no Dice in the loss")
    return Sign(name, ce[-1] < ce[0] and (not dice or dice[-1] < dice[0]), told)


def _fair_gains(records: Sequence[EpochRecord]) -> Sign:
    """Records hold no class frequencies: the half of the classes that began lowest stands for the rare ones."""
    name = "rare classes gain while frequent ones hold"
    ends = zip(records[0].class_metric, records[-1].class_metric, strict=True) if records else ()
    pairs = [(before, after) for before, after in ends if before is not None and after is not None]
    if len(records) < 2 or len(pairs) < 2:
        return Sign(name, None, "fewer than 2 epochs, or 2 classes")
    pairs.sort()
    rare, frequent = _means(pairs[: len(pairs) // 2]), _means(pairs[len(pairs) // 2 :])
    told = f"the lower half at the start {rare[0]:.3f} → {rare[1]:.3f}, the upper half {frequent[0]:.3f} → {frequent[1]:.3f}"
    return Sign(name, rare[1] > rare[0] and frequent[1] >= frequent[0] - HELD_WITHIN, told)


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(before for before, _ in pairs), fmean(after for _, after in pairs)


def _study_health(complete: Sequence[StoredTrial], records: Mapping[int, list[EpochRecord]], metric: MetricConfig) -> tuple[str, ...]:
    """Each sign with how many of the complete trials have it, and which have not."""
    found = {trial.number: signs(records.get(trial.id, []), metric.direction) for trial in complete}
    lines = []
    for column in zip(*found.values(), strict=True):
        missing = [str(number) for number, sign in zip(found, column, strict=True) if sign.present is False]
        judged = sum(sign.present is not None for sign in column)
        shown = f"; missing in trial {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}" if missing else ""
        lines.append(f"{column[0].name}: {judged - len(missing)} of {judged} complete trials{shown}")
    return tuple(lines)


def _states(trials: Sequence[StoredTrial], budget: int) -> dict[str, int]:
    counted = Counter(trial.state for trial in trials)
    return {state: counted[state] for state in (*FINAL_STATES, "running", "paused", "reserved")} | {"left": max(0, budget - len(trials))}


def _leaderboard(complete: Sequence[StoredTrial], records: Mapping[int, list[EpochRecord]], spec: StudySpec) -> tuple[LeaderboardRow, ...]:
    numbered = [(trial.score, trial) for trial in complete if trial.score is not None and records.get(trial.id)]
    scored = [(score, trial) for score, trial in numbered if math.isfinite(score)]
    sign = -1 if spec.metric.direction == "maximize" else 1
    scored.sort(key=lambda pair: sign * pair[0])  # stable: of equal scores, the earlier trial comes first
    if not scored:
        return ()
    rows = [_row(score, trial, records[trial.id], spec) for score, trial in scored]
    return tuple(replace(row, rank=rank, tied=rank > 1 and _tied(row, rows[0])) for rank, row in enumerate(rows, 1))


def _tied(row: LeaderboardRow, first: LeaderboardRow) -> bool:
    return abs(row.score - first.score) <= math.hypot(row.noise or 0.0, first.noise or 0.0)


def _row(score: float, trial: StoredTrial, records: list[EpochRecord], spec: StudySpec) -> LeaderboardRow:
    params, lr = sampled(spec, trial.config or {})
    tests = [record.test.metric for record in records if record.test is not None]
    best_epoch, test = best_record(records, spec.metric.direction).epoch, tests[-1] if tests else None
    return LeaderboardRow(
        rank=1, number=trial.number or 0, score=score, noise=noise(records), best_epoch=best_epoch, epochs=records[-1].epoch,
        preset=trial.preset or "", params=params, lr=lr, test=test, tied=False,
    )  # fmt: skip


def _kill(trial: StoredTrial, records: Sequence[EpochRecord], findings: Sequence[Finding]) -> Kill:
    head = trial.reason.partition(":")[0]
    epoch = records[-1].epoch if records else None
    if not findings:
        signal, cause = (head, WORSE_THAN_PEERS) if trial.state == "pruned" else ("error", head)
        return Kill(trial.number, trial.state, signal, epoch, None, trial.reason, cause, "", None)
    evidence, diagnosis = findings[-1]
    cause, remedies = (diagnosis.cause, diagnosis.remedies) if diagnosis else ("unknown", ())
    remedy = remedies[0].text if remedies else ""
    return Kill(trial.number, trial.state, evidence.signal, evidence.epoch, evidence.step, trial.reason, cause, remedy, evidence.severity)


def _class_names(trial: StoredTrial, records: Sequence[EpochRecord]) -> tuple[str, ...]:
    """As the objective told them when it ran, else their indices."""
    told = (trial.used or {}).get("environment.classes")
    return tuple(map(str, told or range(len(records[0].class_metric) if records else 0)))


def _no_trial(store: Store, stored: StoredStudy, number: int) -> StoreError:
    known = sorted(trial.number for trial in store.trials(stored.id) if trial.number is not None)
    allowed = ", ".join(map(str, known[:20])) + (f" … {known[-1]}" if len(known) > 20 else "")
    what, next_step = f"the study {stored.name!r} has no trial {number}", f"`search show --study {stored.name}` shows how it stands"
    return StoreError(what, where=store.where, found=f"trial {number}", allowed=allowed or "none has begun yet", next_step=next_step)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, (list, tuple)) else value
