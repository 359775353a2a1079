"""What unit tests share."""

import pytest
from celery import _state
from celery.app import builtins


@pytest.fixture(autouse=True)
def _no_tasks_of_other_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery gives each application the tasks of all others in its process; other tests have made some."""
    own = {make for make in _state._on_app_finalizers if make.__module__ == builtins.__name__}  # type: ignore[attr-defined]
    monkeypatch.setattr(_state, "_on_app_finalizers", own)
