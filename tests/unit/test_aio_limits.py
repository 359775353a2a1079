"""Which tasks are told that their time limits do nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from dure.worker import announce, log
from dure.worker.aio.bodies import install


@pytest.mark.parametrize(
    ("pool", "told"), [("asyncio", ["sync"]), ("threads", ["coroutine", "process", "sync"]), ("prefork", [])]
)
def test_a_limit_that_the_pool_cannot_keep_is_named(
    monkeypatch: pytest.MonkeyPatch, pool: str, told: list[str]
) -> None:
    app = Celery("limits", broker="memory://", set_as_current=False)
    install(app)

    @app.task(shared=False, name="coroutine", time_limit=1)
    async def coroutine() -> None: ...

    @app.task(shared=False, name="sync", time_limit=1)
    def sync() -> None: ...

    @app.task(shared=False, name="process", time_limit=1, dure={"pool": "process"})
    def process() -> None: ...

    app.finalize()
    seen: list[Any] = []
    monkeypatch.setattr(log, "limits_do_nothing", lambda pool, tasks: seen.extend(tasks))
    monkeypatch.setattr(announce, "_pool_name", lambda _: pool)
    announce._warn_of_limits(SimpleNamespace(pool=None, app=app))
    assert (
        sorted(name for name in seen if name in {"coroutine", "process", "sync"}) == told
    )  # others share theirs with every application
