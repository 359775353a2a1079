"""`dure check` finds every problem at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dure.cli.commands import app
from tests.unit.cli_session import folder  # noqa: F401 - a fixture

run = CliRunner()

RISKY = """
from celery import Celery
app = Celery("risky", broker="amqp://user:secret@host//")
app.conf.update(task_acks_late=False, accept_content=["json", "pickle"], task_always_eager=True)
@app.task
def add(x, y): return x + y
"""
SAFE = """
from celery import Celery
app = Celery("safe")
@app.task
def add(x, y): return x + y
"""


def check(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = run.invoke(app, ["check", "--json", *arguments])
    assert "secret" not in result.output
    return result.exit_code, json.loads(result.stdout)["findings"]


def found(findings: list[dict[str, Any]], level: str) -> str:
    return "\n".join(f"{f['place']}: {f['message']} → {f['remedy']}" for f in findings if f["level"] == level)


def test_an_empty_folder_is_ready_for_the_embedded_default() -> None:
    code, findings = check()
    assert code == 0
    assert {f["place"] for f in findings} == {"settings", "ledger", "broker", "result backend"}
    assert {f["level"] for f in findings} == {"ok"}


def test_every_wrong_setting_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_BROKER_URL", "foo://u:secret@h")
    monkeypatch.setenv("DURE_PORT", "many")
    code, findings = check()
    assert code == 1
    assert "broker_url" in found(findings, "problem")
    assert "port" in found(findings, "problem")
    assert all(f["remedy"] for f in findings if f["level"] == "problem")


def test_a_public_address_without_keys_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_HOST", "0.0.0.0")
    code, findings = check()
    assert code == 1
    assert "DURE_API_KEYS" in found(findings, "problem")


def test_misspelt_names_are_told_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_BROKER_ULR", "amqp://u:secret@h")
    (tmp_path / ".env").write_text("DURE_PROT=1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.dure]\nlog_levle = 'info'\n")
    code, findings = check()
    warnings = found(findings, "warning")
    assert code == 0
    assert "did you mean DURE_BROKER_URL?" in warnings
    assert "did you mean DURE_PORT?" in warnings
    assert "did you mean log_level?" in warnings


def test_services_that_are_away_are_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_BROKER_URL", "amqp://u:secret@127.0.0.1:1/")
    monkeypatch.setenv("DURE_LEDGER_URL", "postgresql://u:secret@127.0.0.1:1/x")
    monkeypatch.setenv("DURE_RESULT_BACKEND", "redis://u:secret@127.0.0.1:1/0")
    code, findings = check()
    assert code == 1
    assert {f["place"] for f in findings if f["level"] == "problem"} == {"broker", "ledger", "result backend"}


def test_a_risky_application_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "risky_app.py").write_text(RISKY)
    code, findings = check("-A", "risky_app:app")
    warnings = found(findings, "warning")
    assert code == 0
    assert all(word in warnings for word in ("task_acks_late", "pickle", "task_always_eager", "amqp://user:***@host"))


def test_what_an_application_leaves_to_defaults_is_no_risk(tmp_path: Path) -> None:
    (tmp_path / "safe_app.py").write_text(SAFE)
    code, findings = check("-A", "safe_app:app")
    assert code == 0
    assert found(findings, "warning") == ""


def test_an_application_that_is_not_there_is_a_problem() -> None:
    code, findings = check("-A", "no_such_module")
    assert code == 1
    assert "no_such_module" in found(findings, "problem")


def test_the_table_counts_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_HOST", "0.0.0.0")
    assert "1 problem, no warnings" in run.invoke(app, ["check"]).stdout
