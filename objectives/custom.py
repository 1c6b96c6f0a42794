"""Custom objectives: a study names a generator function as `my_package.my_module:train`.

docs/own-objective.md has the requirements, `objectives.testing` a test to run against the function.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from objectives.contract import Checkpoints, Objective, Trainer
from spaces.config import TrialConfig
from spaces.config_tree import ConfigTree
from spaces.errors import DataError, InputError, SearchError, StudyError, TrialFailedError, nearest
from spaces.record_json import make_record
from spaces.records import ClassCounts, EpochRecord, TestScore

OPTIONAL_PARAMETERS = ("data", "counts", "device", "checkpoints")
"""Names of the parameters that a training function may have, after its configuration."""

EXAMPLE = "my_package.my_module:train"


@cache
def custom_objective(name: str) -> Objective:
    """Make an objective of a function.

    Args:
        name: `module:function`.

    Raises:
        StudyError: when the function cannot be imported or does not meet the requirements.
    """
    module_name, _, function_name = name.partition(":")
    module = _import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise _unusable_function(
            f"{module_name} has no function {function_name!r}{nearest(function_name, known)}",
            name,
            found=", ".join(known) or "no function",
        )
    config = _config_of(function, name)
    _check_parameters(function, name)
    trainer = CustomTrainer(
        name,
        function,
        getattr(module, "prepare", None),
        getattr(module, "count_classes", None),
        _hash_file(module),
    )
    return Objective(
        name=name, config=config, metrics={}, load=lambda: trainer, data_key=lambda _: name
    )


def _import_module(module_name: str) -> ModuleType:
    """Import the module, from the working directory or from what is installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return import_module(module_name)
    except SearchError:
        raise
    # The user's own code may raise anything, or exit.
    except (Exception, SystemExit) as problem:
        raise _not_imported(module_name, problem) from None


def _not_imported(module_name: str, problem: BaseException) -> StudyError:
    what = f"{module_name} cannot be imported"
    next_step = f"fix it: `python -c 'import {module_name}'` shows where"
    missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
    if missing and f"{module_name}.".startswith(f"{missing}."):
        what = f"there is no module {missing!r}"
        next_step = (
            "run in the folder that contains it, install it, or add its folder to PYTHONPATH"
        )
    return StudyError(
        what,
        where="objective",
        place=("objective",),
        found=f"{type(problem).__name__}: {problem}"[:200],
        allowed=f"module:function, such as {EXAMPLE}",
        next_step=next_step,
    )


def _hash_file(module: ModuleType) -> str:
    """Return the checksum of the module's file: an edited `count_classes` counts again."""
    try:
        return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    except OSError:
        return ""


def _config_of(function: Callable[..., Any], name: str) -> type[TrialConfig]:
    """Return the model with which the function's first parameter is annotated."""
    first = next(iter(inspect.signature(function).parameters), None)
    try:
        config = get_type_hints(function).get(first or "")
    except Exception as problem:  # an annotation is an expression of the user's
        raise _unusable_function(
            f"an annotation of {name} uses an unknown name", name, found=str(problem)
        ) from None
    if not (isinstance(config, type) and issubclass(config, TrialConfig)):
        raise _unusable_function(
            f"the first parameter of {name} is not annotated with a configuration",
            name,
            found=f"{first}: {config}" if first else "no parameter",
        )
    return config


def _check_parameters(function: Callable[..., Any], name: str) -> None:
    _, *others = inspect.signature(function).parameters.values()
    for parameter in others:
        known = parameter.name in OPTIONAL_PARAMETERS
        if not known and parameter.default is parameter.empty:
            hint = nearest(parameter.name, OPTIONAL_PARAMETERS)
            raise StudyError(
                f"{name} has an unknown parameter {parameter.name!r}{hint}",
                where="objective",
                place=("objective",),
                found=parameter.name,
                allowed=f"a configuration, and any of {', '.join(OPTIONAL_PARAMETERS)}",
                next_step="rename it, or give it a default",
            )


def _unusable_function(what: str, name: str, *, found: str) -> StudyError:
    return StudyError(
        what,
        where=f"objective: {name}",
        found=found[:200],
        allowed="def train(config: Config), with class Config(spaces.TrialConfig)",
        next_step="see docs/own-objective.md",
    )


@dataclass(frozen=True)
class CustomTrainer(Trainer):
    """Trainer made of the functions of a user's module.

    Attributes:
        name: `module:function`.
        function: yields the epoch records.
        prepare_function: the module's `prepare`, if it has one.
        count_function: the module's `count_classes`, if it has one.
        checksum: of the module's file.
    """

    name: str
    function: Callable[..., Any]
    prepare_function: Callable[..., Any] | None
    count_function: Callable[..., Any] | None
    checksum: str = ""

    def fingerprint(self, config: Any) -> str:
        """Hash name, file and configuration, as the data are not known here."""
        settings = config.model_dump_json(exclude={"seed", "epochs", "metric"})
        text = f"{self.name}\n{self.checksum}\n{settings}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def count_classes(self, config: Any) -> ClassCounts:
        """Call the module's `count_classes(config)`, class → samples; empty if there is none."""
        if self.count_function is None:
            return ClassCounts((), ())
        counts = _call_function("count_classes", self.name, self.count_function, config)
        if not isinstance(counts, Mapping):
            raise _unusable_counts(self.name, type(counts).__name__)
        plain = {str(name): _to_plain(count) for name, count in counts.items()}
        for name, count in plain.items():
            if not isinstance(count, (int, float)) or not float(count).is_integer() or count < 0:
                raise _unusable_counts(self.name, f"{name}: {count!r}")
        return ClassCounts(tuple(plain), tuple(int(count) for count in plain.values()))

    def prepare(self, config: Any, device: str) -> Any:
        """Call the module's `prepare(config)`, once per worker; None if there is none."""
        if self.prepare_function is None:
            return None
        return _call_function("prepare", self.name, self.prepare_function, config)

    def train(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str, checkpoints: Checkpoints
    ) -> Iterator[EpochRecord]:
        """Yield the function's records, checked.

        Raises:
            TrialFailedError: when there are none, one is not a record, or they are out of order.
        """
        available = {
            "data": prepared,
            "counts": counts,
            "device": device,
            "checkpoints": checkpoints,
        }
        wanted = inspect.signature(self.function).parameters
        given = {name: value for name, value in available.items() if name in wanted}
        training = self.function(config, **given)
        if not isinstance(training, Iterator):
            raise TrialFailedError(
                f"{self.name} returned {type(training).__name__}: "
                "it must be a generator that yields one record per epoch"
            )
        previous: EpochRecord | None = None
        environment = _describe_environment(counts, device)
        try:
            for yielded in training:
                record = self._to_record(yielded, config, environment)
                self._check_epoch(record, previous, config.epochs, checkpoints)
                self._check_classes(record, previous, counts)
                previous = record
                yield record
        finally:
            if hasattr(training, "close"):
                training.close()
        if previous is None:
            raise TrialFailedError(f"{self.name} yielded no epoch record")

    def _check_epoch(
        self,
        record: EpochRecord,
        previous: EpochRecord | None,
        epochs: int,
        checkpoints: Checkpoints,
    ) -> None:
        """Check that records are in order: one per epoch, from 1 to the configuration's epochs."""
        found = f"{self.name} yielded epoch {record.epoch}"
        if previous is not None and record.epoch != previous.epoch + 1:
            raise TrialFailedError(
                f"{found} after epoch {previous.epoch}: "
                "records come in order, one per epoch, counted from 1"
            )
        if previous is None and record.epoch != 1 and checkpoints.latest() is None:
            raise TrialFailedError(f"{found} first: epochs are counted from 1")
        if record.epoch > epochs:
            raise TrialFailedError(f"{found} of {epochs}: a training ends with config.epochs")

    def _check_classes(
        self, record: EpochRecord, previous: EpochRecord | None, counts: ClassCounts
    ) -> None:
        """Check that there is a number for every class, in every epoch."""
        found = len(record.class_metric)
        what = f"{self.name}, epoch {record.epoch}: class_metric has {found} values"
        if found and counts.names and found != len(counts.names):
            raise TrialFailedError(
                f"{what}, but count_classes returned {len(counts.names)} classes"
            )
        if previous is not None and found != len(previous.class_metric):
            raise TrialFailedError(
                f"{what}, but had {len(previous.class_metric)} in the epoch before"
            )

    def _to_record(
        self, yielded: Any, config: TrialConfig, environment: Mapping[str, Any]
    ) -> EpochRecord:
        """Return what was yielded as a record, with the metric's name and the environment.

        One that leaves `used` out is taken to use its configuration.
        """
        used: dict[str, Any] | None
        if isinstance(yielded, Mapping):
            place = f"{self.name}, epoch {yielded.get('epoch', '?')}"
            record = _read_mapping(yielded, place)
            used = _read_used(yielded.get("used"), place)
        elif isinstance(yielded, EpochRecord):
            record = yielded
            used = dict(yielded.used) or None
        else:
            raise TrialFailedError(
                f"{self.name} yielded {type(yielded).__name__}: "
                "a record is a mapping with epoch, loss and metric, or an EpochRecord"
            )
        if used is None:
            used = dict(ConfigTree(config.model_dump()))
        metrics = record.metrics or {config.metric.name: record.metric}
        return replace(record, metrics=metrics, used={**environment, **used})


def _read_mapping(row: Mapping[str, Any], place: str) -> EpochRecord:
    """Make a record of a mapping, without what was used."""
    values = {key: value for key, value in row.items() if key not in ("used", "test")}
    record = _make_record(values, place)
    classes = tuple(_number_or_none(value) for value in record.class_metric)
    return replace(record, test=_read_test(row.get("test"), place), class_metric=classes)


def _number_or_none(value: float | None) -> float | None:
    """Return None for NaN: a class without a score."""
    return None if value is None or value != value else value


def _read_used(used: Any, place: str) -> dict[str, Any] | None:
    """Return dotted path → value that was used; None if it was left out."""
    if used is None:
        return None
    if not isinstance(used, Mapping):
        raise TrialFailedError(
            f"{place}: used is {type(used).__name__}, but must map dotted paths to values"
        )
    return {path: _to_plain(value) for path, value in used.items()}


def _read_test(test: Any, place: str) -> TestScore | None:
    """Return the score on the test split; None if it was left out."""
    score = _to_plain(test)
    if score is None or isinstance(score, TestScore):
        return score
    if not isinstance(score, (int, float)):
        raise TrialFailedError(f"{place}: test is {type(score).__name__}, but must be a number")
    return TestScore(float(score), ())


def _call_function(what: str, name: str, function: Callable[..., Any], config: Any) -> Any:
    """Call a function of a user's module.

    Raises:
        DataError: when it raises.
    """
    try:
        return function(config)
    except SearchError:
        raise
    except Exception as problem:
        place = traceback.extract_tb(problem.__traceback__)[-1]
        raise DataError(
            f"{what} of {name.partition(':')[0]} failed",
            where=f"objective: {name}",
            found=f"{type(problem).__name__}: {problem}"[:300],
            next_step=f"fix it: {Path(place.filename).name}, line {place.lineno}",
        ) from None


def _unusable_counts(name: str, found: str) -> DataError:
    return DataError(
        "count_classes must map each class to its number of samples",
        where=f"objective: {name}",
        found=found[:200],
        allowed='{"road": 900, "person": 10}',
        next_step="see docs/own-objective.md",
    )


def _describe_environment(counts: ClassCounts, device: str) -> dict[str, Any]:
    """Return what a record has of the machine, and the names of the classes."""
    torch = sys.modules.get("torch")
    found: dict[str, Any] = {
        "environment.device": device,
        "environment.threads": 1 if torch is None else torch.get_num_threads(),
    }
    if counts.names:
        found["environment.classes"] = list(counts.names)
    return found


def _to_plain(value: Any) -> Any:
    """Convert numbers and arrays of numpy and torch to Python's own, also within containers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_to_plain, value))
    return value


def _make_record(row: Mapping[str, Any], place: str) -> EpochRecord:
    """Make a record of plain numbers."""
    try:
        return make_record({key: _to_plain(value) for key, value in row.items()}, place)
    except InputError as problem:
        text = problem.what
        if problem.found:
            text += f", found {problem.found}"
        if problem.allowed:
            text += f", allowed: {problem.allowed}"
        raise TrialFailedError(f"{place}: {text}") from None
