"""The view of the usage page: cards with a headline and a chart, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hubgate.domain.records import Tally, UsageRow
from hubgate.features.usage.charts import MILLISECOND, Chart, lines, stacked
from hubgate.web.console.languages import Language

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MAX_ROWS = 20
"""Of a table. The CSV has all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One chart with its numbers, formatted in the language of the page. The title is `usage.<name>`."""

    name: str
    headline: str
    series: Sequence[str]
    """Names of series, with the messages `usage.series.<name>`."""
    chart: Chart
    is_lines: bool
    scale: Sequence[str]
    values: Sequence[Sequence[str]]
    """By column and series; a column without values is empty."""
    bulk: str = ""
    """The headline of bulk calls, if shown separately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A table row: an endpoint, a key or a cause. `share` is relative to the first row, from 0 to 1."""

    name: str
    tally: Tally
    share: float
    p95: float | None


_STACKS: Mapping[str, Mapping[str, Callable[[Tally], float]]] = {
    "requests": {
        "succeeded": lambda one: one.requests - one.errors - one.cancelled,
        "failed": lambda one: one.errors,
        "cancelled": lambda one: one.cancelled,
    },
    "texts": {"texts": lambda one: one.texts},
    "tokens": {"input": lambda one: one.prompt_tokens, "output": lambda one: one.completion_tokens},
    "waiting": {"waiting": lambda one: one.queue_seconds / one.requests if one.requests else 0.0},
    "cache": {"hits": lambda one: one.cache_hits, "misses": lambda one: one.cache_misses},
    "upstream": {"sent": lambda one: one.upstream_requests, "saved": lambda one: one.saved_requests},
}
SERIES = frozenset(name for stack in _STACKS.values() for name in stack) | PERCENTILES.keys()
ENDPOINT_CARDS = frozenset({"cache", "upstream"})
"""Counted per endpoint, not per key."""
CARDS = ("requests", "latency", "texts", "tokens", "waiting", "cache", "upstream")


def cards_of(columns: Sequence[Tally], whole: Tally, language: Language, *, of_key: bool) -> list[Card]:
    """All cards, or those that exist for one key."""
    return [
        _latency(columns, whole, language) if name == "latency" else _stack(name, columns, whole, language)
        for name in CARDS
        if not (of_key and name in ENDPOINT_CARDS)
    ]


def shares_of(rows: Sequence[UsageRow], names: Mapping[str, str]) -> list[Share]:
    """The rows with the most requests."""
    ranked = sorted((row for row in rows if row.tally.requests), key=lambda row: -row.tally.requests)[
        :MAX_ROWS
    ]
    return [
        Share(
            name=names.get(str(row.group[0]), str(row.group[0])),
            tally=row.tally,
            share=row.tally.requests / ranked[0].tally.requests,
            p95=row.tally.latency.percentile(0.95),
        )
        for row in ranked
    ]


def _stack(name: str, columns: Sequence[Tally], whole: Tally, language: Language) -> Card:
    stack = _STACKS[name]
    series = [[float(count(one)) for one in columns] for count in stack.values()]
    is_time = name == "waiting"
    write = language.duration if is_time else language.number
    chart = stacked(series, integral=not is_time, min_step=MILLISECOND if is_time else 0.0)
    return Card(
        name=name,
        headline=_headline(name, whole, language),
        series=list(stack),
        chart=chart,
        is_lines=False,
        scale=_scale(name, chart, language),
        values=[
            [write(one) for one in values] if any(values) else [] for values in zip(*series, strict=True)
        ],
    )


def _latency(columns: Sequence[Tally], whole: Tally, language: Language) -> Card:
    """Percentiles of interactive calls. Bulk calls wait behind them and are shown separately."""
    series = [[one.latency.percentile(share) for one in columns] for share in PERCENTILES.values()]
    chart = lines(series, min_step=MILLISECOND)
    p95, bulk_p95 = whole.latency.percentile(0.95), whole.bulk_latency.percentile(0.95)
    return Card(
        name="latency",
        headline="–" if p95 is None else language.duration(p95),
        bulk="" if bulk_p95 is None else language.duration(bulk_p95),
        series=list(PERCENTILES),
        chart=chart,
        is_lines=True,
        scale=_scale("latency", chart, language),
        values=[
            [language.duration(one) for one in values if one is not None]
            for values in zip(*series, strict=True)
        ],
    )


def _headline(name: str, whole: Tally, language: Language) -> str:
    if name == "waiting":
        return language.duration(whole.queue_seconds / whole.requests if whole.requests else 0.0)
    if name == "cache":
        read = whole.cache_hits + whole.cache_misses
        return language.percent(whole.cache_hits / read) if read else "–"
    numbers = {
        "requests": whole.requests,
        "texts": whole.texts,
        "tokens": whole.prompt_tokens + whole.completion_tokens,
        "upstream": whole.saved_requests,
    }
    return language.number(numbers[name])


def _scale(name: str, chart: Chart, language: Language) -> list[str]:
    write = language.duration if name in {"waiting", "latency"} else language.compact
    return [write(number) if number else language.number(0) for number in chart.scale]
