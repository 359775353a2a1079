import asyncio
import contextvars
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.app.trace import build_tracer
from celery.signals import task_postrun, task_prerun

import dure
from dure.worker import body
from dure.worker.live import attempts, states
from dure.worker.live.attempt import Attempt, current
from dure.worker.live.emitter import Emitter
from tests.unit.live_broker import Broker


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    broker = Broker()
    monkeypatch.setattr(attempts._process, "emitter", Emitter(broker))
    attempts.follow()
    yield broker
    unfollow()


def unfollow() -> None:
    task_prerun.disconnect(dispatch_uid="dure.worker.live.begin")
    task_postrun.disconnect(dispatch_uid="dure.worker.live.end")


@pytest.fixture
def app() -> Celery:
    app = Celery("live", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.result_serializer = "json"
    return app


def run(task: Task[..., Any], *args: Any) -> str:
    """As a worker runs it; returns the job's id."""
    job_id = str(uuid.uuid4())
    request = {"id": job_id, "root_id": "root", "hostname": "w@host", "delivery_info": {}}
    trace = build_tracer(task.name, task, app=task.app)
    contextvars.Context().run(trace, job_id, args, {}, request)
    return job_id


def test_what_a_task_told_is_confirmed_before_its_result_is_stored(
    broker: Broker, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task(shared=False)
    def speak() -> str:
        dure.emit(1)
        return "said"

    stored: list[list[Any]] = []

    def store(job_id: str, *_: Any) -> None:
        stored.append(broker.bodies(job_id))

    body.wrap(speak, "quorum")
    monkeypatch.setattr(speak.backend, "mark_as_done", store)
    run(speak)
    assert stored == [[1]]


def test_what_it_tells_when_it_has_ended_is_confirmed_before_the_pool_hands_it_back(
    broker: Broker, app: Celery
) -> None:
    class Telling(Task):  # type: ignore[type-arg]
        def after_return(self, *_: Any) -> None:
            dure.emit("after")

    @app.task(base=Telling, shared=False)
    def speak() -> None:
        dure.emit("in it")

    assert broker.bodies(run(speak)) == ["in it", "after"]


def test_a_later_attempt_in_the_same_thread_is_another(broker: Broker, app: Celery) -> None:
    @app.task(shared=False)
    def speak(what: str) -> None:
        dure.emit(what)

    jobs = [run(speak, what) for what in ("a", "b")]
    assert [broker.bodies(job) for job in jobs] == [["a"], ["b"]]


def test_a_task_in_place_is_silent_and_the_one_around_it_is_not(broker: Broker, app: Celery) -> None:
    @app.task(shared=False)
    def inner(what: str) -> None:
        dure.emit(what)

    @app.task(shared=False)
    def outer() -> None:
        dure.emit("before")
        inner.apply(("applied",))
        inner("called")
        dure.emit("after")

    assert broker.bodies(run(outer)) == ["before", "called", "after"]


def test_in_place_and_outside_of_a_worker_a_task_is_silent(broker: Broker, app: Celery) -> None:
    @app.task(shared=False)
    def speak() -> str:
        dure.emit(1)
        dure.progress(1, 2)
        return "said"

    assert contextvars.Context().run(speak) == "said"
    assert speak.apply().get() == "said"
    unfollow()
    assert speak.apply().get() == "said"
    app.conf.task_always_eager = True
    assert speak.delay().get() == "said"
    assert broker.sent == []


def test_in_a_worker_that_does_not_know_of_us_an_attempt_is_joined(broker: Broker, app: Celery) -> None:
    unfollow()

    @app.task(shared=False)
    def speak() -> None:
        async def all_of_it() -> None:
            dure.emit(1)
            await asyncio.gather(asyncio.create_task(more(2)), asyncio.create_task(more(3)))

        async def more(n: int) -> None:
            dure.emit(n)

        asyncio.run(all_of_it())
        dure.emit(4)

    job = run(speak)
    assert broker.bodies(job) == [1, 2, 3, 4]
    assert len({attempt.run for attempt in told(broker, job)}) == 1


def told(broker: Broker, job_id: str) -> list[Any]:
    from dure.entry import read_entries

    return [told for sent, _ in broker.sent for told in read_entries(sent) if told.job_id == job_id]


def test_an_id_that_no_text_can_hold_does_not_stop_the_others(broker: Broker, app: Celery) -> None:
    @app.task(ignore_result=True, shared=False)
    def speak() -> None:
        dure.emit(1)

    trace = build_tracer(speak.name, speak, app=app)
    contextvars.Context().run(trace, "\ud800", (), {}, {"id": "\ud800", "delivery_info": {}})
    assert broker.bodies(run(speak)) == [1]


@pytest.mark.parametrize(
    ("state", "meta", "understood"),
    [
        ("PROGRESS", {"current": 1, "total": 2, "message": "a"}, (1, 2, "a", {})),
        ("PROGRESS", {"current": 1.5, "status": "a", "file": "b"}, (1.5, None, "a", {"file": "b"})),
        ("PROGRESS", {"description": "a", "status": 7}, (None, None, "a", {"status": 7})),
        ("PROGRESS", {"message": "a", "status": "b"}, (None, None, "a", {"status": "b"})),
        ("PROGRESS", {"current": "3/10", "total": True, "message": 5}, (None, None, None, {})),
        ("PROGRESS", None, (None, None, None, {})),
        ("PROGRESS", 5, (None, None, None, {"meta": 5})),
        ("DOWNLOADING", {"current": 1}, (1, None, None, {"state": "DOWNLOADING"})),
    ],
)
def test_meta_is_understood(state: str, meta: Any, understood: tuple[Any, ...]) -> None:
    assert states.understood(state, meta) == understood


def test_states_of_celerys_own_other_jobs_and_what_is_no_json_are_no_progress(broker: Broker) -> None:
    app = Celery("live", broker="memory://", set_as_current=False)  # without a result backend

    @app.task(bind=True, shared=False)
    def tell(self: Any) -> None:
        self.update_state(state="STARTED", meta={"current": 1})
        self.update_state("another", state="PROGRESS", meta={"current": 2})
        self.update_state(state="PROGRESS", meta={"current": object})
        self.update_state(state="PROGRESS", meta={"of": object()})
        self.update_state(state="PROGRESS", meta={"current": 4})

    states.wrap(app)
    states.wrap(app)
    bodies = broker.bodies(run(tell))
    assert [told["current"] for told in bodies] == [None, 4]


def test_nobody_is_current_when_a_task_has_ended(broker: Broker, app: Celery) -> None:
    seen: list[Any] = []

    @app.task(shared=False)
    def look() -> None:
        seen.append(current.get())

    def in_one_context() -> None:
        trace = build_tracer(look.name, look, app=app)
        trace("job", (), {}, {"id": "job", "delivery_info": {}})
        seen.append(current.get())

    contextvars.Context().run(in_one_context)
    assert isinstance(seen[0], Attempt)
    assert seen[1] is None
