"""What the faces share where a model writes: whom a call goes to, what it may ask, and what is written on the context."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from hubgate.core.generation import ManagedStream
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
    """The fields of a body, each as raw JSON. What is not taken out goes to the engine as it is.

    A field that is `null` is the same as one that is absent.

    Raises:
        InvalidRequest: the body is no JSON object.
    """

    def __init__(self, body: bytes | dict[str, msgspec.Raw]) -> None:
        given = decode(body, _FIELDS) if isinstance(body, bytes) else body
        raw = ((name, bytes(value)) for name, value in given.items())
        self.left = {name: value for name, value in raw if value != _NULL}

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def take(self, name: str, kind: Any = Any) -> Any:
        """A field's value; `None` where it is absent.

        Raises:
            InvalidRequest: it is of another type.
        """
        raw = self.left.pop(name, None)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as error:
            raise InvalidRequest(validation_message(error, kind, field=name)) from None
        except UnicodeDecodeError:
            raise InvalidRequest(f"[{name}] cannot be used: it is no UTF-8.") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest(f"[{name}] cannot be used: {error}.") from None

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it is absent."""
        return bool(self.take(name, bool))


async def generate(exchange: Exchange, call: GenerationCall) -> Generated:
    """Answer a call with all of the text.

    Raises:
        HubgateError: it cannot be answered.
    """
    check_supported(exchange.endpoint, call)
    generated = await exchange.gateway.inference.generate(exchange.endpoint.name, call)
    exchange.note(
        texts=1,
        tokens=generated.tokens,
        waited=generated.waited,
        prompt_tokens=generated.prompt_tokens,
    )
    return generated


async def stream(exchange: Exchange, call: GenerationCall) -> ManagedStream:
    """Answer a call while the text is being made; who asked closes what is returned.

    Raises:
        HubgateError: it cannot be answered.
    """
    check_supported(exchange.endpoint, call)
    events = await exchange.gateway.inference.stream(exchange.endpoint.name, call)
    exchange.note(texts=1, tokens=None, waited=events.waited)
    return events


def label_of(exchange: Exchange) -> Label:
    """What an answer that is spelled here says of itself."""
    return Label(f"cmpl-{exchange.context.request_id}", exchange.endpoint.name, int(time.time()))


def check_supported(endpoint: Endpoint, call: GenerationCall) -> None:
    """See whether a model can answer a call.

    Raises:
        WrongTask: it goes on with conversations alone, or with texts alone.
    """
    facts = endpoint.facts
    if isinstance(call, Chat) and facts.chats is False:
        raise WrongTask(
            endpoint.name,
            requested=Task.CHAT_COMPLETION,
            actual="texts without roles",
            remedy="Send it one text instead: its model has no chat template, or its server takes no conversations.",
        )
    if not isinstance(call, Chat) and facts.completes is False:
        raise WrongTask(
            endpoint.name,
            requested=Task.COMPLETION,
            actual="conversations",
            remedy="Send [messages] to its chat route instead.",
        )
