"""The usage page: what was asked, by whom, how it went, and what the gate saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.responses import Response

from hubgate.domain.records import UsageQuery
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.records import usage_csv
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.playground.page import CONSOLE
from hubgate.web.console.usage.periods import RANGES, USUAL, Period, total
from hubgate.web.console.usage.views import cards_of, shares_of

TABLES = ("time", "endpoint", "key", "all")
"""What a CSV has a row for; the words are `usage.csv.<table>`."""
_MOST_OTHERS = 200


class _Wanted(NamedTuple):
    """What the page is to show."""

    range: str
    endpoint: str
    key: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> _Wanted:
        """What a browser asks for; what cannot be read is as if it were not there."""
        name = query.get("range", USUAL)
        return cls(
            name if name in RANGES else USUAL,
            query.get("endpoint", "").strip()[:200],
            query.get("key", "")[:200],
        )

    def url(self, path: str = "/ui/usage", **other: str) -> str:
        """The address of this, with something else about it."""
        query = {name: value for name, value in {**self._asdict(), **other}.items() if value}
        return f"{path}?{urlencode(query)}"

    def question(self, period: Period, *by: str) -> UsageQuery:
        """What the store is asked."""
        return UsageQuery(
            start=period.start, end=period.end, by=by, endpoint=self.endpoint or None, key=self.key or None
        )


class UsagePage:
    """Charts, tables and CSV."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def show(self, context: PageContext) -> Response:
        """The page, or with htmx all of it but the filters."""
        wanted = _Wanted.of(context.request.query_params)
        now, report = time.time(), self._gateway.usage.report
        period = Period.until(now, RANGES[wanted.range])
        columns = period.columns_of(await report(wanted.question(period, period.range.by)))
        whole, names = total(columns), self._names()
        causes = await report(wanted.question(period, "cause"))
        return context.render(
            "usage_body.html" if context.is_htmx else "usage.html",
            wanted=wanted,
            ranges=list(RANGES),
            tables=TABLES,
            period=period,
            whole=whole,
            columns=columns,
            cards=cards_of(columns, whole, context.language, of_key=bool(wanted.key)),
            times=period.names(context.language),
            until=period.name(now, context.language),
            axis=period.axis(context.language),
            causes=shares_of(causes, {}),
            by_endpoint=shares_of(await report(wanted.question(period, "endpoint")), {}),
            by_key=shares_of(await report(wanted.question(period, "key")), names),
            names=names,
            others=[endpoint.name for endpoint in self._gateway.registry.endpoints()][:_MOST_OTHERS],
        )

    async def csv(self, context: PageContext) -> Response:
        """The same numbers as a table for spreadsheets, by what `?table=` says."""
        query = context.request.query_params
        wanted = _Wanted.of(query)
        period = Period.until(time.time(), RANGES[wanted.range])
        by = {"endpoint": ("endpoint",), "key": ("key",), "all": (period.range.by, "endpoint", "key")}
        words = by.get(query.get("table", ""), (period.range.by,))
        pages = await self._gateway.usage.pages(wanted.question(period, *words))
        name = "-".join(("usage", wanted.range, *words))
        return usage_csv(words, pages, self._names(), f"{name}.csv")

    def _names(self) -> dict[str, str]:
        """Of keys, by their ids."""
        return {CONSOLE.id: CONSOLE.name} | {key.id: key.name for key in self._access.list()}
