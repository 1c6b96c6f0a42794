"""NePS' PriorBand: Hyperband that samples around a preset (Mallik et al. 2023)."""

from __future__ import annotations

from typing import Any

import neps
import numpy as np
import torch

from benchmarks.search.methods.budgeted import BudgetedMethod, Evaluation
from benchmarks.search.tasks.base import Params, Task
from spaces.parameters import Choice, FloatRange, Parameter, is_active

EPOCH = "epoch_of_run"


class NepsMethod(BudgetedMethod):
    """PriorBand with the first preset as prior, and plain Hyperband where a task has none.

    NePS has no conditions: every dimension is sampled, and the inactive ones are ignored. It draws
    from the global random states, which are seeded here.
    """

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        prior = dict(task.presets[0]) if task.presets else {}
        dimensions = {
            name: _make_dimension(dimension, name in prior, prior.get(name))
            for name, dimension in task.space.items()
        }
        epochs = neps.HPOInteger(lower=1, upper=task.epochs, is_fidelity=True)
        space = neps.SearchSpace({**dimensions, EPOCH: epochs})
        make = neps.algorithms.priorband if prior else neps.algorithms.hyperband
        self._neps = neps.AskAndTell(make(space))

    def ask_library(self) -> Evaluation:
        """A configuration of the next rung."""
        trial = self._neps.ask()
        params: Params = {}
        for name, dimension in self.space.items():
            if is_active(dimension.when, params):
                value = trial.config[name]
                params[name] = (
                    dimension.choices[int(value)] if isinstance(dimension, Choice) else value
                )
        return Evaluation(params, int(trial.config[EPOCH]), trial)

    def answer_library(self, evaluation: Evaluation, cost: float) -> None:
        """Report the cost."""
        self._neps.tell(evaluation.request, cost)


def _make_dimension(dimension: Parameter, known: bool, value: Any) -> Any:
    """A dimension of NePS; a choice is the text of its index."""
    if isinstance(dimension, Choice):
        codes = [str(index) for index in range(len(dimension.choices))]
        return neps.HPOCategorical(
            codes, prior=str(dimension.choices.index(value)) if known else None
        )
    kind = neps.HPOFloat if isinstance(dimension, FloatRange) else neps.HPOInteger
    return kind(
        lower=dimension.low,
        upper=dimension.high,
        log=dimension.log,
        prior=value if known else None,
    )
