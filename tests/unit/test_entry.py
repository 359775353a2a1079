"""What tasks tell, there and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dure.entry import (
    Entry,
    EntryKind,
    Position,
    Told,
    entries_message,
    item,
    item_head,
    items_message,
    read_entries,
)
from dure.wire import Changed, read_events, told_again

OUTPUT = Entry(n=3, at=1.5, kind=EntryKind.OUTPUT, body={"é": [1, None]})
LOG = Entry(n=4, at=2.5, kind=EntryKind.LOG, body={"level": "INFO", "logger": "x", "message": "m"})
TOLD = Told(job_id="a", run=7, entries=(OUTPUT, LOG), task="t", root_id="w", worker="h")
PLAIN = Told(job_id="b", run=1, entries=(Entry(n=1, at=1.0, kind=EntryKind.PROGRESS, body={}),))


def test_entries_are_read_as_they_were_told() -> None:
    body = entries_message([TOLD, PLAIN])
    assert read_entries(body) == list(read_events(body)) == [TOLD, PLAIN]
    assert (TOLD.first, TOLD.last) == (Position(7, 3), Position(7, 4))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_put_together_from_parts_is_read_as_the_whole(is_first: bool) -> None:
    told = msgspec.structs.replace(TOLD, is_first=is_first)
    head = item_head("a", 7, task="t", root_id="w", worker="h", is_first=is_first)
    parts = item(head, 3, [(each.at, each.kind, msgspec.json.encode(each.body)) for each in told.entries])
    plain = item(item_head("b", 1), 1, [(1.0, EntryKind.PROGRESS, b"{}")])
    assert read_entries(items_message([parts, plain])) == [told, PLAIN]
    assert json.loads(parts) == json.loads(entries_message([told]))[0]


def test_they_are_events_of_celery_in_any_json() -> None:
    (fields, _) = json.loads(entries_message([TOLD, PLAIN]))
    assert fields == {
        "type": "dure-entries",
        "uuid": "a",
        "run": 7,
        "entries": [
            [3, 1.5, "output", {"é": [1, None]}],
            [4, 2.5, "log", {"level": "INFO", "logger": "x", "message": "m"}],
        ],
        "timestamp": 2.5,
        "task": "t",
        "root_id": "w",
        "hostname": "h",
    }
    assert list(read_events(json.dumps(fields, indent=1).encode())) == [TOLD]


def test_a_body_that_is_json_already_is_not_encoded_again() -> None:
    raw = msgspec.structs.replace(OUTPUT, body=msgspec.Raw(b'{"\xc3\xa9":[1,null]}'))
    told = msgspec.structs.replace(TOLD, entries=(raw, LOG))
    assert read_entries(entries_message([told])) == [TOLD]


@pytest.mark.parametrize(
    "wrong",
    [
        {"entries": []},
        {"entries": [[0, 1.0, "log", {}]]},
        {"entries": [[2**63, 1.0, "log", {}]]},
        {"entries": [[1, 1.0, "log", {}], [3, 1.0, "log", {}]]},
        {"entries": [[1, 1.0, "shout", {}]]},
        {"entries": [[1, 1.0, "log"]]},
        {"run": 0},
        {"run": 2**63},
        {"run": "1"},
        {"uuid": ""},
        {"uuid": "x" * 256},
        {"uuid": None},
        {"timestamp": "now"},
    ],
)
def test_what_cannot_be_read_is_passed_over(wrong: dict[str, Any]) -> None:
    (fields,) = json.loads(entries_message([TOLD]))
    damaged = {"type": "dure-entries"} | fields | wrong
    for body in (msgspec.json.encode([damaged]), json.dumps([damaged]).encode()):
        assert list(read_events(body)) == []
    several = [damaged, *json.loads(entries_message([PLAIN]))]
    assert list(read_events(json.dumps(several).encode())) == [PLAIN]
    assert list(read_events(msgspec.json.encode(several))) == [PLAIN]


def test_another_kind_of_message_holds_no_entries() -> None:
    for body in (b"", b"[]", b"{}", b"null", b'[{"type":"dure-entries"', b'{"type":"task-sent"}'):
        assert read_entries(body) == []


def test_events_told_again_are_read_as_events() -> None:
    one = {"type": "task-started", "uuid": "a", "timestamp": 1.0, "hostname": "h"}
    bodies = [json.dumps(one).encode(), json.dumps([one, one], indent=2).encode() + b"\n"]
    again = told_again(bodies)
    assert list(read_events(again)) == list(read_events(json.dumps([one] * 3).encode())) != []
    assert list(read_events(b'{"type":"dure-told","events":7}')) == []


def test_a_change_of_the_ledger_is_read() -> None:
    changed = Changed(uuid="a", root_id="w", task="t", workflow={"id": "w", "state": "SUCCESS"})
    assert list(read_events(msgspec.json.encode([changed]))) == [changed]
    assert list(read_events(b'{"type":"dure-changed","uuid":1}')) == []
