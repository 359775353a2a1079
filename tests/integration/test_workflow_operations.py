"""Workflows that are waited for, cancelled and run again: embedded and in production."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain

from dure import (
    Dure,
    InvalidSubmission,
    JobNotEnded,
    State,
    SyncDure,
    UnknownNode,
    UnknownWorkflow,
    WorkflowFailed,
)
from dure.client import Edits, SyncWorkflowHandle
from dure.errors import WorkflowEnded, WorkflowNotEnded
from dure.gateway.runtime import running
from dure.ledger import JobFilter
from tests.acceptance import tasks as shop
from tests.acceptance.site import Site
from tests.integration.workflow_forms import HELD, PATIENCE, add, is_, states, until


async def test_a_failed_need_ends_what_depends_on_it_and_the_failure_is_told(client: Dure) -> None:
    workflow = await client.submit(chain(shop.add.s(1, 2), shop.fail.si("no"), shop.echo.s()))
    with pytest.raises(WorkflowFailed, match="ValueError: no") as failed:
        await workflow.result(PATIENCE)
    assert (failed.value.workflow.state, failed.value.workflow.reason) == (State.FAILURE, "error")
    assert failed.value.job is not None
    assert failed.value.job.task == "shop.fail"
    last = await workflow.job("2")
    assert (await last.wait(PATIENCE)).reason == "upstream-failed"


async def test_a_cancelled_workflow_runs_no_further(client: Dure) -> None:
    workflow = await client.submit_workflow({"chain": [add(1, 2), add(1, queue="nobody"), add(1)], "timeout": 600})
    await until(lambda: is_(workflow, "1", State.QUEUED))
    assert (await workflow.cancel()).state is State.REVOKED
    assert await states(workflow) == {"0": State.SUCCESS, "1": State.REVOKED, "2": State.REVOKED}
    assert (await client.cancel_workflow(workflow.id)).state is State.REVOKED
    with pytest.raises(WorkflowFailed) as failed:
        await workflow.result(PATIENCE)
    assert failed.value.job is None
    ended = await client.submit(chain(shop.add.s(1, 2), shop.add.s(10)))
    await ended.wait(PATIENCE)
    with pytest.raises(WorkflowEnded):
        await ended.cancel()


async def test_a_job_that_runs_when_its_workflow_is_cancelled_ends_it_with_its_own_end(client: Dure) -> None:
    workflow = await client.submit(chain(shop.sleep.s(5), shop.echo.s()))  # time enough to be seen running
    await until(lambda: is_(workflow, "0", State.STARTED))
    assert (await workflow.cancel()).state is State.STARTED
    assert (await workflow.wait(PATIENCE)).state is State.REVOKED


async def test_a_workflow_is_run_again_from_what_failed_and_keeps_what_ended_well(client: Dure, tmp_path: Path) -> None:
    marker = tmp_path / "there"
    workflow = await client.submit(chain(shop.add.s(1, 2), shop.needs.s(str(marker)), shop.add.s(10)))
    with pytest.raises(WorkflowFailed):
        await workflow.result(PATIENCE)
    first = await workflow.job("0")
    with pytest.raises(UnknownNode):
        await workflow.retry("nothing")
    marker.touch()
    assert (await workflow.retry()).state is State.STARTED
    assert await workflow.result(PATIENCE) == 13
    assert (await workflow.job("0")).id == first.id
    assert (await workflow.retry("0")).state is State.STARTED
    assert await workflow.result(PATIENCE) == 13
    assert (await workflow.job("0")).id != first.id


async def test_a_workflow_that_is_open_is_not_run_again_as_a_whole(client: Dure) -> None:
    workflow = await client.submit_workflow({"chain": [HELD, add(1)]})
    with pytest.raises(WorkflowNotEnded):
        await workflow.retry()
    await workflow.cancel()


async def test_a_node_is_sent_again_as_a_job_is_and_its_workflow_goes_on(client: Dure, tmp_path: Path) -> None:
    marker = tmp_path / "there"
    workflow = await client.submit(chain(shop.add.s(1, 2), shop.needs.s(str(marker)), shop.add.s(10)))
    await workflow.wait(PATIENCE)
    failed = await workflow.job("1")
    for wrong in ({"unique_key": "k"}, {"priority": 10}):
        with pytest.raises(InvalidSubmission):
            await client.retry(failed.id, Edits(options=wrong))
    with pytest.raises(InvalidSubmission, match="refer"):
        await client.retry((await workflow.job("2")).id, Edits(options={"priority": 1}))

    held = await client.retry(failed.id, Edits(options={"queue": "nobody"}))
    assert (held.job.retry_of, held.job.node, held.job.args, held.job.queue) == (
        failed.id,
        "1",
        [3, str(marker)],
        "nobody",
    )
    assert (await workflow.refresh()).state is State.STARTED
    assert (await client.retry(failed.id)).id == held.id
    with pytest.raises(JobNotEnded):
        await client.retry(held.id)
    await client.cancel(held.id)
    assert (await workflow.wait(PATIENCE)).state is not State.SUCCESS

    again = await client.retry(held.id, Edits(args=[5, str(Path(__file__))], options={"queue": "celery"}))
    assert again.job.retry_of == held.id
    await workflow.refresh()
    assert await workflow.result(PATIENCE) == 15
    assert await again.result(PATIENCE) == 5


async def test_all_failed_nodes_are_sent_again_and_what_needed_them_with_them(client: Dure, tmp_path: Path) -> None:
    marker = tmp_path / "there"
    tag = uuid4().hex
    task = {"task": "shop.needs", "args": [str(marker)], "tags": [tag]}
    flows = [await client.submit_workflow({"chain": [add(n, 1), task, add(10, tags=[tag])]}) for n in range(3)]
    for workflow in flows:
        await workflow.wait(PATIENCE)
    marker.touch()
    resent = await client.retry_many(JobFilter(tag=tag))
    assert (resent.matched, len(resent.jobs), resent.skipped) == (6, 6, ())
    for workflow in flows:
        await workflow.refresh()
    assert [await workflow.result(PATIENCE) for workflow in flows] == [11, 12, 13]
    assert (await client.retry_many(JobFilter(tag=tag))).matched == 0


async def test_what_failed_because_of_another_is_not_sent_again_alone(client: Dure) -> None:
    tag = uuid4().hex
    fails = {"task": "shop.fail", "args": ["no"]}
    workflow = await client.submit_workflow({"chain": [fails, add(1, 1, tags=[tag], immutable=True)]})
    await workflow.wait(PATIENCE)
    resent = await client.retry_many(JobFilter(tag=tag))
    assert (resent.matched, resent.jobs) == (1, ())
    assert [(each.id, "that failed" in each.error) for each in resent.skipped] == [((await workflow.job("1")).id, True)]


async def test_a_workflow_whose_time_is_over_fails(client: Dure) -> None:
    workflow = await client.submit_workflow({"chain": [HELD, add(1)], "timeout": 0.2})
    with pytest.raises(WorkflowFailed) as failed:
        await workflow.result(PATIENCE)
    assert (failed.value.workflow.state, failed.value.workflow.reason) == (State.FAILURE, "time-limit")
    by_name = await client.submit(chain(shop.add.s(0), shop.add.s(1)), timeout=77.0)
    assert by_name.workflow.timeout == 77.0
    assert by_name.workflow.deadline == pytest.approx(by_name.workflow.created_at + 77)


@pytest.mark.parametrize("workflow_id", ["nobody", "", "\x00", "x" * 300])
async def test_a_workflow_that_nobody_submitted_is_unknown(client: Dure, workflow_id: str) -> None:
    for ask in (client.workflow, client.workflow_handle, client.cancel_workflow, client.retry_workflow):
        with pytest.raises(UnknownWorkflow):
            await ask(workflow_id)
    with pytest.raises(UnknownWorkflow):
        await client.signal(workflow_id, "node")


async def test_many_who_wait_for_workflows_ask_the_ledger_together(
    client: Dure, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = [await client.submit_workflow({"chain": [HELD, add(n)]}) for n in range(20)]
    asked: list[int] = []
    ask = client.ledger.some_workflows

    async def counted(ids: Any) -> Any:
        asked.append(len(ids))
        return await ask(ids)

    monkeypatch.setattr(client.ledger, "some_workflows", counted)
    waiting = [asyncio.create_task(workflow.result(PATIENCE)) for workflow in flows]
    await until(lambda: _has(asked, 20))
    for number, workflow in enumerate(flows):
        await workflow.signal("0", number)
    assert await asyncio.gather(*waiting) == [2 * n for n in range(20)]
    rounds = len(asked)
    await asyncio.sleep(0.6)  # longer than any pause between two rounds
    assert len(asked) <= rounds + 1  # nobody waits any more


async def _has(asked: list[int], number: int) -> bool:
    return number in asked


async def test_a_workflow_is_submitted_and_awaited_from_plain_code(place: Site) -> None:
    async with running(place.settings):
        await asyncio.to_thread(_from_plain_code, place)


def _from_plain_code(place: Site) -> None:
    with SyncDure(place.settings) as dure:
        workflow = dure.submit(chain(shop.add.s(1, 2), shop.add.s(10)), name="plain")
        assert isinstance(workflow, SyncWorkflowHandle)
        assert workflow.result(PATIENCE) == 13
        assert repr(workflow) == f"<SyncWorkflowHandle plain[{workflow.id}] SUCCESS>"
        assert workflow.job("0").result(PATIENCE) == 3
        assert dure.submit(shop.add.s(1, 2)).result(PATIENCE) == 3
        held = dure.submit_workflow({"chain": [HELD, add(1)]}, force=True)
        assert held.signal("0", 4).result == 4
        assert held.result(PATIENCE) == 5
        assert dure.retry_workflow(held.id, "1").state is State.STARTED
        assert held.refresh().id == dure.workflow_handle(held.id).id == dure.workflow(held.id).workflow.id
        other = dure.submit_workflow({"chain": [HELD, add(1)]}, force=True)
        assert dure.cancel_workflow(other.id).state is State.REVOKED
        assert other.wait(PATIENCE).state is State.REVOKED
        assert len(other.view().nodes) == 2
