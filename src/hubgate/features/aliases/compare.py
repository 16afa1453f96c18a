"""The page that compares how two embedding models rank the same texts."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response

from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import Context, Embed, Encoding, Vectors
from hubgate.domain.endpoint import Endpoint, InputType, Task
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.features.aliases.aliases import why_not_comparable
from hubgate.service.gateway import Gateway
from hubgate.web.console.page_context import PageContext
from hubgate.web.http.request_context import context_of
from hubgate.web.shared.embeddings import estimate_tokens

if TYPE_CHECKING:
    from hubgate.service.inference.comparison import Comparison

MAX_TEXTS, MAX_QUERIES = 1000, 200
_EXAMPLES, _EXAMPLE_TEXTS = 3, 3
_RAW_FIELDS = frozenset({"texts", "queries"})


class _Side(NamedTuple):
    """What one endpoint made of the texts."""

    texts: Sequence[bytes]
    queries: Sequence[bytes]
    tokens: int
    """Of the texts."""


class Report(NamedTuple):
    """What the page shows."""

    comparison: Comparison
    texts: Sequence[str]
    queries: Sequence[str]
    reason: str | None
    """Why the vectors cannot be compared with those of the other model; `None` if an alias may move at once."""
    tokens_per_text: float
    documents: int
    price: float | None
    """Per million tokens."""

    @property
    def tokens(self) -> float:
        """What embedding all documents again takes, estimated from the texts."""
        return self.tokens_per_text * self.documents

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.tokens * self.price / 1_000_000

    @property
    def cosine(self) -> float | None:
        """The mean of the two vectors of each text, if they have the same dimensions."""
        cosines = self.comparison.cosines
        return sum(cosines) / len(cosines) if cosines else None

    @property
    def examples(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """The queries whose results change most, each with the first texts of both models side by side."""
        return [
            (
                self.queries[one.query],
                [
                    (self.texts[before], self.texts[now])
                    for before, now in zip(one.old[:_EXAMPLE_TEXTS], one.new[:_EXAMPLE_TEXTS], strict=True)
                ],
            )
            for one in self.comparison.most_changed(_EXAMPLES)
        ]


class ComparePage:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, context: PageContext) -> Response:
        """The form; `?old=` and `?new=` select the models, otherwise the first two."""
        chosen = dict(zip(("old", "new"), self._names(), strict=False))
        return self._render(context, chosen | dict(context.request.query_params))

    async def run(self, context: PageContext) -> Response:
        form = await context.form(_RAW_FIELDS)
        try:
            report = await self._compare(form, context_of(context.request.scope).call_context())
        except HubgateError as error:
            return self._render(context, form, error=error)
        return self._render(context, form, report=report)

    async def _compare(self, form: Mapping[str, str], call_context: Context) -> Report:
        if importlib.util.find_spec("numpy") is None:
            raise InvalidRequest("Comparing needs numpy.", remedy="Install hubgate[local].")
        texts = _lines(form, "texts", at_least=2, at_most=MAX_TEXTS)
        queries = _lines(form, "queries", at_least=0, at_most=MAX_QUERIES)
        documents, price = _number(form, "documents") or len(texts), _number(form, "price")
        old, new = (self._gateway.registry.find(form.get(which, "")) for which in ("old", "new"))
        chosen = [] if queries else [*range(0, len(texts), -(-len(texts) // MAX_QUERIES))]
        before, now = await asyncio.gather(
            *(self._embed(endpoint, texts, queries, call_context) for endpoint in (old, new))
        )
        comparison = await asyncio.to_thread(_compared, before, now, chosen)
        return Report(
            comparison,
            texts,
            queries or [texts[position] for position in chosen],
            reason=why_not_comparable(old, new),
            tokens_per_text=now.tokens / len(texts),
            documents=int(documents),
            price=price,
        )

    async def _embed(
        self, endpoint: Endpoint, texts: Sequence[str], queries: Sequence[str], call_context: Context
    ) -> _Side:
        async def embed(some: Sequence[str], kind: InputType) -> Vectors:
            call = Embed(texts=some, input_type=kind, context=call_context)
            vectors = await self._gateway.inference.embed(endpoint.name, call)
            return await asyncio.to_thread(in_encoding, vectors, Encoding.F32)

        documents = await embed(texts, InputType.INGEST)
        asked = (await embed(queries, InputType.SEARCH)).items if queries else ()
        tokens = estimate_tokens(texts) if documents.tokens is None else documents.tokens
        return _Side(documents.items, asked, tokens)

    def _names(self) -> list[str]:
        endpoints = self._gateway.registry.endpoints()
        return [endpoint.name for endpoint in endpoints if endpoint.task is Task.TEXT_EMBEDDING]

    def _render(
        self,
        context: PageContext,
        form: Mapping[str, str],
        *,
        error: HubgateError | None = None,
        report: Report | None = None,
    ) -> Response:
        limits: dict[str, Any] = {"texts": MAX_TEXTS, "queries": MAX_QUERIES}
        return context.render(
            "aliases/compare.html",
            names=self._names(),
            form=form,
            faults={},
            error=error,
            report=report,
            limits=limits,
        )


def _compared(before: _Side, now: _Side, chosen: Sequence[int]) -> Comparison:
    from hubgate.service.inference.comparison import Vectors as Matrices  # noqa: PLC0415 - numpy is of the extra [local]
    from hubgate.service.inference.comparison import compare  # noqa: PLC0415

    return compare(*(Matrices(side.texts, side.queries, chosen) for side in (before, now)))


def _lines(form: Mapping[str, str], name: str, *, at_least: int, at_most: int) -> list[str]:
    lines = [line.strip() for line in form.get(name, "").splitlines() if line.strip()]
    if not at_least <= len(lines) <= at_most:
        raise InvalidRequest(
            f"[{name}] has {len(lines)} lines; it must have {at_least} to {at_most}.",
            remedy="Write one text per line. `hubgate compare` reads larger files.",
        )
    return lines


def _number(form: Mapping[str, str], name: str) -> float | None:
    """A number in any digits; `None` if the field is empty.

    Raises:
        InvalidRequest: it is not a number.
    """
    text = form.get(name, "").replace(",", "").strip()
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < 1e15:
        raise InvalidRequest(f"[{name}] is not a number.", remedy="Write digits, such as 100000 or 0.02.")
    return value
