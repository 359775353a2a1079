"""Workflows that are submitted from this process, and run by workers in theirs: embedded and in production."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group

from dure import (
    DAG,
    Dure,
    IdempotencyConflict,
    InvalidSubmission,
    JobHandle,
    ResultTimeout,
    State,
    UnknownNode,
    WorkflowFailed,
    WorkflowHandle,
)
from dure.errors import JobEnded
from dure.ledger.recorder import Recorder
from tests.acceptance import tasks as shop
from tests.acceptance.site import Site
from tests.integration.workflow_forms import HELD, PATIENCE, add, is_, until


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_a_chain_hands_each_result_to_the_next(client: Dure, queue: str) -> None:
    steps = (shop.add.s(1, 2), shop.add.s(10), shop.add.si(7, 8))
    workflow = await client.submit(chain(*(step.set(queue=queue) for step in steps)))
    assert isinstance(workflow, WorkflowHandle)
    assert await workflow.result(timeout=PATIENCE) == 15
    assert workflow.workflow.state is State.SUCCESS
    view = await workflow.view()
    assert [(node.job.result, node.job.worker) for node in view.nodes] == [
        (3, "ours@here" if queue == "celery" else "stock@here"),
        (13, "ours@here" if queue == "celery" else "stock@here"),
        (15, "ours@here" if queue == "celery" else "stock@here"),
    ]
    assert view.counts == {State.SUCCESS: 3}


@pytest.mark.parametrize("queue", ["celery", "stock"])
async def test_a_chord_gives_its_body_the_list_of_its_members_results_in_order(client: Dure, queue: str) -> None:
    header = [shop.echo.s([n]).set(queue=queue) for n in range(5)]
    workflow = await client.submit(chord(header, shop.echo.s().set(queue=queue)))
    assert await workflow.result(timeout=PATIENCE) == [[n] for n in range(5)]


async def test_the_short_forms_nest_and_map_and_starmap_are_understood(client: Dure) -> None:
    nested = chain(group(shop.add.s(1, 1), chain(shop.add.s(2, 2), shop.add.s(1))), shop.echo.s())
    mapped = shop.add.map([1, 2, 3])
    starred = shop.add.starmap([(1, 1), (2, 2)])
    handles = [await client.submit(each) for each in (nested, mapped, starred)]
    found = await asyncio.gather(*(handle.result(PATIENCE) for handle in handles))
    assert found == [[2, 5], [3, 4, 5], [2, 4]]


async def test_a_graph_maps_over_a_list_that_is_known_only_then_and_waits_for_a_signal(client: Dure) -> None:
    workflow = await client.submit_workflow(
        {
            "nodes": {
                "list": {"task": "shop.echo", "args": [{"items": [1, 2, 3]}]},
                "each": {"map": {"over": {"$result": "list", "path": ["items"]}, **add(10)}},
                "approved": {"wait": {}, "needs": ["each"]},
                "end": {"task": "shop.echo", "args": [{"by": {"$result": "approved"}, "of": {"$result": "each"}}]},
            }
        }
    )
    approved = await workflow.job("approved")
    await until(lambda: is_(workflow, "each", State.SUCCESS))
    with pytest.raises(ResultTimeout, match="workflow"):
        await workflow.result(timeout=0.05)
    assert (await workflow.refresh()).state is State.STARTED
    signalled = await workflow.signal("approved", {"name": "A", "set": {1}})
    assert (signalled.state, signalled.result) == (State.SUCCESS, {"name": "A", "set": [1]})
    assert await workflow.result(PATIENCE) == {"end": {"by": {"name": "A", "set": [1]}, "of": [11, 12, 13]}}
    assert await approved.result(PATIENCE) == {"name": "A", "set": [1]}
    with pytest.raises(JobEnded):
        await workflow.signal("approved")
    with pytest.raises(UnknownNode):
        await workflow.signal("end")
    with pytest.raises(UnknownNode):
        await workflow.job("nothing")


async def test_a_graph_is_built_in_python(client: Dure) -> None:
    dag = DAG("report")
    rows = dag.add(shop.echo, {"items": [1, 2, 3], "set": {7}})
    sums = dag.map(shop.add, rows.result["items"], 10)
    dag.add(shop.echo, {"sums": sums.result, "of": rows.result["set"]}).set(name="end", tags=["x"])
    workflow = await client.submit(dag, timeout=600)
    assert (workflow.workflow.name, workflow.workflow.timeout) == ("report", 600)
    assert await workflow.result(PATIENCE) == {"end": {"sums": [11, 12, 13], "of": [7]}}
    unknown = DAG()
    unknown.add("shop.ad", 1).set(queue="nobody")  # else a worker may refuse it before it is cancelled
    with pytest.raises(InvalidSubmission, match=r"shop\.add"):
        await client.submit(unknown)
    await (await client.submit(unknown, force=True)).cancel()


async def test_nodes_are_published_without_a_relay(place: Site) -> None:
    async with Dure(place.settings) as dure:
        recorder = Recorder(dure.ledger, dure.link)
        await recorder.start()
        try:
            workflow = await dure.submit(chain(shop.add.s(1, 2), group(shop.add.s(1), shop.add.s(2)), shop.echo.s()))
            assert await workflow.result(PATIENCE) == [4, 5]
        finally:
            await recorder.stop()


async def test_a_link_runs_after_a_success_and_an_error_handler_after_a_failure(client: Dure) -> None:
    handler = shop.echo.si("handled")
    good = await client.submit(shop.add.s(1, 2).set(link=[shop.add.s(10)], link_error=[handler]))
    bad = await client.submit(shop.fail.s("no").set(link=[shop.add.si(10)], link_error=[shop.echo.s()]))
    assert (await good.wait(PATIENCE)).state is State.SUCCESS
    assert (await bad.wait(PATIENCE)).state is State.FAILURE
    ended = {node.job.task: node.job for node in (await good.view()).nodes if node.job.state is State.SUCCESS}
    linked = [node.job for node in (await good.view()).nodes if node.job.args == [3, 10]]
    assert [job.result for job in linked] == [13]
    assert "shop.echo" not in ended
    jobs = {node.job.task: node.job for node in (await bad.view()).nodes}
    assert jobs["shop.add"].reason == "upstream-failed"
    assert jobs["shop.echo"].result == jobs["shop.fail"].id
    with pytest.raises(WorkflowFailed) as failed:
        await bad.result(PATIENCE)
    assert failed.value.job == jobs["shop.fail"]
    assert failed.value.workflow.reason == "error"


@pytest.mark.parametrize("queue", ["celery", "stock"])
@pytest.mark.parametrize("form", ["dag", "chain", "group", "task"])
async def test_a_task_that_returns_a_workflow_is_replaced_by_it(client: Dure, queue: str, form: str) -> None:
    result = {"dag": {"sum": 15}, "chain": 13, "group": [0, 2], "task": 3}[form]
    workflow = await client.submit(chain(shop.plan.s(form).set(queue=queue), shop.echo.s()), name="whole")
    planned = next(node.job for node in (await workflow.view()).nodes if node.job.task == "shop.plan")
    told = asyncio.create_task((await client.handle(planned.id)).result(PATIENCE))
    assert await workflow.result(PATIENCE) == result
    assert await told == result


async def test_a_repeated_key_answers_with_the_workflow_of_that_time(client: Dure) -> None:
    key = uuid4().hex
    first = await client.submit(chain(shop.add.s(1, 2), shop.add.s(10)), idempotency_key=key)
    again = await client.submit(chain(shop.add.s(1, 2), shop.add.s(10)), idempotency_key=key)
    assert again.id == first.id
    assert await again.result(PATIENCE) == 13
    for other in (chain(shop.add.s(1, 2), shop.add.s(11)), shop.add.s(1, 2)):
        with pytest.raises(IdempotencyConflict):
            await client.submit(other, idempotency_key=key)


async def test_workflows_and_jobs_of_one_moment_are_each_accepted(client: Dure) -> None:
    asked = [
        client.submit(chain(shop.add.s(n, 1), shop.add.s(1))) if n % 2 else client.submit("shop.add", n, 1)
        for n in range(40)
    ]
    handles = await asyncio.gather(*asked)
    results = await asyncio.gather(*(handle.result(PATIENCE) for handle in handles))
    assert results == [n + 2 if n % 2 else n + 1 for n in range(40)]


async def test_a_signature_without_links_is_one_job(client: Dure) -> None:
    job = await client.submit(shop.add.s(2, y=3).set(queue="stock", priority=3), tags=["a"])
    assert isinstance(job, JobHandle)
    assert (job.job.args, job.job.kwargs, job.job.queue, job.job.priority) == ([2], {"y": 3}, "stock", 3)
    assert (job.job.tags, job.job.workflow_id) == (("a",), None)
    assert await job.result(PATIENCE) == 5
    later = await client.submit(shop.add.s(1, 1).set(countdown=600))
    assert later.job.state is State.SCHEDULED
    await later.cancel()
    one = await client.submit(shop.add.s(1, 1), name="one")
    assert isinstance(one, WorkflowHandle)
    assert await one.result(PATIENCE) == 2


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        ([], [()]),
        ({"chain": [add(1), {"task": "shop.ad"}]}, [("chain", 1, "task")]),
        ({"chain": [add(1), {"group": [add(1), add(1, z=1)]}]}, [("chain", 1, "group", 1, "z")]),
        ({"chain": [add(1), {"task": "shop.add", "kwargs": {"z": 1}}]}, [("chain", 1, "kwargs", "z")]),
        (
            {"nodes": {"a": add(1), "b": {"task": "shop.add", "args": [{"$result": "c"}]}}},
            [("nodes", "b", "args", 0, "$result")],
        ),
        ({"chain": [{"task": "shop.sleep", "args": [0]}, add(1)]}, [("chain", 1)]),
        ({"nodes": {"a": add(1, needs=["b"]), "b": add(1, needs=["a"])}}, [("nodes", "a")]),
        ({"chain": [{"task": "shop.echo", "args": [float("nan")]}]}, [("chain", 0, "args", 0)]),
        ({"group": [{"task": "shop.echo", "args": [{"at": object()}]}, {}]}, [("group", 0, "args", 0, "at")]),
    ],
)
async def test_a_wrong_workflow_is_refused_by_its_places_and_leaves_nothing(
    client: Dure, spec: Any, places: list[tuple[str | int, ...]]
) -> None:
    before = (await client.ledger.workflows(limit=1)).workflows
    with pytest.raises(InvalidSubmission) as caught:
        await client.submit_workflow(spec)
    assert [error.loc for error in caught.value.errors] == places
    assert (await client.ledger.workflows(limit=1)).workflows == before


async def test_a_task_that_no_worker_announced_passes_where_it_is_said_so_or_comes_as_an_object(client: Dure) -> None:
    unknown = {"chain": [HELD, {"task": "shop.unknown"}]}
    workflow = await client.submit_workflow(unknown, force=True)
    assert (await workflow.job("1")).job.queue == client.settings.default_queue
    await workflow.cancel()
    canvas = chain(shop.app.signature("shop.unknown").set(countdown=60), shop.add.s(1))
    await (await client.submit(canvas)).cancel()
    with pytest.raises(InvalidSubmission, match="announced"):
        await client.submit(canvas, force=False)


async def test_more_nodes_than_a_workflow_may_have_are_refused(client: Dure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dure.client.flows.MAX_NODES", 10)
    with pytest.raises(InvalidSubmission, match="at most 10 nodes, and this one 11"):
        await client.submit(group(shop.add.s(n) for n in range(11)))


async def test_a_group_of_a_thousand_has_its_results_in_order(client: Dure) -> None:
    workflow = await client.submit(group(shop.echo.s(n) for n in range(1000)), name="thousand")
    assert await workflow.result(timeout=4 * PATIENCE) == list(range(1000))
    assert workflow.workflow.name == "thousand"


async def test_options_that_a_workflow_has_not_are_a_mistake_of_the_program(client: Dure) -> None:
    flow = chain(shop.add.s(1, 2), shop.add.s(3))
    with pytest.raises(TypeError, match="arguments"):
        await client.submit(flow, 1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="queue: no option of a workflow, which has name, timeout"):
        await client.submit(flow, queue="celery")
    with pytest.raises(TypeError, match="colour: no option of a job"):
        await client.submit(shop.add.s(1, 2), colour="red")
