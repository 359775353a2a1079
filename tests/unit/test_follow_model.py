"""Whatever is lost, repeated, late or in disorder on the way: a reader is given each kept entry once and in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import event as noted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from dure.entry import Position, Told
from dure.event import JobEvent, fold
from dure.feed import FeedEvent, FeedKind
from dure.follow import END, Cursor, Follow, place_of
from dure.job import Job, State
from tests.unit.attempts_told import JOB, NOW, happened, run_of, told


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
