"""Ends of nodes are passed on to those that need them, and workflows end."""

import pytest

from dure.errors import JobEnded
from dure.job import JobError, State
from dure.ledger import Ledger
from dure.workflow import Kind, On
from tests.conformance.flows import LATER, OPEN, Draft, ended, job, note_releases, open_nodes, outcome, result, states
from tests.conformance.ledgers import NOW, Database, told


async def test_a_chain_begins_one_after_the_other_with_the_results(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("a", 1)
    draft.node("b", result("a"), 2)
    draft.node("c", kwargs={"x": result("b", "sum", 0)})
    await draft.accepted(ledger)
    assert await states(ledger, draft) == {"a": (State.ACCEPTED, None), "b": OPEN, "c": OPEN}

    await ended(ledger, draft["a"], result=5)
    begun = await job(ledger, draft["b"])
    assert (begun.state, begun.args, begun.changed_at) == (State.ACCEPTED, [5, 2], LATER)
    assert database.due()[draft["b"]] == LATER
    assert (await states(ledger, draft))["c"] == OPEN
    assert open_nodes(database, draft) == 2

    await ended(ledger, draft["b"], result={"sum": [7]})
    assert (await job(ledger, draft["c"])).kwargs == {"x": 7}
    await ended(ledger, draft["c"], at=LATER + 5)
    found = await ledger.workflow(draft.workflow.id)
    assert found is not None
    assert (found.state, found.reason, found.finished_at) == (State.SUCCESS, None, LATER + 5)
    assert open_nodes(database, draft) == 0


async def test_a_node_begins_with_the_last_of_its_needs(ledger: Ledger) -> None:
    draft = Draft()
    for name in "abc":
        draft.node(name)
    draft.node("sum", [result("a"), result("b"), result("c")], {"$literal": {"$result": "a"}})
    await draft.accepted(ledger)
    await ended(ledger, draft["c"], result=3)
    await ended(ledger, draft["a"], result=1)
    assert (await states(ledger, draft))["sum"] == OPEN
    await ended(ledger, draft["b"], result=2)
    assert (await job(ledger, draft["sum"])).args == [[1, 2, 3], {"$result": "a"}]


async def test_a_diamond_begins_its_sides_at_once_and_its_end_once(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("top")
    draft.node("left", result("top"))
    draft.node("right", needs=["top"])
    draft.node("end", result("left"), result("right"), result("top"))
    await draft.accepted(ledger)
    released = note_releases(ledger)
    await ended(ledger, draft["top"], result=0)
    assert sorted(each.id for each in released.pop()) == sorted([draft["left"], draft["right"]])
    await ended(ledger, draft["left"], draft["right"], result=1)
    assert [each.args for each in released.pop()] == [[1, 1, 0]]


async def test_a_result_that_is_not_in_the_ledger_is_no_null(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("large")
    draft.node("none")
    draft.node("next", result("large"))
    draft.node("other", result("none"))
    await draft.accepted(ledger)
    await ended(ledger, draft["large"], result=None, has_result=False, result_repr="[1, 2, ...]")
    await ended(ledger, draft["none"], result=None, has_result=False, result_repr="None")
    next_ = await job(ledger, draft["next"])
    assert (next_.state, next_.reason) == (State.FAILURE, "upstream-failed")
    assert next_.error is not None
    assert next_.error.type == "ResultNotKept"
    assert "DURE_RESULT_LIMIT" in next_.error.message
    assert (await job(ledger, draft["other"])).args == [None]


async def test_a_chord_of_a_thousand_gets_all_results_in_their_order(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    members = [draft.node(f"m{number}") for number in range(1000)]
    draft.node("body", [result(f"m{number}") for number in range(1000)])
    await draft.accepted(ledger)
    for start in range(0, 1000, 100):
        assert (await states(ledger, draft))["body"] == OPEN
        batch = [
            told(members[n], State.SUCCESS, result=n, has_result=True) for n in reversed(range(start, start + 100))
        ]
        await ledger.record(batch, now=LATER)
    assert (await job(ledger, draft["body"])).args == [list(range(1000))]
    assert open_nodes(database, draft) == 1


# Failures.


async def test_a_failure_ends_all_that_need_it_and_says_why(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", result("a"))
    draft.node("c", needs=["b"])
    draft.node("beside")
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE)
    failed = (State.FAILURE, "upstream-failed")
    assert await states(ledger, draft) == {
        "a": (State.FAILURE, "error"),
        "b": failed,
        "c": failed,
        "beside": (State.ACCEPTED, None),
    }
    b, c = await job(ledger, draft["b"]), await job(ledger, draft["c"])
    assert b.error is not None
    assert c.error is not None
    assert (b.error.type, b.error.message) == ("UpstreamFailed", "its need 'a' ended FAILURE (error)")
    assert c.error.message == "its need 'b' ended FAILURE (upstream-failed)"
    assert (b.finished_at, b.fingerprint is not None) == (LATER, True)
    assert await outcome(ledger, draft) == (State.STARTED, None)
    assert open_nodes(database, draft) == 1
    await ended(ledger, draft["beside"])
    assert await outcome(ledger, draft) == (State.FAILURE, "error")


async def test_one_failed_need_of_many_is_enough_and_the_others_may_still_end(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b")
    draft.node("sum", result("a"), result("b"))
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE, reason="time-limit")
    assert (await states(ledger, draft))["sum"] == (State.FAILURE, "upstream-failed")
    await ended(ledger, draft["b"])
    assert (await states(ledger, draft))["sum"] == (State.FAILURE, "upstream-failed")
    assert await outcome(ledger, draft) == (State.FAILURE, "time-limit")


async def test_a_need_that_continues_gives_null_and_does_no_harm(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a", plan={"continues": True})
    draft.node("b", result("a"), {"$error": "a", "path": ["message"]}, needs={"a": On.END})
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE, error=JobError(type="E", message="no"))
    begun = await job(ledger, draft["b"])
    assert (begun.state, begun.args) == (State.ACCEPTED, [None, "no"])
    await ended(ledger, draft["b"])
    assert await outcome(ledger, draft) == (State.SUCCESS, None)


@pytest.mark.parametrize("on", [On.FAILURE, On.ERROR])
async def test_a_handler_runs_with_what_it_is_told_of_the_failure(ledger: Ledger, on: On) -> None:
    draft = Draft()
    draft.node("a", 7)
    draft.node("handler", {"$error": "a", "path": ["id"]}, {"$error": "a", "path": ["args"]}, needs={"a": on})
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE)
    assert (await job(ledger, draft["handler"])).args == [draft["a"], [7]]
    await ended(ledger, draft["handler"])
    assert await outcome(ledger, draft) == (State.FAILURE, "error")


async def test_a_handler_that_is_not_wanted_is_skipped_with_what_follows_it(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("handler", needs={"a": On.FAILURE})
    draft.node("after", result("handler"))
    draft.node("handler of it", needs={"handler": On.FAILURE})
    draft.node("last", result("handler"), needs={"handler": On.END})
    await draft.accepted(ledger)
    await ended(ledger, draft["a"])
    skipped = (State.REVOKED, "skipped")
    assert await states(ledger, draft) == {
        "a": (State.SUCCESS, None),
        "handler": skipped,
        "after": skipped,
        "handler of it": skipped,
        "last": (State.ACCEPTED, None),
    }
    assert (await job(ledger, draft["last"])).args == [None]
    await ended(ledger, draft["last"])
    assert await outcome(ledger, draft) == (State.SUCCESS, None)


async def test_an_error_is_one_of_the_nodes_own(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", needs=["a"])
    draft.node("any", needs={"b": On.FAILURE})
    draft.node("own", needs={"b": On.ERROR})
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], state=State.FAILURE)
    found = await states(ledger, draft)
    assert (found["any"], found["own"]) == ((State.ACCEPTED, None), (State.REVOKED, "skipped"))


async def test_a_part_that_is_not_there_ends_the_node_that_wants_it(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", result("a", "items", 3))
    draft.node("c", needs=["b"])
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], result={"items": [1]})
    b = await job(ledger, draft["b"])
    assert (b.state, b.reason) == (State.FAILURE, "upstream-failed")
    assert b.error is not None
    assert (b.error.type, b.error.message) == ("NoSuchPart", "the result of 'a' has no ['items'][3]")
    assert (await states(ledger, draft))["c"] == (State.FAILURE, "upstream-failed")
    assert await outcome(ledger, draft) == (State.FAILURE, "upstream-failed")


async def test_a_node_that_is_cancelled_is_as_one_that_failed(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", needs=["a"])
    draft.node("c", needs=["b"])
    draft.node("always", needs={"b": On.END})
    draft.node("handler", needs={"b": On.FAILURE})
    await draft.accepted(ledger)
    await ledger.request_cancel(draft["b"], LATER, due_at=LATER + 4)
    assert await states(ledger, draft) == {
        "a": (State.ACCEPTED, None),
        "b": (State.REVOKED, "revoked"),
        "c": (State.FAILURE, "upstream-failed"),
        "always": (State.ACCEPTED, None),
        "handler": (State.REVOKED, "skipped"),
    }
    assert database.due()[draft["b"]] is None  # there is no message to speak of
    await ended(ledger, draft["a"], draft["always"])
    assert await outcome(ledger, draft) == (State.FAILURE, "revoked")


async def test_a_message_that_no_queue_takes_fails_what_needs_it(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b", result("a"))
    await draft.accepted(ledger)
    await ledger.fail_accepted(draft["a"], "rejected", "no queue", LATER)
    assert (await states(ledger, draft))["b"] == (State.FAILURE, "upstream-failed")
    assert await outcome(ledger, draft) == (State.FAILURE, "rejected")


async def test_the_reason_is_that_of_the_node_that_failed_first_of_itself(ledger: Ledger) -> None:
    draft = Draft()
    for name in ("first", "second", "third"):
        draft.node(name)
    draft.node("after", needs=["third"])
    await draft.accepted(ledger)
    await ended(ledger, draft["third"], state=State.FAILURE, reason="expired", at=LATER)
    await ended(ledger, draft["first"], state=State.FAILURE, reason="time-limit", at=LATER + 1)
    await ended(ledger, draft["second"], at=LATER + 2)
    assert await outcome(ledger, draft) == (State.FAILURE, "expired")


# Kinds.


async def test_a_value_ends_at_once_and_is_passed_on_in_the_same_transaction(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("value", {"sum": result("a"), "of": [result("a")]}, kind=Kind.VALUE)
    draft.node("next", result("value", "of", 0))
    await draft.accepted(ledger)
    await ended(ledger, draft["a"], result=3)
    value = await job(ledger, draft["value"])
    assert (value.state, value.result, value.finished_at) == (State.SUCCESS, {"sum": 3, "of": [3]}, LATER)
    assert (await job(ledger, draft["next"])).args == [3]


async def test_a_value_that_needs_nothing_ends_when_it_is_accepted(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("value", [1, 2], kind=Kind.VALUE)
    draft.node("next", result("value", 1))
    released = note_releases(ledger)
    await draft.accepted(ledger)
    assert [each.args for each in released.pop()] == [[2]]
    assert (await job(ledger, draft["value"])).result == [1, 2]
    assert open_nodes(database, draft) == 1
    alone = Draft()
    alone.node("value", None, kind=Kind.VALUE)
    await alone.accepted(ledger)
    assert await outcome(ledger, alone) == (State.SUCCESS, None)


async def test_a_wait_ends_with_what_its_signal_brings(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("wait", kind=Kind.WAIT, needs=["a"])
    draft.node("next", result("wait", "by"))
    await draft.accepted(ledger)
    await ended(ledger, draft["a"])
    assert (await states(ledger, draft))["wait"] == OPEN
    signalled = await ledger.signal(draft.workflow.id, "wait", {"by": "ann"}, LATER)
    assert (signalled.state, signalled.result) == (State.SUCCESS, {"by": "ann"})
    assert (await job(ledger, draft["next"])).args == ["ann"]
    with pytest.raises(JobEnded):
        await ledger.signal(draft.workflow.id, "wait", {"by": "bob"}, LATER)


async def test_a_signal_may_come_before_the_needs_have_ended_and_may_be_null(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("wait", kind=Kind.WAIT, needs=["a"], plan={"expires": 5})
    await draft.accepted(ledger)
    assert (await ledger.signal(draft.workflow.id, "wait", None, LATER)).state is State.WAITING
    with pytest.raises(JobEnded):
        await ledger.signal(draft.workflow.id, "wait", 1, LATER)
    await ended(ledger, draft["a"], at=LATER + 5)
    wait = await job(ledger, draft["wait"])
    assert (wait.state, wait.result, wait.expires) == (State.SUCCESS, None, None)


async def test_the_time_of_a_wait_begins_when_its_needs_have_ended(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("b")
    draft.node("wait", kind=Kind.WAIT, needs=["a", "b"], plan={"expires": 60})
    draft.node("root", kind=Kind.WAIT, plan={"expires": 30})
    await draft.accepted(ledger)
    assert (await job(ledger, draft["root"])).expires == NOW + 30
    await ended(ledger, draft["a"])
    assert (await job(ledger, draft["wait"])).expires is None
    await ended(ledger, draft["b"], at=LATER + 2)
    wait = await job(ledger, draft["wait"])
    assert (wait.state, wait.expires) == (State.WAITING, LATER + 62)
    await ledger.signal(draft.workflow.id, "wait", 1, LATER + 3)
    await ledger.signal(draft.workflow.id, "root", 1, LATER + 3)
    assert await outcome(ledger, draft) == (State.SUCCESS, None)


async def test_delay_and_expires_count_from_the_moment_in_which_the_needs_are_met(
    ledger: Ledger, database: Database
) -> None:
    draft = Draft()
    draft.node("a")
    draft.node("delayed", needs=["a"], plan={"delay": 30.0})
    draft.node("expiring", needs=["a"], plan={"expires": 40.0})
    draft.node("later", needs=["a"], eta=LATER + 99)
    draft.node("past", needs=["a"], eta=NOW)
    await draft.accepted(ledger)
    released = note_releases(ledger)
    await ended(ledger, draft["a"])
    found = await ledger.some_jobs([draft[name] for name in draft.nodes])
    delayed, later = found[draft["delayed"]], found[draft["later"]]
    assert (delayed.state, delayed.eta, later.state) == (State.SCHEDULED, LATER + 30, State.SCHEDULED)
    assert found[draft["expiring"]].expires == LATER + 40
    due = database.due()
    assert (due[delayed.id], due[later.id]) == (LATER + 30, LATER + 99)
    assert {each.id for each in released.pop()} == {draft["expiring"], draft["past"]}


# Workflows.


async def test_a_workflow_that_is_cancelled_ends_when_its_last_node_has(ledger: Ledger, database: Database) -> None:
    draft = Draft()
    draft.node("runs")
    draft.node("b", needs=["runs"])
    await draft.accepted(ledger)
    await ledger.record([told(draft["runs"], State.STARTED)])
    await ledger.cancel_workflow(draft.workflow.id, LATER, due_at=LATER)
    assert await outcome(ledger, draft) == (State.STARTED, None)
    await ended(ledger, draft["runs"], state=State.REVOKED, reason="terminated", at=LATER + 1)
    assert await outcome(ledger, draft) == (State.REVOKED, "revoked")
    assert open_nodes(database, draft) == 0


async def test_the_queues_of_nodes_are_known(ledger: Ledger) -> None:
    draft = Draft()
    draft.node("a", queue="mine")
    draft.node("b", queue="theirs", needs=["a"])
    await draft.accepted(ledger)
    assert set(await ledger.queues()) >= {"mine", "theirs"}
