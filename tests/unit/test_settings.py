import os
from pathlib import Path

import pytest

from dure.errors import ConfigurationError
from dure.settings import Settings, load

KEY = "k" * 16


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment that says nothing."""
    for name in list(os.environ):
        if name.startswith(("DURE_", "CELERY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def say(folder: Path, monkeypatch: pytest.MonkeyPatch, *sources: str) -> None:
    if "environment" in sources:
        monkeypatch.setenv("DURE_PORT", "2")
    if ".env" in sources:
        (folder / ".env").write_text("DURE_PORT=3\n")
    if "pyproject" in sources:
        (folder / "pyproject.toml").write_text("[tool.dure]\nport = 4\n")


@pytest.mark.parametrize(
    ("sources", "port"),
    [
        (("environment", ".env", "pyproject"), 2),
        ((".env", "pyproject"), 3),
        (("pyproject",), 4),
        ((), 8000),
    ],
)
def test_the_nearest_source_wins(
    sources: tuple[str, ...], port: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(folder, monkeypatch, *sources)
    assert load().port == port
    assert load(port=1).port == 1


def test_an_argument_that_is_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_PORT", "2")
    assert load(port=None).port == 2


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_PORT", "")
    monkeypatch.setenv("DURE_BROKER_URL", "")
    assert (load().port, load().broker_url) == (8000, None)


def test_celerys_variables_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://celery/")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://celery/0")
    assert (load().broker, load().results) == ("amqp://celery/", "redis://celery/0")


def test_our_own_variable_goes_before_celerys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://celery/")
    monkeypatch.setenv("DURE_BROKER_URL", "amqp://dure/")
    assert load().broker == "amqp://dure/"


def test_the_environment_goes_before_files_under_either_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://environment/")
    (folder / ".env").write_text("DURE_BROKER_URL=amqp://file/\n")
    assert load().broker == "amqp://environment/"


def test_an_argument_goes_before_both_variables_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://celery/")
    monkeypatch.setenv("DURE_BROKER_URL", "amqp://dure/")
    assert load(broker_url="amqp://argument/").broker == "amqp://argument/"


def test_a_url_can_stand_in_pyproject(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.dure]\nbroker_url = "amqp://file/"\ntypo = 1\n')
    assert load().broker == "amqp://file/"


def test_nothing_set_means_files_in_the_home_folder(folder: Path) -> None:
    found = load(home=folder / "h")
    assert found.broker == f"dure://{folder}/h/broker.db"
    assert found.ledger == f"sqlite:///{folder}/h/ledger.db"
    assert found.results == f"dure://{folder}/h/results.db"


def test_a_real_broker_without_a_result_backend_has_no_results_to_read() -> None:
    assert load(broker_url="amqp://h/").results is None


def test_all_problems_are_reported_at_once_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "rpc://")
    monkeypatch.setenv("DURE_LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError) as caught:
        load(port=70_000, broker_url="mqtt://h/", ledger_url="nonsense", api_keys="short")
    problems = {problem.place: problem for problem in caught.value.problems}
    assert set(problems) == {"port", "broker_url", "ledger_url", "api_keys", "result_backend", "log_level"}
    assert all(problem.message and problem.remedy for problem in problems.values())
    assert "secrets.token_urlsafe" in problems["api_keys"].remedy


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_keys": "s3cret"},
        {"broker_url": "mqtt://user:s3cret@h/"},
        {"broker_url": "user:s3cret@host"},
        {"ledger_url": "mysql://user:s3cret@h/d"},
        {"result_backend": "rpc://u:s3cret@h"},
    ],
)
def test_no_secret_stands_in_a_message(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**arguments)
    assert "s3cret" not in f"{caught.value} {caught.value.problems}"
    assert caught.value.__cause__ is None


def test_no_key_stands_in_the_settings_own_text() -> None:
    assert KEY not in repr(load(api_keys=KEY))


def test_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_API_KEYS", f" {KEY} ,{KEY}2,")
    assert [key.get_secret_value() for key in load().api_keys] == [KEY, KEY + "2"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_a_loopback_address_needs_no_key(host: str) -> None:
    load(host=host).require_closed()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_a_public_address_without_keys_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(host=host).require_closed()
    (problem,) = caught.value.problems
    assert "DURE_API_KEYS" in problem.remedy
    assert "--insecure" in problem.remedy
    load(host=host, api_keys=KEY).require_closed()
    load(host=host, insecure=True).require_closed()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    assert Settings.model_fields[name].description
