"""Prometheus metrics. A request only adds to plain numbers; metric objects are built at each scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from hubgate import __version__
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.ports import VectorStore
from hubgate.service.inference.pipeline import Pipeline

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ENDPOINT = ("endpoint",)
_REPLICA = ("endpoint", "replica")
MAX_SERIES = 10_000


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

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus expects."""
        return list(zip((*map(str, _SECONDS), "+Inf"), accumulate(self.counts), strict=True))


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    times: _Histogram = field(default_factory=_Histogram)


class Meter:
    """hubgate's metrics, in a registry of their own. Used on one event loop.

    The number of series is bounded, because endpoints come and go: above it all counters restart, as after a restart of
    the process.
    """

    def __init__(
        self,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        local_memory: Callable[[], Mapping[tuple[str, str], int]] = dict,
        shared_limits: SharedLimits | None = None,
        vectors: VectorStore | None = None,
        deployment_dollars: Callable[[], Mapping[str, float]] = dict,
        *,
        gateway_name: str = "",
        max_series: int = MAX_SERIES,
    ) -> None:
        self._max_series = max_series
        self.tallies: dict[tuple[str, str, str], _Tally] = {}
        """By face, endpoint and cause."""
        self.waits: dict[str, _Histogram] = {}
        """By endpoint."""
        self.in_flight = 0
        self.registry = CollectorRegistry()
        for collector in (
            _Build(gateway_name),
            _Requests(self),
            _Pipelines(pipelines),
            _Replicas(pipelines),
            _LocalModels(local_memory),
            *([_StoredVectors(vectors)] if vectors else []),
            _Deployments(deployment_dollars),
        ):
            self.registry.register(collector)
        if shared_limits is not None:
            self.registry.register(_Shared(shared_limits))

    def watch_feed(self, stale_seconds: Callable[[], float]) -> None:
        """Show how long ago the changes of other gateways were last read."""
        self.registry.register(_Feed(stale_seconds))

    def started(self) -> None:
        self.in_flight += 1

    def ended(self) -> None:
        self.in_flight -= 1

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
        key = (face, endpoint, cause)
        tally = self.tallies.get(key)
        if tally is None:
            if len(self.tallies) >= self._max_series:
                self.tallies.clear()
                self.waits.clear()
            tally = self.tallies[key] = _Tally()
        tally.requests += 1
        tally.texts += texts
        tally.tokens += tokens
        tally.truncated += truncated
        tally.times.add(seconds)
        if waited:
            self.waits.setdefault(endpoint, _Histogram()).add(waited)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Build(Collector):
    """Which gateway this is."""

    def __init__(self, gateway_name: str) -> None:
        self._labels = [__version__, gateway_name]

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "hubgate_build_info", "The version and the name of the gateway.", labels=("version", "gateway")
        )
        build.add_metric(self._labels, 1)
        yield build


class _Requests(Collector):
    """The meter's own counts."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hubgate_requests",
            "Requests by outcome; cause is ok or the error's cause.",
            labels=("face", "endpoint", "cause"),
        )
        seconds: dict[tuple[str, ...], _Histogram] = {}
        texts: dict[str, int] = {}
        tokens: dict[str, int] = {}
        truncated: dict[str, int] = {}
        for (face, endpoint, cause), tally in self._meter.tallies.items():
            requests.add_metric((face, endpoint, cause), tally.requests)
            seconds.setdefault((face, endpoint), _Histogram()).merge(tally.times)
            texts[endpoint] = texts.get(endpoint, 0) + tally.texts
            tokens[endpoint] = tokens.get(endpoint, 0) + tally.tokens
            truncated[endpoint] = truncated.get(endpoint, 0) + tally.truncated
        yield requests
        yield _histogram(
            "hubgate_request_seconds",
            "Time from the request's headers to the end of its response.",
            ("face", "endpoint"),
            seconds,
        )
        yield _counter("hubgate_texts", "Texts processed.", texts)
        yield _counter("hubgate_tokens", "Tokens read, if the engine reports them.", tokens)
        yield _counter(
            "hubgate_texts_truncated",
            "Texts truncated to the model's limit, if known.",
            truncated,
        )
        yield _histogram(
            "hubgate_queue_seconds",
            "Time a call waited in the queue; calls that did not wait are not counted.",
            _ENDPOINT,
            {(endpoint,): times for endpoint, times in self._meter.waits.items()},
        )
        yield GaugeMetricFamily(
            "hubgate_requests_in_flight", "Requests in flight.", value=self._meter.in_flight
        )


def _counter(name: str, words: str, numbers: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, words, labels=_ENDPOINT)
    for endpoint, number in numbers.items():
        family.add_metric((endpoint,), number)
    return family


def _histogram(
    name: str, words: str, labels: tuple[str, ...], times: Mapping[tuple[str, ...], _Histogram]
) -> Metric:
    family = HistogramMetricFamily(name, words, labels=labels)
    for values, one in times.items():
        family.add_metric(values, one.buckets(), one.total)
    return family


class _Pipelines(Collector):
    """The counters of queues and caches."""

    def __init__(self, pipelines: Callable[[], Mapping[str, Pipeline]]) -> None:
        self._pipelines = pipelines

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "hubgate_queue_texts", "Texts waiting for the rate limit.", labels=_ENDPOINT
        )
        calls = GaugeMetricFamily(
            "hubgate_queue_calls", "Calls waiting for the rate limit.", labels=_ENDPOINT
        )
        in_flight = GaugeMetricFamily(
            "hubgate_upstream_in_flight", "Requests in flight to the upstream.", labels=_ENDPOINT
        )
        requests = CounterMetricFamily(
            "hubgate_upstream_requests", "Requests sent upstream.", labels=_ENDPOINT
        )
        shared = CounterMetricFamily(
            "hubgate_upstream_requests_saved", "Calls that shared another call's request.", labels=_ENDPOINT
        )
        hits = CounterMetricFamily("hubgate_cache_hits", "Texts found in the cache.", labels=_ENDPOINT)
        misses = CounterMetricFamily(
            "hubgate_cache_misses", "Texts not found in the cache.", labels=_ENDPOINT
        )
        for name, pipeline in self._pipelines().items():
            if queue := pipeline.queue:
                waiting.add_metric([name], queue.queued_texts)
                calls.add_metric([name], queue.queued_calls)
                in_flight.add_metric([name], queue.in_flight)
                requests.add_metric([name], queue.requests)
                shared.add_metric([name], queue.shared)
            if cached := pipeline.cached:
                hits.add_metric([name], cached.hits)
                misses.add_metric([name], cached.misses)
        yield from (waiting, calls, in_flight, requests, shared, hits, misses)


class _Replicas(Collector):
    """The servers of endpoints that have several."""

    def __init__(self, pipelines: Callable[[], Mapping[str, Pipeline]]) -> None:
        self._pipelines = pipelines

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("hubgate_replica_up", "Whether a replica takes calls.", labels=_REPLICA)
        in_flight = GaugeMetricFamily(
            "hubgate_replica_in_flight", "Requests in flight to a replica.", labels=_REPLICA
        )
        requests = CounterMetricFamily(
            "hubgate_replica_requests", "Requests sent to a replica, without retries.", labels=_REPLICA
        )
        for name, pipeline in self._pipelines().items():
            balancer = pipeline.health.balancer if pipeline.health else None
            for replica in balancer.replicas if balancer else ():
                labels = [name, replica.name]
                up.add_metric(labels, replica.ready)
                in_flight.add_metric(labels, replica.in_flight)
                requests.add_metric(labels, replica.requests)
        yield from (up, in_flight, requests)


class _StoredVectors(Collector):
    """The part of the vector cache behind the memory: on disk or shared."""

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors

    def collect(self) -> Iterator[Metric]:
        words = {
            "hits": "Texts found in this part of the cache, which were not in memory.",
            "misses": "Texts not found in this part of the cache.",
            "dropped": "Vectors that were not written to it.",
        }
        for name, number in self._vectors.counts.items():
            family = CounterMetricFamily(f"hubgate_stored_vectors_{name}", words[name], labels=("place",))
            family.add_metric([self._vectors.place], number)
            yield family


class _Feed(Collector):
    """What is known of other gateways' changes."""

    def __init__(self, stale_seconds: Callable[[], float]) -> None:
        self._stale_seconds = stale_seconds

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "hubgate_stale_seconds",
            "Time since the changes of other gateways of the database were last read.",
            value=self._stale_seconds(),
        )


class _LocalModels(Collector):
    """The memory of local models."""

    def __init__(self, memory: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "hubgate_local_model_bytes",
            "Memory of a loaded local model's worker.",
            labels=("model", "precision"),
        )
        for labels, size in self._memory().items():
            loaded.add_metric(labels, size)
        yield loaded


class _Shared(Collector):
    """The rate limits that gateways share."""

    def __init__(self, limits: SharedLimits) -> None:
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        words = "Whether the server by which gateways share rate limits is away: this one waits, or uses its share."
        yield GaugeMetricFamily("hubgate_alone", words, value=self._limits.alone)


class _Deployments(Collector):
    """What Inference Endpoints cost."""

    def __init__(self, dollars: Callable[[], Mapping[str, float]]) -> None:
        self._dollars = dollars

    def collect(self) -> Iterator[Metric]:
        spent = CounterMetricFamily(
            "hubgate_deployment_dollars",
            "US dollars that an Inference Endpoint cost, estimated from its states.",
            labels=("deployment",),
        )
        for name, dollars in self._dollars().items():
            spent.add_metric((name,), dollars)
        yield spent
