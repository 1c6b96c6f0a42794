"""Compare a campaign with the undisturbed run: every trial, epoch and score, in all tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.chaos.campaign import PLANTED
from benchmarks.chaos.store_reader import StoreReader
from search.stored_study import find_study
from spaces.records import EpochRecord
from storage.location import StoreLocation
from storage.rows import FINAL_STATES, StoredTrial

CLOCK = {"seconds", "samples_per_s", "peak_mib"}
"""Fields that may differ between two runs of the same training."""

OPTUNA_ENDS = {"complete": "COMPLETE", "pruned": "PRUNED", "diverged": "PRUNED", "failed": "FAIL"}

_OPTUNA_TRIALS = "SELECT trial_id, number, state FROM trials ORDER BY number"
_OPTUNA_EPOCHS = (
    "SELECT trial_id, step, intermediate_value, intermediate_value_type "
    "FROM trial_intermediate_values"
)
_OPTUNA_VALUES = "SELECT trial_id, value, value_type FROM trial_values"


@dataclass(frozen=True)
class Contents:
    """What one store holds of a study."""

    trials: list[StoredTrial]
    records: dict[int, list[EpochRecord]]

    @property
    def by_number(self) -> dict[int, StoredTrial]:
        """The trials, of which a number that stands twice is counted elsewhere."""
        return {trial.number: trial for trial in self.trials if trial.number is not None}


def read(url: str, study: str) -> Contents:
    """All of it, through our own store."""
    with StoreLocation.parse(url).open(create=False) as store:
        stored = find_study(store, study)
        trials = store.trials.list_trials(stored.id)
        return Contents(
            trials, {trial.id: store.epochs.trial_records(trial.id) for trial in trials}
        )


@dataclass
class Findings:
    """What is wrong, by what it is; each with where, to look it up."""

    wrong: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, where: Iterable[str]) -> None:
        """Something that was looked for, and where it was found; nowhere, as it should be."""
        self.wrong.setdefault(what, []).extend(where)


def check(budget: int, reference: Contents, found: Contents, reader: StoreReader) -> Findings:
    """Everything."""
    findings = Findings()
    _trials(findings, budget, found)
    _epochs(findings, reference, found)
    _results(findings, reference, found)
    _optuna(findings, found, reader)
    return findings


def _trials(findings: Findings, budget: int, found: Contents) -> None:
    numbers = Counter(trial.number for trial in found.trials)
    findings.note(
        "trials lost", (f"trial {number}" for number in range(budget) if number not in numbers)
    )
    findings.note(
        "trials doubled",
        (f"trial {number}, {count} times" for number, count in numbers.items() if count > 1),
    )
    findings.note(
        "trials over the budget",
        (f"trial {number}" for number in numbers if number is None or number >= budget),
    )
    findings.note(
        "trials stuck",
        (
            f"trial {trial.number}: {trial.state}"
            for trial in found.trials
            if trial.state not in FINAL_STATES
        ),
    )
    failed = (
        trial for trial in found.trials if trial.state == "failed" and trial.number != PLANTED
    )
    findings.note("trials failed", (f"trial {trial.number}: {trial.reason}" for trial in failed))


def compared(reference: Contents, found: Contents) -> list[tuple[int, StoredTrial, StoredTrial]]:
    """Trials that both ended by themselves: number, in the reference, in the campaign."""
    theirs = reference.by_number
    return [
        (number, theirs[number], trial)
        for number, trial in sorted(found.by_number.items())
        if number in theirs and trial.state not in ("failed", "paused", "running", "reserved")
    ]


def _epochs(findings: Findings, reference: Contents, found: Contents) -> None:
    lost, doubled, changed = [], [], []
    for number, theirs, ours in compared(reference, found):
        written, expected = (
            [record.epoch for record in found.records[ours.id]],
            [record.epoch for record in reference.records[theirs.id]],
        )
        lost += [f"trial {number}, epoch {epoch}" for epoch in expected if epoch not in written]
        doubled += [
            f"trial {number}, epoch {epoch}"
            for epoch, count in Counter(written).items()
            if count > 1 or epoch not in expected
        ]
        expected_records = {
            record.epoch: repeatable(record) for record in reference.records[theirs.id]
        }
        for record in found.records[ours.id]:
            other, actual = expected_records.get(record.epoch), repeatable(record)
            if other is not None and other != actual:
                difference = _difference(other, actual)
                changed.append(f"trial {number}, epoch {record.epoch}: {difference}")
    findings.note("epochs lost", lost)
    findings.note("epochs doubled", doubled)
    findings.note("epoch records unlike the undisturbed run's", changed)


def repeatable(record: EpochRecord) -> dict[str, str]:
    """A record without what the clock decides, every float spelled to its last bit."""
    return {key: repr(value) for key, value in asdict(record).items() if key not in CLOCK}


def _difference(expected: Mapping[str, str], written: Mapping[str, str]) -> str:
    return "; ".join(
        f"{key} {expected[key]} → {written[key]}"
        for key in expected
        if expected[key] != written[key]
    )[:300]


def _results(findings: Findings, reference: Contents, found: Contents) -> None:
    scores, ends, configurations = [], [], []
    for number, theirs, ours in compared(reference, found):
        if repr(theirs.score) != repr(ours.score):
            scores.append(f"trial {number}: {theirs.score!r} → {ours.score!r}")
        if (theirs.state, theirs.reason) != (ours.state, ours.reason):
            ends.append(
                f"trial {number}: {theirs.state} {theirs.reason!r} → {ours.state} {ours.reason!r}"
            )
        if _spelled(theirs.config) != _spelled(ours.config) or _spelled(theirs.used) != _spelled(
            ours.used
        ):
            configurations.append(f"trial {number}")
    findings.note("scores unlike the undisturbed run's", scores)
    findings.note("ends unlike the undisturbed run's", ends)
    findings.note("configurations unlike the undisturbed run's", configurations)


def _spelled(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True, default=dict)


def _optuna(findings: Findings, found: Contents, reader: StoreReader) -> None:
    """Compare Optuna's tables with ours."""
    theirs = {trial_id: (number, state) for trial_id, number, state in reader.rows(_OPTUNA_TRIALS)}
    ours = {trial.optuna_trial_id: trial for trial in found.trials}
    lone = [
        f"Optuna's trial {number}, {state}"
        for trial_id, (number, state) in theirs.items()
        if trial_id not in ours
    ]
    lone += [
        f"our trial {trial.number}" for trial_id, trial in ours.items() if trial_id not in theirs
    ]
    findings.note("trials that are only in Optuna's tables or only in ours", lone)
    ends = [
        f"trial {trial.number}: {trial.state} is {state} of number {number}"
        for trial_id, trial in ours.items()
        for number, state in [theirs.get(trial_id or -1, (None, ""))]
        if state and (state != OPTUNA_ENDS.get(trial.state) or number != trial.number)
    ]
    findings.note(
        "ends that differ between Optuna's tables and ours",
        [*ends, *_values(ours.values(), reader)],
    )
    findings.note("epochs that differ between Optuna's tables and ours", _steps(found, reader))


def _values(ours: Iterable[StoredTrial], reader: StoreReader) -> list[str]:
    values = {
        trial_id: value for trial_id, value, kind in reader.rows(_OPTUNA_VALUES) if kind == "FINITE"
    }
    complete = [trial for trial in ours if trial.state == "complete"]
    return [
        f"trial {trial.number}: {trial.score!r} is {values.get(trial.optuna_trial_id or -1)!r}"
        for trial in complete
        if values.get(trial.optuna_trial_id or -1) != trial.score
    ]


def _steps(found: Contents, reader: StoreReader) -> list[str]:
    """Compare the epochs; Optuna's tables have every metric that is a number."""
    written = Counter((trial_id, step) for trial_id, step, _, _ in reader.rows(_OPTUNA_EPOCHS))
    values = {(trial_id, step): value for trial_id, step, value, _ in reader.rows(_OPTUNA_EPOCHS)}
    expected = {
        (trial.optuna_trial_id, record.epoch): record.metric
        for trial in found.trials
        for record in found.records[trial.id]
        if record.metric == record.metric
    }
    names = {trial.optuna_trial_id: trial.number for trial in found.trials}
    wrong = [
        f"trial {names.get(key[0])}, epoch {key[1]}: {value!r} is {values.get(key)!r}"
        for key, value in expected.items()
        if values.get(key) != value
    ]
    extra = [
        f"trial {names.get(key[0])}, epoch {key[1]}: Optuna alone, {count} times"
        for key, count in written.items()
        if key not in expected or count > 1
    ]
    return wrong + extra
