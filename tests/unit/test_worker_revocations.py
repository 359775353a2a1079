"""What a worker says of jobs that are revoked."""

import logging
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker import state
from celery.worker.control import revoke

from dure.worker.revocations import Revocations


def test_without_a_result_backend_nothing_is_said_of_each_revoked_job(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("celery.worker.control"), "filters", [])
    monkeypatch.setattr(state, "revoked", type(state.revoked)())
    worker = SimpleNamespace(app=Celery("silent", set_as_current=False), consumer=None)

    revoke(worker, "one")
    assert "Failed to mark task one" in caplog.text
    caplog.clear()
    Revocations(SimpleNamespace())
    revoke(worker, "other")

    assert "other" in state.revoked
    assert "Failed" not in caplog.text
