"""The presets: their documented values from 30 epochs on, and all of them in shorter studies."""

from __future__ import annotations

from typing import Any

import pytest

from objectives.schedules import EpochValues, settled_from, values_at
from objectives.segmentation.config import SegmentationConfig
from spaces.errors import StudyError
from spaces.presets import PRESETS, make_preset

ALL = sorted(PRESETS)


def configured(name: str, epochs: int, *, focal: bool = False) -> Any:
    """Make the complete configuration of a preset, with a base rate of 1."""
    config = make_preset(name, epochs, focal=focal)
    return SegmentationConfig.model_validate(
        config | {"epochs": epochs, "optimizer": {**config["optimizer"], "base_lr": 1.0}}
    )


def course(name: str, epochs: int) -> dict[int, EpochValues]:
    """Return the values of a preset, epoch by epoch."""
    config = configured(name, epochs)
    return {
        epoch: values_at(
            epoch,
            epochs=epochs,
            loss=config.loss,
            optimizer=config.optimizer,
            weights=config.weights,
            schedule=config.schedule,
        )
        for epoch in range(1, epochs + 1)
    }


@pytest.mark.parametrize("epochs", [30, 31, 100])
class TestDocumented:
    def test_safe(self, epochs: int) -> None:
        """`safe` warms Dice up over 5 + 10 epochs to 0.6/0.4, with smooth 5 until epoch 10."""
        config, values = configured("safe", epochs), course("safe", epochs)
        assert (config.weights.method, config.weights.clip_ratio) == ("sqrt_inv_freq", 100)
        assert (config.loss.kind, config.loss.square_denominator, config.batch_size) == (
            "ce",
            True,
            8,
        )
        assert (config.optimizer.lr_multiple, config.optimizer.grad_clip_norm) == (0.3, 1)
        assert [round(values[epoch].dice_weight, 9) for epoch in (1, 5, 6, 10, 14, 15, 30)] == [
            0,
            0,
            0.04,
            0.2,
            0.36,
            0.4,
            0.4,
        ]
        assert (values[15].ce_weight, values[30].ce_weight) == (0.6, 0.6)
        assert [values[epoch].smooth for epoch in (1, 9, 10, 30)] == [5, 5, 1, 1]
        assert {values[epoch].lr for epoch in values} == {0.3}

    def test_progressive(self, epochs: int) -> None:
        """`progressive` has 5 epochs of cross entropy at lr × 0.5, 10 of 0.8/0.2, then 0.6/0.4."""
        config, values = configured("progressive", epochs), course("progressive", epochs)
        assert config.weights.method != "uniform"
        assert {
            (values[epoch].ce_weight, values[epoch].dice_weight, values[epoch].lr)
            for epoch in range(1, 6)
        } == {(1, 0, 0.5)}
        assert {
            (
                values[epoch].ce_weight,
                values[epoch].dice_weight,
                values[epoch].smooth,
                values[epoch].lr,
            )
            for epoch in range(6, 16)
        } == {(0.8, 0.2, 5, 0.3)}
        assert {
            (
                values[epoch].ce_weight,
                values[epoch].dice_weight,
                values[epoch].smooth,
                values[epoch].lr,
            )
            for epoch in range(16, epochs + 1)
        } == {(0.6, 0.4, 1, 0.3)}

    def test_recommended(self, epochs: int) -> None:
        """`recommended` is 0.7/0.3 with smooth 5 and lr × 0.3, the same in every epoch."""
        config, values = configured("recommended", epochs), course("recommended", epochs)
        assert (
            config.weights.method,
            config.weights.clip_ratio,
            config.loss.square_denominator,
        ) == ("sqrt_inv_freq", 100, True)
        assert config.optimizer.grad_clip_norm == 1
        assert {
            (one.ce_weight, one.dice_weight, one.smooth, one.lr, one.clip_ratio)
            for one in values.values()
        } == {(0.7, 0.3, 5, 0.3, 100)}

    def test_untuned(self, epochs: int) -> None:
        """`untuned` is plain cross entropy at the base rate."""
        config, values = configured("untuned", epochs), course("untuned", epochs)
        assert (config.weights.method, config.loss.kind, config.optimizer.grad_clip_norm) == (
            "uniform",
            "ce",
            None,
        )
        assert {(one.ce_weight, one.dice_weight, one.lr) for one in values.values()} == {(1, 0, 1)}


class TestScaled:
    @pytest.mark.parametrize("epochs", [*range(3, 31), 60])
    @pytest.mark.parametrize("name", ALL)
    def test_settles(self, name: str, epochs: int) -> None:
        """From three epochs on the final CE/Dice weights, smooth and clip ratio are reached."""
        config = configured(name, epochs)
        assert (
            settled_from(config.loss, config.optimizer, config.weights, config.schedule, epochs)
            <= epochs
        )

    @pytest.mark.parametrize("epochs", range(1, 31))
    def test_proportional(self, epochs: int) -> None:
        """Every phase keeps its share of the training, rounded down, and has at least one epoch."""
        schedule = make_preset("safe", epochs)["schedule"]
        assert schedule["dice_ce_only_epochs"] == max(1, 5 * epochs // 30)
        assert schedule["dice_ramp_epochs"] == max(1, 10 * epochs // 30)
        assert schedule["stages"][0]["before_epoch"] == 1 + max(1, 9 * epochs // 30)
        assert [
            stage["before_epoch"]
            for stage in make_preset("progressive", epochs)["schedule"]["stages"]
        ] == [
            1 + max(1, 5 * epochs // 30),
            1 + max(1, 5 * epochs // 30) + max(1, 10 * epochs // 30),
        ]


class TestFocal:
    @pytest.mark.parametrize("epochs", [3, 30])
    @pytest.mark.parametrize("focal", [False, True])
    def test_text(self, epochs: int, focal: bool) -> None:
        """`text` is a focal loss with gamma 2, alpha by inverse frequency and smoothed labels."""
        config = configured("text", epochs, focal=focal)
        assert (
            config.loss.kind,
            config.loss.gamma,
            config.loss.alpha_tau,
            config.loss.label_smoothing,
            config.loss.dice_weight,
        ) == ("focal", 2, 1, 0.1, 0)
        assert (config.schedule.lr, config.early_stopping_patience, config.weights.method) == (
            "cosine",
            3,
            "uniform",
        )

    @pytest.mark.parametrize("name", [name for name in ALL if name != "text"])
    def test_cross_entropy(self, name: str) -> None:
        """Written as focal loss, a preset has gamma 0 and alpha 1, and is otherwise the same."""
        plain, focal = configured(name, 30), configured(name, 30, focal=True)
        assert (focal.loss.kind, focal.loss.gamma, focal.loss.alpha, focal.loss.alpha_tau) == (
            "focal",
            0,
            None,
            0,
        )
        assert focal.model_copy(update={"loss": plain.loss}) == plain


class TestPreset:
    def test_unknown(self) -> None:
        """An unknown name is refused with the nearest one and all names."""
        with pytest.raises(
            StudyError, match=r"unknown preset 'save' \(did you mean 'safe'\?\)"
        ) as caught:
            make_preset("save", 30)
        assert all(name in caught.value.allowed for name in ALL)

    @pytest.mark.parametrize("name", ALL)
    def test_fresh(self, name: str) -> None:
        """Each call returns a new tree, which the caller may change."""
        make_preset(name, 30)["loss"].clear()
        assert make_preset(name, 30)["loss"]
