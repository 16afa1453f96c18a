"""The gate's `/api` for the command line: over HTTP to the gate that runs, else inside this process.

There is one path to a verb: a gate that runs holds the truth in memory, so what the command line changes must go
through it; and when none runs, the same application answers here.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from hubgate.store.lock import GateLock, running_gate

if TYPE_CHECKING:
    from hubgate.settings import Settings
    from hubgate.web.asgi import Message, Scope

_TIMEOUT = 120.0


class CommandFailed(Exception):
    """The gate refused; its text says why and what to do."""


def call(settings: Settings, method: str, path: str, body: object = None) -> Any:
    """One request to the gate of this home, wherever it is.

    Raises:
        CommandFailed: the gate answered with an error.
    """
    payload = b"" if body is None else json.dumps(body).encode()
    gate = running_gate(settings.home)
    if gate is not None:
        status, answer = _over_http(gate.url + path, gate.key, method, payload)
    else:
        status, answer = asyncio.run(_in_process(settings, method, path, payload))
    decoded: Any = json.loads(answer) if answer else None
    if status >= 400:
        error = decoded["error"]
        raise CommandFailed(f"{error['message']} {error['remedy']}".rstrip())
    return decoded


def _over_http(url: str, key: str, method: str, payload: bytes) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(url, payload or None, headers, method=method)  # noqa: S310 - our own gate
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_TIMEOUT) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        raise CommandFailed(f"The gate at {url} does not answer: {error}.") from None


async def _in_process(settings: Settings, method: str, path: str, payload: bytes) -> tuple[int, bytes]:
    from hubgate.wiring import open_gate

    with GateLock(settings.home):
        async with open_gate(settings) as gate:
            key = secrets.token_urlsafe(32)
            gate.access.admit_cli(key)
            if gate.first_admin_key:
                print(f"The gate's admin key, shown only this once: {gate.first_admin_key}", file=sys.stderr)
            status, parts = 0, []

            async def receive() -> Message:
                return {"type": "http.request", "body": payload, "more_body": False}

            async def send(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                parts.append(message.get("body", b""))

            scope: Scope = {
                "type": "http",
                "method": method,
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": b"",
                "headers": [(b"authorization", b"Bearer " + key.encode())],
            }
            await gate.app(scope, receive, send)
            return status, b"".join(parts)
