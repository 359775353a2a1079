"""The first schema: jobs, their tags, tasks, workers and queues."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(255), nullable=False, unique=True),
        sa.Column("task", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("args", sa.Text),
        sa.Column("kwargs", sa.Text),
        sa.Column("args_repr", sa.Text),
        sa.Column("kwargs_repr", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("result_repr", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempt", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("priority", sa.Integer),
        sa.Column("retries", sa.Integer),
        sa.Column("time_limit", sa.Double),
        sa.Column("tags", sa.Text),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("root_id", sa.String(255)),
        sa.Column("parent_id", sa.String(255)),
        sa.Column("group_id", sa.String(255)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("eta", sa.Double),
        sa.Column("expires", sa.Double),
        sa.Column("queued_at", sa.Double),
        sa.Column("received_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("runtime", sa.Double),
        sa.Column("due_at", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_task", "jobs", ["task", "seq"])
    op.create_index("ix_jobs_created", "jobs", ["created_at"])
    op.create_index(
        "ix_jobs_not_succeeded",
        "jobs",
        ["state", "seq"],
        postgresql_where=sa.text("state <> 'SUCCESS'"),
        sqlite_where=sa.text("state <> 'SUCCESS'"),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "job_tags",
        sa.Column("tag", sa.String(128), primary_key=True),
        sa.Column("job_id", sa.String(255), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_job_tags_job", "job_tags", ["job_id"])
    op.create_table(
        "tasks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("doc", sa.Text),
        sa.Column("arguments", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("positional", sa.Text, nullable=False),
        sa.Column("variadic", sa.Boolean, nullable=False),
        sa.Column("queue", sa.Text),
        sa.Column("announced_at", sa.Double, nullable=False),
        sa.Column("announced_by", sa.Text),
    )
    op.create_table(
        "workers",
        sa.Column("hostname", sa.String(255), primary_key=True),
        sa.Column("online", sa.Boolean, nullable=False),
        sa.Column("pool", sa.Text),
        sa.Column("concurrency", sa.Integer),
        sa.Column("queues", sa.Text, nullable=False),
        sa.Column("software", sa.Text),
        sa.Column("pid", sa.Integer),
        sa.Column("processed", sa.Integer),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.Column("announced_at", sa.Double),
        sa.Column("started_at", sa.Double),
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.String(255), primary_key=True),
    )


def downgrade() -> None:
    for table in ("queues", "workers", "tasks", "job_tags", "jobs"):
        op.drop_table(table)
