"""docs/asyncapi.yaml, for what is said over the WebSocket and in feeds."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docs/asyncapi.yaml").read_text())


@cache
def _validator(name: str) -> Any:
    """Of a message's payload; its references are those of the document."""
    schema = {"$ref": f"#/components/messages/{name}/payload", "components": DOCUMENT["components"]}
    return jsonschema_rs.validator_for(schema)


def wrong(name: str, payload: Any) -> list[str]:
    return [f"{list(error.instance_path)}: {error.message}" for error in _validator(name).iter_errors(payload)]


def checked_server(message: dict[str, Any]) -> None:
    """What the server sent is one of the messages that it may send, and fits it."""
    replies = DOCUMENT["operations"].values()
    sent = {ref["$ref"].rpartition("/")[2] for op in replies for ref in op.get("reply", {}).get("messages", [])}
    assert message["type"] in sent
    assert not (found := wrong(message["type"], message)), f"{found} in {message}"


def checked_event(kind: str, data: dict[str, Any]) -> None:
    """The same of a server-sent event."""
    assert not (found := wrong(f"sse{kind.capitalize()}", data)), f"{found} in {data}"
