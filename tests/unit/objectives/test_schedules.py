"""Schedules: the value of every epoch, by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.schedules import EpochValues, settled_from, values_at
from spaces.config import LossConfig, OptimizerConfig, ScheduleConfig, Stage, WeightsConfig
from spaces.errors import ConfigError
from spaces.presets import make_preset

LOSS = LossConfig(dice_weight=0.4, smooth=1.0)
OPTIMIZER = OptimizerConfig(base_lr=1.0, lr_multiple=0.3)
WEIGHTS = WeightsConfig(method="inverse_freq", clip_ratio=25.0)


def plan(
    schedule: ScheduleConfig,
    epochs: int = 30,
    loss: LossConfig = LOSS,
    weights: WeightsConfig = WEIGHTS,
    optimizer: OptimizerConfig = OPTIMIZER,
) -> dict[int, EpochValues]:
    """All epochs of a training."""
    every = range(1, epochs + 1)
    return {
        epoch: values_at(
            epoch, epochs=epochs, loss=loss, optimizer=optimizer, weights=weights, schedule=schedule
        )
        for epoch in every
    }


def planned(name: str) -> dict[int, EpochValues]:
    """A preset's 30 epochs."""
    given: dict[str, Any] = make_preset(name, 30)
    optimizer = OptimizerConfig(base_lr=1.0, **given["optimizer"])
    return plan(
        ScheduleConfig(**given["schedule"]),
        30,
        LossConfig(**given["loss"]),
        WeightsConfig(**given["weights"]),
        optimizer,
    )


class TestConstant:
    def test_no_schedule(self) -> None:
        """Without a schedule every epoch has the configuration's own values and is settled."""
        found = plan(ScheduleConfig())
        assert found[1] == EpochValues(1, 0.3, 0.6, 0.4, 1.0, 25.0, settled=True)
        assert all(values.settled and values.lr == 0.3 for values in found.values())

    def test_bad_epoch(self) -> None:
        """Epochs count from 1 to the last one; others are refused with the range."""
        for epoch in (0, 31):
            with pytest.raises(ConfigError, match="1 … 30"):
                values_at(
                    epoch,
                    epochs=30,
                    loss=LOSS,
                    optimizer=OPTIMIZER,
                    weights=WEIGHTS,
                    schedule=ScheduleConfig(),
                )


class TestDiceWarmup:
    def test_five_and_ten(self) -> None:
        """Cross entropy alone for 5 epochs, then a tenth of the final split more each epoch."""
        found = plan(ScheduleConfig(dice_ce_only_epochs=5, dice_ramp_epochs=10))
        assert [found[epoch].dice_weight for epoch in (1, 5)] == [0, 0]
        assert [found[epoch].ce_weight for epoch in (1, 5)] == [1, 1]
        assert [found[epoch].dice_weight for epoch in (6, 10, 14)] == pytest.approx(
            [0.04, 0.2, 0.36]
        )
        assert (found[15].dice_weight, found[15].ce_weight) == (0.4, 0.6)
        assert [found[epoch].settled for epoch in (14, 15, 16)] == [False, True, True]

    def test_no_ramp(self) -> None:
        """Without a ramp the final split holds right after the epochs of cross entropy alone."""
        found = plan(ScheduleConfig(dice_ce_only_epochs=5))
        assert [found[epoch].dice_weight for epoch in (5, 6)] == [0, 0.4]
        assert [found[epoch].settled for epoch in (5, 6)] == [False, True]

    def test_ramp_alone(self) -> None:
        """A ramp without epochs of cross entropy alone starts with its first step in epoch 1."""
        assert plan(ScheduleConfig(dice_ramp_epochs=4))[1].dice_weight == pytest.approx(0.1)

    def test_without_dice(self) -> None:
        """A warm-up to a final share of 0 changes nothing, so every epoch is settled."""
        assert (
            settled_from(
                LossConfig(),
                OPTIMIZER,
                WEIGHTS,
                ScheduleConfig(dice_ce_only_epochs=5, dice_ramp_epochs=10),
                30,
            )
            == 1
        )

    @settings(deadline=None)
    @given(alone=st.integers(0, 12), ramp=st.integers(0, 12), share=st.floats(0, 1))
    def test_split_sums_to_one(self, alone: int, ramp: int, share: float) -> None:
        """The two shares sum to 1 in every epoch, and the Dice share never falls."""
        found = list(
            plan(
                ScheduleConfig(dice_ce_only_epochs=alone, dice_ramp_epochs=ramp),
                loss=LossConfig(dice_weight=share),
            ).values()
        )
        assert all(values.ce_weight + values.dice_weight == pytest.approx(1) for values in found)
        assert all(before.dice_weight <= after.dice_weight for before, after in pairwise(found))
        assert found[-1].dice_weight == share


class TestStages:
    SMOOTH = ScheduleConfig(
        stages=(Stage(before_epoch=10, smooth=10), Stage(before_epoch=20, smooth=5))
    )

    def test_smooth(self) -> None:
        """Smooth is 10 before epoch 10, 5 before epoch 20, then 1."""
        found = plan(self.SMOOTH)
        assert [found[epoch].smooth for epoch in (1, 9, 10, 19, 20, 30)] == [10, 10, 5, 5, 1, 1]
        assert [found[epoch].settled for epoch in (19, 20)] == [False, True]

    def test_first_that_names_it_wins(self) -> None:
        """A stage that names only some values leaves the others to a later stage."""
        found = plan(
            ScheduleConfig(
                stages=(
                    Stage(before_epoch=6, dice_weight=0),
                    Stage(before_epoch=16, dice_weight=0.2, smooth=5),
                )
            )
        )
        assert [found[epoch].dice_weight for epoch in (5, 6, 15, 16)] == [0, 0.2, 0.2, 0.4]
        assert [found[epoch].smooth for epoch in (5, 6, 15, 16)] == [5, 5, 5, 1]

    def test_two_stage_clip(self) -> None:
        """A light clip for the first 20 epochs, the configured one after."""
        found = plan(ScheduleConfig(stages=(Stage(before_epoch=21, clip_ratio=4),)))
        assert [found[epoch].clip_ratio for epoch in (1, 20, 21)] == [4, 4, 25]
        assert [found[epoch].settled for epoch in (20, 21)] == [False, True]

    def test_over_warmup(self) -> None:
        """A stage's Dice weight wins over the warm-up."""
        found = plan(
            ScheduleConfig(
                dice_ce_only_epochs=5,
                dice_ramp_epochs=5,
                stages=(Stage(before_epoch=4, dice_weight=0.2),),
            )
        )
        assert [found[epoch].dice_weight for epoch in (3, 4, 5)] == [0.2, 0, 0]

    def test_same_value_is_settled(self) -> None:
        """A stage that gives the final value unsettles nothing, nor does one for the learning rate."""
        stages = (Stage(before_epoch=10, smooth=1.0), Stage(before_epoch=20, lr_multiple=2.0))
        assert settled_from(LOSS, OPTIMIZER, WEIGHTS, ScheduleConfig(stages=stages), 30) == 1

    @settings(deadline=None, max_examples=200)
    @given(
        alone=st.integers(0, 8),
        ramp=st.integers(0, 8),
        stages=st.lists(
            st.builds(
                Stage,
                before_epoch=st.integers(2, 20),
                dice_weight=st.sampled_from([None, 0.0, 0.4]),
                smooth=st.sampled_from([None, 1.0, 5.0]),
                clip_ratio=st.sampled_from([None, 4.0, 25.0]),
            ),
            max_size=3,
        ),
    )
    def test_settled_by_definition(self, alone: int, ramp: int, stages: list[Stage]) -> None:
        """An epoch is settled when it and all later ones have the final split, smooth and clip ratio."""
        schedule = ScheduleConfig(
            dice_ce_only_epochs=alone, dice_ramp_epochs=ramp, stages=tuple(stages)
        )
        found = plan(schedule)
        final = [
            (values.ce_weight, values.dice_weight, values.smooth, values.clip_ratio)
            == (0.6, 0.4, 1.0, 25.0)
            for values in found.values()
        ]
        by_definition = [all(final[place:]) for place in range(len(final))]
        assert [values.settled for values in found.values()] == by_definition
        assert settled_from(LOSS, OPTIMIZER, WEIGHTS, schedule, 30) == by_definition.index(True) + 1

    def test_beyond_the_end(self) -> None:
        """A schedule longer than the training never settles, and says from where it would have."""
        schedule = ScheduleConfig(dice_ce_only_epochs=20, dice_ramp_epochs=20)
        assert settled_from(LOSS, OPTIMIZER, WEIGHTS, schedule, 30) == 40
        assert not plan(schedule)[30].settled


class TestLearningRate:
    def test_warmup_then_constant(self) -> None:
        """The rate rises by a fifth each epoch to its peak in epoch 5 and stays."""
        found = plan(ScheduleConfig(lr_warmup_epochs=5))
        assert [found[epoch].lr for epoch in (1, 2, 5, 6, 30)] == pytest.approx(
            [0.06, 0.12, 0.3, 0.3, 0.3]
        )

    def test_cosine(self) -> None:
        """The cosine leaves the peak after epoch 1 and would reach 0 one epoch after the last."""
        found = plan(ScheduleConfig(lr="cosine"), epochs=10)
        assert [found[epoch].lr / 0.3 for epoch in range(1, 11)] == pytest.approx(
            [(1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
        )

    def test_cosine_after_warmup(self) -> None:
        """The cosine starts from the last epoch of the warm-up, falls from there on, and trains the last epoch, too."""
        found = plan(ScheduleConfig(lr="cosine", lr_warmup_epochs=5))
        rates = [found[epoch].lr for epoch in range(5, 31)]
        assert rates[0] == pytest.approx(0.3)
        assert rates[13] == pytest.approx(0.15)
        assert all(before > after > 0 for before, after in pairwise(rates))

    @pytest.mark.parametrize("lr", ["constant", "cosine"])
    def test_warmup_as_long_as_training(self, lr: Literal["constant", "cosine"]) -> None:
        """A warm-up that covers the training leaves no room for anything else."""
        found = plan(ScheduleConfig(lr=lr, lr_warmup_epochs=30))
        assert found[30].lr == pytest.approx(0.3)
        assert found[15].lr == pytest.approx(0.15)

    def test_stage_multiple(self) -> None:
        """A stage's multiple replaces the optimizer's, also in the warm-up and the cosine."""
        found = plan(
            ScheduleConfig(lr_warmup_epochs=2, stages=(Stage(before_epoch=6, lr_multiple=0.5),))
        )
        assert [found[epoch].lr for epoch in (1, 5, 6)] == pytest.approx([0.25, 0.5, 0.3])

    def test_does_not_unsettle(self) -> None:
        """A moving learning rate leaves the loss as it is, so the epochs are settled."""
        assert all(
            values.settled
            for values in plan(ScheduleConfig(lr="cosine", lr_warmup_epochs=5)).values()
        )


class TestPresets:
    def test_safe(self) -> None:
        """The safe preset warms Dice up over 5 + 10 epochs and lowers smooth from 5 to 1 at epoch 10."""
        found = planned("safe")
        assert [found[epoch].dice_weight for epoch in (5, 10, 15)] == pytest.approx([0, 0.2, 0.4])
        assert [found[epoch].smooth for epoch in (9, 10)] == [5, 1]
        assert [found[epoch].settled for epoch in (14, 15)] == [False, True]

    def test_progressive(self) -> None:
        """The progressive preset trains 5 epochs of cross entropy at ×0.5, 10 at 0.8/0.2 and ×0.3, then 0.6/0.4."""
        found = planned("progressive")
        assert [found[epoch].dice_weight for epoch in (5, 6, 15, 16)] == [0, 0.2, 0.2, 0.4]
        assert [found[epoch].lr for epoch in (5, 6, 30)] == [0.5, 0.3, 0.3]
        assert [found[epoch].smooth for epoch in (15, 16)] == [5, 1]


class TestSmoothSteps:
    def test_documented(self) -> None:
        """Smooth is 10 before epoch 10, 5 before epoch 20, then the configured one; it is what the two stages written out give."""
        found = plan(ScheduleConfig(smooth_steps=True))
        assert [found[epoch].smooth for epoch in (1, 9, 10, 19, 20, 30)] == [10, 10, 5, 5, 1, 1]
        assert [found[epoch].settled for epoch in (19, 20)] == [False, True]
        assert found == plan(TestStages.SMOOTH)
        assert settled_from(LOSS, OPTIMIZER, WEIGHTS, ScheduleConfig(smooth_steps=True), 30) == 20

    @pytest.mark.parametrize(
        ("epochs", "ends"),
        [(60, (10, 20)), (30, (10, 20)), (15, (5, 10)), (6, (2, 4)), (3, (2, 2))],
    )
    def test_scaled(self, epochs: int, ends: tuple[int, int]) -> None:
        """A training of fewer than 30 epochs scales the steps down, so that the final value is still reached."""
        smooths = [
            values.smooth for values in plan(ScheduleConfig(smooth_steps=True), epochs).values()
        ]
        expected = [
            10 if epoch < ends[0] else 5 if epoch < ends[1] else 1 for epoch in range(1, epochs + 1)
        ]
        assert smooths == expected
        assert smooths[-1] == 1

    def test_only_smooth(self) -> None:
        """Nothing else moves."""
        found = plan(ScheduleConfig(smooth_steps=True)).values()
        assert {
            (values.lr, values.ce_weight, values.dice_weight, values.clip_ratio) for values in found
        } == {(0.3, 0.6, 0.4, 25.0)}

    def test_written_out_wins(self) -> None:
        """A stage that is written out wins over the named steps."""
        found = plan(ScheduleConfig(smooth_steps=True, stages=(Stage(before_epoch=5, smooth=2.0),)))
        assert [found[epoch].smooth for epoch in (4, 5, 10, 20)] == [2, 10, 5, 1]


class TestLightClip:
    def test_two_stages(self) -> None:
        """A light clip for so many epochs, the configured one after; by default the light one is 4."""
        found = plan(ScheduleConfig(light_clip_epochs=20))
        assert [found[epoch].clip_ratio for epoch in (1, 20, 21, 30)] == [4, 4, 25, 25]
        assert [found[epoch].settled for epoch in (20, 21)] == [False, True]
        assert found == plan(ScheduleConfig(stages=(Stage(before_epoch=21, clip_ratio=4),)))

    def test_ratio(self) -> None:
        """The light ratio is the configured one, also where there is no bound after."""
        found = plan(
            ScheduleConfig(light_clip_epochs=2, light_clip_ratio=7.5),
            weights=WeightsConfig(method="inverse_freq"),
        )
        assert [found[epoch].clip_ratio for epoch in (1, 2, 3)] == [7.5, 7.5, None]

    def test_off(self) -> None:
        """No epochs of it are none."""
        assert plan(ScheduleConfig(light_clip_epochs=0, light_clip_ratio=2.0)) == plan(
            ScheduleConfig()
        )

    def test_settled_from(self) -> None:
        """The first settled epoch is the one after; beyond the training where the light stage covers all of it; 1 where both ratios are the same."""
        for epochs, expected in ((20, 21), (40, 41)):
            assert (
                settled_from(LOSS, OPTIMIZER, WEIGHTS, ScheduleConfig(light_clip_epochs=epochs), 30)
                == expected
            )
        assert (
            settled_from(
                LOSS,
                OPTIMIZER,
                WEIGHTS,
                ScheduleConfig(light_clip_epochs=20, light_clip_ratio=25.0),
                30,
            )
            == 1
        )


class TestPlan:
    @pytest.mark.parametrize("epochs", [30, 60, 12, 6, 3])
    def test_is_the_preset(self, epochs: int) -> None:
        """With ×0.3 and a Dice share of 0.4 the progressive plan has the progressive preset's numbers, epoch by epoch."""
        given: dict[str, Any] = make_preset("progressive", epochs)
        optimizer = OptimizerConfig(base_lr=1.0, **given["optimizer"])
        loss, weights = LossConfig(**given["loss"]), WeightsConfig(**given["weights"])
        assert (loss.dice_weight, optimizer.lr_multiple) == (0.4, 0.3)
        preset_s = plan(ScheduleConfig(**given["schedule"]), epochs, loss, weights, optimizer)
        assert (
            plan(ScheduleConfig(plan="progressive"), epochs, loss, weights, optimizer) == preset_s
        )

    def test_relative(self) -> None:
        """With other final values the plan moves along: 5/3 of the rate without Dice, then half the Dice share with smooth 5, then the final values."""
        loss, optimizer = (
            LossConfig(dice_weight=0.6, smooth=2.0),
            OptimizerConfig(base_lr=1.0, lr_multiple=0.9),
        )
        found = plan(ScheduleConfig(plan="progressive"), loss=loss, optimizer=optimizer)
        phases = [
            (found[epoch].dice_weight, found[epoch].smooth, round(found[epoch].lr, 12))
            for epoch in (1, 5, 6, 15, 16, 30)
        ]
        assert phases == [
            (0, 5, 1.5),
            (0, 5, 1.5),
            (0.3, 5, 0.9),
            (0.3, 5, 0.9),
            (0.6, 2, 0.9),
            (0.6, 2, 0.9),
        ]
        assert all(
            values.ce_weight + values.dice_weight == pytest.approx(1) for values in found.values()
        )
        assert settled_from(loss, optimizer, WEIGHTS, ScheduleConfig(plan="progressive"), 30) == 16

    def test_under_the_cosine(self) -> None:
        """The plan's rates are peaks, which warm-up and cosine scale as they scale any."""
        found, bare = (
            plan(ScheduleConfig(plan="progressive", lr="cosine", lr_warmup_epochs=3)),
            plan(ScheduleConfig(lr="cosine", lr_warmup_epochs=3)),
        )
        assert [found[epoch].lr / bare[epoch].lr for epoch in (1, 5, 6, 30)] == pytest.approx(
            [5 / 3, 5 / 3, 1, 1]
        )

    def test_together(self) -> None:
        """With all named schedules the plan's smooth comes first, then the steps; the clip is independent."""
        schedule = ScheduleConfig(plan="progressive", smooth_steps=True, light_clip_epochs=18)
        found = plan(schedule)
        assert [found[epoch].smooth for epoch in (1, 15, 16, 19, 20)] == [5, 5, 5, 5, 1]
        assert [found[epoch].clip_ratio for epoch in (18, 19)] == [4, 25]
        assert (
            [values.settled for values in found.values()].index(True) + 1
            == settled_from(LOSS, OPTIMIZER, WEIGHTS, schedule, 30)
            == 20
        )

    @given(
        plan_name=st.sampled_from(["none", "progressive"]),
        steps=st.booleans(),
        light=st.integers(0, 12),
        alone=st.integers(0, 5),
        epochs=st.integers(1, 40),
        share=st.sampled_from([0.0, 0.4]),
        smooth=st.sampled_from([1.0, 5.0]),
    )
    def test_settled_by_definition(
        self,
        plan_name: Literal["none", "progressive"],
        steps: bool,
        light: int,
        alone: int,
        epochs: int,
        share: float,
        smooth: float,
    ) -> None:
        """Whatever is named, an epoch is settled when it and all later ones have the final split, clip ratio and, where Dice takes part, smooth."""
        schedule = ScheduleConfig(
            plan=plan_name, smooth_steps=steps, light_clip_epochs=light, dice_ce_only_epochs=alone
        )
        loss = LossConfig(dice_weight=share, smooth=smooth)
        found = plan(schedule, epochs, loss)
        final = [
            (values.dice_weight, values.clip_ratio) == (share, 25.0)
            and (not share or values.smooth == smooth)
            for values in found.values()
        ]
        assert [values.settled for values in found.values()] == [
            all(final[place:]) for place in range(epochs)
        ]
        first = settled_from(loss, OPTIMIZER, WEIGHTS, schedule, epochs)
        assert first == next((place + 1 for place in range(epochs) if all(final[place:])), first)
        assert first > epochs or found[first].settled


class TestTakesPart:
    @pytest.mark.parametrize(
        ("loss", "weights", "schedule", "settled"),
        [
            (LossConfig(), WEIGHTS, ScheduleConfig(smooth_steps=True), 1),
            (LOSS, WEIGHTS, ScheduleConfig(smooth_steps=True), 20),
            (
                LossConfig(dice_weight=0.4, overlap="lovasz"),
                WEIGHTS,
                ScheduleConfig(smooth_steps=True),
                1,
            ),
            (LOSS, WeightsConfig(), ScheduleConfig(light_clip_epochs=20), 1),
            (LOSS, WEIGHTS, ScheduleConfig(light_clip_epochs=20), 21),
            (LossConfig(kind="soft_ce"), WEIGHTS, ScheduleConfig(light_clip_epochs=20), 1),
        ],
    )
    def test_settled(
        self, loss: LossConfig, weights: WeightsConfig, schedule: ScheduleConfig, settled: int
    ) -> None:
        """A smooth without an overlap that uses it, or a clip ratio without weights, unsettles nothing."""
        assert settled_from(loss, OPTIMIZER, weights, schedule, 30) == settled
