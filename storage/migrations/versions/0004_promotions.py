"""The epoch until which a trial is trained, and whether it waits there for a promotion."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; a trial of an older program is trained to its last epoch."""
    op.add_column("search_trials", sa.Column("until_epoch", sa.Integer(), nullable=True))
    op.add_column(
        "search_trials",
        sa.Column("awaits_promotion", sa.Integer(), server_default="0", nullable=False),
    )
    for name in ("checkpoint_dropped", "repeated_epochs"):
        op.add_column(
            "search_trials", sa.Column(name, sa.Integer(), server_default="0", nullable=False)
        )
