"""`/api/audit`: who changed what."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.admin.paging import parse_int

_MAX_CHANGES = 1000


class RecordsApi:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def audit(self, request: Request) -> Response:
        params = request.query_params
        limit = parse_int("limit", params.get("limit", "100"), 1, _MAX_CHANGES)
        before = params.get("before")
        before_id = None if before is None else parse_int("before", before, 0, 2**62)
        changes = await self._gateway.audit.read(limit, before_id)
        names = self._access.names
        shown = [
            {
                "id": number,
                "at": change.at,
                "who": change.who,
                "who_name": names.get(change.who, change.who),
                "verb": change.verb,
                "subject": change.subject,
                "changes": change.changes,
            }
            for number, change in changes
        ]
        return json_response({"changes": shown})

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/audit",
                handler=self.audit,
                summary="Returns who changed what, newest first.",
                query={
                    "limit": f"number of changes, 100 by default, at most {_MAX_CHANGES}",
                    "before": "the id of a change: returns only older ones",
                },
            ),
        )
