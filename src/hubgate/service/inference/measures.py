"""What texts would be for an endpoint, without calling its model: chunks, tokens, what is cached, what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from hubgate.core.chunking import MAX_SLOTS
from hubgate.core.estimates.estimate import Allowance, TextMeasure
from hubgate.core.queue.batch_queue import BatchQueue
from hubgate.core.results import estimate_tokens, utf8_size
from hubgate.domain.endpoint import InputType, Task
from hubgate.domain.errors import BodyTooLarge, WrongTask
from hubgate.service.inference.chunks import count_long
from hubgate.service.inference.inference import Inference
from hubgate.service.ports import Ports
from hubgate.service.registry.live_endpoints import LiveEndpoint, LiveEndpoints


class Measures:
    """Measures texts for bulk jobs that have not started."""

    def __init__(self, live: LiveEndpoints, inference: Inference, ports: Ports) -> None:
        self._live = live
        self._inference = inference
        self._ports = ports

    async def texts(
        self, name: str, texts: Sequence[str], kind: InputType | None, *, chunked: bool
    ) -> Sequence[TextMeasure]:
        """What each text would be. With `chunked`, by the endpoint's own settings.

        Raises:
            EndpointNotFound: no endpoint has this name.
            WrongTask: it does not embed.
            InvalidChunking: a separator cannot be used on these texts.
        """
        live = _find(self._live, name)
        pieces: Sequence[Sequence[str] | None] = [[text] for text in texts]
        if chunked:
            pieces = await self._pieces(name, texts, kind)
        whole = [piece for parts in pieces for piece in parts or ()]
        counted = await self._count(live, whole, kind)
        counts = iter(counted or [estimate_tokens(utf8_size(text), texts=1) for text in whole])
        cached = iter(await live.pipeline.are_cached(whole, kind))
        limit = live.endpoint.token_limit
        measures = []
        for parts in pieces:
            if parts is None:
                measures.append(TextMeasure(vectors=0, rejected=True))
                continue
            tokens = [next(counts) for _ in parts]
            found = sum(next(cached) for _ in parts)
            measures.append(
                TextMeasure(
                    vectors=min(len(parts), MAX_SLOTS),
                    tokens=sum(tokens if limit is None else [min(count, limit) for count in tokens]),
                    over_limit=limit is not None and max(tokens, default=0) > limit,
                    cached=found / max(1, len(parts)),
                    counted=counted is not None,
                )
            )
        return measures

    async def allowance(self, name: str) -> Allowance:
        """What bounds the requests to an endpoint.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        live = self._live.find(name)
        endpoint, queue = live.endpoint, live.pipeline.queue
        price = await self._ports.price_per_hour(name)
        if queue is None:
            return Allowance(dollars_per_hour=price)
        servers = len(endpoint.replicas)
        limits = queue.limits if isinstance(queue, BatchQueue) else None
        concurrency = [queue.limit if limits else None, endpoint.max_concurrent_requests]
        return Allowance(
            max_texts=limits.max_texts if limits else 1,
            max_bytes=limits.max_bytes if limits else None,
            requests_per_minute=endpoint.requests_per_minute * servers if endpoint.is_rate_limited else None,
            tokens_per_minute=endpoint.tokens_per_minute and endpoint.tokens_per_minute * servers,
            concurrency=min((one for one in concurrency if one is not None), default=None),
            request_seconds=(queue.usual_seconds or None) if isinstance(queue, BatchQueue) else None,
            dollars_per_hour=price,
        )

    async def _pieces(
        self, name: str, texts: Sequence[str], kind: InputType | None
    ) -> list[Sequence[str] | None]:
        """The chunks of each text; `None` for one that is too long to be split."""
        try:
            found = await self._inference.chunk(name, texts, None, kind)
        except BodyTooLarge:
            if len(texts) == 1:
                return [None]
            return [part for text in texts for part in await self._pieces(name, [text], kind)]
        return [
            [text[chunk.start : chunk.end] for chunk in chunks]
            for text, chunks in zip(texts, found, strict=True)
        ]

    async def _count(
        self, live: LiveEndpoint, texts: Sequence[str], kind: InputType | None
    ) -> Sequence[int] | None:
        """The tokens of each text; `None` if they cannot be counted. Above the limit, at least one more."""
        limit = live.endpoint.token_limit

        async def count(some: Sequence[str]) -> Sequence[int] | None:
            return await live.pipeline.count_tokens(some, kind, limit)

        if not texts:
            return []
        # With a limit, only the beginning of a long text is counted.
        return await (count_long(count, texts) if limit is None else count(texts))


def _find(live: LiveEndpoints, name: str) -> LiveEndpoint:
    found = live.find(name)
    if found.endpoint.task is not Task.TEXT_EMBEDDING:
        raise WrongTask(name, requested=Task.TEXT_EMBEDDING, actual=found.endpoint.task)
    return found
