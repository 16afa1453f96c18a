"""Calls to registered endpoints, and fallback to another endpoint when one fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

from msgspec.structs import replace

from hubgate.core.chunking import Chunk
from hubgate.core.generation import ManagedStream
from hubgate.domain.calls import (
    TASK_OF_CALL,
    Call,
    Context,
    Embed,
    Generated,
    GenerationCall,
    Rerank,
    Result,
    Scores,
    SparseEmbed,
    SparseVectors,
    Tokenize,
    Vectors,
)
from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import Endpoint, InputType, Task
from hubgate.domain.errors import (
    Cause,
    DeadlineUnreachable,
    EndpointChanged,
    EndpointDisabled,
    EndpointNotFound,
    InvalidEndpoint,
    QueueFull,
    RuntimeFailed,
    UpstreamError,
    WrongTask,
)
from hubgate.service.inference.chunks import chunks_of, count_long
from hubgate.service.registry.live_endpoints import LiveEndpoint, LiveEndpoints
from hubgate.service.registry.validation import check_fallback

R = TypeVar("R")

_INPUT_ERRORS = frozenset({Cause.INPUT_REFUSED, Cause.INPUT_TOO_LONG, Cause.WRONG_TASK})
"""Another endpoint of the same model would fail in the same way."""

_log = logging.getLogger(__name__)


class Inference:
    """Calls to endpoints. If one fails, its fallback handles the call; a fallback's own fallback does not."""

    def __init__(self, live: LiveEndpoints) -> None:
        self._live = live

    def infer(self, name: str, call: Call) -> Coroutine[Any, Any, Result]:
        """Handle a call about texts.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: the call failed.
        """
        live = self._live.find(name)
        if live.endpoint.fallback is None:
            return self._infer(live, call)
        return self._run_or_fall_back(live, call.context, lambda live: self._infer(live, call))

    def embed(self, name: str, call: Embed) -> Coroutine[Any, Any, Vectors]:
        return cast("Coroutine[Any, Any, Vectors]", self.infer(name, call))

    def embed_sparse(self, name: str, call: SparseEmbed) -> Coroutine[Any, Any, SparseVectors]:
        return cast("Coroutine[Any, Any, SparseVectors]", self.infer(name, call))

    def rerank(self, name: str, call: Rerank) -> Coroutine[Any, Any, Scores]:
        return cast("Coroutine[Any, Any, Scores]", self.infer(name, call))

    def generate(self, name: str, call: GenerationCall) -> Coroutine[Any, Any, Generated]:
        """Generate text, and return it when it is complete.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: the call failed.
        """
        live = self._live.find(name)
        if live.endpoint.fallback is None:
            return self._generate(live, call)
        return self._run_or_fall_back(live, call.context, lambda live: self._generate(live, call))

    def stream(self, name: str, call: GenerationCall) -> Coroutine[Any, Any, ManagedStream]:
        """Generate text as a stream: see `Events`.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: the call failed.
        """
        live = self._live.find(name)
        if live.endpoint.fallback is None:
            return self._stream(live, call)
        return self._run_or_fall_back(live, call.context, lambda live: self._stream(live, call))

    async def count_tokens(
        self, name: str, texts: Sequence[str], kind: InputType | None, limit: int | None = None
    ) -> Sequence[int] | None:
        """The untruncated token count of each text, prefix included; `None` if hubgate has no tokenizer for the model.

        A count above `limit` only means that it is exceeded.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        return await self._live.find(name).pipeline.count_tokens(texts, kind, limit)

    async def chunk(
        self, name: str, texts: Sequence[str], settings: ChunkingSettings | None, kind: InputType | None
    ) -> Sequence[Sequence[Chunk]]:
        """The chunks of each text for an endpoint: see `chunks_of`. The model is not called.

        Raises:
            EndpointNotFound: no endpoint has this name.
            InvalidChunking: a separator cannot be used on these texts.
            BodyTooLarge: the texts are too long, or make too many chunks.
        """
        endpoint = self._live.find(name).endpoint
        count = partial(self.count_tokens, name, kind=kind, limit=endpoint.token_limit)
        return await chunks_of(texts, endpoint, settings or endpoint.chunking, count)

    async def with_unread(self, name: str, call: Embed, vectors: Vectors) -> Vectors:
        """Add to a result how many tokens of each text the model did not read, as far as known."""
        truncated, endpoint = vectors.text_truncated, self._live.find(name).endpoint
        refuses = endpoint.facts.auto_truncate is False and not call.truncate
        if vectors.truncated == 0 or (refuses and vectors.truncated is None):
            return replace(vectors, text_unread=[0] * len(call.texts))
        if truncated is None:
            return vectors
        read = vectors.text_tokens or [endpoint.token_limit or 0] * len(truncated)
        long = [text for text, is_cut in zip(call.texts, truncated, strict=True) if is_cut]
        counts = await count_long(partial(self.count_tokens, name, kind=call.input_type), long)
        lengths = iter(counts or ())
        unread = [
            max(1, next(lengths) - tokens) if is_cut and counts else None if is_cut else 0
            for tokens, is_cut in zip(read, truncated, strict=True)
        ]
        return replace(vectors, text_unread=unread)

    async def _infer(self, live: LiveEndpoint, call: Call) -> Result:
        actual = live.endpoint.task
        requested = actual if isinstance(call, Tokenize) else TASK_OF_CALL[type(call)]
        if requested is not actual:
            raise WrongTask(live.endpoint.name, requested=requested, actual=actual)
        with live:
            return await live.pipeline.answer(call)

    async def _generate(self, live: LiveEndpoint, call: GenerationCall) -> Generated:
        pipeline = live.pipeline.generation or _not_generating(live)
        with live:
            return await pipeline.generate(call)

    async def _stream(self, live: LiveEndpoint, call: GenerationCall) -> ManagedStream:
        pipeline = live.pipeline.generation or _not_generating(live)
        self._live.admit(live)
        live.calls += 1
        try:
            events = await pipeline.stream(call)
        except BaseException:
            live.leave()
            raise
        return ManagedStream(events, live.leave, waited=events.waited)

    async def _run_or_fall_back(
        self, live: LiveEndpoint, context: Context, run: Callable[[LiveEndpoint], Coroutine[Any, Any, R]]
    ) -> R:
        try:
            return await run(live)
        except (UpstreamError, RuntimeFailed, QueueFull, DeadlineUnreachable) as error:
            if error.cause in _INPUT_ERRORS:
                raise
            fallback = self._fallback_of(live.endpoint)
            if fallback is None:
                raise
            name = live.endpoint.name
            _log.warning("endpoint %s failed (%s), using %s", name, error.cause, fallback.endpoint.name)
            if context.origin is not None:
                context.origin.endpoint = fallback.endpoint.name
                context.origin.model = fallback.endpoint.model_version
            return await run(fallback)

    def _fallback_of(self, endpoint: Endpoint) -> LiveEndpoint | None:
        try:
            fallback = self._live.find(endpoint.fallback or "")
            check_fallback(endpoint, fallback.endpoint)
            self._live.admit(fallback)
        except (EndpointNotFound, InvalidEndpoint, EndpointChanged, EndpointDisabled) as error:
            _log.error("the fallback of endpoint %s cannot be used: %s", endpoint.name, error)
            return None
        return fallback


def _not_generating(live: LiveEndpoint) -> NoReturn:
    requested = f"{Task.COMPLETION} or {Task.CHAT_COMPLETION}"
    raise WrongTask(live.endpoint.name, requested=requested, actual=live.endpoint.task)
