"""A store with a trial of every kind, and everything that its public interface returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.sampling.connection import close_trials, open_trials
from spaces.records import ClassCounts, Diagnosis, EpochRecord, Evidence, Remedy
from storage.location import StoreLocation
from storage.rows import Claim, EnqueuedTrial, FinalState, Outcome
from storage.store import Store
from storage.tables.optuna_names import MADE_BY

NAN = float("nan")
STATES: tuple[FinalState, ...] = ("complete", "pruned", "diverged", "failed")
EVIDENCE = Evidence("metric_falling", 2, 12, "fell", {"slope": NAN}, severity=float("inf"))
DIAGNOSIS = Diagnosis("weights", ("ratio 500",), (Remedy("clip", {"weights.clip_ratio": 10}),))
DEFINITION = {
    "space": {"lr": [1e-5, float("inf")]},
    "trials": 7,
    "about": "é " * 40_000,
}  # longer than 64 KB

Make = Callable[..., EpochRecord]


def fill(url: str, make: Make, name: str = "demo") -> None:
    """Create a study with a trial in every state but `reserved`, and an enqueued preset.

    Trial 4 is running.
    """
    with StoreLocation.parse(url).open() as store:
        trials = open_trials(StoreLocation.parse(url))
        study = optuna.create_study(storage=trials, study_name=name, direction="maximize")
        study.set_user_attr(MADE_BY, True)
        waiting = [EnqueuedTrial({"lr": 0.5}, {"preset": "safe"})]
        stored = store.studies.register_study(study._study_id, name, DEFINITION, waiting)
        for index, state in enumerate((*STATES, "running", "paused")):
            _trial(store, stored.id, study, make, index, state)
        study.enqueue_trial({"lr": 0.25}, user_attrs={"preset": "bold"})
        store.class_counts.save_counts("f", ClassCounts(("road", "car"), (5, 2**40)))
        close_trials(trials)


def _trial(
    store: Store, study_id: int, study: optuna.Study, make: Make, index: int, state: str
) -> None:
    claim = store.leases.claim_trial(study_id, 100, f"w{index}", 600)
    assert claim is not None
    assert claim.optuna_trial_id is not None
    assert claim.number is not None
    study.get_trials(deepcopy=False)  # Optuna's class reads the trial that the store created
    trial = optuna.Trial(study, claim.optuna_trial_id)
    trial.suggest_float("lr", 1e-5, 1.0, log=True)
    trial.suggest_categorical("kind", (None, True, 1.5, "é"))
    claim = store.leases.bind_trial(
        claim,
        claim.number,
        claim.optuna_trial_id,
        {"n": index, "x": NAN},
        "safe" if index == 0 else None,
    )
    for epoch in range(1, min(index + 2, 4)):
        metric = NAN if epoch == 2 and index > 1 else 0.1 + 0.2 * epoch
        store.epochs.append_epoch(
            claim, make(epoch, metric=metric, train_loss=float("inf"), used={"n": index}), 600
        )
        trial.report(metric, epoch)
    if state == "paused":
        store.leases.release_trial(claim)
    elif state != "running":
        _end(store, claim, study, trial, state)  # type: ignore[arg-type]


def _end(
    store: Store, claim: Claim, study: optuna.Study, trial: optuna.Trial, state: FinalState
) -> None:
    ends = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(
        state, TrialState.PRUNED
    )
    if state == "diverged":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial.set_constraint("diverged", 0.5)
    killed = state == "diverged"
    study.tell(trial, 0.1 + 0.2 if state == "complete" else None, state=ends, skip_if_finished=True)
    store.leases.finish_trial(
        claim,
        Outcome(
            state,
            0.1 + 0.2 if state == "complete" else NAN,
            f"it was {state}",
            signal=f"ended as {state}",
            evidence=EVIDENCE if killed else None,
            diagnosis=DIAGNOSIS if killed else None,
            error="a \0 b" if state == "failed" else "",
        ),
    )


def contents(url: str, name: str = "demo") -> dict[str, Any]:
    """Everything that the public interface returns of a study, without ids."""
    with StoreLocation.parse(url).open(create=False) as store:
        stored = store.studies.find_study(name)
        assert stored is not None
        trials = store.trials.list_trials(stored.id)
        evidence, records = (
            store.findings.study_evidence(stored.id),
            store.epochs.study_records(stored.id),
        )
        return {
            "study": replace(stored, id=0, optuna_study_id=0),
            "trials": [
                asdict(replace(trial, id=0, study_id=0, optuna_trial_id=None)) for trial in trials
            ],
            "records": [
                [epoch.as_dict() for epoch in records.get(trial.id, [])] for trial in trials
            ],
            "evidence": [evidence.get(trial.id) for trial in trials],
            "progress": [
                replace(line, trial_id=0, lease_left_s=None, silent_s=None)
                for line in store.trials.list_progress(stored.id)
            ],
            "tally": sorted(store.trials.count_by_state(stored.id).items()),
            "counts": store.class_counts.find_counts("f"),
            "optuna": optuna_contents(url, name),
        }


def optuna_contents(url: str, name: str = "demo") -> list[dict[str, Any]]:
    """The same of Optuna's tables; times in whole seconds, as MariaDB stores them."""
    trials = open_trials(StoreLocation.parse(url))
    study = optuna.load_study(storage=trials, study_name=name)
    listed = [_plain(trial) for trial in study.trials]
    close_trials(trials)
    return [{"direction": study.direction, "attributes": study.user_attrs}, *listed]


def _plain(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    kept = (
        "number",
        "state",
        "values",
        "params",
        "distributions",
        "user_attrs",
        "system_attrs",
        "intermediate_values",
    )
    times = [
        moment and moment.replace(microsecond=0)
        for moment in (trial.datetime_start, trial.datetime_complete)
    ]
    return {key: _sorted(getattr(trial, key)) for key in kept} | {"times": times}


def _sorted(value: Any) -> Any:
    """Sort rows, because Optuna's queries have no order."""
    return sorted(value.items()) if isinstance(value, dict) else value


def plain_trials(trials: RDBStorage) -> int:
    """Create a study of another program in the same database; return its id."""
    study = optuna.create_study(storage=trials, study_name="theirs")
    study.enqueue_trial({})
    study.add_trial(
        optuna.create_trial(
            params={"a": 1.0, "b": "x"},
            distributions={"a": FloatDistribution(0, 2), "b": CategoricalDistribution(("x",))},
            value=1.0,
        )
    )
    return study._study_id
