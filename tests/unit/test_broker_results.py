from __future__ import annotations

from pathlib import Path

import pytest

from dure.broker.results import Results


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def results(tmp_path: Path, clock: Clock) -> Results:
    return Results(tmp_path / "results.db", now=clock)


def test_values_are_kept_and_replaced(results: Results) -> None:
    assert results.get(b"k") is None
    results.set(b"k", b"1")
    results.set(b"k", b"2")
    assert results.get(b"k") == b"2"
    results.delete(b"k")
    assert results.get(b"k") is None


def test_many_values_come_in_the_order_of_their_keys(results: Results) -> None:
    for n in range(1200):
        results.set(b"%d" % n, b"v%d" % n)
    keys = [b"%d" % n for n in reversed(range(1200))] + [b"missing"]
    assert results.get_many(keys) == [b"v" + key for key in keys[:-1]] + [None]


def test_counters_begin_at_one(results: Results) -> None:
    assert [results.increment(b"c") for _ in range(3)] == [1, 2, 3]


def test_values_expire_and_are_dropped(results: Results, clock: Clock) -> None:
    results.set(b"k", b"1", expires=10)
    results.set(b"forever", b"1", expires=None)
    results.increment(b"c")
    results.expire(b"c", 10)
    clock.now += 11
    assert results.get(b"k") is None
    assert results.get_many([b"k", b"forever"]) == [None, b"1"]
    assert results.increment(b"c") == 1
    assert results.drop_expired() == 1


def test_a_value_that_must_stay_is_not_replaced(results: Results) -> None:
    results.set(b"k", b"done")
    assert not results.set_unless(b"k", b"failed", lambda there: there == b"done")
    assert results.get(b"k") == b"done"
    assert results.set_unless(b"k", b"failed", lambda there: there == b"other")
    assert results.get(b"k") == b"failed"
