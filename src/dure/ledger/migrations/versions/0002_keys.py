"""Keys, cancelling, sending again, and settling: idempotency and unique keys, and what a job tells of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("fingerprint", sa.String(64)),
    ("retry_of", sa.String(255)),
    ("unique_key", sa.String(255)),
    ("cancel_requested_at", sa.Double()),
    ("checked_at", sa.Double()),
    ("resent", sa.Integer()),
)
_INDEXES = (
    ("ix_jobs_expires", ["expires"], "expires IS NOT NULL AND state IN ('SCHEDULED', 'ACCEPTED', 'QUEUED')"),
    ("ix_jobs_fingerprint", ["fingerprint", "seq"], "fingerprint IS NOT NULL"),
    ("ix_jobs_retry_of", ["retry_of"], "retry_of IS NOT NULL"),
)


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column("jobs", sa.Column(name, kind))
    for name, columns, where in _INDEXES:
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("job_ids", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("ix_idempotency_keys_expires", "idempotency_keys", ["expires_at"])
    op.create_table(
        "unique_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("until", sa.String(16), nullable=False),
        sa.Column("expires_at", sa.Double),
    )


def downgrade() -> None:
    op.drop_table("unique_keys")
    op.drop_table("idempotency_keys")
    for name, _, _ in _INDEXES:
        op.drop_index(name, "jobs")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("jobs", name)
