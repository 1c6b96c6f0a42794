"""The probe of a study's learning rate: its result, and until when a worker runs it."""

import sqlalchemy as sa
from alembic import op

from storage.tables.columns import LONG

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns; a study of an older program has no probe."""
    op.add_column("search_studies", sa.Column("rate_probe", LONG, nullable=True))
    op.add_column("search_studies", sa.Column("rate_probe_until", sa.Double(), nullable=True))
