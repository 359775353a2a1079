"""A feed is what a model of it says, however its batches come: again, overlapping, out of order, cut off in between."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dure.entry import Entry, EntryKind, Position, Told
from dure.ledger import Ledger, Limits, Request
from tests.conformance.flow_shapes import flow, node
from tests.conformance.ledgers import NOW, Database, before_trips, job

Answer = TypeVar("Answer")

LIMITS = Limits(entries=20, size=4000)
RUN = 1_800_000_000_000_000
LONG = "x" * 150  # of them the bytes are too many before the entries are
CUTS = st.sampled_from([None] * 6 + [0, 1, 2, 3, 4, 5, 6, 7, 8])


class CutOff(Exception):
    """The recorder's process ends here."""


class FeedMachine(RuleBasedStateMachine):
    """Two jobs, one of which is a node. `told` is by job all that was ever recorded, `gone` up to where it is not
    kept."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.runner = asyncio.Runner()
        self.ledger = Ledger(self.url, kept=LIMITS)
        self.told: dict[str, dict[Position, Entry]] = {}
        self.gone: dict[str, Position] = {}
        self.aged = False

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(call)

    def rows(self, query: str) -> list[Any]:
        raise NotImplementedError

    def teardown(self) -> None:
        self.run(self.ledger.close())
        self.runner.close()

    @initialize()
    def submit(self) -> None:
        made = flow(node("a"))
        single = job()
        self.workflow_id, self.node = made.workflow.id, made.nodes[0].job.id
        self.run(self.ledger.accept([(single, NOW)]))
        self.run(self.ledger.accept_once([Request(flow=made)], NOW))
        self.told = {single.id: {}, self.node: {}}
        self.gone = dict.fromkeys(self.told, Position())

    @rule(
        batch=st.lists(
            st.tuples(
                st.integers(0, 1), st.integers(0, 2), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["", LONG])
            ),
            min_size=1,
            max_size=4,
        ),
        cut=CUTS,
        repeated=st.booleans(),
    )
    def record(self, batch: list[tuple[int, int, int, int, str]], cut: int | None, repeated: bool) -> None:
        ids = sorted(self.told)
        told = [
            Told(job_id=ids[which], run=RUN + run, entries=tuple(entry(n, text) for n in range(first, first + size)))
            for which, run, first, size, text in batch
        ]
        with self.cut_off(cut), contextlib.suppress(CutOff):
            self.run(self.ledger.record([], told=told, now=self.now))
        if cut is not None or repeated:
            self.run(self.ledger.record([], told=told, now=self.now))
        for each in told:
            for one in each.entries:
                self.told[each.job_id].setdefault(Position(each.run, one.n), one)

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(ago=st.integers(1, 6), limit=st.sampled_from([1, 3, 99]), cut=CUTS)
    def what_is_old_goes(self, ago: int, limit: int, cut: int | None) -> None:
        before = self.now - ago
        with self.cut_off(cut), contextlib.suppress(CutOff):
            self.run(self.ledger.drop_old_feed(before, limit=limit))
        if limit == 99:
            self.run(self.ledger.drop_old_feed(before, limit=limit))
            assert self.rows(f"SELECT seq FROM feed WHERE at < {before} AND kind = 'entries'") == []
        self.aged = True

    @contextlib.contextmanager
    def cut_off(self, after: int | None) -> Iterator[None]:
        if after is None:
            yield
            return
        left = iter(range(after))

        def end() -> None:
            if next(left, None) is None:
                raise CutOff

        with before_trips(end, self.ledger):
            yield

    @rule(which=st.integers(0, 1), run=st.integers(0, 3), n=st.integers(0, 50), limit=st.integers(1, 9))
    def somebody_reads_on(self, which: int, run: int, n: int, limit: int) -> None:
        job_id = sorted(self.told)[which]
        after = Position(RUN + run, n)
        found = self.run(self.ledger.entries(job_id, after, limit=limit))
        kept = {place: each for place, each in self.kept(job_id).items() if place > after}
        assert flat(found.told) == dict(sorted(kept.items())[:limit])
        assert found.more is (len(kept) > limit)
        assert found.dropped == sum(after < place <= self.gone[job_id] for place in self.told[job_id])

    def kept(self, job_id: str) -> dict[Position, Entry]:
        return {place: each for place, each in sorted(self.told[job_id].items()) if place > self.gone[job_id]}

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        self.the_newest_entries_are_kept_each_once()
        if self.told:
            self.the_log_of_the_workflow_has_what_is_kept_and_says_what_is_gone()

    def the_newest_entries_are_kept_each_once(self) -> None:
        for job_id, told in self.told.items():
            found = self.run(self.ledger.entries(job_id))
            its = flat(found.told)
            first = min(its, default=max(told, default=Position(2**60)))
            before = {place for place in told if place < first or not its}
            assert max(before, default=Position()) >= self.gone[job_id] or not before
            self.gone[job_id] = max(before, default=Position())
            assert its == self.kept(job_id)
            assert list(its) == sorted(its)
            assert found.dropped == len(told) - len(its)
            assert sum(len(each.entries) for each in found.told) == len(its)
            assert len(its) <= LIMITS.entries
            size = sum(len(msgspec.json.encode(each)) for each in its.values())
            assert size <= LIMITS.size
            if before and not self.aged:
                assert len(its) >= LIMITS.entries * 0.75 or size >= LIMITS.size * 0.6

    def the_log_of_the_workflow_has_what_is_kept_and_says_what_is_gone(self) -> None:
        log = self.run(self.ledger.workflow_feed(self.workflow_id, limit=9999))
        rows = [row for row in log if row.job_id == self.node]
        numbers = sorted(n for row in rows if row.kind == "entries" for n, *_ in row.body)
        assert numbers == sorted(place.n for place in self.kept(self.node))
        said = [row.body["entries"] for row in rows if row.kind == "dropped"]
        dropped = len(self.told[self.node]) - len(self.kept(self.node))
        assert len(said) <= 1
        assert self.aged or bool(said) == bool(dropped)
        assert all(number <= dropped for number in said)


def entry(n: int, text: str) -> Entry:
    return Entry(n=n, at=NOW, kind=EntryKind.OUTPUT, body=text)


def flat(told: tuple[Told, ...]) -> dict[Position, Entry]:
    return {Position(each.run, one.n): one for each in told for one in each.entries}


def examples(machine: Callable[[], FeedMachine], count: int, steps: int) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=count, stateful_step_count=steps, deadline=None))


def test_a_feed_in_a_file_is_what_the_model_says(migrated_file: Path, tmp_path: Path) -> None:
    class OnAFile(FeedMachine):
        def __init__(self) -> None:
            path = tmp_path / "ledger.db"
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
            shutil.copy(migrated_file, path)
            self.url = f"sqlite:///{path}"
            super().__init__()

        def rows(self, query: str) -> list[Any]:
            return Database("sqlite", self.url, None).rows(query)

    examples(OnAFile, 10, 15)


def test_a_feed_on_a_server_is_what_the_model_says(postgres_url: str, migrated_database: str) -> None:
    url = postgres_url.rpartition("/")[0] + "/" + migrated_database

    class OnAServer(FeedMachine):
        def __init__(self) -> None:
            self.url = url
            with psycopg.connect(url, autocommit=True) as session:
                session.execute("TRUNCATE jobs, queues, workflows, edges, feed, feed_marks RESTART IDENTITY CASCADE")
            super().__init__()

        def rows(self, query: str) -> list[Any]:
            return Database("postgres", self.url, None).rows(query)

    examples(OnAServer, 4, 15)
