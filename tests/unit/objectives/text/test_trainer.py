"""The focal loss in transformers' Trainer: equal to the formula in float64, to LabelSmoother at gamma 0, and to one large batch when accumulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import HfArgumentParser, PretrainedConfig, Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_pt_utils import LabelSmoother

from objectives.losses import functional
from objectives.losses.class_weights import focal_alpha
from objectives.text.trainer import FocalLossFunction, FocalLossTrainer, FocalTrainingArguments
from spaces.errors import ConfigError
from spaces.records import ClassCounts

CLASSES = 4
ALPHA = (0.11, 0.45, 0.12, 0.32)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits (N, C) in float64 and labels, of which two are ignored."""
    generator = torch.Generator().manual_seed(3)
    logits_NC = 3 * torch.randn(12, CLASSES, generator=generator, dtype=torch.float64)
    target_N = torch.randint(0, CLASSES, (12,), generator=generator)
    target_N[[2, 7]] = -100
    return logits_NC, target_N


def outputs(logits: Tensor) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=logits)


def by_hand(
    logits_NC: Tensor, q_NC: Tensor, gamma: float, alpha_C: Tensor, top_N: Tensor
) -> Tensor:
    """Σ alpha·(1−p_t)^gamma·H(q, p), in float64 and as the formula is written."""
    total = torch.zeros((), dtype=torch.float64)
    for z, q, top in zip(logits_NC.double(), q_NC.double(), top_N.tolist(), strict=True):
        p = torch.exp(z) / torch.exp(z).sum()
        total = total + alpha_C.double()[top] * (1 - p[top]) ** gamma * -(q * torch.log(p)).sum()
    return total


def smoothed(target_N: Tensor, epsilon: float) -> Tensor:
    return (1 - epsilon) * nn.functional.one_hot(target_N, CLASSES).double() + epsilon / CLASSES


class TestFormula:
    @pytest.mark.parametrize("epsilon", [0.0, 0.1])
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize("alpha", [None, 0.25, ALPHA])
    def test_hard(
        self, batch: tuple[Tensor, Tensor], gamma: float, alpha: Any, epsilon: float
    ) -> None:
        """Hard labels: the mean over those that count."""
        logits_NC, target_N = batch
        valid = target_N >= 0
        alpha_C = (
            torch.ones(CLASSES) if alpha is None else torch.tensor(alpha).double().expand(CLASSES)
        )
        expected = (
            by_hand(
                logits_NC[valid],
                smoothed(target_N[valid], epsilon),
                gamma,
                alpha_C,
                target_N[valid],
            )
            / 10
        )
        found = FocalLossFunction(gamma, alpha, label_smoothing=epsilon)(
            outputs(logits_NC), target_N
        )
        torch.testing.assert_close(
            found, expected, rtol=1e-6 if alpha is not None else 1e-9, atol=0
        )

    @pytest.mark.parametrize("epsilon", [0.0, 0.1])
    def test_soft(self, batch: tuple[Tensor, Tensor], epsilon: float) -> None:
        """Distributions as labels: cross entropy against them, with p_t and alpha of the likeliest class."""
        logits_NC, _ = batch
        q_NC = torch.softmax(
            torch.randn(
                12, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64
            ),
            1,
        )
        spread_NC = (1 - epsilon) * q_NC + epsilon / CLASSES
        expected = (
            by_hand(
                logits_NC, spread_NC, 2.0, torch.tensor(ALPHA, dtype=torch.float64), q_NC.argmax(1)
            )
            / 12
        )
        loss = FocalLossFunction(2.0, ALPHA, label_smoothing=epsilon)
        torch.testing.assert_close(loss(outputs(logits_NC), q_NC), expected, rtol=1e-9, atol=0)
        # the Trainer counts every number of the distributions
        torch.testing.assert_close(
            loss(outputs(logits_NC), q_NC, torch.tensor(2 * 12 * CLASSES)),
            expected / 2,
            rtol=1e-9,
            atol=0,
        )

    @pytest.mark.parametrize("items", [None, 40])
    @pytest.mark.parametrize("epsilon", [0.0, 0.1])
    def test_label_smoother(
        self, batch: tuple[Tensor, Tensor], epsilon: float, items: int | None
    ) -> None:
        """At gamma 0 it is what transformers' own LabelSmoother gives, on texts and on tokens."""
        logits_NC, target_N = batch
        count = None if items is None else torch.tensor(items)
        for logits, target in (
            (logits_NC, target_N),
            (logits_NC.view(3, 4, CLASSES), target_N.view(3, 4)),
        ):
            expected = LabelSmoother(epsilon=epsilon)(
                outputs(logits), target.clone(), num_items_in_batch=count
            )
            torch.testing.assert_close(
                FocalLossFunction(0.0, label_smoothing=epsilon)(outputs(logits), target, count),
                expected,
                rtol=1e-6,
                atol=0,
            )

    def test_tuple(self, batch: tuple[Tensor, Tensor]) -> None:
        """A model that answers with a tuple has its logits first."""
        assert torch.equal(
            FocalLossFunction()((batch[0],), batch[1]),
            FocalLossFunction()(outputs(batch[0]), batch[1]),
        )

    def test_nothing_valid(self, batch: tuple[Tensor, Tensor]) -> None:
        """A batch of padding alone gives 0 with zero gradient."""
        logits_NC = batch[0].clone().requires_grad_()
        loss = FocalLossFunction(label_smoothing=0.1)(
            outputs(logits_NC), torch.full((12,), -100), torch.tensor(5)
        )
        loss.backward()
        assert loss == 0
        assert torch.equal(logits_NC.grad, torch.zeros_like(logits_NC))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "labels",
        [torch.zeros(11, dtype=torch.long), torch.zeros(12, 3), torch.zeros(12, dtype=torch.bool)],
    )
    def test_shapes(self, batch: tuple[Tensor, Tensor], labels: Tensor) -> None:
        """Labels of another shape or kind are refused in words."""
        with pytest.raises(ConfigError, match="target"):
            FocalLossFunction()(outputs(batch[0]), labels)

    def test_alpha_length(self, batch: tuple[Tensor, Tensor]) -> None:
        """So is an alpha of the wrong length, with both numbers."""
        with pytest.raises(ConfigError, match="alpha has 3 values, but the logits have 4 classes"):
            FocalLossFunction(alpha=ALPHA[:3])(outputs(batch[0]), batch[1])


class Linear(nn.Module):
    """A model as the Trainer takes one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.config = nn.Linear(5, CLASSES), PretrainedConfig()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        logits = self.layer(x)
        loss = (
            None
            if labels is None
            else nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        )
        return SequenceClassifierOutput(loss=loss, logits=logits)


class Overridden(Trainer):  # type: ignore[misc]
    """What one finds in many a notebook: `compute_loss` overridden."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        loss = functional.focal(logits, labels, gamma=0.0)
        return (loss, logits) if return_outputs else loss


def rows(tokens: bool = False) -> list[dict[str, Tensor]]:
    """Eight samples; as tokens, with paddings that differ between batches."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for at in range(8):
        shape = (6,) if tokens else ()
        labels = torch.randint(0, CLASSES, shape, generator=generator)
        if tokens:
            labels[6 - at // 2 :] = -100
        made.append({"x": torch.randn(*shape, 5, generator=generator), "labels": labels})
    return made


def arguments(folder: Path, kind: type = FocalTrainingArguments, **given: Any) -> Any:
    usual = {
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_steps": 1,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
    }
    return kind(str(folder), **usual | given)


class TestHarm:
    """What would spoil a training without a word."""

    def test_nothing_counts(self) -> None:
        """An optimiser step of nothing but padding has the loss 0 and no gradient."""
        logits = torch.randn(2, 3, CLASSES, requires_grad=True)
        loss = FocalLossFunction()(
            {"logits": logits}, torch.full((2, 3), -100), num_items_in_batch=torch.tensor(0)
        )
        loss.backward()
        assert loss.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    @pytest.mark.parametrize("label", [CLASSES, -1, 255])
    def test_no_class(self, label: int) -> None:
        """A label that is no class is an error, as with torch's own cross entropy, and is not taken for one to be ignored."""
        with pytest.raises(ConfigError, match=f"the label {label} is not a class") as caught:
            FocalLossFunction()({"logits": torch.randn(3, CLASSES)}, torch.tensor([0, label, -100]))
        assert "num_labels" in caught.value.next_step

    def test_no_labels(self) -> None:
        """Batches without labels are an error in words."""
        with pytest.raises(ConfigError, match="the batches have no labels"):
            FocalLossFunction()({"logits": torch.randn(3, CLASSES)}, None)


class TestTrainer:
    def test_smoothing_takes_effect(self, tmp_path: Path) -> None:
        """An overridden `compute_loss` ignores `label_smoothing_factor`; the FocalLossTrainer does not."""
        inputs = {name: torch.stack([row[name] for row in rows()]) for name in ("x", "labels")}
        found: dict[tuple[str, float], float] = {}
        for epsilon in (0.0, 0.1):
            for name, trainer in (
                (
                    "overridden",
                    Overridden(
                        Linear(),
                        arguments(tmp_path, TrainingArguments, label_smoothing_factor=epsilon),
                    ),
                ),
                (
                    "ours",
                    FocalLossTrainer(
                        Linear(), arguments(tmp_path, gamma=0.0, label_smoothing_factor=epsilon)
                    ),
                ),
                (
                    "theirs",
                    Trainer(
                        Linear(),
                        arguments(tmp_path, TrainingArguments, label_smoothing_factor=epsilon),
                    ),
                ),
            ):
                found[name, epsilon] = float(
                    trainer.compute_loss(trainer.model, dict(inputs)).detach()
                )
        assert found["overridden", 0.1] == found["overridden", 0.0]
        assert found["ours", 0.1] != found["ours", 0.0]
        assert found["ours", 0.0] == pytest.approx(found["theirs", 0.0], rel=1e-6)
        assert found["ours", 0.1] == pytest.approx(found["theirs", 0.1], rel=1e-6)

    @pytest.mark.parametrize("tokens", [False, True], ids=["texts", "tokens"])
    @pytest.mark.parametrize("own_trainer", [False, True], ids=["function", "trainer"])
    def test_accumulated(self, tmp_path: Path, tokens: bool, own_trainer: bool) -> None:
        """Four batches of 2 make the step of one batch of 8, also where the batches hold unlike numbers of labels."""
        weights = []
        for batch, steps in ((8, 1), (2, 4)):
            model, sizes = (
                Linear(),
                {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps},
            )
            if own_trainer:
                trainer: Any = FocalLossTrainer(
                    model,
                    arguments(tmp_path, gamma=2.0, label_smoothing_factor=0.1, **sizes),
                    train_dataset=rows(tokens),
                )
            else:
                trainer = Trainer(
                    model,
                    arguments(tmp_path, TrainingArguments, **sizes),
                    train_dataset=rows(tokens),
                    compute_loss_func=FocalLossFunction(2.0, label_smoothing=0.1),
                )
            trainer.train()
            weights.append(model.layer.weight.detach().clone())
        torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-7)
        assert not torch.equal(weights[0], Linear().layer.weight)

    def test_class_counts(self, tmp_path: Path) -> None:
        """Alpha from class frequencies, by tau."""
        trainer = FocalLossTrainer(
            Linear(), arguments(tmp_path, class_counts=[900, 60, 30, 10], tau=0.5)
        )
        alpha = trainer.compute_loss_func.loss.alpha
        assert alpha is not None
        assert (
            alpha.tolist()
            == focal_alpha(ClassCounts(("a", "b", "c", "d"), (900, 60, 30, 10)), 0.5).tolist()
        )

    @pytest.mark.parametrize(
        ("kind", "given", "words"),
        [
            (TrainingArguments, {}, "numbers are missing"),
            (
                FocalTrainingArguments,
                {"alpha": 0.5, "class_counts": [1, 2, 3, 4]},
                "exclude each other",
            ),
        ],
    )
    def test_arguments(self, tmp_path: Path, kind: type, given: dict[str, Any], words: str) -> None:
        """Arguments that cannot make a loss are refused when the Trainer is built or first asked."""
        with pytest.raises(ConfigError, match=words):
            _ = FocalLossTrainer(Linear(), arguments(tmp_path, kind, **given)).compute_loss_func

    def test_scalar_alpha(self, tmp_path: Path) -> None:
        """One factor for all classes, as a number or as a list of one, which is how a command line gives it."""
        (parsed,) = HfArgumentParser(FocalTrainingArguments).parse_args_into_dataclasses(
            [
                "--output_dir",
                str(tmp_path),
                "--alpha",
                "0.25",
                "--gamma",
                "1",
                "--use_cpu",
                "True",
                "--report_to",
                "none",
            ]
        )
        for args in (arguments(tmp_path, alpha=0.25), parsed):
            alpha = FocalLossTrainer(Linear(), args).compute_loss_func.loss.alpha
            assert alpha is not None
            assert alpha.tolist() == 0.25
        (parsed,) = HfArgumentParser(FocalTrainingArguments).parse_args_into_dataclasses(
            [
                "--output_dir",
                str(tmp_path),
                "--class_counts",
                "900",
                "60",
                "30",
                "10",
                "--use_cpu",
                "True",
            ]
        )
        assert parsed.class_counts == [900, 60, 30, 10]

    def test_changed(self, tmp_path: Path) -> None:
        """Arguments that change, as in a hyperparameter search of transformers, change the loss."""
        trainer = FocalLossTrainer(Linear(), arguments(tmp_path, gamma=2.0))
        assert trainer.compute_loss_func is trainer.compute_loss_func
        trainer.args.gamma = 0.5
        assert trainer.compute_loss_func.loss.gamma.item() == 0.5

    def test_two_losses(self, tmp_path: Path) -> None:
        """A loss function is for a plain Trainer."""
        with pytest.raises(ConfigError, match="has a loss of its own"):
            FocalLossTrainer(Linear(), arguments(tmp_path), compute_loss_func=FocalLossFunction())
