"""The page of one model: settings, state, limits, recent usage, and code that calls it."""

from __future__ import annotations

import time

from starlette.responses import Response

from hubgate.domain.records import DAY, Tally, UsageQuery
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunk_size import size_warning
from hubgate.web.console.models.page import DONE, Models
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.playground.form import kind_of
from hubgate.web.console.playground.page import sample_form, snippet_values


class ModelPage:
    def __init__(self, gateway: Gateway, models: Models) -> None:
        self._gateway = gateway
        self._models = models

    async def show(self, context: PageContext) -> Response:
        endpoint = self._gateway.registry.find(context.request.path_params["name"])
        (row,) = await self._models.rows([endpoint])
        done = context.request.query_params.get("done", "")
        cut = size_warning(endpoint, endpoint.chunking)
        form = {
            name: text
            for name, text in sample_form(context, kind_of(endpoint)).items()
            if name not in _SAMPLES
        }
        return context.render(
            "models/detail.html",
            endpoint=endpoint,
            row=row,
            hint=self._gateway.registry.token_hint(endpoint.name),
            used=await self._last_day(endpoint.name),
            cut=cut,
            warnings=[warning for warning in endpoint.facts.warnings if warning != cut],
            done=done if done in DONE else "",
            form=form,
            **snippet_values(context, endpoint, form),
        )

    async def state(self, context: PageContext) -> Response:
        rows = await self._models.rows([self._gateway.registry.find(context.request.path_params["name"])])
        return context.render("models/states.html", rows=rows)

    async def _last_day(self, name: str) -> Tally:
        now = int(time.time())
        rows = await self._gateway.ports.usage(UsageQuery(start=now - DAY, end=now + 1, endpoint=name))
        return rows[0].tally if rows else Tally()


_SAMPLES = frozenset({"text_3", "text_4"})
"""Sample texts of the playground that a snippet omits."""
