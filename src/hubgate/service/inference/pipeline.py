"""The order of the wrappers around a model, each with its reason.

    prompted    first: everything below, the cache's keys among it, is about the text that the model reads
    shortened   asks for the whole vector, so that one is remembered for every length
    cached      what is remembered takes no place in the queue
    counted     above the queue, which divides the tokens of joined calls; below the cache, which remembers exact ones
    guarded     below the cache: a vector that is not right is never remembered
    broken      above the queue: nobody waits for a turn at a server that is not well
    packed      the queue of the endpoint, which spends the rate limit
    watched     below the queue, where a request is a request: says whether the server is well
    retried     below the queue: a further try keeps its place, and takes a permit of its own
    upstream    the model

Only embeddings pass all of them; scores and weights of words begin at `broken`. A model that writes has a way of its
own, `core.generation`, of the same parts: its calls cannot share a request.

A model on this machine has neither rate limit nor queue here, unless its operator sets a rate limit: its worker joins
texts of like length, which only who knows their tokens can. What is left for the pipeline is the caller's deadline, so
`timely` stands in from `broken` on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast
from weakref import WeakValueDictionary

from hubgate.core.cache import CacheStep
from hubgate.core.generation import GenerationPipeline
from hubgate.core.matryoshka import ShortenStep
from hubgate.core.prompts import PrefixStep
from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.token_counts import TokenCountStep
from hubgate.core.traffic.circuit_breaker import BreakerGate, BreakerMonitor, CircuitBreaker
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.reservations import Reservation
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.core.vector_guard import VectorGuard
from hubgate.domain.calls import Call, InputType, Result
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Source, Target, Task
from hubgate.domain.errors import DeadlineExceeded, InvalidRequest
from hubgate.domain.ports import (
    Clock,
    Counter,
    Counters,
    Handler,
    Model,
    TextGenerator,
    Upstream,
    VectorCache,
)
from hubgate.service.inference.ledger import Ledger
from hubgate.upstreams.engines.embeddings import POOLED_HERE, max_vectors
from hubgate.upstreams.engines.specs import spec_of
from hubgate.upstreams.http.pool import MAX_REPLY_BYTES
from hubgate.upstreams.urls import base_url

DEFAULT_PATIENCE = 45.0
"""Seconds a call may take when its caller names no deadline: Dify gives up after 60."""
WRITING_PATIENCE = 600.0
"""The same for a model that writes: OpenAI's clients give up after ten minutes."""
_ELSEWHERE = frozenset({Source.DEDICATED, Source.ROUTER})
_MOST_TEXTS = 2048
"""What a request to the gateway may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of an endpoint's server without asking it."""

    limiter: RateLimiter
    retrier: Retrier
    breaker: CircuitBreaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The way to one endpoint: `answer` where its task is about texts, `writing` where it writes."""

    answer: Handler
    generation: GenerationPipeline | None = None
    queue: BatchQueue | GenerationQueue | None = None
    cached: CacheStep | None = None
    health: Health | None = None
    """Of a model that runs elsewhere."""
    prompted: PrefixStep | None = None
    counter: Counter | None = None

    async def count_tokens(
        self, texts: Sequence[str], kind: InputType | None, limit: int | None
    ) -> Sequence[int] | None:
        """The tokens of each text as the model would read it, uncut: see `Counter`."""
        if self.counter is None or self.prompted is None:
            return None
        return await self.counter(self.prompted.add_prefixes(texts, kind), limit)

    async def close(self) -> None:
        """Send away who waits, and let what is in flight end."""
        if self.queue is not None:
            await self.queue.close()


class Pipelines:
    """Builds the pipeline of each endpoint, once, from what endpoints share: the cache, and each rate limit."""

    def __init__(
        self,
        cache: VectorCache | None,
        clock: Clock,
        counters: Counters | None = None,
        ledger: Ledger | None = None,
        *,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        cache_secret: bytes = b"",
    ) -> None:
        self._cache_secret = cache_secret
        self._max_reply_bytes = max_reply_bytes
        self._cache = cache
        self._clock = clock
        self._counters = counters
        self._ledger = ledger
        self._limiters: WeakValueDictionary[tuple[object, ...], RateLimiter] = WeakValueDictionary()

    def build(self, target: Target, model: Model) -> Pipeline:
        """The pipeline of an endpoint whose facts are known."""
        endpoint = target.endpoint
        if endpoint.task in GENERATION_TASKS:
            return self._build_writing(target, cast("TextGenerator", model))
        upstream = cast("Upstream", model)
        health = queue = None
        answer: Handler = _Timely(upstream, self._clock)
        if endpoint.source in _ELSEWHERE:
            health = self._health(target)
            watched = BreakerMonitor(RetryStep(upstream, health.retrier), health.breaker)
            queue = BatchQueue(
                watched,
                limiter=health.limiter,
                limits=_limits(endpoint, self._max_reply_bytes),
                clock=self._clock,
            )
            answer = BreakerGate(_Patient(queue, self._clock), health.breaker)
        elif endpoint.is_rate_limited:
            # No server bounds a request here, so a call is one, however many texts it has.
            limits = replace(_limits(endpoint, self._max_reply_bytes), max_texts=_MOST_TEXTS)
            limiter = self._limiter(target)
            queue = BatchQueue(upstream, limiter=limiter, limits=limits, clock=self._clock)
            answer = _Patient(queue, self._clock)
        if endpoint.task is not Task.TEXT_EMBEDDING:
            return Pipeline(answer=answer, queue=queue, health=health)
        facts, cached = endpoint.facts, None
        answer = VectorGuard(answer, dimensions=facts.dimensions)
        counter = self._counters.open(endpoint) if self._counters else None
        if counter is not None:
            may_truncate = facts.auto_truncate is not False
            answer = TokenCountStep(answer, counter, limit=endpoint.token_limit, may_truncate=may_truncate)
        if endpoint.cached and self._cache is not None:
            answer = cached = CacheStep(
                answer, self._cache, identity=identity(endpoint), secret=self._cache_secret
            )
        answer = ShortenStep(answer, model=endpoint.model or facts.model, dimensions=facts.dimensions)
        prompted = PrefixStep(answer, facts.prefixes if endpoint.prefixes is None else endpoint.prefixes)
        return Pipeline(
            answer=prompted, queue=queue, cached=cached, health=health, prompted=prompted, counter=counter
        )

    def _build_writing(self, target: Target, writer: TextGenerator) -> Pipeline:
        health = self._health(target)
        queue = GenerationQueue(health.limiter, clock=self._clock)
        writing = GenerationPipeline(
            writer,
            queue=queue,
            retrier=health.retrier,
            breaker=health.breaker,
            default_timeout=WRITING_PATIENCE,
            clock=self._clock,
        )
        return Pipeline(answer=_writes, generation=writing, queue=queue, health=health)

    def _health(self, target: Target) -> Health:
        limiter = self._limiter(target)
        retrier = Retrier(limiter, patient=target.endpoint.fallback is None, clock=self._clock)
        return Health(limiter=limiter, retrier=retrier, breaker=CircuitBreaker(clock=self._clock))

    def _limiter(self, target: Target) -> RateLimiter:
        """One for all endpoints of the same address, token and rate, as in Elasticsearch."""
        endpoint, token = target.endpoint, target.token
        secret = hashlib.sha256(token.reveal().encode()).digest() if token else b""
        rate = (
            endpoint.requests_per_minute,
            endpoint.tokens_per_minute,
            endpoint.max_concurrent_requests,
            endpoint.burst,
        )
        where = base_url(endpoint.url).lower() if endpoint.url else endpoint.model  # however it is spelled
        key = (endpoint.source, where, secret, *rate)
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = RateLimiter(
                endpoint.requests_per_minute,
                tokens_per_minute=endpoint.tokens_per_minute,
                max_concurrent_requests=endpoint.max_concurrent_requests,
                max_concurrent_texts=spec_of(endpoint.facts.engine).max_concurrent_texts,
                burst=endpoint.burst,
                reservation=self._reservation(key, endpoint.requests_per_minute),
                clock=self._clock,
            )
        return limiter

    def _reservation(self, key: tuple[object, ...], requests_per_minute: int | None) -> Reservation | None:
        if self._ledger is None or requests_per_minute is None:
            return None
        # Four bytes tell rate limits apart, and are too few to find a token by.
        digest = hashlib.blake2b(repr(key).encode(), digest_size=4).hexdigest()
        return self._ledger.reservation(digest, requests_per_minute)


async def _writes(call: Call) -> Result:
    """Stands where a model that writes would be asked about texts."""
    del call
    raise InvalidRequest(
        "This endpoint's model writes; what it makes of texts otherwise cannot be asked here.",
        remedy="Use an endpoint whose task is text_embedding, sparse_embedding or rerank.",
    )


class _Patient:
    """Gives every call a deadline, so that nobody waits for ever in the queue, which keeps it."""

    def __init__(self, answer: Handler, clock: Clock) -> None:
        self._answer = answer
        self._clock = clock

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        if call.context.deadline is None:
            deadline = self._clock() + DEFAULT_PATIENCE
            call = replace(call, context=replace(call.context, deadline=deadline))
        return await self._answer(call)


class _Timely:
    """Keeps a caller's deadline where no queue does."""

    def __init__(self, answer: Handler, clock: Clock) -> None:
        self._answer = answer
        self._clock = clock

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            DeadlineExceeded: not in time.
        """
        deadline = call.context.deadline
        if deadline is None:
            return await self._answer(call)
        try:
            async with asyncio.timeout(deadline - self._clock()):
                return await self._answer(call)
        except TimeoutError:
            raise DeadlineExceeded(
                "The model did not answer in the caller's time.",
                remedy="Ask again with fewer texts or with a longer timeout.",
                retry_after=1.0,
            ) from None


def identity(endpoint: Endpoint) -> list[str | None]:
    """All that makes a model's vectors what they are.

    Where no revision is known, the fingerprint tells two models of one name apart. The engine belongs to it because
    engines differ in what they do unasked, above all in whether they normalise.
    """
    facts = endpoint.facts
    return [
        facts.model or endpoint.model,
        facts.revision or hashlib.sha256((facts.fingerprint or "").encode()).hexdigest(),
        facts.engine,
        facts.pooling,
        facts.precision,
        str(facts.dimensions),
        str(facts.max_input_tokens),
    ]


def _limits(endpoint: Endpoint, max_reply_bytes: int) -> BatchLimits:
    """What one request may carry, so that the server takes it and its reply is not too large."""
    facts, usual = endpoint.facts, BatchLimits()
    texts = facts.max_batch_texts or usual.max_texts
    if endpoint.task is not Task.TEXT_EMBEDDING:
        return replace(usual, max_texts=texts)
    vectors = max_vectors(max_reply_bytes, facts.dimensions)
    sends_token_vectors = POOLED_HERE in facts.warnings
    return replace(usual, max_texts=min(texts, vectors), max_tokens=vectors if sends_token_vectors else None)
