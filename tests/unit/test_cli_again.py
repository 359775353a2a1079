"""`dure cancel`, `dure retry` and `dure dead`, and the keys of `dure submit`, without a running stack."""

import asyncio
import json
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from dure.cli import again
from dure.cli.codes import Code
from dure.cli.commands import app
from dure.event import JobEvent
from dure.job import JobError, Reason, State
from dure.ledger import Ledger
from dure.settings import load
from tests.unit.cli_session import folder  # noqa: F401 - a fixture

run = CliRunner()


def dure(*words: str, code: Code = Code.DONE, typed: str | None = None) -> str:
    result = run.invoke(app, list(words), input=typed)
    assert result.exit_code == code, result.output
    return result.stdout if code is Code.DONE else result.stderr


def told(*words: str) -> Any:
    return json.loads(dure(*words, "--json"))


def submit(*words: str) -> str:
    return dure("submit", *words, "--force", "--delay", "1h").strip()


def fail(reason: Reason, *jobs: str) -> None:
    """As a worker's event would."""

    async def record() -> None:
        ledger = Ledger(load().ledger)
        await ledger.open()
        error = JobError(type="shop.errors.Broken", message="it broke\nin two lines")
        at = time.time()
        events = [JobEvent(job_id=j, state=State.FAILURE, at=at, attempt=1, reason=reason, error=error) for j in jobs]
        await ledger.record(events)
        await ledger.close()

    asyncio.run(record())


def test_a_cancelled_job_is_revoked_and_an_unknown_one_keeps_no_other_from_it() -> None:
    first, second = submit("mail.send"), submit("mail.send")
    complaint = dure("cancel", first, "nobody", second, code=Code.UNKNOWN)
    assert "nobody" in complaint
    assert [told("job", job)["state"] for job in (first, second)] == ["REVOKED", "REVOKED"]
    assert "cancel asked" in dure("job", first)
    assert [job["id"] for job in told("cancel", first)["jobs"]] == [first]


def test_a_job_that_has_ended_is_not_cancelled_and_an_open_one_not_sent_again() -> None:
    job = submit("mail.send")
    assert "dure cancel" in dure("retry", job, code=Code.FAILED)
    fail(Reason.ERROR, job)
    assert "has ended FAILURE" in dure("cancel", job, code=Code.FAILED)
    dure("retry", "nobody", code=Code.UNKNOWN)


def test_a_job_is_sent_again_with_what_was_changed() -> None:
    job = submit("mail.send", "1", "-k", "to=x", "--unique-key", "mails")
    fail(Reason.ERROR, job)
    new = dure("retry", job, "--args", "[2, 3]", "--set", "to=y", "-q", "slow", "--delay", "10m").strip()
    record = told("job", new)
    assert (record["args"], record["kwargs"], record["queue"]) == ([2, 3], {"to": "y"}, "slow")
    assert (record["retry_of"], record["state"], record["unique_key"]) == (job, "SCHEDULED", None)
    shown = dure("job", new)
    assert "retry of" in shown
    assert job in shown
    assert "fingerprint" in dure("job", job)
    assert "mails" in dure("job", job)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("some-id", "--task", "x"),
        ("some-id", "--dry-run"),
        ("--task", "x", "--limit", "0"),
        ("--task", "x", "--args", "{}"),
        ("--task", "x", "--set", "=1"),
        ("--task", "x", "--rate", "0"),
        ("--task", "x", "--priority", "10"),
        ("--state", "started"),
        ("--reason", "bad-luck"),
    ],
)
def test_what_makes_no_sense_to_send_again_is_usage(words: tuple[str, ...]) -> None:
    submit("mail.send")
    dure("retry", *words, code=Code.USAGE)


def test_what_fits_a_filter_is_shown_first_and_sent_once() -> None:
    jobs = [submit("mail.send", str(n), "--tag", "news") for n in range(3)]
    fail(Reason.ERROR, *jobs)
    shown = dure("retry", "--tag", "news", "--dry-run")
    assert all(job in shown for job in jobs)
    assert "Broken: it broke\n" in shown
    assert "in two lines" not in shown
    assert told("retry", "--tag", "news", "--dry-run")["matched"] == 3
    assert dure("retry", "--tag", "news", "--limit", "1", "--delay", "1h") == "sent 1 job again, of 3 that match\n"
    sent = dure("retry", "--tag", "news", "--rate", "0.1", "--delay", "1h")
    assert sent.startswith("sent 2 jobs again, 0.1 a second; the last is queued in 1 h")
    assert told("retry", "--tag", "news")["jobs"] == []


@pytest.mark.parametrize(("answer", "sent"), [("y\n", 1), ("n\n", 0)])
def test_on_a_terminal_it_asks_first(monkeypatch: pytest.MonkeyPatch, answer: str, sent: int) -> None:
    fail(Reason.ERROR, submit("mail.send"))
    monkeypatch.setattr(again, "_is_asked", lambda: True)
    result = run.invoke(app, ["retry", "--task", "mail.send", "--delay", "1h"], input=answer)
    assert "Send 1 job again?" in result.stderr
    assert result.exit_code == (Code.DONE if sent else Code.FAILED)
    assert told("retry", "--task", "mail.send", "--dry-run")["matched"] == 1 - sent


def test_what_is_skipped_is_told_and_is_a_failure() -> None:
    job = submit("mail.send", "--priority", "3")
    fail(Reason.ERROR, job)

    async def forget_arguments() -> None:
        from sqlalchemy import text

        ledger = Ledger(load().ledger)
        await ledger.open()
        async with ledger._engines.write.begin() as connection:
            await connection.execute(text("UPDATE jobs SET args = NULL, kwargs = NULL"))
        await ledger.close()

    asyncio.run(forget_arguments())
    complaint = dure("retry", "--task", "mail.send", code=Code.FAILED)
    assert f"skipped {job}: args: " in complaint


def test_dead_letters_are_listed_in_groups_and_a_group_is_sent_again() -> None:
    assert dure("submit", "mail.send", "--force")
    assert dure("dead") == ""
    gone, other = [submit("mail.gone", str(n)) for n in range(2)], submit("mail.send")
    fail(Reason.UNREGISTERED, *gone)
    fail(Reason.ERROR, other)
    (group,) = told("dead")["groups"]
    assert (group["count"], group["task"], group["reason"]) == (2, "mail.gone", "unregistered")
    heads, row = dure("dead").splitlines()
    assert heads.split()[:4] == ["COUNT", "FINGERPRINT", "TASK", "REASON"]
    assert row.split()[:4] == ["2", group["fingerprint"], "mail.gone", "unregistered"]
    assert [job["id"] for job in told("jobs", "--dead")["jobs"]] == gone[::-1]
    assert told("jobs", "--reason", "error")["jobs"][0]["id"] == other
    assert "FAILURE unregistered" in dure("jobs", "--dead")

    assert told("dead", "retry", group["fingerprint"], "--dry-run")["matched"] == 2
    assert dure("dead", "retry", group["fingerprint"], "--delay", "1h") == "sent 2 jobs again\n"
    assert told("dead")["groups"] == []
    assert "`dure dead`" in dure("dead", "retry", "nothing", code=Code.UNKNOWN)


def test_a_submission_with_a_key_is_made_once() -> None:
    first = submit("mail.send", "1", "--idempotency-key", "a")
    result = run.invoke(app, ["submit", "mail.send", "1", "--idempotency-key", "a", "--force", "--delay", "1h"])
    assert (result.stdout.strip(), "no second job was made" in result.stderr) == (first, True)
    dure("submit", "mail.send", "2", "--idempotency-key", "a", "--force", code=Code.USAGE)
    unique = submit("mail.send", "--unique-key", "k", "--unique-until", "started")
    assert submit("mail.send", "--unique-key", "k") == unique
    dure("submit", "mail.send", "--unique-for", "1h", "--force", code=Code.USAGE)
