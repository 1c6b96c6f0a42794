"""Device, device time and halvings of a trial; the budget of device time of a study."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, and the index for queries of recently ended trials."""
    op.add_column(
        "search_studies", sa.Column("device_s", sa.Double(), server_default="0", nullable=False)
    )
    op.add_column("search_studies", sa.Column("device_budget_s", sa.Double(), nullable=True))
    op.add_column("search_trials", sa.Column("device", sa.Text(), nullable=True))
    op.add_column(
        "search_trials", sa.Column("device_s", sa.Double(), server_default="0", nullable=False)
    )
    op.add_column("search_trials", sa.Column("charged_until", sa.Double(), nullable=True))
    op.add_column(
        "search_trials", sa.Column("halvings", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("search_trials", sa.Column("seen_at", sa.Double(), nullable=True))
    op.create_index(
        "ix_search_trials_study_id_finished_at", "search_trials", ["study_id", "finished_at"]
    )
