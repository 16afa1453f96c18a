"""Cohere's `/v1/chat` and `/v2/chat`, made of the engine's chat completion."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Chat
from hubgate.web.cohere.chat_replies import render_v1, render_v2
from hubgate.web.cohere.chat_requests import fields_of_v1, fields_of_v2
from hubgate.web.cohere.chat_streams import V1Stream, V2Stream
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields, generate, stream
from hubgate.web.shared.sse import StreamEncoder


class _Version(NamedTuple):
    read: Callable[[Fields], dict[str, bytes]]
    render: Callable[[bytes, str, bytes], bytes]
    encoder: Callable[[str, bytes], StreamEncoder]
    stream_type: bytes


_VERSIONS = {
    1: _Version(fields_of_v1, render_v1, V1Stream, b"application/stream+json"),
    2: _Version(fields_of_v2, render_v2, V2Stream, b"text/event-stream"),
}


def handle_chat(exchange: Exchange, fields: Fields, version: int) -> Awaitable[None]:
    of_version = _VERSIONS[version]
    is_streamed = fields.flag("stream")
    call = Chat(fields=of_version.read(fields), context=exchange.context.call_context())
    return (_stream if is_streamed else _respond)(exchange, call, of_version)


async def _respond(exchange: Exchange, call: Chat, version: _Version) -> None:
    body = (await generate(exchange, call)).body
    reply_id, prompt = exchange.context.request_id, call.fields["messages"]
    await exchange.respond(await off_loop(len(body) + len(prompt), version.render, body, reply_id, prompt))


async def _stream(exchange: Exchange, call: Chat, version: _Version) -> None:
    encoder = version.encoder(exchange.context.request_id, call.fields["messages"])
    await exchange.send_stream(await stream(exchange, call), encoder, version.stream_type)
