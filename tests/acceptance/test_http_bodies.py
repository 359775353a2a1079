"""Bodies, paths and methods of every kind: never an error of ours, never a hang."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.http import WAIT, problem

# Bad bodies.

JSON = {"Content-Type": "application/json"}


DEEP = b'{"args":' + b"[" * 70 + b"]" * 70 + b"}"


VERY_DEEP = b"[" * 200_000


@pytest.mark.parametrize("path", ["tasks/shop.echo", "tasks/later?force=true", "jobs"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"x": 1}}', 400),
        (b"{'x': 1}", 400),
        (b'{"value": NaN}', 400),
        (b'{"value": Infinity}', 400),
        (b'{"value": -Infinity}', 400),
        (b'{"value": 1e999}', 400),
        (b"\xff\xfe{}", 400),
        (b'{"value": "\xff"}', 400),
        (b'{"value": "\\ud800"}', 400),
        (b'{"\\udc00": 1}', 400),
        (b'{"value": "a\nb"}', 400),
        (b"\xef\xbb\xbf{}", 400),
        (b"nul", 400),
        (b" ", 400),
        (DEEP, 400),
        (VERY_DEEP, 400),
        (b'{"value": ' + b"9" * 5000 + b"}", 400),
    ],
    ids=lambda given: repr(given)[:24],
)
def test_a_body_that_is_not_json_is_refused(http: httpx.Client, path: str, body: bytes, status: int) -> None:
    response = http.post(f"/api/v1/{path}", content=body, headers=JSON)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"value": 12345678901234567890123456789}', 12345678901234567890123456789),
        (b'{"value": 1, "value": 2}', 2),
        (b'{"value": "\\u0000"}', "\x00"),
        (b'{"value": {"\\u0000": "\\ud83d\\ude00"}}', {"\x00": "😀"}),
        (b'{"value": 1e308}', 1e308),
        (b'{"value": "' + b"x" * 300_000 + b'"}', "x" * 300_000),
        (b'{"value": ' + b"[" * 60 + b"]" * 60 + b"}", json.loads("[" * 60 + "]" * 60)),
    ],
    ids=lambda given: repr(given)[:24],
)
def test_unusual_json_comes_back_as_it_went(http: httpx.Client, body: bytes, value: Any) -> None:
    response = http.post("/api/v1/tasks/shop.echo", content=body, headers=JSON | WAIT)
    assert response.status_code == 200, response.text
    assert response.json()["kwargs"] == {"value": value}
    read = http.get(f"/api/v1/jobs/{response.json()['id']}").json()
    assert read["kwargs"] == {"value": value}
    if len(body) < 262_144:
        assert response.json()["result"] == value


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        ("application/jsonx", 415),
        ("application/json; charset=utf-8", 202),
        ("Application/JSON", 202),
        ("application/vnd.shop+json", 202),
    ],
)
def test_a_body_must_be_said_to_be_json(http: httpx.Client, kind: str, status: int) -> None:
    response = http.post("/api/v1/tasks/shop.add", content=b'{"x": 1}', headers={"Content-Type": kind})
    assert response.status_code == status


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(http: httpx.Client) -> None:
    large = b'{"value": "' + b"x" * 1_100_000 + b'"}'
    problem(http.post("/api/v1/tasks/shop.echo", content=large, headers=JSON), 413, "too-large")

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    response = http.post("/api/v1/tasks/shop.echo", content=chunks(), headers=JSON)
    problem(response, 413, "too-large")
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("GET", "/api/v1/nothing"), ("GET", "/api/v2/jobs")])
def test_a_path_that_does_not_exist_is_a_problem(http: httpx.Client, method: str, path: str) -> None:
    problem(http.request(method, path), 404, "http")


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/api/v1/jobs"), ("PUT", "/api/v1/tasks/shop.add"), ("POST", "/healthz")]
)
def test_a_method_that_is_not_allowed_is_a_problem_that_names_the_allowed(
    http: httpx.Client, method: str, path: str
) -> None:
    response = http.request(method, path)
    problem(response, 405, "http")
    assert response.headers["allow"]
