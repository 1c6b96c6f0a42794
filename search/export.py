"""Export a trial as best.yaml: its configuration, its score and its origin; and read it again."""

from __future__ import annotations

import math
import os
import platform
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from objectives.registry import objective
from search.diagnosis.health import describe_health
from search.diagnosis.stored_diagnosis import list_class_names
from search.planning.confirmed_score import ConfirmedScore
from spaces.config import Direction, ScoreRule, TrialConfig
from spaces.config_tree import ConfigTree
from spaces.errors import ConfigError, StoreError, StudyError, nearest
from spaces.frozen import Frozen
from spaces.loader import UNREADABLE, Document, Dumper, check, explain, join_place
from spaces.output_path import find_obstacle
from spaces.records import EpochRecord, best_record
from spaces.study import StudySpec
from storage.files.best_weights import BestWeights
from storage.files.study_files import StudyFiles
from storage.rows import StoredStudy, StoredTrial
from storage.store import Store

PACKAGES = ("torch", "segmentation-models-pytorch", "optuna", "numpy")


class ClassScore(Frozen):
    """Metric of one class on the validation split, at the scored epoch, and on the test split."""

    validation: float | None
    test: float | None


class Score(Frozen):
    """The score of the configuration: `validation` decided the search, `test` decided nothing."""

    metric: str
    direction: Direction
    rule: ScoreRule
    validation: float
    best_epoch: int
    epochs: int
    test: float | None
    classes: dict[str, ClassScore]


class Provenance(Frozen):
    """The origin of the configuration; `device` and `threads` decide the last bits of the score."""

    study: str
    trial: int
    preset: str | None
    store: str
    exported: str
    device: str
    device_name: str | None = None
    threads: int = Field(ge=0, le=10_000)
    host: str
    machine: str
    versions: dict[str, str]
    weights: str | None = Field(
        default=None,
        description="file of the trained state, if it was kept; its `best_weights` are the model's",
    )

    @field_validator("device")
    @classmethod
    def _drop_name(cls, device: str) -> str:
        """Exports up to version 0.1 have `cuda:0 (NVIDIA …)`."""
        return device.partition(" (")[0]


class Export(Frozen):
    """Everything that is in best.yaml."""

    format: Literal[1] = Field(default=1, description="raised when the layout changes")
    config: dict[str, Any]
    score: Score
    confirmed: ConfirmedScore | None = None
    health: tuple[str, ...] = Field(
        default=(), description="signs of a healthy training, present and missing"
    )
    provenance: Provenance

    def trial_config(self, where: str = "config") -> TrialConfig:
        """Validate the configuration with the model of its objective.

        Raises:
            ConfigError: when a key is missing or a value is not allowed.
        """
        try:
            kind = objective(str(self.config.get("objective")))
            config = kind.config.model_validate(self.config)
        except StudyError as problem:
            raise ConfigError(
                problem.what,
                where=f"{where}, config → objective",
                place=("config", "objective"),
                found=problem.found,
                allowed=problem.allowed,
            ) from None
        except ValidationError as problem:
            raise explain(problem, f"{where}, config", ConfigError) from None
        name = config.metric.name
        if kind.metrics and name not in kind.metrics:
            raise ConfigError(
                f"unknown metric {name!r}{nearest(name, kind.metrics)}",
                where=f"{where}, config → metric → name",
                place=("config", "metric", "name"),
                found=name,
                allowed=", ".join(kind.metrics),
                next_step="name one of these",
            )
        self._check_complete(config, where)
        return config

    def _check_complete(self, config: TrialConfig, where: str) -> None:
        """Refuse a missing key: today's default may differ from the value that was trained."""
        sections = config.model_dump(mode="json")
        missing = [name for name in sections if name not in self.config]
        if not missing:
            missing = sorted(set(ConfigTree(sections)) - set(ConfigTree(self.config)))
        if missing:
            place = ("config", *missing[0].split("."))
            raise ConfigError(
                f"the key {missing[0]!r} is missing",
                where=f"{where}, {join_place(place)}",
                place=place,
                allowed=", ".join(sections),
                next_step="export the trial again, or add the key",
            )


def make_export(
    store: Store, stored: StoredStudy, number: int | None, files: StudyFiles | None = None
) -> Export:
    """Make the export of a trial, or of the best complete one.

    Args:
        store: of the study.
        stored: the study.
        number: of the trial; None: the best complete one.
        files: of the studies, which may include the trained state of the best trial.

    Raises:
        StoreError: when there is no such trial, or it has nothing to export.
    """
    spec = check(StudySpec, stored.definition, f"study {stored.name} in the store")
    if number is None:
        trial = _find_best(store, stored, spec)
    else:
        trial = _find_numbered(store, stored, number)
    records = store.epochs.trial_records(trial.id)
    used = trial.used or {}
    return Export(
        config=dict(trial.config or {}),
        score=_make_score(spec, trial, records, used),
        health=describe_health(records, spec.metric.direction, list_class_names(used, records)),
        provenance=Provenance(
            study=stored.name,
            trial=trial.number or 0,
            preset=trial.preset,
            store=store.where,
            exported=datetime.now(UTC).isoformat(timespec="seconds"),
            device=str(used.get("environment.device", "unknown")),
            device_name=used.get("environment.device_name"),
            threads=int(used.get("environment.threads", 0)),
            host=trial.host,
            machine=platform.processor() or platform.machine(),
            versions=_package_versions() | _torch_version(used),
            weights=None if files is None else best_weights(files, stored, trial.number),
        ),
    )


def best_weights(files: StudyFiles, stored: StoredStudy, trial: int | None) -> str | None:
    """Return the file of the trained state of that trial, if it is the one that was kept."""
    artifacts = BestWeights(files, stored.name, stored.created_at)
    kept = artifacts.find_best()
    return None if kept is None or kept.trial != trial else str(artifacts.weights_path(kept))


def _find_best(store: Store, stored: StoredStudy, spec: StudySpec) -> StoredTrial:
    complete = [
        trial
        for trial in store.trials.list_trials(stored.id)
        if trial.state == "complete" and _is_scored(trial)
    ]
    if not complete:
        raise StoreError(
            "no trial of the study is complete, so none is best",
            where=store.where,
            found=f"study {stored.name}",
            next_step="continue the study, or export a trial by --trial",
        )
    sign = 1 if spec.metric.direction == "maximize" else -1
    return max(complete, key=lambda trial: sign * (trial.score or 0.0))


def _is_scored(trial: StoredTrial) -> bool:
    """Return whether a trial has a finite score; one that broke in its first epoch has NaN."""
    return trial.score is not None and math.isfinite(trial.score)


def _find_numbered(store: Store, stored: StoredStudy, number: int) -> StoredTrial:
    trial = store.trials.find_trial(stored.id, number)
    if trial is not None and _is_scored(trial):
        return trial
    known = [str(row.number) for row in store.trials.list_trials(stored.id) if _is_scored(row)]
    if trial is None:
        what = f"there is no trial {number}"
    else:
        what = f"trial {number} has no score: it is {trial.state}"
    raise StoreError(
        what,
        where=f"study {stored.name}",
        found=str(number),
        allowed=", ".join(known) or "none yet",
        next_step="`search show` lists the trials",
    )


def _make_score(
    spec: StudySpec, trial: StoredTrial, records: list[EpochRecord], used: Mapping[str, Any]
) -> Score:
    best = best_record(records, spec.metric.direction)
    last = records[-1]
    return Score(
        metric=spec.metric.name,
        direction=spec.metric.direction,
        rule=spec.metric.score,
        validation=trial.score or 0.0,
        best_epoch=best.epoch,
        epochs=last.epoch,
        test=last.test.metric if last.test else None,
        classes=_class_scores(best if spec.metric.score == "best" else last, last, used),
    )


def _class_scores(
    scored: EpochRecord, last: EpochRecord, used: Mapping[str, Any]
) -> dict[str, ClassScore]:
    """Return the scores of each class by its name, or by its index if the names are unknown."""
    size = len(scored.class_metric)
    names = used.get("environment.classes") or []
    if len(names) != size:
        names = list(range(size))
    tests: tuple[float | None, ...] = (None,) * size
    if last.test and len(last.test.class_metric) == size:
        tests = last.test.class_metric
    return {
        str(name): ClassScore(validation=validation, test=test)
        for name, validation, test in zip(names, scored.class_metric, tests, strict=True)
    }


def _package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _torch_version(used: Mapping[str, Any]) -> dict[str, str]:
    """Return the torch that trained, with its build; the one installed here may be another."""
    return {"torch": str(used["environment.torch"])} if "environment.torch" in used else {}


def write_export(export: Export, path: Path) -> None:
    """Write the file atomically.

    Raises:
        ConfigError: when another kind of file has this path, or the path cannot be written.
    """
    check_out(path)
    source = export.provenance
    head = (
        f"# Trial {source.trial} of the study {source.study}: "
        f"{export.score.metric} {export.score.validation:.4f} on validation.\n"
        f"# Train it again and compare: search train {path.name}\n"
    )
    if export.confirmed is not None:
        head += f"# {export.confirmed.describe(export.score.metric)}\n"
    text = head + yaml.dump(
        export.model_dump(mode="json"),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
    draft: Path | None = None
    try:
        umask = os.umask(0)
        os.umask(umask)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
        ) as file:
            draft = Path(file.name)
            file.write(text)
        # a temporary file is readable by its owner only; this one is shared as other files are
        draft.chmod(0o666 & ~umask)
        draft.replace(path)
    except OSError as problem:
        found = problem.strerror or str(problem)
        raise _unwritable_error(path, found, "choose another path with --out") from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)  # left over if the disk is full


def check_out(path: Path) -> None:
    """Check that an export can be written to `path`, before a search begins.

    Raises:
        ConfigError: when another kind of file has this path, or its folder does not exist or cannot
            be written.
    """
    if path.exists() and not path.is_dir() and not _is_export(path):
        raise ConfigError(
            "another file has this path",
            where=str(path),
            found="no export of `search`",
            next_step="choose another path with --out",
        )
    check_output_path(path, "--out")


def check_output_path(path: Path, option: str) -> None:
    """Check that a file can be written to the path that an option names.

    Raises:
        ConfigError: when it cannot.
    """
    # /dev/null, for one, would be replaced by the file
    if path.exists() and not path.is_dir() and not path.is_file():
        raise _unwritable_error(path, "no regular file", f"choose another path with {option}")
    obstacle = find_obstacle(path, option)
    if obstacle:
        raise _unwritable_error(path, *obstacle)


def _unwritable_error(path: Path, found: str, next_step: str) -> ConfigError:
    return ConfigError(
        "the file cannot be written",
        where=str(path),
        found=found,
        allowed="a file in a folder that exists",
        next_step=next_step,
    )


def _is_export(path: Path) -> bool:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {"config", "score", "provenance"} <= set(document or {})
    except (OSError, *UNREADABLE, TypeError):
        return False


def load_export(path: Path) -> Export:
    """Read a file that `write_export` wrote.

    Raises:
        ConfigError: when it cannot be read, or a key is missing or wrong.
    """
    document = Document(path, ConfigError)
    export = check(Export, document.data, document, ConfigError)
    export.trial_config(str(path))
    return export
