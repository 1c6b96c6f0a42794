"""Custom objectives: requirements, parameters, and messages."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objectives.contract import NoCheckpoints
from objectives.custom import custom_objective
from search.planning.plan import Plan, make_plan
from spaces.errors import DataError, StudyError, TrialFailedError
from spaces.records import EpochRecord
from spaces.study import StudySpec

HEAD = "from spaces.config import TrialConfig\nfrom spaces.frozen import Frozen\n\n\nclass Inner(Frozen):\n    decay: float = 0.0\n\n\nclass Config(TrialConfig):\n    rate: float = 0.1\n    inner: Inner = Inner()\n\n\n"
USABLE = "def train(config: Config):\n    for epoch in range(1, config.epochs + 1):\n        yield {'epoch': epoch, 'loss': 1.0 / epoch, 'metric': 0.5}\n"
NUMBERS = itertools.count()

Made = Callable[[str], str]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Writes a module into the working directory, which nothing else names; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def module(code: str) -> str:
        name = f"own_module_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(HEAD + code, encoding="utf-8")
        return name

    return module


def plan_of(objective: str, **changes: Any) -> Plan:
    space = {
        "rate": {"kind": "float", "low": 0.0, "high": 1.0},
        "inner.decay": {"kind": "float", "low": 0.0, "high": 1.0},
    }
    return make_plan(
        StudySpec.model_validate(
            {
                "name": "mine",
                "objective": objective,
                "metric": {"name": "gain"},
                "epochs": 3,
                "space": space,
            }
            | changes
        )
    )


def records_of(objective: str) -> list[EpochRecord]:
    kind = custom_objective(objective)
    config, trainer = kind.config.model_validate({"epochs": 2}), kind.load()
    return list(
        trainer.train(
            config,
            trainer.prepare(config, "cpu"),
            trainer.count_classes(config),
            "cpu",
            NoCheckpoints(),
        )
    )


class TestUsable:
    def test_plan(self, made: Made) -> None:
        """Its fields, nested ones too, are dimensions, and its metric is whatever the study names."""
        plan = plan_of(f"{made(USABLE)}:train")
        config: Any = plan.make_config({"rate": 0.3, "inner.decay": 0.2}, 0)
        assert (config.rate, config.inner.decay, config.epochs, config.metric.name) == (
            0.3,
            0.2,
            3,
            "gain",
        )
        assert plan.warnings == ()

    def test_records(self, made: Made) -> None:
        """Mappings become records; missing keys stay unknown; the default of `used` is the configuration."""
        first, second = records_of(f"{made(USABLE)}:train")
        assert (first.epoch, first.train_loss, second.train_loss, first.metrics) == (
            1,
            1.0,
            0.5,
            {"miou": 0.5},
        )
        assert first.val_loss != first.val_loss
        assert (first.used["rate"], first.used["inner.decay"]) == (0.1, 0.0)

    def test_given(self, made: Made) -> None:
        """It is given its parameters by name: data, counts, the device."""
        code = "def prepare(config: Config):\n    return [1, 2]\n\n\ndef count_classes(config: Config):\n    return {'a': 3, 'b': 4}\n\n\ndef train(config: Config, counts, data, device):\n    yield {'epoch': 1, 'loss': sum(data), 'metric': sum(counts.counts), 'test': 0.25, 'used': {'device': device}}\n"
        (record,) = records_of(f"{made(code)}:train")
        assert (
            record.train_loss,
            record.metric,
            record.used["device"],
            record.used["environment.classes"],
        ) == (3.0, 7.0, "cpu", ["a", "b"])
        assert record.test is not None
        assert record.test.metric == 0.25

    def test_numpy(self, made: Made) -> None:
        """Numbers of numpy and torch are numbers."""
        code = "import numpy, torch\n\n\ndef train(config: Config):\n    yield {'epoch': 1, 'loss': torch.tensor(0.5), 'metric': numpy.float32(0.25), 'val_loss': numpy.float64(1.0)}\n"
        (record,) = records_of(f"{made(code)}:train")
        assert (record.train_loss, record.metric, record.val_loss) == (0.5, 0.25, 1.0)

    def test_arrays(self, made: Made) -> None:
        """Arrays and numbers of numpy are converted wherever they occur; None counts as missing."""
        code = (
            "import numpy\n\n\ndef count_classes(config: Config):\n    return {'a': 3, 'b': 4}\n\n\ndef train(config: Config):\n"
            "    yield {'epoch': 1, 'loss': 0.5, 'metric': 0.5, 'class_metric': numpy.array([0.25, 0.75]), 'test': numpy.float32(0.5), 'used': {'rate': numpy.float64(0.1)}}\n"
            "    yield {'epoch': 2, 'loss': 0.5, 'metric': 0.5, 'class_metric': [0.5, float('nan')], 'used': None, 'test': None}\n"
        )
        first, second = records_of(f"{made(code)}:train")
        assert first.class_metric == (0.25, 0.75)
        assert first.test is not None
        assert first.test.metric == 0.5
        assert json.dumps(first.used["rate"]) == "0.1"
        assert second.test is None
        assert second.class_metric == (0.5, None)

    def test_used_nothing(self, made: Made) -> None:
        """An empty `used` stays empty."""
        code = "def train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5, 'used': {}}\n"
        (record,) = records_of(f"{made(code)}:train")
        assert "rate" not in record.used
        assert "environment.device" in record.used

    def test_closed(self, made: Made, tmp_path: Path) -> None:
        """Closing the training closes the function's generator."""
        code = "import pathlib\n\n\ndef train(config: Config):\n    try:\n        yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5}\n        yield {'epoch': 2, 'loss': 1.0, 'metric': 0.5}\n    finally:\n        pathlib.Path('freed').touch()\n"
        kind = custom_objective(f"{made(code)}:train")
        config = kind.config()
        training = kind.load().train(
            config, None, kind.load().count_classes(config), "cpu", NoCheckpoints()
        )
        next(training)
        training.close()  # type: ignore[attr-defined]
        assert (tmp_path / "freed").exists()


class TestBroken:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("def train(config: Config):\n    return\n    yield\n", "yielded no epoch record"),
            (
                "def train(config: Config):\n    for epoch in (1, 3):\n        yield {'epoch': epoch, 'loss': 1.0, 'metric': 0.5}\n",
                "yielded epoch 3 after epoch 1",
            ),
            (
                "def train(config: Config):\n    yield {'epoch': 2, 'loss': 1.0, 'metric': 0.5}\n",
                "yielded epoch 2 first",
            ),
            (
                "def train(config: Config):\n    for epoch in (1, 2, 3):\n        yield {'epoch': epoch, 'loss': 1.0, 'metric': 0.5}\n",
                "yielded epoch 3 of 2",
            ),
            (
                "def train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0}\n",
                "an epoch has no metric",
            ),
            (
                "def train(config: Config):\n    yield {'epoch': 1, 'loss': 'low', 'metric': 0.5}\n",
                "loss",
            ),
            ("def train(config: Config):\n    yield 0.5\n", "yielded float"),
            (
                "def train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5, 'used': 3}\n",
                "used is int",
            ),
            (
                "def train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5, 'test': 'good'}\n",
                "test is str",
            ),
            ("def train(config: Config):\n    return [1]\n", "returned list"),
            (
                "def train(config: Config):\n    yield {'epoch': 1, 'loss': 'low', 'metric': 0.5}\n",
                r"own_module_\d+:train, epoch 1: .*'low'",
            ),
            (
                "def train(config: Config):\n    for epoch in (1, 2):\n        yield {'epoch': epoch, 'loss': 1.0, 'metric': 0.5, 'class_metric': [0.5] * epoch}\n",
                "class_metric has 2 values, but had 1",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': 3, 'b': 4}\n\n\ndef train(config: Config):\n    yield {'epoch': 1, 'loss': 1.0, 'metric': 0.5, 'class_metric': [0.5]}\n",
                "class_metric has 1 values, but count_classes returned 2",
            ),
        ],
    )
    def test_promise(self, made: Made, code: str, words: str) -> None:
        """A training that is not a sequence of records fails with a message."""
        with pytest.raises(TrialFailedError, match=words):
            records_of(f"{made(code)}:train")


class TestRefused:
    @pytest.mark.parametrize(
        ("function", "code", "words"),
        [
            ("trian", USABLE, r"has no function 'trian' \(did you mean 'train'\?\)"),
            ("train", "def train(config):\n    yield\n", "is not annotated with a configuration"),
            ("train", "def train():\n    yield\n", "is not annotated with a configuration"),
            (
                "train",
                "def train(config: dict):\n    yield\n",
                "is not annotated with a configuration",
            ),
            ("train", "def train(config: 'Nothing'):\n    yield\n", "uses an unknown name"),
            (
                "train",
                "def train(config: Config, dataset):\n    yield\n",
                "has an unknown parameter 'dataset'",
            ),
            ("train", "1 / 0\n", "cannot be imported"),
            ("train", "import not_installed_here\n", "cannot be imported"),
            ("train", "raise SystemExit(3)\n", "cannot be imported"),
            (
                "train",
                "import math\n\n\ndef train(config: Config, data: 'math.Nothing'):\n    yield\n",
                "uses an unknown name",
            ),
        ],
    )
    def test_module(self, made: Made, function: str, code: str, words: str) -> None:
        """A function that cannot be an objective is refused when the study is read, with the next step."""
        with pytest.raises(StudyError, match=words) as caught:
            plan_of(f"{made(code)}:{function}")
        assert caught.value.next_step
        assert caught.value.where.startswith("objective")

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (
                "def prepare(config: Config):\n    return {}['texts']\n\n\n",
                "prepare of own_module_.* failed",
            ),
            (
                "def count_classes(config: Config):\n    return {}['texts']\n\n\n",
                "count_classes of own_module_.* failed",
            ),
            (
                "def count_classes(config: Config):\n    return [1, 2]\n\n\n",
                "must map each class to its number of samples",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': -3}\n\n\n",
                "must map each class to its number of samples",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': 'many'}\n\n\n",
                "must map each class to its number of samples",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': float('nan')}\n\n\n",
                "must map each class to its number of samples",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': float('inf')}\n\n\n",
                "must map each class to its number of samples",
            ),
            (
                "def count_classes(config: Config):\n    return {'a': 2.5}\n\n\n",
                "must map each class to its number of samples",
            ),
        ],
    )
    def test_data(self, made: Made, code: str, words: str) -> None:
        """An error in `prepare` or `count_classes` is reported with the function's name."""
        with pytest.raises(DataError, match=words) as caught:
            records_of(f"{made(code + USABLE)}:train")
        assert caught.value.where.endswith(":train")

    def test_absent(self) -> None:
        """A missing module is refused with where it is searched."""
        with pytest.raises(StudyError, match="there is no module 'nothere'") as caught:
            plan_of("nothere.deeper:train")
        assert "PYTHONPATH" in caught.value.next_step

    def test_path(self, made: Made) -> None:
        """A dimension that the configuration does not have is named."""
        with pytest.raises(
            StudyError, match=r"unknown hyperparameter 'ratte' \(did you mean 'rate'\?\)"
        ):
            plan_of(
                f"{made(USABLE)}:train", space={"ratte": {"kind": "float", "low": 0.0, "high": 1.0}}
            )
