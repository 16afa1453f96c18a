"""Counts what the gate does, for Prometheus. Children are bound once: a hot call adds to numbers, nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

    from hubgate.service.pipeline import Pipeline

# Without it every series has a twin that tells when it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ENDPOINT = ("endpoint",)
MOST_SERIES = 10_000


class _Series(NamedTuple):
    requests: Callable[[], None]
    seconds: Callable[[float], None]
    texts: Callable[[float], None]
    tokens: Callable[[float], None]
    waited: Callable[[float], None]


class Meter:
    """The gate's metrics, in a registry of their own.

    Endpoints come and go, so there is a bound on the series: beyond it all counters begin anew, as after a restart.
    """

    def __init__(
        self,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        local_memory: Callable[[], Mapping[tuple[str, str], int]] = dict,
        *,
        most_series: int = MOST_SERIES,
    ) -> None:
        self._most_series = most_series
        self.registry = CollectorRegistry()
        self.registry.register(_Pipelines(pipelines))
        self.registry.register(_LocalModels(local_memory))
        labels = ("face", "endpoint", "cause")
        self._requests = Counter(
            "hubgate_requests",
            "Requests by their outcome; cause is ok, or why they failed.",
            labels,
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hubgate_request_seconds",
            "Time from the request's head to its answer.",
            ("face", "endpoint"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._texts = Counter("hubgate_texts", "Texts answered.", ("endpoint",), registry=self.registry)
        self._tokens = Counter(
            "hubgate_tokens", "Tokens read, where the engine tells.", ("endpoint",), registry=self.registry
        )
        self._waited = Histogram(
            "hubgate_queue_seconds",
            "Time that a call stood in the gate's queue; those that did not wait are not counted.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "hubgate_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.started: Callable[[], None] = self._in_flight.inc
        self.ended: Callable[[], None] = self._in_flight.dec
        self._bound: dict[tuple[str, str, str], _Series] = {}

    def observe(
        self,
        face: str,
        endpoint: str,
        cause: str,
        *,
        seconds: float,
        texts: int = 0,
        tokens: int = 0,
        waited: float = 0.0,
    ) -> None:
        """Count one answered request. `endpoint` must be the name of a registered one, or empty."""
        key = (face, endpoint, cause)
        series = self._bound.get(key)
        if series is None:
            series = self._bind(key)
        series.requests()
        series.seconds(seconds)
        if texts:
            series.texts(texts)
        if tokens:
            series.tokens(tokens)
        if waited:
            series.waited(waited)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _bind(self, key: tuple[str, str, str]) -> _Series:
        if len(self._bound) >= self._most_series:
            self._bound.clear()
            for metric in (self._requests, self._seconds, self._texts, self._tokens, self._waited):
                metric.clear()
        face, endpoint, _ = key
        series = self._bound[key] = _Series(
            self._requests.labels(*key).inc,
            self._seconds.labels(face, endpoint).observe,
            self._texts.labels(endpoint).inc,
            self._tokens.labels(endpoint).inc,
            self._waited.labels(endpoint).observe,
        )
        return series


class _Pipelines(Collector):
    """What the queues and caches count themselves, read when somebody looks."""

    def __init__(self, pipelines: Callable[[], Mapping[str, Pipeline]]) -> None:
        self._pipelines = pipelines

    def collect(self) -> Iterator[Metric]:
        """One family a number, one sample an endpoint."""
        waiting = GaugeMetricFamily(
            "hubgate_queue_texts", "Texts that wait for the allowance.", labels=_ENDPOINT
        )
        calls = GaugeMetricFamily(
            "hubgate_queue_calls", "Calls that wait for the allowance.", labels=_ENDPOINT
        )
        flying = GaugeMetricFamily(
            "hubgate_upstream_in_flight", "Requests at the upstream.", labels=_ENDPOINT
        )
        asked = CounterMetricFamily("hubgate_upstream_requests", "Requests sent upstream.", labels=_ENDPOINT)
        shared = CounterMetricFamily(
            "hubgate_upstream_requests_saved", "Calls that went along in another's request.", labels=_ENDPOINT
        )
        hits = CounterMetricFamily(
            "hubgate_cache_hits", "Texts whose vectors were remembered.", labels=_ENDPOINT
        )
        misses = CounterMetricFamily(
            "hubgate_cache_misses", "Texts whose vectors were not.", labels=_ENDPOINT
        )
        for name, pipeline in self._pipelines().items():
            if queue := pipeline.queue:
                waiting.add_metric([name], queue.queued_texts)
                calls.add_metric([name], queue.queued_calls)
                flying.add_metric([name], queue.in_flight)
                asked.add_metric([name], queue.requests)
                shared.add_metric([name], queue.shared)
            if cached := pipeline.cached:
                hits.add_metric([name], cached.hits)
                misses.add_metric([name], cached.misses)
        yield from (waiting, calls, flying, asked, shared, hits, misses)


class _LocalModels(Collector):
    """What local models take of this machine, read when somebody looks."""

    def __init__(self, memory: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        """One sample a model that is loaded, by its name and precision."""
        loaded = GaugeMetricFamily(
            "hubgate_local_model_bytes",
            "Memory of a local model's worker; none while it is not loaded.",
            labels=("model", "precision"),
        )
        for labels, size in self._memory().items():
            loaded.add_metric(labels, size)
        yield loaded
