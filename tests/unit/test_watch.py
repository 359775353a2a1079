from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dure.watch import in_messages, job_key, root_key, task_key, watch_keys

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)


def test_a_job_can_be_watched_by_its_id_its_task_and_its_workflow() -> None:
    assert watch_keys("a", "shop.add", "w") == ["dure-job-a", "dure.task.shop.add", "dure-root-w"]
    assert watch_keys("a", "shop.add", "a") == ["dure-job-a", "dure.task.shop.add"]
    assert watch_keys("a") == ["dure-job-a"]


@given(names, names)
@example("é" * 254, "é" * 255)
@example("j" * 246, "j" * 247)
def test_a_key_can_be_bound_and_is_of_one_name_only(one: str, other: str) -> None:
    for key in (job_key, task_key, root_key):
        assert len(key(one).encode()) <= 255
        assert (key(one) == key(other)) == (one == other)


@given(st.lists(st.tuples(st.binary(max_size=3), st.lists(st.sampled_from("abcdefgh"), max_size=4)), max_size=60))
def test_each_part_is_in_one_message_with_all_its_keys_in_order(parts: list[tuple[bytes, list[str]]]) -> None:
    long = {key: key * 12_000 for key in "abcdefgh"}
    messages = list(in_messages((body, [long[key] for key in keys]) for body, keys in parts))
    assert [body for bodies, _ in messages for body in bodies] == [body for body, _ in parts]
    rest = iter(parts)
    for bodies, keys in messages:
        assert len(keys) == len(set(keys))
        assert sum(map(len, keys)) <= 48_000
        assert {key for _, (_, its) in zip(bodies, rest, strict=False) for key in its} == {key[0] for key in keys}


def test_many_short_keys_are_shared_out_too() -> None:
    messages = list(in_messages((b"", [f"{n}"]) for n in range(2500)))
    assert [len(keys) for _, keys in messages] == [1000, 1000, 500]
