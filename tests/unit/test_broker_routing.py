from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.broker.routing import topic_matches


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
