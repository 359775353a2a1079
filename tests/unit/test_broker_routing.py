from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.broker.dead import Address, Reason, letter
from dure.broker.message import Message
from dure.broker.queues import bind, declare_exchange, declare_queue
from dure.broker.routing import Topology, topic_matches
from dure.broker.schema import create_tables


@pytest.mark.parametrize(
    ("binding", "key", "matches"),
    [
        ("#", "", True),
        ("#", "task.sent", True),
        ("task.#", "task", True),
        ("task.#", "task.sent.now", True),
        ("task.#", "tasks.sent", False),
        ("#.failed", "failed", True),
        ("#.failed", "task.x.failed", True),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "az", False),
        ("*", "", False),
        ("*", "one", True),
        ("*", "one.two", False),
        ("task.*", "task.sent", True),
        ("task.*", "task", False),
        ("*.*", "a.b", True),
        ("#.*", "a", True),
        ("#.*", "", False),
        ("a+b", "aab", False),
        ("a+b", "a+b", True),
    ],
)
def test_a_topic_binding_matches_whole_words(binding: str, key: str, matches: bool) -> None:
    assert topic_matches(binding, key) is matches


words = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=5)
keys = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5)


@given(words, keys)
def test_matching_agrees_with_a_regular_expression_over_words(binding: list[str], key: list[str]) -> None:
    parts = {"*": r"\w;", "#": r"(?:\w;)*"}
    pattern = "".join(parts.get(word, word + ";") for word in binding)
    expected = re.fullmatch(pattern, "".join(word + ";" for word in key)) is not None
    assert topic_matches(".".join(binding), ".".join(key)) is expected


patterns = st.lists(st.tuples(words, st.integers(0, 3)), max_size=12)


@given(patterns, st.lists(keys, min_size=1, max_size=3), st.sampled_from(["topic", "direct", "fanout"]))
def test_each_queue_that_one_of_a_messages_keys_leads_to_is_reached_once(
    bound: list[tuple[list[str], int]], several: list[list[str]], kind: str
) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(db):
        create_tables(db)
        declare_exchange(db, "x", kind, durable=True, auto_delete=False)
        for name in "abcd":
            declare_queue(db, name, durable=True, owner=None, auto_delete=False, arguments={}, now=0.0)
        for pattern, queue in bound:
            bind(db, queue + 1, "x", [".".join(pattern)])
        first, *further = (".".join(key) for key in several)
        message = Message("x", first, b"", {"headers": {"CC": further}})
        reached = [route.queue for route in Topology(db, 1).reach(message)]
    matches = {"topic": topic_matches, "direct": str.__eq__, "fanout": lambda *_: True}[kind]
    wanted = {queue + 1 for pattern, queue in bound for key in (first, *further) if matches(".".join(pattern), key)}
    assert sorted(reached) == sorted(wanted)


@pytest.mark.parametrize("further", [None, "b", {"b": 1}, [1, None]])
def test_a_header_that_holds_no_keys_changes_nothing(further: object) -> None:
    assert Message("x", "a", b"", {"headers": {"CC": further}}).routing_keys == ("a",)


def test_keys_may_be_hidden_from_whoever_gets_the_message() -> None:
    message = Message("x", "a", b"", {"headers": {"CC": ["b"], "BCC": ["c"], "id": "1"}})
    assert message.routing_keys == ("a", "b", "c")
    assert message.given_properties == {"headers": {"CC": ["b"], "id": "1"}}


def test_a_dead_letter_keeps_its_keys_unless_its_queue_gives_it_another() -> None:
    message = Message("x", "a", b"", {"headers": {"CC": ["b"]}})
    kept = letter(message, Address("dead", None), "q", Reason.REJECTED, 1.0)
    assert kept.routing_keys == ("a", "b")
    assert kept.properties["headers"]["x-death"][0]["routing-keys"] == ["a", "b"]
    assert letter(message, Address("dead", "c"), "q", Reason.REJECTED, 1.0).routing_keys == ("c",)
