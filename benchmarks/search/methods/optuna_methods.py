"""Optuna's methods: TPE exactly as `search run` makes it, and the Gaussian process of Optuna."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import Trial, TrialState

from benchmarks.search.methods.base import ObservingMethod, Run
from benchmarks.search.tasks.base import Params, Task
from search.pruners.build import pruner_from_config
from search.pruners.median import Peers, falls_short
from search.sampling.sampler import TrialSeededSampler, _suggest_value
from spaces.config import MetricConfig
from spaces.parameters import is_active
from spaces.study import PrunerConfig, SamplerConfig, StudySpec
from storage.repositories.peer_curves import Complete

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaMethod(ObservingMethod):
    """A sampler of Optuna over full trials that a pruner may stop.

    Args:
        task: gives space, epochs, direction and presets.
        seed: of the study.
        sampler: of Optuna.
        pruner: as in a study's definition.
        flat: sample inactive dimensions as well, for samplers that need the same ones every time.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        sampler: BaseSampler,
        pruner: PrunerConfig,
        *,
        flat: bool = False,
    ) -> None:
        super().__init__(task, seed)
        self.pruner, self.direction, self.flat = pruner, task.direction, flat
        self.study = optuna.create_study(
            study_name=f"benchmark-{seed}",  # Hyperband assigns brackets by the study's name
            direction=task.direction,
            sampler=sampler,
            pruner=pruner_from_config(pruner, task.epochs),
        )
        for params in self._presets:
            self.study.enqueue_trial(dict(params))
        self._peers = _RecordedPeers()
        self._trial: Trial | None = None

    def next_run(self) -> Run:
        """A new trial over all epochs; the one before it is recorded as complete or pruned."""
        self._finish_trial()
        self._trial = self.study.ask()
        params = self._suggest_params(self._trial)
        return self.make_run(self.observed.add_trial(params), self.epochs)

    def report_epoch(self, trial: int, epoch: int, metric: float) -> bool:
        """Record the metric with Optuna, and ask the pruner, except after the last epoch."""
        super().report_epoch(trial, epoch, metric)
        assert self._trial is not None
        self._trial.report(metric, epoch)
        return epoch >= self.epochs or not self._should_prune(trial)

    def _suggest_params(self, trial: Trial) -> Params:
        params: Params = {}
        for name, dimension in self.space.items():
            active = is_active(dimension.when, params)
            if active or self.flat:
                value = _suggest_value(trial, name, dimension)
                if active:
                    params[name] = value
        return params

    def _should_prune(self, trial: int) -> bool:
        assert self._trial is not None
        if self.pruner.kind != "median":
            return self._trial.should_prune()
        return falls_short(
            dict(enumerate(self.observed.metrics[trial], 1)),
            self._peers,
            self.pruner,
            self.direction,
        )

    def _finish_trial(self) -> None:
        if self._trial is None:
            return
        number = len(self.observed.params) - 1
        if self.observed.is_complete(number):
            score = self.observed.score(number)
            value = score if self.direction == "maximize" else -score
            self._peers.add_trial(number, self.observed.metrics[number])
            self.study.tell(self._trial, value)
        else:
            self.study.tell(self._trial, state=TrialState.PRUNED)
        self._trial = None


class _RecordedPeers(Peers):
    """The peers of the median pruner, from trials in memory."""

    def __init__(self) -> None:
        super().__init__(None, 0)  # type: ignore[arg-type]

    def add_trial(self, number: int, metrics: list[float]) -> None:
        """Add the curve of a complete trial."""
        points = list(enumerate(metrics, 1))
        self.add_curves(Complete(frozenset([number]), points, 0.0))


def make_spec(task: Task, seed: int, **settings: Any) -> StudySpec:
    """A study over a task's space with TPE, and the defaults of the product for the rest."""
    return StudySpec(
        name="benchmark",
        metric=MetricConfig(name="metric", direction=task.direction),
        epochs=task.epochs,
        seed=seed,
        space=dict(task.space),
        sampler=SamplerConfig(kind="tpe"),
        **settings,
    )


def make_median(task: Task, seed: int) -> OptunaMethod:
    """TPE and the median pruner, as `search run` has them, without the signals."""
    spec = make_spec(task, seed)
    return OptunaMethod(task, seed, TrialSeededSampler(spec), spec.pruner)


def make_hyperband(task: Task, seed: int) -> OptunaMethod:
    """The same TPE with `pruner: {kind: hyperband}`."""
    spec = make_spec(task, seed, pruner=PrunerConfig(kind="hyperband"))
    return OptunaMethod(task, seed, TrialSeededSampler(spec), spec.pruner)


def make_gp(task: Task, seed: int) -> OptunaMethod:
    """Optuna's Gaussian process over full trials; it models a space without conditions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = GPSampler(seed=seed)
    return OptunaMethod(task, seed, sampler, PrunerConfig(kind="none"), flat=True)
