"""A delivery's method and header frames, read without py-amqp's format strings.

Values of kinds that are rare in a task's headers are left to py-amqp's own reader.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from amqp.serialization import _read_item, decode_properties_basic  # type: ignore[attr-defined]

_LENGTH = Struct(">I")
_TAG = Struct(">QB")
_FLAGS = Struct(">H")

_STRING, _VOID = ord("S"), ord("V")
_AFTER_CLASS = 12  # class, weight and size of the body
# Content type, encoding, headers, mode; correlation and reply: what Celery sends.
_CELERYS = 0xF600

_names: dict[bytes, str] = {}
_MOST_NAMES = 1000


def read_delivery(payload: bytes) -> dict[str, Any]:
    end = 5 + payload[4]
    consumer_tag = payload[5:end].decode()
    delivery_tag, bits = _TAG.unpack_from(payload, end)
    start = end + 10
    end = start + payload[end + 9]
    exchange = payload[start:end].decode()
    return {
        "consumer_tag": consumer_tag,
        "delivery_tag": delivery_tag,
        "redelivered": bool(bits & 1),
        "exchange": exchange,
        "routing_key": payload[end + 1 : end + 1 + payload[end]].decode(),
    }


def read_properties(payload: bytes) -> dict[str, Any]:
    flags = _FLAGS.unpack_from(payload, _AFTER_CLASS)[0]
    if flags & ~0x0800 != _CELERYS:
        properties: dict[str, Any] = decode_properties_basic(payload, _AFTER_CLASS)[0]
        return properties
    at = _AFTER_CLASS + 2
    end = at + 1 + payload[at]
    content_type = payload[at + 1 : end].decode()
    at, end = end, end + 1 + payload[end]
    content_encoding = payload[at + 1 : end].decode()
    at = end + 4
    end = at + _LENGTH.unpack_from(payload, end)[0]
    properties = {
        "content_type": content_type,
        "content_encoding": content_encoding,
        "application_headers": _read_table(payload, at, end),
        "delivery_mode": payload[end],
    }
    at = end + 1
    if flags & 0x0800:
        properties["priority"] = payload[at]
        at += 1
    end = at + 1 + payload[at]
    properties["correlation_id"] = payload[at + 1 : end].decode()
    properties["reply_to"] = payload[end + 1 : end + 1 + payload[end]].decode()
    return properties


def _read_table(payload: bytes, at: int, end: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    length = _LENGTH.unpack_from
    while at < end:
        start = at + 1
        at = start + payload[at]
        raw = payload[start:at]
        name = _names.get(raw)
        if name is None:
            name = _name(raw)
        kind = payload[at]
        if kind == _STRING:
            start = at + 5
            at = start + length(payload, at + 1)[0]
            try:
                table[name] = payload[start:at].decode()
            except UnicodeDecodeError:
                table[name] = payload[start:at]
        elif kind == _VOID:
            table[name] = None
            at += 1
        else:
            table[name], at = _read_item(payload, at)
    return table


def _name(raw: bytes) -> str:
    name = raw.decode("utf-8", "surrogateescape")
    if len(_names) < _MOST_NAMES:
        _names[raw] = name
    return name
