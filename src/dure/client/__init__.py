"""Submit jobs, look them up, wait for them, cancel them, send them again."""

from dure.client.again import Edits, Resent, Skipped
from dure.client.dure import Dure
from dure.client.handle import JobHandle
from dure.client.submission import Submission
from dure.client.sync import SyncDure, SyncJobHandle
from dure.ledger import JobFilter

__all__ = ["Dure", "Edits", "JobFilter", "JobHandle", "Resent", "Skipped", "Submission", "SyncDure", "SyncJobHandle"]
