"""Figures of the data that an epoch trained on: by hand, within an epoch, and without waiting."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.training import metrics
from objectives.training.data_figures import MOST_TARGETS, DataFigures, read_figures
from spaces.records import InputFigures
from tests.unit.objectives.training.test_no_waiting import NoWaiting


def images() -> Tensor:
    """Two images of two channels and 2 × 2 pixels; the second image is constant."""
    first = [[[0.0, 1.0], [2.0, 3.0]], [[5.0, 5.0], [5.0, 1.0]]]
    return torch.tensor([first, [[[3.0, 3.0], [3.0, 3.0]]] * 2])


def figures_of(*batches: Tensor) -> InputFigures | None:
    """Figures of these batches."""
    data = DataFigures()
    for batch in batches:
        data.add_inputs(batch)
    return read_figures(data, DataFigures())[0]


class TestInputs:
    def test_by_hand(self) -> None:
        """Mean, deviation, shares at the limits per channel, and the share of constant images."""
        found = figures_of(images())
        assert found is not None
        assert found.mean == pytest.approx((18 / 8, 28 / 8))
        deviations = (50 / 8 - (18 / 8) ** 2, 112 / 8 - (28 / 8) ** 2)
        assert found.deviation == pytest.approx(tuple(map(math.sqrt, deviations)))
        assert found.at_minimum == (1 / 8, 1 / 8)
        assert found.at_maximum == (5 / 8, 3 / 8)
        assert found.constant == 0.5

    def test_mean_of_batches(self) -> None:
        """Several batches have the mean of their shares and one deviation."""
        found = figures_of(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        assert found == InputFigures((0.5,), (0.5,), (1.0,), (1.0,), 1.0)

    def test_constant_channel(self) -> None:
        """A channel of one value has no deviation, whatever the value."""
        found = figures_of(*(torch.full((8, 1, 40, 40), -75 / 45) for _ in range(4)))
        assert found is not None
        assert found.deviation[0] < 1e-6

    @pytest.mark.parametrize("odd", [torch.tensor([[1, 2]]), torch.full((1, 1, 2, 2), math.nan)])
    def test_none(self, odd: Tensor) -> None:
        """Texts, and images that are not finite, have no figures."""
        assert figures_of(odd) is None


class TestTargets:
    def test_by_hand(self) -> None:
        """Ignored and bad labels are left out, and an absent class has the share 0."""
        data = DataFigures()
        data.add_targets(torch.tensor([[[0, 0], [0, 2]]]), 3, 255)
        data.add_targets(torch.tensor([[[255, 9], [-1, 2]]]), 3, 255)
        assert read_figures(data, DataFigures())[2] == (0.6, 0.0, 0.4)

    def test_nothing_valid(self) -> None:
        """Without a valid target there are no shares."""
        data = DataFigures()
        data.add_targets(torch.full((2, 3), 255), 3, 255)
        assert read_figures(data, DataFigures())[2] == ()

    def test_many(self) -> None:
        """Of a large batch, evenly spaced targets are counted, in every column."""
        target = torch.arange(16).expand(8, MOST_TARGETS // 16, 16)
        data = DataFigures()
        data.add_targets(target, 16, 255)
        assert data.targets is not None
        assert int(data.targets.sum()) <= MOST_TARGETS
        assert read_figures(data, DataFigures())[2] == pytest.approx((1 / 16,) * 16, rel=0.01)


class TestEpoch:
    def test_resumed(self) -> None:
        """A state within an epoch continues to the same figures, also where it was empty."""
        whole = DataFigures.from_state(DataFigures().state(), torch.device("cpu"))
        batches = [torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)]
        whole.add_inputs(batches[0])
        whole.add_targets(torch.tensor([0, 1]), 2, 255)
        half = DataFigures.from_state(whole.state(), torch.device("cpu"))
        for data in (whole, half):
            data.add_inputs(batches[1])
            data.add_targets(torch.tensor([1, 1]), 2, 255)
        assert read_figures(whole, DataFigures()) == read_figures(half, DataFigures())

    def test_older_checkpoint(self) -> None:
        """A checkpoint of an older version has no figures; they start where it resumes."""
        assert DataFigures.from_state({}, torch.device("cpu")) == DataFigures()

    def test_first_batches(self) -> None:
        """All batches pass through, and the first ones are measured."""
        data = DataFigures()
        given = [(torch.full((1, 1, 2, 2), float(value)), torch.zeros(1)) for value in range(4)]
        assert len(list(data.watch_inputs(given, 2))) == 4
        assert data.batches == 2

    def test_no_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A step does not wait for the device, the way it counts on CUDA."""
        monkeypatch.setattr(
            "objectives.training.data_figures.count_values", metrics._count_values_by_scatter
        )
        data = DataFigures()
        with NoWaiting():
            data.add_inputs(images())
            data.add_targets(torch.tensor([[0, 1], [255, 9]]), 3, 255)
