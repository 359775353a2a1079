"""The one source of truth, in SQL."""

from dure.ledger.flow_writes import Cancelled
from dure.ledger.flows import NodeView, WorkflowPage, WorkflowView
from dure.ledger.keys import Idempotency, Receipt, Request
from dure.ledger.ledger import Ledger
from dure.ledger.reads import Group, JobFilter, Page

__all__ = [
    "Cancelled",
    "Group",
    "Idempotency",
    "JobFilter",
    "Ledger",
    "NodeView",
    "Page",
    "Receipt",
    "Request",
    "WorkflowPage",
    "WorkflowView",
]
