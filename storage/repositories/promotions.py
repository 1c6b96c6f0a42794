"""Promotions: trials pause at an epoch that the search chose, and are resumed when it wants to.

    running ──pause_at_rung──▶ paused, awaits promotion ──promote──▶ running
       │  ▲
       └──┘ extend_trial

A trial that awaits its promotion is not open work: only a step that names it resumes it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from storage.repositories.base import Repository
from storage.repositories.epoch_budget import grant_epochs
from storage.repositories.ownership import end_attempt, update_owned
from storage.rows import FINAL_STATES, Claim, EpochBudget, TrialState
from storage.tables.models import Epoch, Study, Trial


@dataclass(frozen=True, slots=True)
class StoredCurve:
    """A trial with the metric of each of its epochs.

    Attributes:
        config: None until the trial is bound.
        metrics: epoch → metric.
        checkpoint_dropped: whether it would start again if it were promoted.
    """

    trial_id: int
    number: int | None
    state: TrialState
    awaits_promotion: bool
    until_epoch: int | None
    config: Any
    metrics: dict[int, float]
    checkpoint_dropped: bool = False


class PromotionRepository(Repository):
    """Pause, extend and list trials that a search trains step by step."""

    def pause_at_rung(self, claim: Claim, reason: str, *, has_checkpoint: bool = True) -> None:
        """Pause a trial until the search promotes it.

        Args:
            claim: of the trial.
            reason: why it does not continue, for people.
            has_checkpoint: whether it can be resumed; otherwise it will start again.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            end_attempt(
                connection,
                claim,
                state="paused",
                awaits_promotion=1,
                checkpoint_dropped=int(not has_checkpoint),
                reason=reason,
            )

    def extend_trial(
        self, claim: Claim, until_epoch: int, budget: EpochBudget | None
    ) -> Claim | None:
        """Let a running trial continue to a later epoch, as far as the budget in epochs allows.

        Returns:
            The claim with the epoch that was granted; None when no further epoch is left.

        Raises:
            LeaseLostError: when another attempt owns the trial, or it ended.
        """
        with self._database.writing() as connection:
            locked = select(Study.id).where(Study.id == claim.study_id).with_for_update()
            connection.execute(locked)
            granted: int | None = until_epoch
            if budget is not None:
                counted = claim.until_epoch or 0
                granted = grant_epochs(connection, claim.study_id, budget, until_epoch, counted)
            if granted is None:
                return None
            update_owned(connection, claim, until_epoch=granted)
        return replace(claim, until_epoch=granted)

    def list_curves(self, study_id: int, known: Container[int] = ()) -> list[StoredCurve]:
        """Return the trials of a study with their curves, ordered by id.

        Args:
            study_id: of the study.
            known: ids of ended trials that are left out.
        """
        columns = (
            Trial.id,
            Trial.number,
            Trial.state,
            Trial.awaits_promotion,
            Trial.until_epoch,
            Trial.checkpoint_dropped,
        )
        with self._database.snapshot() as connection:
            rows = connection.execute(
                select(*columns).where(Trial.study_id == study_id).order_by(Trial.id)
            ).all()
            new = [row for row in rows if row.id not in known]
            details = _read_details(connection, study_id, [row.id for row in new], len(rows))
        return [
            StoredCurve(
                row.id,
                row.number,
                row.state,
                bool(row.awaits_promotion),
                row.until_epoch,
                *details.get(row.id, (None, {})),
                bool(row.checkpoint_dropped),
            )
            for row in new
        ]

    def list_awaiting(self, study_id: int) -> dict[int, int]:
        """Return number → attempt of the trials that await a promotion."""
        waiting = select(Trial.number, Trial.attempt).where(
            Trial.study_id == study_id, Trial.state == "paused", Trial.awaits_promotion == 1
        )
        with self._database.reading() as connection:
            return {row.number: row.attempt for row in connection.execute(waiting)}

    def drop_checkpoint(self, study_id: int, number: int, attempt: int) -> bool:
        """Record that a paused trial's checkpoint is removed, unless it was promoted meanwhile.

        Args:
            study_id: of the study.
            number: of the trial.
            attempt: that paused it.

        Returns:
            Whether its files may be removed.
        """
        awaiting = and_(
            Trial.study_id == study_id,
            Trial.number == number,
            Trial.attempt == attempt,
            Trial.awaits_promotion == 1,
        )
        with self._database.writing() as connection:
            locked = select(Study.id).where(Study.id == study_id).with_for_update()
            connection.execute(locked)
            changed = connection.execute(update(Trial).where(awaiting).values(checkpoint_dropped=1))
        return bool(changed.rowcount)

    def count_open(self, study_id: int) -> int:
        """Count the trials that have started, have not ended, and do not await a promotion."""
        is_open = and_(
            Trial.study_id == study_id,
            Trial.state.not_in(FINAL_STATES),
            Trial.awaits_promotion == 0,
        )
        with self._database.reading() as connection:
            return connection.execute(
                select(func.count()).select_from(Trial).where(is_open)
            ).scalar_one()

    def count_epochs(self, study_id: int) -> int:
        """Count the epochs that the trials of a study have been trained for, repeated ones too."""
        counted = (
            select(func.count()).select_from(Epoch).join(Trial, Trial.id == Epoch.trial_id)
        ).where(Trial.study_id == study_id)
        repeated = select(func.coalesce(func.sum(Trial.repeated_epochs), 0)).where(
            Trial.study_id == study_id
        )
        with self._database.reading() as connection:
            return int(
                connection.execute(counted).scalar_one() + connection.execute(repeated).scalar_one()
            )


MANY = 500
"""Above this number of trials, those of the whole study are read instead of naming each."""


def _read_details(
    connection: Connection, study_id: int, trial_ids: list[int], total: int
) -> dict[int, tuple[Any, dict[int, float]]]:
    """The configuration and the metrics of some trials."""
    if not trial_ids:
        return {}
    wanted: ColumnElement[bool] = Trial.study_id == study_id
    if len(trial_ids) < min(total, MANY):
        wanted = Trial.id.in_(trial_ids)
    configs = connection.execute(select(Trial.id, Trial.config).where(wanted)).all()
    details: dict[int, tuple[Any, dict[int, float]]] = {row.id: (row.config, {}) for row in configs}
    points = (
        select(Epoch.trial_id, Epoch.epoch, Epoch.metric)
        .join(Trial, Trial.id == Epoch.trial_id)
        .where(wanted)
        .order_by(Epoch.trial_id, Epoch.epoch)
    )
    for trial_id, epoch, metric in connection.execute(points):
        if trial_id in details:
            details[trial_id][1][epoch] = metric
    return details
