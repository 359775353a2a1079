"""What is done to a gateway over HTTP, and what is expected of its answers."""

from typing import Any

import httpx

from tests.acceptance.site import until

NAMES = [
    "shop.add",
    "shop.fail",
    "shop.sleep",
    "shop.hold",
    "shop.echo",
    "shop.total",
    "shop.route",
    "shop.nothing",
    "shop.awkward",
]


WAIT = {"Prefer": "wait=20"}


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (found["type"], found["status"]) == (f"urn:dure:problem:{kind}", status)
    assert found["title"]
    assert found["detail"]
    return found


def wrong(response: httpx.Response) -> list[list[str | int]]:
    return [error["loc"] for error in problem(response, 422, "invalid")["errors"]]


def submitted(http: httpx.Client, name: str, body: Any = None, **query: Any) -> dict[str, Any]:
    response = http.post(f"/api/v1/tasks/{name}", json=body, params=query)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


def ended(http: httpx.Client, job_id: str) -> dict[str, Any]:
    def look() -> Any:
        job = http.get(f"/api/v1/jobs/{job_id}").json()
        return job if job["finished_at"] else None

    job: dict[str, Any] = until(look, f"the end of {job_id}")
    return job
