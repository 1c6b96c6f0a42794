"""best.yaml: a configuration as it was trained, what it scored, and where it comes from. It loads again as it was."""

from __future__ import annotations

import math
import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from objectives.registry import objective
from search.diagnosis.health import describe_health
from spaces.config import Direction, ScoreRule, TrialConfig
from spaces.config_tree import ConfigTree
from spaces.errors import ConfigError, StoreError, StudyError, nearest
from spaces.frozen import Frozen
from spaces.loader import UNREADABLE, Document, Dumper, check, explain
from spaces.output_path import obstacle
from spaces.records import EpochRecord, best_record
from spaces.study import StudySpec
from storage.files.best_weights import BestWeights
from storage.files.study_files import StudyFiles
from storage.rows import StoredStudy, StoredTrial
from storage.store import Store

PACKAGES = ("torch", "segmentation-models-pytorch", "optuna", "numpy")


class ClassScore(Frozen):
    """A class's metric on the validation split, at the epoch that the score is of, and on the test split."""

    validation: float | None
    test: float | None


class Score(Frozen):
    """What the configuration reached. `validation` decided the search; `test` decided nothing."""

    metric: str
    direction: Direction
    rule: ScoreRule
    validation: float
    best_epoch: int
    epochs: int
    test: float | None
    classes: dict[str, ClassScore]


class Provenance(Frozen):
    """Where it comes from. `device` and `threads` decide the last bits of the score."""

    study: str
    trial: int
    preset: str | None
    store: str
    exported: str
    device: str
    threads: int = Field(ge=0, le=10_000)
    host: str
    machine: str
    versions: dict[str, str]
    weights: str | None = Field(
        default=None,
        description="file of the trained state, where it was kept; its `best_weights` are the model's",
    )


class Export(Frozen):
    """The whole file."""

    format: Literal[1] = Field(default=1, description="raised when the layout changes")
    config: dict[str, Any]
    score: Score
    health: tuple[str, ...] = Field(
        default=(), description="the signs of health of its training, present and missing"
    )
    provenance: Provenance

    def trial_config(self, where: str = "config") -> TrialConfig:
        """The configuration, checked by its objective's model.

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
                found=problem.found,
                allowed=problem.allowed,
            ) from None
        except ValidationError as problem:
            raise explain(problem, f"{where}, config", ConfigError) from None
        if kind.metrics and config.metric.name not in kind.metrics:
            what = (
                f"unknown metric {config.metric.name!r}{nearest(config.metric.name, kind.metrics)}"
            )
            raise ConfigError(
                what,
                where=f"{where}, config → metric → name",
                found=config.metric.name,
                allowed=", ".join(kind.metrics),
                next_step="name one of these",
            )
        # A default of today in the place of a key that got lost would train something else than what was scored.
        whole = config.model_dump(mode="json")
        sections = [name for name in whole if name not in self.config]
        missing = sections or sorted(set(ConfigTree(whole)) - set(ConfigTree(self.config)))
        if missing:
            place = f"{where}, config → {missing[0].replace('.', ' → ')}"
            raise ConfigError(
                f"the key {missing[0]!r} is missing",
                where=place,
                allowed=", ".join(whole),
                next_step="export the trial again, or add the key",
            )
        return config


def make_export(
    store: Store, stored: StoredStudy, number: int | None, files: StudyFiles | None = None
) -> Export:
    """The export of a trial, or of the best complete one.

    Args:
        files: of the studies, where the trained state of the best trial may lie.

    Raises:
        StoreError: when there is no such trial, or it has nothing to export.
    """
    spec = check(StudySpec, stored.definition, f"study {stored.name} in the store")
    trial = _best(store, stored, spec) if number is None else _numbered(store, stored, number)
    records = store.epochs.trial_records(trial.id)
    used = trial.used or {}
    return Export(
        config=dict(trial.config or {}),
        score=_score(spec, trial, records, used),
        health=describe_health(records, spec.metric.direction),
        provenance=Provenance(
            study=stored.name,
            trial=trial.number or 0,
            preset=trial.preset,
            store=store.where,
            exported=datetime.now(UTC).isoformat(timespec="seconds"),
            device=str(used.get("environment.device", "unknown")),
            threads=int(used.get("environment.threads", 0)),
            host=trial.host,
            machine=platform.processor() or platform.machine(),
            versions=_versions() | _torch(used),
            weights=None if files is None else best_weights(files, stored, trial.number),
        ),
    )


def best_weights(files: StudyFiles, stored: StoredStudy, trial: int | None) -> str | None:
    """The file of the trained state of that trial, if it is the one that was kept in this folder."""
    artifacts = BestWeights(files, stored.name, stored.created_at)
    held = artifacts.find_best()
    return None if held is None or held.trial != trial else str(artifacts.weights_path(held))


def _best(store: Store, stored: StoredStudy, spec: StudySpec) -> StoredTrial:
    complete = [
        trial
        for trial in store.trials.list_trials(stored.id)
        if trial.state == "complete" and _scored(trial)
    ]
    if not complete:
        raise StoreError(
            "no trial of the study is complete, so none is best",
            where=store.where,
            found=f"study {stored.name}",
            next_step="let it run on, or export a trial by --trial",
        )
    sign = 1 if spec.metric.direction == "maximize" else -1
    return max(complete, key=lambda trial: sign * (trial.score or 0.0))


def _scored(trial: StoredTrial) -> bool:
    """A trial that broke in its first epoch has NaN for a score."""
    return trial.score is not None and math.isfinite(trial.score)


def _numbered(store: Store, stored: StoredStudy, number: int) -> StoredTrial:
    trial = store.trials.find_trial(stored.id, number)
    if trial is None or not _scored(trial):
        known = [str(row.number) for row in store.trials.list_trials(stored.id) if _scored(row)]
        what = (
            f"there is no trial {number}"
            if trial is None
            else f"trial {number} has no score: it is {trial.state}"
        )
        raise StoreError(
            what,
            where=f"study {stored.name}",
            found=str(number),
            allowed=", ".join(known) or "none yet",
            next_step="`search show` lists the trials",
        )
    return trial


def _score(
    spec: StudySpec, trial: StoredTrial, records: list[EpochRecord], used: Mapping[str, Any]
) -> Score:
    best, last = best_record(records, spec.metric.direction), records[-1]
    told = best if spec.metric.score == "best" else last
    size = len(told.class_metric)
    names = used.get("environment.classes") or []
    names = names if len(names) == size else [str(index) for index in range(size)]
    tests = (
        last.test.class_metric
        if last.test and len(last.test.class_metric) == size
        else (None,) * size
    )
    classes = {
        str(name): ClassScore(validation=own, test=test)
        for name, own, test in zip(names, told.class_metric, tests, strict=True)
    }
    return Score(
        metric=spec.metric.name,
        direction=spec.metric.direction,
        rule=spec.metric.score,
        validation=trial.score or 0.0,
        best_epoch=best.epoch,
        epochs=last.epoch,
        test=last.test.metric if last.test else None,
        classes=classes,
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _torch(used: Mapping[str, Any]) -> dict[str, str]:
    """The torch that trained, build included; the one installed here may be another."""
    return {"torch": str(used["environment.torch"])} if "environment.torch" in used else {}


def write_export(export: Export, path: Path) -> None:
    """Write the file in one piece.

    Raises:
        ConfigError: when another kind of file stands there, or the place cannot be written.
    """
    check_out(path)
    source = export.provenance
    head = (
        f"# Trial {source.trial} of the study {source.study}: {export.score.metric} {export.score.validation:.4f} on validation.\n"
        f"# Train it again and compare: search train {path.name}\n"
    )
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
        draft.chmod(
            0o666 & ~umask
        )  # a temporary file is the owner's alone; this one is to be shared as others are
        draft.replace(path)
    except OSError as problem:
        raise _unwritable(
            path, problem.strerror or str(problem), "name another place with --out"
        ) from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)  # of a full disk


def check_out(path: Path) -> None:
    """Whether an export may be written there; asked before a search begins, not after.

    Raises:
        ConfigError: when another kind of file stands there, or the folder is not there or cannot be written.
    """
    if path.exists() and not path.is_dir() and not _is_export(path):
        raise ConfigError(
            "another file stands in the way",
            where=str(path),
            found="no export of `search`",
            next_step="name another place with --out",
        )
    check_place(path, "--out")


def check_place(path: Path, option: str) -> None:
    """Whether a file can be written at the place that an option names.

    Raises:
        ConfigError: when not, with what to do.
    """
    special = (
        path.exists() and not path.is_dir() and not path.is_file()
    )  # /dev/null would be replaced by the file
    met = (
        ("no ordinary file", f"name another place with {option}")
        if special
        else obstacle(path, option)
    )
    if met:
        raise _unwritable(path, *met)


def _unwritable(path: Path, found: str, next_step: str) -> ConfigError:
    return ConfigError(
        "the file cannot be written",
        where=str(path),
        found=found,
        allowed="a file in a folder that is there",
        next_step=next_step,
    )


def _is_export(path: Path) -> bool:
    try:
        return {"config", "score", "provenance"} <= set(
            yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        )
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
