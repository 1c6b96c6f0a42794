"""SMAC3's multi-fidelity facade: Hyperband with a random forest (Lindauer et al. 2022)."""

from __future__ import annotations

import tempfile
from typing import Any

from ConfigSpace import (
    AndConjunction,
    Categorical,
    Configuration,
    ConfigurationSpace,
    Float,
    InCondition,
    Integer,
)
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue

from benchmarks.search.methods.budgeted import BudgetedMethod, Evaluation
from benchmarks.search.tasks.base import Params, Task
from spaces.parameters import Choice, FloatRange, Parameter, Scalar

FIRST_RANDOM = 10
"""Random configurations before the forest, as for the other methods."""


class SmacMethod(BudgetedMethod):
    """The default multi-fidelity SMAC: conditions as conditions, presets in the initial design."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        self._folder = tempfile.TemporaryDirectory()
        space = make_space(task)
        scenario = Scenario(
            space,
            name="benchmark",
            output_directory=self._folder.name,
            deterministic=True,
            n_trials=100_000,
            min_budget=1,
            max_budget=task.epochs,
            seed=seed,
        )
        presets = [Configuration(space, values=self._to_library(each)) for each in task.presets]
        design = MultiFidelityFacade.get_initial_design(
            scenario, n_configs=FIRST_RANDOM, additional_configs=presets
        )
        self._smac = MultiFidelityFacade(
            scenario, None, initial_design=design, logging_level=False, overwrite=True
        )

    def ask_library(self) -> Evaluation:
        """A configuration of Hyperband's next rung."""
        info = self._smac.ask()
        return Evaluation(self._from_library(info.config), max(1, round(info.budget)), info)

    def answer_library(self, evaluation: Evaluation, cost: float) -> None:
        """Report the cost."""
        self._smac.tell(evaluation.request, TrialValue(cost=cost), save=False)

    def _to_library(self, params: Params) -> dict[str, Any]:
        return {name: _encode(self.space[name], value) for name, value in params.items()}

    def _from_library(self, config: Configuration) -> Params:
        return {
            name: dimension.choices[int(config[name])]
            if isinstance(dimension, Choice)
            else (float if isinstance(dimension, FloatRange) else int)(config[name])
            for name, dimension in self.space.items()
            if name in config
        }


def make_space(task: Task) -> ConfigurationSpace:
    """The task's space with its conditions; a choice is the text of its index."""
    space = ConfigurationSpace()
    for name, dimension in task.space.items():
        if isinstance(dimension, Choice):
            space.add(Categorical(name, [str(index) for index in range(len(dimension.choices))]))
        elif isinstance(dimension, FloatRange):
            space.add(Float(name, (dimension.low, dimension.high), log=dimension.log))
        else:
            space.add(Integer(name, (dimension.low, dimension.high), log=dimension.log))
    for name, dimension in task.space.items():
        conditions = [
            InCondition(space[name], space[parent], _codes(task.space[parent], wanted))
            for parent, wanted in dimension.when.items()
        ]
        if conditions:
            space.add(conditions[0] if len(conditions) == 1 else AndConjunction(*conditions))
    return space


def _codes(parent: Parameter, wanted: Any) -> list[Any]:
    values = wanted if isinstance(wanted, tuple) else (wanted,)
    return [_encode(parent, value) for value in values]


def _encode(dimension: Parameter, value: Scalar) -> Any:
    return str(dimension.choices.index(value)) if isinstance(dimension, Choice) else value
