"""A worker process that serves several gateways of this machine, so that its model is loaded once.

Gateways connect to a socket and speak the protocol of a worker's pipes. The worker itself knows one pipe: here, the
requests of all connections are written into it, under numbers that say whose they are.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from hubgate.runtime.protocol import CancelCall, TextPiece, decode_reply, encode_frame

HELLO = b"\0"
"""Sent to each connection at once: this process will serve it."""
LINGER_SECONDS = 10.0
"""Without a connection, after which the worker ends. A gateway that restarts finds its model loaded."""
_CONNECTION_BITS = 20
_UINTS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_NIL = 0xC0
_PIECE = b"piece"
_READY = b"ready"


def listen(path: Path) -> socket.socket:
    """A socket that gateways find at this path, in a folder that only their user can read."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_name(path) as name:
        listener.bind(name)
    listener.listen(64)
    return listener


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of a socket that is short enough for the kernel, which takes 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Numbered(NamedTuple):
    """A message's tag and call number, and where the number is in its bytes."""

    tag: bytes
    call: int | None
    start: int
    end: int


def find_call(body: bytes) -> Numbered:
    """Find the call number of an encoded message, which is its first field, without decoding the rest."""
    start = 2 + (body[1] & 0x1F)  # after the array's head, and the tag, a short string
    tag, first = body[2:start], body[start]
    if first == _NIL or tag == _READY:
        return Numbered(tag, None, start, start + 1)
    if first < 0x80:
        return Numbered(tag, first, start, start + 1)
    end = start + 1 + _UINTS[first]
    return Numbered(tag, int.from_bytes(body[start + 1 : end], "big"), start, end)


def renumbered(body: bytes, found: Numbered, call: int) -> bytes:
    """The frame of the same message with another call number."""
    body = body[: found.start] + msgspec.msgpack.encode(call) + body[found.end :]
    return len(body).to_bytes(4, "little") + body


class SharedPipes:
    """The pipes of a worker that several gateways use. `requests` ends when no gateway has been connected for a while."""

    def __init__(self, listener: socket.socket, *, linger: float = LINGER_SECONDS) -> None:
        reading, self._writing = os.pipe()
        self.requests: BinaryIO = os.fdopen(reading, "rb")
        self.replies = _Replies(self._deliver)
        self._listener = listener
        self._linger = linger
        self._lock = threading.Lock()
        """Guards the connections, their calls and the first frames. Held for moments only: whoever reads the requests
        takes it to reply."""
        self._connections: dict[int, _Connection] = {}
        self._accepted = 0
        self._first_frames: list[bytes] = []
        """Those without a call: the model is ready, or cannot be loaded."""
        self._write_lock = threading.Lock()
        """Guards the writing end of the pipe. Held while the pipe is full."""
        self._first = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for_gateway(self) -> None:
        """Wait for the first connection, or until none is expected any more."""
        self._first.wait()

    def close(self) -> None:
        """Send what is left to send."""
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            connection.finish()

    def _accept(self) -> None:
        self._listener.settimeout(self._linger)
        while True:
            try:
                accepted, _ = self._listener.accept()
            except TimeoutError:
                with self._lock:
                    if self._connections:
                        continue
                self._listener.close()  # whoever waits there is reset, and starts another worker
                os.close(self._writing)  # a connection is removed after it wrote
                self._first.set()
                return
            accepted.settimeout(None)
            with self._lock:
                self._accepted += 1
                connection = _Connection(self._accepted, accepted)
                self._connections[self._accepted] = connection
                for frame in (HELLO, *self._first_frames):
                    connection.send(frame)
            self._first.set()
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: _Connection) -> None:
        """Pass on the requests of a gateway until it leaves, and cancel its calls then."""
        with contextlib.suppress(OSError), connection.stream() as stream:
            while len(head := stream.read(4)) == 4:
                length = int.from_bytes(head, "little")
                body = stream.read(length)
                if len(body) < length:
                    break
                found = find_call(body)
                call = found.call or 0
                with self._lock:
                    if found.tag == b"forget":
                        connection.calls.discard(call)
                    else:
                        connection.calls.add(call)
                self._write(renumbered(body, found, call << _CONNECTION_BITS | connection.number))
        with self._lock:
            left = list(connection.calls)
        for call in left:
            self._write(encode_frame(CancelCall(call << _CONNECTION_BITS | connection.number)))
        with self._lock:
            del self._connections[connection.number]  # the last write was before: see `_accept`
        connection.finish()

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        with self._write_lock:
            while view:
                view = view[os.write(self._writing, view) :]

    def _deliver(self, frame: bytes) -> None:
        body = frame[4:]
        found = find_call(body)
        if found.call is None:
            with self._lock:
                self._first_frames.append(frame)
                for connection in self._connections.values():
                    connection.send(frame)
            return
        call, number = found.call >> _CONNECTION_BITS, found.call & (1 << _CONNECTION_BITS) - 1
        is_last = found.tag != _PIECE or _is_last_piece(body)
        with self._lock:
            target = self._connections.get(number)
            if target is not None and is_last:
                target.calls.discard(call)
        if target is not None:
            target.send(renumbered(body, found, call))


class _Connection:
    """A gateway. It is sent to by a thread of its own, so that one that does not read holds up no other."""

    def __init__(self, number: int, connected: socket.socket) -> None:
        self.number = number
        self.calls: set[int] = set()
        """Those without their last reply."""
        self._socket = connected
        self._unsent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.send = self._unsent.put
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def stream(self) -> BinaryIO:
        return self._socket.makefile("rb")

    def finish(self) -> None:
        """Send what is left, and close."""
        self._unsent.put(None)
        self._sender.join(5)
        self._socket.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := self._unsent.get()) is not None:
                self._socket.sendall(frame)
            self._socket.shutdown(socket.SHUT_RDWR)


class _Replies:
    """What a worker writes its replies to: one frame at a time."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.write = deliver

    def flush(self) -> None:
        """Nothing is held back."""


def _is_last_piece(body: bytes) -> bool:
    piece = decode_reply(body)
    return not isinstance(piece, TextPiece) or piece.finish_reason is not None
