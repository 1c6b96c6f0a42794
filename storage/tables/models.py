"""Our tables. They are next to Optuna's in the same database, without foreign keys to them.

search_studies ─< search_trials ─┬< search_epochs        search_class_counts
                                 └< search_signals
Times are seconds since 1970 (UTC) on the database's clock.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Double, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.rows import TrialState
from storage.tables.columns import KEY, Json, Number, Words

PREFIX = "search_"


class Table(DeclarativeBase):
    """Base of our tables: one `MetaData`, and names of constraints that migrations can use."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar = {str: Text(), float: Double()}


class Study(Table):
    """A study, and the definition that it was started with.

    Attributes:
        device_budget_s: seconds of device time that its trials may use in all; None: no limit.
        device_s: seconds charged against the budget; up to date only while there is one.
        rate_probe: result of the probe of the learning rate; None: there is none yet.
        rate_probe_until: until when a worker runs the probe, unless it renews the lease.
    """

    __tablename__ = f"{PREFIX}studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    optuna_study_id: Mapped[int] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(KEY, unique=True)
    definition: Mapped[Any] = mapped_column(Json, nullable=False)
    created_at: Mapped[float]
    device_s: Mapped[float] = mapped_column(server_default="0")
    device_budget_s: Mapped[float | None]
    rate_probe: Mapped[Any] = mapped_column(Json, nullable=True)
    rate_probe_until: Mapped[float | None]


class Trial(Table):
    """A trial and its current attempt.

    Attributes:
        lost: how many of its attempts ended because the worker died or stopped responding.
        device: where it ran last; None where that is not known.
        device_s: seconds of device time charged for all its attempts.
        charged_until: up to when the current attempt is charged; None while no worker owns it.
        halvings: how often its batch was halved after it ran out of memory.
        seen_at: when its worker last renewed the lease.
        signal: what ended it: a divergence signal, the kind of a pruner, or the type of an error.
        until_epoch: where its current attempt pauses or ends; None: at the last epoch.
        awaits_promotion: 1 while it is paused there, so that only the search resumes it.
        checkpoint_dropped: 1 while it awaits that without a checkpoint, and would start again.
        repeated_epochs: epochs that it was trained for before it started again for that.
    """

    __tablename__ = f"{PREFIX}trials"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index(f"ix_{PREFIX}trials_study_id_state", "study_id", "state"),
        Index(f"ix_{PREFIX}trials_study_id_finished_at", "study_id", "finished_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey(Study.id))
    number: Mapped[int | None]
    optuna_trial_id: Mapped[int | None]
    state: Mapped[TrialState] = mapped_column(KEY)
    attempt: Mapped[int]
    lost: Mapped[int]
    worker: Mapped[str] = mapped_column(Words)
    host: Mapped[str] = mapped_column(Words)
    pid: Mapped[int]
    lease_until: Mapped[float | None]
    config: Mapped[Any] = mapped_column(Json, nullable=True)
    used: Mapped[Any] = mapped_column(Json, nullable=True)
    preset: Mapped[str | None]
    score: Mapped[float | None] = mapped_column(Number)
    reason: Mapped[str] = mapped_column(Words)
    error: Mapped[str] = mapped_column(Words)
    signal: Mapped[str | None] = mapped_column(Words)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    device: Mapped[str | None] = mapped_column(Words)
    device_s: Mapped[float] = mapped_column(server_default="0")
    charged_until: Mapped[float | None]
    halvings: Mapped[int] = mapped_column(server_default="0")
    seen_at: Mapped[float | None]
    until_epoch: Mapped[int | None]
    awaits_promotion: Mapped[int] = mapped_column(server_default="0")
    checkpoint_dropped: Mapped[int] = mapped_column(server_default="0")
    repeated_epochs: Mapped[int] = mapped_column(server_default="0")


class Epoch(Table):
    """One epoch of a trial, as its last attempt recorded it.

    The metric has a column of its own for the live display.
    """

    __tablename__ = f"{PREFIX}epochs"

    trial_id: Mapped[int] = mapped_column(ForeignKey(Trial.id), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    metric: Mapped[float] = mapped_column(Number)
    record: Mapped[Any] = mapped_column(Json, nullable=False)
    at: Mapped[float]


class Signal(Table):
    """A signal that fired in a trial: the evidence, and its diagnosis."""

    __tablename__ = f"{PREFIX}signals"

    trial_id: Mapped[int] = mapped_column(ForeignKey(Trial.id), primary_key=True)
    signal: Mapped[str] = mapped_column(KEY, primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int | None]
    severity: Mapped[float] = mapped_column(Number)
    statement: Mapped[str] = mapped_column(Words)
    numbers: Mapped[Any] = mapped_column(Json, nullable=False)
    diagnosis: Mapped[Any] = mapped_column(Json, nullable=True)


class ClassCount(Table):
    """The class counts of one training split, which `fingerprint` identifies."""

    __tablename__ = f"{PREFIX}class_counts"

    fingerprint: Mapped[str] = mapped_column(KEY, primary_key=True)
    names: Mapped[Any] = mapped_column(Json, nullable=False)
    counts: Mapped[Any] = mapped_column(Json, nullable=False)
    made_at: Mapped[float]
