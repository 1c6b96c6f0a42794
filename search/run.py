"""One trial, from its configuration to its end: the one place where objective, store, signals and Optuna meet."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from objectives.contract import Trainer
from search.diagnosis import diagnose
from search.judge import judge
from search.lease import LEASE_S, kept_alive
from search.plan import Plan
from search.pruners.peers import reason
from search.stop import StopRequest
from search.study import suggest
from search.track import Tracker
from search.used import check_used
from spaces.config import TrialConfig
from spaces.errors import InputError, LeaseLostError, SearchError, TrialFailedError, UnusedHyperparameterError
from spaces.records import ClassCounts, EpochRecord, Verdict, score
from storage.checkpoints import CheckpointFiles
from storage.rows import Claim, FinalState
from storage.store import Store

Ending = FinalState | Literal["paused"]

CHECKPOINT_EVERY_S = 10.0
"""At most so much work is lost with a worker."""


@dataclass
class Bench:
    """What a worker keeps warm between trials."""

    store: Store
    files: CheckpointFiles
    study: optuna.Study
    plan: Plan
    trainer: Trainer
    prepared: Any
    counts: ClassCounts
    device: str
    stop: StopRequest
    tracker: Tracker


@dataclass
class TrialCheckpoints:
    """The checkpoint of one trial: written every few seconds, and when the worker is about to stop."""

    files: CheckpointFiles
    path: Path
    stop: StopRequest
    last_written: float = field(default_factory=time.monotonic)

    def latest(self) -> Path | None:
        """The file, where there is one."""
        return self.path if self.path.exists() else None

    def due(self, epoch: int) -> bool:
        """Whether enough time has passed, or a stop was asked for."""
        return self.stop.requested or time.monotonic() - self.last_written >= CHECKPOINT_EVERY_S

    def write(self, save: Callable[[Path], None]) -> None:
        """Put a state in place. A disk that is full costs the checkpoint, not the trial."""
        try:
            self.files.write(self.path, save)
        except OSError as problem:
            print(f"warning: no checkpoint written to {self.path}: {problem}", flush=True)
        self.last_written = time.monotonic()


def run_trial(bench: Bench, claim: Claim) -> Ending:
    """Train the claimed trial to its end, or give it back when a stop was asked for. Returns how it ended.

    Raises:
        LeaseLostError: when another worker owns the trial now.
        InputError: when the data or the configuration turn out to be unusable; the trial is failed.
        UnusedHyperparameterError: when a sampled value never reached the training; the trial is failed.
    """
    claim, trial = _bind(bench, claim)
    with kept_alive(bench.store, claim):
        try:
            state = _train(bench, claim, trial)
            if state == "paused":
                bench.store.give_back(claim)
            return state
        except LeaseLostError:
            raise
        except Exception as problem:  # whatever an objective raises ends this trial, and the search goes on
            _fail(bench, claim, trial, problem)
            if isinstance(problem, (InputError, UnusedHyperparameterError)):
                raise
            return "failed"
        except BaseException:  # the second Ctrl-C: the trial goes back as it was last checkpointed
            bench.store.give_back(claim)
            raise


def _bind(bench: Bench, claim: Claim) -> tuple[Claim, optuna.Trial]:
    """Sample the configuration of a new trial, or take up an old one where it was left."""
    if claim.resume and claim.optuna_trial_id is not None:
        return claim, optuna.Trial(bench.study, claim.optuna_trial_id)
    trial = bench.study.ask()
    params, preset = suggest(trial, bench.plan)
    config = bench.plan.config(params, trial.number, preset)
    return bench.store.bind(claim, trial.number, trial._trial_id, config.model_dump(mode="json"), preset), trial  # noqa: SLF001


def _train(bench: Bench, claim: Claim, trial: optuna.Trial) -> Ending:
    """The loop over the epochs. Returns the state in which the trial ended, or `paused`."""
    config: TrialConfig = bench.plan.objective.config.model_validate(claim.config)
    number, spec = claim.number or 0, bench.plan.spec
    checkpoints = TrialCheckpoints(bench.files, bench.files.path(bench.study.study_name, number), bench.stop)
    earlier = bench.store.records(claim.trial_id) if checkpoints.latest() else []
    if claim.resume and not earlier:
        bench.store.forget_epochs_after(claim, 0)
    bench.tracker.start(number, config, claim.preset)
    training = bench.trainer.train(config, bench.prepared, bench.counts, bench.device, checkpoints)
    records: list[EpochRecord] = earlier
    try:
        for record in training:
            check_used(trial.params, record.used)
            records = [*(held for held in records if held.epoch < record.epoch), record]
            bench.store.append(claim, record, LEASE_S)
            bench.tracker.epoch(record, bench.counts.names)
            _report(trial, record)
            verdict = judge(records, spec, lambda: _worse_than_peers(bench, trial, record.epoch))  # noqa: B023 - called at once
            if verdict.action != "go_on":
                return _end(bench, claim, trial, records, verdict)
            if bench.stop.requested and record.test is None and record.epoch < config.epochs:
                bench.tracker.finish("paused", "")
                return "paused"
    finally:
        training.close()  # type: ignore[attr-defined]
    return _end(bench, claim, trial, records, Verdict("go_on"))


def _report(trial: optuna.Trial, record: EpochRecord) -> None:
    """Tell Optuna the epoch's metric; a broken epoch has none, and a resumed one is known already (Optuna would warn)."""
    if record.metric == record.metric and record.epoch not in trial._cached_frozen_trial.intermediate_values:  # noqa: SLF001
        trial.report(record.metric, record.epoch)


def _worse_than_peers(bench: Bench, trial: optuna.Trial, epoch: int) -> str | None:
    if not trial.should_prune():
        return None
    return reason(bench.study, trial, epoch, bench.plan.spec.pruner.kind, bench.plan.spec.metric.direction)


def _end(bench: Bench, claim: Claim, trial: optuna.Trial, records: list[EpochRecord], verdict: Verdict) -> FinalState:
    """Write the end of a trial to Optuna and to the store, with the evidence where it was killed."""
    if not records:
        raise TrialFailedError(f"trial {claim.number}: the objective yielded no epoch record")
    final = score(records, bench.plan.spec.metric)
    state: FinalState = {"go_on": "complete", "prune": "pruned", "diverged": "diverged"}[verdict.action]  # type: ignore[assignment]
    if state == "complete" and final != final:
        raise TrialFailedError(f"trial {claim.number}: the metric {bench.plan.spec.metric.name} was never a number")
    diagnosis = diagnose(verdict.evidence, records, claim.config or {}) if verdict.evidence else None
    bench.store.extend(claim, LEASE_S)  # Optuna asks for no lease, so make sure of ours first
    if verdict.evidence and diagnosis:
        trial.set_constraint("diverged", verdict.evidence.severity)
        trial.set_user_attr("cause", diagnosis.cause)
    if state != "complete":
        trial.set_user_attr("killed", verdict.reason)
    ends = TrialState.COMPLETE if state == "complete" else TrialState.PRUNED
    bench.study.tell(trial, final if state == "complete" else None, state=ends, skip_if_finished=True)
    bench.store.finish(claim, state, score=final, reason=verdict.reason, evidence=verdict.evidence, diagnosis=diagnosis)
    bench.tracker.finish(state, verdict.reason)
    _forget_checkpoint(bench, claim)
    return state


def _fail(bench: Bench, claim: Claim, trial: optuna.Trial, problem: Exception) -> None:
    words = str(problem) if isinstance(problem, SearchError) else "".join(traceback.format_exception(problem))
    short = f"{type(problem).__name__}: {problem}".splitlines()[0]
    bench.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    bench.store.finish(claim, "failed", reason=short[:500], error=words[-10_000:])
    bench.tracker.finish("failed", short)
    _forget_checkpoint(bench, claim)


def _forget_checkpoint(bench: Bench, claim: Claim) -> None:
    try:
        bench.files.remove(bench.files.path(bench.study.study_name, claim.number or 0))
    except OSError as problem:
        print(f"warning: a checkpoint could not be removed: {problem}", flush=True)
