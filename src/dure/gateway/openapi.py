"""The OpenAPI document: the routes, and each known task as an operation of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI

from dure.options import SubmitOptions
from dure.task import Task

_GENERIC = "/api/v1/tasks/{name}"
_PROBLEM = "#/components/schemas/Problem"


def with_tasks(app: FastAPI, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """FastAPI's document with one path for each task."""
    document = deepcopy(app.openapi())
    _tell_of_problems(document)
    generic = document["paths"][_GENERIC]["post"]
    generic["parameters"] = [*generic["parameters"], *_option_parameters()]
    schemas = document["components"]["schemas"]
    for task in tasks.values():
        document["paths"][f"/api/v1/tasks/{quote(task.name, safe='')}"] = {"post": _operation(task, generic, schemas)}
    return document


def _tell_of_problems(document: dict[str, Any]) -> None:
    """FastAPI writes every model as application/json, and a 422 of its own."""
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for response in operation["responses"].values():
            shown = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
            if shown.endswith(("/Problem", "/HTTPValidationError")):
                response["content"] = {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}


def _operation(task: Task, generic: Mapping[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    operation = deepcopy(dict(generic))
    key = re.sub(r"[^A-Za-z0-9._-]", "_", task.name)
    operation |= {
        "operationId": f"submit_{key}",
        "summary": task.name,
        "description": task.doc or "",
        "tags": ["known tasks"],
        "parameters": [parameter for parameter in generic["parameters"] if parameter["in"] != "path"],
    }
    if task.arguments is not None:
        schemas[f"{key}.arguments"] = _moved(task.arguments, f"{key}.arguments")
        operation["requestBody"] = {
            "description": "The named arguments, or `args` and `kwargs` with options beside them",
            "required": bool(task.arguments.get("required")),
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [{"$ref": f"#/components/schemas/{key}.arguments"}, _envelope()],
                    }
                }
            },
        }
    if task.result is not None:
        schemas[f"{key}.result"] = _moved(task.result, f"{key}.result")
        record = {
            "allOf": [
                {"$ref": "#/components/schemas/JobRecord"},
                {"properties": {"result": {"$ref": f"#/components/schemas/{key}.result"}}},
            ]
        }
        operation["responses"]["200"]["content"]["application/json"]["schema"] = record
    return operation


def _envelope() -> dict[str, Any]:
    options = SubmitOptions.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {"args": {"type": "array"}, "kwargs": {"type": "object"}, **options},
    }


def _option_parameters() -> list[dict[str, Any]]:
    options = SubmitOptions.model_json_schema()["properties"]
    parameters = []
    for name, schema in options.items():
        in_query = "tag" if name == "tags" else name
        about = schema.get("description", "")
        parameters.append({"name": in_query, "in": "query", "required": False, "description": about, "schema": schema})
    force = {"type": "boolean", "default": False}
    about = "Submit by name though no worker has announced the task; the message waits in its queue for one."
    parameters.append({"name": "force", "in": "query", "required": False, "description": about, "schema": force})
    return parameters


def _moved(schema: Any, key: str) -> Any:
    """The schema at its new place: its local `$defs` are reached from the document's root."""
    if isinstance(schema, dict):
        return {
            name: f"#/components/schemas/{key}{value[1:]}"
            if name == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, key)
            for name, value in schema.items()
        }
    if isinstance(schema, list):
        return [_moved(item, key) for item in schema]
    return schema
