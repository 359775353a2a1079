"""What a reader is given, whatever is lost, repeated, late or in disorder on the way, and wherever it goes on."""

from collections.abc import Sequence

import pytest

from dure.entry import Position
from dure.errors import InvalidCursor
from dure.event import JobEvent
from dure.feed import FeedEvent, FeedKind
from dure.follow import END, GAP_SECONDS, HOLE_SECONDS, SETTLE_SECONDS, Cursor, Follow
from dure.job import JobError, State
from tests.unit.attempts_told import JOB, NOW, STARTED, SUCCESS, ended_at, happened, record, run_of, told


def given_of(events: Sequence[FeedEvent]) -> list[object]:
    """Chunks as they are, the others by their kind and state."""
    return [
        each.data["chunk"]
        if each.kind is FeedKind.OUTPUT
        else f"{each.kind} {each.data.get('state', each.data.get('entries'))}"
        for each in events
    ]


def begun(after: Cursor = Cursor()) -> Follow:  # noqa: B008 - it is frozen
    """A reader of a running job that has asked the ledger once."""
    follow = Follow(record(STARTED), after)
    follow.read(record(STARTED), [], now=NOW)
    return follow


def test_the_state_comes_first_then_entries_as_they_are_pushed_then_the_result() -> None:
    follow = Follow(JOB)
    assert given_of(follow.begin()) == ["state QUEUED"]
    for _ in range(5):  # it has been there for a while
        assert follow.read(JOB, [], now=NOW) == []
    assert given_of(follow.happen(STARTED)) == ["state STARTED"]
    assert given_of(follow.push(told(1, 1, 2))) == [1, 2]
    assert given_of(follow.push(told(1, 3))) == [3]
    (end,) = follow.happen(SUCCESS)
    assert (end.kind, end.data["result"], follow.over, follow.pause) == (FeedKind.RESULT, "r", True, None)


def test_a_gap_is_filled_from_the_ledger_in_its_place() -> None:
    follow = begun()
    assert given_of(follow.push(told(1, 1))) == [1]
    assert follow.push(told(1, 4, 5)) == []
    assert follow.pause is not None
    assert follow.read(record(STARTED), [told(1, 2)], now=NOW) != []
    assert follow.pause is not None
    assert given_of(follow.read(record(STARTED), [told(1, 3, 4)], now=NOW)) == [3, 4, 5]


def test_the_ledger_is_asked_less_and_less_often_about_a_gap() -> None:
    follow = begun()
    follow.push(told(1, 2))
    pauses = []
    for _ in range(15):
        pauses.append(follow.pause or 0.0)
        follow.read(record(STARTED), [], now=NOW)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.05
    assert pauses[-1] == 1.0


def test_an_end_waits_for_what_is_known_to_be_missing() -> None:
    follow = begun()
    follow.push(told(1, 2))
    assert follow.happen(SUCCESS) == []
    assert given_of(follow.read(record(STARTED), [told(1, 1)], now=NOW)) == [1, 2, "result SUCCESS"]


def test_what_may_have_begun_before_the_reader_came_is_asked_for() -> None:
    follow = Follow(record(STARTED))
    follow.read(record(STARTED), [], now=NOW)
    assert follow.push(told(2, 1)) == []
    assert given_of(follow.read(record(STARTED), [told(1, 1), told(2, 1)], now=NOW)) == [1, 1]


def test_an_end_that_is_all_that_was_pushed_waits_for_the_ledger() -> None:
    follow = begun()
    assert follow.happen(SUCCESS) == []
    ended = record(STARTED, SUCCESS)
    at = ended.finished_at or NOW
    assert given_of(follow.read(ended, [told(1, 1, 2)], now=at)) == [1, 2]
    assert follow.pause is not None
    assert given_of(follow.read(ended, [told(1, 3)], now=at + 2 * SETTLE_SECONDS)) == [3, "result SUCCESS"]


def test_an_end_that_says_how_far_it_went_waits_for_just_that() -> None:
    follow = begun()
    assert given_of(follow.push(told(1, 1))) == [1]
    assert follow.happen(ended_at(1, 3)) == []  # two of them fell out of the reader's queue
    assert follow.pause is not None
    assert given_of(follow.read(record(STARTED), [told(1, 2)], now=NOW)) == [2]
    assert given_of(follow.push(told(1, 3))) == [3, "result SUCCESS"]


def test_an_end_that_says_how_far_it_went_needs_no_ledger_behind_that() -> None:
    follow = begun(Cursor(0, Position(run_of(1), 3)))
    assert given_of(follow.happen(ended_at(1, 3))) == ["result SUCCESS"]


def test_a_recorder_that_stands_still_is_waited_for_where_it_is_known_what_it_has() -> None:
    ended = record(STARTED, SUCCESS)
    at = ended.finished_at or NOW
    follow, last = Follow(ended), Position(run_of(1), 3)
    assert given_of(follow.read(ended, [told(1, 1)], now=at + 2 * SETTLE_SECONDS, last=last)) == [1]
    assert follow.pause is not None
    events = follow.read(ended, [told(1, 2, 3)], now=at + 2 * SETTLE_SECONDS, last=last, complete=True)
    assert given_of(events) == [2, 3, "result SUCCESS"]
    follow = Follow(ended)
    assert given_of(follow.read(ended, [], now=at + GAP_SECONDS, last=last)) == ["result SUCCESS"], "not for ever"


def test_an_end_of_which_the_ledger_has_all_comes_at_once() -> None:
    ended = record(STARTED, SUCCESS)
    events = Follow(ended).read(ended, [told(1, 1)], now=ended.finished_at or NOW, complete=True)
    assert given_of(events) == [1, "result SUCCESS"]


def test_a_repeated_push_does_not_say_that_nothing_was_missed() -> None:
    follow = begun(Cursor(0, Position(run_of(1), 3)))
    assert follow.push(told(1, 1)) == []
    assert follow.happen(SUCCESS) == []
    assert given_of(follow.read(record(STARTED, SUCCESS), [told(1, 4)], now=NOW + 100)) == [4, "result SUCCESS"]


def test_an_end_without_its_value_is_asked_for() -> None:
    follow = begun()
    follow.push(told(1, 1))
    assert follow.happen(happened(State.SUCCESS)) == []
    assert follow.pause is not None
    (end,) = follow.read(record(STARTED, SUCCESS), [], now=NOW + 100, complete=True)
    assert end.data["result"] == "r"


def test_the_end_of_a_job_that_nobody_began_needs_no_patience() -> None:
    revoked = record(JobEvent(job_id="j", state=State.REVOKED, at=NOW, reason="revoked"))
    follow = Follow(revoked)
    assert given_of(follow.read(revoked, [], now=NOW)) == ["result REVOKED"]


def test_the_end_of_a_finished_job_comes_at_once_behind_its_entries() -> None:
    ended = record(STARTED, happened(State.FAILURE, error=JobError(type="E", message="m"), reason="error"))
    follow = Follow(ended)
    assert follow.begin() == []
    events = follow.read(ended, [told(1, 1, 3)], now=(ended.finished_at or 0) + 60)
    assert given_of(events) == [1, 2, 3, "result FAILURE"]
    assert events[-1].data["error"]["type"] == "E"


def test_a_page_of_the_ledger_is_followed_by_the_next() -> None:
    ended = record(STARTED, SUCCESS)
    follow = Follow(ended)
    assert given_of(follow.read(ended, [told(1, 1, 2)], now=NOW + 100, more=True)) == [1, 2]
    assert follow.pause == 0.0
    assert given_of(follow.read(ended, [told(1, 3)], now=NOW + 100)) == [3, "result SUCCESS"]


def test_a_new_attempt_waits_until_the_ledger_has_it_too() -> None:
    follow = begun()
    follow.push(told(1, 1))
    assert follow.push(told(2, 1)) == []
    assert given_of(follow.read(record(STARTED), [told(1, 2), told(2, 1)], now=NOW)) == [2, 1]
    assert given_of(follow.push(told(2, 2))) == [2]
    assert follow.push(told(1, 3)) == []


def test_what_the_ledger_dropped_is_said_once() -> None:
    follow = Follow(record(STARTED))
    events = follow.read(record(STARTED), [told(1, 8, 9)], now=NOW, dropped=7)
    assert given_of(events) == ["state STARTED", "dropped 7", 8, 9]
    resumed = begun(Cursor.parse(events[1].id))
    assert given_of(resumed.read(record(STARTED), [told(1, 8, 9)], now=NOW)) == [8, 9]


def test_an_attempt_of_which_all_is_dropped_is_counted() -> None:
    follow = begun(Cursor(0, Position(run_of(1), 2)))
    assert given_of(follow.read(record(STARTED), [told(2, 1)], now=NOW, dropped=5)) == ["dropped 5", 1]


def test_a_gap_that_stays_in_the_ledger_is_given_up() -> None:
    follow = begun()
    assert given_of(follow.read(record(STARTED), [told(1, 1), told(1, 4)], now=NOW)) == [1]
    assert follow.read(record(STARTED), [told(1, 4)], now=NOW + HOLE_SECONDS / 2) == []
    events = follow.read(record(STARTED), [told(1, 4)], now=NOW + HOLE_SECONDS)
    assert given_of(events) == ["dropped 2", 4]


def test_what_is_held_is_bounded_and_taken_from_the_ledger_then() -> None:
    follow = begun()
    for n in range(2, 5000):
        assert follow.push(told(1, n), 1000) == []
    assert follow.happen(SUCCESS) == []
    got: list[object] = []
    ended, at = record(STARTED, SUCCESS), NOW + 60
    while not follow.over:
        assert follow.pause is not None
        after = follow.seen.n
        last = min(after + 1000, 4999)
        more = [told(1, after + 1, last)] if last > after else []
        got += given_of(follow.read(ended, more, now=at, more=last < 4999))
        at += 1
    assert got == [*range(1, 5000), "result SUCCESS"]


def test_a_reader_that_has_the_result_gets_nothing_more() -> None:
    follow = Follow(record(STARTED, SUCCESS), Cursor(END, Position(run_of(1), 3)))
    assert follow.over
    assert follow.pause is None
    assert follow.push(told(1, 4)) == follow.happen(SUCCESS) == []


@pytest.mark.parametrize("text", ["1", "1.2", "1.2.3.4", "a.b.c", "-1.2.3", "1.2.3 ", "1.2." + "9" * 30, "١.٢.٣"])
def test_a_cursor_that_nobody_gave_out_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.parse(text)


def test_a_cursor_says_all_that_was_seen() -> None:
    cursor = Cursor(13, Position(1_795_277_374_350_107, 42))
    assert Cursor.parse(str(cursor)) == cursor
    assert Cursor.parse(None) == Cursor.parse("") == Cursor()
