"""The tables. Times are seconds since the epoch (UTC) as doubles; JSON is text, so both databases read it alike.

`jobs.seq` orders jobs as they came and carries the cursors of lists. `jobs.due_at` is the relay's: when a row is to
be published, again or for the first time; NULL once the broker has confirmed it. Of a cancelled job it is the
cancellation that is due. `jobs.checked_at` and `jobs.resent` are the sweeper's: when a silent job was last asked after,
and how often its message was published anew because it was nowhere.

A node of a workflow is a job with `workflow_id` and `node`, its name; of one name the job counts that is not
`replaced_by` another. `jobs.plan` is what it does when nothing of it is `unmet` any more, `jobs.passed_on_at` when its
end was told to those that need it. `edges.needs` is the job that `job_id` waits for, `edges.passes` at which of its
ends. `workflows.open` counts the nodes that have not ended; whoever ends or begins a node locks this row before.

`feed` is what can be watched: entries that tasks told (one row is entries `first` to `last` of the attempt that is
`run`), and, for workflows only, the states of nodes and of the workflow itself. Of one workflow `seq` rises in the
order in which the rows were committed. `feed_marks` is by job what was told of it, and what of that is gone.
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
    Column("fingerprint", String(64)),
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
    Column("retry_of", String(255)),
    Column("unique_key", String(255)),
    Column("created_at", Double, nullable=False),
    Column("eta", Double),
    Column("expires", Double),
    Column("queued_at", Double),
    Column("received_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("cancel_requested_at", Double),
    Column("changed_at", Double, nullable=False),
    Column("runtime", Double),
    Column("due_at", Double),
    Column("checked_at", Double),
    Column("resent", Integer),
    Column("workflow_id", String(255)),
    Column("node", String(255)),
    Column("replaced_by", String(255)),
    Column("plan", Text),
    Column("unmet", Integer),
    Column("passed_on_at", Double),
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
    Index(
        "ix_jobs_expires",
        "expires",
        postgresql_where=text("expires IS NOT NULL AND state IN ('SCHEDULED', 'ACCEPTED', 'QUEUED', 'WAITING')"),
        sqlite_where=text("expires IS NOT NULL AND state IN ('SCHEDULED', 'ACCEPTED', 'QUEUED', 'WAITING')"),
    ),
    Index(
        "ix_jobs_fingerprint",
        "fingerprint",
        "seq",
        postgresql_where=text("fingerprint IS NOT NULL"),
        sqlite_where=text("fingerprint IS NOT NULL"),
    ),
    Index(
        "ix_jobs_retry_of",
        "retry_of",
        postgresql_where=text("retry_of IS NOT NULL"),
        sqlite_where=text("retry_of IS NOT NULL"),
    ),
    Index(
        "ix_jobs_workflow",
        "workflow_id",
        "seq",
        postgresql_where=text("workflow_id IS NOT NULL"),
        sqlite_where=text("workflow_id IS NOT NULL"),
    ),
    # The rows that changed last are together on PostgreSQL, so the smallest of indexes finds them.
    Index("ix_jobs_changed", "changed_at", postgresql_using="brin"),
    Index(
        "ix_jobs_parent",
        "root_id",
        postgresql_where=text("parent_id IS NOT NULL"),
        sqlite_where=text("parent_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_group",
        "group_id",
        postgresql_where=text("group_id IS NOT NULL"),
        sqlite_where=text("group_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

workflows = Table(
    "workflows",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("id", String(255), nullable=False, unique=True),
    Column("name", Text),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("output", Text),
    Column("queue", Text),
    Column("timeout", Double),
    Column("deadline", Double),
    Column("origin", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("cancel_requested_at", Double),
    Column("changed_at", Double, nullable=False),
    Column("open", Integer, nullable=False),
    Index(
        "ix_workflows_deadline",
        "deadline",
        postgresql_where=text("deadline IS NOT NULL AND state = 'STARTED'"),
        sqlite_where=text("deadline IS NOT NULL AND state = 'STARTED'"),
    ),
    sqlite_autoincrement=True,
)

edges = Table(
    "edges",
    metadata,
    Column("job_id", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("needs", String(255), nullable=False),
    Column("passes", String(16), nullable=False),
    Index("ix_edges_needs", "needs"),
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

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_ids", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    Index("ix_idempotency_keys_expires", "expires_at"),
)

unique_keys = Table(
    "unique_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("job_id", String(255), nullable=False),
    Column("until", String(16), nullable=False),
    Column("expires_at", Double),
)

feed = Table(
    "feed",
    metadata,
    Column("seq", _Seq, primary_key=True, autoincrement=True),
    Column("job_id", String(255)),
    Column("workflow_id", String(255)),
    Column("run", BigInteger),
    Column("first", BigInteger),
    Column("last", BigInteger),
    Column("kind", String(16), nullable=False),
    Column("at", Double, nullable=False),
    Column("size", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index(
        "ix_feed_entries",
        "job_id",
        "run",
        "last",
        postgresql_where=text("kind = 'entries'"),
        sqlite_where=text("kind = 'entries'"),
    ),
    Index(
        "ix_feed_workflow",
        "workflow_id",
        "seq",
        postgresql_where=text("workflow_id IS NOT NULL"),
        sqlite_where=text("workflow_id IS NOT NULL"),
    ),
    Index("ix_feed_at", "at", postgresql_using="brin"),
    sqlite_autoincrement=True,
)

feed_marks = Table(
    "feed_marks",
    metadata,
    Column("job_id", String(255), primary_key=True),
    Column("marks", Text, nullable=False),
)
