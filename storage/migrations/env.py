"""Run the migrations within the transaction that `storage.tables.schema_version` opened."""

from alembic import context

from storage.tables.models import Table
from storage.tables.schema_version import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
