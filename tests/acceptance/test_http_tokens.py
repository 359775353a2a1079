"""Tokens for browsers: what one opens, and what it does not."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dure.errors import ConfigurationError
from dure.gateway.app import create_app
from dure.node import Node
from dure.settings import Settings
from dure.task import Task
from dure.wire import Announcement
from tests.acceptance.http import problem, wrong

KEY = "a-key-of-sixteen-or-more"
SECRET = "a secret that is long enough to sign with"
ORIGIN = "https://shop.example"
AS_KEY = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}
CHECKOUT = Path(__file__).parents[2]


def opened(home: Path, **arguments: Any) -> TestClient:
    settings = Settings(_env_file=None, **({"home": home, "token_secret": SECRET} | arguments))
    return TestClient(create_app(settings), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    with opened(tmp_path, api_keys=(KEY,), cors_origins=(ORIGIN,)) as client:
        yield client


def job_of(http: TestClient, task: str = "shop.add", **body: Any) -> dict[str, Any]:
    response = http.post(f"/api/v1/tasks/{task}?force=true", json={"delay": 600} | body, headers=AS_KEY)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


def made(http: TestClient, **wanted: Any) -> str:
    response = http.post("/api/v1/tokens", json=wanted, headers=AS_KEY)
    assert response.status_code == 201, response.text
    token: str = response.json()["token"]
    return token


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    now = int(time.time())
    whole = {"iss": "dure", "iat": now, "exp": now + 60, "kind": "task", "id": "shop.add", "allow": ["submit"]}
    return jwt.encode(whole | claims, secret, algorithm=algorithm)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# What a token opens.


def test_a_token_of_a_job_opens_that_job_and_nothing_else(http: TestClient) -> None:
    job, other = job_of(http), job_of(http)
    token = made(http, job=job["id"])
    path = f"/api/v1/jobs/{job['id']}"
    assert http.get(path, headers=bearer(token)).json()["id"] == job["id"]
    assert http.get(f"{path}/result", headers=bearer(token)).status_code == 202
    for method, closed in [
        ("GET", f"/api/v1/jobs/{other['id']}"),
        ("GET", f"/api/v1/jobs/{other['id']}/events"),
        ("GET", f"{path}x"),
        ("GET", f"{path}/"),
        ("POST", f"{path}/cancel"),
        ("POST", f"{path}/retry"),
        ("POST", f"{path}/events"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/events"),
        ("GET", f"/api/v1/events?task={job['task']}"),
        ("POST", f"/api/v1/tasks/{job['task']}"),
        ("POST", "/api/v1/tokens"),
        ("GET", f"/api/v1/workflows/{job['id']}"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ]:
        problem(http.request(method, closed, headers=bearer(token) | JSON), 403, "not-opened")


def test_a_token_that_may_cancel_cancels(http: TestClient) -> None:
    job = job_of(http)
    token = made(http, job=job["id"], allow=["cancel"])
    problem(http.get(f"/api/v1/jobs/{job['id']}", headers=bearer(token)), 403, "not-opened")
    answer = http.post(f"/api/v1/jobs/{job['id']}/cancel", headers=bearer(token) | JSON)
    assert answer.json()["state"] == "REVOKED"


def test_a_token_of_a_workflow_opens_that_workflow(http: TestClient) -> None:
    form = {"chain": [{"wait": {}}, {"wait": {}}]}
    flow, other = (http.post("/api/v1/workflows", json=form, headers=AS_KEY).json()["id"] for _ in range(2))
    token = made(http, workflow=flow, allow=["watch", "cancel"])
    problem(http.get(f"/api/v1/workflows/{other}", headers=bearer(token)), 403, "not-opened")
    problem(http.post(f"/api/v1/workflows/{flow}/retry", headers=bearer(token) | JSON), 403, "not-opened")
    assert http.get(f"/api/v1/workflows/{flow}", headers=bearer(token)).json()["id"] == flow
    assert http.post(f"/api/v1/workflows/{flow}/cancel", headers=bearer(token) | JSON).json()["state"] == "REVOKED"


def test_a_token_of_a_task_submits_it_and_the_receipt_opens_the_job(http: TestClient) -> None:
    announce(http, "shop.add")
    token = made(http, task="shop.add", allow=["submit", "cancel"], expires_in=60)
    receipt = http.post("/api/v1/tasks/shop.add", json={"args": [1]}, headers=bearer(token))
    assert receipt.status_code == 202, receipt.text
    job = receipt.json()
    path = f"/api/v1/jobs/{job['id']}"
    problem(http.get(path, headers=bearer(token)), 403, "not-opened")
    assert http.get(path, headers=bearer(job["token"])).json()["id"] == job["id"]
    assert http.post(f"{path}/cancel", headers=bearer(job["token"]) | JSON).status_code == 200
    problem(http.post("/api/v1/tasks/shop.sleep", json={}, headers=bearer(token)), 403, "not-opened")
    problem(http.get("/api/v1/events?task=shop.add", headers=bearer(token)), 403, "not-opened")
    assert "token" not in job_of(http)


def announce(http: TestClient, name: str) -> None:
    """As a worker would have."""
    dure = http.app.state.dure  # type: ignore[attr-defined]
    now = time.time()
    task = Task(name=name, announced_at=now, queue="celery", announced_by="here")
    assert http.portal is not None
    http.portal.call(
        dure.ledger.record, [], [Announcement(node=Node(hostname="here", heartbeat_at=now), tasks=(task,))]
    )


@pytest.mark.parametrize("option", ["queue", "priority", "unique_key", "delay", "tags"])
def test_who_has_a_token_chooses_no_options(http: TestClient, option: str) -> None:
    announce(http, "shop.add")
    token = made(http, task="shop.add")
    value: Any = {"priority": 1, "delay": 1, "tags": ["x"]}.get(option, "x")
    refused = http.post("/api/v1/tasks/shop.add", json={"args": [1], option: value}, headers=bearer(token))
    assert wrong(refused) == [[option]]


@pytest.mark.parametrize("watched", ["task=shop.add&task=shop.sleep", "", "task=shop.sleep", "queue=celery"])
def test_a_token_that_watches_a_task_watches_no_more(http: TestClient, watched: str) -> None:
    announce(http, "shop.add")
    token = made(http, task="shop.add", allow=["watch"])
    # The id is no feed's: what should be let through is answered 400, and not for ever.
    problem(http.get(f"/api/v1/events?{watched}&after=x", headers=bearer(token)), 403, "not-opened")
    problem(http.get("/api/v1/events?task=shop.add&after=x", headers=bearer(token)), 400, "invalid-event-id")


# Making one.


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"job": "a", "task": "b"},
        {"job": "a/b"},
        {"job": "a", "allow": ["submit"]},
        {"job": "a", "allow": []},
        {"job": "a", "allow": ["fly"]},
        {"job": "a", "expires_in": 0},
        {"job": "a", "expires_in": 90_000},
        {"job": "a", "forever": True},
        {"job": ""},
        [],
    ],
)
def test_what_no_token_can_be_made_for_is_refused(http: TestClient, wanted: Any) -> None:
    problem(http.post("/api/v1/tokens", json=wanted, headers=AS_KEY), 422, "invalid")


@pytest.mark.parametrize("kind", ["job", "workflow", "task"])
def test_there_is_no_token_for_what_is_not_there(http: TestClient, kind: str) -> None:
    problem(http.post("/api/v1/tokens", json={kind: "nothing"}, headers=AS_KEY), 404, f"unknown-{kind}")


def test_a_token_says_when_it_expires_and_is_not_to_be_stored(http: TestClient) -> None:
    response = http.post("/api/v1/tokens", json={"job": job_of(http)["id"], "expires_in": 7}, headers=AS_KEY)
    claims = jwt.decode(response.json()["token"], SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 7
    assert response.headers["cache-control"] == "no-store"


# What is no token.


def timeless() -> str:
    return jwt.encode({"iss": "dure", "kind": "task", "id": "shop.add", "allow": ["submit"]}, SECRET, algorithm="HS256")


# Made when the test runs: each holds the time, so those of the collection would name the tests differently in each
# process that collects them, and would have run out by now.
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: "a.b.c", id="malformed"),
        pytest.param(lambda: signed(secret="another secret that is long enough too"), id="another secret"),
        pytest.param(lambda: signed(exp=int(time.time()) - 1), id="expired"),
        pytest.param(lambda: signed(iss="somebody"), id="another issuer"),
        pytest.param(lambda: signed(kind="everything"), id="unknown kind"),
        pytest.param(lambda: signed(allow=["fly"]), id="unknown right"),
        pytest.param(lambda: signed(secret=SECRET * 2, algorithm="HS384"), id="another algorithm"),
        pytest.param(timeless, id="without a time"),
        pytest.param(lambda: signed(secret="", algorithm="none"), id="unsigned"),
    ],
)
def test_a_token_that_is_not_good_opens_nothing(http: TestClient, make: Callable[[], str]) -> None:
    token = make()
    for given in ({"headers": bearer(token)}, {"params": {"token": token}}):
        refused = problem(http.get("/api/v1/tasks/shop.add", **given), 401, "invalid-token")
        assert token not in json.dumps(refused)


def test_a_key_is_not_taken_from_the_address(http: TestClient) -> None:
    problem(http.get("/api/v1/jobs", params={"token": KEY}), 401, "invalid-token")


def test_without_keys_a_token_still_opens_only_what_it_is_for(tmp_path: Path) -> None:
    with opened(tmp_path) as http:
        job, other = job_of(http), job_of(http)
        token = made(http, job=job["id"])
        assert http.get(f"/api/v1/jobs/{job['id']}", params={"token": token}).status_code == 200
        problem(http.get(f"/api/v1/jobs/{other['id']}", params={"token": token}), 403, "not-opened")
        problem(http.get("/api/v1/jobs", headers=bearer("a.b.c")), 401, "invalid-token")


# The secret.


def test_a_secret_is_made_once_for_all_gateways_of_a_home_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path, token_secret=None) as first, opened(tmp_path, token_secret=None) as second:
        job = job_of(first)
        token = made(first, job=job["id"])
        assert second.get(f"/api/v1/jobs/{job['id']}", params={"token": token}).status_code == 200
        assert made(second, job=job["id"])
    (kept,) = tmp_path.glob("*token*")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(kept.read_text()) >= 32


def test_where_no_secret_can_be_kept_no_token_is_made(tmp_path: Path) -> None:
    with opened(tmp_path, token_secret=None) as http:
        (tmp_path / "token.secret").mkdir()
        job = job_of(http)
        problem(http.post("/api/v1/tokens", json={"job": job["id"]}), 503, "no-token-secret")


# Other origins.


def test_a_page_of_a_named_origin_may_call_and_another_may_not(http: TestClient) -> None:
    asks = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,last-event-id"}
    preflight = http.options("/api/v1/jobs/x/events", headers={"Origin": ORIGIN} | asks)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert http.options("/api/v1/jobs/x", headers={"Origin": "https://evil.example"} | asks).status_code == 400
    refused = http.get("/api/v1/jobs", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    foreign = http.get("/api/v1/jobs", headers={"Origin": "https://evil.example"} | AS_KEY)
    assert "access-control-allow-origin" not in foreign.headers


def test_without_the_setting_no_origin_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as http:
        headers = http.get("/api/v1/jobs", headers={"Origin": ORIGIN}).headers
        assert "access-control-allow-origin" not in headers


def test_every_origin_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        create_app(Settings(_env_file=None, home=tmp_path, cors_origins=("*",)))
    create_app(Settings(_env_file=None, home=tmp_path, cors_origins=("*",), api_keys=(KEY,)))


# The WebSocket.


def closed_with(http: TestClient, path: str = "/api/v1/ws", **options: Any) -> int:
    try:
        with http.websocket_connect(path, **options) as ws:
            ws.send_json({"type": "ping"})  # is answered where it was opened
            ws.receive_json()
    except WebSocketDisconnect as closed:
        return closed.code
    return 0


def test_a_websocket_without_key_or_token_is_closed_with_the_reason(http: TestClient) -> None:
    assert closed_with(http, subprotocols=["dure.v1"]) == 4401
    assert closed_with(http, subprotocols=["dure.v1", "bearer.a.b.c"]) == 4401
    assert closed_with(http, "/api/v1/ws?token=a.b.c") == 4401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://localhost.evil"])
def test_a_websocket_of_a_page_from_elsewhere_is_closed_with_the_reason(tmp_path: Path, origin: str) -> None:
    with opened(tmp_path) as http:
        assert closed_with(http, headers={"Origin": origin}) == 4403
        assert closed_with(http, headers={"Host": "evil.example"}) == 4403


@pytest.mark.parametrize("origin", [None, "http://localhost", ORIGIN])
def test_a_websocket_of_this_origin_or_a_named_one_is_opened(tmp_path: Path, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    with (
        opened(tmp_path, cors_origins=(ORIGIN,)) as http,
        http.websocket_connect("/api/v1/ws", headers={"Host": "localhost"} | headers) as ws,
    ):
        ws.send_json({"type": "ping"})
        assert ws.receive_json() == {"type": "pong"}


def test_over_a_websocket_a_token_does_what_it_is_for_and_nothing_else(http: TestClient) -> None:
    announce(http, "shop.add")
    other = job_of(http)
    token = made(http, task="shop.add", allow=["submit", "cancel"])
    with http.websocket_connect("/api/v1/ws", subprotocols=["dure.v1", f"bearer.{token}"]) as ws:
        assert ws.accepted_subprotocol == "dure.v1"

        def answered(**message: Any) -> dict[str, Any]:
            ws.send_json(message)
            answer: dict[str, Any] = ws.receive_json()
            return answer

        def kind(**message: Any) -> str:
            return str(answered(**message)["problem"]["type"].removeprefix("urn:dure:problem:"))

        job = answered(type="submit", ref="1", task="shop.add", args=[1])["job"]
        assert kind(type="submit", ref="2", task="shop.sleep", args=[1]) == "not-opened"
        assert kind(type="submit", ref="3", task="shop.add", args=[1], queue="other") == "invalid"
        assert kind(type="watch", ref="4", job=other["id"]) == "not-opened"
        assert kind(type="watch", ref="5", workflow="any") == "not-opened"
        assert kind(type="cancel", ref="6", job=other["id"]) == "not-opened"
        assert kind(type="cancel", ref="7", job=other["id"], token="a.b.c") == "invalid-token"
        own = made(http, job=other["id"], allow=["cancel"])
        assert answered(type="cancel", ref="8", job=other["id"], token=own)["job"]["state"] == "REVOKED"
        assert answered(type="watch", ref="9", job=job["id"])["type"] == "event"
    with http.websocket_connect(f"/api/v1/ws?token={token}") as ws:  # the receipt's token goes on where it was
        ws.send_json({"type": "cancel", "ref": "1", "job": job["id"]})
        assert ws.receive_json()["type"] == "error"
        ws.send_json({"type": "cancel", "ref": "2", "job": job["id"], "token": job["token"]})
        assert ws.receive_json()["type"] == "cancelled"
