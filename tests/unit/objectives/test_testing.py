"""The contract that one can point at one's own objective: a sound one keeps it, and each breach fails the test that is meant for it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.testing import ObjectiveContract

NUMBERS = itertools.count()
SOUND = """
import random
from spaces.config import TrialConfig


class Config(TrialConfig):
    rate: float = 0.1


def prepare(config: Config):
    return [1.0, 2.0]


def train(config: Config, data, checkpoints):
    path = checkpoints.latest()
    first = 1 if path is None else 1 + int(path.read_text())
    if first > 1:
        yield record(config, data, first - 1)
    for epoch in range(first, config.epochs + 1):
        made = record(config, data, epoch)
        if checkpoints.due(made, last=epoch == config.epochs):
            checkpoints.write(lambda path: path.write_text(str(epoch)))
        yield made


def record(config, data, epoch):
    noise = random.Random(f"{config.seed} {epoch}").random()
    return as_mapping(epoch, config.rate * sum(data) + noise, {"rate": config.rate})


def as_mapping(epoch, loss, used):
    from dataclasses import replace
    from spaces.record_json import make_record
    return replace(make_record({"epoch": epoch, "loss": loss, "metric": 1 - loss}, ""), used=used)
"""


def swapped(*changes: str) -> str:
    """The sound module, in which the first of each two pieces of code is the second."""
    code = SOUND
    for before, after in zip(changes[::2], changes[1::2], strict=True):
        assert code.count(before) == 1
        code = code.replace(before, after)
    return code


BREACHES = {
    "unseeded": (
        swapped('random.Random(f"{config.seed} {epoch}").random()', "random.random()"),
        "test_repeatable",
    ),
    "learns from trial to trial": (
        swapped(
            "    path = checkpoints.latest()",
            "    data.append(1.0)\n    path = checkpoints.latest()",
        ),
        "test_repeatable",
    ),
    "resumes from elsewhere": (
        swapped(
            "        yield record(config, data, first - 1)",
            "        data = [9.0]\n        yield record(config, data, first - 1)",
        ),
        "test_resumed",
    ),
    "out of order": (
        swapped("range(first, config.epochs + 1)", "range(first + 1, config.epochs + 1)"),
        "test_records_in_order",
    ),
    "not a number": (
        swapped("config.rate * sum(data) + noise", 'float("nan")'),
        "test_records_in_order",
    ),
    "says what it did not use": (swapped('{"rate": config.rate}', '{"rate": 0.1}'), "test_used"),
    "says nothing of it": (swapped('{"rate": config.rate}', '{"momentum": 0.1}'), "test_used"),
    "prepares what is searched": (
        swapped(
            "return [1.0, 2.0]",
            "return [config.rate]",
            "config.rate * sum(data) + noise",
            "sum(data) + noise",
            '{"rate": config.rate}',
            '{"rate": data[0]}',
        ),
        "test_used",
    ),
}
"""What it does → its code, and the test of the contract that has to fail."""


@pytest.fixture
def contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ObjectiveContract]:
    """Makes the contract's tests for a module of this code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def of(code: str) -> ObjectiveContract:
        name = f"contract_module_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        made = ObjectiveContract()
        made.objective, made.sampled = f"{name}:train", {"rate": 0.03}
        return made

    return of


def failing(contract: ObjectiveContract, folder: Path) -> set[str]:
    """The names of the contract's tests that fail, each run as pytest does it, on an object of its own."""
    failed = set()
    for name in [name for name in dir(contract) if name.startswith("test_")]:
        own = type(contract)()
        own.objective, own.sampled = contract.objective, contract.sampled
        inner = folder / name
        inner.mkdir()
        try:
            getattr(own, name)(*([inner] if name == "test_resumed" else []))
        except Exception:  # whatever it is, the test failed
            failed.add(name)
    return failed


def test_sound(contract: Callable[[str], ObjectiveContract], tmp_path: Path) -> None:
    """A sound objective keeps all of it."""
    assert failing(contract(SOUND), tmp_path) == set()


@pytest.mark.parametrize("breach", BREACHES)
def test_breach(contract: Callable[[str], ObjectiveContract], tmp_path: Path, breach: str) -> None:
    """Each breach fails the test that is there for it."""
    code, test = BREACHES[breach]
    assert test in failing(contract(code), tmp_path)
