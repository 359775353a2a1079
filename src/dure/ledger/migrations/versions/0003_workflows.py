"""Workflows: nodes are jobs, needs are edges."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("workflow_id", sa.String(255)),
    ("node", sa.String(255)),
    ("replaced_by", sa.String(255)),
    ("plan", sa.Text()),
    ("unmet", sa.Integer()),
    ("passed_on_at", sa.Double()),
)
_INDEXES = (
    ("ix_jobs_workflow", ["workflow_id", "seq"], "workflow_id IS NOT NULL"),
    ("ix_jobs_parent", ["root_id"], "parent_id IS NOT NULL"),
    ("ix_jobs_group", ["group_id"], "group_id IS NOT NULL"),
)
_EXPIRES = "expires IS NOT NULL AND state IN ('SCHEDULED', 'ACCEPTED', 'QUEUED'{})"
_OVERDUE = sa.text("deadline IS NOT NULL AND state = 'STARTED'")


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column("jobs", sa.Column(name, kind))
    for name, columns, where in _INDEXES:
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
    op.create_table(
        "workflows",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(255), nullable=False, unique=True),
        sa.Column("name", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("output", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("timeout", sa.Double),
        sa.Column("deadline", sa.Double),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("cancel_requested_at", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("open", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_workflows_deadline", "workflows", ["deadline"], postgresql_where=_OVERDUE, sqlite_where=_OVERDUE
    )
    op.create_table(
        "edges",
        sa.Column("job_id", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("needs", sa.String(255), nullable=False),
        sa.Column("passes", sa.String(16), nullable=False),
    )
    op.create_index("ix_edges_needs", "edges", ["needs"])
    _replace_expires(", 'WAITING'")


def downgrade() -> None:
    _replace_expires("")
    op.drop_table("edges")
    op.drop_table("workflows")
    for name, _, _ in _INDEXES:
        op.drop_index(name, "jobs")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("jobs", name)


def _replace_expires(further: str) -> None:
    where = sa.text(_EXPIRES.format(further))
    op.drop_index("ix_jobs_expires", "jobs")
    op.create_index("ix_jobs_expires", "jobs", ["expires"], postgresql_where=where, sqlite_where=where)
