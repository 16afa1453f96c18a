"""What a bulk job takes before it starts: vectors, tokens, requests, time, money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from hubgate.core.estimates.sampling import Sample, Total


class TextMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """What one text would be for an endpoint."""

    vectors: int = 1
    """More than one if it is split into chunks."""
    tokens: int = 0
    """That the model would read, in all chunks."""
    over_limit: bool = False
    """Whether it, or one of its chunks, is longer than the model reads."""
    cached: float = 0.0
    """The share of its vectors in the cache, from 0 to 1."""
    rejected: bool = False
    """Whether it is too large for a request."""
    counted: bool = True
    """Whether the model's tokenizer counted the tokens; otherwise they are estimated from the size of the text."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the requests to the server of an endpoint, and what it costs; `None`: nothing, or unknown."""

    max_texts: int | None = None
    """Per request to the server; `None` for a model that runs inside the gateway."""
    max_bytes: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    request_seconds: float | None = None
    """How long the server takes for a request, on average."""
    dollars_per_hour: float | None = None
    """Of one replica, when it was planned."""


class Input(NamedTuple):
    """What is known exactly of the input of a job."""

    rows: int
    refused: Mapping[str, int]
    """Rows that are not sent, by cause."""
    requests: int
    """To the gateway, if none is retried or split."""
    bytes: int
    """Of all texts."""
    rows_in_flight: int
    uses_cache: bool


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate. A `Total` has the half of its 95 % interval."""

    rows: int
    refused: Mapping[str, int]
    requests: int
    sampled_rows: int
    vectors: Total
    tokens: Total
    tokens_counted: bool
    """Whether by the model's tokenizer; otherwise `tokens` is a guess from the size, and its error only that of the sample."""
    over_limit: Total | None
    """Rows with a text or chunk that is longer than the model reads; `None` if unknown."""
    rejected: Total
    """Rows that are too large for a request."""
    cached: Total
    """Rows whose vectors are in the cache."""
    model_requests: int | None
    """To the model's server, about."""
    seconds: float | None
    """At least; `None` if nothing is known that limits the rate."""
    limited_by: str | None
    """`requests_per_minute`, `tokens_per_minute` or `concurrency`."""
    dollars: float | None
    priced_by: str | None
    """`price_per_million_tokens` or `dollars_per_hour`."""


class MeasuredSample:
    """The sampled rows of an input: ask `takes` for each row that is sent, then `add` those taken, in that order."""

    def __init__(self, sample: Sample) -> None:
        self.takes = sample.takes
        self.counted = True
        self._sample = sample

    @property
    def rows(self) -> int:
        return self._sample.size

    def add(self, size: int, measure: TextMeasure) -> None:
        """Add a row whose texts have this size."""
        self.counted = self.counted and measure.counted
        columns = (measure.vectors, measure.tokens, measure.over_limit, measure.rejected, measure.cached)
        self._sample.add(size, columns)

    @property
    def vectors(self) -> Total:
        return self._sample.size_total(0)

    @property
    def tokens(self) -> Total:
        return self._sample.size_total(1)

    @property
    def over_limit(self) -> Total:
        return self._sample.share_total(2)

    @property
    def rejected(self) -> Total:
        return self._sample.share_total(3)

    @property
    def cached(self) -> Total:
        return self._sample.share_total(4)


def estimate(of: Input, sample: MeasuredSample, allowance: Allowance, price: float | None = None) -> Estimate:
    """The estimate of a job.

    Args:
        of: its input.
        sample: with the measures of each sampled row.
        allowance: of its endpoint.
        price: per million tokens, if known.
    """
    vectors, tokens, cached = sample.vectors, sample.tokens, sample.cached
    sent_rows = of.rows - sum(of.refused.values())
    left = 1 - cached.value / sent_rows if of.uses_cache and sent_rows else 1.0
    requests = _model_requests(of, allowance, vectors.value, left, sent_rows)
    limited_by, seconds = _slowest(allowance, requests, tokens.value * left)
    dollars = priced_by = None
    if price is not None:
        dollars, priced_by = tokens.value * left * price / 1_000_000, "price_per_million_tokens"
    elif allowance.dollars_per_hour is not None and seconds is not None:
        dollars, priced_by = allowance.dollars_per_hour * seconds / 3600, "dollars_per_hour"
    return Estimate(
        rows=of.rows,
        refused=of.refused,
        requests=of.requests,
        sampled_rows=sample.rows,
        vectors=_rounded(vectors),
        tokens=_rounded(tokens),
        tokens_counted=sample.counted,
        over_limit=_rounded(sample.over_limit) if sample.counted else None,
        rejected=_rounded(sample.rejected),
        cached=_rounded(cached),
        model_requests=requests,
        seconds=seconds,
        limited_by=limited_by,
        dollars=dollars,
        priced_by=priced_by,
    )


def _model_requests(
    of: Input, allowance: Allowance, vectors: float, left: float, sent_rows: int
) -> int | None:
    """The gateway fills requests with the texts that are in flight, up to the limits of the server."""
    if allowance.max_texts is None:
        return None
    in_flight = math.ceil(of.rows_in_flight * vectors / max(1, sent_rows))
    texts = max(1, min(allowance.max_texts, in_flight))
    return max(
        math.ceil(vectors * left / texts),
        math.ceil(of.bytes * left / allowance.max_bytes) if allowance.max_bytes else 0,
    )


def _slowest(
    allowance: Allowance, requests: int | None, tokens: float
) -> tuple[str, float] | tuple[None, None]:
    """What limits the rate, and the seconds that the job takes at least."""
    times: dict[str, float] = {}
    if allowance.requests_per_minute and requests is not None:
        times["requests_per_minute"] = requests * 60 / allowance.requests_per_minute
    if allowance.tokens_per_minute:
        times["tokens_per_minute"] = tokens * 60 / allowance.tokens_per_minute
    if allowance.request_seconds and requests is not None:
        times["concurrency"] = requests * allowance.request_seconds / (allowance.concurrency or 1)
    if not times:
        return None, None
    limited_by = max(times, key=times.__getitem__)
    return limited_by, round(times[limited_by], 1)


def _rounded(total: Total) -> Total:
    return Total(round(total.value), math.ceil(round(total.error, 3)))
