"""The companion of a study, which trains the study's best configurations again over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search.planning.plan import Plan
from search.planning.random_seeds import derive_seed
from search.planning.remedied_config import locate_in_space
from spaces.config_tree import ConfigTree
from spaces.errors import InputError
from spaces.loader import check
from spaces.records import Remedy
from spaces.study import StudySpec
from storage.rows import EnqueuedTrial, StoredTrial
from storage.tables.optuna_tables import CONFIRM

SUFFIX = ".confirm"

KEPT_FIELDS = (
    "objective",
    "metric",
    "epochs",
    "seed",
    "base",
    "space",
    "on_out_of_memory",
    "hang_after_s",
)
"""Fields that the companion has from its study."""

DECIDED_BY_STUDY = ("objective", "epochs", "metric", "seed", "max_grad_norm")
"""Sections of a configuration that are no choice of the trial: they follow from study and seed."""


def name_companion(study: str) -> str:
    """Return the name of a study's companion."""
    return f"{study}{SUFFIX}"


def find_main_name(study: str) -> str | None:
    """Return the name of the study whose companion would be called so; None for other names."""
    return study.removesuffix(SUFFIX) if study.endswith(SUFFIX) else None


def make_companion(spec: StudySpec, trials: int) -> StudySpec:
    """Make the definition of a study's companion: nothing is sampled, and nothing is pruned.

    Of the signals only the one for losses that are not finite is enabled, since a training that is
    stopped for any other reason has no score to compare.

    Args:
        spec: of the study.
        trials: number of trainings.

    Raises:
        StudyError: when the name would be too long.
    """
    definition = spec.model_dump(mode="json")
    signals = {
        name: {"enabled": name == "nonfinite_loss"}
        for name, value in definition["signals"].items()
        if isinstance(value, Mapping) and "enabled" in value
    }
    companion = {
        **{field: definition[field] for field in KEPT_FIELDS},
        "name": name_companion(spec.name),
        "about": f"the best configurations of {spec.name} again, over seeds",
        "trials": trials,
        "sampler": {"kind": "random"},
        "pruner": {"kind": "none"},
        "signals": signals,
    }
    return check(StudySpec, companion, f"the confirmation of the study {spec.name}")


def make_training(plan: Plan, trial: StoredTrial, seed_number: int) -> EnqueuedTrial | None:
    """Make the trial that trains a configuration again with one of the seeds.

    A seed is the same for all configurations, so that their scores can be compared in pairs.

    Args:
        plan: of the companion.
        trial: of the study, with its configuration.
        seed_number: counted from 1.

    Returns:
        None where the search space lacks the configuration, such as one with half the batch.
    """
    config = trial.config or {}
    params = locate_in_space(plan, config, Remedy("", {})).params
    base = plan.objective.config.model_validate(plan.starting_tree(None).nested)
    usual = ConfigTree(base.model_dump(mode="json"))
    patch = {
        path: value
        for path, value in ConfigTree(config).items()
        if path not in params
        and path.partition(".")[0] not in DECIDED_BY_STUDY
        and usual.get(path) != value
    }
    try:
        is_repeated = _repeats(plan, config, params, patch)
    except (InputError, ValidationError):
        return None
    if not is_repeated:
        return None
    seed = derive_seed(plan.spec.seed, seed_number, "confirm")
    attribute = {"of": trial.number, "seed_number": seed_number, "seed": seed, "patch": patch}
    return EnqueuedTrial(params, {CONFIRM: attribute})


def _repeats(
    plan: Plan, config: Mapping[str, Any], params: Mapping[str, Any], patch: Mapping[str, Any]
) -> bool:
    """Whether values and patch make the same configuration, and nothing is left to sample."""
    active = plan.active_dimensions(plan.starting_tree(None, patch), dict(params))
    if any(path not in params for path, _ in active):
        return False
    made = ConfigTree(plan.make_config(params, 0, None, patch).model_dump(mode="json"))
    return list_choices(made.nested) == list_choices(config)


def list_choices(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a configuration by path, without what the study decides."""
    return {
        path: value
        for path, value in ConfigTree(config).items()
        if path.partition(".")[0] not in DECIDED_BY_STUDY
    }
