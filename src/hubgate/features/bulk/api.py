"""`/api/jobs`: what the gateway does in the background, which is batches of all keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.features.bulk.batch_estimate import estimate_batch
from hubgate.features.bulk.batches.batches import Batches
from hubgate.features.bulk.batches.model import Batch, Page
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.admin.paging import MAX_LIMIT, requested_page
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.http.request_context import key_of

_DEFAULT_LISTED = 100


class EstimateForm(msgspec.Struct, forbid_unknown_fields=True):
    input_file_id: str
    """Of a file uploaded to `/v1/files`."""


_ESTIMATE = msgspec.json.Decoder(EstimateForm)


class JobsApi:
    def __init__(self, gateway: Gateway, batches: Batches, access: Access) -> None:
        self._gateway = gateway
        self._batches = batches
        self._access = access

    async def list(self, request: Request) -> Response:
        limit, after = requested_page(request)
        page = Page(limit or _DEFAULT_LISTED, after)
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

    async def estimate(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _ESTIMATE)
        key = key_of(request.scope)
        return json_response(await estimate_batch(self._gateway, self._batches, key, form.input_file_id))

    async def files(self, _: Request) -> Response:
        room, names = self._batches.files.room, self._names()
        used, keys = await self._batches.files.held()
        return json_response(
            {
                "bytes": used,
                "most_bytes": room.total_bytes,
                "most_bytes_of_key": room.key_bytes,
                "keys": [
                    {"key": key, "key_name": names.get(key), "files": held.files, "bytes": held.bytes}
                    for key, held in keys
                ],
            }
        )

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/files",
                handler=self.files,
                summary="Returns how much room the files of batches take, and which keys hold it.",
            ),
            ApiRoute(
                method="GET",
                path="/jobs",
                handler=self.list,
                summary="Lists the batches of all keys, newest first.",
                query={
                    "limit": f"at most {MAX_LIMIT}; {_DEFAULT_LISTED} by default",
                    "after": "the id of the last job of the page before",
                },
            ),
            ApiRoute(
                method="POST",
                path="/jobs/estimate",
                handler=self.estimate,
                summary="Estimates a batch of an uploaded file, without calling a model.",
                body=EstimateForm,
                example={"input_file_id": "file-…"},
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
        return self._access.names


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
