"""text-generation-inference's (TGI's) `/generate`, `/generate_stream` and `POST /`."""

from __future__ import annotations

from typing import Any

import msgspec

from hubgate.core.off_loop import off_loop
from hubgate.core.transcoding import to_tgi
from hubgate.core.transcoding.streams import tgi_transcoder
from hubgate.domain.calls import Complete
from hubgate.domain.errors import InvalidRequest
from hubgate.web.huggingface.errors import render_tgi
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields, generate, stream
from hubgate.web.shared.sse import SseEncoder

# `Complete` uses OpenAI's name for a parameter where there is one.
_OPENAI_NAMES = {"max_new_tokens": "max_tokens", "stop_sequences": "stop", "top_n_tokens": "logprobs"}
GENERATION_FIELDS = frozenset(
    {
        "best_of",
        "details",
        "do_sample",
        "frequency_penalty",
        "max_new_tokens",
        "max_tokens",
        "repetition_penalty",
        "return_full_text",
        "seed",
        "stop",
        "stop_sequences",
        "stream",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
"""Fields that only a request to generate text has, at its root or in `parameters`."""
_KNOWN = ("inputs", "parameters", "stream", "options", "model")


async def handle_generation(
    exchange: Exchange, fields: Fields, *, streamed: bool | None = None, listed: bool = False
) -> None:
    """Generate text.

    Args:
        exchange: the request.
        fields: its body.
        streamed: whether to stream; `None` to follow `stream` in the body.
        listed: whether the reply is wrapped in a list, as at `POST /`.
    """
    exchange.context.other_render_error = render_tgi
    prompt, wants_stream = _prompt(fields), fields.flag("stream")
    parameters = Fields(fields.take("parameters", dict[str, msgspec.Raw]) or {})
    _refuse_unknown(fields)
    full_text, details = parameters.flag("return_full_text"), parameters.flag("details")
    call = Complete(
        prompt=prompt,
        fields={_OPENAI_NAMES.get(name, name): value for name, value in parameters.rest.items()},
        full_text=full_text,
        context=exchange.context.call_context(),
    )
    if wants_stream if streamed is None else streamed:
        events = await stream(exchange, call)
        speller = tgi_transcoder(events.wire_format, before=prompt if full_text else "")
        await exchange.send_stream(events, SseEncoder(speller, render_error=render_tgi, before=b"data:"))
        return
    generated = await generate(exchange, call)
    body = await off_loop(len(generated.body), to_tgi, generated, details=details)
    await exchange.respond(b"[%b]" % body if listed else body)


def _prompt(fields: Fields) -> str:
    inputs: Any = fields.take("inputs")
    if not isinstance(inputs, str) or not inputs:
        raise InvalidRequest(
            "[inputs] must be a non-empty string.",
            remedy="Send one text per request; for a conversation send [messages].",
        )
    return inputs


def _refuse_unknown(fields: Fields) -> None:
    if unknown := sorted(fields.rest.keys() - set(_KNOWN)):
        named = ", ".join(f"[{name[:100]}]" for name in unknown[:20])
        raise InvalidRequest(
            f"Unknown fields in the body: {named}.",
            remedy="Put parameters into [parameters].",
        )
