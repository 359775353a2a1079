"""Who may call."""

import hmac
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dure.errors import ConfigurationError
from dure.gateway.app import create_app
from dure.settings import Settings

KEY = "a-key-of-sixteen-or-more"


# Who may call.


def opened(tmp_path: Path, host: str = "localhost", **arguments: Any) -> TestClient:
    settings = Settings(_env_file=None, home=tmp_path, **arguments)
    return TestClient(create_app(settings), base_url=f"http://{host}", raise_server_exceptions=False)


PATHS = ["/api/v1/jobs", "/api/v1/tasks", "/metrics", "/openapi.json", "/docs", "/nothing", "/healthz/", "//healthz"]


@pytest.mark.parametrize(
    "shown", [None, "", KEY, f"Basic {KEY}", "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é"]
)
def test_without_a_key_that_is_right_nothing_but_health_is_answered(tmp_path: Path, shown: str | None) -> None:
    with opened(tmp_path, api_keys=(KEY,)) as http:
        headers = [] if shown is None else [(b"authorization", shown.encode())]
        for path in PATHS:
            response = http.get(path, headers=headers)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert response.json()["type"] == "urn:dure:problem:unauthorized"
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code in (200, 503)


@pytest.mark.parametrize("shown", [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY}", f"Bearer second-{KEY}"])
def test_each_key_is_accepted_from_any_host(tmp_path: Path, shown: str) -> None:
    with opened(tmp_path, "dure.example.com", api_keys=(KEY, f"second-{KEY}")) as http:
        assert http.get("/api/v1/jobs", headers={"Authorization": shown}).status_code == 200


def test_keys_are_compared_in_constant_time_and_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(1) or compare(a, b))
    with opened(tmp_path, api_keys=(KEY, f"second-{KEY}")) as http:
        assert http.get("/api/v1/jobs", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert len(compared) == 2


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.com", "127.0.0.1.nip.io", "evil.com:8000", "[::2]"]
)
def test_without_keys_another_host_name_is_refused(tmp_path: Path, host: str) -> None:
    with opened(tmp_path) as http:
        response = http.get("/api/v1/jobs", headers={"Host": host})
        assert (response.status_code, response.json()["type"]) == (403, "urn:dure:problem:foreign-host")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "LOCALHOST",
    ],
)
def test_without_keys_a_loopback_host_name_is_answered(tmp_path: Path, host: str) -> None:
    with opened(tmp_path) as http:
        assert http.get("/api/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1"])
def test_an_open_gateway_for_everyone_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError):
        create_app(Settings(_env_file=None, home=tmp_path, host=host))
    create_app(Settings(_env_file=None, home=tmp_path, host=host, api_keys=(KEY,)))
    create_app(Settings(_env_file=None, home=tmp_path, host=host, insecure=True))


def test_importing_the_gateway_does_not_import_celery() -> None:
    script = "import dure.gateway.app, sys; print([n for n in sys.modules if n.partition('.')[0] == 'celery'])"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
