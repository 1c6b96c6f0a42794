"""What ended a trial, which used to be the beginning of the reason's text only."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TRIALS = sa.table(
    "search_trials",
    sa.column("id", sa.Integer),
    sa.column("state", sa.Text),
    sa.column("reason", sa.Text),
    sa.column("signal", sa.Text),
)
ENDED = ("pruned", "diverged", "failed")


def upgrade() -> None:
    """Adds the column, and fills it for the trials of an older program from their reasons."""
    op.add_column("search_trials", sa.Column("signal", sa.Text(), nullable=True))
    connection = op.get_bind()
    ended = sa.select(TRIALS.c.id, TRIALS.c.reason).where(TRIALS.c.state.in_(ENDED))
    filled = [
        {"row": row.id, "head": row.reason.partition(":")[0]}
        for row in connection.execute(ended).all()
    ]
    if filled:
        connection.execute(
            sa.update(TRIALS)
            .where(TRIALS.c.id == sa.bindparam("row"))
            .values(signal=sa.bindparam("head")),
            filled,
        )
