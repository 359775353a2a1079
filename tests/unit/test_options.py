from typing import Any

import pytest

from dure.errors import InvalidSubmission
from dure.job import Unique, Until
from dure.options import OPTION_NAMES, SubmitOptions, read_options

NOW = 1_800_000_000.0


def places(given: dict[str, Any]) -> list[tuple[str | int, ...]]:
    with pytest.raises(InvalidSubmission) as caught:
        read_options(given, NOW)
    assert all(error.message for error in caught.value.errors)
    return [error.loc for error in caught.value.errors]


def test_nothing_given_is_every_default() -> None:
    options = read_options({}, NOW)
    assert (options.queue, options.priority, options.eta, options.expires, options.tags) == (None, None, None, None, ())


def test_every_option_is_read() -> None:
    given = {"queue": "q", "priority": 9, "delay": 5, "expires": 60, "retries": 2, "time_limit": 1.5, "tags": ["a"]}
    options = read_options(given, NOW)
    assert (options.queue, options.priority, options.retries, options.time_limit) == ("q", 9, 2, 1.5)
    assert (options.eta, options.expires, options.tags) == (NOW + 5, NOW + 60, ("a",))


def test_moments_are_turned_to_seconds_whatever_their_offset() -> None:
    options = read_options({"eta": "2027-01-15T17:00:00+09:00", "expires": "2027-01-15T08:00:01Z"}, NOW)
    assert (options.eta, options.expires) == (NOW, NOW + 1)


def test_a_tag_given_twice_is_one() -> None:
    assert read_options({"tags": ["b", "a", "b"]}, NOW).tags == ("b", "a")


@pytest.mark.parametrize("text", ["5", "0.5"])
def test_numbers_may_come_as_text_for_a_query_has_nothing_else(text: str) -> None:
    assert read_options({"delay": text}, NOW).eta == NOW + float(text)
    assert read_options({"expires": text}, NOW).expires == NOW + float(text)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"queue": ""}, ("queue",)),
        ({"queue": "x" * 256}, ("queue",)),
        ({"queue": "a\x00b"}, ("queue",)),
        ({"queue": "a\n"}, ("queue",)),
        ({"queue": 5}, ("queue",)),
        ({"queue": "\ud800"}, ("queue",)),
        ({"queue": "é"}, ("queue",)),
        ({"queue": "a*"}, ("queue",)),
        ({"priority": 10}, ("priority",)),
        ({"priority": -1}, ("priority",)),
        ({"priority": 1.5}, ("priority",)),
        ({"delay": -1}, ("delay",)),
        ({"delay": "inf"}, ("delay",)),
        ({"delay": float("nan")}, ("delay",)),
        ({"delay": 1e300}, ("delay",)),
        ({"eta": "2027-01-15T08:00:00"}, ("eta",)),
        ({"eta": "tomorrow"}, ("eta",)),
        ({"eta": 1e300}, ("eta",)),
        ({"expires": -1}, ("expires",)),
        ({"expires": "2027-01-15T08:00:00"}, ("expires",)),
        ({"retries": 1001}, ("retries",)),
        ({"retries": -1}, ("retries",)),
        ({"retries": 10**30}, ("retries",)),
        ({"time_limit": 0}, ("time_limit",)),
        ({"tags": "word"}, ("tags",)),
        ({"tags": ["x"] * 33}, ("tags",)),
        ({"tags": ["ok", ""]}, ("tags", 1)),
        ({"tags": ["ok", "a\x00"]}, ("tags", 1)),
        ({"tags": ["x" * 129]}, ("tags", 0)),
        ({"tags": [5]}, ("tags", 0)),
        ({"typo": 1}, ("typo",)),
    ],
)
def test_each_wrong_option_is_named(given: dict[str, Any], where: tuple[str | int, ...]) -> None:
    assert where in places(given)


def test_all_wrong_options_are_named_at_once() -> None:
    assert {place[0] for place in places({"queue": "", "priority": 10, "retries": -1})} == {
        "queue",
        "priority",
        "retries",
    }


def test_delay_and_eta_exclude_each_other() -> None:
    assert places({"delay": 1, "eta": "2027-01-15T08:00:00Z"}) == [("options",)]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_moments_at_the_ends_of_the_calendar_are_read_or_refused_by_name(moment: str) -> None:
    for name in ("eta", "expires"):
        try:
            read_options({name: moment}, NOW)
        except InvalidSubmission as exc:
            assert [error.loc for error in exc.errors] == [(name,)]  # noqa: PT017


@pytest.mark.parametrize("name", ["eta", "expires"])
@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999999Z"]
)
def test_a_moment_that_no_message_can_tell_is_refused(name: str, moment: str) -> None:
    assert places({name: moment}) == [(name,)]


@pytest.mark.parametrize("name", sorted(OPTION_NAMES))
def test_every_option_says_what_it_is_for(name: str) -> None:
    assert SubmitOptions.model_fields[name].description


@pytest.mark.parametrize(
    ("given", "unique"),
    [
        ({"unique_key": "k"}, Unique(key="k", until=Until.FINISHED)),
        ({"unique_key": "k", "unique_until": "started"}, Unique(key="k", until=Until.STARTED)),
        ({"unique_key": "k", "unique_for": 60}, Unique(key="k", until=Until.TIME, expires_at=NOW + 60)),
    ],
)
def test_a_unique_key_is_held_until_an_end_a_beginning_or_for_a_time(given: dict[str, Any], unique: Unique) -> None:
    assert read_options(given, NOW).unique == unique


@pytest.mark.parametrize(
    "given",
    [
        {"unique_key": ""},
        {"unique_key": "a\x00"},
        {"unique_key": "k", "unique_for": 0},
        {"unique_key": "k", "unique_until": "never"},
        {"unique_key": "k", "unique_until": "started", "unique_for": 60},
        {"unique_until": "started"},
        {"unique_for": 60},
    ],
)
def test_a_scope_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    assert places(given)
