"""Whatever ends an attempt: its events go first, its message is settled once, behind them."""

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.worker.request import create_request_cls
from kombu import Connection

from dure.worker.dispatcher import bound
from dure.worker.request import Request
from dure.worker.result import Result


class Recorder:
    """An outbox that writes down what comes, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.direct: list[str] = []

    def put(self, type: str, event: bytes, keys: Sequence[str] = ()) -> None:
        self.lines.append(type)
        self.events.append(json.loads(event))

    def settle(self, callback: Callable[[], object]) -> None:
        callback()
        self.lines.append(self.direct.pop())


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make(recorder: Recorder) -> Callable[..., Any]:
    def make(embed: Any = None, headers: Any = None, **options: Any) -> Any:
        app = Celery(broker="memory://", set_as_current=False)
        app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)

        @app.task(name="task", shared=False, **options)
        def task() -> None: ...

        dispatcher = bound(recorder)(Connection("memory://"), "w@h", app=app)  # type: ignore[arg-type]
        pool = SimpleNamespace(apply_async=None)
        request_class = create_request_cls(Request, app.tasks["task"], pool, "w@h", dispatcher, app=app)
        message = SimpleNamespace(
            headers={"id": "1", "task": "task", "ignore_result": False, "root_id": "0", **(headers or {})},
            body=json.dumps([[], {}, embed or {}]).encode(),
            payload=[[], {}, embed or {}],
            content_type="application/json",
            content_encoding="utf-8",
            delivery_info={"exchange": "", "routing_key": "celery"},
            properties={},
        )
        return request_class(
            message,
            on_ack=lambda *_: recorder.direct.append("ack"),
            on_reject=lambda *args: recorder.direct.append(f"reject requeue={args[2]}"),
            hostname="w@h",
            eventer=dispatcher,
            app=app,
            task=app.tasks["task"],
        )

    return make


def info(exc: BaseException) -> ExceptionInfo:
    try:
        raise exc
    except type(exc):
        return ExceptionInfo()


@pytest.mark.parametrize(
    ("end", "lines"),
    [
        (lambda r: r.on_success((0, Result.of("1", b"1", 9), 0.1)), ["task-succeeded", "ack"]),
        (lambda r: r.on_success((1, info(ValueError()), 0.1)), ["task-failed", "ack"]),
        (lambda r: r.on_success((1, info(Retry(exc=ValueError())), 0.1)), ["task-retried", "ack"]),
        (lambda r: r.on_success((1, info(Ignore()), 0.1)), ["task-ignored", "ack"]),
        (lambda r: r.on_success((1, info(Ignore("Replaced by new task")), 0.1)), ["ack"]),
        (
            lambda r: r.on_success((1, info(Reject("no", requeue=False)), 0.1)),
            ["task-failed", "task-rejected", "reject requeue=False"],
        ),
        (
            lambda r: r.on_success((1, info(Reject("no", requeue=True)), 0.1)),
            ["task-rejected", "reject requeue=True"],
        ),
        (lambda r: r.on_failure(info(WorkerLostError())), ["task-rejected", "reject requeue=True"]),
        (lambda r: r.on_timeout(False, 3), ["task-failed", "ack"]),
        (lambda r: r.on_timeout(True, 3), []),
        (lambda r: r._announce_revoked("revoked", False, None, False), ["task-revoked", "ack"]),
        (lambda r: (r.on_timeout(False, 3), r.on_failure(info(WorkerLostError()))), None),
    ],
)
def test_events_go_before_the_settlement(
    make: Callable[..., Any], recorder: Recorder, end: Callable[[Any], Any], lines: list[str] | None
) -> None:
    request = make()
    end(request)
    if lines is not None:
        assert recorder.lines == lines
    assert recorder.direct == []
    assert sum(line == "ack" or line.startswith("reject ") for line in recorder.lines) == int(request.acknowledged)


def test_a_handler_that_fails_lets_the_message_go(make: Callable[..., Any], recorder: Recorder) -> None:
    request = make()
    request.send_event = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        request.on_success((0, "1", 0.1))
    assert recorder.lines == ["ack"]


def test_a_task_that_acknowledges_early_does_so_at_its_start(make: Callable[..., Any], recorder: Recorder) -> None:
    request = make(acks_late=False)
    request.on_accepted(1, 0.0)
    assert recorder.direct == ["ack"]
    request.on_success((0, "1", 0.1))
    assert (recorder.direct, recorder.lines) == (["ack"], ["task-started", "task-succeeded"])


def test_a_task_without_events_is_acknowledged(make: Callable[..., Any], recorder: Recorder) -> None:
    make(send_events=False).on_success((0, "1", 0.1))
    assert recorder.lines == ["ack"]


def test_our_fields_are_in_the_events(make: Callable[..., Any], recorder: Recorder) -> None:
    make().on_success((0, Result.of("1", b"1", 9), 0.1))
    make().on_failure(info(ValueError("no")), return_ok=True)
    succeeded, failed = recorder.events
    assert (succeeded["attempt"], succeeded["value"], succeeded["result"]) == (1, 1, "1")
    assert (failed["reason"], failed["error"]["type"], failed["error"]["message"]) == ("error", "ValueError", "no")


def test_a_member_of_a_group_tells_it_in_every_event(make: Callable[..., Any], recorder: Recorder) -> None:
    request = make(headers={"group": "g"})
    request.send_event("task-started")
    request.on_success((0, Result.of("1", b"1", 9), 0.1))
    assert [event["group_id"] for event in recorder.events] == ["g", "g"]
    request._eventer.arriving = request
    request._eventer.send("task-received", uuid="1")
    assert recorder.events[-1]["group_id"] == "g"


def signature(job: str | None, task: str = "next", **more: Any) -> dict[str, Any]:
    return {"task": task, "args": [], "kwargs": {}, "options": {"task_id": job} if job else {}, **more}


def canvas(kind: str, **kwargs: Any) -> dict[str, Any]:
    return signature("of the canvas", f"celery.{kind}", subtask_type=kind) | {"kwargs": kwargs}


CHAIN = [
    signature("2"),
    signature(None),
    "no signature",
    canvas("chord", header=[signature("3")], body=canvas("chain", tasks=[signature("4"), signature("5")])),
]


@pytest.mark.parametrize(
    ("embed", "ended"),
    [
        ({"chain": CHAIN}, ["2", "3", "4", "5"]),
        ({"chord": signature("6")}, ["6"]),
        ({"chain": [signature("2")], "chord": signature("6")}, ["2", "6"]),
        ({"callbacks": [signature("7")]}, []),
    ],
)
def test_what_waited_for_a_job_that_failed_is_told_to_fail_too(
    make: Callable[..., Any], recorder: Recorder, embed: Any, ended: list[str]
) -> None:
    make(embed).on_success((1, info(ValueError("no")), 0.1))
    first, *others = recorder.events
    assert [event["uuid"] for event in others] == ended
    for event in others:
        assert (event["type"], event["name"], event["reason"]) == ("task-failed", "next", "error")
        assert (event["root_id"], event["parent_id"]) == ("0", "1")
        assert event["error"] == {"type": "ValueError", "message": "task[1]: no"}
    assert first["error"]["fingerprint"]
    assert recorder.lines == ["task-failed"] * (1 + len(ended)) + ["ack"]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda r: r.on_success((0, "1", 0.1)), []),
        (lambda r: r.on_success((1, info(Retry(exc=ValueError())), 0.1)), []),
        (lambda r: r.on_success((1, info(Reject("no", requeue=True)), 0.1)), []),
        (lambda r: r.on_success((1, info(Ignore("Replaced by new task")), 0.1)), []),
        (lambda r: r.on_success((1, info(Ignore()), 0.1)), ["task-ignored"]),
        (lambda r: r._announce_revoked("revoked", False, None, False), ["task-revoked"]),
        (lambda r: r.on_timeout(False, 3), ["task-failed"]),
    ],
)
def test_what_waited_for_a_job_ends_as_it_did_unless_it_goes_on(
    make: Callable[..., Any], recorder: Recorder, end: Callable[[Any], Any], told: list[str]
) -> None:
    end(make({"chain": [signature("2")]}))
    assert [event["type"] for event in recorder.events if event["uuid"] == "2"] == told
