"""Requests and responses on plain ASGI, for the hot routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from hubgate.core.off_loop import LARGE_BYTES, off_loop
from hubgate.domain.errors import BodyTooLarge, InvalidRequest
from hubgate.web.schemas.validation import validation_message

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

T = TypeVar("T")
JSON = b"application/json"
PART_BYTES = 512 * 1024
MAX_VALUES = 1 << 19
"""Of the JSON in one body, counted as commas and opening brackets: more than a chat of a million tokens has."""
_SCANNED_BYTES = 256 * 1024
"""Of a body at once: `bytes` methods hold the interpreter lock."""


def render_headers(headers: Headers) -> bytes:
    """Headers as they are sent. Names are in lower case, as ASGI demands.

    Raises:
        RuntimeError: one has a line break.
    """
    parts = [b"%b: %b\r\n" % header for header in headers]
    lines = b"".join(parts)
    if lines.count(b"\n") + lines.count(b"\r") + lines.count(b"\0") != 2 * len(parts):
        raise RuntimeError("a header of the response has a line break")
    return lines


def take_arrived(receive: Receive) -> bytes | None:
    """The whole body, if it has arrived: see `Body.take_arrived`."""
    take = getattr(receive, "take_arrived", None)
    arrived: bytes | None = None if take is None else take()
    return arrived


async def read_body(receive: Receive) -> bytes:
    """Read the whole request body; the guard bounds its size.

    Raises:
        ClientDisconnect: the client disconnected before the end.
    """
    if (arrived := take_arrived(receive)) is not None:
        return arrived
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return body


async def read_json_body(request: Request) -> bytes:
    """The whole body of a request that is not for a hot route.

    Raises:
        BodyTooLarge: it has too many values.
    """
    body = await request.body()
    await off_loop(len(body), check_values, body)
    return body


def check_values(body: bytes) -> None:
    """Check that JSON is decoded in a fraction of a second: even in a thread, the parser holds the interpreter lock.

    Raises:
        BodyTooLarge: the body is larger than 1 MiB and has more than `MAX_VALUES` values.
    """
    if len(body) <= LARGE_BYTES or _marks(body) <= MAX_VALUES:
        return
    values = start = 0
    in_string = False
    while start < len(body):
        part = body[start : start + _SCANNED_BYTES]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:  # do not cut an escape in two
            part = body[start : start + _SCANNED_BYTES + 1]
        start += len(part)
        pieces = part.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        values += _marks(b"".join(pieces[in_string::2]))
        in_string ^= len(pieces) % 2 == 0
        if values > MAX_VALUES:
            raise BodyTooLarge(
                f"The request body has more than {MAX_VALUES:,} values.",
                remedy="Send them in several requests.",
            )


def _marks(json: bytes) -> int:
    return json.count(b",") + json.count(b"[") + json.count(b"{")


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode JSON.

    Raises:
        InvalidRequest: the body is not valid JSON or UTF-8, or does not match the decoder's type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(validation_message(error, decoder.type)) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid JSON: it is not UTF-8.") from None
    except msgspec.DecodeError as error:
        reason = str(error) if body else "it is empty"
        raise InvalidRequest(f"The request body is not valid JSON: {reason}.") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply.") from None


def respond(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()
) -> Awaitable[None]:
    """Send a response, in one step if `send` can do that."""
    whole = getattr(send, "respond", None)
    if whole is None or len(body) > PART_BYTES:
        return send_in_parts(send, status, body, content_type, headers)
    response: Awaitable[None] = whole(status, body, content_type, headers)
    return response


async def send_in_parts(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    # A single write of a large body would block the event loop. Each part waits until the client has read the one before.
    last = max(0, (len(body) - 1) // PART_BYTES * PART_BYTES)
    for start in range(0, last, PART_BYTES):
        part = body[start : start + PART_BYTES]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": body[last:]})
