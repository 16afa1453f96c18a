"""Reads the text that a server made: its bytes stay as they are, and only the tokens are looked for.

{"choices", "usage"}                          OpenAI's routes
{"generated_text", "details"}                 text-generation-inference's /generate
[{"generated_text"}], [[{"generated_text"}]]  its `/`, hf-inference, the toolkit, handlers that answer lists
[{"summary_text"}], [{"translation_text"}]    the toolkit's tasks summarization and translation
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import orjson

from hubgate.domain.calls import Complete, Generated, GenerationCall, WireFormat
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.generation import Form
from hubgate.upstreams.engines.json_fields import stop_sequences
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.routes import header_number
from hubgate.upstreams.http.messages import HttpReply

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]
_WHITE = b" \t\r\n"


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None


class _Choices(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage | None = None


class _Details(msgspec.Struct):
    generated_tokens: _Count | None = None


class _Text(msgspec.Struct):
    generated_text: str | None = None
    summary_text: str | None = None
    translation_text: str | None = None
    details: _Details | None = None


class _Place(msgspec.Struct):
    index: int | None = None


class _Places(msgspec.Struct):
    choices: list[_Place] | None = None


_CHOICES = msgspec.json.Decoder(_Choices)
_PLACES = msgspec.json.Decoder(_Places)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EACH_FIELDS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_SAID = msgspec.json.Decoder(str | None)
_TEXT = msgspec.json.Decoder(_Text)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def read_generated(form: Form, call: GenerationCall, reply: HttpReply) -> Generated:
    """The text of a call, out of the server's reply.

    Raises:
        UpstreamUnreadable: the reply does not hold it.
    """
    if reply.is_html:
        raise UpstreamUnreadable(
            "The server sent a web page, not a text.",
            remedy="Check the URL: it must be the model server's own, not a page about it or a log-in.",
            cause=Cause.NOT_AN_API,
        )
    if not is_utf8(reply.body):
        raise not_utf8()
    with _reading():
        read = _from_choices if form.wire_format is WireFormat.OPENAI else _from_text
        body, prompt_tokens, tokens = read(reply)
        if isinstance(call, Complete):
            body = _as_asked(form, call, body)
    return Generated(
        body=body,
        wire_format=form.wire_format,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        quota=quota(reply.headers),
    )


def is_utf8(text: bytes) -> bool:
    """Whether it is: a JSON parser passes over strings that it is not asked for, and does not look."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def not_utf8() -> UpstreamUnreadable:
    """The error for generated text that is not UTF-8, which no client could read."""
    return UpstreamUnreadable(
        "The server's reply is not valid UTF-8.",
        remedy="Check the model server: it may cut text in the middle of a character, or use another encoding.",
    )


def with_prompt(body: bytes, prompt: str, wire_format: WireFormat) -> bytes:
    """An object or a first chunk, with the prompt before its text.

    Raises:
        UpstreamUnreadable: it has none.
    """
    with _reading():
        said = _FIELDS.decode(body)
        if wire_format is not WireFormat.OPENAI:
            return msgspec.json.encode(said | {"generated_text": _after(prompt, said, "generated_text")})
        choices = [
            choice | {"text": _after(prompt, choice, "text")}
            for choice in _EACH_FIELDS.decode(said.get("choices", b"[]"))
        ]
        return msgspec.json.encode(said | {"choices": choices})


def places_in(payload: bytes) -> set[int | None]:
    """Which of several texts a chunk goes on with.

    Raises:
        UpstreamUnreadable: it is none of OpenAI's.
    """
    with _reading():
        return {choice.index for choice in _PLACES.decode(payload).choices or ()}


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamUnreadable(
            "The server's reply holds no generated text in any known shape.",
            remedy="Check that its model writes texts; a custom handler must answer as one of the servers does.",
        ) from error


def _after(prompt: str, fields: dict[str, msgspec.Raw], name: str) -> str:
    return prompt + (_SAID.decode(fields[name]) or "" if name in fields else "")


def _from_choices(reply: HttpReply) -> tuple[bytes, int | None, int | None]:
    usage = _CHOICES.decode(reply.body).usage or _Usage()
    tokens = usage.total_tokens
    if tokens is None and usage.prompt_tokens is not None and usage.completion_tokens is not None:
        tokens = usage.prompt_tokens + usage.completion_tokens
    return reply.body, usage.prompt_tokens, tokens


def _from_text(reply: HttpReply) -> tuple[bytes, int | None, int | None]:
    body = reply.body.strip(_WHITE)
    while body[:1] == b"[":
        items = _LIST.decode(body)
        if len(items) != 1:
            raise ValueError("not one text")
        body = bytes(items[0]).strip(_WHITE)
    said = _TEXT.decode(body)
    if said.generated_text is None:
        text = said.summary_text if said.translation_text is None else said.translation_text
        if text is None:
            raise ValueError("no text")
        body = msgspec.json.encode({"generated_text": text})
    details = said.details
    prompt, made = header_number(reply, "x-prompt-tokens"), header_number(reply, "x-generated-tokens")
    if made is None and details is not None:
        made = details.generated_tokens
    return body, prompt, prompt + made if prompt is not None and made is not None else None


def _as_asked(form: Form, call: Complete, body: bytes) -> bytes:
    """What the server does not do itself is done here: to end at a stop sequence, to put the prompt before."""
    stops = [] if form.supports_stop else stop_sequences(call.fields)
    if stops:
        said: dict[str, Any] = orjson.loads(body)
        said["generated_text"] = _until(said["generated_text"], stops)
        body = orjson.dumps(said)
    if call.full_text and not form.returns_prompt:
        body = with_prompt(body, call.prompt, form.wire_format)
    return body


def _until(text: str, stops: list[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=None)]
