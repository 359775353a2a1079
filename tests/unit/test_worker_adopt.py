"""Which settings adopting an application changes, and which it leaves alone."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from celery.worker.control import Panel

from dure.settings import Settings
from dure.worker import adopt as adopting
from dure.worker.adopt import SAFE, adopt
from dure.worker.aio.names import COROUTINES, threads
from dure.worker.run import _choose_concurrency, _choose_pool

SETTINGS = Settings(_env_file=None)


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(variable, raising=False)
    used = [signals.worker_init, signals.worker_process_init, signals.worker_ready, signals.celeryd_after_setup]
    before = [(signal, list(signal.receivers or ())) for signal in used]
    commands = dict(Panel.data)
    yield
    for signal, receivers in before:
        signal.receivers = receivers
    Panel.data.clear()
    Panel.data.update(commands)


def test_an_application_without_settings_becomes_safe() -> None:
    app = Celery(broker="amqp://")
    adopt(app, SETTINGS)
    assert {name: app.conf[name] for name in SAFE} == dict(SAFE)
    assert app.conf.broker_transport_options == {"confirm_publish": True}


@pytest.mark.parametrize("value", [True, False])
def test_what_the_application_set_stays_even_where_it_equals_the_default(value: bool) -> None:
    app = Celery(broker="amqp://")
    app.conf.task_acks_late = value
    changed = adopt(app, SETTINGS)
    assert app.conf.task_acks_late is value
    assert "task_acks_late" not in changed


def test_what_a_settings_object_set_stays() -> None:
    app = Celery(broker="amqp://")
    app.config_from_object(SimpleNamespace(task_acks_late=False, accept_content=["pickle", "json"]))
    adopt(app, SETTINGS)
    assert (app.conf.task_acks_late, app.conf.accept_content) == (False, ["pickle", "json"])
    assert app.conf.task_reject_on_worker_lost is True


def test_what_django_settings_set_stays() -> None:
    django = SimpleNamespace(CELERY_TASK_ACKS_LATE=False, CELERY_WORKER_PREFETCH_MULTIPLIER=4, DEBUG=True)
    app = Celery(broker="amqp://")
    app.config_from_object(django, namespace="CELERY")
    adopt(app, SETTINGS)
    assert (app.conf.task_acks_late, app.conf.worker_prefetch_multiplier) == (False, 4)
    assert app.conf.task_send_sent_event is True


def test_old_setting_names_count_as_set() -> None:
    app = Celery(broker="amqp://")
    app.config_from_object(SimpleNamespace(CELERY_ACKS_LATE=False, CELERYD_PREFETCH_MULTIPLIER=3))
    adopt(app, SETTINGS)
    assert (app.conf.task_acks_late, app.conf.worker_prefetch_multiplier) == (False, 3)


def test_a_task_keeps_its_own_settings() -> None:
    app = Celery(broker="amqp://", set_as_current=False)

    @app.task(acks_late=False, shared=False)
    def early() -> None: ...

    @app.task(shared=False)
    def plain() -> None: ...

    adopt(app, SETTINGS)
    assert (app.tasks[early.name].acks_late, app.tasks[plain.name].acks_late) == (False, True)


def test_urls_that_are_given_go_before_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://environment")
    app = Celery(broker="amqp://own", backend="redis://own")
    app.conf.broker_read_url = "amqp://read"
    adopt(app, SETTINGS, broker_url="amqp://given", result_backend="redis://given")
    conf = app.conf
    assert {conf.broker_url, conf.broker_read_url, conf.broker_write_url} == {"amqp://given"}
    assert conf.result_backend == "redis://given"
    assert "CELERY_BROKER_URL" not in os.environ


def test_a_password_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []
    monkeypatch.setattr(adopting.log, "adopted", lambda *line: lines.append(line))
    adopt(Celery(), SETTINGS, broker_url="amqp://me:secret@host", result_backend="redis://:secret@host")
    assert lines
    assert "secret" not in str(lines)


def test_only_rabbitmq_is_asked_for_confirms() -> None:
    app = Celery(broker="redis://")
    adopt(app, SETTINGS)
    assert app.conf.broker_transport_options == {}


@pytest.mark.parametrize(
    ("argv", "pool", "counted"),
    [
        ([], "asyncio", True),
        (["-c", "3"], "asyncio", False),
        (["--concurrency=3"], "asyncio", False),
        (["--pool", "prefork"], "prefork", False),
        (["-Psolo"], "prefork", False),
        (["-P", "threads"], "prefork", False),
        (["-P", "asyncio"], "prefork", True),
        (["-l", "INFO", "-Q", "a,b", "--autoscale", "4,1"], "asyncio", True),
    ],
)
def test_the_pool_is_asyncio_unless_something_else_was_asked_for(
    argv: list[str], pool: str, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(signals.worker_init, "connect", lambda receiver, **_: connected.append(receiver))
    app = Celery(broker="amqp://")
    _choose_pool(app, argv)
    assert app.conf.worker_pool == pool
    assert bool(connected) is counted


def test_an_application_without_coroutines_gets_no_more_slots_than_threads() -> None:
    app = Celery(broker="amqp://", set_as_current=False)
    worker = SimpleNamespace(app=app, concurrency=None)

    @app.task(shared=False)
    def sync() -> None: ...

    _choose_concurrency(worker)
    assert worker.concurrency == threads() <= 32

    @app.task(shared=False)
    async def coroutine() -> None: ...

    _choose_concurrency(worker)
    assert worker.concurrency == COROUTINES


def test_an_application_keeps_its_pool_and_concurrency() -> None:
    app = Celery(broker="amqp://")
    app.conf.update(worker_pool="prefork", worker_concurrency=7)
    _choose_pool(app, [])
    assert (app.conf.worker_pool, app.conf.worker_concurrency) == ("prefork", 7)
