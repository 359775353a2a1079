from pathlib import Path

import pytest

from dure.url import file_path, file_url, redact, scheme


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:s3cret@host:5672/v", "amqp://user:***@host:5672/v"),
        ("amqp://user:p@ss@host/", "amqp://user:***@host/"),
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("amqp://user@host/", "amqp://user@host/"),
        ("postgresql://h/db?password=s3cret&sslmode=require", "postgresql://h/db?password=***&sslmode=require"),
        ("postgresql://h/db?PassWord=s3cret", "postgresql://h/db?PassWord=***"),
        ("dure:///tmp/broker.db", "dure:///tmp/broker.db"),
        ("postgresql://h/db?password=s3@cret", "postgresql://h/db?password=***"),
        ("amqp://u:s3cret@[half", "amqp:***"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize("password", ["s3cret", "s3/cret", "s3?cret", "s3#cret", "s3:cret", "s3@cret"])
def test_a_password_that_was_not_quoted_is_not_shown_either(password: str) -> None:
    assert "cret" not in redact(f"amqp://user:{password}@host:5672/v")


def test_a_scheme_is_named_without_its_driver_and_in_small_letters() -> None:
    assert scheme("PostgreSQL+psycopg://h/d") == "postgresql"
    assert scheme("redis://h") == "redis"


@pytest.mark.parametrize("path", ["/tmp/x.db", "/tmp/with space/ü.db", "/tmp/100%/x.db"])
def test_a_file_url_leads_back_to_its_file(path: str) -> None:
    assert file_path(file_url("dure", Path(path))) == Path(path)


def test_a_relative_file_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_path(file_url("sqlite", Path("a/ledger.db"))) == tmp_path / "a" / "ledger.db"


def test_options_after_a_question_mark_are_not_the_file() -> None:
    assert file_path("dure:///tmp/x.db?timeout=3") == Path("/tmp/x.db")
