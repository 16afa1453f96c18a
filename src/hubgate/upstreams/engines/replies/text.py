"""Reads generated text: the bytes are passed on unchanged, and only the token counts are parsed.

{"choices", "usage"}                          OpenAI's routes
{"output", "usage"}                           its `/v1/responses`
{"generated_text", "details"}                 text-generation-inference's /generate
[{"generated_text"}], [[{"generated_text"}]]  its `/`, hf-inference, the toolkit, handlers that return lists
[{"summary_text"}], [{"translation_text"}]    the toolkit's tasks summarization and translation
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

import msgspec
import orjson

from hubgate.domain.calls import Chat, Generated, GenerationCall, WireFormat
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.generation import GenerationRoute
from hubgate.upstreams.engines.json_fields import stop_sequences
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.routes import header_number
from hubgate.upstreams.http.messages import HttpReply

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]
_WHITE = b" \t\r\n"
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None


class _Choices(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage | None = None


class _ResponseUsage(msgspec.Struct):
    input_tokens: _Count | None = None
    total_tokens: _Count | None = None


class _Response(msgspec.Struct):
    output: list[msgspec.Raw]
    usage: _ResponseUsage | None = None


class _Details(msgspec.Struct):
    generated_tokens: _Count | None = None


class _Text(msgspec.Struct):
    generated_text: str | None = None
    summary_text: str | None = None
    translation_text: str | None = None
    details: _Details | None = None


class _ChunkChoice(msgspec.Struct):
    index: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None


_CHOICES = msgspec.json.Decoder(_Choices)
_RESPONSE = msgspec.json.Decoder(_Response)
_CHUNK = msgspec.json.Decoder(_Chunk)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EACH_FIELDS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_STRING = msgspec.json.Decoder(str | None)
_TEXT = msgspec.json.Decoder(_Text)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def read_generated(route: GenerationRoute, call: GenerationCall, reply: HttpReply) -> Generated:
    """The generated text in a server's reply.

    Raises:
        UpstreamUnreadable: the reply does not contain any.
    """
    if reply.is_html:
        raise UpstreamUnreadable(
            "The server sent a web page instead of text.",
            remedy="Check the URL: it must be the model server's own, not a page about it or a login page.",
            cause=Cause.NOT_AN_API,
        )
    body, wire_format = reply.body, route.wire_format
    if not is_utf8(body):
        raise not_utf8()
    try:
        body, prompt_tokens, tokens = _READERS[wire_format](reply)
        if wire_format is WireFormat.TGI or not isinstance(call, Chat):
            body = _finished(route, call, body)
            wire_format = wire_format_of(route, call)
    except _UNREADABLE as error:
        raise _no_text() from error
    return Generated(
        body=body,
        wire_format=wire_format,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        quota=quota(reply.headers),
    )


def wire_format_of(route: GenerationRoute, call: GenerationCall) -> WireFormat:
    """The format of `read_generated` and `as_payload`: the route's, but a text that answers a chat becomes one."""
    is_chat_text = isinstance(call, Chat) and route.wire_format is WireFormat.TGI
    return WireFormat.OPENAI if is_chat_text else route.wire_format


def as_payload(call: GenerationCall, generated: Generated) -> bytes:
    """A whole text as the only payload of a stream; for a completion, in the format of TGI's last event."""
    reply = orjson.loads(generated.body)
    if isinstance(call, Chat):
        return _chat("chat.completion.chunk", "delta", reply["choices"][0]["message"]["content"])
    text = reply["generated_text"]
    token = {"id": 0, "text": text, "logprob": None, "special": False}
    whole = call.prompt + text if call.full_text else text
    return orjson.dumps({"index": 1, "token": token, "generated_text": whole, "details": None})


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8: a JSON parser does not check the strings that it skips."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def not_utf8() -> UpstreamUnreadable:
    """The error for generated text that no client could read."""
    return UpstreamUnreadable(
        "The server's reply is not valid UTF-8.",
        remedy="Check the model server: it may split characters, or use another encoding.",
    )


def with_prompt(body: bytes, prompt: str, wire_format: WireFormat) -> bytes:
    """A whole reply or a first chunk, with the prompt before its text.

    Raises:
        UpstreamUnreadable: it contains no text.
    """
    try:
        fields = _FIELDS.decode(body)
        if wire_format is not WireFormat.OPENAI:
            return msgspec.json.encode(fields | {"generated_text": _after(prompt, fields, "generated_text")})
        choices = [
            choice | {"text": _after(prompt, choice, "text")}
            for choice in _EACH_FIELDS.decode(fields.get("choices", b"[]"))
        ]
        return msgspec.json.encode(fields | {"choices": choices})
    except _UNREADABLE as error:
        raise _no_text() from error


def choices_in(payload: bytes) -> set[int | None]:
    """The indices of the choices in a chunk.

    Raises:
        UpstreamUnreadable: it is not in OpenAI's format.
    """
    try:
        return {choice.index for choice in _CHUNK.decode(payload).choices or ()}
    except _UNREADABLE as error:
        raise _no_text() from error


def _no_text() -> UpstreamUnreadable:
    return UpstreamUnreadable(
        "The server's reply contains no generated text in any known format.",
        remedy="Check that its model generates text; a custom handler must reply as one of the servers does.",
    )


def _after(prompt: str, fields: dict[str, msgspec.Raw], name: str) -> str:
    return prompt + (_STRING.decode(fields[name]) or "" if name in fields else "")


def _from_choices(reply: HttpReply) -> tuple[bytes, int | None, int | None]:
    usage = _CHOICES.decode(reply.body).usage
    if usage is None:
        return reply.body, None, None
    tokens = usage.total_tokens
    if tokens is None and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        tokens = usage.prompt_tokens + usage.completion_tokens
    return reply.body, usage.prompt_tokens, tokens


def _from_response(reply: HttpReply) -> tuple[bytes, int | None, int | None]:
    usage = _RESPONSE.decode(reply.body).usage or _ResponseUsage()
    return reply.body, usage.input_tokens, usage.total_tokens


def _from_text(reply: HttpReply) -> tuple[bytes, int | None, int | None]:
    body = reply.body.strip(_WHITE)
    while body[:1] == b"[":
        items = _LIST.decode(body)
        if len(items) != 1:
            raise ValueError("not one text")
        body = bytes(items[0]).strip(_WHITE)
    decoded = _TEXT.decode(body)
    if decoded.generated_text is None:
        text = decoded.summary_text if decoded.translation_text is None else decoded.translation_text
        if text is None:
            raise ValueError("no text")
        body = msgspec.json.encode({"generated_text": text})
    details = decoded.details
    prompt, generated = header_number(reply, "x-prompt-tokens"), header_number(reply, "x-generated-tokens")
    if generated is None and details is not None:
        generated = details.generated_tokens
    total = None if prompt is None or generated is None else prompt + generated
    return body, prompt, total


_READERS = {
    WireFormat.OPENAI: _from_choices,
    WireFormat.RESPONSES: _from_response,
    WireFormat.TGI: _from_text,
}


def _finished(route: GenerationRoute, call: GenerationCall, body: bytes) -> bytes:
    """Does what the server cannot: stop at a stop sequence, put the prompt before the text, make a chat of a text."""
    stops = [] if route.supports_stop else stop_sequences(call.fields)
    if stops:
        fields: dict[str, Any] = orjson.loads(body)
        fields["generated_text"] = _until(fields["generated_text"], stops)
        body = orjson.dumps(fields)
    if isinstance(call, Chat):
        is_text = route.wire_format is WireFormat.TGI
        return _chat("chat.completion", "message", orjson.loads(body)["generated_text"]) if is_text else body
    if call.full_text and not route.returns_prompt:
        body = with_prompt(body, call.prompt, route.wire_format)
    return body


def _chat(kind: str, field: str, text: str) -> bytes:
    choice = {"index": 0, field: {"role": "assistant", "content": text}, "finish_reason": "stop"}
    reply = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": "",
    }
    return orjson.dumps(reply | {"choices": [choice]})


def _until(text: str, stops: list[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=None)]
