"""The public names. A name leaves or joins this list on purpose, with a line in the changelog."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dure

SOURCE = Path(dure.__file__).parent

PUBLIC = {
    "dure": {
        "ConfigurationError",
        "DAG",
        "Dure",
        "DureError",
        "Edits",
        "FeedEvent",
        "FeedKind",
        "IdempotencyConflict",
        "InvalidSubmission",
        "Job",
        "JobEnded",
        "JobFailed",
        "JobFilter",
        "JobHandle",
        "JobNotEnded",
        "LedgerUnavailable",
        "LinkDown",
        "LinkError",
        "Reason",
        "Resent",
        "ResultTimeout",
        "Skipped",
        "State",
        "Submission",
        "SyncDure",
        "SyncJobHandle",
        "SyncWorkflowHandle",
        "TaskCancelled",
        "UnknownJob",
        "UnknownNode",
        "UnknownTask",
        "UnknownWorkflow",
        "Unroutable",
        "WorkflowEnded",
        "WorkflowFailed",
        "WorkflowHandle",
        "WorkflowNotEnded",
        "emit",
        "progress",
    },
    "dure.client": {
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
    },
    "dure.ledger": {
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
    },
    "dure.contrib.fastapi": {"DureDep", "get_dure", "lifespan", "router"},
}
ERRORS = {
    "DureError": "Exception",
    "ConfigurationError": "DureError",
    "InvalidSubmission": "DureError",
    "UnknownTask": "DureError",
    "UnknownJob": "DureError",
    "JobEnded": "DureError",
    "JobNotEnded": "DureError",
    "UnknownWorkflow": "DureError",
    "UnknownNode": "DureError",
    "WorkflowEnded": "DureError",
    "WorkflowNotEnded": "DureError",
    "WorkflowFailed": "DureError",
    "IdempotencyConflict": "DureError",
    "InvalidCursor": "DureError",
    "JobFailed": "DureError",
    "ResultTimeout": "DureError",
    "LinkError": "DureError",
    "LinkDown": "LinkError",
    "QueueRefused": "LinkError",
    "Unroutable": "LinkError",
    "LedgerUnavailable": "DureError",
    "DeadLetter": "DureError",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_has_these_public_names_and_no_others(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == PUBLIC[name]
    assert all(getattr(module, public) is not None for public in PUBLIC[name])


def test_the_errors_are_these_and_the_tree_in_their_header_shows_each() -> None:
    errors = importlib.import_module("dure.errors")
    found = {
        node.name: node.bases[0].id
        for node in ast.parse((SOURCE / "errors.py").read_text()).body
        if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name)
    }
    assert found == ERRORS
    assert all(name in errors.__doc__ for name in ERRORS)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        dure.Nothing  # noqa: B018


def test_importing_the_package_loads_no_database_and_no_broker() -> None:
    heavy = ("sqlalchemy", "aiormq", "celery", "kombu", "fastapi", "pydantic")
    script = f"import dure, sys; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {"PYTHONPATH": str(SOURCE.parent)}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
