"""Training loop: build, then train, average, validate, remember and record, epoch by epoch.

It imports no trial and no database. Everything random follows from the configuration's seed, and
the order of an epoch from (seed, epoch). A training that is resumed from a checkpoint, taken after
an epoch or within one, yields exactly the records of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler, autocast

from objectives.config import TrainingConfig
from objectives.contract import Checkpoints, NoCheckpoints
from objectives.data.loading import Batch, Batches, Data
from objectives.losses import build_criterion, gradient_shares
from objectives.schedules import EpochValues, values_at
from objectives.training.best_epoch import BestEpoch
from objectives.training.data_figures import DataFigures, read_figures
from objectives.training.device import choose_amp_dtype, read_peak_mib
from objectives.training.metrics import PerClass
from objectives.training.optimizer import build_optimizer
from objectives.training.out_of_memory import translate_out_of_memory
from objectives.training.readback import read_back
from objectives.training.snapshot import EpochProgress, RandomState, TrainingSnapshot
from objectives.training.state_file import State
from objectives.training.step_guard import StepGuard
from objectives.training.steps import (
    SHARES_OF,
    Means,
    group_batches,
    has_batch_norm,
    pool_batches,
)
from objectives.training.validation import Metrics, Validation, validate
from objectives.training.weight_averaging import Averager
from spaces.records import ClassCounts, EpochRecord, TestScore


def run_training(
    start: Callable[[], Training], device: str, checkpoints: Checkpoints
) -> Iterator[EpochRecord]:
    """Train and yield one record per epoch.

    A resumed training first yields the record of its last complete epoch again, because it may have
    been interrupted between writing the checkpoint and storing the record. The record of a broken
    epoch (see `EpochRecord.broken_step`) is the last one.

    Args:
        start: builds the training; running out of memory there is reported like later on.
        device: name of the device, for the error.
        checkpoints: where snapshots are read and written.

    Raises:
        OutOfMemoryError: when the device or the host does not have enough memory.
    """
    with translate_out_of_memory(device):
        run = start()
        path = checkpoints.latest()
        if path is not None:
            TrainingSnapshot.load(path).restore(run)
            if run.last_record is not None:
                yield run.last_record
        while not run.has_ended:
            record = run.next_epoch()
            if record.broken_step is None and checkpoints.due(record, last=run.has_ended):
                checkpoints.write(TrainingSnapshot.capture(run).save)
            yield record


class Training:
    """State of one training, and the steps of an epoch.

    Args:
        config: everything that decides the training.
        model: maps a batch's inputs to logits (N, C, …). It is on its device and was built after
            `torch.manual_seed(config.seed)`, which decides its initial weights and its dropout.
        data: the data set, shared by the trainings of a worker.
        counts: valid training pixels, or samples, of every class.
        metrics: what is measured in validation, in addition to `val_ce`.
        checkpoints: notified of every step; decides whether a snapshot is written.
        used: dotted path → value that the model and the data really use.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        data: Data,
        counts: ClassCounts,
        metrics: Metrics,
        checkpoints: Checkpoints | None = None,
        used: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.data = data
        self.metrics = metrics
        self.device = device = next(model.parameters()).device
        self.checkpoints: Checkpoints = checkpoints or NoCheckpoints()
        self.criterion = build_criterion(
            config.loss, config.weights, counts, data.ignore_index, device
        )
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.amp_dtype = choose_amp_dtype(config, device)
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
        read = read_back(
            config, self.criterion, self.optimizer, self.guard, self.train_batches.batch_size
        )
        self.used = read | {"environment.classes": list(data.class_names)} | dict(used or {})
        # torch's generators are global: drawing from them between two epochs must change nothing.
        self.random_state = RandomState.capture(device)
        self.best = BestEpoch(config.metric.direction)
        self.has_batch_norm = has_batch_norm(model)
        self.val_figures = DataFigures()
        self.epoch = 0
        self.last_record: EpochRecord | None = None
        self.interrupted: State | None = None
        self.finished = False

    @property
    def has_ended(self) -> bool:
        """Whether there is no further epoch."""
        return self.finished or self.epoch >= self.config.epochs

    def next_epoch(self) -> EpochRecord:
        """Train the next epoch, or the rest of the current one, and return its record."""
        values = self.values_of(self.epoch + 1)
        progress = self.start_epoch()
        self.train_epoch(values, progress)
        if self.guard.broken_step is None:
            self.average_weights(progress)
        seconds = progress.seconds
        trained = TrainingSnapshot.capture(self, progress)
        # Before the validation, which uses the final weights.
        progress.means.divide_by_steps(self.criterion.weight_ratio)
        validation = self.validate_epoch(trained)
        self.remember_epoch(validation)
        self.last_record = self.record_epoch(values, progress, validation, seconds, trained)
        self.random_state = RandomState.capture(self.device)
        return self.last_record

    def start_epoch(self) -> EpochProgress:
        """Start the next epoch, or resume the one within which the restored snapshot was taken."""
        self.epoch += 1
        self.random_state.set_generators(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.guard.start_epoch()
        interrupted = self.interrupted
        if interrupted is None:
            return EpochProgress.start(self.device)
        self.interrupted = None
        self.guard.restore_epoch(interrupted["guard"])
        return EpochProgress.resume(interrupted, self.device)

    def train_epoch(self, values: EpochValues, progress: EpochProgress) -> None:
        """Pass over the training split, or what is left of it.

        It ends after the first broken step, which is not applied.
        """
        accumulate = self.config.optimizer.accumulate
        means = progress.means
        self.criterion.set_epoch(values)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = values.lr
        self.model.train()
        self.optimizer.zero_grad()
        batches = self.train_batches.epoch(self.epoch, skip=means.steps * accumulate)
        for group in group_batches(batches, accumulate):
            loss, logits, target = self.accumulate_gradients(group, means)
            if not self.apply_gradients(loss):
                break
            if means.steps <= SHARES_OF:
                means.shares.append(gradient_shares(self.criterion, logits, target))
            if self.checkpoints.step():
                self.checkpoints.write(TrainingSnapshot.capture(self, progress).save)
        self.guard.read_norms()

    def accumulate_gradients(
        self, group: list[Batch], means: Means
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add up the gradients of one optimizer step: those of its batches as one large batch.

        Returns:
            The step's loss, and logits and target of its last batch.
        """
        others = pool_batches(self.criterion, self.model, self.predict, group)
        loss = torch.zeros((), device=self.device)
        for inputs, target in group:
            self.guard.check_inputs(inputs)
            logits = self.predict(inputs)
            parts = self.criterion(logits, target, others)
            self.scaler.scale(parts.total).backward()
            loss = loss + parts.total.detach()
            means.add_parts(parts, len(target))
            if means.steps < SHARES_OF:
                means.data.add_inputs(inputs)
            means.data.add_targets(target, len(self.data.class_names), self.data.ignore_index)
        means.steps += 1
        return loss, logits.detach(), target

    def apply_gradients(self, loss: Tensor) -> bool:
        """Let the optimizer make its step, and forget the gradients.

        Returns:
            False if this step or an earlier one is broken; it is not applied then.
        """
        self.scaler.unscale_(self.optimizer)
        if not self.guard.check_step(loss):
            return False
        self.guard.skip_broken_steps(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return True

    def average_weights(self, progress: EpochProgress) -> None:
        """Add the epoch's weights to their running mean, in epochs that count.

        A training that is interrupted meanwhile resumes from before it.
        """
        if self.averager.includes(self.epoch) and not progress.averaged:
            before = TrainingSnapshot.capture(self, progress).with_copied_average()
            batches = self.train_batches.epoch(self.epoch)
            self.averager.add_epoch(self.epoch, self.report_steps(batches, before))
        progress.averaged = True

    def validate_epoch(self, trained: TrainingSnapshot) -> Validation:
        """Measure on the validation split; a broken epoch is not validated.

        Args:
            trained: of before the validation, to write if the training is interrupted meanwhile.
        """
        self.val_figures = DataFigures()
        if self.guard.broken_step is not None:
            return Validation.missing(self.metrics, len(self.data.class_names))
        self.criterion.check_targets()
        # Its final values: the losses of two epochs are then comparable.
        self.criterion.set_epoch(self.values_of(self.config.epochs))
        batches = self.report_steps(self.val_batches.epoch(0), trained)
        batches = self.val_figures.watch_inputs(batches, SHARES_OF)
        return self.measure_split(self.averager.model_of(self.epoch), batches)

    def remember_epoch(self, validation: Validation) -> None:
        """Keep the weights if the epoch is the best so far, and decide whether to stop early."""
        metric = validation.metrics[self.config.metric.name]
        self.best.update(metric, validation.loss, self.averager.model_of(self.epoch))
        patience = self.config.early_stopping_patience
        out_of_patience = patience is not None and self.best.epochs_without_gain >= patience
        self.finished = self.guard.broken_step is not None or out_of_patience

    def record_epoch(
        self,
        values: EpochValues,
        progress: EpochProgress,
        validation: Validation,
        seconds: float,
        trained: TrainingSnapshot,
    ) -> EpochRecord:
        """Make the epoch's record; the last one has the test score of the kept weights."""
        means = progress.means
        norms = self.guard.summarize_norms()
        broken_step = self.guard.broken_step
        inputs, val_inputs, target_shares = read_figures(means.data, self.val_figures)
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
            grad_norm_median=norms.median,
            grad_norm_max=norms.largest,
            clipped_share=norms.clipped_share,
            steps=len(self.guard.norms),
            seconds=seconds,
            samples_per_s=means.samples / seconds,
            peak_mib=read_peak_mib(self.device),
            broken_step=broken_step,
            settled=values.settled,
            grad_shares=means.part_shares(),
            class_grad_shares=means.class_shares(),
            last_steps=self.guard.last_steps(),
            inputs_finite=broken_step is None or self.guard.inputs_finite(),
            inputs=inputs,
            val_inputs=val_inputs,
            target_shares=target_shares,
            skipped_steps=self.guard.skipped_steps,
            batch_norm_samples=means.smallest_batch if self.has_batch_norm else None,
            used=self.used,
            test=self.score_test_split(trained) if broken_step is None and self.has_ended else None,
        )

    def class_metric(self, validation: Validation) -> PerClass:
        """Return the metric that is recorded of every class."""
        return validation.class_f1

    def score_test_split(self, trained: TrainingSnapshot | None = None) -> TestScore | None:
        """Measure the kept weights on the test split; None without a test split.

        They are those of the best epoch, or of the last one where the study's score is the last
        epoch's.

        Args:
            trained: of before the validation, to write if the training is interrupted meanwhile.
        """
        if self.data.test is None:
            return None
        model = self.averager.model_of(self.epoch)
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if trained is not None:
            trained = trained.with_weights(own, averaged=model is not self.model)
        if self.config.metric.score == "best":
            model.load_state_dict(self.best.weights)
        batches = Batches(self.data.test, 2 * self.config.batch_size, None, 0, self.device)
        found = self.measure_split(model, self.report_steps(batches.epoch(0), trained))
        model.load_state_dict(own)
        return TestScore(found.metrics[self.config.metric.name], self.class_metric(found))

    def measure_split(self, model: nn.Module, batches: Iterable[Batch]) -> Validation:
        """Measure a model on the batches of a split."""
        return validate(
            model,
            batches,
            self.criterion,
            len(self.data.class_names),
            self.data.ignore_index,
            self.metrics,
        )

    def report_steps(
        self, batches: Iterable[Batch], snapshot: TrainingSnapshot | None
    ) -> Iterator[Batch]:
        """Yield the batches of a pass that changes no state, and report each as a step.

        The snapshot is written at the first step at which one is due, and not again.
        """
        for batch in batches:
            yield batch
            if self.checkpoints.step() and snapshot is not None:
                self.checkpoints.write(snapshot.save)
                snapshot = None

    def predict(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, C, …) of a batch."""
        with autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            logits: Tensor = self.model(inputs)
        return logits

    def values_of(self, epoch: int) -> EpochValues:
        """Return the scheduled values of an epoch."""
        config = self.config
        return values_at(
            epoch,
            epochs=config.epochs,
            loss=config.loss,
            optimizer=config.optimizer,
            weights=config.weights,
            schedule=config.schedule,
        )
