"""What is trained next: the decisions of the search on curves made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from search.sampling.freeze_thaw.curves import CurveState, TrialCurve
from search.sampling.freeze_thaw.encoding import EncodedSpace
from search.sampling.freeze_thaw.engine import FreezeThaw
from search.sampling.freeze_thaw.outlook import describe_chance
from search.sampling.freeze_thaw.steps import FreezeThawConfig, make_rungs
from spaces.parameters import FloatRange

EPOCHS = 16
SPACE = EncodedSpace(
    {
        "a": FloatRange(kind="float", low=0, high=1),
        "b": FloatRange(kind="float", low=0, high=1),
    }
)


def make_engine(start_trials: int = 4, direction: str = "maximize") -> FreezeThaw:
    """A search over two numbers, of which the best are 0.7 and 0.3."""
    config = FreezeThawConfig(direction, make_rungs(EPOCHS), start_trials, seed=5)  # type: ignore[arg-type]
    return FreezeThaw(SPACE, config)


def final(params: dict[str, float]) -> float:
    """The score of a configuration at the last epoch."""
    return 1 - (params["a"] - 0.7) ** 2 - (params["b"] - 0.3) ** 2


def curve(
    number: int, a: float, b: float, state: CurveState, epochs: int, sign: float = 1.0
) -> TrialCurve:
    """A trial that approaches its final score."""
    params = {"a": a, "b": b}
    scores = {
        epoch: sign * final(params) * (1 - 0.7 * 0.8**epoch) for epoch in range(1, epochs + 1)
    }
    return TrialCurve(number, params, scores, state, until_epoch=epochs)


def some(complete: int = 3) -> list[TrialCurve]:
    """Trials at several places, the first ones complete."""
    places = [(0.6, 0.3), (0.2, 0.9), (0.9, 0.1), (0.1, 0.1), (0.68, 0.33), (0.4, 0.6)]
    return [
        curve(number, a, b, *(("complete", EPOCHS) if number < complete else ("paused", 2)))
        for number, (a, b) in enumerate(places)
    ]


class TestRungs:
    @pytest.mark.parametrize(
        ("epochs", "rungs"),
        [(30, (3, 6, 12, 30)), (50, (5, 10, 20, 50)), (12, (2, 4, 8, 12)), (2, (2,)), (1, (1,))],
    )
    def test_doubling(self, epochs: int, rungs: tuple[int, ...]) -> None:
        """Each rung is twice the one before, and the last is the end; none is close to it."""
        assert make_rungs(epochs) == rungs


class TestNextStep:
    def test_start(self) -> None:
        """The first trials all start before any is resumed."""
        step = make_engine(start_trials=8).choose_step(some())
        assert step is not None
        assert (step.number, step.until_epoch) == (None, 2)

    def test_completes_the_most_promising(self) -> None:
        """While fewer than three are complete, the paused trial with the best outlook continues."""
        step = make_engine().choose_step(some(complete=0))
        assert step is not None
        assert step.number in (0, 4)
        assert step.until_epoch == 4

    def test_resumes_what_is_promising(self) -> None:
        """When no new trial may start, the paused trial near the best one is resumed."""
        step = make_engine().choose_step(some(), may_start=False)
        assert step is not None
        assert step.number == 4

    def test_ends_when_all_are_hopeless(self) -> None:
        """Without room for a new trial, hopeless ones stay paused and the study is over."""
        curves = [
            *(curve(number, 0.7 + number / 100, 0.3, "complete", EPOCHS) for number in range(5)),
            *(curve(5 + number, 0.05, 0.95 - number / 50, "paused", 8) for number in range(3)),
        ]
        assert make_engine().choose_step(curves, may_start=False) is None

    def test_nothing_to_do(self) -> None:
        """No trial is paused, and none may start."""
        curves = [curve(0, 0.5, 0.5, "complete", EPOCHS)]
        assert make_engine().choose_step(curves, may_start=False) is None

    def test_repeats(self) -> None:
        """The same trials lead to the same decision and the same proposal."""
        first, second = make_engine(), make_engine()
        assert first.choose_step(some()) == second.choose_step(some())
        assert first.propose(some(), 6) == second.propose(some(), 6)
        assert first.propose(some(), 6) != first.propose(some(), 7)

    def test_failed_trials_have_started(self) -> None:
        """A failed trial counts as started, so that the others do not wait for one more."""
        failed = TrialCurve(6, {}, {}, "ended")
        step = make_engine(start_trials=7).choose_step([*some(), failed])
        assert step is not None
        assert step.reason != "one of the first 7 trials"

    def test_lost_checkpoint_costs_epochs(self) -> None:
        """Of two equal trials, the one that would start again is resumed later."""
        whole = [curve(number, 0.1, 0.9, "complete", EPOCHS) for number in range(3)]
        paused = [curve(number, 0.7, 0.3, "paused", 8) for number in (3, 4)]
        lost = [*whole, replace(paused[0], restarts=True), paused[1]]
        step = make_engine().choose_step(lost, may_start=False)
        assert step is not None
        assert step.number == 4


class TestContinue:
    def test_better_than_all(self) -> None:
        """A trial that is expected to beat the best complete one continues to the next rung."""
        worse = [curve(number, 0.1, 0.9 - number / 20, "complete", EPOCHS) for number in range(4)]
        running = replace(curve(4, 0.7, 0.3, "running", 4), until_epoch=4)
        assert make_engine().continue_trial([*worse, running], 4).until_epoch == 8

    def test_worse_than_the_best(self) -> None:
        """Otherwise it pauses, with its chance as the reason."""
        better = [curve(number, 0.7, 0.3 + number / 50, "complete", EPOCHS) for number in range(4)]
        running = replace(curve(4, 0.1, 0.9, "running", 4), until_epoch=4)
        found = make_engine().continue_trial([*better, running], 4)
        assert found.until_epoch is None
        assert "chance to beat the best complete trial" in found.reason

    def test_own_expectation_is_no_evidence(self) -> None:
        """A trial at its rung is as uncertain as the same one that is paused there."""
        complete = [
            curve(number, 0.7, 0.1 + number / 10, "complete", EPOCHS) for number in range(4)
        ]
        paused = curve(4, 0.65, 0.38, "paused", 2)
        outlook = make_engine().look_ahead([*complete, paused])
        chance = outlook.chance_to_lead(outlook.rows_in("paused")[0])
        assert 0.01 < chance < 0.5
        found = make_engine().continue_trial([*complete, replace(paused, state="running")], 4)
        assert found.reason == describe_chance(chance)

    def test_the_first_trials_wait(self) -> None:
        """Until all first trials have started, each pauses at its first rung."""
        running = replace(curve(0, 0.7, 0.3, "running", 2), until_epoch=2)
        assert make_engine(start_trials=3).continue_trial([running], 0).until_epoch is None


class TestProposal:
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_finds_the_optimum(self, sign: float) -> None:
        """After a few dozen complete trials, the proposals are close to the best configuration."""
        engine = make_engine(direction="maximize" if sign > 0 else "minimize")
        curves: list[TrialCurve] = []
        for number in range(24):
            params = engine.propose(curves, number)
            a, b = float(params["a"] or 0), float(params["b"] or 0)
            curves.append(curve(number, a, b, "complete", EPOCHS, sign))
        best = engine.pick(curves)
        assert best is not None
        assert final(dict(curves[best].params)) > 0.995  # type: ignore[arg-type]

    def test_workers_look_elsewhere(self) -> None:
        """The proposal takes running trials into account: it moves away from one at that place."""
        alone = make_engine().propose(some(), 7)
        running = TrialCurve(6, alone, {}, "running", until_epoch=2)
        beside = make_engine().propose([*some(), running], 7)
        assert beside != alone


class TestGain:
    def test_unit(self) -> None:
        """The expected gain is in the metric's unit, and shrinks where the optimum is known."""
        open_gain = make_engine().expect_gain(some())
        known = [
            curve(number, 0.7 + x / 20, 0.3 + y / 20, "complete", EPOCHS)
            for number, (x, y) in enumerate((x, y) for x in range(-3, 4) for y in range(-3, 4))
        ]
        settled = make_engine().expect_gain(known)
        assert open_gain is not None
        assert settled is not None
        assert 0 <= settled.metric < open_gain.metric < 1

    def test_too_early(self) -> None:
        """Nothing is expected before three trials are complete."""
        assert make_engine().expect_gain(some(complete=2)) is None


def ranks(curves: Sequence[TrialCurve]) -> list[int]:
    """The paused trials by promise."""
    return make_engine().rank_paused(curves)


class TestRank:
    def test_paused(self) -> None:
        """The paused trial nearest the best complete one is the most promising."""
        assert ranks(some())[0] == 4
        assert ranks([curve(0, 0.5, 0.5, "complete", EPOCHS)]) == []
