"""Submit jobs, look them up, wait for them."""

from dure.client.dure import Dure
from dure.client.handle import JobHandle
from dure.client.submission import Submission
from dure.client.sync import SyncDure, SyncJobHandle

__all__ = ["Dure", "JobHandle", "Submission", "SyncDure", "SyncJobHandle"]
