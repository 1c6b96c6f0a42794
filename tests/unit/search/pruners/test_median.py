"""The median pruner over stored curves has the decisions of Optuna's own one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.trial import TrialState, create_trial

from search.pruners.build import pruner_from_config
from search.pruners.median import Peers, falls_short
from spaces.config import Direction
from spaces.study import PrunerConfig
from storage.repositories.peer_curves import Complete
from storage.store import Store

METRICS = some.one_of(
    some.floats(-2, 2), some.sampled_from([0.25, 0.5, 0.5, 0.75, math.nan, math.inf, -math.inf])
)
CURVES = some.dictionaries(some.integers(1, 6), METRICS, max_size=6)


def peers_of(curves: list[Mapping[int, float]]) -> Peers:
    """Complete trials with these curves."""
    peers = Peers(cast(Store, None), 1)
    peers.add_curves(
        Complete(
            frozenset(range(len(curves))),
            [point for curve in curves for point in curve.items()],
            0.0,
        )
    )
    return peers


def optunas(
    own: Mapping[int, float],
    curves: list[Mapping[int, float]],
    pruner: PrunerConfig,
    direction: Direction,
) -> bool:
    """The decision of Optuna's pruner."""
    study = optuna.create_study(direction=direction, pruner=pruner_from_config(pruner, 6))
    study.add_trials([create_trial(value=0.0, intermediate_values=dict(curve)) for curve in curves])
    study.add_trials(
        [
            create_trial(state=state, intermediate_values={4: 9.0})
            for state in (TrialState.PRUNED, TrialState.FAIL)
        ]
    )
    trial = study.ask()
    for epoch, metric in own.items():
        trial.report(metric, epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of slices in which everything is NaN
        return trial.should_prune()


class TestFallsShort:
    @given(
        own=CURVES,
        curves=some.lists(CURVES, max_size=7),
        direction=some.sampled_from(["maximize", "minimize"]),
        startup=some.integers(0, 4),
        warmup=some.integers(0, 4),
        noise=some.sampled_from([0.0, 1.0, 2.5]),
    )
    @settings(max_examples=150)
    def test_as_optuna(
        self,
        own: dict[int, float],
        curves: list[Any],
        direction: Direction,
        startup: int,
        warmup: int,
        noise: float,
    ) -> None:
        """They agree on any history, with NaN, infinity, ties, gaps, warm-up and start-up."""
        pruner = PrunerConfig(startup_trials=startup, warmup_epochs=warmup, noise=noise)
        assert falls_short(own, peers_of(curves), pruner, direction) == optunas(
            own, curves, pruner, direction
        )

    @pytest.mark.parametrize(("best", "prunes"), [(0.5, False), (0.4999, True)])
    def test_tie(self, best: float, prunes: bool) -> None:
        """A trial at the median continues."""
        pruner = PrunerConfig(startup_trials=2, warmup_epochs=0, noise=0)
        assert (
            falls_short({1: best}, peers_of([{1: 0.25}, {1: 0.75}]), pruner, "maximize") is prunes
        )
