"""A study with a past: finished trials with all of their epochs, written in bulk."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, insert, select, text

from search.planning.plan import Plan
from search.sampling.sampler import to_distribution
from spaces.config_tree import ConfigTree
from spaces.parameters import Choice, FloatRange, Parameter, Scalar
from spaces.records import EpochRecord
from storage.rows import StoredStudy
from storage.store import Store
from storage.tables.models import Epoch, Trial

SETTINGS = ("batch_size", "loss", "optimizer", "schedule", "weights")
CLASSES = ("background", *(f"class_{number}" for number in range(1, 7)))
CHUNK = 5_000
"""Rows an insert."""

EVERY_S = 10.0
"""A trial of the past ended so long after the one before."""

RECORD = EpochRecord(
    epoch=1,
    train_loss=0.81234567,
    ce_loss=0.71234567,
    dice_loss=0.91234567,
    val_loss=0.85234567,
    val_ce=0.75234567,
    metric=0.4,
    class_metric=(0.93, 0.51, 0.42, 0.33, 0.24, 0.15, 0.06),
    metrics={"miou": 0.4, "pixel_accuracy": 0.91, "macro_f1": 0.53, "val_ce": 0.75},
    lr=0.031234567,
    ce_weight=0.7,
    dice_weight=0.3,
    smooth=5.0,
    weight_ratio=100.0,
    grad_norm_median=1.512345,
    grad_norm_max=9.012345,
    clipped_share=0.25,
    steps=24,
    seconds=1.2512345,
    samples_per_s=154.123456,
    peak_mib=512.25,
)


def healthy(epoch: int, epochs: int, config: Mapping[str, Any], top: float) -> EpochRecord:
    """A record of a trial that goes well: no signal fires. Its metric rises to `top`."""
    share = epoch / epochs
    used = {
        path: value for path, value in ConfigTree(config).items() if path.split(".")[0] in SETTINGS
    }
    used |= {
        "environment.device": "cpu",
        "environment.threads": 1,
        "environment.torch": "0",
        "environment.classes": list(CLASSES),
    }
    loss = 1.5 - share
    return replace(
        RECORD,
        epoch=epoch,
        metric=top * share,
        train_loss=loss,
        ce_loss=loss,
        val_loss=loss + 0.05,
        val_ce=loss + 0.02,
        used=used,
    )


def sample(plan: Plan, rng: random.Random) -> dict[str, Scalar]:
    """One value for every dimension that exists."""
    params: dict[str, Scalar] = {}
    for path, dimension in plan.active_dimensions(plan.starting_tree(None), params):
        params[path] = _value(dimension, rng)
    return params


def _value(dimension: Parameter, rng: random.Random) -> Scalar:
    if isinstance(dimension, Choice):
        return rng.choice(dimension.choices)
    if isinstance(dimension, FloatRange):
        return rng.uniform(dimension.low, dimension.high)
    return rng.randint(dimension.low, dimension.high)


def top_metric(rng: random.Random) -> float:
    """What a trial of the past reached."""
    return rng.uniform(0.2, 0.4)


def fill(
    storage: RDBStorage, study: optuna.Study, plan: Plan, trials: int, epochs: int
) -> dict[int, int]:
    """Give an Optuna study finished trials. Returns trial number → Optuna's id.

    Raises:
        SystemExit: when Optuna does not read the first and the last back as they were meant.
    """
    rng = random.Random(0)
    drawn = [(sample(plan, rng), top_metric(rng)) for _ in range(trials)]
    with storage.engine.begin() as connection:
        at = datetime.now(UTC).replace(tzinfo=None)
        rows = [
            {
                "number": number,
                "study_id": study._study_id,
                "state": TrialState.COMPLETE,
                "_datetime_start_utc": at,
                "_datetime_complete_utc": at,
            }
            for number in range(trials)
        ]
        connection.execute(insert(models.TrialModel), rows)
        own = select(models.TrialModel.number, models.TrialModel.trial_id).where(
            models.TrialModel.study_id == study._study_id
        )
        ids = {row.number: row.trial_id for row in connection.execute(own)}
        for model, values in _optuna_rows(plan, drawn, ids).items():
            for start in range(0, len(values), CHUNK):
                connection.execute(insert(model), values[start : start + CHUNK])
        connection.execute(text(_REPORTS), {"study": study._study_id, "epochs": epochs})
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
    for number in (0, trials - 1):
        read, (params, _) = storage.get_trial(ids[number]), drawn[number]
        if (
            read.params != params
            or len(read.intermediate_values) != epochs
            or read.state != TrialState.COMPLETE
        ):
            raise SystemExit(
                "Optuna does not read the history as it was written: its tables are others now"
            )
    return ids


_EPOCHS = (
    "WITH RECURSIVE epochs(epoch) AS "
    "(SELECT 1 UNION ALL SELECT epoch + 1 FROM epochs WHERE epoch < :epochs) "
)
_REPORTS = f"""INSERT INTO trial_intermediate_values
(trial_id, step, intermediate_value, intermediate_value_type)
{_EPOCHS} SELECT own.trial_id, epoch, value * epoch / :epochs, 'FINITE'
FROM trials own JOIN trial_values ON trial_values.trial_id = own.trial_id
CROSS JOIN epochs WHERE own.study_id = :study"""
"""The database generates the rows itself, which takes a twentieth of the time of sending them."""


def _optuna_rows(
    plan: Plan, drawn: list[tuple[dict[str, Scalar], float]], ids: Mapping[int, int]
) -> dict[Any, list[dict[str, Any]]]:
    """The rows that stand below the trials, by their table."""
    params, values = [], []
    known: dict[str, BaseDistribution] = {
        path: to_distribution(dimension) for path, dimension in plan.spec.space.items()
    }
    spelled = {
        path: optuna.distributions.distribution_to_json(distribution)
        for path, distribution in known.items()
    }
    for number, (chosen, top) in enumerate(drawn):
        own = {"trial_id": ids[number]}
        params += [
            {
                **own,
                "param_name": path,
                "param_value": known[path].to_internal_repr(value),
                "distribution_json": spelled[path],
            }
            for path, value in chosen.items()
        ]
        values.append(
            {
                **own,
                "objective": 0,
                "value": top,
                "value_type": models.TrialValueModel.TrialValueType.FINITE,
            }
        )
    return {models.TrialParamModel: params, models.TrialValueModel: values}


def fill_ours(
    store: Store, stored: StoredStudy, plan: Plan, ids: Mapping[int, int], epochs: int
) -> None:
    """The same past in our own tables, beside Optuna's."""
    config = plan.make_config({}, 0).model_dump(mode="json")
    records = [healthy(epoch, epochs, config, 0.3) for epoch in range(1, epochs + 1)]
    with store._database.writing() as connection:
        fixed = {
            "study_id": stored.id,
            "state": "complete",
            "attempt": 1,
            "lost": 0,
            "worker": "past",
            "host": "past",
            "pid": 1,
            "score": 0.3,
            "reason": "",
            "error": "",
        }
        ended = time.time() - EVERY_S * len(ids)
        own = {"config": config, "used": records[0].used, "created_at": 0.0, "started_at": 0.0}
        rows = [
            {
                **fixed,
                **own,
                "number": number,
                "optuna_trial_id": trial_id,
                "finished_at": ended + EVERY_S * number,
            }
            for number, trial_id in ids.items()
        ]
        for start in range(0, len(rows), CHUNK):
            connection.execute(insert(Trial), rows[start : start + CHUNK])
        first = connection.execute(
            select(func.min(Trial.id)).where(Trial.study_id == stored.id)
        ).scalar_one()
        epochs_of_first = [
            {
                "trial_id": first,
                "epoch": record.epoch,
                "attempt": 1,
                "metric": record.metric,
                "record": record.as_dict(),
                "at": 1.0,
            }
            for record in records
        ]
        connection.execute(insert(Epoch), epochs_of_first)
        connection.execute(text(_EPOCHS_OF_ALL), {"study": stored.id, "first": first})
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))


_EPOCHS_OF_ALL = """INSERT INTO search_epochs (trial_id, epoch, attempt, metric, record, at)
SELECT search_trials.id, epoch, 1, metric, record, at
FROM search_trials JOIN search_epochs ON search_epochs.trial_id = :first
WHERE search_trials.study_id = :study AND search_trials.id <> :first"""
