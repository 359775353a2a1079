"""Our messages under Celery's own code, and Celery's events under ours."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from celery import Celery
from celery.events import Event
from celery.worker.request import Request
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kombu import Connection, Exchange, Queue
from kombu.pidbox import Mailbox

from dure import wire
from dure.event import JobEvent
from dure.job import Job, JobError, Reason, State
from dure.wire import Announcement, Heartbeat, Message, control_message, read_events, task_message

NOW = 1_800_000_000.25


@pytest.fixture
def app() -> Celery:
    app = Celery(set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.update(accept_content=["json"], task_serializer="json", result_serializer="json")

    @app.task(name="t.mul", shared=False)
    def mul(x: int, y: int = 2) -> int:
        return x * y

    app.finalize()
    return app


@pytest.fixture
def channel() -> Iterator[Any]:
    with Connection(f"memory://{uuid4()}") as connection, connection.channel() as channel:
        yield channel


def carried(message: Message, channel: Any) -> Any:
    """The message as kombu delivers it."""
    queue = Queue(message.routing_key or "control", Exchange(message.exchange), routing_key=message.routing_key)
    (queue if message.exchange else Queue(message.routing_key))(channel).declare()
    properties = dict(message.properties)
    content_type, encoding = properties.pop("content_type"), properties.pop("content_encoding")
    prepared = channel.prepare_message(
        message.body, properties.pop("priority", None), content_type, encoding, message.headers, properties
    )
    channel.basic_publish(prepared, exchange=message.exchange, routing_key=message.routing_key)
    return channel.basic_get(message.routing_key or "control", no_ack=True)


def job(**fields: Any) -> Job:
    return Job(**({"id": str(uuid4()), "task": "t.mul", "args": [6], "kwargs": {"y": 7}, "queue": "q"} | fields))


def test_celery_runs_a_job_from_our_message(app: Celery, channel: Any) -> None:
    ours = job()
    message = carried(task_message(ours), channel)
    request = Request(message, app=app, task=app.tasks["t.mul"], decoded=False)
    assert (request.id, request.name, request.args, request.kwargs) == (ours.id, "t.mul", [6], {"y": 7})
    assert request.root_id == ours.id
    assert (request.argsrepr, request.kwargsrepr) == ("(6,)", "{'y': 7}")
    assert request.correlation_id == ours.id
    assert message.content_type == "application/json"
    request.execute()
    assert app.AsyncResult(ours.id).get(timeout=1) == 42


def test_celery_takes_every_option_from_our_message(app: Celery, channel: Any) -> None:
    ours = job(
        expires=NOW,
        time_limit=9.5,
        priority=7,
        retries=3,
        root_id="root",
        parent_id="parent",
        group_id="group",
        args=["é\u0000😀", None],
    )
    message = carried(task_message(ours), channel)
    request = Request(message, app=app, task=app.tasks["t.mul"], decoded=False)
    assert request.time_limits == [9.5, None]
    assert request.expires.timestamp() == NOW
    assert (request.root_id, request.parent_id, request.group) == ("root", "parent", "group")
    assert request.args == ["é\u0000😀", None]
    assert message.headers[wire.RETRIES_HEADER] == 3
    assert message.properties["priority"] == 7


def test_a_job_without_options_has_no_header_of_ours() -> None:
    headers = task_message(job()).headers
    assert not [name for name in headers if name.startswith("dure")]
    assert [headers.get(name) for name in ("expires", "eta")] == [None, None]
    assert headers.get("timelimit") in (None, [None, None])


def test_long_arguments_are_shortened_where_they_are_only_shown() -> None:
    message = task_message(job(args=["x" * 5000]))
    assert len(message.headers["argsrepr"]) == 1024
    assert json.loads(message.body)[0] == ["x" * 5000]


def test_a_job_without_a_queue_goes_to_celerys() -> None:
    assert task_message(job(queue=None)).routing_key == "celery"


def test_kombus_mailbox_answers_our_control_message(channel: Any) -> None:
    mailbox = Mailbox("celery", type="fanout", accept=["json"])
    node = mailbox(channel.connection.client).Node("w@a", channel=channel)
    heard: list[dict[str, Any]] = []
    replies: list[tuple[Any, str, str, str]] = []

    node.handlers["look"] = lambda state, **given: heard.append(given) or {"seen": len(heard)}
    node.reply = lambda data, exchange, routing_key, ticket, **_: replies.append((data, exchange, routing_key, ticket))
    ours = control_message("look", {"x": 1}, reply_to="route", ticket="ticket", expires_at=NOW + 1e9)
    message = carried(ours, channel)
    node.handle_message(message.decode(), message)
    assert heard == [{"x": 1}]
    assert replies == [({"w@a": {"seen": 1}}, wire.REPLY_EXCHANGE, "route", "ticket")]

    other = carried(control_message("look", {}, destination=["other@a"], expires_at=NOW + 1e9), channel)
    node.handle_message(other.decode(), other)
    assert len(heard) == 1


def read(kind: str, **fields: Any) -> Any:
    """One of Celery's own event dictionaries, written and read again."""
    event = Event(kind, **({"hostname": "w@a", "timestamp": NOW, "clock": 1, "utcoffset": 0} | fields))
    (found,) = read_events(json.dumps(event).encode())
    return found


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("sent", {"queue": "q", "name": "t"}, {"state": State.QUEUED, "attempt": None, "worker": None, "queue": "q"}),
        ("received", {"name": "t", "args": "(1,)", "kwargs": "{}", "retries": 2}, {"delivery": True, "attempts": 3}),
        ("received", {"eta": "2026-01-01T00:00:00+00:00"}, {"eta": 1767225600.0, "state": State.QUEUED}),
        ("started", {"pid": 4}, {"state": State.STARTED, "attempt": 0, "worker": "w@a"}),
        ("started", {"attempt": 3}, {"state": State.STARTED, "attempt": 3}),
        ("succeeded", {"result": "'5'", "runtime": 0.5}, {"result_repr": "'5'", "has_result": False, "runtime": 0.5}),
        ("succeeded", {"result": "5", "value": None}, {"result": None, "has_result": True, "result_repr": None}),
        ("failed", {"exception": "ValueError('x')", "traceback": "tb"}, {"state": State.FAILURE, "reason": "error"}),
        ("failed", {"exception": "NotRegistered('t')"}, {"reason": Reason.UNREGISTERED}),
        ("failed", {"exception": "WorkerLostError('x')"}, {"reason": Reason.WORKER_LOST}),
        ("failed", {"exception": "TimeLimitExceeded(5)"}, {"reason": Reason.TIME_LIMIT}),
        (
            "failed",
            {"error": {"type": "a.B", "message": "m"}, "reason": "delivery-limit"},
            {"reason": "delivery-limit"},
        ),
        ("retried", {"exception": "KeyError('k')"}, {"state": State.RETRY, "reason": None}),
        ("revoked", {"expired": True}, {"state": State.FAILURE, "reason": Reason.EXPIRED}),
        ("revoked", {"terminated": True, "signum": "9"}, {"state": State.REVOKED, "reason": Reason.TERMINATED}),
        ("revoked", {}, {"state": State.REVOKED, "reason": Reason.REVOKED}),
        ("rejected", {"requeue": True}, {"state": State.QUEUED}),
        ("rejected", {"requeue": False}, {"state": State.FAILURE, "reason": Reason.REJECTED}),
    ],
)
def test_each_task_event_leaves_its_job_where_it_should(kind: str, fields: Any, expected: Any) -> None:
    event = read(f"task-{kind}", uuid="u", **fields)
    assert isinstance(event, JobEvent)
    assert (event.job_id, event.at) == ("u", NOW)
    assert {name: getattr(event, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "online", "started"),
    [("worker-online", True, True), ("worker-heartbeat", True, False), ("worker-offline", False, False)],
)
def test_each_worker_event_is_a_heartbeat(kind: str, online: bool, started: bool) -> None:
    told = read(kind, freq=2, sw_ident="py-celery", sw_ver="5.7.0", sw_sys="Linux", pid=4, processed=9)
    assert told == Heartbeat(
        hostname="w@a", at=NOW, online=online, started=started, pid=4, software="py-celery 5.7.0", processed=9
    )


def test_a_workers_announcement_tells_it_and_its_tasks() -> None:
    told = read(
        "worker-tasks",
        tasks=[{"name": "t.add", "arguments": {"type": "object"}, "positional": ["x"], "unheard_of": 1}],
        queues=["q"],
        pool="threads",
        concurrency=4,
        sw_ident="dure",
        sw_ver="1",
    )
    assert isinstance(told, Announcement)
    assert (told.node.hostname, told.node.queues, told.node.software) == ("w@a", ("q",), "dure 1")
    (task,) = told.tasks
    assert (task.name, task.positional, task.announced_at, task.announced_by) == ("t.add", ("x",), NOW, "w@a")


def test_a_list_of_events_is_read_around_its_bad_ones() -> None:
    good = {"type": "task-started", "uuid": "u", "timestamp": NOW, "hostname": "w@a"}
    bad: list[Any] = [7, {}, {"type": "task-started"}, {"type": None}, {"type": "task-custom", "uuid": "u"}]
    found = list(read_events(json.dumps([good, *bad, good | {"uuid": "v"}]).encode()))
    assert [event.job_id for event in found if isinstance(event, JobEvent)] == ["u", "v"]


FIELDS = {
    "uuid": "u",
    "timestamp": NOW,
    "hostname": "w@a",
    "name": "t",
    "queue": "q",
    "args": "()",
    "retries": 1,
    "attempt": 1,
    "root_id": "r",
    "eta": None,
    "error": {"type": "E", "message": "m"},
    "traceback": "t",
    "result": "1",
    "runtime": 0.5,
    "pid": 1,
    "processed": 1,
    "tasks": [{"name": "t"}],
    "queues": ["q"],
    "pool": "p",
    "concurrency": 1,
    "sw_ident": "i",
    "reason": "error",
}
KINDS = ["sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "progress"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
kinds = st.sampled_from([f"task-{k}" for k in KINDS] + ["worker-online", "worker-heartbeat", "worker-tasks"])


@given(st.binary(max_size=60))
@example(b"[" * 100_000)
@example(b'{"type":"task-started","uuid":"u","timestamp":1e999}')
@example(b'{"type":"task-started","uuid":"u","timestamp":NaN}')
@example(b'{"type":"task-started","uuid":"\\ud800","timestamp":1}')
def test_no_bytes_make_reading_fail(body: bytes) -> None:
    list(read_events(body))


@given(kinds, st.dictionaries(st.sampled_from(sorted(FIELDS)), json_values, max_size=5))
@settings(max_examples=500)
def test_an_event_with_wrong_fields_is_passed_over_or_has_the_right_types(kind: str, wrong: dict[str, Any]) -> None:
    """What is read can be folded and stored: one that cannot would stop the recorder for good."""
    for event in read_events(json.dumps({"type": kind} | FIELDS | wrong).encode()):
        again = msgspec.convert(msgspec.to_builtins(event), type(event))
        assert again == event


@pytest.mark.parametrize("told", [None, [], [1], ["a", 1], [1, -5], [0, 1], [1, 0], [2**63, 1], {}, 3, [1.5, 2]])
def test_an_end_that_tells_of_no_real_entry_is_an_end_all_the_same(told: Any) -> None:
    assert read("task-succeeded", uuid="j", attempt=1, value=3, told=[5, 2]).told == (5, 2)
    end = read("task-succeeded", uuid="j", attempt=1, value=3, told=told)
    assert (end.state, end.result, end.told) == (State.SUCCESS, 3, None)


@pytest.mark.parametrize("timestamp", ["nan", "inf", "1", None, [], 10**400, True])
def test_an_event_without_a_real_time_is_passed_over(timestamp: Any) -> None:
    body = json.dumps({"type": "task-started", "uuid": "u", "timestamp": timestamp})
    assert list(read_events(body.encode())) == []


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("bad"), "ValueError", "bad"),
        (ValueError("it's"), "ValueError", "it's"),
        (ValueError('"quoted", and more'), "ValueError", '"quoted", and more'),
        (ValueError("tail)"), "ValueError", "tail)"),
        (ValueError("two\nlines"), "ValueError", "two\nlines"),
        (KeyError("k"), "KeyError", "k"),
        (ValueError(), "ValueError", ""),
        (OSError(2, "No such file"), "FileNotFoundError", "2, 'No such file'"),
        (ValueError(7), "ValueError", "7"),
        (ValueError(["a"]), "ValueError", "['a']"),
    ],
)
def test_a_stock_exceptions_repr_is_taken_apart(error: Exception, kind: str, message: str) -> None:
    event = read("task-failed", uuid="u", exception=repr(error), traceback="tb")
    assert event.error == JobError(type=kind, message=message, traceback="tb")


@pytest.mark.parametrize(
    "text", ["", "no brackets", "<Mine object at 0x1>", "E(" + "[" * 5000, "E('half", r"E('\ud800')"]
)
def test_an_exceptions_repr_of_any_form_is_some_error(text: str) -> None:
    error = read("task-failed", uuid="u", exception=text).error
    assert error.type
    assert msgspec.json.encode(error)
    assert error.message in text


def test_times_are_written_with_their_offset() -> None:
    assert task_message(job(expires=0.0)).headers["expires"] == datetime.fromtimestamp(0, UTC).isoformat()
