"""The usage page: requests by endpoint and key, their results, and what hubgate saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.responses import Response

from hubgate.domain.records import UsageQuery
from hubgate.features.usage.api import usage_csv
from hubgate.features.usage.periods import DEFAULT_RANGE, RANGES, Period, total
from hubgate.features.usage.usage import Usage
from hubgate.features.usage.views import cards_of, shares_of
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.playground.page import CONSOLE

TABLES = ("time", "endpoint", "key", "all")
"""The downloads as CSV, by what each row is about. Their titles are `usage.csv.<table>`."""
_MAX_SUGGESTIONS = 200
"""Endpoints that the filter suggests."""


class _Filter(NamedTuple):
    range: str
    endpoint: str
    key: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> _Filter:
        """The filter in a query string; invalid values are ignored."""
        name = query.get("range", DEFAULT_RANGE)
        return cls(
            name if name in RANGES else DEFAULT_RANGE,
            query.get("endpoint", "").strip()[:200],
            query.get("key", "")[:200],
        )

    def url(self, path: str = "/ui/usage", **other: str) -> str:
        """The URL of this filter, with other values for some of its fields."""
        query = {name: value for name, value in {**self._asdict(), **other}.items() if value}
        return f"{path}?{urlencode(query)}"

    def usage_query(self, period: Period, *by: str) -> UsageQuery:
        """The query for this filter, grouped `by` these fields."""
        return UsageQuery(
            start=period.start, end=period.end, by=by, endpoint=self.endpoint or None, key=self.key or None
        )


class UsagePage:
    def __init__(self, usage: Usage, gateway: Gateway, access: Access) -> None:
        self._usage = usage
        self._gateway = gateway
        self._access = access

    async def show(self, context: PageContext) -> Response:
        """The page, or only its body below the filters when htmx requests it."""
        usage_filter = _Filter.of(context.request.query_params)
        now, report = time.time(), self._usage.report
        period = Period.until(now, RANGES[usage_filter.range])
        columns = period.columns_of(await report(usage_filter.usage_query(period, period.range.by)))
        totals, names = total(columns), self._names()
        causes = await report(usage_filter.usage_query(period, "cause"))
        return context.render(
            "usage/body.html" if context.is_htmx else "usage/page.html",
            usage_filter=usage_filter,
            ranges=list(RANGES),
            tables=TABLES,
            period=period,
            totals=totals,
            columns=columns,
            cards=cards_of(columns, totals, context.language, of_key=bool(usage_filter.key)),
            times=period.names(context.language),
            until=period.name(now, context.language),
            axis=period.axis(context.language),
            causes=shares_of(causes, {}),
            by_endpoint=shares_of(await report(usage_filter.usage_query(period, "endpoint")), {}),
            by_key=shares_of(await report(usage_filter.usage_query(period, "key")), names),
            names=names,
            suggested_endpoints=[endpoint.name for endpoint in self._gateway.registry.endpoints()][
                :_MAX_SUGGESTIONS
            ],
        )

    async def csv(self, context: PageContext) -> Response:
        """The same numbers as CSV; `?table=` selects the grouping."""
        query = context.request.query_params
        usage_filter = _Filter.of(query)
        period = Period.until(time.time(), RANGES[usage_filter.range])
        by = {"endpoint": ("endpoint",), "key": ("key",), "all": (period.range.by, "endpoint", "key")}
        grouping = by.get(query.get("table", ""), (period.range.by,))
        pages = await self._usage.pages(usage_filter.usage_query(period, *grouping))
        name = "-".join(("usage", usage_filter.range, *grouping))
        return usage_csv(grouping, pages, self._names(), f"{name}.csv")

    def _names(self) -> dict[str, str]:
        """The names of keys by id."""
        return {CONSOLE.id: CONSOLE.name, **self._access.names}
