"""The one source of truth, in SQL."""

from dure.ledger.keys import Idempotency, Receipt, Request
from dure.ledger.ledger import Ledger
from dure.ledger.reads import Group, JobFilter, Page

__all__ = ["Group", "Idempotency", "JobFilter", "Ledger", "Page", "Receipt", "Request"]
