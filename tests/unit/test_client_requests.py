"""From when on a relay may publish what was accepted, and how much a request weighs."""

from dure.client.leases import LEASE
from dure.client.requests import due, weight
from dure.job import Job, State
from dure.ledger import Request
from dure.workflow import Flow, NewNode, Plan, Workflow


def flow(*nodes: tuple[State, float | None]) -> Request:
    rows = [
        NewNode(job=Job(id=str(n), state=state, eta=due_at), plan=Plan(), due_at=due_at)
        for n, (state, due_at) in enumerate(nodes)
    ]
    return Request(flow=Flow(workflow=Workflow(id="w"), nodes=tuple(rows), edges=()))


def times(request: Request) -> list[float | None]:
    return [node.due_at for node in request.flow.nodes] if request.flow else [at for _, at in request.jobs]


def test_jobs_that_this_process_publishes_are_due_after_its_lease_and_the_rest_at_once() -> None:
    plain = Request(jobs=tuple((Job(id=str(n)), 0.0) for n in range(3)))
    ready = flow((State.ACCEPTED, 0.0), (State.WAITING, None), (State.ACCEPTED, 0.0))
    assert [times(each) for each in due([plain, ready], 100.0, 4)] == [
        [100 + LEASE, 100 + LEASE, 100 + LEASE],
        [100 + LEASE, None, 100.0],
    ]
    assert times(due([plain], 100.0, 0)[0]) == [100.0, 100.0, 100.0]


def test_what_is_scheduled_is_due_then_and_takes_no_room() -> None:
    scheduled = flow((State.SCHEDULED, 500.0), (State.ACCEPTED, 0.0))
    assert times(due([scheduled], 100.0, 1)[0]) == [500.0, 100 + LEASE]


def test_a_small_workflow_weighs_what_a_job_weighs_and_a_large_one_more() -> None:
    assert weight(Request(jobs=((Job(id="a"), 0.0),))) == 1
    assert weight(flow(*[(State.WAITING, None)] * 5)) == 1
    assert weight(flow(*[(State.WAITING, None)] * 5000)) == 501
