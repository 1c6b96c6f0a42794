"""The confusion matrix and its metrics against counting pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives.losses import softmax
from objectives.training.metrics import ConfusionMatrix, _count_values_by_scatter, count_values
from spaces.errors import ConfigError

IGNORED = 255


def counted(prediction: list[int], target: list[int], classes: int) -> ConfusionMatrix:
    """A matrix of one row of pixels."""
    matrix = ConfusionMatrix(classes, IGNORED)
    matrix.update(torch.tensor([prediction]), torch.tensor([target]))
    return matrix


def by_loop(prediction: Tensor, target: Tensor, classes: int) -> list[list[int]]:
    """The matrix, one pixel after the other."""
    counts = [[0] * classes for _ in range(classes)]
    for true, guess in zip(target.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != IGNORED and 0 <= true < classes:
            counts[true][guess] += 1
    return counts


class TestCounting:
    @settings(deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        classes=st.integers(1, 6),
        dtype=st.sampled_from([torch.uint8, torch.int32, torch.int64]),
    )
    def test_against_loop(self, seed: int, classes: int, dtype: torch.dtype) -> None:
        """Counts are those of a loop over pixels, over several batches, with ignored and impossible labels left out."""
        random = torch.Generator().manual_seed(seed)
        matrix, expected, bad = (
            ConfusionMatrix(classes, IGNORED),
            torch.zeros(classes, classes, dtype=torch.int64),
            0,
        )
        for _ in range(2):
            prediction = torch.randint(classes, (2, 3, 4), generator=random)
            target = torch.randint(classes + 2, (2, 3, 4), generator=random)
            target = torch.where(target == classes, IGNORED, target).to(dtype)
            matrix.update(prediction, target)
            expected += torch.tensor(by_loop(prediction, target, classes))
            bad += int((target == classes + 1).sum())
        assert matrix.matrix().tolist() == expected.tolist()
        assert matrix.bad_targets() == bad

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_logits(self, dtype: torch.dtype) -> None:
        """Logits of any float type count like their largest class."""
        logits_NCHW = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        target_NHW = torch.randint(4, (2, 5, 6), generator=torch.Generator().manual_seed(1))
        from_logits, from_classes = ConfusionMatrix(4, IGNORED), ConfusionMatrix(4, IGNORED)
        from_logits.update(logits_NCHW, target_NHW)
        from_classes.update(logits_NCHW.argmax(1), target_NHW)
        assert torch.equal(from_logits.matrix(), from_classes.matrix())

    @given(
        seed=st.integers(0, 2**31),
        classes=st.integers(1, 6),
        length=st.integers(0, 9),
        piece=st.integers(1, 40),
        last=st.booleans(),
        dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    )
    def test_first_of_the_largest(
        self, seed: int, classes: int, length: int, piece: int, last: bool, dtype: torch.dtype
    ) -> None:
        """Of logits the first of the largest counts, as argmax has it, ties and infinities included, wherever they lie in memory and however they are cut."""
        random = torch.Generator().manual_seed(seed)
        values = torch.tensor([-torch.inf, -1.0, 0.0, 1.0, torch.inf])
        logits_NCL = values[torch.randint(5, (2, classes, length), generator=random)].to(dtype)
        target_NL = torch.randint(classes, (2, length), generator=random)
        if last:
            logits_NCL = logits_NCL.transpose(1, 2).contiguous().transpose(1, 2)
        matrix = ConfusionMatrix(classes, IGNORED)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(softmax, "PIECE_BYTES", 4 * piece)
            matrix.update(logits_NCL, target_NL)
        assert matrix.matrix().tolist() == by_loop(logits_NCL.argmax(1), target_NL, classes)

    @pytest.mark.parametrize("classes", [255, 256, 300])
    def test_many_classes(self, classes: int) -> None:
        """More classes than a byte can rank are distinguished as well."""
        logits_NCL, target_NL = (
            torch.randn(1, classes, 7, generator=torch.Generator().manual_seed(0)),
            torch.zeros(1, 7, dtype=torch.int64),
        )
        matrix = ConfusionMatrix(classes, IGNORED)
        matrix.update(logits_NCL, target_NL)
        assert (
            matrix.matrix()[0].tolist()
            == torch.bincount(logits_NCL.argmax(1)[0], minlength=classes).tolist()
        )

    def test_nan(self) -> None:
        """Where no logit is a number some class counts, and nothing breaks."""
        matrix = ConfusionMatrix(3, IGNORED)
        matrix.update(torch.full((1, 3, 2, 2), math.nan), torch.zeros(1, 2, 2, dtype=torch.int64))
        assert matrix.matrix().sum() == 4

    def test_text(self) -> None:
        """Samples without height and width count, too, and −100 can be the ignored label."""
        matrix = ConfusionMatrix(3, -100)
        matrix.update(torch.eye(3), torch.tensor([0, 2, -100]))
        assert matrix.matrix().tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
        assert matrix.bad_targets() == 0

    @pytest.mark.parametrize("label", [-1, 3, 254, 2**40])
    def test_bad_label(self, label: int) -> None:
        """A label that is no class is counted as bad and reaches no metric."""
        matrix = counted([0, 1], [0, label], 3)
        assert matrix.bad_targets() == 1
        assert matrix.pixel_accuracy() == 1

    def test_scatter_is_histogram(self) -> None:
        """The way of counting that never waits for the device gives the same counts."""
        index_P = torch.randint(20, (1000,), generator=torch.Generator().manual_seed(0))
        assert torch.equal(_count_values_by_scatter(index_P, 24), count_values(index_P, 24))


class TestMetrics:
    def test_by_hand(self) -> None:
        """IoU, F1 and accuracy of six pixels, one of them ignored."""
        matrix = counted([0, 0, 1, 1, 2, 0], [0, 0, 0, 1, 1, IGNORED], 3)
        assert list(matrix.iou()) == [pytest.approx(2 / 3), pytest.approx(1 / 3), None]
        assert list(matrix.f1()) == [pytest.approx(0.8), pytest.approx(0.5), None]
        assert matrix.mean_iou() == pytest.approx(0.5)
        assert matrix.macro_f1() == pytest.approx(0.65)
        assert matrix.pixel_accuracy() == pytest.approx(0.6)

    def test_missed_class(self) -> None:
        """A class in the split that no prediction hits has 0, not None."""
        matrix = counted([0, 0], [0, 1], 2)
        assert matrix.iou() == (0.5, 0.0)
        assert matrix.mean_iou() == 0.25

    def test_perfect(self) -> None:
        """Predictions that are all right score 1 everywhere."""
        matrix = counted([0, 1, 2], [0, 1, 2], 3)
        assert (matrix.mean_iou(), matrix.macro_f1(), matrix.pixel_accuracy()) == (1, 1, 1)

    def test_nothing_valid(self) -> None:
        """A split without a valid pixel has no metric: None for every class and NaN for the means."""
        matrix = counted([0, 1], [IGNORED, IGNORED], 2)
        assert matrix.iou() == matrix.f1() == (None, None)
        assert all(
            math.isnan(value)
            for value in (matrix.mean_iou(), matrix.macro_f1(), matrix.pixel_accuracy())
        )

    def test_empty_batch(self) -> None:
        """A batch without an image changes nothing."""
        matrix = ConfusionMatrix(3, IGNORED)
        matrix.update(torch.zeros(0, 3, 2, 2), torch.zeros(0, 2, 2, dtype=torch.uint8))
        assert matrix.matrix().sum() == 0

    @settings(deadline=None)
    @given(seed=st.integers(0, 2**31), order=st.permutations(range(4)))
    def test_permutation(self, seed: int, order: list[int]) -> None:
        """Renaming the classes permutes the IoUs and keeps their mean."""
        random = torch.Generator().manual_seed(seed)
        prediction, target = (
            torch.randint(4, (2, 3, 4), generator=random),
            torch.randint(3, (2, 3, 4), generator=random),
        )
        straight, renamed = ConfusionMatrix(4, IGNORED), ConfusionMatrix(4, IGNORED)
        straight.update(prediction, target)
        renamed.update(torch.tensor(order)[prediction], torch.tensor(order)[target])
        assert tuple(renamed.iou()[place] for place in order) == straight.iou()
        assert renamed.mean_iou() == pytest.approx(straight.mean_iou())


class TestBadInput:
    def test_class_number(self) -> None:
        """Logits of another number of classes are refused with both shapes."""
        with pytest.raises(ConfigError, match=r"\(2, 5, 3\).*\(2, 4, 3\)"):
            ConfusionMatrix(4, IGNORED).update(
                torch.zeros(2, 5, 3), torch.zeros(2, 3, dtype=torch.int64)
            )

    def test_shape(self) -> None:
        """Predictions of another shape than the target are refused with both shapes."""
        with pytest.raises(ConfigError, match=r"\(2, 3\).*\(2, 4\)"):
            ConfusionMatrix(4, IGNORED).update(
                torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int64)
            )

    def test_no_class(self) -> None:
        """A matrix of no class is refused."""
        with pytest.raises(ConfigError, match="0"):
            ConfusionMatrix(0, IGNORED)
