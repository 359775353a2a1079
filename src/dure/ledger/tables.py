"""The tables. Times are seconds since the epoch (UTC) as doubles; JSON is text, so both databases read it alike.

`jobs.seq` orders jobs as they came and carries the cursors of lists. `jobs.due_at` is the relay's: when a row is to
be published, again or for the first time; NULL once the broker has confirmed it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

_Seq = BigInteger().with_variant(Integer(), "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False, unique=True),
    Column("task", Text),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("args", Text),
    Column("kwargs", Text),
    Column("args_repr", Text),
    Column("kwargs_repr", Text),
    Column("result", Text),
    Column("result_repr", Text),
    Column("error", Text),
    Column("attempt", Integer),
    Column("attempts", Integer, nullable=False),
    Column("worker", Text),
    Column("queue", Text),
    Column("priority", Integer),
    Column("retries", Integer),
    Column("time_limit", Double),
    Column("tags", Text),
    Column("origin", String(16), nullable=False),
    Column("root_id", String(255)),
    Column("parent_id", String(255)),
    Column("group_id", String(255)),
    Column("created_at", Double, nullable=False),
    Column("eta", Double),
    Column("expires", Double),
    Column("queued_at", Double),
    Column("received_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("changed_at", Double, nullable=False),
    Column("runtime", Double),
    Column("due_at", Double),
    Index("ix_jobs_task", "task", "seq"),
    Index("ix_jobs_created", "created_at"),
    Index(
        "ix_jobs_not_succeeded",
        "state",
        "seq",
        postgresql_where=text("state <> 'SUCCESS'"),
        sqlite_where=text("state <> 'SUCCESS'"),
    ),
    Index(
        "ix_jobs_due",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

job_tags = Table(
    "job_tags",
    metadata,
    Column("tag", String(128), primary_key=True),
    Column("job_id", String(255), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_job_tags_job", "job_id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("doc", Text),
    Column("arguments", Text),
    Column("result", Text),
    Column("positional", Text, nullable=False),
    Column("variadic", Boolean, nullable=False),
    Column("queue", Text),
    Column("announced_at", Double, nullable=False),
    Column("announced_by", Text),
)

workers = Table(
    "workers",
    metadata,
    Column("hostname", String(255), primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("pool", Text),
    Column("concurrency", Integer),
    Column("queues", Text, nullable=False),
    Column("software", Text),
    Column("pid", Integer),
    Column("processed", Integer),
    Column("heartbeat_at", Double, nullable=False),
    Column("announced_at", Double),
    Column("started_at", Double),
)

queues = Table(
    "queues",
    metadata,
    Column("name", String(255), primary_key=True),
)
