"""The models page: the registered endpoints, their current state, and actions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote, urlencode

from starlette.responses import Response

from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import HubgateError
from hubgate.domain.records import DAY, HOUR, UsageQuery
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.registry.registry import users_of
from hubgate.service.states import State
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.paging import numbered_page

_FRESH_SECONDS = 5.0
DONE = frozenset({"added", "kept", "saved", "deleted", "enabled", "disabled", "cloned"})


@dataclass(frozen=True, slots=True)
class Row:
    endpoint: Endpoint
    state: State
    today: int
    """Requests since midnight, in the gateway's time zone."""
    id: str
    """HTML id, for the parts of the page that are polled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The filter."""

    text: str = ""
    task: str = ""
    source: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Search:
        """From a query string; invalid values are ignored."""
        return cls(
            text=query.get("q", "").strip()[:200],
            task=query.get("task", "") if query.get("task") in set(Task) else "",
            source=query.get("source", "") if query.get("source") in set(Source) else "",
        )

    def url(self, page: int) -> str:
        """The URL of a page of this search."""
        parameters = {
            "q": self.text,
            "task": self.task,
            "source": self.source,
            "page": page if page > 1 else "",
        }
        query = urlencode({name: value for name, value in parameters.items() if value})
        return "/ui/models" + (f"?{query}" if query else "")

    def finds(self, endpoint: Endpoint) -> bool:
        if self.task not in ("", endpoint.task) or self.source not in ("", endpoint.source):
            return False
        text = self.text.casefold()
        shown = (endpoint.name, endpoint.model, endpoint.url, endpoint.facts.model, endpoint.facts.engine)
        return not text or any(text in (value or "").casefold() for value in shown)


class Models:
    """The list, and the actions that need no form."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._today: Mapping[str, int] = {}
        self._today_until = 0.0

    async def show(self, context: PageContext) -> Response:
        """A page of the list; only the part that a search changes, if htmx requests it."""
        query = context.request.query_params
        search = Search.of(query)
        every = self._gateway.registry.endpoints()
        found = [endpoint for endpoint in every if search.finds(endpoint)]
        shown = numbered_page(found, query)
        done = query.get("done", "")
        return context.render(
            "models/list.html" if context.is_htmx else "models/page.html",
            rows=await self.rows(shown.items),
            search=search,
            shown=shown,
            found=len(found),
            total=len(every),
            tasks=sorted({endpoint.task for endpoint in every}),
            sources=sorted({endpoint.source for endpoint in every}),
            done=done if done in DONE else "",
            named=query.get("name", "")[:200],
        )

    async def states(self, context: PageContext) -> Response:
        """The states of the endpoints on the page, as htmx fragments."""
        query = context.request.query_params
        search = Search.of(query)
        found = [endpoint for endpoint in self._gateway.registry.endpoints() if search.finds(endpoint)]
        rows = await self.rows(numbered_page(found, query).items)
        return context.render("models/states.html", rows=rows)

    async def enable(self, context: PageContext) -> Response:
        """Switch an endpoint on; it is tested first unless it was tested before."""
        name = context.request.path_params["name"]
        await self._gateway.registry.edit(replace(self._gateway.registry.find(name), enabled=True))
        return await _back(context, "enabled", name)

    async def disable(self, context: PageContext) -> Response:
        name = context.request.path_params["name"]
        await self._gateway.registry.edit(replace(self._gateway.registry.find(name), enabled=False))
        return await _back(context, "disabled", name)

    async def ask_delete(self, context: PageContext) -> Response:
        """The confirmation to delete an endpoint, with what uses it."""
        endpoint = self._gateway.registry.find(context.request.path_params["name"])
        users = users_of(endpoint.name, self._gateway.registry.endpoints(), self._access.list())
        return context.render(
            "models/delete.html", endpoint=endpoint, users=[user.split(" ", 1) for user in users]
        )

    async def delete(self, context: PageContext) -> Response:
        name = context.request.path_params["name"]
        await self._gateway.registry.remove(name)
        return context.redirect(f"/ui/models?done=deleted&name={quote(name)}")

    async def accept(self, context: PageContext) -> Response:
        """Accept the model running now."""
        name = context.request.path_params["name"]
        await self._gateway.registry.accept(name)
        return await _back(context, "saved", name)

    async def ask_clone(self, context: PageContext) -> Response:
        """The dialog that asks for the name of the clone."""
        endpoint = self._gateway.registry.find(context.request.path_params["name"])
        return context.render("models/clone.html", endpoint=endpoint, twin=f"{endpoint.name}-2", fault=None)

    async def clone(self, context: PageContext) -> Response:
        endpoint = self._gateway.registry.find(context.request.path_params["name"])
        twin = (await context.form()).get("twin", "")
        try:
            await self._gateway.registry.clone(endpoint.name, twin)
        except HubgateError as error:
            return context.render("models/clone.html", endpoint=endpoint, twin=twin, fault=error)
        return context.redirect(page_of(twin, "cloned"))

    async def rows(self, endpoints: Sequence[Endpoint]) -> list[Row]:
        states = await self._gateway.states.of(endpoints)
        today = await self._requests_today()
        return [
            Row(endpoint, state, today.get(endpoint.name, 0), _id(endpoint.name))
            for endpoint, state in zip(endpoints, states, strict=True)
        ]

    async def _requests_today(self) -> Mapping[str, int]:
        """By endpoint; read every few seconds at most, however many pages are open."""
        now = time.time()
        if now >= self._today_until:
            start = int(midnight_before(now)) // HOUR * HOUR
            query = UsageQuery(start=start, end=start + 2 * DAY, by=("endpoint",))
            rows = await self._gateway.ports.usage(query)
            self._today = {str(row.group[0]): row.tally.requests for row in rows}
            self._today_until = now + _FRESH_SECONDS
        return self._today


def midnight_before(now: float) -> float:
    """Midnight before this time, in the gateway's time zone, also on days when clocks change."""
    day = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    return day.replace(tzinfo=None).astimezone().timestamp()


def _id(name: str) -> str:
    """An id for HTML: names of endpoints may contain characters that selectors cannot."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def page_of(name: str, done: str = "") -> str:
    """URL of a model's page, which confirms what was done."""
    return f"/ui/models/{quote(name)}/overview" + (f"?done={done}" if done else "")


async def _back(context: PageContext, done: str, name: str) -> Response:
    """Redirect to the page whose button was pressed: the model's own, or the list."""
    if "overview" in await context.form():
        return context.redirect(page_of(name, done))
    return context.redirect(f"/ui/models?done={done}&name={quote(name)}")
