"""The verbs that ask a model: which calls a task answers, and which endpoint stands in for one that cannot."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from hubgate.core.chunking import Chunk
from hubgate.core.generation import GenerationPipeline, ManagedStream
from hubgate.domain.calls import (
    Call,
    Embed,
    Generated,
    GenerationCall,
    InputType,
    Rerank,
    Result,
    Scores,
    SparseEmbed,
    SparseVectors,
    Tokenize,
    Vectors,
)
from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task
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
from hubgate.service.inference.cutting import chunks_of, count_long
from hubgate.service.registry.live_endpoints import Live, LiveEndpoints
from hubgate.service.registry.validation import what_changed

R = TypeVar("R")

_TASK_OF: dict[type, Task] = {
    Embed: Task.TEXT_EMBEDDING,
    SparseEmbed: Task.SPARSE_EMBEDDING,
    Rerank: Task.RERANK,
}
_CALLERS_FAULT = frozenset({Cause.INPUT_REFUSED, Cause.INPUT_TOO_LONG, Cause.WRONG_TASK})
"""Another endpoint of the same model would say the same."""

_log = logging.getLogger(__name__)


class Asking:
    """Calls to registered endpoints. One that fails hands over to its fallback, which hands over to nobody."""

    def __init__(self, live: LiveEndpoints) -> None:
        self._live = live

    async def infer(self, name: str, call: Call) -> Result:
        """Answer a call about texts.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: it cannot be answered.
        """
        return await self._somewhere(name, lambda live: self._answer(live, call))

    async def embed(self, name: str, call: Embed) -> Vectors:
        """`infer` for embeddings."""
        result = await self.infer(name, call)
        assert isinstance(result, Vectors)  # noqa: S101 - an Embed is answered with Vectors
        return result

    async def count_tokens(
        self, name: str, texts: Sequence[str], kind: InputType | None, limit: int | None = None
    ) -> Sequence[int] | None:
        """The tokens of each text as an endpoint's model would read it, uncut; `None` where nobody can count them.

        Beyond `limit` a number only says that it is exceeded.

        Raises:
            EndpointNotFound: there is none of this name.
        """
        return await self._live.find(name).pipeline.count_tokens(texts, kind, limit)

    async def chunk(
        self, name: str, texts: Sequence[str], settings: ChunkingSettings | None, kind: InputType | None
    ) -> Sequence[Sequence[Chunk]]:
        """The chunks of each text for an endpoint: see `chunks_of`. Its model is not called.

        Raises:
            EndpointNotFound: there is none of this name.
            InvalidChunking: a separator cannot be used on these texts.
            BodyTooLarge: the texts are too long, or make too many chunks.
        """
        endpoint = self._live.find(name).endpoint
        count = partial(self.count_tokens, name, kind=kind, limit=endpoint.token_limit)
        return await chunks_of(texts, endpoint, settings or endpoint.chunking, count)

    async def with_unread(self, name: str, call: Embed, vectors: Vectors) -> Vectors:
        """The answer to a call, with how many tokens of each text the model did not read, as far as it is known."""
        cut, endpoint = vectors.text_truncated, self._live.find(name).endpoint
        refuses = endpoint.facts.auto_truncate is False and not call.truncate
        if vectors.truncated == 0 or (refuses and vectors.truncated is None):
            return replace(vectors, text_unread=[0] * len(call.texts))
        if cut is None:
            return vectors
        read = vectors.text_tokens or [endpoint.token_limit or 0] * len(cut)
        long = [text for text, is_cut in zip(call.texts, cut, strict=True) if is_cut]
        known = await count_long(partial(self.count_tokens, name, kind=call.input_type), long)
        lengths = iter(known or ())
        unread = [
            max(1, next(lengths) - tokens) if is_cut and known else None if is_cut else 0
            for tokens, is_cut in zip(read, cut, strict=True)
        ]
        return replace(vectors, text_unread=unread)

    async def embed_sparse(self, name: str, call: SparseEmbed) -> SparseVectors:
        """`infer` for weights of words."""
        result = await self.infer(name, call)
        assert isinstance(result, SparseVectors)  # noqa: S101 - as above
        return result

    async def rerank(self, name: str, call: Rerank) -> Scores:
        """`infer` for scores."""
        result = await self.infer(name, call)
        assert isinstance(result, Scores)  # noqa: S101 - as above
        return result

    async def generate(self, name: str, call: GenerationCall) -> Generated:
        """Answer a call to an endpoint that writes, with all of the text.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: it cannot be answered.
        """
        return await self._somewhere(name, lambda live: self._write(live, call))

    async def stream(self, name: str, call: GenerationCall) -> ManagedStream:
        """Answer a call to an endpoint that writes, while the text is being made. See `Events`.

        Raises:
            WrongTask: the endpoint serves another task.
            HubgateError: it cannot be answered.
        """
        return await self._somewhere(name, lambda live: self._stream(live, call))

    async def _answer(self, live: Live, call: Call) -> Result:
        task, answer = live.endpoint.task, live.pipeline.answer
        wanted = task if isinstance(call, Tokenize) else _TASK_OF[type(call)]
        if wanted is not task:
            raise WrongTask(live.endpoint.name, requested=wanted, actual=task)
        with self._live.calling(live):
            return await answer(call)

    async def _write(self, live: Live, call: GenerationCall) -> Generated:
        writing = _writing(live)
        with self._live.calling(live):
            return await writing.generate(call)

    async def _stream(self, live: Live, call: GenerationCall) -> ManagedStream:
        writing = _writing(live)
        self._live.admit(live)
        self._live.enter(live)
        try:
            events = await writing.stream(call)
        except BaseException:
            self._live.leave(live)
            raise
        return ManagedStream(events, lambda: self._live.leave(live), waited=events.waited)

    async def _somewhere(self, name: str, ask: Callable[[Live], Awaitable[R]]) -> R:
        """Ask an endpoint, or the one that stands in for it."""
        live = self._live.find(name)
        if live.endpoint.fallback is None:
            return await ask(live)
        try:
            return await ask(live)
        except (UpstreamError, RuntimeFailed, QueueFull, DeadlineUnreachable) as error:
            if error.cause in _CALLERS_FAULT:
                raise
            stand_in = self._stand_in(live.endpoint)
            if stand_in is None:
                raise
            _log.warning("%s stands in for endpoint %s: %s", stand_in.endpoint.name, name, error.cause)
            return await ask(stand_in)

    def _stand_in(self, endpoint: Endpoint) -> Live | None:
        try:
            other = self._live.find(endpoint.fallback or "")
            check_fallback(endpoint, other.endpoint)
            self._live.admit(other)
        except (EndpointNotFound, InvalidEndpoint, EndpointChanged, EndpointDisabled) as unfit:
            _log.error("endpoint %s has no one to stand in: %s", endpoint.name, unfit)
            return None
        return other


def check_fallback(endpoint: Endpoint, other: Endpoint) -> None:
    """See whether an endpoint can stand in for another whose facts are known.

    Raises:
        InvalidEndpoint: it cannot; says why.
    """
    same_task = endpoint.task is other.task or {endpoint.task, other.task} <= GENERATION_TASKS
    reason = None if same_task else f"it does {other.task}, not {endpoint.task}"
    if same_task and endpoint.task in {Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING}:
        reason = what_changed(endpoint.facts, other.facts)
        unnamed = None in (endpoint.facts.fingerprint, other.facts.fingerprint)
        if reason is None and unnamed and endpoint.facts.model != other.facts.model:
            reason = "nothing shows that it runs the same model"
    if reason:
        raise InvalidEndpoint(
            f"Endpoint [{other.name}] cannot stand in for [{endpoint.name}]: {reason}",
            remedy="Vectors of two models cannot be compared; choose an endpoint of the same model and task.",
        )


def _writing(live: Live) -> GenerationPipeline:
    if live.pipeline.writing is None:
        asked = f"{Task.COMPLETION} or {Task.CHAT_COMPLETION}"
        raise WrongTask(live.endpoint.name, requested=asked, actual=live.endpoint.task)
    return live.pipeline.writing
