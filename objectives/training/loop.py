"""Training as text: build, then epoch after epoch train, validate, yield a record. It knows no trial and no database.

Everything random comes from the configuration's seed, and the order of an epoch from (seed, epoch), so a training
that is resumed from a checkpoint, after an epoch or in the midst of one, gives the very records that an unbroken one gives.
"""

from __future__ import annotations

import copy
import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.amp import GradScaler, autocast

from objectives.config import TrainingConfig
from objectives.contract import Checkpoints, NoCheckpoints
from objectives.data.loading import Batch, Batches, Data
from objectives.losses import build_criterion, gradient_shares
from objectives.schedules import EpochValues, values_at
from objectives.training.checkpoint import State, load_state, save_state
from objectives.training.metrics import PerClass
from objectives.training.optimizer import build_optimizer
from objectives.training.out_of_memory import memory_told
from objectives.training.readback import read_back
from objectives.training.step_guard import StepGuard
from objectives.training.steps import SHARES_OF, Means, gathered, pool
from objectives.training.validation import Metrics, Validation, plain_loss, validate
from objectives.training.weight_averaging import Averager
from spaces.records import ClassCounts, EpochRecord, TestScore, better

Rng = tuple[Tensor, Tensor | None]


def trained(
    start: Callable[[], Training], device: str, checkpoints: Checkpoints
) -> Iterator[EpochRecord]:
    """Train, one record an epoch.

    After a checkpoint the first record is that of the last epoch that was whole then, once more: whoever stores records
    may have been interrupted between the two. The record of a broken epoch (see `EpochRecord.broken_step`) is the last.

    Args:
        start: builds the training; a lack of memory for that counts, too.

    Raises:
        OutOfMemoryError: when the device, or the host, has not the memory for it.
    """
    with memory_told(device):
        run = start()
        held = checkpoints.latest()
        if held is not None:
            run.restore(load_state(held))
            if run.told is not None:
                yield run.told
        while run.epoch < run.config.epochs and not run.finished:
            record = run.next_epoch()
            if record.broken_step is None and checkpoints.due(
                record, last=run.finished or run.epoch == run.config.epochs
            ):
                checkpoints.write(lambda path: save_state(run.state(), path))
            yield record


class Training:
    """One training: what is alive between two epochs.

    Args:
        config: everything that decides the training.
        model: takes a batch's inputs to logits (N, C, …); on its device, built after `torch.manual_seed(config.seed)`,
            which decides its initial weights and its dropout.
        data: the data set, shared between trainings of a worker.
        counts: valid training pixels, or samples, of every class.
        metrics: what is measured in validation, besides `val_ce`.
        checkpoints: told of every step, and asked whether the state should be written.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        data: Data,
        counts: ClassCounts,
        metrics: Metrics,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.config, self.model, self.data, self.metrics = config, model, data, metrics
        self.device = device = next(model.parameters()).device
        self.checkpoints: Checkpoints = checkpoints or NoCheckpoints()
        self.criterion = build_criterion(
            config.loss, config.weights, counts, data.ignore_index, device
        )
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.amp_dtype = _amp_dtype(config, device)
        self.scaler = GradScaler(device.type, enabled=self.amp_dtype == torch.float16)
        self.guard = StepGuard(
            self.model,
            config.optimizer.grad_clip_norm,
            config.max_grad_norm,
            loss_scaled=self.scaler.is_enabled(),
        )
        workers = data.loader_workers
        self.train_batches = Batches(data.train, config.batch_size, config.seed, workers, device)
        self.val_batches = Batches(data.val, 2 * config.batch_size, None, workers, device)
        self.averager = Averager(self.model, config.schedule.swa_from_epoch)
        self.used = read_back(
            config, self.criterion, self.optimizer, self.guard, self.train_batches.batch_size
        ) | {"environment.classes": list(data.class_names)}
        self.rng = _rng(
            self.device
        )  # torch's generators are everybody's: whoever draws between two epochs must not disturb
        self.epoch = 0
        self.told: EpochRecord | None = None  # of the last whole epoch
        self.midway: State | None = None  # of the epoch that a checkpoint was written in
        self.finished = False
        self.best_metric = self.best_val_loss = math.nan
        self.epochs_without_gain = 0
        self.best_weights: dict[str, torch.Tensor] = {}

    def next_epoch(self) -> EpochRecord:
        """Train an epoch, validate, and tell."""
        self.epoch += 1
        _set_rng(self.rng, self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        values, midway = self.values(self.epoch), self.midway or {}
        self.midway, started = None, time.perf_counter() - midway.get("seconds", 0.0)
        means = self.train_epoch(values, midway, started)
        self.guard.read()
        if self.guard.broken_step is None and not midway.get("averaged"):
            self.average(means, started)
        seconds = time.perf_counter() - started
        held = self.state_within(means, started, averaged=True)
        means.close(self.criterion.weight_ratio)  # of this epoch: validation uses the final weights
        validation = self.validate(held) if self.guard.broken_step is None else self.no_validation()
        self.remember(validation)
        self.told = self.record(values, means, validation, seconds, held)
        self.rng = _rng(self.device)
        return self.told

    def train_epoch(self, values: EpochValues, midway: State, started: float) -> Means:
        """One pass over the training split, or what is left of it; returns after the first broken step, which is not applied."""
        config, means = (
            self.config,
            Means.of(midway["means"], self.device) if midway else Means.zero(self.device),
        )
        self.criterion.set_epoch(values)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = values.lr
        self.guard.start_epoch()
        if midway:
            self.guard.restore_epoch(midway["guard"])
        self.model.train()
        self.optimizer.zero_grad()
        left = self.train_batches.epoch(self.epoch, skip=means.steps * config.optimizer.accumulate)
        for group in gathered(left, config.optimizer.accumulate):
            loss, logits, target = self.accumulate(group, means)
            self.scaler.unscale_(self.optimizer)
            if not self.guard.check(loss):
                break
            self.guard.hold_back(self.optimizer)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
            if means.steps <= SHARES_OF:
                means.shares.append(gradient_shares(self.criterion, logits, target))
            if self.checkpoints.step():
                self.checkpoints.write(
                    lambda path: save_state(self.state_within(means, started), path)
                )
        return means

    def average(self, means: Means, started: float) -> None:
        """Take the epoch's weights into the mean, where they count. Whoever stops meanwhile goes on from before it."""
        if self.averager.takes(self.epoch):
            before = self.state_within(means, started)
            before["averaged"] = copy.deepcopy(before["averaged"])
            self.averager.add(
                self.epoch, self.watched(self.train_batches.epoch(self.epoch), before)
            )

    def watched(self, batches: Iterable[Batch], held: State | None) -> Iterator[Batch]:
        """The batches of a pass that moves nothing of a state, which is written once where it is due."""
        for batch in batches:
            yield batch
            if self.checkpoints.step() and held is not None:
                self.checkpoints.write(lambda path, held=held: save_state(held, path))  # type: ignore[misc]
                held = None

    def accumulate(self, group: list[Batch], means: Means) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of one optimiser step, those of all its batches as one large batch; the step's loss, and the last logits and target."""
        others = pool(self.criterion, self.model, self.predict, group)
        loss = torch.zeros((), device=self.device)
        for inputs, target in group:
            self.guard.see(inputs)
            logits = self.predict(inputs)
            parts = self.criterion(logits, target, others)
            self.scaler.scale(parts.total).backward()
            loss = loss + parts.total.detach()
            means.add(parts, len(target))
        means.steps += 1
        return loss, logits.detach(), target

    def predict(self, inputs: Tensor) -> Tensor:
        """The logits (N, C, …) of a batch."""
        with autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            logits: Tensor = self.model(inputs)
        return logits

    def validate(self, held: State | None = None) -> Validation:
        """Measure on the validation split, with the criterion at its final values so that epochs can be compared."""
        self.criterion.check_targets()
        self.criterion.set_epoch(self.values(self.config.epochs))
        batches = self.watched(self.val_batches.epoch(0), held)
        return self.measured(self.averager.counting(self.epoch), batches)

    def measured(self, model: nn.Module, batches: Iterable[Batch]) -> Validation:
        """Measure a model on a split."""
        return validate(
            model,
            batches,
            self.criterion,
            len(self.data.class_names),
            self.data.ignore_index,
            self.metrics,
        )

    def no_validation(self) -> Validation:
        """A broken epoch is not validated: its weights are nobody's."""
        nothing = (None,) * len(self.data.class_names)
        return Validation(
            math.nan, math.nan, dict.fromkeys((*self.metrics, "val_ce"), math.nan), nothing, nothing
        )

    def remember(self, validation: Validation) -> None:
        """Keep the weights of the best epoch, and count the epochs without a lower validation loss."""
        metric = validation.metrics[self.config.metric.name]
        if not self.best_weights or better(metric, self.best_metric, self.config.metric.direction):
            self.best_metric = metric
            kept = self.averager.counting(self.epoch).state_dict()
            self.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in kept.items()
            }
        gained = better(validation.loss, self.best_val_loss, "minimize")
        self.best_val_loss = validation.loss if gained else self.best_val_loss
        self.epochs_without_gain = 0 if gained else self.epochs_without_gain + 1
        patience = self.config.early_stopping_patience
        self.finished = self.guard.broken_step is not None or (
            patience is not None and self.epochs_without_gain >= patience
        )

    def record(
        self, values: EpochValues, means: Means, validation: Validation, seconds: float, held: State
    ) -> EpochRecord:
        """Everything that is recorded of the epoch; the last one carries the test score of the kept weights."""
        median, largest, clipped = self.guard.summary()
        steps = len(self.guard.norms)
        ended = self.guard.broken_step is None and (
            self.finished or self.epoch == self.config.epochs
        )
        return EpochRecord(
            epoch=self.epoch,
            train_loss=float(means.total),
            ce_loss=float(means.ce),
            dice_loss=float(means.dice) if values.dice_weight else None,
            val_loss=validation.loss,
            val_ce=validation.ce,
            metric=validation.metrics[self.config.metric.name],
            class_metric=self.class_metric(validation),
            metrics=validation.metrics,
            lr=values.lr,
            ce_weight=values.ce_weight,
            dice_weight=values.dice_weight,
            smooth=values.smooth,
            weight_ratio=means.weight_ratio,
            grad_norm_median=median,
            grad_norm_max=largest,
            clipped_share=clipped,
            steps=steps,
            seconds=seconds,
            samples_per_s=means.samples / seconds,
            peak_mib=_peak_mib(self.device),
            broken_step=self.guard.broken_step,
            settled=values.settled,
            grad_shares=means.part_shares(),
            class_grad_shares=means.class_shares(),
            last_steps=self.guard.tail(),
            inputs_finite=self.guard.broken_step is None or self.guard.inputs_finite(),
            used=self.used,
            test=self.test(held) if ended else None,
        )

    def class_metric(self, validation: Validation) -> PerClass:
        """What is recorded of every class."""
        return validation.class_f1

    def test(self, held: State | None = None) -> TestScore | None:
        """The weights that people keep, on the test split: of the best epoch, or of the last where the score is the last's."""
        if self.data.test is None:
            return None
        model = self.averager.counting(self.epoch)
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if held is not None:  # its weights are these very tensors, which are about to be others
            part, prefix = ("model", "") if model is self.model else ("averaged", "module.")
            held = held | {
                part: held[part] | {f"{prefix}{name}": tensor for name, tensor in own.items()}
            }
        if self.config.metric.score == "best":
            model.load_state_dict(self.best_weights)
        batches = Batches(self.data.test, 2 * self.config.batch_size, None, 0, self.device)
        found = self.measured(model, self.watched(batches.epoch(0), held))
        model.load_state_dict(own)
        return TestScore(found.metrics[self.config.metric.name], self.class_metric(found))

    def values(self, epoch: int) -> EpochValues:
        """The scheduled values of an epoch."""
        config = self.config
        return values_at(
            epoch,
            epochs=config.epochs,
            loss=config.loss,
            optimizer=config.optimizer,
            weights=config.weights,
            schedule=config.schedule,
        )

    def state(self) -> State:
        """Everything that the next epoch depends on, and the record of the last one."""
        return {
            "record": None if self.told is None else self.told.as_dict(),
            "midway": None,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "criterion": self.criterion.state_dict(),
            "averaged": self.averager.state(),
            "guard": self.guard.state(),
            **dict(zip(("torch_rng", "cuda_rng"), _rng(self.device), strict=True)),
            "best_weights": self.best_weights,
            "best_metric": self.best_metric,
            "best_val_loss": self.best_val_loss,
            "epochs_without_gain": self.epochs_without_gain,
            "finished": self.finished,
        }

    def state_within(self, means: Means, started: float, *, averaged: bool = False) -> State:
        """Everything that the rest of the epoch depends on.

        Args:
            started: when the epoch would have begun if it had never been broken off, on `time.perf_counter`'s clock.
            averaged: whether the epoch's weights were taken into the mean.
        """
        labels = plain_loss(
            self.criterion
        ).label_range.clone()  # a check of the targets sets it back
        guard, seconds = self.guard.epoch_state(), time.perf_counter() - started
        midway = {
            "means": means.state(),
            "guard": guard,
            "seconds": seconds,
            "averaged": averaged,
            "labels": labels,
        }
        return self.state() | {"midway": midway}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.criterion.load_state_dict(
            state.get("criterion", {})
        )  # a checkpoint of an earlier version lacks these three
        self.averager.restore(state.get("averaged"))
        self.guard.restore(state.get("guard", {"tail": [], "odd_inputs": False}))
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.rng = (state["torch_rng"], state["cuda_rng"])
        self.best_weights, self.best_metric, self.best_val_loss = (
            state["best_weights"],
            state["best_metric"],
            state["best_val_loss"],
        )
        self.epochs_without_gain, self.finished = state["epochs_without_gain"], state["finished"]
        self.told = None if state["record"] is None else EpochRecord.from_dict(state["record"])
        self.epoch = 0 if self.told is None else self.told.epoch
        self.midway = state.get("midway")
        if self.midway is not None:
            plain_loss(self.criterion).label_range.copy_(self.midway["labels"])


def _rng(device: torch.device) -> Rng:
    """The states of torch's generators, on the CPU and on the device."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(
        device
    ) if device.type == "cuda" else None


def _set_rng(state: Rng, device: torch.device) -> None:
    """Draw on from there."""
    torch.set_rng_state(state[0])
    if device.type == "cuda" and state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _amp_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """bfloat16 where the GPU has it, float16 with loss scaling where not, None (float32) on the CPU."""
    if config.precision == "float32" or device.type != "cuda":
        return None
    return (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )


def _peak_mib(device: torch.device) -> float:
    """Peak memory of the epoch in the device's allocator; on a CPU that of the process since it began. MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
