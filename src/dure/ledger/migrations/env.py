"""Alembic's entry: the connection comes from `dure.ledger.migrate`."""

from alembic import context

from dure.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
