"""What tasks tell when workers die, connections break, or nobody set anything up; and what they keep to themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.entry import EntryKind
from dure.job import State
from tests.integration.live_tasks import MODULE, Audience
from tests.integration.worker_harness import worker
from tests.services import RabbitMQ

OURS = ("-c", "2", "-I", MODULE)


@pytest.fixture
def audience(rabbitmq_url: str) -> Iterator[Audience]:
    audience = Audience(rabbitmq_url)
    yield audience
    audience.close()


def heard(audience: Audience, job: str, times: int) -> bool:
    return sum(len(told.entries) for told in audience.told(job)) >= times


def runs(audience: Audience, job: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for told in audience.told(job):
        found.setdefault(told.run, []).extend(entry.body for entry in told.entries)
    return found


def test_a_pool_process_that_is_killed_has_told_what_it_said(audience: Audience, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    with worker(audience, tmp_path, "-P", "prefork", *OURS):
        job = audience.submit("speak_and_die", str(marker))
        audience.until(lambda: heard(audience, job, 1))
        marker.with_suffix(".heard").touch()
        assert audience.end(job).attempt == 2
        assert audience.output(job) == ["first", "first", "second"]
    assert list(runs(audience, job).values()) == [["first"], ["first", "second"]]
    assert list(runs(audience, job)) == sorted(runs(audience, job))


def test_a_worker_that_is_killed_is_followed_by_another_run(audience: Audience, tmp_path: Path) -> None:
    start = tmp_path / "start"
    with worker(audience, tmp_path, *OURS) as first:
        job = audience.submit("talk_twice", str(start), 2)
        audience.until(lambda: heard(audience, job, 2))
        first.kill()
    start.touch()
    with worker(audience, tmp_path, *OURS):
        output = audience.output(job)
    assert output == [{"n": 0}, {"n": 1}] * 3
    assert [len(entries) for entries in runs(audience, job).values()] == [2, 4]


def test_a_lost_connection_makes_no_gap(audience: Audience, rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    start = tmp_path / "start"
    with worker(audience, tmp_path, *OURS):
        job = audience.submit("talk_twice", str(start), 100)
        audience.until(lambda: heard(audience, job, 100))
        rabbitmq.ctl("close_all_connections", "--vhost", audience.url.rpartition("/")[2], "test")
        start.touch()
        audience.reconnect()
        assert audience.end(job).state is State.SUCCESS
        assert audience.output(job) == [{"n": n} for n in range(100)] * 2
    assert len(runs(audience, job)) == 1


def test_the_console_shows_what_it_did(audience: Audience, tmp_path: Path) -> None:
    with worker(audience, tmp_path, *OURS, "-l", "WARNING") as running:
        job = audience.submit("log_lines", "hunter2")
        assert "order 7" in [entry.body["message"] for entry in audience.entries(job)]
        shown = running.log.read_text()
    assert "it failed" in shown
    assert "order 7" not in shown
    assert "mail sent" not in shown
    assert "succeeded" not in shown


@pytest.mark.parametrize(
    ("level", "lines"),
    [("off", []), ("error", ["it failed"]), ("debug", ["too quiet", "order 7", "mail sent"])],
)
def test_the_level_and_number_of_lines_are_settings(
    audience: Audience, tmp_path: Path, level: str, lines: list[str]
) -> None:
    with worker(audience, tmp_path, *OURS, DURE_CAPTURE_LEVEL=level, DURE_CAPTURE_LINES="3"):
        job = audience.submit("log_lines", "hunter2")
        entries = audience.entries(job, EntryKind.LOG)
    assert [entry.body["message"] for entry in entries[:3]] == lines


def test_a_stock_worker_that_was_told_nothing_has_output_and_progress(audience: Audience, tmp_path: Path) -> None:
    with worker(audience, tmp_path, "-P", "prefork", *OURS, "-E", stock=True):
        job, other = audience.submit("talk", 3), audience.submit("count", 100)
        assert audience.output(job) == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert audience.entries(other)[-1].body["current"] == 100
