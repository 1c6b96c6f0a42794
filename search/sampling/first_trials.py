"""The trials that a study tries first: its presets, enqueued before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from search.planning.plan import Plan
from search.sampling.sampler import PRESET
from storage.rows import EnqueuedTrial


def waiting_presets(study: optuna.Study, plan: Plan) -> list[EnqueuedTrial]:
    """The presets to enqueue, without those that an earlier, interrupted start has enqueued."""
    enqueued = {trial.user_attrs.get(PRESET) for trial in study.get_trials(deepcopy=False)}
    return [
        EnqueuedTrial(plan.preset_params(name), {PRESET: name})
        for name in plan.spec.presets
        if name not in enqueued
    ]


def enqueue_trials(study: optuna.Study, waiting: Sequence[EnqueuedTrial]) -> None:
    """Enqueue configurations with Optuna, so that they are tried before anything is sampled."""
    for trial in waiting:
        study.enqueue_trial(dict(trial.params), user_attrs=dict(trial.user_attrs))
