"""Local models that generate text: calls in, OpenAI's objects and chunks out."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from hubgate.domain.calls import Chat, Complete, Generated, GenerationCall, WireFormat
from hubgate.runtime.protocol import GenerateText, TextPiece
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local.options import messages_of, sampling_options, template_options


class LocalGenerator:
    """One endpoint's use of a local model. Implements `domain.ports.TextGenerator`.

    Args:
        model: opens the model, at the first call.
        release: releases it.
        name: of the model, for the replies.
    """

    def __init__(
        self,
        model: Callable[[], Awaitable[LocalModel]],
        release: Callable[[], Awaitable[None]],
        name: str,
    ) -> None:
        self._model = model
        self._release = release
        self._name = name

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded.
        """
        await (await self._model()).ready()

    async def generate(self, call: GenerationCall) -> Generated:
        """The whole text. All token counts are exact.

        Raises:
            InvalidRequest: the prompt is too long, or the model does not support the call or one of its options.
            RuntimeFailed: the model cannot be found, loaded or run.
        """
        text = []
        async with aclosing(await self._pieces(call)) as pieces:
            async for piece in pieces:
                text.append(piece.text)
        reply = _Reply(call, self._name)
        return Generated(
            body=orjson.dumps(reply.whole("".join(text), piece)),
            wire_format=WireFormat.OPENAI,
            prompt_tokens=piece.prompt_tokens,
            tokens=piece.prompt_tokens + piece.tokens,
        )

    async def stream(self, call: GenerationCall) -> LocalEvents:
        """The text while it is generated; returns with its first piece.

        Raises:
            InvalidRequest, RuntimeFailed: see `generate`.
        """
        pieces = await self._pieces(call)
        try:
            first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return LocalEvents(_Reply(call, self._name), first, pieces)

    async def close(self) -> None:
        """Release the model."""
        await self._release()

    async def _pieces(self, call: GenerationCall) -> AsyncGenerator[TextPiece]:
        request_of = _request(call)
        return (await self._model()).stream(request_of)


class LocalEvents:
    """Implements `domain.ports.Events`. Closing it stops the model."""

    wire_format = WireFormat.OPENAI

    def __init__(self, reply: _Reply, first: TextPiece, pieces: AsyncGenerator[TextPiece]) -> None:
        self._reply = reply
        self._first = first
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The chunks, as the model generates them."""
        yield [*self._reply.opening(), *self._reply.chunks(self._first)]
        async for piece in self._pieces:
            yield self._reply.chunks(piece)

    async def aclose(self) -> None:
        """End the text."""
        await self._pieces.aclose()


class _Reply:
    """The objects of one reply."""

    def __init__(self, call: GenerationCall, model: str) -> None:
        self._chat = isinstance(call, Chat)
        self._before = call.prompt if isinstance(call, Complete) and call.full_text else ""
        kind, prefix = ("chat.completion", "chatcmpl") if self._chat else ("text_completion", "cmpl")
        self._kind = kind
        self._common = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, last: TextPiece) -> dict[str, Any]:
        """A reply that is not streamed."""
        content = (
            {"message": {"role": "assistant", "content": text}}
            if self._chat
            else {"text": self._before + text}
        )
        choice = {**content, "logprobs": None, **_end(last)}
        return {
            **self._common,
            "object": self._kind,
            "choices": [{"index": 0, **choice}],
            "usage": _usage(last),
        }

    def opening(self) -> list[bytes]:
        """The chunk before the text: the role in a chat, the prompt if it belongs to the text."""
        if self._chat:
            return [self._chunk({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})]
        return [self._chunk({"text": self._before, "finish_reason": None})] if self._before else []

    def chunks(self, piece: TextPiece) -> list[bytes]:
        """The chunks of a piece; after the last one, the usage in a chunk of its own."""
        content = {"delta": {"content": piece.text}} if self._chat else {"text": piece.text}
        if piece.finish_reason is None:
            return [self._chunk({**content, "finish_reason": None})]
        usage = {**self._head(), "choices": [], "usage": _usage(piece)}
        return [self._chunk({**content, **_end(piece)}), orjson.dumps(usage)]

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return orjson.dumps({**self._head(), "choices": [{"index": 0, **choice, "logprobs": None}]})

    def _head(self) -> dict[str, Any]:
        return {**self._common, "object": f"{self._kind}.chunk" if self._chat else self._kind}


def _end(last: TextPiece) -> dict[str, str | None]:
    """VLLM's `stop_reason` distinguishes a stop sequence from the model's own end."""
    found = {} if last.stop is None else {"stop_reason": last.stop}
    return {"finish_reason": last.finish_reason, **found}


def _usage(last: TextPiece) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.tokens,
        "total_tokens": last.prompt_tokens + last.tokens,
    }


def _request(call: GenerationCall) -> Callable[[int], GenerateText]:
    """Raises: InvalidRequest."""
    options, context = sampling_options(call), call.context
    prompt = call.prompt if isinstance(call, Complete) else ""
    messages = messages_of(call) if isinstance(call, Chat) else None
    template = template_options(call) if isinstance(call, Chat) else {}
    return lambda number: GenerateText(
        number, prompt, messages, template, options, context.caller, context.bulk
    )
