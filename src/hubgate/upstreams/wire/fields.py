"""Bodies made of raw JSON values: what is not respelled goes to the server byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import orjson

from hubgate.domain.errors import InvalidRequest
from hubgate.upstreams.messages import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NULL, TRUE, FALSE = b"null", b"true", b"false"
_NOTHING = frozenset({NULL, FALSE, b"0", b"0.0", b"[]", b"{}", b'""'})


def json_object(fields: Mapping[str, bytes]) -> bytes:
    """The object of these fields, in their order."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + raw for name, raw in fields.items()) + b"}"


def json_text(text: str) -> bytes:
    """A text as JSON.

    Raises:
        InvalidRequest: it holds half of a surrogate pair, which no encoding can carry.
    """
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(
            "A text is not valid Unicode: it holds half of a surrogate pair.", remedy="Repair the text."
        ) from error


def post(url: str, body: bytes) -> HttpRequest:
    """A POST of a JSON body."""
    return HttpRequest(method="POST", url=url, headers={"Content-Type": "application/json"}, body=body)


def renamed(fields: Mapping[str, bytes], names: Mapping[str, str]) -> dict[str, bytes]:
    """The fields under the names that the server knows; of two that become one, the one of the old name stays."""
    taken = {names[name] for name in fields if name in names}
    return {names.get(name, name): raw for name, raw in fields.items() if name not in taken}


_UNASKED = frozenset({("typical_p", b"0.95")})
"""What langchain's HuggingFaceEndpoint sends unless it is told not to: nobody wished for it."""


def said(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fields without those that are null, which many clients send for what they do not want."""
    return {name: raw for name, raw in fields.items() if raw != NULL}


def listed(raw: bytes) -> bytes:
    """A text or a list of texts, as a list."""
    return b"[" + raw + b"]" if raw[:1] == b'"' else raw


_STOPS = msgspec.json.Decoder(str | list[str] | None)


def stops_in(fields: Mapping[str, bytes]) -> list[str]:
    """The texts at which to end.

    Raises:
        InvalidRequest: they are something else.
    """
    try:
        stops = _STOPS.decode(fields.get("stop", NULL))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest("[stop] must be a text, or a list of texts.") from error
    return [stops] if isinstance(stops, str) else stops or []


def is_off(name: str, raw: bytes) -> bool:
    """Whether a parameter asks for nothing, so that a server that does not know it does as is asked."""
    return raw in _NOTHING or (raw == b"1" and name in {"n", "best_of"}) or (name, raw) in _UNASKED


def unknown(server: str, names: Iterable[str]) -> InvalidRequest:
    """The error for parameters that a server would pass over in silence."""
    named = ", ".join(f"[{name}]" for name in sorted(names))
    return InvalidRequest(
        f"This endpoint's server, {server}, knows no {named}.", remedy="Leave out what it does not know."
    )
