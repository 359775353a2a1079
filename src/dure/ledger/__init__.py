"""The one source of truth, in SQL."""

from dure.ledger.feed import FeedRow, JobEntries
from dure.ledger.feed_changes import RowKind
from dure.ledger.feed_marks import Limits
from dure.ledger.flow_writes import Cancelled
from dure.ledger.flows import NodeView, WorkflowPage, WorkflowView
from dure.ledger.keys import Idempotency, Receipt, Request
from dure.ledger.ledger import Ledger
from dure.ledger.reads import Group, JobFilter, Page

__all__ = [
    "Cancelled",
    "FeedRow",
    "Group",
    "Idempotency",
    "JobEntries",
    "JobFilter",
    "Ledger",
    "Limits",
    "NodeView",
    "Page",
    "Receipt",
    "Request",
    "RowKind",
    "WorkflowPage",
    "WorkflowView",
]
