"""Prometheus metrics. A request only adds to plain numbers; the text is written at each scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Any, TypeAlias

from hubgate import __version__
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.ports import VectorStore
from hubgate.service.inference.pipeline import Pipeline
from hubgate.service.prometheus import Family, labels

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MAX_SERIES = 10_000
OTHER = "(other)"
"""The endpoint of requests beyond the limit of series. No endpoint can have this name."""


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def merge(self, other: _Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> Iterable[tuple[str, int]]:
        """Cumulative counts by upper bound, as Prometheus expects."""
        return zip((*map(str, _SECONDS), "+Inf"), accumulate(self.counts), strict=True)


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    times: _Histogram = field(default_factory=_Histogram)

    def merge(self, other: _Tally) -> None:
        self.requests += other.requests
        self.texts += other.texts
        self.tokens += other.tokens
        self.truncated += other.truncated
        self.times.merge(other.times)


Lines: TypeAlias = Callable[[], Iterator[str]]
"""Writes lines in Prometheus' text format."""


class Meter:
    """hubgate's metrics. Used on one event loop.

    The number of series of requests is bounded. Beyond it, requests of further endpoints are counted under `OTHER`, and
    the next scrape moves the counts of endpoints that were removed there, which makes room.
    """

    def __init__(
        self,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        local_memory: Callable[[], Mapping[tuple[str, str], int]] = dict,
        shared_limits: SharedLimits | None = None,
        vectors: VectorStore | None = None,
        more: Sequence[Lines] = (),
        *,
        gateway_name: str = "",
        max_series: int = MAX_SERIES,
    ) -> None:
        self._pipelines = pipelines
        self._max_series = max_series
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        """By face, endpoint and cause."""
        self._waits: dict[str, _Histogram] = {}
        """By endpoint."""
        self.in_flight = 0
        """Requests, which the guard counts."""
        build = labels(gateway=gateway_name, version=__version__)
        self._sources: list[Lines] = [
            lambda: _gauge("build_info", "The version and the name of the gateway.", [(build, 1)]),
            self._requests,
            lambda: _pipeline_lines(pipelines()),
            lambda: _replica_lines(pipelines()),
            lambda: _local_model_lines(local_memory()),
        ]
        if vectors is not None:
            self._sources.append(lambda: _stored_vector_lines(vectors))
        if shared_limits is not None:
            self._sources.append(lambda: _shared_lines(shared_limits))
        self._sources += more

    def watch_feed(self, stale_seconds: Callable[[], float]) -> None:
        """Show how long ago the changes of other gateways were last read."""
        words = "Time since the changes of other gateways of the database were last read."
        self._sources.append(lambda: _gauge("stale_seconds", words, [("", stale_seconds())]))

    def observe(
        self,
        face: str,
        endpoint: str,
        cause: str,
        *,
        seconds: float,
        texts: int = 0,
        tokens: int = 0,
        truncated: int = 0,
        waited: float = 0.0,
    ) -> None:
        """Count a finished request. `endpoint` must be the name of a registered endpoint, or empty."""
        tally = self._tallies.get((face, endpoint, cause))
        if tally is None:
            if len(self._tallies) >= self._max_series:
                endpoint = OTHER
            tally = self._tallies.setdefault((face, endpoint, cause), _Tally())
        tally.requests += 1
        tally.texts += texts
        tally.tokens += tokens
        tally.truncated += truncated
        tally.times.add(seconds)
        if waited:
            self._waits.setdefault(endpoint, _Histogram()).add(waited)

    def lines(self) -> Iterator[str]:
        """The metrics in Prometheus' text format, in small parts: a caller can do other work between them."""
        for source in self._sources:
            yield from source()

    def _requests(self) -> Iterator[str]:
        """The meter's own counts."""
        if len(self._tallies) >= self._max_series:
            yield from self._make_room()
        seconds: dict[tuple[str, str], _Histogram] = {}
        sums: dict[str, _Tally] = {}
        counts: list[tuple[str, float]] = []
        for (face, endpoint, cause), tally in list(self._tallies.items()):
            counts.append((labels(cause=cause, endpoint=endpoint, face=face), tally.requests))
            seconds.setdefault((face, endpoint), _Histogram()).merge(tally.times)
            total = sums.setdefault(endpoint, _Tally())
            total.texts += tally.texts
            total.tokens += tally.tokens
            total.truncated += tally.truncated
            yield ""
        by_endpoint = [(labels(endpoint=endpoint), tally) for endpoint, tally in sums.items()]
        yield from _counter("requests", "Requests by outcome; cause is ok or the error's cause.", counts)
        yield from Family(
            "hubgate_request_seconds",
            "histogram",
            "Time from the request's headers to the end of its response.",
        ).histogram_lines(
            (labels(endpoint=endpoint, face=face), times.buckets(), times.total)
            for (face, endpoint), times in seconds.items()
        )
        yield from _counter("texts", "Texts processed.", ((name, one.texts) for name, one in by_endpoint))
        yield from _counter(
            "tokens",
            "Tokens read, if the engine reports them.",
            ((name, one.tokens) for name, one in by_endpoint),
        )
        yield from _counter(
            "texts_truncated",
            "Texts truncated to the model's limit, if known.",
            ((name, one.truncated) for name, one in by_endpoint),
        )
        yield from Family(
            "hubgate_queue_seconds",
            "histogram",
            "Time a call waited in the queue; calls that did not wait are not counted.",
        ).histogram_lines(
            (labels(endpoint=endpoint), times.buckets(), times.total)
            for endpoint, times in list(self._waits.items())
        )
        yield from _gauge("requests_in_flight", "Requests in flight.", [("", self.in_flight)])

    def _make_room(self) -> Iterator[str]:
        """Count the requests of removed endpoints under `OTHER`."""
        kept = {*self._pipelines(), OTHER, ""}
        for face, endpoint, cause in list(self._tallies):
            if endpoint not in kept:
                other = self._tallies.setdefault((face, OTHER, cause), _Tally())
                other.merge(self._tallies.pop((face, endpoint, cause)))
                if waits := self._waits.pop(endpoint, None):
                    self._waits.setdefault(OTHER, _Histogram()).merge(waits)
            yield ""


def _gauge(name: str, words: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    return Family(f"hubgate_{name}", "gauge", words).lines(samples)


def _counter(name: str, words: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    return Family(f"hubgate_{name}_total", "counter", words).lines(samples)


_Table: TypeAlias = Sequence[
    tuple[Callable[[str, str, Iterable[tuple[str, float]]], Iterator[str]], str, str, Callable[[Any], float]]
]
"""Families: the kind, the name, the help, and what each object has as its value."""
_OF_QUEUES: _Table = (
    (_gauge, "queue_texts", "Texts waiting for the rate limit.", attrgetter("queued_texts")),
    (_gauge, "queue_calls", "Calls waiting for the rate limit.", attrgetter("queued_calls")),
    (_gauge, "upstream_in_flight", "Requests in flight to the upstream.", attrgetter("in_flight")),
    (
        _gauge,
        "upstream_concurrency_limit",
        "Requests that may be in flight to the upstream, adapted to it.",
        attrgetter("limit"),
    ),
    (_counter, "upstream_requests", "Requests sent upstream.", attrgetter("requests")),
    (_counter, "upstream_requests_saved", "Calls that shared another call's request.", attrgetter("shared")),
)
_OF_CACHES: _Table = (
    (_counter, "cache_hits", "Texts found in the cache.", attrgetter("hits")),
    (_counter, "cache_misses", "Texts not found in the cache.", attrgetter("misses")),
)
_OF_REPLICAS: _Table = (
    (_gauge, "replica_up", "Whether a replica takes calls.", attrgetter("ready")),
    (_gauge, "replica_in_flight", "Requests in flight to a replica.", attrgetter("in_flight")),
    (
        _gauge,
        "replica_concurrency_limit",
        "Requests that may be in flight to a replica, adapted to it.",
        attrgetter("places.limit"),
    ),
    (_counter, "replica_requests", "Requests sent to a replica, without retries.", attrgetter("requests")),
)


def _families(table: _Table, named: Sequence[tuple[str, object]]) -> Iterator[str]:
    """The lines of each family in a table, with one sample for each object."""
    for family, name, words, value in table:
        yield from family(name, words, ((label_text, value(one)) for label_text, one in named))


def _pipeline_lines(pipelines: Mapping[str, Pipeline]) -> Iterator[str]:
    """The counters of queues and caches."""
    named: list[tuple[str, Pipeline]] = []
    for name, pipeline in pipelines.items():
        named.append((labels(endpoint=name), pipeline))
        yield ""
    queues = [(name, pipeline.queue) for name, pipeline in named if pipeline.queue]
    caches = [(name, pipeline.cached) for name, pipeline in named if pipeline.cached]
    yield from _families(_OF_QUEUES, queues)
    yield from _families(_OF_CACHES, caches)


def _replica_lines(pipelines: Mapping[str, Pipeline]) -> Iterator[str]:
    """The servers of endpoints that have several."""
    replicas = [
        (labels(endpoint=name, replica=replica.name), replica)
        for name, pipeline in pipelines.items()
        if pipeline.health and pipeline.health.balancer
        for replica in pipeline.health.balancer.replicas
    ]
    yield from _families(_OF_REPLICAS, replicas)


def _local_model_lines(memory: Mapping[tuple[str, str], int]) -> Iterator[str]:
    sizes = [(labels(model=model, precision=precision), size) for (model, precision), size in memory.items()]
    return _gauge("local_model_bytes", "Memory of a loaded local model's worker.", sizes)


def _stored_vector_lines(vectors: VectorStore) -> Iterator[str]:
    """The part of the vector cache behind the memory: on disk or shared."""
    words = {
        "hits": "Texts found in this part of the cache, which were not in memory.",
        "misses": "Texts not found in this part of the cache.",
        "dropped": "Vectors that were not written to it.",
    }
    place = labels(place=vectors.place)
    for name, number in vectors.counts.items():
        yield from _counter(f"stored_vectors_{name}", words[name], [(place, number)])


def _shared_lines(limits: SharedLimits) -> Iterator[str]:
    words = (
        "Whether the server by which gateways share rate limits is away: this one waits, or uses its share."
    )
    return _gauge("alone", words, [("", limits.alone)])
