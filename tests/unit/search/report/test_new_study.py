"""The command that starts a study in which a remedy can be tried, parsed as `search run` does."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from search.cli.parsing import load_spec
from search.planning.remedied_config import locate_by_space
from search.report.new_study import STUDY_FILE, make_new_study_command
from search.report.remedy_offers import describe_new_study
from spaces.loader import load_study
from spaces.records import Remedy
from spaces.study import StudySpec

SHIPPED = load_study("focal_gamma")
LOW = Remedy("a low rate", {"optimizer.lr_multiple": 1e-4})
LONGER = Remedy("more epochs per trial: 24 instead of 12", {})


def parse(command: str) -> StudySpec:
    """The study that a command starts."""
    words = shlex.split(command)
    assert words[:3] == ["search", "run", "--study"]
    options: dict[str, Any] = {}
    changes = []
    for key, value in zip(words[4::2], words[5::2], strict=True):
        if key == "--set":
            changes.append(value)
        else:
            options[key.removeprefix("--")] = value
    epochs = options.pop("epochs", None)
    return load_spec(words[3], changes, epochs=epochs and int(epochs), **options)


def offered(spec: StudySpec, remedy: Remedy) -> str:
    """The command for a remedy."""
    return describe_new_study(spec, remedy, locate_by_space(spec, remedy))


class TestShipped:
    def test_wider(self) -> None:
        """The new study differs in its name and in the bound alone, and contains the remedy."""
        made = parse(offered(SHIPPED, LOW))
        assert made.name == "focal_gamma_wider"
        assert made.space["optimizer.lr_multiple"].contains(1e-4)
        rest = {"name", "space"}
        assert made.model_dump(exclude=rest) == SHIPPED.model_dump(exclude=rest)

    def test_epochs(self) -> None:
        """More epochs are another study, too, since all trials of one have as many."""
        made = parse(offered(SHIPPED, LONGER))
        assert (made.name, made.epochs) == ("focal_gamma_24_epochs", 24)
        assert made.space == SHIPPED.space

    def test_changed(self) -> None:
        """What the study was started with is repeated."""
        changed = load_study("focal_gamma", {"epochs": 5, "base.data.size": 32, "seed": 3})
        made = parse(offered(changed, LOW))
        assert (made.epochs, made.seed) == (5, 3)
        assert made.base == changed.base

    def test_inside(self) -> None:
        """A remedy that the study can try needs no other one."""
        assert offered(SHIPPED, Remedy("slower", {"optimizer.lr_multiple": 0.5})) == ""


class TestOwn:
    def test_file(self) -> None:
        """The file of a study that is not shipped is not known, so a word is in its place."""
        own = SHIPPED.model_copy(update={"name": "mine"})
        words = shlex.split(make_new_study_command(own, "wider", ["--epochs", "24"]))
        assert words[3:] == [STUDY_FILE, "--name", "mine_wider", "--epochs", "24"]

    @pytest.mark.parametrize("name", ["m" * 100, "mine"])
    def test_name(self, name: str) -> None:
        """The new name is one that a study can have."""
        own = SHIPPED.model_copy(update={"name": name})
        words = shlex.split(make_new_study_command(own, "100000_epochs", []))
        assert StudySpec.model_validate({**SHIPPED.model_dump(), "name": words[5]})
