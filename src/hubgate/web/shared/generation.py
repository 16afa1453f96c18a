"""What faces share about text generation: reading fields, calling the endpoint, and recording usage."""

from __future__ import annotations

import functools
import time
from typing import Any

import msgspec

from hubgate.core.generation import ManagedStream
from hubgate.core.off_loop import LARGE_BYTES
from hubgate.core.transcoding import Label
from hubgate.domain.calls import Chat, Generated, GenerationCall
from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import InvalidRequest, WrongTask
from hubgate.web.http.asgi import decode
from hubgate.web.schemas.validation import validation_message
from hubgate.web.shared.exchange import Exchange

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL = b"null"


class Fields:
    """The fields of a body as raw JSON. `take` removes those that hubgate handles; the `rest` goes to the engine unchanged.

    A field that is `null` counts as absent.

    Raises:
        InvalidRequest: the body is not a JSON object.
    """

    def __init__(self, body: bytes | dict[str, msgspec.Raw]) -> None:
        fields = decode(body, _FIELDS) if isinstance(body, bytes) else body
        self.rest: dict[str, bytes] = {
            name: raw for name, value in fields.items() if (raw := bytes(value)) != _NULL
        }

    def __contains__(self, name: str) -> bool:
        return name in self.rest

    def take(self, name: str, kind: Any = Any) -> Any:
        """Remove a field and return its value; `None` if it is absent.

        Raises:
            InvalidRequest: it is not of the type `kind`.
        """
        raw = self.rest.pop(name, None)
        return None if raw is None else decode_field(raw, kind, name)

    def take_items(self, name: str, kind: Any) -> list[Any] | None:
        """`take` for a list of items of this type: see `decode_items`."""
        raw = self.rest.pop(name, None)
        return None if raw is None else decode_items(raw, kind, name)

    def flag(self, name: str) -> bool:
        return name in self.rest and bool(self.take(name, bool))


def decode_field(raw: bytes, kind: Any, name: str) -> Any:
    """Decode a field.

    Raises:
        InvalidRequest: it is not of the type `kind`.
    """
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidRequest(validation_message(error, kind, field=name)) from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"[{name}] is not valid UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"[{name}] is not valid JSON: {error}.") from None


def decode_items(raw: bytes, kind: Any, name: str) -> list[Any]:
    """Decode a list. The items of a large one are decoded one by one: even in a thread, the parser holds the GIL.

    Raises:
        InvalidRequest: it is not a list, or an item is not of the type `kind`.
    """
    if len(raw) <= LARGE_BYTES:
        items: list[Any] = decode_field(raw, list[kind], name)
        return items
    parts = decode_field(raw, list[msgspec.Raw], name)
    return [decode_field(part, kind, f"{name}[{index}]") for index, part in enumerate(parts)]


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """To prepare one takes longer than to decode a small field."""
    return msgspec.json.Decoder(kind)


async def generate(exchange: Exchange, call: GenerationCall) -> Generated:
    endpoint = exchange.endpoint
    check_supported(endpoint, call)
    generated = await exchange.gateway.inference.generate(endpoint.name, call)
    exchange.context.hold(len(generated.body))
    exchange.record(
        texts=1,
        tokens=generated.tokens,
        waited=generated.waited,
        prompt_tokens=generated.prompt_tokens,
    )
    return generated


async def stream(exchange: Exchange, call: GenerationCall) -> ManagedStream:
    """Open a stream, which the caller must close. `send_stream` records its tokens."""
    check_supported(exchange.endpoint, call)
    events = await exchange.gateway.inference.stream(exchange.endpoint.name, call)
    exchange.record(texts=1, tokens=None, waited=events.waited)
    return events


def label_of(exchange: Exchange) -> Label:
    """The id, model and time of a reply that hubgate renders in OpenAI's format."""
    return Label(f"cmpl-{exchange.context.request_id}", exchange.endpoint.name, int(time.time()))


def check_supported(endpoint: Endpoint, call: GenerationCall) -> None:
    """Check that the model supports chats, or plain texts, as the call requires.

    Raises:
        WrongTask: the model supports only chats, or only text completions.
    """
    facts = endpoint.facts
    if isinstance(call, Chat) and facts.chats is False:
        raise WrongTask(
            endpoint.name,
            requested=Task.CHAT_COMPLETION,
            actual="texts without roles",
            remedy="Send a single text instead: the model has no chat template, or its server does not support chats.",
        )
    if not isinstance(call, Chat) and facts.completes is False:
        raise WrongTask(
            endpoint.name,
            requested=Task.COMPLETION,
            actual="conversations",
            remedy="Send [messages] to its chat route instead.",
        )
