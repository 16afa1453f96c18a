"""Counts what the gate does, for Prometheus. Children are bound once: a hot call adds to numbers, nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MOST_SERIES = 10_000


class _Series(NamedTuple):
    count: Callable[[], None]
    seconds: Callable[[float], None]
    texts: Callable[[float], None]
    tokens: Callable[[float], None]


class Meter:
    """The gate's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self._in_flight = Gauge(
            "hubgate_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.started: Callable[[], None] = self._in_flight.inc
        self.ended: Callable[[], None] = self._in_flight.dec
        self._bound: dict[tuple[str, str, str], _Series] = {}

    def observe(
        self, face: str, endpoint: str, cause: str, *, seconds: float, texts: int, tokens: int
    ) -> None:
        """Count one answered request. `endpoint` must be the name of a registered one, or empty."""
        key = (face, endpoint, cause)
        series = self._bound.get(key)
        if series is None:
            series = self._bind(key)
        series.count()
        series.seconds(seconds)
        if texts:
            series.texts(texts)
        if tokens:
            series.tokens(tokens)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _bind(self, key: tuple[str, str, str]) -> _Series:
        if len(self._bound) >= _MOST_SERIES:
            self._bound.clear()
        face, endpoint, _ = key
        series = self._bound[key] = _Series(
            self._requests.labels(*key).inc,
            self._seconds.labels(face, endpoint).observe,
            self._texts.labels(endpoint).inc,
            self._tokens.labels(endpoint).inc,
        )
        return series
