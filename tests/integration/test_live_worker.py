"""What tasks tell while they run, read back from the broker: ours and stock, in their pools."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.entry import EntryKind, Told
from dure.event import JobEvent
from dure.job import State
from tests.integration.live_tasks import MODULE, Audience
from tests.integration.worker_harness import app_name, worker
from tests.services import RabbitMQ

STOCK = f"{MODULE},dure.worker.live.stock"


@pytest.fixture(
    scope="module",
    params=[
        "embedded asyncio",
        "rabbitmq asyncio",
        "rabbitmq threads",
        "rabbitmq prefork",
        "stock prefork",
        "stock threads",
    ],
)
def audience(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audience]:
    kind, pool = request.param.split()
    folder = tmp_path_factory.mktemp("worker")
    if kind == "embedded":
        url = f"dure://{folder}/broker.db"
    else:
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        url = rabbitmq.start().vhost()
    audience = Audience(url)
    stock = kind == "stock"
    include = STOCK if stock else MODULE
    argv = ["-P", pool, "-c", "2", "-I", include, "-l", "WARNING", *(["-E"] if stock else [])]
    with worker(audience, folder, *argv, stock=stock):
        yield audience
    audience.close()


def test_output_comes_in_order_and_before_the_end(audience: Audience) -> None:
    job = audience.submit("talk", 500)
    assert audience.output(job) == [{"n": n} for n in range(500)]
    assert audience.end(job).state is State.SUCCESS


def test_entries_say_whose_they_are(audience: Audience) -> None:
    job = audience.submit("talk", 1, root_id="root")
    audience.end(job)
    (told,) = audience.told(job)
    started = next(e for e in audience.events(job) if e.state is State.STARTED)
    assert (told.task, told.root_id, told.worker) == (f"{app_name()}.talk", "root", started.worker)
    assert abs(told.run / 1e6 - time.time()) < 600
    assert told.run / 1e6 <= told.entries[0].at


def test_who_watches_one_job_is_given_its_entries_alone(audience: Audience, tmp_path: Path) -> None:
    start = tmp_path / "start"
    job = audience.submit("talk_later", str(start), 2)
    audience.watch(job)
    other = audience.submit("talk", 3)
    audience.end(other)
    start.touch()
    assert audience.output(job) == [{"n": 0}, {"n": 1}]
    assert {told.job_id for told in audience.watched() if isinstance(told, Told)} == {job}


def test_many_threads_of_a_task_share_its_numbers(audience: Audience) -> None:
    output = audience.output(audience.submit("crowd", 8, 50))
    assert len(output) == 400
    for name in range(8):
        assert [n for who, n in output if who == name] == list(range(50))


def test_coroutines_tell_of_their_task(audience: Audience) -> None:
    output = audience.output(audience.submit("talk_async", 20))
    assert [n for who, n in output if who == "a"] == list(range(20))
    assert [n for who, n in output if who == "b"] == list(range(20))
    assert ["c", 0] in output


def test_progress_is_thinned_out_and_its_last_always_comes(audience: Audience) -> None:
    entries = audience.entries(audience.submit("count", 1000), EntryKind.PROGRESS)
    assert entries[0].body["current"] == 1
    assert entries[-1].body == {"current": 1000, "total": 1000, "message": "step 1000", "unit": "page"}
    assert len(entries) <= 2 + (entries[-1].at - entries[0].at) * 10


def test_a_state_of_plain_celery_is_progress(audience: Audience) -> None:
    (entry,) = audience.entries(audience.submit("tell_state"))
    assert entry.kind is EntryKind.PROGRESS
    assert entry.body == {"current": 3, "total": 10, "message": "transcribing", "file": "a.wav"}


def test_log_lines_are_kept_from_their_level_on_without_secrets(audience: Audience) -> None:
    entries = audience.entries(audience.submit("log_lines", "hunter2"))
    assert [entry.body for entry in entries] == [
        {"level": "INFO", "logger": "shop.orders", "message": "order 7"},
        {"level": "INFO", "logger": "shop.mail", "message": "mail sent"},
        {"level": "WARNING", "logger": "shop.orders", "message": "cannot reach amqp://shop:***@broker/"},
        {"level": "ERROR", "logger": "shop.orders", "message": "it failed"},
    ]


def test_log_lines_have_a_limit_and_say_so(audience: Audience) -> None:
    entries = audience.entries(audience.submit("log_much", 1005))
    assert [entry.body["message"] for entry in entries[:1000]] == [f"line {n}" for n in range(1000)]
    assert len(entries) == 1001
    assert "DURE_CAPTURE_LINES" in entries[1000].body["message"]


def test_each_attempt_has_a_run_of_its_own(audience: Audience) -> None:
    job = audience.submit("speak_and_retry")
    assert audience.output(job) == ["attempt 0", "attempt 1"]
    runs = [told.run for told in audience.told(job)]
    assert runs == sorted(set(runs))
    # The next attempt may end before the first one's RETRY is told, but what the first one told is before both.
    audience.until(lambda: any(event.state is State.RETRY for event in audience.events(job)), "RETRY")
    of_job = [event for event in audience.seen if getattr(event, "job_id", None) == job]
    retry = next(i for i, e in enumerate(of_job) if isinstance(e, JobEvent) and e.state is State.RETRY)
    assert of_job.index(audience.told(job)[0]) < retry


def test_what_a_failing_task_told_comes_before_its_end(audience: Audience) -> None:
    job = audience.submit("speak_and_fail")
    assert audience.output(job) == ["last words"]
    assert audience.end(job).state is State.FAILURE


@pytest.mark.parametrize(
    ("task", "state"), [("talk", State.SUCCESS), ("speak_and_fail", State.FAILURE), ("speak_and_retry", State.RETRY)]
)
def test_the_end_of_an_attempt_says_which_entry_was_its_last(audience: Audience, task: str, state: State) -> None:
    job = audience.submit(task, *([50] if task == "talk" else []))
    audience.end(job)
    audience.until(lambda: any(event.state is state for event in audience.events(job)), state)
    (end,) = (event for event in audience.events(job) if event.state is state)
    its = [told for told in audience.told(job) if told.run == audience.told(job)[0].run]
    is_ours = bool(end.attempt)
    assert end.told == (its[-1].last if is_ours else None)


def test_a_task_that_is_run_in_place_tells_nothing(audience: Audience) -> None:
    assert audience.output(audience.submit("call_in_place")) == ["outer", {"n": 0}, "outer again"]


@pytest.mark.parametrize(
    ("what", "error", "remedy"), [("large", "ValueError", "a reference"), ("object", "TypeError", "plain values")]
)
def test_what_cannot_be_told_fails_in_the_task(audience: Audience, what: str, error: str, remedy: str) -> None:
    end = audience.end(audience.submit("emit_too_much", what))
    assert end.error is not None
    assert end.error.type == error
    assert remedy in end.error.message


def test_a_bare_thread_is_told_what_to_do(audience: Audience) -> None:
    end = audience.end(audience.submit("speak_in_a_bare_thread"))
    assert "copy_context" in (end.result or end.result_repr)


def test_a_forked_process_is_told_whose_the_output_is(audience: Audience) -> None:
    job = audience.submit("speak_in_a_fork")
    assert audience.output(job) == ["parent", "parent again"]
    end = audience.end(job)
    assert "another process" in (end.result or end.result_repr)
