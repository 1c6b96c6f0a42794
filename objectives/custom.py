"""One's own objective: `my_package.my_module:train` in a study, where `train` is a generator of epoch records.

What it needs to be is told on the page docs/own-objective.md; `objectives.testing` has a test that one can point at it.
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

PASSED = ("data", "counts", "device", "checkpoints")
"""What a training may ask for besides its configuration, by the names of its parameters."""

EXAMPLE = "my_package.my_module:train"


@cache
def own_objective(name: str) -> Objective:
    """The objective that a function makes.

    Args:
        name: `module:function`.

    Raises:
        StudyError: when it cannot be imported, or is no such function.
    """
    module_name, _, function_name = name.partition(":")
    module = _imported(module_name, name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, held in vars(module).items() if inspect.isfunction(held)]
        raise _wrong(
            f"{module_name} has no function {function_name!r}{nearest(function_name, known)}",
            name,
            found=", ".join(known) or "no function",
        )
    config = _config_of(function, name)
    _check_parameters(function, name)
    own = OwnTrainer(
        name,
        function,
        getattr(module, "prepare", None),
        getattr(module, "count_classes", None),
        _source(module),
    )
    return Objective(
        name=name, config=config, metrics={}, load=lambda: own, data_key=lambda _: name
    )


def _imported(module_name: str, name: str) -> ModuleType:
    """The module, from the working directory as well as from what is installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return import_module(module_name)
    except SearchError:
        raise
    except (
        Exception,
        SystemExit,
    ) as problem:  # it is somebody's own code, which may raise anything, or end the program
        if (
            isinstance(problem, ModuleNotFoundError)
            and problem.name
            and f"{module_name}.".startswith(f"{problem.name}.")
        ):
            what, next_step = (
                f"there is no module {problem.name!r}",
                "run from the folder that it lies in, install it, or name its folder in PYTHONPATH",
            )
        else:
            what, next_step = (
                f"{module_name} cannot be imported",
                "mend it: `python -c 'import " + module_name + "'` shows where",
            )
        raise StudyError(
            what,
            where="objective",
            place=("objective",),
            found=f"{type(problem).__name__}: {problem}"[:200],
            allowed=f"module:function, such as {EXAMPLE}",
            next_step=next_step,
        ) from None


def _source(module: ModuleType) -> str:
    """The checksum of the module's file, nothing where there is none: a `count_classes` that was mended counts anew."""
    try:
        return hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
    except OSError:
        return ""


def _config_of(function: Callable[..., Any], name: str) -> type[TrialConfig]:
    """The model that the function's first parameter is annotated with."""
    first = next(iter(inspect.signature(function).parameters), None)
    try:
        config = get_type_hints(function).get(first or "")
    except Exception as problem:  # an annotation is somebody's own expression
        raise _wrong(
            f"an annotation of {name} names what is not there", name, found=str(problem)
        ) from None
    if not (isinstance(config, type) and issubclass(config, TrialConfig)):
        raise _wrong(
            f"the first parameter of {name} has no configuration as its annotation",
            name,
            found=f"{first}: {config}" if first else "no parameter",
        )
    return config


def _check_parameters(function: Callable[..., Any], name: str) -> None:
    _, *others = inspect.signature(function).parameters.values()
    for parameter in others:
        if parameter.name not in PASSED and parameter.default is parameter.empty:
            what = f"{name} asks for {parameter.name!r}, which nobody gives"
            raise StudyError(
                f"{what}{nearest(parameter.name, PASSED)}",
                where="objective",
                place=("objective",),
                found=parameter.name,
                allowed=f"a configuration, and of {', '.join(PASSED)} what it needs",
                next_step="rename it, or give it a default",
            )


def _wrong(what: str, name: str, *, found: str) -> StudyError:
    return StudyError(
        what,
        where=f"objective: {name}",
        found=found[:200],
        allowed="def train(config: Config), with class Config(spaces.config.TrialConfig)",
        next_step="see docs/own-objective.md",
    )


@dataclass(frozen=True)
class OwnTrainer(Trainer):
    """The functions of somebody's module, as `search` asks for them."""

    name: str
    function: Callable[..., Any]
    prepared: Callable[..., Any] | None
    counted: Callable[..., Any] | None
    source: str = ""

    def fingerprint(self, config: Any) -> str:
        """Of the name, the module's file and the configuration: what its data are is not known here."""
        return hashlib.sha256(
            f"{self.name}\n{self.source}\n{config.model_dump_json(exclude={'seed', 'epochs', 'metric'})}".encode()
        ).hexdigest()[:32]

    def count_classes(self, config: Any) -> ClassCounts:
        """What the module's `count_classes(config)` says, name → samples; nothing where there is none."""
        counts = _asked("count_classes", self.name, self.counted, config) if self.counted else {}
        if not isinstance(counts, Mapping):
            raise _no_counts(self.name, type(counts).__name__)
        plain = {str(name): _plain(count) for name, count in counts.items()}
        for name, count in plain.items():
            if not isinstance(count, (int, float)) or not float(count).is_integer() or count < 0:
                raise _no_counts(self.name, f"{name}: {count!r}")
        return ClassCounts(tuple(plain), tuple(int(count) for count in plain.values()))

    def prepare(self, config: Any, device: str) -> Any:
        """What the module's `prepare(config)` makes, once a worker; None where there is none."""
        return _asked("prepare", self.name, self.prepared, config) if self.prepared else None

    def train(
        self, config: Any, prepared: Any, counts: ClassCounts, device: str, checkpoints: Checkpoints
    ) -> Iterator[EpochRecord]:
        """The function's records, one after the other.

        Raises:
            TrialFailedError: when there is none, one is no record, or they come out of order.
        """
        given = {"data": prepared, "counts": counts, "device": device, "checkpoints": checkpoints}
        wanted = inspect.signature(self.function).parameters
        training = self.function(
            config, **{name: value for name, value in given.items() if name in wanted}
        )
        if not isinstance(training, Iterator):
            raise TrialFailedError(
                f"{self.name} returned {type(training).__name__}: it has to be a generator that yields a record an epoch"
            )
        before, width, around = None, None, _environment(counts, device)
        try:
            for told in training:
                record = self._record(told, config, around)
                if before is not None and record.epoch != before + 1:
                    raise TrialFailedError(
                        f"{self.name} yielded epoch {record.epoch} after epoch {before}: records come in order, one an epoch, counted from 1"
                    )
                if before is None and record.epoch != 1 and checkpoints.latest() is None:
                    raise TrialFailedError(
                        f"{self.name} yielded epoch {record.epoch} first: epochs are counted from 1"
                    )
                if record.epoch > config.epochs:
                    raise TrialFailedError(
                        f"{self.name} yielded epoch {record.epoch} of {config.epochs}: a training ends with config.epochs"
                    )
                self._check_classes(record, counts, width)
                before, width = record.epoch, len(record.class_metric)
                yield record
        finally:
            if hasattr(training, "close"):
                training.close()
        if before is None:
            raise TrialFailedError(f"{self.name} yielded no epoch record")

    def _check_classes(self, record: EpochRecord, counts: ClassCounts, before: int | None) -> None:
        """Whether there is a number for every class, in every epoch."""
        found = len(record.class_metric)
        if found and counts.names and found != len(counts.names):
            raise TrialFailedError(
                f"{self.name}, epoch {record.epoch}: class_metric has {found} values, but count_classes tells of {len(counts.names)} classes"
            )
        if before is not None and found != before:
            raise TrialFailedError(
                f"{self.name}, epoch {record.epoch}: class_metric has {found} values, but had {before} in the epoch before"
            )

    def _record(self, told: Any, config: TrialConfig, around: Mapping[str, Any]) -> EpochRecord:
        """A record as it is, or made from a mapping. One that says nothing of what it used is taken at its configuration's word."""
        if isinstance(told, Mapping):
            record = _made(
                {key: value for key, value in told.items() if key not in ("used", "test")},
                f"{self.name}, epoch {told.get('epoch', '?')}",
            )
            used, test = told.get("used"), _plain(told.get("test"))
            if used is not None and not isinstance(used, Mapping):
                raise TrialFailedError(
                    f"{self.name}, epoch {record.epoch}: used is {type(used).__name__}, and has to map dotted paths to values"
                )
            if test is not None and not isinstance(test, (int, float, TestScore)):
                raise TrialFailedError(
                    f"{self.name}, epoch {record.epoch}: test is {type(test).__name__}, and has to be a number"
                )
            score = TestScore(float(test), ()) if isinstance(test, (int, float)) else test
            classes = tuple(
                None if value is None or value != value else value for value in record.class_metric
            )  # one without a score
            around = (
                dict(around)
                if used is None
                else {**around, **{path: _plain(value) for path, value in used.items()}}
            )
            record = replace(
                record, used={} if used is None else around, test=score, class_metric=classes
            )
        elif isinstance(told, EpochRecord):
            record = told
        else:
            raise TrialFailedError(
                f"{self.name} yielded {type(told).__name__}: a record is a mapping with epoch, loss and metric, or an EpochRecord"
            )
        named = record.metrics or {config.metric.name: record.metric}
        used = record.used or ConfigTree(config.model_dump())
        return replace(record, metrics=named, used={**around, **used})


def _asked(what: str, name: str, function: Callable[..., Any], config: Any) -> Any:
    """What a function of somebody's module says.

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
            next_step=f"mend it: {Path(place.filename).name}, line {place.lineno}",
        ) from None


def _no_counts(name: str, found: str) -> DataError:
    return DataError(
        "count_classes has to map each class to its samples",
        where=f"objective: {name}",
        found=found[:200],
        allowed='{"road": 900, "person": 10}',
        next_step="see docs/own-objective.md",
    )


def _environment(counts: ClassCounts, device: str) -> dict[str, Any]:
    """What a record tells of the machine, and the names of the classes."""
    found: dict[str, Any] = {
        "environment.device": device,
        "environment.threads": sys.modules["torch"].get_num_threads()
        if "torch" in sys.modules
        else 1,
    }
    return found | ({"environment.classes": list(counts.names)} if counts.names else {})


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's own, wherever they stand."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _made(row: Mapping[str, Any], place: str) -> EpochRecord:
    """A record of plain numbers."""
    try:
        return make_record({key: _plain(value) for key, value in row.items()}, place)
    except InputError as problem:
        told = (
            problem.what
            + (f", found {problem.found}" if problem.found else "")
            + (f", allowed: {problem.allowed}" if problem.allowed else "")
        )
        raise TrialFailedError(f"{place}: {told}") from None
