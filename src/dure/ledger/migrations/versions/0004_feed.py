"""What can be watched: entries that tasks tell, and the log of each workflow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ENTRIES = sa.text("kind = 'entries'")
_OF_A_WORKFLOW = sa.text("workflow_id IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_jobs_changed", "jobs", ["changed_at"], postgresql_using="brin")
    op.create_table(
        "feed",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(255)),
        sa.Column("workflow_id", sa.String(255)),
        sa.Column("run", sa.BigInteger),
        sa.Column("first", sa.BigInteger),
        sa.Column("last", sa.BigInteger),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_feed_entries", "feed", ["job_id", "run", "last"], postgresql_where=_ENTRIES, sqlite_where=_ENTRIES
    )
    op.create_index(
        "ix_feed_workflow", "feed", ["workflow_id", "seq"], postgresql_where=_OF_A_WORKFLOW, sqlite_where=_OF_A_WORKFLOW
    )
    op.create_index("ix_feed_at", "feed", ["at"], postgresql_using="brin")
    op.create_table(
        "feed_marks",
        sa.Column("job_id", sa.String(255), primary_key=True),
        sa.Column("marks", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("feed_marks")
    op.drop_table("feed")
    op.drop_index("ix_jobs_changed", "jobs")
