"""OpenAI's lists, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.errors import InvalidRequest
from hubgate.features.bulk.batches.model import Page


class RequestedPage(NamedTuple):
    limit: int
    after: str | None
    oldest_first: bool

    def one_more(self) -> Page:
        """The page with the first item of the next one, which shows whether there is one."""
        return Page(self.limit + 1, self.after, self.oldest_first)


def page_of(request: Request, *, default: int, maximum: int) -> RequestedPage:
    """The page that a request asks for. Raises: InvalidRequest."""
    query = request.query_params
    limit, order = query.get("limit", str(default)), query.get("order", "desc")
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= maximum:
        raise InvalidRequest(f"[limit] must be from 1 to {maximum}.")
    if order not in {"asc", "desc"}:
        raise InvalidRequest("[order] must be asc or desc.")
    return RequestedPage(int(limit), query.get("after"), order == "asc")


def rendered_page(found: Sequence[dict[str, Any]], page: RequestedPage) -> Response:
    data = found[: page.limit]
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(found) > page.limit,
        }
    )


def json_response(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
