"""Lists of `/api` that are read in pages, and lists that may be long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.core.off_loop import in_slices
from hubgate.domain.errors import InvalidRequest

MAX_LIMIT = 1000


class PageOf(NamedTuple):
    """Which part of a list is wanted; all of it without a `limit`."""

    limit: int | None
    after: str | None
    """What names the last item of the page before."""


def requested_page(request: Request) -> PageOf:
    """The page that a request wants. Raises: InvalidRequest."""
    limit = request.query_params.get("limit")
    after = request.query_params.get("after")
    return PageOf(None if limit is None else parse_int("limit", limit, 1, MAX_LIMIT), after)


def page_parameters(what: str) -> Mapping[str, str]:
    """The description of the parameters; `what` names an item, such as `the id of a key`."""
    return {
        "limit": f"at most {MAX_LIMIT}; all by default",
        "after": f"{what}: returns only those after it",
    }


def parse_int(name: str, given: str, low: int, high: int) -> int:
    """The value of a parameter. Raises: InvalidRequest."""
    if not given.isascii() or not given.isdigit() or len(given) > 19 or not low <= int(given) <= high:
        raise InvalidRequest(f"[{name}] must be a whole number from {low} to {high}.")
    return int(given)


async def list_response(name: str, items: Iterable[Mapping[str, Any]]) -> Response:
    """`{name: [items…]}`. However many there are, the event loop goes on meanwhile."""
    encoded = await in_slices(msgspec.json.encode(item) for item in items)
    return Response(b'{"%b":[%b]}' % (name.encode(), b",".join(encoded)), media_type="application/json")


def is_forced(request: Request) -> bool:
    """Whether the query says `force=true`.

    Raises:
        InvalidRequest: it says something else.
    """
    word = request.query_params.get("force", "false")
    if word not in {"true", "false"}:
        raise InvalidRequest("[force] must be true or false.")
    return word == "true"
