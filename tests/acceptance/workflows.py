"""What is done to workflows over HTTP."""

from typing import Any

import httpx

from tests.acceptance.site import until

WORKFLOWS = "/api/v1/workflows"
WAITING = {"wait": {}}


def task(name: str, /, *args: Any, **more: Any) -> dict[str, Any]:
    return {"task": f"shop.{name}", "args": list(args)} | more


def accepted(http: httpx.Client, spec: Any, **query: Any) -> str:
    response = http.post(WORKFLOWS, json=spec, params=query)
    assert response.status_code == 202, response.text
    workflow_id: str = response.json()["id"]
    return workflow_id


def over(http: httpx.Client, workflow_id: str) -> dict[str, Any]:
    def look() -> Any:
        workflow = http.get(f"{WORKFLOWS}/{workflow_id}").json()
        return workflow if workflow["finished_at"] else None

    workflow: dict[str, Any] = until(look, f"the end of {workflow_id}")
    return workflow


def nodes_of(workflow: dict[str, Any]) -> dict[str, Any]:
    return {node["name"]: node for node in workflow["nodes"]}


def jobs_of(http: httpx.Client, workflow_id: str) -> dict[str, str]:
    return {name: node["job"] for name, node in nodes_of(http.get(f"{WORKFLOWS}/{workflow_id}").json()).items()}
