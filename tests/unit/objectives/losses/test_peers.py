"""Other libraries' losses where they mean the same, and, where they do not, the very factor or term by which they differ.

Torch's cross entropy and the plain case of segmentation_models_pytorch's Dice are with the losses themselves, in `test_losses`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import segmentation_models_pytorch.losses as smp
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from objectives.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LibraryLoss
from tests.unit.objectives.losses.references import IGNORED, Loss, batch, gradient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI warns of its own optional packages
    import kornia.losses as kornia
    import monai.losses as monai

torch.set_num_threads(1)

GAMMAS = [0.0, 0.5, 2.0, 3.0]
every_gamma = pytest.mark.parametrize("gamma", GAMMAS)


def assert_peer(ours: Loss, theirs: Loss, logits: Tensor, target: Tensor) -> None:
    """Value and gradient to float32's digits, which is what most peers compute in."""
    torch.testing.assert_close(
        ours(logits, target), theirs(logits, target), rtol=2e-6, atol=1e-7, check_dtype=False
    )
    torch.testing.assert_close(
        gradient(ours, logits, target), gradient(theirs, logits, target), rtol=1e-5, atol=1e-7
    )


def two_classes(seed: int, ignored: float = 0.0) -> tuple[Tensor, Tensor]:
    """One score z an element, and labels 0 and 1: softmax of (0, z) is the sigmoid of z."""
    logits, target = batch(seed, (3, 2, 4, 5), ignored, torch.float32)
    return logits[:, 1:].detach().requires_grad_(), target


def as_softmax(loss: Loss) -> Loss:
    """A loss of two classes as one of the second class's score alone."""
    return lambda z, target: loss(torch.cat([torch.zeros_like(z), z], 1), target)


class TestSigmoidFocal:
    @every_gamma
    @pytest.mark.parametrize("alpha", [None, 0.25, 0.8])
    def test_torchvision(self, gamma: float, alpha: float | None) -> None:
        """Torchvision's: of two classes, with alpha for class 1 and 1 − alpha for class 0."""
        ours = FocalLoss(gamma, None if alpha is None else [1 - alpha, alpha])
        assert_peer(
            as_softmax(ours),
            lambda z, t: sigmoid_focal_loss(
                z, t.unsqueeze(1).float(), -1 if alpha is None else alpha, gamma, "mean"
            ),
            *two_classes(1),
        )

    @every_gamma
    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("ignored", [0.0, 0.3])
    def test_smp(self, gamma: float, alpha: float | None, ignored: float) -> None:
        """Segmentation_models_pytorch's in its binary mode, ignored pixels included."""
        ours = FocalLoss(gamma, None if alpha is None else [1 - alpha, alpha], ignore_index=IGNORED)
        theirs = smp.FocalLoss("binary", alpha=alpha, gamma=gamma, ignore_index=IGNORED)
        assert_peer(as_softmax(ours), theirs, *two_classes(2, ignored))

    @every_gamma
    @pytest.mark.parametrize("alpha", [None, 0.25])
    def test_monai(self, gamma: float, alpha: float | None) -> None:
        """MONAI's, as it comes."""
        ours, theirs = (
            FocalLoss(gamma, None if alpha is None else [1 - alpha, alpha]),
            monai.FocalLoss(gamma=gamma, alpha=alpha),
        )
        assert_peer(as_softmax(ours), lambda z, t: theirs(z, t.unsqueeze(1)), *two_classes(3))

    @every_gamma
    def test_kornia(self, gamma: float) -> None:
        """Kornia's binary form."""
        theirs: Callable[..., Tensor] = kornia.binary_focal_loss_with_logits
        assert_peer(
            as_softmax(FocalLoss(gamma, [0.75, 0.25])),
            lambda z, t: theirs(z, t.unsqueeze(1), 0.25, gamma, "mean"),
            *two_classes(4),
        )

    def test_not_so_with_more_classes(self) -> None:
        """One-versus-rest over sigmoids, which smp's multiclass mode is, is another loss."""
        logits, target = batch(5, (2, 3, 4, 4), 0.0, torch.float32)
        theirs = smp.FocalLoss("multiclass", gamma=2.0)(logits, target)
        assert abs(float((FocalLoss(2.0)(logits, target) - theirs).detach())) > 1e-2


class TestSoftmaxFocal:
    @every_gamma
    def test_kornia(self, gamma: float) -> None:
        """Kornia's divides by the classes, too: C times that is ours."""
        assert_peer(
            FocalLoss(gamma),
            lambda x, t: 5 * kornia.focal_loss(x, t, None, gamma, "mean"),
            *batch(6, (2, 5, 3, 4), 0.0, torch.float32),
        )

    def test_kornia_alpha(self) -> None:
        """Its alpha is 1 − alpha for class 0 and alpha for every other."""
        ours = FocalLoss(2.0, [0.75, 0.25, 0.25])
        assert_peer(
            ours,
            lambda x, t: 3 * kornia.focal_loss(x, t, 0.25, 2.0, "mean"),
            *batch(7, (2, 3, 3, 4), 0.0, torch.float32),
        )

    def test_kornia_ignored(self) -> None:
        """It divides by ignored elements, too; ours by the valid ones."""
        logits, target = batch(8, (2, 5, 3, 4), 0.4, torch.float32)
        valid = float((target != IGNORED).float().mean())
        assert_peer(
            FocalLoss(2.0, ignore_index=IGNORED),
            lambda x, t: (
                5 / valid * kornia.focal_loss(x, t, None, 2.0, "mean", ignore_index=IGNORED)
            ),
            logits,
            target,
        )

    def test_kornia_weights(self) -> None:
        """Its class weights multiply and do not divide; ours are a weighted mean."""
        logits, target = batch(9, (2, 3, 4, 4), 0.0, torch.float32)
        weight = torch.tensor([0.2, 1.0, 1.8])
        mean = float(weight[target].mean())
        assert_peer(
            FocalLoss(2.0, weight=weight),
            lambda x, t: 3 / mean * kornia.focal_loss(x, t, None, 2.0, "mean", weight),
            logits,
            target,
        )

    @every_gamma
    def test_monai(self, gamma: float) -> None:
        """MONAI's over a softmax divides by the classes, too."""
        theirs = monai.FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True)
        assert_peer(
            FocalLoss(gamma),
            lambda x, t: 4 * theirs(x, t.unsqueeze(1)),
            *batch(10, (2, 4, 3, 5), 0.0, torch.float32),
        )


class TestDice:
    @pytest.mark.parametrize("smooth", [1e-5, 1.0, 5.0])
    @pytest.mark.parametrize("square", [False, True])
    @pytest.mark.parametrize("whole", [False, True])
    def test_monai(self, smooth: float, square: bool, whole: bool) -> None:
        """MONAI's: per image, or over the batch with `batch=True`; absent classes are in its mean."""
        theirs = monai.DiceLoss(
            softmax=True,
            to_onehot_y=True,
            include_background=True,
            squared_pred=square,
            smooth_nr=smooth,
            smooth_dr=smooth,
            batch=whole,
        )
        ours = DiceLoss(
            smooth,
            square_denominator=square,
            reduction="global" if whole else "image",
            keep_absent=True,
        )
        logits, target = batch(11, (3, 5, 2, 3), 0.0, torch.float32)
        target[target == 4] = 0
        assert_peer(ours, lambda x, t: theirs(x, t.unsqueeze(1)), logits, target)

    def test_monai_without_background(self) -> None:
        """Leaving the background out of the mean leaves the other classes' scores as they are."""
        logits, target = batch(12, (1, 3, 6, 6), 0.0, torch.float32)
        without = monai.DiceLoss(
            softmax=True, to_onehot_y=True, include_background=False, smooth_nr=1.0, smooth_dr=1.0
        )(logits, target.unsqueeze(1))
        p = logits.softmax(1)
        scores = [
            1
            - (2 * (p[:, c] * (target == c)).sum() + 1) / (p[:, c].sum() + (target == c).sum() + 1)
            for c in range(3)
        ]
        torch.testing.assert_close(without, torch.stack(scores[1:]).mean())
        torch.testing.assert_close(DiceLoss(1.0)(logits, target), torch.stack(scores).mean())

    def test_kornia(self) -> None:
        """Kornia's macro form: per image, absent classes left out, ignored pixels left out, nothing in its numerator to smooth."""
        logits, target = batch(13, (3, 4, 5, 5), 0.2, torch.float32)
        target[0][target[0] == 2] = 1
        ours = DiceLoss(0.0, reduction="image", ignore_index=IGNORED)
        assert_peer(
            ours,
            lambda x, t: kornia.dice_loss(x, t, "macro", 1e-8, ignore_index=IGNORED),
            logits,
            target,
        )

    @pytest.mark.parametrize("smooth", [0.0, 1.0, 5.0])
    def test_smp(self, smooth: float) -> None:
        """Segmentation_models_pytorch's halves the smooth and leaves a class that the target lacks in the mean, at 0."""
        logits, target = batch(14, (2, 5, 4, 4), 0.2, torch.float32)
        target[target == 4] = 0
        theirs = smp.DiceLoss("multiclass", smooth=smooth / 2, ignore_index=IGNORED)
        assert_peer(
            DiceLoss(smooth, ignore_index=IGNORED),
            lambda x, t: 5 / 4 * theirs(x, t),
            logits,
            target,
        )

    def test_smp_tversky(self) -> None:
        """Its Tversky loss at ½, ½ is that Dice."""
        logits, target = batch(15, (2, 3, 6, 6), 0.2, torch.float32)
        assert_peer(
            DiceLoss(2.0, ignore_index=IGNORED),
            LibraryLoss("tversky", smooth=1.0, ignore_index=IGNORED),
            logits,
            target,
        )


class TestPairs:
    def test_monai_dice_ce(self) -> None:
        """MONAI's DiceCE is our cross entropy and Dice per image, added."""
        theirs = monai.DiceCELoss(
            softmax=True, to_onehot_y=True, smooth_nr=1.0, smooth_dr=1.0, label_smoothing=0.1
        )
        ce, overlap = (
            CrossEntropyLoss(label_smoothing=0.1),
            DiceLoss(1.0, reduction="image", keep_absent=True),
        )
        assert_peer(
            lambda x, t: ce(x, t) + overlap(x, t),
            lambda x, t: theirs(x, t.unsqueeze(1)),
            *batch(16, (2, 4, 3, 5), 0.0, torch.float32),
        )

    @pytest.mark.parametrize("pair", [monai.DiceCELoss, monai.DiceFocalLoss])
    def test_monai_ignores_none(self, pair: Callable[..., Loss]) -> None:
        """MONAI's pairs know no ignored label: 255 is an error."""
        logits, target = batch(18, (2, 4, 3, 5), 0.2, torch.float32)
        with pytest.raises(RuntimeError, match="255"):
            pair(softmax=True, to_onehot_y=True)(logits, target.unsqueeze(1))

    def test_nothing_valid(self) -> None:
        """Torch's cross entropy of nothing valid is NaN; ours is 0 with the gradient 0."""
        logits, target = batch(17, (2, 4, 3, 5), 1.1, torch.float32)
        assert torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORED).isnan()
        assert CrossEntropyLoss(ignore_index=IGNORED)(logits, target) == 0
