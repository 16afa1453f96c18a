"""The audit page: who changed what, the newest first."""

from __future__ import annotations

from starlette.responses import Response

from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import Visit

PER_PAGE = 50
VERBS = frozenset(
    {
        *("endpoint.add", "endpoint.change", "endpoint.remove"),
        *("connection.add", "connection.change", "connection.remove"),
        *("key.create", "key.change", "key.revoke"),
        *("session.begin", "session.end", "session.refuse", "cache.clear"),
    }
)
"""Changes that have words, under `audit.<verb>`; others are shown by the name that the API has for them."""


class AuditPage:
    """The audit log."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def show(self, visit: Visit) -> Response:
        """One page of changes: the newest, or those before the one that `?before=` names."""
        asked = visit.request.query_params.get("before", "")
        before = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 19 else None
        found = await self._gateway.audit.read(PER_PAGE + 1, before)
        shown = found[:PER_PAGE]
        return visit.page(
            "audit.html",
            changes=[change for _, change in shown],
            names={key.id: key.name for key in self._access.list()},
            verbs=VERBS,
            is_first=before is None,
            older=shown[-1][0] if len(found) > PER_PAGE else None,
        )
