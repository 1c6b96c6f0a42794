"""Optuna studies in a store: creating them, and recognizing those of other programs."""

from __future__ import annotations

import time

import optuna
from optuna.storages import RDBStorage

from search.planning.plan import Plan
from storage.tables.optuna_names import MADE_BY

MARKING_TRIES = 20
MARKING_S = 2.0
"""A study is created and then marked as ours, in two commits; how long, and how many times, another
process checks for the mark."""


def make_study(storage: RDBStorage, plan: Plan, name: str) -> optuna.Study:
    """The Optuna study called `name`, created if there is none, and marked as ours."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction=plan.spec.metric.direction, load_if_exists=True
    )
    study.set_user_attr(MADE_BY, True)
    return study


def belongs_to_other_program(trials: RDBStorage, name: str) -> bool:
    """Whether an Optuna study of that name was created by another program.

    A study that another process of ours is creating has no mark yet; wait for it.
    """
    for _ in range(MARKING_TRIES):
        attributes = {study.study_name: study.user_attrs for study in trials.get_all_studies()}
        if name not in attributes or MADE_BY in attributes[name]:
            return False
        time.sleep(MARKING_S / MARKING_TRIES)
    return True
