"""What several commands take from the command line, turned into checked values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spaces.config_tree import ConfigTree
from spaces.errors import InputError, StudyError
from spaces.loader import check, find_option, load_study, parse_changes
from spaces.study import PrunerConfig, StudySpec
from spaces.thresholds import SignalsConfig

if TYPE_CHECKING:
    from storage.location import StoreLocation

DEFAULT_STORE = "sqlite:///search.db"
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def store_location(given: str | None) -> StoreLocation:
    """Parse `--store`, else $SEARCH_STORE, else use `search.db` in the working directory.

    A plain path means SQLite.

    Raises:
        StoreError: when it is not the URL of a store.
    """
    from storage.location import StoreLocation

    text = given or os.environ.get("SEARCH_STORE") or DEFAULT_STORE
    return StoreLocation.parse(text if "://" in text else f"sqlite:///{text}")


def seconds(text: str | None) -> float | None:
    """`90s`, `30m`, `2h`, `1d` or `1h30m` in seconds.

    Raises:
        InputError: for anything else.
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InputError(
            "--timeout is not a duration",
            where="--timeout",
            found=text,
            allowed="90s, 30m, 2h, 1h30m",
            next_step="write a number and a unit",
        )
    return sum(float(number) * UNITS_S[unit] for number, unit in parts)


def device_seconds(hours: float | None) -> float | None:
    """`--device-hours` in seconds.

    Raises:
        InputError: when it is not more than nothing.
    """
    if hours is None:
        return None
    if not 0 < hours < float("inf"):
        raise InputError(
            "--device-hours is no budget",
            where="--device-hours",
            found=f"{hours:g}",
            allowed="more than 0",
            next_step="write hours, such as 0.5 or 24",
        )
    return hours * UNITS_S["h"]


def study_spec(
    study: str,
    assignments: list[str],
    *,
    name: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> StudySpec:
    """A study with what the command line changes in it.

    Raises:
        StudyError: when it cannot be found, or a change does not fit.
    """
    given = {
        key: value
        for key, value in (("name", name), ("trials", trials), ("epochs", epochs), ("seed", seed))
        if value is not None
    }
    return load_study(study, parse_changes(assignments) | given, given)


@contextmanager
def blame_options(assignments: Sequence[str]) -> Iterator[None]:
    """Have an error about the complete study name the `--set` that caused it.

    Raises:
        StudyError: whatever was raised within, with the option in its `where`.
    """
    try:
        yield
    except StudyError as problem:
        changed = [assignment.partition("=")[0] for assignment in assignments]
        option = find_option(problem.place, changed)
        if option is None:
            raise
        raise problem.relocated(where=f"--set {option}, over {problem.where}") from None


def thresholds(assignments: list[str], base: SignalsConfig) -> SignalsConfig:
    """The thresholds of a study with what `--signals` changes in them, such as `class_collapse.epochs=8`.

    Raises:
        StudyError: when there is no such signal or threshold, or a value does not fit.
    """
    changes = parse_changes(
        assignments,
        "--signals",
        "--signals class_collapse.epochs=8, --signals overfitting.enabled=false",
    )
    given = SignalsConfig.rename_former_keys(ConfigTree.from_paths(changes).nested)
    tree = ConfigTree(base.model_dump()).overlay(ConfigTree(given))
    return check(SignalsConfig, tree.nested, "--signals")


def pruner_config(words: list[str], base: PrunerConfig) -> PrunerConfig:
    """A study's pruner with what `--pruner` changes: `median`, `hyperband` or `none`, and settings such as `warmup_epochs=10`.

    Raises:
        StudyError: when there is no such pruner or setting, or a value does not fit.
    """
    kinds = [f"kind={word}" if "=" not in word else word for word in words]
    changes = parse_changes(kinds, "--pruner", "--pruner median, --pruner warmup_epochs=10")
    tree = ConfigTree(base.model_dump()).overlay(ConfigTree(changes))
    return check(PrunerConfig, tree.nested, "--pruner")


def columns(assignments: list[str]) -> dict[str, str]:
    """`["loss=train/loss"]` as key → column.

    Raises:
        InputError: when one is not of the form key=column.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, column in pairs:
        if not (key and equals and column):
            raise InputError(
                "--column takes key=column",
                where="--column",
                found=f"{key}{equals}{column}",
                allowed="--column loss=train/loss",
                next_step="write a key, an equals sign and a column's name",
            )
    return {key: column for key, _, column in pairs}
