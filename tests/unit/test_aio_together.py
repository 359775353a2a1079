"""Results of several threads in one write: each is stored or told why not, and nobody writes for ever."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep

import pytest

from dure.worker.aio.together import Together

DEADLINE = 20.0


class Store:
    """Each write waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun: list[Event] = [Event() for _ in range(10)]
        self.may_end: list[Event] = [Event() for _ in range(10)]
        self.refused: dict[int, Exception] = {}

    def __call__(self, items: Sequence[int]) -> None:
        n = len(self.batches)
        self.batches.append(list(items))
        self.begun[n].set()
        assert self.may_end[n].wait(DEADLINE)
        if n in self.refused:
            raise self.refused[n]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def put(threads: ThreadPoolExecutor, store: Store) -> Callable[[int], Future[None]]:
    """Returns once the item is in its place."""
    together: Together[int] = Together()

    def start(item: int) -> Future[None]:
        waiting = len(together._waiting)
        future = threads.submit(together.put, item, store)
        deadline = monotonic() + DEADLINE
        while len(together._waiting) == waiting and not any(item in batch for batch in store.batches):
            assert monotonic() < deadline
            sleep(0.001)
        return future

    return start


def test_one_alone_is_stored_at_once(put: Callable[[int], Future[None]], store: Store) -> None:
    store.may_end[0].set()
    put(1).result(DEADLINE)
    assert store.batches == [[1]]


def test_those_that_come_during_a_write_go_together(put: Callable[[int], Future[None]], store: Store) -> None:
    first = put(1)
    assert store.begun[0].wait(DEADLINE)
    others = [put(n) for n in (2, 3, 4)]
    store.may_end[0].set()
    first.result(DEADLINE)  # and does not write for the others
    assert store.begun[1].wait(DEADLINE)
    assert store.batches == [[1], [2, 3, 4]]
    assert not any(other.done() for other in others)
    store.may_end[1].set()
    for other in others:
        other.result(DEADLINE)


def test_an_error_is_that_of_the_whole_batch_and_of_no_other(put: Callable[[int], Future[None]], store: Store) -> None:
    store.refused = {1: OSError("full")}
    first = put(1)
    assert store.begun[0].wait(DEADLINE)
    second = [put(2), put(3)]
    store.may_end[0].set()
    assert store.begun[1].wait(DEADLINE)
    third = put(4)
    store.may_end[1].set()
    store.may_end[2].set()
    first.result(DEADLINE)
    assert [str(future.exception(DEADLINE)) for future in second] == ["full", "full"]
    third.result(DEADLINE)
    last = put(5)
    store.may_end[3].set()
    last.result(DEADLINE)
    assert store.batches == [[1], [2, 3], [4], [5]]
