"""`/api/jobs`: what the gateway does in the background, which is batches of all keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.batches import Batch, Page
from hubgate.domain.errors import InvalidRequest
from hubgate.service.batches.batches import Batches
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.request_context import key_of

_DEFAULT_LISTED, _MAX_LISTED = 100, 1000


class JobsApi:
    def __init__(self, batches: Batches, access: Access) -> None:
        self._batches = batches
        self._access = access

    async def list(self, request: Request) -> Response:
        limit = request.query_params.get("limit", str(_DEFAULT_LISTED))
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= _MAX_LISTED:
            raise InvalidRequest(f"[limit] must be a whole number from 1 to {_MAX_LISTED}.")
        page = Page(int(limit), request.query_params.get("after"))
        found = await self._batches.list(key_of(request.scope), page)
        names = self._names()
        return json_response({"jobs": [job_json(batch, names) for batch in found]})

    async def show(self, request: Request) -> Response:
        found = await self._batches.find(key_of(request.scope), request.path_params["job"])
        return json_response(job_json(found, self._names()))

    async def cancel(self, request: Request) -> Response:
        found = await self._batches.cancel(key_of(request.scope), request.path_params["job"])
        return json_response(job_json(found, self._names()))

    async def resume(self, request: Request) -> Response:
        found = await self._batches.resume(key_of(request.scope), request.path_params["job"])
        return json_response(job_json(found, self._names()))

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/jobs",
                handler=self.list,
                summary="Lists the batches of all keys, newest first.",
                query={
                    "limit": f"at most {_MAX_LISTED}; {_DEFAULT_LISTED} by default",
                    "after": "the id of the last job of the page before",
                },
            ),
            ApiRoute(
                method="GET",
                path="/jobs/{job}",
                handler=self.show,
                summary="Returns a job: its state, rate, remaining time and failed requests.",
            ),
            ApiRoute(
                method="POST",
                path="/jobs/{job}/cancel",
                handler=self.cancel,
                summary="Cancels a job. What is answered by then is in its output.",
            ),
            ApiRoute(
                method="POST",
                path="/jobs/{job}/resume",
                handler=self.resume,
                summary="Sends again what has no successful answer in a job that has ended.",
            ),
        )

    def _names(self) -> Mapping[str, str]:
        return {key.id: key.name for key in self._access.list()}


def job_json(batch: Batch, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": batch.id,
        "kind": "batch",
        "status": batch.shown_status,
        "key": batch.key,
        "key_name": names.get(batch.key),
        "path": batch.path,
        "model": batch.model,
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
        "rate": round(batch.rate, 2),
        "remaining_seconds": None if batch.remaining_seconds is None else round(batch.remaining_seconds),
        "waiting_for": batch.waiting_for or None,
        "created_at": batch.created_at,
        "started_at": batch.in_progress_at,
        "ended_at": batch.ended_at,
        "expires_at": batch.expires_at,
        "input_file": batch.input_file,
        "output_file": batch.output_file,
        "error_file": batch.error_file,
        "errors": batch.faults,
        "metadata": batch.metadata,
    }
