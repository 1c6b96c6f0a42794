"""Parse the options of the commands into checked values."""

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


def parse_duration(text: str | None) -> float | None:
    """Parse a duration such as `90s`, `30m`, `2h`, `1d` or `1h30m` into seconds.

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


def parse_device_hours(hours: float | None) -> float | None:
    """Convert `--device-hours` into seconds.

    Raises:
        InputError: when it is not a positive number.
    """
    if hours is None:
        return None
    if not 0 < hours < float("inf"):
        raise InputError(
            "--device-hours must be a positive number",
            where="--device-hours",
            found=f"{hours:g}",
            allowed="more than 0",
            next_step="write hours, such as 0.5 or 24",
        )
    return hours * UNITS_S["h"]


def load_spec(
    study: str,
    assignments: list[str],
    *,
    name: str | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    epochs_budget: int | None = None,
    settled_gain: float | None = None,
    learn_from: Sequence[str] = (),
) -> StudySpec:
    """Load a study and apply the changes of the command line.

    Args:
        study: name of a shipped study, or path of a YAML file.
        assignments: path=value of each `--set`.
        name: `--name`; like the other options, it overrides `--set` and the YAML.
        trials: `--trials`.
        epochs: `--epochs`.
        seed: `--seed`.
        epochs_budget: `--epochs-budget`.
        settled_gain: the share of `--stop-when-settled`.
        learn_from: each `--learn-from`.

    Raises:
        StudyError: when the study cannot be found, or a change does not fit.
    """
    options = {
        "name": name,
        "trials": trials,
        "epochs": epochs,
        "seed": seed,
        "epochs_budget": epochs_budget,
        "settled_gain": settled_gain,
        "sampler.learn_from": list(learn_from) or None,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return load_study(study, parse_changes(assignments) | given, given)


@contextmanager
def naming_set_option(assignments: Sequence[str]) -> Iterator[None]:
    """Add the `--set` option that caused it to an error about the study.

    Args:
        assignments: path=value of each `--set`.

    Raises:
        StudyError: what the body raised, with the option in its `where`.
    """
    try:
        yield
    except StudyError as problem:
        changed = [assignment.partition("=")[0] for assignment in assignments]
        option = find_option(problem.place, changed)
        if option is None:
            raise
        raise problem.relocated(where=f"--set {option}, over {problem.where}") from None


def parse_signals(assignments: list[str], base: SignalsConfig) -> SignalsConfig:
    """Apply `--signals`, such as `class_collapse.epochs=8`, to a study's thresholds.

    Raises:
        StudyError: when there is no such signal or threshold, or a value does not fit.
    """
    examples = "--signals class_collapse.epochs=8, --signals overfitting.enabled=false"
    changes = parse_changes(assignments, "--signals", examples)
    given = SignalsConfig.rename_former_keys(ConfigTree.from_paths(changes).nested)
    tree = ConfigTree(base.model_dump()).overlay(ConfigTree(given))
    return check(SignalsConfig, tree.nested, "--signals")


def parse_pruner(words: list[str], base: PrunerConfig) -> PrunerConfig:
    """Apply `--pruner` to a study's pruner.

    Args:
        words: `median`, `hyperband` or `none`, and settings such as `warmup_epochs=10`.
        base: the study's pruner.

    Raises:
        StudyError: when there is no such pruner or setting, or a value does not fit.
    """
    assignments = [word if "=" in word else f"kind={word}" for word in words]
    examples = "--pruner median, --pruner warmup_epochs=10"
    changes = parse_changes(assignments, "--pruner", examples)
    tree = ConfigTree(base.model_dump()).overlay(ConfigTree(changes))
    return check(PrunerConfig, tree.nested, "--pruner")


def parse_columns(assignments: list[str]) -> dict[str, str]:
    """Parse `--column`, such as `loss=train/loss`, into the column of each key.

    Raises:
        InputError: when one does not have the form key=column.
    """
    columns = {}
    for assignment in assignments:
        key, equals, column = assignment.partition("=")
        if not (key and equals and column):
            raise InputError(
                "--column takes key=column",
                where="--column",
                found=assignment,
                allowed="--column loss=train/loss",
                next_step="write a key, an equals sign and a column's name",
            )
        columns[key] = column
    return columns
