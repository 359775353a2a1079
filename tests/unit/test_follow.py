"""What a reader is given, whatever is lost, repeated, late or in disorder on the way, and wherever it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import event as noted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from msgspec import structs

from dure.entry import Entry, EntryKind, Position, Told
from dure.errors import InvalidCursor
from dure.event import JobEvent, fold
from dure.feed import FeedEvent, FeedKind
from dure.follow import END, GAP_SECONDS, HOLE_SECONDS, SETTLE_SECONDS, Cursor, Follow, place_of
from dure.job import Job, JobError, State

NOW = 1_800_000_000.0
JOB = Job(id="j", task="t", state=State.QUEUED, created_at=NOW, changed_at=NOW)


def run_of(attempt: int) -> int:
    return 1_000_000 * attempt


def entry(n: int, body: object = None, kind: EntryKind = EntryKind.OUTPUT) -> Entry:
    return Entry(n=n, at=NOW, kind=kind, body=n if body is None else body)


def told(attempt: int, first: int, last: int | None = None) -> Told:
    entries = tuple(entry(n) for n in range(first, (last or first) + 1))
    return Told(job_id="j", run=run_of(attempt), entries=entries, is_first=attempt == 1)


def happened(state: State, attempt: int = 1, **more: object) -> JobEvent:
    at = NOW + attempt * 10 + list(State).index(state)
    given = {"job_id": "j", "state": state, "at": at, "attempt": attempt, "attempts": attempt, "worker": "w"} | more
    return JobEvent(**given)  # type: ignore[arg-type]


def record(*events: JobEvent) -> Job:
    job = JOB
    for each in events:
        job = fold(job, each)
    return job


STARTED = happened(State.STARTED)
SUCCESS = happened(State.SUCCESS, result="r", has_result=True)


def ended_at(attempt: int, n: int) -> JobEvent:
    """Its worker says that it told `n` entries."""
    return structs.replace(SUCCESS, told=Position(run_of(attempt), n))


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


@dataclass
class World:
    """A job that runs, as its worker tells it; the ledger follows in that order, and pushes find their own way.

    Where its ends say how far each attempt went (`says`), recorders may overtake each other within an attempt, and the
    reader's queue may lose whatever it likes of what is told.
    """

    script: list[Told | JobEvent]
    keeps: int
    says: bool = False
    lasts: list[Position] = field(default_factory=list)
    ahead: set[int] = field(default_factory=set)
    published: int = 0
    recorded: int = 0
    pushes: list[Told | JobEvent] = field(default_factory=list)
    dropped: list[Position] = field(default_factory=list)
    kept: list[Position] = field(default_factory=list)
    job: Job = JOB

    def publish(self) -> Told | JobEvent:
        self.published += 1
        return self.script[self.published - 1]

    def write_down(self, count: int) -> None:
        for number in range(self.recorded, min(self.recorded + count, self.published)):
            self.recorded += 1
            if number not in self.ahead:
                self._write(self.script[number])

    def write_ahead(self, number: int) -> None:
        """Another recorder is faster; of what the first one holds only entries of that attempt may be before it."""
        if number not in self.ahead and all(isinstance(each, Told) for each in self.script[self.recorded : number]):
            self.ahead.add(number)
            self._write(self.script[number])

    def _write(self, each: Told | JobEvent) -> None:
        if isinstance(each, JobEvent):
            self.job = fold(self.job, each)
            self.lasts += [each.told] if each.told else []
            return
        self.kept = sorted([*self.kept, *(Position(each.run, e.n) for e in each.entries)])
        while len(self.kept) > self.keeps:
            self.dropped.append(self.kept.pop(0))

    @property
    def complete(self) -> bool:
        its_end = self.script[-1]
        there = {*self.kept, *self.dropped}
        return (
            isinstance(its_end, JobEvent)
            and its_end.told in self.lasts
            and all(Position(last.run, n) in there for last in self.lasts for n in range(1, last.n + 1))
        )

    def answer(self, after: Position, limit: int) -> tuple[list[Told], int, bool]:
        found = [place for place in self.kept if place > after]
        page = found[:limit]
        before = page[0] if page else None
        dropped = sum(1 for place in self.dropped if place > after and (before is None or place < before))
        return [told(place.run // 1_000_000, place.n) for place in page], dropped, len(found) > limit


@st.composite
def worlds(draw: st.DrawFn) -> World:
    script: list[Told | JobEvent] = []
    says = draw(st.booleans())
    attempts = draw(st.integers(1, 3))
    for attempt in range(1, attempts + 1):
        script += [happened(State.QUEUED, attempt, delivery=True), happened(State.STARTED, attempt)]
        n = 0
        for size in draw(st.lists(st.integers(1, 3), max_size=5)):
            script.append(told(attempt, n + 1, n + size))
            n += size
        last = Position(run_of(attempt), n) if says and n else None
        if attempt < attempts:
            script.append(happened(State.RETRY, attempt, told=last))
    script.append(happened(State.SUCCESS, attempts, result=1, has_result=draw(st.booleans()), told=last))
    # An end that says nothing leaves open what was told before it.
    return World(script, keeps=draw(st.sampled_from([2, 5, 1000])), says=says and last is not None)


class Reader:
    """Follows the job, is cut off now and then in the midst of what it is given, and goes on behind that."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.got: list[FeedEvent] = []
        self.now = NOW + 1000
        self.follow = Follow(world.job)

    def take(self, events: Sequence[FeedEvent]) -> None:
        self.got += events

    def resume(self, forget: int) -> None:
        while forget and self.got:
            self.got.pop()
            forget -= 1
        cursor = Cursor.parse(self.got[-1].id if self.got else None)
        self.follow = Follow(self.world.job, cursor)

    def push(self, push: Told | JobEvent) -> None:
        if isinstance(push, JobEvent):
            self.take(self.follow.happen(push))
            return
        self.take(self.follow.push(push, 10))

    def ask(self, limit: int) -> None:
        if self.follow._asks_again <= 1:  # so long after a cut all that was told before is recorded
            self.world.write_down(1000)
        job = self.world.job
        page, dropped, more = self.world.answer(self.follow.seen, limit)
        complete = self.world.complete and not more
        last = max(self.world.lasts, default=Position())
        self.take(self.follow.read(job, page, now=self.now, dropped=dropped, more=more, last=last, complete=complete))

    def finish(self) -> None:
        self.world.write_down(1000)
        for _ in range(200):
            if self.follow.over:
                return
            if self.follow.pause is None:
                self.follow.lost()  # as when the ledger is looked at, now and then
            self.ask(1000)
            self.now += 1
        raise AssertionError("the feed has no end")


@settings(max_examples=400)
@given(worlds(), st.data())
def test_each_kept_entry_is_given_once_and_in_order_and_the_result_last(world: World, data: DataObject) -> None:
    reader = Reader(world)
    cut = False
    while world.published < len(world.script):
        match data.draw(
            st.sampled_from(
                ["push", "push", "lose", "repeat", "late", "later", "record", "overtake", "ask", "resume", "cut"]
            )
        ):
            case "push":
                push = world.publish()
                if cut:
                    cut = False
                    reader.follow.lost()
                if isinstance(push, JobEvent):  # in the reader's queue the end of an attempt is behind its entries
                    for late in world.pushes:
                        reader.push(late)
                    world.pushes.clear()
                world.pushes = [each for each in world.pushes if each is not push]
                reader.push(push)
            case "lose" if not _is_last_of_its_attempt(world) or cut or _may_lose(world):
                world.publish()
            case "overtake" if world.says and world.recorded < world.published:
                world.write_ahead(data.draw(st.integers(world.recorded, world.published - 1)))
            case "repeat" if world.published:
                reader.push(world.script[data.draw(st.integers(0, world.published - 1))])
            case "later" if world.pushes:
                reader.push(world.pushes.pop(data.draw(st.integers(0, len(world.pushes) - 1))))
            case "late" if isinstance(world.script[world.published], Told) and not cut:
                world.pushes.append(world.publish())
            case "record":
                world.write_down(data.draw(st.integers(1, 4)))
            case "ask":
                reader.ask(data.draw(st.sampled_from([1, 3, 1000])))
            case "resume":
                reader.resume(data.draw(st.integers(0, 3)))
                world.pushes.clear()
                cut = True
            case "cut":
                cut = True
                world.pushes.clear()
        if reader.follow.over and data.draw(st.booleans()):
            break
    if cut:
        reader.follow.lost()
    reader.finish()
    noted(f"{min(len(reader.got), 20)} events")
    _check(world, reader.got)


def _is_last_of_its_attempt(world: World) -> bool:
    """What is lost without a word is missed by what comes after it."""
    return not (
        isinstance(world.script[world.published], Told)
        and world.published + 1 < len(world.script)
        and isinstance(world.script[world.published + 1], Told)
    )


def _may_lose(world: World) -> bool:
    return world.says and isinstance(world.script[world.published], Told)


def _check(world: World, got: Sequence[FeedEvent]) -> None:
    entries = [Cursor.parse(each.id).seen for each in got if each.kind is FeedKind.OUTPUT]
    assert entries == sorted(set(entries)), "once, and in order"
    assert set(entries) >= set(world.kept), "all that is kept"
    missing = [place for place in world.dropped if place not in entries]
    said = [each for each in got if each.kind is FeedKind.DROPPED]
    assert said or not missing, "that something is not kept is said"
    places = [Cursor.parse(each.id).place for each in got if each.kind in (FeedKind.STATE, FeedKind.RESULT)]
    assert places == sorted(set(places)), "states rise"
    assert [each.kind for each in got].count(FeedKind.RESULT) == 1
    assert got[-1].kind is FeedKind.RESULT
    assert place_of(world.job) == END
    cursors = [Cursor.parse(each.id) for each in got]
    assert cursors == sorted(cursors), "ids go on"
