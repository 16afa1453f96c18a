"""Requests to `/api` from the command line: over HTTP to the running gateway, or in this process if none runs.

A running gateway holds its state in memory, so every change has to go through it. With a shared database, gateways may run
on other machines only: they follow what a command changes, which itself is not counted as a gateway.
"""

from __future__ import annotations

import codecs
import json
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from hubgate.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from hubgate.store.lock import RunningGateway
    from hubgate.web.app import Application
    from hubgate.web.http.asgi import Message, Scope

    _Take = Callable[[bytes], object]

_CHUNK_BYTES = 65_536
_AS_COMMANDS = {
    "GET /v1/models": "`hubgate list`",
    "GET /api/connections": "`hubgate connection list`",
    "GET /api/aliases": "`hubgate alias list`",
}
"""Routes that error messages refer to, and the command for each."""
_TIMEOUT = 4000.0  # registering a model may include its download
_PAGE = 1000
"""The largest of `/api`."""

open_application: ContextVar[Callable[[Settings], AbstractAsyncContextManager[Application]]] = ContextVar(
    "open_application"
)
"""Opens the application in this process. Set by `cli.main`, because what a command is made of may not import it."""
own_gateway: ContextVar[Callable[[Settings], AbstractContextManager[bool]]] = ContextVar("own_gateway")
"""Makes sure that a gateway runs in a home while the context is open: one in this process, unless there is one. Set likewise."""


class NoHome(Enum):
    """What a command does if no gateway has been created yet."""

    FAIL = auto()
    """Fail, because the command is about the contents of a gateway."""
    CREATE = auto()
    """Create one."""
    TEMPORARY = auto()
    """Use a temporary, empty one."""


class CommandFailed(Exception):
    """The command failed. The text says why and what to do; `cause` is that of the gateway's error, if any."""

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


def api(
    method: str,
    path: str,
    body: object = None,
    *,
    no_home: NoHome = NoHome.FAIL,
    gateway: RunningGateway | None = None,
) -> Any:
    """Send a request to the gateway of this home, or to another; returns the decoded reply.

    Raises:
        CommandFailed: the gateway returned an error, did not respond, or does not exist.
    """
    parts: list[bytes] = []
    payload = b"" if body is None else json.dumps(body).encode()
    _send(method, path, payload, parts.append, no_home, gateway)
    reply = b"".join(parts)
    return json.loads(reply) if reply else None


def api_list(path: str, name: str, cursor: str) -> Iterator[Any]:
    """The items of a list of the gateway of this home, in pages.

    Without a running gateway all at once, because each request would open the database again.

    Args:
        path: the route.
        name: the field of its reply that has the items.
        cursor: the field of an item that `after` refers to.

    Raises:
        CommandFailed: see `api`.
    """
    from hubgate.store.lock import running_gateway

    gateway = running_gateway(Settings.from_env().home)
    if gateway is None:
        yield from api("GET", path)[name]
        return
    after = ""
    while True:
        page = api("GET", f"{path}?limit={_PAGE}{after}", gateway=gateway)[name]
        yield from page
        if len(page) < _PAGE:
            return
        after = f"&after={quote(page[-1][cursor], safe='')}"


def print_text(path: str) -> None:
    """Print the reply to a GET as it arrives, with the line endings of this system.

    Raises:
        CommandFailed: the gateway returned an error, did not respond or broke off; or the output cannot be written.
        BrokenPipeError: the reader of the output is gone.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    write_error: OSError | None = None

    def show(part: bytes) -> None:
        nonlocal write_error
        if write_error is None:
            try:
                print(decoder.decode(part).replace("\r", ""), end="")
            except OSError as error:  # not raised here, where it would look like an error of the gateway
                write_error = error

    _send("GET", path, b"", show, NoHome.FAIL)
    if isinstance(write_error, BrokenPipeError):
        raise write_error
    if write_error is not None:
        raise CommandFailed(f"Cannot write the output: {write_error.strerror}.")


def lacks_cache() -> bool:
    """Whether the vector caches belong to gateways that run on other machines."""
    from hubgate.store.lock import running_gateway

    settings = Settings.from_env()
    if settings.database_url is None or settings.cache_url is not None:
        return False
    return running_gateway(settings.home) is None


def require_home(settings: Settings) -> None:
    """Require that a gateway has been created in this home. A shared database is examined when it is opened.

    Raises:
        CommandFailed: none has.
    """
    if not settings.database_url and not settings.is_initialized:
        raise CommandFailed(
            f"There is no gateway at {settings.home}. Start one with `hubgate serve`, or set HUBGATE_HOME to the"
            " folder of an existing one (with `make serve`, it is .hubgate in the checkout)."
        )


def _send(
    method: str,
    path: str,
    payload: bytes,
    take: _Take,
    no_home: NoHome,
    gateway: RunningGateway | None = None,
) -> None:
    """Send a request and pass on its reply in chunks.

    Raises:
        CommandFailed: the gateway returned an error, did not respond, or does not exist.
    """
    from hubgate.store.lock import running_gateway

    settings = Settings.from_env()
    gate = gateway or running_gateway(settings.home)
    if gate is not None:
        status, failure = _over_http(gate.url + path, gate.key, method, payload, take)
    else:
        with _some_home(settings, no_home) as of_home:
            status, failure = _in_process(of_home, method, path, payload, take)
    if status >= 400:
        error = json.loads(failure)["error"]
        raise CommandFailed(f"{error['message']} {as_commands(error['remedy'])}".rstrip(), error["cause"])


def as_commands(message: str) -> str:
    """Replace routes in a message of the gateway by the commands for them."""
    for route, command in _AS_COMMANDS.items():
        message = message.replace(route, command)
    return message


@contextmanager
def _some_home(settings: Settings, no_home: NoHome) -> Iterator[Settings]:
    """The settings of the home to use.

    Raises:
        CommandFailed: there is none, and none may be created.
    """
    if settings.database_url:
        # Several commands, and a gateway that starts, may use the home at the same time: not so the cache in it.
        cache_bytes = settings.cache_bytes if settings.cache_url else 0
        migrate = settings.migrate and no_home is NoHome.CREATE
        yield replace(settings, migrate=migrate, cache_bytes=cache_bytes)
        return
    if no_home is NoHome.FAIL:
        require_home(settings)
    if settings.is_initialized:
        yield settings
        return
    if no_home is NoHome.CREATE:
        _need_free_port(settings)
        print(f"Creating a new gateway in {settings.home}.", file=sys.stderr)
        yield settings
        return
    import secrets
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="hubgate-") as folder:
        key = secrets.token_urlsafe(32)  # otherwise one would be generated and printed
        home, key_file = Path(folder) / "home", Path(folder) / "secret.key"
        yield replace(settings, home=home, secret_key_file=key_file, admin_key=key)


def _need_free_port(settings: Settings) -> None:
    """Refuse to create a gateway at an address where another one runs: the caller most likely means that one.

    Raises:
        CommandFailed: hubgate answers at the host and port of the settings.
    """
    import http.client
    import urllib.error
    import urllib.request

    url = f"http://{LOOPBACK.get(settings.host, settings.host)}:{settings.port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        # Without a key: 401, with a header of hubgate's own.
        direct.open(f"{url}/v1/models", timeout=2).close()
    except urllib.error.HTTPError as error:
        with error:
            if "X-Hubgate-Cause" not in error.headers:
                return
    except (OSError, ValueError, http.client.HTTPException):
        return
    raise CommandFailed(
        f"A gateway with another home is running at {url}, and {settings.home} has none. Set HUBGATE_HOME to the home"
        " of the running gateway (`make serve` uses .hubgate in its folder), or set HUBGATE_PORT to create another one."
    )


def segment(name: str) -> str:
    """A name as a segment of a path.

    Raises:
        CommandFailed: the name is empty, which would change the meaning of the path.
    """
    if not name.strip("/"):
        raise CommandFailed("The name is empty.")
    return quote(name, safe="", errors="surrogateescape")


def _over_http(url: str, key: str, method: str, payload: bytes, take: _Take) -> tuple[int, bytes]:
    """Returns the status, and the body of an error."""
    import http.client
    import urllib.error
    import urllib.request

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(url, payload or None, headers, method=method)  # noqa: S310 - our own gateway
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_TIMEOUT) as response:
            if pending := response.headers.get("X-Hubgate-Pending"):
                _print_pending(pending)
            while part := response.read(_CHUNK_BYTES):
                take(part)
            return response.status, b""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        raise CommandFailed(f"The gateway at {url} does not respond: {error}.") from None


def _print_pending(gateways: str) -> None:
    print(f"Not yet in force at {gateways}, which did not answer in time.", file=sys.stderr)


def _in_process(settings: Settings, method: str, path: str, payload: bytes, take: _Take) -> tuple[int, bytes]:
    import asyncio
    from contextlib import nullcontext

    from hubgate.store.lock import HomeLock

    with nullcontext() if settings.database_url else HomeLock(settings.home):
        return asyncio.run(_send_in_process(settings, method, path, payload, take))


async def _send_in_process(
    settings: Settings, method: str, path: str, payload: bytes, take: _Take
) -> tuple[int, bytes]:
    import asyncio
    import secrets

    status, failure, unsent = 0, list[bytes](), [payload]

    async def receive() -> Message:
        if not unsent:
            await asyncio.Event().wait()  # the command line never disconnects
        return {"type": "http.request", "body": unsent.pop(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        if pending := dict(message.get("headers", ())).get(b"x-hubgate-pending"):
            _print_pending(pending.decode())
        (failure.append if status >= 400 else take)(message.get("body", b""))

    async with open_application.get()(settings) as gate:
        key = secrets.token_urlsafe(32)
        gate.access.admit_cli(key)
        if gate.first_admin_key:
            print(f"The admin key, shown only once: {gate.first_admin_key}", file=sys.stderr)
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": unquote(path.partition("?")[0]),
            "raw_path": path.partition("?")[0].encode(),
            "root_path": "",
            "query_string": path.partition("?")[2].encode(),
            "headers": [(b"authorization", b"Bearer " + key.encode())],
        }
        await gate.app(scope, receive, send)
    return status, b"".join(failure)
