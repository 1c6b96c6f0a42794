"""Search methods by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.search.methods.base import Method, Run
from benchmarks.search.methods.freeze_thaw import (
    FreezeThawMethod,
    make_full_gp,
    make_informed,
    make_misinformed,
)
from benchmarks.search.methods.halving import SuccessiveHalving
from benchmarks.search.methods.optuna_methods import make_gp, make_hyperband, make_median
from benchmarks.search.methods.random_search import RandomSearch
from benchmarks.search.methods.three_epochs import ThreeEpochs
from benchmarks.search.tasks.base import Task

__all__ = ["FAST", "METHODS", "Method", "Run", "make_method", "version_of"]


def _make_smac(task: Task, seed: int) -> Method:
    try:
        from benchmarks.search.methods.smac_method import SmacMethod
    except ImportError:
        raise SystemExit("the method smac needs SMAC3: pip install smac") from None
    return SmacMethod(task, seed)


def _make_neps(task: Task, seed: int) -> Method:
    try:
        from benchmarks.search.methods.neps_method import NepsMethod
    except ImportError:
        raise SystemExit("the method neps needs NePS: pip install neural-pipeline-search") from None
    return NepsMethod(task, seed)


METHODS: dict[str, tuple[Callable[[Task, int], Method], str]] = {
    "random": (RandomSearch, "1"),
    "tpe_median": (make_median, "1"),
    "tpe_hyperband": (make_hyperband, "2"),
    "halving": (SuccessiveHalving, "1"),
    "three_epochs": (ThreeEpochs, "1"),
    "optuna_gp": (make_gp, "1"),
    "freeze_thaw": (make_informed, "5"),
    "without_knowledge": (FreezeThawMethod, "5"),
    "wrong_knowledge": (make_misinformed, "5"),
    "without_pauses": (make_full_gp, "5"),
    "smac": (_make_smac, "1"),
    "neps": (_make_neps, "1"),
}
"""Name → constructor and version; a new version makes earlier results of the method invalid."""


FAST = ("random", "tpe_median", "tpe_hyperband", "halving", "three_epochs")
"""Methods that take seconds for a run."""


def make_method(name: str, task: Task, seed: int) -> Method:
    """Make a method for a task.

    Raises:
        SystemExit: when there is no such method.
    """
    if name not in METHODS:
        raise SystemExit(f"there is no method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name][0](task, seed)


def version_of(name: str) -> str:
    """The version of a method, part of the key of its results."""
    return METHODS[name][1]
