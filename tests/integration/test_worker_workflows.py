"""What a worker tells of Celery's canvas, and of tasks that return a workflow, on our worker and on a stock one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from dure.event import JobEvent
from dure.job import State
from dure.ledger.results import RedisResults
from tests.integration.worker_harness import Client, app_name, worker
from tests.services import RabbitMQ, Redis

ADD = f"{app_name()}.add"


class Rig:
    """A client, and a worker that has a result backend."""

    def __init__(self, client: Client, results: str, *, stock: bool) -> None:
        self.client = client
        self.results = results
        self.stock = stock

    def end(self, job: str) -> JobEvent:
        return self.client.end(job)

    def value(self, job: str) -> Any:
        """As the recorder comes to it: from the event, else from the result backend."""
        event = self.end(job)
        assert event.state is State.SUCCESS
        assert event.has_result is not self.stock
        return event.result if event.has_result else asyncio.run(self._stored(job))

    async def _stored(self, job: str) -> Any:
        reader = RedisResults(self.results, 262_144)
        found = await reader.fetch([job])
        await reader.close()
        assert found[job].has_result
        return found[job].result


OURS = pytest.mark.parametrize("rig", ["asyncio", "threads", "prefork"], indirect=True)


@pytest.fixture(scope="module", params=["asyncio", "threads", "prefork", "stock"])
def rig(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    client = Client(rabbitmq.start().vhost())
    results, stock = redis.start().database(), request.param == "stock"
    if stock:  # as the gateway makes it, before there is a worker
        client.channel.queue_declare("dure.events", durable=True, auto_delete=False)
        client.channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
        client.channel.queue_bind("dure.events", "celeryev", "task.#")
    argv = ["-E"] if stock else ["-P", request.param]
    with worker(client, tmp_path_factory.mktemp("worker"), "-c", "2", *argv, stock=stock, TEST_RESULTS=results):
        yield Rig(client, results, stock=stock)
    client.close()


@pytest.mark.parametrize(
    ("what", "result"),
    [("task", 3), ("chain", 113), ("group", [0, 2]), ("chord", 2), ("again", 3)],
)
def test_a_job_that_replaces_itself_ends_as_its_replacement(rig: Rig, what: str, result: Any) -> None:
    job = rig.client.submit("become", what)
    assert rig.value(job) == result
    assert [e.state for e in rig.client.events(job) if e.state.final] == [State.SUCCESS]


def _signature(*args: Any, **options: Any) -> dict[str, Any]:
    return {
        "task": ADD,
        "args": [*args],
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": False,
    }


def test_a_builder_that_a_task_returns_is_its_value(rig: Rig) -> None:
    spec = {"chain": [{"task": ADD, "args": [1, 2]}, {"task": ADD, "args": [10]}]}
    assert rig.value(rig.client.submit("plan", "builder")) == {"$workflow": spec}


@pytest.mark.parametrize(
    ("what", "tasks"),
    [
        ("chain", [_signature(1, 2), _signature(10)]),
        ("group", [_signature(0, 0), _signature(1, 1)]),
    ],
)
def test_a_canvas_that_a_task_returns_is_its_value_with_all_its_tasks(rig: Rig, what: str, tasks: list[Any]) -> None:
    assert rig.value(rig.client.submit("plan", what)) == {
        "task": f"celery.{what}",
        "args": [],
        "kwargs": {"tasks": tasks},
        "options": {},
        "subtask_type": what,
        "immutable": False,
    }


def test_a_signature_that_a_task_returns_is_its_value(rig: Rig) -> None:
    assert rig.value(rig.client.submit("plan", "task")) == _signature(1, 2)


def test_a_workflow_over_the_limit_of_results_is_told_all_the_same(rig: Rig) -> None:
    told = rig.value(rig.client.submit("plan", "large"))
    assert len(told["kwargs"]["tasks"]) == 1_000


@OURS  # a stock worker stores it, and the recorder leaves it there
def test_a_workflow_that_no_message_takes_fails_the_task(rig: Rig) -> None:
    end = rig.end(rig.client.submit("plan", "too large"))
    assert end.error
    assert (end.state, end.reason) == (State.FAILURE, "unserializable")
    assert "pass large arguments by reference" in end.error.message


@OURS  # a stock worker sends no event of it: the sweeper finds it in the result backend
@pytest.mark.parametrize("what", ["failing", "failing chord"])
def test_a_replacement_that_fails_ends_the_job_with_its_error(rig: Rig, what: str) -> None:
    end = rig.end(rig.client.submit("become", what))
    assert end.error
    assert (end.state, end.reason, end.error.type) == (State.FAILURE, "error", "ValueError")
    assert end.error.message.endswith(": no")


@OURS  # a stock worker's events have no group
def test_members_of_a_group_tell_its_id(rig: Rig) -> None:
    job = rig.client.submit("become", "group")
    rig.end(job)

    def of_members() -> list[JobEvent]:
        seen = [e for e in rig.client.seen if isinstance(e, JobEvent)]
        members = {e.job_id for e in seen if e.root_id == job and e.group_id} - {job}
        return [e for e in seen if e.job_id in members and e.attempt is not None]

    # What joins them is sent before the last one's end is told, and may end first.
    rig.client.until(lambda: len([e for e in of_members() if e.state.final]) == 2, "the ends of both")
    told = of_members()
    assert len({e.job_id for e in told}) == 2
    assert len({e.group_id for e in told}) == 1
    assert sorted(e.state for e in told) == sorted([State.QUEUED, State.STARTED, State.SUCCESS] * 2)
