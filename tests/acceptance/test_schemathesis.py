"""Whatever the document allows, and what it does not, is answered as the document says."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.acceptance.site import Site, site, until

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED: dict[str, Any] = {
    "max_examples": 25,
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
# A wait would only make it slow, and a job that sleeps keeps the worker.
LEFT_OUT = {"Prefer"}
# To spoil a form that nests in itself takes minutes; what is wrong in one is tried by the tests of workflows.
NOT_SPOILT = {("post", "/api/v1/workflows")}
# The feed of a filter never ends, so there is never an answer to hold against the document; the feeds of jobs and
# workflows that nobody submitted are answered at once. Real feeds are read by test_http_events.
ENDLESS = {("get", "/api/v1/events")}
FAILED = {f"urn:dure:problem:{what}-failed" for what in ("job", "workflow")}


@pytest.fixture(scope="module")
def strict() -> Iterator[Site]:
    with site() as place:
        place.start_gateway()
        place.start_worker("ours")
        place.await_gateway()
        place.await_worker("ours")
        place.await_tasks("shop.add", "shop.total", "shop.route")
        _history(place)
        yield place


def _history(place: Site) -> None:
    """A job and a workflow in each state that a look-up can meet."""
    with place.client() as http:
        for form in ({"task": "shop.add", "args": [1]}, {"task": "shop.fail", "args": ["x"]}, {"wait": {}}):
            assert http.post("/api/v1/workflows", json=form).status_code == 202
        for name, body in (("add", {"x": 1}), ("fail", {"message": "x"}), ("add", {"args": [1], "delay": 600})):
            http.post(f"/api/v1/tasks/shop.{name}", json=body)
        until(lambda: http.get("/api/v1/jobs?state=FAILURE").json()["jobs"], "a failed job")


@pytest.fixture(scope="module")
def api(strict: Site) -> Any:
    with strict.client() as http:
        document = http.get("/openapi.json").json()
    config = SchemathesisConfig.from_dict({"seed": 1})
    loaded = schemathesis.openapi.from_dict(document, config=config)
    loaded.config.base_url = strict.url
    return loaded


def check(case: Any) -> None:
    case.headers = {name: value for name, value in (case.headers or {}).items() if name not in LEFT_OUT}
    response = case.call()
    if response.status_code == 500:
        assert response.json()["type"] in FAILED
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_every_operation_answers_as_the_document_says(api: Any, mode: GenerationMode) -> None:
    wrong, tried = [], 0
    for result in api.get_all_operations():
        operation = result.ok()
        if (operation.method, operation.path) in ENDLESS:
            continue
        if mode is GenerationMode.NEGATIVE and (operation.method, operation.path) in NOT_SPOILT:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(**BOUNDED)
        def run(case: Any) -> None:
            check(case)

        try:
            run()
            tried += 1
        except Unsatisfiable:
            continue  # such an operation has nothing that could be wrong
        except Exception as exc:
            wrong.append(f"{operation.method.upper()} {operation.path}: {exc}")
    assert not wrong, "\n\n".join(wrong)
    assert tried >= 10


def test_the_document_is_valid_openapi(strict: Site) -> None:
    with strict.client() as http:
        document = http.get("/openapi.json").json()
    schemathesis.openapi.from_dict(document).validate()


def test_nothing_was_answered_that_was_not_foreseen(strict: Site) -> None:
    """After all of the above."""
    with strict.client() as http:
        assert http.get("/healthz").status_code == 200
    assert "not foreseen" not in strict.log("gateway").read_text()
