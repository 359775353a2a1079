"""The consumer's transport reads what py-amqp would, however the bytes arrive."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_writer
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from dure.worker.aio.amqp import Socket
from dure.worker.aio.amqp_content import read_delivery, read_properties

short = st.text(max_size=40).filter(lambda text: len(text.encode()) < 128)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    short,
    st.lists(st.none() | st.integers(0, 9), max_size=3),
)
optional = {
    "content_type": short,
    "content_encoding": short,
    "application_headers": st.dictionaries(short, values, max_size=8),
    "delivery_mode": st.integers(1, 2),
    "priority": st.integers(0, 9),
    "correlation_id": short,
    "reply_to": short,
    "expiration": short,
    "message_id": short,
    "type": short,
}
celerys = {name: optional[name] for name in list(optional)[:4]} | {
    "correlation_id": short,
    "reply_to": short,
}


def header(properties: dict[str, Any]) -> bytes:
    return b"\0\x3c\0\0" + bytes(8) + Message(**properties)._serialize_properties()


@given(
    st.fixed_dictionaries(celerys, optional={"priority": optional["priority"]})
    | st.fixed_dictionaries({}, optional=optional)
)
def test_properties_are_read_as_py_amqp_reads_them(properties: dict[str, Any]) -> None:
    payload = header(properties)
    told = Message()
    told._load_properties(60, payload, 12)
    assert read_properties(payload) == told.properties


@given(short, st.integers(0, 2**63), st.booleans(), short, short)
def test_a_delivery_is_read_as_py_amqp_reads_it(
    tag: str, number: int, redelivered: bool, exchange: str, key: str
) -> None:
    payload = bytes((0, 60, 0, 60)) + dumps("sLbss", (tag, number, redelivered, exchange, key))
    values, _ = loads("sLbss", payload, 4)
    assert list(read_delivery(payload).values()) == values


class Broker:
    """Writes frames as py-amqp does, into the other end of a socket."""

    frame_max = 4096
    bytes_sent = 0

    def __init__(self) -> None:
        self.written = b""
        self._write = frame_writer(self, self)  # type: ignore[arg-type]

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def deliver(self, body: bytes, tag: int = 1) -> None:
        method = dumps("sLbss", ("c", tag, False, "", "q"))
        self._write(1, 1, (60, 60), method, Message(body, content_type="x", application_headers={"id": "1"}))

    def heartbeat(self) -> None:
        self.written += bytes((8, 0, 0, 0, 0, 0, 0, 0xCE))


@pytest.fixture
def wire() -> Iterator[tuple[Socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    transport = Socket("localhost:1")
    transport.sock, transport.connected = ours, True
    yield transport, theirs
    ours.close()
    theirs.close()


def test_a_delivery_in_pieces_comes_when_it_is_whole(wire: tuple[Socket, socket.socket]) -> None:
    transport, theirs = wire
    broker = Broker()
    broker.deliver(b"body")
    for place in range(len(broker.written)):
        theirs.send(broker.written[place : place + 1])
        transport.receive()
        delivery = transport.next_delivery()
        assert (delivery is None) == (place < len(broker.written) - 1)
    assert delivery is not None
    assert (delivery[0], delivery[3]) == (1, b"body")
    assert not transport.has_data


def test_deliveries_and_other_frames_come_in_their_order(wire: tuple[Socket, socket.socket]) -> None:
    transport, theirs = wire
    broker = Broker()
    broker.deliver(b"first")
    broker.heartbeat()
    broker.deliver(b"")
    broker.deliver(b"x" * 10_000)  # in several body frames: py-amqp's own way
    theirs.send(broker.written)
    transport.receive()
    assert transport.next_delivery()[3] == b"first"  # type: ignore[index]
    assert transport.next_delivery() is None
    assert transport.next_frame() == (8, 0, b"")
    assert transport.next_delivery()[3] == b""  # type: ignore[index]
    assert transport.next_delivery() is None
    kinds = [transport.read_frame()[0] for _ in range(5)]
    assert kinds == [1, 2, 3, 3, 3]


def test_bytes_that_are_no_frame_are_refused(wire: tuple[Socket, socket.socket]) -> None:
    transport, theirs = wire
    theirs.send(bytes((8, 0, 0, 0, 0, 0, 0, 0x00)))
    transport.receive()
    with pytest.raises(UnexpectedFrame):
        transport.next_frame()


def test_nothing_to_read_is_a_timeout_and_the_end_is_an_error(wire: tuple[Socket, socket.socket]) -> None:
    transport, theirs = wire
    with pytest.raises(TimeoutError):
        transport.receive(socket.MSG_DONTWAIT)
    assert transport.connected
    theirs.close()
    with pytest.raises(OSError, match="closed connection"):
        transport.receive(socket.MSG_DONTWAIT)
    assert not transport.connected
