"""OpenAI's batches: `/v1/batches`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hubgate.features.bulk.batches.batches import Batches, NewBatch
from hubgate.features.bulk.batches.model import Batch, BatchStatus
from hubgate.features.bulk.face.lists import json_response, page_of, rendered_page
from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.http.request_context import context_of, key_of

_DEFAULT_LISTED, _MAX_LISTED = 20, 100


class OutputExpiry(msgspec.Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: int


class BatchForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiry | None = None


_FORM = msgspec.json.Decoder(BatchForm)


class BatchesApi:
    def __init__(self, batches: Batches, limits: SharedKeyLimits) -> None:
        self._batches = batches
        self._limits = limits

    async def create(self, request: Request) -> Response:
        key = key_of(request.scope)
        if key.is_limited:
            await self._limits.admit(key, context_of(request.scope).started)
        form = decode(await read_json_body(request), _FORM)
        expiry = form.output_expires_after
        new = NewBatch(
            input_file=form.input_file_id,
            path=form.endpoint,
            window=form.completion_window,
            metadata=form.metadata,
            output_seconds=expiry.seconds if expiry else None,
        )
        return json_response(batch_object(await self._batches.create(key, new)))

    async def list(self, request: Request) -> Response:
        page = page_of(request, default=_DEFAULT_LISTED, maximum=_MAX_LISTED)
        found = await self._batches.list(key_of(request.scope), page.one_more())
        return rendered_page([batch_object(batch) for batch in found], page)

    async def retrieve(self, request: Request) -> Response:
        found = await self._batches.find(key_of(request.scope), request.path_params["batch"])
        return json_response(batch_object(found))

    async def cancel(self, request: Request) -> Response:
        found = await self._batches.cancel(key_of(request.scope), request.path_params["batch"])
        return json_response(batch_object(found))

    def routes(self) -> Sequence[Route]:
        return [
            route
            for prefix in ("/v1/batches", "/batches")
            for route in (
                Route(prefix, self.create, methods=["POST"]),
                Route(prefix, self.list, methods=["GET"]),
                Route(f"{prefix}/{{batch}}", self.retrieve, methods=["GET"]),
                Route(f"{prefix}/{{batch}}/cancel", self.cancel, methods=["POST"]),
            )
        ]


def batch_object(batch: Batch) -> dict[str, Any]:
    """OpenAI's fields. Files that are not written yet are not shown."""
    ended = _seconds(batch.ended_at)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.path,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.faults} if batch.faults else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.shown_status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": int(batch.expires_at),
        "finalizing_at": _seconds(batch.finalizing_at),
        "completed_at": ended if batch.status is BatchStatus.COMPLETED else None,
        "failed_at": ended if batch.status is BatchStatus.FAILED else None,
        "expired_at": ended if batch.status is BatchStatus.EXPIRED else None,
        "cancelling_at": _seconds(batch.cancel_at),
        "cancelled_at": ended if batch.status is BatchStatus.CANCELLED else None,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)
