"""py-amqp's transport for the consumer's connection: many frames with one read, many acknowledgements with one write.

py-amqp asks the kernel nine times for a message and once for each acknowledgement, which costs more than all that the
worker does with them. Here a readable socket is read once, up to 64 KiB, and what is complete is handed on; and what
is written while the loop turns waits for the turn's end. Whoever waits for an answer writes first.

A delivery that is all there, method, header and body, is decoded in one go; anything else takes py-amqp's own way.
Connections by TLS, and all others of the process, are py-amqp's own.
"""

from __future__ import annotations

import errno
import socket
import threading
from struct import Struct
from typing import Any

import msgspec
from amqp import basic_message
from amqp.exceptions import UnexpectedFrame
from amqp.transport import TCPTransport
from kombu.transport import pyamqp

from dure.worker.aio.amqp_content import read_delivery, read_properties

_READ = 65_536
_END = 0xCE
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_FRAME = Struct(">BHI")
_CONTENT = Struct(">HHQ")
_JSON = "application/json"
_ACK = Struct(">BHIHHQBB")
_DELIVER = bytes((0, 60, 0, 60))
_AGAIN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}


class Socket(TCPTransport):
    """`hub` is set once the loop reads; before, everything is written at once."""

    hub: Any = None
    sock: Any
    _write: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._data = b""
        self._offset = 0
        self._corked: list[bytes] = []
        self._thread = threading.get_ident()
        self._lock = threading.Lock()

    def _setup_transport(self) -> None:
        super()._setup_transport()  # type: ignore[misc]
        self._send = self._write
        self._write = self._cork

    # Reading.

    def read_frame(self, *_: Any) -> tuple[int, int, bytes]:
        while (frame := self.next_frame()) is None:
            self.flush()
            self.receive()
        return frame

    def receive(self, flags: int = 0) -> None:
        """Read what there is; raises TimeoutError when that is nothing."""
        try:
            data = self.sock.recv(_READ, flags)
        except TimeoutError:
            raise
        except OSError as exc:
            if exc.errno in _AGAIN:
                raise TimeoutError from exc
            self.connected = False
            raise
        if not data:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._data = self._data[self._offset :] + data if self._offset < len(self._data) else data
        self._offset = 0

    @property
    def has_data(self) -> bool:
        return self._offset < len(self._data)

    def next_frame(self) -> tuple[int, int, bytes] | None:
        """The next one that is complete."""
        found = self._peek(self._offset)
        if found is None:
            return None
        kind, channel, start, end = found
        self._offset = end + 1
        return kind, channel, self._data[start:end]

    def next_delivery(self) -> tuple[int, bytes, bytes, bytes] | None:
        """Channel, method, header and body of a delivery, if one comes next and is complete."""
        data = self._data
        method = self._peek(self._offset)
        if method is None or method[0] != _METHOD or data[method[2] : method[2] + 4] != _DELIVER:
            return None
        header = self._peek(method[3] + 1)
        if header is None or header[0] != _HEADER or header[1] != method[1]:
            return None
        size = _CONTENT.unpack_from(data, header[2])[2]
        start = end = after = header[3] + 1
        if size:
            body = self._peek(start)
            if body is None or body[0] != _BODY or body[1] != method[1] or body[3] - body[2] != size:
                return None
            start, end, after = body[2], body[3], body[3] + 1
        self._offset = after
        return method[1], data[method[2] : method[3]], data[header[2] : header[3]], data[start:end]

    def _peek(self, offset: int) -> tuple[int, int, int, int] | None:
        """Kind, channel, and where the payload begins and ends."""
        data = self._data
        if len(data) < offset + 8:
            return None
        kind, channel, size = _FRAME.unpack_from(data, offset)
        start = offset + 7
        end = start + size
        if len(data) <= end:
            return None
        if data[end] != _END:
            raise UnexpectedFrame(f"Received frame_end {data[end]:#04x} while expecting 0xce")
        return kind, channel, start, end

    # Writing.

    def _cork(self, data: bytes) -> None:
        hub = self.hub
        with self._lock:
            if hub is None or threading.get_ident() != self._thread or not hub.aio.is_running():
                self._send_all(bytes(data))
                return
            self._corked.append(bytes(data))  # py-amqp writes its next frame into the same memory
            if len(self._corked) > 1:
                return
        hub.aio.call_soon(hub._call, self.flush, ())

    def flush(self) -> None:
        if self._corked:
            with self._lock:
                self._send_all(b"")

    def _send_all(self, data: bytes) -> None:
        corked, self._corked = self._corked, []
        if self.sock is None:
            raise OSError(errno.ENOTCONN, "the connection is closed")
        self._send(b"".join((*corked, data)))

    def close(self) -> None:
        self._corked.clear()
        self.hub = None
        super().close()


class Message(pyamqp.Message):
    """Its JSON is read by msgspec, unless it has what only kombu knows."""

    accept: Any
    body: Any
    content_type: Any

    def _decode(self) -> Any:
        body = self.body
        if (
            self.content_type == _JSON
            and (self.accept is None or _JSON in self.accept)
            and isinstance(body, str)
            and "__type__" not in body
        ):
            try:
                return msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeError):  # not a number, half a character
                pass
        return super()._decode()


class Channel(pyamqp.Channel):
    Message = Message
    connection: Any
    channel_id: int
    callbacks: dict[str, Any]
    is_closing: bool
    auto_decode: bool

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> Any:
        connection = self.connection
        transport = connection and connection.transport
        if not isinstance(transport, Socket):
            return super().basic_ack(delivery_tag, multiple, argsig)
        transport.write(_ACK.pack(_METHOD, self.channel_id, 13, 60, 80, delivery_tag, bool(multiple), _END))
        connection.bytes_sent += 1
        return None

    def deliver(self, method: bytes, header: bytes, body: bytes) -> None:
        info = read_delivery(method)
        properties = read_properties(header)
        content: bytes | str = body
        if self.auto_decode and "content_encoding" in properties:
            try:
                content = body.decode(properties["content_encoding"])
            except Exception:
                content = body
        message: Any = basic_message.Message(content)
        message.properties = properties
        message.channel = self
        message.delivery_info = info
        callback = self.callbacks.get(info["consumer_tag"])
        if callback is None:  # cancelled meanwhile
            self.basic_reject(info["delivery_tag"], requeue=True)
        else:
            callback(message)


class Connection(pyamqp.Connection):
    Channel = Channel
    channels: dict[int, Any]
    bytes_recv: int
    is_mid_message = False

    def Transport(  # noqa: N802
        self,
        host: str,
        connect_timeout: float | None,
        ssl: Any = False,
        read_timeout: Any = None,
        write_timeout: Any = None,
        socket_settings: Any = None,
        **options: Any,
    ) -> Any:
        if ssl:
            return super().Transport(
                host, connect_timeout, ssl, read_timeout, write_timeout, socket_settings, **options
            )
        return Socket(
            host,
            connect_timeout=connect_timeout,
            ssl=ssl,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            socket_settings=socket_settings,
            **options,
        )

    def blocking_read(self, timeout: float | None = None) -> Any:
        transport = self.transport
        if not isinstance(transport, Socket):
            return super().blocking_read(timeout)
        if not transport.has_data:
            transport.flush()
        with transport.having_timeout(timeout):
            frame = transport.read_frame()
        return self._take(frame)

    def take_all(self, transport: Socket) -> None:
        """Hand on what has been read."""
        while transport.has_data and transport.connected:
            delivery = None if self.is_mid_message else transport.next_delivery()
            if delivery is not None:
                number, *parts = delivery
                self.bytes_recv += 3
                channel = self.channels.get(number)
                if channel is not None and not channel.is_closing:
                    channel.deliver(*parts)
                continue
            frame = transport.next_frame()
            if frame is None:
                return
            self._take(frame)

    def _take(self, frame: tuple[int, int, bytes]) -> Any:
        is_whole = self.on_inbound_frame(frame)
        if frame[0] != _HEARTBEAT:
            self.is_mid_message = not is_whole
        return is_whole


class Transport(pyamqp.Transport):
    Connection = Connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        transport = connection.transport
        if isinstance(transport, Socket):
            transport._thread = threading.get_ident()
            transport.hub = loop

            # Whoever waited for an answer may have read deliveries too, and no reader is called for those.
            def take_rest() -> None:
                if not transport.connected:
                    loop.on_tick.discard(take_rest)
                elif transport.has_data:
                    connection.take_all(transport)

            loop.on_tick.add(take_rest)

    def on_readable(self, connection: Any, loop: Any) -> None:
        transport = connection.transport
        if not isinstance(transport, Socket):
            super().on_readable(connection, loop)
            return
        try:
            transport.receive(socket.MSG_DONTWAIT)
        except TimeoutError:
            return
        connection.take_all(transport)
