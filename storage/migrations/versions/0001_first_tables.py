"""Studies, trials, their epochs and signals, and class counts."""

import sqlalchemy as sa
from alembic import op

from storage.tables.columns import KEY, LONG, NUMBER

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    _studies_and_trials()
    _what_trials_leave()
    op.create_table(
        "search_class_counts",
        sa.Column("fingerprint", KEY, nullable=False),
        sa.Column("names", LONG, nullable=False),
        sa.Column("counts", LONG, nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_search_class_counts"),
    )


def _studies_and_trials() -> None:
    op.create_table(
        "search_studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("optuna_study_id", sa.Integer(), nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("definition", LONG, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_studies"),
        sa.UniqueConstraint("optuna_study_id", name="uq_search_studies_optuna_study_id"),
        sa.UniqueConstraint("name", name="uq_search_studies_name"),
    )
    op.create_table(
        "search_trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("optuna_trial_id", sa.Integer(), nullable=True),
        sa.Column("state", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("config", LONG, nullable=True),
        sa.Column("used", LONG, nullable=True),
        sa.Column("preset", sa.Text(), nullable=True),
        sa.Column("score", NUMBER, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_search_trials"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["search_studies.id"], name="fk_search_trials_study_id"
        ),
        sa.UniqueConstraint("study_id", "number", name="uq_search_trials_study_id_number"),
    )
    op.create_index("ix_search_trials_study_id_state", "search_trials", ["study_id", "state"])


def _what_trials_leave() -> None:
    op.create_table(
        "search_epochs",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metric", NUMBER, nullable=False),
        sa.Column("record", LONG, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "epoch", name="pk_search_epochs"),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["search_trials.id"], name="fk_search_epochs_trial_id"
        ),
    )
    op.create_table(
        "search_signals",
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("signal", KEY, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("severity", NUMBER, nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("numbers", LONG, nullable=False),
        sa.Column("diagnosis", LONG, nullable=True),
        sa.PrimaryKeyConstraint("trial_id", "signal", "epoch", name="pk_search_signals"),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["search_trials.id"], name="fk_search_signals_trial_id"
        ),
    )
