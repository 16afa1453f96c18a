"""uvicorn, stopped so that no client notices: what load balancers need during a rolling upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, cast

import uvicorn

from hubgate.cli.server.process import stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from hubgate.cli.server.connection import Connection
    from hubgate.service.gateway import Gateway

_CLOSE = (b"connection", b"close")
_SO_ATTACH_FILTER = 26
_IGNORE_SYN = (  # a program of Linux socket filters, see its Documentation/networking/filter.rst
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone:
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it
)

_log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Serves the gateway until a signal, then drains it.

    Args:
        config: of uvicorn; its protocol is `Connection`.
        gateway: is marked as draining at the first signal.
        drain_delay: seconds between SIGTERM or SIGHUP and the stop.
        drain_seconds: from the stop until requests in flight are cancelled.
        started: called when it serves, and a signal stops it in order.
    """

    handshake_seconds = 0.1
    """Time for connections that were begun before new ones are ignored."""
    last_words_seconds = 2.0
    """Time to send the error responses and the last events of the requests that were cancelled."""

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Gateway,
        *,
        drain_delay: float,
        drain_seconds: float,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_delay = drain_delay
        self._drain_seconds = drain_seconds
        self._started = started
        self._cancelled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Drain on the first signal; on the second, cancel all requests; on the third, close all connections.

        On SIGTERM, which orchestrators send, draining starts after a delay in which load balancers can notice.
        """
        if not self._gateway.draining:
            self._gateway.draining = True
            self._keep_no_connection()
            delay = 0 if sig == signal.SIGINT else self._drain_delay
            if delay:
                _log.info("draining: stopping in %g seconds, a second signal stops at once", delay)
                asyncio.get_running_loop().call_later(delay, self._stop)
            else:
                self._stop()
            return
        # uvicorn would raise the signal again once it has stopped; the gateway has to close in order first.
        self.should_exit = True
        if self._cancelled:
            self._close_all()
        else:
            self._cancel_requests()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, but serve everything that has reached this machine."""
        self._keep_no_connection()
        # The kernel resets connections that it has accepted for us when the last descriptor of their listener closes.
        listeners = [one.dup() for one in sockets or () if one.fileno() >= 0]
        if all(ignore_new_connections(one) for one in listeners):
            await asyncio.sleep(self.handshake_seconds)
        for server in self.servers:
            server.close()
        for listener in listeners:
            await self._take(_accept_all(listener))
        end = asyncio.get_running_loop().call_later(self._drain_seconds, self._end_drain)
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()

    def _keep_no_connection(self) -> None:
        """From now on, let each response close its connection.

        A load balancer then has no idle connection on which it could send a request just when it closes.
        """
        if _CLOSE not in self.config.encoded_headers:
            self.config.encoded_headers.append(_CLOSE)  # uvicorn reads it once a second
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    def _stop(self) -> None:
        self.should_exit = True
        _log.info("stopping: finishing requests in flight, a second signal cancels them")

    def _end_drain(self) -> None:
        if self._cancelled:
            return
        if tasks := self.server_state.tasks:
            _log.warning(
                "cancelling %d requests that were in flight for %g seconds after the stop: raise HUBGATE_DRAIN_SECONDS",
                len(tasks),
                self._drain_seconds,
            )
        self._cancel_requests()

    def _cancel_requests(self) -> None:
        """Cancel all requests. The guard answers them, and ends each stream with an error event."""
        self._cancelled = True
        for task in self.server_state.tasks:
            task.cancel()
        asyncio.get_running_loop().call_later(self.last_words_seconds, self._close_all)

    def _close_all(self) -> None:
        """Close the connections of clients that do not read."""
        self.force_exit = True
        for connection in list(self.server_state.connections):
            cast("Connection", connection).transport.abort()

    async def _take(self, accepted: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for one in accepted:
            with contextlib.suppress(OSError):  # the client has left
                await loop.connect_accepted_socket(
                    lambda: self.config.http_protocol_class(  # type: ignore[call-arg] # as uvicorn itself does
                        config=self.config, server_state=self.server_state, app_state=self.lifespan.state
                    ),
                    one,
                )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop, so that they never interrupt a step of it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        signals = stop_signals()
        for one in signals:
            loop.add_signal_handler(one, self.handle_exit, one, None)
        try:
            yield
        finally:
            for one in signals:
                loop.remove_signal_handler(one)


def ignore_new_connections(listener: socket.socket) -> bool:
    """Let the kernel ignore attempts to connect; returns whether it can.

    Their clients try again after a second, when the port is closed, and know then that nothing was sent. Otherwise, one
    that connects between the last accept and the close of the listener could send a request, and be reset.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    program = b"".join(struct.pack("HBBI", *step) for step in _IGNORE_SYN)
    buffer = ctypes.create_string_buffer(program)
    try:
        option = struct.pack("HP", len(_IGNORE_SYN), ctypes.addressof(buffer))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
    except OSError:  # a sandbox without filters
        return False
    return True


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept what waits, and close the listener."""
    accepted = []
    with listener, contextlib.suppress(OSError):
        listener.setblocking(False)
        while True:
            accepted.append(listener.accept()[0])
    return accepted
