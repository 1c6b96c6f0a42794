"""What an optimizer step of a text classifier costs with the focal loss, against transformers.

Four ways to train the same small BERT on the same batches take turns in one process: the plain
Trainer with its own cross entropy, `FocalLossTrainer`, a plain Trainer with `FocalLossFunction`,
and the objective's own loop, which also clips, guards and reports what it used. A step is the time
from the end of one to the end of the next, so the loading of batches counts.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks import report
from benchmarks.report import Figure, Result
from objectives.contract import NoCheckpoints
from objectives.text.config import TextConfig
from objectives.text.model import TextModel, build_model
from objectives.text.tokens import PADDING, TokenData
from objectives.text.train import Run, count_classes, prepare
from objectives.text.trainer import FocalLossFunction, FocalLossTrainer, FocalTrainingArguments

BOUND = 1.03
QUICK_ROUNDS = 2
SKIPPED = 5
"""First steps of a turn, which find the caches cold."""

PLAIN = "plain Trainer"
CONFIG: dict[str, Any] = {
    "loss": {"kind": "focal", "gamma": 2.0, "alpha_tau": 0.5, "label_smoothing": 0.1},
    "optimizer": {"grad_clip_norm": 1.0},
}


@dataclass(frozen=True)
class Size:
    """A model, and how long it is measured."""

    rounds: int
    steps: int
    changes: Mapping[str, Any]


SIZES = {
    "embedded": Size(21, 60, {}),
    "larger": Size(5, 30, {"model": {"hidden": 256, "layers": 4, "heads": 4}}),
}
"""The small BERT of the shipped studies, and one whose step takes over ten times as long."""


class Rows(Dataset[dict[str, Any]]):
    """Texts of a split as a Trainer takes them."""

    def __init__(self, data: TokenData, size: int) -> None:
        self.split = data.train
        self.size = min(size, len(self.split))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens, label = self.split.__getitems__([(index, 0)])
        return {"tokens": tokens[0], "labels": label[0]}


def collated(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A padded batch."""
    tokens = torch.nn.utils.rnn.pad_sequence(
        [row["tokens"] for row in rows], batch_first=True, padding_value=PADDING
    )
    return {"tokens": tokens, "labels": torch.stack([row["labels"] for row in rows])}


class Classifier(torch.nn.Module):
    """The objective's model in the form that a Trainer calls; its own loss is the usual one."""

    def __init__(self, model: TextModel) -> None:
        super().__init__()
        self.inner = model
        self.config: Any = model.model.config

    def forward(
        self, tokens: Tensor, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits, and their mean cross entropy where labels are given."""
        logits_NC = self.inner(tokens)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits_NC, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_NC)


class Ticks(TrainerCallback):  # type: ignore[misc]
    """When every step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.at.append(time.perf_counter())


class Enough(Exception):
    """So many steps as were wanted."""


class Counted(NoCheckpoints):
    """When every step of the objective's loop ended, until there are enough."""

    def __init__(self, steps: int) -> None:
        self.steps, self.at = steps, list[float]()

    def step(self) -> bool:
        """Note the time; nothing is written.

        Raises:
            Enough: after the last one.
        """
        self.at.append(time.perf_counter())
        if len(self.at) >= self.steps:
            raise Enough
        return False


def step_ms(at: list[float]) -> float:
    """The median step of a turn, in ms."""
    return 1000 * median(
        later - earlier for earlier, later in zip(at[SKIPPED:], at[SKIPPED + 1 :], strict=False)
    )


def with_trainer(
    config: TextConfig, data: TokenData, steps: int, folder: Path, make: Callable[..., Any]
) -> float:
    """A turn of one of the Trainers."""
    torch.manual_seed(config.seed)
    ticks = Ticks()
    options = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.optimizer.lr,
        "max_grad_norm": 1.0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "seed": config.seed,
    }
    model = Classifier(build_model(config.model, data))
    trainer = make(
        model,
        options,
        train_dataset=Rows(data, steps * config.batch_size),
        data_collator=collated,
        callbacks=[ticks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return step_ms(ticks.at)


def with_loop(config: TextConfig, data: TokenData, steps: int) -> float:
    """A turn of the objective's own loop."""
    counted = Counted(steps)
    run = Run(config, data, count_classes(config), torch.device("cpu"), counted)
    with suppress(Enough):
        run.next_epoch()
    return step_ms(counted.at)


def plain(model: Any, options: dict[str, Any], **given: Any) -> Any:
    """The peer."""
    return Trainer(model, TrainingArguments(**options), **given)


def focal(model: Any, options: dict[str, Any], **given: Any) -> Any:
    """With the loss of its arguments."""
    return FocalLossTrainer(
        model,
        FocalTrainingArguments(
            **options, gamma=2.0, alpha=[2.0, 0.5, 2.0, 0.7], label_smoothing_factor=0.1
        ),
        **given,
    )


def function(model: Any, options: dict[str, Any], **given: Any) -> Any:
    """With the loss handed to a plain Trainer."""
    loss = FocalLossFunction(gamma=2.0, alpha=[2.0, 0.5, 2.0, 0.7], label_smoothing=0.1)
    return Trainer(model, TrainingArguments(**options), compute_loss_func=loss, **given)


def measure(*, quick: bool) -> Result:
    """All sizes, all ways, in turns."""
    torch.set_num_threads(1)
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for name, size in SIZES.items():
        turns = taken(size, QUICK_ROUNDS if quick else size.rounds)
        details[name] = {way: [round(one, 3) for one in found] for way, found in turns.items()}
        figures += make_figures(name, turns)
    return Result(figures, details)


def taken(size: Size, rounds: int) -> dict[str, list[float]]:
    """Way → the median step of each of its turns, in ms."""
    config = TextConfig.model_validate({**CONFIG, **size.changes})
    data = prepare(config, "cpu")
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as temporary:
        trainer = partial(with_trainer, config, data, size.steps, Path(temporary))
        ways: dict[str, Callable[[], float]] = {
            PLAIN: partial(trainer, plain),
            "FocalLossTrainer": partial(trainer, focal),
            "Trainer with FocalLossFunction": partial(trainer, function),
            "the objective's own loop": partial(with_loop, config, data, size.steps),
        }
        turns: dict[str, list[float]] = {name: [] for name in ways}
        drawn = random.Random(0)
        for _ in range(rounds):
            for name in drawn.sample(
                list(ways), len(ways)
            ):  # none is always first, or behind the same other one
                turns[name].append(ways[name]())
        return turns


def make_figures(size: str, turns: dict[str, list[float]]) -> Iterable[Figure]:
    """The step of every way, and the median of its ratio to the plain Trainer in the same round."""
    base = turns[PLAIN]
    for name, found in turns.items():
        if name != PLAIN:
            ratio = median(own / peer for own, peer in zip(found, base, strict=True))
            yield Figure(
                f"{size}: {name}, a step", median(found), "ms", peer=PLAIN, peer_found=median(base)
            )
            yield Figure(f"{size}: {name}, median ratio of a round", ratio, bound=BOUND)


def main() -> int:
    """Measure, print and store the figures."""
    options = report.parser(__doc__ or "").parse_args()
    return report.publish("text_step", measure(quick=options.quick), quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
