"""An end is passed on once, whatever comes twice, late or at once; and what begins is told after the commit."""

import asyncio
from collections.abc import Sequence
from typing import Any

from dure.job import Job, State
from dure.ledger import Ledger
from dure.ledger.ledger import RELEASE_LEASE
from dure.workflow import Kind, On
from tests.conformance.flows import LATER, OPEN, Draft, ended, job, note_releases, open_nodes, outcome, result, states
from tests.conformance.ledgers import Database, accepted, counted, opened, told
from tests.conformance.ledgers import job as plain


async def test_an_end_that_is_told_again_begins_nothing_again(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", needs=["a"])
    draft.node("c", needs=["a", "b"])
    await draft.accepted(ledger)
    released = note_releases(ledger)
    for _ in range(2):
        await ended(ledger, draft["a"])
    assert len(released) == 1
    await ended(ledger, draft["a"], state=State.SUCCESS, result="of an earlier attempt", attempt=0)
    assert len(released) == 1
    assert (await states(ledger, draft))["c"] == OPEN
    assert open_nodes(database, draft) == 2


async def test_an_end_that_another_end_corrects_later_was_passed_on_already(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", needs=["a"])
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE, reason="lost", attempt=None, worker=None)
    assert await outcome(ledger, draft) == (State.FAILURE, "lost")
    await ended(ledger, draft["a"], at=LATER + 20)
    assert await states(ledger, draft) == {"a": (State.SUCCESS, None), "b": (State.FAILURE, "upstream-failed")}
    assert await outcome(ledger, draft) == (State.FAILURE, "lost")


async def test_two_ledgers_that_record_at_once_lose_no_end_and_begin_once(database: Database) -> None:
    draft = Draft()
    members = [draft.node(f"m{number}") for number in range(200)]
    draft.node("body", [result(f"m{number}") for number in range(200)])
    async with opened(database) as one, opened(database) as two:
        await draft.accepted(one)
        released = note_releases(one), note_releases(two)

        async def record(ledger: Ledger, ids: Sequence[str]) -> None:
            for start in range(0, len(ids), 5):
                await ended(ledger, *ids[start : start + 5])

        # Each end is told to both, in another order, as after a batch that was not acknowledged.
        await asyncio.gather(record(one, members), record(two, members[::-1]))
        assert sum(len(each) for each in released) == 1
        assert (await job(one, draft["body"])).args == [members]
        assert open_nodes(database, draft) == 1


async def test_ledgers_that_record_ends_of_many_workflows_at_once_do_not_wait_for_each_other(
    database: Database,
) -> None:
    drafts = [Draft() for _ in range(20)]
    for draft in drafts:
        draft.node("a")
        draft.node("b", result("a"))
        draft.node("c", result("b"))
    async with opened(database) as one, opened(database) as two:
        for draft in drafts:
            await draft.accepted(one)
        for name in "abc":
            ids = [draft[name] for draft in drafts]
            await asyncio.gather(ended(one, *ids), ended(two, *ids[::-1]))
        for draft in drafts:
            assert await outcome(one, draft) == (State.SUCCESS, None)
            assert open_nodes(database, draft) == 0


async def test_a_batch_holds_ends_of_nodes_that_need_one_another(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", needs=["a"])
    await draft.accepted(ledger)
    released = note_releases(ledger)
    await ended(ledger, draft["b"], draft["a"])  # as a sweeper that finds both in the result backend may tell it
    assert not released
    assert await outcome(ledger, draft) == (State.SUCCESS, None)


# What the ledger tells after the commit.


async def test_released_jobs_are_told_after_the_commit_and_are_due_for_relays_later(
    ledger: Ledger, database: Database
) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", result("a"), priority=3)
    await draft.accepted(ledger)
    seen: list[tuple[Job, list[tuple[Any, ...]]]] = []

    def look(jobs: Sequence[Job]) -> None:
        (one,) = jobs
        seen.append((one, database.rows(f"SELECT state, due_at FROM jobs WHERE id = '{one.id}'")))

    ledger.on_release = look
    await ended(ledger, draft["a"], result=1)
    ((released, committed),) = seen
    assert committed == [("ACCEPTED", LATER + RELEASE_LEASE)]
    assert released == await job(ledger, draft["b"])
    assert [each.id for each in await ledger.claim_due(LATER + RELEASE_LEASE, lease=5, limit=9) if each.node == "b"]


async def test_jobs_of_no_workflow_cost_no_further_statement(ledger: Ledger, database: Database) -> None:
    jobs = [plain(number) for number in range(3)]
    await accepted(ledger, *jobs)
    with counted(ledger) as statements:
        await ledger.record([told(each.id, State.SUCCESS) for each in jobs])
    assert [statement.split()[0] for statement in statements if statement != "COMMIT"] == [
        "SELECT",  # the locks of their workflows
        "SELECT",  # and theirs
        "UPDATE",
    ]


async def test_a_round_takes_as_many_statements_for_a_thousand_nodes_as_for_two(database: Database) -> None:
    async with opened(database) as ledger:
        numbers = []
        for size in (2, 1000):
            draft = Draft()
            draft.node("a")
            members = [draft.node(f"m{number}", result("a")) for number in range(size)]
            draft.node("sum", [result(f"m{number}") for number in range(size)], kind=Kind.VALUE)
            draft.node("last", result("sum"))
            await draft.accepted(ledger)
            with counted(ledger) as statements:
                await ended(ledger, draft["a"], result=1)
                await ended(ledger, *members)
            assert (await job(ledger, draft["last"])).args == [members]
            numbers.append(len(statements))
        assert numbers[1] <= numbers[0]


async def test_an_end_and_a_cancelling_at_once_are_both_passed_on(database: Database) -> None:
    drafts = [Draft() for _ in range(20)]
    for draft in drafts:
        draft.node("a")
        draft.node("b")
        draft.node("last", needs={"a": On.END, "b": On.END})
    async with opened(database) as one, opened(database) as two:
        for draft in drafts:
            await draft.accepted(one)
        for draft in drafts:
            await asyncio.gather(ended(one, draft["a"]), two.request_cancel(draft["b"], LATER, due_at=LATER))
            assert (await job(one, draft["last"])).state is State.ACCEPTED
            assert open_nodes(database, draft) == 1
