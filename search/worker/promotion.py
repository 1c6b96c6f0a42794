"""Chooses what a worker trains next, and whether a trial continues past the epoch of a pause."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from search.planning.plan import Plan
from search.sampling.freeze_thaw.curve_model import NUMERIC_ERRORS
from search.sampling.freeze_thaw.curves import TrialCurve
from search.sampling.freeze_thaw.engine import FreezeThaw
from search.sampling.study_curves import StudyCurves, is_settled
from search.sampling.worker_study import WorkerStudy
from spaces.study import CURVE_KINDS
from storage.files.checkpoints import StoredCheckpoints
from storage.files.study_files import StudyFiles
from storage.repositories.leases import NEW_TRIAL
from storage.rows import Claim, EpochBudget, NextStep, StoredStudy
from storage.store import Store

logger = logging.getLogger(__name__)

EPOCHS_SPENT = "epoch budget exhausted; raise --epochs-budget to continue"


class StudyBudget(NamedTuple):
    """The limits of a study that may be raised while it runs.

    Attributes:
        trials: number of trials.
        epochs: limit on the epochs of all trials together, without those that the probe of the
            learning rate used; None: no limit.
    """

    trials: int
    epochs: EpochBudget | None


def read_budget(store: Store, stored: StoredStudy) -> StudyBudget:
    """Read the limits. A second `search run` may have raised them since the worker started."""
    stored = store.studies.find_study(stored.name) or stored
    definition = stored.definition
    epochs = definition.get("epochs_budget")
    limit = None
    if epochs is not None:
        probed = 0 if stored.rate_probe is None else stored.rate_probe.charged_epochs
        limit = EpochBudget(max(0, int(epochs) - probed), int(definition["epochs"]))
    return StudyBudget(int(definition["trials"]), limit)


@dataclass
class Promotions:
    """Decides for a study whose sampler pauses trials; for any other, each trial runs to its end.

    Attributes:
        store: an open store.
        stored: the study.
        plan: of the study.
        files: with the checkpoints of paused trials.
        study: has the search that decides.
        curves: what it decides by.
    """

    store: Store
    stored: StoredStudy
    plan: Plan
    files: StudyFiles
    study: WorkerStudy
    curves: StudyCurves

    @property
    def engine(self) -> FreezeThaw:
        """The search."""
        return self.study.engine

    @property
    def pauses(self) -> bool:
        """Whether trials pause at all."""
        return self.plan.spec.sampler.kind == "auto"

    def choose_step(self, budget: StudyBudget) -> NextStep | None:
        """Choose what a free worker trains next; None when no paused trial is worth its epochs.

        An enqueued configuration comes before what the search would choose.

        Raises:
            StoreError: when the database fails.
        """
        if not self.pauses:
            # Only the budget in epochs has paused any: those that began first continue first.
            waiting = self.store.promotions.list_awaiting(self.stored.id)
            if waiting:
                return NextStep(min(waiting), self.plan.spec.epochs)
        if self.plan.spec.sampler.kind not in CURVE_KINDS:
            return NEW_TRIAL
        first = NextStep(None, self.engine.config.rungs[0])
        started = sum(self.store.trials.count_by_state(self.stored.id).values())
        may_start = started < budget.trials
        if may_start and self.store.remedies.has_enqueued(self.stored.id):
            return first
        curves = self.curves.read_curves()
        try:
            if self._is_settled(curves, may_start=may_start):
                return None
            chosen = self.engine.choose_step(curves, may_start=may_start)
        except NUMERIC_ERRORS:
            logger.exception("the model of the curves failed; continuing without it")
            return self._choose_without_model(first, may_start=may_start)
        return None if chosen is None else NextStep(chosen.number, chosen.until_epoch)

    def _choose_without_model(self, first: NextStep, *, may_start: bool) -> NextStep | None:
        """A new trial or, when none may start, the paused trial that began first."""
        if may_start:
            return first
        waiting = self.store.promotions.list_awaiting(self.stored.id)
        return NextStep(min(waiting), self.plan.spec.epochs) if waiting else None

    def _is_settled(self, curves: Sequence[TrialCurve], *, may_start: bool) -> bool:
        """Whether so little is expected of the next step that the study ends."""
        definition = (self.store.studies.find_study(self.stored.name) or self.stored).definition
        settled = is_settled(
            self.engine, curves, definition.get("settled_gain"), may_start=may_start
        )
        if settled:
            logger.info("settled: little more is expected of further epochs")
        return settled

    def extend_claim(self, claim: Claim, *, can_pause: bool) -> tuple[Claim | None, str]:
        """Decide whether a trial that has reached its pause continues at once.

        Args:
            claim: of the trial, whose epochs the store has.
            can_pause: whether it has a checkpoint; otherwise it continues as far as the budget
                allows.

        Returns:
            The claim with the next epoch at which it pauses, or None with the reason to pause.

        Raises:
            LeaseLostError: when another attempt owns the trial.
            StoreError: when the database fails.
        """
        budget = read_budget(self.store, self.stored)
        until: int | None = self.plan.spec.epochs
        reason = ""
        if can_pause:
            until, reason = self._choose_until(claim)
        if until is None:
            return None, reason
        extended = self.store.promotions.extend_trial(claim, until, budget.epochs)
        return extended, EPOCHS_SPENT

    def _choose_until(self, claim: Claim) -> tuple[int | None, str]:
        """The next epoch at which the trial pauses, and why it pauses now if there is none."""
        epochs = self.plan.spec.epochs
        if not self.pauses or _is_remedy(claim) or claim.number is None:
            return epochs, ""
        try:
            chosen = self.engine.continue_trial(self.curves.read_curves(), claim.number)
        except NUMERIC_ERRORS:
            logger.exception("the model of the curves failed; the trial continues without it")
            return epochs, ""
        return chosen.until_epoch, chosen.reason

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of the least promising paused trials beyond the study's limit."""
        most = self.plan.spec.sampler.checkpoints
        waiting = self.store.promotions.list_awaiting(self.stored.id)
        if len(waiting) <= most:
            return
        try:
            hopes = self.engine.rank_paused(self.curves.read_curves())
        except NUMERIC_ERRORS:
            return  # the next pause drops them
        for number in hopes[most:]:
            if number not in waiting or not self.store.promotions.drop_checkpoint(
                self.stored.id, number, waiting[number]
            ):
                continue
            states = StoredCheckpoints(self.files, self.files.trial_stem(self.stored.name, number))
            with suppress(OSError):
                states.remove_up_to(waiting[number])


def _is_remedy(claim: Claim) -> bool:
    """Whether a trial tries a remedy, whose outcome is to be compared at the last epoch."""
    return (claim.preset or "").startswith("remedy of")
