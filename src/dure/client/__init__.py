"""Submit jobs and workflows, look them up, wait for them, cancel them, send them again."""

from dure.client.again import Edits, Resent, Skipped
from dure.client.dure import Dure
from dure.client.flow_handle import WorkflowHandle
from dure.client.handle import JobHandle
from dure.client.submission import Submission
from dure.client.sync import SyncDure
from dure.client.sync_handle import SyncJobHandle, SyncWorkflowHandle
from dure.ledger import JobFilter

__all__ = [
    "Dure",
    "Edits",
    "JobFilter",
    "JobHandle",
    "Resent",
    "Skipped",
    "Submission",
    "SyncDure",
    "SyncJobHandle",
    "SyncWorkflowHandle",
    "WorkflowHandle",
]
