"""The sockets on which gateways listen."""

from __future__ import annotations

import socket

from hubgate.settings import LOOPBACK, InvalidSetting

_BACKLOG = 2048
_ACCEPTORS = 16


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidSetting: the address is invalid or in use.
    """
    server = _bind(host, port)
    server.listen(_BACKLOG)
    return server


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps an address for `join`, and accepts nothing.

    Raises:
        InvalidSetting: the address is invalid or in use.
    """
    with _bind(
        host, port
    ) as alone:  # `join` would share the port with any gateway of this user that shares its own
        host, port = alone.getsockname()[:2]
    return _bind(host, port, shared=True)


def join(host: str, port: int) -> socket.socket:
    """One of several sockets that listen on a reserved address: the kernel divides connections among them.

    Raises:
        InvalidSetting: the address is in use.
    """
    server = _bind(host, port, shared=True)
    server.listen(_BACKLOG)
    return server


def acceptors(listener: socket.socket) -> list[socket.socket]:
    """The socket and copies of it, for as many servers of the event loop.

    libuv accepts one connection for each server in a turn of the loop. With one server, the last of 64 clients that
    connect at once would wait for 64 turns, in which those before it get one answer each: ten times as long as later.
    """
    return [listener, *(listener.dup() for _ in range(_ACCEPTORS - 1))]


def url_of(sock: socket.socket) -> str:
    """Its URL on this machine; a wildcard address cannot be connected to."""
    host, port = sock.getsockname()[:2]
    host = LOOPBACK.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    server = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, kind, number)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(address[:2])
    except UnicodeError:  # a label of the host name is empty, too long, or not text
        raise InvalidSetting(f"HUBGATE_HOST must be an address of this machine, not {host[:60]!a}.") from None
    except OSError as error:
        if server is not None:
            server.close()
        raise InvalidSetting(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. "
            "Stop the process that uses it, or set HUBGATE_HOST and HUBGATE_PORT (make serve PORT=…)."
        ) from None
    server.setblocking(False)
    return server
