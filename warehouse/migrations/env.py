"""Alembic's entry: applies the revisions to the database that `open_database` names."""

import sqlalchemy as sa
from alembic import context

from warehouse.database import METADATA

with sa.create_engine(context.config.attributes["url"]).connect() as connection:
    # Batch mode: SQLite can alter a table only by making it anew.
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
