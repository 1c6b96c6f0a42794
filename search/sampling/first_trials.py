"""The trials that a study tries first: its presets, enqueued before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from search.planning.plan import Plan
from search.sampling.sampler import PRESET
from spaces.config_tree import ConfigTree
from spaces.presets import SEPARATOR, first_name
from storage.rows import EnqueuedTrial


def waiting_presets(study: optuna.Study, plan: Plan) -> list[EnqueuedTrial]:
    """The presets to enqueue, without those that an earlier, interrupted start has enqueued.

    Presets that are the same complete configuration share one trial, named after all of them.
    """
    labels = [trial.user_attrs.get(PRESET) for trial in study.get_trials(deepcopy=False)]
    enqueued = {first_name(label) for label in labels if label}
    return [
        EnqueuedTrial(plan.preset_params(names[0]), {PRESET: SEPARATOR.join(names)})
        for names in _group_equal(plan)
        if names[0] not in enqueued
    ]


def _group_equal(plan: Plan) -> list[list[str]]:
    """Group the presets by their complete configuration, in the order of the study."""
    groups: list[tuple[ConfigTree, list[str]]] = []
    for name in dict.fromkeys(plan.spec.presets):
        values = plan.complete_values(name)
        same = next((names for known, names in groups if dict(known) == dict(values)), None)
        if same is None:
            groups.append((values, [name]))
        else:
            same.append(name)
    return [names for _, names in groups]


def enqueue_trials(study: optuna.Study, waiting: Sequence[EnqueuedTrial]) -> None:
    """Enqueue configurations with Optuna, so that they are tried before anything is sampled."""
    for trial in waiting:
        study.enqueue_trial(dict(trial.params), user_attrs=dict(trial.user_attrs))
