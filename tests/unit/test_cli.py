"""The command line without a running stack: help, exit codes, complaints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dure
from dure.cli.codes import Code, code_of
from dure.cli.commands import app
from dure.errors import (
    ConfigurationError,
    IdempotencyConflict,
    InvalidCursor,
    InvalidSubmission,
    JobEnded,
    JobFailed,
    JobNotEnded,
    LedgerUnavailable,
    LinkDown,
    ResultTimeout,
    UnknownJob,
    UnknownNode,
    UnknownTask,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowFailed,
    WorkflowNotEnded,
)
from dure.job import Job
from dure.workflow import Workflow
from tests.unit.cli_session import folder  # noqa: F401 - a fixture

COMMANDS = (
    "up", "serve", "worker", "submit", "watch", "jobs", "job", "cancel", "retry", "dead", "tasks", "queues",
    "run", "workflows", "workflow", "signal", "workers", "check",
)  # fmt: skip
HEAVY = ("celery", "fastapi", "sqlalchemy", "uvicorn", "pydantic")

run = CliRunner()


def test_help_lists_every_command_and_the_exit_codes() -> None:
    text = run.invoke(app, ["--help"]).stdout
    assert all(f" {name} " in text for name in COMMANDS)
    assert all(word in text for word in ("Exit codes", "timeout", "Ctrl-C"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_says_where_its_settings_come_from(name: str) -> None:
    result = run.invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "--broker-url" in result.stdout
    assert "--ledger-url" in result.stdout
    assert "--home" in result.stdout


def test_the_version_is_the_packages() -> None:
    assert run.invoke(app, ["--version"]).stdout == f"dure {dure.__version__}\n"


def test_help_loads_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dure.cli.commands import app;"
        "CliRunner().invoke(app, ['--help']); print(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded).isdisjoint(HEAVY)


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = "import sys, dure; print(*(name for name in sys.modules if name.startswith('dure.')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_every_public_name_can_be_imported_from_the_package() -> None:
    assert [name for name in dure.__all__ if getattr(dure, name).__name__ != name] == []


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dure.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailed(Job(id="1")), 1),
        (JobEnded(Job(id="1")), 1),
        (JobNotEnded(Job(id="1")), 1),
        (WorkflowFailed(Workflow(id="1"), None), 1),
        (WorkflowEnded(Workflow(id="1")), 1),
        (WorkflowNotEnded(Workflow(id="1")), 1),
        (IdempotencyConflict("x"), 2),
        (ConfigurationError([]), 2),
        (InvalidSubmission([]), 2),
        (InvalidCursor("x"), 2),
        (UnknownJob("x"), 3),
        (UnknownTask("x"), 3),
        (UnknownWorkflow("x"), 3),
        (UnknownNode("x", "y"), 3),
        (ResultTimeout("x", 1.0), 4),
        (LedgerUnavailable("x"), 5),
        (LinkDown("amqp://x", "x"), 5),
    ],
)
def test_each_error_has_its_exit_code(error: dure.DureError, code: int) -> None:
    assert code_of(error) == code


def test_all_wrong_settings_are_told_at_once_and_no_password_is_shown() -> None:
    result = run.invoke(app, ["jobs", "--broker-url", "foo://u:secret@h", "--ledger-url", "mysql://u:secret@h/x"])
    assert result.exit_code == Code.USAGE
    assert "broker_url" in result.stderr
    assert "ledger_url" in result.stderr
    assert "secret" not in result.output


def test_a_question_in_the_wrong_folder_makes_no_ledger_there(tmp_path: Path) -> None:
    result = run.invoke(app, ["jobs"])
    assert result.exit_code == Code.UNAVAILABLE
    assert str(tmp_path / ".dure" / "ledger.db") in result.stderr
    assert not (tmp_path / ".dure").exists()


def test_a_broker_that_is_away_is_one_clear_complaint(tmp_path: Path) -> None:
    run.invoke(app, ["submit", "anything", "--force"])
    result = run.invoke(app, ["queues", "--broker-url", "amqp://u:secret@127.0.0.1:1/"])
    assert result.exit_code == Code.UNAVAILABLE
    assert "amqp://u:***@127.0.0.1:1/" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_gateway_open_to_everyone_does_not_start() -> None:
    result = run.invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0"])
    assert result.exit_code == Code.USAGE
    assert "DURE_API_KEYS" in result.stderr


@pytest.mark.parametrize("command", ["worker", "up"])
def test_a_worker_needs_an_application(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_APP", raising=False)
    result = run.invoke(app, [command])
    assert result.exit_code == Code.USAGE
    assert "CELERY_APP" in result.stderr


def test_a_forced_job_is_accepted_with_no_worker_and_can_be_looked_up() -> None:
    submitted = run.invoke(
        app,
        ["submit", "mail.send", "-3", "plain", '{"a": [1]}', "-k", "to=x", "--tag", "t", "--delay", "1h", "--force"],
    )
    assert submitted.exit_code == 0
    job_id = submitted.stdout.strip()
    record = json.loads(run.invoke(app, ["job", job_id, "--json"]).stdout)
    assert record["args"] == [-3, "plain", {"a": [1]}]
    assert record["kwargs"] == {"to": "x"}
    assert record["state"] == "SCHEDULED"
    listed = json.loads(run.invoke(app, ["jobs", "--tag", "t", "--since", "5m", "--json"]).stdout)
    assert [job["id"] for job in listed["jobs"]] == [job_id]
    assert "mail.send" in run.invoke(app, ["job", job_id]).stdout
    assert job_id in run.invoke(app, ["jobs", "--state", "scheduled"]).stdout


def test_a_misspelt_option_of_submit_is_not_taken_for_an_argument() -> None:
    result = run.invoke(app, ["submit", "mail.send", "--quue", "x", "--force"])
    assert result.exit_code == Code.USAGE
    assert "--quue" in result.stderr


def test_an_unknown_job_has_its_own_exit_code() -> None:
    run.invoke(app, ["submit", "mail.send", "--force"])
    for command in ("job", "watch"):
        assert run.invoke(app, [command, "nobody"]).exit_code == Code.UNKNOWN


def test_an_unknown_task_is_not_submitted() -> None:
    run.invoke(app, ["submit", "mail.send", "--force"])
    result = run.invoke(app, ["submit", "mail.sned"])
    assert result.exit_code == Code.UNKNOWN
    assert result.stdout == ""


def test_waiting_no_longer_than_was_asked_ends_with_its_own_exit_code() -> None:
    job_id = run.invoke(app, ["submit", "mail.send", "--force"]).stdout.strip()
    result = run.invoke(app, ["watch", job_id, "--timeout", "0.05"])
    assert result.exit_code == Code.TIMEOUT
    assert f"dure watch {job_id}" in result.stderr
