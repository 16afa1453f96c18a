"""OpenAI's chat and text completions, at the root and below an endpoint's own base URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hubgate.core.off_loop import off_loop, total
from hubgate.core.transcoding import Label, merge_completions, text_of, to_openai
from hubgate.core.transcoding.objects import Usage
from hubgate.core.transcoding.streams import openai_transcoder
from hubgate.domain.calls import Chat, Complete, Generated, GenerationCall, WireFormat
from hubgate.domain.errors import InvalidRequest
from hubgate.web.shared.embeddings import estimate_tokens, parse_texts
from hubgate.web.shared.exchange import Exchange, all_or_none
from hubgate.web.shared.generation import Fields, generate, label_of, stream
from hubgate.web.shared.sse import SseEncoder

DONE = b"data: [DONE]\n\n"


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Delivery(msgspec.Struct):
    streamed: bool = False
    with_usage: bool = False


_WHOLE = _Delivery()


async def handle_chat(exchange: Exchange, fields: Fields) -> None:
    """`POST …/chat/completions`."""
    delivery = _delivery(fields)
    if not fields.rest.get("messages", b"").startswith(b"["):
        raise InvalidRequest(
            "[messages] must be a list of messages.",
            remedy='Send for example [{"role": "user", "content": "Hello"}].',
        )
    call = Chat(fields=fields.rest, context=exchange.context.call_context())
    if delivery.streamed:
        await _stream(exchange, call, delivery)
    else:
        await exchange.respond((await generate(exchange, call)).body)


async def handle_completions(exchange: Exchange, fields: Fields) -> None:
    """`POST …/completions`. Each prompt is a call of its own."""
    delivery, prompts, echo = _delivery(fields), _prompts(fields.take("prompt")), fields.flag("echo")
    call_context = exchange.context.call_context()
    calls = [
        Complete(prompt=prompt, fields=fields.rest, full_text=echo, context=call_context)
        for prompt in prompts
    ]
    if not delivery.streamed:
        bodies = await _write_all(exchange, calls)
        await exchange.respond(await off_loop(total(bodies), merge_completions, bodies))
    elif len(calls) > 1:
        raise InvalidRequest(
            f"[prompt] has {len(calls)} texts, but a stream can have only one.",
            remedy="Send each in its own request, or omit [stream].",
        )
    else:
        await _stream(exchange, calls[0], delivery)


async def _stream(exchange: Exchange, call: GenerationCall, delivery: _Delivery) -> None:
    events = await stream(exchange, call)
    before = call.prompt if isinstance(call, Complete) and call.full_text else ""
    speller = openai_transcoder(
        events.wire_format,
        label_of(exchange),
        with_usage=delivery.with_usage,
        with_logprobs=_with_logprobs(call),
        before=before,
    )
    await exchange.send_stream(
        events, SseEncoder(speller, render_error=exchange.render_stream_error, done=DONE)
    )


async def _write_all(exchange: Exchange, calls: Sequence[Complete]) -> list[bytes]:
    label = label_of(exchange)

    async def one(call: Complete) -> bytes:
        generated = await generate(exchange, call)
        return await off_loop(len(generated.body), _as_openai, call, generated, label)

    return await all_or_none(one(call) for call in calls)


def _as_openai(call: Complete, generated: Generated, label: Label) -> bytes:
    return to_openai(
        generated,
        label,
        usage=_estimated(call, generated),
        with_logprobs=_with_logprobs(call),
        before=call.prompt if call.full_text else "",
    )


def _estimated(call: Complete, generated: Generated) -> Usage | None:
    """An estimate for servers of TGI's API that report no usage: langchain requires one."""
    if generated.tokens is not None or generated.wire_format is WireFormat.OPENAI:
        return None
    prompt, completion = estimate_tokens((call.prompt,)), estimate_tokens((text_of(generated),))
    completion -= prompt if call.full_text else 0
    return Usage(prompt, completion, prompt + completion, estimated=True)


def _with_logprobs(call: GenerationCall) -> bool:
    return call.fields.get("logprobs", b"null") != b"null"


def _delivery(fields: Fields) -> _Delivery:
    rest = fields.rest
    rest.pop("model", None)
    if "stream" not in rest and "stream_options" not in rest:
        return _WHOLE
    options = fields.take("stream_options", _StreamOptions)
    return _Delivery(fields.flag("stream"), bool(options and options.include_usage))


def _prompts(given: Any) -> Sequence[str]:
    if given is None:
        raise InvalidRequest("[prompt] is required.", remedy="Send a string, or a list of strings.")
    if not isinstance(given, str | list):
        raise InvalidRequest("[prompt] must be a string or an array of strings.")
    return parse_texts(given, "prompt")
