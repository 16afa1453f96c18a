"""The gate's `/api` for the command line: over HTTP to the gate that runs, else inside this process.

There is one path to a verb: a gate that runs holds the truth in memory, so what the command line changes must go
through it; and when none runs, the same application answers here.
"""

from __future__ import annotations

import codecs
import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from hubgate.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubgate.web.http.asgi import Message, Scope

    _Take = Callable[[bytes], object]

_PART = 65_536
"""Bytes."""
_AS_COMMANDS = {
    "GET /v1/models": "`hubgate list`",
    "GET /api/connections": "`hubgate connection list`",
}
"""What the gate's errors advise, as it is done here."""
_TIMEOUT = 4000.0  # a model that is added may have to be downloaded first


class NoHome(Enum):
    """What a command does where no gate was ever made."""

    REFUSED = auto()
    """It is about what a gate has: it says that there is none, and makes nothing."""
    MADE = auto()
    """It is how a gate begins."""
    BORROWED = auto()
    """It needs a gate, and nothing that one has: it gets an empty one that is gone when it ends."""


class CommandFailed(Exception):
    """What was asked was not done; its text says why and what to do, and `cause` is the gate's word for it."""

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


def api(method: str, path: str, body: object = None, *, no_home: NoHome = NoHome.REFUSED) -> Any:
    """One request to the gate of this home, wherever it is; what it answered, decoded.

    Raises:
        CommandFailed: the gate answered with an error, or not at all; or there is none.
    """
    parts: list[bytes] = []
    payload = b"" if body is None else json.dumps(body).encode()
    _ask(method, path, payload, parts.append, no_home)
    answer = b"".join(parts)
    return json.loads(answer) if answer else None


def print_text(path: str) -> None:
    """Print what the gate answers to a GET as it comes, with the line ends of this system.

    Raises:
        CommandFailed: the gate answered with an error, or not at all, or broke off; or it cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    unwritten: OSError | None = None

    def show(part: bytes) -> None:
        nonlocal unwritten
        if unwritten is None:
            try:
                print(decoder.decode(part).replace("\r", ""), end="")
            except OSError as error:  # kept, for it is no fault of the gate that asks for this
                unwritten = error

    _ask("GET", path, b"", show, NoHome.REFUSED)
    if isinstance(unwritten, BrokenPipeError):
        raise unwritten
    if unwritten is not None:
        raise CommandFailed(f"The output cannot be written: {unwritten.strerror}.")


def need_home(settings: Settings) -> None:
    """Look whether a gate was ever made here.

    Raises:
        CommandFailed: no.
    """
    if not settings.is_initialized:
        raise CommandFailed(
            f"There is no gate at {settings.home}. Start one with `hubgate serve`, or name the folder of yours in"
            " HUBGATE_HOME."
        )


def _ask(method: str, path: str, payload: bytes, take: _Take, no_home: NoHome) -> None:
    """One request, whose answer is taken in parts; an error's is told.

    Raises:
        CommandFailed: the gate answered with an error, or not at all; or there is none.
    """
    from hubgate.store.lock import running_gateway

    settings = Settings.from_env()
    gate = running_gateway(settings.home)
    if gate is not None:
        status, failure = _over_http(gate.url + path, gate.key, method, payload, take)
    else:
        with _some_home(settings, no_home) as of_home:
            status, failure = _in_process(of_home, method, path, payload, take)
    if status >= 400:
        error = json.loads(failure)["error"]
        raise CommandFailed(f"{error['message']} {as_commands(error['remedy'])}".rstrip(), error["cause"])


def as_commands(words: str) -> str:
    """What the gate says to somebody who works with commands."""
    for route, command in _AS_COMMANDS.items():
        words = words.replace(route, command)
    return words


@contextmanager
def _some_home(settings: Settings, no_home: NoHome) -> Iterator[Settings]:
    """The settings of the home that is worked on.

    Raises:
        CommandFailed: there is none, and none may be made.
    """
    if no_home is NoHome.REFUSED:
        need_home(settings)
    if settings.is_initialized:
        yield settings
        return
    if no_home is NoHome.MADE:
        _need_free_port(settings)
        print(f"Creating a new gateway in {settings.home}.", file=sys.stderr)
        yield settings
        return
    import secrets
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="hubgate-") as folder:
        key = secrets.token_urlsafe(32)  # so that none is made, and shown
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
        direct.open(
            f"{url}/v1/models", timeout=2
        ).close()  # without a key: 401, with a header of hubgate's own
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
    """A name as one segment of a path.

    Raises:
        CommandFailed: it is empty, so that the path would mean something else.
    """
    if not name.strip("/"):
        raise CommandFailed("The name is empty.")
    return quote(name, safe="", errors="surrogateescape")


def _over_http(url: str, key: str, method: str, payload: bytes, take: _Take) -> tuple[int, bytes]:
    """The status, and the body of an error."""
    import http.client
    import urllib.error
    import urllib.request

    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(url, payload or None, headers, method=method)  # noqa: S310 - our own gate
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_TIMEOUT) as response:
            while part := response.read(_PART):
                take(part)
            return response.status, b""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        raise CommandFailed(f"The gate at {url} does not answer: {error}.") from None


def _in_process(settings: Settings, method: str, path: str, payload: bytes, take: _Take) -> tuple[int, bytes]:
    import asyncio

    from hubgate.store.lock import HomeLock

    with HomeLock(settings.home):
        return asyncio.run(_ask_own_gate(settings, method, path, payload, take))


async def _ask_own_gate(
    settings: Settings, method: str, path: str, payload: bytes, take: _Take
) -> tuple[int, bytes]:
    import asyncio
    import secrets

    from hubgate.wiring import open_gate

    status, failure, unsent = 0, list[bytes](), [payload]

    async def receive() -> Message:
        if not unsent:
            await asyncio.Event().wait()  # the command line waits for its answer, it does not leave
        return {"type": "http.request", "body": unsent.pop(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        (failure.append if status >= 400 else take)(message.get("body", b""))

    async with open_gate(settings) as gate:
        key = secrets.token_urlsafe(32)
        gate.access.admit_cli(key)
        if gate.first_admin_key:
            print(f"The gate's admin key, shown only this once: {gate.first_admin_key}", file=sys.stderr)
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
