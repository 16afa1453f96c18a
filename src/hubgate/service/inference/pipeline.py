"""The pipeline of an endpoint: the steps around its model, from first to last, each with the reason for its place.

    prefix      first: everything after it, including cache keys, is about the text that the model reads
    shorten     requests the full vector, so that one cache entry serves every length
    cache       a cached vector does not take a place in the queue
    count       before the queue, which divides the tokens of shared requests; after the cache, which stores exact counts
    breaker     before the queue: no call waits for a server that is down
    queue       spends the endpoint's rate limit; checks vectors, so that an invalid one is never cached
    monitor     after the queue, where each request counts; informs the breaker whether the server is up
    retry       after the queue: a retry keeps its place, and takes a permit of its own
    upstream    the model

Only embeddings take all steps; scores and sparse vectors start at the breaker, scores after the prompt is written.
Generated text has its own pipeline of the same parts, `core.generation`, because its calls cannot share a request.
For a model with several servers, one balancer is limiter, breaker and retrier.

A local model has no queue here unless a rate limit is set: its worker batches texts of similar token length. Its
pipeline only enforces the caller's deadline and checks vectors, in place of the steps from the breaker to the retry. A
model with several servers checks the vectors of each itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from hubgate.core.cache import CacheStep, MemoryCache
from hubgate.core.generation import GenerationPipeline
from hubgate.core.matryoshka import ShortenStep
from hubgate.core.prompts import PrefixStep
from hubgate.core.queue import batch_queue, generation_queue
from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.queue.fair_queue import MAX_WAITING_CALLS
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.rerank_templates import RerankTemplateStep, named_template, rerank_template
from hubgate.core.token_counts import TokenCountStep
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.circuit_breaker import (
    BreakerGate,
    BreakerMonitor,
    BreakerNotices,
    CircuitBreaker,
)
from hubgate.core.traffic.concurrency import MOST, ConcurrencyLimit
from hubgate.core.traffic.leases import SharedLeases
from hubgate.core.traffic.notices import Notice, SharedNotices
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.core.traffic.slots import SharedLimits
from hubgate.core.vector_guard import VectorGuard, check_vectors
from hubgate.domain.calls import Call, Embed, Result
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, InputType, Source, Target, Task
from hubgate.domain.errors import DeadlineExceeded, InvalidRequest
from hubgate.domain.ports import (
    Clock,
    Counter,
    Counters,
    Handler,
    Model,
    TextGenerator,
    Upstream,
)
from hubgate.service.inference.ledger import Ledger
from hubgate.service.inference.rate_limits import REMOTE, RateLimits, limit_of, server_of
from hubgate.service.inference.replicas import ReplicatedModel
from hubgate.upstreams.engines.embeddings import POOLED_BY_HUBGATE, max_vectors
from hubgate.upstreams.engines.specs import spec_of
from hubgate.upstreams.http.pool import MAX_REPLY_BYTES

DEFAULT_TIMEOUT = 45.0
"""Seconds for a call without a deadline: Dify gives up after 60."""
GENERATION_TIMEOUT = 600.0
"""The same for generating text: OpenAI's clients give up after ten minutes."""
_MAX_TEXTS = 2048
"""The maximum per request to the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of an endpoint's server, as seen by its calls."""

    limiter: RateLimiter | Balancer
    retrier: Retrier | Balancer
    breaker: CircuitBreaker | Balancer
    places: ConcurrencyLimit | Balancer

    @property
    def balancer(self) -> Balancer | None:
        """Plays all these roles if several servers run the model."""
        return self.limiter if isinstance(self.limiter, Balancer) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The steps of one endpoint: `answer` for calls about texts, `generation` for generating text."""

    answer: Handler
    generation: GenerationPipeline | None = None
    queue: BatchQueue | GenerationQueue | None = None
    cached: CacheStep | None = None
    health: Health | None = None
    """For remote models."""
    prefix: PrefixStep | None = None
    counter: Counter | None = None

    async def count_tokens(
        self, texts: Sequence[str], kind: InputType | None, limit: int | None
    ) -> Sequence[int] | None:
        """The token count of each text with its prefix: see `Counter`."""
        if self.counter is None or self.prefix is None:
            return None
        return await self.counter(self.prefix.add_prefixes(texts, kind), limit)

    async def are_cached(self, texts: Sequence[str], kind: InputType | None) -> Sequence[bool]:
        """Whether a call for each text would find its vector in the cache."""
        if self.cached is None or self.prefix is None:
            return [False] * len(texts)
        return await self.cached.are_known(Embed(texts=self.prefix.add_prefixes(texts, kind)))

    async def close(self) -> None:
        """Reject queued calls, and wait for those in flight."""
        if self.queue is not None:
            await self.queue.close()
        if self.health is not None and self.health.balancer is not None:
            await self.health.balancer.close()


class Pipelines:
    """Builds pipelines from what endpoints share: the cache, and rate limiters."""

    def __init__(
        self,
        cache: MemoryCache | None,
        clock: Clock,
        counters: Counters | None = None,
        ledger: Ledger | None = None,
        shared_limits: SharedLimits | None = None,
        *,
        notices: SharedNotices | None = None,
        leases: SharedLeases | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        max_waiting_calls: int = MAX_WAITING_CALLS,
        cache_secret: bytes = b"",
    ) -> None:
        self._cache_secret = cache_secret
        self._max_reply_bytes = max_reply_bytes
        self._max_waiting_calls = max_waiting_calls
        self._cache = cache
        self._clock = clock
        self._counters = counters
        self._notices = notices
        self.limits = RateLimits(clock, ledger, shared_limits, notices, leases)

    def build(self, target: Target, model: Model) -> Pipeline:
        """Build the pipeline of an endpoint whose facts are known."""
        endpoint = target.endpoint
        if endpoint.task in GENERATION_TASKS:
            return self._build_generation(target, cast("TextGenerator", model))
        upstream = cast("Upstream", model)
        health = queue = check = None
        if endpoint.task is Task.TEXT_EMBEDDING and not isinstance(model, ReplicatedModel):
            check = partial(check_vectors, dimensions=endpoint.facts.dimensions)
        answer: Handler = _EnforceDeadline(upstream, self._clock)
        if endpoint.source in REMOTE:
            health = self._health(target, model)
            monitor = BreakerMonitor(RetryStep(upstream, health.retrier), health.breaker)
            queue = BatchQueue(
                monitor,
                limiter=health.limiter,
                places=health.places,
                limits=_limits(endpoint, self._max_reply_bytes, self._max_waiting_calls),
                default_timeout=DEFAULT_TIMEOUT,
                patient=endpoint.fallback is None,
                check=check,
                clock=self._clock,
            )
            answer = BreakerGate(queue, health.breaker)
        elif endpoint.is_rate_limited:
            # There is no server that limits the size of a request, so each call is one request.
            limits = _limits(endpoint, self._max_reply_bytes, self._max_waiting_calls)
            limiter = self.limits.limiter(target)
            answer = queue = BatchQueue(
                upstream,
                limiter=limiter,
                limits=replace(limits, max_texts=_MAX_TEXTS),
                default_timeout=DEFAULT_TIMEOUT,
                check=check,
                clock=self._clock,
            )
        if endpoint.task is Task.RERANK:
            answer = _rerank_step(endpoint, answer)
        if endpoint.task is not Task.TEXT_EMBEDDING:
            return Pipeline(answer=answer, queue=queue, health=health)
        if queue is None:
            answer = VectorGuard(answer, dimensions=endpoint.facts.dimensions)
        return self._build_embedding(endpoint, answer, queue, health)

    def _build_embedding(
        self, endpoint: Endpoint, answer: Handler, queue: BatchQueue | None, health: Health | None
    ) -> Pipeline:
        facts, cached = endpoint.facts, None
        counter = self._counters.open(endpoint) if self._counters else None
        if counter is not None:
            may_truncate = facts.auto_truncate is not False
            answer = TokenCountStep(answer, counter, limit=endpoint.token_limit, may_truncate=may_truncate)
        if endpoint.cached and self._cache is not None:
            answer = cached = CacheStep(
                answer, self._cache, identity=identity(endpoint), secret=self._cache_secret
            )
        answer = ShortenStep(
            answer,
            model=endpoint.repository,
            original=facts.original,
            dimensions=facts.dimensions,
            published=facts.shorter_dimensions or (),
            smallest=endpoint.min_dimensions,
        )
        prefix = PrefixStep(answer, endpoint.effective_prefixes, endpoint.default_prefix)
        return Pipeline(
            answer=prefix, queue=queue, cached=cached, health=health, prefix=prefix, counter=counter
        )

    def _build_generation(self, target: Target, model: TextGenerator) -> Pipeline:
        health = self._health(target, model)
        queue = GenerationQueue(
            health.limiter,
            places=health.places,
            max_waiting_calls=self._max_waiting_calls,
            clock=self._clock,
        )
        generation = GenerationPipeline(
            model,
            queue=queue,
            retrier=health.retrier,
            breaker=health.breaker,
            default_timeout=max(GENERATION_TIMEOUT, target.endpoint.timeout or 0.0),
            clock=self._clock,
        )
        return Pipeline(answer=_generates_text, generation=generation, queue=queue, health=health)

    def _health(self, target: Target, model: Model) -> Health:
        if isinstance(model, ReplicatedModel):
            return self._balanced(target, model)
        limiter, places = self.limits.limiter(target), self._places(target.endpoint)
        patient = target.endpoint.fallback is None
        retrier = Retrier(
            limiter, places=places, patient=patient, waking=self._notice("waking", target), clock=self._clock
        )
        state, test = self._notice("open", target), self._notice("test", target)
        notices = BreakerNotices(state, test) if state and test else None
        breaker = CircuitBreaker(notices=notices, clock=self._clock)
        return Health(limiter=limiter, retrier=retrier, breaker=breaker, places=places)

    def _balanced(self, target: Target, model: ReplicatedModel) -> Health:
        balancer = model.balanced(
            [self.limits.limiter(replace(one.target, limit=limit_of(target))) for one in model.replicas],
            [self._places(one.target.endpoint) for one in model.replicas],
            [self._notice("waking", one.target) for one in model.replicas],
            patient=target.endpoint.fallback is None,
            clock=self._clock,
        )
        return Health(limiter=balancer, retrier=balancer, breaker=balancer, places=balancer)

    def _places(self, endpoint: Endpoint) -> ConcurrencyLimit:
        """How many requests one server has at once, within what the operator allows and the server reports."""
        generates = endpoint.task in GENERATION_TASKS
        return ConcurrencyLimit(
            generation_queue.START_LIMIT if generates else batch_queue.START_LIMIT,
            bound=min(
                endpoint.max_concurrent_requests or MOST, endpoint.facts.max_concurrent_requests or MOST
            ),
            per_token=not generates,
            clock=self._clock,
        )

    def _notice(self, kind: str, target: Target) -> Notice | None:
        """Of an endpoint's server, as long as the endpoint leads there with the same token."""
        if self._notices is None:
            return None
        token = target.token.reveal() if target.token else ""
        led = (target.endpoint.name, *server_of(target.endpoint), token)
        return self._notices.notice(
            f"{kind} {hashlib.blake2b(repr(led).encode(), digest_size=8).hexdigest()}"
        )


def _rerank_step(endpoint: Endpoint, answer: Handler) -> RerankTemplateStep:
    is_local = endpoint.source is Source.LOCAL  # the runtime writes the template: it truncates the document
    return RerankTemplateStep(
        answer,
        None if is_local else named_template(endpoint.facts.rerank_template),
        instruction=endpoint.instruction,
        takes_instruction=takes_instruction(endpoint),
    )


def takes_instruction(endpoint: Endpoint) -> bool:
    """Whether a reranker follows instructions: in the prompt that hubgate writes, or in a field of its server."""
    facts = endpoint.facts
    template = named_template(facts.rerank_template) or rerank_template(endpoint.repository, facts.model)
    if template is None or template.instructed is None:
        return False
    route = spec_of(endpoint.engine or facts.engine).rerank
    return facts.rerank_template is not None or (route is not None and route.instruction_field is not None)


async def _generates_text(call: Call) -> Result:
    del call
    raise InvalidRequest(
        "This endpoint's model generates text. It does not support this request.",
        remedy="Use an endpoint whose task is text_embedding, sparse_embedding or rerank.",
    )


class _EnforceDeadline:
    """Enforces the caller's deadline where there is no queue."""

    def __init__(self, answer: Handler, clock: Clock) -> None:
        self._answer = answer
        self._clock = clock

    async def __call__(self, call: Call) -> Result:
        """Raises: DeadlineExceeded."""
        deadline = call.context.deadline
        if deadline is None:
            return await self._answer(call)
        try:
            async with asyncio.timeout(deadline - self._clock()):
                return await self._answer(call)
        except TimeoutError:
            raise DeadlineExceeded(
                "The model did not answer before the caller's deadline.",
                remedy="Retry with fewer texts or a longer timeout.",
                retry_after=1.0,
            ) from None


def identity(endpoint: Endpoint) -> list[str | None]:
    """Everything that determines a model's vectors, for cache keys.

    If the revision is unknown, the fingerprint distinguishes two models with the same name. The engine is included
    because engines have different defaults, above all whether they normalize.
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


def _limits(endpoint: Endpoint, max_reply_bytes: int, max_waiting_calls: int) -> BatchLimits:
    """Limits for one request, so that the server accepts it and the reply is not too large."""
    facts, default = endpoint.facts, BatchLimits(max_waiting_calls=max_waiting_calls)
    texts = min(each.max_batch_texts or default.max_texts for each in (facts, *facts.replicas))
    texts = min(texts, endpoint.max_batch_texts or texts)
    if endpoint.task is not Task.TEXT_EMBEDDING:
        return replace(default, max_texts=texts)
    vectors = max_vectors(max_reply_bytes, facts.dimensions)
    sends_token_vectors = POOLED_BY_HUBGATE in facts.warnings
    return replace(
        default, max_texts=min(texts, vectors), max_tokens=vectors if sends_token_vectors else None
    )
