"""JSON schemas from a task's type hints."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import jsonschema_rs
import pytest
from celery import Celery, Task
from pydantic import BaseModel, Field

from dure.worker.schema import signature_of

if TYPE_CHECKING:
    from nowhere import Unknown


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    street: str


class User(BaseModel):
    name: str
    friend: User | None = None


class Opaque:
    pass


def properties(function: Any) -> dict[str, Any]:
    signature = signature_of(function)
    assert signature
    jsonschema_rs.Draft202012Validator(signature.arguments)
    return signature.arguments["properties"]


def accepts(function: Any, arguments: dict[str, Any]) -> bool:
    signature = signature_of(function)
    assert signature
    return jsonschema_rs.Draft202012Validator(signature.arguments).is_valid(arguments)


def test_plain_parameters_are_required_unless_they_have_a_default() -> None:
    def task(a: int, b: str = "x", *, c: bool) -> float: ...

    signature = signature_of(task)
    assert signature
    assert signature.arguments == {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "string", "default": "x"},
            "c": {"type": "boolean"},
        },
        "required": ["a", "c"],
        "additionalProperties": False,
    }
    assert signature.result == {"type": "number"}
    assert (signature.positional, signature.variadic) == (("a", "b"), False)


def test_rich_types_have_their_schemas() -> None:
    def task(
        colour: Colour,
        mode: Literal["a", "b"],
        when: datetime,
        key: uuid.UUID,
        price: Decimal,
        many: list[int] | None,
        point: Point,
        address: Address,
        limit: Annotated[int, Field(ge=1, le=5)],
    ) -> None: ...

    fitting = {
        "colour": "red",
        "mode": "a",
        "when": "2026-01-01T00:00:00Z",
        "key": str(uuid.uuid4()),
        "price": "1.5",
        "many": [1],
        "point": {"x": 1},
        "address": {"street": "s"},
        "limit": 5,
    }
    assert accepts(task, fitting)
    for wrong in (
        {"colour": "green"},
        {"mode": "c"},
        {"many": ["x"]},
        {"point": {}},
        {"address": {}},
        {"limit": 6},
        {"more": 1},
    ):
        assert not accepts(task, fitting | wrong), wrong


def test_models_that_refer_to_themselves_and_are_used_twice_share_a_definition() -> None:
    def task(user: User, others: list[User]) -> User: ...

    assert accepts(task, {"user": {"name": "a", "friend": {"name": "b"}}, "others": [{"name": "c"}]})
    assert not accepts(task, {"user": {"name": "a", "friend": {"name": 1}}, "others": []})
    signature = signature_of(task)
    assert signature
    assert signature.result
    assert "User" in signature.result["$defs"]


def test_what_has_no_schema_takes_anything() -> None:
    def task(bare, opaque: Opaque, missing: Unknown, callback: type[Opaque], good: int) -> Unknown: ...

    assert properties(task) == {
        "bare": {},
        "opaque": {},
        "missing": {},
        "callback": {},
        "good": {"type": "integer"},
    }
    signature = signature_of(task)
    assert signature
    assert signature.result == {}


@pytest.mark.parametrize(
    "name", ["json", "schema", "copy", "dict", "_private", "__dunder", "model_config", "model_fields", "self_"]
)
def test_any_parameter_name_works(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def task({name}: int = 1): ...", scope)
    assert properties(scope["task"]) == {name: {"type": "integer", "default": 1}}


def test_star_parameters_open_the_schema() -> None:
    def task(a: int, /, *args: int, **kwargs: str) -> None: ...

    signature = signature_of(task)
    assert signature
    assert (signature.positional, signature.variadic) == (("a",), True)
    assert set(signature.arguments["properties"]) == {"a"}
    assert "additionalProperties" not in signature.arguments


def test_only_defaults_that_are_json_are_told() -> None:
    def task(
        a: Any = Opaque,
        b: float = float("inf"),
        c: Colour = Colour.RED,
        d: int = None,  # noqa: RUF013
        e: Any = ("x", 1),
    ): ...

    told = properties(task)
    assert "default" not in told["a"]
    assert "default" not in told["b"]
    assert told["c"]["default"] == "red"
    assert told["e"] == {"default": ["x", 1]}
    assert accepts(task, {"d": None})


def test_a_bound_task_has_no_self() -> None:
    app = Celery()

    @app.task(bind=True, shared=False)
    def bound(self: Task, x: int) -> int: ...

    @app.task(pydantic=True, shared=False)
    def typed(user: User) -> User: ...

    class Classic(Task):
        name = "classic"

        def run(self, x: int) -> None: ...

    assert properties(bound.run) == {"x": {"type": "integer"}}
    assert properties(typed.run)["user"] == {"$ref": "#/$defs/User"}
    assert properties(app.register_task(Classic()).run) == {"x": {"type": "integer"}}


def test_builtins_that_tell_no_parameters_have_no_signature() -> None:
    assert signature_of(max) is None
