"""What a study, or one of its trials, amounts to: read from the store in a handful of queries, and nothing but data.

It works on a study that runs, that has ended, or that has not begun. How it is shown is another matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from search.diagnosis import diagnose
from search.export import best_weights
from search.health import health, signs
from search.lessons import lessons
from search.robust import NOISE_EPOCHS, noise
from spaces.config import Direction, MetricConfig, ScoreRule
from spaces.errors import StoreError, nearest
from spaces.loader import check
from spaces.parameters import active
from spaces.paths import flatten
from spaces.records import ClassCounts, Diagnosis, EpochRecord, best_record
from spaces.study import StudySpec
from storage.rows import FINAL_STATES, HELD_STATES, Finding, Progress, StoredStudy, StoredTrial, TrialState

if TYPE_CHECKING:
    from storage.checkpoints import CheckpointFiles
    from storage.store import Store

KILLED_STATES = tuple(state for state in FINAL_STATES if state != "complete")

WORSE_THAN_PEERS = "worse than its peers"
"""The cause of every prune: the trial itself may be healthy."""

RATE, BASE_RATE = "optimizer.lr_multiple", "optimizer.base_lr"

CLEAR, UNCLEAR = 0.3, "no clear cause"
"""A diagnosis that is less sure is counted as none."""

STANDS_OUT = 0.5
"""A cause that is likelier than all others together is worth telling of a trial that nobody killed."""


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
        noise: how much the metric moves from epoch to epoch for no reason (see `metric_noise`); None for a short trial.
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
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works on a trial.

    Attributes:
        trial: its number; None before it has one.
        epochs: that are done.
        silent_s: seconds since the worker's last sign of life.
        overdue: whether its lease is over, so that anybody may give the trial back.
        attempts: how many workers had it.
        lost: how many of them vanished.
    """

    worker: str
    host: str
    device: str
    trial: int | None
    epochs: int
    silent_s: float | None
    overdue: bool
    attempts: int
    lost: int


@dataclass(frozen=True, slots=True)
class StudyReport(Told):
    """How a study stands. `states` counts trials; `left` in it are those of the budget that have not begun.

    `lessons` are the regions of the space in which trials diverged, `workers` who works on what, `device_s` the device time
    of all trials, as charged, and `device_budget_s` what it may be in all, None for no limit. `weights` is the file of the
    trained state of the leaderboard's first trial, where it lies on this machine.
    """

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
    lessons: tuple[str, ...]
    health: tuple[str, ...]
    workers: tuple[Holder, ...]
    device_s: float
    device_budget_s: float | None
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class TrialReport(Told):
    """Everything that is known of one trial. `attempts` counts the workers that had it.

    `trouble` is the likely cause of what is amiss with a complete trial that lacks a sign of health.
    """

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
    trouble: Diagnosis | None
    attempts: int
    worker: str
    host: str

    def as_dict(self) -> dict[str, Any]:
        """The same, with a name for either half of a finding."""
        told = Told.as_dict(self)
        return told | {"findings": [{"evidence": evidence, "diagnosis": diagnosis} for evidence, diagnosis in told["findings"]]}


def study_report(store: Store, name: str, files: CheckpointFiles | None = None) -> StudyReport:
    """How the study called `name` stands.

    Args:
        files: of the studies, where the trained state of the best trial may lie.

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
    taken = store.device_time(stored.id)
    leaderboard = _leaderboard(complete, records, spec)
    return StudyReport(
        name=name, about=spec.about, objective=spec.objective, metric=spec.metric.name, direction=spec.metric.direction,
        score_rule=spec.metric.score, epochs=spec.epochs, budget=spec.trials, states=_states(trials, spec.trials),
        leaderboard=leaderboard, kills=kills,
        causes=dict(Counter(map(_counted_as, kills)).most_common()), lessons=_lessons(trials, spec), health=_study_health(complete, records, spec.metric),
        workers=holders(store.progress(stored.id)), device_s=taken.charged_s, device_budget_s=taken.budget_s,
        weights=best_weights(files, stored, leaderboard[0].number) if files is not None and leaderboard else None,
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
    names = _class_names(trial, records)
    return TrialReport(
        study=name, number=number, state=trial.state, preset=trial.preset or "", metric=spec.metric.name, direction=spec.metric.direction,
        score_rule=spec.metric.score, epochs=spec.epochs, score=trial.score, config=trial.config or {}, params=params, lr=lr,
        used=trial.used or {}, reason=trial.reason, error=trial.error, records=records, findings=tuple(store.evidence(trial.id)),
        health=health(records, spec.metric.direction), class_names=names, trouble=_trouble(trial, records, spec.metric.direction, names),
        attempts=trial.attempt, worker=trial.worker, host=trial.host,
    )  # fmt: skip


def holders(lines: Sequence[Progress]) -> tuple[Holder, ...]:
    """Who works on what, by the numbers of the trials."""
    return tuple(
        Holder(line.worker, line.host, line.device or "", line.number, line.epochs, line.silent_s, (line.lease_left_s or 0) < 0, line.attempt, line.lost)
        for line in lines
        if line.state in HELD_STATES
    )


def _trouble(trial: StoredTrial, records: Sequence[EpochRecord], direction: Direction, names: tuple[str, ...]) -> Diagnosis | None:
    """A diagnosis of a complete trial that lacks a sign of health, where one cause stands out."""
    if trial.state != "complete" or all(sign.present is not False for sign in signs(records, direction)):
        return None
    found = diagnose(None, records, trial.config or {}, ClassCounts(names, (0,) * len(names)))  # names alone
    return found if found.confidence > STANDS_OUT else None


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


def metric_noise(records: Sequence[EpochRecord]) -> float | None:
    """How far one epoch's metric is from where it would be without noise; None for fewer than four epochs with a metric.

    The noise that the signals and the pruner judge by. It is a lower bound: another seed adds more.
    """
    values = [record.metric for record in records if math.isfinite(record.metric)]
    return noise(values[-NOISE_EPOCHS:]) if len(values) > 3 else None


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


def _counted_as(kill: Kill) -> str:
    """A guess is no cause to be counted."""
    return kill.cause if kill.confidence is None or kill.confidence >= CLEAR else UNCLEAR


def _lessons(trials: Sequence[StoredTrial], spec: StudySpec) -> tuple[str, ...]:
    ended = [trial for trial in trials if trial.state in ("complete", "pruned", "diverged")]
    return tuple(map(str, lessons([(sampled(spec, trial.config or {})[0], trial.state == "diverged") for trial in ended])))


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
        rank=1, number=trial.number or 0, score=score, noise=metric_noise(records), best_epoch=best_epoch, epochs=records[-1].epoch,
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
    confidence = None if diagnosis is None else diagnosis.confidence
    return Kill(trial.number, trial.state, evidence.signal, evidence.epoch, evidence.step, trial.reason, cause, remedy, evidence.severity, confidence)


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
