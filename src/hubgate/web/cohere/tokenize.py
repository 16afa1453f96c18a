"""Cohere's `/v1/tokenize`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hubgate.domain.calls import Token, Tokenize, Tokens
from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.web.http.asgi import decode
from hubgate.web.shared.exchange import Exchange

_MAX_CHARS = 65_536
"""Cohere's limit."""


class _TokenizeForm(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    model: str | None = None


_TOKENIZE = msgspec.json.Decoder(_TokenizeForm)


async def handle_tokenize(exchange: Exchange, body: bytes) -> None:
    text = decode(body, _TOKENIZE).text
    if not text:
        raise InvalidRequest("[text] is an empty string.", remedy="Send a text.")
    if len(text) > _MAX_CHARS:
        raise InvalidRequest(
            f"[text] has more than {_MAX_CHARS:,} characters.",
            remedy="Tokenize it in parts.",
            cause=Cause.INPUT_TOO_LONG,
        )
    call = Tokenize(texts=(text,), add_special_tokens=False, context=exchange.context.call_context())
    result = await exchange.gateway.inference.infer(exchange.endpoint.name, call)
    assert isinstance(result, Tokens)  # noqa: S101 - Tokenize returns Tokens
    tokens = result.items[0]
    reply = {
        "tokens": [token.id for token in tokens],
        "token_strings": list(_parts(text, tokens)),
        "meta": {"api_version": {"version": "1"}},
    }
    await exchange.respond(msgspec.json.encode(reply))


def _parts(text: str, tokens: Sequence[Token]) -> Iterator[str]:
    """The text that each token covers, with the white space before it.

    Joined, they are the whole text, as at Cohere: Dify cuts texts with them.
    """
    start = 0
    for token in tokens[:-1]:
        stop = max(start, token.stop or 0)
        yield text[start:stop]
        start = stop
    if tokens:
        yield text[start:]
