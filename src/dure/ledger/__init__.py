"""The one source of truth, in SQL."""

from dure.ledger.ledger import Ledger
from dure.ledger.reads import JobFilter, Page

__all__ = ["JobFilter", "Ledger", "Page"]
